"""What, where, mend: the text of errors, their families and exit codes."""

from __future__ import annotations

import pickle

import pytest

from rivage.core import errors
from rivage.core.errors import (
    ConfigError,
    MissingExtra,
    RivageError,
    StoreError,
    nearest,
    require,
    require_extra,
    require_one_of,
)

FAMILIES = {
    "ConfigError": (ValueError, 2),
    "DataError": (ValueError, 2),
    "ShapeError": (ValueError, 2),
    "ProtocolError": (RuntimeError, 1),
    "StoreError": (RuntimeError, 1),
    "MissingExtra": (ImportError, 2),
}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "rounds is -1"),
        ({"where": "study.toml, run"}, "study.toml, run: rounds is -1"),
        ({"mend": "Give 1 or more."}, "rounds is -1. Give 1 or more."),
        ({"where": "study.toml", "mend": "Give 1."}, "study.toml: rounds is -1. Give 1."),
    ],
)
def test_text(parts, text):
    assert str(RivageError("rounds is -1", **parts)) == text


@pytest.mark.parametrize("end", [".", "?", "!"])
def test_a_sentence_gets_no_second_full_stop(end):
    assert str(RivageError(f"no data{end}", mend="Add some.")) == f"no data{end} Add some."


def test_an_error_is_never_empty():
    with pytest.raises(AssertionError):
        RivageError("")


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    kind = getattr(errors, name)
    family, code = FAMILIES[name]
    assert issubclass(kind, RivageError)
    assert issubclass(kind, family)
    assert kind.exit_code == code
    assert str(kind("x", where="y", mend="Z.")) == "y: x. Z."


def test_every_error_is_tested():
    assert {name for name in errors.__all__ if name.endswith(("Error", "Extra"))} == {*FAMILIES, "RivageError"}


def test_at_puts_a_place_in_front_and_keeps_the_rest():
    error = ConfigError("is 0", where="methods 2", mend="Give 1.")
    moved = error.at("study.toml")
    assert type(moved) is ConfigError
    assert str(moved) == "study.toml, methods 2: is 0. Give 1."
    assert str(ConfigError("is 0").at("study.toml")) == "study.toml: is 0"
    assert str(error) == "methods 2: is 0. Give 1."


@pytest.mark.parametrize("name", FAMILIES)
def test_errors_cross_processes(name):
    """Worker processes hand their errors back by value."""
    error = getattr(errors, name)("x", where="y", mend="Z.")
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.where) == (type(error), str(error), "y")


def test_nearest():
    assert nearest("componets", ["components", "learning_rate"]) == 'Did you mean "components"?'
    assert nearest("zzz", ["components"]) == ""
    assert nearest("x", []) == ""


@pytest.mark.parametrize(
    ("value", "bounds", "mend"),
    [
        (0.0, {"above": 0.0}, "Give a number greater than 0.0."),
        (-1.0, {"least": 0.5}, "Give a number of at least 0.5."),
        (float("inf"), {"above": 0.0}, "Give a finite number greater than 0.0."),
        (float("nan"), {"least": 0.0}, "Give a finite number of at least 0.0."),
    ],
)
def test_require_refuses_what_is_out_of_range(value, bounds, mend):
    with pytest.raises(ConfigError) as caught:
        require(value, "rate", **bounds)
    assert str(caught.value) == f"rate is {value}. {mend}"


def test_require_lets_the_range_pass():
    require(0.1, "rate", above=0.0)
    require(0.0, "rate", least=0.0)


def test_require_extra_imports():
    assert require_extra("json", extra="none", purpose="Reading").loads("1") == 1


def test_require_extra_names_purpose_and_command():
    with pytest.raises(MissingExtra) as caught:
        require_extra("matplotlob.pyplot", extra="report", purpose="Drawing figures")
    assert str(caught.value) == ('Drawing figures needs matplotlob. Install it with: pip install "rivage[report]"')
    assert isinstance(caught.value.__cause__, ImportError)


def test_store_errors_are_not_the_users_fault():
    assert not issubclass(StoreError, ValueError)


def test_require_one_of_names_what_there_is():
    require_one_of("b", "arms", ("a", "b"))
    with pytest.raises(ConfigError, match=r'^arms is "d"\. Give "a", "b" or "c"\.$'):
        require_one_of("d", "arms", ("a", "b", "c"))

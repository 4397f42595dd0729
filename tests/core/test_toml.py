from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.toml import apply_overrides, format_toml, load_toml, parse_toml

MAPPING: dict[str, Any] = {
    "run": {"rounds": 50, "seeds": [0, 1, 2]},
    "methods": [
        {"kind": "local"},
        {"kind": "fedavg", "learning_rate": 0.05},
        {"name": "mixture", "kind": "fedem"},
        {"name": "dotted.name", "kind": "fedem"},
    ],
}


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("run.rounds=5", ("run", "rounds"), 5),
        ("run.rounds = 5 ", ("run", "rounds"), 5),
        ("run.seeds=[7, 8]", ("run", "seeds"), [7, 8]),
        ("run.seeds.2=9", ("run", "seeds", 1), 9),
        ("run.dtype=float64", ("run", "dtype"), "float64"),
        ('run.dtype="float64"', ("run", "dtype"), "float64"),
        ("run.log=clients:[1, 2]", ("run", "log"), "clients:[1, 2]"),
        ("task.options={width = 3}", ("task", "options"), {"width": 3}),
        ("task.options.width=3", ("task", "options", "width"), 3),
        ("methods.2.learning_rate=1e-3", ("methods", 1, "learning_rate"), 1e-3),
        ("methods.fedavg.learning_rate=1", ("methods", 1, "learning_rate"), 1),
        ("methods.mixture.components=4", ("methods", 2, "components"), 4),
        ('methods."dotted.name".components=4', ("methods", 3, "components"), 4),
        ("name=a=b", ("name",), "a=b"),
        ("name=", ("name",), ""),
        ("name=1\nrun = 2", ("name",), "1\nrun = 2"),
    ],
)
def test_an_override_sets_one_value_and_nothing_else(override: str, path: tuple[Any, ...], value: Any) -> None:
    changed = apply_overrides(MAPPING, [override])
    branch: Any = changed
    for key in path[:-1]:
        branch = branch[key]
    assert branch[path[-1]] == value
    del branch[path[-1]]
    original: Any = apply_overrides(MAPPING, [])
    branch = original
    for key in path[:-1]:
        branch = branch.get(key, {}) if isinstance(branch, dict) else branch[key]
    if isinstance(branch, list):
        del branch[path[-1]]
    else:
        branch.pop(path[-1], None)
    changed.pop("task", None)
    assert changed == original


def test_the_mapping_given_is_not_changed_and_later_overrides_win() -> None:
    before = format_toml(MAPPING)
    assert apply_overrides(MAPPING, ["run.rounds=1", "run.rounds=2"])["run"]["rounds"] == 2
    assert format_toml(MAPPING) == before


def test_a_kind_that_is_there_twice_is_no_address() -> None:
    twice = {"methods": [{"kind": "a", "name": "x"}, {"kind": "a", "name": "y"}]}
    with pytest.raises(ConfigError, match="methods has no entry"):
        apply_overrides(twice, ["methods.a.b=1"])


@pytest.mark.parametrize("override", ["run.rounds", "=5", ".=5", "run..rounds=5", 'run."rounds=5', "", "run.=5"])
def test_malformed_overrides_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="is not an override"):
        apply_overrides(MAPPING, [override])


@pytest.mark.parametrize("override", ["methods.0.x=1", "methods.5.x=1", "methods.mixtur.x=1", "run.seeds.4=1"])
def test_entries_that_do_not_exist_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="has no entry"):
        apply_overrides(MAPPING, [override])


def test_a_path_through_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'"run\.rounds" holds a value and has no "x"'):
        apply_overrides(MAPPING, ["run.rounds.x.y=1"])


values = st.recursive(
    st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.booleans() | st.text("ab \"'=.\n#é", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", min_size=1, max_size=4), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.text(max_size=4).filter(lambda t: t.isprintable()), values, max_size=4))
def test_text_and_mapping_are_inverse(mapping: dict[str, Any]) -> None:
    assert parse_toml(format_toml(mapping)) == mapping


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    with suppress(ConfigError):
        parse_toml(text, "f.toml")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = 1\nb = = 2\n", "line 2, column 5"),
        ("a = [1,\n", "line 1, column 8"),
        ("a = 1\na = 2\n", "line 2, column 6"),
        ("[t]\nx = 'unfinished", "line 2, column 16"),
    ],
)
def test_faults_have_line_and_column(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml(text, "f.toml")
    assert caught.value.where == f"f.toml, {place}"


def test_files(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("a = 'é'", "utf-8")
    assert load_toml(tmp_path / "study.toml") == {"a": "é"}
    (tmp_path / "latin.toml").write_bytes("a = 'é'".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 5 is not UTF-8"):
        load_toml(tmp_path / "latin.toml")


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "study.toml").touch()
    (tmp_path / "notes.md").touch()
    with pytest.raises(ConfigError, match=r'study\.toml\. Did you mean "study\.toml"\?$') as caught:
        load_toml(tmp_path / "studi.toml")
    assert caught.value.where == str(tmp_path / "studi.toml")
    with pytest.raises(ConfigError, match="is a folder, not a TOML file"):
        load_toml(tmp_path)
    with pytest.raises(ConfigError, match="does not exist either"):
        load_toml(tmp_path / "nowhere" / "study.toml")

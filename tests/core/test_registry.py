"""Kinds: built-in, from entry points, unknown."""

from __future__ import annotations

import sys
from collections import OrderedDict
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from rivage.core import registry as module
from rivage.core.errors import ConfigError
from rivage.core.registry import Registry, locate

KINDS = Registry("rivage.things", "thing", {"ordered": "collections:OrderedDict", "lost": "no.such.module:X"})


@pytest.fixture
def plugins(monkeypatch):
    points = [
        EntryPoint("counter", "collections:Counter", "rivage.things"),
        EntryPoint("ordered", "collections:deque", "rivage.things"),
    ]

    def entry_points(*, group: str) -> EntryPoints:
        return EntryPoints(points).select(group=group)

    monkeypatch.setattr(module, "entry_points", entry_points)


def test_locate():
    assert locate("collections:OrderedDict") is OrderedDict


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("collections", 'x: "collections" is not a Python path. Write it as "package.module:name".'),
        ("collections:", 'x: "collections:" is not a Python path. Write it as "package.module:name".'),
        (
            "no_such:thing",
            "x: cannot import \"no_such\" (No module named 'no_such'). "
            "Check the spelling, or add the folder that holds it to PYTHONPATH.",
        ),
        ("collections:OrderdDict", 'x: "collections" has no "OrderdDict". Did you mean "OrderedDict"?'),
        ("collections:zzzzzz", 'x: "collections" has no "zzzzzz". Define "zzzzzz" there.'),
    ],
)
def test_locate_says_what_is_wrong(target, text):
    with pytest.raises(ConfigError) as caught:
        locate(target, where="x")
    assert str(caught.value) == text


def test_builtins():
    assert KINDS.get("ordered") is OrderedDict
    assert list(KINDS) == ["lost", "ordered"]


def test_plugins(plugins):
    assert KINDS.get("counter")("aab")["a"] == 2
    assert list(KINDS) == ["counter", "lost", "ordered"]


@pytest.mark.usefixtures("plugins")
def test_builtins_win():
    assert KINDS.get("ordered") is OrderedDict


def test_unknown_kinds():
    with pytest.raises(ConfigError) as caught:
        KINDS.get("orderd", where="study.toml, methods 1")
    assert str(caught.value) == 'study.toml, methods 1: unknown thing kind "orderd". Did you mean "ordered"?'
    with pytest.raises(ConfigError, match=r"Known kinds: lost, ordered\."):
        KINDS.get("zzz")


def test_looking_at_the_table_imports_nothing():
    table = Registry("rivage.things", "thing", {"poly": "this_is_never_imported:X"})
    assert list(table) == ["poly"]
    assert "this_is_never_imported" not in sys.modules

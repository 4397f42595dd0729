from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rivage.core.errors import ConfigError, DataError, RivageError
from rivage.core.registry import Registry
from rivage.core.settings import Located, OneOf, _plainly, combine, dump, kind_of, read
from rivage.core.toml import format_toml, parse_toml


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0


@dataclass(frozen=True)
class Box:
    sides: tuple[float, float] = (1.0, 2.0)
    inner: Circle = Circle()

    def __post_init__(self) -> None:
        if self.sides[0] < 0:
            raise DataError(f"side is {self.sides[0]}", mend="Give a length.")
        if self.sides[1] < 0:
            raise ValueError("a plug-in's own words")


SHAPES = Registry(
    "rivage.test_shapes",
    "shape",
    {
        "circle": f"{__name__}:Circle",
        "round": f"{__name__}:Circle",
        "box": f"{__name__}:Box",
        "broken": "no_such_module_at_all:Shape",
    },
)


@dataclass(frozen=True)
class Piece:
    shape: Annotated[Any, OneOf(SHAPES)] = field(metadata={"flat": True})
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    title: str
    count: int = 3
    scale: float = 1.0
    shown: bool = True
    mode: Literal["plain", "rich"] = "plain"
    limit: int | None = field(default=10, metadata={"none": "all"})
    rest: float | None = None
    log: str | None = None
    word: str | None = field(default=None, metadata={"none": "all"})
    numbers: tuple[int, ...] = ()
    texts: tuple[str, ...] | str = ()
    size: int | Literal["auto"] = "auto"
    folder: Path = Path("here")
    options: Mapping[str, Any] = field(default_factory=dict)
    circles: Mapping[str, Circle] = field(default_factory=dict)
    frame: Box = Box()
    later: Annotated[Any, Located(f"{__name__}:Circle")] = field(default_factory=Located(f"{__name__}:Circle"))
    shape: Annotated[Any, OneOf(SHAPES)] | None = None
    pieces: tuple[Piece, ...] = ()


numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
circles = st.builds(Circle, numbers)
boxes = st.builds(Box, st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), circles)
shapes = circles | boxes
plain = st.recursive(st.integers(-(2**60), 2**60) | words | st.booleans(), lambda inner: st.lists(inner, max_size=3))
drawings = st.builds(
    Drawing,
    title=words,
    count=st.integers(-(2**60), 2**60),
    scale=numbers,
    shown=st.booleans(),
    mode=st.sampled_from(["plain", "rich"]),
    limit=st.none() | st.integers(0, 9),
    rest=st.none() | numbers,
    log=st.none() | st.just("none") | words,
    word=st.none() | st.just("none"),
    numbers=st.lists(st.integers(-9, 9), max_size=3).map(tuple),
    texts=words | st.lists(words, max_size=3).map(tuple),
    size=st.integers(0, 9) | st.just("auto"),
    folder=st.sampled_from([Path("a/b"), Path("/x"), Path()]),
    options=st.dictionaries(words, plain, max_size=3),
    circles=st.dictionaries(words, circles, max_size=2),
    frame=boxes,
    later=circles,
    shape=st.none() | shapes,
    pieces=st.lists(st.builds(Piece, shapes, words), max_size=3).map(tuple),
)


@given(drawings)
def test_settings_to_toml_to_settings_is_the_identity(drawing: Drawing) -> None:
    assert read(Drawing, parse_toml(format_toml(dump(drawing)))) == drawing


@given(drawings)
def test_dump_is_idempotent_and_states_defaults(drawing: Drawing) -> None:
    once = dump(drawing)
    assert dump(read(Drawing, once)) == once
    assert set(once) >= {"title", "count", "frame", "limit"}


def test_reads_every_annotation() -> None:
    drawing = read(
        Drawing,
        parse_toml(
            """
            title = "t"
            scale = 2
            limit = "all"
            log = "none"
            word = "all"
            numbers = [1, 2]
            texts = "one"
            size = 4
            folder = "a/b"
            options = {deep = {x = [1, "y"]}}
            circles.first.radius = 3
            [frame]
            sides = [1, 2.5]
            [later]
            radius = 7
            [shape]
            kind = "box"
            [[pieces]]
            kind = "circle"
            name = "p"
            radius = 4
            """
        ),
    )
    assert drawing == Drawing(
        title="t",
        scale=2.0,
        limit=None,
        log="none",
        word=None,
        numbers=(1, 2),
        texts="one",
        size=4,
        folder=Path("a/b"),
        options={"deep": {"x": [1, "y"]}},
        circles={"first": Circle(3.0)},
        frame=Box((1.0, 2.5)),
        later=Circle(7.0),
        shape=Box(),
        pieces=(Piece(Circle(4.0), "p"),),
    )
    assert type(drawing.scale) is float, "an integer becomes a float where one is expected"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", 3),
        ("title", True),
        ("count", "3"),
        ("count", 3.0),
        ("count", True),
        ("scale", "1.5"),
        ("scale", True),
        ("shown", 1),
        ("shown", "yes"),
        ("mode", "Plain"),
        ("limit", "none"),
        ("rest", "1"),
        ("numbers", 1),
        ("numbers", [1.0]),
        ("texts", [1]),
        ("size", "autos"),
        ("folder", 1),
        ("options", [1]),
        ("frame", {"sides": [1.0]}),
        ("frame", {"sides": [1.0, 2.0, 3.0]}),
        ("frame", 3),
        ("shape", "box"),
        ("shape", {"kind": 3}),
        ("pieces", {"kind": "box"}),
        ("pieces", [3]),
    ],
)
def test_wrong_types_are_refused_with_key_value_and_expectation(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read(Drawing, {"title": "t", key: value}, "a.toml")
    assert caught.value.where.startswith("a.toml")
    assert " is " in caught.value.what
    assert caught.value.mend.startswith(("It must be ", "Write one or several "))


def test_all_faults_are_reported_at_once_in_the_order_of_the_schema() -> None:
    with pytest.raises(ConfigError) as caught:
        read(
            Drawing,
            {
                "count": "x",
                "colour": 1,
                "frame": {"side": 1, "inner": {"radius": "r"}},
                "pieces": [{"kind": "circle"}, {"kind": "circel"}, {"radius": 1}, {"kind": "box", "sidess": 1}],
            },
            "a.toml",
        )
    head, *lines = str(caught.value).splitlines()
    assert head == "a.toml: 8 problems"
    assert [line.strip().split(". ")[0] for line in lines] == [
        'count is "x"',
        '[frame.inner]: radius is "r"',
        '[frame]: unknown key "side"',
        '[[pieces]] 2: unknown shape kind "circel"',
        '[[pieces]] 3: key "kind" is missing',
        '[[pieces]] 4: unknown key "sidess"',
        'unknown key "colour"',
        'key "title" is missing',
    ]


def test_an_unknown_key_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        read(Drawing, {"title": "t", "pieces": [{"kind": "circle", "radios": 1}]}, "a.toml")
    text = 'a.toml, [[pieces]] 1: unknown key "radios". Circle knows: radius. Did you mean "radius"?'
    assert str(caught.value) == text


def test_the_nearest_key_may_belong_to_the_table_around() -> None:
    with pytest.raises(ConfigError, match='Did you mean "name"'):
        read(Piece, {"kind": "circle", "nam": "x"})


def test_a_refusing_constructor_gets_its_place_and_keeps_its_class() -> None:
    with pytest.raises(DataError) as caught:
        read(Drawing, {"title": "t", "frame": {"sides": [-1, 1]}}, "a.toml")
    assert str(caught.value) == "a.toml, [frame]: side is -1.0. Give a length."


def test_a_value_error_of_a_plugin_becomes_ours() -> None:
    with pytest.raises(ConfigError, match=r"^\[frame\]: a plug-in's own words$"):
        read(Drawing, {"title": "t", "frame": {"sides": [1, -1]}})


def test_a_kind_that_cannot_be_imported_is_reported_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^a.toml, \[shape\]: cannot import"):
        read(Drawing, {"title": "t", "shape": {"kind": "broken"}}, "a.toml")


def test_located_classes_are_imported_only_when_read() -> None:
    mark = Located("no_such_module_at_all:Name")
    with pytest.raises(ConfigError, match="cannot import"):
        mark()


def test_of_two_names_the_first_of_the_table_is_written() -> None:
    assert kind_of(SHAPES, Circle()) == "circle"
    assert read(Drawing, {"title": "t", "shape": {"kind": "round"}}) == Drawing(title="t", shape=Circle())


def test_what_is_not_registered_cannot_be_written() -> None:
    registry = Registry("rivage.test_empty", "shape", {"alias": f"{__name__}:Box"})
    with pytest.raises(ConfigError, match="Circle is not a registered shape"):
        kind_of(registry, Circle())


def test_kind_of_looks_behind_reexports() -> None:
    registry = Registry("rivage.test_exports", "error", {"config": "rivage.core.settings:ConfigError"})
    assert kind_of(registry, ConfigError("x")) == "config"


def test_one_problem_stays_itself_and_several_become_a_list() -> None:
    one: RivageError = DataError("a", mend="B.")
    assert combine([one]) is one
    assert str(combine([one, ConfigError("c")], "f")) == "f: 2 problems\n  a. B.\n  c"


@given(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["auto", "1", "x"]),
    st.sampled_from([bool, int, float, str, Literal["auto", 1], Literal[True]]),
)
def test_what_is_plainly_right_is_what_pydantic_takes_as_it_is(value: Any, hint: Any) -> None:
    if _plainly(value, hint):
        taken = TypeAdapter(hint).validate_python(value, strict=True)
        assert (taken, type(taken)) == (value, type(value))


def test_plain_values_are_read_without_pydantic() -> None:
    program = (
        "import sys; from dataclasses import make_dataclass; from rivage.core.settings import read;"
        "cls = make_dataclass('Plain', [('size', int | str), ('sides', tuple[float, ...])]);"
        "print(read(cls, {'size': 'large', 'sides': [1.0, 2.5]}, '').sides, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(1.0, 2.5) False\n", done.stderr

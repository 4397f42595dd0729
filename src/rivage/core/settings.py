"""Frozen dataclasses are the schema: a plain mapping (from TOML) becomes objects, and objects a mapping.

`read` builds a dataclass from a mapping and reports *every* fault at once, each with its place, what was
received and how to mend it; `dump` is the inverse, defaults included. What an annotation may say:

==================================  ==========================================================================
annotation                          in TOML
==================================  ==========================================================================
``int float str bool Literal``      themselves; an integer is accepted for a float, nothing else is converted
``Path``                            text
``tuple[X, ...]``, ``tuple[X, Y]``  array
``Mapping[str, X]``                 table
a dataclass                         table; unknown keys are refused
``Annotated[P, OneOf(REGISTRY)]``   table whose ``kind`` names the dataclass that gets the other keys
``Annotated[T, Located("m:T")]``    table of a dataclass that is imported only when it is read
``X | None``                        left out when None is the default; otherwise a word for None
==================================  ==========================================================================

The word for None is ``"none"``, or given by the field: ``field(default=8, metadata={"none": "all"})``.
A field with metadata ``{"flat": True}`` gets the keys of its table that the class around it does not know.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin

from rivage.core.errors import ConfigError, RivageError, nearest
from rivage.core.registry import locate
from rivage.core.schema import (
    Field,
    Located,
    OneOf,
    describe,
    fields_of,
    is_array,
    is_table,
    kind_of,
    mark_of,
    options,
)
from rivage.core.toml import format_toml

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Located", "OneOf", "combine", "dump", "kind_of", "read"]

T = TypeVar("T")
Path_ = tuple[str | int, ...]
"""Keys from the root down to a table; a number is a position from 1 within an array of tables."""

_BAD: Any = object()
"""Stands for a value whose fault has been noted."""


def read(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """The object that a mapping describes.

    Args:
        cls: a dataclass.
        mapping: what `rivage.core.toml` makes of a file.
        where: what the mapping is called in errors, usually a file name.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    reader = _Reader()
    result = reader.table(cls, mapping, ())
    if reader.problems:
        raise combine(reader.problems, where)
    return cast(T, result)


def combine(problems: Sequence[RivageError], where: str = "") -> RivageError:
    """One error for all: itself if it is the only one, else a `ConfigError` with one line for each.

    Those that are several already are taken apart.
    """
    if len(problems) == 1:
        return problems[0].at(where) if where else problems[0]
    parts = [part for each in problems for part in (each.parts() if isinstance(each, _Several) else [each])]
    lines = "".join(f"\n  {part}" for part in parts)
    return _Several(f"{len(parts)} problems{lines}", where=where).of(parts)


class _Several(ConfigError):
    """Problems told in one error."""

    problems: tuple[RivageError, ...] = ()

    def of(self, problems: Sequence[RivageError]) -> _Several:
        self.problems = tuple(problems)
        return self

    def at(self, where: str) -> RivageError:
        place = f"{where}, {self.where}" if self.where else where
        return _Several(self.what, where=place, mend=self.mend).of(self.problems)

    def parts(self) -> list[RivageError]:
        """Each with the place of all in front."""
        return [each.at(self.where) if self.where else each for each in self.problems] or [self]


def dump(value: Any) -> dict[str, Any]:
    """The mapping that `read` turns into an equal object: TOML types only, defaults included."""
    table: dict[str, Any] = {}
    for field in fields_of(type(value)):
        plain = _plain(field.hint, getattr(value, field.name))
        if plain is None and field.default is not None:
            plain = field.none
        if field.flat:
            table |= plain
        elif plain is not None:
            table[field.name] = plain
    return table


def _plain(hint: Any, value: Any) -> Any:
    """A value as TOML types, and None as None."""
    if dataclasses.is_dataclass(value):
        marks = [mark for option in options(hint) if (mark := mark_of(option, OneOf))]
        return ({"kind": kind_of(marks[0].registry, value)} if marks else {}) | dump(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        inner = next((get_args(option)[1] for option in options(hint) if len(get_args(option)) == 2), Any)
        return {key: _plain(inner, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        array = next((option for option in options(hint) if is_array(option)), Any)
        return [_plain(member, item) for member, item in zip(_members(array, len(value)), value, strict=True)]
    return value


def _members(array: Any, length: int) -> tuple[Any, ...]:
    """The annotation of each item of ``tuple[X, ...]`` or ``tuple[X, Y]``."""
    args = get_args(array) or (Any, ...)
    return (args[0],) * length if args[-1] is ... else args


def _lists_tables(hint: Any) -> bool:
    return is_array(hint) and any(map(is_table, get_args(hint)))


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a value stands: the path of its table, its key, and its position from 1 within an array."""

    table: Path_
    key: str
    item: int | None = None

    @property
    def label(self) -> str:
        return self.key if self.item is None else f"{self.key} item {self.item}"

    @property
    def path(self) -> Path_:
        return (*self.table, self.key) if self.item is None else (*self.table, self.key, self.item)


def _place(path: Path_) -> str:
    """How a person finds a table: ``[run]``, ``[task.options]``, ``[[methods]] 2, [work]``."""
    places: list[str] = []
    keys: list[str] = []
    for part in path:
        if isinstance(part, int):
            places.append(f"[[{'.'.join(keys)}]] {part}")
            keys = []
        else:
            keys.append(part)
    return ", ".join([*places, f"[{'.'.join(keys)}]"] if keys else places)


class _Reader:
    """Turns plain values into typed ones and notes every fault on the way."""

    def __init__(self) -> None:
        self.problems: list[RivageError] = []

    def fault(self, what: str, path: Path_, mend: str = "") -> Any:
        self.problems.append(ConfigError(what, where=_place(path), mend=mend.strip()))
        return _BAD

    def refused(self, error: RivageError, path: Path_) -> Any:
        self.problems.append(error.at(_place(path)) if path else error)
        return _BAD

    def table(self, cls: Any, mapping: Mapping[str, Any], path: Path_) -> Any:
        """Build ``cls`` from the keys of one table."""
        fields = {field.name: field for field in fields_of(cls) if not field.flat}
        flat = next((field for field in fields_of(cls) if field.flat), None)
        values = {
            name: self.value(field.hint, mapping[name], _Spot(path, name), field)
            for name, field in fields.items()
            if name in mapping
        }
        rest = {key: value for key, value in mapping.items() if key not in fields}
        if flat is None:
            self.refuse_unknown(rest, fields, path, _place(path).rpartition(", ")[2] or cls.__name__)
        else:
            values[flat.name] = self.chosen(flat.hint, rest, path, also=tuple(fields))
        for name, field in fields.items():
            if field.required and name not in values:
                values[name] = self.missing(field, path)
        return _BAD if any(value is _BAD for value in values.values()) else self.build(cls, values, path)

    def build(self, cls: Any, values: Mapping[str, Any], path: Path_) -> Any:
        """Call the constructor; what it refuses gets its place."""
        try:
            return cls(**values)
        except RivageError as error:
            return self.refused(error, path)
        except ValueError as error:  # from a plug-in that does not know our errors
            return self.fault(str(error) or f"{cls.__name__} refuses these values", path)

    def chosen(self, hint: Any, mapping: Mapping[str, Any], path: Path_, also: tuple[str, ...] = ()) -> Any:
        """Build the registered dataclass that ``kind`` names; ``also`` are keys of the table around it."""
        mark = mark_of(hint, OneOf)
        assert mark is not None, "a flat field is annotated with OneOf"
        if "kind" not in mapping:
            return self.fault('key "kind" is missing', path, f"Known kinds: {', '.join(mark.registry)}.")
        kind = self.value(str, mapping["kind"], _Spot(path, "kind"))
        if kind is _BAD:
            return _BAD
        try:
            cls = mark.registry.get(kind)
        except RivageError as error:
            return self.refused(error, path)
        names = [field.name for field in fields_of(cls)]
        unknown = [key for key in mapping if key not in (*names, "kind")]
        self.refuse_unknown(unknown, names, path, cls.__name__, ("kind", *also))
        return self.table(cls, {key: mapping[key] for key in names if key in mapping}, path)

    def refuse_unknown(
        self,
        unknown: Iterable[str],
        known: Iterable[str],
        path: Path_,
        owner: str,
        also: tuple[str, ...] = (),
    ) -> None:
        known = tuple(known)
        listed = f"{owner} knows: {', '.join(known)}." if known else f"{owner} has no settings."
        for key in unknown:
            self.fault(f'unknown key "{key}"', path, f"{listed} {nearest(key, (*known, *also))}")

    def missing(self, field: Field, path: Path_) -> Any:
        option = options(field.hint)[0]
        if _lists_tables(option):
            return self.fault(f"there is no [[{field.name}]]", path, f"Add one or several [[{field.name}]].")
        if not is_table(option):
            return self.fault(f'key "{field.name}" is missing', path, f"It must be {describe(field.hint)}.")
        mark = mark_of(option, OneOf)
        kinds = f" with one of the kinds {', '.join(mark.registry)}" if mark else ""
        table = _place((*path, field.name))
        return self.fault(f"table {table} is missing", path, f"Add {table}{kinds}.")

    def value(self, hint: Any, value: Any, spot: _Spot, field: Field | None = None) -> Any:
        """One value of any annotation."""
        if field is not None and field.optional and field.none == value:
            return None
        if isinstance(value, Mapping):
            table = next((option for option in options(hint) if is_table(option)), None)
            if table is not None:
                return self.structure(table, value, spot.path)
        if isinstance(value, list):
            array = next((option for option in options(hint) if is_array(option)), None)
            if array is not None and len(_members(array, len(value))) == len(value):
                return self.array(array, value, spot)
        return self.leaf(hint, value, spot, field)

    def structure(self, hint: Any, value: Mapping[str, Any], path: Path_) -> Any:
        if mark_of(hint, OneOf):
            return self.chosen(hint, value, path)
        located = mark_of(hint, Located)
        cls = locate(located.target) if located else hint
        if dataclasses.is_dataclass(cls):
            return self.table(cls, value, path)
        inner = get_args(hint)[1] if get_args(hint) else Any
        items = {key: self.value(inner, item, _Spot(path, key)) for key, item in value.items()}
        return _BAD if any(item is _BAD for item in items.values()) else items

    def array(self, hint: Any, value: Sequence[Any], spot: _Spot) -> Any:
        spots = [_Spot(spot.table, spot.key, number + 1) for number in range(len(value))]
        members = _members(hint, len(value))
        items = tuple(map(self.value, members, value, spots))
        return _BAD if any(item is _BAD for item in items) else items

    def leaf(self, hint: Any, value: Any, spot: _Spot, field: Field | None) -> Any:
        """A number, text, truth value or word."""
        leaves = tuple(option for option in options(hint) if not is_table(option) and not is_array(option))
        if Path in leaves and isinstance(value, str):
            return Path(value)
        if any(_plainly(value, leaf) for leaf in leaves):
            return value
        if not leaves:
            return self.wrong(hint, value, spot, field)
        from pydantic import ValidationError

        try:
            return _adapter(leaves).validate_python(value, strict=True)
        except ValidationError:
            return self.wrong(hint, value, spot, field)

    def wrong(self, hint: Any, value: Any, spot: _Spot, field: Field | None) -> Any:
        """Note a value of the wrong type: its key, what was received, what is expected."""
        words = [word for option in options(hint) if get_origin(option) is Literal for word in get_args(option)]
        close = nearest(value, map(str, words)) if isinstance(value, str) else ""
        example = "" if close or spot.item is not None else _example(field)
        mend = f"It must be {describe(hint, field)}{example}. {close}"
        if any(map(_lists_tables, options(hint))):
            mend = f"Write one or several [[{spot.key}]]."
        return self.fault(f"{spot.label} is {_show(value)}", spot.table, mend)


def _plainly(value: Any, leaf: Any) -> bool:
    """Whether a value is of just this type, as most are: so much can be told without loading pydantic, 6 MB."""
    if get_origin(leaf) is Literal:
        return any(type(word) is type(value) and word == value for word in get_args(leaf))
    return type(value) is leaf


@cache
def _adapter(leaves: tuple[Any, ...]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(reduce(operator.or_, leaves))


def _show(value: Any) -> str:
    """A received value as the file spells it, cut at 60 characters."""
    if isinstance(value, Mapping):
        return "a table"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _example(field: Field | None) -> str:
    """``, for example key = default`` when the default is a simple value."""
    if field is None or not isinstance(field.default, (bool, int, float, str)):
        return ""
    return f", for example {format_toml({field.name: field.default}).strip()}"

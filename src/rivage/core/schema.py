"""What the annotations of a settings dataclass mean: which TOML values they accept, and the words for that.

Read by `rivage.core.settings`, which documents what an annotation may be.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from rivage.core.errors import ConfigError
from rivage.core.registry import Registry, locate

__all__ = ["Field", "Located", "OneOf", "describe", "fields_of", "is_table", "kind_of", "mark_of", "options"]

M = TypeVar("M")

_WORDS = {int: "a whole number", float: "a number", str: "text", Path: "a path", bool: "true or false"}


@dataclass(frozen=True, eq=False)  # compared by identity: a registry holds a mapping and has no hash
class OneOf:
    """Marks a table whose ``kind`` chooses among registered dataclasses."""

    registry: Registry


@dataclass(frozen=True)
class Located:
    """Marks a dataclass by its import path ``"package.module:Name"``; calling the mark builds its default."""

    target: str

    def __call__(self) -> Any:
        """An object with the default of every field."""
        return locate(self.target)()


@dataclass(frozen=True, slots=True)
class Field:
    """One setting.

    Args:
        name: its key.
        hint: its annotation.
        default: the value it has when left out; MISSING if it must be given, `Field` if a factory makes it.
        none: the word that stands for None; None if leaving the key out says so.
        flat: whether it shares the table of the dataclass around it.
    """

    name: str
    hint: Any
    default: Any
    none: str | None
    flat: bool

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def optional(self) -> bool:
        """Whether None is one of its values."""
        return type(None) in get_args(self.hint)


def fields_of(cls: Any) -> tuple[Field, ...]:
    """The settings of a dataclass in declared order."""
    return _fields(cls)


@cache
def _fields(cls: Any) -> tuple[Field, ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(
        Field(
            name=field.name,
            hint=hints[field.name],
            default=field.default if field.default_factory is MISSING else Field,
            none=field.metadata.get("none", None if field.default is None else "none"),
            flat=field.metadata.get("flat", False),
        )
        for field in dataclasses.fields(cls)
        if field.init
    )


def options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, None left out; the hint itself if it is none."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    return tuple(option for member in get_args(hint) for option in options(member) if member is not type(None))


def mark_of(hint: Any, mark: type[M]) -> M | None:
    """The mark of this class in an ``Annotated`` hint."""
    if get_origin(hint) is not Annotated:
        return None
    return next((extra for extra in hint.__metadata__ if isinstance(extra, mark)), None)


def is_table(hint: Any) -> bool:
    """Whether values are written as a TOML table."""
    if any(isinstance(extra, (OneOf, Located)) for extra in getattr(hint, "__metadata__", ())):
        return True
    return dataclasses.is_dataclass(hint) or (get_origin(hint) or hint) in (dict, Mapping)


def is_array(hint: Any) -> bool:
    """Whether values are written as a TOML array."""
    return (get_origin(hint) or hint) is tuple


def kind_of(registry: Registry, value: Any) -> str:
    """The name under which the class of ``value`` is registered; of several, the first in the table.

    Raises:
        ConfigError: if it is not registered.
    """
    cls = type(value)
    target = f"{cls.__module__}:{cls.__qualname__}"
    for (
        kind,
        path,
    ) in registry.builtin.items():  # by name first: importing every built-in may need every extra
        if path == target:
            return kind
    for kind in registry:
        if registry.get(kind) is cls:
            return kind
    raise ConfigError(
        f"{cls.__name__} is not a registered {registry.noun}",
        mend=f'Add it to the entry-point group "{registry.group}".',
    )


def describe(hint: Any, field: Field | None = None) -> str:
    """An annotation in plain words, for ``epochs is "ten". It must be …``."""
    words = [_describe_option(option) for option in options(hint)]
    if field is not None and field.optional and field.none is not None:
        words.append(f'"{field.none}"')
    return " or ".join(words)


def _describe_option(option: Any) -> str:
    origin, args = get_origin(option), get_args(option)
    if is_table(option):
        return "a table"
    if origin is Annotated:
        return describe(args[0])
    if origin is Literal:
        return " or ".join(json.dumps(word) for word in args)
    if is_array(option):
        inner = [describe(arg) for arg in args if arg is not ...]
        return f"a list, each item {inner[0]}" if args[-1:] == (...,) else f"a list of {', '.join(inner)}"
    return _WORDS.get(option, str(option))

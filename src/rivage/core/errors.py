"""What can go wrong, and how to mend it.

::

    RivageError
    ├── ConfigError      settings that cannot be read or combined       (also ValueError; exit 2)
    ├── DataError        data that cannot be used as they are           (also ValueError; exit 2)
    ├── ShapeError       arrays that do not fit together                (also ValueError; exit 2)
    ├── ProtocolError    a party broke the protocol of a run            (also RuntimeError; exit 1)
    ├── StoreError       a file of ours that is missing or corrupt      (also RuntimeError; exit 1)
    └── MissingExtra     an optional dependency is not installed        (also ImportError; exit 2)

Every message has three parts: *what* is wrong with the value received, *where* (file and key, client and round),
and *how to mend it*.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from math import isfinite
from types import ModuleType
from typing import ClassVar

__all__ = [
    "ConfigError",
    "DataError",
    "MissingExtra",
    "ProtocolError",
    "RivageError",
    "ShapeError",
    "StoreError",
    "nearest",
    "require",
    "require_extra",
    "require_one_of",
]


class RivageError(Exception):
    """An error that tells what is wrong, where, and how to mend it.

    Args:
        what: the fault, with the value received.
        where: file and key, client and round, or another place the reader can go to.
        mend: what to do about it, as a sentence.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        assert what, "an error is never empty"
        self.what, self.where, self.mend = what, where, mend
        super().__init__(what, where, mend)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.mend:
            text = f"{text if text.endswith(('.', '?', '!')) else text + '.'} {self.mend}"
        return text

    def __reduce__(self) -> tuple[partial[RivageError], tuple[()]]:
        # Exceptions are rebuilt from their positional arguments, ours take keywords; workers send them back.
        return partial(type(self), self.what, where=self.where, mend=self.mend), ()

    def at(self, where: str) -> RivageError:
        """The same error with its place put in front: a caller knows better where the value came from."""
        place = f"{where}, {self.where}" if self.where else where
        return type(self)(self.what, where=place, mend=self.mend)


class ConfigError(RivageError, ValueError):
    """Settings that cannot be read or combined."""

    exit_code = 2


class DataError(RivageError, ValueError):
    """Data that cannot be used as they are."""

    exit_code = 2


class ShapeError(RivageError, ValueError):
    """Arrays that do not fit together."""

    exit_code = 2


class ProtocolError(RivageError, RuntimeError):
    """A party broke the protocol of a run."""


class StoreError(RivageError, RuntimeError):
    """A file of ours that is missing, truncated or corrupt."""


class MissingExtra(RivageError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """The suggestion for a mistyped name: ``'Did you mean "x"?'``, or an empty string when nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'Did you mean "{matches[0]}"?' if matches else ""


def require(value: float, name: str, *, above: float | None = None, least: float | None = None) -> None:
    """Refuse a setting that is not finite or lies outside its range.

    Args:
        value: what was given.
        name: the setting.
        above: the value must be greater than this.
        least: the value must be at least this.

    Raises:
        ConfigError: naming the value and its range.
    """
    kind = "number" if isfinite(value) else "finite number"
    if above is not None and not above < value < float("inf"):
        raise ConfigError(f"{name} is {value}", mend=f"Give a {kind} greater than {above}.")
    if least is not None and not least <= value < float("inf"):
        raise ConfigError(f"{name} is {value}", mend=f"Give a {kind} of at least {least}.")


def require_one_of(value: str, name: str, known: Iterable[str]) -> None:
    """Refuse a setting that is none of the names there are.

    Args:
        value: what was given.
        name: the setting.
        known: names, at least two.

    Raises:
        ConfigError: naming the value and what it may be.
    """
    *first, last = known
    if value not in (*first, last):
        names = ", ".join(f'"{each}"' for each in first)
        raise ConfigError(f'{name} is "{value}"', mend=f'Give {names} or "{last}".')


def require_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises:
        MissingExtra: naming the purpose and the command to run.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{purpose} needs {module.partition('.')[0]}", mend=f'Install it with: pip install "rivage[{extra}]"'
        ) from error

"""Keys become numbers 0, 1, … in the order in which they first appear."""

from __future__ import annotations

from itertools import islice
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray

__all__ = ["Book", "Keys", "book_for"]

Keys = Shaped[ndarray, "n"] | list[str]


def book_for(keys: Keys) -> Book:
    """An empty book for keys of this type."""
    return _Names() if isinstance(keys, list) else _Integers(keys.dtype)


class Book(Protocol):
    """Numbers keys in the order of their first appearance."""

    @property
    def keys(self) -> Shaped[ndarray, "items"]:
        """The key of every number."""
        ...

    def __len__(self) -> int: ...

    def number(self, keys: Any) -> Int64[ndarray, "n"]:
        """The number of each key; new ones are added."""
        ...


class _Grown:
    """An array that grows by doubling; what it has given out stays valid."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._values, self.size = np.empty(1024, dtype), 0

    def extend(self, values: Keys) -> None:
        """O(1) per value, amortised."""
        end = self.size + len(values)
        if end > len(self._values):
            grown = np.empty(max(end, 2 * len(self._values)), self._values.dtype)
            grown[: self.size] = self._values[: self.size]
            self._values = grown
        self._values[self.size : end] = values
        self.size = end

    def view(self) -> Shaped[ndarray, "items"]:
        """What is in it."""
        return self._values[: self.size]


class _Names:
    """Text keys, in a dictionary."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._keys = _Grown(np.dtype(object))

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def keys(self) -> Shaped[ndarray, "items"]:
        return self._keys.view()

    def number(self, keys: list[str]) -> Int64[ndarray, "n"]:
        """O(1) per key."""
        known, numbers = len(self), self._numbers
        found = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(keys))
        self._keys.extend(list(islice(numbers, known, None)) if len(self) > known else [])
        return found


class _Integers:
    """Integer keys, in sorted runs, each more than twice as long as the next: 16 bytes for a key, and itself."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._keys = _Grown(dtype)
        self._runs: list[tuple[Shaped[ndarray, "run"], Int64[ndarray, "run"]]] = []

    def __len__(self) -> int:
        return self._keys.size

    @property
    def keys(self) -> Shaped[ndarray, "items"]:
        return self._keys.view()

    def number(self, keys: Shaped[ndarray, "n"]) -> Int64[ndarray, "n"]:
        """O(n log n + n log² N), amortised."""
        values, first, where = np.unique(keys, return_index=True, return_inverse=True)
        numbers = self._look_up(values)
        new = np.flatnonzero(numbers < 0)
        by_appearance = new[np.argsort(first[new])]
        numbers[by_appearance] = np.arange(len(self), len(self) + len(new))
        self._keys.extend(values[by_appearance])
        self._add(values[new], numbers[new])
        return np.asarray(numbers[where])

    def _look_up(self, values: Shaped[ndarray, "m"]) -> Int64[ndarray, "m"]:
        """The number of each value, −1 for those that are new."""
        numbers = np.full(len(values), -1)
        for keys, numbers_of_keys in self._runs:
            place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
            found = keys[place] == values
            numbers[found] = numbers_of_keys[place[found]]
        return numbers

    def _add(self, keys: Shaped[ndarray, "m"], numbers: Int64[ndarray, "m"]) -> None:
        if not len(keys):
            return
        while self._runs and len(self._runs[-1][0]) <= 2 * len(keys):
            other_keys, other_numbers = self._runs.pop()
            keys, numbers = np.concatenate([other_keys, keys]), np.concatenate([other_numbers, numbers])
            order = np.argsort(keys, kind="stable")  # two sorted runs: a merge
            keys, numbers = keys[order], numbers[order]
        self._runs.append((keys, numbers))

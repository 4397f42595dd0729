"""What lies under the keys of a cache: values and their bytes, and fetches that are under way.

Nothing here locks: whoever calls does. A key is *cached* when the policy says so; its value may still be missing.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

__all__ = ["MISSING", "Flight", "Flights", "Values"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MISSING: Any = object()
"""The value of a key without one."""

Flight = tuple[int, Future[Any]]
"""The thread that fetches, and what it will bring."""


class Values(Generic[K, V]):
    """Values of cached keys.

    Args:
        most_bytes: that they may have together, or None; then nobody counts.
    """

    def __init__(self, most_bytes: int | None) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self.values: dict[K, V] = {}
        self.sizes: dict[K, int] = {}

    def fits(self, size: int) -> bool:
        """Whether there is room for so many bytes more."""
        return self.most_bytes is None or self.bytes + size <= self.most_bytes

    def enter(self, key: K, size: int) -> None:
        """A key comes in that will have so many bytes."""
        self.sizes[key] = size
        self.bytes += size

    def keep(self, key: K, value: V, size: int) -> None:
        """Store the value of a cached key; one that came in without it may turn out to be larger than was said."""
        if self.most_bytes is not None:
            change = size - self.sizes.get(key, 0)
            if not self.fits(change):
                return
            self.sizes[key] = size
            self.bytes += change
        self.values[key] = value

    def drop(self, key: K) -> V | None:
        """A key goes; its value, if there was one."""
        self.bytes -= self.sizes.pop(key, 0)
        return self.values.pop(key, None)


class Flights(Generic[K]):
    """Fetches under way, one for each key at most."""

    def __init__(self) -> None:
        self.under_way: dict[K, Flight] = {}

    def board(self, key: K) -> tuple[Flight, bool]:
        """The flight for a key, and whether the caller is the one who fetches."""
        flight = self.under_way.get(key)
        if flight is not None:
            return flight, False
        flight = self.under_way[key] = threading.get_ident(), Future()
        return flight, True

    def land(self, key: K, flight: Flight) -> bool:
        """End a flight; False if it was called off."""
        if self.under_way.get(key) is not flight:
            return False
        del self.under_way[key]
        return True

    def call_off(self, key: K) -> None:
        """What is under way may be old: its caller gets it, it is not kept."""
        self.under_way.pop(key, None)

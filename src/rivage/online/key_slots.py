"""Slots of a cache for keys of any kind: found, given, taken back.

A key whose value is 0 and that is not cached needs no slot. Such slots are looked for only when new ones are needed,
some at a time, so that no request waits long; where few are found the memory doubles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.online import no_regret_kernel as kernel
from rivage.online import no_regret_memory as words
from rivage.online import wheels

__all__ = ["NOBODY", "KeySlots", "identity"]

K = TypeVar("K", bound=Hashable)

NOBODY: Any = object()
"""Whose a vacant slot is."""

_SCANNED, _ENOUGH = 1024, 256  # slots looked at, and how many of them must be vacant to look at more of them


class KeySlots(Generic[K]):
    """Keys and their slots in the memory of one cache.

    Args:
        memory: see `rivage.online.no_regret_memory.make_memory`.
        bits: of its wheels.
        forgets: take slots back.
    """

    def __init__(self, memory: Int64[ndarray, "words"], bits: int, *, forgets: bool) -> None:
        self.bits, self.forgets, self._hand = bits, forgets, 0
        self.index: dict[K, int] = {}
        self.keys: list[K] = []
        self.free: list[int] = []
        self.open(memory)

    def open(self, memory: Int64[ndarray, "words"]) -> None:
        """Take over a memory with at least as many slots."""
        self.memory, self.store = memory, words.opened(memory)
        first, end = len(self.keys), len(self.store.key)
        self.free = [*range(end - 1, first - 1, -1), *self.free]
        self.keys += [NOBODY] * (end - first)

    def place(self, key: K) -> int:
        """Give a new key a slot; there must be room, see `make_room`, and the kernel must be told of it."""
        slot = self.free.pop()
        self.index[key], self.keys[slot] = slot, key
        return slot

    def first_request(self, key: K, fits: bool) -> int:
        """Serve a request for a key without a slot; what `rivage.online.no_regret_kernel.request` returns."""
        if not self.free:
            self.make_room(1)
        slot = self.place(key)
        told: int = kernel.first_request(self.memory, slot, identity(key), fits)
        return told

    def request_all(self, keys: Sequence[K]) -> tuple[list[bool], int]:
        """Serve at most `BATCH` requests: which were hits, and what `no_regret_kernel.request_all` returns."""
        slots, hits = self.slots_of(keys), np.empty(len(keys), np.bool_)  # may enlarge the memory: first
        told: int = kernel.request_all(self.memory, slots, hits)
        return hits.tolist(), told

    def gone(self, told: int) -> list[K]:
        """Keys that have left the cache during the requests that told this, and are not back."""
        slots = dict.fromkeys(self.store.gone[: told >> 2].tolist())
        return [self.keys[slot] for slot in slots if self.store.shelf[slot] == wheels.OUT]

    def holds(self, key: K) -> bool:
        """Whether a key is cached."""
        slot = self.index.get(key)
        return slot is not None and bool(self.store.shelf[slot] != wheels.OUT)

    def slots_of(self, keys: Sequence[K]) -> Int64[ndarray, "n"]:
        """The slots of many keys; new ones get theirs."""
        self.make_room(len(keys))
        get, news, identities = self.index.get, list[int](), list[int]()
        slots = [get(key, -1) for key in keys]
        for place, slot in enumerate(slots):
            if slot < 0:
                key = keys[place]
                slots[place] = slot = get(key, -1)
                if slot < 0:
                    slots[place] = slot = self.place(key)
                    news.append(slot)
                    identities.append(identity(key))
        if news:
            words.enter(self.memory, np.array(news, np.int64), np.array(identities, np.int64))
        return np.array(slots, np.int64)

    def make_room(self, wanted: int) -> None:
        """Have at least so many vacant slots. Keys without a value may lose theirs: do this before looking any up."""
        while len(self.free) < wanted:
            if not self.forgets or self._take_back(self._hand, self._hand + _SCANNED) < _ENOUGH:
                self.resize(2 * len(self.keys), self.bits)
            else:
                self._hand = (self._hand + _SCANNED) % len(self.keys)

    def resize(self, slots: int, bits: int) -> None:
        """Have other numbers of slots, not fewer, or of buckets."""
        self.bits = bits
        self.open(words.resized(self.memory, slots, bits))

    def tidy(self) -> None:
        """Come to a form that follows from the values alone, so that a copy made of them behaves alike to the bit."""
        if self.forgets:
            self._take_back(0, len(self.keys))
        self._hand = 0
        self.free.sort(reverse=True)
        self.resize(len(self.keys), self.bits)

    def _take_back(self, first: int, end: int) -> int:
        found = [slot for slot in words.vacant(self.memory, first, end).tolist() if self.keys[slot] is not NOBODY]
        for slot in found:
            del self.index[self.keys[slot]]
            self.keys[slot] = NOBODY
        self.free += found
        return len(found)

    def cached(self) -> list[int]:
        """The slots of cached keys."""
        slots: list[int] = np.flatnonzero(self.store.shelf != wheels.OUT).tolist()
        return slots


def identity(key: Hashable) -> int:
    """64 bits of a key, signed: an int is its own; str, bytes and tuples are hashed alike in every process.

    Others follow ``hash(key)``, which may differ from process to process.
    """
    if type(key) is int and -(2**63) <= key < 2**63:
        return key
    if isinstance(key, int | np.integer):
        raw = int(key)
    elif isinstance(key, str | bytes | tuple):
        text = key if isinstance(key, bytes) else (key if isinstance(key, str) else repr(key)).encode(errors="replace")
        raw = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    else:
        raw = hash(key)
    return (raw + 2**63) % 2**64 - 2**63

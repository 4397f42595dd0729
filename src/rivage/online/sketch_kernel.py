"""Counts in a sketch, noise from a hash, and the k items with the largest values: memory that does not grow with N.

A count-min sketch has d rows of w counters; a request adds 1 to one counter per row, chosen by hashing the item, and
the estimate is the smallest of the d: never below the count, and above it by what shares all d counters. *Conservative*
updates raise only the counters that are below the new estimate: estimates are then no larger. Items inside are found
through a table with open addressing, at most half full; the one with the smallest value is at the root of a heap. A
request takes O(d + log k).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

__all__ = ["Sketch", "estimates", "make_sketch", "noises", "rank", "serve_sketch"]

_EMPTY = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF, _TWENTY_SEVEN, _THIRTY_ONE, _ELEVEN = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ONE = np.uint64(1)


class Sketch(NamedTuple):
    """All that a policy remembers.

    Args:
        counters: int64 [d, w].
        item: int64 [k], the heap.
        key: float64 [k], values of the items when they were last asked for or ranked.
        slot: int64 [k], where an item of the heap stands in the table.
        name: int64 [m], the table: an item, or −1.
        place: int64 [m], where in the heap it is.
    """

    counters: ndarray
    item: ndarray
    key: ndarray
    slot: ndarray
    name: ndarray
    place: ndarray

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in self)


def make_sketch(width: int, depth: int, size: int) -> Sketch:
    """Empty. O(d w + k)."""
    table = 1 << (2 * size - 1).bit_length()
    return Sketch(
        np.zeros((depth, width), np.int64),
        np.empty(size, np.int64),
        np.empty(size),
        np.empty(size, np.int64),
        np.full(table, _EMPTY, np.int64),
        np.empty(table, np.int64),
    )


@njit(cache=True)
def _mix(word: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64, which spreads any difference over all bits."""
    word = (word ^ (word >> _HALF)) * _FIRST
    word = (word ^ (word >> _TWENTY_SEVEN)) * _SECOND
    return word ^ (word >> _THIRTY_ONE)


@njit(cache=True)
def _hash(seed: int, item: int, stream: int) -> np.uint64:
    return _mix(_mix(np.uint64(seed) + np.uint64(stream) * _GOLDEN) + np.uint64(item) * _GOLDEN)


@njit(cache=True)
def _noise(seed: int, item: int) -> float:
    """A standard normal number of the item, by Box and Muller; streams 0 and 1 of the hash."""
    radius = float((_hash(seed, item, 0) >> _ELEVEN) + _ONE) / 9007199254740992.0  # in (0, 1]
    angle = float(_hash(seed, item, 1) >> _ELEVEN) / 9007199254740992.0
    return math.sqrt(-2 * math.log(radius)) * math.cos(2 * math.pi * angle)


@njit(cache=True)
def noises(seed: int, items: Int64[ndarray, "n"]) -> Float64[ndarray, "n"]:
    """γ of these items, a pure function of seed and item."""
    found = np.empty(len(items))
    for at, item in enumerate(items):
        found[at] = _noise(seed, item)
    return found


@njit(cache=True)
def _estimate(s: Sketch, seed: int, item: int) -> int:
    depth, width = s.counters.shape
    least = s.counters[0, _hash(seed, item, 2) % np.uint64(width)]
    for row in range(1, depth):
        least = min(least, s.counters[row, _hash(seed, item, 2 + row) % np.uint64(width)])
    return int(least)


@njit(cache=True)
def estimates(s: Sketch, seed: int, items: Int64[ndarray, "n"]) -> Int64[ndarray, "n"]:
    """Estimated counts of these items."""
    found = np.empty(len(items), np.int64)
    for at, item in enumerate(items):
        found[at] = _estimate(s, seed, item)
    return found


@njit(cache=True)
def _count(s: Sketch, seed: int, item: int, conservative: bool) -> int:
    """Add a request; the new estimate."""
    depth, width = s.counters.shape
    goal = _estimate(s, seed, item) + 1
    for row in range(depth):
        at = _hash(seed, item, 2 + row) % np.uint64(width)
        if not conservative or s.counters[row, at] < goal:
            s.counters[row, at] += 1
    return goal


@njit(cache=True)
def _home(s: Sketch, item: int) -> int:
    return int(np.int64(_mix(np.uint64(item) * _GOLDEN) & np.uint64(len(s.name) - 1)))


@njit(cache=True)
def _find(s: Sketch, item: int) -> int:
    """Where in the table an item is; where it would go when it is not."""
    at = _home(s, item)
    while s.name[at] != _EMPTY and s.name[at] != item:
        at = (at + 1) & (len(s.name) - 1)
    return at


@njit(cache=True)
def _remove(s: Sketch, gap: int) -> None:
    """Empty a place of the table, and move up those that the gap would hide."""
    mask, at = len(s.name) - 1, gap
    while True:
        at = (at + 1) & mask
        if s.name[at] == _EMPTY:
            break
        home = _home(s, s.name[at])
        if ((at - home) & mask) >= ((at - gap) & mask):
            s.name[gap], s.place[gap] = s.name[at], s.place[at]
            s.slot[s.place[gap]] = gap
            gap = at
    s.name[gap] = _EMPTY


@njit(cache=True)
def _move(s: Sketch, source: int, target: int) -> None:
    s.item[target], s.key[target], s.slot[target] = s.item[source], s.key[source], s.slot[source]
    s.place[s.slot[target]] = target


@njit(cache=True)
def _settle(s: Sketch, held: int, at: int, item: int, key: float, slot: int) -> None:
    """Put an item into a free place of a heap of ``held`` items, and move it to where it belongs."""
    while at > 0 and key < s.key[(at - 1) >> 1]:
        _move(s, (at - 1) >> 1, at)
        at = (at - 1) >> 1
    while 2 * at + 1 < held:
        child = 2 * at + 1
        if child + 1 < held and s.key[child + 1] < s.key[child]:
            child += 1
        if key <= s.key[child]:
            break
        _move(s, child, at)
        at = child
    s.item[at], s.key[at], s.slot[at] = item, key, slot
    s.place[slot] = at


@njit(cache=True)
def _replace(s: Sketch, item: int, key: float) -> None:
    """The item for the one with the smallest value."""
    _remove(s, s.slot[0])
    slot = _find(s, item)
    s.name[slot] = item
    _settle(s, len(s.item), 0, item, key, slot)


@njit(cache=True)
def rank(s: Sketch, seed: int, items: int, weights: Float64[ndarray, "w"], step: float) -> None:
    """Fill the cache with the largest of all values w n + η γ. O(N (d + log k))."""
    s.name[:] = _EMPTY
    held = 0
    for item in range(items):
        weight = weights[item] if len(weights) else 1.0
        value = weight * _estimate(s, seed, item) + step * _noise(seed, item)
        if held < len(s.item):
            slot = _find(s, item)
            s.name[slot] = item
            held += 1
            _settle(s, held, held - 1, item, value, slot)
        elif value > s.key[0]:
            _replace(s, item, value)


@njit(cache=True)
def serve_sketch(
    s: Sketch,
    seed: int,
    requests: Int64[ndarray, "n"],
    weights: Float64[ndarray, "w"],
    step: float,
    conservative: bool,
) -> tuple[int, float, int]:
    """Hits, their weight, and items that entered."""
    hits, gain, entered = 0, 0.0, 0
    for item in requests:
        weight = weights[item] if len(weights) else 1.0
        slot = _find(s, item)
        hit = s.name[slot] == item
        hits += hit
        gain += weight * hit
        value = weight * _count(s, seed, item, conservative) + step * _noise(seed, item)
        if hit:
            _settle(s, len(s.item), s.place[slot], item, value, slot)
        elif value > s.key[0]:
            _replace(s, item, value)
            entered += 1
    return hits, gain, entered

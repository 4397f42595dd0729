"""The heap of all policies that evict the smallest: four children to a place, keys beside the items.

Keys stand in the order of the heap, so that comparing children reads one line of memory and no item's own entry.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

__all__ = ["ABSENT", "BITS", "Heap", "make_heap", "settle", "sink"]

ABSENT = -1
"""Place of an item that is not inside."""

BITS = 2  # of the four children that a place of the heap has


class Heap(NamedTuple):
    """Items by (key, stamp), the smallest at the root.

    Args:
        place: int32 [items], place in the heap, or `ABSENT`.
        item: int32 [k].
        key: int64 or float64 [k].
        stamp: int64 [k], such as when the item was last requested; what has no better order among equal keys gives 0.
    """

    place: ndarray
    item: ndarray
    key: ndarray
    stamp: ndarray


def make_heap(items: int, size: int, key: type = np.int64) -> Heap:
    """An empty heap. O(N).

    Args:
        items: N.
        size: most items in it.
        key: type of the keys.
    """
    place, item = np.full(items, ABSENT, np.int32), np.empty(size, np.int32)
    return Heap(place, item, np.empty(size, key), np.empty(size, np.int64))


@njit(cache=True)
def settle(h: Heap, held: int, at: int, item: int, key: float, stamp: int) -> None:
    """Put an item into a free place of a heap of ``held`` items, and move it up or down to where it belongs."""
    while at > 0 and _less(key, stamp, h.key[(at - 1) >> BITS], h.stamp[(at - 1) >> BITS]):
        _copy(h, (at - 1) >> BITS, at)
        at = (at - 1) >> BITS
    while (at << BITS) + 1 < held:
        first = least = (at << BITS) + 1
        for child in range(first + 1, min(first + (1 << BITS), held)):
            if _less(h.key[child], h.stamp[child], h.key[least], h.stamp[least]):
                least = child
        if not _less(h.key[least], h.stamp[least], key, stamp):
            break
        _copy(h, least, at)
        at = least
    h.item[at], h.key[at], h.stamp[at], h.place[item] = item, key, stamp, at


@njit(cache=True)
def sink(h: Heap, held: int, at: int, item: int, key: float, stamp: int) -> None:
    """`settle` for an item that cannot move up, since its key has grown or ``at`` is the root.

    Not called by `settle`, which does the same: handing on a heap costs a compiled loop half as much again.
    """
    while (at << BITS) + 1 < held:
        first = least = (at << BITS) + 1
        for child in range(first + 1, min(first + (1 << BITS), held)):
            if _less(h.key[child], h.stamp[child], h.key[least], h.stamp[least]):
                least = child
        if not _less(h.key[least], h.stamp[least], key, stamp):
            break
        _copy(h, least, at)
        at = least
    h.item[at], h.key[at], h.stamp[at], h.place[item] = item, key, stamp, at


@njit(cache=True)
def _less(key: float, stamp: int, other_key: float, other_stamp: int) -> bool:
    return key < other_key or (key == other_key and stamp < other_stamp)


@njit(cache=True)
def _copy(h: Heap, source: int, target: int) -> None:
    h.item[target], h.key[target], h.stamp[target] = h.item[source], h.key[source], h.stamp[source]
    h.place[h.item[target]] = target

"""The k items with the largest values, while values only grow: the smallest of them is at the root of a heap.

An item enters when its value passes the smallest one inside; on a tie the one that is inside stays. O(log k) a change.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numba import njit
from numpy import ndarray

from rivage.online.heap import ABSENT, BITS, Heap, make_heap, settle, sink

__all__ = ["MOVES", "fill", "grow", "make_top", "nudge"]

MOVES = -1.0
"""What `nudge` says when an item would move."""


def make_top(items: int, capacity: int) -> Heap:
    """Nothing inside yet. O(N)."""
    return make_heap(items, capacity, np.float64)


def fill(heap: Heap, values: Float64[ndarray, "items"]) -> None:
    """Put the items with the largest values inside. O(N + k log k)."""
    count = len(heap.item)
    best = np.argpartition(-values, count - 1)[:count]
    heap.item[:] = best[np.argsort(values[best], kind="stable")]  # a sorted array is a heap
    heap.key[:], heap.stamp[:], heap.place[:] = values[heap.item], 0, ABSENT
    heap.place[heap.item] = np.arange(count)


@njit(cache=True)
def grow(item: int, by: float, values: ndarray, heap: Heap, held: int) -> tuple[int, float]:
    """Let one value grow.

    Args:
        item: whose.
        by: how much, >= 0.
        values: of all items.
        heap: the items inside.
        held: how many of its places are in use.

    Returns:
        Places in use, and by how much the sum of the values inside has grown.
    """
    values[item] += by
    value, at, gained = values[item], heap.place[item], by
    if at < 0:
        if held < len(heap.item):
            settle(heap, held + 1, held, item, value, 0)
            return held + 1, value
        gained = value - heap.key[0]
        if gained <= 0:
            return held, 0.0
        heap.place[heap.item[0]], at = ABSENT, 0
    sink(heap, held, at, item, value, 0)
    return held, gained


@njit(cache=True)
def nudge(item: int, by: float, values: ndarray, place: ndarray, key: ndarray, held: int) -> float:
    """`grow` as far as nobody moves: as most often, the item is a leaf of the heap, or outside and stays there.

    Args:
        item: whose value grows.
        by: how much, >= 0.
        values: of all items.
        place: that of the heap.
        key: that of the heap.
        held: how many of its places are in use.

    Returns:
        By how much the sum of the values inside has grown; or `MOVES`, and nothing has changed, when `grow` must be
        called. That gets the heap as a whole, which in compiled loops costs as much as all of this.
    """
    value, at = values[item] + by, place[item]
    if at >= 0 and (at << BITS) + 1 >= held:
        values[item] = key[at] = value
        return by
    if at < 0 and held == len(key) and value <= key[0]:
        values[item] = value
        return 0.0
    return MOVES

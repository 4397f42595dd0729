"""The k items with the largest values, while values only grow: a heap with the smallest of them at its root.

An item enters when its value passes the smallest one inside; on a tie the one that is inside stays. O(log k) a change.
"""

from __future__ import annotations

from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

__all__ = ["ABSENT", "grow", "rise", "sink"]

ABSENT = -1
"""Place of an item that is not inside."""


@njit(cache=True)
def grow(
    item: int,
    by: float,
    values: Float64[ndarray, "items"],
    place: Int64[ndarray, "items"],
    heap: Int64[ndarray, "k"],
    held: int,
) -> tuple[int, float]:
    """Let one value grow.

    Args:
        item: whose.
        by: how much, >= 0.
        values: of all items.
        place: of every item in the heap, or `ABSENT`.
        heap: items.
        held: how many of its places are in use.

    Returns:
        Places in use, and by how much the sum of the values inside has grown.
    """
    values[item] += by
    if place[item] >= 0:
        sink(heap, place, values, place[item], held)
        return held, by
    if held < len(heap):
        heap[held], place[item] = item, held
        rise(heap, place, values, held)
        return held + 1, values[item]
    gained = values[item] - values[heap[0]]
    if gained <= 0:
        return held, 0.0
    place[heap[0]] = ABSENT
    heap[0], place[item] = item, 0
    sink(heap, place, values, 0, held)
    return held, gained


@njit(cache=True)
def sink(heap: ndarray, place: ndarray, values: ndarray, at: int, held: int) -> None:
    """Move an item away from the root until no child has a smaller sum."""
    item = heap[at]
    while True:
        child = 2 * at + 1
        if child >= held:
            break
        if child + 1 < held and values[heap[child + 1]] < values[heap[child]]:
            child += 1
        if values[heap[child]] >= values[item]:
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at], place[item] = item, at


@njit(cache=True)
def rise(heap: ndarray, place: ndarray, values: ndarray, at: int) -> None:
    """Move an item towards the root while it has a smaller sum than its parent."""
    item = heap[at]
    while at > 0 and values[heap[(at - 1) // 2]] > values[item]:
        heap[at] = heap[(at - 1) // 2]
        place[heap[at]] = at
        at = (at - 1) // 2
    heap[at], place[item] = item, at

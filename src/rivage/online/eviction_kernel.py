"""How caches are kept: items in places, lists or a heap, and the kernels that serve requests on them.

A kernel gets (tables, requests, weights), where ``weights`` is empty when all are 1. It changes the tables and returns
hits, their gain, insertions and how many items are cached afterwards. Tables have ``place``, the place of every item,
>= 0 iff the item is cached; places below `ABSENT` mark items that are only remembered. Arrays of length N stand in for
hash tables: no hashing, no allocation while serving.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

from rivage.online.heap import ABSENT, Heap, make_heap, settle
from rivage.online.policy import CacheInstance

__all__ = [
    "Counts",
    "Lists",
    "Slots",
    "append",
    "make_counts",
    "make_lists",
    "make_slots",
    "remove",
    "serve_counts",
    "serve_recency",
    "serve_slots",
]

_HELD, _EVICTED, _RANDOM, _SEED = range(4)


class Slots(NamedTuple):
    """Cached items in a row of k places.

    Args:
        place: int32 [items].
        item: int32 [k], who is in a place.
        ints: see the names above.
    """

    place: ndarray
    item: ndarray
    ints: ndarray


def make_slots(instance: CacheInstance, seed: int | None = None) -> Slots:
    """An empty cache, with random eviction if there is a seed. O(N)."""
    ints = np.zeros(4, np.int64)
    if seed is not None:
        ints[_RANDOM], ints[_SEED] = 1, np.uint64(seed).astype(np.int64)
    return Slots(np.full(instance.items, ABSENT, np.int32), np.empty(instance.capacity, np.int32), ints)


@njit(cache=True)
def _drawn(seed: int, number: int, places: int) -> np.int64:
    """A uniform place: draw ``number`` of SplitMix64, scaled by the high half (bias below places / 2³²)."""
    z = np.uint64(seed) + np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(((z >> np.uint64(32)) * np.uint64(places)) >> np.uint64(32))


@njit(cache=True)
def serve_slots(t: Slots, requests: ndarray, weights: ndarray) -> tuple[int, float, int, int]:
    """FIFO or random eviction."""
    c, capacity = t.ints, len(t.item)
    hits, gain = 0, 0.0
    for item in requests:
        if t.place[item] >= 0:
            hits += 1
            gain += weights[item] if len(weights) else 1.0
            continue
        if c[_HELD] < capacity:
            at = c[_HELD]
            c[_HELD] += 1
        else:
            at = _drawn(c[_SEED], c[_EVICTED], capacity) if c[_RANDOM] else c[_EVICTED] % capacity
            c[_EVICTED] += 1
            t.place[t.item[at]] = ABSENT
        t.item[at], t.place[item] = item, at
    return hits, gain, len(requests) - hits, c[_HELD]


class Lists(NamedTuple):
    """Doubly linked rings of items; an item is in one of them at most.

    Args:
        place: int8 [items], number of the list, or negative.
        after: int32 [items + lists], next item; of list number l the oldest item stands at items + l.
        before: int32 [items + lists], previous item; of list number l the newest item stands at items + l.
        length: int64 [lists].
        capacity: int64 [1], k.
    """

    place: ndarray
    after: ndarray
    before: ndarray
    length: ndarray
    capacity: ndarray


def make_lists(instance: CacheInstance, lists: int) -> Lists:
    """Empty lists. O(N)."""
    heads = np.arange(instance.items + lists, dtype=np.int32)  # an empty ring points at itself
    return Lists(
        place=np.full(instance.items, ABSENT, np.int8),
        after=heads,
        before=heads.copy(),
        length=np.zeros(lists, np.int64),
        capacity=np.array([instance.capacity]),
    )


@njit(cache=True)
def append(t: Lists, number: int, item: int) -> None:
    """Make an item of no list the newest of one; its ``place`` is left to the caller."""
    head = len(t.place) + number
    newest = t.before[head]
    t.after[newest], t.before[item] = item, newest
    t.after[item], t.before[head] = head, item
    t.length[number] += 1


@njit(cache=True)
def remove(t: Lists, number: int, item: int) -> None:
    """Take an item out of the list it is in; its ``place`` is left to the caller."""
    t.after[t.before[item]], t.before[t.after[item]] = t.after[item], t.before[item]
    t.length[number] -= 1


@njit(cache=True)
def serve_recency(t: Lists, requests: ndarray, weights: ndarray) -> tuple[int, float, int, int]:
    """LRU, on list 0."""
    hits, gain, items = 0, 0.0, len(t.place)
    for item in requests:
        if t.place[item] >= 0:
            hits += 1
            gain += weights[item] if len(weights) else 1.0
            remove(t, 0, item)
        elif t.length[0] == t.capacity[0]:
            oldest = t.after[items]
            remove(t, 0, oldest)
            t.place[oldest] = ABSENT
        append(t, 0, item)
        t.place[item] = 0
    return hits, gain, len(requests) - hits, t.length[0]


_COUNTED, _TIME, _AGE = range(3)


class Counts(NamedTuple):
    """Requests counted, and the cached items by their counts.

    Args:
        place: that of the heap.
        heap: cached items by (count + age when last requested, last request).
        counts: int64 [items].
        window: int32 [W], the last W requests; empty when all count.
        ints: see the names above.
        forgets: an evicted item loses its count.
        ages: the key of a victim is added to later keys.
        bypass: what does not exceed the smallest key does not come in.
    """

    place: ndarray
    heap: Heap
    counts: ndarray
    window: ndarray
    ints: ndarray
    forgets: bool
    ages: bool
    bypass: bool


def make_counts(
    instance: CacheInstance, *, window: int = 0, forgets: bool = False, ages: bool = False, bypass: bool = False
) -> Counts:
    """An empty cache and no requests. O(N + W)."""
    heap = make_heap(instance.items, instance.capacity)
    return Counts(
        place=heap.place,
        heap=heap,
        counts=np.zeros(instance.items, np.int64),
        window=np.full(window, ABSENT, np.int32),
        ints=np.zeros(3, np.int64),
        forgets=forgets,
        ages=ages,
        bypass=bypass,
    )


@njit(cache=True)
def _slide(t: Counts, item: int) -> None:
    """The window moves on by one request: the oldest no longer counts."""
    h, c = t.heap, t.ints
    at = c[_TIME] % len(t.window)
    old = t.window[at]
    t.window[at] = item
    if old >= 0:
        t.counts[old] -= 1
        if t.place[old] >= 0:
            settle(h, c[_COUNTED], t.place[old], old, t.counts[old], h.stamp[t.place[old]])


@njit(cache=True)
def serve_counts(t: Counts, requests: ndarray, weights: ndarray) -> tuple[int, float, int, int]:
    """The LFU family."""
    h, c, place = t.heap, t.ints, t.heap.place
    hits, gain, inserted = 0, 0.0, 0
    for item in requests:
        if len(t.window):
            _slide(t, item)
        t.counts[item] += 1
        if place[item] >= 0:
            hits += 1
            gain += weights[item] if len(weights) else 1.0
            settle(h, c[_COUNTED], place[item], item, t.counts[item] + c[_AGE], c[_TIME])
        elif c[_COUNTED] < len(h.item):
            inserted += 1
            c[_COUNTED] += 1
            settle(h, c[_COUNTED], c[_COUNTED] - 1, item, t.counts[item] + c[_AGE], c[_TIME])
        elif not t.bypass or h.key[0] < t.counts[item]:
            inserted += 1
            place[h.item[0]] = ABSENT
            if t.forgets:
                t.counts[h.item[0]] = 0
            if t.ages:
                c[_AGE] = h.key[0]
            settle(h, c[_COUNTED], 0, item, t.counts[item] + c[_AGE], c[_TIME])
        c[_TIME] += 1
    return hits, gain, inserted, c[_COUNTED]

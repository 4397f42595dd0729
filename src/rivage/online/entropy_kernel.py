"""Multiplicative updates on the capped simplex, one request at a time, in constant time, and their sampling.

The fractional state is x_i = min(1, exp(key_i − ρ)); `rivage.online.mirror_descent` says why a request changes one key
and ρ only. Cached are the items with x_i > u_i: they lie in a heap by key_i − ln u_i, and leave when ρ reaches that. A
request costs O(1), and O(log k) amortised for the heap: at most one item enters, so on average at most one leaves.

Σ x = k holds to rounding for good: an update divides what is too much by the same number as everything else, so errors
of the sum do not grow unless the cache is nearly integral, see the tests.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.online.heap import ABSENT, Heap, make_heap, settle, sink

__all__ = ["EntropyTables", "make_entropy", "restart", "serve_entropy"]

_LINEAR = 30.0  # steps up to which e^step − 1 loses no digits and does not overflow


class EntropyTables(NamedTuple):
    """The state of one cache.

    Args:
        capacity: k.
        key: ln x + ρ of every item, x > 0.
        offset: float64 [1], ρ.
        draws: − ln u of every item.
        heap: the cached items by key + draw.
        held: int64 [1], how many.
        unreported: int64 [1], items fetched at the start.
    """

    capacity: int
    key: ndarray
    offset: ndarray
    draws: ndarray
    heap: Heap
    held: ndarray
    unreported: ndarray

    @property
    def rho(self) -> float:
        """ρ."""
        return float(self.offset[0])


def make_entropy(numbers: Float64[ndarray, "items"], capacity: int) -> EntropyTables:
    """All items at k / N. O(N).

    Args:
        numbers: u, uniform on [0, 1).
        capacity: k.
    """
    items = len(numbers)
    draws = -np.log(np.maximum(numbers, np.finfo(float).tiny))
    heap = make_heap(items, items, np.float64)  # all may be cached: k holds on average
    tables = EntropyTables(
        capacity, np.empty(items), np.zeros(1), draws, heap, np.zeros(1, np.int64), np.zeros(1, np.int64)
    )
    tables.unreported[0] = len(restart(tables))
    return tables


def restart(tables: EntropyTables) -> Int64[ndarray, "fetched"]:
    """All items at k / N again; those that had to be fetched. O(N log N)."""
    heap, before = tables.heap, tables.heap.place >= 0
    tables.key[:], tables.offset[0] = math.log(tables.capacity / len(tables.key)), 0.0
    marks = tables.key + tables.draws
    cached = np.flatnonzero(marks > 0)
    cached = cached[np.argsort(marks[cached], kind="stable")]
    count = tables.held[0] = len(cached)
    heap.item[:count], heap.key[:count], heap.stamp[:count] = cached, marks[cached], 0  # sorted: a heap
    heap.place[:] = ABSENT
    heap.place[cached] = np.arange(count)
    return np.sort(cached[~before[cached]])


@njit(cache=True)
def serve_entropy(t: EntropyTables, requests: ndarray, weights: ndarray, step: float) -> tuple[int, float, float, int]:
    """Serve requests in order; ``weights`` is empty when all are 1. Hits, gain, Σ w x, items fetched."""
    hits, gain, fractional, inserted = 0, 0.0, 0.0, 0
    for item in requests:
        weight = weights[item] if len(weights) else 1.0
        log = min(t.key[item] - t.offset[0], 0.0)
        fractional += weight * math.exp(log)
        cached = t.heap.place[item] >= 0
        if cached:
            hits += 1
            gain += weight
        if weight == 0.0 or log == 0.0:
            continue
        _raise(t, item, log, weight * step)
        inserted += _refresh(t, item, cached)
    return hits, gain, fractional, inserted


@njit(cache=True)
def _raise(t: EntropyTables, item: int, log: float, step: float) -> None:
    """One step on an item with logarithm ``log`` < 0, and the projection."""
    capacity, x, raised = t.capacity, math.exp(log), log + step
    added = x * math.expm1(step) if step < _LINEAR else math.exp(min(raised, 700.0))
    if (capacity - 1) * (x + added) >= capacity - x:
        t.offset[0] += math.log1p((1.0 - x) / (capacity - 1)) if capacity > 1 else 0.0
        t.key[item] = t.offset[0]
        return
    drained = math.log1p(added / capacity) if raised < 700.0 else raised - math.log(capacity)
    t.offset[0] += drained
    t.key[item] = raised - drained + t.offset[0]


@njit(cache=True)
def _refresh(t: EntropyTables, item: int, cached: bool) -> int:
    """Cache a requested item if it has reached its number, evict who has fallen below; 1 if the item was fetched."""
    h, mark, rho = t.heap, t.key[item] + t.draws[item], t.offset[0]
    fetched = 0
    if cached:
        settle(h, t.held[0], h.place[item], item, mark, 0)
    elif mark > rho:
        t.held[0] += 1
        settle(h, t.held[0], t.held[0] - 1, item, mark, 0)
        fetched = 1
    while t.held[0] > 0 and h.key[0] <= rho:
        h.place[h.item[0]] = ABSENT
        t.held[0] -= 1
        last = t.held[0]
        if last > 0:
            sink(h, last, 0, h.item[last], h.key[last], 0)
    return fetched

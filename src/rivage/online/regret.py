"""What a policy is held against: the best that could have been done without changing one's mind.

The *static optimum* of a prefix of the requests is the value of the best fixed set, the k items with the largest
Σ w; the regret of a policy is that value minus its gain. The *windowed optimum* may change the set at every window: it
is larger, and no policy can be within o(T) of it for every sequence.

`StaticOptimum` keeps the k largest sums in a heap while requests arrive, so the optimum is known after every prefix:
O(log k) per request. Counts only grow, so an item enters the heap when its sum passes the smallest one in it.

References:
    Paschos, Destounis, Vigneri, Iosifidis. Learning to cache with no regrets. INFOCOM 2019, section II.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.online.heap import ABSENT, Heap
from rivage.online.policy import CacheInstance
from rivage.online.top import MOVES, grow, make_top, nudge

__all__ = ["StaticOptimum", "WindowedOptimum"]


class StaticOptimum:
    """The value of the best fixed set, after every prefix.

    Args:
        instance: the cache: how many items fit, what they are worth.

    Example:
        >>> optimum = StaticOptimum(CacheInstance(items=4, capacity=1))
        >>> optimum.add(np.array([2, 0, 0])), optimum.add(np.array([2, 2]))
        (2.0, 3.0)
    """

    def __init__(self, instance: CacheInstance) -> None:
        self._weights = np.empty(0) if instance.weights is None else np.asarray(instance.weights, np.float64)
        self._sums = np.zeros(instance.items)
        self._heap = make_top(instance.items, instance.capacity)
        self._held, self._value = 0, 0.0

    def add(self, requests: Int64[ndarray, "n"]) -> float:
        """Take in requests; the value of the best set for all so far."""
        self._held, self._value = _add(requests, self._weights, self._sums, self._heap, self._held, self._value)
        return self._value

    @property
    def value(self) -> float:
        """Of the best set for all requests so far."""
        return self._value

    @property
    def best(self) -> Int64[ndarray, "held"]:
        """The best set, ascending; fewer than k items while fewer have been asked for."""
        return np.sort(self._heap.item[: self._held]).astype(np.int64)

    def clear(self) -> None:
        """Forget all requests."""
        self._sums[:], self._heap.place[:] = 0.0, ABSENT
        self._held, self._value = 0, 0.0


class WindowedOptimum:
    """The value of the best set of every window, summed up; the last window may be incomplete.

    Args:
        instance: the cache.
        window: requests in a window, >= 1.
    """

    def __init__(self, instance: CacheInstance, window: int) -> None:
        self._current, self._window, self._seen, self._ended = StaticOptimum(instance), window, 0, 0.0

    def add(self, requests: Int64[ndarray, "n"]) -> float:
        """Take in requests; the value of all windows so far."""
        while len(requests):
            room = self._window - self._seen % self._window
            part, requests = requests[:room], requests[room:]
            self._current.add(part)
            self._seen += len(part)
            if self._seen % self._window == 0:
                self._ended += self._current.value
                self._current.clear()
        return self.value

    @property
    def value(self) -> float:
        """Of all windows so far."""
        return self._ended + self._current.value


@njit(cache=True)
def _add(
    requests: Int64[ndarray, "n"],
    weights: Float64[ndarray, "w"],
    sums: Float64[ndarray, "items"],
    heap: Heap,
    held: int,
    value: float,
) -> tuple[int, float]:
    place, key = heap.place, heap.key
    for item in requests:
        weight = weights[item] if len(weights) else 1.0
        gained = nudge(item, weight, sums, place, key, held)
        if gained == MOVES:
            held, gained = grow(item, weight, sums, heap, held)
        value += gained
    return held, value

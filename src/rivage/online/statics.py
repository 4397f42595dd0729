"""What could have been done by who knows the future: the best fixed set, and Belady's rule.

Both must be told all requests by ``foresee`` before the first block, and refuse others later.

`BestStatic` is the comparator of regret: the k items with the largest Σ w over all requests, fetched before the first.
It keeps how often each item is asked for; the order of the requests is nothing to it.

`Belady` evicts what is requested again furthest in the future. For unit weights and no prefetching this has the most
hits of all policies that let in whatever is requested, as all of `rivage.online.eviction` do unless they have
``bypass=True``. A policy that may leave a requested item outside can do better, up to ``Belady(bypass=True)``; one
that also fills the cache beforehand, such as `BestStatic`, gains at most k more hits. A policy that keeps to k items on
average only, such as OGB, is under neither bound strictly. With weights neither is a bound: the optimum is then a
minimum cost flow, which this is not.

References:
    Belady. A study of replacement algorithms for a virtual-storage computer. IBM Systems Journal 5(2), 1966.
    Mattson, Gecsei, Slutz, Traiger. Evaluation techniques for storage hierarchies. IBM Systems Journal 9(2), 1970
    (proof). Faigle, Nawijn. Note on scheduling intervals on-line. Discrete Applied Mathematics 58, 1995 (bypass).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Integer
from numba import njit
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.online.eviction import EvictionState
from rivage.online.heap import ABSENT, Heap, make_heap, settle
from rivage.online.policy import CacheInstance, Outcome

__all__ = ["Belady", "BeladyState", "BestStatic", "StaticState"]

_NEVER = np.iinfo(np.int64).max


@dataclass(slots=True)
class StaticState:
    """The fixed set.

    Args:
        instance: the cache.
        kept: which items are in the set.
        left: how often each item is still to be asked for; None while nothing is known.
        served: requests so far.
    """

    instance: CacheInstance
    kept: Bool[ndarray, "items"]
    left: Int64[ndarray, "items"] | None = None
    served: int = 0

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return np.flatnonzero(self.kept)


@dataclass(frozen=True, kw_only=True)
class BestStatic:
    """The best fixed set in hindsight; of equally good items the first ones, and none that gains nothing."""

    reference: ClassVar[str] = "paschos19"

    def init(self, instance: CacheInstance, streams: Streams) -> StaticState:
        """Nothing is known yet. O(N)."""
        return StaticState(instance, np.zeros(instance.items, np.bool_))

    def foresee(self, state: StaticState, blocks: Iterable[Integer[ndarray, "n"]]) -> None:
        """Choose the set. O(T + N log N)."""
        if state.left is not None:
            raise _twice()
        state.left = np.zeros(state.instance.items, np.int64)
        for block in blocks:
            np.add.at(state.left, block, 1)
        weights = state.instance.weights
        sums = state.left * (1.0 if weights is None else weights)
        best = np.argsort(-sums, kind="stable")[: state.instance.capacity]
        state.kept[best[sums[best] > 0]] = True

    def run_block(self, state: StaticState, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests; filling the cache counts in the first block. O(n)."""
        first = state.served == 0
        self._meet(state, requests)
        served = requests[state.kept[requests]]
        weights = state.instance.weights
        gain = float(len(served)) if weights is None else float(weights[served].sum())
        held = int(np.count_nonzero(state.kept))
        return Outcome(
            requests=len(requests),
            hits=float(len(served)),
            gain=gain,
            fractional=gain,
            inserted=held if first and len(requests) else 0,
            occupancy=float(held),
        )

    @staticmethod
    def _meet(state: StaticState, requests: Int64[ndarray, "n"]) -> None:
        """Check that requests were foreseen, and count them. O(n)."""
        if state.left is None:
            raise _unknown()
        if not _count_down(state.left, requests):
            np.add.at(state.left, requests, 1)
            raise _others(state.served, requests)
        state.served += len(requests)


@njit(cache=True)
def _count_down(left: Int64[ndarray, "items"], requests: Int64[ndarray, "n"]) -> bool:
    """Take requests off what is left of each item; whether they were."""
    enough = True
    for item in requests:
        left[item] -= 1
        enough &= left[item] >= 0
    return enough


def _twice() -> DataError:
    return DataError("the requests have been foreseen already", mend="Begin with a new state.")


def _unknown() -> DataError:
    return DataError("the requests are not known", mend="Call foresee with all of them before the first block.")


def _others(served: int, requests: Int64[ndarray, "n"]) -> DataError:
    return DataError(
        "these are not the requests that were foreseen",
        where=f"requests {served} to {served + len(requests) - 1}",
        mend="Serve the very trace that was given to foresee, in order.",
    )


class Future(NamedTuple):
    """Cached items by their next request.

    Args:
        place: that of the heap.
        heap: by (− position of the next request, position of the last).
        again: int64 [horizon], position of the next request for the same item.
        ints: int64 [2], items held and requests served.
        bypass: what is requested again later than all cached items does not come in.
    """

    place: ndarray
    heap: Heap
    again: ndarray
    ints: ndarray
    bypass: bool


@dataclass(slots=True)
class BeladyState:
    """The state of one cache.

    Args:
        eviction: tables and weights.
        future: all requests, narrow where the items allow; None while they are not known.
        served: how many have come.
    """

    eviction: EvictionState
    future: Integer[ndarray, "horizon"] | None = None
    served: int = 0

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return self.eviction.cached


@njit(cache=True)
def _next_requests(requests: ndarray, items: int) -> ndarray:
    """For every request the position of the next one for the same item."""
    last, again = np.full(items, _NEVER), np.empty(len(requests), np.int64)
    for at in range(len(requests) - 1, -1, -1):
        again[at] = last[requests[at]]
        last[requests[at]] = at
    return again


@njit(cache=True)
def _serve_future(t: Future, requests: ndarray, weights: ndarray) -> tuple[int, float, int, int]:
    h, c, place = t.heap, t.ints, t.heap.place
    hits, gain, inserted = 0, 0.0, 0
    for item in requests:
        key = -t.again[c[1]]
        if place[item] >= 0:
            hits += 1
            gain += weights[item] if len(weights) else 1.0
            settle(h, c[0], place[item], item, key, c[1])
        elif c[0] < len(h.item):
            inserted += 1
            c[0] += 1
            settle(h, c[0], c[0] - 1, item, key, c[1])
        elif not t.bypass or h.key[0] < key:
            inserted += 1
            place[h.item[0]] = ABSENT
            settle(h, c[0], 0, item, key, c[1])
        c[1] += 1
    return hits, gain, inserted, c[0]


@dataclass(frozen=True, kw_only=True)
class Belady:
    """Evict what is requested again furthest in the future. O(log k) per request, O(T) memory.

    Of items that never return the one requested longest ago goes, which changes no number of hits.

    Args:
        bypass: an item that is requested again later than all cached ones is served but does not come in.
    """

    reference: ClassVar[str] = "belady66"
    bytes_per_request: ClassVar[int] = 12  # itself and the next one for its item

    bypass: bool = False

    def init(self, instance: CacheInstance, streams: Streams) -> BeladyState:
        """An empty cache that knows nothing yet. O(N)."""
        heap = make_heap(instance.items, instance.capacity)
        tables = Future(heap.place, heap, np.empty(0, np.int64), np.zeros(2, np.int64), self.bypass)
        return BeladyState(EvictionState.of(tables, instance))

    def foresee(self, state: BeladyState, blocks: Iterable[Integer[ndarray, "n"]]) -> None:
        """Find the next request for every item. O(N + T)."""
        if state.future is not None:
            raise _twice()
        tables = state.eviction.tables
        assert isinstance(tables, Future)
        state.future = _joined(blocks, len(tables.place))
        state.eviction.tables = tables._replace(again=_next_requests(state.future, len(tables.place)))

    def run_block(self, state: BeladyState, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests in order."""
        if state.future is None:
            raise _unknown()
        if not np.array_equal(state.future[state.served : state.served + len(requests)], requests):
            raise _others(state.served, requests)
        state.served += len(requests)
        return state.eviction.run(_serve_future, requests)


def _joined(blocks: Iterable[Integer[ndarray, "n"]], items: int) -> Integer[ndarray, "horizon"]:
    """All requests in one array, narrow where the items allow, without a second copy of them."""
    narrow = np.dtype(np.int32 if items <= np.iinfo(np.int32).max else np.int64)
    content = bytearray()
    for block in blocks:
        content += block.astype(narrow).tobytes()
    return np.frombuffer(content, narrow)

"""The caches that everybody knows: what is requested comes in, and a simple rule says what has to go.

============== ============================================================== =============
policy         the victim                                                     per request
============== ============================================================== =============
FIFO           came in first                                                  O(1)
RandomEviction any, uniformly                                                 O(1)
LRU            was requested longest ago                                      O(1)
LFU            fewest requests since the beginning (perfect)                  O(log k)
LFUInCache     fewest requests since it came in                               O(log k)
WindowLFU      fewest requests among the last W                               O(log k)
LFUDA          smallest (requests since it came in) + L, L aging with victims O(log k)
============== ============================================================== =============

ARC and S3-FIFO are in `rivage.online.adaptive_eviction`. Caches start empty. Of several items with equally few requests
the one requested longest ago goes. Weights count in the gain and in no decision.

A policy is arrays (a named tuple with ``place``, the place of each item or a negative number), a compiled kernel that
serves requests on them, and a frozen dataclass that joins the two, see `Evicting`. No promise is made about regret:
whoever knows the state of a deterministic policy can make it miss every request, while the best fixed set serves a
share k / N of them.

References:
    Belady. A study of replacement algorithms for a virtual-storage computer. IBM Systems Journal 5(2), 1966.
    Mattson, Gecsei, Slutz, Traiger. Evaluation techniques for storage hierarchies. IBM Systems Journal 9(2), 1970.
    Breslau, Cao, Fan, Phillips, Shenker. Web caching and Zipf-like distributions. INFOCOM 1999 (LFU, both kinds).
    Karakostas, Serpanos. Exploitation of different types of locality for Web caches. ISCC 2002 (WindowLFU).
    Arlitt, Cherkasova, Dilley, Friedrich, Jin. Evaluating content management techniques for Web proxy caches.
    Performance Evaluation Review 27(4), 2000 (LFUDA).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.online.eviction_kernel import (
    Counts,
    Lists,
    Slots,
    make_counts,
    make_lists,
    make_slots,
    serve_counts,
    serve_recency,
    serve_slots,
)
from rivage.online.policy import CacheInstance, Outcome

__all__ = [
    "FIFO",
    "LFU",
    "LFUDA",
    "LRU",
    "Evicting",
    "EvictionState",
    "Kernel",
    "LFUInCache",
    "RandomEviction",
    "Tables",
    "WindowLFU",
]


@runtime_checkable
class Tables(Protocol):
    """What all kernels share."""

    @property
    def place(self) -> ndarray:
        """Where every item is, >= 0 iff it is cached."""
        ...


Kernel = Callable[[Any, ndarray, ndarray], tuple[int, float, int, int]]  # hits, gain, inserted, held after the block


@dataclass(slots=True)
class EvictionState:
    """The state of one cache.

    Args:
        tables: of the kernel.
        weights: of the items; empty when all are 1.
    """

    tables: Tables
    weights: Float64[ndarray, "w"]

    @classmethod
    def of(cls, tables: Tables, instance: CacheInstance) -> EvictionState:
        """Tables joined by the weights as kernels take them."""
        weights = np.empty(0) if instance.weights is None else np.ascontiguousarray(instance.weights, np.float64)
        return cls(tables, weights)

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return np.flatnonzero(self.tables.place >= 0)

    def run(self, kernel: Kernel, requests: Int64[ndarray, "n"]) -> Outcome:
        """Let a kernel serve requests."""
        hits, gain, inserted, held = kernel(self.tables, requests, self.weights)
        return Outcome(
            requests=len(requests),
            hits=float(hits),
            gain=float(gain),
            fractional=float(gain),
            inserted=int(inserted),
            occupancy=float(held),
        )


class Evicting(ABC):
    """A policy that is tables and a kernel.

    A new one is a frozen dataclass with ``kernel`` and ``tables``; what it adds to the tables is up to it. A kernel
    gets (tables, requests, weights), where ``weights`` is empty when all are 1, changes the tables and returns hits,
    gain, insertions and how many items are cached afterwards. All that it must know later belongs into the tables.
    """

    kernel: ClassVar[Kernel]

    @abstractmethod
    def tables(self, instance: CacheInstance, streams: Streams) -> Tables:
        """Those of an empty cache."""

    def init(self, instance: CacheInstance, streams: Streams) -> EvictionState:
        """An empty cache. O(N)."""
        return EvictionState.of(self.tables(instance, streams), instance)

    def run_block(self, state: EvictionState, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests in order."""
        return state.run(type(self).kernel, requests)


@dataclass(frozen=True, kw_only=True)
class FIFO(Evicting):
    """Evict what came in first; hits change nothing."""

    reference: ClassVar[str] = "belady66"
    kernel: ClassVar[Kernel] = staticmethod(serve_slots)

    def tables(self, instance: CacheInstance, streams: Streams) -> Slots:
        """Those of an empty cache."""
        return make_slots(instance)


@dataclass(frozen=True, kw_only=True)
class RandomEviction(Evicting):
    """Evict any cached item, uniformly; victim number v depends on the seed and v only."""

    reference: ClassVar[str] = "belady66"
    kernel: ClassVar[Kernel] = staticmethod(serve_slots)

    def tables(self, instance: CacheInstance, streams: Streams) -> Slots:
        """Those of an empty cache."""
        return make_slots(instance, streams.seed("eviction"))


@dataclass(frozen=True, kw_only=True)
class LRU(Evicting):
    """Evict what was requested longest ago."""

    reference: ClassVar[str] = "mattson70"
    kernel: ClassVar[Kernel] = staticmethod(serve_recency)

    def tables(self, instance: CacheInstance, streams: Streams) -> Lists:
        """Those of an empty cache."""
        return make_lists(instance, 1)


@dataclass(frozen=True, kw_only=True)
class LFU(Evicting):
    """Evict what has been requested least often since the beginning: counts outlive eviction (perfect LFU).

    Args:
        bypass: an item comes in only when its count exceeds the smallest in the cache, which then holds k most
            requested items: the leader that gradient methods follow at a distance.
    """

    reference: ClassVar[str] = "breslau99"
    kernel: ClassVar[Kernel] = staticmethod(serve_counts)

    bypass: bool = False

    def tables(self, instance: CacheInstance, streams: Streams) -> Counts:
        """Those of an empty cache."""
        return make_counts(instance, bypass=self.bypass)


@dataclass(frozen=True, kw_only=True)
class LFUInCache(Evicting):
    """Evict what has been requested least often since it came in: counts are lost at eviction."""

    reference: ClassVar[str] = "breslau99"
    kernel: ClassVar[Kernel] = staticmethod(serve_counts)

    def tables(self, instance: CacheInstance, streams: Streams) -> Counts:
        """Those of an empty cache."""
        return make_counts(instance, forgets=True)


@dataclass(frozen=True, kw_only=True)
class WindowLFU(Evicting):
    """Evict what has been requested least often lately. O(W) memory besides that of `LFU`.

    Args:
        window: how many requests count, W >= 1, the present one included. 1 is LRU, the whole trace is `LFU`.
        bypass: as for `LFU`.
    """

    reference: ClassVar[str] = "karakostas02"
    kernel: ClassVar[Kernel] = staticmethod(serve_counts)

    window: int
    bypass: bool = False

    def __post_init__(self) -> None:
        require(self.window, "window", least=1)

    def tables(self, instance: CacheInstance, streams: Streams) -> Counts:
        """Those of an empty cache."""
        return make_counts(instance, window=self.window, bypass=self.bypass)


@dataclass(frozen=True, kw_only=True)
class LFUDA(Evicting):
    """LFU with dynamic aging: evict the smallest key, where a request sets key = count + L.

    The count starts anew when an item comes in; L is the key of the last victim, 0 at first. This is GreedyDual with
    frequencies for items of equal size and cost; the variant that multiplies counts by weights is not offered.
    """

    reference: ClassVar[str] = "arlitt00"
    kernel: ClassVar[Kernel] = staticmethod(serve_counts)

    def tables(self, instance: CacheInstance, streams: Streams) -> Counts:
        """Those of an empty cache."""
        return make_counts(instance, forgets=True, ages=True)

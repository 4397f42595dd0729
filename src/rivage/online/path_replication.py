"""Leave a copy everywhere: every cache on the way of a response takes what passes, and a simple rule says what goes.

Jacobson, Smetters, Thornton, Plass, Briggs, Braynard. Networking named content. CoNEXT 2009 (caching on path). The
baselines of Ioannidis, Yeh. SIGMETRICS 2016, and of Li, Si Salem, Neglia, Ioannidis. SIGMETRICS 2022.

Each cached item has a priority, and the lowest goes, ties by age. What passes is compared too: it may be the one that
goes.

======== ============================ ===========================================
rule     priority when it comes in    at a hit
======== ============================ ===========================================
``lru``  now                          now
``fifo`` now                          unchanged
``lfu``  1                            one more; counts are lost when the item goes
``rr``   uniform draw                 another draw
======== ============================ ===========================================

No promise is made: an adversary who cycles through one item more than fits sees to it that LRU and FIFO never hit.
O(Σ c_v on the path) per request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from numba import njit
from numpy import ndarray

from rivage.core.errors import require_one_of
from rivage.core.seeding import Streams
from rivage.online.cache_networks import CacheNetwork, NetworkOutcome
from rivage.online.network_ways import Ways, uniform

__all__ = ["PathReplication", "ReplicationState"]

_RULES = ("lru", "fifo", "lfu", "rr")
_LRU, _FIFO, _LFU, _RR = range(4)
_TIME, _AGES, _DRAWS, _SEED, _HITS, _MOVES = range(6)


class Shelves(NamedTuple):
    """What the slots hold.

    Args:
        shown: int64 [slots], −1 for none.
        priority: float64 [slots].
        age: int64 [slots], number of the insertion.
        ints: see the names above.
    """

    shown: ndarray
    priority: ndarray
    age: ndarray
    ints: ndarray


@dataclass(slots=True)
class ReplicationState:
    """The state of all caches.

    Args:
        instance: the network.
        ways: its arrays, for the kernel.
        shelves: what the slots hold.
    """

    instance: CacheNetwork
    ways: Ways
    shelves: Shelves


@dataclass(frozen=True, kw_only=True)
class PathReplication:
    """LRU, FIFO, LFU or random priorities with a copy left everywhere.

    Args:
        rule: which, see above.
    """

    reference: ClassVar[str] = "ioannidis16"

    rule: Literal["lru", "fifo", "lfu", "rr"] = "lru"

    def __post_init__(self) -> None:
        require_one_of(self.rule, "rule", _RULES)

    def init(self, instance: CacheNetwork, streams: Streams) -> ReplicationState:
        """Empty caches."""
        ints = np.zeros(6, np.int64)
        ints[_SEED] = np.uint64(streams.seed("priorities")).astype(np.int64)
        slots = instance.slots
        shelves = Shelves(np.full(slots, -1), np.zeros(slots), np.zeros(slots, np.int64), ints)
        return ReplicationState(instance, Ways.of(instance), shelves)

    def run_block(self, state: ReplicationState, requests: Int64[ndarray, "n"]) -> NetworkOutcome:
        """Serve requests in order."""
        ints = state.shelves.ints
        ints[[_HITS, _MOVES]] = 0
        gain = float(_serve(state.ways, state.shelves, requests, _RULES.index(self.rule)))
        return NetworkOutcome(
            requests=len(requests),
            cost=float(state.instance.costs[requests].sum()) - gain,
            gain=gain,
            hits=int(ints[_HITS]),
            moves=int(ints[_MOVES]),
        )

    def placement(self, state: ReplicationState) -> Bool[ndarray, "nodes items"]:
        """What each node holds now."""
        return state.instance.placement(state.shelves.shown)


@njit(cache=True)
def _priority(kind: int, t: Shelves) -> float:
    """Of an item that comes in, or of one that is hit under LRU and RR."""
    if kind == _LFU:
        return 1.0
    if kind == _RR:
        t.ints[_DRAWS] += 1
        return uniform(t.ints[_SEED], t.ints[_DRAWS])
    return float(t.ints[_TIME])


@njit(cache=True)
def _insert(t: Shelves, begin: int, end: int, item: int, priority: float) -> None:
    """Into a free slot, or in place of the lowest priority if that is not its own."""
    t.ints[_AGES] += 1
    place = begin
    for s in range(begin, end):
        if t.shown[s] < 0:
            place = s
            break
        if t.priority[s] < t.priority[place] or (t.priority[s] == t.priority[place] and t.age[s] < t.age[place]):
            place = s
    if t.shown[place] >= 0 and t.priority[place] > priority:
        return
    t.shown[place], t.priority[place], t.age[place] = item, priority, t.ints[_AGES]
    t.ints[_MOVES] += 1


@njit(cache=True)
def _serve(w: Ways, t: Shelves, requests: ndarray, kind: int) -> float:
    gain = 0.0
    for d in requests:
        t.ints[_TIME] += 1
        item, hops, hit = w.item[d], w.hops[d], w.hops[d]
        for place in range(hops):
            node = w.paths[d, place]
            for s in range(w.first[node], w.first[node + 1]):
                if t.shown[s] == item and place < hit:
                    hit = place
                    t.priority[s] = t.priority[s] + (kind == _LFU) if kind in (_FIFO, _LFU) else _priority(kind, t)
        t.ints[_HITS] += hit < hops
        gain += w.savings[d, hit]
        for place in range(hit - 1, -1, -1):
            node = w.paths[d, place]
            if w.first[node] < w.first[node + 1]:
                _insert(t, w.first[node], w.first[node + 1], item, _priority(kind, t))
    return gain

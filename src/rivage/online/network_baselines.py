"""What the adversarial policy of caching networks is compared with: projected gradients, and greedy path replication.

Ioannidis, Yeh. Adaptive caching networks with optimality guarantees. SIGMETRICS 2016, arXiv 1604.03490 (both).

**PGA** ascends the concave relaxation L(y) = Σ_l w_l min(1, Σ_{l'≤l} y_{p_l', i}) of the gain. A message follows each
request's path, adds up y and turns round where the sum passes 1, or at the server; on its way back each node learns the
cost from there to it, which is ∂L/∂y. Every T units of time, update k = 1, 2, … is

    y_v ← Π( y_v + γ k^{-1/2} g_v ),   on {0 ≤ y ≤ 1, Σ_i y_i ≤ c_v},

with g_v what was learnt per unit of time, scaled to norm 1 where its norm exceeds 100 c_v; then a cache is drawn anew
from y_v by systematic sampling, E x = y. (The authors scale y_v up to Σ = c_v before they draw; we keep E x = y.)

**GRD** estimates what item i saves at node v by an average that forgets, v_i ← v_i e^{−βΔ} + β · saving after Δ units
of time, whenever a response passes or i is hit; the saving is the cost from the next holder to v, which a hit asks for
by a message. Each cache keeps the c_v largest. Best where demand is random, helpless against an adversary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from numba import njit
from numpy import ndarray

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.online.cache_networks import CacheNetwork, NetworkOutcome
from rivage.online.network_ways import Ways, uniform

__all__ = ["GRD", "PGA", "BaselineState"]

_DRAWS, _SEED, _HITS, _MOVES, _CONTROL, _WAITING, _UPDATES = range(7)
_STEEP = 100.0  # norm of a gradient, per slot of the cache, beyond which only its direction counts


class Tables(NamedTuple):
    """The state of all nodes.

    Args:
        held: bool [nodes, items].
        level: float64 [nodes, items], y or the averages.
        slope: float64 [nodes, items], gradients (PGA) or 0.
        since: float64 [nodes], time of the last update (GRD).
        capacity: int64 [nodes].
        ints: see the names above.
        clock: float64 [1], requests so far.
    """

    held: ndarray
    level: ndarray
    slope: ndarray
    since: ndarray
    capacity: ndarray
    ints: ndarray
    clock: ndarray


@dataclass(slots=True)
class BaselineState:
    """The state of all caches.

    Args:
        instance: the network.
        ways: its arrays, for the kernel.
        tables: of the kernel.
    """

    instance: CacheNetwork
    ways: Ways
    tables: Tables

    @classmethod
    def empty(cls, instance: CacheNetwork, streams: Streams) -> BaselineState:
        """Empty caches that know nothing."""
        shape, ints = (instance.network.nodes, instance.items), np.zeros(7, np.int64)
        ints[_SEED] = np.uint64(streams.seed("caches")).astype(np.int64)
        held, level, slope = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape)
        tables = Tables(held, level, slope, np.zeros(shape[0]), instance.capacities, ints, np.zeros(1))
        return cls(instance, Ways.of(instance), tables)

    def outcome(self, requests: Int64[ndarray, "n"], gain: float) -> NetworkOutcome:
        """What a kernel did."""
        ints = self.tables.ints
        cost = float(self.instance.costs[requests].sum()) - gain
        return NetworkOutcome(len(requests), cost, gain, int(ints[_HITS]), int(ints[_MOVES]), int(ints[_CONTROL]))

    def placement(self) -> Bool[ndarray, "nodes items"]:
        """What each node holds now."""
        return self.tables.held.copy()


@dataclass(frozen=True, kw_only=True)
class PGA:
    """Projected gradient ascent on the relaxation.

    Args:
        gain: γ > 0, times the norm that updates have.
        every: requests between updates, >= 1.
        per_time: requests per unit of time, > 0; gradients count per unit of time.
    """

    reference: ClassVar[str] = "ioannidis16"

    gain: float = 0.1
    every: int = 1
    per_time: float = 1.0

    def __post_init__(self) -> None:
        require(self.gain, "gain", above=0)
        require(self.every, "every", least=1)
        require(self.per_time, "per_time", above=0)

    def init(self, instance: CacheNetwork, streams: Streams) -> BaselineState:
        """Empty caches, y = 0."""
        return BaselineState.empty(instance, streams)

    def run_block(self, state: BaselineState, requests: Int64[ndarray, "n"]) -> NetworkOutcome:
        """Serve requests in order."""
        state.tables.ints[[_HITS, _MOVES, _CONTROL]] = 0
        gained = _ascend(state.ways, state.tables, requests, float(self.gain), self.every, float(self.per_time))
        return state.outcome(requests, float(gained))

    def placement(self, state: BaselineState) -> Bool[ndarray, "nodes items"]:
        """What each node holds now."""
        return state.placement()


@dataclass(frozen=True, kw_only=True)
class GRD:
    """Greedy path replication.

    Args:
        forgetting: β > 0, per unit of time.
        per_time: requests per unit of time, > 0.
    """

    reference: ClassVar[str] = "ioannidis16"

    forgetting: float = 0.01
    per_time: float = 1.0

    def __post_init__(self) -> None:
        require(self.forgetting, "forgetting", above=0)
        require(self.per_time, "per_time", above=0)

    def init(self, instance: CacheNetwork, streams: Streams) -> BaselineState:
        """Empty caches."""
        return BaselineState.empty(instance, streams)

    def run_block(self, state: BaselineState, requests: Int64[ndarray, "n"]) -> NetworkOutcome:
        """Serve requests in order."""
        state.tables.ints[[_HITS, _MOVES, _CONTROL]] = 0
        gained = _replicate(state.ways, state.tables, requests, float(self.forgetting), float(self.per_time))
        return state.outcome(requests, float(gained))

    def placement(self, state: BaselineState) -> Bool[ndarray, "nodes items"]:
        """What each node holds now."""
        return state.placement()


@njit(cache=True)
def _hit(w: Ways, held: ndarray, d: int, start: int) -> int:
    """The first place of the path, from ``start`` on, that answers; its end always does."""
    for place in range(start, w.hops[d]):
        if held[w.paths[d, place], w.item[d]]:
            return place
    return int(w.hops[d])


@njit(cache=True)
def _ascend(w: Ways, t: Tables, requests: ndarray, gain: float, every: int, per_time: float) -> float:
    gained = 0.0
    for d in requests:
        hit, hops, item = _hit(w, t.held, d, 0), w.hops[d], w.item[d]
        t.ints[_HITS] += hit < hops
        gained += w.savings[d, hit]
        if hops > 0 and t.level[w.paths[d, 0], item] < 1.0:
            stop, total = 0, t.level[w.paths[d, 0], item]
            while stop < hops and (stop == 0 or total <= 1.0):
                stop += 1
                if stop < hops:
                    total += t.level[w.paths[d, stop], item]
            t.ints[_CONTROL] += 2 * stop
            for place in range(stop):
                t.slope[w.paths[d, place], item] += w.savings[d, place] - w.savings[d, stop]
        t.ints[_WAITING] += 1
        if t.ints[_WAITING] == every:
            t.ints[_WAITING] = 0
            _update(t, gain, every / per_time)
    return gained


@njit(cache=True)
def _update(t: Tables, gain: float, elapsed: float) -> None:
    t.ints[_UPDATES] += 1
    step = gain / math.sqrt(t.ints[_UPDATES])
    for node in range(len(t.capacity)):
        if t.capacity[node] == 0:
            continue
        slope, norm = t.slope[node] / elapsed, 0.0
        for value in slope:
            norm += value * value
        norm = math.sqrt(norm)
        if norm > 0.0:
            scale = step / norm if norm > _STEEP * t.capacity[node] else step
            t.level[node] = project(t.level[node] + scale * slope, t.capacity[node])
            t.slope[node] = 0.0
        t.ints[_DRAWS] += 1
        _systematic(t, node, uniform(t.ints[_SEED], t.ints[_DRAWS]))


@njit(cache=True)
def project(y: ndarray, most: float) -> ndarray:
    """The nearest point of {0 <= x <= 1, Σ x <= most}, to 1e-12, by bisection."""
    x: ndarray = np.minimum(np.maximum(y, 0.0), 1.0)
    if x.sum() <= most:
        return x
    low, high = 0.0, y.max()
    for _ in range(200):
        middle = (low + high) / 2
        if np.minimum(np.maximum(y - middle, 0.0), 1.0).sum() > most:
            low = middle
        else:
            high = middle
        if high - low <= 1e-15 * high:
            break
    x = np.minimum(np.maximum(y - high, 0.0), 1.0)
    return x


@njit(cache=True)
def _systematic(t: Tables, node: int, xi: float) -> None:
    """Hold item i iff ξ plus a whole number lies in (S_(i−1), S_i]: at most c_v items, E x = y."""
    total, taken = 0.0, 0
    for item in range(t.level.shape[1]):
        total += t.level[node, item]
        chosen = taken < t.capacity[node] and total >= 1.0 - xi + taken
        taken += chosen
        t.ints[_MOVES] += chosen and not t.held[node, item]
        t.held[node, item] = chosen


@njit(cache=True)
def _replicate(w: Ways, t: Tables, requests: ndarray, beta: float, per_time: float) -> float:
    gained = 0.0
    for d in requests:
        t.clock[0] += 1.0
        now, hops = t.clock[0] / per_time, w.hops[d]
        hit = _hit(w, t.held, d, 0)
        gained += w.savings[d, hit]
        if hit < hops:
            holder = _hit(w, t.held, d, hit + 1)
            t.ints[_HITS] += 1
            t.ints[_CONTROL] += 2 * (holder - hit)
            _measure(t, w.paths[d, hit], w.item[d], w.savings[d, hit] - w.savings[d, holder], now, beta)
        for place in range(hit):
            _measure(t, w.paths[d, place], w.item[d], w.savings[d, place] - w.savings[d, hit], now, beta)
    return gained


@njit(cache=True)
def _measure(t: Tables, node: int, item: int, saving: float, now: float, beta: float) -> None:
    """Forget, add, and keep the largest; ties go to the item of the larger number."""
    if t.capacity[node] == 0:
        return
    level = t.level[node]
    level *= math.exp(-beta * (now - t.since[node]))
    level[item] += beta * saving
    t.since[node] = now
    if t.held[node, item] or level[item] == 0.0:
        return
    least, count = -1, 0
    for other in range(len(level)):
        if t.held[node, other]:
            count += 1
            if least < 0 or level[other] < level[least]:
                least = other
    if count == t.capacity[node]:
        if level[item] < level[least] or (level[item] == level[least] and item < least):
            return
        t.held[node, least] = False
    t.held[node, item] = True
    t.ints[_MOVES] += 1

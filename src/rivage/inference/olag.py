"""OLAG, online load-aware greedy: every node fills up, slot by slot, with what would have saved most of what it saw.

Reconstructed: the publication names the policy and its counters; the details below are ours.

At the end of a slot node v looks at each request type ρ on whose path it is. The requests that reached it are those
that were not served nearer to the user. For them the messages along the path say what they would have paid if v had
held nothing of its own: they fill what is loaded further on, and what is pinned at v, cheapest first. For every model m
that v could hold it counts

    φ_{ρ,m}     the requests among them that would have paid more than C_{v,m},
    saved_{ρ,m} how much more, on average.

Counters of former slots fade: φ ← memory · φ + (1 − memory) · new, likewise Σ saved and the capacities l. Then v picks,
again and again until nothing more fits or saves, the model with the largest

    Σ_ρ min(φ_{ρ,m}, l_{ρ,m}) saved_{ρ,m} / s_m,

and takes the requests that it would absorb, min(φ, l), from the counters of the other models of their types. Equals
are taken by number. Nodes decide at once and do not know what the others will do; nothing is promised. It needs the
same messages as INFIDA. O(K · path) per slot for counters and O(picks · K) for picks, K possibilities of all types.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.filling import storable
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen

__all__ = ["OLAG", "OlagState"]

Ranks = Float64[ndarray, "ranks"]
_ROUNDING = 1e-9  # of a budget


@dataclass(slots=True, eq=False)
class OlagState:
    """Counters of all nodes.

    Args:
        instance: the network.
        can: possibilities whose model its node could hold.
        order: those, sorted by place; ``first[p] : first[p + 1]`` are the ones of place p.
        first: see ``order``.
        loaded: what is loaded now.
        count: φ of each possibility.
        total: φ · saved of each possibility.
        capacity: l of each possibility.
        fresh: whether no slot has been counted.
    """

    instance: Instance
    can: Bool[ndarray, "ranks"]
    order: Int64[ndarray, "n"]
    first: Int64[ndarray, "p"]
    loaded: Bool[ndarray, "nodes models"]
    count: Ranks
    total: Ranks
    capacity: Ranks
    fresh: bool = True


@dataclass(frozen=True, kw_only=True)
class OLAG:
    """Greedy on counters of what was forwarded.

    Args:
        memory: in [0, 1), what is left of a counter in the next slot; 0 looks at the last slot alone.
    """

    reference: ClassVar[str] = "sisalem24"

    memory: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.memory < 1:
            raise ConfigError(f"memory is {self.memory:g}", mend="Give a number in [0, 1).")

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> OlagState:
        """Nothing is counted yet, and nothing but pinned models is loaded."""
        ranking = instance.ranking
        can = storable(instance).ravel()[ranking.place]
        order = np.flatnonzero(can)
        order = order[np.argsort(ranking.place[order], kind="stable")]
        zeros = np.zeros(len(ranking))
        return OlagState(
            instance=instance,
            can=can,
            order=order,
            first=np.searchsorted(ranking.place[order], np.arange(instance.pinned.size + 1)).astype(np.int64),
            loaded=instance.pinned,
            count=zeros,
            total=zeros,
            capacity=zeros,
        )

    def act(self, state: OlagState) -> Bool[ndarray, "nodes models"]:
        """What was picked last."""
        return state.loaded

    def update(self, state: OlagState, seen: Seen) -> OlagState:
        """Count, and pick anew."""
        instance, ranking = state.instance, state.instance.ranking
        pinned = instance.pinned.ravel()[ranking.place]
        loaded = np.asarray(seen.loaded | instance.pinned).ravel()[ranking.place]
        count, total = _count(
            ranking.first, ranking.hop, ranking.cost, seen.slot.capacity, seen.served, pinned, loaded, state.can
        )
        keep = 0.0 if state.fresh else self.memory
        state.fresh = False
        state.count = keep * state.count + (1 - keep) * count
        state.total = keep * state.total + (1 - keep) * total
        state.capacity = keep * state.capacity + (1 - keep) * seen.slot.capacity
        state.loaded = instance.pinned.copy()
        _pick(
            ranking.first,
            ranking.type,
            ranking.node,
            state.order,
            state.first,
            state.count.copy(),
            state.total,
            state.capacity,
            instance.sizes,
            instance.free_budgets * (1 + _ROUNDING),
            state.loaded,
        )
        return state


@njit(cache=True)
def _count(
    first: ndarray,
    hop: ndarray,
    cost: ndarray,
    capacity: ndarray,
    served: ndarray,
    pinned: ndarray,
    loaded: ndarray,
    can: ndarray,
) -> tuple[ndarray, ndarray]:
    """The counter φ of each possibility, and φ times what each request would have saved."""
    count, total = np.zeros(len(cost)), np.zeros(len(cost))
    for t in range(len(first) - 1):
        a, b = first[t], first[t + 1]
        if b == a:
            continue
        for j in range(hop[a:b].max() + 1):
            left = 0.0
            for k in range(a, b):
                if hop[k] >= j:
                    left += served[k]
            # What the requests that reached this node would pay without its free models, cheapest first. Of everything
            # cheaper than a model nothing is to be saved: only what comes behind it in the order counts.
            paid = np.zeros(b - a)
            for k in range(a, b):
                if left <= 0.0:
                    break
                if loaded[k] and (hop[k] > j or (hop[k] == j and pinned[k])):
                    paid[k - a] = min(left, capacity[k])
                    left -= paid[k - a]
            requests = money = 0.0
            for k in range(b - 1, a - 1, -1):
                if hop[k] == j and can[k]:
                    count[k] = requests
                    total[k] = money - requests * cost[k]
                requests += paid[k - a]
                money += paid[k - a] * cost[k]
    return count, total


@njit(cache=True)
def _pick(
    ranks: ndarray,
    type_: ndarray,
    node: ndarray,
    order: ndarray,
    first: ndarray,
    count: ndarray,
    total: ndarray,
    capacity: ndarray,
    sizes: ndarray,
    room: ndarray,
    loaded: ndarray,
) -> None:
    """Fill every node; ``count`` is used up."""
    nodes, models = sizes.shape
    saved = np.zeros(len(count))
    for k in range(len(count)):
        if count[k] > 0.0:
            saved[k] = total[k] / count[k]
    for v in range(nodes):
        while True:
            best, chosen = 0.0, -1
            for m in range(models):
                place = v * models + m
                if loaded[v, m] or sizes[v, m] > room[v]:
                    continue
                worth = 0.0
                for at in range(first[place], first[place + 1]):
                    k = order[at]
                    worth += min(count[k], capacity[k]) * saved[k]
                if worth / sizes[v, m] > best * (1.0 + 1e-9):
                    best, chosen = worth / sizes[v, m], m
            if chosen < 0:
                break
            loaded[v, chosen] = True
            room[v] -= sizes[v, chosen]
            for at in range(first[v * models + chosen], first[v * models + chosen + 1]):
                k = order[at]
                absorbed = min(count[k], capacity[k])
                for other in range(ranks[type_[k]], ranks[type_[k] + 1]):
                    if node[other] == v:
                        count[other] = max(count[other] - absorbed, 0.0)

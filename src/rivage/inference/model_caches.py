"""Model caches: nodes fetch what is missing when it is asked for, as serving systems do.

Each request walks its path. A node asks for the model that would answer it cheapest there, of those it can hold. Is
that model loaded, the walk ends with a hit; otherwise the node fetches it and evicts others until it fits, and the
request goes on. With ``fetch = "missed"`` every node on the way fetches, with ``"first"`` only the first one that can
hold a model of the task. Fetched models serve from the next slot on. What is evicted goes by ``rule``:

========= ==================================================================================================
``lru``   what was asked for longest ago
``lfu``   what was asked for least often, counts being kept for models that are not loaded too
``gds``   the least H = L + frequency · saving/size, with L the H of what was evicted last (greedy dual size
          with frequency); the saving is against the cheapest pinned model
========= ==================================================================================================

Requests of a slot walk in random order, since a cache that saw all of one type at once would only remember the last
types. Where there are more than ``most``, equal shares of them walk together. Caches know neither capacities nor each
other. O(requests · path + evictions · models) per slot.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the setting. LRU by number of models is what Ray Serve multiplexing does, by memory
    KServe's ModelMesh.
    Cherkasova. Improving WWW proxies performance with greedy-dual-size-frequency caching policy. HPL-98-69, 1998.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.core.errors import require, require_one_of
from rivage.core.seeding import Streams
from rivage.inference.filling import storable
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen

__all__ = ["CacheState", "ModelCaches"]

Rule = Literal["lru", "lfu", "gds"]
Fetch = Literal["missed", "first"]
_RULES = get_args(Rule)
_ROUNDING = 1e-9  # of a budget


class Wanted(NamedTuple):
    """The walk of each type.

    Args:
        node, model: at every stop of its path, in order; only stops with a model that can be held or is pinned.
        saving: against the cheapest pinned model, >= 0.
        first: where the stops of each type begin, and at the end how many there are.
    """

    node: Int64[ndarray, "stops"]
    model: Int64[ndarray, "stops"]
    saving: Float64[ndarray, "stops"]
    first: Int64[ndarray, "n"]


@dataclass(slots=True, eq=False)
class CacheState:
    """All caches.

    Args:
        instance: the network.
        wanted: the walks.
        loaded: what is loaded now.
        left: free memory of each node.
        value: by which models are evicted, least first.
        counts: how often each model was asked for at each node.
        level: L of each node.
        random: of the order of requests.
        clock: walks so far.
    """

    instance: Instance
    wanted: Wanted
    loaded: Bool[ndarray, "nodes models"]
    left: Float64[ndarray, "nodes"]
    value: Float64[ndarray, "nodes models"]
    counts: Float64[ndarray, "nodes models"]
    level: Float64[ndarray, "nodes"]
    random: np.random.Generator
    clock: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelCaches:
    """A cache of models on every node.

    Args:
        rule: of eviction.
        fetch: which nodes fetch what they miss.
        most: walks of a slot, >= 1.
    """

    reference: ClassVar[str] = "sisalem24"

    rule: Rule = "lru"
    fetch: Fetch = "missed"
    most: int = 10_000

    def __post_init__(self) -> None:
        require_one_of(self.rule, "rule", _RULES)
        require_one_of(self.fetch, "fetch", get_args(Fetch))
        require(self.most, "most", least=1)

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> CacheState:
        """Caches hold nothing but what is pinned."""
        zeros = np.zeros(instance.shape)
        return CacheState(
            instance=instance,
            wanted=_walks(instance),
            loaded=instance.pinned.copy(),
            left=instance.free_budgets * (1 + _ROUNDING),
            value=zeros,
            counts=zeros.copy(),
            level=np.zeros(len(instance.budgets)),
            random=streams.numpy("order"),
        )

    def act(self, state: CacheState) -> Bool[ndarray, "nodes models"]:
        """What is in the caches."""
        return state.loaded.copy()

    def update(self, state: CacheState, seen: Seen) -> CacheState:
        """Let the requests of the slot walk."""
        together = max(float(seen.slot.requests.sum()) / self.most, 1.0)
        state.clock = _walk(
            *state.wanted,
            _order(seen.slot.requests / together, state.random),
            together,
            state.instance.sizes,
            state.instance.pinned,
            state.loaded,
            state.left,
            state.value,
            state.counts,
            state.level,
            _RULES.index(self.rule),
            self.fetch == "first",
            state.clock,
        )
        return state


def _order(walks: Float64[ndarray, "types"], random: np.random.Generator) -> Int64[ndarray, "n"]:
    """Types of so many walks, fractions of a walk by chance, in random order."""
    whole = np.floor(walks + random.random(len(walks))).astype(np.int64)
    return random.permutation(np.repeat(np.arange(len(walks)), whole))


def _walks(instance: Instance) -> Wanted:
    """The cheapest model on each node of every path: the first of its node in the ranking."""
    ranking = instance.ranking
    pinned = instance.pinned.ravel()[ranking.place]
    can = np.flatnonzero(pinned | storable(instance).ravel()[ranking.place])
    # Of the ways of a type and a hop the first is the cheapest; sorted by type and hop they are walks.
    step = ranking.type[can] * instance.paths.shape[1] + ranking.hop[can]
    _, at = np.unique(step, return_index=True)
    stops = can[at]
    cloud = np.full(instance.types, np.inf)
    np.minimum.at(cloud, ranking.type[pinned], ranking.cost[pinned])
    return Wanted(
        node=ranking.node[stops],
        model=ranking.model[stops],
        saving=np.maximum(cloud[ranking.type[stops]] - ranking.cost[stops], 0.0),
        first=np.searchsorted(ranking.type[stops], np.arange(instance.types + 1)).astype(np.int64),
    )


@njit(cache=True)
def _walk(
    node: ndarray,
    model: ndarray,
    saving: ndarray,
    first: ndarray,
    order: ndarray,
    together: float,
    sizes: ndarray,
    pinned: ndarray,
    loaded: ndarray,
    left: ndarray,
    value: ndarray,
    counts: ndarray,
    level: ndarray,
    rule: int,
    only_first: bool,
    clock: int,
) -> int:
    for t in order:
        clock += 1
        for stop in range(first[t], first[t + 1]):
            v, m = node[stop], model[stop]
            if pinned[v, m]:
                break
            counts[v, m] += together
            hit = loaded[v, m]
            if not hit and (not only_first or stop == first[t]):
                while left[v] < sizes[v, m]:
                    worst = -1
                    for other in range(sizes.shape[1]):
                        held = loaded[v, other] and not pinned[v, other]
                        if held and (worst < 0 or value[v, other] < value[v, worst]):
                            worst = other
                    loaded[v, worst] = False
                    left[v] += sizes[v, worst]
                    level[v] = value[v, worst]
                loaded[v, m] = True
                left[v] -= sizes[v, m]
            if loaded[v, m]:
                if rule == 0:
                    value[v, m] = clock
                elif rule == 1:
                    value[v, m] = counts[v, m]
                else:
                    value[v, m] = level[v] + counts[v, m] * saving[stop] / sizes[v, m]
            if hit:
                break
    return clock

"""Networks of caches that know no fairness: every cache evicts by itself.

In each slot one request per query node, drawn from the batch, goes along its way (`VirtualCaches.way`), and the caches
that it passes react:

``lru``
    up to the first hit; a cache without the item fetches it and evicts what was used least recently.
``lfu``
    up to the first hit; every cache counts, and holds the items that were counted most often, old counts kept.
``published_lru``
    all caches on the way, also beyond a hit; a cache without the item evicts what was used *most* recently. This is
    what the authors' code does for LRU: it replaces the head of a queue whose head is the latest item.

The caches start full of items drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.core.errors import require_one_of
from rivage.core.seeding import Streams
from rivage.online.virtual_caches import VirtualCaches

__all__ = ["PathEviction"]

_RULES = {"lru": 0, "lfu": 1, "published_lru": 2}


@dataclass(frozen=True, kw_only=True)
class PathEviction:
    """Caches that each evict by one rule.

    Args:
        rule: see the module.
    """

    reference: ClassVar[str] = "sisalem23"

    rule: Literal["lru", "lfu", "published_lru"] = "lru"

    def __post_init__(self) -> None:
        require_one_of(self.rule, "rule", _RULES)

    def play(
        self, caches: VirtualCaches, batches: Int64[ndarray, "slots queries items"], streams: Streams
    ) -> Float64[ndarray, "slots agents"]:
        """Utilities of every slot, at what the caches hold when its batch arrives.

        Args:
            caches: the network.
            batches: requests for each item at each query node, slot by slot.
            streams: randomness of the first contents and of the requests drawn.
        """
        begins, ways = _ways(caches)
        ends = np.cumsum([part.dimension for part in caches.set.parts])
        cache = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        rng = streams.numpy("caches")
        x = np.concatenate([_some(part.dimension, round(float(part.center.sum())), rng) for part in caches.set.parts])
        asked = _drawn(batches, streams.numpy("requests"))
        held, score = x.copy(), rng.random(len(x)) - 1.0  # first contents are older than all requests
        values = np.empty((len(batches), caches.agents))
        for slot, batch in enumerate(batches):
            values[slot] = caches.utilities(batch).at(held).values
            _serve(asked[slot], caches.items, begins, ways, ends, cache, held, score, slot + 1.0, _RULES[self.rule])
        return values


def _ways(caches: VirtualCaches) -> tuple[Int64[ndarray, "ends"], Int64[ndarray, "flat"]]:
    """The ways of all (query, item), one after the other, and where each begins."""
    ways = [caches.way(query, item)[0] for query in range(len(caches.queries)) for item in range(caches.items)]
    begins = np.cumsum([0, *map(len, ways)])
    return begins, np.concatenate(ways)


def _some(count: int, chosen: int, rng: np.random.Generator) -> Float64[ndarray, "count"]:
    x = np.zeros(count)
    x[rng.choice(count, chosen, replace=False)] = 1.0
    return x


def _drawn(batches: Int64[ndarray, "slots queries items"], rng: np.random.Generator) -> Int64[ndarray, "slots queries"]:
    """One item per slot and query node, with probability proportional to its requests; −1 where there are none."""
    sums = np.cumsum(batches, axis=2)
    totals = sums[:, :, -1]
    picks = rng.random(totals.shape) * totals
    items: Int64[ndarray, "slots queries"] = (sums <= picks[:, :, None]).sum(axis=2)
    return np.where(totals > 0, items, -1)


@njit(cache=True)
def _serve(
    asked: ndarray,
    items: int,
    begins: ndarray,
    ways: ndarray,
    ends: ndarray,
    cache: ndarray,
    held: ndarray,
    score: ndarray,
    now: float,
    rule: int,
) -> None:
    for query in range(len(asked)):
        if asked[query] < 0:
            continue
        way = query * items + asked[query]
        for step in range(begins[way], begins[way + 1]):
            place = ways[step]
            hit = held[place] > 0
            score[place] = max(score[place], 0.0) + 1 if rule == 1 else now + query / len(asked)
            if not hit:
                _let_in(
                    place, 0 if cache[place] == 0 else ends[cache[place] - 1], ends[cache[place]], held, score, rule
                )
            if hit and rule != 2:
                break


@njit(cache=True)
def _let_in(place: int, begin: int, end: int, held: ndarray, score: ndarray, rule: int) -> None:
    """Hold an item in place of the one that the rule evicts; LFU may keep what it has."""
    victim = -1
    for other in range(begin, end):
        if held[other] > 0 and (
            victim < 0 or (score[other] > score[victim] if rule == 2 else score[other] < score[victim])
        ):
            victim = other
    if victim >= 0 and (rule != 1 or score[place] > score[victim]):
        held[victim], held[place] = 0.0, 1.0

"""Noisy follow the perturbed leader: counts are estimates from a count-min sketch, and memory does not grow with N.

Ben Mazziane, Faticanti, Neglia, Alouf. No-regret caching with noisy request estimates. 2023, hal-04318435. The cache
holds C items with large n̂_i + η γ_i, where n̂_i is the estimate of a sketch with d rows of w counters (Cormode,
Muthukrishnan. An improved data stream summary: the count-min sketch and its applications. Journal of Algorithms, 2005)
and γ_i a standard normal number, here a hash of seed and item, so that none is stored:

    n_i <= n̂_i,    P( n̂_i > n_i + e T / w ) <= e^{−d}    for plain updates, over the draw of the hash functions.

Only the requested item is looked at: it enters when its value passes the smallest one inside. Values inside are those
of each item's last request. So where no two items share a counter this is `FTPL` with the same noise, request by
request. η is that of `FTPL`, with the horizon, or the next power of two where none is known; at that power all items
are ranked anew.

No bound is promised. Those published ask for estimates whose increments are right in expectation, such as sampling
(``observed`` of `FTPL`); a sketch overestimates, by an amount that depends on who shares a counter with whom, and an
adversary who knows the hashes makes an item that nobody asks for look popular.

Memory: 8 d w bytes for the sketch and at most 88 C for the cache, whatever N. O(d + log C) per request; beginning and
ranking anew O(N (d + log C)), in time only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import require, require_one_of
from rivage.core.seeding import Streams
from rivage.online.policy import CacheInstance, Outcome
from rivage.online.sketch_kernel import Sketch, estimates, make_sketch, rank, serve_sketch

__all__ = ["NFPL", "NFPLState"]

Update = Literal["plain", "conservative"]


@dataclass(slots=True)
class NFPLState:
    """The state of one cache.

    Args:
        instance: what it is for.
        weights: of the items; empty when all are 1.
        seed: of the hash functions and the noise.
        sketch: counts, and the cached items.
        step: η.
        until: requests that η is for, without a horizon.
        served: requests so far.
        unreported: items fetched since the last block.
        prefetched: weight of those fetched for new noise since the last block.
    """

    instance: CacheInstance
    weights: Float64[ndarray, "w"]
    seed: int
    sketch: Sketch
    step: float
    until: int = 1
    served: int = 0
    unreported: int = 0
    prefetched: float = 0.0

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending."""
        return np.sort(self.sketch.item)

    @property
    def nbytes(self) -> int:
        """Memory of the policy, without the weights, which are the instance's."""
        return self.sketch.nbytes

    def counts(self, items: Int64[ndarray, "n"]) -> Int64[ndarray, "n"]:
        """Estimates n̂ of these items."""
        return estimates(self.sketch, self.seed, items)


@dataclass(frozen=True, kw_only=True)
class NFPL:
    """The largest perturbed estimates of a count-min sketch.

    Args:
        width: counters in a row, w >= 1.
        depth: rows, d >= 1.
        update: ``plain``, or ``conservative``, which raises only the counters that must be.
        scale: multiple of the noise of `FTPL`, > 0.
    """

    reference: ClassVar[str] = "benmazziane23"

    width: int = 4096
    depth: int = 4
    update: Update = "conservative"
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.width, "width", least=1)
        require(self.depth, "depth", least=1)
        require(self.scale, "scale", above=0)
        require_one_of(self.update, "update", get_args(Update))

    def init(self, instance: CacheInstance, streams: Streams) -> NFPLState:
        """The C items with the most noise. O(N) time."""
        weights = np.empty(0) if instance.weights is None else np.ascontiguousarray(instance.weights, np.float64)
        sketch = make_sketch(self.width, self.depth, instance.capacity)
        seed = streams.seed("sketch") >> 1  # fits a signed integer
        state = NFPLState(instance, weights, seed, sketch, self._step(instance, instance.horizon or 1))
        rank(sketch, seed, instance.items, weights, state.step)
        state.unreported = instance.capacity
        return state

    def run_block(self, state: NFPLState, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests in order; O(d + log C) each."""
        total = Outcome(requests=len(requests), occupancy=state.instance.capacity)
        while len(requests):
            if state.instance.horizon is None and state.served == state.until:
                self._rescale(state)
            room = len(requests) if state.instance.horizon else state.until - state.served
            part, requests = requests[:room], requests[room:]
            hits, gain, entered = serve_sketch(
                state.sketch, state.seed, part, state.weights, state.step, self.update == "conservative"
            )
            total.hits += hits
            total.gain += gain
            state.unreported += entered
            state.served += len(part)
        total.fractional = total.gain
        total.inserted, state.unreported = state.unreported, 0
        total.prefetched, state.prefetched = state.prefetched, 0.0
        return total

    def _rescale(self, state: NFPLState) -> None:
        """More noise for twice the horizon."""
        state.until *= 2
        state.step, before = self._step(state.instance, state.until), state.cached
        rank(state.sketch, state.seed, state.instance.items, state.weights, state.step)
        fetched = np.setdiff1d(state.cached, before)
        state.unreported += len(fetched)
        state.prefetched += float(state.weights[fetched].sum()) if len(state.weights) else len(fetched)

    def _step(self, instance: CacheInstance, horizon: int) -> float:
        weight, capacity = instance.largest_weight or 1.0, instance.capacity
        spread = math.sqrt(2 * math.log(instance.items * math.e / capacity))
        return self.scale * weight * math.sqrt(horizon / (capacity * spread * math.sqrt(2 * math.pi)))

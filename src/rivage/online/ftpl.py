"""Follow the perturbed leader, with the noise drawn once: least frequently used with a random head start.

Bhattacharjee, Banerjee, Sinha. Fundamental limits on the regret of online network-caching. SIGMETRICS 2020. The cache
holds the C items with the largest n_i + η γ_i, where n_i counts requests (times the weight) and γ_i is a standard
normal number of item i. Only the requested item's rank can rise, so only it can enter: O(log C) per request.

Expected regret, for sequences that do not react to the noise: by the be-the-leader argument it is at most
η E max_S Σ_S γ plus the expected gain from having been one request ahead. The first is at most η C √(2 ln(N e / C)),
the maximum of fewer than (N e / C)^C normal variables of variance C; the second is w P(the requested item is let in by
this very request) <= w² / (η √(2π)), the largest density of η γ times w. So

    E R_T <= η C L + w² T / (η √(2π)),    L = √(2 ln(N e / C)),    least for  η = w √(T / (C L √(2π))),

then 2 w √(C T L / √(2π)), which is 1.51 w (ln(N e / C))^¼ √(C T). Without a horizon η is that of the next power of two;
with one γ for all times the first term telescopes, and

    E R_T <= η_T C L + Σ_t w² / (η_t √(2π)).

Where each request is observed with probability p only, those observed count 1/p, so that counts are right in
expectation (noisy FPL: Ben Mazziane, Faticanti, Alouf, Neglia. Efficient and optimal no-regret caching under partial
observation. 2025, arXiv 2503.02758). The leader of such counts has on average no less than the best fixed set, and the
second term, now with expected squares, has w²/p for w²: the same bound with √(T/p) for √T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.online.heap import Heap
from rivage.online.policy import CacheInstance, Outcome
from rivage.online.top import MOVES, fill, grow, make_top, nudge

__all__ = ["FTPL", "FTPLState"]


@dataclass(slots=True)
class FTPLState:
    """The state of one cache.

    Args:
        instance: what it is for.
        weights: of the items; empty when all are 1.
        noise: γ.
        values: n + η γ.
        heap: the cached items by their values.
        step: η.
        until: requests that η is for, without a horizon.
        served: requests so far.
        stability: Σ 1 / η_t so far.
        unreported: items fetched since the last block.
        prefetched: weight of those fetched for new noise since the last block.
        random: decides which requests are observed.
    """

    instance: CacheInstance
    weights: Float64[ndarray, "w"]
    noise: Float64[ndarray, "items"]
    values: Float64[ndarray, "items"]
    heap: Heap
    step: float
    random: np.random.Generator
    until: int = 1
    served: int = 0
    stability: float = 0.0
    unreported: int = 0
    prefetched: float = 0.0

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending."""
        return np.flatnonzero(self.heap.place >= 0)


@dataclass(frozen=True, kw_only=True)
class FTPL:
    """The largest perturbed counts.

    Args:
        scale: multiple of the noise that the bound asks for, > 0; towards 0 it is LFU with perfect counts.
        observed: share p of the requests that are counted, in (0, 1]; hits count all the same.
    """

    reference: ClassVar[str] = "bhattacharjee20"

    scale: float = 1.0
    observed: float = 1.0

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0)
        require(self.observed, "observed", above=0)
        if self.observed > 1:
            raise ConfigError(f"observed is {self.observed}", mend="Give a probability, above 0 and at most 1.")

    def init(self, instance: CacheInstance, streams: Streams) -> FTPLState:
        """The C items with the most noise. O(N)."""
        noise = streams.numpy("noise").standard_normal(instance.items)
        weights = np.empty(0) if instance.weights is None else np.ascontiguousarray(instance.weights, np.float64)
        step = self._step(instance, instance.horizon or 1)
        heap = make_top(instance.items, instance.capacity)
        state = FTPLState(instance, weights, noise, step * noise, heap, step, streams.numpy("observed"))
        self._rank(state)
        state.prefetched = 0.0
        return state

    def run_block(self, state: FTPLState, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests in order; O(log C) each."""
        total = Outcome(requests=len(requests), occupancy=state.instance.capacity)
        while len(requests):
            if state.instance.horizon is None and state.served == state.until:
                self._rescale(state)
            room = len(requests) if state.instance.horizon else state.until - state.served
            part, requests = requests[:room], requests[room:]
            seen = state.random.random(len(part)) < self.observed if self.observed < 1 else np.empty(0, np.bool_)
            hits, gain, entered = _serve(part, state.weights, state.values, state.heap, seen, 1 / self.observed)
            total.hits += hits
            total.gain += gain
            state.unreported += entered
            state.served += len(part)
            state.stability += len(part) / (state.step * self.observed)
        total.fractional = total.gain
        total.inserted, state.unreported = state.unreported, 0
        total.prefetched, state.prefetched = state.prefetched, 0.0
        return total

    def _rank(self, state: FTPLState) -> None:
        """Cache the items with the largest values."""
        before = state.heap.place >= 0
        fill(state.heap, state.values)
        fetched = np.flatnonzero((state.heap.place >= 0) & ~before)
        state.unreported += len(fetched)
        state.prefetched += float(state.weights[fetched].sum()) if len(state.weights) else len(fetched)

    def _rescale(self, state: FTPLState) -> None:
        """More noise for twice the horizon."""
        state.until *= 2
        step = self._step(state.instance, state.until)
        state.values += (step - state.step) * state.noise
        state.step = step
        self._rank(state)

    def _step(self, instance: CacheInstance, horizon: int) -> float:
        weight = instance.largest_weight or 1.0
        once = instance.capacity * _spread(instance) * math.sqrt(2 * math.pi)
        return self.scale * weight * math.sqrt(horizon / (once * self.observed))

    def bound(self, state: FTPLState) -> float:
        """What the expected regret cannot exceed for the requests served so far."""
        weight = state.instance.largest_weight
        noise = state.step * state.instance.capacity * _spread(state.instance)
        return noise + weight**2 * state.stability / math.sqrt(2 * math.pi)


def _spread(instance: CacheInstance) -> float:
    """L."""
    return math.sqrt(2 * math.log(instance.items * math.e / instance.capacity))


@njit(cache=True)
def _serve(
    requests: Int64[ndarray, "n"],
    weights: Float64[ndarray, "w"],
    values: Float64[ndarray, "items"],
    heap: Heap,
    seen: Bool[ndarray, "s"],
    worth: float,
) -> tuple[int, float, int]:
    """Hits, their weight, and items that entered; of the requests all are seen when ``seen`` is empty."""
    hits, gain, entered, held = 0, 0.0, 0, len(heap.item)
    place, key = heap.place, heap.key
    for at, item in enumerate(requests):
        weight = weights[item] if len(weights) else 1.0
        hit = place[item] >= 0
        hits += hit
        gain += weight * hit
        if len(seen) and not seen[at]:
            continue
        if nudge(item, weight * worth, values, place, key, held) == MOVES:
            grow(item, weight * worth, values, heap, held)
            entered += place[item] >= 0 and not hit
    return hits, gain, entered

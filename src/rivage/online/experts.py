"""The best of several policies, without knowing beforehand which: AdaHedge over experts.

de Rooij, van Erven, Grünwald, Koolen. Follow the leader if you can, hedge if you must. JMLR 15, 2014, arXiv 1301.0534,
section 2.2.

Every expert plays the whole game by itself. After each slot of B requests with gains g_e, with G_e their sums,

    p_e ∝ exp(ε G_e),     ε = ln E / Δ,     Δ ← Δ + ln Σ_e p_e exp(ε g_e) / ε − Σ_e p_e g_e,

so the learning rate follows from what mixing has cost so far: nothing is tuned, no horizon is needed. The mixture's
gain Σ_e p_e g_e falls short of the best expert's by at most 2 Δ (lemma 5), whatever the requests were, and Δ is known
while playing: it is the certificate. Beforehand, 2 Δ ≤ w √(B T ln E) + w B (4/3 ln E + 2) (theorem 8).

The cache holds what one expert holds, drawn from p. When p changes the draw is coupled to the last one: it changes
with probability ½ ‖p' − p‖₁, the least there is. Only then are the items fetched that the new expert has and the last
one has not.

`AdaptiveOGB` runs OGB at steps 2^j times that of its theory: small ones suit popularity that lasts, large ones follow
what is recent. Deviation: published variants mix within one algorithm; here nothing is shared, and E states are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.online.ogb import OGB
from rivage.online.policy import CacheInstance, Outcome

__all__ = ["AdaHedge", "AdaptiveOGB", "ExpertsState"]


_FASTEST = 1e300  # learning rate; what mixing has cost may be too small a number to divide by


@dataclass(slots=True)
class AdaHedge:
    """Weights of experts that learn from their gains.

    Args:
        experts: E >= 1.
        sums: Σ gains of each.
        mixed: Δ, what mixing has cost.
        gained: Σ p · g.
    """

    experts: int
    sums: Float64[ndarray, "experts"] = field(init=False)
    mixed: float = 0.0
    gained: float = 0.0

    def __post_init__(self) -> None:
        self.sums = np.zeros(self.experts)

    @property
    def weights(self) -> Float64[ndarray, "experts"]:
        """Their shares p; the leaders share alike while mixing has cost nothing."""
        ahead = self.sums - self.sums.max()
        raw = (ahead == 0).astype(float) if self.mixed == 0 else np.exp(self._rate * ahead)
        shares: Float64[ndarray, "experts"] = raw / raw.sum()
        return shares

    def add(self, gains: Float64[ndarray, "experts"]) -> None:
        """One slot."""
        weights = self.weights
        mean, most = float(weights @ gains), float(gains[weights > 0].max())
        if self.mixed == 0:
            mix = most
        else:
            behind = np.minimum(gains - most, 0)  # whoever has no weight may be ahead, and counts for nothing
            mix = most + math.log(float(weights @ np.exp(self._rate * behind))) / self._rate
        self.mixed += max(mix - mean, 0.0)
        self.gained += mean
        self.sums = self.sums + gains

    @property
    def regret_bound(self) -> float:
        """What the best expert can be ahead by."""
        return 2 * self.mixed

    @property
    def _rate(self) -> float:
        return min(math.log(max(self.experts, 2)) / self.mixed, _FASTEST)


@dataclass(slots=True)
class ExpertsState:
    """The state of the experts and of who is followed.

    Args:
        instance: the cache.
        experts: who play.
        states: of the experts.
        hedge: their weights.
        followed: whose cache is ours.
        random: draws whom to follow.
        gains: of the slot that has begun.
        count: requests since the slot began.
        served: requests so far.
        changes: how often another one was followed.
    """

    instance: CacheInstance
    experts: Sequence[OGB]
    states: list[Any]
    hedge: AdaHedge
    followed: int
    random: np.random.Generator
    gains: Float64[ndarray, "experts"]
    count: int = 0
    served: int = 0
    changes: int = 0

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        items: Int64[ndarray, "cached"] = self.states[self.followed].cached
        return items


@dataclass(frozen=True, kw_only=True)
class AdaptiveOGB:
    """OGB with the step size that turns out best.

    Args:
        smallest: smallest step, as a power of 2 times that of the theory.
        largest: largest step, likewise.
        slot: requests between changes of the weights, B >= 1.
    """

    reference: ClassVar[str] = "derooij14"

    smallest: int = -4
    largest: int = 10
    slot: int = 100

    def __post_init__(self) -> None:
        require(self.slot, "slot", least=1)
        if self.smallest > self.largest:
            raise ConfigError(
                f"smallest is {self.smallest} and largest {self.largest}", where="policy", mend="Swap them."
            )

    def experts(self, instance: CacheInstance) -> Sequence[OGB]:
        """One for each step; of those that are at least 1 + 1/C, which all do the same, only the smallest.

        An item that rises by δ <= 1 to its bound takes τ from each other, Σ min(f_i, τ) = δ. As min(f, τ) >= τ f and
        Σ f_i = C − 1 + δ, τ <= 1/C: a step of δ + τ, never more than this, lets it end there.
        """
        everyone = [OGB(scale=2.0**power) for power in range(self.smallest, self.largest + 1)]
        if instance.weights is not None or instance.horizon is None:
            return everyone
        small = [expert for expert in everyone if expert.step(instance) < 1 + 1 / instance.capacity]
        return everyone[: len(small) + 1]

    def init(self, instance: CacheInstance, streams: Streams) -> ExpertsState:
        """All experts, with the same permanent numbers: their caches differ as little as their states. O(E N)."""
        experts = self.experts(instance)
        states = [expert.init(instance, streams) for expert in experts]
        count, random = len(states), streams.numpy("expert")
        followed = int(random.integers(count))
        return ExpertsState(instance, experts, states, AdaHedge(count), followed, random, np.zeros(count))

    def run_block(self, state: ExpertsState, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests in order; O(E) each."""
        total = Outcome()
        while len(requests):
            part, requests = requests[: self.slot - state.count], requests[self.slot - state.count :]
            weights = state.hedge.weights
            outcomes = [expert.run_block(s, part) for expert, s in zip(state.experts, state.states, strict=True)]
            gains = np.array([outcome.fractional for outcome in outcomes])
            state.gains += gains
            ours = outcomes[state.followed]
            total.requests += len(part)
            total.hits += ours.hits
            total.gain += ours.gain
            total.fractional += float(weights @ gains)
            total.inserted += ours.inserted
            total.occupancy = ours.occupancy
            state.count += len(part)
            state.served += len(part)
            total.prefetched += ours.prefetched
            if state.count == self.slot:
                fetched = self._end_slot(state, weights)
                total.inserted += len(fetched)
                weight = state.instance.weights
                total.prefetched += len(fetched) if weight is None else float(weight[fetched].sum())
        return total

    def _end_slot(self, state: ExpertsState, before: Float64[ndarray, "experts"]) -> Int64[ndarray, "fetched"]:
        """Learn from the slot, perhaps follow another; the items fetched for that."""
        state.hedge.add(state.gains)
        state.gains, state.count = np.zeros(len(state.states)), 0
        after, last = state.hedge.weights, state.followed
        if state.random.random() * before[last] < after[last]:
            return np.empty(0, np.int64)
        rise = np.maximum(after - before, 0)
        state.followed = int(state.random.choice(len(after), p=rise / rise.sum()))
        state.changes += 1
        return np.setdiff1d(state.cached, state.states[last].cached, assume_unique=True)

    def bound(self, state: ExpertsState) -> float:
        """What the regret of the mixture cannot exceed: the best expert's bound and 2 Δ; an open slot may be lost."""
        own = min(expert.bound(s) for expert, s in zip(state.experts, state.states, strict=True))
        return own + state.hedge.regret_bound + state.count * state.instance.largest_weight

"""AÇAI: mirror ascent with the entropy on the gain of a similarity cache, rounded to whole objects.

Si Salem, Neglia, Carra. Ascent similarity caching with approximate indexes. IEEE/ACM Transactions on Networking, 2022,
arXiv 2107.00957. The game, its gain G and the supergradient g_t, between 0 and c_f, are those of
`rivage.online.similarity`. From x_1 = h / N, in X = {0 ≤ x ≤ 1, Σ x = h},

    x_{t+1} = argmin_X  Σ_i x_i ln(x_i / y_i),    y_i = x_{t,i} e^{η g_{t,i}},

and the cache holds whole objects z_t with E z_t = x_t. Only objects near the request are raised.

Bound: the entropy is 1/h-strongly convex in ‖·‖₁ on X, the divergence from h / N at most h ln(N/h), ‖g_t‖_∞ <= c_f, so

    max_X Σ_t G(r_t, x) − Σ_t G(r_t, x_t)  <=  h ln(N/h) / η + η h c_f² T / 2,

least, h c_f √(2 ln(N/h) T), for η = √(2 ln(N/h) / T) / c_f. Without a horizon the doubling trick is used: after 1, 2,
4, … requests everything begins anew. The left side is against the best fractions, hence against the best fixed set too.

Rounding: G is a sum of truncated counts min(b, Σ_W x). Let z be drawn by independent draws (``poisson``, h objects on
average only) or by pairwise trades (``dep_round``, always h). Then E G(r, z) >= (1 − 1/e) G(r, x): for independent
draws this is the correlation gap of monotone submodular functions, and since their multilinear extension is convex in
every direction e_i − e_j, trades that keep the mean only raise its expectation (Agrawal, Ding, Saberi, Ye. Price of
correlations in stochastic optimization. Operations Research, 2012; Chekuri, Vondrák, Zenklusen. Dependent randomized
rounding via exchange properties of combinatorial structures. FOCS 2010). So for requests that do not react to the draws

    E Σ_t G(r_t, z_t)  >=  (1 − 1/e) ( max_S Σ_t G(r_t, S) − bound ).

This holds slot by slot, so the draws may be the same for all time, as they are here: one cache then shares most objects
with the next. ``coupled`` (systematic sampling) always holds h objects as well, without that promise: which objects
come together depends on their order. ``every`` > 1 rounds after so many requests only, as in the paper, which saves
time and movement and puts an older x in the place of x_t.

O(m log m + N) per request, for lists of m objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.convex.rounding import dep_round, madow, poisson
from rivage.convex.schedules import Constant, Doubling, Progress, Schedule, Theory
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import require, require_one_of
from rivage.core.seeding import Streams
from rivage.online.similarity import (
    Merged,
    Served,
    SimilarityInstance,
    SimilarityRequests,
    merge,
    price,
)

__all__ = ["ACAI", "ACAIState"]

Rounding = Literal["dep_round", "poisson", "coupled"]


@dataclass(slots=True)
class ACAIState:
    """The state of one cache.

    Args:
        instance: what it is for.
        x: the fractional state.
        kept: which objects are cached.
        draws: of the objects, for good; of ``coupled`` the first only.
        schedule: of the step sizes.
        progress: of the schedule.
        unreported: objects fetched since the last block.
    """

    instance: SimilarityInstance
    x: Float64[ndarray, "items"]
    kept: Bool[ndarray, "items"]
    draws: Float64[ndarray, "items"]
    schedule: Schedule
    progress: Progress
    unreported: int

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached objects, ascending."""
        return np.flatnonzero(self.kept)


@dataclass(frozen=True, kw_only=True)
class ACAI:
    """Mirror ascent on the gain of a similarity cache.

    Args:
        scale: multiple of the step that the bound asks for, > 0.
        rounding: from fractions to objects, see above.
        every: requests between roundings, >= 1.
    """

    reference: ClassVar[str] = "sisalem22"

    scale: float = 1.0
    rounding: Rounding = "dep_round"
    every: int = 1

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0)
        require(self.every, "every", least=1)
        require_one_of(self.rounding, "rounding", get_args(Rounding))

    @property
    def ratio(self) -> float | None:
        """What share of the fractional gain the cache has in expectation, at least; None where none is proved."""
        return None if self.rounding == "coupled" or self.every > 1 else 1 - 1 / math.e

    def init(self, instance: SimilarityInstance, streams: Streams) -> ACAIState:
        """The first state. O(N)."""
        x, draws = (
            CappedSimplex(instance.items, instance.capacity).center,
            streams.numpy("rounding").random(instance.items),
        )
        kept, schedule = self._rounded(x, draws), self._schedule(instance)
        return ACAIState(instance, x, kept, draws, schedule, schedule.start(), int(np.count_nonzero(kept)))

    def run_block(self, state: ACAIState, requests: SimilarityRequests) -> Served:
        """Serve requests in order; O(m log m + N) each."""
        instance, merged = state.instance, merge(requests, state.instance)
        nobody = price(np.zeros(instance.items), merged, instance.answers)
        total = Served(requests=len(requests), empty=float(nobody.cost.sum()))
        for at in range(len(requests)):
            one = Merged(*(part[at : at + 1] for part in merged))
            held, fractional = (price(x, one, instance.answers) for x in (state.kept.astype(np.float64), state.x))
            total.cost += float(held.cost[0])
            total.local += float(held.local[0])
            total.fractional += float(fractional.cost[0])
            distances = requests.distances[at]
            slope = np.clip(fractional.last[0] - distances, 0.0, instance.fetch_cost)
            self._ascend(state, requests.items[at], slope)
            if state.progress.rounds % self.every == 0:
                fetched = requests.items[at][distances + instance.fetch_cost <= held.last[0]]
                self._refill(state, total, fetched)
        total.inserted += state.unreported
        state.unreported, total.occupancy = 0, int(np.count_nonzero(state.kept))
        return total

    def _ascend(self, state: ACAIState, items: Int64[ndarray, "m"], slope: Float64[ndarray, "m"]) -> None:
        ground = CappedSimplex(state.instance.items, state.instance.capacity)
        step, state.progress = state.schedule.next(state.progress, state.instance.fetch_cost**2)
        if state.progress.restart:
            state.x = ground.center
        elif slope.any():
            y = state.x.copy()
            y[items] *= np.exp(self.scale * step * slope)
            state.x = ground.project_entropic(y)

    def _refill(self, state: ACAIState, total: Served, fetched: Int64[ndarray, "n"]) -> None:
        kept = self._rounded(state.x, state.draws)
        entered = kept & ~state.kept
        total.inserted += int(np.count_nonzero(entered))
        entered[fetched] = False
        total.prefetched += int(np.count_nonzero(entered))
        state.kept = kept

    def _rounded(self, x: Float64[ndarray, "items"], draws: Float64[ndarray, "items"]) -> Bool[ndarray, "items"]:
        if self.rounding == "coupled":
            return madow(x, float(draws[0])).astype(np.bool_)
        return (poisson(x, draws) if self.rounding == "poisson" else dep_round(x, draws)).astype(np.bool_)

    @staticmethod
    def _constants(instance: SimilarityInstance) -> tuple[float, float]:
        """Twice the divergence, and the squared dual norm of gradients over the convexity of the map."""
        capacity = instance.capacity
        return 2 * capacity * math.log(instance.items / capacity), capacity * instance.fetch_cost**2

    def _schedule(self, instance: SimilarityInstance) -> Schedule:
        constants = self._constants(instance)
        return Doubling(*constants) if instance.horizon is None else Theory(*constants, instance.horizon)

    def bound(self, state: ACAIState) -> float:
        """How far the gain of x can be below that of the best fixed fractions, for the requests served so far."""
        diameter, gradient = self._constants(state.instance)
        served = state.progress.rounds
        if isinstance(state.schedule, Theory):
            lengths = [(state.schedule.horizon, served)]
        else:
            epochs = [1 << power for power in range(served.bit_length())]
            lengths = [(epoch, min(epoch, served - epoch + 1)) for epoch in epochs]
        return sum(
            Constant(self.scale * Theory(diameter, gradient, planned).step).bound(
                played, diameter_squared=diameter, gradient_squared=gradient
            )
            for planned, played in lengths
        )

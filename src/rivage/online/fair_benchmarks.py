"""What a fair policy is held against: the best fixed allocation in hindsight, with a certified gap.

    horizon-fair   max_{x in X}  F_α( (1/T) Σ_t u_t(x) )          `horizon_optimum`
    slot-fair      max_{x in X}  (1/T) Σ_t F_α( u_t(x) )          `slot_optimum`
    α = 0          max_{x in X}  Σ_i (1/T) Σ_t u_t,i(x)           either; the two agree

All three are one programme: maximise Σ_i w_i f_α(u_i(x) − d_i), with the agents of the mean utilities or those of all
slots. It is solved by cutting planes (Kelley). A linear programme holds an upper estimate of each f_α, the least of
tangents, and of each u_i: exact for `CappedSums`, the least of supergradient planes otherwise. Its optimum is an *upper
bound* for every allocation; the welfare of its allocation is a *lower bound*; tangents and planes are added there, and
half-way to the best allocation so far, until the two meet. What is returned holds both, so the gap is certified to the
tolerance of HiGHS (1e-7 per constraint, by default), whether or not the iteration got far.

For α = 0 and `CappedSums` the first linear programme is exact. Cost: each iteration is one linear programme of
n + terms + 2 agents variables.

References:
    Kelley. The cutting-plane method for solving convex programs. Journal of SIAM, 1960.
    Ben-Ameur, Neto. Acceleration of cutting-plane and column generation algorithms. Networks, 2007 (in-out points).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.sparse import bmat, csr_array, eye_array

from rivage.convex.programs import linear_program
from rivage.convex.sets import ConvexSet
from rivage.core.errors import ConfigError, require
from rivage.online.fairness import AlphaFairness
from rivage.online.utilities import CappedSums, Utilities, mean_utilities, stacked_utilities

__all__ = ["FairOptimum", "horizon_optimum", "price_of_fairness", "slot_optimum"]

Vector = Float64[ndarray, "n"]
Agents = Float64[ndarray, "agents"]
Limits = Float64[ndarray, "_"]

_SMALLEST = 1e-6  # no tangent is taken left of this utility, nor where it is
_STEEPEST = 1e8  # steeper than this: linear programmes lose their precision there. Bounds hold with fewer tangents.
_PATIENCE = 8  # rounds without progress: what is left of the gap is HiGHS' tolerance


@dataclass(frozen=True, slots=True, eq=False)
class FairOptimum:
    """The best allocation found, and how much better another one could be.

    Args:
        x: the allocation, a point of the set.
        utilities: of the agents at x, before points of disagreement are taken off.
        value: the welfare of x.
        upper: no allocation of the set has more.
        rounds: linear programmes solved.
    """

    x: Vector
    utilities: Agents
    value: float
    upper: float
    rounds: int

    @property
    def gap(self) -> float:
        """How much better any allocation could be, upper − value >= 0."""
        return max(0.0, self.upper - self.value)


def horizon_optimum(
    set: ConvexSet,
    slots: Utilities | Sequence[Utilities],
    alpha: float,
    *,
    shares: Float64[ndarray, "slots"] | None = None,
    disagreement: Agents | None = None,
    tolerance: float = 1e-6,
    rounds: int = 200,
    ladder: Sequence[Vector] = (),
) -> FairOptimum:
    """The horizon-fair allocation.

    Args:
        set: the allocations.
        slots: the time-averaged utilities, or the utilities of all (kinds of) slots.
        alpha: inequality aversion α >= 0.
        shares: of the time, for each kind of slot; equal when not given.
        disagreement: d, taken off before f_α.
        tolerance: gap at which to stop; below 1e-6 it may not be reached, see above.
        rounds: linear programmes at most; what is left of the gap is reported.
        ladder: points, of the set or not, where tangents and planes are added before the first programme. Where each
            utility depends on one number alone, a few rungs from nothing to everything make up for many rounds.

    Raises:
        ConfigError: when no allocation found gives every agent a welfare.
    """
    mean = slots if isinstance(slots, Utilities) else mean_utilities(slots, shares)
    agents = len(mean.at(set.center).values)
    points = np.zeros(agents) if disagreement is None else disagreement
    cutting = _Cutting(set, mean, AlphaFairness(alpha), np.ones(agents), points)
    for rung in ladder:
        cutting.touch(rung)
    return cutting.solve(tolerance, rounds)


def slot_optimum(
    set: ConvexSet,
    slots: Sequence[Utilities],
    alpha: float,
    *,
    shares: Float64[ndarray, "slots"] | None = None,
    disagreement: Agents | None = None,
    tolerance: float = 1e-6,
    rounds: int = 200,
) -> FairOptimum:
    """The slot-fair allocation; its ``utilities`` are time-averages, its ``value`` is the time-average of F_α.

    The programme has the agents of all slots, so give the kinds of slots and their shares where slots repeat.

    Args:
        set: the allocations.
        slots: the utilities of all (kinds of) slots.
        alpha: inequality aversion α >= 0.
        shares: of the time; equal when not given.
        disagreement: d, taken off before f_α.
        tolerance: gap at which to stop; below 1e-6 it may not be reached, see above.
        rounds: linear programmes at most.
    """
    shares = np.full(len(slots), 1 / len(slots)) if shares is None else np.asarray(shares, np.float64)
    agents = len(slots[0].at(set.center).values)
    points = np.zeros(agents) if disagreement is None else disagreement
    everyone, weights = stacked_utilities(slots), np.repeat(shares, agents)
    cutting = _Cutting(set, everyone, AlphaFairness(alpha), weights, np.tile(points, len(slots)))
    found = cutting.solve(tolerance, rounds)
    means = shares @ found.utilities.reshape(len(slots), agents)
    return FairOptimum(found.x, means, found.value, found.upper, found.rounds)


def price_of_fairness(utilitarian: Agents, fair: Agents) -> float:
    """(SW(x_0) − SW(x_α))/SW(x_0), the share of the sum of utilities that fairness costs."""
    most = float(utilitarian.sum())
    require(most, "the largest sum of utilities", above=0.0)
    return (most - float(fair.sum())) / most


@dataclass(slots=True, eq=False)
class _Cutting:
    """The growing linear programme over (x, z, u, s): z are the terms, s the estimates of f_α(u − d)."""

    set: ConvexSet
    utilities: Utilities
    fairness: AlphaFairness
    weights: Agents
    points: Agents
    tangents: list[tuple[int, float]] = field(default_factory=list)
    planes: list[tuple[Agents, Float64[ndarray, "agents n"]]] = field(default_factory=list)

    def solve(self, tolerance: float, rounds: int) -> FairOptimum:
        """Cut until upper and lower bound meet, or the rounds are over."""
        x, upper, solved, progress = self.set.center, np.inf, 0, 0
        utilities, value = self.touch(x)
        while solved < rounds and solved - progress < _PATIENCE:
            solved += 1
            estimate, bound = self._program()
            if bound < upper - tolerance / 10:
                progress = solved
            upper = min(upper, bound)
            for point in (self.set.project(estimate), self.set.project((estimate + x) / 2)):
                found, welfare = self.touch(point)
                if welfare > value:
                    progress = solved if welfare > value + tolerance / 10 else progress
                    x, utilities, value = point, found, welfare
            if upper - value <= tolerance:
                break
        if not np.isfinite(value):
            raise ConfigError(
                f"no allocation was found that gives every agent more than its disagreement point (α = {self.alpha})",
                mend="Lower the points of disagreement, or α.",
            )
        return FairOptimum(x, utilities, value, max(upper, value), solved)

    @property
    def alpha(self) -> float:
        return self.fairness.alpha

    def touch(self, x: Vector) -> tuple[Agents, float]:
        """Utilities and welfare at a point, where tangents and planes are added."""
        seen = self.utilities.at(x)
        net = seen.values - self.points
        least = max(_SMALLEST, _STEEPEST ** (-1 / max(self.alpha, 1.0)))
        self.tangents += [(i, max(float(u), least)) for i, u in enumerate(net)]
        if not isinstance(self.utilities, CappedSums):
            self.planes.append((seen.values - seen.gradients @ x, seen.gradients))
        return seen.values, float(self.weights @ self.fairness.each(net))

    def _program(self) -> tuple[Vector, float]:
        """The linear programme's allocation and its optimum, an upper bound."""
        sides, agents, n = self.set.polytope, len(self.weights), self.set.dimension
        terms = self.utilities if isinstance(self.utilities, CappedSums) else None
        m = 0 if terms is None else terms.rows.shape[0]
        upper, equal = [self._tangent_rows(n + m)], [_widen(csr_array(sides.rows), m + 2 * agents, sides.totals)]
        if terms is None:
            upper += [_plane_rows(*plane) for plane in self.planes]
        else:
            upper.append(_term_rows(terms, agents))
            equal.append(_sum_rows(terms, n, agents))
        caps = np.empty(0) if terms is None else terms.caps
        free = np.full(m + 2 * agents, -np.inf)
        solution = linear_program(
            np.concatenate([np.zeros(n + m + agents), -self.weights]),
            upper=_joined(upper),
            equal=_joined(equal),
            low=np.concatenate([sides.low, free]),
            high=np.concatenate([sides.high, caps, np.full(2 * agents, np.inf)]),
        )
        return solution.x[:n], -solution.value

    def _tangent_rows(self, before: int) -> tuple[Any, Limits]:
        """s_i − f'(v) u_i <= f(v) − f'(v) (v + d_i), for every tangent (i, v)."""
        agent = np.array([i for i, _ in self.tangents])
        v = np.array([point for _, point in self.tangents])
        count, agents = len(v), len(self.weights)
        slopes, heights = self.fairness.weights(v), self.fairness.each(v)
        ones = csr_array((np.ones(count), (np.arange(count), agent)), shape=(count, agents))
        steep = csr_array((-slopes, (np.arange(count), agent)), shape=(count, agents))
        rows = bmat([[csr_array((count, before)), steep, ones]], format="csr")
        return rows, heights - slopes * (v + self.points[agent])


def _term_rows(terms: CappedSums, agents: int) -> tuple[Any, Limits]:
    """Terms stay below their rows: z − rows x <= 0."""
    m = terms.rows.shape[0]
    return bmat([[-terms.rows, eye_array(m), csr_array((m, 2 * agents))]], format="csr"), np.zeros(m)


def _sum_rows(terms: CappedSums, n: int, agents: int) -> tuple[Any, Limits]:
    """Utilities are sums of terms: u − Σ weights z = offset."""
    m = terms.rows.shape[0]
    sums = csr_array((-terms.weights, (terms.owner, np.arange(m))), shape=(agents, m))
    rows = bmat([[csr_array((agents, n)), sums, eye_array(agents), csr_array((agents, agents))]], format="csr")
    return rows, np.zeros(agents) if terms.offset is None else terms.offset


def _plane_rows(heights: Agents, gradients: Float64[ndarray, "agents n"]) -> tuple[Any, Limits]:
    """Utilities stay below a supergradient plane: u − g x <= height."""
    agents = len(heights)
    return bmat([[csr_array(-gradients), eye_array(agents), csr_array((agents, agents))]], format="csr"), heights


def _widen(rows: Any, columns: int, totals: Limits) -> tuple[Any, Limits]:
    return bmat([[rows, csr_array((rows.shape[0], columns))]], format="csr"), totals


def _joined(parts: list[tuple[Any, Limits]]) -> tuple[Any, Limits] | None:
    kept = [(rows, limits) for rows, limits in parts if len(limits)]
    if not kept:
        return None
    return bmat([[rows] for rows, _ in kept], format="csr"), np.concatenate([limits for _, limits in kept])

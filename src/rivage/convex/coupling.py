"""From one random set to the next with the least movement: optimal transport between laws of rounded states.

Si Salem, Neglia, Ioannidis. No-regret caching via online mirror descent. 2021, arXiv 2101.12588 (online optimally
coupled rounding). In every slot fractions x are rounded by a law of whole sets with E[z] = x, here that of systematic
sampling: at most n + 1 sets of equal size. Given the set z of the last slot, the next z' is drawn from the row of z of
the plan π that moves least:

    minimise Σ_{a,b} π_ab d(z_a, z'_b)   over   π >= 0,  Σ_b π_ab = p_a,  Σ_a π_ab = p'_b,

d(z, z') = Σ_i c_i abs(z'_i − z_i), a linear program with n² variables. So z' has the new law, whatever came before
(to the 1e-7 of the solver), and

    Σ_i c_i abs(x'_i − x_i)  <=  E d(z, z')  <=  what one draw for both slots moves (`rivage.convex.rounding.Coupled`).

The first is Jensen's inequality. It need **not** be an equality, since the old law decides and not only x: let x = (½,
½, ½, ½) be held as items {1, 3} or {2, 4}, and ε go from item 1 to item 3. They are only ever held together, so that
something else must move as well, and E ‖z' − z‖₁ = 4 ε where ‖x' − x‖₁ = 2 ε. `rivage.convex.rounding.poisson` with
permanent draws always reaches ‖x' − x‖₁, at the price of a size that is right on average only; for k = 1 so does
`rivage.convex.rounding.elementary_jump`, in O(n).

O(n³) and more per step: for small n, and as the reference that cheaper couplings are held against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int8
from numpy import ndarray
from scipy.sparse import eye_array, kron, vstack

from rivage.convex.programs import linear_program
from rivage.convex.rounding import madow
from rivage.core.errors import DataError, ShapeError

__all__ = ["Law", "OptimallyCoupled", "Plan", "optimal_plan", "systematic_law"]

Vector = Float64[ndarray, "n"]
Choice = Int8[ndarray, "n"]

_NOTHING = 1e-12  # shortest interval of draws that counts


class Law(NamedTuple):
    """A distribution of sets.

    Args:
        sets: 0/1, one row per set.
        masses: their probabilities.
    """

    sets: Int8[ndarray, "m n"]
    masses: Float64[ndarray, "m"]

    @property
    def mean(self) -> Vector:
        """E[z]."""
        mean: Vector = self.masses @ self.sets
        return mean


class Plan(NamedTuple):
    """How one law becomes another.

    Args:
        flow: π, old sets in rows, new ones in columns.
        movement: Σ π d, the expected movement.
    """

    flow: Float64[ndarray, "m w"]
    movement: float


def systematic_law(x: Vector) -> Law:
    """The law of `rivage.convex.rounding.madow` over its draw, exactly: a set for each stretch of draws. O(n²).

    Sets change only where ξ passes the fractional part of some x_1 + … + x_i, so there are at most n + 1 stretches.

    Args:
        x: inclusion probabilities with an integer sum.

    Raises:
        DataError: for entries outside [0, 1] and for sums that are not integers.
    """
    madow(x, 0.5)  # refuses what it cannot round
    x = np.clip(np.asarray(x, np.float64), 0.0, 1.0)
    inner = x[(x > 0) & (x < 1)]
    ends = np.unique(np.concatenate([[0.0, 1.0], np.cumsum(inner) % 1.0]))
    lengths = np.diff(ends)
    middles = (ends[:-1] + lengths / 2)[lengths > _NOTHING]
    lengths = lengths[lengths > _NOTHING]
    found, where = np.unique(np.array([madow(x, xi) for xi in middles]), axis=0, return_inverse=True)
    masses = np.bincount(where.reshape(-1), weights=lengths / lengths.sum(), minlength=len(found))
    return Law(found, masses)


def optimal_plan(old: Law, new: Law, costs: Vector | None = None) -> Plan:
    """The coupling of two laws that moves least.

    Args:
        old: law before.
        new: law after.
        costs: c of moving an item either way, >= 0; all 1 when not given.

    Raises:
        ShapeError: when the laws are about different numbers of items.
    """
    items = old.sets.shape[1]
    costs = np.ones(items) if costs is None else np.asarray(costs, np.float64)
    if new.sets.shape[1] != items or costs.shape != (items,):
        raise ShapeError(
            f"laws of {items} and {new.sets.shape[1]} items, costs of shape {costs.shape}",
            mend="Give two laws of the same items, and one cost for each.",
        )
    before, after = old.sets.astype(np.float64), new.sets.astype(np.float64)
    kept = (before * costs) @ after.T
    distance = np.maximum((before @ costs)[:, None] + (after @ costs)[None, :] - 2 * kept, 0.0)
    solution = linear_program(distance.ravel(), equal=_margins(old.masses, new.masses))
    flow = np.maximum(solution.x, 0.0).reshape(distance.shape)
    return Plan(flow, float((flow * distance).sum()))


@dataclass(frozen=True, slots=True)
class OptimallyCoupled:
    """A set, the law that it was drawn from, and how to go on.

    Args:
        law: of the slot.
        at: which of its sets is held.

    Example:
        >>> random = np.random.default_rng(0)
        >>> coupled = OptimallyCoupled.draw(np.array([0.5, 0.5, 1.0]), random)
        >>> coupled.chosen.sum(), coupled.next(np.array([0.5, 0.5, 1.0]), random).at == coupled.at
        (np.int64(2), True)
    """

    law: Law
    at: int

    @classmethod
    def draw(cls, x: Vector, generator: np.random.Generator) -> OptimallyCoupled:
        """The first set, from the law of x."""
        law = systematic_law(x)
        return cls(law, _drawn(law.masses, generator.random()))

    @property
    def chosen(self) -> Choice:
        """The set as a 0/1 array."""
        chosen: Choice = self.law.sets[self.at]
        return chosen

    def next(self, x: Vector, generator: np.random.Generator, costs: Vector | None = None) -> OptimallyCoupled:
        """The set of the next slot, from the law of x; one draw. O(n³) and more.

        Raises:
            DataError: when x is no vector of inclusion probabilities with an integer sum.
            ShapeError: when it has another length.
        """
        law = systematic_law(x)
        row = optimal_plan(self.law, law, costs).flow[self.at]
        return OptimallyCoupled(law, _drawn(row, generator.random()))


def _margins(old: Vector, new: Vector) -> tuple[object, Vector]:
    """Row and column sums of a plan, as equations; the last column follows from the others."""
    rows = kron(eye_array(len(old)), np.ones((1, len(new))))
    columns = kron(np.ones((1, len(old))), eye_array(len(new))).tocsr()[:-1]
    return vstack([rows, columns]).tocsr(), np.concatenate([old, new[:-1]])


def _drawn(masses: Vector, draw: float) -> int:
    total = float(masses.sum())
    if not total > 0:
        raise DataError("the set that is held has no mass in its law", mend="Draw it from that law.")
    return min(int(np.searchsorted(np.cumsum(masses), draw * total, side="right")), len(masses) - 1)

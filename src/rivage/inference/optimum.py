"""The linear bound: what no fixed allocation gains, for given capacities, and what a unit more of memory would add.

The relaxed gain, averaged over slots, is concave and piecewise linear in the fractions y. Its maximum over
Y = {0 <= y <= 1, Σ_m s_m^v y_m^v <= b_v} is a linear program, and lies above every allocation of the same slots (in
which capacities are given: `rivage.inference.pooled` is for throughput that types share as one likes). As published,
with variables t_ρ^k for the minima:

    maximise   Σ_ρ Σ_k (γ_ρ^{k+1} − γ_ρ^k) ( t_ρ^k − Z_ρ^k(ω) )
    subject to t_ρ^k <= r_ρ,   t_ρ^k <= Σ_{k'<=k} l_ρ^k' y                                        (`cumulative_program`)

whose sums fill a triangle for every type. The same as transport, with what each possibility serves as variable:

    minimise   Σ_ρ Σ_k γ_ρ^k f_ρ^k
    subject to Σ_k f_ρ^k = r_ρ,   f_ρ^k <= l_ρ^k y                                                 (`transport_program`)

since filling the cheapest first is the best transport. It has two numbers per possibility, and `relaxed_optimum` solves
it; types are in units of their requests (`rivage.inference.patterns`), costs in units of the largest.

For many slots of different contention `rivage.inference.cuts` finds the same from both sides, much faster.

The *shadow price* of a node's budget, the program's dual value, is what a unit more of it adds to the gain of a slot.
Where a unit less would cost more than a unit more adds, the price is one between.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the relaxation. Transport form and shadow prices are ours.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from scipy.sparse import coo_array, csr_array, hstack, vstack

from rivage.convex.programs import linear_program
from rivage.inference.gain import Slot
from rivage.inference.instance import Instance
from rivage.inference.patterns import Patterns

__all__ = [
    "Program",
    "Relaxed",
    "cumulative_program",
    "memory_rows",
    "relaxed_optimum",
    "relaxed_patterns",
    "transport_program",
]


@dataclass(frozen=True, slots=True, eq=False)
class Relaxed:
    """The optimum of the relaxation.

    Args:
        value: mean gain of a slot; no allocation gains more.
        y: fractions that gain as much; pinned models 1, models that would not help 0.
        memory_prices: what a unit more of each node's budget adds to ``value``, >= 0.
        seconds: to build and solve.
    """

    value: float
    y: Float64[ndarray, "nodes models"]
    memory_prices: Float64[ndarray, "nodes"]
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A program over what is served and the fractions of free models, which come last.

    Args:
        patterns: what is averaged.
        places: of the fractions.
        held: nodes with limited memory, whose limits come last.
        cost: to minimise, in units of ``scale``.
        upper: rows and limits.
        equal: rows and totals; None without.
        high: of each variable; all are >= 0.
        constant: of the cost, in its unit.
        scale: one unit of cost.
    """

    patterns: Patterns
    places: Int64[ndarray, "places"]
    held: Int64[ndarray, "held"]
    cost: Float64[ndarray, "n"]
    upper: tuple[Any, Float64[ndarray, "m"]]
    equal: tuple[Any, Float64[ndarray, "e"]] | None
    high: Float64[ndarray, "n"]
    constant: float
    scale: float

    def solve(self) -> Relaxed:
        """With HiGHS."""
        started = time.perf_counter()
        instance = self.patterns.instance
        y, prices = instance.pinned.astype(np.float64), np.zeros(len(instance.budgets))
        if not len(self.cost):
            return Relaxed(0.0, y, prices, time.perf_counter() - started)
        solution = linear_program(self.cost, upper=self.upper, equal=self.equal, high=self.high)
        y.ravel()[self.places] = np.clip(solution.x[len(self.cost) - len(self.places) :], 0.0, 1.0)
        if len(self.held):
            prices[self.held] = -self.scale * np.minimum(solution.upper_prices[-len(self.held) :], 0.0)
        value = self.patterns.base_price - self.scale * (solution.value + self.constant)
        return Relaxed(max(value, 0.0), y, prices, time.perf_counter() - started)


def relaxed_optimum(
    instance: Instance, slots: Sequence[Slot], weights: Float64[ndarray, "slots"] | None = None
) -> Relaxed:
    """The largest mean gain of fractions over some slots, exact to HiGHS' tolerance.

    Args:
        instance: of all slots.
        slots: with their capacities.
        weights: how often each counts; all equal when not given.
    """
    return relaxed_patterns(Patterns.of(instance, slots, weights))


def relaxed_patterns(patterns: Patterns) -> Relaxed:
    """The same for patterns that are at hand."""
    return transport_program(patterns).solve()


def transport_program(patterns: Patterns) -> Program:
    """Minimise the mean cost over shares that ways serve, and fractions. Two non-zeros and a half per way."""
    pinned = patterns.instance.pinned.ravel()[patterns.place]
    places, column = np.unique(patterns.place[~pinned], return_inverse=True)
    ways, free, m = len(patterns.place), np.flatnonzero(~pinned), len(places)
    link = coo_array((np.ones(len(free)), (np.arange(len(free)), free)), (len(free), ways))
    loaded = coo_array((-patterns.share[free], (np.arange(len(free)), column)), (len(free), m))
    held, memory, budgets = memory_rows(patterns.instance, places)
    upper = vstack([hstack([link, loaded]), hstack([coo_array((len(held), ways)), memory])], format="csr")
    total = coo_array((np.ones(ways), (patterns.pattern, np.arange(ways))), (len(patterns), ways + m)).tocsr()
    worth = patterns.weight[patterns.pattern] * patterns.cost
    scale = _scale(worth)
    return Program(
        patterns=patterns,
        places=places,
        held=held,
        cost=np.concatenate([worth / scale, np.zeros(m)]),
        upper=(upper, np.concatenate([np.zeros(len(free)), budgets])),
        equal=(total, np.ones(len(patterns))),
        high=np.concatenate([patterns.share, np.ones(m)]),
        constant=0.0,
        scale=scale,
    )


def cumulative_program(patterns: Patterns) -> Program:
    """The program as published, over t and fractions: the reference for the other. O(ways · ways per pattern)."""
    first, ways = patterns.first, len(patterns.place)
    pinned = patterns.instance.pinned.ravel()[patterns.place]
    places = np.unique(patterns.place[~pinned])
    last = np.zeros(ways, bool)
    last[first[1:] - 1] = True
    rise = np.where(last, 0.0, np.append(np.diff(patterns.cost), 0.0)) * patterns.weight[patterns.pattern]
    rows, columns, values, limits = list[int](), list[int](), list[float](), np.zeros(ways)
    for k in range(ways):
        for other in range(int(first[patterns.pattern[k]]), k + 1):
            if pinned[other]:
                limits[k] += patterns.share[other]
            else:
                rows.append(k)
                columns.append(int(np.searchsorted(places, patterns.place[other])))
                values.append(-float(patterns.share[other]))
    held, memory, budgets = memory_rows(patterns.instance, places)
    sums = coo_array((values, (rows, columns)), (ways, len(places)))
    identity = coo_array((np.ones(ways), (np.arange(ways), np.arange(ways))), (ways, ways))
    scale = _scale(patterns.weight[patterns.pattern] * patterns.cost)
    dearest = float((patterns.weight * patterns.cost[first[1:] - 1]).sum()) if ways else 0.0
    return Program(
        patterns=patterns,
        places=places,
        held=held,
        cost=np.concatenate([-rise / scale, np.zeros(len(places))]),
        upper=(
            vstack([hstack([identity, sums]), hstack([coo_array((len(held), ways)), memory])], format="csr"),
            np.concatenate([limits, budgets]),
        ),
        equal=None,
        high=np.ones(ways + len(places)),
        constant=dearest / scale,
        scale=scale,
    )


def memory_rows(
    instance: Instance, places: Int64[ndarray, "places"]
) -> tuple[Int64[ndarray, "held"], csr_array, Float64[ndarray, "held"]]:
    """Nodes whose memory is limited, and Σ s y <= b there."""
    held, row = np.unique(places // len(instance.task), return_inverse=True)
    sizes = instance.sizes.ravel()[places]
    rows = csr_array((sizes, (row, np.arange(len(places)))), shape=(len(held), len(places)))
    bounded = np.isfinite(instance.free_budgets[held])
    return held[bounded], rows[bounded], instance.free_budgets[held[bounded]]


def _scale(worth: Float64[ndarray, "n"]) -> float:
    return float(worth.max(initial=0.0)) or 1.0

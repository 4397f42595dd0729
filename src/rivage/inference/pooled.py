"""The least that any placement and routing could cost in a slot: a linear program, with the price of every resource.

Static plans are held against it. With f_ρ^k requests of type ρ served by the possibility of rank k, y fractions of the
free models, and what a model can serve shared as one likes::

    minimise   Σ_ρ Σ_k γ_ρ^k f_ρ^k
    subject to Σ_k f_ρ^k = r_ρ,   f_ρ^k <= r_ρ y,   Σ_ρ f_ρ^k <= L y for every model on a node,
               Σ_m s_m y_m <= b_v for every node,   0 <= y <= 1,   y = 1 for what is pinned.

Every 0/1 placement with whatever discipline of contention is feasible, so no placement costs less; neither does one
that stays, for slots whose mean is r. Dual values are what a unit more would save per slot: of a node's memory, of a
model's throughput; what a millisecond less on a link saves is the number of requests that cross it. Where the optimum
has a kink they lie between what a unit more saves and what a unit less costs.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the problem. The relaxation is the usual one of facility location.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import bmat, csr_array

from rivage.convex.programs import linear_program
from rivage.inference.instance import Instance

__all__ = ["Exact", "Pooled", "crossings", "pooled_exact", "pooled_optimum"]

Ranks = Float64[ndarray, "ranks"]
Requests = Float64[ndarray, "types"]


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """The optimum of the relaxation.

    Args:
        cost: no placement costs less per slot.
        fractions: y, pinned models 1.
        served: f, requests of each possibility.
        memory_prices: what a unit more of each node's budget would save per slot, >= 0.
        throughput_prices: what a request more per slot of each model on each node would save, >= 0.
        seconds: to build and solve.
    """

    cost: float
    fractions: Float64[ndarray, "nodes models"]
    served: Ranks
    memory_prices: Float64[ndarray, "nodes"]
    throughput_prices: Float64[ndarray, "nodes models"]
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """The best placement that was found, and what is known of the best there is.

    Args:
        cost: per slot, with the best routing; infinite when none was found in time.
        least: no placement costs less.
        loaded: the placement.
    """

    cost: float
    least: float
    loaded: Bool[ndarray, "nodes models"]


def pooled_optimum(instance: Instance, requests: Requests) -> Pooled:
    """Solve the program with HiGHS.

    Variables and constraints are as many as possibilities, models on nodes, types and nodes together; only types with
    requests count.
    """
    started = time.perf_counter()
    program = _Program.of(instance, requests)
    solution = linear_program(
        program.cost,
        upper=(program.upper, program.limits) if len(program.limits) else None,
        equal=(program.total, program.asked),
        low=program.low,
        high=program.high,
    )
    prices = np.split(0.0 - np.minimum(solution.upper_prices, 0.0), np.cumsum([program.links, len(program.limited)]))
    memory, throughput = np.zeros(len(instance.budgets)), np.zeros(instance.shape)
    fractions, served = program.read(solution.x)
    memory[program.held] = prices[2]
    throughput.ravel()[program.places[program.limited]] = prices[1]
    return Pooled(
        cost=float(solution.value),
        fractions=fractions,
        served=served,
        memory_prices=memory,
        throughput_prices=throughput * fractions,  # a unit more counts as far as the model is there
        seconds=time.perf_counter() - started,
    )


def pooled_exact(instance: Instance, requests: Requests, *, seconds: float = 60.0, gap: float = 1e-6) -> Exact:
    """Solve the program in whole models, by branch and bound of HiGHS.

    Args:
        instance: the network.
        requests: r, of each type.
        seconds: after which the best placement so far has to do.
        gap: relative, between cost and bound, at which the search ends.
    """
    program = _Program.of(instance, requests)
    whole = np.concatenate([np.zeros(len(program.live)), np.ones(len(program.places))])
    rows = [LinearConstraint(program.total, program.asked, program.asked)]
    if len(program.limits):
        rows.append(LinearConstraint(program.upper, -np.inf, program.limits))
    result = milp(
        program.cost,
        constraints=rows,
        bounds=Bounds(program.low, program.high),
        integrality=whole,
        options={"time_limit": seconds, "mip_rel_gap": gap},
    )
    least = getattr(result, "mip_dual_bound", None)
    if result.x is None:
        return Exact(np.inf, -np.inf if least is None else float(least), instance.pinned.copy())
    fractions, _ = program.read(result.x)
    return Exact(float(result.fun), float(result.fun if least is None else least), fractions > 0.5)


def crossings(instance: Instance, served: Ranks) -> dict[tuple[int, int], float]:
    """Requests of a slot that cross each link: what a millisecond less of its round trip would save."""
    found = defaultdict[tuple[int, int], float](float)
    ranking = instance.ranking
    for k in np.flatnonzero(served > 0).tolist():
        path = instance.paths[ranking.type[k], : ranking.hop[k] + 1].tolist()
        for one, other in pairwise(path):
            found[min(one, other), max(one, other)] += float(served[k])
    return dict(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """The program in (f, y), for the types that have requests.

    Args:
        live: possibilities of these types.
        places: of the models that occur in them.
        limited: those of them whose throughput is finite.
        held: nodes whose memory is limited and holds free models.
        links: rows f <= r y, the first of ``upper``; then one for each limited model, then one for each held node.
    """

    instance: Instance
    live: Int64[ndarray, "n"]
    places: Int64[ndarray, "m"]
    limited: Int64[ndarray, "limited"]
    held: Int64[ndarray, "held"]
    links: int
    cost: Float64[ndarray, "n_m"]
    upper: Any
    limits: Float64[ndarray, "rows"]
    total: Any
    asked: Float64[ndarray, "live_types"]
    low: Float64[ndarray, "n_m"]
    high: Float64[ndarray, "n_m"]

    @classmethod
    def of(cls, instance: Instance, requests: Requests) -> _Program:
        """Put it together. O(K log K)."""
        ranking = instance.ranking
        live = np.flatnonzero(requests[ranking.type] > 0)
        places, column = np.unique(ranking.place[live], return_inverse=True)
        types, row = np.unique(ranking.type[live], return_inverse=True)
        n, m = len(live), len(places)
        pinned, rate = instance.pinned.ravel()[places], instance.throughput.ravel()[places]
        linked, limited = np.flatnonzero(~pinned[column]), np.flatnonzero(np.isfinite(rate))
        busy = np.flatnonzero(np.isfinite(rate[column]))
        asked = requests[ranking.type[live]]
        link = _rows(np.arange(len(linked)), linked, np.ones(len(linked)), (len(linked), n))
        link_y = _rows(np.arange(len(linked)), column[linked], -asked[linked], (len(linked), m))
        shared = _rows(np.searchsorted(limited, column[busy]), busy, np.ones(len(busy)), (len(limited), n))
        shared_y = _rows(np.arange(len(limited)), limited, -rate[limited], (len(limited), m))
        held, memory, budgets = _memory(instance, places, pinned)
        blocks = [[link, link_y], [shared, shared_y], [csr_array((len(held), n)), memory]]
        return cls(
            instance=instance,
            live=live,
            places=places,
            limited=limited,
            held=held,
            links=len(linked),
            cost=np.concatenate([ranking.cost[live], np.zeros(m)]),
            upper=bmat([block for block in blocks if block[0].shape[0]] or [[csr_array((0, n + m))]], format="csr"),
            limits=np.concatenate([np.zeros(len(linked) + len(limited)), budgets]),
            total=_rows(row, np.arange(n), np.ones(n), (len(types), n + m)),
            asked=requests[types],
            low=np.concatenate([np.zeros(n), pinned.astype(np.float64)]),
            high=np.concatenate([np.full(n, np.inf), np.ones(m)]),
        )

    def read(self, x: Float64[ndarray, "n_m"]) -> tuple[Float64[ndarray, "nodes models"], Ranks]:
        """Fractions and served requests of a point."""
        served = np.zeros(len(self.instance.ranking))
        served[self.live] = np.maximum(x[: len(self.live)], 0.0)
        fractions = self.instance.pinned.astype(np.float64)
        fractions.ravel()[self.places] = np.clip(x[len(self.live) :], 0.0, 1.0)
        return fractions, served


def _rows(row: ndarray, column: ndarray, values: ndarray, shape: tuple[int, int]) -> csr_array:
    return csr_array((values, (row, column)), shape=shape)


def _memory(
    instance: Instance, places: Int64[ndarray, "m"], pinned: Bool[ndarray, "m"]
) -> tuple[Int64[ndarray, "held"], csr_array, Float64[ndarray, "held"]]:
    """Nodes whose memory is limited, and Σ s y <= b for the free models there."""
    free = np.flatnonzero(~pinned)
    held, row = np.unique(places[free] // len(instance.task), return_inverse=True)
    bounded = np.isfinite(instance.free_budgets[held])
    rows = _rows(row, free, instance.sizes.ravel()[places[free]], (len(held), len(places)))
    return held[bounded], rows[bounded], instance.free_budgets[held[bounded]]

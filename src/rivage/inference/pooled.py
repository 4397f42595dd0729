"""The most that any placement and any routing could gain in a slot: a linear program, with the price of every resource.

Static plans are held against it. With f_ρ^k requests of type ρ served by the possibility of rank k, y fractions of the
free models, and what a model can serve shared as one likes,

    minimise   Σ_ρ Σ_k γ_ρ^k f_ρ^k
    subject to Σ_k f_ρ^k = r_ρ,   f_ρ^k <= r_ρ y,   Σ_ρ f_ρ^k <= L y for every model on a node,
               Σ_m s_m y_m <= b_v for every node,   0 <= y <= 1,   y = 1 for what is pinned.

Every 0/1 placement with whatever discipline of contention is feasible, so no placement costs less. Dual values are what
a unit more would save per slot: of a node's memory, of a model's throughput; what a millisecond less on a link saves is
the number of requests that cross it.

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
from jaxtyping import Float64
from numpy import ndarray
from scipy.sparse import bmat, csr_array

from rivage.convex.programs import linear_program
from rivage.inference.instance import Instance

__all__ = ["Pooled", "crossings", "pooled_optimum"]

Ranks = Float64[ndarray, "ranks"]


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


def pooled_optimum(instance: Instance, requests: Float64[ndarray, "types"]) -> Pooled:
    """Solve the program with HiGHS.

    Variables and constraints are as many as possibilities, models on nodes, types and nodes together; only types with
    requests count.
    """
    started = time.perf_counter()
    ranking = instance.ranking
    live = np.flatnonzero(requests[ranking.type] > 0)
    places, column = np.unique(ranking.place[live], return_inverse=True)
    types, row = np.unique(ranking.type[live], return_inverse=True)
    n, m = len(live), len(places)
    pinned, rate = instance.pinned.ravel()[places], instance.throughput.ravel()[places]
    asked = requests[ranking.type[live]]
    ranks, ones = np.arange(n), np.ones(n)
    linked = np.flatnonzero(~pinned[column])
    link = csr_array((ones[: len(linked)], (np.arange(len(linked)), linked)), shape=(len(linked), n))
    link_y = csr_array((-asked[linked], (np.arange(len(linked)), column[linked])), shape=(len(linked), m))
    limited = np.flatnonzero(np.isfinite(rate))
    number = np.full(m, -1)
    number[limited] = np.arange(len(limited))
    busy = np.flatnonzero(number[column] >= 0)
    shared = csr_array((ones[: len(busy)], (number[column[busy]], busy)), shape=(len(limited), n))
    shared_y = csr_array((-rate[limited], (np.arange(len(limited)), limited)), shape=(len(limited), m))
    held, memory, budgets = _memory(instance, places, pinned)
    parts: list[list[Any]] = [[link, link_y], [shared, shared_y], [csr_array((len(held), n)), memory]]
    upper = bmat([part for part in parts if part[0].shape[0]], format="csr")
    limits = np.concatenate([np.zeros(len(linked) + len(limited)), budgets])
    total = csr_array((ones, (row, ranks)), shape=(len(types), n))
    solution = linear_program(
        np.concatenate([ranking.cost[live], np.zeros(m)]),
        upper=(upper, limits) if upper.shape[0] else None,
        equal=(bmat([[total, csr_array((len(types), m))]], format="csr"), requests[types]),
        low=np.concatenate([np.zeros(n), pinned.astype(np.float64)]),
        high=np.concatenate([np.full(n, np.inf), np.ones(m)]),
    )
    return _read(instance, solution, live, places, held, limited, len(linked), started)


def _memory(instance: Instance, places: ndarray, pinned: ndarray) -> tuple[ndarray, csr_array, ndarray]:
    """Nodes whose memory is limited, and Σ s y <= b for the free models there."""
    free = np.flatnonzero(~pinned)
    node = places[free] // len(instance.task)
    held, row = np.unique(node, return_inverse=True)
    bounded = np.isfinite(instance.free_budgets[held])
    sizes = instance.sizes.ravel()[places[free]]
    rows = csr_array((sizes, (row, free)), shape=(len(held), len(places)))
    return held[bounded], rows[bounded], instance.free_budgets[held[bounded]]


def _read(
    instance: Instance,
    solution: Any,
    live: ndarray,
    places: ndarray,
    held: ndarray,
    limited: ndarray,
    linked: int,
    started: float,
) -> Pooled:
    served = np.zeros(len(instance.ranking))
    served[live] = np.maximum(solution.x[: len(live)], 0.0)
    fractions = instance.pinned.astype(np.float64)
    fractions.ravel()[places] = np.clip(solution.x[len(live) :], 0.0, 1.0)
    memory, throughput = np.zeros(len(instance.budgets)), np.zeros(instance.shape)
    prices = -np.minimum(solution.upper_prices, 0.0)
    throughput.ravel()[places[limited]] = prices[linked : linked + len(limited)]
    memory[held] = prices[linked + len(limited) :]
    # A unit more throughput counts as far as the model is there.
    throughput *= fractions
    return Pooled(float(solution.value), fractions, served, memory, throughput, time.perf_counter() - started)


def crossings(instance: Instance, served: Ranks) -> dict[tuple[int, int], float]:
    """Requests of a slot that cross each link: what a millisecond less of its round trip would save."""
    found = defaultdict[tuple[int, int], float](float)
    ranking = instance.ranking
    for k in np.flatnonzero(served).tolist():
        path = instance.paths[ranking.type[k], : ranking.hop[k] + 1].tolist()
        for one, other in pairwise(path):
            found[min(one, other), max(one, other)] += float(served[k])
    return dict(found)

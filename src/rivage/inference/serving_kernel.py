"""Compiled loops over the possibilities of all request types; what they compute stands in `rivage.inference.gain`.

Large arrays are made by NumPy and filled by the loops: compiled code would ask the system for their memory anew in
every slot, which takes longer than filling them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray

__all__ = ["contend", "price", "serve", "slopes"]

Starts = Int64[ndarray, "n"]
Ranks = Float64[ndarray, "ranks"]
Types = Float64[ndarray, "types"]


@njit(cache=True)
def serve(
    first: Starts, place: Int64[ndarray, "ranks"], requests: Types, capacity: Ranks, y: Float64[ndarray, "places"]
) -> Ranks:
    """How many requests each possibility serves, cheapest first."""
    served = np.zeros(len(capacity))
    for t in range(len(first) - 1):
        left = requests[t]
        for k in range(first[t], first[t + 1]):
            if left <= 0.0:
                break
            amount = min(left, y[place[k]] * capacity[k])
            served[k] = amount
            left -= amount
    return served


def slopes(
    first: Starts,
    place: Int64[ndarray, "ranks"],
    cost: Ranks,
    requests: Types,
    capacity: Ranks,
    y: Float64[ndarray, "places"],
    tolerance: float,
) -> tuple[Float64[ndarray, "places"], Int64[ndarray, "types"]]:
    """The subgradient of the gain, and the worst rank that each type needs (−1 without requests or enough capacity)."""
    gradient, worst = np.zeros(len(y)), np.full(len(first) - 1, -1)
    _slopes(first, place, cost, requests, capacity, y, tolerance, gradient, worst)
    return gradient, worst


@njit(cache=True)
def _slopes(
    first: Starts,
    place: Int64[ndarray, "ranks"],
    cost: Ranks,
    requests: Types,
    capacity: Ranks,
    y: Float64[ndarray, "places"],
    tolerance: float,
    gradient: Float64[ndarray, "places"],
    worst: Int64[ndarray, "types"],
) -> None:
    for t in range(len(first) - 1):
        if requests[t] <= 0.0:
            continue
        enough, total, last = requests[t] * (1.0 - tolerance), 0.0, -1
        for k in range(first[t], first[t + 1]):
            total += y[place[k]] * capacity[k]
            if total >= enough:
                last = k
                break
        worst[t] = last
        for k in range(first[t], last):
            gradient[place[k]] += capacity[k] * (cost[last] - cost[k])


def contend(
    first: Starts,
    place: Int64[ndarray, "ranks"],
    requests: Types,
    throughput: Float64[ndarray, "places"],
    loaded: Bool[ndarray, "places"],
) -> tuple[Ranks, Ranks]:
    """Potential available capacities, and what is served: types in order share what each loaded model can do."""
    served, capacity = np.zeros(len(place)), np.empty(len(place))
    share = np.zeros(len(throughput))
    _contend(first, place, requests, throughput, loaded, throughput.copy(), share, served, capacity)
    return capacity, served


@njit(cache=True)
def _contend(
    first: Starts,
    place: Int64[ndarray, "ranks"],
    requests: Types,
    throughput: Float64[ndarray, "places"],
    loaded: Bool[ndarray, "places"],
    spare: Float64[ndarray, "places"],
    share: Float64[ndarray, "places"],
    served: Ranks,
    capacity: Ranks,
) -> None:
    for t in range(len(first) - 1):
        for k in range(first[t], first[t + 1]):
            share[place[k]] += requests[t]
    for t in range(len(first) - 1):
        left = requests[t]
        for k in range(first[t], first[t + 1]):
            if left <= 0.0:
                break
            p = place[k]
            if loaded[p]:
                amount = min(left, spare[p])
                served[k] = amount
                spare[p] -= amount
                left -= amount
    for p in range(len(share)):  # from how many want it to what it can do of each request; < 0 for what is loaded
        share[p] = -1.0 if loaded[p] else throughput[p] / max(share[p], 1e-300)
    for t in range(len(first) - 1):
        most = requests[t]
        for k in range(first[t], first[t + 1]):
            part = share[place[k]]
            could = part * most if part >= 0.0 else served[k] + spare[place[k]]
            capacity[k] = min(most, could) if most > 0.0 else 0.0


@njit(cache=True)
def price(
    first: Starts,
    place: Int64[ndarray, "ranks"],
    cost: Ranks,
    requests: Types,
    capacity: Ranks,
    y: Float64[ndarray, "places"],
) -> float:
    """What serving costs, cheapest first."""
    total = 0.0
    for t in range(len(first) - 1):
        left = requests[t]
        for k in range(first[t], first[t + 1]):
            if left <= 0.0:
                break
            amount = min(left, y[place[k]] * capacity[k])
            total += amount * cost[k]
            left -= amount
    return total

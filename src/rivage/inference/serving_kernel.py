"""Compiled loops over the possibilities of all request types; what they compute stands in `rivage.inference.gain`."""

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


@njit(cache=True)
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
    return gradient, worst


@njit(cache=True)
def contend(
    first: Starts,
    place: Int64[ndarray, "ranks"],
    requests: Types,
    throughput: Float64[ndarray, "places"],
    loaded: Bool[ndarray, "places"],
) -> tuple[Ranks, Ranks]:
    """Potential available capacities, and what is served: types in order share what each loaded model can do."""
    served, capacity = np.zeros(len(place)), np.empty(len(place))
    spare, wanted = throughput.copy(), np.zeros(len(throughput))
    for t in range(len(first) - 1):
        left = requests[t]
        for k in range(first[t], first[t + 1]):
            p = place[k]
            wanted[p] += requests[t]
            if left > 0.0 and loaded[p]:
                amount = min(left, spare[p])
                served[k] = amount
                spare[p] -= amount
                left -= amount
    share = np.where(loaded, -1.0, throughput / np.maximum(wanted, 1e-300))  # of a request, for what is not loaded
    for t in range(len(first) - 1):
        if requests[t] <= 0.0:
            capacity[first[t] : first[t + 1]] = 0.0
            continue
        for k in range(first[t], first[t + 1]):
            part = share[place[k]]
            could = part * requests[t] if part >= 0.0 else served[k] + spare[place[k]]
            capacity[k] = min(requests[t], could)
    return capacity, served


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

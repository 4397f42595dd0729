"""Compiled loops over the possibilities of all request types; what they compute stands in `rivage.inference.gain`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray

__all__ = ["contend", "serve", "slopes"]

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
    served, capacity = np.zeros(len(place)), np.zeros(len(place))
    spare, wanted = throughput.copy(), np.zeros(len(throughput))
    for t in range(len(first) - 1):
        left = requests[t]
        for k in range(first[t], first[t + 1]):
            p = place[k]
            wanted[p] += requests[t]
            if loaded[p] and left > 0.0:
                amount = min(left, spare[p])
                served[k] = amount
                spare[p] -= amount
                left -= amount
    for t in range(len(first) - 1):
        if requests[t] <= 0.0:
            continue
        for k in range(first[t], first[t + 1]):
            p = place[k]
            could = served[k] + spare[p] if loaded[p] else throughput[p] * (requests[t] / wanted[p])
            capacity[k] = min(requests[t], could)
    return capacity, served

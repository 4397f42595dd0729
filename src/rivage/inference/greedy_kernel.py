"""Compiled loops of static greedy: what a model more would gain, and what it then serves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

__all__ = ["add", "worths"]

Ways = Float64[ndarray, "ways"]


@njit(cache=True)
def worths(
    first: Int64[ndarray, "n"],
    pattern: Int64[ndarray, "ways"],
    weight: Float64[ndarray, "patterns"],
    cost: Ways,
    share: Ways,
    served: Ways,
    begin: Int64[ndarray, "m"],
    ways: Int64[ndarray, "ways"],
    numbers: Int64[ndarray, "k"],
) -> Float64[ndarray, "k"]:
    """What each of some candidates would gain now; those of number c are ``ways[begin[c] : begin[c + 1]]``."""
    gains = np.zeros(len(numbers))
    for index in range(len(numbers)):
        total = 0.0
        for at in range(begin[numbers[index]], begin[numbers[index] + 1]):
            k = ways[at]
            left, worst = share[k], first[pattern[k] + 1] - 1
            while left > 0.0 and worst > k:
                taken = min(left, served[worst])
                total += weight[pattern[k]] * taken * (cost[worst] - cost[k])
                left -= taken
                worst -= 1
        gains[index] = total
    return gains


@njit(cache=True)
def add(
    first: Int64[ndarray, "n"],
    pattern: Int64[ndarray, "ways"],
    share: Ways,
    served: Ways,
    begin: Int64[ndarray, "m"],
    ways: Int64[ndarray, "ways"],
    number: int,
) -> None:
    """Load a candidate: it takes from the dearest ways what it can serve. Changes ``served``."""
    for at in range(begin[number], begin[number + 1]):
        k = ways[at]
        left, worst = share[k], first[pattern[k] + 1] - 1
        while left > 0.0 and worst > k:
            taken = min(left, served[worst])
            served[worst] -= taken
            served[k] += taken
            left -= taken
            worst -= 1

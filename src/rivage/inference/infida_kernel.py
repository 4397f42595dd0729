"""Compiled loops over the blocks of all nodes; what they compute stands in `infida` and `blocks`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.convex.rounding import pipage

__all__ = ["ascend", "reaches", "round_blocks"]

Starts = Int64[ndarray, "n"]
Places = Float64[ndarray, "decided"]
PerBlock = Float64[ndarray, "blocks"]

LEAST = -690.7755278982137  # the logarithm of 1e-300: what falls lower would never come back
_TINY = 1e-300
_ROUNDING = 1e-9  # of a budget


@njit(cache=True)
def reaches(first: Starts, sizes: Places, slope: Places) -> tuple[PerBlock, PerBlock]:
    """The largest |g/s| of each block, and the distance from its smallest to its largest g/s."""
    largest, spread = np.zeros(len(first) - 1), np.zeros(len(first) - 1)
    for v in range(len(first) - 1):
        low, high = np.inf, -np.inf
        for m in range(first[v], first[v + 1]):
            pull = slope[m] / sizes[m]
            low, high = min(low, pull), max(high, pull)
        largest[v], spread[v] = max(abs(low), abs(high)), high - low
    return largest, spread


@njit(cache=True)
def _scaling(h: Places, sizes: Places, budget: float) -> float:
    """The number c with Σ s min(1, c h) = budget.

    Scaling what is not capped never takes c beyond the answer: what it caps stays capped, and c rises to the answer.
    """
    c = 0.0
    while True:
        left, below = budget, 0.0
        for m in range(len(h)):
            if c * h[m] >= 1.0:
                left -= sizes[m]
            else:
                below += sizes[m] * h[m]
        # All of the budget may go to capped models up to rounding.
        better = left / below if left > 0.0 and below > 0.0 else c
        if better <= c * (1.0 + 1e-15):
            return c
        c = better


@njit(cache=True)
def ascend(
    first: Starts,
    sizes: Places,
    budgets: PerBlock,
    logs: Places,
    start: Places,
    slope: Places,
    steps: PerBlock,
    before: PerBlock,
) -> tuple[Places, PerBlock]:
    """The logarithms after a step of every block, and what the step adds to the bound."""
    moved, added = logs.copy(), np.zeros(len(first) - 1)
    for v in range(len(first) - 1):
        if steps[v] <= 0.0:
            continue
        a, b = first[v], first[v + 1]
        keep, top = steps[v] / before[v], -np.inf
        for m in range(a, b):
            moved[m] = keep * logs[m] + (1.0 - keep) * start[m] + steps[v] * slope[m] / sizes[m]
            top = max(top, moved[m])
        h = np.exp(np.maximum(moved[a:b] - top, LEAST))
        scale = _scaling(h, sizes[a:b], budgets[v])
        shift, gained, near, far = np.log(scale) - top, 0.0, 0.0, 0.0
        for m in range(a, b):
            moved[m] = min(0.0, max(LEAST, moved[m] + shift))
            new = min(1.0, max(_TINY, scale * h[m - a]))
            near += sizes[m] * new * (moved[m] - logs[m])  # both have the same mass: the linear terms cancel
            if keep < 1.0:
                far += sizes[m] * new * (moved[m] - start[m])
            if slope[m] != 0.0:
                gained += slope[m] * (new - np.exp(logs[m]))
        added[v] = gained - near / before[v] - (1.0 / steps[v] - 1.0 / before[v]) * far
    return moved, added


@njit(cache=True)
def round_blocks(
    first: Starts, sizes: Places, budgets: PerBlock, values: Places, draws: Places, fit: bool
) -> Bool[ndarray, "decided"]:
    """Dependent rounding of every block; with ``fit`` within its budget."""
    chosen = values >= 1.0
    for v in range(len(first) - 1):
        a, b = first[v], first[v + 1]
        open_places = a + np.flatnonzero(~chosen[a:b])
        picked = pipage(values[open_places], sizes[open_places], draws[open_places], False)
        chosen[open_places] = picked == 1
        if fit:
            _fit(chosen[a:b], values[a:b], sizes[a:b], budgets[v])
    return chosen


@njit(cache=True)
def _fit(chosen: Bool[ndarray, "n"], values: Places, sizes: Places, budget: float) -> None:
    """Drop the least y until the rest fits, then add what still fits, the largest y first. Ties by number."""
    load = 0.0
    for m in range(len(chosen)):
        load += sizes[m] if chosen[m] else 0.0
    while load > budget * (1.0 + _ROUNDING):
        least = -1
        for m in range(len(chosen)):
            if chosen[m] and (least < 0 or values[m] < values[least]):
                least = m
        chosen[least] = False
        load -= sizes[least]
    while True:
        most, spare = -1, budget * (1.0 + _ROUNDING) - load
        for m in range(len(chosen)):
            if not chosen[m] and sizes[m] <= spare and (most < 0 or values[m] > values[most]):
                most = m
        if most < 0:
            return
        chosen[most] = True
        load += sizes[most]

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
    aims, moved, added = np.empty(len(logs)), logs.copy(), np.zeros(len(steps))
    _aim(first, sizes, logs, start, slope, steps, before, aims)
    # NumPy's exponentials of long arrays are several times faster than those of compiled loops.
    h, old = np.exp(aims), np.exp(logs)
    _settle(first, sizes, budgets, logs, start, slope, steps, before, aims, h, old, moved, added)
    return moved, added


@njit(cache=True)
def _aim(
    first: Starts,
    sizes: Places,
    logs: Places,
    start: Places,
    slope: Places,
    steps: PerBlock,
    before: PerBlock,
    aims: Places,
) -> None:
    """Exponents of h, the largest of each block 0."""
    for v in range(len(first) - 1):
        a, b = first[v], first[v + 1]
        step, top = steps[v], -np.inf
        keep = step / before[v] if step > 0.0 else 1.0
        for m in range(a, b):
            aims[m] = logs[m] + step * slope[m] / sizes[m]
            if keep < 1.0:
                aims[m] += (1.0 - keep) * (start[m] - logs[m])
            top = max(top, aims[m])
        for m in range(a, b):
            aims[m] = max(LEAST, aims[m] - top)


@njit(cache=True)
def _settle(
    first: Starts,
    sizes: Places,
    budgets: PerBlock,
    logs: Places,
    start: Places,
    slope: Places,
    steps: PerBlock,
    before: PerBlock,
    aims: Places,
    h: Places,
    old: Places,
    moved: Places,
    added: PerBlock,
) -> None:
    for v in range(len(first) - 1):
        if steps[v] <= 0.0:
            continue
        a, b = first[v], first[v + 1]
        scale = _scaling(h[a:b], sizes[a:b], budgets[v])
        shift, fell, gained, near, far = np.log(scale), steps[v] < before[v], 0.0, 0.0, 0.0
        for m in range(a, b):
            moved[m] = min(0.0, max(LEAST, aims[m] + shift))
            new = min(1.0, max(_TINY, scale * h[m]))
            near += sizes[m] * new * (moved[m] - logs[m])  # both have the same mass: the linear terms cancel
            gained += slope[m] * (new - old[m])
            if fell:
                far += sizes[m] * new * (moved[m] - start[m])
        added[v] = gained - near / before[v] - (1.0 / steps[v] - 1.0 / before[v]) * far


@njit(cache=True)
def round_blocks(
    first: Starts, sizes: Places, budgets: PerBlock, values: Places, draws: Places, fit: bool
) -> Bool[ndarray, "decided"]:
    """Dependent rounding of every block; with ``fit`` within its budget."""
    chosen = np.empty(len(values), np.bool_)
    for v in range(len(first) - 1):
        a, b = first[v], first[v + 1]
        # An entry that is 1 stays 1, whoever meets it: no need to sort such entries out.
        picked = pipage(values[a:b], sizes[a:b], draws[a:b], False)
        for m in range(a, b):
            chosen[m] = picked[m - a] == 1
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
    spare, count = budget * (1.0 + _ROUNDING) - load, 0
    rest = np.empty(len(chosen), np.int64)
    for m in range(len(chosen)):
        rest[count] = m
        count += not chosen[m] and sizes[m] <= spare
    while count:
        most = rest[0]
        for k in range(1, count):
            if values[rest[k]] > values[most]:
                most = rest[k]
        chosen[most] = True
        spare -= sizes[most]
        kept = 0
        for k in range(count):
            rest[kept] = rest[k]
            kept += rest[k] != most and sizes[rest[k]] <= spare
        count = kept

"""Projections as functions of arrays: nearest points of simplices and knapsacks, Euclidean and in relative entropy.

All of them look for one multiplier τ. The candidate point x(τ) falls with τ in every coordinate, and so does the mass
Σ s_i x_i(τ) that has to meet the total.

*Euclidean*, x_i(τ) = clip(y_i − τ s_i, 0, 1): linear between the breakpoints (y_i − 1)/s_i and y_i/s_i. They are
sorted, two neighbours that enclose the total are found by bisection, and the answer is the point *between their two
points*, not the point of a multiplier between them. That is the same thing in exact arithmetic; in floating point it is
feasible whatever the size of y, since a mean of two points of the box lies in the box and its mass is linear. Where the
mass is flat at the total, every multiplier of the flat piece gives the same point.

*Entropic*, the minimiser of KL(x ‖ y) = Σ x_i ln(x_i/y_i) − x_i + y_i: x_i(τ) = min(1, y_i e^(−τ s_i)). With equal
sizes the c largest are capped and the others scaled, for the first c that is consistent. With unequal sizes the capped
set comes from bisection over the breakpoints ln(y_i)/s_i, and the last piece from Newton's method on the logarithm of
the mass, which is convex and falls: from the left the iterates rise to the root and never pass it.

Entropic results are at least `TINY`: a coordinate that underflowed would be lost to multiplicative updates for good.
Inputs below `TINY`, zero included, count as `TINY`.

References:
    Held, Wolfe, Crowder. Validation of subgradient optimization. Mathematical Programming, 1974 (simplex by sorting).
    Wang, Lu. Projection onto the capped simplex. 2015, arXiv 1503.01002 (capped simplex by sorted breakpoints).
    Helmbold, Warmuth. Learning permutations with exponential weights. JMLR, 2009 (relative-entropy projections).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

__all__ = ["TINY", "onto_capped", "onto_capped_entropic", "onto_knapsack", "onto_knapsack_entropic"]
__all__ += ["onto_knapsack_scaled", "onto_simplex", "onto_simplex_entropic", "positive"]

TINY = 1e-300  # smallest coordinate of an entropic projection
_HUGE = 1e290  # larger entries are scaled down, so that sums of them are finite
_NEWTON_STEPS = 200
_ENOUGH = 1e-14  # relative error of a mass at which Newton's method ends

Vector = Float64[ndarray, "n"]
Breaks = Float64[ndarray, "b"]


def onto_simplex(y: Vector, total: float) -> Vector:
    """The point of {x >= 0, Σ x = total} nearest to y: max(y − θ, 0). O(n log n)."""
    with np.errstate(over="ignore"):  # entries 10^308 below the largest are 0 either way
        gaps = y - y.max()
        falling = np.sort(gaps)[::-1]
        excess = np.cumsum(falling) - total
        counts = np.arange(1, len(y) + 1)
        support = max(1, int(np.count_nonzero(falling > excess / counts)))
    x: Vector = np.maximum(gaps - excess[support - 1] / support, 0.0)
    return x


def onto_capped(y: Vector, total: float) -> Vector:
    """The point of {0 <= x <= 1, Σ x = total} nearest to y. O(n log n): two sorts, log n sums of slices."""
    rising = np.sort(y)

    def mass(tau: float) -> float:
        first = int(np.searchsorted(rising, tau, side="right"))
        full = max(first, int(np.searchsorted(rising, tau + 1.0)))  # beyond 2^53, τ + 1 is τ
        return float(len(y) - full + (rising[first:full] - tau).sum())

    breaks = np.sort(np.concatenate([rising - 1.0, rising]), kind="stable")  # merges two sorted runs
    with np.errstate(over="ignore"):
        return _meet(lambda tau: np.clip(y - tau, 0.0, 1.0), mass, np.ones(len(y)), breaks, total)


def onto_knapsack(y: Vector, sizes: Vector, budget: float) -> Vector:
    """The point of {0 <= x <= 1, Σ s_i x_i = budget} nearest to y. O(n log n): one sort, log n passes."""

    def point(tau: float) -> Vector:
        x: Vector = np.clip(y - tau * sizes, 0.0, 1.0)
        return x

    with np.errstate(over="ignore"):
        breaks = np.sort(np.concatenate([(y - 1.0) / sizes, y / sizes]))
        return _meet(point, lambda tau: float(sizes @ point(tau)), sizes, breaks, budget)


def onto_simplex_entropic(y: Vector, total: float) -> Vector:
    """The point of {x >= 0, Σ x = total} nearest to y > 0 in KL(x ‖ y): y scaled. O(n)."""
    y = positive(y)
    return _floored(total * (y / y.sum()), total)


def onto_capped_entropic(y: Vector, total: float) -> Vector:
    """The point of {0 <= x <= 1, Σ x = total} nearest to y > 0 in KL(x ‖ y). O(n + k log k), k = ⌊total⌋.

    With the c largest capped the others are scaled by m = (total − c)/Σ others; the first c whose next entry stays
    below 1/m is the answer. c = ⌊total⌋ always passes, so more than k + 1 entries are never looked at.
    """
    y = positive(y)
    looked_at = min(int(total) + 1, len(y))
    cut = len(y) - looked_at
    parted = np.partition(y, cut)
    largest = np.sort(parted[cut:])
    others = (parted[:cut].sum() + np.cumsum(largest))[::-1]  # sums from the small end: nothing cancels
    left = total - np.arange(looked_at)
    capped = int(np.argmax(left * largest[::-1] <= others))
    with np.errstate(over="ignore"):  # capped entries may
        scaled = left[capped] * (y / others[capped])
    return _floored(np.minimum(scaled, 1.0), total)


def onto_knapsack_entropic(y: Vector, sizes: Vector, budget: float) -> Vector:
    """The point of {0 <= x <= 1, Σ s_i x_i = budget} nearest to y > 0 in KL(x ‖ y), mass exact to 1e-12 relative.

    O(n log n): one sort, log n passes, then a few passes of Newton's method.
    """
    if budget == 0:
        return np.zeros(len(y))
    logs = np.log(positive(y))
    ends = logs / sizes  # entry i is capped while τ <= ends[i]
    breaks = np.sort(ends)

    def point(tau: float) -> Vector:
        x: Vector = np.exp(np.minimum(logs - tau * sizes, 0.0))
        return x

    low, high = _enclose(lambda tau: float(sizes @ point(tau)), breaks, budget)
    if low < 0:  # not even the first break, where all are capped, has more than the budget
        return np.ones(len(y))
    capped = ends >= breaks[high] if high < len(breaks) else np.zeros(len(y), bool)
    tau = _newton(logs[~capped], sizes[~capped], budget - float(sizes[capped].sum()), float(breaks[low]))
    return _floored(np.where(capped, 1.0, point(tau)), budget)


def onto_knapsack_scaled(y: Vector, sizes: Vector, budget: float) -> Vector:
    """The point of {0 <= x <= 1, Σ s_i x_i = budget} nearest to y > 0 in Σ s_i (x_i ln(x_i/y_i) − x_i + y_i).

    Weighing the entropy by the sizes makes it min(1, c y_i): the first c that is consistent, as for equal sizes.
    O(n log n).
    """
    y = positive(y)
    order = np.argsort(y)
    s, falling = sizes[order], y[order]
    below = np.cumsum(s * falling)  # mass of the k smallest, from the small end: nothing cancels
    left = budget - (s.sum() - np.cumsum(s))  # for the k smallest, when the others are capped
    fits = np.flatnonzero(left * falling <= below)  # c y_k <= 1
    k = int(fits[-1]) if fits.size else 0
    with np.errstate(over="ignore"):  # capped entries may
        scaled = max(left[k], 0.0) * (y / below[k])
    return _floored(np.minimum(scaled, 1.0), budget)


def positive(y: Vector) -> Vector:
    """The point with a floor of `TINY`, and scaled so that sums are finite: no entropic projection minds the scale."""
    largest = float(y.max())
    scaled: Vector = np.maximum(y if largest <= _HUGE else y * (_HUGE / largest), TINY)
    return scaled


def _floored(x: Vector, total: float) -> Vector:
    floored: Vector = np.maximum(x, TINY) if total > 0 else np.zeros_like(x)
    return floored


def _enclose(mass: Callable[[float], float], breaks: Breaks, total: float) -> tuple[int, int]:
    """Neighbours low, high of the sorted breaks with mass(low) >= total > mass(high); −1 and n stand for ∓infinity."""
    low, high = -1, len(breaks)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if mass(float(breaks[middle])) >= total else (low, middle)
    return low, high


def _meet(
    point: Callable[[float], Vector], mass: Callable[[float], float], sizes: Vector, breaks: Breaks, total: float
) -> Vector:
    """The point of the piecewise linear path x(τ), from all ones to all zeros, whose mass is the total."""
    low, high = _enclose(mass, breaks, total)
    before = point(float(breaks[low])) if low >= 0 else np.ones(len(sizes))
    after = point(float(breaks[high])) if high < len(breaks) else np.zeros(len(sizes))
    drop = float(sizes @ (before - after))
    share = min(1.0, max(0.0, (float(sizes @ before) - total) / drop)) if drop > 0 else 0.0
    x: Vector = before - share * (before - after)
    return x


def _newton(logs: Vector, sizes: Vector, budget: float, tau: float) -> float:
    """The root of ln Σ s_i e^(l_i − τ s_i) = ln budget, from a τ left of it; infinity where the budget is not positive.

    Each step stays left of the root, as a tangent of a convex function does.
    """
    if budget <= 0:  # rounding: the capped entries use it up
        return np.inf
    logs = logs + np.log(sizes)
    for _ in range(_NEWTON_STEPS):
        exponents = logs - tau * sizes
        shift = float(exponents.max())
        shares = np.exp(exponents - shift)
        excess = shift + np.log(shares.sum()) - np.log(budget)
        if excess <= _ENOUGH:
            break
        tau += excess * float(shares.sum() / (shares @ sizes))
    return tau

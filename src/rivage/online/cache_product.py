"""The allocations of many small caches, projected in one compiled pass.

The same set as `rivage.convex.sets.Product` of capped simplices, and the same projection, breakpoints and bisection
included (see `rivage.convex.projections`); but a network of caches projects them all in every slot, and for a few
dozen items each the calls from Python are what takes the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.convex.sets import CappedSimplex, Polytope, Product
from rivage.core.errors import DataError, ShapeError

__all__ = ["CacheProduct"]

Vector = Float64[ndarray, "n"]


@dataclass(frozen=True)
class CacheProduct:
    """Caches one after the other.

    Args:
        parts: at least one.
    """

    parts: tuple[CappedSimplex, ...]

    @cached_property
    def product(self) -> Product:
        """The same set, part by part."""
        return Product(self.parts)

    @cached_property
    def dimension(self) -> int:
        """Sum of the dimensions."""
        return self.product.dimension

    @property
    def center(self) -> Vector:
        """Uniform in every cache."""
        return self.product.center

    @cached_property
    def diameter_squared(self) -> float:
        """Sum over the caches."""
        return self.product.diameter_squared

    @property
    def polytope(self) -> Polytope:
        """The set as linear constraints."""
        return self.product.polytope

    def contains(self, x: Vector, tolerance: float = 1e-9) -> bool:
        """Whether every slice lies in its cache."""
        return self.product.contains(x, tolerance)

    def split(self, x: Vector) -> list[Float64[ndarray, "_"]]:
        """The slice of every cache; views."""
        return self.product.split(x)

    def project(self, y: Vector) -> Vector:
        """The nearest point. O(n log n)."""
        y = np.asarray(y, np.float64)
        if y.shape != (self.dimension,):
            raise ShapeError(f"the point has shape {y.shape}", mend=f"Give a row of {self.dimension} numbers.")
        if not np.isfinite(y).all():
            i = int(np.argmin(np.isfinite(y)))
            raise DataError(f"coordinate {i} of the point is {y[i]}", mend="Lower the step size.")
        x: Vector = np.empty_like(y)
        _project(y, self._ends, self._totals, x)
        return x

    def project_entropic(self, y: Vector) -> Vector:
        """The nearest point in relative entropy."""
        return self.product.project_entropic(y)

    @cached_property
    def _ends(self) -> Int64[ndarray, "ends"]:
        return np.cumsum([0, *(part.dimension for part in self.parts)])

    @cached_property
    def _totals(self) -> Float64[ndarray, "caches"]:
        return np.array([part.total for part in self.parts], np.float64)


@njit(cache=True)
def _project(y: ndarray, ends: ndarray, totals: ndarray, x: ndarray) -> None:
    for cache in range(len(totals)):
        part = slice(ends[cache], ends[cache + 1])
        _project_one(y[part], totals[cache], x[part])


@njit(cache=True)
def _mass(y: ndarray, tau: float) -> float:
    mass = 0.0
    for value in y:
        mass += min(1.0, max(0.0, value - tau))
    return mass


@njit(cache=True)
def _project_one(y: ndarray, total: float, x: ndarray) -> None:
    """The point between those of the two neighbouring breakpoints whose masses enclose the total."""
    n = len(y)
    breaks = np.empty(2 * n)
    breaks[:n], breaks[n:] = y - 1.0, y
    breaks.sort()
    low, high = -1, 2 * n
    while high - low > 1:
        middle = (low + high) // 2
        if _mass(y, breaks[middle]) >= total:
            low = middle
        else:
            high = middle
    before = _mass(y, breaks[low]) if low >= 0 else float(n)
    after = _mass(y, breaks[high]) if high < 2 * n else 0.0
    share = min(1.0, max(0.0, (before - total) / (before - after))) if before > after else 0.0
    for i in range(n):
        left = min(1.0, max(0.0, y[i] - breaks[low])) if low >= 0 else 1.0
        right = min(1.0, max(0.0, y[i] - breaks[high])) if high < 2 * n else 0.0
        x[i] = left - share * (left - right)

"""Feasible sets with their projections: simplex, capped simplex, knapsack, box, and products of them.

Every set knows the nearest point in the Euclidean norm (`project`) and in relative entropy (`project_entropic`), where
to start (`center`) and how far from there one can get (`diameter_squared`); with these a policy needs no other fact
about where it plays. What the projections compute, and how exactly, stands in `rivage.convex.projections`.

Arrays are one-dimensional float64. Points to be projected must be finite, in `project_entropic` also >= 0; anything
else is a ShapeError or a DataError. New arrays are returned, inputs never change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.convex import projections as onto
from rivage.core.errors import ConfigError, DataError, ShapeError, require

__all__ = ["Box", "CappedSimplex", "ConvexSet", "Knapsack", "Polytope", "Product", "Simplex"]

Vector = Float64[ndarray, "n"]


@dataclass(frozen=True, slots=True, eq=False)
class Polytope:
    """A set as programs want it: {low <= x <= high, rows x = totals}.

    Args:
        low: lower bounds.
        high: upper bounds.
        rows: coefficients >= 0 of the equations; no coordinate is in two of them.
        totals: right-hand sides.
    """

    low: Float64[ndarray, "n"]
    high: Float64[ndarray, "n"]
    rows: Float64[ndarray, "m n"]
    totals: Float64[ndarray, "m"]


@runtime_checkable
class ConvexSet(Protocol):
    """What a policy may ask of the set it plays in."""

    @property
    def dimension(self) -> int:
        """Number of coordinates n."""
        ...

    @property
    def center(self) -> Vector:
        """The point of least norm, where gradient descent starts."""
        ...

    @property
    def diameter_squared(self) -> float:
        """Largest squared distance of a point of the set from `center`: D² of the regret bounds."""
        ...

    @property
    def polytope(self) -> Polytope:
        """The set as linear constraints, with dense rows: for references and small programs."""
        ...

    def contains(self, x: Vector, tolerance: float = 1e-9) -> bool:
        """Whether x lies in the set; sums may miss by ``tolerance`` times the larger of 1 and their total."""
        ...

    def project(self, y: Vector) -> Vector:
        """The minimiser of ‖x − y‖² over the set."""
        ...

    def project_entropic(self, y: Vector) -> Vector:
        """The minimiser of Σ x_i ln(x_i/y_i) − x_i + y_i over the set; entries of y below 1e-300 count as 1e-300."""
        ...


@dataclass(frozen=True, slots=True)
class Simplex:
    """{x >= 0, Σ x = total}: mixtures, and probabilities for total 1.

    Args:
        dimension: n >= 1.
        total: >= 0.

    Example:
        >>> Simplex(3).project(np.array([0.9, 0.5, -1.0])).round(2).tolist()
        [0.7, 0.3, 0.0]
    """

    dimension: int
    total: float = 1.0

    def __post_init__(self) -> None:
        require(self.dimension, "dimension", least=1)
        require(self.total, "total", least=0.0)

    @property
    def center(self) -> Vector:
        """Uniform."""
        return np.full(self.dimension, self.total / self.dimension)

    @property
    def diameter_squared(self) -> float:
        """total² (1 − 1/n), the distance to a corner."""
        return self.total**2 * (1.0 - 1.0 / self.dimension)

    @property
    def polytope(self) -> Polytope:
        """The set as linear constraints."""
        n = self.dimension
        return Polytope(np.zeros(n), np.full(n, float(self.total)), np.ones((1, n)), np.array([float(self.total)]))

    def contains(self, x: Vector, tolerance: float = 1e-9) -> bool:
        """Whether x lies in the set, bounds to ``tolerance``, the sum to ``tolerance`` · max(1, total)."""
        return _inside(x, self.dimension, tolerance, 0.0, np.inf) and _meets(float(x.sum()), self.total, tolerance)

    def project(self, y: Vector) -> Vector:
        """The nearest point. O(n log n)."""
        return onto.onto_simplex(_point(y, self.dimension), self.total)

    def project_entropic(self, y: Vector) -> Vector:
        """The nearest point in relative entropy: y normalised. O(n)."""
        return onto.onto_simplex_entropic(_positive_point(y, self.dimension), self.total)


@dataclass(frozen=True, slots=True)
class CappedSimplex:
    """{0 <= x <= 1, Σ x = total}: fractions of unit-size items in a cache that is always full.

    Args:
        dimension: number of items N >= 1.
        total: capacity k, 0 <= total <= dimension; need not be an integer.

    Example:
        >>> CappedSimplex(3, 2).project(np.array([5.0, 0.75, 0.25])).tolist()
        [1.0, 0.75, 0.25]
    """

    dimension: int
    total: float

    def __post_init__(self) -> None:
        require(self.dimension, "dimension", least=1)
        if not 0 <= self.total <= self.dimension:
            raise ConfigError(
                f"total is {self.total}", mend=f"Give a number from 0 to {self.dimension}, the dimension."
            )

    @property
    def center(self) -> Vector:
        """Uniform, k/N."""
        return np.full(self.dimension, self.total / self.dimension)

    @property
    def diameter_squared(self) -> float:
        """Distance to a corner: k (1 − k/N) for integer k, in general ⌊k⌋ + (k − ⌊k⌋)² − k²/N."""
        whole = math.floor(self.total)
        return max(0.0, whole + (self.total - whole) ** 2 - self.total**2 / self.dimension)

    @property
    def polytope(self) -> Polytope:
        """The set as linear constraints."""
        n = self.dimension
        return Polytope(np.zeros(n), np.ones(n), np.ones((1, n)), np.array([float(self.total)]))

    def contains(self, x: Vector, tolerance: float = 1e-9) -> bool:
        """Whether x lies in the set, bounds to ``tolerance``, the sum to ``tolerance`` · max(1, total)."""
        return _inside(x, self.dimension, tolerance, 0.0, 1.0) and _meets(float(x.sum()), self.total, tolerance)

    def project(self, y: Vector) -> Vector:
        """The nearest point, exactly, by sorted breakpoints. O(N log N)."""
        return onto.onto_capped(_point(y, self.dimension), self.total)

    def project_entropic(self, y: Vector) -> Vector:
        """The nearest point in relative entropy: the largest capped, the others scaled. O(N + k log k)."""
        return onto.onto_capped_entropic(_positive_point(y, self.dimension), self.total)


@dataclass(frozen=True, slots=True, eq=False)
class Knapsack:
    """{0 <= x <= 1, Σ s_i x_i = budget}: fractions of items of unequal size.

    Args:
        sizes: s_i > 0, in any unit.
        budget: b, in the same unit, 0 <= budget <= Σ s_i.
    """

    sizes: Vector
    budget: float

    def __post_init__(self) -> None:
        if self.sizes.ndim != 1 or not self.sizes.size or not bool((np.isfinite(self.sizes) & (self.sizes > 0)).all()):
            raise ConfigError("sizes are not a row of finite numbers above 0", mend="Leave out items without a size.")
        if not 0 <= self.budget <= self.sizes.sum() * (1 + 1e-12):
            raise ConfigError(
                f"budget is {self.budget}", mend=f"Give a number from 0 to {self.sizes.sum():g}, the sum of the sizes."
            )

    @property
    def dimension(self) -> int:
        """Number of items."""
        return len(self.sizes)

    @property
    def center(self) -> Vector:
        """min(1, τ s_i): the point of least norm holds more of larger items. O(n log n)."""
        return self.project(np.zeros(self.dimension))

    @property
    def diameter_squared(self) -> float:
        """An upper bound, at most 1/4 above the largest squared distance from c = `center`.

        To find that maximum exactly is NP-hard (subset sum). On [0, 1] the parabola (x − c)² lies below its chord
        c² + x (1 − 2c); the sum of the chords is largest where the budget is filled by falling (1 − 2c_i)/s_i, and
        there at most one x_i = f is fractional, for which the chord is f (1 − f) <= 1/4 too high. O(n log n).
        """
        c = self.center
        order = np.argsort((2.0 * c - 1.0) / self.sizes)
        sizes = self.sizes[order]
        filled = np.clip((self.budget - (np.cumsum(sizes) - sizes)) / sizes, 0.0, 1.0)
        return max(0.0, float(c @ c + filled @ (1.0 - 2.0 * c[order])))

    @property
    def polytope(self) -> Polytope:
        """The set as linear constraints."""
        n = self.dimension
        return Polytope(np.zeros(n), np.ones(n), self.sizes[None, :].copy(), np.array([float(self.budget)]))

    def contains(self, x: Vector, tolerance: float = 1e-9) -> bool:
        """Whether x lies in the set, bounds to ``tolerance``, the mass to ``tolerance`` · max(1, budget)."""
        inside = _inside(x, self.dimension, tolerance, 0.0, 1.0)
        return inside and _meets(float(self.sizes @ x), self.budget, tolerance)

    def project(self, y: Vector) -> Vector:
        """The nearest point, by sorted breakpoints. O(n log n)."""
        return onto.onto_knapsack(_point(y, self.dimension), self.sizes, self.budget)

    def project_entropic(self, y: Vector) -> Vector:
        """The nearest point in relative entropy, min(1, y_i e^(−τ s_i)), mass to 1e-12 relative. O(n log n)."""
        return onto.onto_knapsack_entropic(_positive_point(y, self.dimension), self.sizes, self.budget)

    def project_scaled(self, y: Vector) -> Vector:
        """The nearest point in the entropy weighted by sizes, min(1, c y_i). O(n log n)."""
        return onto.onto_knapsack_scaled(_positive_point(y, self.dimension), self.sizes, self.budget)


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """{low <= x <= high}, bounds finite.

    Args:
        low: lower bounds.
        high: upper bounds, as many.
    """

    low: Vector
    high: Vector

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or not self.low.size or self.low.shape != self.high.shape:
            raise ConfigError(f"bounds have shapes {self.low.shape} and {self.high.shape}", mend="Give two equal rows.")
        bad = ~((self.low <= self.high) & np.isfinite(self.low) & np.isfinite(self.high))
        if bad.any():
            i = int(bad.argmax())
            raise ConfigError(
                f"coordinate {i} has bounds [{self.low[i]}, {self.high[i]}]", mend="Give finite numbers, low <= high."
            )

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.low)

    @property
    def center(self) -> Vector:
        """The corner, face or interior point nearest to 0 (not the middle)."""
        nearest: Vector = np.clip(np.zeros(self.dimension), self.low, self.high)
        return nearest

    @property
    def diameter_squared(self) -> float:
        """Σ of the squared distance to the farther bound."""
        c = self.center
        return float((np.maximum(self.high - c, c - self.low) ** 2).sum())

    @property
    def polytope(self) -> Polytope:
        """The set as linear constraints; it has no equations."""
        return Polytope(self.low.copy(), self.high.copy(), np.zeros((0, self.dimension)), np.zeros(0))

    def contains(self, x: Vector, tolerance: float = 1e-9) -> bool:
        """Whether x lies in the set, bounds to ``tolerance``."""
        return _inside(x, self.dimension, tolerance, self.low, self.high)

    def project(self, y: Vector) -> Vector:
        """The nearest point: y clipped. O(n)."""
        clipped: Vector = np.clip(_point(y, self.dimension), self.low, self.high)
        return clipped

    def project_entropic(self, y: Vector) -> Vector:
        """The nearest point in relative entropy, for high > 0: y clipped as well. O(n).

        The coordinates do not interact. φ(x) = x ln(x/y) − x + y has φ'(x) = ln(x/y), below 0 for x < y and above 0 for
        x > y: on [max(low, 0), high] φ is least at y if that lies inside, otherwise at the bound next to y.

        Raises:
            ConfigError: when an upper bound is not above 0; no point there has a logarithm.
        """
        if (self.high <= 0).any():
            raise ConfigError("relative entropy needs upper bounds above 0", mend="Use project, or another box.")
        y = np.maximum(_positive_point(y, self.dimension), onto.TINY)
        clipped: Vector = np.clip(y, self.low, self.high)
        return clipped


@dataclass(frozen=True, slots=True)
class Product:
    """Points of several sets, one after the other in one array: a network of caches.

    Args:
        parts: at least one set.

    Example:
        >>> caches = Product((CappedSimplex(2, 1), CappedSimplex(3, 2)))
        >>> caches.project(np.array([9.0, 0.0, 9.0, 9.0, 0.0])).tolist()
        [1.0, 0.0, 1.0, 1.0, 0.0]
    """

    parts: tuple[ConvexSet, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("a product of no sets", mend="Give at least one part.")

    @property
    def dimension(self) -> int:
        """Sum of the dimensions."""
        return sum(part.dimension for part in self.parts)

    @property
    def center(self) -> Vector:
        """The centers, one after the other."""
        return np.concatenate([part.center for part in self.parts])

    @property
    def diameter_squared(self) -> float:
        """Sum over the parts."""
        return sum(part.diameter_squared for part in self.parts)

    @property
    def polytope(self) -> Polytope:
        """The set as linear constraints: the equations of a part are 0 outside it."""
        parts = [part.polytope for part in self.parts]
        rows = np.zeros((sum(len(part.totals) for part in parts), self.dimension))
        row = column = 0
        for part in parts:
            rows[row : row + len(part.rows), column : column + len(part.low)] = part.rows
            row, column = row + len(part.rows), column + len(part.low)
        low, high = (np.concatenate([getattr(part, side) for part in parts]) for side in ("low", "high"))
        return Polytope(low, high, rows, np.concatenate([part.totals for part in parts]))

    def split(self, x: Vector) -> list[Float64[ndarray, "_"]]:
        """The slice of every part; views."""
        ends = np.cumsum([part.dimension for part in self.parts])
        return np.split(_point(x, self.dimension), ends[:-1])

    def contains(self, x: Vector, tolerance: float = 1e-9) -> bool:
        """Whether every slice lies in its part."""
        if np.shape(x) != (self.dimension,) or not np.isfinite(x).all():
            return False
        return all(part.contains(piece, tolerance) for part, piece in zip(self.parts, self.split(x), strict=True))

    def project(self, y: Vector) -> Vector:
        """The nearest point: squared distances add, so each part on its own."""
        return self._each(y, lambda part, piece: part.project(piece))

    def project_entropic(self, y: Vector) -> Vector:
        """The nearest point in relative entropy: it adds as well, each part on its own."""
        return self._each(y, lambda part, piece: part.project_entropic(piece))

    def _each(self, y: Vector, project: Callable[[ConvexSet, Vector], Vector]) -> Vector:
        pieces = zip(self.parts, self.split(y), strict=True)
        return np.concatenate([project(part, piece) for part, piece in pieces])


def _point(y: Vector, dimension: int) -> Vector:
    """The point as float64, refused unless it is a row of ``dimension`` finite numbers."""
    y = np.asarray(y, np.float64)
    if y.shape != (dimension,):
        raise ShapeError(f"the point has shape {y.shape}", mend=f"Give a row of {dimension} numbers.")
    if not np.isfinite(y).all():
        i = int(np.argmin(np.isfinite(y)))
        raise DataError(f"coordinate {i} of the point is {y[i]}", mend="Lower the step size, or look at the gradient.")
    return y


def _positive_point(y: Vector, dimension: int) -> Vector:
    """`_point`, refused where negative."""
    y = _point(y, dimension)
    if (y < 0).any():
        i = int(np.argmax(y < 0))
        raise DataError(f"coordinate {i} of the point is {y[i]}", mend="Relative entropy needs numbers >= 0.")
    return y


def _inside(x: Vector, dimension: int, tolerance: float, low: float | Vector, high: float | Vector) -> bool:
    """Whether x has the shape and keeps the bounds; NaN does not."""
    return np.shape(x) == (dimension,) and bool(((x >= low - tolerance) & (x <= high + tolerance)).all())


def _meets(mass: float, total: float, tolerance: float) -> bool:
    return bool(abs(mass - total) <= tolerance * max(1.0, total))

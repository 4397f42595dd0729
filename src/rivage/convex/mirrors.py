"""Mirror maps: the geometries of online mirror descent.

A step from x with gradient g and step size η is ``project(set, inverse(gradient(x) − η g))``: into the dual space of
Φ, down, back, and to the nearest point of the set in the Bregman divergence

    B(x, y) = Φ(x) − Φ(y) − ⟨∇Φ(y), x − y⟩.

=================  ========================  ==========================  =====================================
map                Φ(x)                      strongly convex             projection
=================  ========================  ==========================  =====================================
`SquaredNorm`      ½ ‖x‖²                    1 in ‖·‖₂                   ``set.project``
`NegativeEntropy`  Σ x_i ln x_i − x_i        1/k in ‖·‖₁ on Σ x = k      ``set.project_entropic``
`QNorm`            ½ ‖x‖_q², 1 < q <= 2      q − 1 in ‖·‖_q              two nested bisections, slow: a reference
=================  ========================  ==========================  =====================================

`QNorm` joins the other two: q = 2 is the squared norm, q → 1 behaves like the entropy. With one request per step the
squared norm has the best bound; for batches of R requests with at most h for one item, in a cache of k of N items, the
entropy is best above R/h = 2 √(N k).

References:
    Beck, Teboulle. Mirror descent and nonlinear projected subgradient methods for convex optimization. Operations
    Research Letters, 2003.
    Si Salem, Neglia, Ioannidis. No-regret caching via online mirror descent. ICC 2021, arXiv 2101.12588 (the q-norms,
    and when which of them is best).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.convex.projections import TINY
from rivage.convex.sets import ConvexSet, Polytope
from rivage.core.errors import ConfigError

__all__ = ["MirrorMap", "NegativeEntropy", "QNorm", "SquaredNorm"]

Vector = Float64[ndarray, "n"]

_BISECTIONS = 80
_LARGEST_LOG = -float(np.log(TINY))  # e^±690.8: the range of the entropy's inverse


@runtime_checkable
class MirrorMap(Protocol):
    """A strictly convex function Φ and what mirror descent needs of it."""

    def value(self, x: Vector) -> float:
        """Φ(x)."""
        ...

    def gradient(self, x: Vector) -> Vector:
        """∇Φ(x), the dual point of x."""
        ...

    def inverse(self, theta: Vector) -> Vector:
        """(∇Φ)⁻¹(θ), the point with that dual point."""
        ...

    def project(self, set: ConvexSet, y: Vector) -> Vector:
        """The minimiser of B(x, y) over x in the set."""
        ...


@dataclass(frozen=True, slots=True)
class SquaredNorm:
    """Φ(x) = ½ ‖x‖²: gradient descent."""

    def value(self, x: Vector) -> float:
        """Φ(x)."""
        return 0.5 * float(x @ x)

    def gradient(self, x: Vector) -> Vector:
        """X itself."""
        return x.copy()

    def inverse(self, theta: Vector) -> Vector:
        """Theta itself."""
        return theta.copy()

    def project(self, set: ConvexSet, y: Vector) -> Vector:
        """The nearest point of the set."""
        return set.project(y)


@dataclass(frozen=True, slots=True)
class NegativeEntropy:
    """Φ(x) = Σ x_i ln x_i − x_i, x >= 0: multiplicative updates.

    Entries of x below 1e-300 count as 1e-300, dual entries beyond ±690.7 as that: nothing becomes 0 or infinite.
    """

    def value(self, x: Vector) -> float:
        """Φ(x), with 0 ln 0 = 0."""
        return float((x * np.log(np.maximum(x, TINY)) - x).sum())

    def gradient(self, x: Vector) -> Vector:
        """Logarithms of x."""
        logs: Vector = np.log(np.maximum(x, TINY))
        return logs

    def inverse(self, theta: Vector) -> Vector:
        """Exponentials of theta."""
        x: Vector = np.exp(np.clip(theta, -_LARGEST_LOG, _LARGEST_LOG))
        return x

    def project(self, set: ConvexSet, y: Vector) -> Vector:
        """The nearest point of the set in relative entropy."""
        return set.project_entropic(y)


@dataclass(frozen=True, slots=True)
class QNorm:
    """Φ(x) = ½ ‖x‖_q²; slow, for reference and for small sets inside x >= 0.

    Args:
        q: in (1, 2]; below about 1.02 powers 1/(q − 1) lose digits.
    """

    q: float

    def __post_init__(self) -> None:
        if not 1 < self.q <= 2:
            raise ConfigError(f"q is {self.q}", mend="Give a number above 1 and at most 2; for 1 use NegativeEntropy.")

    def value(self, x: Vector) -> float:
        """Φ(x)."""
        return 0.5 * _norm(x, self.q) ** 2

    def gradient(self, x: Vector) -> Vector:
        """sgn(x_i) abs(x_i)^(q−1) ‖x‖_q^(2−q)."""
        return _dual(x, self.q)

    def inverse(self, theta: Vector) -> Vector:
        """The gradient for the conjugate exponent p, 1/p + 1/q = 1."""
        return _dual(theta, self.q / (self.q - 1.0))

    def project(self, set: ConvexSet, y: Vector) -> Vector:
        """The nearest point of the set in the divergence of Φ. O(n m) per pass for m equations, some 10⁴ passes.

        With θ = ∇Φ(y) the problem is min ½ ‖x‖_q² − ⟨θ, x⟩. Since ½ t^(2/q) is convex in t = Σ x_i^q, it is the largest
        of its tangents, of slope a/q say, and the problem becomes max over a of min over x of (a/q) Σ x_i^q − ⟨θ, x⟩.
        For a given a the coordinates only meet in the equations: x_i = clip(((θ_i − τ s_i)₊ / a)^(1/(q−1))), and
        bisection finds τ. The outer problem is concave in a and solved where a = ‖x‖_q^(2−q), again by bisection.

        Raises:
            ConfigError: when the set reaches below 0.
        """
        sides = set.polytope
        if (sides.low < 0).any():
            raise ConfigError("q-norms project on sets inside x >= 0 only", mend="Use SquaredNorm.")
        theta = self.gradient(y)
        if self.q == 2:
            return _separable(sides, theta, 1.0, self.q)
        low, high = (np.log(_norm(side, self.q) + TINY) for side in (sides.low, sides.high))
        low = max(low, high - 100.0)  # no point has a smaller norm, or it is 0 for all purposes
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)  # the logarithm of ‖x‖_q
            x = _separable(sides, theta, float(np.exp((2.0 - self.q) * middle)), self.q)
            low, high = (middle, high) if np.log(_norm(x, self.q) + TINY) > middle else (low, middle)
        return x


def _separable(sides: Polytope, theta: Vector, slope: float, q: float) -> Vector:
    """The minimiser of (a/q) Σ x_i^q − ⟨θ, x⟩ over the set: bisection on the multipliers of all equations at once."""

    def point(tau: Float64[ndarray, "m"]) -> Vector:
        with np.errstate(over="ignore"):
            free = (np.maximum(theta - sides.rows.T @ tau, 0.0) / slope) ** (1.0 / (q - 1.0))
        x: Vector = np.clip(free, sides.low, sides.high)
        return x

    full = theta - slope * sides.high ** (q - 1.0)  # x_i = high_i from τ s_i = full_i down, low_i from θ_i up
    low, high = _ends(sides.rows, full, np.min), _ends(sides.rows, theta, np.max)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        heavy = sides.rows @ point(middle) >= sides.totals
        low, high = np.where(heavy, middle, low), np.where(heavy, high, middle)
    before, after = point(low), point(high)
    drop = sides.rows @ (before - after)
    missing = np.maximum(sides.rows @ before - sides.totals, 0.0)
    share = np.minimum(1.0, np.divide(missing, drop, out=np.zeros_like(drop), where=drop > 0))
    x: Vector = before - ((sides.rows > 0).T @ share) * (before - after)
    return x


def _ends(rows: Float64[ndarray, "m n"], values: Vector, choose: Callable[[Vector], float]) -> Float64[ndarray, "m"]:
    """The smallest or largest value_i / s_i of every equation."""
    return np.array([choose(values[row > 0] / row[row > 0]) for row in rows])


def _norm(x: Vector, q: float) -> float:
    """‖x‖_q without overflow."""
    largest = float(np.abs(x).max())
    return largest * float((np.abs(x / largest) ** q).sum() ** (1.0 / q)) if largest > 0 else 0.0


def _dual(x: Vector, q: float) -> Vector:
    norm = _norm(x, q)
    dual: Vector = np.sign(x) * (np.abs(x) / norm) ** (q - 1.0) * norm if norm > 0 else np.zeros_like(x)
    return dual

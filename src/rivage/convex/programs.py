"""Linear programs, and projections as programs: slow references that share no code with the fast paths.

`linear_program` is HiGHS through SciPy with errors that say what is wrong with the program. `minimize_over` is SLSQP
with the linear description of a set: for smooth convex functions of at most a few hundred variables, and accurate to
about 1e-7; `project_by_program` uses it for projections.

References:
    Huangfu, Hall. Parallelizing the dual revised simplex method. Mathematical Programming Computation, 2018 (HiGHS).
    Kraft. A software package for sequential quadratic programming. DFVLR-FB 88-28, 1988 (SLSQP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.optimize import LinearConstraint, linprog, minimize

from rivage.convex.sets import ConvexSet
from rivage.core.errors import ConfigError

__all__ = ["LinearSolution", "linear_program", "minimize_over", "project_by_program"]

Vector = Float64[ndarray, "n"]
Rows = Any  # a dense [m, n] array or a SciPy sparse one

_SHOWN = 5  # rows or variables named in an error
_PRECISION = 1e-15
_ITERATIONS = 2_000
_FLOOR = 1e-12  # keeps logarithms finite; moves an entropic projection by less than this program's own error


@dataclass(frozen=True, slots=True, eq=False)
class LinearSolution:
    """An optimal point of a linear program.

    Args:
        x: the point.
        value: ⟨cost, x⟩.
        upper_prices: change of the value per unit of each upper limit, <= 0.
        equal_prices: change of the value per unit of each equation's right-hand side.
    """

    x: Vector
    value: float
    upper_prices: Float64[ndarray, "m"]
    equal_prices: Float64[ndarray, "e"]


def linear_program(
    cost: Vector,
    *,
    upper: tuple[Rows, Float64[ndarray, "m"]] | None = None,
    equal: tuple[Rows, Float64[ndarray, "e"]] | None = None,
    low: float | Vector = 0.0,
    high: float | Vector = np.inf,
) -> LinearSolution:
    """Minimise ⟨cost, x⟩ subject to A x <= b, E x = d and low <= x <= high.

    Args:
        cost: one number per variable; to maximise a gain give its negative.
        upper: A and b.
        equal: E and d.
        low: lower bounds, one for all or one each; −inf for none.
        high: upper bounds, likewise.

    Returns:
        The optimum, exact to HiGHS' tolerance of 1e-7 per constraint.

    Raises:
        ConfigError: when no point is feasible (naming the constraints that cannot be met together), when the cost falls
            without end (naming the variables along which it does), or when HiGHS gives up.
    """
    program = _Program(np.asarray(cost, np.float64), upper, equal, low, high)
    result = program.solve()
    if result.status == 2:
        raise ConfigError(f"the program has no feasible point: {program.conflict()}", mend="Loosen one of them.")
    if result.status == 3:
        raise ConfigError(f"the cost falls without end along {program.ray()}", mend="Bound these variables.")
    if result.status != 0:
        raise ConfigError(f"HiGHS stopped: {result.message}", mend="Scale the program so that its numbers are near 1.")
    return LinearSolution(result.x, float(result.fun), result.ineqlin.marginals, result.eqlin.marginals)


def minimize_over(
    set: ConvexSet, value: Callable[[Vector], float], gradient: Callable[[Vector], Vector], start: Vector | None = None
) -> Vector:
    """Minimise a smooth convex function over a set by sequential quadratic programming. O(n³) per iteration.

    Args:
        set: where.
        value: of the function.
        gradient: of the function.
        start: first point; the set's center when not given.

    Raises:
        ConfigError: when the solver gives up far from an optimum.
    """
    sides = set.polytope
    equations = [LinearConstraint(sides.rows, sides.totals, sides.totals)] if len(sides.totals) else []
    first = set.center if start is None else start
    options = {"maxiter": _ITERATIONS, "ftol": _PRECISION}
    bounds = np.stack([sides.low, sides.high], axis=1)
    result = minimize(value, first, jac=gradient, method="SLSQP", bounds=bounds, constraints=equations, options=options)
    x: Vector = np.clip(result.x, sides.low, sides.high)
    # Mode 8, no descent along the direction, is how SLSQP ends when ftol asks for more than doubles can give.
    if result.status not in (0, 8) or not set.contains(x, 1e-7):
        raise ConfigError(f"SLSQP stopped: {result.message}", mend="Give a smaller or better scaled problem.")
    return x


def project_by_program(set: ConvexSet, y: Vector, divergence: Literal["euclidean", "entropic"] = "euclidean") -> Vector:
    """The point of the set nearest to y, without the set's own projection.

    Args:
        set: where.
        y: the point; for ``entropic`` above 0.
        divergence: ``euclidean`` is ½ ‖x − y‖², ``entropic`` is Σ x_i ln(x_i/y_i) − x_i + y_i.
    """
    if divergence == "euclidean":
        return minimize_over(set, lambda x: 0.5 * float((x - y) @ (x - y)), lambda x: x - y)

    def logs(x: Vector) -> Vector:
        ratios: Vector = np.log(np.maximum(x, _FLOOR) / y)
        return ratios

    return minimize_over(set, lambda x: float((x * logs(x) - x + y).sum()), logs)


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """A linear program, and the two others that explain why it has no optimum."""

    cost: Vector
    upper: tuple[Rows, Float64[ndarray, "m"]] | None
    equal: tuple[Rows, Float64[ndarray, "e"]] | None
    low: float | Vector
    high: float | Vector

    def solve(self) -> Any:
        """SciPy's result."""
        low, high = self._bounds()
        return _highs(self.cost, self.upper, self.equal, np.stack([low, high], axis=1))

    def conflict(self) -> str:
        """The constraints that the point with the least total violation still violates."""
        low, high = self._bounds()
        if (low > high).any():
            return "bounds of x" + ", x".join(map(str, np.flatnonzero(low > high)[:_SHOWN])) + " cross"
        rows, limits, names = self._stacked()
        lows = np.array(
            [-np.inf if name.startswith("upper") else limit for name, limit in zip(names, limits, strict=True)]
        )
        m, n = rows.shape
        # lows − under <= rows x <= limits + over, with the least Σ under + over
        slack = np.eye(m)
        limited = np.isfinite(lows)
        matrix = np.block(
            [[rows, -slack, np.zeros((m, m))], [-rows[limited], np.zeros_like(slack[limited]), -slack[limited]]]
        )
        bounds = np.block([[low[:, None], high[:, None]], [np.zeros((2 * m, 1)), np.full((2 * m, 1), np.inf)]])
        costs = np.concatenate([np.zeros(n), np.ones(2 * m)])
        result = _highs(costs, (matrix, np.concatenate([limits, -lows[limited]])), None, bounds)
        if result.x is None:
            return "HiGHS cannot tell which constraint is in the way; scale them so that their numbers are near 1"
        missed = result.x[n : n + m] + result.x[n + m :]
        worst = [i for i in np.argsort(-missed)[:_SHOWN] if missed[i] > 1e-9]
        return ", ".join(f"{names[i]} is missed by {missed[i]:.4g} at best" for i in worst)

    def ray(self) -> str:
        """The variables that move along a direction in which the cost falls for ever."""
        low, high = self._bounds()
        directions = np.stack([np.where(np.isfinite(low), 0.0, -1.0), np.where(np.isfinite(high), 0.0, 1.0)], axis=1)
        upper, equal = (
            None if side is None else (side[0], np.zeros(len(side[1]))) for side in (self.upper, self.equal)
        )
        found = _highs(self.cost, upper, equal, directions).x
        if found is None:
            return "a direction that HiGHS cannot tell"
        moving = np.flatnonzero(np.abs(found) > 1e-9)
        more = ", …" if len(moving) > _SHOWN else ""
        return ", ".join(f"x{i}" for i in moving[:_SHOWN]) + more

    def _bounds(self) -> tuple[Vector, Vector]:
        low, high = (np.broadcast_to(np.asarray(side, np.float64), self.cost.shape) for side in (self.low, self.high))
        return low, high

    def _stacked(self) -> tuple[Float64[ndarray, "m n"], Float64[ndarray, "m"], list[str]]:
        """All rows, dense, their limits and their names."""
        named = [(kind, side) for kind, side in (("upper", self.upper), ("equal", self.equal)) if side is not None]
        rows = [side[0].toarray() if hasattr(side[0], "toarray") else np.asarray(side[0]) for _, side in named]
        names = [f"{kind}[{i}]" for kind, side in named for i in range(len(side[1]))]
        return np.concatenate(rows), np.concatenate([side[1] for _, side in named]), names


def _highs(cost: Vector, upper: Any, equal: Any, bounds: Float64[ndarray, "n 2"]) -> Any:
    a, b = upper if upper is not None else (None, None)
    e, d = equal if equal is not None else (None, None)
    return linprog(cost, A_ub=a, b_ub=b, A_eq=e, b_eq=d, bounds=bounds, method="highs")

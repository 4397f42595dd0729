"""Convex geometry of online decisions: feasible sets and projections, mirror maps, step sizes, rounding, programs.

Names are loaded on first use: a policy that only projects loads neither Numba (`rounding`) nor SciPy (`programs`,
`coupling`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.convex.coupling import Law, OptimallyCoupled, Plan, optimal_plan, systematic_law
    from rivage.convex.mirrors import MirrorMap, NegativeEntropy, QNorm, SquaredNorm
    from rivage.convex.programs import LinearSolution, linear_program, minimize_over, project_by_program
    from rivage.convex.rounding import Coupled, Hard, dep_round, elementary_jump, madow, poisson, poisson_hard
    from rivage.convex.schedules import Constant, Doubling, Progress, ScaleFree, Schedule, SelfConfident, Theory
    from rivage.convex.sets import Box, CappedSimplex, ConvexSet, Knapsack, Polytope, Product, Simplex

_HOMES = {
    "Box": "sets",
    "CappedSimplex": "sets",
    "Constant": "schedules",
    "ConvexSet": "sets",
    "Coupled": "rounding",
    "Doubling": "schedules",
    "Hard": "rounding",
    "Knapsack": "sets",
    "Law": "coupling",
    "LinearSolution": "programs",
    "MirrorMap": "mirrors",
    "NegativeEntropy": "mirrors",
    "OptimallyCoupled": "coupling",
    "Plan": "coupling",
    "Polytope": "sets",
    "Product": "sets",
    "Progress": "schedules",
    "QNorm": "mirrors",
    "ScaleFree": "schedules",
    "Schedule": "schedules",
    "SelfConfident": "schedules",
    "Simplex": "sets",
    "SquaredNorm": "mirrors",
    "Theory": "schedules",
    "dep_round": "rounding",
    "elementary_jump": "rounding",
    "linear_program": "programs",
    "madow": "rounding",
    "minimize_over": "programs",
    "optimal_plan": "coupling",
    "poisson": "rounding",
    "poisson_hard": "rounding",
    "project_by_program": "programs",
    "systematic_law": "coupling",
}

__all__ = [
    "Box",
    "CappedSimplex",
    "Constant",
    "ConvexSet",
    "Coupled",
    "Doubling",
    "Hard",
    "Knapsack",
    "Law",
    "LinearSolution",
    "MirrorMap",
    "NegativeEntropy",
    "OptimallyCoupled",
    "Plan",
    "Polytope",
    "Product",
    "Progress",
    "QNorm",
    "ScaleFree",
    "Schedule",
    "SelfConfident",
    "Simplex",
    "SquaredNorm",
    "Theory",
    "dep_round",
    "elementary_jump",
    "linear_program",
    "madow",
    "minimize_over",
    "optimal_plan",
    "poisson",
    "poisson_hard",
    "project_by_program",
    "systematic_law",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

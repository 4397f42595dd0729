"""How often to use each matching of a graph, and how far to step when it is used.

With matchings of Laplacians L_j active independently with probabilities p_j, a round mixes by W = I − α Σ_j B_j L_j,

    L̄ = Σ p_j L_j,   L̃ = Σ p_j (1 − p_j) L_j,   E W² = I − 2 α L̄ + α² (L̄² + 2 L̃)

(L_j² = 2 L_j, as matchings have no common ends), and models differ by less each round by the factor
ρ = ‖E W² − J‖₂ in mean square. Probabilities maximise λ_2(L̄), the algebraic connectivity, under a budget of rounds,
Σ p_j <= C_b m; α minimises ρ. Both problems are convex.

λ_2 is concave, and xᵀ L̄ x with x an eigenvector at any p bounds it from above: `activation` adds such cuts to a linear
programme until its optimum is no more than a given gap above the best λ_2 seen.

References:
    Wang, Sahu, Yang, Joshi, Kar. MATCHA: speeding up decentralized SGD via matching decomposition sampling. ICC 2019,
    arXiv 1905.09435, problems (6) and (7), there solved as semidefinite programmes.
    Kelley. The cutting-plane method for solving convex programs. SIAM Journal 8, 1960.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from scipy.optimize import minimize_scalar

from rivage.convex.programs import linear_program
from rivage.core.errors import ConfigError

__all__ = ["Activation", "activation", "laplacians", "mean_square", "step_size"]

Square = Float64[ndarray, "nodes nodes"]

_ROUNDS, _CUTS = 400, 4_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation:
    """Probabilities of matchings, and what they are worth.

    Args:
        probabilities: p of each matching.
        connectivity: λ_2 of L̄ at p.
        bound: no probabilities within the budget have a larger λ_2, up to the precision of the solver.
    """

    probabilities: Float64[ndarray, "matchings"]
    connectivity: float
    bound: float


def laplacians(nodes: int, classes: list[Int64[ndarray, "class 2"]]) -> Float64[ndarray, "matchings nodes nodes"]:
    """L_j of each matching."""
    stack = np.zeros((len(classes), nodes, nodes))
    for matrix, edges in zip(stack, classes, strict=True):
        one, other = edges.T
        matrix[one, one] = matrix[other, other] = 1
        matrix[one, other] = matrix[other, one] = -1
    return stack


def activation(
    stack: Float64[ndarray, "matchings nodes nodes"], budget: float, *, tolerance: float = 1e-4
) -> Activation:
    """Probabilities of largest algebraic connectivity with a mean of at most ``budget``.

    Args:
        stack: the Laplacians of the matchings.
        budget: C_b in (0, 1]: the share of the matchings that a round may use on average.
        tolerance: relative gap at which to stop.

    Raises:
        ConfigError: for budgets out of range, or when the matchings together do not connect the nodes.
    """
    if not 0 < budget <= 1:
        raise ConfigError(f"budget is {budget}", mend="Give a share above 0, of at most 1.")
    count = len(stack)
    best, bound = np.full(count, float(budget)), np.inf
    low, cuts = _look(stack, best)
    if low <= 1e-9:
        raise ConfigError("the matchings do not connect the nodes", mend="Add edges to the base graph.")
    for _ in range(_ROUNDS):
        point, bound = _optimum(cuts, budget * count, bound)
        if bound - low <= tolerance * bound:
            break
        for share in (0.5, 1.0):  # half way first: cuts near the best point are the ones that bind in the end
            tried = best + share * (point - best)
            value, more = _look(stack, tried)
            cuts = np.concatenate([cuts, more])
            if value > low:
                low, best = value, tried
        if len(cuts) > _CUTS:
            cuts = cuts[np.argsort(cuts @ best)[: _CUTS // 2]]
    return Activation(probabilities=np.clip(best, 0, 1), connectivity=low, bound=max(low, bound))


def _look(stack: ndarray, point: ndarray) -> tuple[float, Float64[ndarray, "cuts matchings"]]:
    """λ_2 at a point, and xᵀ L_j x for all eigenvectors x but the constant one, lowest first."""
    last = (2 * len(stack) + 1) / stack.shape[1]  # no eigenvalue of L̄ is above 2 m, so the constant vector comes last
    values, vectors = np.linalg.eigh(np.tensordot(point, stack, 1) + last)
    keep = vectors[:, :-1]
    return float(values[0]), np.einsum("jab,ax,bx->xj", stack, keep, keep, optimize=True)


def _optimum(cuts: ndarray, total: float, bound: float) -> tuple[ndarray, float]:
    """The largest γ with γ <= every cut, Σ p <= total and p in the unit box."""
    count = cuts.shape[1]
    rows = np.vstack([np.hstack([-cuts, np.ones((len(cuts), 1))]), np.append(np.ones(count), 0.0)])
    limits = np.append(np.zeros(len(cuts)), total)
    high = np.append(np.ones(count), np.inf)
    solved = linear_program(np.append(np.zeros(count), -1.0), upper=(rows, limits), high=high)
    return solved.x[:-1], min(bound, -solved.value)


def mean_square(
    stack: Float64[ndarray, "matchings nodes nodes"], probabilities: Float64[ndarray, "matchings"], alpha: float
) -> Square:
    """E W²."""
    mean = np.tensordot(probabilities, stack, 1)
    spread = np.tensordot(probabilities * (1 - probabilities), stack, 1)
    return np.asarray(np.eye(len(mean)) - 2 * alpha * mean + alpha**2 * (mean @ mean + 2 * spread))


def step_size(
    stack: Float64[ndarray, "matchings nodes nodes"], probabilities: Float64[ndarray, "matchings"]
) -> tuple[float, float]:
    """The α of least ρ, and ρ: below 1 if the matchings of positive probability connect the nodes.

    ρ is convex in α, and at least 1 from α = 2 / λ_max(L̄) on.
    """
    nodes = stack.shape[1]

    def rho(alpha: float) -> float:
        return float(np.linalg.norm(mean_square(stack, probabilities, alpha) - 1 / nodes, 2))

    widest = 2 / float(np.linalg.eigvalsh(np.tensordot(probabilities, stack, 1))[-1])
    found = minimize_scalar(rho, bounds=(0, widest), method="bounded", options={"xatol": 1e-10 * widest})
    return float(found.x), float(found.fun)

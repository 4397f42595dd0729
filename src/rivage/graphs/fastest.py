"""The mixing matrix that agrees fastest on a given graph, with a proof of how much faster one could be.

Minimise ρ = ‖W − J‖₂ over symmetric W with W 1 = 1 that are 0 off the graph (FDLA, *fastest distributed linear
averaging*; entries may be negative), or with W >= 0 as well (FMMC, *fastest mixing Markov chain*). With one weight w_e
for each edge e = ab and b_e = e_a − e_b, W = I − Σ_e w_e b_e b_eᵀ, this is

    minimise t   subject to   t I − (W − J) ⪰ 0,   t I + (W − J) ⪰ 0   [and w >= 0, diag W >= 0],

solved by Newton steps on μ t − Σ log det (and log) of the constraints, μ growing. With Z the inverse of a constraint,
the Hessian is the elementwise square of Bᵀ Z B: a step costs O(m³) for m edges. At the minimum for one μ the optimum is
less than t by at most θ/μ, θ = 2 n [+ m + n].

References:
    Xiao, Boyd. Fast linear iterations for distributed averaging. Systems & Control Letters 53, 2004.
    Boyd, Diaconis, Xiao. Fastest mixing Markov chain on a graph. SIAM Review 46, 2004.
    Boyd, Vandenberghe. Convex Optimization. Cambridge 2004, §11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.graphs.mixing import contraction, metropolis

__all__ = ["FastestMixing", "fastest_mixing"]

_EDGES = 1_500
_GROWTH, _STEPS = 12.0, 60
_RIDGE = 1e-14  # where weights can be exchanged for one another, rounding leaves the Hessian singular
_ENOUGH = 1e-8  # half the squared Newton decrement at which a centre is centre enough


@dataclass(frozen=True, kw_only=True, eq=False)
class FastestMixing:
    """A mixing matrix and what no other one on the graph can beat.

    Args:
        weights: W, symmetric, rows sum to 1.
        contraction: ρ of W.
        bound: no matrix of the kind has a smaller ρ, up to the precision of the last centre.
    """

    weights: Float64[ndarray, "nodes nodes"]
    contraction: float
    bound: float


def fastest_mixing(
    adjacency: Float64[ndarray, "nodes nodes"], *, nonnegative: bool = False, tolerance: float = 1e-9
) -> FastestMixing:
    """FDLA weights of a connected undirected graph, or with ``nonnegative`` the FMMC.

    Args:
        adjacency: not 0 where there is an edge.
        nonnegative: no negative entries.
        tolerance: gap between ρ and its bound at which to stop.

    Raises:
        ConfigError: when the graph is directed, not connected, or has more than 1,500 edges.
    """
    start = metropolis(adjacency)
    rho = contraction(start)
    one, other = np.nonzero(np.triu(start, 1))
    if rho >= 1 - 1e-12:
        raise ConfigError("the graph is not connected", mend="Add edges: what is apart never agrees.")
    if len(one) > _EDGES:
        mend = "Use nearly_fastest_mixing, or best_constant and metropolis, which have closed forms."
        raise ConfigError(f"{len(one)} edges are more than {_EDGES}", mend=mend)
    if not len(one):
        return FastestMixing(weights=start, contraction=0.0, bound=0.0)
    barrier = _Barrier(len(start), one, other, nonnegative)
    point, mu = np.append(start[one, other], (1 + rho) / 2 + 0.1), 1.0
    best, best_rho = start, rho
    while True:
        point = barrier.centre(point, mu)
        weights = barrier.weights(point[:-1])
        if (rho := contraction(weights)) < best_rho:
            best, best_rho = weights, rho
        bound = max(0.0, float(point[-1]) - 2 * barrier.order / mu)  # twice: the centre is not exact
        if best_rho - bound <= tolerance or mu > barrier.order / tolerance * 10:
            return FastestMixing(weights=best, contraction=best_rho, bound=min(bound, best_rho))
        mu *= _GROWTH


class _Barrier:
    """μ t − log det of both sides − logarithms of what must not be negative, at (w, t)."""

    def __init__(self, nodes: int, one: ndarray, other: ndarray, nonnegative: bool) -> None:
        edges = len(one)
        self.incidence = np.zeros((nodes, edges))
        self.incidence[one, np.arange(edges)], self.incidence[other, np.arange(edges)] = 1, -1
        self.nonnegative = nonnegative
        self.order = 2 * nodes + (nodes + edges if nonnegative else 0)

    def weights(self, values: ndarray) -> ndarray:
        matrix = np.eye(len(self.incidence)) - (self.incidence * values) @ self.incidence.T
        return np.asarray((matrix + matrix.T) / 2)

    def value(self, point: ndarray, mu: float) -> float:
        """Inf outside."""
        if self.nonnegative and (point[:-1].min() <= 0 or self._home(point).min() <= 0):
            return np.inf
        apart = self.weights(point[:-1]) - 1 / len(self.incidence)
        distance = np.linalg.eigvalsh(apart)
        room = np.concatenate([point[-1] - distance, point[-1] + distance])
        if self.nonnegative:
            room = np.concatenate([room, point[:-1], self._home(point)])
        return float(mu * point[-1] - np.log(room).sum()) if room.min() > 0 else np.inf

    def step(self, point: ndarray, mu: float) -> tuple[ndarray, float]:
        """Newton's step, and half the squared decrement."""
        edges, t = len(point) - 1, point[-1]
        apart = self.weights(point[:-1]) - 1 / len(self.incidence)
        gradient, hessian = np.zeros(edges + 1), np.zeros((edges + 1, edges + 1))
        gradient[-1] = mu
        for sign in (1.0, -1.0):
            inverse = np.linalg.inv(t * np.eye(len(apart)) - sign * apart)
            through = inverse @ self.incidence
            gradient[:-1] -= sign * (self.incidence * through).sum(axis=0)
            gradient[-1] -= np.trace(inverse)
            hessian[:-1, :-1] += (self.incidence.T @ through) ** 2
            hessian[:-1, -1] += sign * (through**2).sum(axis=0)
            hessian[-1, -1] += (inverse**2).sum()
        if self.nonnegative:
            touching, home = np.abs(self.incidence), self._home(point)
            gradient[:-1] += touching.T @ (1 / home) - 1 / point[:-1]
            hessian[:-1, :-1] += (touching.T / home**2) @ touching + np.diag(1 / point[:-1] ** 2)
        hessian[-1, :-1] = hessian[:-1, -1]
        unit = 1 / np.sqrt(np.diagonal(hessian))
        scaled = hessian * unit[:, None] * unit + _RIDGE * np.eye(edges + 1)
        move = -unit * np.linalg.solve(scaled, unit * gradient)
        return move, float(-gradient @ move) / 2

    def centre(self, point: ndarray, mu: float) -> ndarray:
        """The minimum for one μ, by damped Newton steps."""
        for _ in range(_STEPS):
            move, decrement = self.step(point, mu)
            if decrement < _ENOUGH:
                break
            now, share = self.value(point, mu), 1.0
            while self.value(point + share * move, mu) > now - 0.2 * share * decrement and share > 1e-10:
                share /= 2
            if share <= 1e-10:
                break  # rounding leaves nothing to gain
            point = point + share * move
        return point

    def _home(self, point: ndarray) -> ndarray:
        """The diagonal of W."""
        return np.asarray(1 - np.abs(self.incidence) @ point[:-1])

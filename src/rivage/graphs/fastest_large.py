"""Fastest mixing matrices of large graphs, nearly, with a proof of how near.

The problem of `rivage.graphs.fastest`, whose Newton steps cost O(m³) for m edges. Here a step costs one
eigendecomposition, O(n³), and linear algebra on the graph. With W = I − Σ_e w_e b_e b_eᵀ = I − A w it reads

    minimise ‖X‖₂   subject to   X + A w = I − J   [and w = z >= 0, N w + s = 1, s >= 0],

N the matrix of nodes and edges, s the diagonal of W. The alternating direction method of multipliers moves X (and z, s)
and w in turn. X comes from its eigenvalues, cut off at a height that leaves Y, a matrix whose eigenvalues have absolute
values of sum 1 in all. w comes from AᵀA = 2 I + NᵀN, by an n × n system that is factored once.

**Bound.** Y has ⟨Y, W − J⟩ <= ‖W − J‖₂ for every W. With c_e = b_eᵀ Y b_e that is tr Y − Σ_e w_e c_e <= ρ. Of the FMMC
the left side is least for a fractional matching of largest weight c, by a linear programme over n multipliers ν >= 0,
ν_a + ν_b >= c_ab: ρ >= tr Y − Σ ν. Of the FDLA every better W has entries with |W_ab − 1/n| <= ρ of the best one known,
and either this or the Y nearest to it with c = 0 gives the better bound.

References:
    Xiao, Boyd. Fast linear iterations for distributed averaging. Systems & Control Letters 53, 2004 (problem and dual).
    Boyd, Diaconis, Xiao. Fastest mixing Markov chain on a graph. SIAM Review 46, 2004.
    Boyd, Parikh, Chu, Peleato, Eckstein. Distributed optimization and statistical learning via the alternating
    direction method of multipliers. Foundations and Trends in Machine Learning 3, 2011, §3.4.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.linalg import cho_factor, cho_solve, eigh, eigvalsh
from scipy.optimize import linprog
from scipy.sparse import csr_array

from rivage.core.errors import ConfigError, require
from rivage.graphs.fastest import FastestMixing
from rivage.graphs.mixing import best_constant, metropolis

__all__ = ["nearly_fastest_mixing"]

_LOOK = 20  # steps between two looks at weights and bound
_AHEAD = 1.6  # over-relaxation
_BALANCE = 5.0  # how far apart both residuals may be before the penalty moves


def nearly_fastest_mixing(
    adjacency: Float64[ndarray, "nodes nodes"],
    *,
    nonnegative: bool = False,
    tolerance: float = 0.02,
    steps: int = 1_000,
) -> FastestMixing:
    """FDLA weights of a connected undirected graph, or the FMMC, within a proved share of the best spectral gap.

    Args:
        adjacency: not 0 where there is an edge; some thousand nodes at most, any number of edges.
        nonnegative: no negative entries.
        tolerance: stop when the spectral gap, 1 − ρ, is proved to lack at most this share of the largest possible, > 0.
        steps: stop after as many, >= 1; the bound holds all the same.

    Raises:
        ConfigError: when the graph is directed or not connected, or a number is out of range.

    Example:
        >>> from rivage.graphs import random_regular
        >>> graph = random_regular(60, 4, np.random.default_rng(0)).adjacency.astype(float)
        >>> found = nearly_fastest_mixing(graph)
        >>> (1 - found.contraction) / (1 - found.bound) >= 0.98
        True
    """
    require(tolerance, "tolerance", above=0)
    require(steps, "steps", least=1)
    graph = _Graph(adjacency, nonnegative)
    if graph.rho >= 1 - 1e-12:
        raise ConfigError("the graph is not connected", mend="Add edges: what is apart never agrees.")
    bound, state = 0.0, _State(graph)
    for step in range(1, steps + 1):
        state.step(balance=step % 5 == 0 and step <= steps // 2)
        if step % _LOOK and step < steps:
            continue
        graph.note(state.weights)
        bound = max(bound, graph.bound(state.dual))
        if graph.rho - bound <= tolerance * (1 - bound):
            break
    matrix = np.eye(graph.nodes) - graph.spread(graph.best)
    return FastestMixing(weights=matrix, contraction=graph.rho, bound=min(bound, graph.rho))


class _Graph:
    """The edges, what is linear in their weights, and the best weights so far."""

    def __init__(self, adjacency: ndarray, nonnegative: bool) -> None:
        starts = [metropolis(adjacency)]
        self.nodes, self.nonnegative = len(adjacency), nonnegative
        self.one, self.other = np.nonzero(np.triu(starts[0], 1))
        edges = len(self.one)
        ends, columns = np.concatenate([self.one, self.other]), np.tile(np.arange(edges), 2)
        self.touching = csr_array((np.ones(2 * edges), (ends, columns)), shape=(self.nodes, edges))
        self.rho, self.best = np.inf, starts[0][self.one, self.other]
        self.note(self.best)
        if not nonnegative and self.rho < 1 - 1e-12:
            self.note(best_constant(adjacency)[self.one, self.other])

    def spread(self, weights: ndarray) -> ndarray:
        """A w: the Laplacian of weighted edges."""
        matrix = np.zeros((self.nodes, self.nodes))
        matrix[self.one, self.other] = matrix[self.other, self.one] = -weights
        np.fill_diagonal(matrix, self.touching @ weights)
        return matrix

    def gather(self, matrix: ndarray) -> ndarray:
        """Aᵀ M: b_eᵀ M b_e of every edge."""
        home = np.diagonal(matrix)
        return np.asarray(
            home[self.one] + home[self.other] - matrix[self.one, self.other] - matrix[self.other, self.one]
        )

    def apart(self, weights: ndarray) -> ndarray:
        """W − J."""
        return np.asarray(np.eye(self.nodes) - self.spread(weights) - 1 / self.nodes)

    def note(self, weights: ndarray) -> None:
        """Keep weights that mix faster, made what they must be first."""
        if self.nonnegative:
            weights = np.maximum(weights, 0)
            load = np.maximum(1, self.touching @ weights)
            weights = weights / np.maximum(load[self.one], load[self.other])
        rho = float(np.abs(eigvalsh(self.apart(weights))).max())
        if rho < self.rho:
            self.rho, self.best = rho, weights

    def bound(self, dual: ndarray) -> float:
        """What Y proves."""
        return self.matched(dual) if self.nonnegative else max(self.boxed(dual), self.levelled(dual))

    def matched(self, dual: ndarray) -> float:
        """With the prices of a fractional matching."""
        slopes = self.gather(dual)
        solved = linprog(np.ones(self.nodes), A_ub=-self.touching.T, b_ub=-slopes, method="highs")
        assert solved.status == 0, solved.message
        prices = np.maximum(0, solved.x)
        lacks = np.maximum(0, slopes - self.touching.T @ prices).max(initial=0)  # the solver's inaccuracy
        return float(np.trace(dual) - prices.sum() - lacks * self.nodes / 2)

    def boxed(self, dual: ndarray) -> float:
        """With all weights within ρ of 1/n."""
        slopes = self.gather(dual)
        return float(np.trace(dual) - slopes.sum() / self.nodes - self.rho * np.abs(slopes).sum())

    def levelled(self, dual: ndarray) -> float:
        """With the nearest Y for which weights do not matter."""
        level = dual - self.spread(_solver(self, 2, 1)(self.gather(dual)))
        size = np.abs(eigvalsh(level)).sum()
        return float(np.trace(level) / max(size, 1.0))


class _State:
    """Weights, and the multipliers of what they must meet, in units of the penalty."""

    def __init__(self, graph: _Graph) -> None:
        self.graph, nodes, edges = graph, graph.nodes, len(graph.one)
        self.target = np.eye(nodes) - 1 / nodes
        self.solve = _solver(graph, 3, 2) if graph.nonnegative else _solver(graph, 2, 1)
        self.penalty = 1.5 / (graph.rho * np.sqrt(nodes)) if graph.rho > 0 else 1.0
        self.weights, self.spread = graph.best, graph.spread(graph.best)
        self.price, self.dual = np.zeros((nodes, nodes)), np.zeros((nodes, nodes))
        self.edge_price, self.home_price = np.zeros(edges), np.zeros(nodes)

    def step(self, *, balance: bool) -> None:
        """Move X, z and s, then w, then the multipliers."""
        graph, old = self.graph, self.spread
        goal = self.target - old - self.price
        self.dual = self._dual(goal)
        distance = goal - self.dual / self.penalty
        ahead = _AHEAD * distance + (1 - _AHEAD) * (self.target - old)
        right = graph.gather(self.target - ahead - self.price)
        if graph.nonnegative:
            home = 1 - graph.touching @ self.weights
            edge = _AHEAD * np.maximum(0, self.weights + self.edge_price) + (1 - _AHEAD) * self.weights
            rest = _AHEAD * np.maximum(0, home - self.home_price) + (1 - _AHEAD) * home
            right = right + edge - self.edge_price + graph.touching.T @ (1 - rest - self.home_price)
        self.weights = self.solve(right)
        self.spread = graph.spread(self.weights)
        self.price = self.price + ahead + self.spread - self.target
        if graph.nonnegative:
            self.edge_price = self.edge_price + self.weights - edge
            self.home_price = self.home_price + graph.touching @ self.weights + rest - 1
        if balance:
            self._balance(_size(distance + self.spread - self.target), _size(self.spread - old))

    def _dual(self, goal: ndarray) -> ndarray:
        """Y: the matrix nearest to penalty · goal whose eigenvalues have absolute values of sum 1 at most."""
        values, vectors = eigh(goal)
        heights = np.sort(np.abs(values))[::-1]
        over = (np.cumsum(heights) - 1 / self.penalty) / np.arange(1, len(heights) + 1)
        cut = max(0.0, float(over[np.flatnonzero(heights > over)[-1]]))
        kept = np.abs(values) > cut
        left = np.sign(values[kept]) * (np.abs(values[kept]) - cut)
        return np.asarray((vectors[:, kept] * (self.penalty * left)) @ vectors[:, kept].T)

    def _balance(self, primal: float, dual: float) -> None:
        """A larger penalty where X and w disagree more than they move, and the reverse."""
        factor = 2.0 if primal > _BALANCE * dual else 0.5 if dual > _BALANCE * primal else 1.0
        self.penalty *= factor
        self.price, self.edge_price, self.home_price = (
            each / factor for each in (self.price, self.edge_price, self.home_price)
        )


def _solver(graph: _Graph, identity: float, product: float) -> Callable[[ndarray], ndarray]:
    """(identity · I + product · NᵀN)⁻¹ by Woodbury's formula."""
    every = graph.touching
    factor = cho_factor(identity / product * np.eye(graph.nodes) + (every @ every.T).toarray())
    return lambda right: (right - every.T @ cho_solve(factor, every @ right)) / identity


def _size(matrix: ndarray) -> float:
    return float(np.linalg.norm(matrix))

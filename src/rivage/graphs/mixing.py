"""Mixing matrices: the weights with which neighbours average, and how fast repeated averaging agrees.

X ← W X, row i of X at node i, uses W_ij only where j sends to i or i = j. If W 1 = 1, models that agree stay as they
are; if 1ᵀ W = 1ᵀ as well, their mean is kept. With J = 1 1ᵀ / n, a doubly stochastic W shrinks what models differ by
at least by ρ = ‖W − J‖₂ a step; ρ is the second largest modulus of the eigenvalues of W where W is normal, as symmetric
and circulant ones are. In general the modulus tells the rate in the long run, the norm bounds every step.

Closed forms with one weight, L the Laplacian of an undirected graph and 0 = λ_1 < λ_2 <= … <= λ_n its eigenvalues:
W = I − α L has ρ = max(1 − α λ_2, α λ_n − 1), least for α = 2 / (λ_2 + λ_n): ρ = (λ_n − λ_2) / (λ_n + λ_2).

References:
    Xiao, Boyd. Fast linear iterations for distributed averaging. Systems & Control Letters 53, 2004.
    Boyd, Diaconis, Xiao. Fastest mixing Markov chain on a graph. SIAM Review 46, 2004.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError

__all__ = [
    "best_constant",
    "contraction",
    "laplacian",
    "metropolis",
    "pull_weights",
    "push_weights",
    "second_modulus",
    "spectral_gap",
]

Square = Float64[ndarray, "nodes nodes"]


def metropolis(adjacency: Square) -> Square:
    """W_ij = 1 / (1 + max(degree of i, degree of j)) on the edges of an undirected graph, also called local-degree.

    Needs no more than the degrees of neighbours. Symmetric, doubly stochastic, no entry is negative.

    Raises:
        ConfigError: when the graph is directed.
    """
    linked = _undirected(adjacency)
    degrees = linked.sum(axis=1)
    weights = np.where(linked, 1 / (1 + np.maximum(degrees[:, None], degrees[None, :])), 0.0)
    return _rest_at_home(weights)


def best_constant(adjacency: Square) -> Square:
    """I − α L with the α of least ρ. Entries on the diagonal may be negative.

    Raises:
        ConfigError: when the graph is directed or not connected.
    """
    if len(adjacency) == 1:
        return np.ones((1, 1))
    matrix = laplacian(adjacency)
    values = np.linalg.eigvalsh(matrix)
    if values[1] <= 1e-12 * values[-1]:
        raise ConfigError("the graph is not connected", mend="Add edges: what is apart never agrees.")
    return _rest_at_home(-2 / (values[1] + values[-1]) * (matrix - np.diag(np.diag(matrix))))


def laplacian(adjacency: Square) -> Square:
    """Degrees on the diagonal, −1 on the edges of an undirected graph.

    Raises:
        ConfigError: when the graph is directed.
    """
    linked = _undirected(adjacency).astype(np.float64)
    return np.asarray(np.diag(linked.sum(axis=1)) - linked)


def pull_weights(adjacency: Square) -> Square:
    """Every node takes the plain mean of its own model and those it receives: W 1 = 1.

    Doubly stochastic where as many send to each node as it sends to and neighbours have the same number. Otherwise
    nodes agree, but not on the mean: use `push_weights` with push-sum, or both with gradient tracking.

    Args:
        adjacency: not 0 where the row sends to the column.
    """
    received = (np.asarray(adjacency).T != 0) | np.eye(len(adjacency), dtype=bool)
    return np.asarray(received / received.sum(axis=1, keepdims=True))


def push_weights(adjacency: Square) -> Square:
    """Every node splits its model evenly among itself and those it sends to: 1ᵀ W = 1ᵀ.

    Args:
        adjacency: not 0 where the row sends to the column.
    """
    received = (np.asarray(adjacency).T != 0) | np.eye(len(adjacency), dtype=bool)
    return np.asarray(received / received.sum(axis=0, keepdims=True))


def contraction(weights: Square) -> float:
    """ρ = ‖W − J‖₂: what models differ by shrinks at least by it in each step, if W is doubly stochastic."""
    return float(np.linalg.norm(weights - 1 / len(weights), 2))


def second_modulus(weights: Square) -> float:
    """The second largest modulus of the eigenvalues of a stochastic matrix: the rate of agreement in the long run."""
    moduli = np.sort(np.abs(np.linalg.eigvals(weights)))
    return float(moduli[-2]) if len(weights) > 1 else 0.0


def spectral_gap(weights: Square) -> float:
    """1 − the second largest modulus of the eigenvalues; of a symmetric matrix 1 − ρ. O(n³)."""
    if np.array_equal(weights, weights.T):
        return 1 - contraction(weights)
    return 1 - second_modulus(weights)


def _undirected(adjacency: Square) -> ndarray:
    linked: ndarray = np.asarray(adjacency) != 0
    np.fill_diagonal(linked, False)
    if not np.array_equal(linked, linked.T):
        one, other = np.argwhere(linked & ~linked.T)[0].tolist()
        raise ConfigError(
            f"node {one} sends to node {other} and receives nothing back",
            mend="Give both directions, or use pull_weights or push_weights.",
        )
    return linked


def _rest_at_home(weights: ndarray) -> Square:
    """Put on the diagonal what rows lack to 1."""
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights + np.diag(1 - weights.sum(axis=1)))

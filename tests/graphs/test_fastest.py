"""Fastest mixing matrices: closed forms, another solver, and never worse than simpler weights."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rivage.core.errors import ConfigError
from rivage.graphs.fastest import fastest_mixing
from rivage.graphs.mixing import best_constant, contraction, metropolis


def random_graph(seed: int, most: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, most + 1))
    matrix = rng.random((nodes, nodes)) < rng.uniform(0, 0.5)
    matrix = matrix | matrix.T
    order = rng.permutation(nodes)
    matrix[order[:-1], order[1:]] = matrix[order[1:], order[:-1]] = True
    np.fill_diagonal(matrix, False)
    return matrix.astype(float)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_orders_and_proofs(seed: int) -> None:
    """FDLA <= FMMC <= Metropolis, FDLA <= best constant, each with its gap closed."""
    adjacency = random_graph(seed)
    fdla, fmmc = fastest_mixing(adjacency), fastest_mixing(adjacency, nonnegative=True)
    for found in (fdla, fmmc):
        assert np.array_equal(found.weights, found.weights.T)
        assert np.abs(found.weights.sum(axis=0) - 1).max() < 1e-12
        assert (found.weights[(adjacency == 0) & ~np.eye(len(adjacency), dtype=bool)] == 0).all()
        assert contraction(found.weights) == found.contraction
        assert 0 <= found.contraction - found.bound <= 1e-8
    assert fmmc.weights.min() >= -1e-15
    assert fdla.bound <= fmmc.contraction + 1e-9
    assert fmmc.bound <= contraction(metropolis(adjacency)) + 1e-9
    assert fdla.bound <= contraction(best_constant(adjacency)) + 1e-9


@pytest.mark.parametrize("graph", [nx.cycle_graph(9), nx.star_graph(7), nx.petersen_graph(), nx.hypercube_graph(3)])
def test_one_weight_is_best_where_all_edges_are_alike(graph: nx.Graph) -> None:
    adjacency = nx.to_numpy_array(graph)
    assert fastest_mixing(adjacency).contraction == pytest.approx(contraction(best_constant(adjacency)), abs=1e-8)


@pytest.mark.parametrize("nodes", [2, 3, 5, 8])
def test_chains_on_a_path_move_half_the_time(nodes: int) -> None:
    found = fastest_mixing(nx.to_numpy_array(nx.path_graph(nodes)), nonnegative=True)
    assert found.contraction == pytest.approx(np.cos(np.pi / nodes), abs=1e-8)


def test_weights_that_can_be_exchanged() -> None:
    """A wheel with spokes missing: near the optimum the Hessian is singular to the last digit."""
    adjacency = np.zeros((5, 5))
    for one, other in ((0, 1), (0, 2), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)):
        adjacency[one, other] = adjacency[other, one] = 1
    for nonnegative in (False, True):
        found = fastest_mixing(adjacency, nonnegative=nonnegative)
        assert found.contraction - found.bound <= 1e-8
        assert found.contraction < contraction(best_constant(adjacency))


def test_against_another_solver() -> None:
    """Nelder-Mead on the weights of a triangle with a tail and a chord: no smaller ρ."""
    graph = nx.Graph([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)])
    adjacency = nx.to_numpy_array(graph)
    edges = list(graph.edges)

    def rho(values: np.ndarray) -> float:
        weights = np.eye(5)
        for (a, b), value in zip(edges, values, strict=True):
            weights[[a, b], [b, a]] += value
            weights[[a, b], [a, b]] -= value
        return contraction(weights)

    found = minimize(
        rho, np.full(5, 0.3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 9000}
    )
    assert fastest_mixing(adjacency).contraction == pytest.approx(found.fun, abs=1e-5)
    assert fastest_mixing(adjacency).contraction <= found.fun + 1e-9


def test_single_nodes_complete_graphs_and_refusals() -> None:
    assert fastest_mixing(np.zeros((1, 1))).weights.tolist() == [[1]]
    assert fastest_mixing(np.ones((6, 6))).contraction == pytest.approx(0, abs=1e-9)
    with pytest.raises(ConfigError, match="not connected"):
        fastest_mixing(np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="receives nothing back"):
        fastest_mixing(np.array([[0, 1], [0, 0]]))
    with pytest.raises(ConfigError, match="1770 edges are more than 1500"):
        fastest_mixing(np.ones((60, 60)))

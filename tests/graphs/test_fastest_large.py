"""Nearly fastest mixing: against the exact solver, closed forms, and a bound that holds at every stop."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import nearly_fastest_mixing
from rivage.graphs.fastest import FastestMixing, fastest_mixing
from rivage.graphs.fastest_large import _Graph
from rivage.graphs.mixing import best_constant, contraction, metropolis


def random_graph(seed: int, most: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, most + 1))
    matrix = rng.random((nodes, nodes)) < rng.uniform(0, 0.5)
    matrix = matrix | matrix.T
    order = rng.permutation(nodes)
    matrix[order[:-1], order[1:]] = matrix[order[1:], order[:-1]] = True
    np.fill_diagonal(matrix, False)
    return matrix.astype(float)


def assert_on_the_graph(found: FastestMixing, adjacency: np.ndarray, *, nonnegative: bool) -> None:
    weights = found.weights
    assert np.array_equal(weights, weights.T)
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-12
    assert (weights[(adjacency == 0) & ~np.eye(len(adjacency), dtype=bool)] == 0).all()
    assert contraction(weights) == pytest.approx(found.contraction, abs=1e-12)
    assert found.bound <= found.contraction
    if nonnegative:
        assert weights.min() >= -1e-15


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.booleans())
def test_the_bound_holds_and_is_near(seed: int, nonnegative: bool) -> None:
    adjacency = random_graph(seed)
    exact = fastest_mixing(adjacency, nonnegative=nonnegative)
    found = nearly_fastest_mixing(adjacency, nonnegative=nonnegative)
    assert_on_the_graph(found, adjacency, nonnegative=nonnegative)
    assert found.bound <= exact.contraction + 1e-9
    assert found.contraction >= exact.bound - 1e-9
    assert 1 - found.contraction >= 0.98 * (1 - found.bound) - 1e-12


@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_bound_holds_wherever_it_stops(nonnegative: bool) -> None:
    for seed in range(3):
        adjacency = random_graph(seed)
        exact = fastest_mixing(adjacency, nonnegative=nonnegative)
        for steps in (1, 2, 7, 30, 100):
            found = nearly_fastest_mixing(adjacency, nonnegative=nonnegative, tolerance=1e-9, steps=steps)
            assert_on_the_graph(found, adjacency, nonnegative=nonnegative)
            assert found.bound <= exact.contraction + 1e-9
            assert found.contraction <= contraction(metropolis(adjacency)) + 1e-12


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_every_matrix_proves_a_bound(seed: int) -> None:
    """Y with eigenvalues of sum 1: what is bounded, at the worst weights; nothing above the optimum."""
    adjacency, rng = random_graph(seed, 7), np.random.default_rng(seed)
    nodes = len(adjacency)
    away = np.eye(nodes) - 1 / nodes
    dual = away @ rng.normal(size=(nodes, 2)) @ np.diag(rng.choice([-1, 1], 2))
    dual = dual @ dual.T if seed % 2 else -dual @ dual.T
    dual /= np.abs(np.linalg.eigvalsh(dual)).sum()
    free, chain = _Graph(adjacency, nonnegative=False), _Graph(adjacency, nonnegative=True)
    corner = 1 / nodes + free.rho * np.sign(free.gather(dual))
    assert free.boxed(dual) == pytest.approx(float((dual * free.apart(corner)).sum()), abs=1e-12)
    assert free.bound(dual) <= fastest_mixing(adjacency).contraction + 1e-9
    assert chain.matched(dual) <= fastest_mixing(adjacency, nonnegative=True).contraction + 1e-9
    for _ in range(5):  # weights of chains: what a node gives away is at most 1
        weights = rng.uniform(size=len(chain.one)) ** 3
        weights /= max(1, (chain.touching @ weights).max())
        assert chain.matched(dual) <= float((dual * chain.apart(weights)).sum()) + 1e-9


@pytest.mark.parametrize("graph", [nx.cycle_graph(9), nx.star_graph(7), nx.petersen_graph(), nx.hypercube_graph(4)])
def test_one_weight_is_best_where_all_edges_are_alike(graph: nx.Graph) -> None:
    adjacency = nx.to_numpy_array(graph)
    found = nearly_fastest_mixing(adjacency, tolerance=1e-4)
    assert found.bound <= contraction(best_constant(adjacency)) + 1e-12
    assert found.bound == pytest.approx(contraction(best_constant(adjacency)), abs=1e-4)


@pytest.mark.parametrize("nodes", [3, 6])
def test_chains_on_a_path_move_half_the_time(nodes: int) -> None:
    found = nearly_fastest_mixing(nx.to_numpy_array(nx.path_graph(nodes)), nonnegative=True, tolerance=1e-5)
    assert found.contraction == pytest.approx(np.cos(np.pi / nodes), abs=1e-5)
    assert found.bound <= np.cos(np.pi / nodes) + 1e-12


def test_order_of_nodes_changes_little() -> None:
    adjacency = random_graph(3, 20)
    order = np.argsort(np.random.default_rng(0).random(len(adjacency)))
    one = nearly_fastest_mixing(adjacency, tolerance=1e-5)
    other = nearly_fastest_mixing(adjacency[np.ix_(order, order)], tolerance=1e-5)
    assert one.contraction == pytest.approx(other.contraction, abs=1e-5)


def test_single_nodes_complete_graphs_and_refusals() -> None:
    assert nearly_fastest_mixing(np.zeros((1, 1))).weights.tolist() == [[1]]
    assert nearly_fastest_mixing(np.ones((6, 6))).contraction == pytest.approx(0, abs=1e-9)
    for nonnegative in (False, True):
        with pytest.raises(ConfigError, match="not connected"):
            nearly_fastest_mixing(np.zeros((2, 2)), nonnegative=nonnegative)
    with pytest.raises(ConfigError, match="receives nothing back"):
        nearly_fastest_mixing(np.array([[0, 1], [0, 0]]))
    for wrong in ({"tolerance": 0}, {"steps": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            nearly_fastest_mixing(np.ones((3, 3)), **wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("nonnegative", [False, True])
def test_three_hundred_nodes(nonnegative: bool) -> None:
    """All but a fiftieth of the largest spectral gap, of which Metropolis weights have less than a half."""
    adjacency = nx.to_numpy_array(nx.gnm_random_graph(300, 1500, seed=1))
    found = nearly_fastest_mixing(adjacency, nonnegative=nonnegative)
    assert_on_the_graph(found, adjacency, nonnegative=nonnegative)
    assert 1 - found.contraction >= 0.98 * (1 - found.bound)
    assert 1 - contraction(metropolis(adjacency)) < 0.5 * (1 - found.contraction)

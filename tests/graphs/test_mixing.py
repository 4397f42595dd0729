"""Mixing matrices: spectra in closed form, and what every one of them keeps."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import exponential, mixing


def adjacency_of(graph: nx.Graph) -> np.ndarray:
    return nx.to_numpy_array(graph)


def random_graph(seed: int) -> np.ndarray:
    """Connected, of 2 to 10 nodes."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, 11))
    matrix = rng.random((nodes, nodes)) < rng.uniform()
    matrix = matrix | matrix.T
    order = rng.permutation(nodes)
    matrix[order[:-1], order[1:]] = matrix[order[1:], order[:-1]] = True
    np.fill_diagonal(matrix, False)
    return matrix.astype(float)


@pytest.mark.parametrize(
    ("graph", "rho"),
    [
        (nx.cycle_graph(16), 1 / 3 + 2 / 3 * np.cos(np.pi / 8)),
        (nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4, periodic=True)), 0.6),
        (nx.convert_node_labels_to_integers(nx.grid_2d_graph(5, 5, periodic=True)), (3 + 2 * np.cos(0.4 * np.pi)) / 5),
        (nx.convert_node_labels_to_integers(nx.hypercube_graph(4)), 0.6),
        (nx.complete_graph(9), 0),
        (nx.star_graph(9), 1 - 1 / 10),
    ],
)
def test_metropolis_in_closed_form(graph: nx.Graph, rho: float) -> None:
    weights = mixing.metropolis(adjacency_of(graph))
    assert mixing.contraction(weights) == pytest.approx(rho, abs=1e-12)
    assert mixing.spectral_gap(weights) == pytest.approx(1 - rho, abs=1e-12)


@pytest.mark.parametrize(("graph", "rho"), [(nx.star_graph(9), 9 / 11), (nx.complete_graph(7), 0)])
def test_best_constant_in_closed_form(graph: nx.Graph, rho: float) -> None:
    assert mixing.contraction(mixing.best_constant(adjacency_of(graph))) == pytest.approx(rho, abs=1e-12)


def test_directed_rings_and_exponential_graphs_in_closed_form() -> None:
    ring = np.roll(np.eye(16), 1, axis=1)
    for weights in (mixing.pull_weights(ring), mixing.push_weights(ring)):
        assert mixing.contraction(weights) == pytest.approx(np.cos(np.pi / 16), abs=1e-12)
        assert 1 - mixing.spectral_gap(weights) == pytest.approx(np.cos(np.pi / 16), abs=1e-12)


@pytest.mark.parametrize("nodes", [2, 3, 9, 33])
def test_paths_that_keep_half_at_the_ends(nodes: int) -> None:
    """What fastest mixing finds for a path: ½ on every edge."""
    weights = np.diag(np.full(nodes - 1, 0.5), 1) + np.diag(np.full(nodes - 1, 0.5), -1)
    weights[0, 0] = weights[-1, -1] = 0.5
    assert mixing.contraction(weights) == pytest.approx(np.cos(np.pi / nodes), abs=1e-12)


@pytest.mark.parametrize("nodes", [3, 8, 10, 15, 33, 64])
def test_static_exponential_graphs_by_their_transform(nodes: int) -> None:
    """A circulant's eigenvalues are the transform of its row."""
    adjacency = np.zeros((nodes, nodes))
    adjacency[tuple(exponential(nodes).T)] = 1
    row = np.zeros(nodes)
    row[[0, *(2**k for k in range((nodes - 1).bit_length()))]] = 1
    moduli = np.sort(np.abs(np.fft.fft(row / row.sum())))
    assert mixing.contraction(mixing.pull_weights(adjacency)) == pytest.approx(moduli[-2], abs=1e-12)


@given(st.integers(0, 10**6))
def test_undirected_weights_keep_sums_and_the_graph(seed: int) -> None:
    adjacency = random_graph(seed)
    values = np.linalg.eigvalsh(mixing.laplacian(adjacency))
    for build in (mixing.metropolis, mixing.best_constant):
        weights = build(adjacency)
        assert np.array_equal(weights, weights.T)
        assert np.allclose(weights.sum(axis=0), 1, atol=1e-12)
        assert (weights[(adjacency == 0) & ~np.eye(len(adjacency), dtype=bool)] == 0).all()
        assert mixing.contraction(weights) < 1
        assert mixing.contraction(weights) == pytest.approx(mixing.second_modulus(weights), abs=1e-9)
    assert (mixing.metropolis(adjacency) >= 0).all()
    rho = mixing.contraction(mixing.best_constant(adjacency))
    assert rho == pytest.approx((values[-1] - values[1]) / (values[-1] + values[1]), abs=1e-9)
    for alpha in np.linspace(0.01, 1, 30):
        assert rho <= mixing.contraction(np.eye(len(adjacency)) - alpha * mixing.laplacian(adjacency)) + 1e-9


@given(st.integers(0, 10**6))
def test_directed_weights_keep_one_side(seed: int) -> None:
    rng = np.random.default_rng(seed)
    adjacency = (rng.random((6, 6)) < 0.4) | np.roll(np.eye(6, dtype=bool), 1, axis=1)
    pull, push = mixing.pull_weights(adjacency), mixing.push_weights(adjacency)
    assert np.allclose(pull.sum(axis=1), 1)
    assert np.allclose(push.sum(axis=0), 1)
    sends = adjacency | np.eye(6, dtype=bool)
    assert np.array_equal(pull > 0, sends.T)
    assert np.array_equal(push > 0, sends.T)
    assert mixing.second_modulus(pull) < 1


def test_a_single_node_agrees_with_itself() -> None:
    for build in (mixing.metropolis, mixing.best_constant, mixing.pull_weights, mixing.push_weights):
        assert build(np.zeros((1, 1))).tolist() == [[1]]
        assert mixing.spectral_gap(build(np.zeros((1, 1)))) == 1


def test_graphs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="node 0 sends to node 1 and receives nothing back"):
        mixing.metropolis(np.array([[0, 1], [0, 0]]))
    with pytest.raises(ConfigError, match="not connected"):
        mixing.best_constant(np.zeros((2, 2)))

"""Families of graphs: degrees, spectra in closed form, exact averages after finitely many rounds."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import cycle, hypercube
from rivage.graphs.families import (
    base_graphs,
    exponential,
    hyper_hypercube,
    one_peer_exponential,
    random_regular,
    torus,
)
from rivage.graphs.mixing import contraction, metropolis, pull_weights


def product_of(matrices: list[np.ndarray], nodes: int) -> np.ndarray:
    return reduce(lambda done, each: each @ done, matrices, np.eye(nodes))


def assert_doubly_stochastic(weights: np.ndarray) -> None:
    assert weights.min() >= -1e-15
    assert np.allclose(weights.sum(axis=0), 1, atol=1e-12)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-12)


@given(st.integers(1, 60), st.integers(1, 5))
def test_base_graphs_average_exactly(nodes: int, degree: int) -> None:
    rounds = base_graphs(nodes, degree)
    assert np.allclose(product_of(rounds, nodes), 1 / nodes, atol=1e-13)
    for weights in rounds:
        assert_doubly_stochastic(weights)
        assert np.array_equal(weights, weights.T)
        assert ((weights > 1e-15).sum(axis=1) - 1).max() <= degree
    if nodes > 1:
        assert len(rounds) <= 2 * np.log(nodes) / np.log(degree + 1) + 2  # the published bound


def test_lengths_of_base_graphs() -> None:
    """Powers take their exponent; 5 = 4 + 1 takes two rounds, an exchange, and two more."""
    assert [len(base_graphs(n)) for n in (1, 2, 3, 4, 5, 6, 8, 16, 64)] == [0, 1, 3, 2, 5, 4, 3, 4, 6]
    assert [len(base_graphs(n, 2)) for n in (3, 6, 9, 27)] == [1, 2, 2, 3]
    assert [len(base_graphs(n, n - 1)) for n in (2, 5, 9)] == [1, 1, 1]
    assert len(hyper_hypercube(12, 3)) == 2


def test_one_peer_exponential_is_exact_for_powers_of_two() -> None:
    for nodes in (1, 2, 4, 8, 32):
        rounds = one_peer_exponential(nodes)
        assert np.array_equal(product_of(rounds, nodes), np.full((nodes, nodes), 1 / nodes))
    for nodes in (3, 6, 12):
        rounds = one_peer_exponential(nodes)
        assert len(rounds) == int(np.ceil(np.log2(nodes)))
        assert 0.01 < contraction(product_of(rounds, nodes)) < 1
        for weights in rounds:
            assert_doubly_stochastic(weights)
            assert ((weights > 0).sum(axis=1) == 2).all()
    second = one_peer_exponential(8)[1]  # node 1 sends to 1 + 2
    assert second[3, 1] == 0.5


@pytest.mark.parametrize(
    ("nodes", "rho"),
    [(8, 0.5), (10, 0.6), (12, 0.6), (16, 0.6), (15, 0.489898), (33, 0.607800), (64, 1 - 2 / 7)],
)
def test_static_exponential_graphs(nodes: int, rho: float) -> None:
    adjacency = np.zeros((nodes, nodes))
    adjacency[tuple(exponential(nodes).T)] = 1
    degrees = int(np.ceil(np.log2(nodes)))
    assert (adjacency.sum(axis=0) == degrees).all()
    assert (adjacency.sum(axis=1) == degrees).all()
    assert contraction(pull_weights(adjacency)) == pytest.approx(rho, abs=1e-6)
    if nodes % 2 == 0:
        assert contraction(pull_weights(adjacency)) == pytest.approx(1 - 2 / (1 + degrees), abs=1e-12)


def test_tori() -> None:
    for side in (3, 4, 5, 7):
        network = torus(side, side)
        assert (network.degrees == 4).all()
        rho = contraction(metropolis(network.adjacency))
        smallest = abs(1 - 8 / 5 * np.sin(np.pi * (side // 2) / side) ** 2)
        assert rho == pytest.approx(max((3 + 2 * np.cos(2 * np.pi / side)) / 5, smallest), abs=1e-12)
    assert torus(4, 4).neighbours(0).tolist() == [1, 3, 4, 12]
    assert len(torus(2, 2).edges) == 4
    assert len(torus(1, 1).edges) == 0
    assert sorted(map(tuple, torus(1, 5).edges.tolist())) == sorted(map(tuple, np.sort(cycle(5).edges).tolist()))


def test_hypercubes() -> None:
    for dimension in (1, 2, 3, 4):
        rho = contraction(metropolis(hypercube(dimension).adjacency))
        assert rho == pytest.approx(1 - 2 / (1 + dimension) if dimension > 1 else 0, abs=1e-12)


@given(st.integers(0, 10**6))
def test_random_regular_graphs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    degree = int(rng.integers(2, 6))
    nodes = 2 * int(rng.integers(3, 12))
    network = random_regular(nodes, degree, rng)
    assert (network.degrees == degree).all()
    assert network.is_connected
    again = random_regular(nodes, degree, np.random.default_rng(seed))
    assert again.edges.shape == network.edges.shape


def test_what_does_not_exist_is_refused() -> None:
    rng = np.random.default_rng(0)
    assert len(random_regular(1, 0, rng)) == 1
    assert len(random_regular(2, 1, rng).edges) == 1
    for nodes, degree in ((5, 3), (4, 4), (6, 1), (3, 0)):
        with pytest.raises(ConfigError, match="no connected graph"):
            random_regular(nodes, degree, rng)
    with pytest.raises(ConfigError, match="10 nodes have a prime factor above 2"):
        hyper_hypercube(10, 1)
    with pytest.raises(ConfigError, match="degree is 0"):
        base_graphs(3, 0)

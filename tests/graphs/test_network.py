"""Networks: what is refused, what is known about a node, and the same answers as from the adjacency matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import Network

LINE = Network.of(3, [(0, 1), (1, 2)], [1.0, 5.0], names=("a", "b", "c"))


def test_weights_are_the_same_in_both_directions() -> None:
    assert (LINE.weight(0, 1), LINE.weight(1, 0), LINE.weight(1, 2), LINE.weight(2, 1)) == (1, 1, 5, 5)
    assert LINE.neighbours(1).tolist() == [0, 2]
    assert LINE.degrees.tolist() == [1, 2, 1]
    assert (LINE.label(1), LINE.node("c"), len(LINE)) == ("b", 2, 3)
    assert LINE.adjacency.tolist() == [[False, True, False], [True, False, True], [False, True, False]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nodes": 0, "edges": []}, "nodes is 0"),
        ({"edges": [(0, 3)]}, "link 0–3 leaves the nodes 0 to 2"),
        ({"edges": [(0, 1), (2, 2)]}, "link 2–2 joins a node with itself"),
        ({"edges": [(0, 1), (1, 2), (1, 0)]}, "link 1–0 is there twice"),
        ({"weights": [1.0]}, r"2 links, weights of shape \(1,\)"),
        ({"weights": [1.0, -2.0]}, r"link 1–2 costs \[-2\.0\]"),
        ({"weights": [np.nan, 1.0]}, r"link 0–1 costs \[nan\]"),
        ({"names": ("a", "b")}, "2 names for 3 nodes"),
        ({"names": ("a", "b", "a")}, "two nodes have one name"),
    ],
)
def test_what_is_no_network_is_refused(changed: dict[str, Any], message: str) -> None:
    given = {"nodes": 3, "edges": [(0, 1), (1, 2)], "weights": 1.0, **changed}
    with pytest.raises(ConfigError, match=message):
        Network.of(given.pop("nodes"), given.pop("edges"), given.pop("weights"), **given, name="toy")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r'network "toy".*leaves.*itself.*shape'):
        Network.of(2, [(0, 5), (1, 1)], [1.0], name="toy")


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ConfigError, match=r"shape \(2, 3\), not pairs"):
        Network(nodes=3, edges=np.zeros((2, 3), np.int64), weights=np.ones(2))


def test_missing_links_and_names_are_told() -> None:
    with pytest.raises(ConfigError, match=r"no link between a and c. a has links to b\."):
        LINE.weight(0, 2)
    with pytest.raises(ConfigError, match=r'no node "d". Nodes are a, b, c'):
        LINE.node("d")


edges_of_six = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda e: e[0] < e[1]))


@given(edges_of_six, st.randoms())
def test_neighbours_are_those_of_the_adjacency(edges: set[tuple[int, int]], random: Any) -> None:
    pairs = [pair if random.random() < 0.5 else pair[::-1] for pair in edges]
    network = Network.of(6, pairs, [float(a * 10 + b) for a, b in pairs])
    matrix = network.adjacency
    assert (matrix == matrix.T).all()
    assert matrix.sum() == 2 * len(edges)
    reach = np.linalg.matrix_power(matrix.astype(int) + np.eye(6, dtype=int), 6) > 0
    assert network.is_connected == bool(reach.all())
    for node in range(6):
        assert network.neighbours(node).tolist() == np.flatnonzero(matrix[node]).tolist()
        assert network.degrees[node] == matrix[node].sum()
    for (a, b), weight in zip(pairs, network.weights, strict=True):
        assert network.weight(a, b) == network.weight(b, a) == weight


def test_new_weights_leave_the_old_network_alone() -> None:
    dear = LINE.with_weights(7.0)
    assert dear.weights.tolist() == [7.0, 7.0]
    assert dear.names == LINE.names
    assert LINE.weights.tolist() == [1.0, 5.0]
    drawn = LINE.with_random_weights(2.0, 3.0, np.random.default_rng(0))
    assert ((drawn.weights >= 2) & (drawn.weights < 3)).all()

"""Edge colourings: proper, with at most one colour more than the largest degree."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs.matchings import edge_coloring, matchings


@given(st.integers(0, 10**6))
def test_colours_are_proper_and_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes, p = int(rng.integers(1, 16)), rng.uniform()
    pairs = [pair for pair in combinations(range(nodes), 2) if rng.random() < p]
    edges = rng.permutation(np.array(pairs, np.int64).reshape(-1, 2))
    colors = edge_coloring(nodes, edges)
    assert len(colors) == len(edges)
    assert colors.max(initial=0) <= np.bincount(edges.ravel(), minlength=1).max()
    for node in range(nodes):
        at = colors[(edges == node).any(axis=1)]
        assert len(set(at.tolist())) == len(at)
    classes = matchings(nodes, edges)
    assert sum(map(len, classes)) == len(edges)
    assert all(len(each) for each in classes)


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 6, 7, 11, 12, 22, 40])
def test_complete_graphs(nodes: int) -> None:
    edges = np.array(list(combinations(range(nodes), 2)))
    least = nodes if nodes % 2 else nodes - 1
    assert least <= len(matchings(nodes, edges)) <= nodes


def test_graphs_that_need_one_more() -> None:
    """Petersen's has degree 3 and no colouring of three colours."""
    edges = np.array(list(nx.petersen_graph().edges))
    assert len(matchings(10, edges)) == 4


def test_graphs_with_loops_or_parallel_edges_are_refused() -> None:
    for edges in ([[0, 0]], [[0, 1], [1, 0]]):
        with pytest.raises(ConfigError, match="a loop, or an edge given twice"):
            edge_coloring(2, np.array(edges))
    with pytest.raises(ConfigError, match="an edge leaves the nodes"):
        edge_coloring(2, np.array([[0, 2]]))

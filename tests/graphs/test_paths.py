"""Shortest paths against networkx and against all simple paths; ties; trees of paths."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import Network, cost_matrix, cycle, erdos_renyi, geant, grid, next_hops, path_cost, shortest_path


def as_networkx(network: Network) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(network.nodes))
    graph.add_weighted_edges_from([(*e, w) for e, w in zip(network.edges.tolist(), network.weights, strict=True)])
    return graph


def test_costs_are_those_of_networkx() -> None:
    network = geant().with_random_weights(1, 1000, np.random.default_rng(0))
    expected = dict(nx.all_pairs_dijkstra_path_length(as_networkx(network)))
    costs = cost_matrix(network)
    for source in range(22):
        for target in range(22):
            assert costs[source, target] == pytest.approx(expected[source][target], rel=1e-12)
            nodes = shortest_path(network, source, target)
            assert (nodes[0], nodes[-1]) == (source, target)
            assert path_cost(network, nodes) == pytest.approx(costs[source, target], rel=1e-12)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7))
def test_ties_are_broken_by_links_then_numbers(seed: int, nodes: int) -> None:
    """Small integer weights, zero among them, make many ties; all simple paths are compared."""
    rng = np.random.default_rng(seed)
    network = erdos_renyi(nodes, 0.7, rng)
    network = network.with_weights(rng.integers(0, 3, len(network.edges)).astype(float))
    graph, target = as_networkx(network), int(rng.integers(nodes))
    for source in set(range(nodes)) - {target}:
        paths = [[*map(int, p)] for p in nx.all_simple_paths(graph, source, target)]
        best = min(paths, key=lambda p: (nx.path_weight(graph, p, "weight"), len(p), p))
        assert shortest_path(network, source, target).tolist() == best


def test_paths_to_one_target_form_a_tree() -> None:
    network = grid(4, 4)
    hops = next_hops(network, 5)
    assert hops[5] == -1
    for source in range(16):
        nodes = shortest_path(network, source, 5)
        for place in range(len(nodes)):
            assert shortest_path(network, int(nodes[place]), 5).tolist() == nodes[place:].tolist()


def test_order_and_direction_of_links_change_nothing() -> None:
    network, rng = geant(), np.random.default_rng(3)
    order = rng.permutation(33)
    turned = Network.of(22, [tuple(e[::-1]) for e in network.edges[order].tolist()])
    for target in range(22):
        assert (next_hops(network, target) == next_hops(turned, target)).all()


def test_both_ways_round_a_square_cost_the_same() -> None:
    assert shortest_path(cycle(4), 0, 2).tolist() == [0, 1, 2]
    assert shortest_path(cycle(4), 3, 3).tolist() == [3]


def test_what_cannot_be_reached_is_told() -> None:
    split = Network.of(3, [(0, 1)], names=("a", "b", "c"), name="split")
    assert next_hops(split, 0).tolist() == [-1, 0, -1]
    assert np.isinf(cost_matrix(split)[0, 2])
    with pytest.raises(ConfigError, match='network "split": no path from c to a'):
        shortest_path(split, 2, 0)
    with pytest.raises(ConfigError, match=r"no node 3. Nodes are 0 to 2\."):
        shortest_path(split, 3, 0)


def test_sums_that_differ_by_rounding_are_ties() -> None:
    """0.1 + 0.2 > 0.15 + 0.15 by one bit: the fewer links decide."""
    both = Network.of(5, [(0, 1), (1, 2), (0, 3), (3, 4), (4, 2)], [0.1, 0.2, 0.15, 0.15, 0.0])
    assert 0.2 + 0.1 > cost_matrix(both)[0, 2] == 0.3
    assert shortest_path(both, 0, 2).tolist() == [0, 1, 2]

"""Trees, paths of their cubes and rings: against exhaustive search and another library."""

from __future__ import annotations

import time
from itertools import combinations, pairwise, permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs.rings import christofides_ring, improved_ring, ring_cost
from rivage.graphs.spanning import cube_path, degree_bounded_tree, minimum_spanning_tree


def symmetric(seed: int, most: int = 12, least: int = 1) -> np.ndarray:
    """Weights of a complete graph; half of the time whole numbers, so that there are many ties."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(least, most + 1))
    weights = rng.uniform(size=(nodes, nodes)) if seed % 2 else rng.integers(1, 5, (nodes, nodes)).astype(float)
    return weights + weights.T


def euclidean(seed: int, nodes: int) -> np.ndarray:
    places = np.random.default_rng(seed).uniform(size=(nodes, 2))
    return np.hypot(*(places[:, None] - places).transpose(2, 0, 1))


def as_tree(edges: np.ndarray, nodes: int) -> nx.Graph:
    graph = nx.Graph(edges.tolist())
    graph.add_nodes_from(range(nodes))
    assert nx.is_tree(graph)
    return graph


def weight_of(weights: np.ndarray, edges: np.ndarray) -> float:
    return float(weights[edges[:, 0], edges[:, 1]].sum())


@given(st.integers(0, 10**6))
def test_no_spanning_tree_is_lighter(seed: int) -> None:
    weights = symmetric(seed)
    tree = minimum_spanning_tree(weights)
    as_tree(tree, len(weights))
    graph = nx.from_numpy_array(weights)
    graph.remove_edges_from(nx.selfloop_edges(graph))
    assert weight_of(weights, tree) == pytest.approx(nx.minimum_spanning_tree(graph).size("weight"))


def test_no_spanning_tree_of_five_nodes_is_lighter_or_has_a_shorter_longest_edge() -> None:
    every = [
        np.array(edges)
        for edges in combinations(combinations(range(5), 2), 4)
        if nx.is_tree(nx.Graph(edges)) and len(nx.Graph(edges)) == 5
    ]
    assert len(every) == 5**3
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights = rng.uniform(size=(5, 5))
        weights += weights.T
        tree = minimum_spanning_tree(weights)
        assert weight_of(weights, tree) == pytest.approx(min(weight_of(weights, other) for other in every))
        longest = min(weights[other[:, 0], other[:, 1]].max() for other in every)
        assert weights[tree[:, 0], tree[:, 1]].max() == longest


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_bounded_trees_span_and_keep_the_bound(seed: int, bound: int) -> None:
    weights = symmetric(seed)
    tree = degree_bounded_tree(weights, bound)
    graph = as_tree(tree, len(weights))
    assert max(dict(graph.degree).values()) <= bound
    lightest = minimum_spanning_tree(weights)
    assert weight_of(weights, tree) >= weight_of(weights, lightest) - 1e-12
    if np.bincount(lightest.ravel(), minlength=1).max() < bound:
        assert tree.tolist() == lightest.tolist()


def slow_bounded_prim(weights: np.ndarray, bound: int) -> list[list[int]]:
    edges, inside, degrees = [], [0], np.zeros(len(weights), int)
    while len(inside) < len(weights):
        pairs = [(weights[a, b], a, b) for a in inside for b in range(len(weights)) if b not in inside]
        _, a, b = min(pair for pair in pairs if degrees[pair[1]] < bound)
        edges.append([a, b])
        inside.append(b)
        degrees[[a, b]] += 1
    return sorted(edges)


@given(st.integers(0, 10**5).map(lambda seed: 2 * seed + 1), st.integers(2, 4))
def test_bounded_trees_grow_by_the_lightest_edge_there_is(seed: int, bound: int) -> None:
    weights = symmetric(seed)
    assert sorted(degree_bounded_tree(weights, bound).tolist()) == slow_bounded_prim(weights, bound)


def test_trees_without_some_edges() -> None:
    weights = np.full((4, 4), np.inf)
    for a, b in ((0, 1), (1, 2), (1, 3)):
        weights[a, b] = weights[b, a] = 1
    assert sorted(minimum_spanning_tree(weights).tolist()) == [[0, 1], [1, 2], [1, 3]]
    with pytest.raises(ConfigError, match="no edge leads on to node 3"):
        degree_bounded_tree(weights, 2)
    weights[1, 3] = weights[3, 1] = np.inf
    with pytest.raises(ConfigError, match="no edge leads on to node 3"):
        minimum_spanning_tree(weights)
    with pytest.raises(ConfigError, match="differ by direction"):
        minimum_spanning_tree(np.array([[0.0, 1], [2, 0]]))
    with pytest.raises(ConfigError, match="bound is 1"):
        degree_bounded_tree(np.ones((2, 2)), 1)
    assert minimum_spanning_tree(np.zeros((1, 1))).shape == (0, 2)


@given(st.integers(0, 10**6))
def test_paths_visit_all_nodes_in_steps_of_at_most_three_edges(seed: int) -> None:
    """Between the ends of each edge of random trees: wide, deep and in between."""
    rng = np.random.default_rng(seed)
    nodes, depth = int(rng.integers(1, 16)), rng.uniform()
    tree = np.array([(int(rng.integers(int(depth * (k - 1)), k)), k) for k in range(1, nodes)], np.int64).reshape(-1, 2)
    tree = rng.permutation(nodes)[tree]
    apart = dict(nx.all_pairs_shortest_path_length(as_tree(tree, nodes)))
    for edge in range(max(1, len(tree))):
        path = cube_path(tree, edge).tolist()
        assert sorted(path) == list(range(nodes))
        assert all(apart[a][b] <= 3 for a, b in pairwise(path))
        if nodes > 1:
            assert [path[0], path[-1]] == tree[edge].tolist()


def test_long_and_wide_trees() -> None:
    line = np.stack([np.arange(4999), np.arange(1, 5000)], axis=1)
    assert np.abs(np.diff(cube_path(line, 2000))).max() <= 3
    wide = np.stack([np.zeros(4999, np.int64), np.arange(1, 5000)], axis=1)
    assert sorted(cube_path(wide).tolist()) == list(range(5000))


@given(st.integers(0, 10**6))
def test_rings_visit_all_nodes_and_local_search_never_hurts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = symmetric(seed) * (rng.uniform(1, 2, (1, 1)) if seed % 3 else 1)
    if seed % 3:
        costs = costs * rng.uniform(1, 2, costs.shape)
    start = rng.permutation(len(costs))
    found = christofides_ring(costs)
    for ring, before in ((found, np.inf), (improved_ring(costs, start), ring_cost(costs, start))):
        assert sorted(ring.tolist()) == list(range(len(costs)))
        assert ring[0] == 0
        assert ring_cost(costs, ring) <= before + 1e-9
        assert ring_cost(costs, ring) <= ring_cost(costs, ring[::-1]) + 1e-9
    assert ring_cost(costs, improved_ring(costs)) <= ring_cost(costs, found) + 1e-9


@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 7, 8])
def test_rings_against_all_rings(nodes: int) -> None:
    """Christofides within 3/2 on the plane; local search optimal on most small cases, and never below the optimum."""
    hits = 0
    for seed in range(8):
        costs = euclidean(seed, nodes)
        best = min(ring_cost(costs, np.array([0, *rest])) for rest in permutations(range(1, nodes)))
        assert best - 1e-9 <= ring_cost(costs, christofides_ring(costs)) <= 1.5 * best + 1e-9
        improved = ring_cost(costs, improved_ring(costs))
        assert improved >= best - 1e-9
        hits += improved <= best + 1e-9
    assert hits >= 7


def test_no_turn_or_move_of_the_improved_ring_gains() -> None:
    """Asymmetric costs: all 2-opt and Or-opt neighbours, priced from scratch."""
    for seed in range(10):
        costs = np.random.default_rng(seed).uniform(1, 2, (9, 9))
        ring = improved_ring(costs)
        cost = ring_cost(costs, ring)
        for i, j in combinations(range(10), 2):
            turned = np.concatenate([ring[:i], ring[i:j][::-1], ring[j:]])
            assert ring_cost(costs, turned) >= cost - 1e-9
        for start in range(9):
            around = np.roll(ring, -start)
            for size, place in ((s, p) for s in (1, 2, 3) for p in range(1, 9 - s)):
                part, rest = around[:size], around[size:]
                for piece in (part, part[::-1]):
                    moved = np.concatenate([rest[:place], piece, rest[place:]])
                    assert ring_cost(costs, moved) >= cost - 1e-9


def test_a_thousand_nodes_take_seconds() -> None:
    costs = euclidean(0, 1000)
    begin = time.perf_counter()
    ring = christofides_ring(costs)
    better = improved_ring(costs, ring)
    assert time.perf_counter() - begin < 30
    assert sorted(better.tolist()) == list(range(1000))
    assert ring_cost(costs, better) < ring_cost(costs, ring)
    assert ring_cost(costs, better) < 1.12 * 0.7124 * np.sqrt(1000)  # the mean of the optimum in the unit square


def test_rings_need_all_costs() -> None:
    costs = np.array([[0, 1, np.inf], [1, 0, 1], [1, 1, 0]])
    for build in (christofides_ring, improved_ring):
        with pytest.raises(ConfigError, match="the cost from node 0 to node 2 is inf"):
            build(costs)

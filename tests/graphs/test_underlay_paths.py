"""From underlays to connectivity graphs: against brute force, and against what is published of three networks."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree

from rivage.core.errors import ConfigError
from rivage.graphs import Connectivity, PathRule, Underlay, connectivity, load_underlay, shortest_path
from rivage.graphs.path_rules import latency_from_distance, triangle_violations

SIZE_BITS, STEP_MS = 44_961_717, 25.4  # iNaturalist
FILES = ("gaia", "amazon_us", "geantdistance")


def random_underlay(seed: int, nodes: int = 6) -> Underlay:
    """Connected, with small whole numbers so that there are many ties."""
    rng = np.random.default_rng(seed)
    tree = [(int(rng.integers(k)), k) for k in range(1, nodes)]
    pairs = sorted({*tree, *(tuple(sorted(p)) for p in rng.integers(nodes, size=(5, 2)).tolist() if p[0] != p[1])})
    edges = np.array(pairs, np.int64)
    return Underlay(
        names=tuple("abcdefghij"[:nodes]),
        edges=edges[rng.permutation(len(edges))],
        latency_ms=rng.integers(1, 4, len(edges)).astype(float),
        distance_km=rng.integers(1, 4, len(edges)).astype(float),
        capacity_bps=rng.integers(1, 9, len(edges)).astype(float),
    )


@given(
    st.integers(0, 10**6),
    st.sampled_from(["latency_ms", "distance_km", "hops"]),
    st.sampled_from(["bottleneck", "capacity_over_hops"]),
    st.none() | st.floats(0, 2),
)
def test_every_pair_gets_what_its_path_offers(seed: int, route: Any, bandwidth: Any, ms_per_km: float | None) -> None:
    underlay = random_underlay(seed)
    every = connectivity(underlay, PathRule(route=route, bandwidth=bandwidth, ms_per_km=ms_per_km, ms_per_path=3))
    network = underlay.network(route)
    assert every.hops is not None
    assert every.next_hops is not None
    assert every.available_bps is not None
    number = {frozenset(pair): link for link, pair in enumerate(underlay.edges.tolist())}
    for one, other in permutations(range(6), 2):
        nodes = shortest_path(network, one, other)
        links = [number[frozenset(pair)] for pair in pairwise(nodes.tolist())]
        assert every.hops[one, other] == len(links)
        assert every.next_hops[one, other] == nodes[1]
        least = underlay.known("capacity_bps")[links].min()
        assert every.available_bps[one, other] == (least if bandwidth == "bottleneck" else least / len(links))
        latency = underlay.known("latency_ms")[links].sum()
        if ms_per_km is not None:
            latency = ms_per_km * underlay.known("distance_km")[links].sum()
        assert every.latency_ms[one, other] == pytest.approx(latency + 3, rel=1e-12)
    assert np.diagonal(every.latency_ms).tolist() == [0] * 6
    assert np.isinf(np.diagonal(every.available_bps)).all()
    assert np.diagonal(every.hops).tolist() == [0] * 6


@given(st.integers(0, 10**6))
def test_the_published_rule_is_symmetric_and_ignores_capacities(seed: int) -> None:
    underlay = random_underlay(seed)
    every = connectivity(underlay, PathRule.published(1e9))
    assert np.array_equal(every.latency_ms, every.latency_ms.T)
    assert every.hops is not None
    assert every.available_bps is not None
    assert np.array_equal(every.hops, every.hops.T)
    off = ~np.eye(6, dtype=bool)
    assert np.array_equal(every.available_bps[off], 1e9 / every.hops[off])
    graph = nx.Graph()
    for (one, other), km in zip(underlay.edges.tolist(), underlay.known("distance_km"), strict=True):
        graph.add_edge(one, other, km=km)
    for one, lengths in nx.all_pairs_dijkstra_path_length(graph, weight="km"):
        for other, km in lengths.items():
            assert every.latency_ms[one, other] == pytest.approx(0.0085 * km + 4 if one != other else 0, rel=1e-12)


def test_ties_take_fewest_links_then_smallest_numbers() -> None:
    """From a to e: direct, or through b, c or d at the same distance."""
    pairs = [("a", "d"), ("d", "e"), ("a", "c"), ("c", "e"), ("a", "b"), ("b", "e"), ("a", "e")]
    direct = Underlay.of("abcde", pairs, distance_km=[1] * 6 + [2])
    rule = PathRule.published()
    hops = connectivity(direct, rule).hops
    assert hops is not None
    assert hops[0, 4] == 1
    without = Underlay.of("abcde", pairs[:-1], distance_km=1)
    ahead = connectivity(without, rule).next_hops
    assert ahead is not None
    assert without.names[ahead[0, 4]] == "b"


def test_relabelling_nodes_relabels_the_answer() -> None:
    """Without ties; 20 random networks."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        underlay = random_underlay(seed).with_links(distance_km=rng.uniform(1, 2, len(random_underlay(seed).edges)))
        order = rng.permutation(6)
        moved = Underlay(
            names=tuple(underlay.names[v] for v in order),
            edges=np.argsort(order)[underlay.edges],
            distance_km=underlay.distance_km,
        )
        one, other = (connectivity(each, PathRule.published()) for each in (underlay, moved))
        assert np.allclose(one.latency_ms[np.ix_(order, order)], other.latency_ms, rtol=1e-12)
        assert one.hops is not None
        assert np.array_equal(one.hops[np.ix_(order, order)], other.hops)


def test_what_the_links_do_not_know_is_not_made_up() -> None:
    bare = Underlay.of("ab", [("a", "b")], distance_km=100)
    with pytest.raises(ConfigError, match="latency_ms is not known"):
        connectivity(bare, PathRule())
    every = connectivity(bare, PathRule(route="distance_km", ms_per_km=0.01))
    assert every.latency_ms[0, 1] == 1
    assert every.available_bps is None
    with pytest.raises(ConfigError, match=r"available_bps is not known.*core_bps"):
        every.delay_ms(8)
    fast = connectivity(bare, PathRule(route="distance_km", ms_per_km=0.01, core_bps=1000))
    assert fast.delay_ms(500).tolist() == [[0, 501], [501, 0]]
    assert latency_from_distance(np.array([0.0, 1000.0])).tolist() == [4, 12.5]


def test_a_single_node_reaches_itself() -> None:
    every = connectivity(Underlay.of("a", []), PathRule.published())
    assert (every.latency_ms.tolist(), every.delay_ms(1).tolist(), len(every)) == ([[0]], [[0]], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"route": "money"}, "route is"),
        ({"bandwidth": "all"}, "bandwidth is"),
        ({"ms_per_km": -1}, "ms_per_km is -1"),
        ({"ms_per_path": np.nan}, "ms_per_path is nan"),
        ({"core_bps": 0}, "core_bps is 0"),
    ],
)
def test_rules_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PathRule(**settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"latency_ms": np.zeros((2, 3))}, r"latency_ms has shape \(2, 3\)"),
        ({"latency_ms": np.array([[0, -1.0], [np.nan, 0]])}, "latency_ms from a to b is -1.0, and 1 more"),
        ({"latency_ms": np.array([[1.0, 1], [1, 0]])}, "from a node to itself"),
        ({"available_bps": np.array([[np.inf, np.inf], [1, np.inf]])}, "available_bps from a to b is inf"),
        ({"available_bps": np.zeros((2, 2))}, "available_bps from a to a is 0"),
    ],
)
def test_what_is_no_connectivity_graph_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Connectivity(names=("a", "b"), **{"latency_ms": np.zeros((2, 2)), **changed})


@given(st.integers(0, 10**6))
def test_violated_triangles_are_counted(seed: int) -> None:
    delays = np.random.default_rng(seed).uniform(1, 3, (5, 5))
    triples = permutations(range(5), 3)
    count = sum(delays[i, k] > delays[i, j] + delays[j, k] for i, j, k in triples)
    assert triangle_violations(delays) == count


# Published figures: Marfoq et al. 2020, Table 3 and the tables of their code, on their three networks.


@pytest.fixture
def published(data_root: Path) -> dict[str, Connectivity]:
    rule = PathRule.published(1e9)
    return {name: connectivity(load_underlay(data_root / "underlays" / f"{name}.gml"), rule) for name in FILES}


def delay(every: Connectivity, access_bps: float, sending: int = 1, receiving: int = 1) -> np.ndarray:
    """s T_c + l + M / min(C_UP / out-degree, C_DN / in-degree, A), for s = 1."""
    assert every.available_bps is not None
    rate = np.minimum(min(access_bps / sending, access_bps / receiving), every.available_bps)
    return STEP_MS + every.latency_ms + 1000 * SIZE_BITS / rate


@pytest.mark.parametrize(
    ("name", "access_bps", "star", "tree"),
    [
        ("gaia", 1e10, 390.9, 138.1),
        ("amazon_us", 1e10, 288.1, 89.7),
        ("geantdistance", 1e10, 634.4, 101.0),
        ("gaia", 1e9, 1200.2, 228.0),
        ("amazon_us", 1e9, 1987.7, 171.8),
        ("geantdistance", 1e9, 3607.5, 325.8),
        ("gaia", 1e8, 9293.3, 1442.0),
        ("amazon_us", 1e8, 18983.2, 1385.7),
        ("geantdistance", 1e8, 35170.6, 2753.8),
    ],
)
def test_stars_and_trees_take_as_long_as_published(
    published: dict[str, Connectivity], name: str, access_bps: float, star: float, tree: float
) -> None:
    """STAR with the first node as hub, uploads then downloads; MST with its true degrees. Within 0.1 ms."""
    every = published[name]
    slowest = delay(every, access_bps, sending=len(every) - 1)[0, 1:].max()
    assert 2 * slowest - STEP_MS == pytest.approx(star, abs=0.1)
    links = np.argwhere(minimum_spanning_tree(delay(every, np.inf) * ~np.eye(len(every), dtype=bool)).toarray())
    degrees = np.bincount(links.ravel())
    slowest = max(delay(every, access_bps, degrees[i], degrees[j])[i, j] for i, j in links)
    assert slowest == pytest.approx(tree, abs=0.1)


@pytest.mark.parametrize(
    ("nodes", "access_bps", "mean"),
    [
        ("Virginia, Dublin, Tokyo, Sydney", 1e10, 156.462),
        ("California, Frankfurt, Singapore, Sao Paulo", 1e10, 168.027),
        ("California, Frankfurt, Singapore, Sao Paulo", 1e8, 572.683),
        ("Virginia, California, Oregon, Dublin", 1e10, 111.808),
    ],
)
def test_best_rings_of_four(published: dict[str, Connectivity], nodes: str, access_bps: float, mean: float) -> None:
    every = published["gaia"]
    chosen = [every.names.index(node) for node in nodes.split(", ")]
    delays = delay(every, access_bps)
    rings = [(chosen[0], *rest) for rest in permutations(chosen[1:])]
    assert min(np.mean([delays[a, b] for a, b in zip(r, r[1:] + r[:1], strict=True)]) for r in rings) == pytest.approx(
        mean, abs=1e-3
    )


OVERLAY = """Virginia>California Virginia>Frankfurt Virginia>Paulo California>Virginia Oregon>California
Dublin>Frankfurt Frankfurt>Dublin Frankfurt>Mumbai Tokyo>Oregon Tokyo>Dublin Tokyo>Sydney Seoul>Tokyo Singapore>Mumbai
Sydney>Singapore Mumbai>Seoul Paulo>Dublin"""


@pytest.mark.parametrize(("access_bps", "cycle_ms"), [(1e10, 116.462), (1e9, 160.621), (1e8, 1162.716)])
def test_cycle_time_of_a_directed_overlay(
    published: dict[str, Connectivity], access_bps: float, cycle_ms: float
) -> None:
    """The largest mean delay of a circuit, over all of its few circuits."""
    every = published["gaia"]
    place = {
        word: next(k for k, n in enumerate(every.names) if word in n) for word in OVERLAY.replace(">", " ").split()
    }
    arcs = [tuple(place[word] for word in arc.split(">")) for arc in OVERLAY.split()]
    sent, received = np.bincount([a for a, _ in arcs]), np.bincount([b for _, b in arcs])
    delays = {(a, b): delay(every, access_bps, sent[a], received[b])[a, b] for a, b in arcs}
    means = [
        np.mean([delays[a, b] for a, b in zip(circuit, circuit[1:] + circuit[:1], strict=True)])
        for circuit in nx.simple_cycles(nx.DiGraph(arcs))
    ]
    assert max(means) == pytest.approx(cycle_ms, abs=1e-3)


def test_full_meshes_are_direct_and_geant_is_not_euclidean(published: dict[str, Connectivity]) -> None:
    assert [int(each.hops.max()) for each in published.values() if each.hops is not None] == [1, 1, 9]
    assert all(np.array_equal(each.latency_ms, each.latency_ms.T) for each in published.values())
    assert [triangle_violations(each.delay_ms(SIZE_BITS)) for each in published.values()] == [0, 0, 620]

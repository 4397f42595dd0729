"""Underlays: what is refused, what is known, and networks made of them; trees of tiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rivage.graphs.tiered
from rivage.core.errors import ConfigError
from rivage.graphs import Underlay, cost_matrix, next_hops, shortest_path, tiers, topology_one, topology_two

LINE = Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], latency_ms=[1, 5], distance_km=[100, 7], access_bps=1e9)


def test_a_round_trip_is_twice_the_latency() -> None:
    assert LINE.network().weights.tolist() == [2, 10]
    assert LINE.network("latency_ms").weights.tolist() == [1, 5]
    assert LINE.network("distance_km").weights.tolist() == [100, 7]
    assert LINE.network("hops").weights.tolist() == [1, 1]
    assert LINE.network().names == ("a", "b", "c")
    assert cost_matrix(LINE.network())[0, 2] == 12


def test_one_number_stands_for_all_and_nothing_given_is_none() -> None:
    assert LINE.access_up_bps is not None
    assert LINE.access_up_bps.tolist() == [1e9] * 3
    assert LINE.capacity_bps is None
    wider = LINE.with_links(capacity_bps=1e6).with_access(1e3, [1, 2, 3])
    assert wider.known("capacity_bps").tolist() == [1e6, 1e6]
    assert wider.known("latency_ms").tolist() == [1, 5]
    assert wider.known("access_up_bps").tolist() == [1e3] * 3
    assert wider.known("access_down_bps").tolist() == [1, 2, 3]
    assert LINE.capacity_bps is None


def test_what_is_not_known_is_not_made_up() -> None:
    bare = Underlay.of(["a", "b"], [("a", "b")], name="bare")
    for weight in ("round_trip_ms", "latency_ms"):
        with pytest.raises(ConfigError, match=r'underlay "bare": latency_ms is not known. Give it .*with_links'):
            bare.network(weight)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"access_up_bps is not known.*with_access"):
        bare.known("access_up_bps")
    with pytest.raises(ConfigError, match='weight is "length"'):
        bare.network("length")  # type: ignore[arg-type]


def test_a_single_node_is_a_network() -> None:
    alone = Underlay.of(["a"], [])
    assert alone.network().nodes == 1
    assert alone.network("distance_km").weights.shape == (0,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": (), "edges": np.zeros((0, 2), np.int64)}, "there is no node"),
        ({"edges": np.zeros((2, 2))}, r"edges are float64 of shape \(2, 2\)"),
        ({"edges": np.array([[0, 1], [1, 3]])}, "links 1–3 leave the nodes 0 to 2"),
        ({"edges": np.array([[0, 1], [1, -1]])}, "links 1–-1 leave"),
        ({"edges": np.array([[0, 1], [2, 2]])}, "links from a node to itself: c–c"),
        ({"edges": np.array([[0, 1], [1, 2], [1, 0]]), "latency_ms": np.ones(3)}, "links given twice: b–a"),
        ({"edges": np.array([[0, 1]]), "latency_ms": np.ones(1)}, 'no path from "a" to "c"'),
        ({"names": ("a", "b", "a")}, 'several nodes are called "a"'),
        ({"names": ("a", "b", "")}, "a node has no name"),
        ({"latency_ms": np.ones(3)}, r"latency_ms is float64 of shape \(3,\). Give float64, \(2,\)"),
        ({"latency_ms": np.array([1, 2])}, "latency_ms is int64"),
        ({"latency_ms": np.array([-1.0, 1.0])}, r"latency_ms of a–b is -1.0"),
        ({"distance_km": np.array([np.nan, np.inf])}, r"distance_km of a–b, b–c is nan, inf"),
        ({"capacity_bps": np.array([1.0, 0.0])}, r"capacity_bps of b–c is 0.0.*leave a link out"),
        ({"access_up_bps": np.array([1.0, 0.0, 1.0])}, r'access_up_bps of "b" is 0.0'),
        ({"access_down_bps": np.array([1.0, 1.0, np.inf])}, r'access_down_bps of "c" is inf'),
        ({"coordinates": np.array([[1.0, 2], [100, 2], [1, np.nan]])}, '"b", "c": coordinates outside'),
        ({"tiers": ("x",)}, "1 tiers for 3 nodes"),
    ],
)
def test_what_is_no_underlay_is_refused(changed: dict[str, Any], message: str) -> None:
    fields = {"names": ("a", "b", "c"), "edges": np.array([[0, 1], [1, 2]]), "latency_ms": np.ones(2), **changed}
    with pytest.raises(ConfigError, match=message):
        Underlay(**fields, name="toy")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Underlay.of(["a", "b", "b"], [("a", "a")], latency_ms=np.nan, capacity_bps=-1, access_bps=0, name="toy")
    text = str(caught.value)
    assert text.startswith('underlay "toy": 7 problems')
    for part in ("several nodes", "itself: a–a", "no path", "latency_ms of", "capacity_bps of", "up_bps", "down_bps"):
        assert part in text


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'no node "Pari".*Did you mean "Paris"'):
        Underlay.of(["Paris", "Nice"], [("Pari", "Nice")])
    with pytest.raises(ConfigError, match=r'no node "d". Nodes are a, b, c'):
        LINE.node("d")


def test_long_lists_are_cut() -> None:
    names = [f"n{k}" for k in range(100)]
    with pytest.raises(ConfigError, match=r'no path from "n0" to "n2", "n3", "n4", "n5", "n6" and 93 more'):
        Underlay.of(names, [("n0", "n1")])


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_connected_is_what_a_search_says(nodes: int, pairs: list[tuple[int, int]]) -> None:
    edges = sorted({(min(p), max(p)) for p in pairs if max(p) < nodes and p[0] != p[1]})
    seen = {0}
    for _ in range(nodes):
        seen |= {v for pair in edges if seen & set(pair) for v in pair}
    names = [f"n{k}" for k in range(nodes)]
    links = [(names[a], names[b]) for a, b in edges]
    if len(seen) == nodes:
        assert Underlay.of(names, links).network("hops").is_connected
    else:
        with pytest.raises(ConfigError, match="no path"):
            Underlay.of(names, links)


def test_topology_one() -> None:
    """31 nodes; from a base station a request crosses 6, 15 and 40 ms."""
    tree = topology_one()
    assert (len(tree), len(tree.edges)) == (31, 30)
    assert [len(tree.tier(t)) for t in ("base station", "central office", "ISP data centre", "cloud")] == [24, 4, 2, 1]
    network = tree.network("round_trip_ms")
    path = shortest_path(network, tree.node("base station 24"), tree.node("cloud"))
    assert [tree.names[v] for v in path] == ["base station 24", "central office 4", "ISP data centre 2", "cloud"]
    costs = cost_matrix(network)
    assert costs[tree.node("cloud"), tree.tier("base station")].tolist() == [61.0] * 24
    assert network.degrees.tolist() == [1] * 24 + [7] * 4 + [3] * 2 + [2]
    with_devices = topology_one(devices_per_station=2)
    assert len(with_devices) == 31 + 48
    assert cost_matrix(with_devices.network())[with_devices.node("cloud"), 0] == 67


def test_topology_two_is_one_branch() -> None:
    line = topology_two(capacity_bps=[1, 2, 3, 4])
    assert len(line) == 5
    assert line.network().weights.tolist() == [6, 6, 15, 40]
    assert line.known("capacity_bps").tolist() == [1, 2, 3, 4]
    assert line.tiers == line.names


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_children_are_spread_evenly(sizes: list[int]) -> None:
    """Every tree is connected, in order, and two parents of one tier differ by at most one child."""
    counts = {f"t{k}": n for k, n in enumerate([*sizes, 1])}
    tree = tiers(counts, range(1, len(sizes) + 1))
    assert tree.edges[:, 0].tolist() == list(range(sum(sizes)))
    assert (np.diff(tree.edges[:, 1]) >= 0).all()
    for label in list(counts)[1:]:
        children = np.bincount(tree.edges[:, 1], minlength=len(tree))[tree.tier(label)]
        assert children.max() - children.min() <= 1
    hops = next_hops(tree.network("hops"), len(tree) - 1)
    assert hops[:-1].tolist() == tree.edges[:, 1].tolist()


@pytest.mark.parametrize(
    ("counts", "round_trips", "capacity", "message"),
    [
        ({}, [], None, "there is no tier"),
        ({"a": 2, "b": 0, "c": 1}, [1, 1], None, "tiers without nodes: b"),
        ({"a": 4, "b": 2}, [1], None, 'the last tier, "b", has 2 nodes'),
        ({"a": 4, "b": 1}, [1, 2], None, "2 round trips between 2 tiers. Give 1"),
        ({"a": 4, "b": 1}, [1], [1, 2], "2 capacities between 2 tiers"),
        ({"a": 4, "b": 1}, [-1], None, "latency_ms of a 1–b"),
    ],
)
def test_what_is_no_tree_of_tiers_is_refused(counts: Any, round_trips: Any, capacity: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiers(counts, round_trips, capacity_bps=capacity)


def test_tiers_are_known_by_label() -> None:
    with pytest.raises(ConfigError, match=r'no tier "edge". Tiers: base station, central office'):
        topology_one().tier("edge")
    with pytest.raises(ConfigError, match="there are none"):
        LINE.tier("edge")
    assert callable(rivage.graphs.tiers)  # no module hides the function

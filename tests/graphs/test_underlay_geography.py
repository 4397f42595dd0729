"""Distances against published ones, networks between places, and fair rates against their definition."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import PathRule, Underlay, cities, connectivity, load_underlay
from rivage.graphs.fair_rates import fair_rates
from rivage.graphs.geography import CITIES, great_circle_km


def test_distances_that_are_known() -> None:
    """A quarter, a half and a whole meridian; across the date line."""
    quarter = np.pi / 2 * 6371.0088
    pole, equator = np.array([90.0, 0]), np.array([0.0, 77])
    assert great_circle_km(pole, equator) == pytest.approx(quarter)
    assert great_circle_km(pole, -pole) == pytest.approx(2 * quarter)
    assert great_circle_km(equator, np.array([0.0, -103])) == pytest.approx(2 * quarter)
    assert great_circle_km(np.array([0, 179.5]), np.array([0, -179.5])) == pytest.approx(quarter / 90)
    assert great_circle_km(pole, pole) == 0


@given(st.integers(0, 10**6))
def test_distances_are_those_between_points_in_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = np.stack([rng.uniform(-90, 90, 5), rng.uniform(-180, 180, 5)], axis=1)
    north, east = np.radians(places).T
    space = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)
    for one, other in combinations(range(5), 2):
        straight = np.linalg.norm(space[one] - space[other])
        expected = 2 * 6371.0088 * np.arcsin(straight / 2)
        assert great_circle_km(places[one], places[other]) == pytest.approx(expected, rel=1e-6)
        assert great_circle_km(places[other], places[one]) == great_circle_km(places[one], places[other])


def test_cities_lie_where_a_published_network_has_them(data_root: Path) -> None:
    """120 distances between 16 cities of `amazon_us.gml`, within 14 km.

    Its San José is the one in Costa Rica, not that in California.
    """
    spelled = {"Montreal": "Montréal", "Philadelphie": "Philadelphia", "Miami, Florida": "Miami"}
    underlay = load_underlay(data_root / "underlays" / "amazon_us.gml")
    names = [spelled.get(name, name) for name in underlay.names]
    places = {**CITIES, "San José": (9.93, -84.08)}
    gaps = [
        abs(float(great_circle_km(np.array(places[names[one]]), np.array(places[names[other]]))) - km)
        for (one, other), km in zip(underlay.edges.tolist(), underlay.known("distance_km"), strict=True)
        if names[one] in places and names[other] in places
    ]
    assert len(gaps) == 120
    assert max(gaps) < 14


def test_meshes_trees_and_neighbours() -> None:
    names = list(CITIES)[:20]
    mesh, tree, near = (cities(names, links=kind, neighbours=3) for kind in ("mesh", "tree", "nearest"))  # type: ignore[arg-type]
    assert (len(mesh.edges), len(tree.edges)) == (190, 19)
    graph = nx.Graph()
    for (one, other), km in zip(mesh.edges.tolist(), mesh.known("distance_km"), strict=True):
        graph.add_edge(one, other, weight=km)
    theirs = {frozenset(pair) for pair in nx.minimum_spanning_edges(graph, data=False)}
    assert set(map(frozenset, tree.edges.tolist())) == theirs
    expected = set(theirs)
    for node in graph:
        closest = sorted(graph[node], key=lambda other: graph[node][other]["weight"])[:3]
        expected |= {frozenset((node, other)) for other in closest}
    assert set(map(frozenset, near.edges.tolist())) == expected
    assert near.coordinates is not None
    assert near.coordinates.tolist() == [list(CITIES[name]) for name in names]
    for link, (one, other) in enumerate(near.edges.tolist()):
        assert near.known("distance_km")[link] == graph[one][other]["weight"]
    assert near.latency_ms is None


def test_few_places_and_many_neighbours() -> None:
    assert len(cities(["Paris"]).edges) == 0
    assert len(cities({"here": (1, 2), "there": (1, 2)}, links="tree").edges) == 1  # at one place
    assert len(cities(["Paris", "Lyon", "Nice"], links="nearest", neighbours=9).edges) == 3


def test_places_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 problems\n.*no city \"Pariss\".*Did you mean \"Paris\".*\n.*twice"):
        cities(["Pariss", "Lyon", "Lyon"])
    with pytest.raises(ConfigError, match='"a": coordinates outside the globe'):
        cities({"a": (100, 0), "b": (0, 0)})
    with pytest.raises(ConfigError, match="there is no node"):
        cities([])
    with pytest.raises(ConfigError, match='links is "ring"'):
        cities(["Paris"], links="ring")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="neighbours is 0"):
        cities(["Paris"], neighbours=0)


@given(st.integers(0, 10**6))
def test_fair_rates_fit_and_nobody_can_be_given_more(seed: int) -> None:
    """The definition: no link is overfull, and each flow crosses a full link on which no flow is faster."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, 7))
    names = [f"n{k}" for k in range(nodes)]
    links = {(names[int(rng.integers(k))], names[k]) for k in range(1, nodes)}
    links |= {(names[a], names[b]) for a, b in rng.integers(nodes, size=(3, 2)) if a < b}
    underlay = Underlay.of(names, sorted(links), latency_ms=1, capacity_bps=rng.integers(1, 6, len(links)))
    paths = connectivity(underlay, PathRule())
    arcs = [(int(a), int(b)) for a, b in rng.integers(nodes, size=(6, 2)) if a != b]
    rates = fair_rates(underlay, paths, arcs)
    assert paths.next_hops is not None
    crossing: dict[tuple[int, int], list[int]] = {}
    for flow, (at, target) in enumerate(arcs):
        while at != target:
            ahead = int(paths.next_hops[at, target])
            crossing.setdefault((at, ahead), []).append(flow)
            at = ahead
    number = {frozenset(pair): link for link, pair in enumerate(underlay.edges.tolist())}
    room = {hop: underlay.known("capacity_bps")[number[frozenset(hop)]] for hop in crossing}
    satisfied = set()
    for hop, flows in crossing.items():
        assert rates[flows].sum() <= room[hop] * (1 + 1e-9)
        if rates[flows].sum() >= room[hop] * (1 - 1e-9):
            satisfied |= {flow for flow in flows if rates[flow] >= rates[flows].max() * (1 - 1e-9)}
    assert satisfied == set(range(len(arcs)))
    wider = underlay.with_links(capacity_bps=3 * underlay.known("capacity_bps"))
    assert fair_rates(wider, paths, arcs[::-1])[::-1] == pytest.approx(3 * rates, rel=1e-12)


def test_directions_do_not_share_and_capacities_may_be_replaced() -> None:
    line = Underlay.of("ab", [("a", "b")], latency_ms=1, capacity_bps=8)
    paths = connectivity(line, PathRule())
    assert fair_rates(line, paths, [(0, 1), (1, 0), (0, 1)]).tolist() == [4, 8, 4]
    assert fair_rates(line, paths, [(0, 1)], core_bps=3).tolist() == [3]
    assert fair_rates(line, paths, []).tolist() == []
    with pytest.raises(ConfigError, match="arc 1 goes from node 1 to itself"):
        fair_rates(line, paths, [(0, 1), (1, 1)])
    with pytest.raises(ConfigError, match="the paths are not known"):
        fair_rates(Underlay.of("xy", [("x", "y")], capacity_bps=1), paths, [(0, 1)])
    with pytest.raises(ConfigError, match="capacity_bps is not known"):
        fair_rates(Underlay.of("ab", [("a", "b")]), paths, [(0, 1)])

"""GML and GraphML, against what networkx reads of the same texts; CSV matrices of pings and bandwidths."""

from __future__ import annotations

import csv
import io
import logging
from contextlib import suppress
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import PathRule, connectivity, format_underlay, load_connectivity, load_underlay, parse_underlay
from rivage.graphs.gml import parse_gml
from rivage.graphs.graphml import parse_graphml
from rivage.graphs.matrices import Measured, connectivity_of_matrices, parse_matrix, underlay_of_matrices

PUBLISHED = {"gaia": (11, 55), "amazon_us": (22, 231), "geantdistance": (40, 61)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_read_as_networkx_reads_them(data_root: Path, name: str) -> None:
    path = data_root / "underlays" / f"{name}.gml"
    theirs, ours = nx.read_gml(path), load_underlay(path)
    assert (len(ours), len(ours.edges)) == PUBLISHED[name]
    assert ours.names == tuple(theirs)
    for link, (one, other) in enumerate(ours.edges.tolist()):
        data = theirs.edges[ours.names[one], ours.names[other]]
        assert ours.known("distance_km")[link] == data["distance"]
        assert ours.capacity_bps is None or ours.capacity_bps[link] == data["capacity"]
    if name == "geantdistance":
        assert ours.coordinates is not None
        assert ours.coordinates.tolist() == [[n["Latitude"], n["Longitude"]] for n in theirs.nodes.values()]
        assert ours.name == "Geant2012"
        assert ours.source.startswith("http://www.geant.net/")
    else:
        assert (ours.name, ours.coordinates, ours.tiers) == (name, None, None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_same_network_in_all_formats(data_root: Path, name: str) -> None:
    ours = load_underlay(data_root / "underlays" / f"{name}.gml")
    buffer = io.BytesIO()
    nx.write_graphml(nx.read_gml(data_root / "underlays" / f"{name}.gml"), buffer)
    again = parse_graphml(buffer.getvalue().decode(), name=name)
    toml = parse_underlay(format_underlay(ours))
    for other in (again, toml):
        assert other.names == ours.names
        assert links(other) == links(ours)


def links(underlay: object) -> dict[frozenset[int], float]:
    pairs = map(frozenset, underlay.edges.tolist())  # type: ignore[attr-defined]
    return dict(zip(pairs, underlay.known("distance_km").tolist(), strict=True))  # type: ignore[attr-defined]


def test_some_capacities_are_as_good_as_none_and_that_is_said_to_who_needs_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "graph [ node [ id 1 ] node [ id 2 ] node [ id 3 ] {} ]"
    one, other = "edge [ source 1 target 2 distance 5 capacity 1e9 ]", "edge [ source 2 target 3 distance 7 {} ]"
    with caplog.at_level(logging.INFO):
        zoo = parse_gml(text.format(one + other.format("")), "zoo.gml", name="zoo")
        assert zoo.capacity_bps is None
        assert connectivity(zoo, PathRule.published()).available_bps is not None
        assert caplog.text == ""
        assert connectivity(zoo, PathRule(route="distance_km", ms_per_km=0.005)).available_bps is None
    assert len(caplog.records) == 1
    assert "zoo: 1 of 2 links have no capacity_bps, so bandwidths are not known" in caplog.text
    with pytest.raises(ConfigError, match="capacity_bps is not known: 1 of 2 links lack it"):
        zoo.known("capacity_bps")
    full = parse_gml(text.format(one + other.format("LinkSpeedRaw 5")))
    assert full.known("capacity_bps").tolist() == [1e9, 5]
    assert full.names == ("1", "2", "3")


def test_what_gml_may_hold() -> None:
    text = """# a comment
    Creator "yEd [2]"
    graph
    [ directed 0 label "three" Source "a map"
      node [ id 7 label "S&#227;o Paulo" graphics [ x 1 y 2.5 ] Latitude -23.5 Longitude -46.6 tier "edge" ]
      node [ id 3 label "Łódź" latitude 51.8 longitude 19.5 tier "cloud" access_bps 1e9 ]
      edge [ source 3 target 7 distance 10184 capacity 1E10 round_trip_ms 180 bends [ x 0 ] ]
    ]"""
    underlay = parse_gml(text)
    assert underlay.names == ("São Paulo", "Łódź")
    assert underlay.edges.tolist() == [[1, 0]]
    assert underlay.tiers == ("edge", "cloud")
    assert underlay.access_up_bps is None
    assert underlay.known("latency_ms").tolist() == [90]
    assert underlay.known("capacity_bps").tolist() == [1e10]
    assert (underlay.name, underlay.source) == ("three", "a map")


def test_of_several_attributes_the_first_stands() -> None:
    text = """graph [ node [ id 1 label "a" label "b" ] node [ id 2 ]
      edge [ source 1 target 2 distance 3 distance_km 4 distance_km 5 LinkSpeedRaw 7 capacity 8 ] ]"""
    underlay = parse_gml(text)
    assert underlay.names == ("a", "2")
    assert underlay.known("distance_km").tolist() == [4]
    assert underlay.known("capacity_bps").tolist() == [8]


TWO = 'node [ id 1 label "a" ] node [ id 2 label "b" ]'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 graphs"),
        ("graph [ ] graph [ ]", "2 graphs"),
        ("graph 3", "line 1: a node, edge or graph without"),
        (f"graph [ {TWO}", "line 1: the text ends inside"),
        (f"graph [ {TWO} edge", "line 1: the text ends inside"),
        ("graph [ ] ]", r'line 1: unexpected "\]"'),
        ("graph [ node ]", r'line 1: unexpected "\]"'),
        ("graph [\n [ ] ]", r"line 2: \[ where a key belongs"),
        ('graph [ label "x ]', "line 1: a quotation mark without an end"),
        ("graph [ label x ]", "line 1: the value x.*quotation marks"),
        ("graph [ " + "a [ " * 30, "more than 20 brackets"),
        (f"graph [ directed 1 {TWO} edge [ source 1 target 2 ] ]", "the graph is directed"),
        (f"graph [ {TWO}\n edge [ source 1 target 5 ] ]", "line 2: no node has id 5"),
        (f"graph [ {TWO}\n edge [ source 1 ] ]", "line 2: a link without source or target"),
        (f"graph [ {TWO}\n node [ id 2 ] edge [ source 1 target 2 ] ]", "line 2: several nodes have id 2"),
        (f'graph [ {TWO}\n node [ id 3 label "a" ] ]', 'line 2: "a" is the name of line 1 too'),
        ("graph [ node [ label 3 ] ]", "line 1: a node without id"),
        (f"graph [ {TWO} ]", 'no path from "a" to "b"'),
        (f"graph [ {TWO}\n edge [ source 1 target 2 distance -1 ] ]", "line 2, link a–b: distance_km is -1"),
        (f"graph [ {TWO}\n edge [ source 1 target 2 distance NaN ] ]", "line 2, link a–b: distance_km is nan"),
        (f'graph [ {TWO}\n edge [ source 1 target 2 distance "3 km" ] ]', 'line 2: distance is "3 km"'),
        (f"graph [ {TWO}\n edge [ source 1 target 1 ] ]", "line 2, link a–a: the link joins a node with itself"),
        (
            f"graph [ {TWO} edge [ source 1 target 2 ]\n edge [ source 2 target 1 ] ]",
            "line 2: link b–a is line 1 too",
        ),
        (
            f"graph [ {TWO} node [ id 3 ] edge [ source 1 target 2 distance 3 ]\n edge [ source 1 target 3 ] ]",
            "line 2: link a–3 has no distance_km",
        ),
    ],
)
def test_what_is_no_gml_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_gml(text, "net.gml")
    assert str(caught.value).startswith("net.gml")


def test_all_faults_of_a_graph_are_told_with_their_lines() -> None:
    text = f"""graph [ directed 1
      {TWO}
      node [ id 3 Latitude 99 Longitude 0 ]
      edge [ source 1 target 2 capacity 0 ]
      edge [ source 1 target 3 ]
      edge [ source 1 target 9 ]
    ]"""
    with pytest.raises(ConfigError, match="4 problems") as caught:
        parse_gml(text)
    for part in ("directed", 'line 3, node "3": latitude is 99', "line 4, link a–b: capacity_bps", "line 6: no node"):
        assert part in str(caught.value)


@given(st.text('graphnodeig [](){}"#\n 123.-', max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_no_text_breaks_the_readers(text: str) -> None:
    for read in (parse_gml, parse_graphml, parse_matrix):
        for candidate in (text, f"graph [ node [ id 1 ] {text} ]", f"<graphml><graph>{text}</graph></graphml>"):
            with suppress(ConfigError):
                read(candidate)


GRAPHML = """<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key attr.name="label" attr.type="string" for="node" id="d0" />
  <key attr.name="LinkSpeedRaw" attr.type="double" for="edge" id="d1"><default>1000</default></key>
  <key attr.name="latency_ms" attr.type="float" for="edge" id="d2" />
  <key attr.name="label" attr.type="string" for="graph" id="d3" />
  <graph edgedefault="{direction}">
    <data key="d3">Pair</data>
    <node id="0"><data key="d0">Paris &amp; Nice</data></node>
    <node id="1" />
    <node id="2"><data key="d0">Lyon</data></node>
    <edge source="0" target="1"><data key="d2">{latency}</data></edge>
    <edge source="2" target="1"><data key="d1">2e3</data><data key="d2">2</data></edge>
  </graph>
</graphml>"""


def test_what_graphml_may_hold() -> None:
    underlay = parse_graphml(GRAPHML.format(direction="undirected", latency="1.5"))
    assert underlay.names == ("Paris & Nice", "1", "Lyon")
    assert underlay.edges.tolist() == [[0, 1], [2, 1]]
    assert underlay.known("latency_ms").tolist() == [1.5, 2]
    assert underlay.known("capacity_bps").tolist() == [1000, 2000]
    assert underlay.name == "Pair"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GRAPHML.format(direction="directed", latency="1"), "the graph is directed"),
        (GRAPHML.format(direction="undirected", latency="-1"), "line 12, link Paris & Nice–1: latency_ms is -1"),
        (GRAPHML.format(direction="undirected", latency="fast"), 'line 12: latency_ms is "fast"'),
        ("<graphml>", "line 1: not valid XML"),
        ("<graphml></graphml>", "0 graphs"),
        ("<graphml><graph><graph></graph></graph></graphml>", "a graph inside a graph"),
        ('<graphml><graph><edge directed="true"/></graph></graphml>', "a directed link"),
        ("<graphml><graph><hyperedge/></graph></graphml>", "more than two nodes"),
        ('<!DOCTYPE g [<!ENTITY a "aaaa">]><graphml/>', "a document type"),
    ],
)
def test_what_is_no_graphml_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_graphml(text, "net.graphml")
    assert str(caught.value).startswith("net.graphml")


PINGS = "ms,Paris,Nice,Lyon\nParis,0.1,12,6\nNice,13,,8\nLyon,,9,0\n"
RATES = "Mbit/s;Lyon;Nice;Paris\nLyon;;90;100\nNice;;;30\nParis;;35;\n"


@pytest.fixture
def matrices(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "pings.csv").write_text(PINGS)
    (tmp_path / "rates.csv").write_text(RATES)
    return tmp_path / "pings.csv", tmp_path / "rates.csv"


def test_pings_become_links(matrices: tuple[Path, Path]) -> None:
    """Means of both directions halved; the smaller bandwidth; one direction is enough; the order of rows is free."""
    underlay = load_underlay(matrices[0], measured="round_trip_ms", bandwidth=matrices[1], bandwidth_unit="Mbit/s")
    assert underlay.names == ("Paris", "Nice", "Lyon")
    assert underlay.edges.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert underlay.known("latency_ms").tolist() == [6.25, 3, 4.25]
    assert underlay.network("round_trip_ms").weights.tolist() == [12.5, 6, 8.5]
    assert underlay.known("capacity_bps").tolist() == [30e6, 100e6, 90e6]
    assert underlay.name == "pings"
    one_way = load_underlay(matrices[0], measured="latency_ms")
    assert one_way.known("latency_ms").tolist() == [12.5, 6, 8.5]
    assert one_way.capacity_bps is None


def test_both_directions_are_kept_where_asked(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("\ta\tb\nb\t3\t\na\t\t1\n")
    (tmp_path / "r.csv").write_text(",a,b\na,,10\nb,40,\n")
    every = load_connectivity(tmp_path / "l.csv", measured="latency_ms", bandwidth=tmp_path / "r.csv")
    assert every.latency_ms.tolist() == [[0, 1], [3, 0]]
    assert every.delay_ms(20).tolist() == [[0, 2001], [503, 0]]
    assert every.name == "l"
    half = load_connectivity(tmp_path / "l.csv", measured="round_trip_ms")
    assert half.latency_ms.tolist() == [[0, 0.5], [1.5, 0]]
    assert half.available_bps is None


def test_nobody_guesses_what_a_latency_is(matrices: tuple[Path, Path]) -> None:
    for load in (load_underlay, load_connectivity):
        with pytest.raises(ConfigError, match=r'one way or round trips.*measured="round_trip_ms".*"latency_ms"'):
            load(matrices[0])
        with pytest.raises(ConfigError, match='measured is "ping"'):
            load(matrices[0], measured="ping")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match='bandwidth_unit is "Mbps"'):
            load(matrices[0], measured="latency_ms", bandwidth=matrices[1], bandwidth_unit="Mbps")


def test_matrices_belong_together(matrices: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text(",Paris,Brest\nParis,,1\nBrest,1,\n")
    with pytest.raises(ConfigError, match="Brest, Lyon, Nice not in both"):
        load_underlay(matrices[0], measured="latency_ms", bandwidth=tmp_path / "other.csv")
    (tmp_path / "net.toml").write_text('[[nodes]]\nname = "a"')
    with pytest.raises(ConfigError, match="for CSV matrices"):
        load_underlay(tmp_path / "net.toml", measured="latency_ms")


NAN = np.nan


def test_directions_that_differ_are_refused_up_to_a_share() -> None:
    names, latency = ("a", "b"), np.array([[NAN, 10.0], [8.0, NAN]])
    assert underlay_of_matrices(names, latency, measured="latency_ms").known("latency_ms").tolist() == [9]
    for share in (0.19, 0):
        with pytest.raises(ConfigError, match=r"latency between a and b differs by direction \(10 and 8\).*the mean"):
            underlay_of_matrices(names, latency, measured="latency_ms", max_asymmetry=share)
    wide = np.array([[NAN, 1.0], [8.0, NAN]])
    with pytest.raises(ConfigError, match=r"bandwidth between a and b.*the smaller one"):
        underlay_of_matrices(names, latency, measured="latency_ms", bandwidth_bps=wide)
    every = underlay_of_matrices(names, latency, measured="latency_ms", bandwidth_bps=wide, max_asymmetry=1)
    assert every.known("capacity_bps").tolist() == [1]
    with pytest.raises(ConfigError, match="max_asymmetry is 2"):
        underlay_of_matrices(names, latency, measured="latency_ms", max_asymmetry=2)


def test_what_one_matrix_has_the_other_must_have() -> None:
    names = ("a", "b", "c")
    latency = np.array([[NAN, 1, NAN], [NAN, NAN, 1], [NAN] * 3])
    rates = np.array([[NAN, 1, 1], [NAN] * 3, [NAN] * 3])
    with pytest.raises(ConfigError, match=r"2 problems") as caught:
        underlay_of_matrices(names, latency, measured="latency_ms", bandwidth_bps=rates)
    assert "latency without bandwidth between b and c" in str(caught.value)
    assert "bandwidth without latency between a and c" in str(caught.value)
    with pytest.raises(ConfigError, match="no latency between a and c, b and a, c and a, c and b"):
        connectivity_of_matrices(names, latency, measured="latency_ms")
    with pytest.raises(ConfigError, match='no path from "a" to "b", "c"'):
        underlay_of_matrices(names, np.where(rates == 1, NAN, latency), measured="latency_ms")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no names in the first row"),
        (",a,a\na,,\n", "line 1: names of columns: a"),
        (",a,\na,,\n", "line 1: names of columns: one is blank"),
        (",a,b\na,,1\n", "no row for b"),
        (",a,b\na,,1\nb,1,\nbb,1,\n", 'line 4: no column "bb".*Columns are a, b'),
        (",a,b\na,,1\nb,1,\nb,2,\n", 'line 4: "b" has line 3 too'),
        (",a,b\na,,1,4\nb,1,\n", "line 2: 3 cells for 2 columns"),
        (",a,b\na,\nb,1,\n", "line 2: 1 cells for 2 columns"),
        (",a,b\na,,fast\nb,1,\n", 'line 2, column b: "fast" is no number'),
        (",a,b\na,,-1\nb,inf,\n", "2 problems\n.*line 2, column b: -1 is no.*\n.*line 3, column a: inf is no"),
        (";a;b\na;;1,5\nb;1;\n", 'line 2, column b: "1,5" is no number.*decimal point'),
    ],
)
def test_what_is_no_matrix_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_matrix(text, "pings.csv")
    assert str(caught.value).startswith("pings.csv")


@given(st.integers(1, 6), st.sampled_from(",;\t"), st.integers(0, 10**6))
def test_matrices_are_read_as_written(nodes: int, separator: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = tuple(f'n{k}, "the {k}th"; São' for k in range(nodes))
    values = np.where(rng.random((nodes, nodes)) < 0.3, NAN, rng.uniform(0, 1e9, (nodes, nodes)))
    np.fill_diagonal(values, NAN)
    blanks = rng.choice(["", " ", "-", "NA", "n/a", "?"], (nodes, nodes))
    order = rng.permutation(nodes).tolist()
    cells = np.where(np.isnan(values), blanks, values.astype(str)).tolist()
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerows([["ms", *names], *([names[k], *cells[k]] for k in order)])
    read_names, read = parse_matrix(text.getvalue())
    assert read_names == names
    assert np.array_equal(read, values, equal_nan=True)


@given(st.integers(2, 7), st.integers(0, 10**6), st.sampled_from(["round_trip_ms", "latency_ms"]))
def test_where_no_detour_pays_both_readings_agree(nodes: int, seed: int, measured: Measured) -> None:
    """Latencies that are distances in a plane, the same in both directions; bandwidths of their own."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(size=(nodes, 2))
    latency = np.linalg.norm(places[:, None] - places[None], axis=-1)
    rates = rng.uniform(1, 2, (nodes, nodes))
    rates = rates + rates.T
    names = tuple(f"n{k}" for k in range(nodes))
    underlay = underlay_of_matrices(names, latency, measured=measured, bandwidth_bps=rates)
    direct = connectivity_of_matrices(names, latency, measured=measured, bandwidth_bps=rates)
    routed = connectivity(underlay, PathRule())
    assert np.allclose(routed.latency_ms, direct.latency_ms, rtol=1e-12)
    assert routed.available_bps is not None
    assert direct.available_bps is not None
    assert np.array_equal(routed.available_bps, direct.available_bps)

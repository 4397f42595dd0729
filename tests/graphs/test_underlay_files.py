"""Networks from TOML and back, and what the readers refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import Underlay, format_underlay, load_underlay, parse_underlay, topology_one

FIELDS = ("latency_ms", "capacity_bps", "distance_km", "access_up_bps", "access_down_bps", "coordinates")


def same(one: Underlay, other: Underlay) -> bool:
    """Equal in every field, to the last bit."""
    texts = all(
        getattr(one, field) == getattr(other, field) for field in ("names", "tiers", "name", "source", "license")
    )
    arrays = [(getattr(one, field), getattr(other, field)) for field in ("edges", *FIELDS)]
    return texts and all((a is None and b is None) or np.array_equal(a, b) for a, b in arrays)


@st.composite
def underlays(draw: st.DrawFn) -> Underlay:
    """Random trees with more links, any names, and any of the fields."""
    nodes = draw(st.integers(1, 7))
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
    names = draw(st.lists(text, min_size=nodes, max_size=nodes, unique=True))
    pairs = {(draw(st.integers(0, k - 1)), k) for k in range(1, nodes)}
    if nodes > 1:
        extra = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)).filter(lambda p: p[0] != p[1])
        pairs |= {(min(p), max(p)) for p in draw(st.lists(extra, max_size=4))}
    links = draw(st.permutations(sorted(pairs)))

    def column(length: int, low: float, *, some: bool = True) -> Any:
        number = st.floats(low, 1e300, allow_subnormal=False)
        filled = st.lists(number, min_size=length, max_size=length).map(lambda v: np.array(v, np.float64))
        return draw(st.none() | filled) if length and some else None

    coordinates = draw(st.none() | st.just(np.linspace(-90, 90, 2 * nodes).reshape(nodes, 2)))
    return Underlay(
        names=tuple(names),
        edges=np.array(links, np.int64).reshape(-1, 2),
        latency_ms=column(len(links), 0),
        capacity_bps=column(len(links), 1e-3),
        distance_km=column(len(links), 0),
        access_up_bps=column(nodes, 1e-3),
        access_down_bps=column(nodes, 1e-3),
        coordinates=coordinates,
        tiers=draw(st.none() | st.tuples(*[text] * nodes)),
        name=draw(text),
        source=draw(st.text(st.characters(codec="utf-8"), max_size=8)),
        license=draw(st.text(st.characters(codec="utf-8"), max_size=8)),
    )


@given(underlays())
def test_toml_gives_back_every_bit(underlay: Underlay) -> None:
    assert same(parse_underlay(format_underlay(underlay)), underlay)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(format_underlay(topology_one()), "utf-8")
    assert same(load_underlay(path), topology_one())
    assert same(load_underlay(str(path)), topology_one())


def test_what_a_person_writes() -> None:
    text = """
        name = "two sites"
        source = "our own map"
        [[nodes]]
        name = "Paris"
        access_bps = 10_000_000
        latitude = 48.9
        longitude = 2
        [[nodes]]
        name = "Nice"
        access_bps = 1e6
        access_up_bps = 5e5
        latitude = 43.7
        longitude = 7.3
        [[links]]
        ends = ["Nice", "Paris"]
        round_trip_ms = 12.5
    """
    underlay = parse_underlay(text)
    assert underlay.edges.tolist() == [[1, 0]]
    assert underlay.known("latency_ms").tolist() == [6.25]
    assert underlay.known("access_up_bps").tolist() == [1e7, 5e5]
    assert underlay.known("access_down_bps").tolist() == [1e7, 1e6]
    assert underlay.coordinates is not None
    assert underlay.coordinates.tolist() == [[48.9, 2], [43.7, 7.3]]
    assert (underlay.capacity_bps, underlay.distance_km, underlay.tiers) == (None, None, None)
    assert (underlay.name, underlay.source) == ("two sites", "our own map")


NODES = '[[nodes]]\nname = "aa"\n[[nodes]]\nname = "bb"\n'
LINK = '[[links]]\nends = ["aa", "bb"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"there is no \[\[nodes\]\]"),
        ("nodes = []", "there is no node"),
        (NODES, 'no path from "aa" to "bb"'),
        (NODES + LINK + LINK, r"\[\[links\]\] 2: link aa–bb is \[\[links\]\] 1 too"),
        (NODES + LINK + '[[links]]\nends = ["bb", "aa"]\n', r"\[\[links\]\] 2: link bb–aa is \[\[links\]\] 1 too"),
        (NODES + '[[nodes]]\nname = "aa"\n' + LINK, r'\[\[nodes\]\] 3: "aa" is the name of \[\[nodes\]\] 1 too'),
        (NODES + '[[nodes]]\nname = ""\n' + LINK, r"\[\[nodes\]\] 3.*the name is empty"),
        (
            NODES + '[[links]]\nends = ["aa", "b"]\n',
            r'\[\[links\]\] 1: no node "b". Nodes are aa, bb. Did you mean "bb"',
        ),
        (NODES + '[[links]]\nends = ["aa", "aa"]\n', r"\[\[links\]\] 1, link aa–aa: the link joins a node with itself"),
        (NODES + '[[links]]\nends = ["aa"]\n', r"\[\[links\]\] 1: ends is "),
        (NODES + LINK + "latency_ms = nan", r"\[\[links\]\] 1, link aa–bb: latency_ms is nan"),
        (NODES + LINK + "latency_ms = 1\nround_trip_ms = 2", "both latency_ms and round_trip_ms"),
        (NODES + LINK + "distance_km = -1", "distance_km is -1"),
        (NODES + LINK + "capacity_bps = 0", r"capacity_bps is 0.*> 0"),
        (NODES + LINK + "capacity_bps = inf", "capacity_bps is inf"),
        (NODES + LINK + 'capacity_bps = "1 Gbit/s"', 'capacity_bps is "1 Gbit/s".*a number'),
        (NODES + LINK + "bandwidth = 3", r'unknown key "bandwidth"'),
        (NODES + "latitude = 3\n" + LINK, "latitude without longitude"),
        (NODES + "latitude = 93\nlongitude = 0\n" + LINK, "latitude is 93"),
        (NODES + "access_bps = 1\n" + LINK, r'\[\[nodes\]\] 1: node "aa" has no access_bps \(or access_up_bps\)'),
        (NODES + "access_up_bps = -1\n" + LINK, "access_up_bps is -1"),
        (NODES + 'tier = "x"\n' + LINK, 'node "aa" has no tier. Give it to all or to none'),
        ("nodes = 3", "nodes is 3"),
        ("[[nodes]", "not valid TOML"),
        (NODES + LINK + "latency_ms = 1" + "0" * 400, "latency_ms is 1000"),
        (NODES + LINK + "latency_ms = 1" + "0" * 5000, "not readable as TOML.*4300 digits.*Shorten"),
        ("nodes = " + "[" * 3000, "not readable as TOML.*recursion.*brackets"),
    ],
)
def test_what_describes_no_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_underlay(text, "net.toml")
    assert str(caught.value).startswith("net.toml")


def test_all_faults_are_told_at_once() -> None:
    text = NODES + LINK + "latency_ms = -1\n" + '[[links]]\nends = ["aa", "bb"]\ncapacity_bps = nan\n[[nodes]]\nnme = 3'
    with pytest.raises(ConfigError, match="4 problems") as caught:
        parse_underlay(text, "net.toml")
    for part in ('"nme"', '"name" is missing', "latency_ms is -1", "capacity_bps is nan"):
        assert part in str(caught.value)
    text = (
        NODES + LINK + "latency_ms = 1\n" + LINK + '[[nodes]]\nname = "aa"\ntier = "x"\n[[links]]\nends = ["aa", "q"]'
    )
    with pytest.raises(ConfigError, match="5 problems") as caught:
        parse_underlay(text, "net.toml")
    for part in ("is the name of", "aa–bb is", 'no node "q"', "has no latency_ms", "has no tier, as 1 more of 3"):
        assert part in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"gone.toml: cannot be read \(No such file"):
        load_underlay(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r'the ending of net\.json is "\.json"'):
        load_underlay(tmp_path / "net.json")
    (tmp_path / "latin.toml").write_bytes("name = 'São Paulo'".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 9 is not UTF-8"):
        load_underlay(tmp_path / "latin.toml")
    monkeypatch.setattr("rivage.graphs.underlay_files.MAX_BYTES", 2**20)
    (tmp_path / "large.toml").write_text("#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_underlay(tmp_path / "large.toml")

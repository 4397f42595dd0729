"""Networks and wishes for which no overlay is designed: each is refused with what, where and how to mend it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rivage.core.errors import RivageError
from rivage.decentralized import Overlay, Silos, star
from rivage.decentralized.silo_settings import SiloSettings
from rivage.graphs import Connectivity, PathRule, Underlay, connectivity, load_underlay, parse_underlay

LINKS = [("Oslo", "Paris"), ("Paris", "Rome")]
NAMES = ["Oslo", "Paris", "Rome"]


def line(**changes: object) -> Underlay:
    return Underlay.of(NAMES, LINKS, **{"distance_km": [1340, 1110], "name": "line", **changes})  # type: ignore[arg-type]


def silos() -> Silos:
    return Silos.of(connectivity(line(), PathRule.published()), model_bits=1e6, step_ms=5)


def capacities(value: float) -> object:
    return Silos.of(
        Connectivity(
            names=("a", "b"),
            latency_ms=np.array([[0.0, 3], [3, 0]]),
            available_bps=np.array([[np.inf, value], [1e9, np.inf]]),
        ),
        model_bits=1,
        step_ms=1,
    )


CASES: list[tuple[Callable[[], object], tuple[str, ...]]] = [
    (
        lambda: Underlay.of([*NAMES, "Reykjavik"], LINKS, distance_km=1000, name="line"),
        ('underlay "line"', 'no path from "Oslo" to "Reykjavik"', "Add links"),
    ),
    (
        lambda: line(capacity_bps=[1e9, 0]),
        ("capacity_bps of Paris–Rome is 0.0", "finite number > 0", "leave a link out"),
    ),
    (lambda: line(capacity_bps=[-5, 1e9]), ("capacity_bps of Oslo–Paris is -5.0", "finite number > 0")),
    (lambda: line(access_bps=0), ("access_up_bps", "0.0", "finite number > 0")),
    (lambda: capacities(0), ("available_bps from a to b is 0.0", "finite number > 0")),
    (lambda: capacities(-1), ("available_bps from a to b is -1.0", "finite number > 0")),
    (lambda: PathRule.published(0), ("core_bps is 0", "greater than 0")),
    (
        lambda: SiloSettings(model_bits=1e6).silos(line(distance_km=None)),
        ('network "line"', "neither latencies nor lengths", "coordinates"),
    ),
    (
        lambda: connectivity(line(distance_km=None), PathRule.published()),
        ("distance_km is not known", "Give it in the file"),
    ),
    (
        lambda: Overlay.named(silos(), LINKS, "mine"),
        ('overlay "mine"', 'no path from "Paris" to "Oslo"', "Add arcs until every node can reach every other"),
    ),
    (lambda: Overlay.named(silos(), [("Oslo", "Pairs")], "mine"), ('no silo "Pairs"', 'Did you mean "Paris"')),
    (lambda: star(silos(), "Pariss"), ('hub is "Pariss"', "first, closeness, best", 'Did you mean "Paris"')),
    (lambda: star(silos(), ""), ('hub is ""', "the name of a silo")),
]


@pytest.mark.parametrize(("make", "parts"), CASES)
def test_what_where_and_how_to_mend_it(make: Callable[[], object], parts: tuple[str, ...]) -> None:
    with pytest.raises(RivageError) as caught:
        make()
    assert isinstance(caught.value, ValueError)
    for part in parts:
        assert part in str(caught.value)


def test_all_that_is_wrong_with_a_file_is_listed() -> None:
    text = """
    [[nodes]]
    name = "a"
    [[nodes]]
    name = "b"
    [[nodes]]
    name = "c"
    [[links]]
    ends = ["a", "b"]
    distance_km = 5
    capacity_bps = 0
    [[links]]
    ends = ["a", "d"]
    distance_km = -1
    capacity_bps = 1e9
    """
    with pytest.raises(RivageError) as caught:
        parse_underlay(text, "sites.toml")
    for part in ("sites.toml", "[[links]] 1", "capacity_bps is 0", "[[links]] 2", "distance_km is -1"):
        assert part in str(caught.value)


def test_published_files_are_read_without_a_word(data_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Géant's lacks 22 of 61 capacities, which the published rule does not ask for; who asks is told once."""
    with caplog.at_level(logging.INFO):
        underlay = load_underlay(data_root / "underlays" / "geantdistance.gml")
        connectivity(underlay, PathRule.published(1e9))
        assert caplog.records == []
        rule = PathRule(route="distance_km", ms_per_km=0.0085)
        with pytest.raises(RivageError, match="available_bps is not known"):
            Silos.of(connectivity(underlay, rule), model_bits=1, step_ms=1)
    assert [record.getMessage() for record in caplog.records] == [
        "Geant2012: 22 of 61 links have no capacity_bps, so bandwidths are not known; core_bps stands for all links"
    ]

"""Designers as tables: what they make is what the functions make; the search keeps to its settings."""

from __future__ import annotations

from typing import Any

import pytest

from rivage.core.errors import ConfigError
from rivage.core.settings import dump, read
from rivage.decentralized import Silos, delta_mbst, matcha, mst, ring, ring_2opt, star
from rivage.decentralized.designers import DESIGNERS, DeltaMbst, Directed, Given, MatchaDraws, Mst, Ring, Star, named
from rivage.graphs import PathRule, Underlay, connectivity

NAMES = ["a", "b", "c", "d", "e"]
LINKS = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "a"), ("a", "c")]
PAIRS = [(NAMES.index(one), NAMES.index(other)) for one, other in LINKS]


@pytest.fixture(scope="module")
def silos() -> Silos:
    underlay = Underlay.of(NAMES, LINKS, distance_km=[300, 900, 2000, 700, 1500, 400])
    return Silos.of(connectivity(underlay, PathRule.published()), model_bits=2e7, step_ms=5, access_bps=1e8)


def test_every_kind_makes_what_its_function_makes(silos: Silos) -> None:
    pairs = [
        (Star(hub="first"), star(silos, "first")),
        (Star(), star(silos, "best")),
        (Mst(), mst(silos)),
        (DeltaMbst(), delta_mbst(silos)),
        (Ring(improve=False), ring(silos)),
        (Ring(), ring_2opt(silos)),
        (MatchaDraws(rounds=50), matcha(silos, rounds=50, seed=3)),
        (MatchaDraws(base="links", budget=0.7, rounds=50), matcha(silos, PAIRS, budget=0.7, rounds=50, seed=3)),
    ]
    for settings, expected in pairs:
        assert settings.design(silos, PAIRS, seed=3).plain() == expected.plain()


def test_a_given_overlay_is_judged(silos: Silos) -> None:
    arcs = (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "a"))
    one_way = Given(arcs=arcs).design(silos)
    assert one_way.cycle_time_ms == pytest.approx(float(one_way.overlay.delays_ms.mean()), rel=1e-12)
    both = Given(arcs=arcs, both=True).design(silos)
    assert both.overlay.is_undirected
    assert both.max_degree == 2
    with pytest.raises(ConfigError, match='no silo "z"'):
        Given(arcs=(("a", "z"),)).design(silos)
    with pytest.raises(ConfigError, match="strong"):
        Given(arcs=arcs[:-1]).design(silos)


def test_the_search_stops_at_a_bound_and_repeats_itself(silos: Silos) -> None:
    search = Directed(steps=300)
    found = search.design(silos, seed=1)
    assert found.cycle_time_ms <= ring_2opt(silos).cycle_time_ms * (1 + 1e-12)
    assert search.design(silos, seed=1).plain() == found.plain()
    easy = search.design(silos, seed=1, least_ms=1e9)
    assert easy.cycle_time_ms >= found.cycle_time_ms, "a bound that is reached at once ends the search"


def test_matcha_plus_needs_links(silos: Silos) -> None:
    with pytest.raises(ConfigError, match="links of the network are not known"):
        MatchaDraws(base="links").design(silos)


@pytest.mark.parametrize("kind", [*DESIGNERS])
def test_settings_come_back_from_their_table(kind: str) -> None:
    table: dict[str, Any] = {"arcs": [["a", "b"], ["b", "a"]]} if kind == "given" else {}
    settings = read(DESIGNERS.get(kind), table)
    assert read(DESIGNERS.get(kind), dump(settings)) == settings


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MatchaDraws(budget=0.0), "budget is 0"),
        (lambda: MatchaDraws(base="some"), 'base is "some"'),  # type: ignore[arg-type]
        (lambda: MatchaDraws(rounds=1), "rounds is 1"),
        (lambda: Directed(seconds=0), "seconds is 0"),
        (lambda: Directed(steps=0), "steps is 0"),
        (lambda: Directed(arcs="all"), 'arcs is "all"'),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_design_takes_the_name_of_the_study(silos: Silos) -> None:
    again = named(mst(silos), "backbone")
    assert (again.name, again.overlay.name) == ("backbone", "backbone")
    assert again.cycle_time_ms == mst(silos).cycle_time_ms

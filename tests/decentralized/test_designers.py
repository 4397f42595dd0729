"""Designers as tables: what they make is what the functions make; the search keeps to its settings."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.core.settings import dump, read
from rivage.decentralized import Silos, delta_mbst, directed_search, matcha, mst, ring, ring_2opt, star
from rivage.decentralized.designers import (
    DESIGNERS,
    DeltaMbst,
    Designer,
    Directed,
    Given,
    MatchaDraws,
    Mst,
    Ring,
    Searcher,
    Star,
    named,
)
from rivage.decentralized.designs import Design
from rivage.decentralized.directed_search import DirectedSearch
from rivage.decentralized.family_designers import Family
from rivage.graphs import Connectivity, PathRule, Underlay, connectivity

NAMES = ["a", "b", "c", "d", "e"]
LINKS = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "a"), ("a", "c")]
PAIRS = [(NAMES.index(one), NAMES.index(other)) for one, other in LINKS]


@pytest.fixture(scope="module")
def silos() -> Silos:
    underlay = Underlay.of(NAMES, LINKS, distance_km=[300, 900, 2000, 700, 1500, 400])
    return Silos.of(connectivity(underlay, PathRule.published()), model_bits=2e7, step_ms=5, access_bps=1e8)


def test_every_kind_makes_what_its_function_makes(silos: Silos) -> None:
    pairs: list[tuple[Designer, Design]] = [
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


@pytest.fixture(scope="module")
def scattered() -> Silos:
    """Latencies without any order, so that neither rings nor trees are best."""
    latency = np.random.default_rng(0).uniform(5, 300, (20, 20))
    np.fill_diagonal(latency, 0)
    available = np.where(np.eye(20, dtype=bool), np.inf, 1e9)
    names = tuple(f"s{k:02d}" for k in range(20))
    every = Connectivity(names=names, latency_ms=latency, available_bps=available)
    return Silos.of(every, model_bits=2e7, step_ms=10)


def test_a_bound_that_is_reached_at_once_ends_the_search(scattered: Silos) -> None:
    """To a millionth: bounds are rounded down."""
    silos, search = scattered, Directed(steps=100)
    found = search.design(silos)
    start = search.design(silos, least_ms=1e9).cycle_time_ms
    assert start > found.cycle_time_ms * 1.001
    assert search.design(silos, least_ms=start * (1 - 0.9e-6)).cycle_time_ms == start
    assert search.design(silos, least_ms=start * (1 - 1.1e-6)).cycle_time_ms < start


def test_settings_of_the_search_are_kept_to(scattered: Silos) -> None:
    silos = scattered
    few, other = (Directed(steps=20).design(silos, seed=seed) for seed in (0, 1))
    free = Directed(steps=20, arcs="free").design(silos)
    assert other.plain() == DirectedSearch(steps=20, seed=1).design(silos).design.plain()
    assert free.plain() == DirectedSearch(steps=20, arcs="free").design(silos).design.plain()
    assert few.overlay.arc_names() != other.overlay.arc_names(), "else seeds could be lost unseen"
    assert len(free.overlay.arcs) > len(few.overlay.arcs)


def test_a_search_takes_its_time_or_its_steps_and_few_silos_few_of_them(square_of: Callable[..., Silos]) -> None:
    began = perf_counter()
    Directed(seconds=0.1).design(square_of(3, 9))
    Directed().design(square_of(3, 4))  # 4,096 sets of arcs
    assert perf_counter() - began < 60, "not the minutes of all steps"


def test_who_watches_a_search_hears_of_it_and_changes_nothing(
    scattered: Silos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directed_search, "_WATCHED_S", 0.0)
    silos, heard = scattered, list[tuple[float, float]]()
    found = Directed(steps=2000).search(silos, watch=lambda *told: heard.append(told))
    assert found.plain() == Directed(steps=2000).design(silos).plain()
    shares, times = zip(*heard, strict=True)
    assert list(shares) == sorted(shares)
    assert 0 <= shares[0] < 0.1 < 0.9 < shares[-1] <= 1
    assert list(times) == sorted(times, reverse=True)
    assert times[-1] == pytest.approx(found.cycle_time_ms, rel=1e-9)
    assert isinstance(Directed(), Searcher)
    assert not isinstance(Ring(), Searcher)


@pytest.mark.parametrize(
    ("designer", "said"),
    [
        (Star(hub="z"), 'hub is "z"'),
        (Given(arcs=(("a", "z"),)), 'no silo "z"'),
        (MatchaDraws(base="links"), "links of the network are not known"),
        (Family(family="hypercube"), "hypercube over 5 silos"),
        (Family(family="random_regular", degree=3), "5"),
    ],
)
def test_what_does_not_fit_the_silos_is_refused_before_any_work(designer: Designer, said: str, silos: Silos) -> None:
    with pytest.raises(ConfigError, match=said):
        designer.require(silos)


def test_matcha_for_one_silo_is_refused(square_of: Callable[..., Silos]) -> None:
    with pytest.raises(ConfigError, match="single silo"):
        MatchaDraws().require(square_of(0, 1))


@pytest.mark.parametrize("kind", [*DESIGNERS])
def test_every_kind_can_be_asked_whether_it_fits(kind: str, silos: Silos) -> None:
    table: dict[str, Any] = {"arcs": [[a, b] for a, b in zip("abcde", "bcdea", strict=True)]} if kind == "given" else {}
    settings = read(DESIGNERS.get(kind), table)
    settings.require(silos, PAIRS)


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

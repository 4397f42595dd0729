"""Advice on the degree: what it predicts, when it is sure, and when the clique is not the answer."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.decentralized import Overlay, Silos, cycle_time_ms, degree_advice, star
from rivage.decentralized.clock import Clock, Replay
from rivage.decentralized.degree_advice import Advice, Classical, Spread, advise_degree
from rivage.decentralized.designs import mixing_of
from rivage.decentralized.stragglers import iteration_times
from rivage.decentralized.time_laws import Constant, Exponential, Pareto, Uniform
from rivage.decentralized.waiting import Server, Waits
from rivage.graphs.families import random_regular
from rivage.graphs.mixing import metropolis, spectral_gap
from rivage.graphs.network import Network
from rivage.graphs.topologies import cycle, hypercube

SquareOf = Callable[..., Silos]


def complete(nodes: int) -> Network:
    return Network.of(nodes, [(i, j) for j in range(nodes) for i in range(j)])


def family(nodes: int, degrees: tuple[int, ...]) -> dict[str, Network]:
    graphs = {f"{d}-regular": random_regular(nodes, d, np.random.default_rng(0)) for d in degrees}
    return {"ring": cycle(nodes), **graphs, "clique": complete(nodes)}


SMALL = family(16, (4, 8))
MEASURED = {  # rounds to a target, softmax regression of 16 classes on 16 nodes, two seeds
    "random split": {"ring": (151, 151), "4-regular": (151, 151), "8-regular": (151, 151), "clique": (150, 150)},
    "a class each": {"ring": (231, 221), "4-regular": (162, 160), "8-regular": (154, 153), "clique": (150, 150)},
}


def quick(
    law: object, graphs: Mapping[str, degree_advice.Graph], rounds: object = None, replications: int = 8, seed: int = 0
) -> Advice:
    return advise_degree(law, graphs, rounds=rounds, simulated_rounds=300, replications=replications, seed=seed)  # type: ignore[arg-type]


# --- when the clique is not the answer --------------------------------------------------------------------------------


def test_regimes_are_found_without_a_hint() -> None:
    """n = 100, exponential work: the less nodes differ the fewer neighbours, by the bound of 2020."""
    graphs = family(100, (4, 10, 20))
    found = {difference: quick(Exponential(), graphs, Spread(difference=difference)) for difference in (1.0, 0.2, 0.02)}
    assert [advice.best for advice in found.values()] == ["clique", "20-regular", "4-regular"]
    assert found[0.2].verdict == found[0.02].verdict == "holds"
    assert quick(Constant(), graphs, Spread(difference=0.2)).best == "clique"


def test_measured_rounds_decide() -> None:
    """A random split of the data: everything needs as many rounds, so short rounds win. A class each: another graph."""
    same = quick(Exponential(), SMALL, MEASURED["random split"])
    assert (same.best, same.verdict, same.source) == ("ring", "holds", "given")
    apart = quick(Exponential(), SMALL, MEASURED["a class each"])
    assert apart.best == "4-regular"
    without = quick(Constant(), SMALL, MEASURED["a class each"])
    assert without.best == "clique"


def test_the_classical_bound_prefers_the_clique() -> None:
    for law in (Constant(), Exponential(), Uniform(), Pareto(shape=2)):
        assert quick(law, SMALL).best == "clique"


# --- what is predicted ------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_parts() -> None:
    advice = quick(Exponential(), SMALL)
    graphs = {name: Waits.of_network(network) for name, network in SMALL.items()}
    times = iteration_times(graphs, Clock(), rounds=300, replications=8)
    for each in advice.candidates:
        weights = metropolis(graphs[each.name].adjacency)
        assert each.iteration.mean == times[each.name].mean
        assert each.spectral_gap == pytest.approx(spectral_gap(weights))
        assert each.rounds == pytest.approx(1 / each.spectral_gap)
        assert each.time.mean == pytest.approx(each.rounds * each.iteration.mean, rel=1e-3)
        assert each.time.low < each.time.mean < each.time.high
        assert each.iteration_bounds is not None
        assert each.iteration_bounds[0] <= each.iteration.mean <= each.iteration_bounds[1] * 1.03
    assert [each.time.mean for each in advice.candidates] == sorted(each.time.mean for each in advice.candidates)


def test_rounds_of_the_bounds() -> None:
    ring = metropolis(Waits.of_network(cycle(16)).adjacency)
    second = 1 / 3 + 2 / 3 * np.cos(np.pi / 8)
    moduli = 1 / 3 + 2 / 3 * np.cos(2 * np.pi * np.arange(1, 16) / 16)
    assert Classical().rounds(ring) == pytest.approx(1 / (1 - second))
    worst, alike = Spread(difference=0.5, direction="slowest"), Spread(difference=0.5)
    assert worst.rounds(ring) == pytest.approx(1 + 2 * (1 + second / (1 - second)))
    assert alike.rounds(ring) == pytest.approx(1 + 2 * (1 + np.sqrt((moduli**2).mean()) / (1 - second)))
    exact = np.full((16, 16), 1 / 16)
    assert Classical().rounds(exact) == pytest.approx(1)
    assert Spread(difference=0.5).rounds(exact) == pytest.approx(3)
    assert Spread(difference=0).rounds(ring) == 1
    assert Classical().rounds(np.ones((1, 1))) == 1


def test_overlays_bring_their_delays(square_of: SquareOf) -> None:
    silos = square_of(3, 6, access_bps=1e8)
    ring = Overlay.ring(silos, range(6))
    everyone = Overlay.of(silos, [(i, j) for i in range(6) for j in range(6) if i != j], "all")
    hub = star(silos)
    server = Server.of_overlay(hub.overlay, silos.names.index(str(hub.hub)))
    advice = quick(
        Constant(), {"ring": ring, "all": everyone, "star": server}, dict.fromkeys(("ring", "all", "star"), 1)
    )
    found = {each.name: each for each in advice.candidates}
    assert advice.best == "ring"
    for name, overlay in (("ring", ring), ("all", everyone)):
        assert found[name].time.mean == pytest.approx(cycle_time_ms(overlay), rel=0.01)
        assert found[name].spectral_gap == pytest.approx(spectral_gap(mixing_of(overlay)))
    assert found["star"].time.mean == pytest.approx(hub.cycle_time_ms)
    assert found["star"].spectral_gap == pytest.approx(1)
    assert found["star"].in_degree == 5


def test_measured_times_set_the_unit() -> None:
    """Ten times as long, ten times the prediction, the same advice; a trace is a law."""
    samples = (Clock().work_factors(0, 1, 0, 300)[:, 0] * 7).tolist()
    one, other = quick(samples, SMALL), quick([10 * each for each in samples], SMALL)
    for first, second in zip(one.candidates, other.candidates, strict=True):
        assert first.name == second.name
        assert second.time.mean == pytest.approx(10 * first.time.mean)
    clique = next(each for each in one.candidates if each.name == "clique")
    levels = np.arange(301) / 300
    assert clique.iteration.mean == pytest.approx(float(np.diff(levels**16) @ np.sort(samples)), rel=0.05)


def test_clocks_and_replays() -> None:
    clock = quick(Clock(law=Uniform(), persistence=0.5), SMALL)
    assert all(each.iteration_bounds is None for each in clock.candidates)
    table = Clock(law=Uniform()).work_factors(0, 16, 0, 200)
    replay = quick(Replay.of(table), SMALL)
    assert replay.best == "clique"
    assert all(each.iteration_bounds is None for each in replay.candidates)


@given(st.integers(0, 10**6), st.floats(0.1, 1000))
@hypothesis_settings(max_examples=10)
def test_the_order_of_candidates_and_the_unit_of_rounds_do_not_matter(seed: int, unit: float) -> None:
    rounds = {name: values[0] for name, values in MEASURED["a class each"].items()}
    one = quick(Uniform(), SMALL, rounds, 3, seed)
    scaled = {name: unit * value for name, value in reversed(rounds.items())}
    other = quick(Uniform(), dict(reversed(SMALL.items())), scaled, 3, seed)
    assert [each.name for each in one.candidates] == [each.name for each in other.candidates]
    assert one.rivals == other.rivals
    for first, second in zip(one.candidates, other.candidates, strict=True):
        assert second.time.mean == pytest.approx(unit * first.time.mean)
        assert second.behind[0] == pytest.approx(first.behind[0], abs=1e-9)


# --- when it is sure --------------------------------------------------------------------------------------------------


def test_a_tie_is_said_to_be_one() -> None:
    """The same graph twice, and rounds that make two graphs equally fast."""
    twice = quick(Exponential(), {"one": cycle(8), "other": cycle(8)})
    assert twice.verdict == "no_power"
    assert twice.rivals == (twice.candidates[1].name,)
    found = quick(Exponential(), SMALL, dict.fromkeys(SMALL, 1.0), 12)
    times = {each.name: each.iteration.mean for each in found.candidates}
    even = quick(Exponential(), SMALL, {name: 100 / times[name] for name in SMALL}, 12, seed=1)
    assert even.verdict == "no_power"


def test_too_many_seeds_would_not_hide_what_training_leaves_open() -> None:
    """Rounds that differ from seed to seed make the answer unsure, however long the simulation."""
    graphs = {"ring": cycle(16), "clique": complete(16)}
    surely = quick(Exponential(), graphs, {"ring": (200, 201, 199), "clique": (150, 151, 149)})
    assert (surely.best, surely.verdict) == ("ring", "holds")
    hardly = quick(Exponential(), graphs, {"ring": (100, 320, 180), "clique": (190, 90, 170)})
    assert hardly.verdict == "no_power"
    paired = quick(Exponential(), graphs, {"ring": (100, 320, 180), "clique": (90, 289, 162)})
    assert paired.verdict == "holds"  # both vary, their ratio does not


def test_equals_are_seldom_told_apart() -> None:
    """Four rings with other numbers of nodes, alike in law: a winner in at most 5 % of 60 answers.

    More than 9 come by chance once in a thousand times.
    """
    orders = [np.random.default_rng(k).permutation(10) for k in range(4)]
    rings = {f"ring {k}": Waits.of(10, order[Waits.of_network(cycle(10)).arcs]) for k, order in enumerate(orders)}
    answers = [
        advise_degree(Exponential(), rings, simulated_rounds=60, replications=8, seed=seed).verdict
        for seed in range(60)
    ]
    assert answers.count("holds") <= 9


def test_without_chance_it_is_sure() -> None:
    advice = quick(Constant(), SMALL, {"ring": 10, "4-regular": 9, "8-regular": 9, "clique": 8})
    assert (advice.best, advice.verdict) == ("clique", "holds")
    tie = quick(Constant(), SMALL, {"ring": 10, "4-regular": 9, "8-regular": 8, "clique": 8})
    assert (tie.verdict, len(tie.rivals)) == ("no_power", 1)


def test_one_candidate_and_one_node() -> None:
    alone = quick(Exponential(), {"clique": complete(8)})
    assert (alone.best, alone.verdict, alone.rivals) == ("clique", "holds", ())
    single = quick(Exponential(), {"nobody": Waits.of(1, [])})
    assert single.candidates[0].spectral_gap == pytest.approx(1)
    assert single.candidates[0].iteration.mean == pytest.approx(1, abs=0.1)


# --- form -------------------------------------------------------------------------------------------------------------


def test_plain_numbers() -> None:
    plain = json.loads(json.dumps(quick(Pareto(), SMALL).plain(), allow_nan=False))
    assert plain["best"] == "clique"
    assert plain["rounds_from"] == "classical"
    assert {"best", "verdict", "rivals", "confidence", "rounds_from", "candidates"} == plain.keys()
    first, second = plain["candidates"][:2]
    assert first["p_value"] is None
    assert 0 <= second["p_value"] <= 1
    assert second["log_ratio_to_best"] > 0


@pytest.mark.parametrize(
    ("graphs", "rounds", "message"),
    [
        ({}, None, "there is no candidate"),
        ({"a": cycle(4), "b": cycle(5)}, None, r"candidates have \[4, 5\] nodes"),
        ({"a": cycle(4)}, {"b": 1}, "rounds are given for b"),
        ({"a": cycle(4)}, {"a": 0}, 'rounds of "a" is 0.0'),
        ({"a": cycle(4), "b": hypercube(2)}, {"a": (1, 2), "b": 1}, "different numbers of seeds"),
    ],
)
def test_what_is_refused(graphs: dict[str, Network], rounds: dict[str, float] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quick(Exponential(), graphs, rounds)


def test_a_difference_out_of_range() -> None:
    with pytest.raises(ConfigError, match="difference is 2"):
        Spread(difference=2)


def test_examples() -> None:
    assert doctest.testmod(degree_advice).failed == 0

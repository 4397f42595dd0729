"""How a design of overlays is told: real studies, their records read in another way, and records that are not whole."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import StoreError
from rivage.core.games import view
from rivage.core.integrity import changes
from rivage.core.records import RunRecord
from rivage.decentralized import Overlay, cycle_time_ms, star
from rivage.decentralized import start_times_ms as true_start_times
from rivage.decentralized.checks import recorded_silos
from rivage.graphs.cycles import max_cycle_mean
from rivage.graphs.mixing import metropolis, pull_weights, spectral_gap
from rivage.report.games.design_figures import cycle_times
from rivage.report.games.design_gantt import ROUNDS, chain_of, draw_rounds, shown_silos, spans_of, times_until
from rivage.report.games.design_map import arrows, draw_maps, on_paper, places_of
from rivage.report.games.design_numbers import (
    OverlayRecord,
    agreement_rounds,
    best_of,
    lower_bound,
    scene_of,
    shown_trial,
    summarize_designs,
    trials_of,
    winner,
)
from rivage.report.games.design_rounds import Leg, start_times_ms, steady_start_ms, waited_for
from rivage.report.games.design_words import design_answer
from rivage.report.games.designs import DesignView
from rivage.report.games.labels import outside, place_labels
from rivage.report.page import write_report
from rivage.report.theme import looks
from rivage.studies.games.design import make_design
from rivage.studies.play import play_study

PLACES = ["Paris", "London", "New York", "Tokyo", "Sydney", "Los Angeles", "Lagos"]
WORK = [10.0, 20.0, 10.0, 30.0, 10.0, 10.0, 40.0]
OVERLAYS = [
    {"kind": "star"},
    {"kind": "mst"},
    {"kind": "ring"},
    {"kind": "matcha", "rounds": 30},
    {"name": "best", "kind": "directed", "steps": 500},
    {"name": "<b>", "kind": "given", "arcs": [[one, other] for one, other in pairwise([*PLACES, PLACES[0]])]},
]
FIXED = ("mst", "ring", "best", "<b>")
HEADINGS = ["Who sends to whom", "Time of a round", "Rounds in the long run", "Fast rounds or few"]


def study(folder: Path, **tables: Any) -> RunRecord:
    """A real run between seven cities."""
    described = {
        "name": "toy",
        "underlay": {"kind": "cities", "places": PLACES, "ms_per_km": 0.0085, "neighbours": 2},
        "silos": {"model_bits": 2e7, "step_ms": WORK, "access_bps": 1e9, "core_bps": 1e9},
        "overlays": OVERLAYS,
        "run": {"seeds": [0, 1]},
    }
    return play_study(make_design({**described, **tables}), out=folder)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return study(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copy(toy: RunRecord, tmp_path: Path) -> RunRecord:
    """The same run, to be spoilt."""
    shutil.copytree(toy.folder, tmp_path / "run")
    return RunRecord.open(tmp_path / "run")


def told(record: RunRecord, name: str) -> OverlayRecord:
    trial = shown_trial(record, name, summarize_designs(record))
    return OverlayRecord.of(trial, scene_of(record)["names"])


def real(record: RunRecord, overlay: OverlayRecord) -> Overlay:
    """The overlay itself, from its arcs and the recorded network."""
    return Overlay.of(recorded_silos(record), overlay.arcs.tolist(), overlay.name)


def styles(record: RunRecord) -> dict[str, Any]:
    return looks((str(trial.start["policy"]), trial.kind) for trial in record.trials)


# --- numbers --------------------------------------------------------------------------------------------------------


def test_the_numbers_follow_from_arcs_and_network(toy: RunRecord) -> None:
    rows, bound = summarize_designs(toy), lower_bound(toy)["value_ms"]
    assert list(rows) == ["star", "mst", "ring", "matcha", "best", "<b>"]
    for name in FIXED:
        row, overlay = rows[name], real(toy, told(toy, name))
        assert row["cycle_time_ms"] == pytest.approx(cycle_time_ms(overlay), rel=1e-12)
        assert row["gap"] == pytest.approx((cycle_time_ms(overlay) - bound) / bound, rel=1e-9)
        assert row["arcs"] == [list(arc) for arc in overlay.arc_names()]
        assert (row["num_arcs"], row["max_degree"]) == (len(overlay.arcs), overlay.max_degree)
        weights = metropolis if overlay.is_undirected else pull_weights
        assert row["spectral_gap"] == pytest.approx(spectral_gap(weights(overlay.adjacency)), abs=1e-12)
    assert rows["star"]["cycle_time_ms"] == pytest.approx(star(recorded_silos(toy)).cycle_time_ms, rel=1e-12)
    assert rows["star"]["hub"] == star(recorded_silos(toy)).hub


def test_agreement_is_the_power_of_the_rate_that_leaves_a_thousandth(toy: RunRecord) -> None:
    for name, row in summarize_designs(toy).items():
        rounds = row["agreement_rounds"]
        assert row["agreement_ms"] == rounds * row["cycle_time_ms"]
        if name == "star":
            assert (row["spectral_gap"], rounds) == (1.0, 1.0)
        else:
            assert (1 - row["spectral_gap"]) ** rounds == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize(("gap", "rounds"), [(0.0, math.inf), (-1e-17, math.inf), (1.0, 1.0), (0.9999, 1.0)])
def test_rounds_until_agreement_at_the_ends(gap: float, rounds: float) -> None:
    assert agreement_rounds(gap) == rounds


def test_of_what_is_searched_for_the_fastest_seed_counts_of_what_is_drawn_the_mean(toy: RunRecord) -> None:
    rows = summarize_designs(toy)
    times = {
        name: [t.events("overlay")[0]["cycle_time_ms"] for t in trials_of(toy, name)] for name in ("best", "matcha")
    }
    errors = [t.events("overlay")[0]["error_ms"] for t in trials_of(toy, "matcha")]
    assert rows["best"]["cycle_time_ms"] == min(times["best"])
    assert rows["matcha"]["drawn"]
    assert min(errors) > 0
    assert rows["matcha"]["cycle_time_ms"] == pytest.approx(sum(times["matcha"]) / 2)
    assert rows["matcha"]["error_ms"] == pytest.approx(math.sqrt(sum(e * e for e in errors)) / 2)
    assert rows["matcha"]["std_ms"] == pytest.approx(np.std(times["matcha"], ddof=1))
    assert (rows["mst"]["std_ms"], rows["mst"]["error_ms"]) == (0, 0), "what draws nothing does not vary"


def test_the_summary_holds_what_the_command_promises(toy: RunRecord) -> None:
    summary = json.loads((toy.folder / "summary.json").read_text())
    assert summary["lower_bound_ms"] == pytest.approx(lower_bound(toy)["value_ms"])
    best = summary["best"]
    assert best == best_of(summarize_designs(toy))
    assert summary["gap"] == pytest.approx(summary["overlays"][best]["cycle_time_ms"] / summary["lower_bound_ms"] - 1)
    asked = {"cycle_time_ms", "arcs", "max_degree", "hub", "critical_circuit", "spectral_gap", "gap"}
    assert all(asked <= set(row) for row in summary["overlays"].values())
    assert list(changes(toy)) == []


def test_the_answer_names_the_fastest_its_gap_and_the_classical_ones(toy: RunRecord) -> None:
    rows, answer = summarize_designs(toy), view(toy).answer
    first, *_ = sorted(rows, key=lambda name: rows[name]["cycle_time_ms"])
    assert answer.startswith(first)
    assert f"{rows[first]['cycle_time_ms']:.2f} ms a round" in answer
    assert f"at most {100 * rows[first]['gap']:.1f} % above the best possible" in answer
    assert f"no fixed overlay goes below {lower_bound(toy)['value_ms']:.2f} ms" in answer
    assert f"{rows['star']['cycle_time_ms'] / rows[first]['cycle_time_ms']:.1f} times as long over star" in answer
    assert f"{100 * (rows['mst']['cycle_time_ms'] / rows[first]['cycle_time_ms'] - 1):.0f} % longer over mst" in answer


def test_the_table_has_a_row_for_each_overlay_and_one_best(toy: RunRecord) -> None:
    game = view(toy)
    assert isinstance(game, DesignView)
    keys = {column.key for column in game.columns}
    assert all(keys <= set(row) for row in game.rows)
    assert sum(row["best"] for row in game.rows) == 1
    cells = {row["policy"]: row for row in game.rows}
    assert cells["star"]["hub"] in PLACES
    assert cells["matcha"]["circuit"] == "drawn anew"
    assert re.fullmatch(r"[\d.]+ ± [\d.]+", cells["matcha"]["time"])
    assert game.compared == "6 overlays for 7 silos of cities, 2 seeds"
    assert game.facts["A local step"] == "10 to 40 ms"
    assert game.facts["Uplinks of silos"] == "1 Gbit/s"
    assert game.progress == []


# --- rounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIXED)
def test_starts_are_those_of_the_recursion(toy: RunRecord, name: str) -> None:
    overlay = told(toy, name)
    steady = steady_start_ms(overlay)
    for start in (None, steady):
        expected = true_start_times(real(toy, overlay), 40, start=start)
        assert np.array_equal(start_times_ms(overlay, 40, start), expected)


@pytest.mark.parametrize("name", ["star", *FIXED])
def test_steady_rounds_take_the_cycle_time_each(toy: RunRecord, name: str) -> None:
    """No silo is later than its potential allows, and those on the slowest circuit are not earlier."""
    overlay = told(toy, name)
    times = start_times_ms(overlay, 30, steady_start_ms(overlay))
    assert times[0].max() == 0
    ahead = times[0] + overlay.cycle_time_ms * np.arange(31)[:, None] - times
    assert ahead.min() > -1e-9
    assert ahead[:, list(overlay.circuit)] == pytest.approx(np.zeros((31, len(overlay.circuit))), abs=1e-9)


def test_starts_of_a_star_are_those_of_two_phases(toy: RunRecord) -> None:
    """Message by message: all send to the hub, which averages when the last has come and its own silo is done."""
    overlay = told(toy, "star")
    assert overlay.hub is not None
    delays = {(int(one), int(other)): d for (one, other), d in zip(overlay.arcs, overlay.delays_ms, strict=True)}
    starts = [0.0] * len(PLACES)
    for row in start_times_ms(overlay, 30):
        assert row == pytest.approx(starts, rel=1e-12)
        spokes = [silo for silo in range(len(PLACES)) if silo != overlay.hub]
        averaged = max([starts[overlay.hub] + WORK[overlay.hub], *(starts[k] + delays[k, overlay.hub] for k in spokes)])
        starts = [averaged + delays[overlay.hub, k] - WORK[overlay.hub] if k in spokes else averaged for k in range(7)]


@pytest.mark.parametrize("name", ["star", *FIXED])
def test_in_the_long_run_a_round_takes_the_cycle_time(toy: RunRecord, name: str) -> None:
    overlay, rounds = told(toy, name), 6000
    times = start_times_ms(overlay, rounds)
    assert times[-1] / rounds == pytest.approx(np.full(len(PLACES), overlay.cycle_time_ms), rel=1e-3)


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("name", ["star", *FIXED])
def test_messages_waited_for_form_a_chain_without_slack(toy: RunRecord, name: str, steady: bool) -> None:
    overlay = told(toy, name)
    times = start_times_ms(overlay, 6, steady_start_ms(overlay) if steady else None)
    last = int(times[-1].argmax())
    legs = waited_for(overlay, times, last)
    assert (legs[0].receiver, legs[0].come_ms) == (last, times[-1].max())
    sent = {tuple(arc): d for arc, d in zip(overlay.arcs.tolist(), overlay.delays_ms, strict=True)}
    for leg in legs:
        under_way = sent[leg.sender, leg.receiver] - overlay.work_ms[leg.sender]
        assert leg.come_ms - leg.sent_ms == pytest.approx(under_way, rel=1e-9)
    for later, earlier in pairwise(legs):
        assert later.sender == earlier.receiver
        worked = 0.0 if later.sender == overlay.hub else float(overlay.work_ms[later.sender])
        assert later.sent_ms - earlier.come_ms == pytest.approx(worked, abs=1e-9)
    assert len(legs) == (12 if name == "star" else 6)


@pytest.mark.parametrize("name", FIXED)
def test_in_the_long_run_they_go_round_the_slowest_circuit(toy: RunRecord, name: str) -> None:
    overlay = told(toy, name)
    window = 12 * overlay.cycle_time_ms
    legs = chain_of(overlay, times_until(overlay, window), window)
    assert 11 <= len(legs) <= 24
    assert {(leg.sender, leg.receiver) for leg in legs} <= set(overlay.critical_arcs)
    once = len(overlay.circuit)
    assert legs[0].come_ms - legs[once].come_ms == pytest.approx(once * overlay.cycle_time_ms)
    assert 0 <= window - legs[0].come_ms < overlay.cycle_time_ms


def test_a_silo_that_only_waits_for_itself(toy: RunRecord) -> None:
    slow = told(toy, "ring")
    slow = replace(slow, work_ms=np.array([1e6, *slow.work_ms[1:]]))
    times = start_times_ms(slow, 3)
    assert waited_for(slow, times, 0) == []
    assert times[:, 0].tolist() == [0, 1e6, 2e6, 3e6]


@st.composite
def strong_overlays(draw: st.DrawFn) -> OverlayRecord:
    """A ring with chords and random times; sometimes a star."""
    silos = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hub = int(rng.integers(silos)) if draw(st.booleans()) else None
    pairs = {(k, (k + 1) % silos) for k in range(silos)} | {
        (int(a), int(b)) for a, b in rng.integers(silos, size=(4, 2))
    }
    if hub is not None:
        pairs = {pair for k in range(silos) for pair in ((k, hub), (hub, k))}
    arcs = np.array(sorted(pair for pair in pairs if pair[0] != pair[1]), np.int64)
    work = rng.uniform(0, 5, silos)
    delays = work[arcs[:, 0]] + rng.uniform(0, 20, len(arcs))
    matrix = np.full((silos, silos), -np.inf)
    matrix[tuple(arcs.T)] = delays
    np.fill_diagonal(matrix, work)
    cycle = max_cycle_mean(matrix)
    return OverlayRecord(
        name="any",
        names=tuple(f"s{k}" for k in range(silos)),
        arcs=arcs,
        delays_ms=delays,
        work_ms=work,
        circuit=cycle.circuit,
        hub=hub,
        cycle_time_ms=cycle.mean,
        potentials=cycle.potentials if hub is None else None,
    )


@given(strong_overlays(), st.floats(0.1, 200))
def test_spans_cover_the_window_once(overlay: OverlayRecord, window: float) -> None:
    times = times_until(overlay, window)
    assert times[-1].min() >= window
    assert times[0].max() <= 0
    for silo in range(len(overlay.names)):
        spans = spans_of(overlay, times, silo, window)
        assert (spans[0, 0], spans[-1, 2]) == (0, window)
        assert np.array_equal(spans[1:, 0], spans[:-1, 2]), "a round begins when the one before ends"
        assert (np.diff(spans, axis=1) >= 0).all(), "first work, then waiting"
        whole = (spans[:, 0] > 0) & (spans[:, 2] < window)
        assert (spans[whole, 1] - spans[whole, 0]) == pytest.approx(np.full(whole.sum(), overlay.work_ms[silo]))


def test_of_many_silos_some_are_drawn_those_on_slowest_circuits_first(toy: RunRecord) -> None:
    few = told(toy, "ring")
    assert shown_silos([few]) == list(range(7))
    names = tuple(f"s{k}" for k in range(90))
    many = replace(few, names=names, circuit=(3, 77, 78))
    shown = shown_silos([many, replace(many, circuit=(5,))])
    assert len(shown) == len(set(shown)) == 25
    assert {3, 5, 77, 78} <= set(shown)
    assert shown == sorted(shown)
    long = replace(many, circuit=tuple(range(60)))
    assert shown_silos([long]) == list(range(25))
    assert {70, 80} <= set(shown_silos([long], [Leg(70, 0.0, 80, 1.0)])), "ends of messages first"


def test_rounds_that_take_no_time_are_not_drawn(toy: RunRecord) -> None:
    still = replace(told(toy, "ring"), delays_ms=np.zeros(7), work_ms=np.zeros(7), cycle_time_ms=0.0)
    assert draw_rounds([still], styles(toy), name="r") is None
    assert draw_rounds([], styles(toy), name="r") is None


def test_the_first_panel_shows_its_rounds(toy: RunRecord) -> None:
    ring, star = told(toy, "ring"), told(toy, "star")
    svg = draw_rounds([ring, star], styles(toy), name="r")
    assert svg is not None
    window = ROUNDS * ring.cycle_time_ms
    assert f"ring {ring.cycle_time_ms:.2f} ms a round, 5 in {window:.2f} ms" in svg
    assert f"star {star.cycle_time_ms:.2f} ms a round, {window / star.cycle_time_ms:.3g} in {window:.2f} ms" in svg


# --- maps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["star", *FIXED])
def test_one_arrow_for_each_arc_and_the_slowest_circuit_is_marked(toy: RunRecord, name: str) -> None:
    overlay = told(toy, name)
    drawn = arrows(overlay)
    assert sorted((arrow.sender, arrow.receiver) for arrow in drawn) == sorted(map(tuple, overlay.arcs.tolist()))
    marked = {(arrow.sender, arrow.receiver) for arrow in drawn if arrow.critical}
    assert marked == set(overlay.critical_arcs)
    delays = dict(zip(map(tuple, overlay.arcs.tolist()), overlay.delays_ms, strict=True))
    if name != "star":
        mean = np.mean([delays[arc] for arc in overlay.critical_arcs])
        assert mean == pytest.approx(overlay.cycle_time_ms, rel=1e-12)
    arcs = set(delays)
    assert all((arrow.bow > 0) == ((arrow.receiver, arrow.sender) in arcs) for arrow in drawn)


@pytest.mark.parametrize("name", ["star", *FIXED])
def test_the_drawing_has_as_many_heads_as_arcs(toy: RunRecord, name: str) -> None:
    overlay, look = told(toy, name), styles(toy)[name]
    svg = draw_maps(toy, [overlay], styles(toy), name="m")
    assert svg is not None
    heads = re.findall(r"fill: (var\(--[\w-]+\)); stroke: \1; stroke-width", svg)
    assert len(heads) == len(overlay.arcs)
    assert heads.count("var(--ink)") == len(overlay.critical_arcs)
    assert heads.count(f"var(--{look.variable})") == len(overlay.arcs) - len(overlay.critical_arcs)
    links = re.findall(r"stroke: var\(--muted\); stroke-opacity: 0.35", svg)
    assert len(links) == len(scene_of(toy)["links"])
    assert all(f">{place}<" in svg for place in PLACES)


def test_a_silo_alone_sets_the_pace(toy: RunRecord) -> None:
    overlay = replace(told(toy, "ring"), circuit=(3,))
    assert overlay.critical_arcs == ()
    assert not any(arrow.critical for arrow in arrows(overlay))


def test_places_follow_the_globe_and_no_line_goes_round_it(toy: RunRecord) -> None:
    places = dict(zip(PLACES, np.asarray(places_of(toy)), strict=True))
    west_to_east = ["Tokyo", "Sydney", "Los Angeles", "New York", "London", "Paris", "Lagos"]
    across = [places[name][0] for name in west_to_east]
    assert across == sorted(across), "cut between Europe and Asia, the widest gap"
    assert places["London"][1] > places["Paris"][1] > places["Lagos"][1] > places["Sydney"][1]


def test_without_coordinates_distances_follow_latencies(copy: RunRecord) -> None:
    for seed in (0, 1):
        edit(copy, "lower_bound", seed, lambda event: event.update(scene={**event["scene"], "places": None}), "start")
    record = RunRecord.open(copy.folder)
    places = places_of(record)
    assert places is not None
    latency = np.array(record.events("network")[0]["latency_ms"])
    paper = np.linalg.norm(places[:, None] - places[None], axis=2)
    upper = np.triu_indices(len(PLACES), 1)
    assert np.corrcoef(paper[upper], latency[upper])[0, 1] > 0.9


@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0.01, 1000))
def test_maps_fill_their_box_without_bending_it(silos: int, seed: int, scale: float) -> None:
    places = scale * np.random.default_rng(seed).uniform(size=(silos, 2))
    points = on_paper(places, 400.0, 300.0)
    assert (points >= 32 - 1e-6).all()
    assert (points <= [368 + 1e-6, 268 + 1e-6]).all()
    before, after = (np.linalg.norm(each[:, None] - each[None], axis=2) for each in (places, points))
    ratio = after[before > 0] / before[before > 0]
    assert ratio == pytest.approx(np.full(len(ratio), ratio[0] if len(ratio) else 1.0), rel=1e-6)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_names_do_not_leave_the_drawing(count: int, seed: int) -> None:
    points = np.random.default_rng(seed).uniform((30, 30), (370, 270), (count, 2))
    texts = ["abc"] * count
    labels = place_labels(texts, range(count), points, size=8, taken=outside(400, 300))
    for label in labels:
        x, y = points[label.point] + label.away
        assert 0 <= x <= 400
        assert 0 <= y <= 300
    assert [label.point for label in labels] == list(range(count))


def test_names_of_two_neighbours_go_to_different_sides() -> None:
    labels = place_labels(["one", "two"], [0, 1], np.array([[0.0, 0.0], [8.0, 0.0]]), size=8)
    assert labels[0].sides != labels[1].sides


# --- bars -----------------------------------------------------------------------------------------------------------


def test_bars_say_bound_and_gap(toy: RunRecord) -> None:
    rows, bound = summarize_designs(toy), lower_bound(toy)["value_ms"]
    svg = cycle_times(rows, bound, styles(toy), name="t")
    assert svg is not None
    assert f"no fixed overlay below {bound:.2f} ms" in svg
    assert svg.count("above the bound") == 1, "the best one alone"
    for row in rows.values():
        assert f"{row['cycle_time_ms']:.2f} ms" in svg
    without = cycle_times(rows, None, styles(toy), name="t")
    assert without is not None
    assert "no fixed overlay below" not in without


def test_what_else_is_known_of_a_round_is_marked(toy: RunRecord) -> None:
    """A diamond with its interval, a triangle where shared links change anything; the axis goes as far."""
    plain, bound = summarize_designs(toy), lower_bound(toy)["value_ms"]
    ring = {**plain["ring"], "scattered_ms": {"mean": 900.0, "low": 880.0, "high": 920.0}}
    marked = cycle_times({**plain, "ring": {**ring, "fair_ms": 300.0}}, bound, styles(toy), name="t")
    without = cycle_times({**plain, "ring": {**plain["ring"], "fair_ms": None}}, bound, styles(toy), name="t")
    assert marked is not None
    assert without is not None
    assert marked.count("fill: var(--paper)") == without.count("fill: var(--paper)") + 2
    assert ">1000<" in marked
    assert ">1000<" not in without


def test_the_bound_is_not_for_drawn_overlays(toy: RunRecord) -> None:
    """One may be faster; what is told to be best is then another, with its gap."""
    rows, bound = summarize_designs(toy), lower_bound(toy)["value_ms"]
    assert rows["matcha"]["gap"] is None
    quick = {**rows, "matcha": {**rows["matcha"], "cycle_time_ms": bound / 2}}
    best = winner(quick)
    assert best is not None
    assert best == winner(rows) != "matcha"
    svg = cycle_times(quick, bound, styles(toy), name="t")
    assert svg is not None
    assert svg.index(">matcha<") < svg.index(f">{best}<"), "the fastest on top"
    assert svg.count("above the bound") == 1
    answer = design_answer(toy, quick)
    assert answer.startswith(best)
    assert f"Rounds of matcha ({bound / 2:.2f} ms) are drawn and shorter" in answer


def test_bars_of_very_different_length_are_ratios(toy: RunRecord) -> None:
    rows = summarize_designs(toy)
    far = {**rows, "star": {**rows["star"], "cycle_time_ms": 1e5, "least_ms": 1e5, "most_ms": 1e5}}
    svg = cycle_times(far, lower_bound(toy)["value_ms"], styles(toy), name="t")
    assert svg is not None
    assert ">100,000<" in svg


# --- pages ----------------------------------------------------------------------------------------------------------


def page_of(record: RunRecord, path: Path) -> str:
    return write_report([record], path).read_text("utf-8")


def figures_of(page: str) -> list[str]:
    return re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)


def test_the_page_shows_it_all_and_asks_for_nothing(toy: RunRecord, tmp_path: Path) -> None:
    page = page_of(toy, tmp_path / "a.html")
    assert re.findall(r"<h3>(.*?)</h3>", page) == HEADINGS
    assert len(figures_of(page)) == 4
    for svg in figures_of(page):
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert "<b>" not in page, "names cannot inject markup"
    assert not re.findall(r"""(?:href|src)=["']http|@import|<script""", page)
    assert '<th scope="col">Overlay</th>' in page
    assert "Bold: the best overlay." in page
    assert "rivage design" in page
    assert page_of(toy, tmp_path / "b.html") == page, "the same record, the same bytes"


def edit(
    record: RunRecord, name: str, seed: int, change: Callable[[dict[str, Any]], Any], kind: str = "overlay"
) -> None:
    """Change the events of a kind in a trial."""
    trial = next(each for each in trials_of(record, name) if each.seed == seed)
    events = [json.loads(line) for line in (trial.folder / "record.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == kind:
            change(event)
    (trial.folder / "record.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))


def cut(record: RunRecord, keep: int) -> RunRecord:
    """The run as it was after so many events, in the order in which they were told."""
    left = keep
    for seed in record.seeds:
        for name in ("lower_bound", "star", "mst", "ring", "matcha", "best", "<b>"):
            trial = next((t for t in trials_of(record, name) if t.seed == seed), None)
            if trial is None:
                continue
            path = trial.folder / "record.jsonl"
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(lines[:left]))
            left = max(0, left - len(lines))
    return RunRecord.open(record.folder)


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4, 5, 6, 9, 14, 20])
def test_a_run_that_was_stopped_after_any_event(copy: RunRecord, tmp_path: Path, keep: int) -> None:
    record = cut(copy, keep)
    game = view(record)
    assert "best, seed 1: no overlay yet" in game.progress
    assert ("no lower bound yet" in game.progress) == (keep < 4)
    if keep < 6:  # start, network, bound, end; start of star
        assert "there is no answer to report" in game.answer
        assert best_of(game.policies) is None
    else:
        assert "the fastest" in game.answer
    if keep in (0, 3, 9):
        page = page_of(record, tmp_path / "a.html")
        assert "This run has not finished" in page
        assert len(figures_of(page)) == (4 if keep == 9 else 0)
    json.dumps(game.more, allow_nan=False)


def test_without_a_bound_there_is_no_gap(copy: RunRecord, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.rmtree(copy.trial_folder("lower_bound", seed))
    record = RunRecord.open(copy.folder)
    game = view(record)
    assert "not known yet" in game.answer
    assert (game.more["lower_bound_ms"], game.more["gap"], game.facts) == (None, None, {})
    assert {row["gap"] for row in game.rows} == {"–"}
    assert re.findall(r"<h3>(.*?)</h3>", page_of(record, tmp_path / "a.html")) == HEADINGS[1::2]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda event: event["delays_ms"].pop(), "7 arcs of 7 silos have 6 delays"),
        (lambda event: event["work_ms"].append(1.0), "8 times of work"),
        (lambda event: event["potentials"].pop(), "7 silos have 6 potentials"),
        (lambda event: event["arcs"].__setitem__(0, ["Paris", "Atlantis"]), 'no silo "Atlantis"'),
        (lambda event: event.update(critical_circuit=["Mu"]), 'no silo "Mu"'),
        (lambda event: event.update(hub="Mu"), 'no silo "Mu"'),
    ],
)
def test_records_that_contradict_themselves(
    copy: RunRecord, change: Callable[[dict[str, Any]], Any], part: str
) -> None:
    for seed in (0, 1):
        edit(copy, "ring", seed, change)
    record = RunRecord.open(copy.folder)
    with pytest.raises(StoreError, match=re.escape(part)) as caught:
        OverlayRecord.of(trials_of(record, "ring")[0], scene_of(record)["names"])
    assert "ring" in str(caught.value.where)
    assert caught.value.mend


def test_only_drawn_overlays(tmp_path: Path) -> None:
    """There is no slowest circuit and there are no rounds to draw, but a map of all links that are ever used."""
    record = study(tmp_path, overlays=[{"kind": "matcha", "rounds": 20}], run={"seeds": [0]})
    page = page_of(record, tmp_path / "a.html")
    assert re.findall(r"<h3>(.*?)</h3>", page) == [HEADINGS[0], HEADINGS[1], HEADINGS[3]]
    assert "matcha: 42 arcs among 7 silos." in page
    assert re.search(r"[\d.]+ ± [\d.]+", view(record).rows[0]["time"]), "with its standard error"


def test_a_single_silo(tmp_path: Path) -> None:
    nodes = {"kind": "described", "nodes": [{"name": "alone"}], "links": []}
    silos = {"model_bits": 1e6, "step_ms": 10.0, "core_bps": 1e9, "paths": "links"}
    record = study(tmp_path, underlay=nodes, silos=silos, overlays=[{"kind": "ring"}, {"kind": "star"}])
    page = page_of(record, tmp_path / "a.html")
    assert "ring and star are the fastest, 10.00 ms a round, at most 0 % above" in page
    assert view(record).rows[0]["circuit"] == "alone alone"


def test_measured_matrices_have_neither_links_nor_places(tmp_path: Path) -> None:
    (tmp_path / "ms.csv").write_text("site,a,b,c\na,0,10,40\nb,12,0,20\nc,40,22,0\n")
    (tmp_path / "bps.csv").write_text("site,a,b,c\na,0,1e9,1e8\nb,1e9,0,1e9\nc,1e8,1e9,0\n")
    table = {"kind": "matrices", "latency": str(tmp_path / "ms.csv"), "bandwidth": str(tmp_path / "bps.csv")}
    record = study(
        tmp_path,
        underlay=table,
        silos={"model_bits": 1e7, "step_ms": 5.0},
        overlays=[{"kind": "mst"}, {"kind": "ring"}],
    )
    page = page_of(record, tmp_path / "a.html")
    assert re.findall(r"<h3>(.*?)</h3>", page) == HEADINGS
    assert "distances follow the latencies" in page
    assert "Faint: links" not in page
    assert view(record).facts["Uplinks of silos"] == "never the bottleneck"


# --- published networks ---------------------------------------------------------------------------------------------


def published(folder: Path, root: Path, name: str, overlays: Sequence[dict[str, Any]], access: float) -> RunRecord:
    silos = {"model_bits": 44_961_717, "step_ms": 25.4, "access_bps": access, "core_bps": 1e9, "paths": "published"}
    underlay = {"kind": "file", "path": str(root / "underlays" / f"{name}.gml")}
    tables = {"underlay": underlay, "silos": silos, "overlays": list(overlays), "bound": {"seconds": 2.0}}
    return study(folder, name=name, run={"seeds": [0]}, **tables)


def test_gaia_as_published(data_root: Path, tmp_path: Path) -> None:
    """Marfoq et al. 2020, Table 3: 391, 138 and 118 ms; the bound is São Paulo's."""
    overlays = [{"kind": "star", "hub": "first"}, {"kind": "mst"}, {"kind": "ring"}]
    record = published(tmp_path, data_root, "gaia", overlays, 1e10)
    game = view(record)
    times = {name: row["cycle_time_ms"] for name, row in game.policies.items()}
    assert times == pytest.approx({"star": 390.9, "mst": 138.1, "ring": 118.1}, abs=0.1)
    assert game.answer.startswith("ring is the fastest, 118.10 ms a round, at most 3.6 % above")
    assert "17 % longer over mst and 3.3 times as long over star" in game.answer
    assert "Sao Paulo" in game.facts["Lower bound"]
    drawings = {each.heading: each for each in game.drawings(styles(record), "x")}
    assert list(drawings) == HEADINGS
    assert "Every two silos have a link" in drawings[HEADINGS[0]].caption, "which would hide the rest"
    assert "118.10 ms a round, 5 in" in drawings[HEADINGS[2]].svg


def test_slow_access_stretches_the_star(data_root: Path, tmp_path: Path) -> None:
    overlays = [{"kind": "star", "hub": "first"}, {"kind": "ring"}]
    record = published(tmp_path, data_root, "geantdistance", overlays, 1e8)
    rows = summarize_designs(record)
    assert rows["star"]["cycle_time_ms"] / rows["ring"]["cycle_time_ms"] > 60
    svg = cycle_times(rows, lower_bound(record)["value_ms"], styles(record), name="t")
    assert svg is not None
    assert ">30,000<" in svg, "lengths of bars are ratios"
    ring = told(record, "ring")
    assert np.array_equal(start_times_ms(ring, 20), true_start_times(real(record, ring), 20))

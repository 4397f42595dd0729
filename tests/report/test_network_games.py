"""The page of a run in a network of caches: what it says, what it draws, and when there is little to say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.games import view
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.graphs import topologies
from rivage.report import write_report
from rivage.report.games.network_map import layout
from rivage.report.games.network_numbers import most_saved, summarize_network

pytest.importorskip("matplotlib", reason="needs the extra report")
pytest.importorskip("jinja2", reason="needs the extra report")


def write(
    folder: Path,
    saved: dict[str, list[float]],
    *,
    bounds: dict[str, float] | None = None,
    relaxed: float | None = 0.6,
    placed: float | None = 0.55,
    slots: Sequence[int] = (4, 4),
    points: int = 20,
    free: int = 0,
    ends: bool = True,
    drawn: bool = True,
    factor: float | None = 0.5,
) -> RunRecord:
    """Policies in a triangle that save a share of a cost of 1,000, one number per seed; bounds are costs."""
    settings = {
        "name": "toy",
        "network": {"kind": "cycle", "nodes": 3},
        "policies": [{"kind": name} for name in saved],
        "run": {"seeds": [0, 1]},
    }
    record = RunRecord.create(folder, "toy", settings)
    network = {"names": ["a", "<b>", "c"], "links": [[0, 1], [1, 2], [0, 2]], "weights": [1.0, 1.0, 1.0]}
    network |= {"capacities": [2, 2, 0], "serves": [0, 0, 9], "origins": [0]}
    for name, shares in saved.items():
        for seed, share in enumerate(shares):
            trial = TrialRecord.open(record.trial_folder(name, seed))
            bound = (bounds or {}).get(name)
            trial.append(start(name, seed, None if bound is None else factor, slots[seed]))
            if drawn:
                trial.append({"event": "network", **network})
            sides = {
                key: None if side is None else 1000.0 * side for key, side in (("relaxed", relaxed), ("placed", placed))
            }
            trial.append({"event": "optimum", **sides, "asked": 1000.0})
            for number in range(1, points + 1):
                asked = 1000.0 / 20 * max(number - free, 0)
                sums = {"gain": asked * share, "cost": asked * (1 - share), "asked": asked}
                counts = {"requests": 100 * number, "hits": 40 * number, "moves": 3 * number, "control": 7 * number}
                trial.append({"event": "point", **sums, **counts, "bound": bound})
            if ends:
                if drawn:
                    trial.append({"event": "placement", "held": [2, 1, 0], "answered": [600, 200, 0]})
                trial.append({"event": "end", "steps": 100 * points})
                trial.append_timing({"requests": 2000, "seconds": 0.001})
    return RunRecord.open(record.folder)


def start(name: str, seed: int, factor: float | None, slots: int) -> dict[str, object]:
    facts = {"event": "start", "method": name, "policy": name, "kind": name, "seed": seed, "foresees": False}
    trace = {"name": "t", "requests": 2000, "items": 9, "distinct": 8, "types": 8}
    network = {"name": "cycle of 3", "nodes": 3, "links": 3, "slots": slots, "origins": 1, "servers": 1}
    return {**facts, "factor": factor, "reference": None, "trace": trace, "network": network}


def test_the_answer_names_the_winner_and_what_it_lacks(tmp_path: Path) -> None:
    told = view(write(tmp_path, {"tg": [0.45, 0.45], "grd": [0.5, 0.5]}, bounds={"tg": 20.0}))
    assert told.answer == (
        "With 4 slots in 3 nodes grd is best, share of the cost saved 0.500. No fixed placement saves more than 0.600; "
        "one that greed finds in hindsight saves 0.550. grd promises nothing for other requests; of the policies with "
        "a guarantee tg is best, 0.450, 0.050 less: it promises 0.500 of what the best fixed placement saves, less "
        "0.020: here that is at most 0.280, and kept."
    )
    assert told.compared == "2 policies on 2,000 requests for 9 items, cycle of 3: 3 nodes, 4 slots, 2 seeds"
    assert told.progress == []


@pytest.mark.parametrize(
    ("saved", "more", "part"),
    [
        ({"tg": [0.45, 0.45]}, {"bounds": {"tg": 20.0}}, "It promises 0.500 of what"),
        ({"tg": [0.45, 0.45]}, {"bounds": {"tg": 300.0}}, "less 0.300: here that is nothing"),
        ({"tg": [0.2, 0.2]}, {"bounds": {"tg": 20.0}}, "here that is at most 0.280."),
        ({"tg": [0.45, 0.45]}, {"bounds": {"tg": 20.0}, "relaxed": None}, "how much that is, nobody knows"),
        ({"lru": [0.4, 0.4]}, {}, "No policy here promises anything."),
        ({"tg": [0.45, 0.45]}, {"bounds": {"tg": 20.0}, "factor": None}, "No policy here promises anything."),
        ({"lru": [0.7, 0.7]}, {}, "It changes what it holds, and does better than that."),
        ({"lru": [0.4, 0.4]}, {"relaxed": None}, "found by greed in hindsight, would have saved 0.550"),
        ({"lru": [0.4, 0.4]}, {"relaxed": None, "placed": None}, "a fixed placement could have saved is not known"),
        ({"lru": [0.4, 0.4]}, {"placed": None}, "No fixed placement saves more than 0.600. No policy"),
        ({"lru": [0.0, 0.0], "tg": [0.0, 0.0]}, {"bounds": {"tg": 20.0}}, "how much that is, nobody knows"),
        ({"a": [0.4, 0.6], "b": [0.45, 0.53]}, {}, "0.500 ± 0.141 (b within one standard deviation)"),
        ({"lru": [0.4, 0.4]}, {"slots": (4, 7)}, "With 4 to 7 slots in 3 nodes"),
    ],
)  # fmt: skip
def test_other_answers(tmp_path: Path, saved: dict[str, list[float]], more: dict[str, object], part: str) -> None:
    assert part in view(write(tmp_path, saved, **more)).answer  # type: ignore[arg-type]


def test_the_numbers(tmp_path: Path) -> None:
    record = write(tmp_path, {"tg": [0.2, 0.4], "lru": [0.1, 0.1]}, bounds={"tg": 20.0})
    tg, lru = summarize_network(record).values()
    assert (tg["cost_saved"], tg["gain"], tg["hit_ratio"]) == pytest.approx((0.3, 300.0, 0.4))
    assert tg["cost_saved_std"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert (tg["regret"], tg["regret_bound"], tg["factor"]) == (pytest.approx(0.0), 20.0, 0.5)
    assert (tg["update_items"], tg["control_messages"]) == (60, 140)
    assert tg["requests_per_s"] == pytest.approx(2e6)
    assert (lru["regret"], lru["regret_bound"], lru["factor"]) == (None, None, None)
    assert lru["cost_saved_std"] == 0, "what does not vary has no spread"
    assert most_saved(record) == pytest.approx((0.6, 0.55))


def test_a_promise_is_judged_at_the_end_only(tmp_path: Path) -> None:
    """Before, the gain of a few requests would stand beside the best placement for all of them."""
    row = summarize_network(write(tmp_path, {"tg": [0.2]}, bounds={"tg": 20.0}, points=5, ends=False))["tg"]
    assert (row["cost_saved"], row["regret"], row["finished"]) == (pytest.approx(0.2), None, False)


def figures_of(page: str) -> list[str]:
    return re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)


def test_the_page_shows_it_all_and_asks_for_nothing(tmp_path: Path) -> None:
    record = write(tmp_path, {"tg": [0.45, 0.46], "lru": [0.3, 0.3]}, bounds={"tg": 20.0})
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    for heading in ("Cost saved over time", "Moves over time", "Who answers"):
        assert f"<h3>{heading}</h3>" in page
    drawn = figures_of(page)
    assert len(drawn) == 3
    for svg in drawn:
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert "<b>" not in page, "names cannot inject markup"
    assert "The network under tg; most requests would be answered at a 30 %" in page
    assert not re.findall(r"""(?:href|src)=["']http|@import|<script""", page)
    assert "rivage play" in page
    assert write_report([record], tmp_path / "b.html").read_text("utf-8") == page, "the same record, the same bytes"


@pytest.mark.parametrize("points", [0, 1, 2])
def test_a_run_that_has_hardly_begun(tmp_path: Path, points: int) -> None:
    record = write(tmp_path, {"lru": [0.4]}, points=points, ends=False)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "This run has not finished" in page
    assert f"lru, seed 0: stopped after {100 * points} requests" in page
    assert "lru, seed 1: not begun" in page


def test_a_trial_that_stopped_before_its_yardsticks(tmp_path: Path) -> None:
    record = write(tmp_path, {"lru": [0.4, 0.4]})
    trial = TrialRecord.open(record.trial_folder("tg", 0))
    trial.append(start("tg", 0, 0.5, 4))
    record = RunRecord.open(record.folder)
    assert summarize_network(record)["tg"]["cost_saved"] is None
    assert "lru is best" in view(record).answer
    assert "tg, seed 0: stopped after 0 requests" in view(record).progress
    write_report([record], tmp_path / "a.html")


def test_a_run_that_has_just_been_created(tmp_path: Path) -> None:
    settings = {"name": "toy", "network": {"kind": "geant"}, "policies": [{"kind": "grd"}], "run": {"seeds": [0]}}
    page = write_report([RunRecord.create(tmp_path, "toy", settings)], tmp_path / "a.html").read_text("utf-8")
    assert "No policy has begun." in page
    assert "grd, seed 0: not begun" in page


def test_costs_may_begin_late(tmp_path: Path) -> None:
    """As long as nothing that was asked for costs anything, there is no share of the cost."""
    page = write_report([write(tmp_path, {"lru": [0.4]}, free=7)], tmp_path / "a.html").read_text("utf-8")
    assert "lru ends at 0.4" in page


def test_large_networks_are_not_drawn(tmp_path: Path) -> None:
    page = write_report([write(tmp_path, {"lru": [0.4]}, drawn=False)], tmp_path / "a.html").read_text("utf-8")
    assert "Who answers" not in page
    assert len(figures_of(page)) == 2


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_places_are_in_the_unit_square_and_apart(nodes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    links = np.array([(node, random.integers(node)) for node in range(1, nodes)], np.int64)
    places = layout(nodes, links)
    assert np.isfinite(places).all()
    assert places.min() >= -1e-9
    assert places.max() <= 1 + 1e-9
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(nodes)
    assert gaps.min() > 1e-4
    assert np.array_equal(places, layout(nodes, links))


def test_the_layout_of_a_line_is_a_line_and_that_of_a_cycle_round() -> None:
    line = layout(6, topologies.path(6).edges)
    gaps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    assert gaps == pytest.approx(np.full(5, gaps.mean()), rel=1e-3)
    assert np.linalg.norm(line[-1] - line[0]) == pytest.approx(gaps.sum(), rel=1e-2)
    ring = layout(8, topologies.cycle(8).edges)
    radii = np.linalg.norm(ring - ring.mean(axis=0), axis=1)
    assert radii == pytest.approx(np.full(8, radii.mean()), rel=1e-2)


def test_a_single_node_stands_in_the_middle() -> None:
    assert layout(1, np.zeros((0, 2), np.int64)).tolist() == [[0.5, 0.5]]

"""Pages and numbers of delivery runs, from records written by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rivage.core.games import view
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report import write_report
from rivage.report.games.placements import _gap

SCENE = {
    "network": "toy",
    "nodes": ["phone", "<b>edge</b>", "cloud"],
    "tiers": ["user", "edge", "cloud"],
    "links": [[0, 1], [1, 2]],
    "models": ["s", "l"],
    "tasks": ["see"],
    "catalog": "mine",
    "types": 1,
    "ways": 6,
    "slots": 10,
    "requests": 100.0,
    "alpha": 1.0,
    "deadlines": True,
}


def start(method: str, seed: int, foresees: bool = False) -> dict[str, Any]:
    facts = {"policy": method, "kind": method, "foresees": foresees, "settings": {}, "reference": None, "scene": SCENE}
    return {"event": "start", "method": method, "seed": seed, "fingerprint": "f", **facts}


def point(slots: int, cost: float, **more: Any) -> dict[str, Any]:
    """Ten requests per slot, half of them answered at the edge."""
    count = 10.0 * slots
    return {
        "event": "point",
        "slots": slots,
        "requests": count,
        "cost": cost * count,
        "base": 100.0 * count,
        "gain": (100.0 - cost) * count,
        "fractional": 0.0,
        "ntag": 100.0 - cost,
        "moved": 30.0,
        "loads": 2,
        "latency_ms": cost / 2,
        "latency_quantiles_ms": [1.0, 2.0, 3.0],
        "accuracy": 0.6,
        "in_time": 0.9,
        "by_node": [0.0, count / 2, count / 2],
        "regret": None,
        "bound": None,
        **more,
    }


def write(parent: Path, verb: str, costs: dict[str, list[float]], least: float = 60.0, ends: bool = True) -> RunRecord:
    """One trial for each cost; the seeds are 0, 1 and on."""
    table = "planners" if verb == "place" else "policies"
    named = [{"kind": "x", "name": name} for name in costs]
    count = len(next(iter(costs.values())))
    record = RunRecord.create(
        parent, "toy", {"name": "toy", "delivery": {}, table: named, "run": {"seeds": list(range(count))}}
    )
    for name, values in costs.items():
        for seed, cost in enumerate(values):
            trial = TrialRecord.open(record.trial_folder(name, seed))
            trial.append(start(name, seed, foresees=name == "seer"))
            if verb == "place":
                bound = {"least": 10 * least, "memory_prices": [0.0, 2.5, 0.0], "budgets": [10.0, 30.0, None]}
                curves = {"memory": [[0.0, 990.0], [1.0, 600.0]], "alphas": [[0.5, 9.0, 0.5], [1.0, 10.0, 0.6]]}
                trial.append({"event": "relaxation", **bound, **curves, "links": [[0, 1, 10.0], [1, 2, 5.0]]})
                row = [0, 0, 1, 0, 5.0, 10.0, cost]
                trial.append(point(1, cost, routing=[row, [0, 0, 2, 1, 5.0, 50.0, cost]]))
            else:
                trial.append({"event": "reference", "least": 10 * least})
                for slots in (5, 10):
                    trial.append(point(slots, cost))
            trial.append({"event": "placed", "loaded": [[], [0], [0, 1]], "used": [0.0, 20.0, 0.0]})
            if ends:
                trial.append({"event": "end", "steps": 1})
                trial.append_timing({"slots": 10, "seconds": 0.5})
    return RunRecord.open(record.folder)


def test_the_plan_of_the_best_planner_is_told(tmp_path: Path) -> None:
    shown = view(write(tmp_path, "place", {"a": [70.0, 72.0], "b": [66.0, 69.0]}))
    assert list(shown.policies) == ["a", "b"]
    assert (shown.more["planner"], shown.more["cost"], shown.more["lp_bound"]) == ("b", 67.5, 60.0)
    assert shown.more["gap"] == pytest.approx((6 / 60 + 9 / 60) / 2)
    assert shown.more["allocation"] == {"phone": [], "<b>edge</b>": ["s"], "cloud": ["s", "l"]}
    prices = shown.more["shadow_prices"]
    assert prices["memory_ms_per_mb"] == {"phone": 0.0, "<b>edge</b>": 2.5}, "what has no limit has no price"
    assert prices["links_ms_per_ms"] == {"phone – <b>edge</b>": 10.0, "<b>edge</b> – cloud": 5.0}
    assert "b is best" in shown.answer
    assert "More memory is worth most on <b>edge</b>" in shown.answer
    assert [row["best"] for row in shown.rows] == [False, True]


def test_the_best_policy_is_told_and_yardsticks_are_none(tmp_path: Path) -> None:
    shown = view(write(tmp_path, "play", {"a": [70.0], "b": [66.0], "seer": [50.0]}))
    assert shown.answer.startswith("b ")
    assert "6.000 below what no fixed allocation exceeds" in shown.answer
    assert shown.policies["a"]["most_gain"] == pytest.approx(40.0)
    assert shown.policies["a"]["tiers"] == {"user": 0.0, "edge": 0.5, "cloud": 0.5}
    assert [(row["policy"], row["best"]) for row in shown.rows] == [("a", False), ("b", True), ("seer", False)]
    above = view(write(tmp_path / "above", "play", {"a": [55.0]}))
    assert "5.000 above what no fixed allocation exceeds" in above.answer


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0.0, "0 %"), (-1e-10, "0 %"), (2.1e-4, "0.021 %"), (0.125, "12 %")]
)
def test_gaps(share: float | None, text: str) -> None:
    assert _gap(share) == text


@pytest.mark.parametrize("verb", ["place", "play"])
def test_the_page_shows_it_all_and_asks_for_nothing(tmp_path: Path, verb: str) -> None:
    record = write(tmp_path, verb, {"a": [70.0], "b": [66.0]})
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    drawn = re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)
    assert len(drawn) >= 4
    for svg in drawn:
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert "<b>" not in page, "names cannot inject markup"
    assert not re.findall(r"""(?:href|src)=["']http|@import|<script""", page)
    assert write_report([record], tmp_path / "b.html").read_text("utf-8") == page, "the same record, the same bytes"


@pytest.mark.parametrize("verb", ["place", "play"])
def test_a_run_that_has_hardly_begun(tmp_path: Path, verb: str) -> None:
    record = write(tmp_path, verb, {"a": [70.0]}, ends=False)
    trial = TrialRecord.open(record.trial_folder("late", 0))
    trial.append(start("late", 0))
    record = RunRecord.open(record.folder)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "This run has not finished" in page
    table = "planners" if verb == "place" else "policies"
    empty = RunRecord.create(
        tmp_path / "new", "toy", {"name": "toy", "delivery": {}, table: [{"kind": "x"}], "run": {"seeds": [0]}}
    )
    assert "no answer" in view(empty).answer
    write_report([empty], tmp_path / "b.html")

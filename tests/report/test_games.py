"""The page of a run of policies: what it says, what it draws, and when there is little to say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report import write_report
from rivage.report.games.cache_numbers import capacities, optima, summarize_policies
from rivage.report.games.cache_words import game_answer, game_compared, game_progress

pytest.importorskip("matplotlib", reason="needs the extra report")
pytest.importorskip("jinja2", reason="needs the extra report")

POINTS = 20


def write(
    folder: Path,
    saved: dict[str, list[float]],
    *,
    bounds: dict[str, float] | None = None,
    sizes: tuple[int, ...] = (10,),
    seers: tuple[str, ...] = (),
    weighted: bool = False,
    points: int = POINTS,
    ends: bool = True,
    places: int | None = None,
    free: int = 0,
) -> RunRecord:
    """Policies that save a share of the cost, one number per seed; the best fixed set saves half and more with size."""
    settings = {
        "name": "toy",
        "cache": {"capacity": list(sizes)},
        "policies": [{"kind": name} for name in saved],
        "run": {"seeds": [0, 1]},
    }
    record = RunRecord.create(folder, "toy", settings)
    trace = {"name": "t", "requests": 2000, "items": 100, "distinct": 90, "weighted": weighted, "fingerprint": "f"}
    for name, shares in saved.items():
        for place, size in enumerate(sizes):
            for seed, share in enumerate(shares):
                trial = TrialRecord.open(record.trial_folder(f"{name}@{size}", seed))
                facts = {"method": f"{name}@{size}", "policy": name, "kind": name, "seed": seed, "capacity": size}
                more = {"place": place, "places": places or len(sizes), "foresees": name in seers}
                more |= {"trace": trace, "reference": None}
                trial.append({"event": "start", **facts, **more})
                for number in range(1, points + 1):
                    asked, best, bound = 100.0 * max(number - free, 0), 0.5 + place / 10, (bounds or {}).get(name)
                    trial.append(point(100 * number, asked, share + place / 10, best, bound))
                if ends:
                    trial.append({"event": "end", "requests": 2000})
                    trial.append_timing({"requests": 2000, "seconds": 0.001})
    return RunRecord.open(record.folder)


def point(count: int, asked: float, share: float, best: float, bound: float | None) -> dict[str, Any]:
    gain, optimum = asked * share, asked * best
    sums = {"hits": gain, "gain": gain, "fractional": gain, "inserted": asked - gain, "prefetched": 0.0}
    regret = {"optimum": optimum, "windowed": None, "regret": optimum - gain, "bound": bound}
    return {"event": "point", "requests": count, "asked": asked, "occupancy": 10.0, **sums, **regret}


def test_the_answer_names_the_winner_and_what_it_lacks(tmp_path: Path) -> None:
    record = write(tmp_path, {"ogb": [0.45], "s3": [0.6], "best": [0.5]}, bounds={"ogb": 300.0}, seers=("best",))
    assert game_answer(record) == (
        "With 10 of 100 items s3 is best, hit ratio 0.600, 0.100 above the best fixed set in hindsight. s3 promises "
        "nothing for other requests; of the policies with a guarantee ogb is best, 0.450, 0.150 less: regret 100, at "
        "most 300 promised. Following what was asked for lately pays off here; no fixed set can do that."
    )
    assert game_compared(record) == "3 policies on 2,000 requests for 100 items, 1 capacity, 1 seed"
    assert game_progress(record) == ["ogb, seed 1: not begun", "s3, seed 1: not begun", "best, seed 1: not begun"]


@pytest.mark.parametrize(
    ("saved", "bounds", "part"),
    [
        (
            {"ogb": [0.5, 0.5]},
            {"ogb": 9.0},
            "as much as the best fixed set in hindsight. It keeps its promise",
        ),
        ({"ogb": [0.4, 0.4]}, {"ogb": 9.0}, "regret 200, MORE than the 9 promised"),
        ({"lru": [0.4, 0.4]}, {}, "0.100 below the best fixed set in hindsight. No policy here promises anything."),
        (
            {"a": [0.4, 0.6], "b": [0.45, 0.53]},
            {},
            "hit ratio 0.500 ± 0.141 (b within one standard deviation)",
        ),
        ({"a": [0.4, 0.6], "b": [0.4, 0.4], "c": [0.35, 0.35]}, {}, "± 0.141 (b within one standard deviation)"),
    ],
)
def test_other_answers(tmp_path: Path, saved: dict[str, list[float]], bounds: dict[str, float], part: str) -> None:
    assert part in game_answer(write(tmp_path, saved, bounds=bounds))


def test_who_foresees_never_wins(tmp_path: Path) -> None:
    record = write(tmp_path, {"best": [0.5], "lru": [0.1]}, seers=("best",))
    assert "lru is best" in game_answer(record)
    alone = write(tmp_path / "alone", {"best": [0.5]}, seers=("best",))
    assert game_answer(alone).startswith("No policy without foresight has been played")


def test_numbers_by_capacity(tmp_path: Path) -> None:
    record = write(tmp_path, {"lru": [0.2, 0.4], "ogb": [0.1, 0.1]}, sizes=(30, 10), bounds={"ogb": 5.0})
    assert capacities(record) == (30, 10)
    assert optima(record) == pytest.approx({10: 0.6, 30: 0.5})
    assert [trial.method for trial in record.trials][::2] == ["lru@30", "lru@10", "ogb@30", "ogb@10"]
    lru = summarize_policies(record)["lru"]
    assert (lru["capacity"], lru["hit_ratio"]) == (30, pytest.approx(0.3))
    assert lru["hit_ratio_std"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert lru["requests_per_s"] == pytest.approx(2e6)
    assert summarize_policies(record)["ogb"]["hit_ratio_std"] == 0, "what does not vary has no spread, not 1e-17"


def figures_of(page: str) -> list[str]:
    return re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)


def test_the_page_shows_it_all_and_asks_for_nothing(tmp_path: Path) -> None:
    record = write(tmp_path, {"ogb": [0.45, 0.46], "lru": [0.6, 0.6]}, bounds={"ogb": 300.0}, sizes=(10, 20, 40))
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    for heading in ("How much cache to buy", "Cost over time", "Regret and what was promised", "Items in the cache"):
        assert f"<h3>{heading}</h3>" in page
    drawn = figures_of(page)
    assert len(drawn) == 5
    for svg in drawn:
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert not re.findall(r"""(?:href|src)=["']http|@import|<script""", page)
    assert "rivage play" in page
    assert write_report([record], tmp_path / "b.html").read_text("utf-8") == page, "the same record, the same bytes"


@pytest.mark.parametrize("points", [0, 1, 2])
def test_a_run_that_has_hardly_begun(tmp_path: Path, points: int) -> None:
    record = write(tmp_path, {"lru": [0.4]}, points=points, ends=False)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "This run has not finished" in page
    assert f"lru@10, seed 0: stopped after {100 * points} requests" in page
    assert "lru, seed 1: not begun" in page


def test_capacities_that_have_not_begun_are_missing_too(tmp_path: Path) -> None:
    record = write(tmp_path, {"lru": [0.4, 0.4], "ogb": [0.3]}, sizes=(10, 20), places=5)
    assert game_progress(record) == [
        "lru, seed 0: 3 of 5 capacities not begun",
        "lru, seed 1: 3 of 5 capacities not begun",
        "ogb, seed 0: 3 of 5 capacities not begun",
        "ogb, seed 1: not begun",
    ]
    assert game_progress(write(tmp_path / "all", {"lru": [0.4, 0.4]}, sizes=(10, 20), places=2)) == []


def test_costs_may_begin_late(tmp_path: Path) -> None:
    """As long as nothing that was asked for costs anything, there is no share of the cost."""
    record = write(tmp_path, {"lru": [0.4]}, weighted=True, free=7)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "lru ends at 0.6" in page


def test_a_run_that_has_just_been_created(tmp_path: Path) -> None:
    settings = {"name": "toy", "cache": {"capacity": 9}, "policies": [{"kind": "lru"}], "run": {"seeds": [0]}}
    record = RunRecord.create(tmp_path, "toy", settings)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "No policy has begun." in page
    assert "lru, seed 0: not begun" in page


def test_costs_have_a_column_of_their_own(tmp_path: Path) -> None:
    record = write(tmp_path, {"lru": [0.4, 0.4]}, weighted=True)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "Cost saved" in page
    assert "share of the cost saved 0.400" in page


def test_runs_side_by_side(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"lru": [0.4]})
    two = write(tmp_path / "two", {"lru": [0.3], "ogb": [0.2]})
    page = write_report([one, two], tmp_path / "a.html").read_text("utf-8")
    assert "2 runs compared" in page
    assert page.count("<article") == 2


def test_names_cannot_inject_markup(tmp_path: Path) -> None:
    record = write(tmp_path, {"<b>&": [0.4, 0.4]}, bounds={"<b>&": 9.0}, sizes=(10, 20))
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "<b>" not in page

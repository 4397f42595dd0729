"""Training against simulated time: a real decentralised run, one on devices, and numbers known beforehand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report import write_report
from rivage.report.clock_figures import ClockCurve, against_time, clock_curves, first_reached, told_reached
from rivage.report.theme import looks
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study

MakeRun = Callable[..., RunRecord]
STUDY = """
name = "silos"
[data]
kind = "digits"
[partition]
kind = "dirichlet"
clients = 4
alpha = 1.0
[underlay]
kind = "cities"
places = ["Paris", "London", "Tokyo", "Lagos"]
ms_per_km = 0.0085
[silos]
model_bits = 1e7
step_ms = 10.0
core_bps = 1e9
access_bps = 1e7
[task]
model = "linear"
[[methods]]
kind = "local"
[[methods]]
name = "ring"
kind = "dpsgd"
[[methods]]
name = "star"
kind = "dpsgd"
overlay = { kind = "star" }
[run]
rounds = 6
seeds = [0, 1]
[evaluation]
every = 2
"""


@pytest.fixture(scope="module")
def silos(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run_study(parse_study(STUDY), out=tmp_path_factory.mktemp("runs"))


def styles(record: RunRecord) -> Mapping[str, Any]:
    return looks((trial.method, trial.kind) for trial in record.trials)


def test_curves_stand_at_the_clock_of_the_rounds(silos: RunRecord) -> None:
    curves = clock_curves(silos, "metric")
    assert list(curves) == ["ring", "star"], "local has no clock"
    for method, curve in curves.items():
        clocks = [[e["clock_ms"] for e in silos.trial(method, seed).events("round")] for seed in (0, 1)]
        evaluated = [e["round"] for e in silos.trial(method, 0).events("evaluation") if e["group"] == "seen"]
        assert evaluated[-1] == 6
        expected = [np.mean([clock[done - 1] for clock in clocks]) / 1000 if done else 0.0 for done in evaluated]
        assert curve.seconds == pytest.approx(expected)
        finals = [silos.trial(method, seed).final("seen") for seed in (0, 1)]
        means = [np.average(final["test"], weights=final["test_size"]) for final in finals if final is not None]
        assert (curve.low[-1], curve.mean[-1], curve.high[-1]) == pytest.approx(
            (min(means), np.mean(means), max(means))
        )
    assert curves["star"].seconds[-1] > 1.5 * curves["ring"].seconds[-1], "slow access links make stars slow"


def test_disagreement_is_told_after_each_round(silos: RunRecord) -> None:
    curve = clock_curves(silos, "consensus")["ring"]
    events = [silos.trial("ring", seed).events("round") for seed in (0, 1)]
    assert curve.mean == pytest.approx(np.mean([[e["consensus"] for e in seed] for seed in events], axis=0))
    assert curve.seconds[-1] == clock_curves(silos, "metric")["ring"].seconds[-1]


def test_the_page_says_who_is_where_first(silos: RunRecord, tmp_path: Path) -> None:
    page = write_report([silos], tmp_path / "a.html").read_text("utf-8")
    assert "<h3>Against simulated time</h3>" in page
    assert page.index("Learning curves") < page.index("Against simulated time") < page.index("Every client against")
    assert re.search(r"All reach accuracy 0\.\d+: (ring|star) after [\d.]+ m?s, (ring|star) after", page)
    assert "mathdefault" not in page, "powers are written out"
    svg = against_time(silos, styles(silos), name="c")
    assert svg is not None
    assert svg == against_time(silos, styles(silos), name="c")
    for label in ("mean accuracy", "mean test loss", "disagreement, mean square"):
        assert f">{label}<" in svg


def test_rounds_on_devices_add_up(make_run: MakeRun) -> None:
    record = make_run(devices=True)
    curves = clock_curves(record, "metric")
    assert set(curves) == {"fedavg", "fedavg+", "guarded"}
    assert curves["fedavg"].seconds == pytest.approx(1.8 * np.arange(0, 51, 5))
    assert clock_curves(record, "consensus") == {}
    svg = against_time(record, styles(record), name="c")
    assert svg is not None
    assert "disagreement" not in svg


def test_without_a_clock_there_is_no_figure(make_run: MakeRun, tmp_path: Path) -> None:
    record = make_run()
    assert against_time(record, styles(record), name="c") is None
    assert told_reached(record) == ""
    assert "Against simulated time" not in write_report([record], tmp_path / "a.html").read_text("utf-8")


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_run_that_has_just_begun(silos: RunRecord, tmp_path: Path, rounds: int) -> None:
    """Seeds count as far as they got; a method with a single point has no curve."""
    record = RunRecord.create(tmp_path, "cut", silos.settings)
    for trial in silos.trials:
        if trial.seed == 0:
            kept = TrialRecord.open(record.trial_folder(trial.method, 0))
            for event in trial.events():
                if event["event"] != "end" and event.get("round", 0) < rounds:
                    kept.append(event)
    curves = clock_curves(record, "metric")
    assert all(len(curve.seconds) > 1 for curve in curves.values())
    write_report([record], tmp_path / "a.html")


def curve_of(seconds: list[float], values: list[float]) -> ClockCurve:
    array = np.array(values)
    return ClockCurve(np.array(seconds), array, array, array)


def test_what_all_reach_is_the_best_of_the_worst() -> None:
    curves = {"a": curve_of([1, 2, 3], [0.2, 0.7, 0.6]), "b": curve_of([10, 20, 30], [0.5, 0.8, 0.9])}
    assert first_reached(curves, higher_is_better=True) == (0.7, {"a": 2.0, "b": 20.0})
    assert first_reached(curves, higher_is_better=False) == (0.5, {"a": 1.0, "b": 10.0})


@given(
    st.lists(st.lists(st.floats(-10, 10), min_size=2, max_size=6), min_size=1, max_size=4),
    st.booleans(),
)
def test_everybody_reaches_it_and_was_not_there_before(values: list[list[float]], higher: bool) -> None:
    curves = {str(k): curve_of([float(t) for t in range(len(each))], each) for k, each in enumerate(values)}
    target, times = first_reached(curves, higher_is_better=higher)
    good = np.greater_equal if higher else np.less_equal
    for name, seconds in times.items():
        reached = good(curves[name].mean, target)
        assert reached[int(seconds)]
        assert not reached[: int(seconds)].any()
    best = [max(each) if higher else min(each) for each in values]
    assert target == (min(best) if higher else max(best))

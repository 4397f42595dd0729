"""benchmarks/fedavg_speed: its protocol, that all do the same work, and how bars are judged. No clock is trusted."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rivage.federated import FedAvg
from rivage.federated.averaging import Averaging

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def speed() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark, which is no installed package."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.fedavg_speed import __main__ as driver
        from benchmarks.fedavg_speed import heat, profile, replay, results, tables

        yield SimpleNamespace(driver=driver, heat=heat, profile=profile, replay=replay, results=results, tables=tables)
    finally:
        sys.path.remove(str(ROOT))


def heat_of(**seconds: list[float]) -> dict[str, dict[str, object]]:
    return {label.replace("_", " "): {"seconds": values, "variant": {}} for label, values in seconds.items()}


@pytest.mark.process
def test_a_tiny_run_plays_the_same_rounds_everywhere(
    speed: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert speed.driver.main(["--workloads", "tiny", "--no-own", "--json", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    own = report["workloads"]["tiny"]["own"]
    for label in ("plain loop", "rivage"):
        assert len(own[label]["seconds"]) == len(own[label]["cpu_seconds"]) == 3
        assert 0 < own[label]["peak_rss_bytes"] < own[label]["peak_bytes"]
    assert own["rivage"]["moved"] > 0.01
    assert own["rivage"]["distance"] < 1e-5 * own["rivage"]["moved"] + 1e-6
    assert "rivage" in own["rivage"]["versions"]
    printed = capsys.readouterr().out
    assert "| rivage |" in printed
    assert "| FedJAX | not measured |" in printed


@pytest.mark.process
def test_who_fails_is_out_with_the_reason(speed: SimpleNamespace, tmp_path: Path) -> None:
    entry = speed.heat.Entry("nobody", "nobody")
    lanes = speed.heat.race([entry], tmp_path, speed.heat.Plan(0, 1, 0), tmp_path, lambda text: None)
    assert lanes["nobody"].fault == "it ended with code 1"
    assert lanes["nobody"].parameters is None
    assert speed.results.summary(lanes["nobody"], lanes["nobody"], np.zeros(1)) == {"fault": "it ended with code 1"}


def test_a_workload_is_read_as_it_was_written(speed: SimpleNamespace, tmp_path: Path) -> None:
    settings = speed.replay.Settings(
        name="x", model="linear", input_shape=(2,), classes=2, cohort=2, batch_size=2, learning_rate=0.1
    )
    x, y, offsets = np.arange(14, dtype=np.float32).reshape(7, 2), np.arange(7) % 2, np.array([0, 3, 4, 7])
    rounds = [
        [(2, [np.array([1, 0]), np.array([2])]), (0, [np.array([2, 1])])],
        [(1, [np.array([0])]), (2, [np.array([0, 2]), np.array([1])])],
    ]
    speed.replay.write(tmp_path, settings, (x, y, offsets), np.zeros(6, np.float32), rounds)
    read = speed.replay.Replay(tmp_path)
    assert read.settings == settings
    assert (read.rounds, read.clients) == (2, 3)
    assert [row.tolist() for row in read.records(2)] == [x[4:].tolist(), y[4:].tolist()]
    for number, turns in enumerate(rounds):
        found = list(read.turns(number))
        assert [client for client, _ in found] == [client for client, _ in turns] == read.cohorts[number].tolist()
        for (_, batches), (_, expected) in zip(found, turns, strict=True):
            assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in expected]
    assert read.order(0)[2].tolist() == [1, 0, 2]


def test_a_ratio_is_the_median_over_rounds(speed: SimpleNamespace) -> None:
    heat = heat_of(plain_loop=[1.0, 10.0, 2.0], rivage=[0.5, 1.0, 2.0])
    assert speed.results.ratio(heat, "rivage") == 0.5
    assert speed.results.ratio(heat, "plain loop", "rivage") == 2.0
    assert speed.results.ratio(heat, "FedJAX") is None


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.2, "wanted"), (0.25, "met"), (0.3, "met"), (0.31, "not met"), (None, "not measured")]
)
def test_a_bar_from_above(speed: SimpleNamespace, seconds: float | None, expected: str) -> None:
    bar = speed.results.Bar("time", "W2", 0.30, 0.20)
    heat = heat_of(plain_loop=[1.0], rivage=[seconds] if seconds else [])
    assert speed.results.verdict(bar, bar.measured({"W2": {"own": heat, "peers": {}}})) == expected


def test_a_speed_up_is_held_against_the_fastest_setting(speed: SimpleNamespace) -> None:
    bar = speed.results.Bar("x", "W1", 13, heat="peers", reference=("pfl a", "pfl b", "pfl c"), least=True)
    results = {"W1": {"own": {}, "peers": heat_of(rivage=[1.0], pfl_a=[20.0], pfl_b=[14.0])}}
    assert bar.measured(results) == 14
    assert speed.results.verdict(bar, 14) == "met"
    assert speed.results.verdict(bar, 12.9) == "not met"


def test_memory_is_shared_out_among_those_that_compute(speed: SimpleNamespace) -> None:
    bar = speed.results.Bar("memory", "W2", 1.5, kind="memory")
    own = {"plain loop": {"peak_rss_bytes": 100}, "rivage": {"peak_rss_bytes": 240, "helpers": 2}}
    assert bar.measured({"W2": {"own": own, "peers": {}}}) == 1.2
    own["rivage"]["helpers"] = 0
    assert bar.measured({"W2": {"own": own, "peers": {}}}) == 2.4


def test_who_ends_elsewhere_is_named(speed: SimpleNamespace) -> None:
    own = {"rivage": {"distance": 0.1, "moved": 1.0}, "rivage, FedProx": {"distance": 0.5, "moved": 1.0}}
    peers = {"FedJAX": {"distance": 0.01, "moved": 1.0}}
    assert speed.results.strays({"W1": {"own": own, "peers": peers}}) == ["W1, rivage"]


def test_functions_have_the_rooms_they_should(speed: SimpleNamespace) -> None:
    def room(function: object) -> str | None:
        return speed.profile.room_of(inspect.getsourcefile(function), function.__name__)

    assert room(Averaging.select) == "select"
    assert room(FedAvg.start) == room(Averaging.broadcast) == "start"
    assert room(Averaging.finish) == "finish, faults"
    assert room(Averaging.aggregate) == "aggregate"
    assert room(json.dumps) is None


def test_the_figure_shows_who_was_measured(speed: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    own = heat_of(plain_loop=[1.0], rivage=[0.1])
    report = {
        "workloads": {"W1": {"own": own, "peers": {}}},
        "bars": speed.results.judged({"W1": {"own": own, "peers": {}}}),
    }
    drawing = speed.tables.figure(report)
    assert drawing.startswith("<svg")
    assert "rivage" in drawing
    assert "FedJAX" not in drawing

"""Runs of planners and of delivery policies: records, certificates, resuming, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError, StoreError
from rivage.core.integrity import changes
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.core.toml import format_toml
from rivage.inference.gain import contend
from rivage.inference.infida import INFIDA
from rivage.inference.pooled import pooled_optimum
from rivage.inference.replay import deliver
from rivage.studies.games.delivery import DeliveryPlay
from rivage.studies.games.delivery_stage import fingerprint
from rivage.studies.games.placement import Placement, load_placement
from rivage.studies.games.placement_stage import PlacementStage
from rivage.studies.play import play_study
from rivage.studies.play_settings import parse_play

SCENE = """
name = "toy"
run = { seeds = [0, 1], points = 5 }
[delivery]
catalog = "CATALOG"
deadlines = { see = "xr", "*" = 40 }
late_cost = 5
[underlay]
kind = "tiers"
counts = { cell = 3, hub = 1, cloud = 1 }
round_trip_ms = [6, 20]
[[sites]]
at = "cell"
budget_mb = 30
hardware = "cpu"
[[sites]]
at = "hub"
budget_mb = 100
hardware = "cpu"
[[sites]]
at = "cloud"
hardware = "gpu"
repository = true
[requests]
kind = "popularity"
rate_per_s = 60
entries = "cell"
profile = "sliding"
shift = 1
period = 4
slots = 20
[[policies]]
kind = "infida"
[[policies]]
kind = "anchor"
name = "cloud"
[[policies]]
kind = "static_greedy"
[[planners]]
kind = "relaxed"
[[planners]]
kind = "greedy"
[[planners]]
kind = "exact"
"""
MODELS = """
[[models]]
name = "see-s"
task = "see"
accuracy = 0.4
size_mb = 20
delay_ms = { cpu = 20, gpu = 3 }
[[models]]
name = "see-l"
task = "see"
accuracy = 0.7
size_mb = 80
delay_ms = { cpu = 30, gpu = 10 }
[[models]]
name = "hear-s"
task = "hear"
accuracy = 0.9
size_mb = 15
delay_ms = { cpu = 10, gpu = 2 }
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalogs") / "mine.toml"
    path.write_text(MODELS)
    return path


def text_of(catalog: Path) -> str:
    return SCENE.replace("CATALOG", catalog.as_posix())


@pytest.fixture(scope="module")
def placement(catalog: Path) -> Placement:
    path = catalog.parent / "study.toml"
    path.write_text(text_of(catalog))
    return load_placement(path)


@pytest.fixture(scope="module")
def replay(catalog: Path) -> DeliveryPlay:
    made = parse_play(text_of(catalog).partition("[[planners]]")[0])
    assert isinstance(made, DeliveryPlay)
    return made


@pytest.fixture(scope="module")
def placed(placement: Placement, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return play_study(placement, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def replayed(replay: DeliveryPlay, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return play_study(replay, out=tmp_path_factory.mktemp("runs"))


class Stop:
    """Stops the run at one of its events."""

    def __init__(self, at: int) -> None:
        self.left = at

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_study_is_its_settings(placement: Placement, replay: DeliveryPlay, tmp_path: Path) -> None:
    (tmp_path / "again.toml").write_text(format_toml(dump(placement)))
    assert load_placement(tmp_path / "again.toml") == placement
    assert parse_play(format_toml(dump(replay))) == replay


def test_planners_may_be_left_out(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(text_of(catalog).partition("[[planners]]")[0].replace('name = "toy"', ""))
    made = load_placement(tmp_path / "short.toml", ["delivery.alpha_ms_per_point=2"])
    assert ([each.name for each in made.planners], made.name) == (["relaxed", "greedy"], "short")
    assert made.delivery.alpha_ms_per_point == 2


@pytest.mark.parametrize("stop", [1, 2, 4, 6, 9, 12, 17, 22, 30])
def test_an_interrupted_placement_ends_like_one_that_was_not(
    placement: Placement, placed: RunRecord, tmp_path: Path, stop: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        play_study(placement, out=tmp_path, observer=Stop(stop))
    again = play_study(placement, out=tmp_path)
    assert again.hash == placed.hash
    assert again.compare(placed) == []
    assert list(changes(again)) == []


@pytest.mark.parametrize("stop", [2, 5, 12, 30, 55])
def test_an_interrupted_replay_ends_like_one_that_was_not(
    replay: DeliveryPlay, replayed: RunRecord, tmp_path: Path, stop: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        play_study(replay, out=tmp_path, observer=Stop(stop))
    again = play_study(replay, out=tmp_path)
    assert again.hash == replayed.hash
    assert list(changes(again)) == []


def test_the_record_of_a_placement(placement: Placement, placed: RunRecord) -> None:
    """The scene is built by hand, and the plan served again."""
    for seed in (0, 1):
        stage = PlacementStage.build(placement, seed)
        instance, requests = stage.scene.instance, stage.scene.demand.requests.mean(axis=0)
        bound = pooled_optimum(instance, requests)
        for method in ("relaxed", "greedy", "exact"):
            trial = placed.trial(method, seed)
            assert [e["event"] for e in trial.events()] == ["start", "relaxation", "point", "placed", "end"]
            found, end, plan = (trial.events(kind)[0] for kind in ("relaxation", "point", "placed"))
            assert found["least"] == pytest.approx(bound.cost)
            assert found["memory_prices"] == pytest.approx(bound.memory_prices.tolist())
            loaded = np.zeros(instance.shape, bool)
            for node, models in enumerate(plan["loaded"]):
                loaded[node, models] = True
            _, served = contend(instance, requests, loaded)
            assert end["cost"] == pytest.approx(served @ instance.ranking.cost)
            assert sum(row[4] for row in end["routing"]) == pytest.approx(requests.sum())
            assert sum(row[4] * row[6] for row in end["routing"]) == pytest.approx(end["cost"])
            assert end["cost"] >= bound.cost * (1 - 1e-6)
            memory, alphas = np.array(found["memory"]), np.array(found["alphas"])
            assert (np.diff(memory[:, 1]) <= 1e-6 * memory[0, 1]).all(), "more memory costs no more"
            assert (np.diff(alphas[:, 2]) >= -1e-9).all(), "accuracy rises with what it is worth"
            assert (np.diff(alphas[:, 1]) >= -1e-6).all(), "and so does latency"
            assert dict(map(tuple, memory.tolist()))[1.0] == found["least"]


def test_the_summary_of_a_placement(placed: RunRecord) -> None:
    summary = placed.summary
    assert {"allocation", "routing", "cost", "lp_bound", "gap", "shadow_prices", "certificates"} <= set(summary)
    best = summary["planners"][summary["planner"]]
    assert best["cost"] == min(row["cost"] for row in summary["planners"].values())
    assert summary["gap"] == pytest.approx(best["gap"])
    assert set(summary["allocation"]) == {"cell 1", "cell 2", "cell 3", "hub", "cloud"}
    assert summary["allocation"]["cloud"] == ["see-s", "see-l", "hear-s"]
    assert set(summary["shadow_prices"]) == {"memory_ms_per_mb", "links_ms_per_ms"}
    checked = [(c.check, c.fields["method"]) for c in placed.certificates]
    assert checked == [
        (check, method) for method in ("relaxed", "greedy", "exact") for check in ("placement_gap", "placement_fits")
    ]
    assert {c.verdict for c in placed.certificates} == {"holds"}
    assert list(changes(placed)) == []


def test_no_clock_in_what_is_hashed(placed: RunRecord, replayed: RunRecord) -> None:
    for record in (placed, replayed):
        for trial in record.trials:
            assert not any("seconds" in event for event in trial.events())
            assert trial.timings[0]["seconds"] >= 0


def test_the_record_of_a_replay_says_what_the_loop_says(replay: DeliveryPlay, replayed: RunRecord) -> None:
    scene = replay.scene(Streams(1))
    found = deliver(INFIDA(), scene.instance, list(scene.demand.requests), streams=Streams(1).child("policy"), every=4)
    assert list(replayed.trial("infida", 1).events("point")) == json.loads(json.dumps(found.points))
    least = replayed.trial("cloud", 1).events("reference")[0]["least"]
    assert least == pytest.approx(pooled_optimum(scene.instance, scene.demand.requests.mean(axis=0)).cost)


def test_verdicts_of_a_replay(replayed: RunRecord) -> None:
    checked = {(c.check, c.fields["method"]): c.verdict for c in replayed.certificates}
    assert set(checked) >= {("delivery_gap", "infida"), ("delivery_gap", "cloud"), ("delivery_regret", "infida")}
    assert ("delivery_gap", "static_greedy") not in checked, "who knows all slots is a yardstick"
    assert "fails" not in checked.values()
    assert list(changes(replayed)) == []


def mutated(record: RunRecord, out: Path, change: Callable[[dict[str, Any]], None]) -> RunRecord:
    """A copy of a run whose events are changed."""
    copy = RunRecord.create(out, "toy", record.settings)
    for trial in record.trials:
        folder = copy.trial_folder(trial.method, trial.seed)
        folder.mkdir(parents=True)
        lines = []
        for event in map(dict, trial.events()):
            change(event)
            lines.append(json.dumps(event))
        (folder / "record.jsonl").write_text("\n".join(lines) + "\n")
    return RunRecord.open(copy.folder)


def verdict(record: RunRecord, check: str, method: str) -> str:
    return str(CHECKS.get(check)(record, method=method).verdict)


def on(kind: str, **changed: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def change(event: dict[str, Any]) -> None:
        if event["event"] == kind:
            for key, value in changed.items():
                event[key] = value(event[key])

    return change


def test_checks_fail_when_they_should(placed: RunRecord, replayed: RunRecord, tmp_path: Path) -> None:
    def cheaper(rows: list[list[float]]) -> list[list[float]]:
        return [[*row[:6], row[6] * 0.2] for row in rows]

    assert verdict(mutated(placed, tmp_path / "a", on("point", routing=cheaper)), "placement_gap", "exact") == "fails"
    more = mutated(placed, tmp_path / "b", on("placed", used=lambda used: [each * 10 for each in used]))
    assert verdict(more, "placement_fits", "relaxed") == "fails"
    worse = mutated(replayed, tmp_path / "c", on("point", regret=lambda r: None if r is None else 1e12))
    assert verdict(worse, "delivery_regret", "infida") == "fails"
    tight = mutated(replayed, tmp_path / "d", on("point", bound=lambda b: None if b is None else 1.0))
    assert verdict(tight, "delivery_regret", "infida") == "fails"
    early = mutated(
        replayed,
        tmp_path / "e",
        lambda event: event.update(regret=1e12) if event.get("slots") == 4 and event["event"] == "point" else None,
    )
    assert verdict(early, "delivery_regret", "infida") == "fails", "every prefix counts"


def test_a_promise_of_all_there_is_has_no_power(replayed: RunRecord, tmp_path: Path) -> None:
    """What there was to gain is judged at the end: a first slot dearer than the mean does not give a promise power."""
    empty = mutated(replayed, tmp_path / "a", on("point", bound=lambda b: None if b is None else 1e12))
    assert verdict(empty, "delivery_regret", "infida") == "no_power"

    def change(event: dict[str, Any]) -> None:
        if event["event"] == "point" and event["bound"] is not None:
            event["regret"] = 0.0
            if event["slots"] == 4:
                event["base"], event["bound"] = 1e15, 1e13
            else:
                event["bound"] = 1e13

    assert verdict(mutated(replayed, tmp_path / "b", change), "delivery_regret", "infida") == "no_power"

    def kept(event: dict[str, Any]) -> None:
        if event["event"] == "point" and event["bound"] is not None:
            event["regret"], event["bound"] = 0.0, 1e13 if event["slots"] == 4 else 1e-9

    assert verdict(mutated(replayed, tmp_path / "c", kept), "delivery_regret", "infida") == "holds"


def test_runs_that_have_not_finished_are_not_judged(placement: Placement, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        play_study(placement, out=tmp_path, observer=Stop(7))
    record = RunRecord.open(next(tmp_path.iterdir()))
    with pytest.raises(StoreError, match="has not been played to the end"):
        CHECKS.get("placement_gap")(record, method="exact")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("accuracy = 0.4", "accuracy = 0.41"),
        ("size_mb = 20", "size_mb = 21"),
        ("cpu = 20", "cpu = 21"),
        ('"see-s"', '"see-t"'),
        ("delay_ms = { cpu = 30", "throughput_rps = 9\ndelay_ms = { cpu = 30"),
    ],
)
def test_a_catalog_that_changed_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MODELS)
    (tmp_path / "study.toml").write_text(text_of(path))
    study = load_placement(tmp_path / "study.toml", ["run.seeds=[0]", 'planners=[{kind="relaxed"}]'])
    play_study(study, out=tmp_path / "runs")
    assert old in MODELS
    path.write_text(MODELS.replace(old, new, 1))
    with pytest.raises(ConfigError, match="start anew with --fresh"):
        play_study(study, out=tmp_path / "runs")
    play_study(study, out=tmp_path / "runs", fresh=True)


def test_the_fingerprint_covers_what_is_played(placement: Placement) -> None:
    scene = PlacementStage.build(placement, 0).scene
    seen = {fingerprint(scene)}
    more: list[dict[str, Any]] = [
        {"budgets": scene.instance.budgets + 1},
        {"latency_ms": scene.instance.latency_ms + 1},
        {"deadline_ms": scene.instance.deadline_ms * 3},  # type: ignore[operator]
        {"deadline_ms": None, "late_cost": 0.0},
        {"alpha": 2.0},
    ]
    for change in more:
        seen.add(fingerprint(replace(scene, instance=replace(scene.instance, **change))))
    seen.add(fingerprint(replace(scene, demand=replace(scene.demand, requests=scene.demand.requests + 1))))
    assert len(seen) == len(more) + 2
    assert fingerprint(PlacementStage.build(placement, 0).scene) in seen


def test_a_network_that_is_large_has_no_curves(
    placement: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are drawn depends on the size, not on the clock: records repeat on slow machines."""
    monkeypatch.setattr("rivage.studies.games.placement_stage._CURVED", 3)
    record = play_study(placement, out=tmp_path)
    found = record.trials[0].events("relaxation")[0]
    assert (found["memory"], found["alphas"]) == ([], [])

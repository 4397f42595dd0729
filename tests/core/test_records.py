"""Run folders: what is hashed and what is not, resuming, comparing."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.store import read_table
from rivage.core.trial_records import TrialRecord

SETTINGS = {
    "name": "hospitals",
    "methods": [{"kind": "local"}, {"name": "mean", "kind": "fedavg"}],
    "run": {"rounds": 2},
}


def events(method: str, seed: int, rounds: int = 2) -> list[dict]:
    """The events of a small trial of two clients."""
    played = [
        {
            "event": "round",
            "round": r,
            "cohort": [0, 1],
            "lost": [],
            "rejected": [],
            "bytes_up": 20,
            "bytes_down": 30,
        }
        for r in range(rounds)
    ]
    return [
        {"event": "start", "method": method, "kind": "fedavg", "seed": seed, "metric": "accuracy"},
        {"event": "setup", "bytes_up": 1, "bytes_down": 2, "messages": 1},
        evaluation(0, seed),
        *played,
        evaluation(rounds, seed),
        {**evaluation(rounds, seed), "group": "unseen", "clients": [2], "test": [None], "test_size": [4]},
        {"event": "end", "rounds": rounds},
    ]


def evaluation(round: int, seed: int) -> dict:
    return {
        "event": "evaluation",
        "round": round,
        "group": "seen",
        "clients": [0, 1],
        "test": [0.5 + round / 10, 0.25 + seed / 10],
        "test_size": [10, 20],
    }


def fill(trial: TrialRecord, written: list[dict], seconds: float = 1.5) -> None:
    for event in written:
        trial.append(event)
        if event["event"] in ("round", "evaluation"):
            trial.append_timing({event["event"]: event["round"], "seconds": seconds})


def make(parent: Path, *, seeds=(1, 0), seconds: float = 1.5, settings=SETTINGS) -> RunRecord:
    run = RunRecord.create(parent, "hospitals", settings)
    for method in ("mean", "local"):
        for seed in seeds:
            fill(TrialRecord.open(run.trial_folder(method, seed)), events(method, seed), seconds)
    return run


# --- a trial


def test_a_trial_tells_what_happened(tmp_path):
    trial = TrialRecord.open(tmp_path)
    fill(trial, events("mean", 7))
    assert (trial.method, trial.kind, trial.seed, trial.finished) == ("mean", "fedavg", 7, True)
    assert list(trial.events()) == events("mean", 7)
    assert [event["round"] for event in trial.events("round")] == [0, 1]
    assert (trial.bytes_up, trial.bytes_down) == (41, 62)
    assert trial.seconds == 5 * 1.5
    assert trial.final()["round"] == 2
    assert trial.final("unseen")["clients"] == [2]


def test_a_trial_that_has_not_begun(tmp_path):
    trial = TrialRecord.open(tmp_path / "trial")
    assert (tmp_path / "trial").is_dir()
    assert trial.events() == ()
    assert (trial.offset, trial.seconds, trial.final(), trial.finished) == (0, 0.0, None, False)
    trial.truncate(0)
    trial.flush()
    with pytest.raises(StoreError, match=r"has not begun\. Run the study again"):
        _ = trial.method


def test_events_follow_the_file(tmp_path):
    trial, reader = TrialRecord.open(tmp_path), TrialRecord.open(tmp_path)
    for count, event in enumerate(events("mean", 0), 1):
        trial.append(event)
        assert len(reader.events()) == count


def test_events_are_deterministic_lines(tmp_path):
    trial = TrialRecord.open(tmp_path)
    trial.append({"event": "evaluation", "b": math.nan, "a": 0.1})
    assert (tmp_path / "record.jsonl").read_bytes() == b'{"a":0.1,"b":null,"event":"evaluation"}\n'


@pytest.mark.parametrize("kept", range(len(events("mean", 0)) + 1))
@pytest.mark.parametrize("torn", [b"", b'{"event":"rou'])
def test_a_resumed_trial_has_the_same_files(tmp_path, kept, torn):
    written = events("mean", 0)
    whole = TrialRecord.open(tmp_path / "whole")
    fill(whole, written)
    trial = TrialRecord.open(tmp_path / "trial")
    fill(trial, written[:kept])
    checkpoint = trial.offset
    fill(trial, written[kept : kept + 2])
    for name in ("record.jsonl", "timings.jsonl"):
        with (tmp_path / "trial" / name).open("ab") as file:
            file.write(torn)
    trial = TrialRecord.open(tmp_path / "trial")
    trial.truncate(checkpoint)
    assert trial.offset == checkpoint
    fill(trial, written[kept:])
    trial.flush()
    assert trial.hash == whole.hash
    assert (tmp_path / "trial" / "record.jsonl").read_bytes() == (tmp_path / "whole" / "record.jsonl").read_bytes()


def test_timings_of_dropped_rounds_are_dropped(tmp_path):
    trial = TrialRecord.open(tmp_path)
    fill(trial, events("mean", 0)[:4])
    checkpoint, seconds = trial.offset, trial.seconds
    fill(trial, events("mean", 0)[4:])
    trial.truncate(checkpoint)
    assert trial.seconds == seconds


def test_a_trial_shorter_than_its_checkpoint(tmp_path):
    trial = TrialRecord.open(tmp_path)
    fill(trial, events("mean", 0))
    with pytest.raises(StoreError, match="has no line that ends at byte"):
        trial.truncate(trial.offset + 1)


# --- a run


def test_equal_settings_share_a_folder(tmp_path):
    run = make(tmp_path)
    again = RunRecord.create(tmp_path, "hospitals", dict(reversed(SETTINGS.items())))
    other = RunRecord.create(tmp_path, "hospitals", {**SETTINGS, "run": {"rounds": 3}})
    assert run.folder == again.folder != other.folder
    assert run.folder.name.startswith("hospitals-")
    assert len(run.folder.name) == len("hospitals-") + 8
    assert again.settings == SETTINGS
    assert len(again.trials) == 4
    assert {"python", "numpy"} <= again.versions.keys()


def test_changed_settings_are_noticed(tmp_path):
    run = make(tmp_path)
    path = run.folder / "settings.toml"
    path.write_text(path.read_text().replace("rounds = 2", "rounds = 3"))
    with pytest.raises(StoreError, match="not what the run was made with"):
        RunRecord.create(tmp_path, "hospitals", SETTINGS)


@pytest.mark.parametrize("name", ["../up", "/root", "..", ".hidden", "a/b", "é", "a\\b", "mean"])
def test_any_name_is_one_folder_inside(tmp_path, name):
    run = RunRecord.create(tmp_path, name, SETTINGS)
    assert run.folder.parent == tmp_path
    folder = run.trial_folder(name, 0)
    assert folder.parent.parent == run.folder / "trials"
    assert folder.resolve().is_relative_to(run.folder.resolve())
    fill(TrialRecord.open(folder), events(name, 0))
    assert run.trial(name, 0).method == name


def test_trials_are_ordered_as_in_the_settings(tmp_path):
    run = make(tmp_path, seeds=(10, 9))
    assert [(trial.method, trial.seed) for trial in run.trials] == [
        ("local", 9),
        ("local", 10),
        ("mean", 9),
        ("mean", 10),
    ]
    assert run.methods == ("local", "mean")
    assert run.seeds == (9, 10)


def test_events_of_a_run_name_their_trial(tmp_path):
    run = make(tmp_path)
    assert len(run.events("round")) == 8
    assert {(event["method"], event["seed"]) for event in run.events("round", method="mean", seed=1)} == {("mean", 1)}


def test_a_trial_that_is_not_there(tmp_path):
    run = make(tmp_path)
    with pytest.raises(StoreError, match=r'no trial of "meen" with seed 0\. Did you mean "mean"'):
        run.trial("meen", 0)
    with pytest.raises(StoreError, match="Trials: local with seed 0, "):
        run.trial("mean", 5)


def test_the_hash_knows_settings_and_events_only(tmp_path):
    run = make(tmp_path / "a")
    slower = make(tmp_path / "b", seeds=(0, 1), seconds=9.0)
    slower.write_summary({"report": "b"})
    shutil.copytree(run.folder, tmp_path / "elsewhere")
    assert run.hash == slower.hash == RunRecord.open(tmp_path / "elsewhere").hash
    before = run.hash
    run.trial("mean", 0).append({"event": "note"})
    assert run.hash != before
    assert make(tmp_path / "c", settings={**SETTINGS, "name": "x"}).hash != before


def test_certificates_and_summary_come_back(tmp_path):
    run = make(tmp_path)
    assert (run.certificates, run.summary) == ((), {})
    certificate = Certificate(
        kind="gap",
        claim="c",
        measured=0.5,
        reference=1.0,
        method="m",
        confidence=None,
        verdict="holds",
        check="k",
        fields={"method": "mean"},
    )
    run.write_certificates([certificate])
    run.write_summary({"methods": {"mean": {"mean": math.nan}}})
    assert run.certificates == (certificate,)
    assert run.summary == {"methods": {"mean": {"mean": None}}}
    run.write_certificates([Certificate.from_dict({**certificate.as_dict(), "measured": math.inf})])
    assert math.isnan(run.certificates[0].measured)


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"a":1}]', "[null]", "{"])
def test_corrupt_certificates(tmp_path, content):
    run = make(tmp_path)
    (run.folder / "certificates.json").write_text(content)
    with pytest.raises(StoreError, match=r"certificates.json: "):
        _ = run.certificates


@pytest.mark.parametrize("content", [b"a = ", b"\xff"])
def test_corrupt_settings(tmp_path, content):
    run = make(tmp_path)
    (run.folder / "settings.toml").write_bytes(content)
    with pytest.raises(StoreError, match=r"settings.toml"):
        RunRecord.open(run.folder)


def test_no_run_folder(tmp_path):
    with pytest.raises(StoreError, match=r"is not the folder of a run.*Give a folder"):
        RunRecord.open(tmp_path / "nothing")


def test_clients_table(tmp_path):
    run = make(tmp_path, seeds=(0,))
    table = run.clients_table()
    assert {len(column) for column in table.values()} == {10}
    assert table["method"] == ["local"] * 5 + ["mean"] * 5
    assert table["client"][:5] == [0, 1, 0, 1, 2]
    assert table["test"][:5] == [0.5, 0.25, 0.7, 0.25, None]
    assert table["validation"] == [None] * 10
    run.write_clients()
    assert read_table(run.folder / "clients.parquet") == table


def test_equal_runs_do_not_differ(tmp_path):
    assert make(tmp_path / "a").compare(make(tmp_path / "b", seconds=3.0)) == []


def test_differences_are_named(tmp_path):
    run = make(tmp_path / "a")
    other = RunRecord.create(tmp_path / "b", "hospitals", {**SETTINGS, "run": {"rounds": 3}})
    changed = events("local", 0)
    changed[5]["test"] = [0.1, 0.25]
    fill(TrialRecord.open(other.trial_folder("local", 0)), changed)
    fill(TrialRecord.open(other.trial_folder("local", 1)), events("local", 1)[:-1])
    fill(TrialRecord.open(other.trial_folder("mean", 2)), events("mean", 2))
    (other.folder / "versions.json").write_text(json.dumps({**run.versions, "numpy": "0"}))
    assert run.compare(other) == [
        "settings.run.rounds: 2 here, 3 there",
        f"versions.numpy: '{run.versions['numpy']}' here, '0' there",
        "local, seed 0: event 5 (evaluation of round 2) differs: it.test.1: 0.7 here, 0.1 there",
        "local, seed 1: here it goes on after event 7",
        "mean, seed 0: only here",
        "mean, seed 1: only here",
        "mean, seed 2: only there",
    ]


def test_a_number_of_another_type_is_a_difference(tmp_path):
    run, other = make(tmp_path / "a", seeds=(0,)), RunRecord.create(tmp_path / "b", "hospitals", SETTINGS)
    changed = events("local", 0)
    changed[3]["bytes_up"] = 20.0  # equal in Python, not in the file, nor for the hash
    fill(TrialRecord.open(other.trial_folder("local", 0)), changed)
    fill(TrialRecord.open(other.trial_folder("mean", 0)), events("mean", 0))
    assert run.hash != other.hash
    assert run.compare(other) == ["local, seed 0: event 3 (round of round 0) differs: it.bytes_up: 20 here, 20.0 there"]


@pytest.mark.parametrize(
    ("table", "verb"), [("methods", "train"), ("policies", "play"), ("planners", "place"), ("overlays", "design")]
)
def test_what_is_compared(tmp_path, table, verb):
    run = RunRecord.create(tmp_path, "x", {table: [{"kind": "b"}, {"kind": "c", "name": "a"}]})
    for name in ("a", "b"):
        fill(TrialRecord.open(run.trial_folder(name, 0)), events(name, 0))
    assert (run.compared, run.verb, run.is_game) == (table, verb, verb != "train")
    assert run.methods == ("b", "a")

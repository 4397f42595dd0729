"""A run killed at any instant and resumed ends with the record of a run that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rivage.core.message_log import LOG_NAME
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord

STUDY = """
name = "kill"
data = { kind = "digits" }
partition = { kind = "dirichlet", clients = 8, alpha = 0.5 }
availability = { kind = "markov", mean = 0.7, correlation = 0.5 }
work = { updates = 2, batch_size = 8, batches = "endless" }
methods = [
  { kind = "scaffold", learning_rate = 0.1 },
  { name = "sparse", kind = "fedavg", learning_rate = 0.1, stages = [{ kind = "top_k", share = 0.05 }] },
  { kind = "fedavg", learning_rate = 0.1 },
  { kind = "local", learning_rate = 0.1, epochs = 2 },
  { kind = "fedavg+", learning_rate = 0.1 },
  { kind = "guarded" },
]
run = { rounds = 120, cohort = 3, seeds = [0, 1], remembered = 5 }
evaluation = { every = 7, unseen_clients = 0.2 }
"""

CHILD = """
import functools, sys, pathlib
from rivage.studies import pipeline
from rivage.studies.pipeline import run_study
pipeline.Files = functools.partial(pipeline.Files, interval=float(sys.argv[3]))
from rivage.studies.settings import load_study

class Ready:
    said = False

    def on_event(self, event):
        if event["event"] in (sys.argv[4], "study_end") and not self.said:
            self.said = True
            print("ready", flush=True)

run_study(load_study(pathlib.Path(sys.argv[1])), out=pathlib.Path(sys.argv[2]), observer=Ready())
"""

KILLS = 20
REMEMBERING = {"scaffold", "sparse", "fedavg"}
"""Methods that resume from what clients remember: controls, residuals, places in the records. Each must be killed."""


def start(study: Path, out: Path, interval: float = 0.0, ready: str = "round") -> subprocess.Popen[str]:
    """A process that plays the study and has come to its first event of a kind: imports take longer than the rounds.

    Args:
        study: its file.
        out: folder for the run.
        interval: seconds between checkpoints on the disk, at least.
        ready: kind of the event.
    """
    command = [sys.executable, "-c", CHILD, str(study), str(out), str(interval), ready]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.process
@pytest.mark.timeout(600)
def test_twenty_kills_leave_no_trace(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    whole = start(study, tmp_path / "whole")
    began = time.perf_counter()
    assert whole.wait() == 0
    duration = time.perf_counter() - began
    instants = random.Random(7)
    landed, hit, attempts = 0, set[str](), []
    while landed < KILLS or not hit >= REMEMBERING:  # a run that ends before its kill is kept, another one is begun
        out = tmp_path / f"killed-{len(attempts)}"
        attempts.append(out)
        finished = False
        while not finished and (landed < KILLS or not hit >= REMEMBERING):
            child = start(study, out, interval=landed % 2 * 0.02, ready="round" if landed % 4 else "trial")
            time.sleep(instants.uniform(0.0, 2 * duration / KILLS))
            child.send_signal(signal.SIGKILL)
            finished = child.wait() == 0
            landed += not finished
            hit |= interrupted(out)
    assert start(study, attempts[-1]).wait() == 0
    print(f"{landed} kills landed, in {len(attempts)} runs, among the rounds of {', '.join(sorted(hit))}")

    whole_run = RunRecord.open(next((tmp_path / "whole").iterdir()))
    for out in attempts:
        require_equal(RunRecord.open(next(out.iterdir())), whole_run)


def interrupted(out: Path) -> set[str]:
    """Methods that have played some of their rounds and not all."""
    trials = [TrialRecord(path.parent) for path in out.glob("*/trials/*/*/record.jsonl")]
    return {trial.method for trial in trials if trial.events("round") and not trial.finished}


def require_equal(two: RunRecord, one: RunRecord) -> None:
    assert two.compare(one) == []
    assert two.hash == one.hash
    assert all(trial.finished for trial in two.trials)
    assert len(two.trials) == 12
    for mine, other in zip(two.trials, one.trials, strict=True):
        for name in (LOG_NAME, "models.safetensors"):
            files = [trial.folder / name for trial in (mine, other)]
            assert files[0].exists() == files[1].exists()
            if files[0].exists():
                assert files[0].read_bytes() == files[1].read_bytes()

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

STUDY = """
name = "kill"
data = { kind = "digits" }
partition = { kind = "dirichlet", clients = 8, alpha = 0.5 }
availability = { kind = "markov", mean = 0.7, correlation = 0.5 }
work = { updates = 2, batch_size = 8, batches = "endless" }
methods = [
  { kind = "fedavg", learning_rate = 0.1 },
  { kind = "local", learning_rate = 0.1, epochs = 2 },
  { kind = "fedavg+", learning_rate = 0.1 },
  { kind = "guarded" },
]
run = { rounds = 120, cohort = 3, seeds = [0, 1] }
evaluation = { every = 7, unseen_clients = 0.2 }
"""

CHILD = """
import sys, pathlib
from rivage.studies.pipeline import run_study
from rivage.studies.settings import load_study
study = load_study(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
run_study(study, out=pathlib.Path(sys.argv[2]))
"""

KILLS = 20


def start(study: Path, out: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(study), str(out)], stdout=subprocess.PIPE, text=True)
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
    landed, attempts = 0, []
    while landed < KILLS:  # a run that ends before its kill is kept, and another one is begun
        out = tmp_path / f"killed-{len(attempts)}"
        attempts.append(out)
        finished = False
        while landed < KILLS and not finished:
            child = start(study, out)
            time.sleep(instants.uniform(0.0, 2 * duration / KILLS))
            child.send_signal(signal.SIGKILL)
            finished = child.wait() == 0
            landed += not finished
    assert start(study, attempts[-1]).wait() == 0
    print(f"{landed} kills landed, in {len(attempts)} runs")

    whole_run = RunRecord.open(next((tmp_path / "whole").iterdir()))
    for out in attempts:
        require_equal(RunRecord.open(next(out.iterdir())), whole_run)


def require_equal(two: RunRecord, one: RunRecord) -> None:
    assert two.compare(one) == []
    assert two.hash == one.hash
    assert all(trial.finished for trial in two.trials)
    assert len(two.trials) == 8
    for mine, other in zip(two.trials, one.trials, strict=True):
        for name in (LOG_NAME, "models.safetensors"):
            files = [trial.folder / name for trial in (mine, other)]
            assert files[0].exists() == files[1].exists()
            if files[0].exists():
                assert files[0].read_bytes() == files[1].read_bytes()

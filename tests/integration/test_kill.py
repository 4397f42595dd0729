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
    landed = 0
    for _ in range(KILLS):
        child = start(study, tmp_path / "killed")
        time.sleep(instants.uniform(0.0, 2 * duration / KILLS))
        child.send_signal(signal.SIGKILL)
        landed += child.wait() == -signal.SIGKILL
    assert start(study, tmp_path / "killed").wait() == 0
    assert landed >= KILLS // 2  # the last few may find the run finished

    one, two = (RunRecord.open(next((tmp_path / name).iterdir())) for name in ("whole", "killed"))
    assert two.compare(one) == []
    assert two.hash == one.hash
    assert all(trial.finished for trial in two.trials)
    assert len(two.trials) == 8
    for mine, other in zip(two.trials, one.trials, strict=True):
        logs = [trial.folder / LOG_NAME for trial in (mine, other)]
        assert logs[0].exists() == logs[1].exists()
        if logs[0].exists():
            assert logs[0].read_bytes() == logs[1].read_bytes()
        models = [trial.folder / "models.safetensors" for trial in (mine, other)]
        assert models[0].exists() == models[1].exists()
        if models[0].exists():
            assert models[0].read_bytes() == models[1].read_bytes()

"""An audit killed in the middle and asked for again ends with the rows of an audit that was left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rivage.cli.app import main
from rivage.core.records import RunRecord
from rivage.studies.audit_settings import Auditing
from rivage.studies.auditing import audit_run
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study

STUDY = """
name = "killed"
data = { kind = "digits" }
partition = { kind = "iid", clients = 4 }
methods = [{ kind = "fedavg", learning_rate = 0.3 }]
run = { rounds = 3 }
"""
KINDS = ("loss_threshold", "local_loss_threshold", "idlg", "fedmia", "white_box", "zari21")


def without_costs(audit: dict[str, Any]) -> dict[str, Any]:
    return {**audit, "attacks": [{**row, "cost": None} for row in audit["attacks"]]}


@pytest.mark.process
def test_a_killed_audit_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    folder = run_study(parse_study(STUDY), out=tmp_path / "runs").folder
    alone = RunRecord.open(Path(shutil.copytree(folder, tmp_path / "alone")))
    command = [sys.executable, "-m", "rivage.cli", "audit", str(folder), "--attacks", ",".join(KINDS), "--quiet"]
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    kept = folder / "audit.json"
    while not kept.exists() and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was not done yet"
    before = json.loads(kept.read_text())[0]["attacks"]
    assert 1 <= len(before) < len(KINDS)
    record = RunRecord.open(folder)
    found = audit_run(record, Auditing(attacks=KINDS))
    assert found["attacks"][0]["cost"] == before[0]["cost"], "what was kept is not run again"
    audit_run(alone, Auditing(attacks=KINDS))
    assert without_costs(record.audits[0]) == without_costs(alone.audits[0])
    assert main(["verify", str(folder), "--quiet"]) == 0

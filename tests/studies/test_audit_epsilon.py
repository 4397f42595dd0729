"""A claimed epsilon, from the study to the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rivage.cli.app import main
from rivage.federated.secagg import SecAgg
from rivage.federated.user_privacy import PrivateMean
from rivage.studies.audit_claims import claims

STUDY = """
name = "private"
data = { kind = "digits" }
partition = { kind = "iid", clients = 20 }
task = { model = "linear" }
run = { rounds = 20 }
[[methods]]
kind = "fedavg"
learning_rate = 0.1
collector = { kind = "private_mean", noise = 20.0, clip = 1.0 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    (folder / "private.toml").write_text(STUDY, encoding="utf-8")
    assert main(["train", str(folder / "private.toml"), "--out", str(folder / "runs"), "--quiet"]) == 0
    return next((folder / "runs").iterdir())


def audited(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["audit", str(run), "--attacks", "epsilon", "--json", "--quiet", *more])
    return code, json.loads(capsys.readouterr().out)


def test_an_honest_run_is_not_accused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = audited(run, capsys, "--fresh")
    assert code == 0
    (row,) = found["epsilon"]
    assert row["epsilon"] == pytest.approx(0.8158, abs=0.01)
    assert row["verdict"] in ("consistent", "no power")
    assert "for itself; they prove at least" in str(found["answer"])
    assert main(["verify", str(run), "--quiet"]) == 0


def test_an_engine_that_adds_too_little_noise_is_found_out(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivateMean, "on_sums", lambda self, clients: self.noise / 4)
    code, found = audited(run, capsys, "--fresh")
    assert code == 3
    (row,) = found["epsilon"]
    assert row["verdict"] == "VIOLATION"
    assert "they contradict the claim" in str(found["answer"])
    assert "evidence" not in row
    assert main(["verify", str(run), "--quiet"]) == 3


def test_it_is_told_when_there_is_no_time(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = audited(run, capsys, "--fresh", "--budget", "1e-9")
    assert code == 0
    assert found["epsilon"] == []
    assert [row["attack"] for row in found["not_run"]] == ["epsilon"]


def test_a_training_under_masks_is_not_repeated_within_a_budget() -> None:
    trial = SimpleNamespace(promise={"unit": "user"}, collector=SecAgg())
    scene: Any = SimpleNamespace(trial=trial, settings=SimpleNamespace(attacks=(), budget=30.0), targets=(0,))
    not_run: list[dict[str, str]] = []
    assert claims(scene, [], not_run, elapsed=0.0) == []
    assert "takes minutes" in not_run[0]["reason"]


def test_what_is_claimed_is_on_file_for_who_asks_for_attacks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audited(run, capsys, "--fresh")
    assert main(["audit", str(run), "--attacks", "loss_threshold"]) == 0
    text = capsys.readouterr().out
    assert "is claimed" not in text
    assert "1 more on file: epsilon" in text


def test_canary_records_of_other_clients_stand_beside_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = """
    name = "records"
    data = { kind = "digits" }
    partition = { kind = "iid", clients = 4 }
    task = { model = "linear" }
    work = { clip = 1.0, noise = 4.0, delta = 1e-5, batches = "poisson", denominator = "expected", updates = 2 }
    methods = [{ kind = "fedavg", learning_rate = 0.1 }]
    run = { rounds = 2 }
    """
    (tmp_path / "records.toml").write_text(study)
    assert main(["train", str(tmp_path / "records.toml"), "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    for client in (2, 0, 2):
        code, found = audited(folder, capsys, "--clients", str(client))
        assert code == 0
        assert [row["client"] for row in found["epsilon"]] == [client]
        assert [each["fields"]["client"] for each in found["certificates"]] == [client]
    (kept,) = json.loads((folder / "audit.json").read_text())
    assert [row["client"] for row in kept["epsilon"]] == [2, 0]
    assert main(["verify", str(folder)]) == 0
    assert kept["epsilon"][0]["verdict"] in capsys.readouterr().out, "verify has the words of the audit"


def test_a_claim_that_nobody_makes_is_refused_before_any_attack_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = STUDY.replace('collector = { kind = "private_mean", noise = 20.0, clip = 1.0 }', "").replace("= 20", "= 2")
    (tmp_path / "plain.toml").write_text(study)
    assert main(["train", str(tmp_path / "plain.toml"), "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert main(["audit", str(folder), "--attacks", "loss_threshold,epsilon", "--quiet"]) == 2
    assert '"fedavg" claims no epsilon' in capsys.readouterr().err
    assert not (folder / "audit.json").exists()

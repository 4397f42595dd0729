"""A claimed epsilon, from the study to the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rivage.cli.app import main
from rivage.federated.user_privacy import PrivateMean

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


def audited(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = main(["audit", str(run), "--attacks", "epsilon", "--json", "--quiet", *more])
    return code, json.loads(capsys.readouterr().out)


def test_an_honest_run_is_not_accused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = audited(run, capsys, "--fresh")
    assert code == 0
    (row,) = found["epsilon"]  # type: ignore[misc]
    assert row["epsilon"] == pytest.approx(0.8158, abs=0.01)
    assert row["verdict"] in ("consistent", "no power")
    assert "is claimed" in str(found["answer"])
    assert main(["verify", str(run), "--quiet"]) == 0


def test_an_engine_that_adds_too_little_noise_is_found_out(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivateMean, "on_sums", lambda self, clients: self.noise / 4)
    code, found = audited(run, capsys, "--fresh")
    assert code == 3
    (row,) = found["epsilon"]  # type: ignore[misc]
    assert row["verdict"] == "VIOLATION"
    assert "they contradict the claim" in str(found["answer"])
    assert "evidence" not in row
    assert main(["verify", str(run), "--quiet"]) == 3


def test_it_is_told_when_there_is_no_time(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = audited(run, capsys, "--fresh", "--budget", "1e-9")
    assert code == 0
    assert found["epsilon"] == []
    assert [row["attack"] for row in found["not_run"]] == ["epsilon"]  # type: ignore[index, union-attr]

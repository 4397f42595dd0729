"""Four silos in four processes: the run of the simulation, over real sockets; silos that die; what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.core.records import RunRecord
from rivage.learning.bundle import ModelBundle
from rivage.studies.pipeline import run_study
from rivage.studies.settings import Study, load_study

Capture = pytest.CaptureFixture[str]

STUDY = """
name = "four"
data = { kind = "digits" }
partition = { kind = "dirichlet", clients = 4, alpha = 0.5 }
evaluation = { every = 4 }
task = { model = "mortal:Net" }
[silos]
step_ms = 5.0
access_bps = 1e8
paths = "published"
[underlay]
kind = "cities"
places = ["Paris", "Lyon", "Marseille", "Nice"]
ms_per_km = 0.005
links = "mesh"
[run]
rounds = 10
dtype = "float64"
"""
METHODS = """
[[methods]]
name = "combine"
kind = "dpsgd"
[[methods]]
name = "adapt"
kind = "dpsgd"
order = "adapt_then_combine"
[[methods]]
name = "steps"
kind = "dpasgd"
work = { updates = 3, batch_size = 8, batches = "endless" }
[[methods]]
name = "star"
kind = "dpasgd"
overlay = { kind = "star", hub = "Lyon" }
[[methods]]
name = "tracking"
kind = "gradient_tracking"
learning_rate = 0.02
[[methods]]
name = "exact"
kind = "exact_diffusion"
[[methods]]
name = "push"
kind = "push_sum"
overlay = { kind = "directed" }
[[methods]]
name = "drawn"
kind = "dpasgd"
overlay = { kind = "matcha" }
[[methods]]
name = "mixed"
kind = "dfedem"
"""
MORTAL = """
import os, pathlib, signal, time
from torch import nn

calls = 0


class Net(nn.Linear):
    '''A linear model; silo RANK meets its end at the forward pass that the file says, in the way that it says.'''

    def __init__(self, schema, outputs):
        super().__init__(schema.input_shape[0], outputs)

    def forward(self, x):
        global calls
        calls += 1
        end = pathlib.Path("end-" + os.environ.get("RANK", os.environ.get("RANK_OF_ENDS", "none")))
        if end.exists() and end.read_text().split()[0] == str(calls):
            pathlib.Path("ended").write_text(str(time.time()))
            os.kill(os.getpid(), int(end.read_text().split()[1]))
        return super().forward(x)
"""
ONE = '[[methods]]\nname = "steps"\nkind = "dpasgd"\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the model, in which commands are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mortal.py").write_text(MORTAL)
    yield tmp_path
    sys.modules.pop("mortal", None)


def study_in(site: Path, methods: str = METHODS, silos: int = 4) -> Path:
    """The study; three silos start sooner than four."""
    path, text = site / "four.toml", STUDY + methods
    path.write_text(text if silos == 4 else text.replace("clients = 4", "clients = 3").replace(', "Nice"]', "]"))
    return path


def simulated(path: Path) -> RunRecord:
    study: Study = load_study(path)
    return run_study(study, out=path.parent / "simulated")


def only(out: Path) -> RunRecord:
    (folder,) = out.glob("four-*")
    return RunRecord(folder)


def same(one: Any, other: Any) -> bool:
    """Equal, numbers up to 1e-10; what a simulation alone knows is null."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(one[key], other[key]) or (key == "consensus" and other[key] is None) for key in one
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return isinstance(other, float) and abs(one - other) <= 1e-10 * max(1, abs(one))
    return bool(one == other)


def assert_same_run(real: RunRecord, model: RunRecord) -> None:
    assert [trial.method for trial in real.trials] == [trial.method for trial in model.trials]
    for expected in model.trials:
        trial = real.trial(expected.method, expected.seed)
        assert trial.finished
        for here, there in zip(expected.events(), trial.events(), strict=True):
            known = {name: value for name, value in here.items() if name != "mix"}  # to each silo alone
            assert same(known, there), (trial.method, here, there)
        bundles = [ModelBundle.load(each.folder / "models.safetensors") for each in (expected, trial)]
        silos = () if trial.method == "mixed" else range(len(model.trials[0].start["population"]["names"]))
        for client in (*silos, None):
            np.testing.assert_allclose(*(bundle.parts(client)[0] for bundle in bundles), rtol=0, atol=1e-10)


@pytest.mark.process
def test_killed_and_resumed_it_is_the_run_of_the_simulation(site: Path, capsys: Capture) -> None:
    """All algorithms in one run; silo 2 is killed in the fourth, between two checkpoints."""
    path = study_in(site, silos=3)
    (site / "end-2").write_text("140 9")
    command = ["train", str(path), "--engine", "torchdist", "--out", "real", "--quiet"]
    assert main(command) == 1
    took = time.time() - float((site / "ended").read_text())
    error = capsys.readouterr().err
    assert error.startswith('error: method "star", seed 0, round ')
    assert 'silo "Marseille" was killed by signal 9. Run the same command again' in error
    assert took < 10  # seconds until all have ended, on a busy machine; 1 on an idle one
    stopped = only(site / "real")
    unfinished = [trial.method for trial in stopped.trials if not trial.finished]
    assert unfinished == ["star"]
    kept = [len(trial.events("round")) for trial in stopped.trials if trial.method == "star"]
    (site / "end-2").unlink()
    assert main(command) == 0
    assert kept == [4]  # rounds until the last common checkpoint
    assert_same_run(only(site / "real"), simulated(path))


def refused(words: list[str], capsys: Capture) -> str:
    assert main(["train", *words, "--quiet"]) == 2
    return capsys.readouterr().err


def test_what_has_a_server_is_refused(site: Path, capsys: Capture) -> None:
    path = study_in(site, '[[methods]]\nkind = "fedavg"\n' + ONE)
    error = refused([str(path), "--engine", "torchdist"], capsys)
    assert '[[methods]] 1: "fedavg" is not decentralised, and torchdist has no server' in error


def test_an_interface_needs_the_engine_and_torchrun(site: Path, capsys: Capture) -> None:
    path = str(study_in(site, ONE))
    assert "uses no network" in refused([path, "--interface", "eth0"], capsys)
    assert "started on this machine" in refused([path, "--engine", "torchdist", "--interface", "eth0"], capsys)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"MASTER_ADDR": "192.0.2.7"}, "MASTER_ADDR is 192.0.2.7, which other machines can reach"),
        ({"MASTER_ADDR": "no.such.name.invalid"}, "which other machines can reach, and gloo is not encrypted"),
        ({"MASTER_PORT": None}, "RANK is set and MASTER_PORT is not"),
        ({"MASTER_PORT": "x"}, 'MASTER_PORT is "x"'),
        ({"RANK": "4"}, "RANK is 4 of WORLD_SIZE 4"),
        ({"WORLD_SIZE": "3", "RANK": "2"}, "3 processes were started for 4 silos"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(
    changed: dict[str, str | None], text: str, site: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in {**usual, **changed}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    path = study_in(site, ONE)
    assert text in refused([str(path), "--engine", "torchdist"], capsys)


def start(site: Path, *words: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rivage.cli", "train", "four.toml", "--engine", "torchdist", *words]
    return subprocess.Popen(command, cwd=site, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **more)


def running(site: Path) -> list[int]:
    """Processes that were started in this folder and still run."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if (each / "cwd").resolve() == site and (each / "status").read_text().split("State:\t")[1][0] != "Z":
                found.append(int(each.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("silo", "how", "text"), [(3, signal.SIGSTOP, "gave no sign for 10 s"), (0, 9, "")])
def test_a_silo_that_freezes_or_keeps_the_record_ends_all(site: Path, silo: int, how: int, text: str) -> None:
    study_in(site, ONE)
    (site / f"end-{silo}").write_text(f"30 {int(how)}")
    environment = {**os.environ, "PYTHONPATH": str(site)} | ({"RANK_OF_ENDS": "0"} if silo == 0 else {})
    first = start(site, "--out", "real", "--quiet", env=environment)
    _, error = first.communicate(timeout=120)
    took = time.time() - float((site / "ended").read_text())
    assert took < 25
    if silo:
        assert first.returncode == 1
        assert f'silo "Nice" {text}' in error
    until = time.monotonic() + 15
    while running(site) and time.monotonic() < until:
        time.sleep(0.2)
    assert running(site) == []
    if silo == 0:
        for rank in (1, 2, 3):
            (log,) = site.glob(f"real/four-*/silos/silo-{rank}.log")
            assert 'silo "Paris"' in log.read_text()


@pytest.mark.slow
@pytest.mark.process
def test_torchrun_starts_the_silos(site: Path) -> None:
    """Four, for every algorithm."""
    path = study_in(site)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "--master-addr", "127.0.0.1"]
    command += ["--master-port", "29517", "-m", "rivage.cli", "train", str(path), "--engine", "torchdist"]
    done = subprocess.run([*command, "--out", "real"], cwd=site, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("9 methods") == 1  # silo 0 alone answers
    assert_same_run(only(site / "real"), simulated(path))

"""Workers in processes: the same results, through deaths; nobody outlives the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rivage.federated.algorithm import Phase
from rivage.federated.apfl import APFL
from rivage.federated.checkpoint import Notebook
from rivage.federated.engine import Session, run
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.fedavg import FedAvg
from rivage.federated.scaffold import Scaffold
from rivage.federated.trial import Trial
from rivage.testing.toys import linear_clients, linear_task

pytestmark = pytest.mark.process

POPULATION = linear_clients((9, 4, 1, 17, 12))
WORK = Phase(epochs=2, batch_size=4)


def trial(algorithm: Any = None, **execution: Any) -> Trial:
    return Trial(
        name="m",
        algorithm=algorithm or FedAvg(learning_rate=0.05, work=WORK),
        population=POPULATION,
        task=linear_task(POPULATION),
        rounds=4,
        every=2,
        execution=Execution(executor="functional", **execution),
    )


def events(one: Trial) -> list[dict[str, Any]]:
    notebook = Notebook()
    run(one, notebook)
    return notebook.events


@pytest.mark.parametrize("algorithm", [FedAvg(work=WORK), Scaffold(work=WORK), APFL(work=WORK, adaptive=True)])
def test_processes_threads_and_one_worker_give_the_same_record(algorithm: Any) -> None:
    alone = events(trial(algorithm, workers=1))
    assert events(trial(algorithm, workers=2, pool="processes")) == alone
    assert events(trial(algorithm, workers=2, pool="threads")) == alone


def _workers() -> list[int]:
    me = str(os.getpid())
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            if state[1] == me and state[0] != "Z" and "popen_loky" in command:
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_a_round_completes_although_a_worker_is_killed() -> None:
    expected = events(trial(workers=1))
    notebook = Notebook()
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for worker in _workers()[:1]:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
            time.sleep(0.001)

    with Session(trial(workers=2, pool="processes"), notebook) as session:
        murderer = threading.Thread(target=kill)
        murderer.start()
        for _event in session:
            pass
        murderer.join()
        session.outcome()
    assert killed
    assert notebook.events == expected


CHILD = """
import sys, time
from rivage.federated import Execution, FedAvg, Phase, Session, Trial
from rivage.testing.toys import linear_clients, linear_task

population = linear_clients((9, 4, 12))
trial = Trial(
    name="m", algorithm=FedAvg(work=Phase(batch_size=4)), population=population, task=linear_task(population),
    rounds=10**6, every=10**6, execution=Execution(executor="functional", workers=2, pool="processes"),
)
for event in Session(trial):
    if event["round"] == 2:
        print("playing", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers through /proc")
def test_no_worker_outlives_its_parent() -> None:
    """And a script without a __main__ guard may start them."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "playing\n"
    descendants = [
        int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and _parent(path) == child.pid
    ]
    assert descendants
    child.kill()
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 20
    while alive := [pid for pid in descendants if _running(pid)]:
        assert time.monotonic() < deadline, f"{alive} outlive their parent"
        time.sleep(0.1)


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return -1


def _running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_auto_starts_processes_for_what_threads_cannot_take_once_it_pays() -> None:
    executor = Executor(linear_task(POPULATION), Execution(executor="functional", workers=2))
    jobs: list[Any] = [None, None]
    executor._spent_s = 6.0
    assert not executor._in_processes(jobs), "threads can take it"
    executor.task.stochastic = True
    assert executor._in_processes(jobs)
    assert not executor._in_processes(jobs[:1]), "one job needs no second worker"
    executor._spent_s = 4.0
    assert not executor._in_processes(jobs), "not worth it yet"

"""A trial's folder: what is written, cut off and refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rivage.core.errors import ConfigError, StoreError
from rivage.core.messages import LogPolicy
from rivage.federated import FedAvg, Notebook, Phase, Trial, run
from rivage.federated.batches import Position
from rivage.federated.checkpoint import CHECKPOINT, Files, Memory, Snapshot
from rivage.testing.toys import linear_clients, linear_task

POPULATION = linear_clients()
ENDLESS = Phase(updates=2, batch_size=3, batches="endless")
TRIAL = Trial(
    name="avg",
    algorithm=FedAvg(learning_rate=0.1, work=ENDLESS),
    population=POPULATION,
    task=linear_task(POPULATION),
    rounds=5,
    cohort=2,
    every=2,
)


class Killed(Exception):
    """Stands for a process that is gone."""


class Dying(Files):
    """Dies when it is about to commit a round."""

    def __init__(self, folder: Path, left: int) -> None:
        super().__init__(folder, LogPolicy("all"), {})
        self.left = left

    def commit(self, snapshot: Snapshot) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed
        super().commit(snapshot)


def journal(folder: Path) -> Files:
    return Files(folder, LogPolicy("all"), {})


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("record.jsonl", "messages.rvg", CHECKPOINT)}


@pytest.mark.parametrize("rounds", range(5))
def test_a_trial_that_dies_before_a_commit_ends_with_the_same_files(tmp_path: Path, rounds: int) -> None:
    with journal(tmp_path / "whole") as whole:
        expected = run(TRIAL, whole)
    with pytest.raises(Killed), Dying(tmp_path / "killed", rounds) as dying:
        run(TRIAL, dying)
    with journal(tmp_path / "killed") as again:
        assert torch.equal(run(TRIAL, again).state["params"], expected.state["params"])
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_checkpoint_brings_back_state_memories_and_positions(tmp_path: Path) -> None:
    state = {"params": torch.arange(3.0), "count": torch.tensor(7)}
    memories: Mapping[int, Memory] = {
        4: Memory({"v": torch.ones(2, 2)}, Position(3, 1)),
        10**12: Memory({}, Position(0, 2)),
    }
    with journal(tmp_path) as files:
        files.resume("me")
        files.commit(Snapshot(9, state, memories))
    with journal(tmp_path) as files:
        back = files.resume("me")
    assert back is not None
    assert back.rounds == 9
    assert back.state.keys() == state.keys()
    assert all(torch.equal(back.state[name], value) for name, value in state.items())
    assert back.memories.keys() == memories.keys()
    assert torch.equal(back.memories[4].values["v"], torch.ones(2, 2))
    assert [m.position for m in back.memories.values()] == [Position(3, 1), Position(0, 2)]


@pytest.mark.parametrize("change", [{"seed": 1}, {"rounds": 6}, {"cohort": 3}, {"algorithm": FedAvg(learning_rate=1)}])
def test_a_checkpoint_of_another_trial_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with journal(tmp_path) as files:
        run(TRIAL, files)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"other settings or other data.*--fresh"), journal(tmp_path) as files:
        run(replace(TRIAL, **change), files)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-3], lambda data: data[:60] + b"?" + data[61:], lambda data: b""]
)
def test_a_damaged_checkpoint_is_an_error_that_names_the_file(tmp_path: Path, damage: Any) -> None:
    with journal(tmp_path) as files:
        run(TRIAL, files)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=CHECKPOINT), journal(tmp_path) as files:
        run(TRIAL, files)


def test_a_notebook_keeps_what_was_committed_not_what_came_after() -> None:
    notebook, memories = Notebook(), {0: Memory()}
    notebook.commit(Snapshot(1, {}, memories))
    memories[1] = Memory()
    assert notebook.snapshot is not None
    assert set(notebook.snapshot.memories) == {0}

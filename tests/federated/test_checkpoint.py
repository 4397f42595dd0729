"""A trial's folder: what is written, when, what is cut off and refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, RivageError, StoreError
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
STATE = {"params": torch.arange(3.0), "count": torch.tensor(7)}


class Killed(Exception):
    """Stands for a process that is gone."""


class Dying(Files):
    """Dies when it is about to commit a round; with ``late``, after the round is noted but not on the disk."""

    def __init__(self, folder: Path, left: int, late: bool) -> None:
        super().__init__(folder, LogPolicy("all"), {}, interval=1e9 if late else 0)
        self.left, self.late = left, late

    def commit(self, snapshot: Snapshot, *, force: bool = False) -> None:
        self.left -= 1
        if self.left < 0 and not self.late:
            raise Killed
        super().commit(snapshot, force=force)
        if self.left < 0:
            raise Killed

    def __exit__(self, *exception: Any) -> None:
        self._waiting = None  # a process that is gone writes nothing
        super().__exit__(*exception)


def journal(folder: Path, **settings: Any) -> Files:
    return Files(folder, LogPolicy("all"), {}, **{"interval": 0, **settings})


def contents(folder: Path) -> dict[str, Any]:
    """What a folder says; a database says the same in different bytes."""
    return {name: (folder / name).read_bytes() for name in ("record.jsonl", "messages.rvg")} | {
        CHECKPOINT: checkpoint(folder)
    }


def checkpoint(folder: Path) -> Any:
    drawer = Files(folder, LogPolicy("none"), {})._drawer
    try:
        head, state = drawer.find() or ({}, {})
        rounds = sorted(drawer.rounds())
        memories = {client: _plain(memory) for client, memory in drawer.read([client for client, _ in rounds]).items()}
    finally:
        drawer.close()
    return head, _tensors(state), rounds, memories


def _tensors(state: Any) -> dict[str, Any]:
    return {name: (value.dtype, value.tolist()) for name, value in state.items()}


def _plain(memory: Memory) -> Any:
    return _tensors(memory.values), memory.position, _tensors(memory.residuals)


# --- resume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("rounds", range(5))
def test_a_trial_that_dies_in_a_commit_ends_with_the_same_files(tmp_path: Path, rounds: int, late: bool) -> None:
    with journal(tmp_path / "whole") as whole:
        expected = run(TRIAL, whole)
    with pytest.raises(Killed), Dying(tmp_path / "killed", rounds, late) as dying:
        run(TRIAL, dying)
    with journal(tmp_path / "killed") as again:
        assert torch.equal(run(TRIAL, again).state["params"], expected.state["params"])
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_checkpoint_brings_back_state_memories_residuals_positions_and_extra(tmp_path: Path) -> None:
    kept = {
        4: Memory({"v": torch.ones(2, 2)}, Position(3, 1), {"params": torch.zeros(3)}),
        10**12: Memory({}, Position(0, 2)),
    }
    with journal(tmp_path) as files:
        files.resume("me")
        files.memories.put(kept, 8)
        files.commit(Snapshot(9, STATE, {"plan": [1, {"tile": 4.5}], "none": None}))
    with journal(tmp_path) as files:
        back = files.resume("me")
        memories = files.memories.get([10**12, 4, 0])
    assert back is not None
    assert (back.rounds, back.extra) == (9, {"plan": [1, {"tile": 4.5}], "none": None})
    assert _tensors(back.state) == _tensors(STATE)
    assert [_plain(memory) for memory in memories] == [_plain(kept[10**12]), _plain(kept[4]), _plain(Memory())]


def test_tensors_come_back_aligned_and_writable(tmp_path: Path) -> None:
    with journal(tmp_path) as files:
        files.resume("me")
        files.commit(Snapshot(1, {"odd": torch.ones(3, dtype=torch.uint8), "params": torch.ones(5)}))
    with journal(tmp_path) as files:
        back = files.resume("me")
    assert back is not None
    assert all(value.data_ptr() % 64 == 0 for value in back.state.values())
    back.state["params"].add_(1)


def test_a_large_state_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rivage.core.database._PART_BYTES", 1000)  # as if the state had gigabytes
    state = {"params": torch.arange(3000.0), "tail": torch.arange(250.0), "empty": torch.empty(0)}
    with journal(tmp_path) as files:
        files.resume("me")
        files.commit(Snapshot(1, {"params": torch.ones(9000)}))
        files.commit(Snapshot(2, state))
    with journal(tmp_path) as files:
        back = files.resume("me")
    assert back is not None
    assert _tensors(back.state) == _tensors(state)


def test_a_trial_that_plays_no_round_has_no_checkpoint(tmp_path: Path) -> None:
    with journal(tmp_path) as files:
        files.resume("me")
        files.event({"event": "start"})
    assert not list(tmp_path.glob(f"{CHECKPOINT}*"))


def test_a_finished_trial_leaves_one_file(tmp_path: Path) -> None:
    with journal(tmp_path) as files:
        run(TRIAL, files)
        assert (tmp_path / f"{CHECKPOINT}-wal").exists()
    assert [path.name for path in tmp_path.glob(f"*{CHECKPOINT}*")] == [CHECKPOINT]


# --- when it is written -------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def durable(folder: Path) -> int:
    """Rounds that a process killed now would resume from."""
    copy = folder / "copy"
    copy.mkdir(exist_ok=True)
    for name in (CHECKPOINT, f"{CHECKPOINT}-wal"):
        (copy / name).unlink(missing_ok=True)
        if (folder / name).exists():
            (copy / name).write_bytes((folder / name).read_bytes())
    head, *_ = checkpoint(copy)
    return int(head.get("rounds", 0))


def test_a_commit_is_durable_when_it_is_due_or_forced(tmp_path: Path) -> None:
    clock = Clock()
    seen = []
    with journal(tmp_path, interval=1.0, clock=clock) as files:
        files.resume("me")
        for rounds, passed, force in [(1, 0.5, 0), (2, 0.5, 0), (3, 0.9, 0), (4, 0.0, 1), (5, 0.9, 0), (6, 0.2, 0)]:
            clock.now += passed
            files.commit(Snapshot(rounds, STATE), force=bool(force))
            seen.append(durable(tmp_path))
        files.commit(Snapshot(7, STATE))
        seen.append(durable(tmp_path))
    assert seen == [0, 2, 2, 4, 4, 6, 6]
    assert durable(tmp_path) == 7  # leaving keeps the last commit


def test_memories_that_wait_are_written_before_they_overflow(tmp_path: Path) -> None:
    with journal(tmp_path, interval=1e9, cache_bytes=100_000) as files:
        files.resume("me")
        seen = []
        for rounds in range(1, 7):
            files.memories.put({rounds: Memory({"v": torch.ones(10_000)})}, rounds - 1)
            files.commit(Snapshot(rounds, STATE))
            seen.append(durable(tmp_path))
        assert [bool(memory.values) for memory in files.memories.get(range(8))] == [False, *[True] * 6, False]
    assert seen == [0, 0, 3, 3, 3, 6]


def test_what_follows_the_last_commit_is_not_kept(tmp_path: Path) -> None:
    with journal(tmp_path, interval=1e9) as files:
        files.resume("me")
        files.event({"event": "round", "round": 0})
        files.memories.put({1: Memory(position=Position(1, 1))}, 0)
        files.commit(Snapshot(1, STATE))
        files.event({"event": "round", "round": 1})
        files.memories.put({1: Memory(position=Position(2, 2)), 2: Memory(position=Position(2, 2))}, 1)
    with journal(tmp_path) as files:
        back = files.resume("me")
        assert back is not None
        assert back.rounds == 1
        assert [memory.position.passes for memory in files.memories.get([1, 2])] == [1, 0]
        assert [event["round"] for event in files.record.events()] == [0]


def test_a_commit_that_is_not_due_costs_next_to_nothing(tmp_path: Path) -> None:
    state = {"params": torch.zeros(1_663_370)}
    with journal(tmp_path, interval=1e9) as files:
        files.resume("me")
        files.event({"event": "start"})
        seconds = []
        for rounds in range(200):
            started = time.perf_counter()
            files.commit(Snapshot(rounds, state))
            seconds.append(time.perf_counter() - started)
    assert sorted(seconds)[100] < 2e-4  # some 10 µs; a durable one takes 1000 times as long


def test_a_failed_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal(tmp_path) as files:
        files.resume("me")
        files.commit(Snapshot(1, STATE))
        files.memories.put({3: Memory(position=Position(5, 5))}, 1)
        with monkeypatch.context() as patched:
            patched.setattr("rivage.federated.checkpoint._chunks", lambda state: [b"half", _raise()])
            with pytest.raises(StoreError, match="full"):
                files.commit(Snapshot(2, STATE))
        assert durable(tmp_path) == 1
        assert files.memories.get([3])[0].position == Position(5, 5)
    with journal(tmp_path) as files:
        back = files.resume("me")
        assert back is not None
        assert back.rounds == 2
        assert files.memories.get([3])[0].position == Position(5, 5)


def _raise() -> bytes:
    raise StoreError("the disk is full")


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"seed": 1}, {"rounds": 6}, {"cohort": 3}, {"algorithm": FedAvg(learning_rate=1)}])
def test_a_checkpoint_of_another_trial_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with journal(tmp_path) as files:
        run(TRIAL, files)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"other settings or other data.*--fresh"), journal(tmp_path) as files:
        run(replace(TRIAL, **change), files)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:60] + b"?" + data[61:],
        lambda data: b"",
        lambda data: data[:4096],
        lambda data: b"not a database, but long enough to be one" * 1000,
        lambda data: data.replace(b"rounds", b"sounds"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_the_file_and_the_way_out(tmp_path: Path, damage: Any) -> None:
    with journal(tmp_path) as files:
        run(TRIAL, files)
    record = (tmp_path / "record.jsonl").read_bytes()
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=f"{CHECKPOINT}.*delete it") as error, journal(tmp_path) as files:
        run(TRIAL, files)
    assert error.value.exit_code == 1
    assert (tmp_path / "record.jsonl").read_bytes() == record
    path.unlink()
    with journal(tmp_path) as files:
        run(TRIAL, files)
    assert (tmp_path / "record.jsonl").read_bytes() == record


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of a few records, and a copy of its bytes."""
    folder = tmp_path_factory.mktemp("sound")
    with journal(folder) as files:
        files.resume("me")
        files.memories.put({client: Memory({"v": torch.full((700,), client)}) for client in range(1, 40)}, 0)
        files.commit(Snapshot(1, {"params": torch.arange(9000.0)}))
    (folder / "copy").write_bytes((folder / CHECKPOINT).read_bytes())
    return folder


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_no_flipped_bit_goes_by_unseen(sound: Path, place: float, bit: int) -> None:
    data = (sound / "copy").read_bytes()
    flipped = bytearray(data)
    flipped[int(place * len(data))] ^= 1 << bit
    (sound / CHECKPOINT).write_bytes(flipped)
    refused = ""
    try:
        said = checkpoint(sound)
    except RivageError as error:
        refused = str(error)
        assert CHECKPOINT in refused
    if not refused:  # then nothing is kept in this byte
        head, state, rounds, memories = said
        assert head["rounds"] == 1
        assert state["params"][1] == list(range(9000))
        assert rounds == [(client, 0) for client in range(1, 40)]
        assert all(memories[client][0]["v"][1] == [client] * 700 for client in range(1, 40))


def test_rows_that_vanish_from_a_page_are_missed(sound: Path) -> None:
    """No checksum of a row tells that it is gone: the structure of the file does."""
    data = bytearray((sound / "copy").read_bytes())
    size = int.from_bytes(data[16:18], "big")
    pages = range(size, len(data), size)
    leaves = [page for page in pages if data[page] == 13 and b'"position"' in data[page : page + size]]
    assert leaves, "no leaf holds memories"
    data[leaves[-1] + 4] -= 1  # its number of rows
    (sound / CHECKPOINT).write_bytes(data)
    with pytest.raises(StoreError, match=CHECKPOINT):
        checkpoint(sound)


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rivage.core.database._WAIT_S", 0.0)
    with journal(tmp_path) as files:
        files.resume("me")
        files.commit(Snapshot(1, STATE))
        with pytest.raises(StoreError, match="open in another process"), journal(tmp_path) as second:
            second.resume("me")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).mkdir()
    with pytest.raises(StoreError, match=f"{CHECKPOINT}.*permissions"), journal(tmp_path) as files:
        files.resume("me")


# --- kill -9 ------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
import torch
from rivage.core.messages import LogPolicy
from rivage.federated.batches import Position
from rivage.federated.checkpoint import Files, Memory, Snapshot

with Files(Path(sys.argv[1]), LogPolicy("none"), {}, interval=0, cache_bytes=0) as files:
    snapshot = files.resume("me")
    rounds = snapshot.rounds if snapshot else 0
    print("ready", flush=True)
    while True:
        mine = range(rounds % 10, 200, 10)
        files.memories.put({c: Memory({"v": torch.full((900,), rounds)}, Position(rounds, 0)) for c in mine}, rounds)
        files.event({"event": "round", "round": rounds})
        rounds += 1
        files.commit(Snapshot(rounds, {"params": torch.full((50_000,), rounds)}))
"""


@pytest.mark.process
def test_a_process_killed_at_any_instant_leaves_one_consistent_instant(tmp_path: Path) -> None:
    reached = []
    for wait in (0.0, 0.003, 0.011, 0.05, 0.13, 0.21):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
        with Files(tmp_path, LogPolicy("none"), {}) as files:
            snapshot = files.resume("me")
            rounds = snapshot.rounds if snapshot else 0
            assert snapshot is None or bool((snapshot.state["params"] == rounds).all())
            assert [event["round"] for event in files.record.events()] == list(range(rounds))
            for client, memory in enumerate(files.memories.get(range(200))):
                last = [r for r in range(rounds) if client % 10 == r % 10]
                assert memory.position.passes == (last[-1] if last else 0)
                assert not last or bool((memory.values["v"] == last[-1]).all())
        reached.append(rounds)
    assert reached == sorted(reached)
    assert reached[-1] > reached[0]


# --- without files ------------------------------------------------------------------------------------------


def test_a_notebook_keeps_what_was_committed_not_what_came_after() -> None:
    notebook = Notebook()
    notebook.resume("me")
    notebook.memories.put({0: Memory(position=Position(1, 1))}, 0)
    notebook.commit(Snapshot(1, {}))
    notebook.memories.put({0: Memory(position=Position(2, 2)), 1: Memory(position=Position(2, 2))}, 1)
    assert notebook.resume("me") == Snapshot(1, {})
    assert [memory.position.passes for memory in notebook.memories.get([0, 1])] == [1, 0]

"""What reaches the disk, in which order, how often; and what a writer, a log or a limit does when things go wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch

from rivage.core.database import Database
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.messages import LogPolicy, Message
from rivage.core.trial_records import TrialRecord
from rivage.core.writer import Writer
from rivage.federated.checkpoint import CHECKPOINT, Files, Snapshot
from rivage.federated.memories import Box, Memories, Memory

BIG = 100_000  # bytes that a writer hands over to its thread
STATE = {"params": torch.arange(3.0)}


def message(round: int, value: float, size: int = 4, kind: str = "update") -> Message:
    parties = ("server", "client:0") if kind == "broadcast" else ("client:0", "server")
    payload = {"params": np.full(size, value, np.float32)}
    return Message(round=round, sender=parties[0], receiver=parties[1], kind=kind, payload=payload)


def copied(folder: Path) -> Path:
    """What a process that is killed now leaves behind."""
    copy = folder.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(folder, copy))


def remembered(folder: Path) -> dict[str, Any]:
    """What the checkpoint of a folder says; empty without one."""
    copy = copied(folder)
    if not (copy / CHECKPOINT).exists():
        return {}
    database = Database(copy / CHECKPOINT)
    try:
        return dict(json.loads(database.document()[0]))
    finally:
        database.close()


# --- a checkpoint and its log --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, BIG])
def test_the_log_is_on_the_disk_before_the_checkpoint_that_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    calls: list[str] = []
    append, flush, transaction = MessageLog.append, MessageLog.flush, Database.transaction

    def appended(log: MessageLog, message: Message) -> None:
        calls.append("append")
        append(log, message)

    def flushed(log: MessageLog) -> None:
        flush(log)
        calls.append("flush")

    @contextmanager
    def committed(database: Database) -> Iterator[None]:
        with transaction(database):
            yield
        calls.append("commit")

    folder = tmp_path / "trial"
    with Files(folder, LogPolicy("all"), {}, interval=0) as files:
        files.resume("me")
        files.commit(Snapshot(0, STATE))  # makes the database, which has a transaction of its own
        monkeypatch.setattr(MessageLog, "append", appended)
        monkeypatch.setattr(MessageLog, "flush", flushed)
        monkeypatch.setattr(Database, "transaction", committed)
        for round in range(4):
            calls.clear()
            for _ in range(3):
                files.message(message(round, round, size))
            files.event({"event": "round", "round": round})
            files.commit(Snapshot(round + 1, STATE))
            on_disk, record = (folder / LOG_NAME).stat().st_size, (folder / "record.jsonl").stat().st_size
            order = calls.copy()
            assert [call for call in order if call != "flush"] == [*["append"] * 3, "commit"]
            assert "flush" in order[order.index("commit") - 1 : order.index("commit")]
            head = remembered(folder)
            assert (head["rounds"], head["record"]) == (round + 1, record)
            assert on_disk >= head["log"] > 3 * (round + 1) * 4 * size
            with Files(copied(folder), LogPolicy("all"), {}) as again:
                snapshot = again.resume("me")
                assert snapshot is not None
                assert snapshot.rounds == round + 1
                kept = list(MessageLog.read(again.folder / LOG_NAME))
                assert [each.round for each in kept] == [number for number in range(round + 1) for _ in range(3)]


# --- the log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, BIG])
def test_flush_brings_the_log_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    synced: list[tuple[int, int]] = []
    fsync = os.fsync

    def recorded(file: int) -> None:
        status = os.fstat(file)
        synced.append((status.st_ino, status.st_size))
        fsync(file)

    path = tmp_path / LOG_NAME
    with MessageLog.create(path, {}) as log:
        monkeypatch.setattr(os, "fsync", recorded)
        for round in range(3):
            log.append(message(round, round, size))
            assert synced == []
            log.flush()
            assert synced == [(path.stat().st_ino, log.offset)]  # once everything is written
            synced.clear()


@pytest.mark.parametrize("place", [-5, -1], ids=["body", "checksum"])
def test_a_damaged_last_broadcast_is_stored_again(tmp_path: Path, place: int) -> None:
    path = tmp_path / LOG_NAME
    before, damaged, after = (message(round, round, 50, "broadcast") for round in range(3))
    with MessageLog.create(path, {}) as log:
        log.append(before)
        whole = log.offset
        log.append(damaged)
        end = log.offset
    content = path.read_bytes()
    broken = bytearray(content)
    broken[place] ^= 1
    path.write_bytes(broken)
    with MessageLog.open(path) as log:
        assert log.offset == whole
        log.append(damaged)
        assert log.offset == end
        log.append(damaged)
        assert log.offset - end < 4 * 50 + 300  # and told of once more, not stored
        log.append(before)
        log.append(after)
    assert path.read_bytes()[:end] == content
    read = list(MessageLog.read(path))
    assert [each.payload["params"][0] for each in read] == [0, 1, 1, 0, 2]
    with MessageLog.open(path) as log:
        log.append(damaged)
    assert [each.payload["params"][0] for each in MessageLog.read(path)] == [0, 1, 1, 0, 2, 1]


# --- how often a checkpoint is written -----------------------------------------------------------------------


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("interval", "takes", "due"), [(1.0, 1.0, 20.0), (1.0, 4.0, 80.0), (30.0, 1.0, 30.0), (1.0, 0.04, 1.0)]
)
def test_writing_takes_at_most_a_twentieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: float, takes: float, due: float
) -> None:
    clock = Clock()

    def slow(record: TrialRecord) -> None:
        clock.now += takes

    monkeypatch.setattr(TrialRecord, "flush", slow)
    folder = tmp_path / "trial"
    with Files(folder, LogPolicy("none"), {}, interval=interval, clock=clock) as files:
        files.resume("me")
        files.commit(Snapshot(1, STATE), force=True)
        for rounds in (2, 4):
            ended = clock.now
            clock.now = ended + due - 0.01
            files.commit(Snapshot(rounds, STATE))
            assert remembered(folder)["rounds"] == rounds - 1
            clock.now = ended + due
            files.commit(Snapshot(rounds + 1, STATE))
            assert remembered(folder)["rounds"] == rounds + 1


def test_an_interval_of_zero_writes_every_round_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def slow(record: TrialRecord) -> None:
        clock.now += 1.0

    monkeypatch.setattr(TrialRecord, "flush", slow)
    folder = tmp_path / "trial"
    with Files(folder, LogPolicy("none"), {}, interval=0, clock=clock) as files:
        files.resume("me")
        for rounds in (1, 2, 3):
            files.commit(Snapshot(rounds, STATE))
            assert remembered(folder)["rounds"] == rounds


# --- forgetting, after a round that is played again ----------------------------------------------------------


def memory(number: int) -> Memory:
    return Memory({"v": torch.tensor(float(number))})


def numbers(memories: Memories, clients: Sequence[int]) -> list[int]:
    return [int(each.values.get("v", 0)) for each in memories.get(clients)]


def test_rolling_back_brings_back_the_calendar_of_the_last_mark() -> None:
    memories = Memories(Box(), limit=2)
    memories.put({0: memory(1), 1: memory(1)}, 0)
    memories.mark()
    memories.write()
    memories.settle()
    assert memories.put({2: memory(2)}, 1) == 1  # 0 is forgotten, but is still on the shelf
    memories.mark()
    assert memories.put({3: memory(3), 0: memory(3)}, 2) == 2  # 1 and 2: this round is played again
    memories.roll_back()
    assert (numbers(memories, range(4)), memories.forgotten) == ([0, 1, 2, 0], 1)
    assert memories.put({4: memory(4)}, 2) == 1  # 1, and nobody who is gone already
    assert (numbers(memories, range(5)), memories.forgotten) == ([0, 0, 2, 0, 4], 2)
    assert memories.put({2: memory(5)}, 3) == 0
    memories.mark()
    memories.write()
    assert dict(memories.shelf.rounds()) == {2: 3, 4: 2}


# --- the writer ----------------------------------------------------------------------------------------------


class Kept(io.BytesIO):
    """A file whose bytes outlive it."""

    content = b""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


class Gated(Kept):
    """A disk that stands still until its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def writelines(self, parts: Any) -> None:
        assert self.gate.wait(60)
        super().writelines(parts)


class Full(Kept):
    """A disk without room, for as long as it is full."""

    full = True

    def writelines(self, parts: Any) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().writelines(parts)


def frame(body: bytes) -> bytes:
    return b"o" + body + crc32(body).to_bytes(4, "little")


def put(writer: Writer, body: bytes) -> None:
    writer.append(b"o", [memoryview(body)])


def writers(before: set[threading.Thread]) -> list[str]:
    """Threads of writers that have come since."""
    return [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("rivage-writer")]


@pytest.mark.parametrize("last", [BIG, 10, 5 * BIG])
def test_an_append_waits_while_too_much_is_waiting(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    monkeypatch.setattr("rivage.core.writer._MAX_WAITING_BYTES", 3 * BIG)
    bodies = [bytes([number]) * size for number, size in enumerate((BIG, BIG, BIG, last))]
    file, taken = Gated(), threading.Semaphore(0)
    writer = Writer(file)

    def append() -> None:
        for body in bodies:
            put(writer, body)
            taken.release()

    caller = threading.Thread(target=append, daemon=True)
    caller.start()
    for _ in range(3):
        assert taken.acquire(timeout=60)  # what there is room for does not wait for the disk
    assert not taken.acquire(timeout=0.1)
    assert file.getvalue() == b""
    file.gate.set()
    assert taken.acquire(timeout=60)
    caller.join(60)
    writer.close()
    assert file.content == b"".join(map(frame, bodies))


def test_the_bound_is_of_64_megabytes() -> None:
    from rivage.core import writer

    assert writer._MAX_WAITING_BYTES == 64 << 20


@pytest.mark.parametrize(("threaded", "size"), [(False, 1), (False, BIG), (True, 1), (True, BIG)])
@pytest.mark.parametrize("first", ["append", "flush"])
def test_an_error_is_raised_by_every_later_call(
    monkeypatch: pytest.MonkeyPatch, threaded: bool, first: str, size: int
) -> None:
    monkeypatch.setattr("rivage.core.writer._MAX_WAITING_BYTES", BIG)
    before, file = set(threading.enumerate()), Full()
    writer = Writer(file)
    if threaded:
        put(writer, b"x" * BIG)  # fails in the thread
    else:
        with pytest.raises(OSError, match="No space left"):
            put(writer, b"x")
    for call in [first, "append", "flush", "append", "append", "flush", "flush"]:
        with pytest.raises(OSError, match="No space left"):
            writer.flush() if call == "flush" else put(writer, b"y" * size)
        file.full = False  # room comes back, but what follows a torn frame could not be read
    assert file.getvalue() == b""
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert file.closed
    assert writers(before) == []


class Torn(Gated):
    """A disk that fails once, when its gate opens."""

    failed = False

    def writelines(self, parts: Any) -> None:
        assert self.gate.wait(60)
        if not self.failed:
            self.failed = True
            raise OSError(5, "Input/output error")
        super().writelines(parts)


def test_what_waits_behind_an_error_is_not_written() -> None:
    file = Torn()
    writer = Writer(file)
    for _ in range(3):
        put(writer, b"x" * BIG)
    file.gate.set()
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            writer.flush()
    with pytest.raises(OSError, match="Input/output error"):
        writer.close()
    assert (file.failed, file.content) == (True, b"")


def test_close_ends_the_thread() -> None:
    before, file = set(threading.enumerate()), Kept()
    writer = Writer(file)
    put(writer, b"x" * BIG)
    assert len(writers(before)) == 1
    writer.close()
    assert writers(before) == []
    assert (file.closed, file.content) == (True, frame(b"x" * BIG))

"""Where a trial writes: its record, its message log, and a checkpoint of everything the next round depends on.

The checkpoint is one SQLite database: server state, client memories, and the lengths of record and log at that
instant, changed in one transaction. So a process killed at any instant leaves one consistent instant, and no memory is
newer than the state. Whatever was appended to record and log after it is cut off on resume and written again, byte for
byte, because a round depends on nothing but (seed, round, state, memories).

The engine commits after every round; a commit reaches the disk only when the last one that did is older than an
interval, when the engine forces it, or when the memories that wait fill their cache. The others cost microseconds. A
kill therefore costs at most the rounds of one interval, never the result.

`Notebook` is the same interface in memory, for use from Python without files.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rivage.core.database import Database
from rivage.core.encoding import decode_tensors, dumps, tensor_chunks
from rivage.core.errors import ConfigError, RivageError, StoreError, require
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.messages import LogPolicy, Message
from rivage.core.trial_records import TrialRecord
from rivage.federated.algorithm import State
from rivage.federated.memories import CACHE_BYTES, Box, Entry, Memories, Memory, decode_memory, encode_memory
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["CHECKPOINT", "Files", "Journal", "Memory", "Notebook", "Snapshot"]

CHECKPOINT = "checkpoint.sqlite"
"""What the checkpoint of a trial is called in its folder."""

_SPARE = 20  # times as long as a write takes, at least, until the next one

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the next round depends on, client memories apart.

    Args:
        rounds: rounds done.
        state: the server's tensors; held until they are on the disk, so they are never written to.
        extra: further facts of the engine, JSON values.
    """

    rounds: int
    state: State
    extra: Mapping[str, Any] = field(default_factory=dict)


class Journal(Protocol):
    """What the engine writes to."""

    @property
    def logs(self) -> bool:
        """Whether messages are kept, be it only that they were sent; otherwise none need be made."""
        ...

    memories: Memories
    """Of the clients, as of the last commit and what was put since; valid after `resume`."""

    def resume(self, identity: str) -> Snapshot | None:
        """The last checkpoint of the same trial, or None to start; whatever came after it is dropped."""
        ...

    def event(self, event: Mapping[str, Any]) -> None:
        """Append to the deterministic record."""
        ...

    def timing(self, **values: Any) -> None:
        """Append wall-clock facts."""
        ...

    def message(self, message: Message) -> None:
        """Append to the message log."""
        ...

    def commit(self, snapshot: Snapshot, *, force: bool = False) -> None:
        """A round is finished: its event and messages are appended, its memories put.

        Args:
            snapshot: of this instant.
            force: make it permanent now, not when it is due.
        """
        ...


@dataclass(slots=True)
class Notebook:
    """A journal in memory.

    Args:
        keep_messages: whether to keep every message; they hold whole models.
        limit: clients whose memories are kept; None keeps all.
    """

    keep_messages: bool = False
    limit: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    snapshot: Snapshot | None = None
    memories: Memories = field(init=False)

    def __post_init__(self) -> None:
        self.memories = Memories(Box(), limit=self.limit, cache_bytes=0)

    @property
    def logs(self) -> bool:
        """Whether messages are kept."""
        return self.keep_messages

    def resume(self, identity: str) -> Snapshot | None:
        """What was committed last."""
        self.memories.roll_back()
        return self.snapshot

    def event(self, event: Mapping[str, Any]) -> None:
        """Keep it."""
        self.events.append(dict(event))

    def timing(self, **values: Any) -> None:
        """Wall clock is not kept."""

    def message(self, message: Message) -> None:
        """Keep it if asked to."""
        if self.keep_messages:
            self.messages.append(message)

    def commit(self, snapshot: Snapshot, *, force: bool = False) -> None:
        """Keep the newest."""
        self.memories.mark()
        self.memories.write()
        self.memories.settle()
        self.snapshot = snapshot


class Files:
    """A journal in a trial's folder.

    Args:
        folder: made if missing.
        policy: what the message log keeps.
        header: of the message log.
        interval: seconds between commits that reach the disk, >= 0; 0 writes every round.
        cache_bytes: bound of the client memories held in RAM.
        limit: clients that are remembered, see `Memories`; None for all that ever took part.
        clock: seconds, from anywhere.

    Raises:
        StoreError: on `resume`, when the checkpoint is corrupt.
        ConfigError: on `resume`, when it belongs to another trial.
    """

    def __init__(
        self,
        folder: Path,
        policy: LogPolicy,
        header: Mapping[str, Any],
        *,
        interval: float = 1.0,
        cache_bytes: int = CACHE_BYTES,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require(interval, "interval", least=0)
        self.folder, self.policy, self._header = folder, policy, header
        self.record = TrialRecord.open(folder)
        self._log: MessageLog | None = None
        self._identity = ""
        self._interval, self._clock, self._written, self._took = interval, clock, clock(), 0.0
        self._cache_bytes, self._limit = cache_bytes, limit
        self._drawer = _Drawer(folder / CHECKPOINT)
        self.memories = Memories(self._drawer, limit=limit, cache_bytes=cache_bytes)
        self._waiting: _Instant | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write()
        except RivageError as fault:
            if kind is None:
                raise
            _log.warning("the last rounds could not be kept: %s", fault)
        finally:
            self._drawer.close()
            if self._log is not None:
                self._log.close()

    @property
    def logs(self) -> bool:
        """Whether there is a message log."""
        return self.policy.keeps != "none"

    def resume(self, identity: str) -> Snapshot | None:
        """Cut record and log back to the last checkpoint and return it."""
        self._identity, self._waiting = identity, None
        found = self._drawer.find()
        if found is None:
            self.memories = Memories(self._drawer, limit=self._limit, cache_bytes=self._cache_bytes)
            self.record.truncate(0)
            self._open_log(None)
            return None
        head, state = found
        if head["identity"] != identity:
            raise ConfigError(
                "the checkpoint belongs to other settings or other data",
                where=str(self._drawer.path),
                mend="Run with the settings and data it was made with, or start anew with --fresh.",
            )
        self.memories = Memories(
            self._drawer, limit=self._limit, cache_bytes=self._cache_bytes, forgotten=head["forgotten"]
        )
        self.record.truncate(head["record"])
        self._open_log(head["log"])
        return Snapshot(head["rounds"], state, head["extra"])

    def _open_log(self, offset: int | None) -> None:
        if self.policy.keeps == "none":
            return
        path = self.folder / LOG_NAME
        if offset is None:
            self._log = MessageLog.create(path, self._header, self.policy)
        else:
            self._log = MessageLog.open(path)
            self._log.truncate(offset)

    def event(self, event: Mapping[str, Any]) -> None:
        """One line of ``record.jsonl``."""
        self.record.append(event)

    def timing(self, **values: Any) -> None:
        """One line of ``timings.jsonl``."""
        self.record.append_timing(values)

    def message(self, message: Message) -> None:
        """One frame of ``messages.rvg``."""
        if self._log is not None:
            self._log.append(message)

    def drain(self) -> None:
        """Wait until every message so far is with the operating system; a commit brings them to the disk."""
        if self._log is not None:
            self._log.drain()

    def commit(self, snapshot: Snapshot, *, force: bool = False) -> None:
        """Note the instant; replace ``checkpoint.sqlite`` when that is due, forced, or the memories need room."""
        self.memories.mark()
        self._waiting = _Instant(snapshot, self.record.offset, 0 if self._log is None else self._log.offset)
        if force or self.memories.full or self._clock() - self._written >= self._due:
            self._write()

    @property
    def _due(self) -> float:
        """Seconds between writes: as asked for, but longer where writing would take a twentieth of the time."""
        return max(self._interval, _SPARE * self._took) if self._interval else 0.0

    def _write(self) -> None:
        """Make the last commit permanent: record and log first, then, in one transaction, all the rest."""
        if self._waiting is None:
            return
        started = self._clock()
        self.record.flush()
        if self._log is not None:
            self._log.flush()
        head = {
            "identity": self._identity,
            "rounds": self._waiting.snapshot.rounds,
            "record": self._waiting.record,
            "log": self._waiting.log,
            "forgotten": self.memories.marked,
            "extra": self._waiting.snapshot.extra,
        }
        database = self._drawer.database
        with database.transaction():
            self.memories.write()
            database.write_document([dumps(head).encode(), *_chunks(self._waiting.snapshot.state)])
        self.memories.settle()
        self._waiting, self._written = None, self._clock()
        self._took = self._written - started


@dataclass(frozen=True, slots=True)
class _Instant:
    """A commit that may still have to reach the disk, with the lengths of record and log at that moment."""

    snapshot: Snapshot
    record: int
    log: int


class _Drawer:
    """The shelf in ``checkpoint.sqlite``; there is no file before the first write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        """The file, made if missing."""
        if self._database is None:
            self._database = Database(self.path)
        return self._database

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def find(self) -> tuple[dict[str, Any], State] | None:
        """Head and server state of the last checkpoint; None if none was written."""
        if not self.path.exists():
            return None
        parts = self.database.document()
        if not parts:
            return None
        try:
            head = json.loads(parts[0])
            _ = [head[key] for key in ("identity", "rounds", "record", "log", "forgotten", "extra")]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                "this is not a checkpoint",
                where=str(self.path),
                mend="Delete it to start this trial anew; everything else of the run is kept.",
            ) from error
        arrays, _metadata = decode_tensors(bytearray().join(parts[1:]), where=str(self.path))
        # Cloned: aligned as any tensor, so that sums come out the same whether a run was resumed or not.
        return dict(head), {name: from_numpy(array).clone() for name, array in arrays.items()}

    def read(self, ids: Sequence[int]) -> Mapping[int, Memory]:
        """Those that are there."""
        if self._database is None:
            return {}
        return {
            client: decode_memory(data, f"{self.path}, client {client}")
            for client, _, data in self._database.records(ids)
        }

    def write(self, entries: Mapping[int, Entry]) -> None:
        """Keep or drop, in ascending order; inside a transaction."""
        kept = ((client, entry) for client in sorted(entries) if (entry := entries[client]) is not None)
        self.database.write_records((client, round, encode_memory(memory)) for client, (round, memory) in kept)
        self.database.drop_records(client for client in sorted(entries) if entries[client] is None)

    def rounds(self) -> Iterable[tuple[int, int]]:
        """When each took part last."""
        return () if self._database is None else self._database.rounds()


def _chunks(state: State) -> Iterable[memoryview]:
    return tensor_chunks({name: to_numpy(value) for name, value in state.items()})

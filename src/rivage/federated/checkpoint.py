"""Where a trial writes: its record, its message log, and one checkpoint after every round.

A checkpoint is one atomic file: server state, client memories, and the lengths of record and log at that instant.
Whatever was appended after the last checkpoint is cut off on resume and written again, byte for byte, because a round
depends on nothing but (seed, round, state).

`Notebook` is the same interface in memory, for use from Python without files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from torch import Tensor

from rivage.core.errors import ConfigError, StoreError
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.messages import LogPolicy, Message
from rivage.core.records import TrialRecord
from rivage.core.store import load_tensors, save_tensors
from rivage.federated.algorithm import State
from rivage.federated.batches import Position
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["Files", "Journal", "Memory", "Notebook", "Snapshot"]

CHECKPOINT = "checkpoint.safetensors"


@dataclass(slots=True)
class Memory:
    """What one client keeps between rounds; it never leaves the device.

    Args:
        values: the algorithm's tensors.
        position: where its endless loader stands.
    """

    values: State = field(default_factory=dict)
    position: Position = Position()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the next round depends on.

    Args:
        rounds: rounds done.
        state: the server's tensors.
        memories: by client.
    """

    rounds: int
    state: State
    memories: Mapping[int, Memory]


class Journal(Protocol):
    """What the engine writes to."""

    def resume(self, identity: str) -> Snapshot | None:
        """The last checkpoint of the same trial, or None to start."""
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

    def commit(self, snapshot: Snapshot) -> None:
        """Make a round permanent."""
        ...


@dataclass(slots=True)
class Notebook:
    """A journal in memory.

    Args:
        keep_messages: whether to keep every message; they hold whole models.
    """

    keep_messages: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    snapshot: Snapshot | None = None

    def resume(self, identity: str) -> Snapshot | None:
        """What was committed last."""
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

    def commit(self, snapshot: Snapshot) -> None:
        """Keep the newest; the engine goes on writing into its own mapping of memories."""
        self.snapshot = replace(snapshot, memories=dict(snapshot.memories))


class Files:
    """A journal in a trial's folder.

    Args:
        folder: made if missing.
        policy: what the message log keeps.
        header: of the message log.

    Raises:
        StoreError: on `resume`, when the checkpoint is corrupt or belongs to another trial.
    """

    def __init__(self, folder: Path, policy: LogPolicy, header: Mapping[str, Any]) -> None:
        self.folder, self.policy, self._header = folder, policy, header
        self.record = TrialRecord.open(folder)
        self._log: MessageLog | None = None
        self._identity = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()

    def resume(self, identity: str) -> Snapshot | None:
        """Cut record and log back to the last checkpoint and return it."""
        self._identity = identity
        path = self.folder / CHECKPOINT
        if not path.exists():
            self.record.truncate(0)
            self._open_log(None)
            return None
        tensors, metadata = load_tensors(path)
        head = _head(metadata, path)
        if head["identity"] != identity:
            raise ConfigError(
                "the checkpoint belongs to other settings or other data",
                where=str(path),
                mend="Run with the settings and data it was made with, or start anew with --fresh.",
            )
        self.record.truncate(head["record"])
        self._open_log(head["log"])
        return _snapshot(head, tensors)

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

    def commit(self, snapshot: Snapshot) -> None:
        """Replace ``checkpoint.safetensors``."""
        self.record.flush()
        if self._log is not None:
            self._log.flush()
        tensors = {f"state/{name}": to_numpy(value) for name, value in snapshot.state.items()}
        for client, memory in snapshot.memories.items():
            tensors |= {f"memory/{client}/{name}": to_numpy(v) for name, v in memory.values.items()}
        head = {
            "identity": self._identity,
            "rounds": snapshot.rounds,
            "record": self.record.offset,
            "log": self._log.offset if self._log is not None else 0,
            "positions": {
                str(client): [memory.position.passes, memory.position.position]
                for client, memory in snapshot.memories.items()
            },
        }
        save_tensors(self.folder / CHECKPOINT, tensors, {"checkpoint": json.dumps(head)})


def _head(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        head = json.loads(metadata["checkpoint"])
        _ = head["identity"], head["rounds"], head["record"], head["log"], head["positions"]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            "this is not a checkpoint",
            where=str(path),
            mend="Delete it to start this trial anew; everything else of the run is kept.",
        ) from error
    return dict(head)


def _snapshot(head: Mapping[str, Any], tensors: Mapping[str, np.ndarray[Any, Any]]) -> Snapshot:
    memories = {int(client): Memory(position=Position(*at)) for client, at in head["positions"].items()}
    state: dict[str, Tensor] = {}
    values: dict[int, dict[str, Tensor]] = {client: {} for client in memories}
    for name, array in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "state":
            state[rest] = from_numpy(array)
        else:
            owner, _, entry = rest.partition("/")
            values[int(owner)][entry] = from_numpy(array)
    for client, memory in memories.items():
        memory.values = values[client]
    return Snapshot(head["rounds"], state, memories)

"""What a round's values look like on the wire and in the record."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

import numpy as np
import torch

from rivage.core.messages import Message, Payload, encoded_size
from rivage.data.population import ClientIds, Population
from rivage.federated.algorithm import Mean, State, Update
from rivage.federated.checkpoint import Journal
from rivage.learning.params import to_numpy
from rivage.learning.task import Task

__all__ = ["READ", "Postman", "average", "fault_of", "opening", "roster", "traffic", "usual_shapes"]

SERVER = "server"
READ = "sum"
"""The kind of message that a log holds though nobody sent it."""

_LISTED = 1000  # cohorts up to this size are written out in the record, larger ones as a digest


class Postman:
    """Counts the bytes of a round's messages, and hands them to the journal if it keeps any.

    Args:
        journal: where messages go.
        number: of the round.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        self.journal, self.number = journal, number
        self.bytes_up = self.bytes_down = 0
        self.by_client: dict[int, list[int]] = {}
        self._shared: State | None = None
        self._payload: Payload = {}
        self._size = 0
        self._sizes: dict[Any, int] = {}

    def down(self, client: int, state: State | None) -> None:
        """Send a broadcast to one client; one object for all clients is turned into one payload."""
        if state is None:
            self.by_client[client] = [0, 0]
            return
        if self._shared is None or not _same(state, self._shared):
            self._shared, self._payload = state, {name: to_numpy(value) for name, value in state.items()}
            self._size = encoded_size(self._payload) if self._payload else 0
        self.bytes_down += self._size
        self.by_client[client] = [self._size, 0]
        if self._payload and self.journal.logs:
            self._log(SERVER, f"client:{client}", "broadcast", self._payload)

    def up(self, client: int, update: Update, payload: Payload | None = None) -> None:
        """Send an update: vectors, their weights and the metrics, all that leaves the device.

        Args:
            client: who sends it.
            update: as the server reads it.
            payload: the entries as on the wire; without it they travel as they are.
        """
        if payload is None and not self.journal.logs:  # updates of one round are alike: their size is known
            form = tuple((name, vector.shape, vector.dtype) for name, (vector, _) in update.payload.items())
            key = (form, tuple(update.metrics))
            if key not in self._sizes:
                self._sizes[key] = _size(_wire(update, None))
            nbytes = self._sizes[key]
        else:
            wire = _wire(update, payload)
            nbytes = _size(wire)
            if wire and self.journal.logs:
                self._log(f"client:{client}", SERVER, "update", wire)
        self.bytes_up += nbytes
        self.by_client[client][1] = nbytes

    def say(self, client: int, kind: str, payload: Payload, *, up: bool) -> Payload:
        """Send a message of a collector's own from a client, or to it."""
        nbytes, me = _size(payload), f"client:{client}"
        self.by_client[client][up] += nbytes
        if up:
            self.bytes_up += nbytes
        else:
            self.bytes_down += nbytes
        if self.journal.logs:
            self._log(me if up else SERVER, SERVER if up else me, kind, payload)
        return payload

    def sum(self, means: Mapping[str, Mean]) -> None:
        """Keep what the server read off the messages of all: nobody sends it, no byte is counted."""
        if self.journal.logs:
            entries = {name: to_numpy(mean.mean) for name, mean in means.items()}
            weights = {f"{name}.weight": np.array([mean.weight]) for name, mean in means.items()}
            self._log("cohort", SERVER, READ, entries | weights)

    def _log(self, sender: str, receiver: str, kind: str, payload: Payload) -> None:
        message = Message(round=self.number, sender=sender, receiver=receiver, kind=kind, payload=payload)
        self.journal.message(message)


def _same(one: State, other: State) -> bool:
    """Whether two states hold the very same tensors."""
    return one is other or (one.keys() == other.keys() and all(one[name] is other[name] for name in one))


def _wire(update: Update, payload: Payload | None) -> dict[str, Any]:
    entries = {name: to_numpy(v) for name, (v, _) in update.payload.items()} if payload is None else dict(payload)
    entries |= {f"{name}.weight": np.array([weight]) for name, (_, weight) in update.payload.items()}
    return entries | {f"metric.{name}": np.array([float(value)]) for name, value in update.metrics.items()}


def _size(payload: Payload) -> int:
    return encoded_size(payload) if payload else 0


def usual_shapes(updates: Sequence[Update]) -> Mapping[str, torch.Size]:
    """What the payload entries of most updates look like: whoever is first does not decide it."""
    forms = Counter(tuple((name, vector.shape) for name, (vector, _) in update.payload.items()) for update in updates)
    return dict(forms.most_common(1)[0][0]) if forms else {}


def fault_of(update: Update, dimension: int, shapes: Mapping[str, torch.Size]) -> str | None:
    """Why an update cannot be used, given what the others of the round look like; None when it can."""
    if shapes and update.payload.keys() != shapes.keys():
        return f"entries {', '.join(update.payload) or 'none'} where others sent {', '.join(shapes)}"
    for name, (vector, weight) in update.payload.items():
        if not (isfinite(weight) and weight >= 0):
            return f"{name} with weight {weight}"
        if name == "params" and vector.shape[-1:] != (dimension,):
            return f"{name} of shape {tuple(vector.shape)} where {dimension} parameters were expected"
        if vector.shape != shapes.get(name, vector.shape):
            return f"{name} of shape {tuple(vector.shape)} where others sent {tuple(shapes[name])}"
        # A sum is one fast pass, and finite only if all is, except for huge numbers: those are looked at closely.
        if not isfinite(float(vector.sum())) and not bool(torch.isfinite(vector).all()):
            return f"{name} with norm {float(torch.linalg.vector_norm(vector))} after local training"
    return None


def average(values: list[float]) -> float | None:
    """The mean; None when it is not finite."""
    mean = float(np.mean(values))
    return mean if np.isfinite(mean) else None


def roster(ids: ClientIds) -> Any:
    """Clients in the record: listed, or counted with a digest where they are many."""
    if len(ids) <= _LISTED:
        return ids.tolist()
    digest = hashlib.blake2b(ids.astype("<i8").tobytes(), digest_size=16).hexdigest()
    return {"count": len(ids), "digest": digest}


class _Opened(Protocol):
    """A trial of any engine, as its record opens."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def planned(self) -> int: ...
    @property
    def task(self) -> Task: ...
    @property
    def population(self) -> Population: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...


def opening(trial: _Opened, executor: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first two events of a record: what is tried, and what its set-up has sent.

    Args:
        trial: about to begin.
        executor: what trains.
    """
    setup = trial.population.setup
    start = {
        "event": "start",
        "method": trial.name,
        "seed": trial.seed,
        "rounds": trial.planned,
        "parameters": trial.task.dimension,
        "executor": executor,
        **trial.facts,
    }
    return start, {"event": "setup", "messages": len(setup), **traffic(setup)}


def traffic(messages: tuple[Message, ...]) -> dict[str, int]:
    """Bytes to the server and from it."""
    up = sum(message.nbytes for message in messages if message.receiver == SERVER)
    return {"bytes_up": up, "bytes_down": sum(message.nbytes for message in messages) - up}

"""What an observer of a federated training sees: the threat models, as filters of a message log.

=================  ==================================================================  ==============================
view               sees                                                                may do
=================  ==================================================================  ==============================
`Eavesdropper`     every model sent to ONE client and every update it returned         nothing
`CuriousServer`    the same of all clients                                             nothing: it follows the protocol
`CuriousClient`    the models sent to itself, its own updates                          nothing
`ActiveServer`     as `CuriousServer`                                                  send a client any model
`ReleasedModel`    the final model                                                     query it
`SecAggServer`     sums over the clients of a round                                    choose cohorts
=================  ==================================================================  ==============================

An attack names the least view it needs and is handed nothing else. All views know the header of the log: parameter map,
loss, hyper-parameters, statements of secure aggregation and privacy; a log never holds a seed or the place of data.

An *exchange* is one client in one round. With w_t what the client received and w_t' what it returned,

    g_t = w_t − w_t'

is its pseudo-gradient. A client that is absent in a round has no exchange there, never one of zeros.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from rivage.core.errors import DataError, ProtocolError
from rivage.core.message_log import MessageLog
from rivage.learning.params import ParameterMap

__all__ = [
    "ActiveServer",
    "CuriousClient",
    "CuriousServer",
    "Eavesdropper",
    "Exchange",
    "Header",
    "Refused",
    "ReleasedModel",
    "SecAggServer",
    "View",
]


class Refused(ProtocolError):
    """An attack that cannot be run on what its view shows; the reason is part of the report."""


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """What one client was sent in a round, and what it returned.

    Args:
        round: from 0.
        client: whose; −1 for a sum over the clients of a round.
        sent: the parameters as the client received them, one row per model where a method sends several.
        returned: the parameters as the server reads them off the update.
        weight: that the client gave its update; None where it is not told.
    """

    round: int
    client: int
    sent: Float[ndarray, "*groups dim"]
    returned: Float[ndarray, "*groups dim"]
    weight: float | None = None

    @property
    def pseudo_gradient(self) -> Float64[ndarray, "*groups dim"]:
        """The difference w − w', in float64."""
        difference: ndarray = self.sent.astype(np.float64) - self.returned.astype(np.float64)
        return difference


@dataclass(frozen=True)
class Header:
    """What a log says of the training.

    Args:
        fields: as they stand in the log.
    """

    fields: Mapping[str, Any]

    @cached_property
    def layout(self) -> ParameterMap:
        """Where each parameter lies in the vectors."""
        return ParameterMap.from_json(self.fields)

    @property
    def loss(self) -> str:
        """Registered name of the loss."""
        return str(self.fields["loss"])

    @property
    def hyper_parameters(self) -> Mapping[str, Any]:
        """Of the method: learning rate, epochs, batch size."""
        found: Mapping[str, Any] = self.fields["hyper_parameters"]
        return found

    @property
    def secure_aggregation(self) -> bool:
        """Whether the server saw sums only."""
        return bool(self.fields.get("secure_aggregation"))

    @property
    def differential_privacy(self) -> Mapping[str, Any] | None:
        """What is claimed: unit, epsilon, delta, mechanism; None without a claim."""
        return self.fields.get("differential_privacy")


class View(Protocol):
    """What every observer has."""

    name: ClassVar[str]

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        ...


@dataclass(frozen=True)
class Recorded:
    """A log on the disk, as the views read it: one exchange in memory at a time.

    Args:
        path: of the log.
    """

    path: Path

    @cached_property
    def header(self) -> Header:
        """What the log says of the training."""
        return Header(MessageLog.read_header(self.path))

    def exchanges(self, clients: Sequence[int] | None = None) -> Iterator[Exchange]:
        """In the order in which updates arrived; of these clients, or of all."""
        down: dict[int, ndarray] = {}
        current = -1
        for message in MessageLog.read(self.path):
            if message.round != current:
                current, down = message.round, {}
            client = _client(message.receiver if message.kind == "broadcast" else message.sender)
            if client is None or "params" not in message.payload or (clients is not None and client not in clients):
                continue
            if message.kind == "broadcast":
                down[client] = message.payload["params"]
            elif message.kind == "update" and client in down:
                weight = message.payload.get("params.weight")
                yield Exchange(
                    message.round,
                    client,
                    down[client],
                    message.payload["params"],
                    None if weight is None else float(weight[0]),
                )

    def sums(self) -> Iterator[Exchange]:
        """The mean of every round that was aggregated securely: a message of kind ``sum`` holds it."""
        sent: ndarray | None = None
        for message in MessageLog.read(self.path):
            if message.kind == "broadcast" and "params" in message.payload:
                sent = message.payload["params"]
            elif message.kind == "sum" and sent is not None:
                weight = float(message.payload["params.weight"][0])
                yield Exchange(message.round, -1, sent, message.payload["params"], weight)


def _client(party: str) -> int | None:
    role, _, number = party.partition(":")
    return int(number) if role == "client" and number.isdecimal() else None


@dataclass(frozen=True)
class Eavesdropper:
    """Reads the channel of one client.

    Args:
        log: of the training.
        target: whose channel.
    """

    name: ClassVar[str] = "eavesdropper"

    log: Recorded
    target: int

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        return self.log.header

    def exchanges(self) -> Iterator[Exchange]:
        """Of the target, in the order of rounds, one in memory at a time."""
        return self.log.exchanges([self.target])

    def last(self) -> Exchange:
        """The target's last exchange.

        Raises:
            DataError: if there is none.
        """
        last = deque(self.exchanges(), maxlen=1)
        if not last:
            raise DataError(f"client {self.target} has no exchange", where=str(self.log.path), mend="Name another one.")
        return last[0]


@dataclass(frozen=True)
class CuriousServer:
    """Reads the channels of all clients.

    Args:
        log: of the training.
    """

    name: ClassVar[str] = "curious_server"

    log: Recorded

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        return self.log.header

    @cached_property
    def clients(self) -> tuple[int, ...]:
        """Who has an exchange, ascending."""
        return tuple(sorted({exchange.client for exchange in self.log.exchanges()}))

    def exchanges(self) -> Iterator[Exchange]:
        """Of all clients."""
        return self.log.exchanges()

    def of(self, client: int) -> Eavesdropper:
        """What is seen of one client."""
        return Eavesdropper(self.log, client)


@dataclass(frozen=True)
class CuriousClient:
    """A client that keeps what it is sent.

    Args:
        log: of the training.
        client: who is curious.
    """

    name: ClassVar[str] = "curious_client"

    log: Recorded
    client: int

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        return self.log.header

    def models(self) -> Iterator[tuple[int, Float[ndarray, "*groups dim"]]]:
        """Round and model of each round that it took part in."""
        for exchange in self.log.exchanges([self.client]):
            yield exchange.round, exchange.sent


class Answers(Protocol):
    """A client that trains from whatever model it is sent: what an active server can ask."""

    def __call__(self, client: int, params: Float[ndarray, "dim"], turn: int) -> Float[ndarray, "dim"]:
        """What the client returns for this model, in the ``turn``-th round after the log ends."""
        ...


@dataclass(frozen=True)
class ActiveServer:
    """Reads all channels, and may send any client any model.

    Args:
        log: of the training.
        send: asks a client to train.
    """

    name: ClassVar[str] = "active_server"

    log: Recorded
    send: Answers

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        return self.log.header

    def of(self, client: int) -> Eavesdropper:
        """What is seen of one client."""
        return Eavesdropper(self.log, client)


@dataclass(frozen=True)
class ReleasedModel:
    """Holds the final model.

    Args:
        header: what its maker says of the training.
        params: its parameters.
    """

    name: ClassVar[str] = "released_model"

    header: Header
    params: Float[ndarray, "dim"]


@dataclass(frozen=True)
class SecAggServer:
    """Sees the sum over the clients of each round.

    Args:
        log: of the training.
    """

    name: ClassVar[str] = "secagg_server"

    log: Recorded

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        return self.log.header

    def exchanges(self) -> Iterator[Exchange]:
        """One per round, of client −1: the model sent, and the weighted mean of what was returned."""
        return self.log.sums()

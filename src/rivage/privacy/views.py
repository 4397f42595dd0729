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

A view keeps the log to itself: its public names give an attack what the table grants, neither the messages of another
client nor the place of the file. Logs, exchanges and headers are in `rivage.privacy.recorded` and
`rivage.privacy.exchanges`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.privacy.exchanges import Exchange, Fault, Header, Refused
from rivage.privacy.recorded import Recorded

__all__ = [
    "ActiveServer",
    "Answers",
    "CuriousClient",
    "CuriousServer",
    "Eavesdropper",
    "Exchange",
    "Fault",
    "Header",
    "Recorded",
    "Refused",
    "ReleasedModel",
    "SecAggServer",
    "View",
]


class View(Protocol):
    """What every observer has."""

    name: ClassVar[str]

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        ...


@dataclass(frozen=True)
class _OfLog:
    """A view of a log, which attacks do not get hold of.

    Args:
        log: of the training.
    """

    log: InitVar[Recorded]
    _log: Recorded = field(init=False, repr=False)

    def __post_init__(self, log: Recorded) -> None:
        object.__setattr__(self, "_log", log)

    @property
    def header(self) -> Header:
        """What the log says of the training."""
        return self._log.header


@dataclass(frozen=True)
class Eavesdropper(_OfLog):
    """Reads the channel of one client.

    Args:
        log: of the training.
        target: whose channel.
    """

    name: ClassVar[str] = "eavesdropper"

    target: int

    @property
    def rounds(self) -> int:
        """In how many rounds the target took part, from heads alone."""
        return self._log.survey.exchanges.get(self.target, 0)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Messages of the target that readers so far had to leave out."""
        return tuple(fault for fault in self._log.faults if fault.client == self.target)

    def exchanges(self) -> Iterator[Exchange]:
        """Of the target, in the order of rounds, one in memory at a time.

        Raises:
            Refused: of a log that holds sums only or is of a training without a server.
            DataError: if the target's payloads were not kept.
        """
        return self._log.exchanges([self.target])

    def last(self) -> Exchange:
        """The target's last exchange.

        Raises:
            DataError: if there is none.
        """
        last = deque(self.exchanges(), maxlen=1)
        if not last:
            faults = self.faults
            why = f", that could be used: {faults[0]}" if faults else ""
            raise DataError(f"client {self.target} has no exchange{why}", where="message log", mend="Name another one.")
        return last[0]


@dataclass(frozen=True)
class CuriousServer(_OfLog):
    """Reads the channels of all clients.

    Args:
        log: of the training.
    """

    name: ClassVar[str] = "curious_server"

    @property
    def clients(self) -> tuple[int, ...]:
        """Who has an exchange, ascending; from heads alone.

        Raises:
            Refused: of a log that holds sums only or is of a training without a server.
        """
        return tuple(self.participation)

    @property
    def participation(self) -> Mapping[int, int]:
        """Number of exchanges of each of them, from heads alone.

        Raises:
            Refused: of a log that holds sums only or is of a training without a server.
        """
        self._log.exchanges()
        return self._log.survey.exchanges

    def exchanges(self) -> Iterator[Exchange]:
        """Of all clients whose payloads were kept.

        Raises:
            Refused: of a log that holds sums only or is of a training without a server.
            DataError: if no payloads were kept.
        """
        return self._log.exchanges()

    def of(self, client: int) -> Eavesdropper:
        """What is seen of one client."""
        return Eavesdropper(self._log, client)


@dataclass(frozen=True)
class CuriousClient(_OfLog):
    """A client that keeps what it is sent.

    Args:
        log: of the training.
        client: who is curious.
    """

    name: ClassVar[str] = "curious_client"

    client: int

    def models(self) -> Iterator[tuple[int, Float[ndarray, "*groups dim"]]]:
        """Round and model of each round in which it was sent one.

        Raises:
            DataError: if its payloads were not kept.
        """
        return self._log.models(self.client)

    def exchanges(self) -> Iterator[Exchange]:
        """Its own.

        Raises:
            Refused: of a log that does not hold them; of a secure aggregation it has the models only.
            DataError: if its payloads were not kept.
        """
        return self._log.exchanges([self.client])


@runtime_checkable
class Answers(Protocol):
    """A client that trains from whatever model it is sent: what an active server can ask."""

    def __call__(self, client: int, params: Float[ndarray, "dim"], turn: int) -> Float[ndarray, "dim"]:
        """What the client returns for this model, in the ``turn``-th round after the log ends."""
        ...


@dataclass(frozen=True)
class ActiveServer(CuriousServer):
    """Reads all channels, and may send any client any model.

    Args:
        log: of the training.
        send: asks a client to train.
    """

    name: ClassVar[str] = "active_server"

    send: Answers = field(repr=False)


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
class SecAggServer(_OfLog):
    """Sees the sum over the clients of each round.

    Args:
        log: of the training.
    """

    name: ClassVar[str] = "secagg_server"

    def exchanges(self) -> Iterator[Exchange]:
        """One per round, of client −1: the model sent, and the weighted mean of what was returned.

        Raises:
            Refused: of a log with single updates.
            DataError: if no payloads were kept.
        """
        return self._log.sums()

"""A message log on the disk as the views read it: one exchange in memory at a time.

Heads are walked once for who took part in which round (`Recorded.survey`) and again by every reader; payloads are
decoded one by one, a broadcast to many once. Peak memory: one broadcast, one update, and O(clients of a round) places,
whatever the number of clients and rounds.

A message that cannot be used (numbers that are not finite, wrong shapes, a damaged payload, no model sent before it) is
left out and noted in `Recorded.faults`; the others are read all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.core.log_reader import Head, LogReader
from rivage.core.message_log import MessageLog
from rivage.core.messages import LogPolicy
from rivage.privacy.bodies import Bodies, Unusable, precision
from rivage.privacy.exchanges import Exchange, Fault, Header, Refused
from rivage.privacy.pairing import Round, Survey, rounds, survey

__all__ = ["Recorded"]

T = TypeVar("T")

_REMEMBERED = 1000  # faults; whoever has more is not helped by a longer list


@dataclass(frozen=True)
class Recorded:
    """A log on the disk. One that grows is read up to where it ended when it was first looked at.

    Args:
        path: of the log.
    """

    path: Path
    _met: dict[tuple[int, int], Fault] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def header(self) -> Header:
        """What the log says of the training.

        Raises:
            StoreError: if the file is missing or no message log.
        """
        with self._reader() as reader:
            return Header(reader.header, precision(reader))

    @cached_property
    def policy(self) -> LogPolicy:
        """Whose payloads the log holds."""
        with self._reader() as reader:
            return reader.policy

    @cached_property
    def survey(self) -> Survey:
        """Clients, rounds, repetitions and gaps; heads are read, payloads are not.

        Raises:
            Refused: for a training without a server.
        """
        with self._reader() as reader:
            return survey(reader)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Messages that readers so far had to leave out, by round and client; the first 1,000 that were met."""
        damage = ", ".join(f"{first} to {end}" for first, end in self.survey.damaged[:5])
        lost = [Fault(-1, -1, f"bytes {damage} are damaged, and messages in them are lost")] if damage else []
        return (*lost, *(self._met[key] for key in sorted(self._met)))

    def exchanges(self, clients: Collection[int] | None = None) -> Iterator[Exchange]:
        """In the order in which updates arrived; of these clients, or of all whose payloads were kept.

        Raises:
            Refused: when called, of a log that holds sums only or is of a training without a server; while reading,
                when no message holds a whole model.
            DataError: for clients whose payloads were not kept.
        """
        if self.header.secure_aggregation:
            raise Refused(
                "aggregation was secure: the log holds sums over clients and hides what each of them returned",
                where="message log",
                mend="Attack the model that these sums made (loss_threshold, lira, rmia), or write an attack on sums "
                "(view SecAggServer).",
            )
        _ = self.survey  # refuses trainings without a server now, not when reading has begun
        self._require_kept(clients)
        return self._exchanges(None if clients is None else frozenset(clients))

    def sums(self) -> Iterator[Exchange]:
        """Of every round of a secure aggregation: the model sent to all, and the mean of what came back. Client −1.

        Raises:
            Refused: of a log with single updates.
            DataError: for payloads that were not kept.
        """
        if not self.header.secure_aggregation:
            raise Refused(
                "aggregation was not secure: the log holds single updates and no sums",
                where="message log",
                mend="Use an attack on single updates (view Eavesdropper or CuriousServer).",
            )
        if self.survey.omitted and not self.survey.sums:
            raise self._not_kept("any round")
        return self._sums()

    def models(self, client: int) -> Iterator[tuple[int, Float[ndarray, "*groups dim"]]]:
        """Round and model of each round in which the client was sent one, whether it answered or not.

        Raises:
            DataError: if its payloads were not kept.
        """
        self._require_kept([client])
        return self._models(client)

    # --- reading ------------------------------------------------------------------------------------------------

    @cached_property
    def _size(self) -> int:
        with MessageLog.reader(self.path) as reader:
            return reader.size

    def _reader(self) -> AbstractContextManager[LogReader]:
        return MessageLog.reader(self.path, self._size)

    @contextmanager
    def _bodies(self) -> Iterator[tuple[Bodies, Iterator[Round]]]:
        """What decodes payloads, and the rounds of the log."""
        with self._reader() as reader:
            damaged: list[tuple[int, int]] = []
            yield Bodies(reader, self.header), rounds(reader.heads(damaged))

    def _exchanges(self, clients: Collection[int] | None) -> Iterator[Exchange]:
        found = 0
        with self._bodies() as (bodies, heads):
            for round in heads:
                self._note(*_late(round))
                for client, (down, up) in round.pairs.items():
                    if (clients is None or client in clients) and up.place is not None:
                        exchange = self._used(round.number, client, partial(bodies.exchange, client, down, up))
                        if exchange is not None:
                            found += 1
                            yield exchange
        if bodies.foreign and not found:
            raise bodies.refusal

    def _sums(self) -> Iterator[Exchange]:
        with self._bodies() as (bodies, heads):
            for round in heads:
                self._note(*_late(round))
                if round.sum is not None and round.sum.place is not None:
                    exchange = self._used(round.number, -1, partial(_sum, bodies, round, round.sum))
                    if exchange is not None:
                        yield exchange

    def _models(self, client: int) -> Iterator[tuple[int, ndarray]]:
        with self._bodies() as (bodies, heads):
            for round in heads:
                head = round.broadcasts.get(client)
                if head is not None and head.place is not None:
                    model = self._used(round.number, client, partial(bodies.sent, head))
                    if model is not None:
                        yield round.number, model

    def _used(self, round: int, client: int, read: Callable[[], T | None]) -> T | None:
        """What this reads; None, with a note, where it cannot be used."""
        try:
            return read()
        except Unusable as fault:
            self._note(Fault(round, client, str(fault)))
            return None

    def _note(self, *faults: Fault) -> None:
        for fault in faults:
            if len(self._met) < _REMEMBERED:
                self._met[fault.round, fault.client] = fault

    def _require_kept(self, clients: Collection[int] | None) -> None:
        policy = self.policy
        if clients is None:
            if self.survey.omitted and not self.survey.exchanges:
                raise self._not_kept("any client")
        elif policy.keeps != "all" and (strangers := sorted(set(clients) - policy.clients)):
            raise self._not_kept(f"client {strangers[0]}")

    def _not_kept(self, whose: str) -> DataError:
        policy = self.policy
        kept = f"those of clients {', '.join(map(str, sorted(policy.clients)))}" if policy.clients else "none"
        return DataError(
            f"the log holds no payloads of {whose}: it kept {kept}",
            where="message log",
            mend=f'Train again with log = "all" in [run], or with "clients:[...]"; it was "{policy}".',
        )


def _late(round: Round) -> Iterator[Fault]:
    for client, number in round.late.items():
        yield Fault(number, client, f"the message stands behind round {round.number}")


def _sum(bodies: Bodies, round: Round, up: Head) -> Exchange | None:
    """The broadcast that all clients of a round were sent, and the sum of their answers."""
    heads = list(round.broadcasts.values())
    if len({head.place for head in heads}) > 1:
        raise Unusable("the clients of the round were sent different models, so that their sum answers none")
    return bodies.exchange(-1, heads[0] if heads else None, up)

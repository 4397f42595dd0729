"""Which broadcast belongs to which update: the heads of a message log, round by round.

An update answers the last broadcast that its client was sent in the same round. Of several updates of a client in one
round, sent again because one was thought lost, the last counts. Rounds never decrease in a log; a message of an earlier
round that stands behind a later one is *late* and is not paired. Only heads are read; memory: O(clients of a round).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rivage.core.log_reader import Head, LogReader
from rivage.privacy.exchanges import Refused

__all__ = ["Round", "Survey", "rounds", "survey"]

_SERVER = "server"
_PAIRED = ("broadcast", "update", "sum")


@dataclass(slots=True)
class Round:
    """The messages of one round.

    Args:
        number: of the round.
        broadcasts: the last one to each client.
        pairs: by client, in the order of its last update: the last broadcast before that (None without one), and it.
        repeated: updates that a later one of the same client replaces.
        sum: the mean over all clients, where aggregation was secure.
        late: clients, −1 for a sum, with a message of an earlier round here, and that round.
    """

    number: int
    broadcasts: dict[int, Head] = field(default_factory=dict)
    pairs: dict[int, tuple[Head | None, Head]] = field(default_factory=dict)
    repeated: int = 0
    sum: Head | None = None
    late: dict[int, int] = field(default_factory=dict)

    def add(self, head: Head) -> None:
        """Take in a message of this round."""
        client = _client(head)
        if head.kind == "sum":
            self.repeated += self.sum is not None
            self.sum = head
        elif head.kind == "broadcast":
            self.broadcasts[client] = head
        else:
            self.repeated += client in self.pairs
            self.pairs.pop(client, None)  # to the end
            self.pairs[client] = (self.broadcasts.get(client), head)


def rounds(heads: Iterable[Head]) -> Iterator[Round]:
    """One after the other, as soon as the next one begins.

    Raises:
        Refused: for a training without a server.
    """
    current: Round | None = None
    for head in heads:
        if head.kind not in _PAIRED or head.round < 0:
            continue
        _require_server(head)
        if current is not None and head.round < current.number:
            current.late[_client(head)] = head.round
            continue
        if current is not None and head.round > current.number:
            yield current
            current = None
        current = current or Round(head.round)
        current.add(head)
    if current is not None:
        yield current


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is in a log, from heads alone; payloads may still turn out to be faulty.

    Args:
        exchanges: of each client that has some, in ascending order of clients.
        sums: rounds with a sum over clients.
        first: round with an exchange or a sum; −1 without any.
        last: the same.
        gaps: first and last round of each stretch between these without any.
        repeated: updates that a later one of the same client and round replaces.
        unanswered: broadcasts without an update in their round.
        unasked: updates without a broadcast before them in their round.
        late: messages that stand behind a later round.
        omitted: exchanges and sums whose payloads the log did not keep.
        torn: bytes at the end that are no whole message.
        damaged: bytes before the end, first and behind the last, that are no messages.
    """

    exchanges: Mapping[int, int]
    sums: int
    first: int
    last: int
    gaps: tuple[tuple[int, int], ...]
    repeated: int
    unanswered: int
    unasked: int
    late: int
    omitted: int
    torn: int
    damaged: tuple[tuple[int, int], ...]

    @property
    def clients(self) -> tuple[int, ...]:
        """Who has an exchange, ascending."""
        return tuple(self.exchanges)


def survey(reader: LogReader) -> Survey:
    """Walk the heads of a log once.

    Raises:
        Refused: for a training without a server.
        StoreError: for heads that make no sense.
    """
    damaged: list[tuple[int, int]] = []
    exchanges: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    seen: list[int] = []
    gaps: list[tuple[int, int]] = []
    for round in rounds(reader.heads(damaged)):
        whole = {client: pair for client, pair in round.pairs.items() if pair[0] is not None}
        kept = [client for client, (down, up) in whole.items() if _kept(down) and _kept(up)]
        exchanges.update(kept)
        summed = round.sum is not None and _kept(round.sum)
        omitted = len(whole) - len(kept) + (round.sum is not None and not summed)
        counts.update(
            repeated=round.repeated,
            unanswered=len(round.broadcasts.keys() - round.pairs.keys()) if round.sum is None else 0,
            unasked=len(round.pairs) - len(whole),
            late=len(round.late),
            omitted=omitted,
            sums=int(summed),
        )
        if kept or summed:
            if seen and round.number > seen[-1] + 1:
                gaps.append((seen[-1] + 1, round.number - 1))
            seen = [seen[0] if seen else round.number, round.number]
    first, last = seen or (-1, -1)
    return Survey(
        dict(sorted(exchanges.items())),
        counts["sums"],
        first,
        last,
        tuple(gaps),
        counts["repeated"],
        counts["unanswered"],
        counts["unasked"],
        counts["late"],
        counts["omitted"],
        reader.torn,
        tuple(damaged),
    )


def _kept(head: Head | None) -> bool:
    return head is not None and head.place is not None


def _client(head: Head) -> int:
    """Whose message it is; −1 for all."""
    role, _, number = (head.receiver if head.kind == "broadcast" else head.sender).partition(":")
    return int(number) if role == "client" and number.isdecimal() else -1


def _require_server(head: Head) -> None:
    if _SERVER not in (head.sender, head.receiver):
        raise Refused(
            "silos exchange models with each other, and what a silo received does not tell what it trained from: its "
            "own model and the mixing weights are in no message",
            where=f"message log, round {head.round}, {head.sender} to {head.receiver}",
            mend="Audit a method with a server, or the final models as released models.",
        )

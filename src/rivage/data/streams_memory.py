"""What a client with little storage keeps of the records that arrive: memory policies, and their replay.

At round t the batch B^t arrives, and the memory M^t is a subset of M^{t−1} ∪ B^t with at most C records. What is
dropped never comes back, so every record is in memory during one stretch of rounds, or never: a whole history is two
numbers per record (`Residence`).

Policies are pure: what they keep depends on what they are offered and on random numbers of (seed, client, round), so
that the memory of any round can be replayed.

References:
    Vitter. Random sampling with a reservoir. ACM TOMS 11(1), 1985.

    Chrysakis, Moens. Online continual learning from imbalanced data. ICML 2020 (keeping classes balanced; here records
    leave the largest class by their fixed random keys).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, ProtocolError, require
from rivage.core.registry import Registry

__all__ = [
    "MEMORIES",
    "ClassBalanced",
    "ClientMemory",
    "FirstIn",
    "Fixed",
    "Offer",
    "OneBatch",
    "RandomReplacement",
    "Reservoir",
    "Residence",
    "replay",
]

Rows = Int64[ndarray, "_"]

MEMORIES = Registry(
    "rivage.memories",
    "memory",
    {
        "class_balanced": "rivage.data.streams_memory:ClassBalanced",
        "fifo": "rivage.data.streams_memory:FirstIn",
        "fixed": "rivage.data.streams_memory:Fixed",
        "one_batch": "rivage.data.streams_memory:OneBatch",
        "random_replacement": "rivage.data.streams_memory:RandomReplacement",
        "reservoir": "rivage.data.streams_memory:Reservoir",
    },
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a policy chooses from.

    Args:
        held: records in memory, in the order in which they arrived.
        arrived: the new ones, in their order.
        labels: target of every record of the client, by record.
        keys: a random number in [0, 1) for every record of the client, by record; the same in every round.
        generator: makes the policy's own source of random numbers, of this client and round.
    """

    held: Rows
    arrived: Rows
    labels: Shaped[ndarray, "records *target"]
    keys: Float64[ndarray, "records"]
    generator: Callable[[], np.random.Generator]

    @property
    def all(self) -> Rows:
        """Everything on offer, in the order of arrival."""
        return np.concatenate([self.held, self.arrived])


@runtime_checkable
class ClientMemory(Protocol):
    """A memory policy: a frozen dataclass, registered in `MEMORIES`."""

    @property
    def capacity(self) -> int | None:
        """Largest number of records C, >= 1; None without limit."""
        ...

    def keep(self, offer: Offer) -> Rows:
        """The records of ``offer`` that stay, in the order of arrival; all held ones where nothing arrives."""
        ...


@dataclass(frozen=True, slots=True)
class OneBatch:
    """Fresh data only: every batch serves one round and is replaced by the next."""

    @property
    def capacity(self) -> None:
        """As large as a batch."""
        return None

    def keep(self, offer: Offer) -> Rows:
        """The batch that has arrived."""
        return offer.arrived


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A memory of at most C records.

    Args:
        capacity: C, >= 1; "unlimited" keeps everything.
    """

    capacity: int | None = field(default=None, metadata={"none": "unlimited"})

    def __post_init__(self) -> None:
        if self.capacity is not None:
            require(self.capacity, "capacity", least=1)


@dataclass(frozen=True, slots=True)
class Fixed(_Bounded):
    """The first C records for ever.

    Args:
        capacity: C, >= 1; "unlimited" keeps everything.
    """

    def keep(self, offer: Offer) -> Rows:
        """The oldest."""
        return offer.all[: self.capacity]


@dataclass(frozen=True, slots=True)
class FirstIn(_Bounded):
    """The latest C records: first in, first out.

    Args:
        capacity: C, >= 1; "unlimited" keeps everything.
    """

    def keep(self, offer: Offer) -> Rows:
        """The newest."""
        return offer.all[-(self.capacity or len(offer.all)) :]


@dataclass(frozen=True, slots=True)
class Reservoir(_Bounded):
    """A uniform sample of all records so far: the C with the smallest random keys.

    Args:
        capacity: C, >= 1; "unlimited" keeps everything.
    """

    def keep(self, offer: Offer) -> Rows:
        """Those with the smallest keys: whoever was dropped before has a larger key than all that were kept."""
        found = offer.all
        order = np.argsort(offer.keys[found], kind="stable")[: self.capacity]
        return found[np.sort(order)]


@dataclass(frozen=True, slots=True)
class RandomReplacement(_Bounded):
    """Every new record takes the place of a random one once the memory is full.

    Args:
        capacity: C, >= 1; "unlimited" keeps everything.
    """

    def keep(self, offer: Offer) -> Rows:
        """What is left when all have come, one after the other."""
        kept, rng = offer.held.tolist(), offer.generator()
        for record in offer.arrived.tolist():
            if self.capacity is not None and len(kept) >= self.capacity:
                kept.pop(int(rng.integers(len(kept))))
            kept.append(record)
        return np.array(kept, np.int64)


@dataclass(frozen=True, slots=True)
class ClassBalanced(_Bounded):
    """About as many records of every class: while there are too many, one of the most frequent class leaves.

    Args:
        capacity: C, >= 1; "unlimited" keeps everything.
    """

    def keep(self, offer: Offer) -> Rows:
        """Of the most frequent class the record with the largest key leaves; of equally frequent ones the first."""
        if offer.labels.ndim != 1 or not np.issubdtype(offer.labels.dtype, np.integer):
            raise ConfigError(
                "class_balanced keeps classes in balance, but the target is no class",
                where="[stream] memory",
                mend='Use kind = "reservoir".',
            )
        found = offer.all
        excess = len(found) - (len(found) if self.capacity is None else self.capacity)
        if excess <= 0:
            return found
        _, labels = np.unique(offer.labels[found], return_inverse=True)
        counts, stays = np.bincount(labels), np.ones(len(found), bool)
        by_key = np.argsort(offer.keys[found], kind="stable")
        leaving = [by_key[labels[by_key] == c].tolist() for c in range(len(counts))]
        for _ in range(excess):
            largest = int(counts.argmax())
            stays[leaving[largest].pop()] = False
            counts[largest] -= 1
        return found[stays]


@dataclass(frozen=True, slots=True)
class Residence:
    """When each record of a client is in memory: rounds first <= t < after; first = after for those never kept.

    Args:
        first: round in which it comes, by record.
        after: round from which it is gone.
    """

    first: Rows
    after: Rows

    @property
    def stay(self) -> Rows:
        """Number of rounds in memory, by record."""
        stay: Rows = self.after - self.first
        return stay

    def at(self, round: int) -> Rows:
        """The records in memory, ascending."""
        return np.flatnonzero((self.first <= round) & (round < self.after))


def replay(
    memory: ClientMemory,
    arrivals: Sequence[Rows],
    labels: Shaped[ndarray, "records *target"],
    keys: Float64[ndarray, "records"],
    generator: Callable[[int], np.random.Generator],
) -> Residence:
    """Let records arrive and see what a memory keeps. O(rounds · C) for the policies here.

    Args:
        memory: the policy.
        arrivals: which records come in each round; each at most once.
        labels: target of every record.
        keys: a random number in [0, 1) for every record.
        generator: round -> the policy's source of random numbers in that round.

    Raises:
        ProtocolError: for a policy that keeps more than its capacity, or what it was not offered.
    """
    rounds, last = len(arrivals), max((t for t, batch in enumerate(arrivals) if len(batch)), default=-1)
    first, after = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    held: Rows = np.empty(0, np.int64)
    inside = np.zeros(len(keys), bool)
    for t, batch in enumerate(arrivals):
        offer = Offer(held, batch, labels, keys, partial(generator, t))
        kept = memory.keep(offer)
        _update(inside, memory, offer, kept)
        gone, came = held[~inside[held]], batch[inside[batch]]
        after[gone], first[came], after[came] = t, t, rounds
        held = kept
        if t > last and not len(gone):  # nothing comes any more, and nothing goes
            break
    return Residence(first, after)


def _update(inside: Bool[ndarray, "records"], memory: ClientMemory, offer: Offer, kept: Rows) -> None:
    """Mark what is in memory now, in place; refuse what a policy may not do. O(records on offer)."""
    found = offer.all
    inside[found] = True
    strangers = np.count_nonzero(~inside[kept])
    inside[found] = False
    inside[kept] = True
    distinct, limit = np.count_nonzero(inside[found]) + strangers, memory.capacity
    if strangers or distinct < len(kept) or (limit is not None and len(kept) > limit):
        raise ProtocolError(
            f"{memory!r} keeps {len(kept)} records of {len(found)}, {strangers} of them it was not offered",
            where="[stream] memory",
            mend="Return distinct records of the offer, at most as many as the capacity.",
        )

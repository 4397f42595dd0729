"""The population in memory: every client's records as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.messages import Message
from rivage.data.population import ClientData, ClientIds, Schema
from rivage.simulation.availability import Always, Availability

__all__ = ["ArrayPopulation", "Division", "divide"]

Rows = Int64[ndarray, "_"]


@dataclass(frozen=True, slots=True)
class Division:
    """What each record of one client is for: positions within the client, ascending, disjoint.

    Args:
        train: to learn from.
        validation: to choose with.
        test: to report on.
    """

    train: Rows
    validation: Rows
    test: Rows


def divide(
    size: int,
    rng: np.random.Generator,
    *,
    validation: float,
    test: float,
    set_aside: Bool[ndarray, "size"] | None = None,
    ordered: bool = False,
) -> Division:
    """Divide one client's records: the test share of all, then the validation share of the rest.

    Shares are rounded to whole records, and at least one record is left to learn from where any is.

    Args:
        size: number of records.
        rng: of this client, so that its division depends on no other client.
        validation: share of what is not for test, in [0, 1).
        test: share for test, in [0, 1); unused when ``set_aside`` is given.
        set_aside: the records that the publisher of the data reserves for test.
        ordered: take the last records instead of random ones.
    """
    order = np.arange(size) if ordered else rng.permutation(size)
    if set_aside is None:
        left, tested = _share(order, test)
    else:
        left, tested = order[~set_aside[order]], order[set_aside[order]]
    trained, validated = _share(left, validation)
    return Division(np.sort(trained), np.sort(validated), np.sort(tested))


def _share(rows: Rows, share: float) -> tuple[Rows, Rows]:
    """All but a share of the rows, at least one if there is one; and that share, from the end."""
    keep = max(len(rows) - int(share * len(rows) + 0.5), min(len(rows), 1))
    return rows[:keep], rows[keep:]


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the fingerprint is computed once
class ArrayPopulation:
    """Clients whose records are held in memory.

    Args:
        clients: their data; client ``k`` has id ``k``. The data are the same at every round.
        names: what people call them.
        schema: what a record looks like.
        availability: who is there when.
        key: 64-bit seed of the availability.
        setup: messages exchanged to prepare the data.
        notes: facts the user should see; JSON values only.
    """

    clients: tuple[ClientData, ...]
    names: tuple[str, ...]
    schema: Schema
    availability: Availability = field(default_factory=Always)
    key: int = 0
    setup: tuple[Message, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.clients) == len(self.names), "one name for each client"
        assert all(client.id == number for number, client in enumerate(self.clients)), "ids count from 0"

    @property
    def size(self) -> int:
        """Number of clients."""
        return len(self.clients)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all records, names and settings. O(size of the data), once."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.schema, self.names, self.availability, self.key)).encode())
        for client in self.clients:
            digest.update(repr(client.weight).encode())
            for samples in (client.train, client.validation, client.test):
                for array in (samples.x, samples.y, samples.index):
                    digest.update(repr((array.dtype.str, array.shape)).encode())
                    digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @cached_property
    def _weights(self) -> Float64[ndarray, "size"]:
        return np.array([client.weight for client in self.clients])

    def name(self, id: int) -> str:
        """What people call this client."""
        return self.names[id]

    def client(self, id: int, round: int = 0) -> ClientData:
        """The client's data, the same at every round."""
        return self.clients[id]

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        """Number of training records of each client, the same at every round."""
        result: Float64[ndarray, "clients"] = self._weights[ids]
        return result

    def available(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Who could start this round."""
        return self.availability.available(self.key, ids, round)

    def completes(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Of those who start this round, whose update would arrive."""
        return self.availability.completes(self.key, ids, round)

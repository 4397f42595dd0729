"""Who holds which data: the `Population` protocol and the values it hands out.

A folder of tables, a generator of (seed, id) with 10^9 ids, and a stream that changes with the round all
implement `Population`. Nothing here scans the population: everything is asked by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, nearest
from rivage.core.messages import Message

__all__ = ["ClientData", "ClientIds", "Population", "Samples", "Schema", "called", "joined", "numbers_of"]

ClientIds = Int64[ndarray, "clients"]

_MOST_NAMED = 10_000  # clients of a population in which names are looked up
_SHOWN = 8  # names that a message lists


@dataclass(frozen=True, slots=True)
class Samples:
    """Records of one client.

    Args:
        x: inputs, one per row; float32 features and images, int64 tokens.
        y: targets; int64 classes ``[n]``, float32 reals ``[n]`` or ``[n, outputs]``, int64 tokens
            ``[n, length]``.
        index: identity of each record within the client, stable over rounds.
    """

    x: Shaped[ndarray, "n *input"]
    y: Shaped[ndarray, "n *target"]
    index: Int64[ndarray, "n"]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Int64[ndarray, "m"]) -> Samples:
        """The records at these row positions, in this order."""
        return Samples(self.x[rows], self.y[rows], self.index[rows])


def joined(parts: Sequence[Samples]) -> Samples:
    """Records end to end, at least one part; their numbers stay."""
    if len(parts) == 1:
        return parts[0]
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "index")))


@dataclass(frozen=True, slots=True)
class ClientData:
    """What one client holds at one round.

    Args:
        id: number of the client, 0 <= id < population size.
        train: records to learn from.
        validation: records to choose with (step sizes, models); may be empty.
        test: records to report on, never used for a choice; may be empty.
        weight: raw importance of the client: the sum of those of its training records.
        importance: raw importance of each training record, > 0; None: 1 each.
        arrives: whether training records come and go from round to round.
    """

    id: int
    train: Samples
    validation: Samples
    test: Samples
    weight: float
    importance: Float64[ndarray, "n"] | None = None
    arrives: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a record looks like, the same for all clients: enough to build a model.

    Args:
        input_shape: shape of one input, ``(64,)``, ``(1, 28, 28)``, ``(80,)``.
        target: ``class`` (one of ``num_classes``), ``real`` (``num_outputs`` numbers) or ``tokens`` (one of
            ``num_classes`` symbols after every position).
        num_classes: classes or symbols; 0 for reals.
        num_outputs: width of a real target; 0 otherwise.
        center: mean that was taken from a real target before training.
        unit: standard deviation it was then divided by; errors are reported times this, in the data's own unit.
        features: names of the input columns, where they have names.
        classes: names of the classes, where they have names.
    """

    input_shape: tuple[int, ...]
    target: Literal["class", "real", "tokens"]
    num_classes: int = 0
    num_outputs: int = 0
    center: float = 0.0
    unit: float = 1.0
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@runtime_checkable
class Population(Protocol):
    """All clients that could take part."""

    @property
    def size(self) -> int:
        """Number of registered clients; ids are 0 .. size - 1."""
        ...

    @property
    def schema(self) -> Schema:
        """What a record looks like."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the data; a resumed run compares it."""
        ...

    @property
    def setup(self) -> tuple[Message, ...]:
        """Messages exchanged to prepare the data (federated scaling, vocabularies); logged before round 0."""
        ...

    @property
    def notes(self) -> dict[str, Any]:
        """Facts the user should see (column types, skipped clients); JSON values only."""
        ...

    def name(self, id: int) -> str:
        """What people call this client."""
        ...

    def client(self, id: int, round: int = 0) -> ClientData:
        """The client's data at a round."""
        ...

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        """Raw weight of each client (`ClientData.weight`) at a round, without building its data."""
        ...

    def available(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Who could start this round."""
        ...

    def completes(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Of those who start this round, whose update would arrive."""
        ...


def called(population: Population, client: int) -> str:
    """A client in a message: its number, and what people call it where that says more."""
    name = population.name(client)
    return f"client {client}" if name in (str(client), f"client {client}") else f"client {client} ({name})"


def numbers_of(population: Population, names: Sequence[str], *, where: str) -> dict[str, int]:
    """The number of each client by its name.

    Args:
        population: of at most 10,000 clients.
        names: that must be among them.
        where: they were given.

    Raises:
        ConfigError: for a name that nobody has.
    """
    size = population.size
    if size > _MOST_NAMED:
        raise ConfigError(
            f'clients names "{names[0]}", but among {size:,} clients no name is looked up',
            where=where,
            mend="Give numbers.",
        )
    number = {population.name(client): client for client in range(size)}
    unknown = [name for name in names if name not in number]
    if unknown:
        shown = ", ".join([*number][:_SHOWN]) + (", …" if size > _SHOWN else "")
        raise ConfigError(
            f'clients names "{unknown[0]}", but no client is called so',
            where=where,
            mend=f"{nearest(unknown[0], number)} They are called: {shown}.".strip(),
        )
    return number

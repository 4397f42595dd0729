"""From a source to a population: load, split among clients, divide, treat, shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError
from rivage.core.messages import Message
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.data.arrays import ArrayPopulation, Division, divide
from rivage.data.dataset import Arrays, Dataset, Source, require_share
from rivage.data.partition import PARTITIONS, Hand, Natural, Partition, by_code
from rivage.data.population import ClientData, Population, Samples
from rivage.data.shifts import Shift
from rivage.data.treatment import treat
from rivage.simulation.availability import Always, Availability

__all__ = ["DATASETS", "PopulationSource", "build_population"]

Rows = Int64[ndarray, "_"]

DATASETS = Registry(
    "rivage.datasets",
    "data",
    {
        "adult": "rivage.data.readers:Adult",
        "arrays": "rivage.data.own:NpzFile",
        "breast_cancer": "rivage.data.readers:BreastCancer",
        "digits": "rivage.data.readers:Digits",
        "heart_disease": "rivage.data.readers:HeartDisease",
        "insurance": "rivage.data.readers:Insurance",
        "leaf": "rivage.data.synthetic:Leaf",
        "linear": "rivage.data.synthetic:Linear",
        "mixture": "rivage.data.mixture_clients:MixtureOnDemand",
        "mnist": "rivage.data.images:MNIST",
        "population": "rivage.data.generative:Generative",
        "python": "rivage.data.own:PythonFunction",
        "shakespeare": "rivage.data.text:Shakespeare",
        "synthetic": "rivage.data.synthetic:Mixture",
        "tables": "rivage.data.tables:Tables",
    },
)


@runtime_checkable
class PopulationSource(Protocol):
    """A kind of ``[data]`` that makes its clients itself, because they are too many to be held."""

    def population(
        self, *, seed: int, availability: Availability, key: int, validation: float, test: float
    ) -> Population:
        """The clients; ``key`` is the 64-bit seed of their availability."""
        ...


def build_population(
    data: Source | PopulationSource,
    *,
    partition: Partition | None = None,
    shift: Shift | None = None,
    availability: Availability | None = None,
    seed: int,
    validation: float = 0.15,
    test: float = 0.2,
) -> Population:
    """The clients of a study.

    Everything drawn here depends on ``seed`` alone, so methods that are compared at one seed see the same
    clients.

    Args:
        data: where the records come from.
        partition: how to split them, if they are not split yet.
        shift: heterogeneity on top of the split.
        availability: who is there when; everyone always if left out.
        seed: of the study.
        validation: share of each client's records that are not for test, in [0, 1).
        test: share of each client's records, in [0, 1); unused where the publisher set test records aside.

    Raises:
        ConfigError: for a partition of data that is split already, none for data that is not, or a shift that
            does not fit the data.
        DataError: for data that cannot be used.
    """
    require_share(validation, "validation")
    require_share(test, "test")
    streams, availability = Streams(seed).child("population"), availability or Always()
    key = streams.seed("availability")
    if isinstance(data, PopulationSource):
        _refuse(partition, shift, "a population makes its own clients")
        return data.population(seed=seed, availability=availability, key=key, validation=validation, test=test)
    loaded = data.load(seed)
    if not isinstance(loaded, Dataset):
        _refuse(partition, shift, "the function returned a population of its own")
        if not isinstance(availability, Always):
            raise ConfigError(
                "the function returned a population, which answers for its own availability",
                where="[availability]",
                mend="Remove [availability], or return records instead.",
            )
        return cast(Population, loaded)
    loaded.validate()
    parts = _parts(loaded, partition, streams)
    members = _members(loaded, parts, streams, validation, test)
    prepared = _prepare(loaded, members)
    clients = tuple(
        _client(number, member, prepared.records, len(members), shift, streams.child("shift"))
        for number, member in enumerate(members)
    )
    skipped = len(parts) - len(members)
    return ArrayPopulation(
        clients=clients,
        names=tuple(member.name for member in members),
        schema=prepared.records.schema,
        availability=availability,
        key=key,
        setup=prepared.setup,
        notes={
            **loaded.notes,
            **prepared.notes,
            "training_records": _spread([len(member.division.train) for member in members]),
            **({"skipped_clients": skipped} if skipped else {}),
        },
    )


def _spread(sizes: Sequence[int]) -> str:
    return f"{min(sizes)} to {max(sizes)} per client, median {np.median(sizes):g}"


@dataclass(frozen=True, slots=True)
class _Member:
    """A client before its records are cut out: its rows in the data, and what each of them is for."""

    name: str
    rows: Rows
    division: Division


@dataclass(frozen=True, slots=True)
class _Prepared:
    records: Arrays
    setup: tuple[Message, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def _refuse(partition: Partition | None, shift: Shift | None, reason: str) -> None:
    for name, value in (("partition", partition), ("shift", shift)):
        if value is not None:
            raise ConfigError(f"[{name}] cannot be used: {reason}", mend=f"Remove [{name}].")


def _parts(dataset: Dataset, partition: Partition | None, streams: Streams) -> dict[str, Rows]:
    """Name of each client -> its rows."""
    if dataset.clients is not None:
        if partition is not None:
            raise ConfigError(
                f"{dataset.source} is split into {len(dataset.names)} clients already",
                where="[partition]",
                mend="Remove [partition].",
            )
        return dict(zip(dataset.names, by_code(dataset.clients, len(dataset.names)), strict=True))
    if partition is None and dataset.natural is not None:
        partition = Natural(dataset.natural)
    if partition is None:
        raise ConfigError(
            f"{dataset.source} is not split into clients",
            mend=f"Add [partition] with one of the kinds {', '.join(PARTITIONS)}.",
        )
    hand = Hand(
        size=len(dataset),
        labels=dataset.records.labels,
        coarse=dataset.coarse,
        attributes=dataset.attributes,
    )
    return partition.deal(hand, streams.numpy("partition"))


def _members(
    dataset: Dataset, parts: Mapping[str, Rows], streams: Streams, validation: float, test: float
) -> list[_Member]:
    """The clients that have something to learn from; a client's division depends on no other client."""
    members = []
    for number, (name, rows) in enumerate(parts.items()):
        division = divide(
            len(rows),
            streams.numpy("division", number),
            validation=validation,
            test=test,
            set_aside=None if dataset.test is None else dataset.test[rows],
            ordered=dataset.ordered,
        )
        if division.train.size:
            members.append(_Member(name, rows, division))
    if not members:
        raise DataError("no client has a training record", where=dataset.source, mend="Give more records.")
    return members


def _prepare(dataset: Dataset, members: Sequence[_Member]) -> _Prepared:
    records = dataset.records
    if isinstance(records, Arrays):
        return _Prepared(records)
    treated = treat(
        records,
        [member.rows for member in members],
        [member.rows[member.division.train] for member in members],
        dataset.source,
    )
    return _Prepared(treated.records, treated.setup, treated.notes)


def _client(
    number: int, member: _Member, records: Arrays, size: int, shift: Shift | None, streams: Streams
) -> ClientData:
    own = Arrays(records.x[member.rows], records.y[member.rows], records.schema)
    if shift is not None:
        own = shift.apply(own, number, size, streams)
    samples = Samples(own.x, own.y, np.arange(len(member.rows)))
    division = member.division
    return ClientData(
        id=number,
        train=samples.take(division.train),
        validation=samples.take(division.validation),
        test=samples.take(division.test),
        weight=float(len(division.train)),
    )

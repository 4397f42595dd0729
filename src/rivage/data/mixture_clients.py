"""A mixture whose test records are drawn when somebody looks at them.

The published setting of `rivage.data.synthetic.Mixture` has 5,000 test records of 150 numbers at each of 300 clients,
0.9 GB that are looked at once. Here the clients hold what they train on and choose with; test records are a function
of (seed, client), made anew whenever an evaluation asks, and the same each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.messages import Message
from rivage.core.seeding import Streams
from rivage.data.arrays import divide
from rivage.data.population import ClientData, ClientIds, Samples, Schema
from rivage.data.synthetic import Mixture, MixtureTruth
from rivage.simulation.availability import Always, Availability

__all__ = ["DrawnSamples", "MixtureOnDemand", "MixturePopulation"]


@dataclass(frozen=True, slots=True)
class MixtureOnDemand(Mixture):
    """The law of `Mixture`, with the same truth and sizes; test records are drawn on demand.

    Records are other draws than those of `Mixture`: what a client trains on does not depend on ``test_records`` here.
    """

    def population(
        self, *, seed: int, availability: Availability, key: int, validation: float, test: float
    ) -> MixturePopulation:
        """The clients; ``test`` is unused, the law has test records of its own."""
        return MixturePopulation(law=self, seed=seed, availability=availability, key=key, validation=validation)


@dataclass(frozen=True, kw_only=True)  # no slots: truth and sizes are drawn once
class MixturePopulation:
    """Clients of a mixture. Memory: training and validation records of the clients that were asked for.

    Args:
        law: of their data.
        seed: of the study.
        availability: who is there when.
        key: 64-bit seed of the availability.
        validation: share of each client's records that are not for test.
    """

    law: Mixture
    seed: int
    availability: Availability = field(default_factory=Always)
    key: int = 0
    validation: float = 0.0
    _held: dict[int, tuple[Samples, Samples]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def truth(self) -> MixtureTruth:
        """What generates the records."""
        return self.law.truth(self.seed)

    @cached_property
    def _records(self) -> Int64[ndarray, "clients"]:
        return self.law.sizes(self.seed)

    @property
    def size(self) -> int:
        """Number of clients."""
        return self.law.clients

    @property
    def schema(self) -> Schema:
        """What a record looks like."""
        return self.law.schema

    @property
    def fingerprint(self) -> str:
        """Hash of all settings, which determine all data. O(1)."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()

    @property
    def setup(self) -> tuple[Message, ...]:
        """Nothing is exchanged before round 0."""
        return ()

    @property
    def notes(self) -> dict[str, Any]:
        """That test records are not stored."""
        return {"test_records": f"{self.law.test_records} per client, drawn when they are asked for"}

    def name(self, id: int) -> str:
        """``client 17``."""
        return f"client {id}"

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        """Number of training records of each client, without making its data."""
        held = self._records[ids]
        result: Float64[ndarray, "clients"] = held - np.floor(self.validation * held + 0.5)
        return result

    def client(self, id: int, round: int = 0) -> ClientData:
        """The client's data, the same at every round; its test records are drawn when they are first read."""
        if id not in self._held:
            self._held[id] = self._own(id)
        train, validation = self._held[id]
        test = DrawnSamples(self.law.test_records, lambda: self._draw("test", id, self.law.test_records))
        return ClientData(id=id, train=train, validation=validation, test=test, weight=float(len(train)))

    def _own(self, id: int) -> tuple[Samples, Samples]:
        """What a client learns from and chooses with."""
        size, streams = int(self._records[id]), Streams(self.seed).child("mixture")
        division = divide(size, streams.numpy("division", id), validation=self.validation, test=0.0)
        samples = Samples(*self._draw("training", id, size), np.arange(size))
        return samples.take(division.train), samples.take(division.validation)

    def _draw(self, purpose: str, id: int, size: int) -> tuple[Float32[ndarray, "n features"], Int64[ndarray, "n"]]:
        rng = Streams(self.seed).child("mixture").numpy(purpose, id)
        return self.law.draw(size, self.truth.components, self.truth.weights[id], rng)

    def available(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Who could start this round."""
        return self.availability.available(self.key, ids, round)

    def completes(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Of those who start this round, whose update would arrive."""
        return self.availability.completes(self.key, ids, round)


@final
class DrawnSamples(Samples):
    """Samples whose records are drawn when they are first read, and live as long as this object.

    Args:
        size: number of records.
        draw: makes x and y.
    """

    __slots__ = ("_draw", "_pair")
    _draw: Callable[[], tuple[ndarray, ndarray]]
    _pair: tuple[ndarray, ndarray] | None

    def __init__(self, size: int, draw: Callable[[], tuple[ndarray, ndarray]]) -> None:
        for name, value in (("index", np.arange(size)), ("_draw", draw), ("_pair", None)):
            object.__setattr__(self, name, value)  # frozen, as all samples are

    @property
    def x(self) -> Shaped[ndarray, "n *input"]:
        """Inputs."""
        return self._drawn()[0]

    @property
    def y(self) -> Shaped[ndarray, "n *target"]:
        """Targets."""
        return self._drawn()[1]

    def _drawn(self) -> tuple[ndarray, ndarray]:
        if self._pair is None:
            object.__setattr__(self, "_pair", self._draw())
        assert self._pair is not None
        return self._pair

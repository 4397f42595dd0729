"""A population that is computed, not stored: data, sizes and availability are pure functions of (seed, id).

Nothing of size N is ever made, so 10^9 devices cost what the cohort costs. Attributes come by inverse CDF
from Philox uniforms of (seed, id); records come from a counter-based generator seated at (seed, id).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.messages import Message
from rivage.core.philox import uniforms
from rivage.core.seeding import Streams
from rivage.data.arrays import divide
from rivage.data.population import ClientData, ClientIds, Samples, Schema
from rivage.data.synthetic import logistic_records
from rivage.simulation.availability import Always, Availability

__all__ = ["Generative", "GenerativePopulation"]

_SIZES = 0  # Philox stream
_MAX_SIZE = 2**40
_RECORDS, _DIVISION = 0, 1  # third counter word of the record generators


@dataclass(frozen=True, slots=True)
class Generative:
    """Devices with the data of Synthetic(α, β) (`rivage.data.synthetic.Leaf`), as many as wanted.

    Args:
        size: number of devices N, from 1 to 2^40.
        features: numbers per input, >= 1.
        classes: number of classes, >= 2.
        alpha: how much the devices' classifiers differ, >= 0.
        beta: how much their inputs differ, >= 0.
        median: median number of records of a device, >= 1.
        sigma: σ of their lognormal law, >= 0; 0 gives all the same number.
        max_records: largest number of records, >= 1.
    """

    size: int
    features: int = 60
    classes: int = 10
    alpha: float = 1.0
    beta: float = 1.0
    median: float = 50.0
    sigma: float = 1.0
    max_records: int = 1_000

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("features", 1), ("classes", 2), ("median", 1), ("max_records", 1)):
            require(getattr(self, name), name, least=least)
        for name in ("alpha", "beta", "sigma"):
            require(getattr(self, name), name, least=0.0)
        if self.size > _MAX_SIZE:
            raise ConfigError(f"size is {self.size}", mend=f"Give at most {_MAX_SIZE}.")

    def population(
        self, *, seed: int, availability: Availability, key: int, validation: float, test: float
    ) -> GenerativePopulation:
        """The devices. O(1)."""
        return GenerativePopulation(
            law=self, seed=seed, availability=availability, key=key, validation=validation, test=test
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerativePopulation:
    """Devices that exist when asked for.

    Args:
        law: of their data.
        seed: of the study.
        availability: who is there when.
        key: 64-bit seed of the availability.
        validation: share of each device's records that are not for test.
        test: share of each device's records.
    """

    law: Generative
    seed: int
    availability: Availability = field(default_factory=Always)
    key: int = 0
    validation: float = 0.15
    test: float = 0.2

    @property
    def size(self) -> int:
        """Number of devices N."""
        return self.law.size

    @property
    def schema(self) -> Schema:
        """What a record looks like."""
        return Schema(input_shape=(self.law.features,), target="class", num_classes=self.law.classes)

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
        """That the devices are computed."""
        return {"devices": "computed from (seed, id), not stored"}

    def name(self, id: int) -> str:
        """``device 17``."""
        return f"device {id}"

    def records(self, ids: ClientIds) -> Float64[ndarray, "clients"]:
        """Number of records of each device: a lognormal quantile, rounded, within bounds. O(n)."""
        from scipy.special import ndtri

        drawn = uniforms(Streams(self.seed).seed("generative", "sizes"), ids, 0, _SIZES)[:, 0]
        quantile = np.exp(np.log(self.law.median) + self.law.sigma * ndtri(np.maximum(drawn, 2.0**-54)))
        result: Float64[ndarray, "clients"] = np.clip(np.rint(quantile), 1, self.law.max_records)
        return result

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        """Number of training records of each device, without making its data. O(n)."""
        held = self.records(ids)
        tested = np.minimum(np.floor(self.test * held + 0.5), held - 1)
        rest = held - tested
        result: Float64[ndarray, "clients"] = rest - np.minimum(np.floor(self.validation * rest + 0.5), rest - 1)
        return result

    def client(self, id: int, round: int = 0) -> ClientData:
        """The device's data, the same at every round. O(its records)."""
        held = int(self.records(np.array([id]))[0])
        law = self.law
        x, y = logistic_records(
            held,
            self._generator(id, _RECORDS),
            alpha=law.alpha,
            beta=law.beta,
            features=law.features,
            classes=law.classes,
        )
        samples = Samples(x, y, np.arange(held))
        division = divide(held, self._generator(id, _DIVISION), validation=self.validation, test=self.test)
        return ClientData(
            id=id,
            train=samples.take(division.train),
            validation=samples.take(division.validation),
            test=samples.take(division.test),
            weight=float(len(division.train)),
        )

    def available(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Who could start this round."""
        return self.availability.available(self.key, ids, round)

    def completes(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Of those who start this round, whose update would arrive."""
        return self.availability.completes(self.key, ids, round)

    def _generator(self, id: int, purpose: int) -> np.random.Generator:
        # The lowest counter word counts the draws; the higher ones keep devices and purposes apart.
        key = np.array([Streams(self.seed).seed("generative", "records"), 0], np.uint64)
        counter = np.array([0, 0, purpose, id], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

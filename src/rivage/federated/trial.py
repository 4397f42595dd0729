"""One method with one seed: everything a result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.core.settings import combine
from rivage.data.population import ClientIds, Population
from rivage.federated.adversaries import Adversary
from rivage.federated.algorithm import Algorithm
from rivage.federated.collectors import Averaged, Collection
from rivage.federated.execution import Execution
from rivage.federated.permutation import Permutation
from rivage.federated.promises import Sampling, accounting_faults, promise, promise_faults
from rivage.federated.stages import Pipeline, UpdateStage
from rivage.federated.turns import Turns, period, require_epoch
from rivage.learning.task import Task
from rivage.simulation.devices import Devices

__all__ = ["Trial", "judged"]

_JUDGED = 10_000  # populations up to this size are evaluated whole, larger ones on so many clients / 10


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One method with one seed.

    Args:
        name: what the method is called in this run.
        algorithm: the method.
        population: who holds which data.
        task: what is learnt.
        rounds: exchanges between server and clients, >= 0.
        cohort: clients per round; None takes everyone available.
        sampling: whether exactly so many are drawn, each client by itself with the probability that makes it so many
            on average, or exactly so many of those whose turn it is: each has one in an epoch.
        epoch: rounds of an epoch, >= 1; None lets cohorts take in everyone once. Only where sampling is by epochs.
        seed: root of all random streams.
        every: rounds between evaluations; the end is always evaluated.
        unseen: clients that never train, evaluated apart, sorted.
        facts: further facts for the record's first event (JSON values).
        stages: what happens to every update on its way, in order.
        collector: how the updates of a round are combined.
        adversary: clients that do harm, and how; None without.
        devices: how fast the clients' devices are and what they consume; None does not ask.
        remembered: clients whose memory the journal keeps, see `rivage.federated.memories.Memories`; None for all.
        execution: where and how local training runs.
    """

    name: str
    algorithm: Algorithm
    population: Population
    task: Task
    rounds: int
    cohort: int | None = None
    sampling: Sampling = "uniform"
    epoch: int | None = None
    seed: int = 0
    every: int = 10
    unseen: ClientIds = field(default_factory=lambda: np.empty(0, np.int64))
    facts: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[UpdateStage, ...] = ()
    collector: Collection = field(default_factory=Averaged)
    adversary: Adversary | None = None
    devices: Devices | None = None
    remembered: int | None = None
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, Algorithm):
            raise ConfigError(
                f"{type(self.algorithm).__name__} cannot be played by itself: it lacks hooks of an algorithm",
                mend="Name it in a study if it chooses among other methods; else see `Algorithm` for the hooks.",
            )
        require(self.rounds, "rounds", least=0)
        require(self.every, "every", least=1)
        if faults := list(promise_faults(self.algorithm, self.name, self.stages, self.collector, self.sampling)):
            raise combine(faults)
        require_epoch(self.sampling, self.epoch, self.cohort)
        for name in ("cohort", "remembered"):
            if (count := getattr(self, name)) is not None:
                require(count, name, least=1)
        for missing in accounting_faults(self.algorithm, self.promise, self.share):
            raise missing

    @property
    def planned(self) -> int:
        """Rounds that will be played."""
        return self.rounds if self.algorithm.federates else 0

    @cached_property
    def pipeline(self) -> Pipeline:
        """The stages, ready for use."""
        return Pipeline(self.stages)

    @cached_property
    def streams(self) -> Streams:
        """The root of all random streams."""
        return Streams(self.seed)

    @property
    def expected(self) -> int:
        """Clients of a round, where all are there: the cohort, or everyone who may train then."""
        trainable = self.population.size - len(self.unseen)
        return self.cohort or -(-trainable // (self.epoch or 1))

    @property
    def period(self) -> int | None:
        """Rounds in which a client takes part at most once; None where nothing keeps it from more."""
        return period(self.sampling, self.epoch, self.cohort, self.population.size - len(self.unseen))

    @cached_property
    def turns(self) -> Turns | None:
        """Whose turn it is when; None where all may take part in every round."""
        return None if self.period is None else Turns(self.population.size, self.period, self.streams, self.unseen)

    @property
    def share(self) -> float:
        """Probability with which a client that is there is in a cohort."""
        return min(1.0, self.expected / max(1, self.population.size - len(self.unseen)))

    @cached_property
    def secret(self) -> str:
        """Names the settings in streams of noise: two trainings on the same data must not cancel one another's."""
        exchange = (self.name, self.algorithm, self.stages, self.collector, self.adversary, self.remembered)
        cohorts = (self.cohort, self.sampling, self.epoch, self.unseen.tolist(), self.population.fingerprint)
        return hashlib.blake2b(repr((exchange, cohorts)).encode(), digest_size=16).hexdigest()

    @cached_property
    def promise(self) -> dict[str, Any] | None:
        """What its noise promises; None without."""
        return promise(self.algorithm, self.stages, self.collector, self.sampling, self.period)

    @property
    def judged(self) -> ClientIds:
        """Clients that are evaluated, ascending: all of them, or a uniform sample of a very large population."""
        return judged(self.population.size, self.seed)

    @property
    def identity(self) -> str:
        """Hash of everything the result depends on; a checkpoint of another identity is refused."""
        parts = {
            "algorithm": repr(self.algorithm),
            "population": self.population.fingerprint,
            "layout": self.task.layout.as_json(),
            "learns": [self.task.loss.name, self.task.metric.name, str(self.task.dtype)],
            "rounds": self.planned,
            "cohort": self.cohort,
            "sampling": self.sampling,
            "epoch": self.epoch,
            "seed": self.seed,
            "every": self.every,
            "unseen": self.unseen.tolist(),
            "exchange": repr((self.stages, self.collector, self.adversary, self.devices)),
            "remembered": self.remembered,
            "executor": self.execution.executor,
        }
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def judged(size: int, seed: int) -> ClientIds:
    """Which of so many clients are evaluated, ascending."""
    if size <= _JUDGED:
        return np.arange(size, dtype=np.int64)
    order = Permutation(size, Streams(seed).seed("judged"))
    return np.sort(order(np.arange(_JUDGED // 10, dtype=np.int64)))

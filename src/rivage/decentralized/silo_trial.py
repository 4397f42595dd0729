"""One decentralised method with one seed: everything a result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.data.population import ClientIds, Population
from rivage.decentralized.gossip import GossipAlgorithm
from rivage.decentralized.mixing_plan import MixingPlan
from rivage.federated.execution import Execution
from rivage.learning.task import Task

__all__ = ["SiloTrial", "Timekeeper"]


class Timekeeper(Protocol):
    """Says how long rounds take."""

    def after(self, round: int, starts_ms: Float64[ndarray, "silos"]) -> Float64[ndarray, "silos"]:
        """When each silo starts the next round, if it started this one then."""
        ...


@dataclass(frozen=True, kw_only=True)
class SiloTrial:
    """One decentralised method with one seed.

    Args:
        name: what the method is called in this run.
        algorithm: the method.
        population: who holds which data.
        task: what is learnt.
        rounds: exchanges between silos, >= 0.
        plan: who sends to whom in each round, and the weights.
        clock: simulated time; None does not ask.
        seed: root of all random streams.
        every: rounds between evaluations; the end is always evaluated.
        unseen: clients that are no silos and never train, evaluated apart, sorted.
        facts: further facts for the record's first event (JSON values).
        execution: where and how local training runs.
    """

    name: str
    algorithm: GossipAlgorithm
    population: Population
    task: Task
    rounds: int
    plan: MixingPlan
    clock: Timekeeper | None = None
    seed: int = 0
    every: int = 10
    unseen: ClientIds = field(default_factory=lambda: np.empty(0, np.int64))
    facts: Mapping[str, Any] = field(default_factory=dict)
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        require(self.rounds, "rounds", least=0)
        require(self.every, "every", least=1)
        if self.plan.silos != len(self.silos):
            raise ConfigError(
                f"the overlay is for {self.plan.silos} silos, and {len(self.silos)} clients train",
                mend="Give as many of the one as of the other.",
            )

    @property
    def planned(self) -> int:
        """Rounds that will be played."""
        return self.rounds

    @property
    def silos(self) -> ClientIds:
        """The clients that train, ascending: silo k is the k-th of them."""
        return np.setdiff1d(np.arange(self.population.size, dtype=np.int64), self.unseen)

    @cached_property
    def importance(self) -> tuple[float, ...]:
        """By how much each silo's loss is multiplied: n p_i for silos that count by their share p_i of the records."""
        if self.algorithm.count_by == "silos":
            return (1.0,) * len(self.silos)
        sizes = self.population.sizes(self.silos)
        return tuple((len(sizes) * sizes / sizes.sum()).tolist())

    @property
    def identity(self) -> str:
        """Hash of everything the result depends on; a checkpoint of another identity is refused."""
        parts = {
            "algorithm": repr(self.algorithm),
            "population": self.population.fingerprint,
            "layout": self.task.layout.as_json(),
            "learns": [self.task.loss.name, self.task.metric.name, str(self.task.dtype)],
            "rounds": self.rounds,
            "seed": self.seed,
            "every": self.every,
            "unseen": self.unseen.tolist(),
            "plan": [self.plan.hub, _digest(self.plan.weights(0)), _digest(self._after_one())],
            "executor": self.execution.executor,
        }
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _after_one(self) -> Float64[ndarray, "silos"]:
        starts = np.zeros(len(self.silos))
        return starts if self.clock is None else self.clock.after(0, starts)


def _digest(array: ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array, np.float64).tobytes(), digest_size=16).hexdigest()

"""Stochastic gradients of all silos of a population, as `rivage.decentralized.probing` asks for them.

The executor that trains clients takes one step on a batch of every silo; what it moved by, over its rate, is the
gradient. Nothing else happens in that step, so its rate is free: a large power of two leaves every digit of a gradient
that is small beside its parameter. Parameters that do not learn, and running statistics, have gradient 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.data.population import Population, called
from rivage.federated.algorithm import Local, LocalWork, Phase
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.fedavg import FedAvg
from rivage.learning.params import from_numpy, to_numpy
from rivage.learning.task import Task

__all__ = ["TaskGradients"]

_RATE = 1024.0


class TaskGradients:
    """Gradients of a task at the silos of a population; close it, or use it in a ``with``.

    Args:
        task: what is learnt; in float64 for gradients to rounding.
        population: the silos.
        batch_size: records of a stochastic gradient; None takes all of a silo.
        streams: of the batches.
        silos: who takes part; all by default.
        execution: how gradients are computed.

    Raises:
        DataError: when a silo has no training records.
    """

    def __init__(
        self,
        task: Task,
        population: Population,
        *,
        batch_size: int | None,
        streams: Streams,
        silos: Sequence[int] | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.task, self.streams = task, streams
        self.silos = tuple(range(population.size)) if silos is None else tuple(silos)
        self.samples = [population.client(silo).train for silo in self.silos]
        for silo, samples in zip(self.silos, self.samples, strict=True):
            if not len(samples):
                raise DataError("no training records", where=called(population, silo), mend="Leave this silo out.")
        self._work = LocalWork((Phase(updates=1, batch_size=batch_size),), _RATE)
        self._executor = Executor(task, execution)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the workers go."""
        self._executor.close()

    @property
    def nodes(self) -> int:
        """How many silos."""
        return len(self.silos)

    def start(self, seed: int) -> Float64[ndarray, "dim"]:
        """A newly initialised model."""
        return to_numpy(self.task.initial(seed)).astype(np.float64)

    def __call__(self, params: Float64[ndarray, "nodes dim"], batch: int) -> Float64[ndarray, "nodes dim"]:
        """Of each silo's mean loss on its batch of this number, at its own row."""
        before = self._tensor(params)
        jobs = [
            Job(client=silo, local=Local(params=row[None]), samples=samples)
            for silo, row, samples in zip(self.silos, before, self.samples, strict=True)
        ]
        self._executor.train(FedAvg(), self._work, jobs, self.streams, batch)
        after = torch.cat([job.local.params for job in jobs])
        found = to_numpy(before - after).astype(np.float64) / _RATE
        found[:, self.task.layout.trainable :] = 0
        return found

    def loss(self, params: Float64[ndarray, "dim"]) -> float:
        """F of one model: the mean over silos of the mean losses on their training records."""
        shared = self._tensor(params[None])
        found = self._executor.losses([(shared, samples) for samples in self.samples])
        return float(np.mean([float(losses.double().mean()) for losses in found]))

    def _tensor(self, params: Float64[ndarray, "rows dim"]) -> Tensor:
        return from_numpy(np.ascontiguousarray(params), dtype=self.task.dtype, device=self.task.device)

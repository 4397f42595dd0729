"""What silos do on their own between two exchanges: plain SGD from a given model, on the executors of `federated`.

The batches are those a federated method with the same work would draw: functions of (seed, client, round) only, so that
one silo in a process of its own trains as it does among all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.seeding import Streams
from rivage.data.population import Samples
from rivage.decentralized.gossip import GossipAlgorithm
from rivage.federated.algorithm import Algorithm, Local, LocalWork
from rivage.federated.batches import Position
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class _PlainSGD:
    """What executors ask of an algorithm that changes no step: nothing."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of local training.

    Args:
        params: the model of each silo.
        positions: where each endless loader stands.
        gradients: records differentiated, over all silos.
    """

    params: Float[Tensor, "silos dim"]
    positions: tuple[Position, ...]
    gradients: int


def train(
    executor: Executor,
    algorithm: GossipAlgorithm,
    params: Float[Tensor, "silos dim"],
    clients: Sequence[int],
    data: Sequence[Samples],
    positions: Sequence[Position],
    *,
    importance: Sequence[float],
    seed: int,
    round: int,
) -> Trained:
    """Run a round's local work of some silos.

    Args:
        executor: trains.
        algorithm: says how much work, and the step size.
        params: where each silo starts.
        clients: their numbers in the population, which key their batches.
        data: their training records.
        positions: where their endless loaders stand.
        importance: by how much the loss of each is multiplied (`SiloTrial.importance`).
        seed: root of the random streams of the trial.
        round: index.

    Raises:
        Failed: when the work of a silo failed.
    """
    jobs = [
        Job(client, _local(start, len(samples), factor), samples, position)
        for client, start, samples, position, factor in zip(clients, params, data, positions, importance, strict=True)
    ]
    work = LocalWork((algorithm.work,), algorithm.learning_rate)
    executor.train(cast(Algorithm, _PlainSGD()), work, jobs, Streams(seed).child("train"), round)
    return Trained(
        torch.stack([job.local.params[0] for job in jobs]),
        tuple(job.position for job in jobs),
        sum(job.local.gradients for job in jobs),
    )


def _local(start: Float[Tensor, "dim"], records: int, factor: float) -> Local:
    return Local(start[None], weights=None if factor == 1 else start.new_full((records, 1), factor))

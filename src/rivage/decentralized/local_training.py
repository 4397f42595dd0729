"""What silos do on their own between two exchanges: plain SGD from what they hold, on the executors of `federated`.

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
from rivage.decentralized.gossip import GossipAlgorithm, weighed
from rivage.federated.algorithm import Algorithm, Local, LocalWork, State
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
        state: what the silos held when they trained.
        params: the model of each silo, or its models.
        positions: where each endless loader stands.
        gradients: records differentiated, over all silos.
    """

    state: State
    params: Float[Tensor, "silos *groups dim"]
    positions: tuple[Position, ...]
    gradients: int


def train(
    executor: Executor,
    algorithm: GossipAlgorithm,
    state: State,
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
        state: what the silos hold.
        clients: their numbers in the population, which key their batches.
        data: their training records.
        positions: where their endless loaders stand.
        importance: by how much the loss of each is multiplied (`SiloTrial.importance`).
        seed: root of the random streams of the trial.
        round: index.

    Raises:
        Failed: when the work of a silo failed.
    """
    state, weights = weighed(algorithm, state, lambda params: executor.losses(list(zip(params, data, strict=True))))
    each = zip(clients, state["params"], weights, data, positions, importance, strict=True)
    jobs = [
        Job(client, _local(start, weight, len(samples), factor), samples, position)
        for client, start, weight, samples, position, factor in each
    ]
    work = LocalWork((algorithm.work,), algorithm.learning_rate)
    executor.train(cast(Algorithm, _PlainSGD()), work, jobs, Streams(seed).child("train"), round)
    return Trained(
        state,
        torch.stack([job.local.params for job in jobs]).view_as(state["params"]),
        tuple(job.position for job in jobs),
        sum(job.local.gradients for job in jobs),
    )


def _local(start: Float[Tensor, "*groups dim"], weights: Tensor | None, records: int, factor: float) -> Local:
    if weights is None and factor != 1:
        weights = start.new_ones((records, 1))
    return Local(start.reshape(-1, start.shape[-1]), weights=None if weights is None else factor * weights)

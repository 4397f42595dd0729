"""Tiny problems whose answers are known, for tests of algorithms: ours and plug-ins'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.messages import Message
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, ClientIds, Samples, Schema
from rivage.learning.losses import Loss
from rivage.learning.metrics import MAE
from rivage.learning.task import Task

__all__ = ["Clients", "layered_task", "linear_clients", "linear_task", "quadratic_clients", "quadratic_task"]


@dataclass(frozen=True)
class Clients:
    """A population of given records, always there.

    Args:
        records: one (x, y) per client; the same records serve for training, validation and test.
        schema: what a record looks like.
        absent: (client, round) pairs whose update is lost on the way.
    """

    records: tuple[tuple[ndarray, ndarray], ...]
    schema: Schema
    absent: frozenset[tuple[int, int]] = frozenset()
    setup: tuple[Message, ...] = ()
    fingerprint: str = "toy"

    @property
    def size(self) -> int:
        """Number of clients."""
        return len(self.records)

    @property
    def notes(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    def name(self, id: int) -> str:
        """The number."""
        return str(id)

    def client(self, id: int, round: int = 0) -> ClientData:
        """The client's records, whatever the round."""
        x, y = self.records[id]
        samples = Samples(x, y, np.arange(len(x)))
        return ClientData(id, samples, samples, samples, float(len(x)))

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        """Number of records."""
        return np.array([float(len(self.records[id][0])) for id in ids])

    def available(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Everyone."""
        return np.ones(len(ids), bool)

    def completes(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Everyone who is not absent."""
        return np.array([(int(id), round) not in self.absent for id in ids], bool)


def linear_clients(sizes: Sequence[int] = (4, 7, 1, 12), features: int = 3, seed: int = 0) -> Clients:
    """Least-squares regression with another true vector at every client."""
    records = []
    for client, size in enumerate(sizes):
        generator = Streams(seed).numpy("linear", client)
        x = generator.normal(size=(size, features))
        truth = generator.normal(size=features)
        records.append((x, (x @ truth + 0.1 * generator.normal(size=size))[:, None]))
    return Clients(tuple(records), Schema(input_shape=(features,), target="real", num_outputs=1))


def linear_task(population: Clients, dtype: torch.dtype = torch.float64) -> Task:
    """A linear model without intercept under ½ (y − h)²."""
    return _regression(population, dtype, lambda schema: nn.Linear(schema.input_shape[0], 1, bias=False))


def layered_task(population: Clients, dtype: torch.dtype = torch.float64) -> Task:
    """The same with a hidden layer of two tanh units: a model with a body and a head."""
    return _regression(
        population,
        dtype,
        lambda schema: nn.Sequential(nn.Linear(schema.input_shape[0], 2), nn.Tanh(), nn.Linear(2, 1)),
    )


def _regression(population: Clients, dtype: torch.dtype, model: Callable[[Schema], nn.Module]) -> Task:
    from rivage.learning.losses import SQUARED

    return Task(
        model=model,
        loss=SQUARED,
        metric=MAE,
        schema=population.schema,
        dtype=dtype,
    )


def quadratic_clients(curvatures: Sequence[float], centres: Sequence[float]) -> Clients:
    """One record each, so that client k's loss is ½ a_k (w − c_k)² for a single parameter w."""
    records = tuple((np.ones((1, 1)), np.array([[a, c]])) for a, c in zip(curvatures, centres, strict=True))
    return Clients(records, Schema(input_shape=(1,), target="real", num_outputs=2))


def quadratic_task(population: Clients) -> Task:
    """The task of `quadratic_clients`, in float64."""
    return Task(
        model=lambda schema: nn.Linear(1, 1, bias=False),
        loss=_QUADRATIC,
        metric=MAE,
        schema=population.schema,
        dtype=torch.float64,
    )


def _quadratic(outputs: Tensor, y: Tensor) -> Tensor:
    return 0.5 * y[:, 0] * (outputs[:, 0] - y[:, 1]).square()


_QUADRATIC = Loss(
    name="quadratic",
    targets=("real",),
    width=lambda schema: 1,
    per_record=_quadratic,
    predict=lambda outputs: outputs.repeat(1, 2),
    of_predictions=_quadratic,
)

"""Trainings that are listened to: least-squares clients, a classifier on heterogeneous clients, and single records."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.message_log import LOG_NAME
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.data.population import ClientData, Schema
from rivage.federated.algorithm import Local, Phase, Predictor, Pull, State
from rivage.federated.averaging import Averaging, global_predictor
from rivage.federated.checkpoint import Files
from rivage.federated.engine import run
from rivage.federated.fedavg import FedAvg
from rivage.federated.trial import Trial
from rivage.learning.losses import CROSS_ENTROPY, LOGISTIC, SQUARED
from rivage.learning.metrics import ACCURACY, MAE
from rivage.learning.task import Task
from rivage.privacy.attack import Tools
from rivage.privacy.views import Eavesdropper, Recorded
from rivage.testing.toys import Clients

__all__ = [
    "Decayed",
    "Overheard",
    "breast_cancer_clients",
    "classifier",
    "few_records",
    "least_squares_clients",
    "logistic_task",
    "overheard",
    "regression_task",
    "ridge_optimum",
]


@dataclass(frozen=True)
class Overheard:
    """What came of a training.

    Args:
        trial: that was played.
        log: of its messages.
    """

    trial: Trial
    log: Recorded

    def client(self, target: int = 0) -> Eavesdropper:
        """The channel of one client."""
        return Eavesdropper(self.log, target)

    def tools(self, seed: int = 0) -> Tools:
        """For an attack."""
        return Tools(self.trial.task, Streams(seed).child("attack"))


@dataclass(frozen=True, kw_only=True)
class Decayed(Averaging):
    """Federated averaging whose clients pull their weights to 0 by λ/2 ‖w‖².

    Args:
        learning_rate: η.
        decay: λ.
        work: of a client.
    """

    reference = FedAvg.reference

    learning_rate: float = 0.1
    decay: float = 0.1
    work: Phase = Phase()

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, pulled to 0."""
        return Local(broadcast["params"][None], pull=Pull(self.decay, torch.zeros_like(broadcast["params"])))

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])


@contextmanager
def overheard(
    algorithm: Any, population: Clients, task: Task, *, rounds: int, cohort: int | None = None, seed: int = 0
) -> Iterator[Overheard]:
    """Play a training and keep its message log while the block lasts.

    Args:
        algorithm: the method.
        population: clients.
        task: what is learnt; the log has its dtype.
        rounds: to play.
        cohort: clients per round, drawn uniformly; None takes all.
        seed: of everything.
    """
    trial = Trial(
        name="overheard",
        algorithm=algorithm,
        population=population,
        task=task,
        rounds=rounds,
        cohort=cohort,
        every=rounds + 1,
        seed=seed,
    )
    header: Mapping[str, Any] = {
        **task.layout.as_json(),
        "loss": task.loss.name,
        "method": type(algorithm).__name__.lower(),
        "hyper_parameters": dump(algorithm),
    }
    with tempfile.TemporaryDirectory() as folder:
        with Files(Path(folder), LogPolicy(), header, interval=1e6) as journal:
            run(trial, journal, keep=0)
        yield Overheard(trial, Recorded(Path(folder) / LOG_NAME))


# --- least squares --------------------------------------------------------------------------------------------------


def least_squares_clients(features: int, *, clients: int = 10, records: int = 200, seed: int = 0) -> Clients:
    """Clients whose true vectors are a common one + N(0, 1) each; noise of 0.1 in the targets."""
    streams = Streams(seed).child("least squares")
    base = streams.numpy("base").normal(size=features + 1)
    held = []
    for client in range(clients):
        generator = streams.numpy(client)
        x, truth = generator.normal(size=(records, features)), base + generator.normal(size=features + 1)
        y = x @ truth[:-1] + truth[-1] + 0.1 * generator.normal(size=records)
        held.append((x, y[:, None]))
    return Clients(tuple(held), Schema(input_shape=(features,), target="real", num_outputs=1))


def regression_task(population: Clients, dtype: torch.dtype = torch.float64) -> Task:
    """A linear model with intercept under ½ (y − h)²."""
    features = population.schema.input_shape[0]
    return Task(
        model=lambda schema: nn.Linear(features, 1), loss=SQUARED, metric=MAE, schema=population.schema, dtype=dtype
    )


def ridge_optimum(population: Clients, client: int, decay: float = 0.0) -> Float64[ndarray, "dim"]:
    """The model that a client's data alone would give: an oracle."""
    x, y = population.records[client]
    wide = np.column_stack([x, np.ones(len(x))])
    if decay == 0:
        plain: ndarray = np.linalg.lstsq(wide, y[:, 0], rcond=None)[0]
        return plain
    shrunk: ndarray = np.linalg.solve(wide.T @ wide / len(x) + decay * np.eye(wide.shape[1]), wide.T @ y[:, 0] / len(x))
    return shrunk


# --- a classifier on heterogeneous clients --------------------------------------------------------------------------


def breast_cancer_clients(*, clients: int = 5, directions: int = 8, seed: int = 0) -> Clients:
    """Breast-cancer records on their first principal directions, dealt by the first: neighbours share a client.

    Half of every client's records come from its own stretch of the first direction, half from anywhere.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    x = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    x = x @ axes[:directions].T
    x /= x.std(axis=0)
    generator = Streams(seed).numpy("breast cancer")
    rows = generator.permutation(len(x))
    mixed, sorted_ = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    sorted_ = sorted_[np.argsort(x[sorted_, 0])]
    parts = zip(np.array_split(mixed, clients), np.array_split(sorted_, clients), strict=True)
    held = tuple((x[part], bunch.target[part].astype(np.int64)) for part in map(np.concatenate, parts))
    return Clients(held, Schema(input_shape=(directions,), target="class", num_classes=2))


def logistic_task(population: Clients, dtype: torch.dtype = torch.float64) -> Task:
    """Logistic regression with intercept."""
    features = population.schema.input_shape[0]
    return Task(
        model=lambda schema: nn.Linear(features, 1),
        loss=LOGISTIC,
        metric=ACCURACY,
        schema=population.schema,
        dtype=dtype,
    )


# --- single records -------------------------------------------------------------------------------------------------


def few_records(counts: Sequence[int], *, features: int = 12, classes: int = 5, seed: int = 0) -> Clients:
    """Clients with so many records each, standard normal inputs, classes at random."""
    held = []
    for client, count in enumerate(counts):
        generator = Streams(seed).numpy("few records", client)
        held.append((generator.normal(size=(count, features)), generator.integers(0, classes, count)))
    return Clients(tuple(held), Schema(input_shape=(features,), target="class", num_classes=classes))


def classifier(population: Clients, hidden: int = 24, dtype: torch.dtype = torch.float64) -> Task:
    """Linear-ReLU-Linear under cross-entropy."""
    features, classes = population.schema.input_shape[0], population.schema.num_classes
    return Task(
        model=lambda schema: nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
        loss=CROSS_ENTROPY,
        metric=ACCURACY,
        schema=population.schema,
        dtype=dtype,
    )

"""Two hospitals that learn together what health care costs, and someone who listens.

The settings of Diana et al. (AAAI 2025) for their data set *Medical*, which is the insurance file: 1338 people, two
clients, 8 inputs (numbers, and one-hot codes without the first value), standardised on the training records, a tenth
for test, one local epoch in batches of 32. Their squared error has no factor ½, hence our step sizes are twice theirs.

=========  ======================================  =====================  =======  =========
kind       model                                   target                 rounds   step size
=========  ======================================  =====================  =======  =========
``net``    one hidden layer of 128                 charges as they are    100      4e-6
``line``   linear                                  standardised           300      1e-2
``log``    linear, log(1 + x) of all numbers       log, standardised      300      1e-2
=========  ======================================  =====================  =======  =========

Halves are ``random``, or ``skewed``: one client has the smokers above and the non-smokers at or below the smokers' mean
charge, the other one the rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from rivage.core.message_log import LOG_NAME
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.data.arrays import ArrayPopulation
from rivage.data.dataset import Columns
from rivage.data.population import ClientData, Samples, Schema
from rivage.data.readers import Insurance
from rivage.federated.algorithm import Phase
from rivage.federated.checkpoint import Files
from rivage.federated.collectors import Averaged, Collection
from rivage.federated.engine import run
from rivage.federated.fedavg import FedAvg
from rivage.federated.trial import Trial
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import Tools
from rivage.privacy.attribute_baselines import Known
from rivage.privacy.questions import Attribute, AttributeQuestion
from rivage.privacy.views import Recorded

__all__ = ["Kind", "Scene", "Split", "insured", "overheard"]

Kind = Literal["net", "line", "log"]
Split = Literal["random", "skewed"]

_NUMBERS = ("age", "bmi", "children")
_SETTINGS: Mapping[Kind, tuple[TaskSettings, int, float]] = {
    "net": (TaskSettings(model="mlp", options={"hidden": (128,)}), 100, 4e-6),
    "line": (TaskSettings(), 300, 1e-2),
    "log": (TaskSettings(), 300, 1e-2),
}


@dataclass(frozen=True)
class Scene:
    """A training that has been overheard.

    Args:
        trial: what was trained.
        log: of its messages.
        attributes: by name.
        error: mean absolute error on test records at the end, in the unit of the file.
    """

    trial: Trial
    log: Recorded
    attributes: Mapping[str, Attribute]
    error: float

    @property
    def task(self) -> Task:
        """Architecture and loss."""
        return self.trial.task

    @cached_property
    def naive_error(self) -> float:
        """Mean absolute error on test records of who tells everyone the median of all training targets."""
        population, unit = self.trial.population, self.trial.population.schema.unit
        targets = np.concatenate([population.client(id).test.y for id in range(population.size)])
        return float(np.abs(targets - np.median(np.concatenate([each.y for each in self.clients]))).mean() * unit)

    @cached_property
    def clients(self) -> tuple[Samples, ...]:
        """Training records of each client."""
        population = self.trial.population
        return tuple(population.client(id).train for id in range(population.size))

    def question(self, client: int, name: str) -> AttributeQuestion:
        """What the attacker is asked about a client."""
        attribute, samples = self.attributes[name], self.clients[client]
        hidden = samples.x.copy()
        hidden[:, list(attribute.columns)] = 0
        return AttributeQuestion(attribute, hidden, samples.y, client)

    def truth(self, client: int, name: str) -> Int64[ndarray, "n"]:
        """The answer."""
        attribute = self.attributes[name]
        distance = np.abs(self.clients[client].x[:, None, list(attribute.columns)] - attribute.codes).sum(axis=2)
        return np.asarray(distance.argmin(axis=1), np.int64)

    def others(self, client: int, name: str) -> Known:
        """The records of everyone else, without the attribute, with their values."""
        rest = [other for other in range(len(self.clients)) if other != client]
        questions = [self.question(other, name) for other in rest]
        values = np.concatenate([self.truth(other, name) for other in rest])
        return np.concatenate([q.x for q in questions]), np.concatenate([q.y for q in questions]), values

    def tools(self, *path: str | int) -> Tools:
        """For one attack."""
        return Tools(self.task, Streams(self.trial.seed).child("attack", *path))


def insured(kind: Kind, split: Split, seed: int) -> tuple[ArrayPopulation, Mapping[str, Attribute]]:
    """The two clients, and the attributes `smoker` and `sex` as their inputs code them.

    Raises:
        DataError: if the file is not here.
    """
    columns = Insurance().load(0).records
    assert isinstance(columns, Columns)
    x, names = _inputs(columns, log=kind == "log")
    y = columns.target.astype(np.float64)
    generator = Streams(seed).numpy("insured", split)
    halves = _halves(columns, split, generator)
    train = [np.sort(rows[len(rows) // 10 :]) for rows in halves]
    joined = np.concatenate(train)
    mean, deviation = x[joined].mean(axis=0), x[joined].std(axis=0)
    target = np.log1p(y) if kind == "log" else y
    center, unit = (0.0, 1.0) if kind == "net" else (target[joined].mean(), target[joined].std())
    x32, y32 = ((x - mean) / deviation).astype(np.float32), ((target - center) / unit).astype(np.float32)
    attributes = {
        name: Attribute(name, (place,), ((np.array([[0.0], [1.0]]) - mean[place]) / deviation[place]), ("0", "1"))
        for name, place in (("smoker", names.index("smoker")), ("sex", names.index("sex")))
    }
    schema = Schema(
        input_shape=(len(names),), target="real", num_outputs=1, center=float(center), unit=float(unit), features=names
    )
    clients = tuple(
        ClientData(id, _samples(x32, y32, own), _samples(x32, y32, own[:0]), _samples(x32, y32, held), float(len(own)))
        for id, (own, rows) in enumerate(zip(train, halves, strict=True))
        for held in [np.setdiff1d(rows, own)]
    )
    return ArrayPopulation(clients=clients, names=("0", "1"), schema=schema), attributes


def _inputs(columns: Columns, *, log: bool) -> tuple[Float64[ndarray, "n 8"], tuple[str, ...]]:
    blocks = {}
    for name, column in columns.columns.items():
        if name in _NUMBERS:
            blocks[name] = np.log1p(column) if log else column
            continue
        _first, *rest = sorted(set(column.tolist()))
        for value in rest:
            blocks[name if len(rest) == 1 else f"{name}={value}"] = (column == value).astype(np.float64)
    return np.stack([*blocks.values()], axis=1).astype(np.float64), tuple(blocks)


def _halves(columns: Columns, split: Split, generator: np.random.Generator) -> list[Int64[ndarray, "m"]]:
    if split == "random":
        return np.array_split(generator.permutation(len(columns.target)), 2)
    smokes = columns.columns["smoker"] == "yes"
    dear = columns.target > columns.target[smokes].mean()
    return [generator.permutation(np.flatnonzero(part)) for part in (smokes == dear, smokes != dear)]


def _samples(x: Float32[ndarray, "n d"], y: Float32[ndarray, "n"], rows: Int64[ndarray, "m"]) -> Samples:
    return Samples(x[rows], y[rows], np.arange(len(rows)))


@contextmanager
def overheard(
    kind: Kind, split: Split, seed: int, collector: Collection | None = None, **phase: object
) -> Iterator[Scene]:
    """Train, and keep all messages in a log for as long as the block lasts.

    Args:
        kind: model and target.
        split: how people are dealt.
        seed: of the split, the initial model and the batches.
        collector: how the server combines updates; None takes their mean.
        **phase: other settings of local training.
    """
    population, attributes = insured(kind, split, seed)
    settings, rounds, rate = _SETTINGS[kind]
    task = make_task(settings, population.schema)
    work = replace(Phase(epochs=1, batch_size=32), **phase)  # type: ignore[arg-type]
    method = FedAvg(learning_rate=rate, work=work)
    trial = Trial(
        name="fedavg",
        algorithm=method,
        population=population,
        task=task,
        rounds=rounds,
        every=rounds,
        seed=seed,
        collector=collector or Averaged(),
    )
    header = {**task.layout.as_json(), "loss": task.loss.name, "method": "fedavg", "hyper_parameters": dump(method)}
    with tempfile.TemporaryDirectory() as folder:
        with Files(Path(folder), LogPolicy(), header, interval=1e6) as journal:
            columns = run(trial, journal, keep=0).seen.columns
        error = float(np.average(columns["test"], weights=columns["test_size"]))
        yield Scene(trial, Recorded(Path(folder) / LOG_NAME), attributes, error)

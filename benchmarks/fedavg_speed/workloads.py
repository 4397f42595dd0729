"""The four workloads: their data, and the schedule that rivage would follow, written down for everyone else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rivage.core.seeding import Streams
from rivage.data.population import ClientData, ClientIds, Samples, Schema
from rivage.data.synthetic import logistic_records
from rivage.federated import Phase
from rivage.federated.batches import Position, batches
from rivage.federated.cohorts import Candidates
from rivage.learning import Task, TaskSettings, make_task

from .replay import Replay, Settings, Turn, write

__all__ = ["WORKLOADS", "Held", "phase_of", "prepare", "schema_of", "task_of"]

Records = tuple[np.ndarray, np.ndarray, np.ndarray]
_NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True)
class Held:
    """The clients of a workload: views of arrays, made when they are asked for.

    Args:
        x: inputs of all clients, end to end.
        y: targets.
        offsets: where each client begins, and the end.
        schema: what a record looks like.
    """

    x: np.ndarray
    y: np.ndarray
    offsets: np.ndarray
    schema: Schema
    fingerprint: str = "benchmark"
    setup: tuple[()] = ()

    @property
    def size(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def notes(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    def name(self, id: int) -> str:
        """The number."""
        return str(id)

    def client(self, id: int, round: int = 0) -> ClientData:
        """Views of the client's records."""
        begin, end = int(self.offsets[id]), int(self.offsets[id + 1])
        train = Samples(self.x[begin:end], self.y[begin:end], np.arange(end - begin))
        return ClientData(id, train, self._none, self._none, float(end - begin))

    @cached_property
    def _none(self) -> Samples:
        return Samples(self.x[:0], self.y[:0], _NOBODY)

    def sizes(self, ids: ClientIds, round: int = 0) -> np.ndarray:
        """Records of each client."""
        return (self.offsets[ids + 1] - self.offsets[ids]).astype(np.float64)

    def available(self, ids: ClientIds, round: int) -> np.ndarray:
        """Everyone."""
        return np.ones(len(ids), bool)

    def completes(self, ids: ClientIds, round: int) -> np.ndarray:
        """Everyone."""
        return np.ones(len(ids), bool)


def schema_of(settings: Settings) -> Schema:
    """What a record of the workload looks like."""
    target = "tokens" if settings.model == "char_lstm" else "class"
    return Schema(input_shape=settings.input_shape, target=target, num_classes=settings.classes)


def task_of(settings: Settings) -> Task:
    """What the workload learns."""
    return make_task(TaskSettings(model=settings.model, options=settings.options), schema_of(settings))


def phase_of(settings: Settings) -> Phase:
    """What each client does in a round."""
    return Phase(epochs=settings.epochs, updates=settings.updates, batch_size=settings.batch_size)


def prepare(settings: Settings, folder: Path, rounds: int) -> Replay:
    """Draw the data and write the workload, with so many rounds of its schedule."""
    records = WORKLOADS[settings.name][1](np.random.default_rng(settings.seed))
    population, streams = Held(*records, schema_of(settings)), Streams(settings.seed)
    initial = task_of(settings).initial(streams.seed("model")).numpy()
    write(folder, settings, records, initial, [_round(settings, population, number) for number in range(rounds)])
    return Replay(folder)


def _round(settings: Settings, population: Held, number: int) -> list[Turn]:
    """Whom the engine chooses and in which order they see their records; both follow from the seed alone."""
    streams, phase = Streams(settings.seed), phase_of(settings)
    key = streams.child("train").seed("batches", 0)
    ids = Candidates(population, number, settings.cohort, _NOBODY).uniform(streams.child("round", number))
    sizes = population.sizes(ids).astype(int).tolist()
    drawn = batches(phase, key, ids.tolist(), sizes, number, [Position()] * len(ids))
    return [(client, rows.split()) for client, (rows, _) in zip(ids.tolist(), drawn, strict=True)]


def _end_to_end(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Records:
    x, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return x, y, np.cumsum([0, *(len(targets) for _, targets in pairs)])


def _leaf(rng: np.random.Generator, clients: int) -> Records:
    """Softmax classifiers of their own, as LEAF's synthetic(1, 1); sizes LogNormal(4.17, 1) in 10 … 1000, mean 98."""
    sizes = np.clip(rng.lognormal(4.17, 1.0, clients), 10, 1000).astype(int).tolist()
    return _end_to_end([logistic_records(size, rng, alpha=1.0, beta=1.0, features=60, classes=10) for size in sizes])


def _images(rng: np.random.Generator, clients: int, records: int) -> Records:
    """One smooth pattern per class with noise, in the shape of MNIST: it is learnt soon, so rounding stays small."""
    patterns = np.kron(rng.standard_normal((10, 1, 7, 7), np.float32), np.ones((4, 4), np.float32))
    y = rng.integers(0, 10, clients * records)
    x = rng.standard_normal((len(y), 1, 28, 28), np.float32)
    x *= 0.5
    x += patterns[y]
    return x, y, np.arange(clients + 1) * records


def _characters(rng: np.random.Generator, clients: int, records: int, length: int) -> Records:
    """Random text in the shape of Shakespeare: every symbol has a few likely successors."""
    follow = rng.integers(0, 90, (90, 4))
    text = rng.integers(0, 90, (clients * records, length + 1))
    for place in range(length):
        text[:, place + 1] = follow[text[:, place], rng.integers(0, 4, len(text))]
    return text[:, :-1].copy(), text[:, 1:].copy(), np.arange(clients + 1) * records


_MLP = Settings(
    name="W2",
    model="mlp",
    options={"hidden": [200, 200]},
    input_shape=(1, 28, 28),
    classes=10,
    cohort=10,
    batch_size=10,
    learning_rate=0.02,
)
WORKLOADS: Mapping[str, tuple[Settings, Callable[[np.random.Generator], Records]]] = {
    "W1": (
        Settings(
            name="W1",
            model="linear",
            input_shape=(60,),
            classes=10,
            cohort=50,
            batch_size=10,
            learning_rate=0.01,
        ),
        lambda rng: _leaf(rng, 1000),
    ),
    "W2": (_MLP, lambda rng: _images(rng, 100, 600)),
    "W3": (
        replace(
            _MLP,
            name="W3",
            model="cnn",
            options={"channels": [32, 64], "hidden": 512},
            batch_size=50,
        ),
        lambda rng: _images(rng, 100, 600),
    ),
    "W4": (
        Settings(
            name="W4",
            model="char_lstm",
            options={"embedding": 8, "hidden": 256, "layers": 2},
            input_shape=(80,),
            classes=90,
            cohort=5,
            batch_size=10,
            updates=5,
            learning_rate=0.5,
        ),
        lambda rng: _characters(rng, 50, 60, 80),
    ),
    "tiny": (
        Settings(name="tiny", model="linear", input_shape=(6,), classes=3, cohort=3, batch_size=4, learning_rate=0.1),
        lambda rng: _end_to_end(
            [logistic_records(n, rng, alpha=1.0, beta=1.0, features=6, classes=3) for n in range(5, 13)]
        ),
    ),
}
"""Name -> what is asked, and how its records are drawn. ``tiny`` is for tests."""

"""Federations on digits whose messages are logged, and attacks on membership run on every client of them.

The recipe: an MLP 64-64-10, clients with records of their own, FedAvg with batches of 32 at step size 0.2; some of the
labels, of members and others alike, are drawn anew, so that a model that fits them has learnt records by heart. Digits
that no client has are dealt to the audits of the clients. Of an audit, half of the members and as many others are
known.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.message_log import LOG_NAME
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.data.dataset import Arrays
from rivage.data.population import Samples, Schema
from rivage.data.readers import Digits
from rivage.federated.algorithm import Phase
from rivage.federated.checkpoint import Files
from rivage.federated.engine import run
from rivage.federated.fedavg import FedAvg
from rivage.federated.trial import Trial
from rivage.learning.params import to_numpy
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import Attack, Meter, Tools
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.roc import auc, auc_test, balanced_accuracy
from rivage.privacy.views import CuriousServer, Eavesdropper, Recorded, ReleasedModel
from rivage.testing.toys import Clients

__all__ = ["Audited", "Found", "Recipe", "audited"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A federation on digits.

    Args:
        clients: how many.
        records: of each.
        redrawn: share of labels drawn anew.
        rounds: of training.
        epochs: of a client in a round.
    """

    clients: int = 4
    records: int = 150
    redrawn: float = 0.3
    rounds: int = 60
    epochs: int = 10


@dataclass(frozen=True, slots=True)
class Found:
    """What an attack answered about one client, on the records that it did not know.

    Args:
        scores: of the records.
        member: which of them are members.
        threshold: from the known records; None where nothing is known.
        seconds: of processor time.
        evaluations: records put through a model.
        facts: of the answer.
    """

    scores: Float64[ndarray, "n"]
    member: Bool[ndarray, "n"]
    threshold: float | None
    seconds: float
    evaluations: int
    facts: dict[str, Any]

    @property
    def area(self) -> float:
        """Under the curve."""
        return auc(self.scores, self.member)

    @property
    def accuracy(self) -> float:
        """Balanced, at the threshold from the known records."""
        assert self.threshold is not None
        return balanced_accuracy(self.scores, self.member, self.threshold)

    @property
    def p(self) -> float:
        """Of "members do not score higher"."""
        return auc_test(self.scores, self.member)


@dataclass(frozen=True)
class Audited:
    """A trained federation, its log, and what is asked about each client.

    Args:
        task: what was learnt.
        log: of the messages.
        released: the final model.
        questions: by client.
        member: the truth, by client.
    """

    task: Task
    log: Recorded
    released: ReleasedModel
    questions: tuple[MembershipQuestion, ...]
    member: tuple[Bool[ndarray, "n"], ...]

    def run(self, attack: Attack, client: int) -> Found:
        """One attack on one client."""
        question, meter, start = self.questions[client], Meter(), time.process_time()
        answer = attack.run(self._seen(attack, client), question, Tools(self.task, Streams(client), meter))
        spent = time.process_time() - start
        return _graded(answer, question, self.member[client], spent, meter.evaluations)

    def everywhere(self, attack: Attack) -> list[Found]:
        """One attack on every client."""
        return [self.run(attack, client) for client in range(len(self.questions))]

    def _seen(self, attack: Attack, client: int) -> Any:
        if attack.view is ReleasedModel:
            return self.released
        return CuriousServer(self.log) if attack.view is CuriousServer else Eavesdropper(self.log, client)


def _graded(
    answer: MembershipAnswer, question: MembershipQuestion, member: ndarray, seconds: float, evaluations: int
) -> Found:
    hidden, facts = ~question.known, dict(answer.facts)
    return Found(answer.scores[hidden], member[hidden], facts.pop("threshold", None), seconds, evaluations, facts)


@contextmanager
def audited(recipe: Recipe, seed: int) -> Iterator[Audited]:
    """Train a federation and keep its messages while the block lasts."""
    x, y = _digits(recipe.redrawn, seed)
    size, held = recipe.records, recipe.clients * recipe.records
    schema = Schema(input_shape=(64,), target="class", num_classes=10)
    parts = tuple((x[k * size : (k + 1) * size], y[k * size : (k + 1) * size]) for k in range(recipe.clients))
    task = make_task(TaskSettings(model="mlp", options={"hidden": (64,)}), schema)
    method = FedAvg(learning_rate=0.2, work=Phase(epochs=recipe.epochs, batch_size=32))
    trial = Trial(
        name="audited",
        algorithm=method,
        population=Clients(parts, schema),
        task=task,
        rounds=recipe.rounds,
        every=recipe.rounds,
        seed=seed,
    )
    header = {**task.layout.as_json(), "loss": task.loss.name, "hyper_parameters": {}, "secure_aggregation": False}
    others = np.array_split(np.arange(held, len(x)), recipe.clients)
    rows = [np.r_[np.arange(k * size, (k + 1) * size), others[k]] for k in range(recipe.clients)]
    questions = tuple(_question(x, y, rows[k], k, recipe, seed) for k in range(recipe.clients))
    with tempfile.TemporaryDirectory() as folder:
        with Files(Path(folder), LogPolicy(), header, interval=1e6) as journal:
            outcome = run(trial, journal, keep=0)
        log = Recorded(Path(folder) / LOG_NAME)
        released = ReleasedModel(log.header, to_numpy(outcome.state["params"]))
        yield Audited(task, log, released, questions, tuple(np.arange(len(each)) < size for each in rows))


def _digits(redrawn: float, seed: int) -> tuple[ndarray, ndarray]:
    """All digits in random order, some labels drawn anew."""
    records, generator = Digits().load(0).records, Streams(seed).numpy("digits")
    assert isinstance(records, Arrays)
    order = generator.permutation(len(records.y))
    x, y = records.x[order].astype(np.float32), records.y[order].astype(np.int64)
    anew = generator.random(len(y)) < redrawn
    y[anew] = generator.integers(0, 10, int(anew.sum()))
    return x, y


def _question(x: ndarray, y: ndarray, rows: ndarray, client: int, recipe: Recipe, seed: int) -> MembershipQuestion:
    generator, known = Streams(seed).numpy("known", client), np.zeros(len(rows), bool)
    half = recipe.records // 2
    known[generator.permutation(recipe.records)[:half]] = True
    known[recipe.records + generator.permutation(len(rows) - recipe.records)[:half]] = True
    records = Samples(x[rows], y[rows], np.arange(len(rows)))
    return MembershipQuestion(
        records, known, known & (np.arange(len(rows)) < recipe.records), records.take(rows[:0]), client
    )

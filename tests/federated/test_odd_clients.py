"""Clients that are not what methods are written for: one record or none, one class, no validation or test records,
an answer that is lost, an arrival after training. Whatever comes together, everyone gets a usable model."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from math import isfinite
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from rivage.data.population import ClientData, Samples, Schema
from rivage.federated import Notebook, Outcome, Phase, Trial, run
from rivage.federated.registry import ALGORITHMS
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.toys import Clients

METHODS = [kind for kind in ALGORITHMS if hasattr(ALGORITHMS.get(kind), "federates")]
SCHEMA = Schema(input_shape=(3,), target="class", num_classes=3)
ROUNDS = 3
WORK = Phase(batch_size=4)


@dataclass(frozen=True)
class Odd:
    """One client: how many records of each kind, and of how many classes."""

    train: int
    validation: int
    test: int
    classes: int = 3


ORDINARY = Odd(9, 3, 4)
STRANGE = {
    "one record": Odd(1, 0, 1),
    "one class": Odd(6, 2, 2, classes=1),
    "no validation": Odd(6, 0, 3),
    "one validation record": Odd(6, 1, 3),
    "no test": Odd(6, 2, 0),
    "nothing but training": Odd(2, 0, 0),
    "no training": Odd(0, 1, 2),
    "nothing": Odd(0, 0, 0),
}


@dataclass(frozen=True)
class Mixed(Clients):
    """Clients whose records are divided as they say."""

    kinds: tuple[Odd, ...] = ()

    def client(self, id: int, round: int = 0) -> ClientData:
        kind, (x, y) = self.kinds[id], self.records[id]
        samples = Samples(x, y, np.arange(len(x)))
        cuts = np.cumsum([kind.train, kind.validation, kind.test])
        train, validation, test = (samples.take(np.arange(b - n, b)) for b, n in zip(cuts, _counts(kind), strict=True))
        return ClientData(id, train, validation, test, float(kind.train))

    def sizes(self, ids: Any, round: int = 0) -> Any:
        return np.array([float(self.kinds[int(id)].train) for id in ids])


def _counts(kind: Odd) -> tuple[int, int, int]:
    return kind.train, kind.validation, kind.test


def mixed(kinds: tuple[Odd, ...], absent: frozenset[tuple[int, int]] = frozenset()) -> Mixed:
    generator, records = np.random.default_rng(0), []
    for kind in kinds:
        count = sum(_counts(kind))
        y = np.arange(count) % kind.classes
        records.append(((generator.normal(size=(count, 3)) + y[:, None]).astype(np.float32), y))
    return Mixed(tuple(records), SCHEMA, absent, kinds=kinds)


@cache
def task() -> Task:
    return Task(
        lambda schema: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), CROSS_ENTROPY, ACCURACY, SCHEMA
    )


def method(kind: str, work: Phase) -> Any:
    cls = ALGORITHMS.get(kind)
    given = {"work": work, "tuning": replace(work, updates=None, batches="shuffle"), "epochs": 2, "learning_rate": 0.05}
    return cls(**{field.name: given[field.name] for field in fields(cls) if field.init and field.name in given})


def played(kind: str, population: Mixed, work: Phase = WORK, **options: Any) -> tuple[Outcome, Notebook]:
    book = Notebook()
    given: dict[str, Any] = {"rounds": ROUNDS, "every": 2, **options}
    return run(Trial(name="m", algorithm=method(kind, work), population=population, task=task(), **given), book), book


def require_usable(outcome: Outcome, population: Mixed) -> None:
    """Everyone has a finite model and a mix on the simplex, and figures exactly where there are records for them."""
    judged: set[int] = set()
    for evaluation in (outcome.seen, outcome.unseen):
        if evaluation is None:
            continue
        judged |= evaluation.predictors.keys()
        for predictor in evaluation.predictors.values():
            assert bool(torch.isfinite(predictor.params).all())
            assert bool((predictor.mix >= 0).all())
            assert float(predictor.mix.sum()) == pytest.approx(1, abs=1e-5)
        rows = zip(*(evaluation.columns[name] for name in ("clients", "test", "validation_loss")), strict=True)
        for client, test, loss in rows:
            data = population.client(client)
            assert (test is not None) == (len(data.test) > 0)
            assert (loss is not None) == (len(data.validation) > 0)
            assert all(value is None or isfinite(value) for value in (test, loss))
    assert judged == set(range(population.size))
    for value in outcome.state.values():
        assert bool(torch.isfinite(value.double()).all())


@pytest.mark.parametrize("kind", METHODS)
def test_every_strange_client_beside_ordinary_ones(kind: str) -> None:
    """All at once: in training, and arriving later."""
    kinds = (ORDINARY, *STRANGE.values(), ORDINARY)
    population = mixed(kinds)
    outcome, book = played(kind, population)
    require_usable(outcome, population)
    assert not any(event["rejected"] for event in book.events if event["event"] == "round")
    outcome, _ = played(kind, population, unseen=np.arange(1, len(kinds) - 1))
    require_usable(outcome, population)


odd = st.one_of(
    st.sampled_from([ORDINARY, *STRANGE.values()]),
    st.builds(
        Odd,
        train=st.integers(0, 9),
        validation=st.integers(0, 3),
        test=st.integers(0, 3),
        classes=st.integers(1, 3),
    ),
)


@pytest.mark.parametrize("kind", METHODS)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    kinds=st.lists(odd, min_size=1, max_size=5).map(tuple),
    unseen=st.sets(st.integers(0, 4), max_size=3),
    absent=st.frozensets(st.tuples(st.integers(0, 4), st.integers(0, ROUNDS - 1)), max_size=4),
    cohort=st.sampled_from([None, 1, 2]),
    work=st.sampled_from([WORK, Phase(epochs=2, batch_size=None), Phase(updates=3, batch_size=2, batches="poisson")]),
)
def test_whatever_comes_together_everyone_gets_a_model(
    kind: str,
    kinds: tuple[Odd, ...],
    unseen: set[int],
    absent: frozenset[tuple[int, int]],
    cohort: int | None,
    work: Phase,
) -> None:
    kept = sorted(unseen & set(range(1, len(kinds))))
    population = mixed(kinds, absent)
    outcome, _ = played(kind, population, work, unseen=np.array(kept, np.int64), cohort=cohort)
    require_usable(outcome, population)

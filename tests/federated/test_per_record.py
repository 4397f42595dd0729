"""Clipped sums of gradients side by side: equal to one record after another, or not taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivage.data.population import Samples, Schema
from rivage.federated.algorithm import Local, Phase
from rivage.federated.batches import Batches
from rivage.federated.executors.functional import Functional
from rivage.federated.executors.jobs import Job
from rivage.federated.executors.per_record import PerRecord
from rivage.federated.fedavg import FedAvg
from rivage.learning.losses import LOSSES
from rivage.learning.metrics import METRICS
from rivage.learning.networks import cnn, resnet
from rivage.learning.task import Task

SHAPE = (2, 8, 8)


class Branching(nn.Module):
    """Looks at its numbers before it decides: nothing that can be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x.flatten(1))
        return found if float(found.sum().detach()) > 0 else 2 * found


def small(schema: Schema) -> nn.Module:
    return cnn(schema, channels=(3,), hidden=5)


def large(schema: Schema) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 3000), nn.GELU(), nn.Linear(3000, 3))


def tied(schema: Schema) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 128), nn.Linear(128, 3))
    model[3].weight = model[1].weight
    return model


def dropped(schema: Schema) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 3), nn.Dropout(0.3))


def task(model: Callable[..., Any], dtype: torch.dtype = torch.float64) -> Task:
    schema = Schema(input_shape=SHAPE, target="class", num_classes=3)
    return Task(model, LOSSES.get("cross_entropy"), METRICS.get("accuracy"), schema, dtype=dtype)


def trained(learnt: Task, phase: Phase, *, loop: bool, weights: bool = False) -> tuple[Tensor, bool | None]:
    """Where two groups end after three batches, and whether gradients were taken side by side."""
    generator = np.random.default_rng(0)
    samples = Samples(generator.normal(size=(9, *SHAPE)), generator.integers(0, 3, 9), np.arange(9))
    rows = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 5])
    local = Local(torch.stack([learnt.initial(seed) for seed in (0, 1)]), rate=0.5, records=9)
    if weights:
        local.weights = torch.linspace(0, 2, 18, dtype=learnt.dtype).reshape(9, 2)
    job = Job(0, local, samples, batches=Batches(rows, np.array([6, 4, 1])))
    engine = Functional(learnt)
    if loop:
        engine.vectorised = False
    engine.train(FedAvg(), phase, job, 0)
    return local.params, engine.vectorised


@pytest.mark.parametrize("model", [small, resnet, tied], ids=lambda m: m.__name__)
@pytest.mark.parametrize("clip", [1e-3, 0.7, 1e4])
@pytest.mark.parametrize("weights", [False, True])
def test_side_by_side_is_one_after_another(model: Any, clip: float, weights: bool) -> None:
    learnt, phase = task(model), Phase(clip=clip)
    fast, vectorised = trained(learnt, phase, loop=False, weights=weights)
    assert vectorised
    torch.testing.assert_close(fast, trained(learnt, phase, loop=True, weights=weights)[0], atol=1e-12, rtol=1e-10)


def test_parts_of_a_model_and_single_precision() -> None:
    learnt = task(small, torch.float32)
    names = [entry.name for entry in learnt.layout.entries]
    for train in ((names[-1],), (names[0], names[-2])):
        phase = Phase(clip=0.3, train=train)
        (fast, vectorised), (slow, _) = (trained(learnt, phase, loop=loop) for loop in (False, True))
        assert vectorised
        torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("model", [large, dropped, lambda schema: Branching()], ids=["large", "dropout", "branching"])
def test_what_cannot_or_need_not_be_vectorised_goes_one_by_one(model: Any) -> None:
    learnt, phase = task(model), Phase(clip=0.3)
    params, vectorised = trained(learnt, phase, loop=False)
    assert not vectorised
    torch.testing.assert_close(params, trained(learnt, phase, loop=True)[0], atol=0, rtol=0)


def test_chunks_do_not_change_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt, phase = task(small), Phase(clip=0.3)
    whole, _ = trained(learnt, phase, loop=False)
    size = sum(entry.size for entry in learnt.layout.entries) * 8
    monkeypatch.setattr("rivage.federated.executors.per_record._BYTES", 4 * size)
    chunked, vectorised = trained(learnt, phase, loop=False)
    assert vectorised
    torch.testing.assert_close(chunked, whole, atol=1e-13, rtol=0)


def test_a_way_that_gives_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = PerRecord._loss
    monkeypatch.setattr(PerRecord, "_loss", lambda self, *given: 1.01 * honest(self, *given))
    assert trained(task(small), Phase(clip=0.3), loop=False)[1] is False

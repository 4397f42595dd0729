"""What models say about records, against autograd record by record, for chains and for any module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated.executors import per_record
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import Meter, Tools
from rivage.privacy.probing import Probe, gradients_of
from rivage.testing.toys import layered_task, linear_clients, linear_task

CLASSES = Schema(input_shape=(5,), target="class", num_classes=3)
IMAGES = Schema(input_shape=(1, 8, 8), target="class", num_classes=3)
TEXT = Schema(input_shape=(6,), target="tokens", num_classes=7)


def tools(task: Task) -> Tools:
    return Tools(task, Streams(0))


def records(schema: Schema, n: int = 7, seed: int = 0) -> Samples:
    generator = np.random.default_rng(seed)
    if schema.target == "tokens":
        x = generator.integers(0, schema.num_classes, (n, *schema.input_shape))
        return Samples(x, generator.integers(0, schema.num_classes, (n, *schema.input_shape)), np.arange(n))
    x = generator.normal(size=(n, *schema.input_shape)).astype(np.float32)
    return Samples(x, generator.integers(0, schema.num_classes, n), np.arange(n))


def made(schema: Schema, dtype: torch.dtype = torch.float64, **settings: Any) -> Task:
    return make_task(TaskSettings(**settings), schema, dtype=dtype)


TASKS = {
    "linear": made(CLASSES, model="linear"),
    "mlp": made(CLASSES, model="mlp", options={"hidden": (4, 4)}),
    "cnn": made(IMAGES, model="cnn", options={"channels": (2,), "hidden": 4}),
    "gru": made(TEXT, model="char_gru", options={"hidden": 4}),
}


def by_autograd(task: Task, params: np.ndarray, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient of each record, one by one."""
    bound = task.bind()
    bound.module.eval()
    bound.load(torch.from_numpy(params))
    losses, gradients = [], []
    for i in range(len(samples)):
        x, y = task.tensors(samples.take(np.array([i])))
        loss = bound.losses(x, y).sum()
        parts = torch.autograd.grad(loss, bound.parameters, allow_unused=True, materialize_grads=True)
        losses.append(loss.item())
        gradients.append(np.concatenate([part.numpy().ravel() for part in parts]))
    return np.array(losses), np.stack(gradients)


@pytest.mark.parametrize("name", TASKS)
def test_losses_and_alignments_are_autograds(name: str) -> None:
    task = TASKS[name]
    samples, params = records(task.schema), task.initial(1).numpy()
    directions = np.random.default_rng(2).normal(size=(3, task.dimension))
    losses, gradients = by_autograd(task, params, samples)
    probe = Probe(tools(task), samples)
    np.testing.assert_allclose(probe.losses(params), losses, rtol=1e-10)
    np.testing.assert_allclose(probe.fits(params), np.exp(-losses), rtol=1e-10)
    lengths = np.linalg.norm(directions, axis=1)[:, None] * np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(probe.alignments(params, directions), directions @ gradients.T / lengths, atol=1e-9)


@pytest.mark.parametrize("room", [1 << 23, 5 * 8 * 200], ids=["all at once", "by parts"])
@pytest.mark.parametrize("name", ["cnn", "mlp", "gru"])
def test_gradients_side_by_side_are_those_one_by_one(name: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_record, "_BYTES", room)
    task = TASKS[name]
    samples, params = records(task.schema, n=9), task.initial(1).numpy()
    bound, (x, y) = task.bind(), task.tensors(samples)
    bound.module.eval()
    bound.load(torch.from_numpy(params))
    parts = list(gradients_of(bound, task, x, y))
    np.testing.assert_allclose(torch.cat(parts).numpy(), by_autograd(task, params, samples)[1], atol=1e-12)
    assert not any(part.requires_grad for part in parts)
    if name == "cnn":
        assert [len(part) for part in parts] == ([9] if room > 10**6 else [5, 4])


@pytest.mark.parametrize("make", [linear_task, layered_task])
def test_real_targets_fit_by_their_squared_error(make: Any) -> None:
    population = linear_clients()
    task, samples = make(population), population.client(1).train
    params = task.initial(0).numpy()
    losses, gradients = by_autograd(task, params, samples)
    probe = Probe(tools(task), samples)
    np.testing.assert_allclose(probe.fits(params), losses, rtol=1e-10)
    found = probe.alignments(params, gradients)
    np.testing.assert_allclose(np.diag(found), 1.0, atol=1e-9)
    assert (np.abs(found) <= 1 + 1e-9).all()


def test_a_mixture_by_hand() -> None:
    """Two models: the loss of the mean probability, and autograd's gradient of it by both models."""
    task, samples = TASKS["mlp"], records(CLASSES)
    params = np.stack([task.initial(seed).numpy() * 3 for seed in (1, 2)])
    apart = [by_autograd(task, row, samples) for row in params]
    likelihood = np.mean([np.exp(-losses) for losses, _ in apart], axis=0)
    probe = Probe(tools(task), samples)
    np.testing.assert_allclose(probe.fits(params), likelihood, rtol=1e-10)
    whole = np.concatenate([np.exp(-ls)[:, None] / (2 * likelihood[:, None]) * gs for ls, gs in apart], axis=1)
    directions = np.random.default_rng(0).normal(size=(2, *params.shape))
    flat = directions.reshape(2, -1)
    lengths = np.linalg.norm(flat, axis=1)[:, None] * np.linalg.norm(whole, axis=1)
    np.testing.assert_allclose(probe.alignments(params, directions), flat @ whole.T / lengths, atol=1e-9)


@given(st.integers(1, 4), st.integers(0, 100))
@settings(max_examples=20)
def test_equal_models_are_one_model(copies: int, seed: int) -> None:
    task, samples = TASKS["mlp"], records(CLASSES, seed=seed)
    row = task.initial(seed).numpy()
    direction = np.random.default_rng(seed).normal(size=(1, task.dimension))
    probe = Probe(tools(task), samples)
    stacked = np.repeat(row[None], copies, axis=0)
    np.testing.assert_allclose(probe.losses(stacked), probe.losses(row), rtol=1e-9)
    one = probe.alignments(row, direction)
    np.testing.assert_allclose(probe.alignments(stacked, np.repeat(direction[:, None], copies, axis=1)), one, atol=1e-9)


def test_saturated_records_keep_their_order() -> None:
    """Margins of 20, 25 and 30 are all probability 1 in float32; their losses differ in float64."""
    schema = Schema(input_shape=(1,), target="class", num_classes=2)
    task = make_task(TaskSettings(model="linear"), schema)
    params = np.array([1.0, 0.0, 0.0, 0.0], np.float32)
    samples = Samples(np.array([[20.0], [25.0], [30.0]], np.float32), np.zeros(3, np.int64), np.arange(3))
    losses = Probe(tools(task), samples).losses(params)
    assert (np.diff(losses) < 0).all()
    np.testing.assert_allclose(losses, np.exp([-20.0, -25.0, -30.0]), rtol=0.01)


def test_directions_only_count_where_something_is_trained_and_zero_has_no_angle() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.norm(x))
            return out

    task = Task(lambda schema: Normed(), CROSS_ENTROPY, ACCURACY, CLASSES, dtype=torch.float64)
    samples, params = records(CLASSES), task.initial(0).numpy()
    direction = np.random.default_rng(0).normal(size=(1, task.dimension))
    probe = Probe(tools(task), samples)
    found = probe.alignments(params, direction)
    direction[:, task.layout.trainable :] = 1e6
    np.testing.assert_array_equal(probe.alignments(params, direction), found)
    assert (probe.alignments(params, np.zeros_like(direction)) == 0).all()


def test_evaluations_are_counted_once_per_model() -> None:
    task, samples = TASKS["mlp"], records(CLASSES, n=6)
    given_ = replace(tools(task), meter=Meter())
    probe, params = Probe(given_, samples), task.initial(0).numpy()
    probe.losses(params)
    assert given_.meter.evaluations == 6
    probe.alignments(params, np.ones((4, task.dimension)))
    assert given_.meter.evaluations == 12, "four directions are one pass"
    probe.losses(np.stack([params, params]))
    assert given_.meter.evaluations == 24


def test_another_model_or_one_that_ran_away_is_refused() -> None:
    task, samples = TASKS["mlp"], records(CLASSES)
    probe = Probe(tools(task), samples)
    with pytest.raises(DataError, match=r"of shape \(3,\), the model has \d+\. Audit with the model that was trained"):
        probe.losses(np.zeros(3))
    with pytest.raises(DataError, match="no number as loss of 7 of 7 records"):
        probe.losses(np.full(task.dimension, np.inf))

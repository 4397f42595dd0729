"""q-FFL: its step is the paper's, its fixed point on two quadratics is known, q = 0 is FedAvg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.federated import QFFL, FedAvg, Outcome, Phase, Trial, run
from rivage.federated.algorithm import Cohort, Local, LocalWork, Mean
from rivage.federated.collectors import Plain
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

WORK = Phase(epochs=2, batch_size=3)
A, C = (0.5, 1.0, 4.0), (3.0, -1.0, 2.0)
ONE = Phase(updates=1, batch_size=None)


def played(algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any) -> Outcome:
    return run(Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, **options))


@dataclass(frozen=True, kw_only=True)
class Alike(FedAvg):
    """FedAvg in which every client counts once."""

    def select(self, *args: Any) -> Cohort:
        cohort = super().select(*args)
        return replace(cohort, weights=np.ones(len(cohort.ids)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cohort", [None, 2])
def test_q_of_0_is_fedavg_with_equal_weights_bit_for_bit(dtype: torch.dtype, cohort: int | None) -> None:
    population = linear_clients()
    task = linear_task(population, dtype)
    plain = played(Alike(work=WORK), population, task, 6, cohort=cohort).state["params"]
    found = played(QFFL(q=0, work=WORK), population, task, 6, cohort=cohort).state["params"]
    assert torch.equal(found, plain)
    by_size = played(FedAvg(work=WORK), population, task, 6, cohort=cohort).state["params"]
    assert not torch.equal(found, by_size)


def by_the_paper(q: float, rate: float, steps: int, rounds: int, *, late: bool = False) -> float:
    """Algorithm 2 as printed, on quadratics; ``late`` takes the loss after training."""
    a, c = np.array(A), np.array(C)
    theta = quadratic_task(quadratic_clients(A, C)).initial(Streams(0).seed("model")).item()
    for _ in range(rounds):
        w = np.full(3, theta)
        for _ in range(steps):
            w = w - rate * a * (w - c)
        loss = 0.5 * a * ((w if late else theta) - c) ** 2
        move = (theta - w) / rate
        theta -= float((loss**q * move).sum() / (q * loss ** (q - 1) * move**2 + loss**q / rate).sum())
    return theta


@pytest.mark.parametrize("q", [0.1, 1.0, 5.0])
def test_rounds_follow_the_paper_with_the_loss_before_training(q: float) -> None:
    """Code in circulation takes the loss after training; it ends elsewhere."""
    population = quadratic_clients(A, C)
    method = QFFL(learning_rate=0.1, q=q, work=Phase(updates=3, batch_size=None))
    found = played(method, population, quadratic_task(population), 5).state["params"].item()
    assert found == pytest.approx(by_the_paper(q, 0.1, 3, 5), abs=1e-11)
    assert abs(found - by_the_paper(q, 0.1, 3, 5, late=True)) > 1e-3


@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_the_way_is_measured_from_the_model_that_was_sent(executor: Any) -> None:
    """Code in circulation keeps the start by reference, which moves along: then no way has a length."""
    population = linear_clients()
    task, method, data = linear_task(population), QFFL(q=1.0, work=WORK), population.client(0)
    sent = task.initial(0)
    local = method.start({"params": sent}, {}, data, torch.full((4, 1), 2.0).double(), Streams(0), task)
    engine = Executor(task, Execution(executor=executor))
    engine.train(method, LocalWork((WORK,), 0.1), [Job(0, local, data.train)], Streams(0), 0)
    way = float((local.params[0] - task.initial(0)).square().sum())
    assert way > 1e-3
    assert method.finish(local, task).payload["curvature"][0].item() == pytest.approx(way / (0.1 * 2.0))


def settled(method: QFFL, a: Sequence[float], c: Sequence[float], rounds: int) -> float:
    """Where rounds of one exact gradient end, hook by hook."""
    task = quadratic_task(quadratic_clients(a, c))
    state = method.init(task, len(a), Streams(0))
    for _ in range(rounds):
        theta, collector = state["params"], Plain(each=False)
        for curvature, centre in zip(a, c, strict=True):
            keep = {"start": theta, "loss": 0.5 * curvature * (theta - centre).square().sum()}
            moved = theta - method.learning_rate * curvature * (theta - centre)
            collector.add(method.finish(Local(moved[None], keep=keep), task))
        received = collector.result()
        assert isinstance(received, dict)
        state = method.aggregate(state, received, task)
    return state["params"].item()


@pytest.mark.parametrize("q", [0.0, 0.5, 2.0, 8.0])
def test_the_limit_on_two_quadratics(q: float) -> None:
    """Σ F_k^q ∇F_k = 0 between the centres: a₁^{1+q} d₁^{2q+1} = a₂^{1+q} d₂^{2q+1}, with d₁ + d₂ their distance."""
    a, c = (0.5, 4.0), (-1.0, 3.0)
    ratio = (a[1] / a[0]) ** ((1 + q) / (2 * q + 1))
    found = settled(QFFL(learning_rate=0.2, q=q), a, c, 2000)
    assert found == pytest.approx(c[0] + (c[1] - c[0]) * ratio / (1 + ratio), abs=1e-6)


def test_larger_q_brings_losses_together() -> None:
    centres = (0.0, 0.0, 0.0, 4.0)
    found = [settled(QFFL(learning_rate=0.2, q=q), (1.0,) * 4, centres, 1000) for q in (0.0, 1.0, 50.0)]
    losses = [[0.5 * (theta - centre) ** 2 for centre in centres] for theta in found]
    assert all(np.std(some) > np.std(more) for some, more in pairwise(losses))
    assert all(max(some) > max(more) for some, more in pairwise(losses))
    assert max(losses[-1]) == pytest.approx(2.0, rel=0.05), "half way is the best for the worst"


positive = st.floats(1e-3, 1e3)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(positive, st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=5),
    st.floats(0, 5),
    st.floats(1e-3, 1.0),
)
def test_the_step_towards_the_mean_is_the_paper_s_step(
    clients: list[tuple[float, float, float]], q: float, rate: float
) -> None:
    """Any losses and moves; and it never goes beyond the mean."""
    method, theta = QFFL(learning_rate=rate, q=q), torch.tensor([1.0, -2.0]).double()
    task = linear_task(linear_clients((1,), features=2))
    loss = np.array([row[0] for row in clients])
    moves = np.array([row[1:] for row in clients])
    weights = bent = 0.0
    mean = np.zeros(2)
    for each, move in zip(loss, moves, strict=True):
        kept = {"start": theta, "loss": torch.tensor(each)}
        update = method.finish(Local((theta + torch.from_numpy(move))[None], keep=kept), task)
        weights += update.payload["params"][1]
        mean += update.payload["params"][1] * update.payload["params"][0].numpy()
        bent += update.payload["curvature"][1] * update.payload["curvature"][0].item()
    received = {
        "params": Mean(torch.from_numpy(mean / weights), weights),
        "curvature": Mean(torch.tensor([bent / weights]).double(), weights),
    }
    found = method.aggregate({"params": theta}, received, task)["params"]
    delta = -moves / rate
    bottom = (q * loss ** (q - 1) * (delta**2).sum(axis=1) + loss**q / rate).sum()
    paper = theta.numpy() - (loss[:, None] ** q * delta).sum(axis=0) / bottom
    np.testing.assert_allclose(found, paper, rtol=1e-6, atol=1e-9 * max(1.0, np.abs(moves).max()))


@pytest.mark.parametrize("q", [0.0, 0.1, 1.0])
def test_a_client_without_loss_breaks_nothing(q: float) -> None:
    """0 to the power q − 1 has no end below q = 1."""
    population = quadratic_clients((1.0, 1.0), (0.0, 2.0))
    task = quadratic_task(population)
    method = QFFL(learning_rate=0.1, q=q, work=ONE)
    losses = torch.zeros(1, 1).double()
    zero = torch.zeros(1).double()
    local = method.start({"params": zero}, {}, population.client(0), losses, Streams(0), task)
    update = method.finish(local, task)
    assert all(np.isfinite([float(vector.sum()), weight]).all() for vector, weight in update.payload.values())


def test_losses_in_a_large_unit_fit_float32() -> None:
    """Their powers do not. With η in that unit as well the step does not depend on it."""
    task, start, ends = linear_task(linear_clients(), torch.float32), torch.zeros(3), []
    for loss in (1.0, 1e10):
        method, collector = QFFL(learning_rate=1 / loss, q=5.0), Plain(each=False)
        for scale in (1.0, 2.0):
            keep = {"start": start, "loss": torch.tensor(scale * loss)}
            collector.add(method.finish(Local(torch.full((1, 3), scale), keep=keep), task))
        received = collector.result()
        assert isinstance(received, dict)
        ends.append(method.aggregate({"params": start}, received, task)["params"])
    torch.testing.assert_close(ends[1], ends[0])
    assert float(ends[0][0]) == pytest.approx(65 / 33 / (1 + (15 + 32 * 30) / 33))


def test_a_loss_that_has_run_away_is_rejected_and_not_an_error_of_arithmetic() -> None:
    local = Local(torch.zeros(1, 3), keep={"start": torch.zeros(3), "loss": torch.tensor(1e30)})
    task = linear_task(linear_clients(), torch.float32)
    assert QFFL(q=50.0).finish(local, task).payload["params"][1] == float("inf")


def test_a_curvature_that_is_a_lie_makes_no_step_longer() -> None:
    task, start, mean = linear_task(linear_clients()), torch.zeros(3), torch.ones(3)
    for told in (-0.9, -1.0, -5.0):
        received = {"params": Mean(mean, 2.0), "curvature": Mean(torch.tensor([told]), 2.0)}
        assert torch.equal(QFFL().aggregate({"params": start}, received, task)["params"], mean)


def test_a_negative_loss_is_refused() -> None:
    local = Local(torch.zeros(1, 3), keep={"start": torch.zeros(3), "loss": torch.tensor(-0.5)})
    with pytest.raises(ConfigError, match=r"the mean loss is -0.5.*powers of losses. Use a loss that is never"):
        QFFL().finish(local, linear_task(linear_clients()))


def test_running_statistics_take_the_mean() -> None:
    """They are no gradient steps: a shorter step would leave them behind."""
    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(
        lambda schema: nn.Sequential(nn.BatchNorm1d(3, track_running_stats=True), nn.Linear(3, 2)),
        CROSS_ENTROPY,
        ACCURACY,
        schema,
        dtype=torch.float64,
    )
    size, start, method = task.layout.trainable, task.initial(0), QFFL(learning_rate=0.1, q=3.0)
    model = start.clone()
    model[:size] += 0.1
    model[size:] += 100
    collector = Plain(each=False)
    collector.add(method.finish(Local(model[None], keep={"start": start, "loss": torch.tensor(2.0)}), task))
    received = collector.result()
    assert isinstance(received, dict)
    after = method.aggregate({"params": start}, received, task)["params"]
    assert torch.equal(after[size:], model[size:])
    share = 1 / (1 + 3 * size * 0.1**2 / (0.1 * 2))  # their way is no part of the curvature
    torch.testing.assert_close(after[:size], start[:size] + share * 0.1, rtol=0, atol=1e-12)


def test_conformance() -> None:
    check_algorithm(QFFL(learning_rate=0.05, q=2.0, work=WORK)).require()


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"q": -0.1}, {"q": float("inf")}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a (finite )?number"):
        QFFL(**wrong)

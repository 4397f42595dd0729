"""Per-FedAvg: held against autograd, batch by batch, and against FedAvg where α = 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data import Digits, Dirichlet, build_population
from rivage.data.population import Schema
from rivage.federated import FedAvg, Notebook, Outcome, PerFedAvg, Phase, Trial, run
from rivage.federated.batches import Position, batches
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, layered_task, linear_clients, linear_task, quadratic_clients, quadratic_task

WORK = Phase(epochs=2, batch_size=3)
A, C = (0.5, 1.0, 4.0), (3.0, -1.0, 2.0)


def played(algorithm: Any, population: Any, task: Task, rounds: int, **options: Any) -> Outcome:
    return run(
        Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    )


def personal(outcome: Outcome, client: int) -> Tensor:
    evaluation = outcome.unseen if outcome.unseen and client in outcome.unseen.predictors else outcome.seen
    predictor = evaluation.predictors[client]
    assert predictor.mix.tolist() == [1.0]
    return predictor.params[0]


def slope_of(task: Task, data: Any, params: Tensor, rows: np.ndarray) -> Tensor:
    bound = task.bind()
    x, y = (torch.from_numpy(array[rows]) for array in data)
    bound.load(params)
    gradient = torch.autograd.grad(bound.losses(x, y).mean(), bound.parameters)
    return torch.cat([g.reshape(-1) for g in gradient])


@pytest.mark.parametrize(
    "work", [Phase(batch_size=3), Phase(updates=3, batch_size=2), Phase(epochs=2, batch_size=None)]
)
def test_rounds_written_out_batch_by_batch(work: Phase) -> None:
    """Batches 2i and 2i + 1 of twice the work make step i; clients of 4, 7 and 1 records."""
    alpha, rate, sizes = 0.2, 0.1, (4, 7, 1)
    population = linear_clients(sizes)
    task = layered_task(population)
    twice = Phase(
        epochs=2 * work.epochs,
        updates=None if work.updates is None else 2 * work.updates,
        batch_size=work.batch_size,
    )
    key = Streams(0).child("train").seed("batches", 0)
    w = task.initial(Streams(0).seed("model"))
    for number in range(2):
        ended = []
        for client, data in enumerate(population.records):
            drawn, _ = batches(twice, key, [client], [sizes[client]], number, [Position()])[0]
            rows, own = drawn.split(), w
            assert len(rows) % 2 == 0
            for first, second in zip(rows[::2], rows[1::2], strict=True):
                inner = own - alpha * slope_of(task, data, own, first)
                own = own - rate * slope_of(task, data, inner, second)
            ended.append(own)
        w = sum(n * own for n, own in zip(sizes, ended, strict=True)) / 12
    outcome = played(PerFedAvg(learning_rate=rate, inner_rate=alpha, work=work), population, task, 2)
    torch.testing.assert_close(outcome.state["params"], w, rtol=0, atol=1e-12)
    for client, data in enumerate(population.records):
        expected = w - alpha * slope_of(task, data, w, np.arange(sizes[client]))
        torch.testing.assert_close(personal(outcome, client), expected, rtol=0, atol=1e-12)


def test_a_step_is_the_first_order_derivative_of_the_loss_after_a_step() -> None:
    """d/dw f_B'(w − α s) with s = ∇f_B(w) held constant, by autograd; two different functions stand for two batches."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    first = torch.func.grad(lambda w: w.cos().sum())
    second = torch.func.grad(lambda w: (w**4).sum())
    w = start[0].clone().requires_grad_()
    inner = w - 0.3 * first(start[0])
    (expected,) = torch.autograd.grad((inner**4).sum(), w)
    method = PerFedAvg(inner_rate=0.3)
    extra = {"inner": start[0], "second": torch.zeros(1, dtype=torch.float64)}
    held, extra = method.step(extra, start, first, 0.01)
    assert torch.equal(held, start), "the first batch moves nothing but the inner point"
    moved, extra = method.step(extra, held, second, 0.01)
    torch.testing.assert_close(moved[0], start[0] - 0.01 * expected, rtol=0, atol=1e-14)
    assert extra["second"].item() == 0


def test_one_clients_step_broadcasts_over_a_stack() -> None:
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(4, 1, 5, generator=generator, dtype=torch.float64)
    extra = {
        "inner": torch.randn(4, 5, generator=generator, dtype=torch.float64),
        "second": torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=torch.float64),
    }
    before = {"params": params.clone(), **{name: value.clone() for name, value in extra.items()}}
    stacked, after = PerFedAvg().step(extra, params, torch.sin, 0.1)
    for client in range(4):
        alone, own = PerFedAvg().step({k: v[client] for k, v in extra.items()}, params[client], torch.sin, 0.1)
        assert torch.equal(stacked[client], alone)
        assert all(torch.equal(after[name][client], own[name]) for name in after)
    assert torch.equal(params, before["params"])
    assert all(torch.equal(extra[name], before[name]) for name in extra)


@pytest.mark.parametrize("cohort", [None, 2])
def test_without_an_inner_step_it_is_fedavg(cohort: int | None) -> None:
    """With all records in a batch, bit for bit."""
    population, work = linear_clients(), Phase(epochs=3, batch_size=None)
    task = linear_task(population)
    plain = played(FedAvg(work=work), population, task, 6, cohort=cohort)
    outcome = played(PerFedAvg(inner_rate=0.0, work=work), population, task, 6, cohort=cohort)
    torch.testing.assert_close(outcome.state["params"], plain.state["params"], rtol=0, atol=1e-15)
    assert all(torch.equal(personal(outcome, client), outcome.state["params"]) for client in range(4))


def test_the_limit_is_where_slopes_after_a_step_cancel() -> None:
    """On quadratics θ_k − c_k = (1 − α a_k) (w − c_k), hence w is the mean of c weighted by a_k (1 − α a_k)."""
    alpha = 0.2
    population = quadratic_clients(A, C)
    method = PerFedAvg(learning_rate=1.0, inner_rate=alpha, work=Phase(updates=1, batch_size=None))
    outcome = played(method, population, quadratic_task(population), 30)
    a, c = np.array(A), np.array(C)
    m = a * (1 - alpha * a)
    w = outcome.state["params"].item()
    assert w == pytest.approx((m * c).sum() / m.sum(), abs=1e-8)
    np.testing.assert_allclose([personal(outcome, k).item() for k in range(3)], w - alpha * a * (w - c), atol=1e-12)


def test_newcomers_take_the_same_step() -> None:
    population = quadratic_clients(A, C)
    method = PerFedAvg(learning_rate=0.1, inner_rate=0.2, work=Phase(updates=2, batch_size=None))
    outcome = played(method, population, quadratic_task(population), 4, unseen=np.array([1]))
    w = outcome.state["params"].item()
    np.testing.assert_allclose(personal(outcome, 1), [w - 0.2 * A[1] * (w - C[1])], atol=1e-12)


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_running_statistics_are_those_of_both_points() -> None:
    schema = Schema(input_shape=(2,), target="class", num_classes=2)
    x = Streams(1).numpy("x").normal(1, 2, size=(8, 2)).astype(np.float32)
    population = Clients(((x, (x[:, 0] > 1).astype(np.int64)),), schema)
    task = Task(lambda s: Normed(), CROSS_ENTROPY, ACCURACY, schema, dtype=torch.float64)
    method = PerFedAvg(inner_rate=0.3, work=Phase(updates=1, batch_size=None))
    outcome = played(method, population, task, 1)
    size, point = task.layout.trainable, task.initial(Streams(0).seed("model"))
    bound = task.bind()
    for _ in range(2):
        bound.load(point)
        losses = bound.losses(*task.tensors(population.client(0).train))
        slopes = torch.autograd.grad(losses.mean(), bound.parameters)
        point = bound.vector.detach().clone()
        point[:size] -= 0.3 * torch.cat([slope.reshape(-1) for slope in slopes])
    torch.testing.assert_close(outcome.state["params"][size:], point[size:], rtol=0, atol=1e-12)


def test_nothing_but_the_start_travels_and_every_gradient_is_counted() -> None:
    population = linear_clients()
    book = Notebook(keep_messages=True)
    run(
        Trial(name="m", algorithm=PerFedAvg(work=WORK), population=population, task=linear_task(population), rounds=2),
        book,
    )
    names = {frozenset(message.payload) for message in book.messages}
    assert names == {frozenset({"params"}), frozenset({"params", "params.weight"})}
    spent = [event["gradients"] for event in book.events if event["event"] == "round"]
    assert spent == [2 * 2 * 24] * 2, "two batches for each of FedAvg's"
    assert not any(memory.values for memory in book.memories.get(range(4)))


@pytest.mark.parametrize(
    "method",
    [
        PerFedAvg(learning_rate=0.05, work=WORK),
        PerFedAvg(learning_rate=0.05, inner_rate=0.0, work=WORK),
        PerFedAvg(
            learning_rate=0.05, inner_rate=0.02, work=Phase(updates=2, batch_size=3, batches="endless"), tuning=WORK
        ),
    ],
)
def test_conformance(method: PerFedAvg) -> None:
    battery = check_algorithm(method)
    battery.require()
    assert battery.ran == 11


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"inner_rate": -0.1}, {"inner_rate": float("inf")}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a (finite )?number"):
        PerFedAvg(**settings)


def test_on_digits_it_beats_its_start_and_fedavg() -> None:
    """One fixed run; what the personal step is worth is more than what a shared model loses."""
    population = build_population(Digits(), partition=Dirichlet(clients=10, alpha=0.3), seed=0)
    task = make_task(TaskSettings(model="mlp", options={"hidden": [32]}), population.schema)
    work = Phase(batch_size=16)
    method = PerFedAvg(learning_rate=0.3, inner_rate=0.1, work=work)
    trained, start, shared = (
        np.average(outcome.seen.columns["test"], weights=outcome.seen.columns["test_size"])
        for outcome in (
            played(method, population, task, 20),
            played(method, population, task, 0),
            played(FedAvg(learning_rate=0.3, work=work), population, task, 20),
        )
    )
    assert trained >= start + 0.3
    assert trained >= shared

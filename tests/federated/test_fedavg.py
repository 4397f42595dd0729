"""Closed forms and degenerate cases of federated averaging (federated-systems §1: A1-A3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.federated import FedAvg, FedProx, FedSGD, Local, Phase, Trial, run
from rivage.federated.batches import Position, batches
from rivage.federated.execution import Execution
from rivage.learning.task import Task
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task


def final(algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any) -> np.ndarray:
    trial = Trial(
        name="m",
        algorithm=algorithm,
        population=population,
        task=task,
        rounds=rounds,
        every=rounds,
        **options,
    )
    return run(trial).state["params"].numpy()


def start_of(task: Task, seed: int = 0) -> np.ndarray:
    return task.initial(Streams(seed).seed("model")).numpy()


def test_fedsgd_is_gradient_descent_on_all_records() -> None:  # A1
    population = linear_clients((4, 7, 1, 12))
    task = linear_task(population)
    x = np.concatenate([x for x, _ in population.records])
    y = np.concatenate([y for _, y in population.records])[:, 0]
    w = start_of(task)
    for _ in range(20):
        w = w - 0.05 * x.T @ (x @ w - y) / len(y)
    np.testing.assert_allclose(final(FedSGD(learning_rate=0.05), population, task, 20), w, atol=1e-10)


def test_fedsgd_is_fedavg_with_one_full_batch() -> None:
    population = linear_clients()
    task = linear_task(population)
    whole = FedAvg(learning_rate=0.1, work=Phase(epochs=1, batch_size=None))
    assert (final(whole, population, task, 5) == final(FedSGD(learning_rate=0.1), population, task, 5)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_client_is_local_sgd_bit_for_bit(dtype: torch.dtype) -> None:  # A2
    population = linear_clients((11,))
    task = linear_task(population, dtype)
    phase = Phase(epochs=2, batch_size=4)
    key = Streams(3).child("train").seed("batches", 0)
    model = torch.nn.Linear(3, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(task.initial(Streams(3).seed("model"))[None])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    x, y = (torch.from_numpy(part).to(dtype) for part in population.records[0])
    for number in range(4):
        for rows in batches(phase, key, [0], [11], number, [Position()])[0][0].split():
            optimizer.zero_grad()
            (0.5 * (model(x[rows]) - y[rows]).square().sum() / len(rows)).backward()
            optimizer.step()
    trained = final(
        FedAvg(learning_rate=0.03, work=phase), population, task, 4, seed=3, execution=Execution(executor="functional")
    )
    assert (trained == model.weight.detach().numpy()[0]).all()


@pytest.mark.parametrize("local_steps", [1, 5])
@pytest.mark.parametrize("curvatures", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
def test_the_fixed_point_on_quadratics(local_steps: int, curvatures: tuple[float, ...]) -> None:  # A3
    a, c, rate = np.array(curvatures), np.array([-1.0, 0.5, 3.0]), 0.2
    population = quadratic_clients(a, c)
    work = Phase(updates=local_steps, batch_size=None)
    limit = final(FedAvg(learning_rate=rate, work=work), population, quadratic_task(population), 300)
    shrink = 1 - (1 - rate * a) ** local_steps
    np.testing.assert_allclose(limit, [(shrink * c).sum() / shrink.sum()], atol=1e-8)
    minimiser = (a * c).sum() / a.sum()
    agree = local_steps == 1 or len(set(curvatures)) == 1
    assert bool(abs(limit[0] - minimiser) < 1e-8) is agree


def test_fedprox_without_pull_is_fedavg_bit_for_bit() -> None:
    population = linear_clients()
    task = linear_task(population)
    work = Phase(epochs=2, batch_size=3)
    plain = final(FedAvg(learning_rate=0.1, work=work), population, task, 6)
    assert (final(FedProx(learning_rate=0.1, mu=0.0, work=work), population, task, 6) == plain).all()
    assert (final(FedProx(learning_rate=0.1, mu=1.0, work=work), population, task, 6) != plain).all()


def test_fedprox_fixed_point_on_quadratics() -> None:
    """Many local steps solve a_k (w − c_k) + μ (w − w_t) = 0; the server's map then has a linear fixed point."""
    a, c, mu = np.array([0.5, 2.0]), np.array([-1.0, 3.0]), 0.7
    population = quadratic_clients(a, c)
    algorithm = FedProx(learning_rate=0.2, mu=mu, work=Phase(updates=90, batch_size=None))
    limit = final(algorithm, population, quadratic_task(population), 30)  # errors shrink to 0.76^90 and 0.42^30
    share = a / (a + mu)
    np.testing.assert_allclose(limit, [(share * c).sum() / share.sum()], atol=1e-8)


def test_local_is_plain_sgd_of_each_client() -> None:
    population = quadratic_clients((1.0, 2.0), (5.0, -3.0))
    task = quadratic_task(population)
    outcome = run(
        Trial(
            name="local",
            algorithm=Local(learning_rate=0.1, epochs=40, work=Phase(batch_size=None)),
            population=population,
            task=task,
            rounds=7,
        )
    )
    w0 = start_of(task)[0]
    for client, (a, c) in enumerate([(1.0, 5.0), (2.0, -3.0)]):
        expected = c + (w0 - c) * (1 - 0.1 * a) ** 40
        params = outcome.seen.predictors[client].params
        np.testing.assert_allclose(params.numpy(), [[expected]], atol=1e-12)
    assert outcome.seen.round == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: FedAvg(learning_rate=0.0),
        lambda: FedAvg(learning_rate=float("nan")),
        lambda: FedSGD(learning_rate=-1.0),
        lambda: FedProx(mu=-0.1),
        lambda: FedProx(mu=20.0, learning_rate=0.1),
        lambda: FedProx(mu=0.5, learning_rate=4.0),
        lambda: Local(epochs=0),
        lambda: Phase(batch_size=0),
        lambda: Phase(batches="endless"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"is|have"):
        make()

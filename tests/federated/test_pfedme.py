"""pFedMe: on quadratics envelopes are quadratics, and the rounds are written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data import Digits, Dirichlet, build_population
from rivage.data.population import Schema
from rivage.federated import FedAvg, Notebook, Outcome, PFedMe, Phase, Trial, run
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

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


def slope(points: Tensor) -> Tensor:
    """Gradient of Σ −cos, the same for every group."""
    return points.sin()


@pytest.mark.parametrize("server_rate", [1.0, 0.4])
def test_both_models_follow_their_recursions(server_rate: float) -> None:
    """On quadratics with exact gradients, step by step."""
    rate, inner, pull, steps, rounds = 0.1, 0.2, 0.7, 3, 5
    population = quadratic_clients(A, C)
    task = quadratic_task(population)
    a, c = np.array(A), np.array(C)
    w = task.initial(Streams(0).seed("model")).item()
    for _ in range(rounds):
        own, theta = np.full(3, w), np.full(3, w)
        for _ in range(steps):
            for _ in range(2):
                theta = (theta - inner * a * (theta - c) + inner * pull * own) / (1 + inner * pull)
            own = own - rate * pull * (own - theta)
        w = (1 - server_rate) * w + server_rate * own.mean()
    method = PFedMe(
        learning_rate=rate,
        inner_rate=inner,
        inner_steps=2,
        pull=pull,
        server_rate=server_rate,
        work=Phase(updates=steps, batch_size=None),
    )
    outcome = played(method, population, task, rounds)
    np.testing.assert_allclose(outcome.state["params"], [w], atol=1e-12)
    np.testing.assert_allclose([personal(outcome, k).item() for k in range(3)], theta, atol=1e-12)


@pytest.mark.parametrize(("pull", "rate"), [(0.5, 1.0), (15.0, 0.3)])
def test_the_limit_is_the_minimiser_of_the_envelopes(pull: float, rate: float) -> None:
    """F_k has curvature m_k = a_k λ / (a_k + λ) and f_k's optimum; with one step a round FedAvg on it is descent."""
    a, c = np.array([3.0, 4.0, 5.0]), np.array(C)
    population = quadratic_clients(a.tolist(), c.tolist())
    method = PFedMe(
        learning_rate=rate, inner_rate=0.25, pull=pull, inner_steps=9, work=Phase(updates=1, batch_size=None)
    )
    outcome = played(method, population, quadratic_task(population), 30)
    m = a * pull / (a + pull)
    w = outcome.state["params"].item()
    assert w == pytest.approx((m * c).sum() / m.sum(), abs=1e-4)
    found = [personal(outcome, k).item() for k in range(3)]
    np.testing.assert_allclose(found, (a * c + pull * w) / (a + pull), atol=1e-4)


@pytest.mark.parametrize("cohort", [None, 2])
def test_a_strong_pull_is_fedavg(cohort: int | None) -> None:
    """θ = w − ∇f(w) / λ + O(1/λ²), and η λ (w − θ) is then FedAvg's step."""
    population = linear_clients()
    task = linear_task(population)
    plain = played(FedAvg(learning_rate=0.05, work=WORK), population, task, 6, cohort=cohort).state["params"]
    gaps = []
    for pull in (1e2, 1e4, 1e6):
        method = PFedMe(learning_rate=0.05, inner_rate=1e3, pull=pull, inner_steps=4, work=WORK)
        outcome = played(method, population, task, 6, cohort=cohort)
        gaps.append(float((outcome.state["params"] - plain).abs().max()))
    assert gaps[0] > 30 * gaps[1] > 900 * gaps[2], "the gap falls as 1 / λ"
    assert gaps[2] < 1e-5


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e3), st.integers(1, 8), st.integers(0, 99))
def test_no_pull_drives_the_inner_steps_apart(pull: float, inner: float, steps: int, seed: int) -> None:
    """Without a slope θ only goes towards w."""
    params = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    extra = {"moves": torch.zeros(1, dtype=torch.float64), "learnt": torch.tensor([3])}
    method = PFedMe(pull=pull, inner_rate=inner, inner_steps=steps)
    moved, _ = method.step(extra, params, torch.zeros_like, 0.1)
    assert torch.equal(moved[0], params[0])
    assert bool(((moved[1] - params[0]).abs() <= (params[1] - params[0]).abs() + 1e-12).all())


def test_where_the_inner_steps_rest_is_the_proximal_point() -> None:
    """∇f(θ) + λ (θ − w) = 0."""
    params = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    extra = {"moves": torch.ones(1, dtype=torch.float64), "learnt": torch.tensor([5])}
    moved, _ = PFedMe(pull=2.0, inner_rate=0.3, inner_steps=200).step(extra, params, slope, 0.1)
    torch.testing.assert_close(slope(moved[1]), 2.0 * (params[0] - moved[1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(moved[0], params[0] - 0.1 * slope(moved[1]), rtol=0, atol=1e-12)


def test_one_clients_step_broadcasts_over_a_stack() -> None:
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(4, 2, 5, generator=generator, dtype=torch.float64)
    moves = torch.tensor([[1.0], [0.0], [1.0], [0.0]], dtype=torch.float64)
    extra = {"moves": moves, "learnt": torch.full((4, 1), 4)}
    before = params.clone()
    stacked, _ = PFedMe().step(extra, params, slope, 0.1)
    for client in range(4):
        own = {name: value[client] for name, value in extra.items()}
        alone, _ = PFedMe().step(own, params[client], slope, 0.1)
        assert torch.equal(stacked[client], alone)
    assert torch.equal(params, before)


def test_newcomers_look_around_the_shared_model_which_rests() -> None:
    inner, pull, steps = 0.2, 0.7, 5
    population = quadratic_clients(A, C)
    method = PFedMe(
        inner_rate=inner,
        pull=pull,
        work=Phase(updates=2, batch_size=None),
        tuning=Phase(updates=steps, batch_size=None),
    )
    outcome = played(method, population, quadratic_task(population), 4, unseen=np.array([1]))
    w = theta = outcome.state["params"].item()
    for _ in range(5 * steps):
        theta = (theta - inner * A[1] * (theta - C[1]) + inner * pull * w) / (1 + inner * pull)
    np.testing.assert_allclose(personal(outcome, 1), [theta], atol=1e-12)


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_running_statistics_are_those_met_at_the_personal_model() -> None:
    schema = Schema(input_shape=(2,), target="class", num_classes=2)
    records = []
    for client in range(3):
        x = Streams(1).numpy("x", client).normal(client, 1 + client, size=(8, 2)).astype(np.float32)
        records.append((x, (x[:, 0] > client).astype(np.int64)))
    population, task = Clients(tuple(records), schema), Task(lambda s: Normed(), CROSS_ENTROPY, ACCURACY, schema)
    book = Notebook()
    method = PFedMe(learning_rate=0.1, pull=19.0, inner_steps=1, work=Phase(updates=1, batch_size=None))
    trial = Trial(name="m", algorithm=method, population=population, task=task, rounds=1)
    outcome = run(trial, book)
    size, start = task.layout.trainable, task.initial(Streams(0).seed("model"))
    bound, statistics = task.bind(), []
    for client in range(3):
        bound.load(start)
        bound.losses(*task.tensors(population.client(client).train))
        statistics.append(bound.vector.detach()[size:].clone())
        torch.testing.assert_close(personal(outcome, client)[size:], statistics[-1], rtol=0, atol=1e-6)
    torch.testing.assert_close(outcome.state["params"][size:], sum(statistics) / 3, rtol=0, atol=1e-5)


def test_nothing_but_the_shared_model_travels_and_every_gradient_is_counted() -> None:
    population = linear_clients()
    book = Notebook(keep_messages=True)
    method = PFedMe(inner_steps=3, work=WORK)
    run(Trial(name="m", algorithm=method, population=population, task=linear_task(population), rounds=2), book)
    names = {frozenset(message.payload) for message in book.messages}
    assert names == {frozenset({"params"}), frozenset({"params", "params.weight"})}
    assert all(message.payload["params"].size == 3 for message in book.messages)
    spent = [event["gradients"] for event in book.events if event["event"] == "round"]
    assert spent == [3 * 2 * 24] * 2, "K for each of two passes over 24 records"


@pytest.mark.parametrize(
    "method",
    [
        PFedMe(learning_rate=0.05, work=WORK, tuning=WORK),
        PFedMe(learning_rate=0.05, pull=1.0, inner_rate=0.02, inner_steps=2, server_rate=0.5, work=WORK),
    ],
)
def test_conformance(method: PFedMe) -> None:
    battery = check_algorithm(method)
    battery.require()
    assert battery.ran == 11


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.0},
        {"pull": 0.0},
        {"pull": float("inf")},
        {"inner_rate": 0.0},
        {"inner_steps": 0},
        {"server_rate": 0.0},
        {"server_rate": 1.1},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a (finite )?number"):
        PFedMe(**settings)


def test_on_digits_it_beats_its_start() -> None:
    population = build_population(Digits(), partition=Dirichlet(clients=10, alpha=0.3), seed=0)
    task = make_task(TaskSettings(model="mlp", options={"hidden": [32]}), population.schema)
    method = PFedMe(learning_rate=0.3, pull=1.0, work=Phase(batch_size=16))
    trained, start = (
        np.average(outcome.seen.columns["test"], weights=outcome.seen.columns["test_size"])
        for outcome in (played(method, population, task, rounds) for rounds in (20, 0))
    )
    assert trained >= start + 0.3
    assert trained >= 0.85

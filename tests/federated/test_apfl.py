"""APFL: its ends are FedAvg and training alone; in between its recursion is written out."""

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
from rivage.data.population import Schema
from rivage.federated import APFL, FedAvg, Local, Notebook, Outcome, Phase, Trial, run
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

WORK = Phase(epochs=2, batch_size=3)
A, C = (0.5, 1.0, 4.0), (3.0, -1.0, 2.0)


def played(algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any) -> Outcome:
    trial = Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    return run(trial)


def personal(outcome: Outcome, client: int) -> Tensor:
    evaluation = outcome.unseen if outcome.unseen and client in outcome.unseen.predictors else outcome.seen
    predictor = evaluation.predictors[client]
    assert predictor.mix.tolist() == [1.0]
    return predictor.params[0]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cohort", [None, 2])
def test_the_shared_model_is_fedavgs(share: float, cohort: int | None) -> None:
    population = linear_clients()
    task = linear_task(population)
    plain = played(FedAvg(work=WORK), population, task, 6, cohort=cohort).state["params"]
    outcome = played(APFL(share=share, work=WORK), population, task, 6, cohort=cohort)
    torch.testing.assert_close(outcome.state["params"], plain, rtol=0, atol=1e-12)
    if share == 0:
        assert all(torch.equal(personal(outcome, client), outcome.state["params"]) for client in range(4))


def test_with_its_own_model_alone_a_client_trains_alone() -> None:
    population = linear_clients()
    task = linear_task(population)
    alone = played(Local(epochs=12, work=Phase(batch_size=None)), population, task, 0)
    outcome = played(APFL(share=1.0, work=Phase(epochs=3, batch_size=None)), population, task, 4)
    for client in range(4):
        torch.testing.assert_close(personal(outcome, client), personal(alone, client), rtol=0, atol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
def test_both_models_and_the_share_follow_their_recursions(adaptive: bool) -> None:
    """On quadratics with exact gradients; everything sees the values before the step, a turns in the first one."""
    rate, steps, rounds = 0.1, 3, 6
    population = quadratic_clients(A, C)
    task = quadratic_task(population)
    a, c = np.array(A), np.array(C)
    w = task.initial(Streams(0).seed("model")).item()
    v, share = np.full(3, w), np.full(3, 0.3)
    for _ in range(rounds):
        u = np.full(3, w)
        for number in range(steps):
            slope = a * (share * v + (1 - share) * u - c)
            turned = np.clip(share - rate * slope * (v - u), 0, 1)
            u, v = u - rate * a * (u - c), v - rate * share * slope
            share = turned if adaptive and number == 0 else share
        w = u.mean()
    method = APFL(learning_rate=rate, share=0.3, adaptive=adaptive, work=Phase(updates=steps, batch_size=None))
    outcome = played(method, population, task, rounds)
    np.testing.assert_allclose(outcome.state["params"], [w], atol=1e-12)
    np.testing.assert_allclose([personal(outcome, k).item() for k in range(3)], share * v + (1 - share) * w, atol=1e-12)
    assert (len(set(share)) > 1) is adaptive


def test_an_own_model_lets_the_blend_reach_the_clients_optimum() -> None:
    """With one local step w rests at its limit, and v then moves until ∇f(v̄) = 0."""
    population = quadratic_clients((2.0, 3.0, 4.0), C)
    method = APFL(learning_rate=0.2, share=0.5, work=Phase(updates=1, batch_size=None))
    outcome = played(method, population, quadratic_task(population), 250)
    np.testing.assert_allclose([personal(outcome, k).item() for k in range(3)], C, atol=1e-8)


def curve(points: Tensor) -> Tensor:
    """Gradient of Σ cos, the same for every group."""
    return -points.sin()


def test_one_clients_step_broadcasts_over_a_stack() -> None:
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(4, 2, 5, generator=generator, dtype=torch.float64)
    extra = {
        "share": torch.rand(4, 1, generator=generator, dtype=torch.float64),
        "learns": torch.tensor([[1.0], [0.0], [1.0], [1.0]], dtype=torch.float64),
        "turns": torch.tensor([[1.0], [1.0], [0.0], [1.0]], dtype=torch.float64),
    }
    method = APFL(adaptive=True)
    before = {"params": params.clone(), **{name: value.clone() for name, value in extra.items()}}
    stacked, after = method.step(extra, params, curve, 0.3)
    for client in range(4):
        alone, own = method.step({name: value[client] for name, value in extra.items()}, params[client], curve, 0.3)
        assert torch.equal(stacked[client], alone)
        assert all(torch.equal(after[name][client], own[name]) for name in after)
        assert own["share"].shape == (1,)
    assert after["turns"][:, 0].tolist() == [0, 1, 0, 0], "the share rests once w has moved"
    assert torch.equal(params, before["params"])
    assert all(torch.equal(extra[name], before[name]) for name in extra)


def test_the_slopes_are_derivatives_of_the_blends_loss() -> None:
    """Against autograd through v̄ = a v + (1 − a) w."""
    params = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    share = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    own = params[1].clone().requires_grad_()
    blend = share * own + (1 - share) * params[0]
    by_share, by_own = torch.autograd.grad(blend.cos().sum(), (share, own))
    one = torch.ones(1, dtype=torch.float64)
    extra = {"share": 0.4 * one, "learns": one, "turns": one}
    moved, after = APFL(adaptive=True).step(extra, params, curve, 0.01)
    torch.testing.assert_close(moved[1], params[1] - 0.01 * by_own, rtol=0, atol=1e-14)
    torch.testing.assert_close(after["share"], extra["share"] - 0.01 * by_share, rtol=0, atol=1e-14)


@given(st.floats(0, 1), st.floats(0.01, 1e3), st.integers(0, 99))
def test_a_learnt_share_stays_a_share(share: float, rate: float, seed: int) -> None:
    params = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    extra = {"share": share * one, "learns": 0 * one, "turns": one}
    for _ in range(3):
        params, extra = APFL(adaptive=True).step(extra, params, curve, rate)
        assert 0 <= extra["share"].item() <= 1


@pytest.mark.parametrize("adaptive", [False, True])
def test_newcomers_train_their_own_model_and_hold_the_shared_one(adaptive: bool) -> None:
    """A learnt share takes every step here, as w rests."""
    rate, share, steps = 0.1, 0.6, 5
    population = quadratic_clients(A, C)
    work, tuning = Phase(updates=2, batch_size=None), Phase(updates=steps, batch_size=None)
    method = APFL(learning_rate=rate, share=share, adaptive=adaptive, work=work, tuning=tuning)
    outcome = played(method, population, quadratic_task(population), 4, unseen=np.array([1]))
    w = v = outcome.state["params"].item()
    for _ in range(steps):
        slope = A[1] * (share * v + (1 - share) * w - C[1])
        turned = min(max(share - rate * slope * (v - w), 0), 1)
        v, share = v - rate * share * slope, turned if adaptive else share
    np.testing.assert_allclose(personal(outcome, 1), [share * v + (1 - share) * w], atol=1e-12)


def test_only_clients_without_a_model_adapt() -> None:
    population = linear_clients()
    task = linear_task(population)
    method = APFL()
    state, data = method.init(task, 4, Streams(0)), population.client(0)
    memory = {"personal": state["params"] + 1, "share": torch.tensor([0.25], dtype=torch.float64)}
    assert method.adapt(state, memory, data, None, Streams(0), task) is None
    assert method.adapt(state, {}, data, None, Streams(0), task) is not None
    blend = method.predictor(state, memory, None, task).params[0]
    torch.testing.assert_close(blend, state["params"] + 0.25, rtol=0, atol=1e-14)
    assert torch.equal(method.predictor(state, {}, None, task).params[0], state["params"])


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def normed() -> tuple[Clients, Task]:
    schema = Schema(input_shape=(2,), target="class", num_classes=2)
    records = []
    for client in range(3):
        x = Streams(1).numpy("x", client).normal(client, 1 + client, size=(8, 2)).astype(np.float32)
        records.append((x, (x[:, 0] > client).astype(np.int64)))
    return Clients(tuple(records), schema), Task(lambda s: Normed(), CROSS_ENTROPY, ACCURACY, schema)


def test_running_statistics_are_those_of_the_model_they_belong_to() -> None:
    """One step at a known start: w's are FedAvg's, v's those of v̄, each a tenth of the way to its batch's."""
    population, task = normed()
    size, shared = task.layout.trainable, task.initial(3)
    own = shared + 0.5 * torch.randn(task.dimension, generator=torch.Generator().manual_seed(0)).abs()
    method = APFL(share=0.25, work=Phase(batch_size=None))
    outcome = played(method, population, task, 3)
    plain = played(FedAvg(work=method.work), population, task, 3).state["params"]
    torch.testing.assert_close(outcome.state["params"], plain, rtol=1e-4, atol=1e-5)
    blend = 0.25 * own + 0.75 * shared
    x, y = task.tensors(population.client(1).train)
    bound = task.bind()

    def gradient(points: Tensor) -> Tensor:
        with torch.enable_grad():
            for row in points:
                bound.load(row)
                bound.losses(x, y)
                row[size:] = bound.vector.detach()[size:]
        return torch.zeros_like(points)

    local = method.start({"params": shared}, {"personal": own}, population.client(1), None, Streams(0), task)
    with torch.no_grad():
        moved, _ = method.step(local.extra, local.params, gradient, 0.1)
    for row, vector in zip(moved, (shared, blend), strict=True):
        bound.load(vector)
        with torch.no_grad():
            bound.losses(x, y)
        torch.testing.assert_close(row[size:], bound.vector[size:], rtol=0, atol=1e-6)
    assert torch.equal(moved[1, :size], own[:size])
    for client in range(3):
        variance = task.layout.unflatten(personal(outcome, client))["1.running_var"]
        assert bool((variance > 0).all())


def test_nothing_but_the_shared_model_travels() -> None:
    population = linear_clients()
    book = Notebook(keep_messages=True)
    run(Trial(name="m", algorithm=APFL(), population=population, task=linear_task(population), rounds=2), book)
    names = {frozenset(message.payload) for message in book.messages}
    assert names == {frozenset({"params"}), frozenset({"params", "params.weight"})}
    assert all(message.payload["params"].size == 3 for message in book.messages)


@pytest.mark.parametrize("adaptive", [False, True])
def test_conformance(adaptive: bool) -> None:
    check_algorithm(APFL(learning_rate=0.05, adaptive=adaptive, work=WORK, tuning=WORK)).require()


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"share": -0.1}, {"share": 1.1}, {"share": float("nan")}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a number"):
        APFL(**settings)

"""Server optimisers against scalar recurrences written out, and against FedAvg (federated-systems §6.1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.federated import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Notebook, Phase, Trial, run
from rivage.federated.algorithm import Mean, State
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

POPULATION = linear_clients((3,), features=2)
TASK = linear_task(POPULATION)
WORK = Phase(epochs=2, batch_size=3)
ADAPTIVE = (FedAdagrad, FedAdam, FedYogi)
moves = st.lists(st.floats(-10, 10), min_size=1, max_size=6)


def final(algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any) -> State:
    trial = Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=99, **options)
    return run(trial).state


def follow(algorithm: Any, deltas: list[float]) -> State:
    """The state after rounds in which the clients' mean lay ``delta`` from the model, in the first coordinate."""
    state = {**algorithm.init(TASK, 1, Streams(0)), "params": torch.zeros(2, dtype=torch.float64)}
    for delta in deltas:
        mean = state["params"] + torch.tensor([delta, 0.0], dtype=torch.float64)
        state = algorithm.aggregate(state, {"params": Mean(mean, 1.0)}, TASK)
    return state


def second_moment(kind: type, decay: float, v: float, square: float) -> float:
    if kind is FedAdagrad:
        return v + square
    if kind is FedAdam:
        return decay * v + (1 - decay) * square
    return v - (1 - decay) * square * ((v > square) - (v < square))


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("start", [None, 0.0, 4.0])
@given(deltas=moves)
def test_adaptive_rules_follow_their_recurrences(kind: Any, start: float | None, deltas: list[float]) -> None:
    eta, b1, b2, tau = 0.3, 0.7, 0.8, 0.05
    settings = {} if kind is FedAdagrad else {"variance_decay": b2}
    algorithm = kind(server_rate=eta, momentum=b1, adaptivity=tau, initial_variance=start, **settings)
    w, m, v = 0.0, 0.0, tau**2 if start is None else start
    for delta in deltas:
        delta = (w + delta) - w  # as rounded on the way through the mean
        m = b1 * m + (1 - b1) * delta
        v = second_moment(kind, b2, v, delta**2)
        w += eta * m / (math.sqrt(v) + tau)
    state = follow(algorithm, deltas)
    found = [state["params"][0].item(), state["momentum"][0].item(), state["variance"][0].item()]
    np.testing.assert_allclose(found, [w, m, v], rtol=1e-9, atol=1e-12)
    assert state["params"][1] == 0, "a coordinate that no client moves rests"


@given(deltas=moves)
def test_momentum_follows_its_recurrence(deltas: list[float]) -> None:
    w, v = 0.0, 0.0
    for delta in deltas:
        v = 0.6 * v + delta
        w += 1.7 * v
    state = follow(FedAvgM(server_rate=1.7, momentum=0.6), deltas)
    np.testing.assert_allclose([state["params"][0], state["momentum"][0]], [w, v], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cohort", [None, 2])
def test_fedavgm_without_momentum_is_fedavg_bit_for_bit(dtype: torch.dtype, cohort: int | None) -> None:
    population = linear_clients()
    task = linear_task(population, dtype)
    plain = final(FedAvg(work=WORK), population, task, 8, cohort=cohort)["params"]
    still = FedAvgM(momentum=0.0, server_rate=1.0, work=WORK)
    assert torch.equal(final(still, population, task, 8, cohort=cohort)["params"], plain)
    assert not torch.equal(final(FedAvgM(work=WORK), population, task, 8, cohort=cohort)["params"], plain)


@given(
    st.tuples(*[st.floats(-(2.0**100), 2.0**100, width=32)] * 2),
    st.tuples(*[st.floats(-(2.0**100), 2.0**100, width=32)] * 2),
)
def test_the_mean_itself_comes_out_of_any_two_numbers(before: tuple[float, ...], mean: tuple[float, ...]) -> None:
    """w + (mean − w) would round for most of them."""
    algorithm = FedAvgM(momentum=0.0, server_rate=1.0)
    state = {"params": torch.tensor(before), "momentum": torch.zeros(2)}
    after = algorithm.aggregate(state, {"params": Mean(torch.tensor(mean), 1.0)}, TASK)
    assert torch.equal(after["params"], torch.tensor(mean))


@given(delta=st.floats(-10, 10))
def test_yogis_first_step_is_adams_from_no_variance(delta: float) -> None:
    adam, yogi = (follow(kind(initial_variance=0.0), [delta]) for kind in (FedAdam, FedYogi))
    assert torch.equal(adam["params"], yogi["params"])
    assert torch.equal(adam["variance"], yogi["variance"])


@pytest.mark.parametrize("delta", [1e-3, -40.0, 1e6])
def test_adams_first_step_does_not_depend_on_scale(delta: float) -> None:
    """From v = 0 and without τ's share it is η (1 − β₁) / √(1 − β₂) in the direction of Δ: no bias correction."""
    state = follow(FedAdam(server_rate=0.5, adaptivity=1e-12, initial_variance=0.0), [delta])
    expected = math.copysign(0.5 * (1 - 0.9) / math.sqrt(1 - 0.99), delta)
    np.testing.assert_allclose(state["params"][0], expected, rtol=1e-6)


@given(deltas=moves)
def test_second_moments_stay_in_their_bounds(deltas: list[float]) -> None:
    largest = max(max(delta**2 for delta in deltas), 1e-6)
    adagrad, adam, yogi = (follow(kind(), deltas)["variance"][0].item() for kind in ADAPTIVE)
    assert adagrad >= 1e-6
    assert 0 <= adam <= largest * (1 + 1e-6)
    assert 0 <= yogi <= 2 * largest


def test_one_local_step_with_momentum_is_the_heavy_ball() -> None:
    a, c, rate = np.array([0.5, 2.0]), np.array([-1.0, 3.0]), 0.1
    population = quadratic_clients(a, c)
    task = quadratic_task(population)
    w = task.initial(Streams(0).seed("model")).item()
    v = 0.0
    for _ in range(30):
        v = 0.8 * v - rate * (a * (w - c)).mean()
        w += 0.5 * v
    method = FedAvgM(learning_rate=rate, server_rate=0.5, momentum=0.8, work=Phase(updates=1, batch_size=None))
    np.testing.assert_allclose(final(method, population, task, 30)["params"], [w], atol=1e-12)


@pytest.mark.parametrize("kind", [FedAvgM, *ADAPTIVE])
def test_they_find_the_minimiser_that_clients_share(kind: Any) -> None:
    population = quadratic_clients((0.5, 1.0, 2.0), (1.5, 1.5, 1.5))
    method = kind(server_rate=0.1, momentum=0.5, work=Phase(epochs=3, batch_size=None))
    limit = final(method, population, quadratic_task(population), 300)["params"].item()
    assert abs(limit - 1.5) < 0.02


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


@pytest.mark.parametrize("kind", [FedAvgM, *ADAPTIVE])
def test_running_statistics_are_averaged_and_never_stepped(kind: Any) -> None:
    population, task = normed()
    size, work = task.layout.trainable, Phase(batch_size=4)
    assert size < task.dimension
    method = kind(server_rate=2.0, work=work)
    assert all(value.shape == (size,) for name, value in method.init(task, 3, Streams(0)).items() if name != "params")
    stepped, plain = final(method, population, task, 1), final(FedAvg(work=work), population, task, 1)
    assert torch.equal(stepped["params"][size:], plain["params"][size:])
    assert not torch.equal(stepped["params"][:size], plain["params"][:size])
    variance = task.layout.unflatten(final(method, population, task, 10)["params"])["1.running_var"]
    assert bool((variance > 0).all())


@pytest.mark.parametrize("kind", [FedAvgM, *ADAPTIVE])
def test_a_round_of_weight_zero_changes_nothing(kind: Any) -> None:
    state = kind().init(TASK, 1, Streams(0))
    after = kind().aggregate(state, {"params": Mean(torch.ones(2, dtype=torch.float64), 0.0)}, TASK)
    assert all(torch.equal(after[name], value) for name, value in state.items())


@pytest.mark.parametrize("kind", [FedAvgM, *ADAPTIVE])
def test_as_many_bytes_travel_as_in_fedavg(kind: Any) -> None:
    population = linear_clients()
    books = []
    for method in (FedAvg(work=WORK), kind(work=WORK)):
        book = Notebook()
        run(Trial(name="m", algorithm=method, population=population, task=linear_task(population), rounds=2), book)
        books.append([(e["bytes_down"], e["bytes_up"]) for e in book.events if e["event"] == "round"])
    assert books[0] == books[1]


@pytest.mark.parametrize("method", [FedAvgM(server_rate=0.5), *(kind(initial_variance=0.0) for kind in ADAPTIVE)])
def test_conformance(method: Any) -> None:
    check_algorithm(method).require()


@pytest.mark.parametrize(
    "make",
    [
        lambda: FedAvgM(momentum=1.0),
        lambda: FedAvgM(momentum=float("nan")),
        lambda: FedAvgM(server_rate=0.0),
        lambda: FedAdam(momentum=-0.1),
        lambda: FedAdam(variance_decay=1.0),
        lambda: FedYogi(variance_decay=-0.5),
        lambda: FedAdagrad(adaptivity=0.0),
        lambda: FedYogi(initial_variance=-1.0),
    ],
)
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a number"):
        make()

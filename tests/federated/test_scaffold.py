"""SCAFFOLD by hand, at its fixed points, and through what must stay true of its controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.federated import FedAvg, Notebook, Phase, Scaffold, Trial, run
from rivage.federated.algorithm import Mean, State
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

WORK = Phase(epochs=2, batch_size=3)


def played(
    algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any
) -> tuple[State, dict[int, State]]:
    """The server's state and the clients' memories."""
    trial = Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    book = Notebook()
    state = run(trial, book).state
    kept = enumerate(book.memories.get(range(population.size)))
    return state, {client: memory.values for client, memory in kept if memory.values}


def test_two_rounds_of_two_clients_by_hand() -> None:
    """F_1 = ½ w², F_2 = (w − 3)², x = 1, two steps of 0.1; all shifted to where the model starts.

    Round 0, no controls: client 1 goes 1, 0.9, 0.81 along gradients 1, 0.9; client 2 goes 1, 1.4, 1.72 along −4, −3.2.
    Round 1 from 1.265 with c = −1.325: client 1 drifts by −2.275 through 1.366 to 1.4569 and meets the gradients
    1.265, 1.366; client 2 drifts by 2.275 through 1.3845 to 1.4801 and meets −3.47, −3.231.
    """
    start = quadratic_task(quadratic_clients((1.0,), (0.0,))).initial(Streams(0).seed("model")).item()
    shift = start - 1
    population = quadratic_clients((1.0, 2.0), (shift, 3 + shift))
    method = Scaffold(learning_rate=0.1, work=Phase(updates=2, batch_size=None))
    expected = {1: (1.265, -1.325, 0.95, -3.6), 2: (1.4685, -1.0175, 1.3155, -3.3505)}
    for rounds, numbers in expected.items():
        state, memories = played(method, population, quadratic_task(population), rounds)
        found = [state["params"] - shift, state["control"], memories[0]["control"], memories[1]["control"]]
        np.testing.assert_allclose(torch.cat(found), numbers, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_round_is_fedavg_bit_for_bit(dtype: torch.dtype) -> None:
    population = linear_clients()
    task = linear_task(population, dtype)
    plain = played(FedAvg(work=WORK), population, task, 1)[0]
    assert torch.equal(played(Scaffold(work=WORK), population, task, 1)[0]["params"], plain["params"])


@pytest.mark.parametrize("rounds", [1, 6])
def test_one_client_alone_has_nothing_to_correct(rounds: int) -> None:
    population = linear_clients((9,))
    task = linear_task(population)
    plain = played(FedAvg(work=WORK), population, task, rounds)[0]["params"]
    torch.testing.assert_close(
        played(Scaffold(work=WORK), population, task, rounds)[0]["params"], plain, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("local_steps", "rounds"), [(1, 300), (5, 120), (20, 60)])
def test_the_limit_on_quadratics_is_the_minimiser(local_steps: int, rounds: int) -> None:
    """FedAvg ends elsewhere as soon as there is more than one local step."""
    a, c = np.array([0.5, 1.0, 4.0]), np.array([3.0, -1.0, 2.0])
    population = quadratic_clients(a, c)
    work, task = Phase(updates=local_steps, batch_size=None), quadratic_task(population)
    state, memories = played(Scaffold(learning_rate=0.05, work=work), population, task, rounds)
    minimiser = (a * c).sum() / a.sum()
    np.testing.assert_allclose(state["params"], [minimiser], atol=1e-8)
    np.testing.assert_allclose(state["control"], [0.0], atol=1e-8)
    controls = [memories[client]["control"].item() for client in range(3)]
    np.testing.assert_allclose(controls, a * (minimiser - c), atol=1e-8)
    averaged = played(FedAvg(learning_rate=0.05, work=work), population, task, rounds)[0]["params"].item()
    assert bool(abs(averaged - minimiser) < 1e-8) is (local_steps == 1)


def test_clients_count_alike_at_the_limit() -> None:
    """Whatever the weights of the models: c = 0 says that the plain sum of the gradients is 0."""
    population = linear_clients((6, 24, 12))
    method = Scaffold(learning_rate=0.1, work=Phase(updates=4, batch_size=None))
    limit = played(method, population, linear_task(population), 400)[0]["params"].numpy()
    normal = sum(x.T @ x / len(x) for x, _ in population.records)
    moment = sum(x.T @ y[:, 0] / len(x) for x, y in population.records)
    np.testing.assert_allclose(limit, np.linalg.solve(normal, moment), atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_the_control_is_the_mean_over_all_clients(seed: int) -> None:
    """Also where cohorts are partial, some never take part and some answers are lost."""
    base = linear_clients((4, 7, 2, 12, 5, 9))
    population = replace(base, absent=frozenset({(0, 0), (3, 1), (1, 2), (2, 2)}))
    method = Scaffold(learning_rate=0.05, server_rate=0.7, work=WORK)
    for rounds in range(1, 6):
        state, memories = played(
            method, population, linear_task(population), rounds, cohort=2, seed=seed, unseen=np.array([5])
        )
        assert 5 not in memories
        total = sum((memory["control"] for memory in memories.values()), torch.zeros(3, dtype=torch.float64))
        torch.testing.assert_close(state["control"], total / 5, rtol=0, atol=1e-12)


def test_the_servers_step_scales_the_mean_move() -> None:
    population = linear_clients()
    task = linear_task(population)
    start = task.initial(Streams(0).seed("model"))
    whole, half = (played(Scaffold(server_rate=r, work=WORK), population, task, 1)[0] for r in (1.0, 0.5))
    torch.testing.assert_close(half["params"], (start + whole["params"]) / 2, rtol=0, atol=1e-12)
    assert torch.equal(half["control"], whole["control"])


def test_the_servers_step_by_hand() -> None:
    task = linear_task(linear_clients())
    x, mean, none = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 2.0, 3.0], [2.0, 0.0, 3.0], [0.0, 0.0, 0.0]))
    state = {**Scaffold().init(task, 4, Streams(0)), "params": x}
    received = {"params": Mean(mean, 5.0), "control_change": Mean(none, 2.0)}
    after = Scaffold(server_rate=1.5).aggregate(state, received, task)
    assert after["params"].tolist() == [2.5, -1.0, 3.0]


@pytest.mark.parametrize("work", [Phase(updates=0), Phase(epochs=0)])
def test_without_a_local_step_nothing_changes(work: Phase) -> None:
    population = linear_clients()
    task = linear_task(population)
    state, memories = played(Scaffold(work=work), population, task, 2)
    assert torch.equal(state["params"], task.initial(Streams(0).seed("model")))
    assert not state["control"].any()
    assert not any(memory["control"].any() for memory in memories.values())


def test_empty_batches_are_steps_with_a_correction() -> None:
    """The mean over all steps of (g − c_k + c) is the move: empty Poisson batches count as gradients of 0."""
    population = linear_clients((30, 20))
    method = Scaffold(learning_rate=0.02, work=Phase(updates=6, batch_size=1, batches="poisson"))
    state, memories = played(method, population, linear_task(population), 40)
    mean = (memories[0]["control"] + memories[1]["control"]) / 2
    torch.testing.assert_close(state["control"], mean, rtol=0, atol=1e-12)
    assert bool(torch.isfinite(state["params"]).all())


def test_models_of_weight_zero_stay_and_their_controls_count() -> None:
    population = linear_clients()
    task = linear_task(population)
    method = Scaffold()
    state = method.init(task, 4, Streams(0))
    ones = torch.ones(3, dtype=torch.float64)
    after = method.aggregate(state, {"params": Mean(ones, 0.0), "control_change": Mean(ones, 2.0)}, task)
    assert torch.equal(after["params"], state["params"])
    assert torch.equal(after["control"], 0.5 * ones)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.body(x)))
        return out


def normed() -> tuple[Clients, Task]:
    schema = Schema(input_shape=(2,), target="class", num_classes=2)
    records = []
    for client in range(3):
        x = Streams(1).numpy("x", client).normal(client, 1 + client, size=(8, 2)).astype(np.float32)
        records.append((x, (x[:, 0] > client).astype(np.int64)))
    return Clients(tuple(records), schema), Task(lambda s: Normed(), CROSS_ENTROPY, ACCURACY, schema)


def test_running_statistics_have_no_control() -> None:
    population, task = normed()
    size, method = task.layout.trainable, Scaffold(server_rate=0.5, work=Phase(batch_size=4))
    state, memories = played(method, population, task, 3)
    assert state["control"].shape == (size,)
    assert state["control"].any()
    local = method.start(method.broadcast(state, 0, task), memories[0], population.client(0), None, Streams(0), task)
    assert local.drift is not None
    assert local.drift.shape == (1, task.dimension)
    assert local.drift[0, :size].any()
    assert not local.drift[0, size:].any()
    once, plain = (played(m, population, task, 1)[0]["params"] for m in (method, FedAvg(work=method.work)))
    assert torch.equal(once[size:], plain[size:]), "averaged as in FedAvg, whatever the server's step"


def test_parts_that_do_not_train_keep_no_control() -> None:
    population, task = normed()
    state, memories = played(Scaffold(work=Phase(batch_size=4, train=("head",))), population, task, 4)
    start = task.initial(Streams(0).seed("model"))
    for entry in task.layout.entries:
        if entry.offset >= task.layout.trainable:
            continue
        trains = entry.name.startswith("head")
        assert bool(state["control"][entry.span].any()) is trains
        assert all(bool(memory["control"][entry.span].any()) is trains for memory in memories.values())
        assert torch.equal(state["params"][entry.span], start[entry.span]) is not trains


def test_model_and_control_travel_and_nothing_else() -> None:
    population = linear_clients()
    book = Notebook(keep_messages=True)
    run(Trial(name="m", algorithm=Scaffold(), population=population, task=linear_task(population), rounds=1), book)
    down, up = (next(m.payload for m in book.messages if m.kind == kind) for kind in ("broadcast", "update"))
    assert set(down) == {"params", "control"}
    assert set(up) == {"params", "params.weight", "control_change", "control_change.weight"}


def test_conformance() -> None:
    check_algorithm(Scaffold(learning_rate=0.05, server_rate=0.8, work=WORK)).require()


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"server_rate": 0.0}, {"server_rate": float("nan")}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"rate is .*Give a (finite )?number"):
        Scaffold(**settings)

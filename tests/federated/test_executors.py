"""Both executors against updates written out by hand, and against themselves on other paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated.algorithm import Local, LocalWork, Phase, Pull
from rivage.federated.batches import Position, batches
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.functional import Functional
from rivage.federated.executors.jobs import Job
from rivage.federated.fedavg import FedAvg
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.toys import linear_clients, linear_task

POPULATION = linear_clients((9,))
TASK = linear_task(POPULATION)
X, Y = (torch.from_numpy(part) for part in POPULATION.records[0])
WHOLE = Phase(updates=3, batch_size=None)


KIND = [Execution()]


@pytest.fixture(autouse=True, params=["functional", "auto"])
def executor(request: pytest.FixtureRequest) -> None:
    """Every test runs one client at a time and, where the model is a chain, in tiles."""
    KIND[0] = Execution(executor=request.param)


def samples() -> Samples:
    return POPULATION.client(0).train


def trained(local: Local, work: LocalWork, algorithm: Any = None, task: Task = TASK, data: Any = None) -> Local:
    data = samples() if data is None else data
    job = Job(0, local, data)
    Executor(task, KIND[0]).train(algorithm or FedAvg(), work, [job], Streams(0), 0)
    return job.local


def start(groups: int = 1) -> Tensor:
    return torch.stack([TASK.initial(seed) for seed in range(groups)])


def gradient(w: Tensor, weights: Tensor | None = None) -> Tensor:
    residual = (X @ w - Y[:, 0]) * (1 if weights is None else weights)
    return X.T @ residual / len(X)


def test_pull_and_drift_see_the_parameters_before_the_step() -> None:
    anchor, drift = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.1, 0.2, -0.3]).double()
    w = start()[0].clone()
    for _ in range(3):
        w = w - 0.1 * (gradient(w) + 0.7 * (w - anchor) + drift)
    local = Local(start(), pull=Pull(0.7, anchor), drift=drift[None])
    result = trained(local, LocalWork((WHOLE,), 0.1))
    torch.testing.assert_close(result.params[0], w, rtol=0, atol=1e-12)
    assert (result.steps, result.records, result.rate) == (3, 9, 0.1)


def test_record_weights_are_divided_by_rows_not_by_their_sum() -> None:
    weights = torch.rand(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = start(2).clone()
    for group in range(2):
        for _ in range(3):
            expected[group] -= 0.1 * gradient(expected[group], weights[:, group])
    result = trained(Local(start(2), weights=weights), LocalWork((WHOLE,), 0.1))
    torch.testing.assert_close(result.params, expected, rtol=0, atol=1e-12)


def test_weights_follow_their_records_through_the_shuffle() -> None:
    """Weight 1 on one record and 0 elsewhere trains on that record alone, whatever the batches."""
    weights = torch.zeros(9, 1).double()
    weights[4] = 9.0
    result = trained(Local(start(), weights=weights), LocalWork((Phase(epochs=5, batch_size=2),), 0.02))
    moved = (result.params - start())[0]
    cosine = torch.nn.functional.cosine_similarity(moved, X[4], dim=0)
    assert abs(abs(float(cosine)) - 1) < 1e-9


def test_groups_are_independent_jobs() -> None:
    work = LocalWork((Phase(epochs=2, batch_size=4),), 0.05)
    both = trained(Local(start(2)), work).params
    for group in range(2):
        assert torch.equal(trained(Local(start(2)[group : group + 1]), work).params[0], both[group])


def test_phases_train_only_the_parameters_they_name() -> None:
    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(lambda s: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), CROSS_ENTROPY, ACCURACY, schema)
    data = Samples(np.ones((5, 3), np.float32), np.array([0, 1, 0, 1, 1]), np.arange(5))
    head = LocalWork((Phase(train=("1.",)),), 0.1)
    before = task.initial(0)
    local = Local(before[None], pull=Pull(1.0, torch.zeros(task.dimension)), drift=torch.ones(1, task.dimension))
    after = trained(local, head, task=task, data=data).params[0]
    body = sum(e.size for e in task.layout.entries if e.name.startswith("0."))
    assert torch.equal(after[:body], before[:body])
    assert (after[body:] != before[body:]).all()
    with pytest.raises(ConfigError, match=r"no parameter name starts with head.*1\.weight"):
        trained(Local(before[None]), LocalWork((Phase(train=("head",)),), 0.1), task=task, data=data)


def test_a_part_is_named_by_whole_words() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.body2 = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) + self.body2(x)

    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(lambda s: Twins(), CROSS_ENTROPY, ACCURACY, schema)
    data = Samples(np.ones((5, 3), np.float32), np.array([0, 1, 0, 1, 1]), np.arange(5))
    before = task.initial(0)
    after = trained(Local(before[None]), LocalWork((Phase(train=("body",)),), 0.1), task=task, data=data).params[0]
    moved = {e.name for e in task.layout.entries if not torch.equal(after[e.span], before[e.span])}
    assert moved == {"body.weight", "body.bias"}


@dataclass(frozen=True, kw_only=True)
class Corrected(FedAvg):
    """Halves every gradient."""

    scale: float = 0.5

    def correct(self, extra: Any, params: Tensor, gradients: Tensor) -> Tensor:
        return self.scale * gradients


@dataclass(frozen=True, kw_only=True)
class Stepped(FedAvg):
    """SGD as a step of its own, counting steps."""

    def step(self, extra: Any, params: Tensor, gradient: Any, rate: float) -> Any:
        return params - rate * gradient(params), {"count": extra["count"] + 1}


def test_a_corrected_gradient_of_half_is_half_the_rate() -> None:
    work = LocalWork((Phase(epochs=2, batch_size=4),), 0.1)
    plain = trained(Local(start()), LocalWork(work.phases, 0.05)).params
    torch.testing.assert_close(trained(Local(start()), work, Corrected()).params, plain, rtol=0, atol=1e-12)


def test_a_step_that_is_sgd_is_the_built_in_path() -> None:
    work = LocalWork((Phase(epochs=2, batch_size=4),), 0.1)
    result = trained(Local(start(2), extra={"count": torch.zeros(1)}), work, Stepped())
    torch.testing.assert_close(result.params, trained(Local(start(2)), work).params, rtol=0, atol=1e-12)
    assert result.extra["count"].item() == result.steps == 6


def test_poisson_batches_divide_by_what_is_expected() -> None:
    """With rate 1 every batch is everything: rows and expected agree; with an empty batch nothing moves."""
    whole = Phase(updates=3, batch_size=9, batches="poisson", denominator="expected")
    plain = trained(Local(start()), LocalWork((WHOLE,), 0.1)).params
    torch.testing.assert_close(trained(Local(start()), LocalWork((whole,), 0.1)).params, plain, rtol=0, atol=1e-12)


def test_batch_norm_buffers_travel_and_are_never_pulled() -> None:
    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(lambda s: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), CROSS_ENTROPY, ACCURACY, schema)
    x = np.random.default_rng(0).normal(5, 2, (6, 3)).astype(np.float32)
    data = Samples(x, np.array([0, 1, 0, 1, 1, 0]), np.arange(6))
    whole = LocalWork((Phase(updates=1, batch_size=None),), 0.1)
    local = Local(task.initial(0)[None], pull=Pull(1.0, torch.full((task.dimension,), 7.0)))
    buffers = task.layout.unflatten(trained(local, whole, task=task, data=data).params[0])
    np.testing.assert_allclose(buffers["0.running_mean"].numpy(), 0.1 * x.mean(axis=0), rtol=1e-5)


def test_dropout_depends_on_client_and_round_only() -> None:
    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(lambda s: nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)), CROSS_ENTROPY, ACCURACY, schema)
    data = Samples(np.ones((8, 3), np.float32), np.arange(8) % 2, np.arange(8))
    work = LocalWork((Phase(batch_size=4),), 0.1)

    def of(client: int, before: int, round: int = 0) -> Tensor:
        others = [Job(9, Local(task.initial(1)[None]), data)] * before
        job = Job(client, Local(task.initial(0)[None]), data)
        Executor(task, KIND[0]).train(FedAvg(), work, [*others, job], Streams(0), round)
        return job.local.params

    state = torch.get_rng_state()
    assert torch.equal(of(3, 0), of(3, 2))
    assert not torch.equal(of(3, 0), of(3, 0, round=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_of_every_record_under_every_group() -> None:
    (losses,) = Executor(TASK, KIND[0]).losses([(start(2), samples())])
    for group, w in enumerate(start(2)):
        torch.testing.assert_close(losses[:, group], 0.5 * (X @ w - Y[:, 0]).square(), rtol=0, atol=1e-12)


def test_each_group_may_be_pulled_by_a_strength_of_its_own() -> None:
    work, anchor = LocalWork((WHOLE,), 0.1), torch.tensor([1.0, -2.0, 0.5]).double()
    result = trained(Local(start(2), pull=Pull(torch.tensor([[0.0], [0.7]], dtype=torch.float64), anchor)), work)
    assert torch.equal(result.params[0], trained(Local(start(2)), work).params[0])
    assert torch.equal(result.params[1], trained(Local(start(2), pull=Pull(0.7, anchor)), work).params[1])


def test_many_records_pass_in_pieces() -> None:
    population = linear_clients((2500,))
    engine = Functional(TASK)
    x, y = TASK.tensors(population.client(0).train)
    engine.bound.load(start()[0])
    expected = engine.bound.losses(x, y).detach()
    sizes: list[int] = []
    engine.bound.module.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    alone = Executor(TASK, Execution(executor="functional", workers=1))
    alone._spare.put(engine)
    (found,) = alone.losses([(start(), population.client(0).train)])
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-12)
    assert len(engine.predictions(start()[0], x)) == 2500
    assert sizes == 2 * [1024, 1024, 452]
    with Executor(TASK, Execution(executor="functional", workers=3)) as several:
        assert torch.equal(several.losses([(start(), population.client(0).train)])[0], found)


def test_gradients_are_counted_by_record_and_group() -> None:
    assert trained(Local(start(2)), LocalWork((Phase(epochs=3, batch_size=4),), 0.1)).gradients == 2 * 3 * 9


def test_the_expected_size_divides_smaller_batches_too() -> None:
    """Nine records in batches of six: the last one has three, and counts half."""
    one = Phase(batch_size=6, denominator="expected")
    rows, _ = batches(one, Streams(0).seed("batches", 0), [0], [9], 0, [Position()])[0]
    w = start()[0].clone()
    for batch in rows.split():
        x, y = X[batch], Y[batch, 0]
        w = w - 0.1 * x.T @ (x @ w - y) / 6
    result = trained(Local(start()), LocalWork((one,), 0.1)).params[0]
    torch.testing.assert_close(result, w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("denominator", ["rows", "expected"])
def test_an_empty_poisson_batch_counts_as_a_step_and_still_pulls(denominator: Any) -> None:
    data = samples().take(np.arange(2))
    phase = Phase(updates=40, batch_size=1, batches="poisson", denominator=denominator)
    rows, _ = batches(phase, Streams(0).seed("batches", 0), [0], [2], 0, [Position()])[0]
    w, anchor = start()[0].clone(), torch.ones(3, dtype=torch.float64)
    for batch in rows.split():
        x, y = X[:2][batch], Y[:2][batch, 0]
        divisor = max(len(batch), 1) if denominator == "rows" else 1
        w = w - 0.01 * (x.T @ (x @ w - y) / divisor + (w - anchor))
    assert {0, 1, 2} <= set(rows.sizes.tolist())
    local = trained(Local(start(), pull=Pull(1.0, anchor)), LocalWork((phase,), 0.01), data=data)
    assert local.steps == 40
    torch.testing.assert_close(local.params[0], w, rtol=0, atol=1e-12)


def test_pull_and_drift_act_in_the_joint_path_too() -> None:
    work = LocalWork((WHOLE,), 0.1)

    def job() -> Local:
        return Local(start(2), pull=Pull(0.7, start(2) + 1), drift=start(2) * 0.1)

    expected = trained(job(), work).params
    torch.testing.assert_close(trained(job(), work, Corrected(scale=1.0)).params, expected, rtol=0, atol=1e-12)


def test_buffers_move_in_the_joint_path_as_in_the_plain_one() -> None:
    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(lambda s: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), CROSS_ENTROPY, ACCURACY, schema)
    x = np.random.default_rng(0).normal(5, 2, (6, 3)).astype(np.float32)
    data = Samples(x, np.array([0, 1, 0, 1, 1, 0]), np.arange(6))
    work = LocalWork((Phase(updates=3, batch_size=3),), 0.1)
    plain = trained(Local(task.initial(0)[None]), work, task=task, data=data).params
    for algorithm in (Stepped(), Corrected(scale=1.0)):
        local = Local(task.initial(0)[None], extra={"count": torch.zeros(1)})
        joint = trained(local, work, algorithm, task=task, data=data).params
        torch.testing.assert_close(joint, plain, rtol=0, atol=1e-6)


def test_losses_are_those_of_evaluation() -> None:
    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(lambda s: nn.Sequential(nn.Dropout(0.9), nn.Linear(3, 2)), CROSS_ENTROPY, ACCURACY, schema)
    data = Samples(np.ones((8, 3), np.float32), np.zeros(8, np.int64), np.arange(8))
    (losses,) = Executor(task, KIND[0]).losses([(task.initial(0)[None], data)])
    assert torch.equal(losses, losses[:1].expand(8, 1))

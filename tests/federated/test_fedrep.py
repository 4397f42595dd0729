"""FedRep: only the body travels, heads stay; on a bilinear model the rounds are written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.messages import encoded_size
from rivage.core.seeding import Streams
from rivage.data import Digits, Dirichlet, build_population
from rivage.federated import FedAvg, FedRep, Local, Notebook, Outcome, Phase, Trial, run
from rivage.federated.executors.jobs import named
from rivage.learning.losses import SQUARED
from rivage.learning.metrics import MAE
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, layered_task, linear_clients, linear_task

WORK = Phase(epochs=2, batch_size=3)
WHOLE = Phase(epochs=2, batch_size=None)
BODY, HEAD = slice(0, 8), slice(8, 11)  # of the toy: 3·2 + 2 numbers, then 2 + 1


def played(algorithm: Any, population: Any, task: Task, rounds: int, **options: Any) -> Outcome:
    return run(
        Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    )


def personal(outcome: Outcome, client: int) -> Tensor:
    evaluation = outcome.unseen if outcome.unseen and client in outcome.unseen.predictors else outcome.seen
    predictor = evaluation.predictors[client]
    assert predictor.mix.tolist() == [1.0]
    return predictor.params[0]


def descended(task: Task, data: tuple[np.ndarray, np.ndarray], params: Tensor, part: slice, steps: int) -> Tensor:
    """Full-batch gradient steps of size 0.1 on one part, by autograd."""
    bound = task.bind()
    x, y = (torch.from_numpy(array) for array in data)
    for _ in range(steps):
        bound.load(params)
        gradient = torch.autograd.grad(bound.losses(x, y).mean(), bound.parameters)
        flat = torch.cat([g.reshape(-1) for g in gradient])
        params = params.clone()
        params[part] -= 0.1 * flat[part]
    return params


def test_rounds_written_out() -> None:
    """Heads for three passes under the body as broadcast, then the body for two; the mean by records."""
    population = linear_clients((4, 7, 1))
    task = layered_task(population)
    start = task.initial(Streams(0).seed("model"))
    body, heads = start[BODY], [start[HEAD]] * 3
    for _ in range(3):
        trained = []
        for client, data in enumerate(population.records):
            params = descended(task, data, torch.cat([body, heads[client]]), HEAD, 3)
            assert torch.equal(params[BODY], body)
            params = descended(task, data, params, BODY, 2)
            heads[client] = params[HEAD]
            trained.append(params[BODY])
        body = sum(n * b for n, b in zip((4, 7, 1), trained, strict=True)) / 12
    outcome = played(FedRep(head_epochs=3, work=WHOLE), population, task, 3)
    torch.testing.assert_close(outcome.state["body"], body, rtol=0, atol=1e-12)
    assert torch.equal(outcome.state["head"], start[HEAD])
    for client in range(3):
        torch.testing.assert_close(personal(outcome, client), torch.cat([body, heads[client]]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("refresh", [False, True])
def test_newcomers_train_a_head_on_the_current_body(refresh: bool) -> None:
    population = linear_clients((4, 7, 5))
    task = layered_task(population)
    outcome = played(FedRep(head_epochs=4, work=WHOLE, refresh=refresh), population, task, 3, unseen=np.array([1]))
    start = torch.cat([outcome.state["body"], outcome.state["head"]])
    expected = descended(task, population.records[1], start, HEAD, 4)
    torch.testing.assert_close(personal(outcome, 1), expected, rtol=0, atol=1e-12)


def test_refreshing_goes_on_from_the_own_head() -> None:
    population = linear_clients((4, 7))
    task = layered_task(population)
    method = FedRep(head_epochs=4, work=WHOLE)
    plain = played(method, population, task, 3)
    fresh = played(replace(method, refresh=True), population, task, 3)
    assert torch.equal(fresh.state["body"], plain.state["body"]), "what is refreshed is not fed back"
    for client in range(2):
        expected = descended(task, population.records[client], personal(plain, client), HEAD, 4)
        torch.testing.assert_close(personal(fresh, client), expected, rtol=0, atol=1e-12)


def test_only_the_body_travels_to_the_byte() -> None:
    population = linear_clients()
    task = layered_task(population)
    book = Notebook(keep_messages=True)
    run(Trial(name="m", algorithm=FedRep(work=WORK), population=population, task=task, rounds=2), book)
    down = {"body": np.zeros(8)}
    up = {**down, "body.weight": np.zeros(1)}
    assert {frozenset(message.payload) for message in book.messages} == {frozenset(down), frozenset(up)}
    assert all(message.payload["body"].shape == (8,) for message in book.messages)
    for event in book.events:
        if event["event"] == "round":
            assert event["bytes_down"] == 4 * encoded_size(down)
            assert event["bytes_up"] == 4 * encoded_size(up)
    assert book.memories.get([0])[0].values["head"].shape == (3,)


def test_heads_differ_and_bodies_do_not() -> None:
    population = linear_clients()
    outcome = played(FedRep(work=WORK), population, layered_task(population), 4, cohort=2)
    models = torch.stack([personal(outcome, client) for client in range(4)])
    assert bool((models[:, BODY] == outcome.state["body"]).all())
    assert len({tuple(row.tolist()) for row in models[:, HEAD]}) == 4


class Branched(nn.Module):
    """The layer that is called last is not the one that is defined last; another one is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(2, 1), nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).tanh())


def branched(population: Clients) -> Task:
    return Task(lambda schema: Branched(), SQUARED, MAE, population.schema, dtype=torch.float64)


def test_the_head_is_the_layer_called_last_and_statistics_belong_to_the_body() -> None:
    population = linear_clients((5, 6, 9))
    task = branched(population)
    outcome = played(FedRep(work=WHOLE), population, task, 2)
    found = task.layout.unflatten(personal(outcome, 0))
    start = task.layout.unflatten(task.initial(Streams(0).seed("model")))
    assert outcome.state["head"].shape == (3,)
    assert outcome.state["body"].shape == (task.dimension - 3,)
    assert torch.equal(found["norm.weight"], start["norm.weight"])
    assert not torch.equal(found["norm.running_mean"], start["norm.running_mean"])
    own = played(FedRep(work=WHOLE, head=("last.bias", "norm")), population, task, 2)
    assert own.state["head"].shape == (1 + 2 + 2 + 2 + 2,), "a bias, and all that batch norm has"


def test_parts_by_role_are_parts_by_name() -> None:
    population = linear_clients((5, 6, 9))
    task = branched(population)
    assert named(Phase(train=("@head",)), task).train == ("last.weight", "last.bias")
    assert named(Phase(train=("@body",)), task).train == ("first.weight", "first.bias", "norm.bias")
    assert named(Phase(train=("@head", "norm")), task).train == ("last.weight", "last.bias", "norm")
    assert named(WORK, task) is WORK
    for role, names in (("@head", ("last",)), ("@body", ("first", "norm"))):
        one, other = (
            played(FedAvg(work=replace(WHOLE, train=train)), population, task, 2).state["params"]
            for train in ((role,), names)
        )
        assert torch.equal(one, other)
    linear = linear_task(population)
    with pytest.raises(ConfigError, match="no body to train"):
        played(FedAvg(work=replace(WHOLE, train=("@body",))), population, linear, 1)


def test_a_model_that_is_all_head_is_refused() -> None:
    population = linear_clients()
    with pytest.raises(ConfigError) as caught:
        played(FedRep(), population, linear_task(population), 1)
    assert str(caught.value) == (
        "task.model: the model has no body to train: its head is weight. "
        "Take a model with a layer before the head, or name the head among weight."
    )


def test_a_head_or_a_body_without_anything_to_train_is_refused() -> None:
    population = linear_clients()

    def frozen(layer: int) -> Task:
        def model(schema: Any) -> nn.Module:
            result = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
            result[layer].requires_grad_(False)
            return result

        return Task(model, SQUARED, MAE, population.schema, dtype=torch.float64)

    for layer, part in enumerate(("body", "head")):
        with pytest.raises(ConfigError, match=f"no {part} to train"):
            played(FedRep(), population, frozen(layer), 1)
    with pytest.raises(ConfigError, match='no parameter is called "classifier"'):
        played(FedRep(head=("classifier",)), population, layered_task(population), 1)
    with pytest.raises(ConfigError, match="FedRep trains head and body in turn"):
        FedRep(work=Phase(train=("0",)))


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"head_epochs": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a number"):
        FedRep(**settings)


@pytest.mark.parametrize(
    "method",
    [
        FedRep(learning_rate=0.05, work=WORK),
        FedRep(learning_rate=0.05, head=("2.weight",), work=replace(WORK, batches="poisson"), refresh=True),
        FedRep(learning_rate=0.05, work=Phase(updates=2, batch_size=3, batches="endless")),
    ],
)
def test_conformance(method: FedRep) -> None:
    battery = check_algorithm(method)
    battery.require()
    assert battery.ran == 11


def test_on_digits_it_beats_its_start_and_clients_alone() -> None:
    """Ten classes dealt unevenly to ten clients; one fixed run. Alone they train until nothing improves any more."""
    population = build_population(Digits(), partition=Dirichlet(clients=10, alpha=0.3), seed=0)
    task = make_task(TaskSettings(model="mlp", options={"hidden": [32]}), population.schema)
    method = FedRep(head_epochs=5, work=Phase(epochs=5, batch_size=16))
    means = [
        np.average(outcome.seen.columns["test"], weights=outcome.seen.columns["test_size"])
        for outcome in (
            played(method, population, task, 20),
            played(method, population, task, 0),
            played(Local(epochs=200, work=Phase(batch_size=16)), population, task, 0),
        )
    ]
    assert means[0] >= means[1] + 0.3
    assert means[0] >= means[2]

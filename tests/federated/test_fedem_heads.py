"""A shared body under mixed heads: its steps written out, its ends, and what travels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.federated import Execution, FedAvg, FedEM, FedEMHeads, Notebook, Outcome, Phase, Trial, run
from rivage.federated.algorithm import State
from rivage.federated.rounding import Float16
from rivage.federated.sparsifying import TopK
from rivage.learning.losses import CROSS_ENTROPY, SQUARED
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task

WORK = Phase(epochs=2, batch_size=4)


def population(sizes: tuple[int, ...] = (9, 5, 12)) -> Clients:
    generator = np.random.default_rng(0)
    records = tuple((generator.normal(size=(n, 6)), generator.integers(0, 3, n)) for n in sizes)
    return Clients(records, Schema(input_shape=(6,), target="class", num_classes=3))


def task_of(clients: Clients, model: Any = None, dtype: torch.dtype = torch.float64) -> Task:
    def dense(schema: Schema) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    return Task(model=model or dense, loss=CROSS_ENTROPY, metric=ACCURACY, schema=clients.schema, dtype=dtype)


def played(method: Any, clients: Clients, rounds: int, **options: Any) -> Outcome:
    task, book = options.pop("task", None) or task_of(clients), options.pop("book", None)
    return run(Trial(name="m", algorithm=method, population=clients, task=task, rounds=rounds, **options), book)


def shares_of(outcome: Outcome) -> dict[int, Tensor]:
    return {client: predictor.mix for client, predictor in outcome.seen.predictors.items()}


# --- the step -------------------------------------------------------------------------------------------------


def test_rounds_follow_the_equations_written_out() -> None:
    """Full batches, two local steps, autograd on one body and three heads."""
    clients, rate, rounds = population(), 0.3, 3
    method = FedEMHeads(learning_rate=rate, work=Phase(updates=2, batch_size=None))
    first = method.init(task_of(clients), 3, Streams(0))
    body, heads = first["body"].clone(), first["heads"].clone()
    shares = torch.full((3, 3), 1 / 3, dtype=torch.float64)

    def losses(body: Tensor, heads: Tensor, x: Tensor, y: Tensor) -> Tensor:
        hidden = torch.tanh(x @ body[:30].view(5, 6).T + body[30:35])
        outputs = [hidden @ head[:15].view(3, 5).T + head[15:] for head in heads]
        return torch.stack([F.cross_entropy(output, y, reduction="none") for output in outputs], dim=1)

    for _ in range(rounds):
        ended: list[tuple[Tensor, Tensor]] = []
        for client, pair in enumerate(clients.records):
            x, y = map(torch.tensor, pair)
            q = torch.softmax(shares[client].log() - losses(body, heads, x, y), dim=1)
            shares[client] = q.mean(dim=0)
            b, h = body.clone().requires_grad_(), heads.clone().requires_grad_()
            for _ in range(2):
                slopes = torch.autograd.grad((q * losses(b, h, x, y)).sum() / len(x), (b, h))
                b, h = ((w - rate * slope).detach().requires_grad_() for w, slope in zip((b, h), slopes, strict=True))
            ended.append((b.detach(), h.detach()))
        weights = torch.tensor([9.0, 5.0, 12.0], dtype=torch.float64) / 26
        body = sum(w * b for w, (b, _) in zip(weights, ended, strict=True))  # type: ignore[assignment]
        heads = sum(w * h for w, (_, h) in zip(weights, ended, strict=True))  # type: ignore[assignment]
    for executor in ("functional", "tiled"):
        outcome = played(method, clients, rounds, execution=Execution(executor=executor))  # type: ignore[arg-type]
        torch.testing.assert_close(outcome.state["body"], body, rtol=0, atol=1e-10)
        torch.testing.assert_close(outcome.state["heads"], heads, rtol=0, atol=1e-10)
        for client, mix in shares_of(outcome).items():
            torch.testing.assert_close(mix, shares[client], rtol=0, atol=1e-10)


class Normed(nn.Module):
    """Batch norm in the body, dropout before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.head = (
            nn.Linear(6, 5),
            nn.BatchNorm1d(5),
            nn.Dropout(0.3),
            nn.Linear(5, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.drop(F.relu(self.norm(self.first(x)))))
        return outputs


def test_bodies_stay_one_with_batch_norm_and_dropout() -> None:
    clients = population((9, 6, 12))
    task = task_of(clients, lambda schema: Normed())
    outcome = played(FedEMHeads(work=Phase(epochs=2, batch_size=3)), clients, 3, task=task)
    params = outcome.state["params"]
    head = task.layout.mask(task.head)
    assert torch.equal(params[0, ~head], params[1, ~head])
    assert torch.equal(params[0, ~head], outcome.state["body"])
    assert not torch.equal(params[0, head], params[1, head])
    running = task.layout.unflatten(params)["norm.running_mean"]
    assert bool((running != 0).any()), "statistics of the body move"


# --- ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_one_head_is_fedavg(executor: str) -> None:
    clients, execution = population(), Execution(executor=executor)  # type: ignore[arg-type]
    plain = played(FedAvg(work=WORK), clients, 5, execution=execution)
    ours = played(FedEMHeads(components=1, work=WORK), clients, 5, execution=execution)
    torch.testing.assert_close(ours.state["params"][0], plain.state["params"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.seen.columns["test_loss"], plain.seen.columns["test_loss"], atol=1e-12)


def test_a_model_that_is_all_head_is_fedem() -> None:
    clients = linear_clients()
    task = linear_task(clients)
    options: dict[str, Any] = {"task": task, "unseen": np.array([1])}
    whole = played(FedEM(work=WORK), clients, 4, **options)
    ours = played(FedEMHeads(work=WORK), clients, 4, **options)
    assert ours.state["body"].shape == (0,)
    torch.testing.assert_close(ours.state["params"], whole.state["params"], rtol=0, atol=1e-12)
    for client, mix in shares_of(whole).items():
        torch.testing.assert_close(shares_of(ours)[client], mix, rtol=0, atol=1e-12)
    assert whole.unseen is not None
    assert ours.unseen is not None
    np.testing.assert_allclose(ours.unseen.columns["test_loss"], whole.unseen.columns["test_loss"], atol=1e-12)


@dataclass(frozen=True, kw_only=True)
class Turned(FedEMHeads):
    """Heads in another order."""

    order: tuple[int, ...] = (0, 1, 2)

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        first = FedEMHeads.init(self, task, clients, streams)
        return self._state(first["body"], first["heads"][list(self.order)], task)


def test_permuted_heads_stay_permuted_and_predict_alike() -> None:
    clients = population()
    one, other = (played(Turned(work=WORK, order=order), clients, 3) for order in ((0, 1, 2), (2, 0, 1)))
    torch.testing.assert_close(other.state["heads"], one.state["heads"][[2, 0, 1]], rtol=0, atol=1e-12)
    torch.testing.assert_close(other.state["body"], one.state["body"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(other.seen.columns["test_loss"], one.seen.columns["test_loss"], atol=1e-12)


def test_heads_that_start_alike_are_refused() -> None:
    class Zero(nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 3)
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    clients = population()
    task = task_of(clients, lambda schema: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Zero()))
    with pytest.raises(ConfigError, match=r"equal parameters.*components = 1"):
        FedEMHeads().init(task, 3, Streams(0))
    assert FedEMHeads(components=1).init(task, 3, Streams(0))["heads"].shape == (1, 21)


def test_the_body_starts_as_every_other_method_does() -> None:
    task = task_of(population())
    common = FedAvg().init(task, 3, Streams(0))["params"]
    first = FedEMHeads().init(task, 3, Streams(0))
    assert torch.equal(first["params"][0], common)
    assert torch.equal(first["params"][2, :35], common[:35])
    again = FedEMHeads(restart=1).init(task, 3, Streams(0))
    assert not torch.equal(again["body"], first["body"])
    assert not torch.equal(again["heads"], first["heads"])


# --- what travels ---------------------------------------------------------------------------------------------


def test_one_body_and_all_heads_travel_and_nothing_else() -> None:
    clients, book = population(), Notebook(keep_messages=True)
    played(FedEMHeads(components=4, work=WORK), clients, 2, book=book)
    names = {frozenset(message.payload) for message in book.messages}
    assert names == {frozenset({"body", "heads"}), frozenset({"body", "heads", "body.weight", "heads.weight"})}
    for message in book.messages:
        assert message.payload["body"].shape == (35,)
        assert message.payload["heads"].shape == (4, 18)
    assert all(set(memory.values) == {"shares"} for memory in book.memories.get(range(3)))
    assert all(
        event["bytes_up"] < 3 * (35 + 4 * 18) * 8 + 3 * 300 for event in book.events if event["event"] == "round"
    )


@pytest.mark.parametrize("clients", [population(), linear_clients()])
def test_updates_pass_stages(clients: Clients) -> None:
    task = task_of(clients) if clients.schema.target == "class" else linear_task(clients)
    plain = played(FedEMHeads(work=WORK), clients, 2, task=task)
    for stages in ((Float16(),), (TopK(share=0.5),)):
        other = played(FedEMHeads(work=WORK), clients, 2, task=task, stages=stages)
        assert bool(torch.isfinite(other.state["params"]).all())
        assert not torch.equal(other.state["params"], plain.state["params"])


def test_newcomers_take_the_likeliest_shares() -> None:
    clients = population()
    outcome = played(FedEMHeads(work=WORK), clients, 3, unseen=np.array([2]))
    assert outcome.unseen is not None
    task, (x, y) = task_of(clients), clients.records[2]
    bound, columns = task.bind(), []
    for row in outcome.state["params"]:
        bound.load(row)
        columns.append(bound.losses(torch.tensor(x), torch.tensor(y)).detach())
    likely = np.exp(-torch.stack(columns, dim=1).numpy())
    shares = np.full(3, 1 / 3)
    for _ in range(100):
        q = shares * likely
        shares = (q / q.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(outcome.unseen.predictors[2].mix, shares, atol=1e-4)


def test_noise_sharpens_the_shares_of_a_regression() -> None:
    generator = np.random.default_rng(0)
    records = tuple((generator.normal(size=(9, 6)), generator.normal(size=(9, 1))) for _ in range(3))
    clients = Clients(records, Schema(input_shape=(6,), target="real", num_outputs=1))
    task = replace_loss(clients)
    far, near = (played(FedEMHeads(noise=s, work=WORK), clients, 1, task=task) for s in (10.0, 0.1))
    spread = [max(float(mix.max() - mix.min()) for mix in shares_of(outcome).values()) for outcome in (far, near)]
    assert spread[0] < 0.05 < 0.2 < spread[1]
    with pytest.raises(ConfigError, match=r"noise is 0\.5"):
        FedEMHeads(noise=0.5).init(task_of(population()), 3, Streams(0))


def replace_loss(clients: Clients) -> Task:
    return Task(
        model=lambda schema: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)),
        loss=SQUARED,
        metric=linear_task(linear_clients()).metric,
        schema=clients.schema,
        dtype=torch.float64,
    )


# --- the contract ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [FedEMHeads(learning_rate=0.05), FedEMHeads(learning_rate=0.05, components=2, work=replace(WORK, clip=1.0))],
)
def test_conformance(method: FedEMHeads) -> None:
    check_algorithm(method).require()


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"components": 0},
        {"components": 1001},
        {"iterations": 0},
        {"noise": 0.0},
        {"restart": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a"):
        FedEMHeads(**wrong)

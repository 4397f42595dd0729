"""Membership by the loss: closed form, real federations with and without over-fitting, honest nulls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated import FedAvg, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.learning.params import to_numpy
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.loss_threshold import LocalLossThreshold, LossThreshold
from rivage.privacy.questions import MembershipQuestion
from rivage.privacy.roc import auc, auc_test, balanced_accuracy
from rivage.privacy.views import Eavesdropper, Header, Recorded, ReleasedModel
from rivage.testing.toys import Clients

SCHEMA = Schema(input_shape=(12,), target="class", num_classes=2)
SIZE = 40


def asked(seed: int = 0, clients: int = 3) -> tuple[Clients, MembershipQuestion]:
    """Random labels: all that can be learnt of a record is the record. The question is about client 1."""
    generator = Streams(seed).numpy("records")
    x = generator.normal(size=(SIZE * (clients + 1), 12)).astype(np.float32)
    y = generator.integers(0, 2, len(x))
    parts = [(x[i::clients][:SIZE], y[i::clients][:SIZE]) for i in range(clients)]
    rows = np.r_[np.arange(1, SIZE * clients, clients)[:SIZE], np.arange(SIZE * clients, SIZE * (clients + 1))]
    records = Samples(x[rows], y[rows], np.arange(len(rows)))
    member = np.arange(2 * SIZE) < SIZE
    known = np.arange(2 * SIZE) % 4 == 0
    return Clients(tuple(parts), SCHEMA), MembershipQuestion(
        records, known, member & known, records.take(np.arange(0)), target=1
    )


def trained(folder: Path, population: Clients, task: Task, rounds: int = 30) -> tuple[Recorded, ReleasedModel]:
    header = {**task.layout.as_json(), "loss": task.loss.name, "hyper_parameters": {}, "secure_aggregation": False}
    method = FedAvg(learning_rate=0.3, work=Phase(epochs=5, batch_size=10))
    trial = Trial(name="m", algorithm=method, population=population, task=task, rounds=rounds, every=99)
    with Files(folder, LogPolicy(), header) as journal:
        outcome = run(trial, journal)
    return Recorded(folder / "messages.rvg"), ReleasedModel(Header(header), to_numpy(outcome.state["params"]))


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(TaskSettings(model="mlp", options={"hidden": (32,)}), SCHEMA)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, task: Task) -> tuple[Recorded, ReleasedModel]:
    population, _ = asked()
    return trained(tmp_path_factory.mktemp("run"), population, task)


def truth() -> np.ndarray:
    return np.arange(2 * SIZE) < SIZE


def test_both_are_attacks() -> None:
    assert {"loss_threshold", "local_loss_threshold"} <= set(ATTACKS)
    for kind in ("loss_threshold", "local_loss_threshold"):
        attack = ATTACKS.get(kind)()
        assert isinstance(attack, Attack)
        assert (attack.asks, attack.oracle) == ("membership", "")


def test_the_score_is_minus_the_loss_and_known_records_have_none() -> None:
    """One linear layer: −log softmax, by NumPy."""
    _, question = asked()
    task = make_task(TaskSettings(model="linear"), SCHEMA)
    params = task.initial(3).numpy()
    weight, bias = params[:24].reshape(2, 12), params[24:]
    logits = question.records.x.astype(np.float64) @ weight.T + bias
    expected = logits[np.arange(80), question.records.y] - np.logaddexp.reduce(logits, axis=1)
    answer = LossThreshold().run(ReleasedModel(Header({}), params), question, Tools(task, Streams(0)))
    np.testing.assert_array_equal(np.isnan(answer.scores), question.known)
    np.testing.assert_allclose(answer.scores[~question.known], expected[~question.known], rtol=1e-5)
    called = expected[question.known] >= answer.facts["threshold"] - 1e-6
    assert balanced_accuracy(called.astype(float), question.member[question.known], 0.5) >= 0.5


def test_fitted_records_are_found_and_the_local_model_tells_more(
    task: Task, federation: tuple[Recorded, ReleasedModel]
) -> None:
    log, released = federation
    _, question = asked()
    hidden = ~question.known
    tools = Tools(task, Streams(0))
    final = LossThreshold().run(released, question, tools).scores[hidden]
    local = LocalLossThreshold().run(Eavesdropper(log, 1), question, tools)
    assert local.facts["round"] == 29
    areas = [auc(scores, truth()[hidden]) for scores in (final, local.scores[hidden])]
    assert areas[1] > areas[0] > 0.75
    assert auc_test(final, truth()[hidden]) < 1e-3
    assert tools.meter.evaluations == 160


def test_the_local_loss_is_that_of_the_last_exchange(task: Task, federation: tuple[Recorded, ReleasedModel]) -> None:
    log, released = federation
    _, question = asked()
    last = Eavesdropper(log, 1).last()
    tools = Tools(task, Streams(0))
    handed = LossThreshold().run(ReleasedModel(released.header, last.returned), question, tools)
    np.testing.assert_array_equal(handed.scores, LocalLossThreshold().run(Eavesdropper(log, 1), question, tools).scores)


def test_the_order_of_records_does_not_matter(task: Task, federation: tuple[Recorded, ReleasedModel]) -> None:
    _, released = federation
    _, question = asked()
    order = np.random.default_rng(0).permutation(80)
    turned = MembershipQuestion(
        question.records.take(order), question.known[order], question.member[order], question.others, 1
    )
    tools = Tools(task, Streams(0))
    scores, other = (LossThreshold().run(released, q, tools).scores for q in (question, turned))
    np.testing.assert_allclose(other, scores[order], rtol=1e-5, atol=1e-9)


def test_nothing_is_found_where_nothing_was_learnt(task: Task) -> None:
    """An untrained model, 40 draws of records: 7 or more rejections at 5 % have chance 1.4 %."""
    params, rejected = task.initial(5).numpy(), 0
    for seed in range(40):
        _, question = asked(seed)
        answer = LossThreshold().run(ReleasedModel(Header({}), params), question, Tools(task, Streams(0)))
        hidden = ~question.known
        rejected += auc_test(answer.scores[hidden], truth()[hidden]) <= 0.05
    assert rejected <= 6


def test_shuffled_membership_is_not_found(task: Task, federation: tuple[Recorded, ReleasedModel]) -> None:
    """Of the over-fitted model: 40 shuffles of the truth, as above."""
    _, released = federation
    _, question = asked()
    scores = LossThreshold().run(released, question, Tools(task, Streams(0))).scores[~question.known]
    generator = np.random.default_rng(0)
    member = truth()[~question.known]
    assert sum(auc_test(scores, generator.permutation(member)) <= 0.05 for _ in range(40)) <= 6

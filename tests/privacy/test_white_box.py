"""The white-box attack: what it is fed against autograd, a real federation, refusals, invariance, nulls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rivage.core.errors import ConfigError
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated import FedAvg, FedEM, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.params import from_numpy
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.classifier import Fitting
from rivage.privacy.questions import MembershipQuestion
from rivage.privacy.roc import auc, auc_test
from rivage.privacy.views import Eavesdropper, Recorded, Refused
from rivage.privacy.white_box import WhiteBox
from rivage.testing.toys import Clients

SCHEMA = Schema(input_shape=(12,), target="class", num_classes=2)
SIZE, TARGET = 60, 1
TRUTH = np.arange(2 * SIZE) < SIZE


def question(clients: int = 2) -> tuple[Clients, MembershipQuestion]:
    """Labels that have nothing to do with the inputs; every other record is known."""
    generator = Streams(0).numpy("records")
    x = generator.normal(size=(SIZE * (clients + 1), 12)).astype(np.float32)
    y = generator.integers(0, 2, len(x))
    parts = tuple((x[k * SIZE : (k + 1) * SIZE], y[k * SIZE : (k + 1) * SIZE]) for k in range(clients))
    rows = np.r_[np.arange(TARGET * SIZE, (TARGET + 1) * SIZE), np.arange(clients * SIZE, (clients + 1) * SIZE)]
    records, known = Samples(x[rows], y[rows], np.arange(2 * SIZE)), np.arange(2 * SIZE) % 2 == 0
    return Clients(parts, SCHEMA), MembershipQuestion(records, known, TRUTH & known, records.take(rows[:0]), TARGET)


def trained(folder: Path, task: Task, rounds: int = 6, method: Any = None) -> Recorded:
    header = {**task.layout.as_json(), "loss": task.loss.name, "hyper_parameters": {}, "secure_aggregation": False}
    method = method or FedAvg(learning_rate=0.3, work=Phase(epochs=10, batch_size=10))
    trial = Trial(name="m", algorithm=method, population=question()[0], task=task, rounds=rounds, every=99)
    with Files(folder, LogPolicy(), header) as journal:
        run(trial, journal)
    return Recorded(folder / "messages.rvg")


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(TaskSettings(model="mlp", options={"hidden": (32,)}), SCHEMA)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Recorded:
    return trained(tmp_path_factory.mktemp("run"), task)


def tools(task: Task) -> Tools:
    return Tools(task, Streams(0))


def test_it_is_an_attack() -> None:
    assert isinstance(ATTACKS.get("white_box")(), Attack)


def test_it_is_fed_the_last_layers_gradient_label_output_and_loss(task: Task, log: Recorded) -> None:
    asked, view, given = question()[1], Eavesdropper(log, TARGET), tools(task)
    rounds, gradients, rest = WhiteBox(rounds=2).features(view, asked, given)
    assert (rounds, gradients.shape, rest.shape) == ([2, 5], (120, 2, 2, 33), (120, 2, 5))
    assert given.meter.evaluations == 2 * 120
    bound, (x, y) = task.bind(), task.tensors(asked.records)
    bound.load(from_numpy(view.last().returned))
    for i in (0, 7, 119):
        loss = bound.losses(x[i : i + 1], y[i : i + 1])[0]
        weight, bias = torch.autograd.grad(loss, bound.parameters[2:])
        np.testing.assert_allclose(gradients[i, 1, :, :-1], weight.numpy(), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(gradients[i, 1, :, -1], bias.numpy(), rtol=1e-3, atol=1e-6)
        assert rest[i, 1, :2].tolist() == [float(y[i] == 0), float(y[i] == 1)]
        np.testing.assert_allclose(rest[i, 1, 2:4], bound.predictions(x[i : i + 1])[0].numpy(), rtol=1e-3)
        assert rest[i, 1, 4] == pytest.approx(loss.item(), rel=1e-3, abs=1e-6)


def test_members_of_an_overfitted_federation_are_found(task: Task, log: Recorded) -> None:
    asked = question()[1]
    answer = WhiteBox().run(Eavesdropper(log, TARGET), asked, tools(task))
    np.testing.assert_array_equal(np.isnan(answer.scores), asked.known)
    assert auc(answer.scores[~asked.known], TRUTH[~asked.known]) > 0.75
    assert answer.facts["feature_bytes"] == 4 * (120 * 4 * 2 * 33 + 120 * 4 * 5)


def test_the_order_of_records_does_not_matter(task: Task, log: Recorded) -> None:
    asked, order = question()[1], np.random.default_rng(1).permutation(2 * SIZE)
    turned = replace(asked, records=asked.records.take(order), known=asked.known[order], member=asked.member[order])
    attack = WhiteBox(rounds=1, fitting=Fitting(epochs=3))
    one, other = (attack.run(Eavesdropper(log, TARGET), q, tools(task)).scores for q in (asked, turned))
    np.testing.assert_allclose(other, one[order], rtol=1e-2, atol=1e-2)


def test_shuffled_membership_is_not_found(task: Task, log: Recorded) -> None:
    """20 shuffles of who is a member, taught and graded: 5 or more rejections at 5 % have chance 0.3 %."""
    asked, generator, rejected = question()[1], np.random.default_rng(0), 0
    attack = WhiteBox(rounds=1, fitting=Fitting(epochs=3))
    for turn in range(20):
        member = generator.permutation(TRUTH)
        given = Tools(task, Streams(turn))
        scores = attack.run(Eavesdropper(log, TARGET), replace(asked, member=member & asked.known), given).scores
        rejected += auc_test(scores[~asked.known], member[~asked.known]) <= 0.05
    assert rejected <= 4


def test_it_refuses_mixtures_and_models_without_a_head_at_the_end(tmp_path: Path, task: Task) -> None:
    asked = question()[1]
    log = trained(tmp_path / "mixture", task, rounds=1, method=FedEM(learning_rate=0.1))
    with pytest.raises(Refused, match=r"several\. Use zari21"):
        WhiteBox().run(Eavesdropper(log, TARGET), asked, tools(task))

    headless = Task(lambda schema: nn.Sequential(nn.Linear(12, 2), nn.Tanh()), CROSS_ENTROPY, ACCURACY, SCHEMA)
    log = trained(tmp_path / "headless", headless, rounds=1)
    with pytest.raises(Refused, match="does not end with a linear layer"):
        WhiteBox().run(Eavesdropper(log, TARGET), asked, tools(headless))
    text = make_task(TaskSettings(model="char_gru"), Schema(input_shape=(6,), target="tokens", num_classes=7))
    with pytest.raises(Refused, match="one per position"):
        WhiteBox().run(Eavesdropper(log, TARGET), asked, tools(text))


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"kernels": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        WhiteBox(**settings)

"""zari21: its numbers against the models themselves, a real federation, absent rounds, nulls, invariance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rivage.core.errors import ConfigError
from rivage.core.message_log import MessageLog
from rivage.core.messages import LogPolicy, Message
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated import FedAvg, FedEM, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.learning.params import from_numpy
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.classifier import Fitting, fitted, standardised
from rivage.privacy.membership import spread
from rivage.privacy.probing import Probe
from rivage.privacy.questions import MembershipQuestion
from rivage.privacy.roc import auc, auc_test
from rivage.privacy.trajectories import Trajectories
from rivage.privacy.views import Eavesdropper, Recorded, Refused
from rivage.testing.toys import Clients, linear_task

SCHEMA = Schema(input_shape=(12,), target="class", num_classes=2)
REAL = Schema(input_shape=(12,), target="real", num_outputs=1)
SIZE, TARGET = 60, 1
QUICK = Fitting(epochs=60)
TRUTH = np.arange(2 * SIZE) < SIZE


def question(schema: Schema = SCHEMA, seed: int = 0, clients: int = 3) -> tuple[Clients, MembershipQuestion]:
    """Targets that have nothing to do with the inputs; every other record of the audit is known."""
    generator = Streams(seed).numpy("records")
    x = generator.normal(size=(SIZE * (clients + 1), 12)).astype(np.float32)
    labels = generator.integers(0, 2, len(x))
    y = labels if schema.target == "class" else labels[:, None].astype(np.float32)
    parts = tuple((x[k * SIZE : (k + 1) * SIZE], y[k * SIZE : (k + 1) * SIZE]) for k in range(clients))
    rows = np.r_[np.arange(TARGET * SIZE, (TARGET + 1) * SIZE), np.arange(clients * SIZE, (clients + 1) * SIZE)]
    records, known = Samples(x[rows], y[rows], np.arange(2 * SIZE)), np.arange(2 * SIZE) % 2 == 0
    return Clients(parts, schema), MembershipQuestion(records, known, TRUTH & known, records.take(rows[:0]), TARGET)


def trained(folder: Path, population: Any, task: Task, rounds: int = 12, method: Any = None) -> Recorded:
    header = {**task.layout.as_json(), "loss": task.loss.name, "hyper_parameters": {}, "secure_aggregation": False}
    method = method or FedAvg(learning_rate=0.3, work=Phase(epochs=10, batch_size=10))
    with Files(folder, LogPolicy(), header) as journal:
        run(Trial(name="m", algorithm=method, population=population, task=task, rounds=rounds, every=99), journal)
    return Recorded(folder / "messages.rvg")


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(TaskSettings(model="mlp", options={"hidden": (32,)}), SCHEMA)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Recorded:
    return trained(tmp_path_factory.mktemp("run"), question()[0], task)


def tools(task: Task, seed: int = 0) -> Tools:
    return Tools(task, Streams(seed))


def test_it_is_an_attack() -> None:
    attack = ATTACKS.get("zari21")()
    assert isinstance(attack, Attack)
    assert attack == Trajectories()


def test_rounds_are_spread_over_the_last_two_thirds() -> None:
    assert spread(list(range(60)), 5) == [20, 30, 40, 49, 59]
    assert spread(list(range(60)), None) == list(range(60))
    assert spread([3, 8, 11], 5) == [8, 11]
    assert spread([3, 8, 11], 1) == [11]
    assert spread([], 5) == []


@given(st.sets(st.integers(0, 300), min_size=1), st.integers(1, 9))
def test_spread_rounds_are_distinct_observed_and_end_with_the_last(rounds: set[int], count: int) -> None:
    found = spread(sorted(rounds), count)
    assert sorted(set(found)) == found
    assert set(found) <= rounds
    assert found[-1] == max(rounds)
    assert len(found) == min(count, len(rounds) - len(rounds) // 3)


def test_numbers_are_probabilities_of_the_label(task: Task, log: Recorded) -> None:
    _, asked = question()
    given_ = tools(task)
    rounds, features = Trajectories().features(Eavesdropper(log, TARGET), asked, given_)
    assert (rounds, features.shape) == ([4, 6, 8, 9, 11], (120, 5))
    assert given_.meter.evaluations == 5 * 120
    exchanges = {exchange.round: exchange for exchange in log.exchanges([TARGET])}
    bound, (x, y) = task.bind(), task.tensors(asked.records)
    for column, number in enumerate(rounds):
        bound.load(from_numpy(exchanges[number].returned))
        expected = bound.predictions(x)[range(120), y].numpy()
        np.testing.assert_allclose(features[:, column], expected, rtol=1e-4, atol=1e-7)


def test_numbers_of_updates(task: Task, log: Recorded) -> None:
    _, asked = question()
    view, kinds = Eavesdropper(log, TARGET), ("returned", "sent", "updates")
    returned, sent, updates = (Trajectories(of=of, rounds=3).features(view, asked, tools(task))[1] for of in kinds)  # type: ignore[arg-type]
    np.testing.assert_allclose(updates[:, ::2], returned - sent, atol=1e-12)
    last = view.last()
    cosines = Probe(tools(task), asked.records).alignments(last.sent, last.pseudo_gradient[None])[0]
    np.testing.assert_allclose(updates[:, -1], cosines)
    assert cosines[TRUTH].mean() > cosines[~TRUTH].mean(), "a step goes along the gradients of members"


@pytest.mark.parametrize("of", ["returned", "updates"])
def test_members_of_an_overfitted_federation_are_found(task: Task, log: Recorded, of: Any) -> None:
    _, asked = question()
    answer = Trajectories(of=of).run(Eavesdropper(log, TARGET), asked, tools(task))
    np.testing.assert_array_equal(np.isnan(answer.scores), asked.known)
    hidden = ~asked.known
    assert auc(answer.scores[hidden], TRUTH[hidden]) > 0.75
    assert auc_test(answer.scores[hidden], TRUTH[hidden]) < 1e-3
    assert answer.facts["rounds"] == [4, 6, 8, 9, 11]
    assert answer.facts["feature_bytes"] == 120 * 5 * 8 * (1 if of == "returned" else 2)


def test_the_order_of_records_does_not_matter(task: Task, log: Recorded) -> None:
    """Same federation, same numbers; only float rounding of a batch may move them."""
    _, asked = question()
    order = np.random.default_rng(1).permutation(2 * SIZE)
    turned = replace(asked, records=asked.records.take(order), known=asked.known[order], member=asked.member[order])
    attack = Trajectories(fitting=QUICK)
    one, other = (attack.run(Eavesdropper(log, TARGET), q, tools(task)).scores for q in (asked, turned))
    np.testing.assert_allclose(other, one[order], rtol=1e-3, atol=1e-3)


def test_only_known_records_set_the_scale() -> None:
    features, known = np.array([[1.0, 5.0], [3.0, 5.0], [100.0, 7.0]]), np.array([True, True, False])
    np.testing.assert_allclose(standardised(features, known), [[-1, 0], [1, 0], [98, 2]])


def test_a_network_does_not_see_the_order_of_its_records() -> None:
    generator = np.random.default_rng(0)
    features, known, member = generator.normal(size=(50, 2)), np.arange(50) < 30, generator.random(50) < 0.5
    order = generator.permutation(50)

    def scores(rows: np.ndarray) -> np.ndarray:
        return fitted(
            lambda: nn.Linear(2, 1), [features[rows]], known[rows], member[rows], Streams(0), Fitting(epochs=3)
        )

    np.testing.assert_allclose(scores(order), scores(np.arange(50))[order], atol=1e-6)


def test_labels_of_asked_records_are_not_read(task: Task, log: Recorded) -> None:
    """What stands in ``member`` where it is not known changes nothing."""
    _, asked = question()
    attack = Trajectories(fitting=QUICK)
    told = replace(asked, member=TRUTH)
    one, other = (attack.run(Eavesdropper(log, TARGET), q, tools(task)).scores for q in (asked, told))
    np.testing.assert_array_equal(one, other)


def test_shuffled_membership_is_not_found(task: Task, log: Recorded) -> None:
    """40 shuffles of who is a member, taught and graded: 7 or more rejections at 5 % have chance 1.4 %."""
    _, asked = question()
    _, features = Trajectories().features(Eavesdropper(log, TARGET), asked, tools(task))
    inputs, generator, rejected = standardised(features, asked.known), np.random.default_rng(0), 0
    for turn in range(40):
        member = generator.permutation(TRUTH)
        scores = fitted(lambda: nn.Linear(5, 1), [inputs], asked.known, member, Streams(turn), Fitting(epochs=8))
        rejected += auc_test(scores[~asked.known], member[~asked.known]) <= 0.05
    assert rejected <= 6


def test_absent_rounds_have_no_number(tmp_path: Path, task: Task) -> None:
    population, asked = question()
    absent = frozenset((TARGET, r) for r in (1, 4, 5, 7))
    view = Eavesdropper(trained(tmp_path, replace(population, absent=absent), task, rounds=8), TARGET)
    rounds, features = Trajectories(rounds=None).features(view, asked, tools(task))
    assert rounds == [0, 2, 3, 6]
    assert features.shape == (120, 4)
    assert np.isfinite(Trajectories(fitting=QUICK).run(view, asked, tools(task)).scores[~asked.known]).all()


def test_real_targets_have_their_squared_error(tmp_path: Path) -> None:
    population, asked = question(REAL)
    task = linear_task(population)
    method = FedAvg(learning_rate=0.05, work=Phase(epochs=2, batch_size=10))
    log = trained(tmp_path, population, task, rounds=3, method=method)
    _, features = Trajectories(rounds=1).features(Eavesdropper(log, TARGET), asked, tools(task))
    weights = Eavesdropper(log, TARGET).last().returned
    expected = 0.5 * (asked.records.y[:, 0] - asked.records.x.astype(np.float64) @ weights) ** 2
    np.testing.assert_allclose(features[:, 0], expected, rtol=1e-6)


def test_a_mixture_has_the_mean_probability(tmp_path: Path, task: Task) -> None:
    population, asked = question()
    log = trained(tmp_path, population, task, rounds=3, method=FedEM(learning_rate=0.3))
    view = Eavesdropper(log, TARGET)
    last = view.last()
    assert last.returned.ndim == 2
    _, features = Trajectories(rounds=1).features(view, asked, tools(task))
    probe = Probe(tools(task), asked.records)
    expected = np.mean([probe.fits(row) for row in last.returned], axis=0)
    np.testing.assert_allclose(features[:, 0], expected, rtol=1e-9)


def test_it_refuses_without_examples_or_exchanges(task: Task, log: Recorded, tmp_path: Path) -> None:
    _, asked = question()
    unknown = replace(asked, known=np.zeros(120, bool))
    with pytest.raises(Refused, match="0 members and 0 others are too few"):
        Trajectories().run(Eavesdropper(log, TARGET), unknown, tools(task))
    with pytest.raises(Refused, match="client 7 has no exchange"):
        Trajectories().run(Eavesdropper(log, 7), asked, tools(task))
    header = {**task.layout.as_json(), "loss": "cross_entropy", "hyper_parameters": {}, "secure_aggregation": True}
    with MessageLog.create(tmp_path / "sums.rvg", header) as sums:
        sums.append(Message(round=0, sender="server", receiver="client:1", kind="broadcast", payload={}))
    with pytest.raises(Refused):
        Trajectories().run(Eavesdropper(Recorded(tmp_path / "sums.rvg"), TARGET), asked, tools(task))


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"hidden": 0}, {"of": "both"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Trajectories(**settings)
    with pytest.raises(ConfigError, match="patience is 0"):
        Fitting(patience=0)

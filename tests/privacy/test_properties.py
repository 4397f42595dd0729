"""Property inference: clients with and without a property on a real log, and nothing where there is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.data.population import Samples, Schema
from rivage.federated import FedAvg, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.properties import PropertyInference, _drawn
from rivage.privacy.questions import PropertyQuestion
from rivage.privacy.roc import auc, auc_test
from rivage.privacy.views import CuriousServer, Recorded, Refused
from rivage.testing.toys import Clients

SCHEMA = Schema(input_shape=(6,), target="class", num_classes=2)
COUNT, SIZE = 16, 40
MOST = np.arange(COUNT) % 2 == 0


def people(seed: int, count: int, share: float) -> tuple[Samples, ndarray]:
    """The property shifts one input, and what another input means for the class."""
    generator = Streams(seed).numpy("people")
    has = generator.permutation(np.arange(count) < share * count)
    x = generator.normal(size=(count, 6)).astype(np.float32)
    x[:, 0] += 1.5 * has
    y = (np.where(has, x[:, 1], -x[:, 1]) + 0.5 * generator.normal(size=count) > 0).astype(np.int64)
    return Samples(x, y, np.arange(count)), has


def task() -> Task:
    return make_task(TaskSettings(model="mlp", options={"hidden": (8,)}), SCHEMA)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> CuriousServer:
    folder, learnt = tmp_path_factory.mktemp("log"), task()
    parts = [people(client, SIZE, 0.75 if most else 0.25)[0] for client, most in enumerate(MOST)]
    method = FedAvg(learning_rate=0.2, work=Phase(epochs=2, batch_size=8))
    header = {**learnt.layout.as_json(), "loss": "cross_entropy", "method": "fedavg", "hyper_parameters": dump(method)}
    population = Clients(tuple((part.x, part.y) for part in parts), SCHEMA)
    trial = Trial(name="m", algorithm=method, population=population, task=learnt, rounds=12, cohort=8, every=99)
    with Files(folder, LogPolicy(), header) as journal:
        run(trial, journal)
    return CuriousServer(Recorded(folder / "messages.rvg"))


def question(seed: int = 77) -> PropertyQuestion:
    own, has = people(seed, 400, 0.5)
    return PropertyQuestion(tuple(range(COUNT)), own, has)


def test_it_is_an_attack() -> None:
    attack = ATTACKS.get("property")()
    assert isinstance(attack, Attack)
    assert (attack.asks, attack.view, attack.oracle) == ("property", CuriousServer, "")


def test_clients_with_the_property_are_found(server: CuriousServer) -> None:
    tools = Tools(task(), Streams(0))
    answer = PropertyInference(models=48, rounds=4).run(server, question(), tools)
    assert auc(answer.scores, MOST) > 0.9
    assert answer.facts["records"] == SIZE
    # Per round 48 reference clients pass twice over 40 records.
    assert tools.meter.evaluations == len(answer.facts["rounds"]) * 48 * 2 * SIZE


def test_every_client_is_scored_even_if_it_is_rarely_seen(server: CuriousServer) -> None:
    answer = PropertyInference(models=8, rounds=1).run(server, question(), Tools(task(), Streams(0)))
    assert np.isfinite(answer.scores).all()
    stranger = PropertyQuestion((0, 99), question().records, question().has)
    scores = PropertyInference(models=8, rounds=1).run(server, stranger, Tools(task(), Streams(0))).scores
    assert np.isnan(scores).tolist() == [False, True]


def test_nothing_is_found_of_a_property_that_leaves_no_trace(server: CuriousServer) -> None:
    """A coin for every record of the attacker, another for every client: more than 4 of 20 with chance 0.3 %."""
    rejected, own = 0, question()
    for seed in range(20):
        generator = np.random.default_rng(seed)
        coins = replace(own, has=generator.random(400) < 0.5)
        scores = PropertyInference(models=8, rounds=1).run(server, coins, Tools(task(), Streams(seed))).scores
        rejected += auc_test(scores, generator.permutation(MOST)) < 0.05
    assert rejected <= 4


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_reference_clients_are_on_the_right_side_of_one_half(size: int) -> None:
    generator = np.random.default_rng(0)
    records, has = people(0, 30, 0.2)
    for many in (True, False):
        for _ in range(50):
            drawn = _drawn(records, has, size, many, generator)
            assert len(drawn) == size
            assert (has[drawn.index].mean() > 0.5) == many


def test_what_cannot_be_asked_is_refused(server: CuriousServer) -> None:
    one = replace(question(), has=np.ones(400, bool))
    with pytest.raises(Refused, match="all of one kind"):
        PropertyInference().run(server, one, Tools(task(), Streams(0)))
    with pytest.raises(ConfigError, match="models is 7"):
        PropertyInference(models=7)


def test_the_order_of_clients_does_not_matter(server: CuriousServer) -> None:
    asked, attack = question(), PropertyInference(models=8, rounds=2)
    forward = attack.run(server, asked, Tools(task(), Streams(0))).scores
    backward = attack.run(server, replace(asked, clients=asked.clients[::-1]), Tools(task(), Streams(0))).scores
    np.testing.assert_array_equal(forward, backward[::-1])

"""FedMIA: the sum by hand, real federations, whose record it is, absent clients, nulls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from rivage.core.errors import ConfigError
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated import FedAvg, FedEM, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.fedmia import FedMIA, _alike, tail
from rivage.privacy.probing import Probe
from rivage.privacy.questions import MembershipQuestion
from rivage.privacy.roc import auc, auc_test
from rivage.privacy.views import CuriousServer, Exchange, Recorded, Refused
from rivage.testing.toys import Clients

SCHEMA = Schema(input_shape=(12,), target="class", num_classes=2)
SIZE, CLIENTS = 20, 6
EVERYTHING = np.arange(SIZE * (CLIENTS + 1))


def population(seed: int = 0) -> Clients:
    """Labels that have nothing to do with the inputs."""
    everything = records(seed)
    parts = [everything.take(EVERYTHING[k * SIZE : (k + 1) * SIZE]) for k in range(CLIENTS)]
    return Clients(tuple((part.x, part.y) for part in parts), SCHEMA)


def records(seed: int = 0) -> Samples:
    """Those of the clients one after the other, then as many of one client that nobody has."""
    generator = Streams(seed).numpy("records")
    x = generator.normal(size=(len(EVERYTHING), 12)).astype(np.float32)
    return Samples(x, generator.integers(0, 2, len(x)), EVERYTHING)


def question(target: int | None, seed: int = 0) -> MembershipQuestion:
    unknown = np.zeros(len(EVERYTHING), bool)
    everything = records(seed)
    return MembershipQuestion(everything, unknown, unknown, everything.take(EVERYTHING[:0]), target)


def owned(client: int) -> np.ndarray:
    owners: np.ndarray = EVERYTHING // SIZE
    return owners == client


def trained(
    folder: Path, clients: Clients, task: Task, rounds: int = 8, method: Any = None, **options: Any
) -> Recorded:
    header = {**task.layout.as_json(), "loss": task.loss.name, "hyper_parameters": {}, "secure_aggregation": False}
    method = method or FedAvg(learning_rate=0.2, work=Phase(epochs=5, batch_size=10))
    trial = Trial(name="m", algorithm=method, population=clients, task=task, rounds=rounds, every=99, **options)
    with Files(folder, LogPolicy(), header) as journal:
        run(trial, journal)
    return Recorded(folder / "messages.rvg")


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(TaskSettings(model="mlp", options={"hidden": (16,)}), SCHEMA)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Recorded:
    return trained(tmp_path_factory.mktemp("run"), population(), task)


def tools(task: Task) -> Tools:
    return Tools(task, Streams(0))


def test_it_is_an_attack() -> None:
    assert isinstance(ATTACKS.get("fedmia")(), Attack)


def test_a_tail_by_hand() -> None:
    """Ten others 0 … 9: mean 4.5, s² = 55 / 6. An eleventh at 100 is 3.01 standard deviations up, and left out."""
    others = np.arange(10.0)[:, None]
    expected = norm.logcdf((7 - 4.5) / np.sqrt(55 / 6))
    assert tail(np.array([7.0]), others)[0] == pytest.approx(expected)
    assert tail(np.array([7.0]), np.r_[others, [[100.0]]])[0] == pytest.approx(expected)
    assert tail(np.array([7.0]), np.r_[others, [[-100.0]]])[0] != pytest.approx(expected), "low values stay"


def test_few_others_share_a_variance() -> None:
    others = np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 10.0]])
    found = tail(np.array([2.0, 12.0]), others)
    np.testing.assert_allclose(found, norm.logcdf([0.0, 2 / np.sqrt(2.0)]))
    assert tail(np.ones(1), np.ones((3, 1)))[0] == pytest.approx(np.log(0.5))
    assert tail(np.array([2.0]), np.ones((3, 1)))[0] == 0.0


@given(st.integers(2, 12), st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_tails_do_not_depend_on_unit_or_order_of_clients(clients: int, seed: int, unit: float, shift: float) -> None:
    generator = np.random.default_rng(seed)
    mine, others = generator.normal(size=4), generator.normal(size=(clients, 4))
    found = tail(mine, others)
    np.testing.assert_allclose(tail(unit * mine + shift, unit * others[::-1] + shift), found, rtol=1e-6, atol=1e-9)
    assert (tail(mine + 0.5, others) >= found).all()
    assert (found <= 0).all()


@pytest.mark.parametrize("signal", ["cosine", "loss"])
def test_the_score_is_the_sum_over_rounds(task: Task, log: Recorded, signal: Any) -> None:
    probe, asked = Probe(tools(task), records()), question(2)
    expected = np.zeros(len(EVERYTHING))
    for number in range(8):
        found = {}
        for exchange in log.exchanges():
            if exchange.round == number and signal == "loss":
                found[exchange.client] = -probe.losses(exchange.returned)
            elif exchange.round == number:
                found[exchange.client] = probe.alignments(exchange.sent, exchange.pseudo_gradient[None])[0]
        mine = found.pop(2)
        rest = np.stack(list(found.values()))
        variance = rest.var(axis=0, ddof=1).mean()
        expected += norm.logcdf((mine - rest.mean(axis=0)) / np.sqrt(variance))
    given_ = tools(task)
    answer = FedMIA(signal=signal).run(CuriousServer(log), asked, given_)
    np.testing.assert_allclose(answer.scores, expected, rtol=1e-6, atol=1e-9)
    passes = 8 if signal == "cosine" else 8 * CLIENTS
    assert given_.meter.evaluations == passes * len(EVERYTHING), "cosines need one pass per round, not per client"
    assert (answer.facts["rounds"], answer.facts["fewest_others"]) == (8, CLIENTS - 1)


@pytest.mark.parametrize("signal", ["cosine", "loss"])
def test_it_tells_whose_record_it_is(task: Task, log: Recorded, signal: Any) -> None:
    """Members of the target score above those of other clients, and those not above what nobody has."""
    scores = FedMIA(signal=signal).run(CuriousServer(log), question(4), tools(task)).scores
    assert auc(scores, owned(4)) > 0.75
    others = ~owned(4)
    nobody = owned(CLIENTS)
    assert auc(scores[others], ~nobody[others]) < 0.6


def test_one_pass_serves_equal_models_of_one_round_only() -> None:
    """A new model or round starts a new pass, and so do more than 16 clients."""
    one, other = np.zeros(3), np.ones(3)
    places = [(0, one), (0, one.copy()), (0, other), (1, other), (1, other), *[(2, one)] * 17]
    exchanges = [Exchange(number, client, sent, sent + 1) for client, (number, sent) in enumerate(places)]
    assert [len(part) for part in _alike(iter(exchanges))] == [2, 1, 2, 16, 1]


def test_absent_targets_and_lonely_rounds_are_left_out(tmp_path: Path, task: Task) -> None:
    everyone = range(CLIENTS)
    lost = {(0, 1), (0, 3)} | {(k, 2) for k in everyone if k not in (0, 5)}
    log = trained(tmp_path, replace(population(), absent=frozenset(lost)), task, rounds=5)
    given_ = tools(task)
    answer = FedMIA().run(CuriousServer(log), question(0), given_)
    assert answer.facts["rounds"] == 2, "0 and 4"
    assert given_.meter.evaluations == 3 * len(EVERYTHING), "rounds without the target are not looked at"


def test_fewer_rounds_cost_less(task: Task, log: Recorded) -> None:
    given_ = tools(task)
    assert FedMIA(rounds=2).run(CuriousServer(log), question(0), given_).facts["rounds"] == 2
    assert given_.meter.evaluations == 2 * len(EVERYTHING)


def test_it_refuses_without_others_or_target(tmp_path: Path, task: Task, log: Recorded) -> None:
    with pytest.raises(Refused, match="none is named"):
        FedMIA().run(CuriousServer(log), question(None), tools(task))
    with pytest.raises(Refused, match="in none of the 0 rounds of client 9"):
        FedMIA().run(CuriousServer(log), question(9), tools(task))
    lonely = trained(tmp_path, population(), task, rounds=2, cohort=1)
    with pytest.raises(Refused, match=r"two others .*reads one client only"):
        FedMIA().run(CuriousServer(lonely), question(CuriousServer(lonely).clients[0]), tools(task))
    with pytest.raises(ConfigError, match="rounds is 0"):
        FedMIA(rounds=0)
    with pytest.raises(ConfigError, match='signal is "both"'):
        FedMIA(signal="both")  # type: ignore[arg-type]


def test_a_mixture_is_attacked_as_one(tmp_path: Path, task: Task) -> None:
    method = FedEM(learning_rate=0.2, work=Phase(epochs=5, batch_size=10))
    log = trained(tmp_path, population(), task, method=method)
    scores = FedMIA().run(CuriousServer(log), question(1), tools(task)).scores
    assert auc(scores, owned(1)) > 0.7


def test_records_that_nobody_has_are_not_found(task: Task, log: Recorded) -> None:
    """40 draws of records, members by a coin: 7 or more rejections at 5 % have chance 1.4 %."""
    rejected = 0
    for seed in range(1, 41):
        scores = FedMIA().run(CuriousServer(log), question(3, seed), tools(task)).scores
        rejected += auc_test(scores, np.random.default_rng(seed).random(len(scores)) < 0.5) <= 0.05
    assert rejected <= 6


def test_the_order_of_records_does_not_matter(task: Task, log: Recorded) -> None:
    asked, order = question(2), np.random.default_rng(0).permutation(len(EVERYTHING))
    turned = replace(asked, records=asked.records.take(order))
    one, other = (FedMIA().run(CuriousServer(log), q, tools(task)).scores for q in (asked, turned))
    np.testing.assert_allclose(other, one[order], rtol=1e-4, atol=1e-6)

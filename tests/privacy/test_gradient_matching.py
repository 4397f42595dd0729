"""Searches for records: the simulated client is the real one, small cases are found, noise is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rivage.core.errors import ConfigError
from rivage.data.population import Schema
from rivage.federated import FedAvg, Phase
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.privacy.attack import ATTACKS, Attack, Meter
from rivage.privacy.exchanges import Exchange, Header, Refused
from rivage.privacy.gradient_matching import DLG, CosineInversion, _Found, total_variation
from rivage.privacy.local_steps import local_steps
from rivage.privacy.questions import RecordQuestion
from rivage.privacy.record_matching import match
from rivage.privacy.views import Eavesdropper
from rivage.studies.claims.eavesdropping_scenarios import (
    Overheard,
    classifier,
    few_records,
    least_squares_clients,
    logistic_task,
    overheard,
    regression_task,
)
from rivage.testing.toys import Clients

POPULATION = few_records([1, 2, 4, 9], features=6, classes=3)


def smooth(schema: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


SMOOTH = Task(smooth, CROSS_ENTROPY, ACCURACY, POPULATION.schema, dtype=torch.float64)


def trained(epochs: int = 1, batch_size: int | None = None) -> FedAvg:
    return FedAvg(learning_rate=0.1, work=Phase(epochs=epochs, batch_size=batch_size))


@pytest.fixture(scope="module")
def heard() -> Iterator[Overheard]:
    with overheard(trained(2), POPULATION, SMOOTH, rounds=2) as found:
        yield found


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("kind", ["classes", "one output", "reals"])
def test_the_simulated_client_is_the_real_one(kind: str, epochs: int) -> None:
    """With the true records, what it would return is what the engine's client did return."""
    if kind == "classes":
        population, task = POPULATION, classifier(POPULATION)
    elif kind == "one output":
        population = few_records([3], features=4, classes=2)
        task = logistic_task(population)
    else:
        population = least_squares_clients(3, clients=2, records=5)
        task = regression_task(population)
    with overheard(trained(epochs), population, task, rounds=1) as found:
        exchange, header = found.client().last(), found.client().header
    x, y = population.records[0]
    meter = Meter()
    work = local_steps(task, header, exchange, len(x), meter)
    targets = {"classes": lambda: np.eye(3)[y], "one output": lambda: y[:, None].astype(float), "reals": lambda: y}
    found_displacement = work.displacement(torch.from_numpy(x), torch.from_numpy(targets[kind]()))
    np.testing.assert_allclose(found_displacement.detach(), exchange.pseudo_gradient, atol=1e-13)
    assert (work.steps, meter.evaluations) == (epochs, epochs * len(x))


@pytest.mark.parametrize("attack", [DLG(iterations=100, restarts=5), CosineInversion()])
@pytest.mark.parametrize("client", [0, 1])
def test_few_records_are_found_through_two_local_steps(heard: Overheard, attack: Any, client: int) -> None:
    """Where the mean record matches none."""
    x, y = POPULATION.records[client]
    tools = heard.tools()
    answer = attack.run(heard.client(client), RecordQuestion(len(x)), tools)
    found = match(answer.x, x, np.zeros(6))
    assert (found.exact, answer.status) == (1.0, "estimated"), answer.facts
    assert found.mse < 1e-5
    assert sorted(answer.y.tolist()) == sorted(y.tolist())
    assert match(np.zeros_like(x), x, np.zeros(6)).exact == 0
    assert tools.meter.evaluations >= 2 * len(x) * answer.facts["starts"]


@pytest.mark.parametrize("kind", [DLG, CosineInversion])
def test_starts_go_on_until_one_is_good_enough_and_the_best_counts(heard: Overheard, kind: Any) -> None:
    def answered(restarts: int, enough: float) -> Any:
        attack = kind(iterations=3, restarts=restarts, enough=enough)
        return attack.run(heard.client(1), RecordQuestion(2), heard.tools())

    single, several = answered(1, 0.0), answered(4, 0.0)
    assert (single.facts["starts"], several.facts["starts"], answered(4, 10.0).facts["starts"]) == (1, 4, 1)
    assert several.facts["objective"] <= single.facts["objective"]


def test_a_start_that_runs_away_is_never_the_best(heard: Overheard, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([float("nan"), 0.5, float("nan")])
    monkeypatch.setattr(DLG, "_search", lambda self, work, start, known: _Found(start[0], start[1], next(ends)))
    answer = DLG(restarts=3).run(heard.client(1), RecordQuestion(2), heard.tools())
    assert (answer.facts["objective"], answer.facts["starts"]) == (0.5, 3)


def test_a_search_ends_where_it_is_good_enough(heard: Overheard) -> None:
    def evaluations(enough: float) -> int:
        tools = heard.tools()
        CosineInversion(iterations=9, enough=enough).run(heard.client(1), RecordQuestion(2), tools)
        return tools.meter.evaluations

    assert evaluations(0.0) == 9 * evaluations(10.0)


def test_answers_repeat_with_the_seed(heard: Overheard) -> None:
    attack = CosineInversion(iterations=15)
    one, again, other = (attack.run(heard.client(1), RecordQuestion(2), heard.tools(seed)).x for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)  # type: ignore[arg-type]


def test_the_best_iterate_is_kept(heard: Overheard) -> None:
    """Steps that lead nowhere do not lose the start."""
    start, away = (
        CosineInversion(iterations=n, step=50.0).run(heard.client(1), RecordQuestion(2), heard.tools()) for n in (1, 8)
    )
    assert away.facts["objective"] <= start.facts["objective"]


def test_a_box_holds_the_inputs(heard: Overheard) -> None:
    answer = CosineInversion(iterations=30, box=(-0.5, 0.25)).run(heard.client(), RecordQuestion(1), heard.tools())
    assert answer.x is not None
    assert answer.x.min() >= -0.5
    assert answer.x.max() <= 0.25


class Noisy:
    """A client that returns noise instead of what it learnt."""

    def __init__(self, found: Overheard) -> None:
        self.header, self.last = found.client().header, found.client().last()

    def exchanges(self) -> Iterator[Exchange]:
        noise = np.random.default_rng(0).normal(size=self.last.sent.size)
        yield Exchange(0, 0, self.last.sent, self.last.sent + noise)


@pytest.mark.parametrize("attack", [DLG(iterations=50, restarts=2), CosineInversion(iterations=100)])
def test_noise_holds_no_record(heard: Overheard, attack: Any) -> None:
    answer = attack.run(Noisy(heard), RecordQuestion(1), heard.tools())
    assert match(answer.x, POPULATION.records[0][0], np.zeros(6)).exact == 0
    assert answer.facts["objective"] > 0.1


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    assert total_variation(image).item() == pytest.approx((2 + 3) / 2 + (1 + 2) / 2)
    assert total_variation(torch.ones(3, 5)).item() == 0


def test_images_are_smoothed() -> None:
    """On the same update, a larger α gives smoother images."""
    generator = np.random.default_rng(0)
    records = ((generator.normal(size=(1, 1, 5, 5)), np.array([1])),)
    schema = Schema(input_shape=(1, 5, 5), target="class", num_classes=2)
    population = Clients(records, schema)
    task = Task(
        lambda schema: nn.Sequential(nn.Flatten(), nn.Linear(25, 2)),
        CROSS_ENTROPY,
        ACCURACY,
        schema,
        dtype=torch.float64,
    )
    with overheard(trained(), population, task, rounds=1) as found:
        rough, even = (
            CosineInversion(iterations=80, smoothness=alpha).run(found.client(), RecordQuestion(1), found.tools()).x
            for alpha in (0.0, 10.0)
        )
    variations = [total_variation(torch.from_numpy(x)).item() for x in (rough, even)]
    assert variations[1] < 0.3 * variations[0]


def test_what_cannot_be_searched_is_refused(heard: Overheard) -> None:
    with pytest.raises(Refused, match="the client holds 9 records, and a search for more than 8"):
        DLG().run(heard.client(3), RecordQuestion(9), heard.tools())
    exchange = heard.client().last()
    silent = Header({**heard.client().header.fields, "hyper_parameters": {}})
    with pytest.raises(Refused, match="no learning rate"):
        local_steps(SMOOTH, silent, exchange, 1, Meter())
    long = Header({**silent.fields, "hyper_parameters": {"learning_rate": 0.1, "work": {"updates": 100}}})
    with pytest.raises(Refused, match="100 local steps"):
        local_steps(SMOOTH, long, exchange, 1, Meter())


def test_steps_are_read_off_the_header(heard: Overheard) -> None:
    exchange = heard.client().last()
    for work, records, steps in (
        ({"epochs": 3, "batch_size": 4}, 10, 9),
        ({"epochs": 3, "batch_size": "all"}, 10, 3),
        ({"updates": 5, "batch_size": 2}, 10, 5),
        ({}, 10, 1),
    ):
        fields = {**heard.client().header.fields, "hyper_parameters": {"learning_rate": 0.2, "work": work}}
        found = local_steps(SMOOTH, Header(fields), exchange, records, Meter())
        assert (found.steps, found.rate) == (steps, 0.2)
    gradient = Header({**heard.client().header.fields, "kind": "gradient", "hyper_parameters": {}})
    found = local_steps(SMOOTH, gradient, exchange, 2, Meter())
    assert (found.steps, found.rate) == (1, 1.0)


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [
        (DLG, {"iterations": 0}),
        (DLG, {"restarts": 0}),
        (CosineInversion, {"step": 0.0}),
        (CosineInversion, {"box": (1, 0)}),
    ],
)
def test_settings_out_of_range_are_refused(attack: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        attack(**wrong)


def test_the_attacks_are_registered_and_declare_their_views() -> None:
    for kind, expected in (("dlg", DLG), ("cosine_inversion", CosineInversion)):
        found = ATTACKS.get(kind)
        assert found is expected
        assert isinstance(found(), Attack)
        assert (found.asks, found.view, found.oracle) == ("record", Eavesdropper, "")

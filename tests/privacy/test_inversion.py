"""Records and labels read off one update: exact for one record, mixtures for more, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.federated import FedAvg, FedSGD, Phase
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.exchanges import Exchange
from rivage.privacy.inversion import IDLG, AnalyticInversion, first_layer, label_counts, read_labels
from rivage.privacy.questions import RecordQuestion
from rivage.privacy.views import Eavesdropper, Refused
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

COUNTS = (1, 1, 1, 1, 1, 2, 3, 9)
POPULATION = few_records(COUNTS)


@pytest.fixture(scope="module", params=[1, 4], ids=["one step", "four steps"])
def heard(request: pytest.FixtureRequest) -> Iterator[Overheard]:
    algorithm = FedAvg(learning_rate=0.1, work=Phase(epochs=request.param, batch_size=None))
    with overheard(algorithm, POPULATION, classifier(POPULATION), rounds=3) as found:
        yield found


@pytest.mark.parametrize("turn", [None, 0, 2])
def test_one_record_is_found_exactly_whatever_the_number_of_steps(heard: Overheard, turn: int | None) -> None:
    for client in range(5):
        question = RecordQuestion(1, turn)
        answer = AnalyticInversion().run(heard.client(client), question, heard.tools())
        x, y = POPULATION.records[client]
        assert answer.status == "recovered"
        np.testing.assert_allclose(answer.x, x, atol=1e-8)
        labels = IDLG().run(heard.client(client), question, heard.tools())
        assert labels.y is not None
        assert (labels.y.tolist(), labels.status, labels.x) == (y.tolist(), "recovered", None)


def test_records_alone_behind_a_unit_are_found_and_the_rest_are_mixtures(heard: Overheard) -> None:
    """Units that agree show records: both of two, two of three, one of nine; the third of three needs more guesses."""
    for client, expected in ((5, 2), (6, 2), (7, 1)):
        x, _ = POPULATION.records[client]
        answer = AnalyticInversion().run(heard.client(client), RecordQuestion(len(x)), heard.tools())
        assert answer.x is not None
        assert answer.status == "mixed"
        distance = np.abs(x[:, None] - answer.x[None]).max(axis=2).min(axis=1)
        assert int((distance < 1e-8).sum()) == answer.facts["agreed"] == expected


def test_two_records_in_one_active_set_give_the_documented_mixture() -> None:
    """Σ δ_ri x_r / Σ δ_ri, δ the derivative by what goes into unit i; known from autograd on the single records."""
    generator = np.random.default_rng(0)
    x, y = np.abs(generator.normal(size=(2, 4))), np.array([0, 1])
    population = Clients(((x, y),), few_records([1], features=4, classes=2).schema)

    def positive(schema: Any) -> nn.Module:
        network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        with torch.no_grad():
            network[0].weight.abs_()
            network[0].bias.abs_()
        return network

    task = Task(positive, CROSS_ENTROPY, ACCURACY, population.schema, dtype=torch.float64)
    with overheard(FedSGD(learning_rate=0.1), population, task, rounds=1) as found:
        answer = AnalyticInversion().run(found.client(), RecordQuestion(2), found.tools())
        sent = found.client().last().sent.copy()
    bound = task.bind()
    bound.load(torch.from_numpy(sent))
    inputs = torch.from_numpy(x)
    losses = bound.losses(inputs, torch.from_numpy(y))
    slopes = [torch.autograd.grad(loss, bound.parameters[1], retain_graph=True)[0].numpy() for loss in losses]
    mixtures = (slopes[0][:, None] * x[0] + slopes[1][:, None] * x[1]) / (slopes[0] + slopes[1])[:, None]
    assert answer.x is not None
    assert answer.status == "mixed"
    for guess in answer.x:
        assert np.abs(mixtures - guess).max(axis=1).min() < 1e-8
        assert np.abs(x - guess).max(axis=1).min() > 1e-3


def test_one_output_gives_all_units_one_mixture_and_no_record() -> None:
    """Agreement of units says nothing behind a single output; the count of records keeps the status honest."""
    generator = np.random.default_rng(1)
    population = Clients(((generator.normal(size=(3, 4)), generator.normal(size=(3, 1))),), _real(4))
    with overheard(FedSGD(learning_rate=0.1), population, regression_task(population), rounds=1) as found:
        answer = AnalyticInversion().run(found.client(), RecordQuestion(3), found.tools())
    assert answer.x is not None
    assert (answer.status, len(answer.x)) == ("mixed", 1)


def _real(features: int) -> Any:
    return least_squares_clients(features, clients=1, records=1).schema


@pytest.mark.parametrize("label", range(5))
def test_every_label_is_read(label: int) -> None:
    x = np.random.default_rng(label).normal(size=(1, 12))
    population = Clients(((x, np.array([label])),), POPULATION.schema)
    with overheard(FedSGD(learning_rate=0.1), population, classifier(population), rounds=1) as found:
        assert IDLG().run(found.client(), RecordQuestion(1), found.tools()).y == [label]


@pytest.mark.parametrize("label", [0, 1])
def test_the_label_behind_one_output_is_the_sign_of_its_gradient(label: int) -> None:
    population = Clients(((np.ones((1, 3)), np.array([label])),), few_records([1], features=3, classes=2).schema)
    with overheard(FedSGD(learning_rate=0.1), population, logistic_task(population), rounds=1) as found:
        assert IDLG().run(found.client(), RecordQuestion(1), found.tools()).y == [label]
        with pytest.raises(Refused, match="one output does not tell"):
            IDLG().run(found.client(), RecordQuestion(2), found.tools())


def test_a_head_without_bias_is_read_by_its_weights() -> None:
    schema = POPULATION.schema
    task = Task(
        lambda schema: nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5, bias=False)),
        CROSS_ENTROPY,
        ACCURACY,
        schema,
        dtype=torch.float64,
    )
    for label in range(5):
        x = np.random.default_rng(label).normal(size=(1, 12))
        population = Clients(((x, np.array([label])),), schema)
        with overheard(FedSGD(learning_rate=0.1), population, task, rounds=1) as found:
            assert IDLG().run(found.client(), RecordQuestion(1), found.tools()).y == [label]


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 12), st.floats(1e-3, 1e3))
@settings(max_examples=60)
def test_counts_add_up_and_do_not_depend_on_the_scale(seed: int, classes: int, records: int, scale: float) -> None:
    gradient = np.random.default_rng(seed).normal(size=classes)
    gradient -= gradient.mean()
    counts = label_counts(gradient, records)
    assert counts.sum() == records
    assert (counts >= 0).all()
    assert (label_counts(scale * gradient, records) == counts).all()


@given(st.lists(st.integers(0, 5), min_size=2, max_size=6).filter(lambda counts: sum(counts) > 0))
@settings(max_examples=60)
def test_counts_are_exact_where_a_model_is_sure_of_a_class_that_is_absent(counts: list[int]) -> None:
    """All probability on a further class: the gradient of every class that is there is −count / B, exactly."""
    total = sum(counts)
    gradient = np.array([*(-count / total for count in counts), 1.0])
    assert label_counts(gradient, total).tolist() == [*counts, 0]


def test_what_cannot_be_read_is_refused(heard: Overheard) -> None:
    tools = heard.tools()
    with pytest.raises(Refused, match="no exchange in round 7"):
        AnalyticInversion().run(heard.client(), RecordQuestion(1, 7), tools)
    population = least_squares_clients(3, clients=1, records=1)
    with pytest.raises(Refused, match='under cross-entropy, not under "squared"'):
        IDLG().run(heard.client(), RecordQuestion(1), Tools(regression_task(population), Streams(0)))
    bare = Task(lambda schema: nn.Linear(12, 5, bias=False), CROSS_ENTROPY, ACCURACY, POPULATION.schema)
    with pytest.raises(Refused, match="no linear layer with bias reads the input"):
        first_layer(bare)
    behind = Task(
        lambda schema: nn.Sequential(nn.Linear(12, 12, bias=False), nn.Linear(12, 5)),
        CROSS_ENTROPY,
        ACCURACY,
        POPULATION.schema,
    )
    with pytest.raises(Refused, match="reads the input as it is"):
        first_layer(behind)


def test_symbols_are_no_input_that_can_be_read() -> None:
    schema = Schema(input_shape=(4,), target="tokens", num_classes=9)
    with pytest.raises(Refused, match="inputs are symbols"):
        first_layer(make_task(TaskSettings(model="char_ngram"), schema))


def test_the_first_layer_is_found_where_the_input_is_flattened() -> None:
    task = classifier(POPULATION)
    assert first_layer(task) == "0."
    single = Task(lambda schema: nn.Linear(12, 5), CROSS_ENTROPY, ACCURACY, POPULATION.schema)
    assert first_layer(single) == ""


def test_a_float32_update_gives_the_record_to_its_precision() -> None:
    population = few_records([1])
    with overheard(
        FedSGD(learning_rate=0.1), population, classifier(population, dtype=torch.float32), rounds=1
    ) as found:
        answer = AnalyticInversion().run(found.client(), RecordQuestion(1), found.tools())
    assert answer.x is not None
    assert answer.status == "recovered"
    assert 1e-10 < np.abs(answer.x - population.records[0][0]).max() < 1e-3


def test_a_client_that_learns_nothing_gives_nothing() -> None:
    """g = 0: no unit can be divided by, nothing is guessed."""
    task = classifier(POPULATION)
    flat = np.zeros(task.dimension)
    exchange = Exchange(0, 0, flat, flat)

    class Silent:
        def exchanges(self) -> Iterator[Exchange]:
            yield exchange

    answer = AnalyticInversion().run(Silent(), RecordQuestion(1), Tools(task, Streams(0)))  # type: ignore[arg-type]
    assert answer.x is not None
    assert (len(answer.x), answer.status) == (0, "mixed")
    assert len(read_labels(task, exchange, 4)) == 4


def test_the_attacks_are_registered_and_declare_their_views() -> None:
    for kind, expected in (("analytic_inversion", AnalyticInversion), ("idlg", IDLG)):
        found = ATTACKS.get(kind)
        assert found is expected
        assert isinstance(found(), Attack)
        assert (found.asks, found.view, found.oracle) == ("record", Eavesdropper, "")

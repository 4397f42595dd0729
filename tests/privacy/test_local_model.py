"""Local-model reconstruction on logs that the engine wrote: exact recovery, precision, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.federated import FedAvg, FedProx, FedSGD, Phase
from rivage.learning.losses import SQUARED
from rivage.learning.metrics import MAE
from rivage.learning.task import Task
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.local_model import LocalModel, is_linear, reconstruct
from rivage.privacy.views import Eavesdropper, Refused
from rivage.studies.claims.eavesdropping_scenarios import (
    Decayed,
    Overheard,
    few_records,
    least_squares_clients,
    logistic_task,
    overheard,
    regression_task,
    ridge_optimum,
)
from rivage.testing.toys import Clients, layered_task

FEATURES = 5
POPULATION = least_squares_clients(FEATURES, records=60)


def full_batch(epochs: int = 2, rate: float = 0.1) -> FedAvg:
    return FedAvg(learning_rate=rate, work=Phase(epochs=epochs, batch_size=None))


@pytest.fixture(scope="module")
def half() -> Iterator[Overheard]:
    """Each client in half of the rounds."""
    with overheard(full_batch(), POPULATION, regression_task(POPULATION), rounds=24, cohort=5) as found:
        yield found


def relative(params: Any, truth: Any) -> float:
    assert params is not None
    return float(np.linalg.norm(params - truth) / np.linalg.norm(truth))


def test_the_client_optimum_is_recovered_and_the_last_model_is_far_from_it(half: Overheard) -> None:
    for client in range(3):
        answer = LocalModel().run(half.client(client), None, half.tools())
        truth = ridge_optimum(POPULATION, client)
        assert answer.status == "recovered"
        assert relative(answer.params, truth) < 1e-10
        assert relative(half.client(client).last().returned, truth) > 0.1


def test_it_takes_one_message_more_than_parameters(half: Overheard) -> None:
    told = list(half.client().exchanges())
    enough, less = reconstruct(told[: FEATURES + 2]), reconstruct(told[: FEATURES + 1])
    assert relative(enough.params, ridge_optimum(POPULATION, 0)) < 1e-9
    assert (less.params, less.status) == (None, "rank-deficient")


@pytest.mark.parametrize("algorithm", [FedProx(mu=0.5, learning_rate=0.1, work=Phase(epochs=3, batch_size=None))])
def test_a_proximal_term_leaves_the_optimum_where_it_is(algorithm: Any) -> None:
    """It pulls to what was sent: A changes, the point at which answers vanish does not."""
    with overheard(algorithm, POPULATION, regression_task(POPULATION), rounds=30, cohort=5) as found:
        answer = LocalModel().run(found.client(), None, found.tools())
    assert relative(answer.params, ridge_optimum(POPULATION, 0)) < 1e-9


@pytest.mark.parametrize("epochs", [1, 5])
def test_weight_decay_gives_the_ridge_optimum(epochs: int) -> None:
    algorithm = Decayed(decay=0.1, work=Phase(epochs=epochs, batch_size=None))
    with overheard(algorithm, POPULATION, regression_task(POPULATION), rounds=24, cohort=5) as found:
        answer = LocalModel().run(found.client(), None, found.tools())
    assert relative(answer.params, ridge_optimum(POPULATION, 0, decay=0.1)) < 1e-8
    assert relative(answer.params, ridge_optimum(POPULATION, 0)) > 1e-3


def test_a_float32_training_is_recovered_to_its_precision() -> None:
    with overheard(full_batch(), POPULATION, regression_task(POPULATION, torch.float32), rounds=60, cohort=5) as found:
        answer = LocalModel().run(found.client(), None, found.tools())
    assert answer.facts["unit"] == np.finfo(np.float32).eps
    assert answer.status == "recovered"
    assert 1e-9 < relative(answer.params, ridge_optimum(POPULATION, 0)) < 1e-3


def test_everybody_in_every_round_is_refused() -> None:
    population = least_squares_clients(20, records=60)
    with overheard(full_batch(), population, regression_task(population), rounds=22) as found:
        answer = LocalModel().run(found.client(), None, found.tools())
    assert (answer.params, answer.status) == (None, "ill-conditioned")
    assert answer.facts["condition"] > 1e12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", ["constant column", "absent value", "few records"])
def test_data_that_leave_directions_open(case: str, dtype: torch.dtype) -> None:
    """The answer is where the client would go by training on alone from its last model."""
    plain = least_squares_clients(FEATURES, records=3 if case == "few records" else 60)
    records = []
    for x, y in plain.records:
        changed = x.copy()
        if case != "few records":
            changed[:, 2] = 1.5 if case == "constant column" else 0.0
        records.append((changed, y))
    population = Clients(tuple(records), plain.schema)
    with overheard(full_batch(), population, regression_task(population, dtype), rounds=30, cohort=5) as found:
        answer = LocalModel().run(found.client(), None, found.tools())
        last = found.client().last().returned.astype(np.float64)
    x, y = population.records[0]
    wide = np.column_stack([x, np.ones(len(x))])
    nearest = last + np.linalg.pinv(wide, rcond=1e-10) @ (y[:, 0] - wide @ last)
    assert (answer.status, answer.facts["rank"]) == ("rank-deficient", 3 if case == "few records" else FEATURES)
    assert relative(answer.params, nearest) < (1e-9 if dtype == torch.float64 else 1e-3)


def test_mini_batches_give_an_estimate_that_is_nearer_than_the_last_model() -> None:
    """Ten clients of one training: nearer for at least eight, at estimates that tell the size of the error."""
    population = least_squares_clients(4, records=200)
    algorithm = FedAvg(learning_rate=0.1, work=Phase(epochs=2, batch_size=32))
    nearer, ratios = 0, []
    with overheard(algorithm, population, regression_task(population, torch.float32), rounds=60, cohort=5) as found:
        for client in range(10):
            answer, truth = (
                LocalModel().run(found.client(client), None, found.tools()),
                ridge_optimum(population, client),
            )
            error = relative(answer.params, truth)
            nearer += error < relative(found.client(client).last().returned, truth)
            ratios.append(error / answer.facts["error"])
            assert answer.status == "estimated" or answer.facts["error"] <= 0.01
    assert nearer >= 8
    assert 0.2 < np.median(ratios) < 3


def test_several_outputs_are_several_regressions() -> None:
    """H is block-diagonal: one block per output."""
    generator = np.random.default_rng(0)
    records = tuple((generator.normal(size=(30, 2)), generator.normal(size=(30, 2))) for _ in range(6))
    population = Clients(records, Schema(input_shape=(2,), target="real", num_outputs=2))
    task = Task(lambda schema: nn.Linear(2, 2), SQUARED, MAE, population.schema, dtype=torch.float64)
    with overheard(full_batch(), population, task, rounds=40, cohort=3) as found:
        answer = LocalModel().run(found.client(), None, found.tools())
    x, y = records[0]
    truth = np.linalg.lstsq(np.column_stack([x, np.ones(30)]), y, rcond=None)[0]
    np.testing.assert_allclose(answer.params, np.concatenate([truth[:2].T.ravel(), truth[2]]), atol=1e-8)


def test_fedsgd_is_one_local_step() -> None:
    with overheard(FedSGD(learning_rate=0.1), POPULATION, regression_task(POPULATION), rounds=30, cohort=5) as found:
        answer = LocalModel().run(found.client(), None, found.tools())
    assert relative(answer.params, ridge_optimum(POPULATION, 0)) < 1e-9


def test_other_models_and_losses_are_refused(half: Overheard) -> None:
    tools = Tools(layered_task(POPULATION), Streams(0))
    with pytest.raises(Refused, match=r"affine .* only for a linear model under squared loss"):
        LocalModel().run(half.client(), None, tools)
    classes = few_records([3], classes=2)
    with pytest.raises(Refused, match="Use the emulator"):
        LocalModel().run(half.client(), None, Tools(logistic_task(classes), Streams(0)))
    with pytest.raises(Refused, match="the model has 6 parameters, more than 5"):
        LocalModel(most_parameters=5).run(half.client(), None, half.tools())
    with pytest.raises(ConfigError, match="solver"):
        LocalModel(solver="magic")  # type: ignore[arg-type]


def test_linearity_is_told_from_outputs() -> None:
    assert is_linear(regression_task(POPULATION), np.random.default_rng(0))
    assert is_linear(regression_task(POPULATION, torch.float32), np.random.default_rng(0))
    assert not is_linear(layered_task(POPULATION), np.random.default_rng(0))
    # A ReLU is linear on each side of its kink, and a product of weights is so in each of them.
    for middle in (nn.ReLU(), nn.Identity()):
        task = Task(
            lambda schema, middle=middle: nn.Sequential(nn.Linear(FEATURES, 3), middle, nn.Linear(3, 1)),
            SQUARED,
            MAE,
            POPULATION.schema,
        )
        assert not is_linear(task, np.random.default_rng(0))


def test_the_attack_is_registered_and_declares_its_view() -> None:
    found = ATTACKS.get("local_model")
    assert found is LocalModel
    assert isinstance(found(), Attack)
    assert found.view is Eavesdropper
    assert found.oracle == ""


def test_evaluations_are_counted(half: Overheard) -> None:
    tools = half.tools()
    LocalModel().run(half.client(), None, tools)
    assert tools.meter.evaluations == 32  # four passes of eight records, to see that the model is linear

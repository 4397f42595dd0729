from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rivage.core.errors import ConfigError
from rivage.data.population import Schema
from rivage.learning.losses import CROSS_ENTROPY, LOGISTIC, LOSSES, NEXT_CHARACTER, SQUARED

CLASSES = Schema(input_shape=(3,), target="class", num_classes=4)
PAIR = Schema(input_shape=(3,), target="class", num_classes=2)
REALS = Schema(input_shape=(3,), target="real", num_outputs=2)
TOKENS = Schema(input_shape=(3,), target="tokens", num_classes=4)


def _example(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets of 7 records, in float64."""
    generator = torch.Generator().manual_seed(3)
    loss, schema = {
        "cross_entropy": (CROSS_ENTROPY, CLASSES),
        "logistic": (LOGISTIC, PAIR),
        "squared": (SQUARED, REALS),
        "next_character": (NEXT_CHARACTER, TOKENS),
    }[name]
    positions = (3,) if name == "next_character" else ()
    shape = (7, *positions, loss.width(schema))
    outputs = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if name == "squared":
        return outputs, torch.randn(7, 2, generator=generator, dtype=torch.float64)
    return outputs, torch.randint(schema.num_classes, (7, *positions), generator=generator)


REFERENCES = {
    "cross_entropy": lambda o, y: F.cross_entropy(o, y),
    "logistic": lambda o, y: F.cross_entropy(torch.cat([torch.zeros_like(o), o], dim=1), y),
    "squared": lambda o, y: 0.5 * F.mse_loss(o, y) * o.shape[1],
    "next_character": lambda o, y: F.cross_entropy(o.transpose(1, 2), y),
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_mean_over_records_is_torch_reduction(name: str) -> None:
    outputs, y = _example(name)
    losses = LOSSES.get(name).per_record(outputs, y)
    assert losses.shape == (7,)
    torch.testing.assert_close(losses.mean(), REFERENCES[name](outputs, y), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_every_record_stands_alone(name: str) -> None:
    outputs, y = _example(name)
    loss = LOSSES.get(name)
    alone = torch.cat([loss.per_record(outputs[i : i + 1], y[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(alone, loss.per_record(outputs, y), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    outputs, y = _example(name)
    assert torch.autograd.gradcheck(lambda o: LOSSES.get(name).per_record(o, y), outputs.requires_grad_())


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_loss_of_predictions_is_loss_of_outputs(name: str) -> None:
    outputs, y = _example(name)
    loss = LOSSES.get(name)
    torch.testing.assert_close(
        loss.of_predictions(loss.predict(outputs), y), loss.per_record(outputs, y), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("name", ["cross_entropy", "logistic", "next_character"])
def test_predictions_are_distributions_over_the_classes(name: str) -> None:
    outputs, _ = _example(name)
    schema = {"cross_entropy": CLASSES, "logistic": PAIR, "next_character": TOKENS}[name]
    predictions = LOSSES.get(name).predict(outputs)
    assert predictions.shape == (*outputs.shape[:-1], schema.num_classes)
    torch.testing.assert_close(
        predictions.sum(-1), torch.ones(predictions.shape[:-1], dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_squared_is_a_gaussian_of_unit_variance_without_its_constant() -> None:
    outputs, y = _example("squared")
    density = torch.distributions.Normal(outputs, 1.0).log_prob(y).sum(dim=1)
    constant = torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))  # ½ log 2π for each of two outputs
    torch.testing.assert_close(SQUARED.per_record(outputs, y), -density - constant)


def test_squared_takes_a_single_real_without_its_axis() -> None:
    outputs, y = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 2.0])
    assert SQUARED.per_record(outputs, y).tolist() == [2.0, 0.0]


def test_extreme_logits_stay_finite() -> None:
    outputs = torch.tensor([[1e4], [-1e4]])
    assert LOGISTIC.per_record(outputs, torch.tensor([0, 1])).tolist() == [1e4, 1e4]
    predictions = LOGISTIC.predict(outputs)
    assert predictions.tolist() == [[0, 1], [1, 0]]
    assert LOGISTIC.of_predictions(predictions, torch.tensor([0, 0])).isfinite().all()


def test_a_prediction_that_is_no_number_has_no_loss() -> None:
    assert CROSS_ENTROPY.of_predictions(torch.tensor([[torch.nan, 0.5]]), torch.tensor([0])).isnan().all()


def test_registry_holds_every_loss_under_its_name() -> None:
    assert [LOSSES.get(kind).name for kind in LOSSES.builtin] == list(LOSSES.builtin)
    with pytest.raises(ConfigError, match=r'unknown loss kind "cross_entropi".*Did you mean "cross_entropy"'):
        LOSSES.get("cross_entropi")

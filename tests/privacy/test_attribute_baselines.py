"""What is known without any message: the constant guess, imputation from other clients, and the Markov bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.learning.losses import SQUARED
from rivage.learning.metrics import MAE
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.attribute_baselines import imputed, is_linear, majority, markov_bound
from rivage.privacy.questions import Attribute, AttributeQuestion

BINARY = Attribute("s", (1,), np.array([[0.0], [1.0]]), ("no", "yes"))


def test_the_constant_guess() -> None:
    assert majority(np.array([2, 0, 2, 1])) == 2
    assert majority(np.array([1, 0, 0, 1])) == 0, "ties go to the lower value"
    assert majority(np.array([1.0, 2.0, 6.0])) == 3.0


def question(x: np.ndarray, y: np.ndarray, attribute: Attribute = BINARY) -> AttributeQuestion:
    hidden = x.copy()
    hidden[:, list(attribute.columns)] = 0
    return AttributeQuestion(attribute, hidden, y)


def records(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = Streams(seed).numpy("records")
    x = generator.normal(size=(n, 3))
    s = generator.integers(2, size=n)
    x[:, 1] = s
    return x, 4 * s + 0.1 * x[:, 0], s


def test_what_the_target_gives_away_is_imputed_and_what_is_independent_is_not() -> None:
    x, y, s = records(0)
    asked = question(x, y)
    hidden, other_y, other_s = records(1)
    hidden[:, 1] = 0
    guess = imputed(asked, (hidden, other_y, other_s))
    assert guess is not None
    assert (guess == s).all()
    blind = imputed(question(x, y[::-1].copy()), (hidden, other_y, other_s))
    assert blind is not None
    assert abs((blind == s).mean() - 0.5) < 0.12, "4 standard deviations of 300 fair coins"


def test_products_are_tried() -> None:
    """The attribute is whether two inputs have the same sign: nothing linear knows it."""
    generator = Streams(0).numpy("xor")
    x = generator.normal(size=(600, 3))
    s = (x[:, 0] * x[:, 2] > 0).astype(np.int64)
    guess = imputed(question(x[:300], x[:300, 0]), (x[300:] * [1, 0, 1], x[300:, 0], s[300:]))
    assert guess is not None
    assert (guess == s[:300]).mean() > 0.95


def test_products_with_the_target_are_tried_among_many_inputs() -> None:
    """The attribute turns the effect of another input round: in the target alone it does not show."""
    generator = Streams(7).numpy("many")
    x, s = generator.normal(size=(800, 40)), generator.integers(2, size=800)
    x[:, 1] = 0  # where the attribute is
    y = 2 * (2 * s - 1) * np.sign(x[:, 0]) + 0.1 * generator.normal(size=800)
    guess = imputed(question(x[:300], y[:300]), (x[300:], y[300:], s[300:]))
    assert np.mean(guess == s[:300]) > 0.9


def test_classes_numbers_and_single_values() -> None:
    x, _, s = records(0)
    label = 2 * s + (x[:, 0] > 0)
    guess = imputed(question(x[:150], label[:150]), (x[150:] * [1, 0, 1], label[150:], s[150:]))
    assert guess is not None
    assert (guess == s[:150]).all(), "a class is no number"
    numeric = Attribute("v", (1,), np.array([[-3.0], [3.0]]))
    value = x[:, 0] + 2 * x[:, 2]
    found = imputed(question(x[:150], value[:150], numeric), (x[150:] * [1, 0, 1], value[150:], value[150:]))
    assert found is not None
    assert np.abs(found - value[:150]).max() < 0.05
    constant = imputed(question(x, label), (x, label, np.ones(len(x), np.int64)))
    assert constant is not None
    assert (constant == 1).all()
    assert imputed(question(x, label), (x[:1], label[:1], s[:1])) is None


def linear(features: int = 3, outputs: int = 1) -> Task:
    schema = Schema(input_shape=(features,), target="real", num_outputs=outputs)
    return make_task(TaskSettings(), schema, dtype=torch.float64)


def test_the_bound_by_hand() -> None:
    """θ = 3, codes one apart, residuals 1 and -1: 1 − 4·1 / 9."""
    x = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    params = np.array([1.0, 3.0, 0.0, 0.5])  # weight, then bias
    y = np.array([0.5 + 3 + 1, 0.5 + 1 - 1])
    assert markov_bound(linear(), params, x, y, BINARY) == pytest.approx(1 - 4 / 9)
    wide = Attribute("s", (1,), np.array([[-1.0], [2.0]]), ("no", "yes"))
    assert markov_bound(linear(), params, x, y, wide) == pytest.approx(1 - 4 / 81)
    pair = Attribute("s", (0, 1), np.array([[1.0, 0.0], [0.0, 1.0]]), ("no", "yes"))
    assert markov_bound(linear(), params, x, y, pair) == pytest.approx(1 - 4 / 4), "one-hot: the step is θ₁ − θ₀"
    assert markov_bound(linear(), params * [1, 0, 1, 1], x, y, BINARY) == -math.inf


@given(st.integers(0, 10**6), st.integers(1, 3), st.floats(0.01, 30))
def test_no_data_and_no_model_break_the_bound(seed: int, outputs: int, size: float) -> None:
    """Whatever the records, the linear model and the number of outputs: brute force decides no worse than the bound."""
    generator = Streams(seed).numpy("bound")
    task = linear(3, outputs)
    x, y = generator.normal(size=(20, 3)), size * generator.normal(size=(20, outputs))
    s = generator.integers(2, size=20)
    x[:, 1] = s
    params = generator.normal(size=task.dimension)
    bound = markov_bound(task, params, x, y, BINARY)
    weight, bias = params[: 3 * outputs].reshape(outputs, 3), params[3 * outputs :]
    losses = [np.square(y - (BINARY.plug(x, np.full(20, k)) @ weight.T + bias)).sum(axis=1) for k in (0, 1)]
    decided = (losses[1] < losses[0]).astype(int)
    assert bound is not None
    assert (decided == s).mean() >= bound - 1e-9


def test_the_bound_is_for_linear_models_squared_loss_and_two_values() -> None:
    schema = Schema(input_shape=(3,), target="real", num_outputs=1)
    x, y = np.zeros((1, 3)), np.zeros(1)
    net = make_task(TaskSettings(model="mlp"), schema)
    assert not is_linear(net)
    assert markov_bound(net, np.zeros(net.dimension), x, y, BINARY) is None
    squashed = Task(lambda schema: nn.Sequential(nn.Linear(3, 1), nn.Tanh()), SQUARED, MAE, schema)
    assert not is_linear(squashed)
    three = Attribute("s", (1,), np.array([[0.0], [1.0], [2.0]]), ("a", "b", "c"))
    assert is_linear(linear())
    assert markov_bound(linear(), np.zeros(4), x, y, three) is None
    classes = make_task(TaskSettings(), Schema(input_shape=(3,), target="class", num_classes=2))
    assert markov_bound(classes, np.zeros(8), x, y, BINARY) is None

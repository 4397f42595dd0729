"""Populations of known laws: the data follow the truth they publish."""

from __future__ import annotations

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.data.build import build_population
from rivage.data.synthetic import Leaf, Linear, Mixture

SMALL = Mixture(clients=40, features=10, test_records=500)


def test_sizes_of_the_mixture() -> None:
    """50 + floor(LogNormal(4, 2)), at most 1,000: the median is 50 + floor(e^4) = 104."""
    data = Mixture(clients=2_000, features=1, test_records=1).load(0)
    sizes = np.bincount(data.clients[~data.test])
    assert sizes.min() >= 50
    assert sizes.max() == 1_000
    assert abs(np.mean(sizes <= 104) - 0.5) < 3 * 0.5 / np.sqrt(2_000)
    assert (np.bincount(data.clients[data.test]) == 1).all()


def test_labels_of_the_mixture_come_from_its_components() -> None:
    """Without noise, some component explains each record; components are used as often as the weights say."""
    settings = Mixture(clients=30, features=8, noise=0.0, test_records=2_000)
    data, truth = settings.load(3), settings.truth(3)
    votes = (data.records.x @ truth.components.T > 0).astype(int)
    assert (votes == data.records.y[:, None]).any(axis=1).all()
    agreement = np.array([(votes == data.records.y[:, None])[data.clients == c].mean(axis=0) for c in range(30)])
    # P(component m agrees) = Σ_l π_l P(m and l agree), by counting on the inputs themselves.
    same = (votes[:, :, None] == votes[:, None, :]).mean(axis=0)
    assert np.abs(agreement - truth.weights @ same).max() < 4 * 0.5 / np.sqrt(2_000)


def test_truth_of_the_mixture() -> None:
    truth = Mixture(clients=5_000, components=3, features=4, alpha=0.4).truth(1)
    assert np.allclose(truth.weights.sum(axis=1), 1)
    assert np.abs(truth.components).max() <= 1
    # Var of a Dirichlet coordinate: (1/M)(1 − 1/M)/(αM + 1).
    assert truth.weights.var(axis=0).mean() == pytest.approx(2 / 9 / 2.2, rel=0.05)
    small = Mixture(clients=50, components=3, features=4, alpha=1e-3).truth(1)
    assert small.weights.max(axis=1).min() > 0.9


def test_the_mixture_is_drawn_from_its_seed() -> None:
    one, same, other = SMALL.load(0), SMALL.load(0), SMALL.load(1)
    assert np.array_equal(one.records.x, same.records.x)
    assert np.array_equal(one.records.y, same.records.y)
    assert not np.array_equal(one.records.y[:50], other.records.y[:50])
    held = build_population(SMALL, seed=0)
    assert held.size == 40
    assert all(len(held.client(id).test) == 500 for id in range(40))


def accuracy_of_one_linear_model(data: object) -> float:
    """Least squares on one-hot classes over all clients together."""
    x, y = data.records.x, data.records.y  # type: ignore[attr-defined]
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    weights = np.linalg.lstsq(x, np.eye(10)[y], rcond=None)[0]
    return float(np.mean((x @ weights).argmax(axis=1) == y))


def test_leaf_clients_differ_by_alpha_and_beta() -> None:
    data = Leaf(clients=20, max_records=200).load(0)
    assert data.records.x.shape[1] == 60
    assert data.records.schema.num_classes == 10
    assert np.bincount(data.clients).min() >= 50
    calm, wild = (Leaf(clients=200, alpha=0.0, beta=beta, max_records=60).load(0) for beta in (0.0, 3.0))

    def spread(data: object) -> float:
        means = [data.records.x[data.clients == c].mean() for c in range(200)]  # type: ignore[attr-defined]
        return float(np.std(means))

    assert spread(calm) < 0.3
    assert spread(wild) == pytest.approx(3.0, rel=0.2)


def test_leaf_inputs_have_the_published_spectrum() -> None:
    data = Leaf(clients=30, beta=0.0).load(0)
    sizes = np.bincount(data.clients)
    largest = data.records.x[data.clients == sizes.argmax()]
    expected = np.arange(1, 61) ** -1.2
    assert np.allclose(largest.var(axis=0), expected, rtol=6 * np.sqrt(2 / len(largest)))


def test_linear_clients_have_the_published_optima() -> None:
    settings = Linear(clients=4, features=5, records=4_000, noise=0.1)
    data, truth = settings.load(2), settings.truth(2)
    for client in range(4):
        own = data.clients == client
        found = np.linalg.lstsq(data.records.x[own], data.records.y[own], rcond=None)[0]
        assert np.abs(found - truth[client]).max() < 5 * 0.1 / np.sqrt(4_000)
    assert np.allclose(Linear(spread=0.0).truth(0), Linear(spread=0.0).truth(0)[0])


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Mixture(clients=0), "clients is 0"),
        (lambda: Mixture(alpha=0.0), "alpha is 0.0"),
        (lambda: Leaf(classes=1), "classes is 1"),
        (lambda: Leaf(beta=-1.0), "beta is -1.0"),
        (lambda: Linear(noise=-0.1), "noise is -0.1"),
        (lambda: Linear(records=0), "records is 0"),
    ],
)
def test_settings_out_of_range(build: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build()  # type: ignore[operator]

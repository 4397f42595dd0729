"""The bound of a stream and its minimiser: closed form, grid, a generic optimiser, degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rivage.core.errors import ConfigError
from rivage.federated.stream_shares import best_shares, bound, effective_records, historical_share

PUBLISHED = [
    (100, 400, 0.5, 0.29177),
    (100, 400, 1, 0.4),
    (100, 400, 2, 1),
    (400, 400, 0.2, 0.57143),
    (400, 400, 0.5, 0.68898),
    (800, 200, 0.2, 0.87273),
]
records = st.floats(1, 1e5)


@pytest.mark.parametrize(("historical", "fresh", "kappa", "expected"), PUBLISHED)
def test_values_of_the_closed_form(historical: float, fresh: float, kappa: float, expected: float) -> None:
    assert historical_share(historical, fresh, kappa) == pytest.approx(expected, abs=5e-6)


@given(records, records, st.floats(0, 5))
def test_the_closed_form_is_the_minimum_of_the_bound(historical: float, fresh: float, kappa: float) -> None:
    counts, drift = np.array([historical, fresh]), np.array([0.0, 1.0])
    p = historical_share(historical, fresh, kappa)
    found = bound(np.array([p, 1 - p]), counts, drift, kappa)
    grid = np.linspace(0, 1, 401)
    values = np.sqrt(grid**2 / historical + (1 - grid) ** 2 / fresh) + kappa * (1 - grid) / math.sqrt(fresh)
    assert found <= values.min() * (1 + 1e-9)
    uniform = historical / (historical + fresh)
    assert uniform * (1 - 1e-12) <= p <= 1  # a property of the bound: fresh data never deserve more than their share


@given(records, records)
def test_both_ends_are_exact(historical: float, fresh: float) -> None:
    assert historical_share(historical, fresh, 0) == historical / (historical + fresh)
    gamma = math.sqrt(fresh / historical)
    assert historical_share(historical, fresh, gamma) == historical_share(historical, fresh, math.inf) == 1
    assert historical_share(historical, fresh, gamma * 0.999) < 1


def test_a_kind_without_records_gets_nothing() -> None:
    assert historical_share(0, 10, 3.0) == 0
    assert historical_share(10, 0, 0.0) == 1


@settings(deadline=None, max_examples=25)
@given(records, records, st.floats(0, 3))
def test_the_solver_agrees_with_the_closed_form(historical: float, fresh: float, kappa: float) -> None:
    found = best_shares(np.array([historical, fresh]), np.array([0.0, 1.0]), kappa)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert found[0] == pytest.approx(historical_share(historical, fresh, kappa), abs=1e-4)


@pytest.mark.parametrize("discrepancy", [0.0, 0.01, 0.05, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_five_groups_agree_with_a_generic_optimiser(seed: int, discrepancy: float) -> None:
    """SLSQP on the same problem with slack variables for |p − α|."""
    rng = np.random.default_rng(seed)
    counts, drift = rng.integers(20, 2000, 5).astype(float), rng.random(5) * (rng.random(5) < 0.7)
    kappa, wanted = 2 * rng.random(), rng.dirichlet(np.ones(5))

    def objective(z: np.ndarray) -> float:
        noise = float((z[:5] * drift / np.sqrt(counts)).sum())
        return math.sqrt(float((z[:5] ** 2 / counts).sum())) + kappa * noise + discrepancy * float(z[5:].sum())

    constraints = [
        {"type": "eq", "fun": lambda z: z[:5].sum() - 1},
        {"type": "ineq", "fun": lambda z: z[5:] - z[:5] + wanted},
        {"type": "ineq", "fun": lambda z: z[5:] + z[:5] - wanted},
    ]
    start = np.concatenate([np.full(5, 0.2), np.abs(0.2 - wanted)])
    exact = {"ftol": 1e-14, "maxiter": 1000}
    other = minimize(objective, start, method="SLSQP", bounds=[(0, 1)] * 10, constraints=constraints, options=exact)
    found = best_shares(counts, drift, kappa, wanted=wanted, discrepancy=discrepancy)
    value = bound(found, counts, drift, kappa, wanted=wanted, discrepancy=discrepancy)
    assert value <= other.fun + 1e-9
    np.testing.assert_allclose(found, other.x[:5], atol=1e-4)
    if discrepancy == 10.0:  # nothing is worth leaving what is wanted
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 999))
def test_no_move_between_two_groups_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(2, 8))
    counts, drift, wanted = rng.uniform(1, 1e4, groups), rng.random(groups), rng.dirichlet(np.ones(groups))
    kappa, discrepancy = 2 * rng.random(), 0.1 * rng.random()
    found = best_shares(counts, drift, kappa, wanted=wanted, discrepancy=discrepancy)
    value = bound(found, counts, drift, kappa, wanted=wanted, discrepancy=discrepancy)
    for _ in range(50):
        i, j = rng.integers(groups, size=2)
        moved = found.copy()
        step = min(moved[i], 10 ** rng.uniform(-6, 0))
        moved[i] -= step
        moved[j] += step
        assert bound(moved, counts, drift, kappa, wanted=wanted, discrepancy=discrepancy) >= value - 1e-12


def test_groups_that_are_alike_are_one_group() -> None:
    whole = best_shares(np.array([100.0, 400.0]), np.array([0.0, 1.0]), 0.0)
    parts = best_shares(np.array([100.0, 150.0, 250.0]), np.array([0.0, 1.0, 1.0]), 0.0)
    np.testing.assert_allclose(parts, [whole[0], whole[1] * 150 / 400, whole[1] * 250 / 400], atol=1e-9)


def test_effective_records() -> None:
    assert effective_records(np.array([0.2, 0.8]), np.array([100.0, 400.0])) == pytest.approx(500)
    assert effective_records(np.array([1.0, 0.0]), np.array([100.0, 0.0])) == pytest.approx(100)


def test_what_cannot_be_solved_is_refused() -> None:
    with pytest.raises(ConfigError, match="a group has no records"):
        best_shares(np.array([1.0, 0.0]), np.zeros(2), 1.0)
    for kappa in (-1.0, math.nan):
        with pytest.raises(ConfigError, match="kappa is"):
            historical_share(1, 1, kappa)

"""Accountants: closed forms, reference values, orderings that every upper bound must keep, and calibration."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from rivage.core.errors import ConfigError
from rivage.federated import accounting
from rivage.federated.accounting import Release, epsilon_of, gaussian_delta, gaussian_epsilon, merged, noise_for
from rivage.federated.discrete_gaussian import epsilon as concentrated

DELTA = 1e-5
TABLE = [  # noise, sampling, steps, RDP, PLD at delta = 1e-5, by dp-accounting 0.6.0
    (1.0, 0.01, 1000, 2.1014, 1.8282),
    (1.1, 256 / 60000, 14062, 2.5966, 2.3817),
    (4.0, 1.0, 20, 5.3777, 4.9833),
    (1.0, 1.0, 1, 4.7285, 4.3772),
]


@pytest.fixture(scope="module")
def dp() -> object:
    return pytest.importorskip("dp_accounting", reason="the extra privacy is not installed")


@pytest.mark.parametrize(("noise", "sampling", "steps", "rdp", "pld"), TABLE)
def test_reference_values(dp: object, noise: float, sampling: float, steps: int, rdp: float, pld: float) -> None:
    one = [Release(noise, sampling, steps)]
    assert epsilon_of(one, DELTA, "rdp") == pytest.approx(rdp, abs=1e-3)
    assert epsilon_of(one, DELTA, "pld") == pytest.approx(pld, abs=1e-2)
    if sampling == 1:
        assert epsilon_of(one, DELTA) == pytest.approx(pld, abs=1e-3)
        assert epsilon_of(one, DELTA) <= epsilon_of(one, DELTA, "pld") + 1e-9  # exact is never above a bound


def test_the_exact_formula_is_the_hockey_stick_divergence() -> None:
    """δ(ε) = ∫ max(0, p − e^ε q) for two unit Gaussians μ apart, by quadrature."""
    for mu, epsilon in ((0.3, 0.1), (1.0, 0.5), (2.0, 3.0), (4.0, 1.0)):
        gap = lambda x, m=mu, e=epsilon: max(0.0, norm.pdf(x, m) - math.exp(e) * norm.pdf(x))  # noqa: E731
        wanted, _ = quad(gap, -10, mu + 12, points=[epsilon / mu + mu / 2], limit=200)
        assert gaussian_delta(mu, epsilon) == pytest.approx(wanted, rel=1e-6)


@given(st.floats(1e-3, 40), st.floats(1e-12, 0.3))
def test_epsilon_inverts_delta(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    if epsilon == 0:
        assert gaussian_delta(mu, 0.0) <= delta
    else:
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)


def test_small_delta_of_a_small_mu_does_not_cancel() -> None:
    """Two nearly equal numbers are subtracted: the result must still fall with ε, and be positive."""
    values = [gaussian_delta(0.05, epsilon) for epsilon in np.linspace(0, 0.5, 60)]
    assert all(a > b > 0 for a, b in pairwise(values))


@given(st.lists(st.tuples(st.floats(0.5, 20), st.integers(1, 50)), min_size=1, max_size=6))
def test_full_batches_compose_as_one_gaussian(parts: list[tuple[float, int]]) -> None:
    """The order and the grouping of steps do not matter: only Σ T / z² does."""
    steps = [Release(noise, 1.0, 1) for noise, count in parts for _ in range(count)]
    mu = math.sqrt(sum(count / noise**2 for noise, count in parts))
    assert epsilon_of(steps[::-1], DELTA) == pytest.approx(gaussian_epsilon(mu, DELTA), rel=1e-9)


@given(st.lists(st.tuples(st.floats(0.5, 20), st.integers(1, 50)), min_size=1, max_size=4))
def test_concentrated_releases_add_up_and_cost_more_than_gaussian_ones(parts: list[tuple[float, int]]) -> None:
    """By ρ = Σ T / 2z²; one concentrated release is enough for the looser bound."""
    bounded = [Release(noise, 1.0, count, concentrated=True) for noise, count in parts]
    gaussian = [Release(noise, 1.0, count) for noise, count in parts]
    rho = sum(count / (2 * noise**2) for noise, count in parts)
    assert epsilon_of(bounded, DELTA) == pytest.approx(concentrated(rho, DELTA), rel=1e-9)
    assert epsilon_of([*bounded[:1], *gaussian[1:]], DELTA) == pytest.approx(concentrated(rho, DELTA), rel=1e-9)
    assert epsilon_of(bounded, DELTA) >= epsilon_of(gaussian, DELTA)


def test_concentrated_releases_have_no_sampling() -> None:
    with pytest.raises(ConfigError, match="has no sampling"):
        Release(1.0, 0.5, 1, concentrated=True)
    with pytest.raises(ConfigError, match="does not add up with sampled"):
        epsilon_of([Release(1.0, 1.0, 1, concentrated=True), Release(1.0, 0.5, 1)], DELTA)


@settings(max_examples=4, deadline=None)
@given(st.floats(0.7, 4), st.floats(0.01, 0.6), st.integers(1, 300))
def test_upper_bounds_are_ordered(noise: float, sampling: float, steps: int) -> None:
    """PLD <= RDP; sampling helps; another step, less noise or a larger sample never lowers ε."""
    pytest.importorskip("dp_accounting", reason="the extra privacy is not installed")
    found = epsilon_of([Release(noise, sampling, steps)], DELTA, "rdp")
    assert epsilon_of([Release(noise, sampling, steps)], DELTA, "pld") <= found + 1e-6
    assert found <= epsilon_of([Release(noise, 1.0, steps)], DELTA, "rdp") + 1e-9
    assert found <= epsilon_of([Release(noise, sampling, steps + 1)], DELTA, "rdp") + 1e-9
    assert found >= epsilon_of([Release(noise * 1.1, sampling, steps)], DELTA, "rdp") - 1e-9


def test_two_releases_cost_more_than_either_and_less_than_their_sum(dp: object) -> None:
    one, other = Release(1.2, 0.1, 60), Release(2.0, 0.3, 20)
    both = epsilon_of([one, other], DELTA)
    alone = [epsilon_of([each], DELTA) for each in (one, other)]
    assert max(alone) < both < sum(alone)


def test_a_budget_that_is_reset_promises_too_little(dp: object) -> None:
    """Twenty rounds of ε = 1 each are no ε = 1: the composition is far above what one round says."""
    noise = noise_for(1.0, DELTA, sampling=0.2, steps=10, accountant="rdp")
    one_round, all_rounds = (epsilon_of([Release(noise, 0.2, 10 * rounds)], DELTA, "rdp") for rounds in (1, 20))
    assert one_round == pytest.approx(1.0, abs=5e-3)
    assert all_rounds > 4


def test_edges() -> None:
    assert epsilon_of([], DELTA) == 0
    assert epsilon_of([Release(1.0, 0.0, 100), Release(1.0, 1.0, 0)], DELTA) == 0
    assert epsilon_of([Release(0.0, 1.0, 1)], DELTA) == math.inf
    assert epsilon_of([Release(1e6, 1.0, 1)], DELTA) == 0
    assert merged([Release(1.0, 1.0, 1)] * 3) == (Release(1.0, 1.0, 3),)
    for delta in (0.0, 1.0, -1e-5):
        with pytest.raises(ConfigError, match="delta is"):
            epsilon_of([Release(1.0, 1.0, 1)], delta)
    with pytest.raises(ConfigError, match="no sampling"):
        epsilon_of([Release(1.0, 0.5, 1)], DELTA, "exact")
    for bad in ({"noise": -1.0}, {"sampling": 1.5}, {"steps": -1}):
        with pytest.raises(ConfigError):
            Release(**({"noise": 1.0, "sampling": 1.0, "steps": 1} | bad))


@given(st.floats(0.1, 20), st.integers(1, 1000))
def test_calibrated_noise_is_tight(epsilon: float, steps: int) -> None:
    noise = noise_for(epsilon, DELTA, steps=steps)
    assert epsilon_of([Release(noise, 1.0, steps)], DELTA) <= epsilon
    assert epsilon_of([Release(noise / 1.002, 1.0, steps)], DELTA) > epsilon


def test_without_the_extra_sampling_is_refused_and_full_batches_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    accounting._composed.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    assert epsilon_of([Release(4.0, 1.0, 20)], DELTA) == pytest.approx(4.9833, abs=1e-3)
    with pytest.raises(ImportError, match=r"rivage\[privacy\]"):
        epsilon_of([Release(4.0, 0.5, 20)], DELTA)

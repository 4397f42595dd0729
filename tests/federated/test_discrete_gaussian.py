"""The discrete Gaussian: its law, its sums, and what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chisquare, kstest, norm

from rivage.core.errors import ConfigError
from rivage.federated.discrete_gaussian import (
    MOST_SIGMA,
    _exponential,
    _fallen,
    _geometric,
    _laplace,
    concentrated,
    discrete_gaussian,
    epsilon,
)

COUNT = 100_000
ALARM = 1e-4  # of each randomised statement below; seeds are fixed


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def law(sigma: float, reach: int) -> np.ndarray:
    """Probabilities of −reach, …, reach."""
    z = np.arange(-reach, reach + 1)
    weights = np.exp(-(z**2) / (2 * sigma**2))
    result: np.ndarray = weights / weights.sum()
    return result


def require_law(samples: np.ndarray, probabilities: np.ndarray) -> None:
    """Chi-square, rare values together."""
    reach = len(probabilities) // 2
    counts = np.bincount(samples.clip(-reach, reach) + reach, minlength=len(probabilities))
    common = probabilities * len(samples) >= 10
    observed = [*counts[common], counts[~common].sum()]
    expected = [*probabilities[common] * len(samples), (1 - probabilities[common].sum()) * len(samples)]
    assert chisquare(observed, expected, sum_check=False).pvalue > ALARM


# --- coins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("above", "below"), [(0, 7), (1, 7), (3, 7), (7, 7), (1, 1), (5, 2**50)])
def test_a_coin_of_probability_exp_minus_gamma(above: int, below: int) -> None:
    heads = int(_exponential(np.full(COUNT, above), below, rng()).sum())
    p = math.exp(-above / below)
    assert abs(heads - COUNT * p) <= 4.5 * math.sqrt(COUNT * p * (1 - p)) + 1e-9 + 5 * COUNT * above / below * (
        p > 0.999
    )


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0, 1.7, 3.0, 4.25])
def test_larger_exponents_are_split(gamma: float) -> None:
    heads = int(_fallen(np.full(COUNT, round(100 * gamma)), 100, rng()).sum())
    p = math.exp(-gamma)
    assert abs(heads - COUNT * p) <= 4.5 * math.sqrt(COUNT * p * (1 - p)) + 1e-9


def test_the_geometric_law() -> None:
    draws, k = _geometric(COUNT, rng()), np.arange(12)
    require = np.exp(-k) * (1 - math.exp(-1))
    counts = np.bincount(draws, minlength=12)[:12]
    expected = COUNT * require
    common = expected >= 10
    assert chisquare(counts[common], expected[common] * counts[common].sum() / expected[common].sum()).pvalue > ALARM


@pytest.mark.parametrize("scale", [1, 2, 9])
def test_the_discrete_laplace_law(scale: int) -> None:
    z = np.arange(-20 * scale, 20 * scale + 1)
    weights = np.exp(-np.abs(z) / scale)
    require_law(_laplace(scale, COUNT, rng(1)), weights / weights.sum())


# --- the law ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1, 2, 3, 10])
def test_the_law_is_the_discrete_gaussian(sigma: int) -> None:
    require_law(discrete_gaussian(sigma, COUNT, rng(2)), law(sigma, 9 * sigma))


@pytest.mark.parametrize("sigma", [10_000, MOST_SIGMA])
def test_a_wide_one_is_a_gaussian(sigma: int) -> None:
    samples = discrete_gaussian(sigma, COUNT, rng(3))
    assert samples.dtype == np.int64
    assert kstest(samples / sigma, norm.cdf).pvalue > ALARM


def test_a_sum_has_the_variance_of_its_terms() -> None:
    total = sum(discrete_gaussian(5, COUNT, rng(seed)) for seed in range(8))
    assert np.var(total) == pytest.approx(8 * 25, rel=4.5 * math.sqrt(2 / COUNT))


def test_samples_repeat_with_their_generator_and_count() -> None:
    np.testing.assert_array_equal(discrete_gaussian(4, 50, rng(9)), discrete_gaussian(4, 50, rng(9)))
    assert len(discrete_gaussian(4, 0, rng())) == 0
    assert len(discrete_gaussian(4, 1, rng())) == 1


def test_sigma_below_one_is_refused() -> None:
    with pytest.raises(ConfigError):
        discrete_gaussian(0, 1, rng())


# --- what it promises ------------------------------------------------------------------------------------------------


def renyi(p: np.ndarray, q: np.ndarray, alpha: float) -> float:
    """Of order alpha, where both are positive."""
    both = (p > 0) & (q > 0)
    logs = alpha * np.log(p[both]) + (1 - alpha) * np.log(q[both])
    peak = logs.max()
    return float((peak + np.log(np.exp(logs - peak).sum())) / (alpha - 1))


@pytest.mark.parametrize("clients", [1, 2, 5])
@pytest.mark.parametrize("sigma", [1, 2, 3])
@pytest.mark.parametrize("change", [1, 2])
def test_renyi_divergences_are_within_what_concentrated_privacy_allows(clients: int, sigma: int, change: int) -> None:
    """The exact law of the sum, by convolution, against itself moved by what one client changes."""
    one = law(sigma, 12 * sigma)
    total = one
    for _ in range(clients - 1):
        total = np.convolve(total, one)
    here, there = np.pad(total, (0, change)), np.pad(total, (change, 0))
    rho = concentrated(sigma, clients, change, 1)
    for alpha in (1.5, 2.0, 5.0):
        assert renyi(here, there, alpha) <= rho * alpha * (1 + 1e-6)
    assert rho >= change**2 / (2 * clients * sigma**2) * (1 - 1e-12)
    assert renyi(here, there, 2.0) > 0.9 * change**2 / (clients * sigma**2)  # the bound is not idle


def test_wide_noise_costs_what_a_gaussian_costs() -> None:
    assert concentrated(1000, 100, 500.0, 100_000) == pytest.approx(0.5 * 500**2 / (100 * 1000**2), rel=1e-12)
    assert concentrated(1, 2, 1.0, 4) > 0.25  # a sum of narrow ones costs more


@pytest.mark.parametrize(("rho", "expected"), [(0.5, 4.7285), (0.5 * 20 / 16, 5.3777)])
def test_epsilon_is_that_of_renyi_accounting(rho: float, expected: float) -> None:
    """A Gaussian of multiplier 1 once, of multiplier 4 twenty times, at delta 1e-5: values of dp-accounting."""
    assert epsilon(rho, 1e-5) == pytest.approx(expected, abs=1e-3)


def test_epsilon_is_above_the_exact_one_and_grows() -> None:
    def exact_delta(eps: float, mu: float) -> float:
        return float(norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu))

    values = [epsilon(rho, 1e-6) for rho in (0.0, 1e-4, 0.01, 0.1, 1.0, 10.0)]
    assert values == sorted(values)
    for rho, value in zip((0.01, 0.1, 1.0), values[2:], strict=False):
        assert exact_delta(value, math.sqrt(2 * rho)) <= 1e-6

"""Lower bounds on epsilon: closed forms, honesty on mechanisms whose epsilon is known, planted faults."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from rivage.core.errors import DataError
from rivage.federated.accounting import gaussian_epsilon
from rivage.privacy.epsilon_bounds import (
    Guesses,
    best_of_one_run,
    from_errors,
    from_one_run,
    from_scores,
    guesses,
)

DELTA = 1e-5
FORBIDDEN = 14
"""Binomial(100, 0.05) reaches this with probability below 0.001."""


def test_errors_prove_what_the_definition_says() -> None:
    fpr, fnr = (beta.ppf(0.975, k + 1, 100 - k) for k in (3, 40))
    proofs = [(1 - DELTA - fnr) / fpr, (1 - DELTA - fpr) / fnr]
    assert from_errors(3, 100, 40, 100, delta=DELTA) == pytest.approx(math.log(max(proofs)))
    assert from_errors(40, 100, 3, 100, delta=DELTA) == pytest.approx(math.log(max(proofs)))  # the mirror image


def test_errors_like_a_coin_prove_nothing() -> None:
    assert from_errors(50, 100, 50, 100, delta=DELTA) == 0
    assert from_errors(50, 100, 50, 100, delta=DELTA, gaussian=True) == 0
    assert from_errors(100, 100, 0, 100, delta=DELTA) == 0


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0])
def test_an_honest_gaussian_mechanism_is_seldom_accused(epsilon: float, gaussian: bool) -> None:
    mu = next(m for m in np.arange(0.01, 5, 0.001) if gaussian_epsilon(m, DELTA) > epsilon) - 0.001
    generator, found = np.random.default_rng(round(10 * epsilon)), []
    for _ in range(100):
        within, without = generator.normal(mu, 1, 1000), generator.normal(0, 1, 1000)
        found.append(from_scores(within, without, delta=DELTA, gaussian=gaussian))
    assert np.sum(np.array(found) > epsilon) < FORBIDDEN
    assert epsilon < 2 or np.mean(found) > 0.1


def test_a_quarter_of_the_noise_is_found_out() -> None:
    generator, mu = np.random.default_rng(0), 0.5  # claims an epsilon of 1.99
    bound = from_scores(generator.normal(4 * mu, 1, 2000), generator.normal(0, 1, 2000), delta=DELTA)
    assert bound > gaussian_epsilon(mu, DELTA)


def test_the_threshold_is_not_chosen_on_the_scores_that_count() -> None:
    within, without = np.zeros(40), np.zeros(40)
    within[::2], without[::2] = 1.0, -1.0  # told apart in the half that chooses, alike in the half that counts
    assert from_scores(within, without, delta=DELTA) == 0


def brute_p(epsilon: float, delta: float, found: Guesses) -> float:
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    f = [binom.sf(v - 1, found.made, q) for v in range(found.right + 1)]
    gains = [(f[found.right - i] - f[found.right]) / i for i in range(1, found.right + 1)]
    return float(f[found.right] + 2 * found.canaries * delta * max(gains, default=0.0))


@given(st.integers(1, 60), st.data(), st.sampled_from([0.0, 1e-5, 1e-3]))
def test_one_run_inverts_the_theorem(each: int, data: st.DataObject, delta: float) -> None:
    found = Guesses(500, 2 * each, data.draw(st.integers(0, 2 * each)))
    epsilon = from_one_run(found, delta=delta)
    if epsilon == 0:
        assert brute_p(0.0, delta, found) >= 0.05 - 1e-9
    else:
        assert brute_p(epsilon, delta, found) == pytest.approx(0.05, rel=1e-3) or epsilon == 100


def test_a_delta_costs_power() -> None:
    found = Guesses(1000, 100, 85)
    bounds = [from_one_run(found, delta=delta) for delta in (0.0, 1e-5, 1e-3)]
    assert bounds[0] > bounds[1] > bounds[2]


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_guesses_are_counted_as_by_hand(each: int, random: object) -> None:
    generator = np.random.default_rng(each)
    scores, inside = generator.integers(0, 9, 100).astype(float), generator.random(100) < 0.5
    order = sorted(range(100), key=lambda i: (scores[i], i))
    right = sum(bool(inside[i]) for i in order[100 - each :]) + sum(not inside[i] for i in order[:each])
    assert guesses(scores, inside, each) == Guesses(100, 2 * each, right)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_seldom_accused(epsilon: float) -> None:
    """The mechanism for which the theorem is tight: each coin is told truly with probability e^eps / (1 + e^eps)."""
    generator, truth = np.random.default_rng(1), math.exp(epsilon) / (1 + math.exp(epsilon))
    accused = 0
    for _ in range(100):
        inside = generator.random(400) < 0.5
        told = np.where(generator.random(400) < truth, inside, ~inside)
        accused += best_of_one_run(told + 0.0, inside, each=(25, 50, 100), delta=0.0) > epsilon
    assert accused < FORBIDDEN


def test_one_run_proves_two_of_ten() -> None:
    generator, found = np.random.default_rng(0), []
    for _ in range(3):
        inside = generator.random(1000) < 0.5
        scores = 2.0 * inside + generator.normal(size=1000)
        found.append(best_of_one_run(scores, inside, each=(25, 50, 100, 200), delta=DELTA))
    assert min(found) >= 2.0
    assert max(found) < gaussian_epsilon(2.0, DELTA)


def test_scores_that_prove_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="two numbers"):
        from_scores(np.array([1.0]), np.zeros(5), delta=DELTA)
    with pytest.raises(DataError, match="two numbers"):
        from_scores(np.array([1.0, np.nan]), np.zeros(5), delta=DELTA)
    with pytest.raises(DataError, match="12 guesses about 10 canaries"):
        guesses(np.zeros(10), np.zeros(10, bool), 6)

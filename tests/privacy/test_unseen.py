"""Trained records against records never trained on: within clients, by every allotment, and blind to the clients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy import ndarray
from scipy.stats import fisher_exact, kstest, t, ttest_ind

from rivage.privacy.grading import pooled
from rivage.privacy.unseen import as_guessed, errors_test, rights_test

FLAGS = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=3)


def off(right: int, wrong: int) -> ndarray:
    return np.repeat([0.0, 1.0], [right, wrong])


def drawn(generator: np.random.Generator, clients: Any, gap: float = 0.0) -> list[tuple[ndarray, ndarray]]:
    """Per client so many trained records and others, and the share that is right; on trained ones ``gap`` more."""
    return [((generator.random(n) > share + gap) * 1.0, (generator.random(m) > share) * 1.0) for n, m, share in clients]


@settings(max_examples=25)
@given(st.lists(st.tuples(FLAGS, FLAGS), min_size=1, max_size=2))
def test_a_p_value_is_the_share_of_allotments_within_clients(targets: list[tuple[list[float], list[float]]]) -> None:
    """Against all ways of saying which records of each client were the trained ones."""
    strata = [(np.array(trained), np.array(others)) for trained, others in targets]
    found = sum(int((trained == 0).sum()) for trained, _ in strata)
    ways = [itertools.combinations([*trained, *others], len(trained)) for trained, others in strata]
    rights = [sum(part.count(0.0) for part in parts) for parts in itertools.product(*ways)]
    assert rights_test(strata) == pytest.approx(np.mean([right >= found for right in rights]))


@given(*(st.integers(0, 40) for _ in range(4)))
def test_one_client_is_fishers_test(a: int, b: int, c: int, d: int) -> None:
    assume(a + b > 0 < c + d)
    expected = fisher_exact([[a, b], [c, d]], alternative="greater").pvalue
    assert rights_test([(off(a, b), off(c, d))]) == pytest.approx(expected)


def test_easy_clients_that_hold_out_little_are_no_leak_of_the_training() -> None:
    """No client's records differ, but pooled 87 % are right against 66 %: the level is kept (3.1 deviations)."""
    unequal, generator = [(400, 40, 0.95), (100, 100, 0.55)], np.random.default_rng(0)
    assert rights_test([(off(380, 20), off(38, 2)), (off(55, 45), off(55, 45))]) > 0.4
    assert rights_test([(off(435, 65), off(93, 47))]) < 1e-6
    assert np.mean([rights_test(drawn(generator, unequal)) <= 0.05 for _ in range(500)]) < 0.08


def test_a_difference_within_clients_is_found() -> None:
    generator, clients = np.random.default_rng(1), [(400, 40, 0.6), (100, 100, 0.55)]
    assert np.mean([rights_test(drawn(generator, clients, gap=0.2)) <= 0.05 for _ in range(200)]) > 0.9


@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(2, 20))
def test_errors_of_one_client_are_welchs_test(seed: int, trained: int, spare: int) -> None:
    draw = np.random.default_rng(seed)
    seen, unseen = np.abs(draw.normal(0, 1, trained)), np.abs(draw.normal(0.3, 2, spare))
    a, b = seen.var(ddof=1) / trained, unseen.var(ddof=1) / spare
    freedom = (a + b) ** 2 / (a**2 / (trained - 1) + b**2 / (spare - 1))
    expected = t.cdf((seen.mean() - unseen.mean()) / math.sqrt(a + b), freedom)
    assert errors_test([(seen, unseen)]) == pytest.approx(expected)
    assert expected == pytest.approx(ttest_ind(seen, unseen, equal_var=False, alternative="less").pvalue)


def test_errors_of_clients_are_uniform_under_the_null_however_far_apart_clients_are() -> None:
    def p_value(seed: int, gain: float = 0.0) -> float:
        draw = np.random.default_rng(seed)
        parts = [
            (draw.normal(level - gain, 1, n), draw.normal(level, 2, m)) for level, n, m in ((1, 60, 6), (5, 9, 40))
        ]
        return errors_test(parts)

    assert kstest([p_value(seed) for seed in range(400)], "uniform").pvalue > 0.01
    assert np.mean([p_value(seed, gain=2.0) <= 0.05 for seed in range(100)]) > 0.9


def test_errors_of_two_clients_by_hand() -> None:
    """Weights 2 · 2 / 4 = 1 and 2 · 6 / 8 = 1.5, gains 2 and 1, variances of these 0.25 + 0.25 and 1 + 0.2."""
    one = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    other = np.array([1.0, 3.0]), 3 + np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    spread = 1 * 0.5 + 2.25 * 1.2
    freedom = spread**2 / (1 * (0.0625 + 0.0625) + 1.5**4 * (1 + 0.2**2 / 5))
    assert errors_test([one, other]) == pytest.approx(t.sf((2 + 1.5 * 1) / math.sqrt(spread), freedom))


def test_errors_that_have_no_deviation_tell_nothing() -> None:
    single = (np.array([0.0]), np.array([1.0, 2.0]))
    assert errors_test([single, (np.zeros(3), np.ones(3))]) == 1
    both = (np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0]))
    assert errors_test([single, both]) == errors_test([both])


def test_what_stands_beside_the_value_weighs_clients_as_the_value_does() -> None:
    pieces: list[dict[str, Any]] = [
        {"client": 0, "numerical": False, "attack": off(300, 0), "held_out": off(1, 3), "guesses": {"m": off(0, 300)}},
        {"client": 1, "numerical": False, "attack": off(0, 100), "held_out": off(50, 0), "guesses": {"m": off(0, 100)}},
    ]
    facts = pooled("attribute", pieces)[1]
    assert facts["held_out"] == pytest.approx((300 * 0.25 + 100 * 1) / 400)
    assert facts["held_out_records"] == 54
    numbers = [{**piece, "numerical": True} for piece in pieces]
    assert pooled("attribute", numbers)[1]["held_out"] == pytest.approx((300 * 0.75 + 100 * 0) / 400)


@pytest.mark.parametrize(("others", "guess", "power"), [
    (off(1, 1), off(5, 5), False),  # two records: half of them right is as the baseline guesses
    (off(40, 0), off(5, 5), True),  # as good on others, who are enough
    (off(40, 0), off(10, 0), False),
])  # fmt: skip
def test_too_few_records_are_those_that_could_not_tell_an_attack_from_a_guess(
    others: ndarray, guess: ndarray, power: bool
) -> None:
    piece = {"client": 0, "numerical": False, "attack": off(10, 0), "held_out": others, "guesses": {"majority": guess}}
    facts = pooled("attribute", [piece])[1]
    assert not facts["beyond_held_out"]
    assert (facts["held_out_least_p"] <= 0.05) == power


@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 60))
def test_a_baseline_guesses_others_as_often_right_as_it_does_trained_records(n: int, right: int, size: int) -> None:
    guess = off(min(right, n), n - min(right, n))
    assert abs(as_guessed(guess, size).sum() - size * guess.mean()) <= 0.5 + 1e-9

"""Guessed records held against the truth: by hand, by brute force, at the edges."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.privacy.record_matching import label_matches, match


def test_by_hand() -> None:
    truth = np.array([[0.0, 0.0], [1.0, 3.0]])
    found = match(np.array([[1.0, 2.0], [0.0, 0.04]]), truth, np.zeros(2))
    np.testing.assert_allclose(found.errors, [0.04**2 / 2, 0.5])
    assert (found.exact, found.cells) == (0.5, 0.75)
    assert found.psnr == pytest.approx(20 * np.log10(3) - 10 * np.log10(found.mse))


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_assignment_is_the_best_of_all(seed: int, records: int) -> None:
    generator = np.random.default_rng(seed)
    truth, found = generator.normal(size=(2, records, 3))
    best = min(((truth - found[list(order)]) ** 2).sum() for order in permutations(range(records)))
    assert match(found, truth, np.zeros(3)).mse * truth.size == pytest.approx(best)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_order_does_not_matter_and_the_truth_is_perfect(seed: int, records: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(records, 2, 2))
    found = match(generator.permutation(truth), truth, np.zeros((2, 2)))
    assert (found.exact, found.cells, found.mse) == (1.0, 1.0, 0.0)
    assert found.psnr == np.inf


def test_no_guess_is_a_miss_even_where_the_baseline_is_near() -> None:
    truth = np.full((3, 2), 0.5)
    for found in (np.empty((0, 2)), np.full((1, 2), np.nan)):
        held = match(found, truth, np.full(2, 0.5))
        assert held.mse == 0
        assert held.exact <= 1 / 3
    assert match(np.empty((0, 2)), truth, np.zeros(2)).mse == 0.25


def test_one_guess_serves_one_record() -> None:
    truth = np.zeros((4, 1))
    assert match(np.zeros((1, 1)), truth, np.ones(1)).exact == 0.25


def test_labels_are_counted_once_each() -> None:
    assert label_matches(np.array([0, 0, 1]), np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert label_matches(np.array([], np.int64), np.array([2])) == 0

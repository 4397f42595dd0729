from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rivage.federated.selection import choose

NAN = float("nan")


def test_the_safest_within_one_standard_error_of_the_best_is_taken() -> None:
    losses = np.array([[1.0, 0.9, 0.5], [0.55, 0.9, 0.5], [0.6, 0.55, 0.5]])
    errors = np.full((3, 3), 0.1)
    assert choose(losses, errors).tolist() == [2, 0, 0]


def test_the_error_of_the_best_counts_not_that_of_the_safe() -> None:
    assert choose(np.array([[1.0, 0.5]]), np.array([[9.0, 0.1]])).tolist() == [1]
    assert choose(np.array([[1.0, 0.5]]), np.array([[0.0, 0.6]])).tolist() == [0]


def test_clients_that_cannot_tell_follow_the_population() -> None:
    losses = np.array([[1.0, 0.5], [1.1, 0.5], [0.9, 0.4], [NAN, NAN]])
    errors = np.array([[0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [NAN, NAN]])
    assert choose(losses, errors).tolist() == [1, 1, 1, 1]


def test_nobody_can_tell() -> None:
    assert choose(np.full((3, 2), NAN), np.full((3, 2), NAN)).tolist() == [0, 0, 0]


def test_a_candidate_that_diverged_is_never_chosen() -> None:
    assert choose(np.array([[NAN, 0.5]]), np.array([[NAN, 0.1]])).tolist() == [1]


@given(
    arrays(np.float64, (6, 3), elements=st.floats(0, 10)),
    arrays(np.float64, (6, 3), elements=st.floats(0, 2)),
)
def test_the_chosen_is_within_one_error_of_the_best(losses: np.ndarray, errors: np.ndarray) -> None:
    rows = np.arange(6)
    best = losses.argmin(axis=1)
    assert (losses[rows, choose(losses, errors)] <= losses[rows, best] + errors[rows, best]).all()

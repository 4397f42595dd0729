from __future__ import annotations

import numpy as np
from hypothesis import given, settings
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


def test_the_population_needs_a_difference_beyond_its_own_standard_error() -> None:
    """The second is better by 0.15; its standard error is 0.23 over 3 clients and 0.12 over 9."""
    for clients, expected in ((3, 0), (9, 1)):
        spread = np.resize([-0.4, 0.0, 0.4], clients)
        losses = np.vstack([np.column_stack([np.full(clients, 1.15), 1 + spread]), [[NAN, NAN]]])
        errors = np.vstack([np.full((clients, 2), 9.0), [[NAN, NAN]]])
        assert choose(losses, errors)[-1] == expected


def test_nobody_can_tell() -> None:
    assert choose(np.full((3, 2), NAN), np.full((3, 2), NAN)).tolist() == [0, 0, 0]


def test_a_candidate_that_diverged_is_never_chosen() -> None:
    assert choose(np.array([[NAN, 0.5]]), np.array([[NAN, 0.1]])).tolist() == [1]


@settings(deadline=None)
@given(
    arrays(np.float64, (6, 3), elements=st.floats(0, 10)),
    arrays(np.float64, (6, 3), elements=st.floats(0, 2)),
)
def test_the_chosen_is_within_one_error_of_the_best(losses: np.ndarray, errors: np.ndarray) -> None:
    rows = np.arange(6)
    best = losses.argmin(axis=1)
    assert (losses[rows, choose(losses, errors)] <= losses[rows, best] + errors[rows, best]).all()

"""Turns: everyone once in an epoch, whatever the numbers; cohorts that keep to them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.generative import Generative
from rivage.federated.cohorts import Candidates
from rivage.federated.permutation import Permutation
from rivage.federated.turns import Turns, period, require_epoch
from rivage.simulation.availability import Always
from rivage.testing.toys import Clients, linear_clients

NOBODY = np.empty(0, np.int64)


class Away(Clients):
    """Toy clients of whom the odd ones never are there."""

    def available(self, ids: np.ndarray, round: int) -> np.ndarray:
        there: np.ndarray = ids % 2 == 0
        return there


def clients(count: int, kind: type[Clients] = Clients) -> Clients:
    toy = linear_clients((2,))
    return kind(toy.records * count, toy.schema)


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_the_inverse_takes_back_the_permutation(size: int, key: int) -> None:
    order, places = Permutation(size, key), np.arange(size)
    np.testing.assert_array_equal(order.inverse(order(places)), places)
    np.testing.assert_array_equal(order(order.inverse(places)), places)


def test_the_inverse_of_very_many() -> None:
    order, places = Permutation(10**12, 5), np.array([0, 7, 10**12 - 1])
    np.testing.assert_array_equal(order.inverse(order(places)), places)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 5))
def test_everyone_has_one_turn_in_an_epoch(size: int, epoch: int, seed: int) -> None:
    turns, everyone = Turns(size, epoch, Streams(seed)), np.arange(size)
    for start in (0, epoch):
        called = [turns.called(np.arange(turns.count(r)), r) for r in range(start, start + epoch)]
        assert sorted(np.concatenate(called).tolist()) == everyone.tolist()
        for place, ids in enumerate(called):
            np.testing.assert_array_equal(np.flatnonzero(turns.due(everyone, start + place)), np.sort(ids))
            assert abs(len(ids) - size / epoch) < 1


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 5))
def test_who_never_trains_takes_no_turn(size: int, epoch: int, seed: int) -> None:
    """Turns of the others are as even as if there were nobody else; unknown ids have none."""
    unseen = np.sort(np.random.default_rng(seed).choice(size, seed * size // 6, replace=False))
    turns = Turns(size, epoch, Streams(seed), unseen)
    called = [turns.called(np.arange(turns.count(number)), number) for number in range(epoch)]
    assert sorted(np.concatenate(called).tolist()) == np.setdiff1d(np.arange(size), unseen).tolist()
    for number, ids in enumerate(called):
        np.testing.assert_array_equal(np.flatnonzero(turns.due(np.arange(-3, size + 3), number)) - 3, np.sort(ids))


def test_turns_are_uniform_and_new_in_every_epoch() -> None:
    """Errs with probability 10⁻⁴."""
    turns = Turns(20, 4, Streams(1))
    drawn = np.array([[turns.due(np.arange(20), 4 * e + place) for place in range(4)] for e in range(400)])
    counts = drawn.sum(axis=0).ravel()
    assert ((counts - 100) ** 2 / 75).sum() < chi2.isf(1e-4, 80)
    assert not (drawn[0] == drawn[1]).all()


@pytest.mark.parametrize(("epoch", "cohort"), [(None, 4), (12, 4), (3, 4), (5, None)])
def test_cohorts_take_nobody_twice_in_an_epoch(epoch: int | None, cohort: int | None) -> None:
    population, excluded = clients(23, Away), np.array([2])
    length = period("epochs", epoch, cohort, 22)
    assert length is not None
    turns = Turns(23, length, Streams(3), excluded)
    for first in range(0, 4 * length, length):
        taken: Counter[int] = Counter()
        for number in range(first, first + length):
            candidates = Candidates(population, number, cohort, excluded, "epochs", turns)
            ids = candidates.uniform(Streams(number)).tolist()
            taken.update(ids)
            due = [i for i in np.flatnonzero(turns.due(np.arange(23), number)).tolist() if i % 2 == 0 and i != 2]
            assert set(ids) <= set(due)
            assert len(ids) == (len(due) if cohort is None else min(cohort, len(due)))
        assert set(taken.values()) <= {1}
        assert (cohort == 4 and length < 6) or sorted(taken) == [i for i in range(0, 23, 2) if i != 2]


def test_a_cohort_among_a_billion() -> None:
    """Membership and turns cost what is asked, not what there is."""
    turns = Turns(10**9, 10**6, Streams(0))
    ids = turns.called(np.arange(turns.count(77)), 77)
    assert len(set(ids.tolist())) == 1000
    assert turns.due(ids, 77).all()
    assert not turns.due(ids, 78).any()


def test_everyone_of_a_turn_among_very_many() -> None:
    """No population is scanned: 10¹¹ clients, a thousand of them asked."""
    population = Generative(size=10**11).population(seed=0, availability=Always(), key=1, validation=0.1, test=0.2)
    turns = Turns(10**11, 10**8, Streams(0))
    ids = Candidates(population, 5, None, NOBODY, "epochs", turns).uniform(Streams(5))
    assert len(ids) == 1000
    assert (np.diff(ids) > 0).all()
    with pytest.raises(ConfigError, match="all 100000000000 clients"):
        Candidates(population, 5, None, NOBODY).uniform(Streams(5))


def test_an_epoch_that_says_nothing_is_refused() -> None:
    wrong: tuple[tuple[str, Any, int | None], ...] = (
        ("uniform", 3, 2),
        ("epochs", None, None),
        ("epochs", 0, 2),
        ("epochs", 3.5, 2),
        ("epochs", True, 2),
    )
    for sampling, epoch, cohort in wrong:
        with pytest.raises(ConfigError, match="epoch"):
            require_epoch(sampling, epoch, cohort)
    require_epoch("epochs", 3, None)
    assert period("epochs", None, 4, 22) == 6
    assert period("uniform", None, 4, 22) is None

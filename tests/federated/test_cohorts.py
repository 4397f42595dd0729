from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.federated.cohorts import Candidates
from rivage.federated.permutation import Permutation

NOBODY = np.empty(0, np.int64)


@dataclass
class Registered:
    """A population that only answers who is there, and counts how often it is asked."""

    size: int
    share: float = 1.0
    asked: int = 0

    def available(self, ids: Any, round: int) -> Any:
        self.asked += len(ids)
        return (ids * 2654435761 + round * 40503) % 1000 < 1000 * self.share

    def sizes(self, ids: Any, round: int = 0) -> Any:
        return ids + 1.0


@settings(deadline=None)
@given(size=st.integers(1, 400), key=st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection(size: int, key: int) -> None:
    image = Permutation(size, key)(np.arange(size))
    assert sorted(image.tolist()) == list(range(size))


def test_a_thousand_is_permuted_and_a_billion_gives_distinct_ids() -> None:  # F2
    assert sorted(Permutation(1000, 3)(np.arange(1000)).tolist()) == list(range(1000))
    image = Permutation(10**9, 3)(np.arange(10**6))
    assert len(np.unique(image)) == 10**6
    assert image.min() >= 0
    assert image.max() < 10**9


def test_the_walk_is_uniform() -> None:  # F2; a fair walk fails this with probability 0.001
    image = Permutation(10**9, 11)(np.arange(200_000))
    deciles = np.bincount(image // 10**8, minlength=10)
    assert chisquare(deciles).pvalue > 0.001
    top = image[image >= 9 * 10**8]
    assert chisquare(np.bincount((top - 9 * 10**8) // 10**7, minlength=10)).pvalue > 0.001


def test_keys_give_different_walks() -> None:
    walks = {tuple(Permutation(50, key)(np.arange(50)).tolist()) for key in range(20)}
    assert len(walks) == 20


def test_cohort_is_distinct_available_and_repeatable() -> None:
    candidates = Candidates(Registered(500, share=0.3), 7, 40, NOBODY)
    ids = candidates.uniform(Streams(1))
    assert len(set(ids.tolist())) == 40
    assert candidates.population.available(ids, 7).all()
    assert (candidates.uniform(Streams(1)) == ids).all()
    assert set(candidates.uniform(Streams(2)).tolist()) != set(ids.tolist())


def test_excluded_clients_are_never_chosen() -> None:
    excluded = np.arange(0, 100, 2)
    ids = Candidates(Registered(100), 0, 100, excluded).uniform(Streams(0))
    assert sorted(ids.tolist()) == list(range(1, 100, 2))


def test_everyone_when_no_count_is_given() -> None:
    ids = Candidates(Registered(9), 0, None, np.array([4])).uniform(Streams(0))
    assert ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_everyone_of_a_billion_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.cohort"):
        Candidates(Registered(10**9), 0, None, NOBODY).uniform(Streams(0))


def test_nobody_available_gives_an_empty_cohort_after_a_bounded_walk() -> None:
    population = Registered(10**9, share=0.0)
    assert len(Candidates(population, 0, 2, NOBODY).uniform(Streams(0))) == 0
    assert population.asked <= 2 * 10_000 + 64


def test_cost_does_not_grow_with_the_population() -> None:  # F4, memory; time stands in benchmarks/population
    peaks, asked = [], []
    for size in (10**3, 10**6, 10**9):
        population = Registered(size)
        tracemalloc.start()
        Candidates(population, 0, 100, NOBODY).uniform(Streams(0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        asked.append(population.asked)
    assert max(peaks) < 1.2 * min(peaks)
    assert len(set(asked)) == 1


def test_uniform_sampling_includes_every_client_equally_often() -> None:
    counts = np.zeros(20)
    for seed in range(500):
        counts[Candidates(Registered(20), 0, 5, NOBODY).uniform(Streams(seed))] += 1
    assert chisquare(counts).pvalue > 0.001  # fair sampling fails with probability 0.001 (a little less: no repeats)

"""Availability: laws against a dense simulation, replay in any order, refusals."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.simulation import AVAILABILITY, Always, Bernoulli, Heterogeneous, Markov
from rivage.simulation.availability import markov, require_chain

SEED = 20_240_607
CHAINS = [(0.1, 0.9), (0.9, 0.0), (0.5, -0.5), (0.3, 0.99)]


def dense(pi: float, eigenvalue: float, clients: int, rounds: int) -> np.ndarray:
    """The textbook simulation, forwards from a stationary start: states [rounds, clients]."""
    rng = Streams(SEED).numpy("dense", 1)
    stay, start = pi + eigenvalue * (1 - pi), pi * (1 - eigenvalue)
    states = np.empty((rounds, clients), bool)
    states[0] = rng.random(clients) < pi
    for t in range(1, rounds):
        states[t] = rng.random(clients) < np.where(states[t - 1], stay, start)
    return states


def moments(states: np.ndarray, pi: float, lag: int) -> tuple[float, float, float, float]:
    """Mean of round 0 and correlation with round ``lag`` (known π), each with its standard error."""
    now, later = states[0] - pi, states[lag] - pi
    products = now * later / (pi * (1 - pi))
    root = np.sqrt(states.shape[1])
    return (
        float(states[0].mean()),
        float(states[0].std() / root),
        float(products.mean()),
        float(products.std() / root),
    )


@pytest.mark.parametrize(("pi", "eigenvalue"), CHAINS)
@pytest.mark.parametrize("lag", [1, 5])
def test_law_against_theory_and_a_dense_simulation(pi: float, eigenvalue: float, lag: int) -> None:
    # Each comparison is at 3 standard errors with a fixed seed: false alarm 0.3 % per comparison on a fresh
    # seed.
    clients = 20_000
    ours = np.array([Markov(pi, eigenvalue).available(SEED, np.arange(clients), t) for t in range(lag + 1)])
    mean, mean_error, correlation, correlation_error = moments(ours, pi, lag)
    assert abs(mean - pi) <= 3 * mean_error
    assert abs(correlation - eigenvalue**lag) <= 3 * correlation_error
    reference = moments(dense(pi, eigenvalue, clients, lag + 1), pi, lag)
    assert abs(mean - reference[0]) <= 3 * np.hypot(mean_error, reference[1])
    assert abs(correlation - reference[2]) <= 3 * np.hypot(correlation_error, reference[3])


@pytest.mark.parametrize(("pi", "eigenvalue"), CHAINS)
def test_transitions_of_one_client_over_time(pi: float, eigenvalue: float) -> None:
    path = np.array([Markov(pi, eigenvalue).available(SEED, np.arange(50), t) for t in range(400)])
    before, after = path[:-1].ravel(), path[1:].ravel()
    for state, expected in ((True, pi + eigenvalue * (1 - pi)), (False, pi * (1 - eigenvalue))):
        visits = np.count_nonzero(before == state)
        error = np.sqrt(expected * (1 - expected) / visits)
        assert abs(after[before == state].mean() - expected) <= 3.5 * error + 1e-12


@settings(deadline=None)
@given(
    law=st.sampled_from(
        [
            Always(),
            Bernoulli(0.4, 0.2),
            *(Markov(*chain, 0.1) for chain in CHAINS),
            Heterogeneous(0.2, 0.9, 0.6),
        ]
    ),
    ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=30),
    rounds=st.permutations(range(6)),
)
def test_any_order_of_questions_gives_the_same_path(law: Markov, ids: list[int], rounds: list[int]) -> None:
    forwards = {t: law.available(SEED, np.array(ids), t) for t in range(6)}
    for t in rounds:
        alone = [law.available(SEED, np.array([client]), t)[0] for client in reversed(ids)]
        assert alone[::-1] == forwards[t].tolist()
        assert law.completes(SEED, np.array(ids), t).tolist() == [
            bool(law.completes(SEED, np.array([client]), t)[0]) for client in ids
        ]


def test_no_correlation_is_a_coin_every_round() -> None:
    ids = np.arange(50_000)
    assert abs(Bernoulli(0.3).available(SEED, ids, 4).mean() - 0.3) < 3 * np.sqrt(0.21 / 50_000)
    assert abs(Markov(0.3, 0.0).available(SEED, ids, 4).mean() - 0.3) < 3 * np.sqrt(0.21 / 50_000)


def test_lost_clients_are_independent_of_availability() -> None:
    ids, law = np.arange(100_000), Markov(0.5, 0.8, lost=0.25)
    there, done = law.available(SEED, ids, 3), law.completes(SEED, ids, 3)
    assert abs(done.mean() - 0.75) < 3 * np.sqrt(0.1875 / 100_000)
    assert abs(done[there].mean() - done[~there].mean()) < 4 * np.sqrt(0.1875 / 50_000) * np.sqrt(2)
    assert Markov(0.5, 0.8).completes(SEED, ids, 3).all()


def test_means_of_their_own() -> None:
    law, ids = Heterogeneous(0.2, 0.8, 0.5), np.arange(20_000)
    means = law.means(SEED, ids)
    assert means.min() >= 0.2
    assert means.max() <= 0.8
    assert abs(means.mean() - 0.5) < 0.01
    there = np.mean([law.available(SEED, ids, t) for t in range(0, 40, 4)], axis=0)
    assert abs(np.cov(there, means)[0, 1] / means.var() - 1) < 0.03  # slope of participation on the mean


def test_per_client_rates_equal_scalar_ones() -> None:
    ids = np.arange(200)
    mean, correlation = np.where(ids % 2, 0.3, 0.6), np.where(ids % 2, 0.9, -0.4)
    mixed = markov(SEED, ids, 7, mean=mean, correlation=correlation)
    odd = ids % 2 == 1
    assert (mixed[odd] == markov(SEED, ids[odd], 7, mean=0.3, correlation=0.9)).all()
    assert (mixed[~odd] == markov(SEED, ids[~odd], 7, mean=0.6, correlation=-0.4)).all()


def test_long_walks_are_cut_with_a_warning_and_keep_the_mean(caplog: pytest.LogCaptureFixture) -> None:
    law, ids = Markov(0.3, 0.9999), np.arange(400)
    with caplog.at_level(logging.WARNING, logger="rivage.simulation.availability"):
        now, later = law.available(SEED, ids, 0), law.available(SEED, ids, 1)
    assert "correlation too near 1" in caplog.text
    assert abs(now.mean() - 0.3) < 4 * np.sqrt(0.21 / 400)
    assert np.count_nonzero(now != later) <= 3  # expected 400 · 0.42 · 1e-4, plus the cuts of one round


def test_no_warning_where_walks_are_short(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Markov(0.3, 0.99).available(SEED, np.arange(1000), 0)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("pi", "eigenvalue"),
    [(0.1, -0.2), (0.9, -0.2), (0.5, -1.0), (0.5, 1.0), (1.0, -0.1), (0.3, float("nan"))],
)
def test_chains_that_do_not_exist(pi: float, eigenvalue: float) -> None:
    with pytest.raises(ConfigError, match=r"no on/off chain has mean .* Give a correlation of at least"):
        Markov(pi, eigenvalue)


@given(st.floats(0.01, 0.99))
def test_the_lowest_correlation_is_allowed(pi: float) -> None:
    lowest = max(1 - 1 / pi, 1 - 1 / (1 - pi))
    if lowest > -1:
        require_chain(pi, lowest)


@pytest.mark.parametrize("mean", [0.0, -0.1, 1.1, float("nan")])
def test_means_out_of_range(mean: float) -> None:
    for build in (
        Bernoulli,
        Markov,
        lambda value: Heterogeneous(value, 1.0),
        lambda value: Heterogeneous(0.5, value),
    ):
        with pytest.raises(ConfigError, match="Give a probability above 0 and at most 1"):
            build(mean)


@pytest.mark.parametrize("lost", [-0.1, 1.0, float("nan")])
def test_lost_out_of_range(lost: float) -> None:
    with pytest.raises(ConfigError, match="lost is"):
        Bernoulli(0.5, lost)


def test_bounds_in_the_wrong_order() -> None:
    with pytest.raises(ConfigError, match="Give lowest <= highest"):
        Heterogeneous(0.8, 0.2)


def test_everyone_always() -> None:
    assert Always().available(1, np.arange(5), 0).all()
    assert Always().completes(1, np.arange(5), 0).all()
    assert Bernoulli(1.0).available(1, np.arange(1000), 0).all()
    assert Markov(1.0, 0.5).available(1, np.arange(1000), 0).all()


def test_registered_kinds() -> None:
    assert {"always", "bernoulli", "markov", "heterogeneous"} <= set(AVAILABILITY)
    assert AVAILABILITY.get("markov") is Markov

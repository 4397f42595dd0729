"""FTPL: the cache is the top of the perturbed counts, and its mean regret is below the bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.online.ftpl import FTPL
from rivage.online.policy import CacheInstance


@settings(deadline=None)
@given(st.data())
def test_the_cache_holds_the_largest_perturbed_counts(data: st.DataObject) -> None:
    items = data.draw(st.integers(2, 10))
    capacity, known = data.draw(st.integers(1, items - 1)), data.draw(st.booleans())
    weights = np.random.default_rng(items).random(items) if data.draw(st.booleans()) else None
    asked = np.array(data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=70)), np.int64)
    instance = CacheInstance(items=items, capacity=capacity, horizon=len(asked) if known else None, weights=weights)
    policy = FTPL(scale=data.draw(st.sampled_from([0.2, 1.0])))
    state = policy.init(instance, Streams(5))
    counts, hits, gain, inserted, held = np.zeros(items), 0, 0.0, 0, set[int]()

    def top(time: int) -> set[int]:
        horizon = len(asked) if known else 1 << math.ceil(math.log2(max(time, 1)))
        ranked = np.argsort(counts + policy._step(instance, horizon) * state.noise)
        return set(ranked[-capacity:].tolist())

    for time, item in enumerate(asked, 1):
        before = top(time)  # the noise of this request's horizon
        weight = 1.0 if weights is None else weights[item]
        inserted, held = inserted + len(before - held), before
        hits, gain = hits + (item in held), gain + weight * (item in held)
        counts[item] += weight
        after = top(time)
        inserted, held = inserted + len(after - held), after
    outcome = policy.run_block(state, asked)
    assert (outcome.hits, outcome.inserted) == (hits, inserted)
    assert outcome.gain == outcome.fractional == pytest.approx(gain)
    assert set(state.cached.tolist()) == held


@pytest.mark.parametrize("horizon", [None, 3000])
def test_where_blocks_end_changes_nothing(horizon: int | None) -> None:
    requests = np.random.default_rng(0).zipf(1.3, 3000) % 200
    instance, policy, results = CacheInstance(items=200, capacity=20, horizon=horizon), FTPL(), []
    for cuts in ([], [1, 2, 3, 64, 1000], list(range(1, 3000))):
        state, hits, inserted = policy.init(instance, Streams(1)), 0.0, 0
        for part in np.split(requests, cuts):
            outcome = policy.run_block(state, part)
            hits, inserted = hits + outcome.hits, inserted + outcome.inserted
        results.append((hits, inserted, state.cached.tolist(), round(policy.bound(state), 6)))
    assert results[0] == results[1] == results[2]


def sequences() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 101) ** 0.8
    return {
        "cyclic": np.arange(5000) % 100,
        "zipf": random.choice(100, 5000, p=popularity / popularity.sum()),
        "changing": np.concatenate([random.permutation(100)[random.zipf(1.5, 500) % 100] for _ in range(10)]),
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("horizon", [None, 5000])
@pytest.mark.parametrize("name", sequences())
def test_mean_regret_is_below_the_bound(name: str, horizon: int | None, weighted: bool) -> None:
    """Mean over 50 seeds, at most the bound and 4 standard errors (false alarm below 1e-4)."""
    requests = sequences()[name]
    weights = np.random.default_rng(1).random(100) if weighted else None
    instance, policy = CacheInstance(items=100, capacity=10, horizon=horizon, weights=weights), FTPL()
    values = np.bincount(requests, minlength=100) * (1.0 if weights is None else weights)
    best, regrets, bound = np.sort(values)[-10:].sum(), [], 0.0
    for seed in range(50):
        state = policy.init(instance, Streams(seed))
        regrets.append(best - policy.run_block(state, requests).gain)
        bound = policy.bound(state)
    assert np.mean(regrets) <= bound + 4 * np.std(regrets) / math.sqrt(50)
    if horizon and not weighted:
        constant = 2 * math.pi**-0.25
        assert bound == pytest.approx(constant * math.log(100 * math.e / 10) ** 0.25 * math.sqrt(10 * 5000))


def test_noise_is_what_an_adversary_cannot_foresee() -> None:
    """Who asks for what LFU with a known head start does not hold, always hits nothing of it."""
    instance, policy = CacheInstance(items=12, capacity=4, horizon=600), FTPL()
    known = policy.init(instance, Streams(0))
    asked = []
    for _ in range(600):
        item = int(np.setdiff1d(np.arange(12), known.cached)[0])
        assert policy.run_block(known, np.array([item])).hits == 0
        asked.append(item)
    hits = [policy.run_block(policy.init(instance, Streams(seed)), np.array(asked)).hits for seed in range(1, 20)]
    assert np.mean(hits) > 600 * 4 / 12 * 0.8


@pytest.mark.parametrize("horizon", [None, 5000])
@pytest.mark.parametrize("name", sequences())
def test_with_a_tenth_of_the_requests_mean_regret_is_below_the_wider_bound(name: str, horizon: int | None) -> None:
    """Mean over 50 seeds, at most the bound and 4 standard errors (false alarm below 1e-4)."""
    requests = sequences()[name]
    weights = np.random.default_rng(1).random(100)
    instance = CacheInstance(items=100, capacity=10, horizon=horizon, weights=weights)
    policy, regrets, bound = FTPL(observed=0.1), [], 0.0
    best = np.sort(np.bincount(requests, minlength=100) * weights)[-10:].sum()
    for seed in range(50):
        state = policy.init(instance, Streams(seed))
        regrets.append(best - policy.run_block(state, requests).gain)
        bound = policy.bound(state)
    assert np.mean(regrets) <= bound + 4 * np.std(regrets) / math.sqrt(50)
    if horizon:
        full = FTPL().init(instance, Streams(0))
        FTPL().run_block(full, requests)
        assert bound == pytest.approx(math.sqrt(10) * FTPL().bound(full))


def test_counts_of_observed_requests_are_right_in_expectation() -> None:
    """5000 requests in one item, 4 standard errors of the binomial (false alarm below 1e-4)."""
    instance = CacheInstance(items=3, capacity=1, horizon=5000)
    policy, asked = FTPL(observed=0.2), np.zeros(5000, np.int64)
    whole, cut = policy.init(instance, Streams(2)), policy.init(instance, Streams(2))
    before = whole.values[0]
    policy.run_block(whole, asked)
    for part in np.split(asked, [1, 2, 700, 701]):
        policy.run_block(cut, part)
    assert abs(whole.values[0] - before - 5000) < 4 * math.sqrt(5000 * 0.8 / 0.2)
    assert whole.values[0] == cut.values[0]


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"scale": 0}, {"observed": 0}, {"observed": 1.5}):
        with pytest.raises(RivageError, match=r"scale|observed"):
            FTPL(**wrong)

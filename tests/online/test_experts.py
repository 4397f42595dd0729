"""AdaHedge keeps to its bound, the followed expert is drawn from the weights, and the best step is found."""

from __future__ import annotations

import lzma
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.online.experts import AdaHedge, AdaptiveOGB
from rivage.online.game import play
from rivage.online.ogb import OGB
from rivage.online.policy import CacheInstance


@settings(deadline=None)
@given(st.data())
def test_regret_to_the_best_expert_is_within_both_bounds(data: st.DataObject) -> None:
    """Gains are arbitrary, or the adversary's: everything to who has the least weight."""
    experts, slots = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 60))
    adaptive, largest = data.draw(st.booleans()), data.draw(st.sampled_from([1e-3, 1.0, 50.0]))
    hedge, mixture = AdaHedge(experts), 0.0
    for _ in range(slots):
        weights = hedge.weights
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
        if adaptive:
            gains = largest * (np.arange(experts) == np.argmin(weights))
        else:
            gains = largest * np.array(data.draw(st.lists(st.floats(0, 1), min_size=experts, max_size=experts)))
        mixture += float(weights @ gains)
        hedge.add(gains)
        regret = hedge.sums.max() - mixture
        assert regret <= hedge.regret_bound + 1e-9 * largest
    assert hedge.gained == pytest.approx(mixture)
    log = math.log(experts)
    assert hedge.regret_bound <= largest * (math.sqrt(slots * log) + 4 / 3 * log + 2) + 1e-9


def test_gains_too_small_to_divide_by_are_nothing_special() -> None:
    """The rate stays finite; an expert without weight that is ahead by far adds nothing to the mixture's loss."""
    hedge = AdaHedge(2)
    for gains in ([0.0, 5e-309], [0.0, 5e-309], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]):
        weights = hedge.weights
        assert weights.sum() == pytest.approx(1)
        hedge.add(np.array(gains))
    assert hedge.sums.max() - hedge.gained <= hedge.regret_bound
    assert hedge.weights[0] > 0.5


def test_equal_experts_cost_nothing() -> None:
    hedge = AdaHedge(3)
    for gain in (1.0, 0.0, 5.0):
        hedge.add(np.full(3, gain))
    assert hedge.regret_bound == 0
    np.testing.assert_allclose(hedge.weights, 1 / 3)


def redrawn(items: int, count: int, seed: int = 0) -> np.ndarray:
    """Popularity that is drawn anew every 500 requests."""
    random = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, items + 1) ** 1.0
    parts = [
        random.permutation(items)[random.choice(items, 500, p=popularity / popularity.sum())]
        for _ in range(count // 500)
    ]
    return np.concatenate(parts)


def test_where_blocks_end_changes_nothing() -> None:
    requests, policy = redrawn(100, 3000), AdaptiveOGB(slot=30)
    instance = CacheInstance(items=100, capacity=10, horizon=3000)
    results = []
    for cuts in ([], [1, 29, 30, 31, 777], list(range(1, 3000, 7))):
        state, total, inserted = policy.init(instance, Streams(3)), 0.0, 0
        for part in np.split(requests, cuts):
            outcome = policy.run_block(state, part)
            total, inserted = total + outcome.fractional, inserted + outcome.inserted
        results.append((round(total, 6), inserted, state.followed, state.changes, state.cached.tolist()))
    assert results[0] == results[1] == results[2]


def test_the_followed_expert_is_drawn_from_the_weights() -> None:
    """Over 400 seeds, at one instant; 4 standard errors for each of the experts (false alarm below 1e-3)."""
    requests, policy = redrawn(60, 1000), AdaptiveOGB(smallest=-2, largest=3, slot=50)
    instance = CacheInstance(items=60, capacity=6, horizon=1000)
    followed, weights = [], np.empty(0)
    for seed in range(400):
        state = policy.init(instance, Streams(seed))
        policy.run_block(state, requests[:300])
        followed.append(state.followed)
        weights = state.hedge.weights
    assert 0.05 < weights.max() < 0.99, "otherwise this shows nothing"
    counts = np.bincount(followed, minlength=len(weights)) / len(followed)
    error = np.sqrt(weights * (1 - weights) / len(followed))
    assert (np.abs(counts - weights) <= 4 * error + 1e-12).all()


def test_what_is_fetched_is_what_enters_the_cache() -> None:
    """Seen from outside, one request at a time; at a change the item just fetched for the last one may be in vain."""
    requests, policy = redrawn(60, 2000), AdaptiveOGB(smallest=-3, largest=3, slot=20)
    instance = CacheInstance(items=60, capacity=6, horizon=2000)
    changes = 0
    for seed in range(10):
        state = policy.init(instance, Streams(seed))
        policy.run_block(state, requests[:1])  # reports the first fill
        for item in requests[1:]:
            before, followed = set(state.cached.tolist()), state.followed
            fetched = policy.run_block(state, np.array([item])).inserted
            entered, changed = len(set(state.cached.tolist()) - before), state.followed != followed
            assert entered <= fetched <= entered + changed
            changes += changed
    assert changes > 0


@pytest.mark.parametrize("capacity", [137, 687])
def test_the_best_step_is_found_on_a_real_trace(data_root: Path, capacity: int) -> None:
    """online-learning.md, A5 and issue: not more than 0.01 below the best fixed step, theory × 2^j, j = −4 … 10."""
    raw = np.frombuffer(lzma.decompress((data_root / "traces" / "web12.trace.xz").read_bytes()), ">i4")
    keys, requests = np.unique(raw, return_inverse=True)
    instance = CacheInstance(items=len(keys), capacity=capacity, horizon=len(requests))

    def hit_ratio(policy: OGB | AdaptiveOGB) -> float:
        played = play(policy, instance, [requests], streams=Streams(0), every=len(requests))
        assert played.last["regret"] <= played.last["bound"]
        return float(played.last["hits"]) / len(requests)

    assert hit_ratio(AdaptiveOGB()) >= max(hit_ratio(OGB(scale=2.0**j)) for j in range(-4, 11)) - 0.01


def test_regret_of_the_mixture_stays_below_its_bound() -> None:
    for seed in range(20):
        requests = redrawn(40, 1500, seed)
        instance = CacheInstance(items=40, capacity=5, horizon=1500)
        played = play(AdaptiveOGB(slot=25), instance, [requests], streams=Streams(seed), every=110)
        assert all(point["regret"] <= point["bound"] for point in played.points)


def test_the_bound_adds_up_by_hand() -> None:
    """The best expert's, twice what mixing cost, and all that an open slot may lose."""
    requests, weights = redrawn(50, 500)[:130], np.random.default_rng(0).random(50)
    instance = CacheInstance(items=50, capacity=5, horizon=500, weights=weights)
    policy = AdaptiveOGB(smallest=-2, largest=2, slot=50)
    state = policy.init(instance, Streams(0))
    policy.run_block(state, requests)
    own = min(OGB(scale=2.0**j).regret_bound(instance, 130, sampled=False) for j in range(-2, 3))
    assert policy.bound(state) == pytest.approx(own + 2 * state.hedge.mixed + 30 * weights.max())


def test_steps_of_one_and_more_are_one_expert() -> None:
    instance = CacheInstance(items=1000, capacity=100, horizon=10_000)
    experts = AdaptiveOGB().experts(instance)
    assert [expert.step(instance) >= 1 for expert in experts] == [False] * (len(experts) - 1) + [True]
    requests = redrawn(1000, 10_000)
    large = [OGB(scale=experts[-1].scale * factor) for factor in (1, 2, 8)]
    gains = [one.run_block(one.init(instance, Streams(0)), requests).fractional for one in large]
    assert gains[0] == pytest.approx(gains[1]) == pytest.approx(gains[2])


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_steps_of_one_and_a_share_are_all_the_same_and_no_smaller_ones(capacity: int) -> None:
    """In a cycle, where what comes in has been out for longest: the hardest case is a cache of whole items."""
    requests, instance = np.arange(200) % 8, CacheInstance(items=8, capacity=capacity, horizon=200)

    def path(step: float) -> np.ndarray:
        policy = OGB(scale=step / OGB(start="empty").step(instance), start="empty")
        state, points = policy.init(instance, Streams(0)), []
        for item in requests:
            policy.run_block(state, np.array([item]))
            points.append(state.fractional)
        return np.array(points)

    least = 1 + 1 / capacity
    np.testing.assert_allclose(path(least + 1e-6), path(50.0), atol=1e-9)
    assert np.abs(path(least - 0.05) - path(50.0)).max() > 0.01
    steps = [expert.step(instance) for expert in AdaptiveOGB().experts(instance)]
    assert steps[-2] < least <= steps[-1]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(RivageError, match="slot"):
        AdaptiveOGB(slot=0)
    with pytest.raises(RivageError, match="Swap"):
        AdaptiveOGB(smallest=2, largest=1)

"""The loop: points where they are asked for, sums from the beginning, whatever the blocks of the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.online.eviction import LRU
from rivage.online.experts import AdaptiveOGB
from rivage.online.ftpl import FTPL
from rivage.online.game import play
from rivage.online.ogb import OGB
from rivage.online.policy import CacheInstance, Outcome
from rivage.online.statics import Belady, BestStatic


class Half:
    """Caches the even items, and says how many requests each block had."""

    reference = ""

    def init(self, instance: CacheInstance, streams: Streams) -> list[int]:
        return []

    def run_block(self, state: list[int], requests: np.ndarray) -> Outcome:
        state.append(len(requests))
        even = float((requests % 2 == 0).sum())
        return Outcome(len(requests), even, 2 * even, 3 * even, len(requests), float(len(state)))


@settings(deadline=None)  # the kernel is compiled on first use
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=50), st.lists(st.integers(0, 50), max_size=4), st.integers(1, 60)
)
def test_points_are_sums_from_the_beginning(asked: list[int], cuts: list[int], every: int) -> None:
    requests, events = np.array(asked), list[dict[str, Any]]()
    instance = CacheInstance(items=8, capacity=4, weights=np.arange(8.0))
    blocks = np.split(requests, sorted(min(cut, len(requests)) for cut in cuts))
    played = play(Half(), instance, blocks, streams=Streams(0), every=every, window=7, observe=events.append)
    assert events == list(played.points)
    ends = [*range(every, len(requests), every), len(requests)]
    assert [event["requests"] for event in events] == ends
    assert played.state == np.diff([0, *ends]).tolist(), "blocks are cut at points, and only there"
    for event, end in zip(events, ends, strict=True):
        even = float((requests[:end] % 2 == 0).sum())
        assert (event["hits"], event["gain"], event["fractional"]) == (even, 2 * even, 3 * even)
        assert event["asked"] == requests[:end].sum()
        assert event["regret"] == event["optimum"] - event["fractional"]
        assert event["bound"] is None
        assert event["windowed"] >= event["optimum"]
    assert played.last["occupancy"] == len(ends)
    assert played.seconds >= 0


def test_a_trace_of_nothing_has_no_points() -> None:
    played = play(Half(), CacheInstance(items=3, capacity=1), [], streams=Streams(0), every=5)
    assert played.points == ()


@pytest.mark.parametrize("wrong", [-1, 8, 10**12])
def test_requests_for_no_item_are_refused_before_anybody_writes_there(wrong: int) -> None:
    instance = CacheInstance(items=8, capacity=4)
    blocks = [np.array([0, 7]), np.array([3, wrong, 1])]
    for policy in (LRU(), Belady(), BestStatic(), FTPL(), OGB()):
        with pytest.raises(DataError, match=f"request 3 is for item {wrong}.*from 0 to 7"):
            play(policy, instance, blocks, streams=Streams(0), every=2)
    with pytest.raises(DataError, match=r"request 1 is for item 1\.5, of type float64"):
        play(Half(), instance, [np.array([1.0, 1.5])], streams=Streams(0), every=2)


@pytest.mark.parametrize("name", ["every", "block", "window"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        play(Half(), CacheInstance(items=3, capacity=1), [], streams=Streams(0), **{"every": 5, name: 0})


def test_what_a_policy_promises_stands_beside_its_regret() -> None:
    requests = np.arange(3000) % 100
    instance = CacheInstance(items=100, capacity=10, horizon=3000)
    played = play(OGB(), instance, [requests], streams=Streams(0), every=1000)
    assert [point["requests"] for point in played.points] == [1000, 2000, 3000]
    assert played.last["optimum"] == 300
    assert 0 < played.last["regret"] <= played.last["bound"] == pytest.approx(OGB().regret_bound(instance, 3000))


class Prophet(Half):
    """Notes what is told beforehand, too."""

    def foresee(self, state: list[int], blocks: Iterable[np.ndarray]) -> None:
        state += [-len(block) for block in blocks]


@pytest.mark.parametrize("given", [list, iter])
def test_who_must_know_the_future_is_told_all_requests_first(given: Callable[[Any], Any]) -> None:
    blocks = [np.array([0, 1, 2]), np.array([3, 0])]
    played = play(Prophet(), CacheInstance(items=4, capacity=1), given(blocks), streams=Streams(0), every=2)
    assert played.state == [-3, -2, 2, 2, 1]


@given(st.integers(0, 60), st.integers(1, 25), st.integers(1, 25))
def test_parts_are_at_most_a_block_and_points_stay_where_they_are(count: int, every: int, block: int) -> None:
    requests, instance = np.arange(count) % 8, CacheInstance(items=8, capacity=4)
    whole = play(Half(), instance, [requests], streams=Streams(0), every=every)
    parts = play(Half(), instance, [requests], streams=Streams(0), every=every, block=block)
    assert max([0, *parts.state]) <= block
    assert sum(parts.state) == count
    same = [name for name in whole.last if name != "occupancy"] if count else []
    for one, other in zip(whole.points, parts.points, strict=True):
        assert [one[name] for name in same] == [other[name] for name in same]


def test_what_is_played_is_wide() -> None:
    seen = []

    class Watch(Half):
        def run_block(self, state: list[int], requests: np.ndarray) -> Outcome:
            seen.append(requests.dtype)
            return super().run_block(state, requests)

    play(Watch(), CacheInstance(items=4, capacity=1), [np.array([0, 3], np.int32)], streams=Streams(0), every=1)
    assert seen == [np.int64, np.int64]


def test_only_what_was_not_asked_for_is_prefetched() -> None:
    requests = np.random.default_rng(0).integers(0, 60, 4000)
    known, unknown = (CacheInstance(items=60, capacity=6, horizon=horizon) for horizon in (4000, None))
    for policy in (OGB(), OGB(every=7), LRU(), FTPL()):
        assert play(policy, known, [requests], streams=Streams(0), every=500).last["prefetched"] == 0
    rescaled = play(FTPL(), unknown, [requests], streams=Streams(0), every=500).last
    misses = rescaled["requests"] - rescaled["hits"]
    assert 0 < rescaled["prefetched"] <= rescaled["inserted"] <= misses + rescaled["prefetched"] + 6


def test_following_another_expert_costs_the_weight_of_what_it_holds() -> None:
    requests = np.random.default_rng(0).zipf(1.5, 6000) % 60
    plain = CacheInstance(items=60, capacity=6, horizon=6000)
    doubled = CacheInstance(items=60, capacity=6, horizon=6000, weights=np.full(60, 2.0))
    one, two = (
        play(AdaptiveOGB(), cache, [requests], streams=Streams(0), every=6000).last for cache in (plain, doubled)
    )
    assert one["prefetched"] > 0
    assert two["prefetched"] % 2 == 0

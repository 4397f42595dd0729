"""Knowing the future: best fixed set by counting, Belady by brute force, and nobody does better."""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.online.adaptive_eviction import ARC, S3FIFO
from rivage.online.eviction import FIFO, LFU, LFUDA, LRU, LFUInCache, RandomEviction, WindowLFU
from rivage.online.ogb import OGB
from rivage.online.policy import CacheInstance, Outcome, Policy
from rivage.online.regret import StaticOptimum
from rivage.online.statics import Belady, BestStatic

DEMAND = (FIFO(), RandomEviction(), LRU(), LFU(), LFUInCache(), WindowLFU(window=20), LFUDA(), ARC(), S3FIFO())
CHOOSY = (LFU(bypass=True), WindowLFU(window=20, bypass=True))


def run(policy: Policy, requests: np.ndarray, instance: CacheInstance, cuts: tuple[int, ...] = ()) -> list[Outcome]:
    state = policy.init(instance, Streams(0))
    if isinstance(policy, Belady | BestStatic):
        policy.foresee(state, [requests])
    return [policy.run_block(state, part) for part in np.split(requests, cuts)]


def hits(policy: Policy, requests: np.ndarray, items: int, capacity: int) -> float:
    return run(policy, requests, CacheInstance(items=items, capacity=capacity))[0].hits


def most_hits(requests: tuple[int, ...], capacity: int, *, bypass: bool) -> int:
    """The largest number of hits, over all decisions."""

    @cache
    def after(number: int, held: frozenset[int]) -> int:
        if number == len(requests):
            return 0
        item = requests[number]
        if item in held:
            return 1 + after(number + 1, held)
        choices = [held | {item}] if len(held) < capacity else [held - {victim} | {item} for victim in held]
        return max(after(number + 1, chosen) for chosen in choices + [held] * bypass)

    return after(0, frozenset())


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_belady_equals_brute_force(data: st.DataObject) -> None:
    items = data.draw(st.integers(2, 5))
    capacity = data.draw(st.integers(1, items - 1))
    requests = data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=14))
    forced, free = most_hits(tuple(requests), capacity, bypass=False), most_hits(tuple(requests), capacity, bypass=True)
    asked = np.array(requests)
    assert hits(Belady(), asked, items, capacity) == forced
    assert hits(Belady(bypass=True), asked, items, capacity) == free
    assert hits(BestStatic(), asked, items, capacity) <= free + capacity


def furthest(requests: list[int], capacity: int, *, bypass: bool) -> list[tuple[bool, set[int]]]:
    """Belady's rule by looking through the rest of the requests."""
    held: list[int] = []  # by last request
    seen = []
    for number, item in enumerate(requests):
        rest = requests[number + 1 :]
        hit = item in held
        if hit:
            held.remove(item)
        elif len(held) == capacity:
            until = [rest.index(other) if other in rest else len(requests) for other in held]
            mine = rest.index(item) if item in rest else len(requests)
            if bypass and mine >= max(until):
                seen.append((hit, set(held)))
                continue
            held.pop(until.index(max(until)))
        held.append(item)
        seen.append((hit, set(held)))
    return seen


@pytest.mark.parametrize("bypass", [False, True])
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_belady_evicts_what_is_furthest(bypass: bool, data: st.DataObject) -> None:
    items = data.draw(st.integers(2, 12))
    capacity = data.draw(st.integers(1, items - 1))
    requests = data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=80))
    weights = data.draw(st.none() | st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=items, max_size=items))
    instance = CacheInstance(items=items, capacity=capacity, weights=None if weights is None else np.array(weights))
    policy, inserted, before = Belady(bypass=bypass), 0, set[int]()
    state = policy.init(instance, Streams(0))
    policy.foresee(state, [np.array(requests)])
    for item, (hit, held) in zip(requests, furthest(requests, capacity, bypass=bypass), strict=True):
        outcome = policy.run_block(state, np.array([item]))
        assert state.cached.tolist() == sorted(held)
        assert outcome.hits == hit
        assert outcome.gain == outcome.fractional == hit * (1.0 if weights is None else weights[item])
        assert (outcome.inserted, outcome.occupancy) == (len(held - before), len(held))
        inserted, before = inserted + outcome.inserted, held
    assert len(held) <= capacity


def trace(kind: int, items: int, count: int) -> np.ndarray:
    random = np.random.default_rng(kind)
    popularity = 1 / np.arange(1, items + 1) ** 0.8
    drawn = random.choice(items, count, p=popularity / popularity.sum())
    return (drawn, np.arange(count) % items, (drawn + np.arange(count) // 50) % items, np.sort(drawn))[kind]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize(("items", "capacity"), [(10, 1), (10, 9), (200, 20), (200, 120)])
def test_nobody_does_better(kind: int, items: int, capacity: int) -> None:
    requests = trace(kind, items, 5000)
    forced, free = (hits(Belady(bypass=bypass), requests, items, capacity) for bypass in (False, True))
    assert all(hits(policy, requests, items, capacity) <= forced for policy in DEMAND)
    assert all(hits(policy, requests, items, capacity) <= free for policy in CHOOSY)
    assert forced <= free
    assert hits(BestStatic(), requests, items, capacity) <= free + capacity


def test_bypass_is_worth_something() -> None:
    """One place, two items in turn: letting in what is requested never pays."""
    requests = np.array([0, 1] * 10)
    assert hits(Belady(), requests, 2, 1) == 0
    assert hits(Belady(bypass=True), requests, 2, 1) == 9
    assert hits(BestStatic(), requests, 2, 1) == 10


def test_weights_can_turn_the_order_round() -> None:
    """Documented: with weights Belady is no bound. Here LRU keeps what is dear, Belady what comes sooner."""
    requests, weights = np.array([0, 1, 2, 0, 1]), np.array([0.1, 9.0, 0.1])
    instance = CacheInstance(items=3, capacity=2, weights=weights)
    gain = run(Belady(), requests, instance)[0].gain
    assert gain == pytest.approx(0.1)  # keeps 0, lets 1 go
    assert run(BestStatic(), requests, instance)[0].gain > gain


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_best_static_is_the_top(data: st.DataObject) -> None:
    items = data.draw(st.integers(2, 12))
    capacity = data.draw(st.integers(1, items - 1))
    requests = np.array(data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=60)))
    weights = data.draw(st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=items, max_size=items))
    instance = CacheInstance(items=items, capacity=capacity, weights=None if weights is None else np.array(weights))
    values = np.bincount(requests, minlength=items) * (np.ones(items) if weights is None else np.array(weights))
    best, policy = np.sort(values)[-capacity:].sum(), BestStatic()
    state = policy.init(instance, Streams(0))
    assert state.cached.tolist() == []
    policy.foresee(state, [requests])
    outcome = policy.run_block(state, requests)
    assert outcome.gain == outcome.fractional == pytest.approx(best)
    assert outcome.gain == pytest.approx(StaticOptimum(instance).add(requests))
    assert outcome.hits == np.isin(requests, state.cached).sum()
    assert values[state.cached].sum() == pytest.approx(best)
    assert (values[state.cached] > 0).all()
    assert outcome.inserted == outcome.occupancy == len(state.cached) == min(capacity, np.count_nonzero(values))


def test_ties_go_to_the_first_items() -> None:
    policy = BestStatic()
    state = policy.init(CacheInstance(items=5, capacity=2), Streams(0))
    policy.foresee(state, [np.array([4, 3]), np.array([2, 1, 0])])
    assert state.cached.tolist() == [0, 1]


@pytest.mark.parametrize("policy", [Belady(), Belady(bypass=True), BestStatic()])
def test_where_blocks_end_changes_nothing(policy: Policy) -> None:
    requests = trace(2, 100, 2000)
    instance = CacheInstance(items=100, capacity=10)
    whole = run(policy, requests, instance)[0]
    assert isinstance(policy, Policy)
    for cuts in ((0, 1, 2, 700, 2000), tuple(range(1, 2000))):
        parts = run(policy, requests, instance, cuts)
        sums = [sum(getattr(part, what) for part in parts) for what in ("requests", "hits", "gain", "inserted")]
        assert sums == [whole.requests, whole.hits, whole.gain, whole.inserted]
        assert parts[-1].occupancy == whole.occupancy == 10


def test_filling_is_paid_for_once() -> None:
    requests = np.array([1, 1, 2, 2, 0])
    parts = run(BestStatic(), requests, CacheInstance(items=4, capacity=2), (0, 2))
    assert [part.inserted for part in parts] == [0, 2, 0]
    assert [part.hits for part in parts] == [0, 2, 2]


@pytest.mark.parametrize("policy", [Belady(), BestStatic()])
def test_only_what_was_foreseen_is_served(policy: Belady | BestStatic) -> None:
    instance, requests = CacheInstance(items=4, capacity=2), np.array([0, 1, 2, 3])
    state = policy.init(instance, Streams(0))
    with pytest.raises(DataError, match="not known"):
        policy.run_block(state, requests)
    policy.foresee(state, [requests])
    with pytest.raises(DataError, match="already"):
        policy.foresee(state, [requests])
    policy.run_block(state, requests[:2])
    with pytest.raises(DataError, match="requests 2 to 3: these are not"):
        policy.run_block(state, np.array([2, 2]))
    policy.run_block(state, requests[2:])
    with pytest.raises(DataError, match="not the requests"):
        policy.run_block(state, requests[:1])


def test_the_best_set_asks_how_often_and_not_when() -> None:
    instance, requests = CacheInstance(items=100, capacity=10), trace(2, 100, 2000)
    policy = BestStatic()
    state = policy.init(instance, Streams(0))
    policy.foresee(state, np.split(requests.astype(np.int32), (1, 700)))
    outcome = policy.run_block(state, requests[::-1])
    assert (outcome, state.left.tolist()) == (run(policy, requests, instance)[0], [0] * 100)


def test_belady_keeps_the_trace_narrow() -> None:
    policy = Belady()
    state = policy.init(CacheInstance(items=4, capacity=2), Streams(0))
    policy.foresee(state, [np.array([0, 1]), np.array([], np.int64), np.array([3])])
    assert (state.future.tolist(), state.future.dtype) == ([0, 1, 3], np.int32)


def test_gradient_descent_stays_below_bypass() -> None:
    """It may leave requests outside and fetches its first items beforehand; its size is 20 on average only."""
    requests = trace(0, 200, 20_000)
    instance = CacheInstance(items=200, capacity=20, horizon=20_000)
    assert run(OGB(), requests, instance)[0].hits <= hits(Belady(bypass=True), requests, 200, 20) + 20


def test_published_hit_ratio_of_the_best_set(data_root: Path) -> None:
    """The README beside the trace; also that nobody in its table beats Belady."""
    file = data_root / "traces" / "web12.trace.xz"
    if not file.is_file():
        pytest.skip(f"the trace web12 is not on this machine ({file})")
    keys = np.frombuffer(lzma.decompress(file.read_bytes()), dtype=">i4")
    requests = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    for capacity, static, best in ((137, 0.3218, 0.4096), (687, 0.6093, 0.6479), (1375, 0.7095, 0.7212)):
        assert round(hits(BestStatic(), requests, 13_756, capacity) / len(requests), 4) == static
        assert hits(Belady(), requests, 13_756, capacity) / len(requests) > best

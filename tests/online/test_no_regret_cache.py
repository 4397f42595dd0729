"""NoRegretCache: the decisions of OGB for any keys, below its bound, in any thread, out of any snapshot."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Hashable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from safetensors.numpy import load, save

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.online import no_regret_memory as words
from rivage.online.game import play
from rivage.online.key_slots import identity
from rivage.online.no_regret_cache import NoRegretCache
from rivage.online.ogb import OGB
from rivage.online.policy import CacheInstance

SEED = 3


def zipf(items: int, count: int, seed: int = 0, exponent: float = 0.8) -> np.ndarray:
    popularity = 1 / np.arange(1, items + 1) ** exponent
    return np.random.default_rng(seed).choice(items, count, p=popularity / popularity.sum())


def mixed(items: int, count: int) -> np.ndarray:
    """Popular items, then all in turn: many keys fall to 0 and come back."""
    part = count // 4
    return np.concatenate([zipf(items, part), np.arange(part) % items, zipf(items, part, 1), np.arange(part) % items])


def of_ogb(**options: Any) -> NoRegretCache[int, Any]:
    """A cache that should do what OGB does with `Streams(SEED)`."""
    return NoRegretCache(**{"start": "empty", "seed": Streams(SEED).seed("permanent"), **options})


# --- equal to OGB -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [8000, None])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_every_decision_is_that_of_ogb(horizon: int | None, scale: float) -> None:
    """With ten times more keys than the cache remembers: to forget them changes nothing."""
    requests, instance = mixed(3000, 8000), CacheInstance(items=3000, capacity=30, horizon=horizon)
    policy = OGB(start="empty", scale=scale)
    state, cache = policy.init(instance, Streams(SEED)), of_ogb(capacity=30, horizon=horizon, scale=scale)
    gained = 0.0
    for number, item in enumerate(requests.tolist()):
        outcome = policy.run_block(state, np.array([item]))
        gained += outcome.fractional
        assert cache.request(item) == outcome.hits
        assert len(cache) == outcome.occupancy
        if number % 500 == 0:
            assert sorted(cache) == state.cached.tolist()
            found = np.array([cache.value_of(item) for item in range(3000)])
            np.testing.assert_allclose(found, state.fractional, atol=1e-12)
    assert cache.stats().fractional == pytest.approx(gained, rel=1e-12)
    assert len(cache._table.index) < 3000


def test_sums_are_those_of_a_game() -> None:
    requests, instance = mixed(2000, 20_000), CacheInstance(items=2000, capacity=50, horizon=20_000)
    last = play(OGB(start="empty"), instance, [requests], streams=Streams(SEED), every=20_000).last
    cache = of_ogb(capacity=50, horizon=20_000, compare=True)
    assert sum(cache.requests(requests.tolist())) == last["hits"]
    found = cache.stats()
    assert (found.requests, found.hits, found.insertions) == (20_000, last["hits"], last["inserted"])
    assert (found.optimum, found.regret) == (last["optimum"], pytest.approx(last["regret"]))
    assert found.regret_bound == pytest.approx(OGB(start="empty").regret_bound(instance, 20_000))
    assert found.insertions - found.evictions == found.cached == len(cache)


@pytest.mark.parametrize("options", [{}, {"horizon": 9000}, {"start": "empty", "horizon": 9000}, {"hard": True}])
def test_a_batch_is_its_requests(options: dict[str, Any]) -> None:
    requests = mixed(3000, 9000).tolist()
    one, other = (NoRegretCache[int, None](40, seed=1, **options) for _ in range(2))
    assert [one.request(key) for key in requests] == other.requests(requests)
    assert one.stats() == other.stats()
    assert set(one) == set(other)


def test_forgetting_changes_nothing_and_keeps_memory_small() -> None:
    """60,000 keys that come once, between 50 that stay."""
    keys = [key for number in range(60_000) for key in (number, number % 50)]
    small, large = (NoRegretCache[int, None](50, horizon=len(keys), compare=remembers) for remembers in (False, True))
    most = 0
    for first in range(0, len(keys), 500):
        part = keys[first : first + 500]
        assert small.requests(part) == large.requests(part)
        most = max(most, small.stats().positive)
    assert len(large._table.index) == 60_000
    assert len(small._table.index) <= len(small._table.keys) <= 4 * (most + words.BATCH)


def test_positive_keys_are_few_whatever_is_asked_for() -> None:
    """Only new keys: each η is drained from all positive ones, which settle at 2 C / η of them."""
    cache: NoRegretCache[int, None] = NoRegretCache(20, horizon=20_000, start="empty")
    cache.requests(range(20_000))
    assert cache.stats().positive == pytest.approx(2 * 20 / cache.step, rel=0.05)


def test_keys_of_any_kind_get_uniform_numbers() -> None:
    keys: list[Hashable] = [f"page/{n}" for n in range(2000)]
    keys += [(n, "part") for n in range(2000)] + [str(n).encode() for n in range(2000)] + [-n for n in range(2000)]
    memory = words.make_memory(2, 10, target=1, step=1, limit=1, seed=5, anytime=False, fills=False, counts=False)
    numbers = []
    for key in keys:
        words.enter(memory, np.array([0]), np.array([identity(key)]))
        numbers.append(words.opened(memory).number[0])
    # Kolmogorov-Smirnov: 1.95 / √n is exceeded with probability 1e-3.
    ranks = np.sort(numbers) - np.arange(len(numbers)) / len(numbers)
    assert np.abs(ranks).max() < 1.95 / math.sqrt(len(numbers))
    assert identity(True) == identity(np.int64(1)) == identity(1.0) == 1
    assert -(2**63) <= identity(2**200) < 2**63


# --- regret -----------------------------------------------------------------------------------------------------------


def best(asked: list[int], capacity: int) -> int:
    return sum(count for _, count in Counter(asked).most_common(capacity))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_regret_never_exceeds_its_bound(data: st.DataObject) -> None:
    """For every prefix; also against an adversary that asks for what has the least, or for something new."""
    capacity, count = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 120))
    cache: NoRegretCache[int, None] = NoRegretCache(
        capacity,
        horizon=data.draw(st.sampled_from([None, count, 10 * count])),
        scale=data.draw(st.sampled_from([0.1, 0.7, 1.0, 4.0])),
        start=data.draw(st.sampled_from(["fill", "empty"])),
        hard=data.draw(st.booleans()),
        compare=True,
    )
    drawn = data.draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    way, asked = data.draw(st.sampled_from(["drawn", "least", "new"])), []
    for number in range(count):
        least = min(range(2 * capacity), key=cache.value_of)
        asked.append({"drawn": drawn[number], "least": least, "new": number % 50 if number % 3 else 0}[way])
        cache.request(asked[-1])
        stats = cache.stats()
        assert stats.optimum == best(asked, capacity)
        assert stats.regret is not None
        assert stats.regret <= stats.regret_bound + 1e-9


def test_bounds_are_those_of_the_page() -> None:
    """C = 100, T = 10,000: √(C T) = 1000 empty, √(2 C T) + C filled; 2 √(C t) without a horizon."""
    empty = NoRegretCache[int, None](100, horizon=10_000, start="empty")
    filled, anytime = NoRegretCache[int, None](100, horizon=10_000), NoRegretCache[int, None](100)
    assert empty.regret_bound(10_000) == pytest.approx(1000)
    assert filled.regret_bound(10_000) == pytest.approx(100 + 1000 * math.sqrt(2))
    assert anytime.regret_bound(10_000) == pytest.approx(2000)
    assert NoRegretCache[int, None](100, scale=0.5).regret_bound(10_000) == pytest.approx(2550)
    assert (empty.step, filled.step, anytime.step) == pytest.approx((0.1, math.sqrt(0.02), 10))


def test_regret_of_every_window_stays_below_its_bound() -> None:
    """C / η + η H / 2 for windows of H requests, with popularity that changes between them."""
    window, capacity = 1000, 20
    cache: NoRegretCache[int, None] = NoRegretCache(capacity, horizon=window)
    gained, asked = [0.0], []
    for seed in range(6):
        for key in np.random.default_rng(seed).permutation(300)[zipf(300, window, seed, 1.1)].tolist():
            asked.append(key)
            cache.request(key)
            gained.append(cache.stats().fractional)
    bound = capacity / cache.step + cache.step * window / 2
    starts = range(capacity * 2, len(asked) - window, 250)
    regrets = [best(asked[s : s + window], capacity) - (gained[s + window] - gained[s]) for s in starts]
    assert len(regrets) == 20
    assert max(regrets) <= bound


def test_hits_are_the_fractional_gain_on_average() -> None:
    """Over 100 seeds, within 4 standard errors (false alarm below 1e-4), also when slots change hands."""
    requests = mixed(1500, 4000).tolist()
    found = [NoRegretCache[int, None](25, seed=seed) for seed in range(100)]
    hits = [sum(cache.requests(requests)) for cache in found]
    error = np.std(hits, ddof=1) / 10
    assert abs(np.mean(hits) - found[0].stats().fractional) < 4 * error


def test_a_cache_with_room_takes_in_what_is_asked_for() -> None:
    for options in ({}, {"horizon": 10**6}, {"hard": True}):
        cache: NoRegretCache[int, None] = NoRegretCache(100, **options)
        assert not any(cache.requests(range(100)))
        assert all(cache.requests(range(100)))
        assert len(cache) == 100


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_hard_limit_is_never_passed_and_loses_little() -> None:
    requests = zipf(5000, 40_000).tolist()
    soft, hard = (NoRegretCache[int, None](100, seed=2, hard=hard) for hard in (False, True))
    sizes = {len(cache) for key in requests if (cache := hard).request(key) in (True, False)}
    soft.requests(requests)
    found, free = hard.stats(), soft.stats()
    assert max(sizes) == 100
    assert found.fractional == pytest.approx(free.fractional)
    assert found.crowded > 0
    assert found.hits == free.hits - found.lost
    assert 0 < found.lost < 0.01 * free.hits


def test_bytes_are_limited_and_given_back() -> None:
    gone: list[int] = []
    cache: NoRegretCache[int, bytes] = NoRegretCache(
        20, max_bytes=500, sizeof=len, on_evict=lambda key, value: gone.append(key)
    )
    for key in zipf(400, 4000).tolist():
        assert len(cache.get_or_fetch(key, lambda key: b"x" * (10 + key % 90))) == 10 + key % 90
        held = sum(10 + key % 90 for key in cache)
        assert held == cache._held.bytes == sum(map(len, cache._held.values.values())) <= 500
    stats = cache.stats()
    assert stats.crowded > 0
    assert len(gone) == stats.evictions > 0
    with pytest.raises(ConfigError, match="sizes"):
        cache.requests([1])
    with pytest.raises(ConfigError, match="sizeof=len"):
        NoRegretCache[int, bytes](2, max_bytes=3).get_or_fetch(1, bytes)


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_live_as_long_as_their_keys() -> None:
    events: list[tuple[int, str | None]] = []
    cache: NoRegretCache[int, str] = NoRegretCache(15, on_evict=lambda key, value: events.append((key, value)))
    fetched: list[int] = []

    def fetch(key: int) -> str:
        fetched.append(key)
        return str(key)

    requests = zipf(200, 3000).tolist()
    for key in requests:
        assert cache.get_or_fetch(key, fetch) == str(key)
        assert set(cache._held.values) == set(cache)
    stats = cache.stats()
    assert stats.hits == len(requests) - len(fetched)
    assert len(events) == stats.evictions
    assert all(value == str(key) for key, value in events)


def test_a_value_that_was_dropped_is_fetched_again() -> None:
    cache: NoRegretCache[str, int] = NoRegretCache(5)
    assert cache.get_or_fetch("a", lambda key: 1) == 1
    assert cache.get_or_fetch("a", lambda key: 2) == 1
    cache.invalidate("a")
    assert "a" in cache
    assert cache.get_or_fetch("a", lambda key: 3) == 3
    assert cache.get_or_fetch("a", lambda key: 4) == 3
    assert (cache.stats().requests, cache.stats().hits) == (4, 2)


def test_a_batch_tells_only_of_keys_that_are_not_back() -> None:
    told: list[int] = []

    def gone(key: int, value: None) -> None:
        assert key not in cache
        told.append(key)

    cache: NoRegretCache[int, None] = NoRegretCache(5, scale=20.0, on_evict=gone)
    cache.requests(zipf(12, 3000).tolist())
    assert 0 < len(told) < cache.stats().evictions


def test_wheels_become_finer_as_steps_become_smaller() -> None:
    cache: NoRegretCache[int, None] = NoRegretCache(1000)
    bits = cache._table.bits
    cache.requests(zipf(3000, 70_000).tolist())
    assert cache._table.bits == bits + 3  # steps are an eighth of those at 4000 requests at most, until 256,000


def test_a_fetch_that_fails_leaves_no_trace() -> None:
    cache: NoRegretCache[str, float] = NoRegretCache(5)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_fetch("a", lambda key: 1 / 0)
    assert cache.stats().requests == 0
    assert "a" not in cache
    assert cache.get_or_fetch("a", lambda key: 1.0) == 1.0


@pytest.mark.parametrize("size", [-1, "3", float("nan"), None, 2.5])
def test_a_size_that_is_none_leaves_no_trace(size: Any) -> None:
    """Nobody waits for a fetch that has ended like this."""
    cache: NoRegretCache[str, Any] = NoRegretCache(5, max_bytes=9, sizeof=lambda value: value)
    for _ in range(2):
        with pytest.raises(ConfigError, match="size is "):
            cache.get_or_fetch("a", lambda key: size)
    with pytest.raises(ConfigError, match="size is "):
        cache.request("a", size=size)
    assert (cache.stats().requests, cache._flights.under_way, cache._held.bytes) == (0, {}, 0)
    assert cache.get_or_fetch("a", lambda key: 4) == cache._held.bytes == 4


def test_a_fetch_may_use_the_cache() -> None:
    cache: NoRegretCache[int, int] = NoRegretCache(50)

    def fibonacci(n: int) -> int:
        return n if n < 2 else cache.get_or_fetch(n - 1, fibonacci) + cache.get_or_fetch(n - 2, fibonacci)

    assert cache.get_or_fetch(40, fibonacci) == 102334155
    assert cache.get_or_fetch(99, lambda key: cache.get_or_fetch(key, lambda key: 7)) == 7


# --- threads ----------------------------------------------------------------------------------------------------------


def in_threads(count: int, work: Any) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors


def test_threads_share_one_cache() -> None:
    """Requests, batches, fetches, snapshots and looks, all at once: sums agree, values belong to their keys."""
    lock, told = threading.Lock(), Counter[str]()

    def gone(key: int, value: str | None) -> None:
        with lock:
            told["gone"] += 1
        assert value in (None, str(key))

    cache: NoRegretCache[int, str] = NoRegretCache(30, hard=True, on_evict=gone)

    def work(number: int) -> None:
        hits = 0
        for place, key in enumerate(mixed(1000, 4000).tolist()):
            if number < 3:
                assert cache.get_or_fetch(key, str) == str(key)
            else:
                hits += cache.request(key)
            if place % 500 == 0:
                assert len(list(cache)) <= 30
                NoRegretCache.restore(cache.snapshot())
                cache.stats()
        with lock:
            told["hits"] += hits

    in_threads(4, work)
    stats = cache.stats()
    assert stats.requests == 16_000
    assert stats.insertions - stats.evictions == stats.cached == len(list(cache))
    assert told["gone"] == stats.evictions
    assert set(cache._held.values) <= set(cache)
    assert not cache._flights.under_way


def test_one_thread_fetches_and_the_others_wait() -> None:
    cache: NoRegretCache[str, int] = NoRegretCache(5)
    entered, proceed, calls = threading.Event(), threading.Event(), []

    def fetch(key: str) -> int:
        calls.append(key)
        entered.set()
        assert proceed.wait(60)
        return 7

    def work(number: int) -> None:
        if number:
            assert entered.wait(60)
            if number == 3:
                proceed.set()
        assert cache.get_or_fetch("a", fetch) == 7

    in_threads(4, work)
    assert calls == ["a"]
    assert cache.stats().requests == 4


def test_what_was_under_way_when_a_key_changed_is_not_kept() -> None:
    cache: NoRegretCache[str, int] = NoRegretCache(5)

    def old(key: str) -> int:
        cache.invalidate(key)
        return 1

    assert cache.get_or_fetch("a", old) == 1
    assert cache.get_or_fetch("a", lambda key: 2) == 2
    assert cache.get_or_fetch("a", lambda key: 3) == 2


# --- snapshots --------------------------------------------------------------------------------------------------------

KINDS = [{}, {"horizon": 9000}, {"hard": True, "start": "empty", "horizon": 500}, {"compare": True, "scale": 5.0}]


@pytest.mark.parametrize("options", KINDS)
def test_a_restored_cache_goes_on_as_the_other(options: dict[str, Any]) -> None:
    """To the bit: values, decisions, sums; and as one that was never looked at, up to rounding."""
    requests = mixed(3000, 9000)
    never = NoRegretCache[Any, None](40, seed=9, **options)
    one = NoRegretCache[Any, None](40, seed=9, **options)
    for first, end in pairwise([0, 1, 3000, 3001, 6000, 9000]):
        part = requests[first:end].tolist()
        other = NoRegretCache[Any, None].restore(one.snapshot())
        assert one.requests(part) == other.requests(part) == never.requests(part)
        assert one.stats() == other.stats()
        assert one.snapshot() == other.snapshot()
        one = other
    assert never.stats().hits == one.stats().hits
    assert never.stats().fractional == pytest.approx(one.stats().fractional, rel=1e-12)


def test_keys_survive_a_snapshot() -> None:
    keys = ["a", "é\ud800", 3, -(2**80), 1.5, b"\xff\x00", (1, ("x", b"y")), True, np.int64(12)]
    cache: NoRegretCache[Any, Any] = NoRegretCache(20)
    cache.requests(keys)
    assert set(NoRegretCache.restore(cache.snapshot())) == set(keys)
    cache.request(frozenset())
    with pytest.raises(DataError, match="frozenset has no place"):
        cache.snapshot()


def test_sizes_survive_a_snapshot() -> None:
    cache: NoRegretCache[int, bytes] = NoRegretCache(5, max_bytes=10, sizeof=len)
    for key in range(4):
        cache.get_or_fetch(key, lambda key: b"xxx")
    other: NoRegretCache[int, bytes] = NoRegretCache.restore(cache.snapshot(), sizeof=len)
    assert other._held.bytes == cache._held.bytes == 9
    assert other.get_or_fetch(0, lambda key: b"yyyyy") == b"yyyyy"
    assert 0 not in other._held.values  # two bytes more do not fit
    assert other.get_or_fetch(0, lambda key: b"yyyy") == b"yyyy"
    assert other._held.values == {0: b"yyyy"}
    assert other._held.bytes == 10


def damaged() -> list[bytes]:
    cache: NoRegretCache[int, None] = NoRegretCache(10, horizon=1000)
    cache.requests(mixed(200, 800).tolist())
    good = cache.snapshot()
    bad = [b"", b"x" * 100, good[:-8], good[:50]]
    for name, change in {
        "key": lambda a: a * 3,
        "number": lambda a: a - 1,
        "held": lambda a: 1 - a,
        "cached": lambda a: np.ones_like(a),
        "floats": lambda a: a * np.nan,
        "ints": lambda a: -a,
        "bytes": lambda a: a[:-1],
        "asked": lambda a: np.zeros(7, a.dtype),
        "head": lambda a: a[:-3],
    }.items():
        arrays = load(good)
        arrays[name] = change(arrays[name])
        bad.append(save(arrays))
    more, late = load(good), load(good)
    more["floats"] = more["floats"] + np.array([0.0, 0.0, 1.0, 0.0])  # room that the state takes already
    late["floats"], late["key"] = late["floats"] + np.array([3e6, 0, 0, 0]), late["key"] + 3e6  # ρ where no ρ gets
    bad += [save(more), save(late)]
    for old, new in [
        (b'"seed": 0', b'"seed": -1'),
        (b'"version": 1', b'"version": 2'),
        (b'"capacity": 10', b'"capacity": 0'),
        (b'"scale": 1.0', b'"scale": "1"'),
        (b'"keys": [', b'"keys": [{},'),
        (b'"bits": 1', b'"bits": 9'),
    ]:
        arrays = load(good)
        arrays["head"] = np.frombuffer(arrays["head"].tobytes().replace(old, new), np.uint8)
        assert arrays["head"].tobytes() != load(good)["head"].tobytes()
        bad.append(save(arrays))
    return bad


@pytest.mark.parametrize("number", range(21))
def test_bytes_that_are_no_snapshot_are_refused(number: int) -> None:
    with pytest.raises(DataError, match="snapshot"):
        NoRegretCache.restore(damaged()[number])


# --- against a plain reference ----------------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Any order of calls against gradient steps on a dictionary, and against permanent numbers kept beside it."""

    @initialize(
        capacity=st.integers(1, 4), horizon=st.sampled_from([None, 4, 50]), hard=st.booleans(), fills=st.booleans()
    )
    def start(self, capacity: int, horizon: int | None, hard: bool, fills: bool) -> None:
        self.options: dict[str, Any] = {"horizon": horizon, "hard": hard, "start": "fill" if fills else "empty"}
        self.cache: NoRegretCache[int, int] = NoRegretCache(capacity, seed=4, **self.options)
        self.capacity, self.values, self.held, self.count = capacity, dict[int, float](), set[int](), 0
        self.close = False  # a value so near its number that rounding decides

    def number(self, key: int) -> float:
        memory = words.make_memory(2, 10, target=1, step=1, limit=1, seed=4, anytime=False, fills=False, counts=False)
        words.enter(memory, np.array([0]), np.array([key]))
        return float(words.opened(memory).number[0])

    def expect(self, key: int) -> bool:
        hit, values = key in self.held, self.values
        self.count += 1
        step = self.cache.step / (math.sqrt(self.count) if self.options["horizon"] is None else 1)
        if self.options["start"] == "fill" and sum(values.values()) <= self.capacity - 1 + 1e-9:
            step = max(step, 1.0)
        values[key] = values.get(key, 0.0) + step

        def total(shift: float) -> float:
            return sum(min(max(value - shift, 0.0), 1.0) for value in values.values())

        low, high = 0.0, max(values.values())
        for _ in range(200 if total(0.0) > self.capacity else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if total(middle) > self.capacity else (low, middle)
        shift = high if total(0.0) > self.capacity else 0.0
        self.values = {k: f for k, v in values.items() if (f := min(v - shift, 1.0)) > 1e-13}
        self.close |= any(abs(f - self.number(k)) < 1e-9 for k, f in self.values.items())
        self.held = {k for k in self.held if self.values.get(k, 0.0) >= self.number(k)}
        if not hit and self.values.get(key, 0.0) >= self.number(key):
            self.held.add(key)
            if self.options["hard"] and len(self.held) > self.capacity:
                ahead = {k: self.values[k] - self.number(k) for k in self.held}
                self.held.remove(min(ahead, key=ahead.__getitem__))
        return hit

    @rule(key=st.integers(0, 9))
    def request(self, key: int) -> None:
        assert self.cache.request(key) == self.expect(key) or self.close

    @rule(keys=st.lists(st.integers(0, 9), max_size=8))
    def requests(self, keys: list[int]) -> None:
        assert self.cache.requests(keys) == [self.expect(key) for key in keys] or self.close

    @rule(key=st.integers(0, 9))
    def fetch(self, key: int) -> None:
        assert self.cache.get_or_fetch(key, lambda key: key * key) == key * key
        self.expect(key)

    @rule(key=st.integers(0, 9))
    def invalidate(self, key: int) -> None:
        self.cache.invalidate(key)

    @rule()
    def save(self) -> None:
        self.cache = NoRegretCache.restore(self.cache.snapshot())

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "cache") or self.close:
            return
        assert set(self.cache) == self.held
        assert all(self.cache.value_of(key) == pytest.approx(self.values.get(key, 0.0), abs=1e-9) for key in range(10))
        assert set(self.cache._held.values) <= self.held


Machine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)
TestMachine = Machine.TestCase


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"scale": 0.0},
        {"horizon": 0},
        {"max_bytes": 0},
        {"start": "warm"},
        {"seed": -1},
        {"seed": 2**64},
        *[
            {name: value}
            for name in ("capacity", "horizon", "max_bytes", "seed")
            for value in ("x", 2.5, [3], True, 1j)
        ],
        *[{name: float(value)} for name in ("capacity", "horizon", "scale", "seed") for value in ("nan", "inf")],
        *[{name: None} for name in ("capacity", "scale", "start", "hard", "compare", "seed")],
        *[{"scale": value} for value in ("1", True, [1.0])],
        *[{name: value} for name in ("hard", "compare") for value in ("no", 1)],
        *[{name: "x"} for name in ("sizeof", "on_evict")],
        {"capacity": 2**62},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(wrong))} is .*Give "):
        NoRegretCache(**{"capacity": 3, **wrong})


def test_numbers_of_numpy_are_numbers() -> None:
    cache: NoRegretCache[int, None] = NoRegretCache(
        np.int64(5),  # type: ignore[arg-type]
        horizon=1e6,  # type: ignore[arg-type]
        scale=np.float32(2),  # type: ignore[arg-type]
        hard=np.True_,  # type: ignore[arg-type]
        seed=np.uint64(2**64 - 1),  # type: ignore[arg-type]
    )
    cache.requests(range(9))
    other: NoRegretCache[int, None] = NoRegretCache.restore(cache.snapshot())
    assert cache.settings == other.settings
    assert NoRegretCache[int, None](2**62 - 1, hard=True).requests([1, 1]) == [False, True]


@pytest.mark.parametrize("data", [None, "text", 3, [b"bytes"]])
def test_what_is_not_even_bytes_is_no_snapshot(data: Any) -> None:
    with pytest.raises(DataError, match="these bytes are no snapshot"):
        NoRegretCache.restore(data)


@pytest.mark.parametrize("horizon", [None, 50])
@pytest.mark.parametrize("capacity", [4, 6])
def test_a_hard_limit_keeps_who_would_leave_last(capacity: int, horizon: int | None) -> None:
    """A long game against the plain reference: at times it is the one that was asked for who does not come in."""
    machine, refused = Machine(), 0
    machine.start(capacity=capacity, horizon=horizon, hard=True, fills=False)
    for key in (np.random.default_rng(capacity).zipf(1.5, 1500) % 10).tolist():
        machine.request(key)
        machine.agrees()
        refused += machine.values.get(key, 0.0) >= machine.number(key) and key not in machine.held
    assert not machine.close
    assert refused > 0

"""Eviction: every policy does what its definition says, request by request, and what theory says in the mean."""

from __future__ import annotations

import copy
import itertools
import lzma
import math
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.online.adaptive_eviction import ARC, S3FIFO
from rivage.online.eviction import FIFO, LFU, LFUDA, LRU, Evicting, EvictionState, LFUInCache, RandomEviction, WindowLFU
from rivage.online.policy import CacheInstance, Outcome, Policy

# Definitions, as slow as they are plain. Each is made for a capacity; `ask` serves one request and says whether it hit.


class Slow:
    def __init__(self, capacity: int) -> None:
        self.capacity, self.inserted = capacity, 0

    @property
    def cached(self) -> set[int]:
        raise NotImplementedError

    def ask(self, item: int) -> bool:
        raise NotImplementedError


class SlowQueue(Slow):
    """FIFO, and LRU when hits move to the end."""

    def __init__(self, capacity: int, moves: bool) -> None:
        super().__init__(capacity)
        self.moves, self.queue = moves, OrderedDict[int, None]()

    @property
    def cached(self) -> set[int]:
        return set(self.queue)

    def ask(self, item: int) -> bool:
        if item in self.queue:
            if self.moves:
                self.queue.move_to_end(item)
            return True
        if len(self.queue) == self.capacity:
            self.queue.popitem(last=False)
        self.queue[item] = None
        self.inserted += 1
        return False


def splitmix(seed: int, number: int) -> int:
    mask = 2**64 - 1
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


class SlowRandom(Slow):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.seed, self.held, self.evicted = Streams(0).seed("eviction"), list[int](), 0

    @property
    def cached(self) -> set[int]:
        return set(self.held)

    def ask(self, item: int) -> bool:
        if item in self.held:
            return True
        self.inserted += 1
        if len(self.held) < self.capacity:
            self.held.append(item)
        else:
            self.held[(splitmix(self.seed, self.evicted) >> 32) * self.capacity >> 32] = item
            self.evicted += 1
        return False


class SlowCounts(Slow):
    """The LFU family: keys by item, ties to the one requested longest ago."""

    def __init__(
        self, capacity: int, *, window: int = 0, forgets: bool = False, ages: bool = False, bypass: bool = False
    ) -> None:
        super().__init__(capacity)
        self.window, self.forgets, self.ages, self.bypass = window, forgets, ages, bypass
        self.past, self.last = list[int](), dict[int, int]()
        self.count, self.key, self.age = Counter[int](), dict[int, int](), 0

    @property
    def cached(self) -> set[int]:
        return set(self.key)

    def ask(self, item: int) -> bool:
        hit = item in self.key
        self.past.append(item)
        if self.window:
            self.count = Counter(self.past[-self.window :])
            for other in self.key:
                self.key[other] = self.count[other]
        else:
            self.count[item] += 1
        if not hit and len(self.key) == self.capacity:
            victim = min(self.key, key=lambda other: (self.key[other], self.last[other]))
            if self.bypass and self.count[item] <= self.key[victim]:
                self.last[item] = len(self.past)
                return False
            if self.ages:
                self.age = self.key[victim]
            if self.forgets:
                self.count[victim] = 0
            del self.key[victim]
        self.inserted += not hit
        self.key[item] = self.count[item] + self.age
        self.last[item] = len(self.past)
        return hit


class SlowARC(Slow):
    """Megiddo and Modha 2003, Figure 4; lists from the least to the most recently used."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.t1, self.t2, self.b1, self.b2 = (list[int]() for _ in range(4))
        self.p = 0.0

    @property
    def cached(self) -> set[int]:
        return {*self.t1, *self.t2}

    def replace(self, item: int) -> None:
        if self.t1 and (len(self.t1) > self.p or (item in self.b2 and len(self.t1) == self.p)):
            self.b1.append(self.t1.pop(0))
        else:
            self.b2.append(self.t2.pop(0))

    def ask(self, item: int) -> bool:
        t1, t2, b1, b2, c = self.t1, self.t2, self.b1, self.b2, self.capacity
        if item in t1 or item in t2:
            (t1 if item in t1 else t2).remove(item)
            t2.append(item)
            return True
        self.inserted += 1
        if item in b1:
            self.p = min(self.p + (1 if len(b1) >= len(b2) else len(b2) / len(b1)), c)
            self.replace(item)
            b1.remove(item)
            t2.append(item)
        elif item in b2:
            self.p = max(self.p - (1 if len(b2) >= len(b1) else len(b1) / len(b2)), 0)
            self.replace(item)
            b2.remove(item)
            t2.append(item)
        else:
            if len(t1) + len(b1) == c:
                if len(t1) < c:
                    b1.pop(0)
                    self.replace(item)
                else:
                    t1.pop(0)
            elif len(t1) + len(b1) + len(t2) + len(b2) >= c:
                if len(t1) + len(b1) + len(t2) + len(b2) == 2 * c:
                    b2.pop(0)
                self.replace(item)
            t1.append(item)
        assert len(t1) + len(t2) <= c
        assert len(t1) + len(b1) <= c
        assert len(t1) + len(t2) + len(b1) + len(b2) <= 2 * c
        return False


class SlowS3FIFO(Slow):
    """Yang et al. 2023, Algorithm 1; queues from the tail (oldest) to the head."""

    def __init__(self, capacity: int, tenths: int = 1, promote: int = 2) -> None:
        super().__init__(capacity)
        self.s, self.m, self.g, self.freq = list[int](), list[int](), list[int](), dict[int, int]()
        self.tenths, self.promote, self.main = tenths, promote, (10 - tenths) * capacity // 10

    @property
    def cached(self) -> set[int]:
        return {*self.s, *self.m}

    def ask(self, item: int) -> bool:
        if item in self.s or item in self.m:
            self.freq[item] = min(self.freq[item] + 1, 3)
            return True
        while len(self.s) + len(self.m) == self.capacity:
            if 10 * len(self.s) >= self.tenths * self.capacity:
                self.evict_small()
            else:
                self.evict_main()
        if item in self.g:
            self.g.remove(item)
            self.m.append(item)
        else:
            self.s.append(item)
        self.freq[item] = 0
        self.inserted += 1
        return False

    def evict_small(self) -> None:
        evicted = False
        while not evicted and self.s:
            tail = self.s.pop(0)
            if self.freq[tail] >= self.promote:
                self.m.append(tail)
                self.freq[tail] = 0
                if len(self.m) > self.main:
                    self.evict_main()
            else:
                self.g.append(tail)
                self.g = self.g[-self.main :] if self.main else []
                evicted = True

    def evict_main(self) -> None:
        evicted = False
        while not evicted and self.m:
            tail = self.m.pop(0)
            if self.freq[tail] > 0:
                self.m.append(tail)
                self.freq[tail] -= 1
            else:
                evicted = True


Definition = Callable[[int], Slow]

POLICIES: dict[str, tuple[Evicting, Definition]] = {
    "FIFO": (FIFO(), lambda k: SlowQueue(k, moves=False)),
    "random": (RandomEviction(), SlowRandom),
    "LRU": (LRU(), lambda k: SlowQueue(k, moves=True)),
    "LFU": (LFU(), SlowCounts),
    "LFU, bypass": (LFU(bypass=True), lambda k: SlowCounts(k, bypass=True)),
    "LFU in cache": (LFUInCache(), lambda k: SlowCounts(k, forgets=True)),
    "window LFU, 1": (WindowLFU(window=1), lambda k: SlowCounts(k, window=1)),
    "window LFU, 12": (WindowLFU(window=12), lambda k: SlowCounts(k, window=12)),
    "window LFU, 30, bypass": (WindowLFU(window=30, bypass=True), lambda k: SlowCounts(k, window=30, bypass=True)),
    "LFU-DA": (LFUDA(), lambda k: SlowCounts(k, forgets=True, ages=True)),
    "ARC": (ARC(), SlowARC),
    "S3-FIFO": (S3FIFO(), SlowS3FIFO),
    "S3-FIFO, half, eager": (S3FIFO(small=0.5, promote=1), lambda k: SlowS3FIFO(k, 5, 1)),
}
every_policy = pytest.mark.parametrize("name", POLICIES)


def zipf(count: int, items: int, seed: int = 0, alpha: float = 0.8) -> np.ndarray:
    popularity = 1 / np.arange(1, items + 1) ** alpha
    return np.random.default_rng(seed).choice(items, count, p=popularity / popularity.sum())


def drifting(count: int, items: int, seed: int = 0) -> np.ndarray:
    """Popularity moves on, and a scan over everything every now and then."""
    shifts = np.arange(count) // 97
    requests = (zipf(count, items, seed, 1.2) + 3 * shifts) % items
    scans = shifts % 4 == 3
    requests[scans] = np.arange(count)[scans] % items
    return requests


TRACES = {
    "zipf": lambda items: zipf(1500, items),
    "cyclic": lambda items: np.arange(1500) % items,
    "drifting": lambda items: drifting(1500, items),
    "pairs": lambda items: np.repeat(zipf(750, items, seed=3), 2),
}


def held_to(name: str, requests: np.ndarray, items: int, capacity: int, weights: np.ndarray | None = None) -> None:
    """Every request by itself, and the cache after it."""
    policy, definition = POLICIES[name]
    slow, instance = definition(capacity), CacheInstance(items=items, capacity=capacity, weights=weights)
    state, inserted = policy.init(instance, Streams(0)), 0
    for number, item in enumerate(requests.tolist()):
        hit = slow.ask(item)
        outcome = policy.run_block(state, requests[number : number + 1])
        inserted += outcome.inserted
        gain = 0.0 if not hit else 1.0 if weights is None else weights[item]
        assert (outcome.hits, outcome.gain, outcome.fractional) == (hit, gain, gain), number
        assert state.cached.tolist() == sorted(slow.cached), number
        assert (inserted, outcome.occupancy, outcome.requests) == (slow.inserted, len(slow.cached), 1)
        assert outcome.occupancy <= capacity


@every_policy
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize(("items", "capacity"), [(2, 1), (9, 1), (5, 4), (30, 6), (40, 20), (21, 20), (150, 90)])
def test_equals_its_definition(name: str, trace: str, items: int, capacity: int) -> None:
    held_to(name, TRACES[trace](items)[:700], items, capacity)


@every_policy
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_instance(name: str, data: st.DataObject) -> None:
    items = data.draw(st.integers(2, 14))
    capacity = data.draw(st.integers(1, items - 1))
    weights = data.draw(st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=items, max_size=items))
    requests = data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=120))
    held_to(name, np.array(requests), items, capacity, None if weights is None else np.array(weights))


def added(outcomes: list[Outcome]) -> tuple[float, ...]:
    sums = [sum(getattr(one, what) for one in outcomes) for what in ("requests", "hits", "gain", "inserted")]
    return (*sums, outcomes[-1].occupancy)


def same(one: Any, other: Any) -> None:
    """Tables are equal to the last entry."""
    for left, right in zip(one, other, strict=True):
        if isinstance(left, tuple):
            same(left, right)
        else:
            np.testing.assert_array_equal(left, right)


def filled(name: str, items: int, capacity: int) -> EvictionState:
    policy = POLICIES[name][0]
    state = policy.init(CacheInstance(items=items, capacity=capacity), Streams(0))
    # Entries that no one has written yet are arbitrary.
    for table in state.tables:
        for array in table if isinstance(table, tuple) else [table]:
            if isinstance(array, np.ndarray) and len(array) == capacity:
                array[:] = 0
    return state


@every_policy
def test_where_blocks_end_changes_nothing(name: str) -> None:
    requests, policy = drifting(3000, 200), POLICIES[name][0]
    results = []
    for cuts in ([], [0, 1, 2, 500, 501, 2222, 3000], list(range(1, 3000))):
        state = filled(name, 200, 20)
        results.append((added([policy.run_block(state, part) for part in np.split(requests, cuts)]), state))
    for sums, state in results[1:]:
        assert sums == results[0][0]
        same(state.tables, results[0][1].tables)


@every_policy
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_copy_goes_on_alike(name: str, copied: Callable[[EvictionState], EvictionState]) -> None:
    """Tables share arrays; a copy that did not would fall apart."""
    requests, policy = drifting(2000, 100), POLICIES[name][0]
    state = filled(name, 100, 12)
    policy.run_block(state, requests[:1000])
    other = copied(state)
    assert policy.run_block(state, requests[1000:]) == policy.run_block(other, requests[1000:])
    same(state.tables, other.tables)


@every_policy
def test_is_a_policy_without_weight_in_its_decisions(name: str) -> None:
    policy = POLICIES[name][0]
    assert isinstance(policy, Policy)
    assert isinstance(policy.reference, str)
    requests, weights = zipf(3000, 100), np.random.default_rng(1).random(100)
    plain, heavy = (CacheInstance(items=100, capacity=10, weights=given) for given in (None, weights))
    states = [policy.init(instance, Streams(0)) for instance in (plain, heavy)]
    light, weighted = (policy.run_block(state, requests) for state in states)
    assert (light.hits, light.inserted) == (weighted.hits, weighted.inserted)
    assert light.gain == light.fractional == light.hits
    assert weighted.gain == weighted.fractional
    assert 0 < weighted.gain < weighted.hits


@every_policy
def test_no_requests(name: str) -> None:
    policy = POLICIES[name][0]
    state = policy.init(CacheInstance(items=3, capacity=2), Streams(0))
    assert policy.run_block(state, np.empty(0, np.int64)) == Outcome()
    assert policy.run_block(state, np.array([2])) == Outcome(requests=1, inserted=1, occupancy=1.0)
    assert policy.run_block(state, np.empty(0, np.int64)) == Outcome(occupancy=1.0)


# What follows from the definitions.


@pytest.mark.parametrize(
    ("share", "capacity", "small"), [(0.1, 1, 1), (0.1, 9, 1), (0.1, 10, 1), (0.1, 11, 2), (0.07, 100, 7), (0.9, 5, 5)]
)
def test_small_queue_is_a_share_rounded_up(share: float, capacity: int, small: int) -> None:
    """In floating point 0.07 · 100 is above 7."""
    tables = S3FIFO(small=share).tables(CacheInstance(items=200, capacity=capacity), Streams(0))
    assert (tables.small, tables.main) == (small, capacity - small)


def hits(policy: Evicting, requests: np.ndarray, items: int, capacity: int, seed: int = 0) -> float:
    instance = CacheInstance(items=items, capacity=capacity)
    return policy.run_block(policy.init(instance, Streams(seed)), requests).hits


def test_cyclic_requests_defeat_recency() -> None:
    requests = np.arange(10_000) % 100
    assert [hits(policy, requests, 100, 99) for policy in (FIFO(), LRU(), LFU(), WindowLFU(window=50))] == [0] * 4
    assert hits(LFU(bypass=True), requests, 100, 99) > 0
    assert hits(RandomEviction(), requests, 100, 99) > 0


@pytest.mark.parametrize("trace", TRACES)
def test_windows_lie_between_lru_and_lfu(trace: str) -> None:
    requests = TRACES[trace](60)
    for one, other in ((WindowLFU(window=1), LRU()), (WindowLFU(window=1500), LFU())):
        states = [policy.init(CacheInstance(items=60, capacity=8), Streams(0)) for policy in (one, other)]
        for block in np.split(requests, 50):
            assert one.run_block(states[0], block) == other.run_block(states[1], block)
            np.testing.assert_array_equal(states[0].cached, states[1].cached)


def test_lfu_with_bypass_holds_most_requested_items() -> None:
    requests, policy = drifting(2000, 50), LFU(bypass=True)
    state = policy.init(CacheInstance(items=50, capacity=9), Streams(0))
    for number in range(0, 2000, 10):
        policy.run_block(state, requests[number : number + 10])
        counts = np.bincount(requests[: number + 10], minlength=50)
        assert sorted(counts[state.cached]) == sorted(np.sort(counts)[-len(state.cached) :])


POPULARITY = np.array([0.4, 0.25, 0.2, 0.1, 0.05])


def gelenbe(capacity: int) -> float:
    """Hit ratio of FIFO and of random eviction for independent requests: sets have weights Π p (Gelenbe 1973)."""
    sets = list(itertools.combinations(POPULARITY, capacity))
    shares = np.array([math.prod(chosen) for chosen in sets])
    return float(shares @ [sum(chosen) for chosen in sets] / shares.sum())


def king(capacity: int) -> float:
    """Hit ratio of LRU for independent requests: the k last distinct ones are drawn without replacement (King 1971)."""
    total = 0.0
    for order in itertools.permutations(POPULARITY, capacity):
        left = 1 - np.concatenate([[0.0], np.cumsum(order)[:-1]])
        total += float(np.prod(order / left)) * sum(order)
    return total


@pytest.mark.parametrize("capacity", [1, 2, 3, 4])
def test_hit_ratio_for_independent_requests(capacity: int) -> None:
    """300,000 requests: standard errors are below 0.002 (hits a few requests apart are independent); 5 of them."""
    requests = np.random.default_rng(capacity).choice(5, 300_000, p=POPULARITY)
    for policy, ratio in ((FIFO(), gelenbe), (RandomEviction(), gelenbe), (LRU(), king)):
        assert hits(policy, requests, 5, capacity) / len(requests) == pytest.approx(ratio(capacity), abs=0.01)
    best = np.sort(POPULARITY)[-capacity:].sum()
    assert hits(LFU(bypass=True), requests, 5, capacity) / len(requests) == pytest.approx(best, abs=0.01)


def test_random_victims_are_uniform_and_seeded() -> None:
    """Chi-square over 20 places with 10,000 victims; above 45.3 with probability below 1e-3."""
    policy, items = RandomEviction(), 10_020
    state = policy.init(CacheInstance(items=items, capacity=20), Streams(5))
    policy.run_block(state, np.arange(20))
    victims = np.zeros(20)
    for item in range(20, items):
        before = state.tables.place.copy()
        policy.run_block(state, np.array([item]))
        victims[before[np.setdiff1d(np.flatnonzero(before >= 0), state.cached)[0]]] += 1
    assert ((victims - 500) ** 2 / 500).sum() < 45.3
    requests = zipf(5000, 100)
    assert hits(policy, requests, 100, 10, seed=1) == hits(policy, requests, 100, 10, seed=1)
    assert len({hits(policy, requests, 100, 10, seed=seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WindowLFU(window=0), "window is 0"),
        (lambda: S3FIFO(small=0.0), "small is 0"),
        (lambda: S3FIFO(small=1.0), "small is 1"),
        (lambda: S3FIFO(small=float("nan")), "small is nan"),
        (lambda: S3FIFO(promote=4), "promote is 4"),
        (lambda: S3FIFO(promote=0), "promote is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(build: Callable[[], Evicting], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


# Published figures.


def web12(root: Path) -> np.ndarray:
    file = root / "traces" / "web12.trace.xz"
    if not file.is_file():
        pytest.skip(f"the trace web12 is not on this machine ({file})")
    keys = np.frombuffer(lzma.decompress(file.read_bytes()), dtype=">i4")
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def simulated(requests: list[int], capacity: int) -> float:
    """The hit ratio of S3-FIFO as libCacheSim 0.3.5 runs it, which departs from Algorithm 1.

    It truncates sizes to integers, forgets the ghost before it evicts, lets M grow beyond its size and shrinks it at a
    later request, and lets new items into M when S is full while the cache is not.
    """
    small, ghosts, full, served = capacity // 10, int(capacity * 0.9), False, 0
    s, m, g = (OrderedDict[int, int]() for _ in range(3))
    for item in requests:
        queue = s if item in s else m if item in m else None
        if queue is not None:
            queue[item] += 1
            served += 1
            continue
        returns = g.pop(item, None) is not None
        while len(s) + len(m) >= capacity:
            full, source = True, m if len(m) > capacity - small or not s else s
            while source:
                tail, count = source.popitem(last=False)
                if source is m and count:
                    m[tail] = min(count, 3) - 1
                elif source is s and count >= 2:
                    m[tail] = 0
                else:
                    if source is s:
                        g[tail] = 0
                        if len(g) > ghosts:
                            g.popitem(last=False)
                    break
        (m if returns or (not full and len(s) >= small) else s)[item] = 0
    return served / len(requests)


# Hit ratios of libCacheSim 0.3.5 on web12, from the README beside the trace.
PUBLISHED = {
    137: {"FIFO": 0.3763, "LRU": 0.3970, "LFU in cache": 0.2169, "ARC": 0.4069, "S3-FIFO": 0.4096},
    687: {"FIFO": 0.5625, "LRU": 0.6000, "LFU in cache": 0.4776, "ARC": 0.6265, "S3-FIFO": 0.6479},
    1375: {"FIFO": 0.6454, "LRU": 0.6848, "LFU in cache": 0.6016, "ARC": 0.7087, "S3-FIFO": 0.7212},
}


@pytest.mark.parametrize("capacity", PUBLISHED)
def test_hit_ratios_of_libcachesim(capacity: int, data_root: Path) -> None:
    """All to the printed digits, but S3-FIFO, where the other simulator's departures explain the difference."""
    requests = web12(data_root)
    for name, published in PUBLISHED[capacity].items():
        ratio = hits(POLICIES[name][0], requests, 13_756, capacity) / len(requests)
        if name == "S3-FIFO":
            assert published < ratio < published + 0.002
            assert round(simulated(requests.tolist(), capacity), 4) == published
        else:
            assert round(ratio, 4) == published, name

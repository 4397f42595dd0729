"""OGB: the state is the projected gradient step, the cached set follows from it, regret stays below its bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.online import ogb_kernel as kernel
from rivage.online import wheels
from rivage.online.ogb import OGB, OGBState
from rivage.online.policy import CacheInstance

SIZES = [(20, 5, 0.3), (50, 10, 0.05), (30, 3, 0.9), (12, 11, 0.5), (10, 1, 2.5)]


def project(y: np.ndarray, capacity: float) -> np.ndarray:
    """On {0 <= x <= 1, sum = capacity}, by the sorted breakpoints of the piecewise linear sum."""
    breaks = np.sort(np.concatenate([y, y - 1]))
    sums = np.clip(y[:, None] - breaks[None], 0, 1).sum(axis=0)
    last = int(np.flatnonzero(sums >= capacity - 1e-15)[-1])
    if last + 1 == len(breaks):
        return np.clip(y - breaks[last], 0, 1)
    slope = (sums[last] - sums[last + 1]) / max(breaks[last + 1] - breaks[last], 1e-300)
    shift = breaks[last] + ((sums[last] - capacity) / slope if slope else 0.0)
    return np.clip(y - shift, 0, 1)


def step(x: np.ndarray, item: int, size: float, capacity: float) -> np.ndarray:
    y = x.copy()
    y[item] += size
    inside = np.clip(y, 0, 1)
    return inside if inside.sum() <= capacity else project(y, capacity)


def serve(tables: kernel.Tables, requests: np.ndarray, weights: np.ndarray | None = None) -> None:
    kernel.serve(tables, requests, np.empty(0) if weights is None else weights)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(("items", "capacity", "size"), SIZES)
def test_state_is_the_projected_gradient_step(
    items: int, capacity: int, size: float, empty: bool, requests_of: Callable[..., np.ndarray]
) -> None:
    tables = kernel.make_tables(items, capacity, 1, 0, empty=empty, step=size)
    kernel.set_step(tables, size)
    x, worst = np.full(items, 0.0 if empty else capacity / items), 0.0
    for item in requests_of(items, 10_000):
        serve(tables, np.array([item]))
        x = step(x, item, size, capacity)
        worst = max(worst, float(np.abs(kernel.fractional(tables) - x).max()))
    assert worst < 1e-9
    assert kernel.fractional(tables).sum() == pytest.approx(capacity, abs=1e-9)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_instance(data: st.DataObject) -> None:
    items = data.draw(st.integers(2, 12))
    capacity = data.draw(st.integers(1, items - 1))
    empty, every = data.draw(st.booleans()), data.draw(st.integers(1, 4))
    weights = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.0]), min_size=items, max_size=items)))
    size = data.draw(st.sampled_from([1e-3, 0.05, 0.3, 0.5, 1.0, 3.0]))
    asked = data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=60))
    tables = kernel.make_tables(items, capacity, every, 7, empty=empty, step=size)
    kernel.set_step(tables, size)
    numbers = wheels.permanent(tables.ints[wheels.SEED], np.arange(items))
    x = np.full(items, 0.0 if empty else capacity / items)
    cached = x >= numbers
    hits, inserted, gained, fraction = 0, int(cached.sum()), 0.0, 0.0
    for count, item in enumerate(asked, 1):
        hits, gained = hits + int(cached[item]), gained + weights[item] * cached[item]
        fraction += weights[item] * x[item]
        serve(tables, np.array([item]), weights)
        x = step(x, item, size * weights[item], capacity)
        np.testing.assert_allclose(kernel.fractional(tables), x, atol=1e-9)
        if count % every == 0 and np.abs(x - numbers).min() > 1e-8:
            inserted += int((~cached & (x >= numbers)).sum())
            cached = x >= numbers
            np.testing.assert_array_equal(tables.shelf != -2, cached)
            assert tables.ints[wheels.CACHED] == cached.sum()
    assert tables.ints[wheels.HITS] == hits
    assert tables.ints[wheels.INSERTED] == inserted
    assert tables.floats[wheels.GAIN] == pytest.approx(gained)
    assert tables.floats[wheels.FRACTIONAL] == pytest.approx(fraction, abs=1e-8)


def played(policy: OGB, instance: CacheInstance, requests: np.ndarray, cuts: list[int], seed: int = 0) -> OGBState:
    state = policy.init(instance, Streams(seed))
    for part in np.split(requests, cuts):
        policy.run_block(state, part)
    return state


@pytest.mark.parametrize("every", [1, 7])
def test_where_blocks_end_changes_nothing(every: int, requests_of: Callable[..., np.ndarray]) -> None:
    requests = requests_of(200, 3000)
    instance, policy = CacheInstance(items=200, capacity=20, horizon=3000), OGB(every=every, scale=3)
    whole, cut = (played(policy, instance, requests, cuts) for cuts in ([], [1, 2, 500, 501, 2222]))
    for one, other in zip(whole.tables, cut.tables, strict=True):
        if one is not whole.tables.floats and one is not whole.tables.ints:
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.cached, cut.cached)
    singly = played(policy, instance, requests, list(range(1, 3000)))
    np.testing.assert_array_equal(whole.fractional, singly.fractional)


def test_precision_is_won_back_when_the_offset_has_grown() -> None:
    """With one place and large steps ρ passes 1024 many times."""
    tables = kernel.make_tables(10, 1, 1, 0, empty=False, step=2.5)
    kernel.set_step(tables, 2.5)
    requests = np.random.default_rng(0).integers(0, 10, 20_000)
    x, moved = np.full(10, 0.1), 0.0
    for item in requests:
        before = tables.floats[wheels.RHO]
        serve(tables, np.array([item]))
        moved += max(tables.floats[wheels.RHO] - before, 0)
        x = step(x, item, 2.5, 1)
        np.testing.assert_allclose(kernel.fractional(tables), x, atol=1e-9)
    assert moved > 4 * 1024
    assert tables.floats[wheels.RHO] <= 1024


def test_the_cached_items_have_a_smaller_wheel_that_turns_alike() -> None:
    """Cached is who has reached its number, also after both wheels have been turned back many times."""
    tables = kernel.make_tables(20_000, 1, 1, 0, empty=False, step=1e-4)
    assert len(tables.heads) == 8 * len(tables.slots)
    kernel.set_step(tables, 2.5)
    numbers, moved = wheels.permanent(0, np.arange(20_000)), 0.0
    for item in np.random.default_rng(0).integers(0, 20, 6000):
        before = tables.floats[wheels.RHO]
        serve(tables, np.array([item]))
        moved += max(tables.floats[wheels.RHO] - before, 0)
        np.testing.assert_array_equal(tables.shelf != wheels.OUT, kernel.fractional(tables) >= numbers)
        for wheel, cursor in ((tables.heads, wheels.CURSOR), (tables.slots, wheels.CURSOR_CACHED)):
            assert -2 < tables.ints[cursor] / (len(wheel) >> 1) - tables.floats[wheels.RHO] < 1
    assert moved > 4 * 1024


def static(requests: np.ndarray, items: int, capacity: int, weights: np.ndarray | None = None) -> float:
    values = np.bincount(requests, weights=None if weights is None else weights[requests], minlength=items)
    return float(np.sort(values)[-capacity:].sum())


@settings(deadline=None, max_examples=1000)
@given(st.data())
def test_regret_never_exceeds_its_bound(data: st.DataObject) -> None:
    """Also against an adversary that asks for what has the least of the cache, and with unknown horizon."""
    items = data.draw(st.integers(2, 15))
    capacity, horizon = data.draw(st.integers(1, items - 1)), data.draw(st.integers(1, 80))
    weighted, known, adaptive = (data.draw(st.booleans()) for _ in range(3))
    weights = np.random.default_rng(horizon).random(items) if weighted else None
    instance = CacheInstance(items=items, capacity=capacity, horizon=horizon if known else None, weights=weights)
    policy = OGB(
        scale=data.draw(st.sampled_from([0.1, 1.0, 4.0])), start=data.draw(st.sampled_from(["uniform", "empty"]))
    )
    state, asked, gained = policy.init(instance, Streams(0)), [], 0.0
    drawn = data.draw(st.lists(st.integers(0, items - 1), min_size=horizon, max_size=horizon))
    for number in range(horizon):
        item = int(np.argmin(state.fractional)) if adaptive else drawn[number]
        asked.append(item)
        gained += policy.run_block(state, np.array([item])).fractional
        regret = static(np.array(asked), items, capacity, weights) - gained
        if not known or number + 1 == horizon:
            assert regret <= policy.regret_bound(instance, number + 1, sampled=False) + 1e-9


def cyclic(count: int, items: int) -> np.ndarray:
    return np.arange(count) % items


def zipf(count: int, items: int, alpha: float, random: np.random.Generator) -> np.ndarray:
    popularity = 1 / np.arange(1, items + 1) ** alpha
    return random.choice(items, count, p=popularity / popularity.sum())


def test_reference_values_of_the_sheet() -> None:
    """online-learning.md A2: T = 50,000, N = 1000, C = 100, step of the theory."""
    instance, policy = CacheInstance(items=1000, capacity=100, horizon=50_000), OGB()
    bound = policy.regret_bound(instance, 50_000)
    assert bound == pytest.approx(2121, abs=1)

    def regret(requests: np.ndarray) -> float:
        outcome = policy.run_block(policy.init(instance, Streams(0)), requests)
        return static(requests, 1000, 100) - outcome.fractional

    random = np.random.default_rng(0)
    requests = cyclic(50_000, 1000)
    assert regret(requests) == pytest.approx(1060, abs=1)
    assert 1500 < regret(zipf(50_000, 1000, 0.8, random)) < 1900
    blocks = [random.permutation(1000)[zipf(10_000, 1000, 0.8, random)] for _ in range(5)]
    assert regret(np.concatenate(blocks)) < 0


def test_sampling_keeps_the_expected_gain_movement_and_occupancy(requests_of: Callable[..., np.ndarray]) -> None:
    """Over 200 seeds: means within 4 standard errors (false alarm below 1e-3 for the three together)."""
    requests = requests_of(100, 1000)
    instance, policy = CacheInstance(items=100, capacity=15, horizon=1000), OGB(scale=2)
    gains, moves, held, fraction, x, path = [], [], [], 0.0, np.full(100, 0.15), 0.0
    for seed in range(200):
        state = policy.init(instance, Streams(seed))
        outcome = policy.run_block(state, requests)
        gains.append(outcome.gain)
        moves.append(outcome.inserted)
        held.append(outcome.occupancy)
        fraction = outcome.fractional
    for item in requests:
        after = step(x, item, policy.step(instance), 15)
        path += np.maximum(after - x, 0).sum()
        x = after
    for found, wanted in ((gains, fraction), (moves, path + 15), (held, 15.0)):
        error = np.std(found, ddof=1) / math.sqrt(len(found))
        assert abs(np.mean(found) - wanted) < 4 * error


@pytest.mark.parametrize(
    "wrong",
    [
        {"items": 5, "capacity": 5},
        {"items": 5, "capacity": 0},
        {"items": 5, "capacity": 2, "weights": -np.ones(5)},
        {"items": 5, "capacity": 2, "weights": np.ones(4)},
        {"items": 5, "capacity": 2, "horizon": 0},
        {"items": 5, "capacity": 2, "batch": 2, "multiplicity": 3},
    ],
)
def test_instances_that_mean_nothing_are_refused(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(RivageError, match="cache"):
        CacheInstance(**wrong)


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"scale": -1}, {"every": 0}, {"start": "fill"}])
def test_settings_that_mean_nothing_are_refused(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(RivageError):
        OGB(**wrong)


@pytest.mark.parametrize("scale", [1e-308, 1e308])
def test_steps_of_any_size_have_a_wheel(scale: float) -> None:
    instance = CacheInstance(items=20, capacity=5, horizon=100)
    policy = OGB(scale=scale)
    state = policy.init(instance, Streams(0))
    policy.run_block(state, np.arange(100) % 20)
    assert state.fractional.sum() == pytest.approx(5)

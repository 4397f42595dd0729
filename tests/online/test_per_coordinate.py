"""PCOC: it plays the maximiser as written, its bound holds for every sequence, right predictions pay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.programs import minimize_over
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.online.optimistic import OptimisticFTRL
from rivage.online.per_coordinate import PCOC, project_weighted
from rivage.online.policy import CacheInstance
from rivage.online.predictions import LastSlot, Nothing, Oracle, Successor


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.booleans())
def test_the_weighted_projection_meets_its_conditions(seed: int, items: int, whole: bool) -> None:
    """KKT: one τ for all entries that are inside, no less for those at 1, no more for those at 0."""
    random = np.random.default_rng(seed)
    y, weights = random.normal(scale=2.0, size=items), random.lognormal(sigma=2.0, size=items)
    total = float(random.integers(0, items + 1)) if whole else random.random() * items
    x = project_weighted(y, weights, total)
    assert abs(x.sum() - total) < 1e-9
    assert ((x >= 0) & (x <= 1)).all()
    pull = weights * (y - x)  # τ for entries inside
    scale = 1e-8 * (1 + np.abs(weights * y).max())
    inside = (x > 1e-9) & (x < 1 - 1e-9)
    low = pull[inside | (x >= 1 - 1e-9)].min(initial=np.inf)
    high = pull[inside | (x <= 1e-9)].max(initial=-np.inf)
    assert low >= high - scale
    assert np.abs(project_weighted(y, np.full(items, 3.0), total) - CappedSimplex(items, total).project(y)).max() < 1e-9


def test_it_plays_the_maximiser() -> None:
    """Against a general solver, with weights, predictions and batches."""
    items, capacity, batch, random = 5, 2, 2, np.random.default_rng(3)
    weights = random.random(items) + 0.2
    instance = CacheInstance(items=items, capacity=capacity, batch=batch, multiplicity=2, weights=weights)
    policy, ground = PCOC(prediction=LastSlot(), scale=0.7), CappedSimplex(items, capacity)
    state, first = policy.init(instance, Streams(0)), float(weights.max())
    sums, guess, squares = np.zeros(items), np.zeros(items), np.zeros(items)
    pulls, points = [np.full(items, first)], [ground.center]
    for _ in range(12):

        def value(x: np.ndarray, lead: np.ndarray = sums + guess) -> float:
            pulled = sum(float(s @ (x - at) ** 2) for s, at in zip(pulls, points, strict=True))
            return pulled / 2 - float(x @ lead)

        def slope(x: np.ndarray, lead: np.ndarray = sums + guess) -> np.ndarray:
            return np.asarray(sum(s * (x - at) for s, at in zip(pulls, points, strict=True)) - lead)

        assert np.abs(minimize_over(ground, value, slope, start=ground.center) - state.fractional).max() < 1e-5
        points.append(state.fractional)
        asked = random.integers(items, size=batch)
        gradient = weights * np.bincount(asked, minlength=items)
        before = np.sqrt(2 * squares) / 0.7
        squares += (gradient - guess) ** 2
        pulls.append(np.sqrt(2 * squares) / 0.7 - before)
        sums, guess = sums + gradient, gradient
        policy.run_block(state, asked)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_no_bound_is_exceeded_after_any_request(data: st.DataObject) -> None:
    """Half of the games ask for what has the least of the cache."""
    items, batch = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 3))
    capacity, count = data.draw(st.integers(1, items - 1)), data.draw(st.integers(1, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    weights = random.random(items) if data.draw(st.booleans()) else None
    instance = CacheInstance(items=items, capacity=capacity, weights=weights, batch=batch, multiplicity=batch)
    prediction = data.draw(st.sampled_from([Nothing(), LastSlot(), Successor()]))
    policy = PCOC(prediction=prediction, scale=data.draw(st.sampled_from([0.3, 1.0, 3.0])))
    state, values, gained, nasty = policy.init(instance, Streams(1)), np.zeros(items), 0.0, data.draw(st.booleans())
    for _ in range(count):
        item = int(np.argmin(state.fractional)) if nasty else int(random.integers(items))
        values[item] += 1.0 if weights is None else weights[item]
        gained += policy.run_block(state, np.array([item])).fractional
        regret = np.sort(values)[-capacity:].sum() - gained
        assert regret <= policy.bound(state) + 1e-9


def test_the_bound_without_prediction_is_a_sum_of_roots() -> None:
    """At most ½ D² + √2 Σ √n_i with unit weights, and no less than half of the second term."""
    requests = np.random.default_rng(0).zipf(1.5, 3000) % 40
    instance, policy = CacheInstance(items=40, capacity=5), PCOC(prediction=Nothing())
    state = policy.init(instance, Streams(0))
    policy.run_block(state, requests)
    roots = math.sqrt(2) * np.sqrt(np.bincount(requests, minlength=40)).sum()
    assert roots / 2 <= policy.bound(state) <= 5 * (1 - 5 / 40) / 2 + roots


def test_right_predictions_leave_the_first_term_only() -> None:
    requests = np.random.default_rng(0).integers(30, size=900)
    instance = CacheInstance(items=30, capacity=4, batch=3, multiplicity=3)
    policy = PCOC(prediction=Oracle(requests=requests))
    state = policy.init(instance, Streams(0))
    gained = policy.run_block(state, requests).fractional
    assert policy.bound(state) == pytest.approx(4 * (1 - 4 / 30) / 2)
    assert np.sort(np.bincount(requests))[-4:].sum() - gained <= policy.bound(state)


def test_where_blocks_end_changes_nothing() -> None:
    requests = np.random.default_rng(0).zipf(1.3, 400) % 30
    instance = CacheInstance(items=30, capacity=4, batch=3, multiplicity=3)
    results = []
    for cuts in ([], [1, 2, 7, 100], list(range(1, 400))):
        policy = PCOC()
        state, gain = policy.init(instance, Streams(1)), 0.0
        for part in np.split(requests, cuts):
            gain += policy.run_block(state, part).fractional
        results.append((round(gain, 9), state.cached.tolist(), round(policy.bound(state), 9)))
    assert results[0] == results[1] == results[2]


def test_equal_errors_everywhere_give_one_step_for_all() -> None:
    """All items asked for in every slot: OBC with its errors scaled to those of one item plays the same."""
    items, capacity = 6, 2
    requests = np.tile(np.arange(items), 10)
    instance = CacheInstance(items=items, capacity=capacity, batch=items, multiplicity=1)
    # σ of OBC is √2 √(N t) / V, that of PCOC √2 √t: equal for scale = √N / V.
    width = math.sqrt(2 * min(capacity, items - capacity))
    one = PCOC(prediction=Nothing())
    other = OptimisticFTRL(prediction=Nothing(), scale=math.sqrt(items) / width)
    states = one.init(instance, Streams(0)), other.init(instance, Streams(0))
    for part in np.split(requests, 10):
        one.run_block(states[0], part)
        other.run_block(states[1], part)
        assert np.abs(states[0].fractional - states[1].fractional).max() < 1e-9


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"scale": 0}, {"rounding": "best"}):
        with pytest.raises(RivageError, match=r"scale|rounding"):
            PCOC(**wrong)  # type: ignore[arg-type]

"""Planners: what they promise on small networks, filling, serving in turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.gain import contend
from rivage.inference.greedy import greedy
from rivage.inference.instance import Instance
from rivage.inference.planners import PLANNERS, Exactly, Greedy, Planner, Relaxed, fill, plan_cost
from rivage.inference.pooled import pooled_exact, pooled_optimum
from rivage.inference.replay import require_feasible
from rivage.testing.strategies import delivery_network

from .conftest import REQUESTS, line

seeds = st.integers(0, 2**32 - 1)
SETTINGS: dict[str, Planner] = {"exact": Exactly(seconds=20.0), "greedy": Greedy(), "relaxed": Relaxed()}


def scene(seed: int, **sizes: int) -> tuple[Instance, np.ndarray]:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, **(dict[str, Any](nodes=5, tasks=2, variants=3, types=6) | sizes))
    requests = np.where(rng.random(instance.types) < 0.2, 0.0, rng.integers(1, 60, instance.types))
    return instance, np.maximum(requests, np.eye(instance.types)[0])


def test_all_that_are_registered_are_tried_here() -> None:
    assert set(SETTINGS) == {*PLANNERS}
    for name, planner in SETTINGS.items():
        assert isinstance(planner, Planner)
        assert PLANNERS.get(name) is type(planner)


@settings(max_examples=25)
@given(seeds)
def test_plans_fit_and_cost_no_less_than_the_bound_and_no_more_than_pinned_alone(seed: int) -> None:
    instance, requests = scene(seed)
    bound = pooled_optimum(instance, requests)
    for planner in SETTINGS.values():
        plan = planner.plan(instance, requests, bound, Streams(seed))
        require_feasible(instance, plan)
        cost = plan_cost(instance, requests, plan)
        assert bound.cost * (1 - 1e-6) <= cost <= plan_cost(instance, requests, instance.pinned) * (1 + 1e-9)
        assert np.array_equal(plan, planner.plan(instance, requests, bound, Streams(seed))), "the same again"


@settings(max_examples=25)
@given(seeds)
def test_without_contention_the_exact_plan_is_the_best_and_rounding_is_near(seed: int) -> None:
    instance, requests = scene(seed)
    instance = replace(instance, throughput=np.full(instance.shape, np.inf))
    bound = pooled_optimum(instance, requests)
    plans = {n: p.plan(instance, requests, bound, Streams(0)) for n, p in SETTINGS.items()}
    cost = {name: plan_cost(instance, requests, plan) for name, plan in plans.items()}
    assert cost["exact"] == pytest.approx(pooled_exact(instance, requests).cost, rel=1e-5)
    assert cost["exact"] <= min(cost["greedy"], cost["relaxed"]) * (1 + 1e-5)


def test_golden_network() -> None:
    """Without contention, as the sheet counts: capacities as if alone; serving in turn shares them, so costs more."""
    instance = line(keep_oversize=False)
    bound = pooled_optimum(instance, REQUESTS)
    exact = SETTINGS["exact"].plan(instance, REQUESTS, bound, Streams(0))
    assert 10290 - 1805 <= bound.cost <= pooled_exact(instance, REQUESTS).cost <= plan_cost(instance, REQUESTS, exact)


@settings(max_examples=60)
@given(seeds, st.integers(2, 6))
def test_with_more_models_no_type_is_served_dearer(seed: int, types: int) -> None:
    """So filling never hurts, although types contend: what one type leaves free is at least what it takes instead."""
    instance, requests = scene(seed, types=types)
    rng = np.random.default_rng(seed + 1)
    few = instance.pinned | (instance.free & (rng.random(instance.shape) < 0.4))
    more = few | (instance.free & (rng.random(instance.shape) < 0.3))
    (_, one), (_, other) = contend(instance, requests, few), contend(instance, requests, more)
    ranking = instance.ranking
    before, after = (np.add.reduceat(s * ranking.cost, ranking.first[:-1]) for s in (one, other))
    assert (after <= before + 1e-9 * (1 + before)).all()


@settings(max_examples=40)
@given(seeds)
def test_filling_keeps_what_fits_and_leaves_no_room_for_more(seed: int) -> None:
    instance, _ = scene(seed)
    rng = np.random.default_rng(seed)
    worth, wanted = rng.random(instance.shape), instance.pinned | (instance.free & (rng.random(instance.shape) < 0.2))
    full = fill(instance, worth, wanted)
    require_feasible(instance, full)
    left = instance.budgets - np.where(full, instance.sizes, 0).sum(axis=1)
    for node in range(len(instance.budgets)):
        assert not (instance.free[node] & ~full[node] & (instance.sizes[node] <= left[node])).any()
        fits = np.where(wanted[node], instance.sizes[node], 0).sum() <= instance.budgets[node]
        assert not fits or (full[node] >= wanted[node]).all()
    assert np.array_equal(fill(instance, worth, full), full), "what is full stays"


def test_filling_takes_worth_first_then_small_ones() -> None:
    instance = line(budgets=(0.0, 0.0, 5.0), keep_oversize=False)
    worth = np.zeros(instance.shape)
    worth[2, 2] = 1.0
    assert np.flatnonzero(fill(instance, worth, instance.pinned)[2]).tolist() == [0, 2]
    assert np.flatnonzero(fill(instance, np.zeros(instance.shape), instance.pinned)[2]).tolist() == [0, 1, 3, 6]


def test_sums_of_sizes_that_are_not_exact_still_fit() -> None:
    """0.1 + 0.2 is more than 0.3 in doubles."""
    instance = line(budgets=(0.0, 0.0, 0.3), keep_oversize=False)
    sizes = instance.sizes.copy()
    sizes[2] = [0.1, 0.2, 9, 9, 9, 9, 9, 9, 9]
    made = replace(instance, sizes=sizes)
    wanted = made.pinned.copy()
    wanted[2, :2] = True
    require_feasible(made, wanted)
    assert fill(made, np.zeros(made.shape), wanted)[2].tolist() == wanted[2].tolist()


def test_greedy_is_greed_for_the_mean_slot() -> None:
    instance, requests = scene(7)
    bound = pooled_optimum(instance, requests)
    slot = contend(instance, requests, instance.pinned).slot
    plan = Greedy(passes=1).plan(instance, requests, bound, Streams(0))
    assert np.array_equal(plan, greedy(instance, [slot]).loaded)
    twice = Greedy(passes=2).plan(instance, requests, bound, Streams(0))
    assert plan_cost(instance, requests, twice) <= plan_cost(instance, requests, plan)


def test_more_draws_are_never_worse() -> None:
    for seed in range(10):
        instance, requests = scene(seed, nodes=6, tasks=3, variants=4, types=10)
        bound = pooled_optimum(instance, requests)
        one, many = (
            plan_cost(instance, requests, Relaxed(draws=draws).plan(instance, requests, bound, Streams(0)))
            for draws in (1, 30)
        )
        assert many <= one


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Relaxed(draws=0), "draws is 0"),
        (lambda: Exactly(seconds=0.0), "seconds is 0.0"),
        (lambda: Greedy(passes=0), "passes is 0"),
        (lambda: Greedy(rule=cast(Any, "best")), 'rule is "best"'),
    ],
)
def test_settings_out_of_range(make: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()  # type: ignore[operator]

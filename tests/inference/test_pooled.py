"""The pooled relaxation: below every placement, prices that are differences, whole models by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.programs import linear_program
from rivage.inference.gain import contend
from rivage.inference.instance import Instance
from rivage.inference.planners import plan_cost
from rivage.inference.pooled import crossings, pooled_exact, pooled_optimum
from rivage.inference.replay import require_feasible
from rivage.testing.strategies import delivery_network

from .conftest import REQUESTS, line

seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=20)


def small(seed: int, *, shared_pins: bool = False) -> tuple[Instance, np.ndarray]:
    """A network of few places, and requests that contend; some types have none."""
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=4, tasks=2, variants=2, types=4, shared_pins=shared_pins)
    return instance, np.where(rng.random(4) < 0.2, 0.0, rng.integers(1, 60, 4))


def placements(instance: Instance) -> list[np.ndarray]:
    """All that fit."""
    places, found = np.argwhere(instance.free), list[np.ndarray]()
    for chosen in product([False, True], repeat=len(places)):
        x = instance.pinned.copy()
        x[tuple(places[list(chosen)].T)] = True
        if (np.where(x, instance.sizes, 0.0).sum(axis=1) <= instance.budgets * (1 + 1e-12)).all():
            found.append(x)
    return found


def best_routing(instance: Instance, requests: np.ndarray, x: np.ndarray) -> float:
    """Least cost with these models, written down densely: one row per type and per model on a node."""
    ranking = instance.ranking
    total = (ranking.type[None] == np.arange(instance.types)[:, None]).astype(float)
    shared = np.array([ranking.place == place for place in range(x.size)], float)
    rate = np.where(x, np.minimum(instance.throughput, 1e6), 0.0).ravel()
    return linear_program(ranking.cost, upper=(shared, rate), equal=(total, requests)).value


@some
@given(seeds, st.booleans())
def test_no_placement_costs_less_and_the_exact_one_is_the_best(seed: int, shared_pins: bool) -> None:
    instance, requests = small(seed, shared_pins=shared_pins)
    if not requests.any() or instance.free.sum() > 7:
        return
    bound, exact, slack = pooled_optimum(instance, requests), pooled_exact(instance, requests), 1e-6
    costs = [best_routing(instance, requests, x) for x in placements(instance)]
    assert bound.cost <= min(costs) * (1 + slack)
    assert exact.cost == pytest.approx(min(costs), rel=2e-6)
    assert exact.least <= min(costs) * (1 + slack)
    assert best_routing(instance, requests, exact.loaded) == pytest.approx(exact.cost, rel=1e-6)
    require_feasible(instance, exact.loaded)
    for x, cost in zip(placements(instance), costs, strict=True):
        assert plan_cost(instance, requests, x) >= cost * (1 - slack), "serving in turn is a routing"


@some
@given(seeds, st.integers(2, 5))
def test_slots_with_a_fixed_placement_cost_no_less_than_the_bound_of_their_mean(seed: int, slots: int) -> None:
    instance, _ = small(seed)
    rng = np.random.default_rng(seed)
    batches = rng.integers(0, 60, (slots, 4)) * (rng.random((slots, 4)) < 0.6).astype(float)
    if not batches.any():
        return
    bound = pooled_optimum(instance, batches.mean(axis=0)).cost
    for x in placements(instance)[:: 1 + instance.free.sum() // 3]:
        paid = sum(plan_cost(instance, requests, x) for requests in batches)
        assert paid / slots >= bound * (1 - 1e-6)


def test_a_placement_that_follows_may_cost_less_than_the_bound_of_the_mean() -> None:
    """So the reference of a replay binds fixed allocations only."""
    instance = line(budgets=(1.0, 0.0, 0.0))
    batches = [np.array([30.0, 0, 0, 0, 0, 0]), np.array([0, 0, 30.0, 0, 0, 0])]
    followed = [min(plan_cost(instance, r, x) for x in (one(instance, 0), one(instance, 3))) for r in batches]
    assert np.mean(followed) < pooled_optimum(instance, np.mean(batches, axis=0)).cost


def one(instance: Instance, model: int) -> np.ndarray:
    x = instance.pinned.copy()
    x[0, model] = True
    return x


@some
@given(seeds)
def test_what_the_relaxation_says_of_itself(seed: int) -> None:
    instance, requests = small(seed, shared_pins=True)
    if not requests.any():
        return
    found, ranking = pooled_optimum(instance, requests), instance.ranking
    assert found.served @ ranking.cost == pytest.approx(found.cost)
    assert np.bincount(ranking.type, found.served, minlength=4) == pytest.approx(requests)
    y = found.fractions
    assert (y[instance.pinned] == 1).all()
    assert (np.where(instance.free, instance.sizes * y, 0).sum(axis=1) <= instance.free_budgets * (1 + 1e-7)).all()
    used = np.bincount(ranking.place, found.served, minlength=y.size).reshape(y.shape)
    assert (used <= instance.throughput * y + 1e-6).all()
    assert (found.served <= requests[ranking.type] * y.ravel()[ranking.place] + 1e-6).all()
    assert (found.memory_prices >= 0).all()
    assert (found.throughput_prices >= 0).all()


def differences(cost_of: object, at: float, step: float) -> tuple[float, float]:
    """What a unit more saves, and what a unit less costs."""
    low, here, high = (cost_of(at + shift) for shift in (-step, 0.0, step))  # type: ignore[operator]
    return (here - high) / step, (low - here) / step


@some
@given(seeds)
def test_prices_of_memory_are_differences(seed: int) -> None:
    instance, requests = small(seed)
    if not requests.any():
        return
    found, step = pooled_optimum(instance, requests), 1e-4
    for node in range(1, len(instance.budgets)):

        def cost(budget: float, node: int = node) -> float:
            budgets = instance.budgets.copy()
            budgets[node] = budget
            return pooled_optimum(replace(instance, budgets=budgets, keep_oversize=True), requests).cost

        # The price of the instance with the same models to choose from; a step may let an oversize one in.
        prices = pooled_optimum(replace(instance, keep_oversize=True), requests).memory_prices
        if instance.free_budgets[node] > 2 * step:
            more, less = differences(cost, float(instance.budgets[node]), step)
            slack = 1e-9 * found.cost / step + 1e-6
            assert more - slack <= prices[node] <= less + slack


@some
@given(seeds)
def test_prices_of_throughput_are_differences(seed: int) -> None:
    instance, requests = small(seed)
    if not requests.any():
        return
    found, step = pooled_optimum(instance, requests), 1e-4
    for node, model in np.argwhere(found.throughput_prices > 1e-6)[:3]:

        def cost(rate: float, node: int = node, model: int = model) -> float:
            throughput = instance.throughput.copy()
            throughput[node, model] = rate
            return pooled_optimum(replace(instance, throughput=throughput), requests).cost

        more, less = differences(cost, float(instance.throughput[node, model]), step)
        slack = 1e-9 * found.cost / step + 1e-6
        assert more - slack <= found.throughput_prices[node, model] <= less + slack


def test_crossings_are_what_a_millisecond_less_saves() -> None:
    instance = line()
    found = pooled_optimum(instance, REQUESTS)
    crossed = crossings(instance, found.served)
    assert set(crossed) <= {(0, 1), (1, 2), (2, 3)}
    for (one_end, other), count in crossed.items():
        step = 1e-5
        faster = instance.latency_ms.copy()
        for row, path in zip(faster, instance.paths, strict=True):
            for hop, (a, b) in enumerate(pairwise(path.tolist()), 1):
                if {a, b} == {one_end, other}:
                    row[hop:] -= step
        saved = found.cost - pooled_optimum(replace(instance, latency_ms=faster), REQUESTS).cost
        assert saved / step == pytest.approx(count, rel=1e-3)


def test_crossings_by_hand() -> None:
    instance = line(budgets=(0.0, 0.0, 0.0))
    _, served = contend(instance, REQUESTS, instance.pinned)
    assert crossings(instance, served) == {(0, 1): 105.0, (1, 2): 140.0, (2, 3): 140.0}


def test_memory_without_limit_and_none_at_all() -> None:
    plenty, none = line(budgets=(np.inf, np.inf, np.inf)), line(budgets=(0.0, 0.0, 0.0), keep_oversize=False)
    assert pooled_optimum(plenty, REQUESTS).memory_prices.tolist() == [0, 0, 0, 0]
    assert pooled_optimum(none, REQUESTS).cost == pytest.approx(plan_cost(none, REQUESTS, none.pinned))
    assert pooled_exact(none, REQUESTS).cost == pytest.approx(pooled_optimum(none, REQUESTS).cost)
    everything = plenty.pinned | plenty.free
    assert pooled_exact(plenty, REQUESTS).cost == pytest.approx(best_routing(plenty, REQUESTS, everything))


def test_types_without_requests_change_nothing() -> None:
    instance, requests = line(), REQUESTS.copy()
    requests[[1, 3, 5]] = 0
    kept = [0, 2, 4]
    alone = replace(
        instance, asked=instance.asked[kept], paths=instance.paths[kept], latency_ms=instance.latency_ms[kept]
    )
    assert pooled_optimum(instance, requests).cost == pytest.approx(pooled_optimum(alone, requests[kept]).cost)


def test_the_search_ends_in_time_with_a_bound() -> None:
    rng = np.random.default_rng(0)
    instance = delivery_network(rng, nodes=12, tasks=4, variants=6, types=40)
    requests = rng.integers(1, 200, 40).astype(float)
    found = pooled_exact(instance, requests, seconds=0.2)
    assert found.least <= found.cost
    assert found.least >= pooled_optimum(instance, requests).cost * (1 - 1e-6) or found.least == -np.inf
    require_feasible(instance, found.loaded)

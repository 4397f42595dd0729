"""The best fixed allocation: branch and bound against brute force, brute force against all subsets."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.inference.exact import exhaustive, integral_optimum
from rivage.inference.greedy import greedy
from rivage.inference.optimum import relaxed_optimum
from rivage.inference.replay import require_feasible
from rivage.testing.strategies import delivery_network, delivery_slot

from .conftest import alone, line

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("alpha", "best"), [(0.0, 2460), (0.25, 2390), (1.0, 1790), (4.0, 840)])
def test_golden_optima(alpha: float, best: float) -> None:
    slot = alone(line(alpha))
    for found in (exhaustive(slot.instance, [slot]), integral_optimum(slot.instance, [slot])):
        assert found.value == pytest.approx(best)
        assert found.bound == pytest.approx(best)
        assert slot.gain(found.loaded) == pytest.approx(best)
        require_feasible(slot.instance, found.loaded)


@settings(max_examples=25)
@given(seeds, st.integers(1, 3), st.booleans())
def test_bound_optimum_and_greed_are_in_order(seed: int, count: int, shared_pins: bool) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=4, tasks=2, variants=2, shared_pins=shared_pins)
    slots, weights = [delivery_slot(rng, instance) for _ in range(count)], rng.random(count) + 0.1
    best = exhaustive(instance, slots, weights)
    searched = integral_optimum(instance, slots, weights)
    slack = 1e-6 * (1 + max(slot.base_cost for slot in slots))
    assert searched.value == pytest.approx(best.value, abs=slack)
    assert searched.bound >= searched.value
    assert searched.bound == pytest.approx(best.value, abs=10 * slack)
    assert relaxed_optimum(instance, slots, weights).value >= best.value - slack
    assert greedy(instance, slots, weights).value <= best.value + slack
    for found in (best, searched):
        require_feasible(instance, found.loaded)


def test_trying_all_subsets_finds_nothing_better() -> None:
    """Every one of 2⁸ allocations, by the plain gain."""
    rng = np.random.default_rng(5)
    for _ in range(10):
        instance = delivery_network(rng, nodes=3, tasks=2, variants=2)
        slot, places = delivery_slot(rng, instance), np.argwhere(instance.free)
        gains = []
        for chosen in product([False, True], repeat=len(places)):
            x = instance.pinned.copy()
            x[tuple(places[list(chosen)].T)] = True
            if (np.where(x, instance.sizes, 0.0).sum(axis=1) <= instance.budgets * (1 + 1e-9)).all():
                gains.append(slot.gain(x))
        assert exhaustive(instance, [slot]).value == pytest.approx(max(gains))


def test_nothing_to_decide_and_too_much_to_try() -> None:
    quiet = alone(line(), np.zeros(6))
    assert exhaustive(quiet.instance, [quiet]).value == integral_optimum(quiet.instance, [quiet]).value == 0.0
    none = alone(line(budgets=(0.0, 0.0, 0.0)))
    assert integral_optimum(none.instance, [none]).value == pytest.approx(0.0, abs=1e-9)
    rng = np.random.default_rng(0)
    instance = delivery_network(rng, nodes=30, tasks=2, variants=4, types=100)
    with pytest.raises(ConfigError, match=r"e\+\d+ allocations. Use integral_optimum"):
        exhaustive(instance, [delivery_slot(rng, instance)])
    instance = delivery_network(rng, nodes=2, tasks=10, variants=5, types=40)
    with pytest.raises(ConfigError, match=r"models to choose from on node 1\. Use integral_optimum"):
        exhaustive(instance, [delivery_slot(rng, instance)])


def test_a_search_that_is_cut_short_still_tells_between_what_the_optimum_lies() -> None:
    rng = np.random.default_rng(3)
    instance = delivery_network(rng, nodes=30, tasks=6, variants=6, types=120)
    slot = delivery_slot(rng, instance)
    rough, fine = (integral_optimum(instance, [slot], gap=gap) for gap in (0.2, 0.0))
    assert rough.value <= fine.value + 1e-6 * slot.base_cost
    assert rough.bound >= fine.value - 1e-6 * slot.base_cost
    assert rough.value < rough.bound

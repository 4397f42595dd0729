"""The oracle of each slot: between the best fixed allocation and the bound of each slot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.inference.exact import exhaustive
from rivage.inference.gain import contend
from rivage.inference.greedy import StaticGreedy
from rivage.inference.oracle import Oracle, slot_bounds
from rivage.inference.replay import deliver
from rivage.testing.strategies import delivery_network, delivery_slot

from .conftest import alone, line

UP, DOWN = np.array([60.0, 20, 0, 0, 5, 2]), np.array([5.0, 2, 0, 0, 60, 20])


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_bounds_are_above_the_best_of_each_slot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=4, tasks=2, variants=2)
    slots = [delivery_slot(rng, instance) for _ in range(3)]
    bounds = slot_bounds(instance, [*slots, slots[0]])
    assert bounds[3] == bounds[0]
    for bound, slot in zip(bounds, slots, strict=False):
        assert bound >= exhaustive(instance, [slot]).value - 1e-6 * (1 + slot.base_cost)


def test_where_nothing_contends_it_is_the_best_or_close_in_each_slot() -> None:
    """One task per node and pinned throughput without limit: potential capacities are what loaded models have."""
    rng = np.random.default_rng(2)
    reached = []
    for _ in range(20):
        instance = delivery_network(rng, nodes=4, tasks=3, variants=2, types=3)
        batches = [rng.integers(0, 5, 3).astype(float) for _ in range(3)]
        played = deliver(Oracle(), instance, batches, streams=Streams(0))
        slots = [contend(instance, requests, instance.pinned).slot for requests in batches]
        best = sum(exhaustive(instance, [slot]).value for slot in slots)
        reached.append(played.last["gain"] / best if best else 1.0)
    assert np.mean(reached) > 0.97


def test_alternating_demand_shows_the_price_of_being_static() -> None:
    """The sheet's switching case, but with requests that share throughput: two phases, one fixed allocation."""
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    batches = [UP, DOWN] * 4
    oracle = deliver(Oracle(), instance, batches, streams=Streams(0)).last["gain"]
    static = deliver(StaticGreedy(), instance, batches, streams=Streams(0)).last["gain"]
    assert oracle > 1.2 * static


def test_bounds_of_the_switching_case() -> None:
    """The sheet: at best 1119 per slot and phase."""
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    slots = [alone(instance, UP), alone(instance, DOWN)]
    best = np.mean([exhaustive(instance, [slot]).value for slot in slots])
    assert best == pytest.approx(1119.0)
    assert slot_bounds(instance, slots) == pytest.approx([1119.0, 1119.0]), "the relaxation is whole here"


def test_it_must_be_told_what_comes() -> None:
    instance = line(keep_oversize=False)
    policy = Oracle()
    with pytest.raises(DataError, match="Call foresee"):
        policy.act(policy.init(instance, Streams(0)))
    with pytest.raises(ConfigError, match="draws is 0"):
        Oracle(draws=0)

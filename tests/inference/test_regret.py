"""The regret of fractions, bounded by slopes: never below the true one, which a linear program finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.programs import linear_program
from rivage.inference.gain import Slot
from rivage.inference.instance import Instance
from rivage.inference.optimum import relaxed_optimum
from rivage.inference.regret import LinearRegret, _knapsacks
from rivage.testing.strategies import delivery_network, delivery_slot

from .conftest import alone, line

seeds = st.integers(0, 2**32 - 1)


def feasible(rng: np.random.Generator, instance: Instance) -> np.ndarray:
    """Fractions within all budgets."""
    y = np.where(instance.free, rng.random(instance.shape), 0.0)
    used = (np.where(instance.free, instance.sizes, 0.0) * y).sum(axis=1)
    shrink = np.minimum(1.0, instance.free_budgets / np.maximum(used, 1e-12))
    return np.where(instance.pinned, 1.0, y * shrink[:, None])


def drawn(seed: int, slots: int) -> tuple[Instance, list[Slot], np.random.Generator]:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=4, tasks=2, variants=2)
    return instance, [delivery_slot(rng, instance) for _ in range(slots)], rng


@settings(max_examples=40)
@given(seeds, st.integers(1, 6), st.sampled_from([1.0, 1 - 1 / np.e, 0.2]))
def test_it_is_never_below_the_regret_to_the_best_fixed_fractions(seed: int, slots: int, factor: float) -> None:
    instance, met, rng = drawn(seed, slots)
    regret, gained = LinearRegret(instance), 0.0
    for slot in met:
        y = feasible(rng, instance)
        regret.read(slot, y, y)
        gained += slot.gain(y)
    best = slots * relaxed_optimum(instance, met).value
    assert regret.value(factor) >= factor * best - gained - 1e-6 * (1 + best)


@settings(max_examples=20)
@given(seeds, st.integers(1, 4))
def test_what_is_played_may_be_drawn_from_older_fractions(seed: int, slots: int) -> None:
    instance, met, rng = drawn(seed, slots)
    regret, gained, lag = LinearRegret(instance), 0.0, 0.0
    for slot in met:
        y, older = feasible(rng, instance), feasible(rng, instance)
        regret.read(slot, y, older)
        gained += slot.gain(older)
        lag += slot.gain(y) - slot.gain(older)
    assert regret.lag == pytest.approx(lag)
    best = slots * relaxed_optimum(instance, met).value
    assert regret.value() >= best - gained - 1e-6 * (1 + best)


@settings(max_examples=40)
@given(seeds)
def test_the_knapsacks_are_the_linear_program(seed: int) -> None:

    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=4, tasks=2, variants=3)
    worth = rng.normal(size=instance.shape)
    expected = 0.0
    for node in range(4):
        models = np.flatnonzero(instance.free[node])
        if models.size:
            rows, room = instance.sizes[node, models][None], instance.free_budgets[node : node + 1]
            expected -= linear_program(-worth[node, models], upper=(rows, room), high=1.0).value
    assert _knapsacks(instance, worth) == pytest.approx(expected, abs=1e-6)


def test_nothing_played_against_golden_numbers() -> None:
    """y = 0: every model's slope is what it alone would gain, so the knapsacks are sums of these."""
    slot = alone(line())
    regret = LinearRegret(slot.instance)
    y = slot.instance.pinned.astype(float)
    regret.read(slot, y, y)
    assert regret.played == 0.0
    gains = np.zeros(slot.instance.shape)
    for node, model in np.argwhere(slot.instance.free):
        x = slot.instance.pinned.copy()
        x[node, model] = True
        gains[node, model] = slot.gain(x)
    assert regret.slopes == pytest.approx(gains)
    assert regret.value() == pytest.approx(_knapsacks(slot.instance, gains))


def test_fractions_that_are_the_same_object_have_no_lag() -> None:
    slot = alone(line())
    regret = LinearRegret(slot.instance)
    y = slot.instance.pinned.astype(float)
    regret.read(slot, y, y)
    assert regret.lag == 0.0


def test_slots_without_requests_change_nothing() -> None:
    slot = alone(line(), np.zeros(6))
    regret = LinearRegret(slot.instance)
    y = np.full(slot.instance.shape, 0.1) + 0.9 * slot.instance.pinned
    regret.read(slot, y, y)
    assert regret.value() == 0.0

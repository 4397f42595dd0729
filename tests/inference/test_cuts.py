"""The linear bound by cuts: around the program's optimum, as near as was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.inference.cuts import relaxed_by_cuts
from rivage.inference.gain import Slot, contend
from rivage.inference.optimum import relaxed_optimum, relaxed_patterns
from rivage.inference.patterns import Patterns
from rivage.testing.strategies import delivery_network, delivery_slot

from .conftest import REQUESTS, alone, line

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=40)
@given(seeds, st.integers(1, 4), st.booleans(), st.sampled_from([1e-2, 1e-5]))
def test_bound_and_value_enclose_the_optimum(seed: int, count: int, shared_pins: bool, gap: float) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, shared_pins=shared_pins)
    slots = [delivery_slot(rng, instance) for _ in range(count)]
    patterns = Patterns.of(instance, slots, rng.random(count) + 0.1)
    found, exact = relaxed_by_cuts(patterns, gap=gap), relaxed_patterns(patterns).value
    slack = 1e-6 * (1 + patterns.base_price)
    assert found.value - slack <= exact <= found.bound + slack
    assert found.bound - found.value <= gap * found.bound + slack
    assert patterns.gain(found.y) == pytest.approx(found.value, abs=slack)
    used = np.where(instance.free, instance.sizes * found.y, 0.0).sum(axis=1)
    assert (used <= instance.free_budgets * (1 + 1e-6) + 1e-9).all()
    assert ((found.y >= instance.pinned) & (found.y <= 1)).all()


@settings(max_examples=20)
@given(seeds)
def test_prices_make_a_bound_for_other_budgets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = replace(delivery_network(rng), keep_oversize=True)
    slot = delivery_slot(rng, instance)
    here = relaxed_by_cuts(Patterns.of(instance, [slot]), gap=1e-3)
    pinned = np.where(instance.pinned, instance.sizes, 0.0).sum(axis=1)
    for _ in range(3):
        budgets = pinned + (instance.budgets - pinned) * rng.uniform(0.0, 2.0, len(pinned))
        other = replace(instance, budgets=budgets)
        most = relaxed_optimum(other, [Slot(instance=other, requests=slot.requests, capacity=slot.capacity)]).value
        promised = here.bound + float(here.memory_prices @ (budgets - instance.budgets))
        assert most <= promised + 1e-6 * (1 + slot.base_cost)


def test_contending_slots_on_the_golden_network() -> None:
    instance, rng = line(), np.random.default_rng(0)
    slots = [contend(instance, rng.poisson(2 * REQUESTS).astype(float), instance.pinned).slot for _ in range(40)]
    patterns = Patterns.of(instance, slots)
    assert len(patterns) > 100
    found = relaxed_by_cuts(patterns, gap=1e-6)
    assert found.value == pytest.approx(relaxed_patterns(patterns).value, rel=2e-6)
    assert found.rounds < 60


def test_rounds_that_run_out_leave_a_bound(golden: Slot) -> None:
    patterns = Patterns.of(golden.instance, [golden])
    one, many = relaxed_by_cuts(patterns, rounds=1), relaxed_by_cuts(patterns, gap=0.0)
    assert one.value < 1805.0 < one.bound
    assert many.value == pytest.approx(1805.0)
    assert many.bound == pytest.approx(1805.0)


def test_nothing_to_gain_needs_no_round() -> None:
    quiet = alone(line(), np.zeros(6))
    found = relaxed_by_cuts(Patterns.of(quiet.instance, [quiet]))
    assert (found.value, found.bound, found.rounds) == (0.0, 0.0, 0)
    none = alone(line(budgets=(0.0, 0.0, 0.0)))
    assert relaxed_by_cuts(Patterns.of(none.instance, [none])).bound == pytest.approx(0.0, abs=1e-6)
    full = alone(line(budgets=(21.0, 21.0, 21.0)))
    assert relaxed_by_cuts(Patterns.of(full.instance, [full])).value == pytest.approx(full.gain(full.instance.usable))


def test_gaps_and_rounds_out_of_range_are_refused(golden: Slot) -> None:
    patterns = Patterns.of(golden.instance, [golden])
    for settings_ in ({"gap": -1.0}, {"rounds": 0}):
        with pytest.raises(ConfigError):
            relaxed_by_cuts(patterns, **settings_)

"""INFIDA that knows all slots: the optimum of fractions within its own two bounds, and what draws are worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.blocks import Blocks
from rivage.inference.gain import Slot
from rivage.inference.infida_offline import INFIDAOffline, climb
from rivage.inference.policy import DELIVERY_POLICIES, DeliveryPolicy
from rivage.inference.replay import deliver
from rivage.testing.strategies import delivery_fractions, delivery_network, delivery_slot

from .conftest import REQUESTS, alone, line


def test_golden_optimum_lies_between(golden: Slot) -> None:
    """1805.0 by linear program."""
    ascent = climb([golden], np.ones(1), steps=2000, tolerance=2e-3)
    assert ascent.gain <= 1805.0 + 1e-9 <= ascent.upper + 2e-9
    assert ascent.upper - ascent.gain <= 2e-3 * ascent.upper
    assert ascent.steps < 2000
    assert golden.gain(Blocks.of(golden.instance).matrix(ascent.y)) == pytest.approx(ascent.gain)


def test_error_falls_with_the_square_root_of_steps_at_least(golden: Slot) -> None:
    gaps = [(a := climb([golden], np.ones(1), steps=n, tolerance=1e-12)).upper - a.gain for n in (50, 200, 800)]
    assert gaps[1] <= 0.6 * gaps[0]
    assert gaps[2] <= 0.6 * gaps[1]


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_no_fixed_fractions_gain_more_than_is_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng)
    slots, weights = [delivery_slot(rng, instance) for _ in range(4)], rng.dirichlet(np.ones(4))
    ascent, blocks = climb(slots, weights, steps=60, tolerance=0.01), Blocks.of(instance)
    for _ in range(20):
        y = delivery_fractions(rng, instance).ravel()[blocks.place]
        load = np.add.reduceat(blocks.sizes * y, blocks.first[:-1]) if len(blocks) else np.empty(0)
        fit = np.minimum(1.0, blocks.budgets / np.maximum(load, 1e-9))
        x = blocks.matrix(y * np.repeat(fit, np.diff(blocks.first)))
        gain = sum(w * slot.gain(x) for w, slot in zip(weights, slots, strict=True))
        assert gain <= ascent.upper * (1 + 1e-9) + 1e-9
    assert ascent.gain <= ascent.upper


def test_one_allocation_for_all_slots() -> None:
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    demands = [np.array([60.0, 20, 0, 0, 5, 2]), np.array([5.0, 2, 0, 0, 60, 20])] * 30
    delivered = deliver(INFIDAOffline(), instance, demands, streams=Streams(0), every=20)
    assert {point["loads"] for point in delivered.points} == {delivered.points[0]["loads"]}
    ascent = delivered.state.ascent
    mean = delivered.last["gain"] / 60
    assert (1 - 1 / math.e - 0.01) * ascent.gain <= mean


def test_golden_allocation_is_nearly_the_best() -> None:
    instance = line(keep_oversize=False)
    delivered = deliver(INFIDAOffline(draws=50), instance, [REQUESTS], streams=Streams(0))
    alone_gain = alone(instance).gain(delivered.state.loaded)
    assert alone_gain >= 1700


def test_where_all_fits_there_is_nothing_to_find() -> None:
    instance = line(budgets=(21.0, 21.0, 21.0))
    delivered = deliver(INFIDAOffline(), instance, [REQUESTS], streams=Streams(0))
    assert delivered.state.loaded.all()
    assert delivered.state.ascent.upper == pytest.approx(delivered.state.ascent.gain)


def test_settings_and_registry() -> None:
    with pytest.raises(ConfigError):
        INFIDAOffline(draws=0)
    with pytest.raises(ConfigError):
        INFIDAOffline(tolerance=0.0)
    assert DELIVERY_POLICIES.get("infida_offline") is INFIDAOffline
    assert isinstance(INFIDAOffline(), DeliveryPolicy)

"""Mean gains over many slots, from distinct patterns alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import DataError, ShapeError
from rivage.inference.gain import Slot
from rivage.inference.patterns import Patterns
from rivage.testing.strategies import delivery_fractions, delivery_network, delivery_slot

from .conftest import REQUESTS, alone, line

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=100)
@given(seeds, st.integers(1, 5), st.booleans())
def test_the_mean_gain_is_that_of_the_slots(seed: int, count: int, shared_pins: bool) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, shared_pins=shared_pins)
    slots = [delivery_slot(rng, instance) for _ in range(count)]
    weights = rng.random(count) * (rng.random(count) < 0.7) + 1e-3
    patterns = Patterns.of(instance, slots, weights)
    share = weights / weights.sum()
    for _ in range(3):
        y = delivery_fractions(rng, instance)
        mean = sum(w * slot.gain(y) for w, slot in zip(share, slots, strict=True))
        assert patterns.gain(y) == pytest.approx(mean, abs=1e-8 * (1 + patterns.base_price))


def test_equal_slots_and_multiples_of_them_are_one_pattern_per_type(golden: Slot) -> None:
    instance = golden.instance
    twice = Slot(instance=instance, requests=2 * REQUESTS, capacity=2 * golden.capacity)
    one, many = Patterns.of(instance, [golden]), Patterns.of(instance, [golden, twice, golden])
    assert len(many) == len(one) == 6
    assert many.gain(instance.usable) == pytest.approx(4 / 3 * one.gain(instance.usable))


def test_types_without_requests_and_slots_without_weight_have_none(golden: Slot) -> None:
    instance = golden.instance
    other = alone(instance, np.array([0.0, 0, 30, 0, 0, 7]))
    patterns = Patterns.of(instance, [golden, other], np.array([0.0, 3.0]))
    assert patterns.type.tolist() == [2, 5]
    assert patterns.weight.tolist() == [30.0, 7.0]
    empty = Patterns.of(instance, [alone(instance, np.zeros(6))])
    assert len(empty) == 0
    assert empty.gain(instance.usable) == 0.0


def test_slots_and_weights_that_do_not_fit_are_refused(golden: Slot) -> None:
    instance = golden.instance
    with pytest.raises(DataError, match="there is no slot"):
        Patterns.of(instance, [])
    with pytest.raises(ShapeError, match="one for each of 1 slots"):
        Patterns.of(instance, [golden], np.ones(2))
    for weights in ([0.0, 0.0], [1.0, -1.0], [np.inf, 1.0]):
        with pytest.raises(DataError, match="weights are negative"):
            Patterns.of(instance, [golden, golden], np.array(weights))


def test_ways_behind_what_pinned_models_need_are_left_out() -> None:
    slot = alone(line())
    patterns = Patterns.of(slot.instance, [slot])
    cheapest_pinned = [min(slot.instance.ranking.cost[k] for k in _pinned(slot, type_)) for type_ in range(6)]
    assert patterns.cost[patterns.first[1:] - 1].tolist() == cheapest_pinned


def _pinned(slot: Slot, type_: int) -> list[int]:
    ranking = slot.instance.ranking
    ways = range(ranking.first[type_], ranking.first[type_ + 1])
    return [k for k in ways if slot.instance.pinned.ravel()[ranking.place[k]]]

"""Rolling plans: near the optimum where demand stays, back on it soon after it turns, and quiet in between."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.exact import integral_optimum
from rivage.inference.gain import Slot, contend
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen
from rivage.inference.replay import deliver, require_feasible
from rivage.inference.rolling import RollingPlan, mean_slot
from rivage.testing.strategies import delivery_fractions, delivery_network, delivery_slot

from .conftest import REQUESTS, alone, line

UP, DOWN = np.array([60.0, 20, 0, 0, 5, 2]), np.array([5.0, 2, 0, 0, 60, 20])


def gains(policy: RollingPlan, instance: Instance, batches: list[np.ndarray]) -> list[float]:
    found, seen = list[float](), 0.0
    for point in deliver(policy, instance, batches, streams=Streams(0)).points:
        found.append(point["gain"] - seen)
        seen = point["gain"]
    return found


@pytest.mark.parametrize("program", ["mean", "slots", "pooled"])
def test_on_the_golden_network_it_is_near_the_optimum_from_the_second_slot_on(program: Any) -> None:
    instance = line(keep_oversize=False)
    found = gains(RollingPlan(program=program, greedy=True), instance, [REQUESTS] * 30)
    assert found[0] == 0.0
    best = max(found)
    assert best >= 0.9 * integral_optimum(instance, [contend(instance, REQUESTS, instance.pinned).slot]).value
    assert found[1] >= 0.9 * best
    assert found[-1] == pytest.approx(best)
    assert all(after >= before - 1e-9 for before, after in pairwise(found))


def test_it_follows_demand_that_turns() -> None:
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    found = gains(RollingPlan(period=5, window=5), instance, [UP] * 40 + [DOWN] * 40 + [UP] * 40)
    settled = [np.mean(found[start + 20 : start + 40]) for start in (0, 40, 80)]
    assert settled[0] == pytest.approx(settled[2], rel=0.05)
    for start, level in zip((40, 80), settled[1:], strict=True):
        assert min(found[start : start + 5]) < 0.7 * level
        assert np.mean(found[start + 10 : start + 40]) > 0.95 * level


def test_nothing_moves_without_a_reason() -> None:
    instance = line(keep_oversize=False)
    calm = deliver(RollingPlan(period=1), instance, [REQUESTS] * 20, streams=Streams(0)).last
    rng = np.random.default_rng(0)
    noisy = [rng.poisson(REQUESTS).astype(float) for _ in range(40)]
    loads = {
        margin: deliver(RollingPlan(period=1, window=3, margin=margin), instance, noisy, streams=Streams(0)).last
        for margin in (0.0, 0.2)
    }
    held = 8
    assert calm["loads"] <= held, "fetched once"
    assert loads[0.2]["moved"] < loads[0.0]["moved"]
    assert loads[0.2]["gain"] > 0.9 * loads[0.0]["gain"]


def test_plans_are_made_when_they_are_due() -> None:
    """After the first slot, and then after every third; the window then holds the last two slots."""
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    policy = RollingPlan(period=3, window=2)
    state = policy.init(instance, Streams(0))
    changed = []
    for number, requests in enumerate([UP, DOWN, DOWN, DOWN, DOWN, UP, UP, UP], 1):
        loaded = policy.act(state)
        slot, served = contend(instance, requests, loaded)
        state = policy.update(state, Seen(slot, loaded, served))
        if not np.array_equal(policy.act(state), loaded):
            changed.append(number)
        assert len(state.window) == min(number, 2)
    assert changed[:2] == [1, 3]
    assert set(changed) <= {1, 3, 6}


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_the_mean_slot_gains_no_less_than_the_mean_of_slots(seed: int) -> None:
    """The gain is concave in requests and capacities together."""
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng)
    slots = [delivery_slot(rng, instance) for _ in range(3)]
    y = delivery_fractions(rng, instance)
    mean = float(np.mean([slot.gain(y) for slot in slots]))
    assert mean_slot(instance, slots).gain(y) >= mean - 1e-9 * (1 + max(slot.base_cost for slot in slots))


def test_quiet_slots_and_networks_without_memory() -> None:
    for program in ("mean", "slots", "pooled"):
        policy = RollingPlan(program=program)
        quiet = deliver(policy, line(keep_oversize=False), [np.zeros(6)] * 3, streams=Streams(0))
        assert quiet.last["loads"] == 0
    none = line(budgets=(0.0, 0.0, 0.0), keep_oversize=False)
    played = deliver(RollingPlan(period=1), none, [REQUESTS] * 3, streams=Streams(0))
    assert np.array_equal(played.loaded, none.pinned)
    roomy = line(budgets=(21.0, 21.0, 21.0), keep_oversize=False)
    played = deliver(RollingPlan(period=1), roomy, [REQUESTS] * 3, streams=Streams(0))
    assert np.array_equal(played.loaded, roomy.usable)
    require_feasible(roomy, played.loaded)


def test_a_single_draw_does_and_more_never_lose_on_the_window() -> None:
    slot = alone(line(keep_oversize=False))
    few, many = (mean_of_one(draws, slot) for draws in (1, 30))
    assert few <= many + 1e-9


def mean_of_one(draws: int, slot: Slot) -> float:
    return gains(RollingPlan(draws=draws, period=100), slot.instance, [REQUESTS] * 2)[1]


@pytest.mark.parametrize(
    "settings_", [{"period": 0}, {"window": 0}, {"draws": 0}, {"program": "exact"}, {"margin": -0.1}]
)
def test_settings_out_of_range_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RollingPlan(**settings_)

"""What must hold on every network: the gain, its slope, the step of a node, rounding, and the promise of INFIDA."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rivage.core.seeding import Streams
from rivage.inference import infida_kernel as kernel
from rivage.inference.blocks import Blocks, mass_of_best
from rivage.inference.gain import Slot
from rivage.inference.infida import INFIDA, pulls
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen
from rivage.testing.strategies import delivery_fractions, delivery_networks, delivery_slot, delivery_slots

seeds = st.integers(0, 2**32 - 1)
anywhere = delivery_slots() | delivery_slots(shared_pins=True)
many = settings(max_examples=200)
chance = settings(max_examples=200, derandomize=True)  # the same instances and draws in every run


def gain_by_ranks(slot: Slot, y: np.ndarray) -> float:
    """Σ (γ^{k+1} − γ^k)(Z^k(y) − Z^k(ω)), the second formula of the publication."""
    ranking, total = slot.instance.ranking, 0.0
    flat, pinned = y.ravel(), slot.instance.pinned.ravel()
    for type_, requests in enumerate(slot.requests):
        ranks = slice(ranking.first[type_], ranking.first[type_ + 1])
        reached, before = (
            np.minimum(requests, np.cumsum(x[ranking.place[ranks]] * slot.capacity[ranks])) for x in (flat, pinned)
        )
        total += float(np.diff(ranking.cost[ranks]) @ (reached - before)[:-1])
    return total


@many
@given(anywhere, seeds)
def test_gain_is_the_difference_of_costs(slot: Slot, seed: int) -> None:
    y = delivery_fractions(np.random.default_rng(seed), slot.instance)
    assert slot.gain(y) == pytest.approx(gain_by_ranks(slot, y), abs=1e-6)


@many
@given(anywhere, seeds)
def test_gain_is_concave_and_monotone_and_no_more_than_the_cost(slot: Slot, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (delivery_fractions(rng, slot.instance) for _ in range(2))
    share = rng.random()
    slack = 1e-9 * (1 + slot.base_cost)
    assert slot.gain(share * a + (1 - share) * b) >= share * slot.gain(a) + (1 - share) * slot.gain(b) - slack
    assert slot.gain(np.maximum(a, b)) >= max(slot.gain(a), slot.gain(b)) - slack
    assert -slack <= slot.gain(a) <= slot.base_cost + slack
    assert abs(slot.gain(slot.instance.pinned)) <= slack


@many
@given(anywhere, seeds)
def test_gain_is_submodular(slot: Slot, seed: int) -> None:
    instance, rng = slot.instance, np.random.default_rng(seed)
    large = instance.pinned | (instance.free & (rng.random(instance.shape) < 0.6))
    small = instance.pinned | (large & (rng.random(instance.shape) < 0.5))
    left = np.argwhere(instance.free & ~large)
    assume(len(left))
    new = np.zeros(instance.shape, bool)
    new[tuple(left[rng.integers(len(left))])] = True
    slack = 1e-9 * (1 + slot.base_cost)
    assert slot.gain(small | new) - slot.gain(small) >= slot.gain(large | new) - slot.gain(large) - slack


@many
@given(anywhere, seeds)
def test_slope_lies_above_the_gain(slot: Slot, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (delivery_fractions(rng, slot.instance) for _ in range(2))
    gradient = slot.slope(a).gradient
    assert slot.gain(b) <= slot.gain(a) + float((gradient * (b - a)).sum()) + 1e-6 * (1 + slot.base_cost)
    assert (gradient >= 0).all()


@many
@given(delivery_slots(), seeds)
def test_no_slope_is_steeper_than_is_known_before(slot: Slot, seed: int) -> None:
    blocks = Blocks.of(slot.instance)
    y = delivery_fractions(np.random.default_rng(seed), slot.instance)
    slope = slot.slope(y).gradient.ravel()[blocks.place] / blocks.sizes
    assert (slope <= pulls(slot.instance, blocks, float(slot.requests.max())) * (1 + 1e-12)).all()


@many
@given(delivery_networks(), seeds)
def test_step_of_a_node_is_optimal(instance: Instance, seed: int) -> None:
    """One multiplier for all that are not capped; capped ones have c h >= 1; and the budget is met."""
    blocks, rng = Blocks.of(instance), np.random.default_rng(seed)
    count = len(blocks.place)
    start, slope = blocks.uniform, rng.exponential(20.0, count) * (rng.random(count) < 0.7)
    steps = rng.uniform(1e-3, 0.5, len(blocks))
    h = start + np.repeat(steps, np.diff(blocks.first)) * slope / blocks.sizes
    moved, added = kernel.ascend(blocks.first, blocks.sizes, blocks.budgets, start, start, slope, steps, steps)
    _, spread = kernel.reaches(blocks.first, blocks.sizes, slope)
    assert (added <= steps * blocks.budgets * spread**2 / 8 * (1 + 1e-9) + 1e-9).all()
    for v, (a, b) in enumerate(zip(blocks.first[:-1], blocks.first[1:], strict=True)):
        y, shift = np.exp(moved[a:b]), moved[a:b] - h[a:b]
        assert y @ blocks.sizes[a:b] == pytest.approx(blocks.budgets[v], rel=1e-9)
        inside = y < 1
        if inside.any():
            assert shift[inside] == pytest.approx(shift[inside][0], abs=1e-9)
            assert (shift[~inside] <= shift[inside][0] + 1e-9).all()


def _fractions(blocks: Blocks, rng: np.random.Generator) -> np.ndarray:
    """A point of Y, far from uniform."""
    one, slope = np.ones(len(blocks)), blocks.sizes * rng.normal(0.0, 2.0, len(blocks.place))
    logs, _ = kernel.ascend(blocks.first, blocks.sizes, blocks.budgets, blocks.uniform, blocks.uniform, slope, one, one)
    return np.exp(logs)


@chance
@given(delivery_networks(), seeds)
def test_rounding_keeps_expectations_and_loads(instance: Instance, seed: int) -> None:
    """Means of 300 draws within 5 standard errors: a false alarm in some 5 of 10⁷ places; instances are fixed."""
    blocks, rng = Blocks.of(instance), np.random.default_rng(seed)
    values, draws = _fractions(blocks, rng), 300
    chosen = np.array(
        [blocks.rounded(values, rng.random(len(values)), "paper").ravel()[blocks.place] for _ in range(draws)]
    ).reshape(draws, len(values))
    error = np.sqrt(values * (1 - values) / draws)
    assert (
        np.abs(chosen.mean(axis=0) - values) <= 5 * error + 12 / draws * (values * (1 - values) < 0.05) + 1e-9
    ).all()
    for v, (a, b) in enumerate(zip(blocks.first[:-1], blocks.first[1:], strict=True)):
        load = chosen[:, a:b] @ blocks.sizes[a:b]
        assert (np.abs(load - blocks.budgets[v]) <= blocks.sizes[a:b].max() + 1e-9).all()


@many
@given(delivery_networks(shared_pins=True), seeds)
def test_what_is_loaded_fits(instance: Instance, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for rounding in ("strict", "reserve"):
        blocks = Blocks.of(instance, rounding)
        values = _fractions(blocks, rng)
        loaded = blocks.rounded(values, rng.random(len(values)), rounding)
        held = np.where(loaded, instance.sizes, 0.0).sum(axis=1)
        assert (held <= instance.budgets * (1 + 1e-9)).all()
        assert (loaded | ~instance.pinned).all()
        assert not (loaded & ~instance.usable).any()
        spare = np.where(instance.free & ~loaded, instance.sizes, np.inf).min(axis=1)
        assert (held + spare > instance.budgets).all()  # nothing that would fit is left out


@chance
@given(delivery_slots(), seeds)
def test_rounding_keeps_its_share_of_the_gain(slot: Slot, seed: int) -> None:
    """E G(x) >= (1 − 1/e) G(y), within 3 standard errors of 100 draws."""
    blocks, rng = Blocks.of(slot.instance), np.random.default_rng(seed)
    values = _fractions(blocks, rng)
    gains = [slot.gain(blocks.rounded(values, rng.random(len(values)), "paper")) for _ in range(100)]
    error = float(np.std(gains)) / math.sqrt(len(gains))
    assert np.mean(gains) >= (1 - 1 / math.e) * slot.gain(blocks.matrix(values)) - 3 * error - 1e-9


POLICIES = st.sampled_from(
    [
        INFIDA(),
        INFIDA(decay=True, rounding="reserve"),
        INFIDA(warmup=2),
        INFIDA(step="self_confident"),
        INFIDA(step="constant", scale=0.01),
        INFIDA(step="theory", most=40.0),
        INFIDA(refresh=3),
    ]
)


@many
@given(delivery_networks() | delivery_networks(shared_pins=True), POLICIES, seeds, st.integers(1, 12))
def test_no_slots_at_all_break_the_promise(instance: Instance, policy: INFIDA, seed: int, slots: int) -> None:
    """The best fixed x against the slopes themselves, which is more than against the gains."""
    rng = np.random.default_rng(seed)
    state = policy.init(instance, Streams(seed), slots=slots if seed % 2 else None)
    blocks = state.blocks
    total, earned, late = np.zeros(len(blocks.place)), 0.0, 0.0
    for _ in range(slots):
        slot, y = delivery_slot(rng, instance), state.y
        slope = slot.slope(y).gradient.ravel()[blocks.place]
        total += slope
        earned += float(slope @ np.exp(state.logs))
        late += slot.gain(y) - slot.gain(policy.fractions(state))
        state = policy.update(state, Seen(slot, state.loaded, slot.served(state.loaded)))
        parts = zip(blocks.first[:-1], blocks.first[1:], blocks.budgets, strict=True)
        best = sum(mass_of_best(total[a:b] / blocks.sizes[a:b], blocks.sizes[a:b], budget) for a, b, budget in parts)
        assert best - earned + late <= policy.bound(state) + 1e-6 * (1 + best)

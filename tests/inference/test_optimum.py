"""The linear bound: two programs, what they promise, and what memory is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.inference.blocks import Blocks
from rivage.inference.gain import Slot, contend
from rivage.inference.greedy import greedy_patterns
from rivage.inference.instance import Instance
from rivage.inference.optimum import cumulative_program, relaxed_optimum, relaxed_patterns
from rivage.inference.patterns import Patterns
from rivage.testing.strategies import delivery_network, delivery_slot, delivery_slots

from .conftest import alone, line

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("alpha", "least"), [(0.0, 2460), (0.25, 2390), (1.0, 1790), (4.0, 840)])
def test_golden_bound(alpha: float, least: float) -> None:
    slot = alone(line(alpha))
    found = relaxed_optimum(slot.instance, [slot])
    assert found.value >= least - 1e-6
    assert found.value == pytest.approx(slot.gain(found.y))
    if alpha == 1.0:
        assert found.value == pytest.approx(1805.0)


@settings(max_examples=60)
@given(seeds, st.integers(1, 4), st.booleans())
def test_transport_and_the_published_program_agree(seed: int, count: int, shared_pins: bool) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, shared_pins=shared_pins)
    slots = [delivery_slot(rng, instance) for _ in range(count)]
    patterns = Patterns.of(instance, slots, rng.random(count) + 0.1)
    found, published = relaxed_patterns(patterns), cumulative_program(patterns).solve()
    slack = 1e-6 * (1 + patterns.base_price)
    assert found.value == pytest.approx(published.value, abs=slack)
    assert patterns.gain(found.y) == pytest.approx(found.value, abs=slack)
    used = np.where(instance.free, instance.sizes * found.y, 0.0).sum(axis=1)
    assert (used <= instance.free_budgets * (1 + 1e-6) + 1e-9).all()
    assert ((found.y >= 0) & (found.y <= 1) & (found.y >= instance.pinned)).all()


@settings(max_examples=60)
@given(delivery_slots(), seeds)
def test_no_fractions_within_budgets_gain_more(slot: Slot, seed: int) -> None:
    instance, rng = slot.instance, np.random.default_rng(seed)
    most = relaxed_optimum(instance, [slot]).value
    for _ in range(5):
        y = rng.random(instance.shape) ** 3 * instance.free
        used = (np.where(instance.free, instance.sizes, 0.0) * y).sum(axis=1)
        y *= np.minimum(1.0, instance.free_budgets / np.maximum(used, 1e-9))[:, None]
        assert slot.gain(y + instance.pinned) <= most + 1e-6 * (1 + slot.base_cost)


def same_slot(slot: Slot, budgets: np.ndarray) -> tuple[Instance, Slot]:
    """The slot with other budgets; what could be where stays as it was."""
    instance = replace(slot.instance, budgets=budgets)
    return instance, Slot(instance=instance, requests=slot.requests, capacity=slot.capacity)


@settings(max_examples=25)
@given(seeds)
def test_prices_are_supergradients_of_the_value_in_the_budgets(seed: int) -> None:
    """value(b') <= value(b) + ⟨prices, b' − b⟩ for all b'; and equal nearby, where the value is smooth."""
    rng = np.random.default_rng(seed)
    first = replace(delivery_network(rng), keep_oversize=True)
    slot = delivery_slot(rng, first)
    budgets = first.budgets + rng.uniform(0.1, 2.0, len(first.budgets))
    instance, slot = same_slot(slot, budgets)
    here = relaxed_optimum(instance, [slot])
    slack = 1e-6 * (1 + slot.base_cost)
    assert (here.memory_prices >= 0).all()
    pinned = np.where(instance.pinned, instance.sizes, 0.0).sum(axis=1)
    for _ in range(3):
        other = pinned + (budgets - pinned) * rng.uniform(0.0, 2.0, len(budgets))
        value = relaxed_optimum(*_listed(same_slot(slot, other))).value
        assert value <= here.value + float(here.memory_prices @ (other - budgets)) + slack
    for node in range(len(budgets)):
        step = np.zeros(len(budgets))
        step[node] = 1e-2
        up = relaxed_optimum(*_listed(same_slot(slot, budgets + step))).value - here.value
        down = here.value - relaxed_optimum(*_listed(same_slot(slot, budgets - step))).value
        assert up - slack <= here.memory_prices[node] * 1e-2 <= down + slack


def _listed(pair: tuple[Instance, Slot]) -> tuple[Instance, list[Slot]]:
    return pair[0], [pair[1]]


def test_prices_of_the_golden_network() -> None:
    """Between what a unit more adds and what a unit less costs."""
    slot = alone(line())
    here = relaxed_optimum(slot.instance, [slot])
    for node, size in ((0, 2.0), (1, 4.0), (2, 5.0)):
        values = []
        for step in (-0.01, 0.01):
            budgets = [2.0, 4.0, 5.0]
            budgets[node] = size + step
            other = alone(line(budgets=(budgets[0], budgets[1], budgets[2])))
            values.append(relaxed_optimum(other.instance, [other]).value)
        down, up = (here.value - values[0]) / 0.01, (values[1] - here.value) / 0.01
        assert up - 1e-6 <= here.memory_prices[node] <= down + 1e-6
    assert here.memory_prices[3] == 0.0


def test_without_memory_nothing_is_gained_and_with_enough_of_it_everything() -> None:
    none = alone(line(budgets=(0.0, 0.0, 0.0)))
    assert relaxed_optimum(none.instance, [none]).value == pytest.approx(0.0, abs=1e-9)
    all_ = alone(line(budgets=(21.0, 21.0, 21.0)))
    found = relaxed_optimum(all_.instance, [all_])
    assert found.value == pytest.approx(all_.gain(all_.instance.usable))
    assert found.memory_prices == pytest.approx(np.zeros(4))
    endless = alone(line(budgets=(np.inf, np.inf, np.inf)))
    assert relaxed_optimum(endless.instance, [endless]).value == pytest.approx(found.value)


def test_no_requests_and_a_single_type() -> None:
    quiet = alone(line(), np.zeros(6))
    found = relaxed_optimum(quiet.instance, [quiet])
    assert found.value == 0.0
    assert np.array_equal(found.y, quiet.instance.pinned)
    single = alone(line(), np.array([0.0, 0, 0, 12, 0, 0]))
    assert relaxed_optimum(single.instance, [single]).value == pytest.approx(12 * ((21 + 6 + 42) - (6 + 8 + 42)))


def test_many_slots_at_once_gain_no_more_than_each_alone(golden: Slot) -> None:
    instance = golden.instance
    rng = np.random.default_rng(0)
    slots = [alone(instance, rng.integers(0, 80, 6).astype(float)) for _ in range(6)]
    together = relaxed_optimum(instance, slots).value
    alone_ = np.mean([relaxed_optimum(instance, [slot]).value for slot in slots])
    assert together <= alone_ + 1e-6
    assert relaxed_optimum(instance, [golden, golden]).value == pytest.approx(1805.0)


def test_a_plan_for_200_nodes_and_2000_types_takes_seconds() -> None:
    """Acceptance: under 5 minutes. Seen: 1.4 s; greedy is 2.5 % below the bound, the best of 20 draws 3.1 %."""
    instance, requests = large_tree()
    slot = contend(instance, requests, instance.pinned).slot
    patterns = Patterns.of(instance, [slot])
    found = relaxed_patterns(patterns)
    assert found.seconds < 300
    blocks, rng = Blocks.of(instance), np.random.default_rng(0)
    values = found.y.ravel()[blocks.place]
    rounded = max(patterns.gain(blocks.rounded(values, rng.random(len(values)))) for _ in range(20))
    assert 0.95 * found.value <= rounded <= found.value
    assert 0.95 * found.value <= greedy_patterns(patterns).value <= found.value


def large_tree(seed: int = 0, tasks: int = 40, variants: int = 10) -> tuple[Instance, np.ndarray]:
    """1 cloud, 10 regional and 40 edge data centres, 149 access nodes; 2,000 types up the tree."""
    rng = np.random.default_rng(seed)
    first = np.cumsum([0, 1, 10, 40, 149])
    depth = np.repeat(np.arange(4), np.diff(first))
    parent = np.array([-1, *(rng.integers(first[d - 1], first[d]) for d in depth[1:])])
    up = np.array([0.0, 40.0, 15.0, 6.0])[depth] * rng.uniform(0.7, 1.3, 200)
    models = tasks * variants
    size = np.tile(np.geomspace(1.0, 16.0, variants), tasks) * rng.uniform(0.8, 1.2, models)
    accuracy = np.tile(np.linspace(0.4, 0.9, variants), tasks) * rng.uniform(0.9, 1.05, models)
    delays = 4.0 * size / np.array([5.0, 2.5, 1.5, 1.0])[depth][:, None]
    throughput, pinned = 60_000.0 / delays, np.zeros((200, models), bool)
    pinned[0], throughput[0] = True, np.inf
    budgets = np.array([0.0, 160.0, 60.0, 20.0])[depth] * rng.uniform(0.5, 1.5, 200)
    budgets[0] = size.sum()
    entry, asked = rng.integers(first[3], 200, 2000), rng.integers(0, tasks, 2000)
    paths = np.stack([entry, parent[entry], parent[parent[entry]], parent[parent[parent[entry]]]], axis=1)
    latency = np.cumsum(np.column_stack([np.zeros(2000), up[paths[:, :3]]]), axis=1)
    instance = Instance(
        task=np.repeat(np.arange(tasks), variants),
        accuracy=accuracy,
        sizes=np.tile(size, (200, 1)),
        delays_ms=delays,
        throughput=throughput,
        budgets=budgets,
        pinned=pinned,
        asked=asked,
        paths=paths,
        latency_ms=latency,
    )
    popularity = (1.0 + np.arange(tasks)) ** -1.2
    return instance, rng.poisson(3000 * popularity[asked] * rng.uniform(0.3, 2.0, 2000)).astype(float)

"""Offline: brute force on small instances, the sandwich of relaxations, tabular greedy's promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.graphs import Network, path
from rivage.online.cache_network_setups import published_setup
from rivage.online.cache_networks import CacheNetwork
from rivage.online.network_optimum import (
    exhaustive,
    multilinear,
    relaxation,
    relaxed_optimum,
    tabular_greedy,
)
from rivage.online.tabular_greedy import tabular_factor

E = 1 - 1 / np.e


def small(seed: int) -> tuple[CacheNetwork, np.ndarray]:
    """At most 3 nodes, 4 slots and 5 items, and counts of the request types."""
    rng = np.random.default_rng(seed)
    nodes, items = int(rng.integers(2, 4)), int(rng.integers(2, 6))
    triangle = nodes == 3 and rng.random() < 0.5
    network = Network.of(nodes, [*path(nodes).edges.tolist(), *([(0, 2)] if triangle else [])])
    instance = CacheNetwork.routed(
        network.with_random_weights(1, 10, rng),
        items=items,
        capacities=rng.multinomial(int(rng.integers(1, 5)), np.full(nodes, 1 / nodes)),
        servers=rng.integers(nodes, size=items),
        origins=np.arange(nodes),
    )
    return instance, rng.integers(0, 6, len(instance.item))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_relaxations_enclose_the_best_placement(seed: int) -> None:
    instance, counts = small(seed)
    best, relaxed = exhaustive(instance, counts), relaxed_optimum(instance, counts)
    near = 1e-6 * (1 + best)
    assert relaxed.value >= best - near
    assert relaxation(instance, counts, relaxed.y) == pytest.approx(relaxed.value, abs=near)
    assert best >= multilinear(instance, counts, relaxed.y) - near
    assert multilinear(instance, counts, relaxed.y) >= E * relaxed.value - near
    assert (relaxed.y.sum(axis=1) <= instance.capacities + 1e-6).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_at_whole_points_all_three_are_the_gain(seed: int) -> None:
    instance, counts = small(seed)
    x = np.random.default_rng(seed).random((instance.network.nodes, instance.items)) < 0.4
    gain = float(counts @ instance.gains(x))
    assert multilinear(instance, counts, x.astype(float)) == pytest.approx(gain)
    assert relaxation(instance, counts, x.astype(float)) == pytest.approx(gain)


@given(st.integers(0, 10**6))
def test_anywhere_the_product_form_is_within_its_factor(seed: int) -> None:
    instance, counts = small(seed)
    y = np.random.default_rng(seed).random((instance.network.nodes, instance.items))
    high, low = relaxation(instance, counts, y), multilinear(instance, counts, y)
    assert E * high - 1e-9 <= low <= high + 1e-9


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 7, 40]))
def test_tabular_greedy_keeps_its_promise(seed: int, colors: int) -> None:
    instance, counts = small(seed)
    best, placed = exhaustive(instance, counts), tabular_greedy(instance, counts, colors=colors)
    slots = instance.useful_slots
    near = 1e-9 * (1 + best)
    assert placed.expected >= tabular_factor(slots, colors) * best - near
    assert placed.expected <= placed.value + near
    assert placed.value <= best + near
    assert np.allclose(placed.chance.sum(axis=1), 1)
    assert tabular_greedy(instance, counts, colors=1).value >= best / 2 - near


def test_the_promise_is_worth_something_with_many_colours() -> None:
    instance, counts = small(7)
    assert tabular_factor(instance.useful_slots, 400) > 0.6
    assert tabular_greedy(instance, counts, colors=400).expected >= 0.6 * exhaustive(instance, counts)
    assert tabular_factor(1, 10**6) == pytest.approx(E, abs=1e-6)
    assert tabular_factor(5, 1) == 1 - 10


@pytest.mark.parametrize("seed", range(8))
def test_expected_value_is_the_mean_over_all_colours(seed: int) -> None:
    """M = 3: every colouring of the slots is tried."""
    instance, counts = small(seed)
    table = [tabular_items(instance, counts, 3)[s] for s in range(instance.slots)]
    gains = [
        counts @ instance.gains(instance.placement(np.array([table[s][m] for s, m in enumerate(colouring)], np.int64)))
        for colouring in product(range(3), repeat=instance.slots)
    ]
    assert tabular_greedy(instance, counts, colors=3).expected == pytest.approx(np.mean(gains))


def tabular_items(instance: CacheNetwork, counts: np.ndarray, colors: int) -> np.ndarray:
    """Tabular greedy with expectations by enumeration: the item of each slot and colour."""
    slots = instance.slots
    table = np.full((slots, colors), -1)

    def value(grid: np.ndarray) -> float:
        colourings = product(range(colors), repeat=slots)
        return float(
            np.mean([counts @ instance.gains(instance.placement(grid[np.arange(slots), list(c)])) for c in colourings])
        )

    for m in range(colors):
        for s in range(slots):
            worth = []
            for item in range(instance.items):
                table[s, m] = item
                worth.append(round(value(table), 9))
            table[s, m] = int(np.argmax(worth))
    return table


def test_no_request_no_gain() -> None:
    instance, counts = small(1)
    assert relaxed_optimum(instance, 0 * counts).value == 0
    assert exhaustive(instance, 0 * counts) == 0


def test_too_many_placements_are_refused() -> None:
    setup = published_setup("geant", "zipf", Streams(0))
    with pytest.raises(ConfigError, match=r"placements\. Use relaxed_optimum"):
        exhaustive(setup.instance, setup.instance.counts(setup.requests))


def test_the_oscillator_is_worth_ten_per_request_one_way() -> None:
    setup = published_setup("path", "oscillator", Streams(0))
    counts = setup.instance.counts(setup.requests)
    assert relaxed_optimum(setup.instance, counts).value == pytest.approx(100 * 2000 * 5 / 50)
    assert tabular_greedy(setup.instance, counts).value == 100 * 2000 * 5 / 50

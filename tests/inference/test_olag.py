"""OLAG as reconstructed: counters by hand, picks, and how it fares on the golden network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.gain import Slot, contend
from rivage.inference.instance import Instance
from rivage.inference.olag import OLAG
from rivage.inference.optimum import relaxed_optimum
from rivage.inference.policy import Seen
from rivage.inference.replay import require_feasible
from rivage.testing.strategies import delivery_network

from .conftest import alone, line


def settled(policy: OLAG, slot: Slot, slots: int = 300) -> tuple[float, float]:
    """Mean gain, and that of the last slot."""
    state, gains = policy.init(slot.instance, Streams(0)), list[float]()
    for _ in range(slots):
        loaded = policy.act(state)
        require_feasible(slot.instance, loaded)
        gains.append(slot.gain(loaded))
        state = policy.update(state, Seen(slot, loaded, slot.served(loaded)))
    return float(np.mean(gains)), gains[-1]


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("alpha", "best"), [(0.0, 2460), (0.25, 2390), (1.0, 1790), (4.0, 840)])
def test_on_the_golden_network_it_settles_at_the_best_allocation(alpha: float, best: float, memory: float) -> None:
    """Nothing promises that: here greed per node, from the user on, happens to be right."""
    mean, last = settled(OLAG(memory=memory), alone(line(alpha)))
    assert last == pytest.approx(best)
    assert mean >= 0.95 * best


def counters(
    instance: Instance, slot: Slot, loaded: np.ndarray, served: np.ndarray
) -> dict[tuple[int, int, int], tuple[float, float]]:
    """φ and φ · saved for every type, node and model, request by request (a unit each)."""
    ranking, found = instance.ranking, dict[tuple[int, int, int], tuple[float, float]]()
    for t in range(instance.types):
        ways = range(ranking.first[t], ranking.first[t + 1])
        for k in ways:
            node, model = int(ranking.node[k]), int(ranking.model[k])
            if not instance.free[node, model] or instance.sizes[node, model] > instance.free_budgets[node]:
                continue
            reached = sum(served[j] for j in ways if ranking.hop[j] >= ranking.hop[k])
            paid = list[tuple[float, float, int]]()
            for j in ways:
                beyond = ranking.hop[j] > ranking.hop[k] and loaded[ranking.node[j], ranking.model[j]]
                own = ranking.hop[j] == ranking.hop[k] and instance.pinned[ranking.node[j], ranking.model[j]]
                amount = min(reached - sum(a for a, _, _ in paid), slot.capacity[j])
                if (beyond or own) and amount > 0:
                    paid.append((amount, ranking.cost[j], j))
            dearer = [(amount, cost) for amount, cost, j in paid if j > k]
            found[t, node, model] = (
                sum(amount for amount, _ in dearer),
                sum(amount * (cost - ranking.cost[k]) for amount, cost in dearer),
            )
    return found


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_counters_are_those_of_the_definition(seed: int, shared_pins: bool) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, shared_pins=shared_pins)
    policy = OLAG(memory=0.0)
    state = policy.init(instance, Streams(0))
    for _ in range(3):
        loaded = policy.act(state)
        slot, served = contend(instance, rng.integers(0, 40, instance.types).astype(float), loaded)
        state = policy.update(state, Seen(slot, loaded, served))
        ranking = instance.ranking
        expected = counters(instance, slot, loaded, served)
        for k in range(len(ranking)):
            key = int(ranking.type[k]), int(ranking.node[k]), int(ranking.model[k])
            count, total = expected.get(key, (0.0, 0.0))
            assert state.count[k] == pytest.approx(count, abs=1e-9)
            assert state.total[k] == pytest.approx(total, abs=1e-6)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_picks_are_greedy_and_absorb(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng)
    policy = OLAG(memory=0.5)
    state = policy.init(instance, Streams(0))
    for _ in range(3):
        loaded = policy.act(state)
        slot, served = contend(instance, rng.integers(0, 40, instance.types).astype(float), loaded)
        state = policy.update(state, Seen(slot, loaded, served))
        assert np.array_equal(policy.act(state), picked(instance, state.count, state.total, state.capacity))
        require_feasible(instance, policy.act(state))


def picked(instance: Instance, count: np.ndarray, total: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """The selection with dictionaries."""
    ranking, loaded = instance.ranking, instance.pinned.copy()
    for v in range(instance.shape[0]):
        left = {k: float(count[k]) for k in range(len(ranking)) if ranking.node[k] == v and count[k] > 0}
        saved = {k: total[k] / count[k] for k in left}
        room = instance.free_budgets[v] * (1 + 1e-9)
        while True:
            worth = {
                m: sum(min(left[k], capacity[k]) * saved[k] for k in left if ranking.model[k] == m)
                / instance.sizes[v, m]
                for m in range(instance.shape[1])
                if instance.free[v, m] and not loaded[v, m] and instance.sizes[v, m] <= room
            }
            chosen = max(worth, key=lambda m: (worth[m], -m), default=None)
            if chosen is None or worth[chosen] <= 0:
                break
            loaded[v, chosen] = True
            room -= instance.sizes[v, chosen]
            for k in [k for k in left if ranking.model[k] == chosen]:
                absorbed = min(left[k], capacity[k])
                for other in left:
                    if ranking.type[other] == ranking.type[k]:
                        left[other] = max(left[other] - absorbed, 0.0)
    return loaded


def test_memory_outlasts_a_quiet_slot() -> None:
    instance = line(keep_oversize=False)
    quiet = np.zeros(6)
    for memory, stays in ((0.0, False), (0.5, True)):
        policy = OLAG(memory=memory)
        state = policy.init(instance, Streams(0))
        for requests in (np.array([60.0, 20, 30, 10, 15, 5]), quiet):
            loaded = policy.act(state)
            slot, served = contend(instance, requests, loaded)
            state = policy.update(state, Seen(slot, loaded, served))
        assert policy.act(state)[:3].any() == stays


def test_it_never_gains_more_than_the_bound_of_a_slot() -> None:
    slot = alone(line())
    assert settled(OLAG(), slot)[1] <= relaxed_optimum(slot.instance, [slot]).value + 1e-6


def test_a_memory_that_never_fades_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory is 1. Give a number in \[0, 1\)"):
        OLAG(memory=1.0)

"""Model caches: against plain caches request by request, and what the sheet saw on the golden network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference import model_caches
from rivage.inference.gain import Slot, contend
from rivage.inference.instance import Instance
from rivage.inference.model_caches import ModelCaches
from rivage.inference.policy import Seen
from rivage.inference.replay import require_feasible
from rivage.testing.strategies import delivery_network

from .conftest import line

RULES = ("lru", "lfu", "gds")


def mean_gain(policy: ModelCaches, slot: Slot, slots: int = 500) -> float:
    state, gains = policy.init(slot.instance, Streams(0)), list[float]()
    for _ in range(slots):
        loaded = policy.act(state)
        require_feasible(slot.instance, loaded)
        gains.append(slot.gain(loaded))
        state = policy.update(state, Seen(slot, loaded, slot.served(loaded)))
    return float(np.mean(gains))


def test_lru_on_the_golden_network(golden: Slot) -> None:
    """The sheet saw 1366 and 735; within 3 %, as the order of requests is drawn. INFIDA's 1755 is 15 % above both."""
    missed, first = (mean_gain(ModelCaches(fetch=fetch), golden) for fetch in ("missed", "first"))
    assert missed == pytest.approx(1366, rel=0.03)
    assert first == pytest.approx(735, rel=0.03)
    assert max(missed, first) * 1.15 <= 1755


def plain(instance: Instance, orders: list[np.ndarray], rule: str, fetch: str) -> np.ndarray:
    """Caches as dictionaries from model to priority, one request after the other."""
    nodes, models = instance.shape
    caches: list[dict[int, float]] = [{} for _ in range(nodes)]
    counts, level, clock = np.zeros((nodes, models)), [0.0] * nodes, 0
    for t in (int(t) for order in orders for t in order):
        clock += 1
        latency, path = instance.latency_ms[t], instance.paths[t][instance.paths[t] >= 0]

        def cost(j: int, m: int, latency: np.ndarray = latency, path: np.ndarray = path) -> float:
            return float(
                latency[j] + instance.delays_ms[path[j], m] + 100 * instance.alpha * (1 - instance.accuracy[m])
            )

        of_task = [m for m in range(models) if instance.task[m] == instance.asked[t]]
        cloud = min(cost(j, m) for j, v in enumerate(path) for m in of_task if instance.pinned[v, m])
        tried = 0
        for j, v in enumerate(path.tolist()):
            can = [m for m in of_task if instance.usable[v, m]]
            if not can:
                continue
            m = min(can, key=lambda m: (cost(j, m), m))
            if instance.pinned[v, m]:
                break
            # What the ranking leaves out because the cloud is cheaper is never asked for.
            if cost(j, m) > cloud:
                continue
            counts[v, m] += 1
            tried += 1
            hit = m in caches[v]
            if not hit and (fetch == "missed" or tried == 1):
                while instance.free_budgets[v] - sum(instance.sizes[v, o] for o in caches[v]) < instance.sizes[v, m]:
                    worst = min(caches[v], key=lambda o: (caches[v][o], o))
                    level[v] = caches[v].pop(worst)
                caches[v][m] = 0.0
            if m in caches[v]:
                saving = (cloud - cost(j, m)) / instance.sizes[v, m]
                caches[v][m] = {"lru": clock, "lfu": counts[v, m], "gds": level[v] + counts[v, m] * saving}[rule]
            if hit:
                break
    loaded = instance.pinned.copy()
    for v, cache in enumerate(caches):
        loaded[v, list(cache)] = True
    return loaded


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(RULES), st.sampled_from(["missed", "first"]))
def test_caches_do_what_plain_ones_do(seed: int, rule: Any, fetch: Any) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=4, tasks=6, variants=2, types=12)
    policy, orders = ModelCaches(rule=rule, fetch=fetch), list[np.ndarray]()
    state, again = policy.init(instance, Streams(seed)), Streams(seed).numpy("order")
    for _ in range(4):
        requests = rng.integers(0, 6, instance.types).astype(float)
        orders.append(model_caches._order(requests, again))
        loaded = policy.act(state)
        contended = contend(instance, requests, loaded)
        state = policy.update(state, Seen(contended.slot, loaded, contended.served))
        assert np.array_equal(policy.act(state), plain(instance, orders, rule, fetch))
        require_feasible(instance, policy.act(state))


def test_many_requests_walk_together_and_keep_their_shares() -> None:
    """10⁹ requests in 10,000 walks: each type has its share of them, up to one."""
    requests = np.array([6e8, 3e8, 1e8, 0.0, 1.0])
    order = model_caches._order(requests / (requests.sum() / 10_000), np.random.default_rng(0))
    assert np.bincount(order, minlength=5).tolist() == pytest.approx([6000, 3000, 1000, 0, 0], abs=1)


def test_models_that_no_node_can_hold_are_never_fetched() -> None:
    """Node 0 holds 1, quality 1 would be the cheapest there and has size 2: quality 0 is fetched."""
    instance = line(budgets=(1.0, 4.0, 5.0))
    policy = ModelCaches()
    state = policy.init(instance, Streams(0))
    for _ in range(5):
        loaded = policy.act(state)
        contended = contend(instance, np.full(6, 9.0), loaded)
        state = policy.update(state, Seen(contended.slot, loaded, contended.served))
    require_feasible(instance, policy.act(state))
    assert policy.act(state)[0, [0, 3, 6]].sum() == 1


@pytest.mark.parametrize("settings_", [{"rule": "fifo"}, {"fetch": "all"}, {"most": 0}])
def test_settings_out_of_range_are_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ModelCaches(**settings_)


def test_old_favourites_age_under_greedy_dual_size() -> None:
    """Two of three fit. A is asked five times, then B and C in turn: H is A 5, B 1, C 1 + 1, B 2 + 2, C 4 + 2."""
    instance = Instance(
        task=np.arange(3),
        accuracy=np.ones(3),
        sizes=np.ones((2, 3)),
        delays_ms=np.ones((2, 3)),
        throughput=np.full((2, 3), np.inf),
        budgets=np.array([2.0, 3.0]),
        pinned=np.array([[False] * 3, [True] * 3]),
        asked=np.arange(3),
        paths=np.tile([0, 1], (3, 1)),
        latency_ms=np.tile([0.0, 1.0], (3, 1)),
    )
    a, b, c = np.eye(3)
    expected = [{0}, {0, 1}, {0, 2}, {0, 1}, {0, 2}, {1, 2}]
    for rule, last in (("gds", {1, 2}), ("lfu", {0, 1})):
        policy = ModelCaches(rule=rule)
        state, held = policy.init(instance, Streams(0)), list[set[int]]()
        for requests in (5 * a, b, c, b, c, b):
            loaded = policy.act(state)
            slot, served = contend(instance, requests, loaded)
            state = policy.update(state, Seen(slot, loaded, served))
            held.append(set(np.flatnonzero(policy.act(state)[0]).tolist()))
        assert held == [*expected[:5], last]

"""LRU, FIFO, LFU, RR, PGA and GRD against plain versions of themselves, message by message."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.projections import onto_capped
from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.graphs import erdos_renyi
from rivage.online.cache_network_setups import published_setup
from rivage.online.cache_networks import CacheNetwork, play_network
from rivage.online.network_baselines import GRD, PGA, project
from rivage.online.network_optimum import relaxation, relaxed_optimum
from rivage.online.path_replication import PathReplication


def instance_of(seed: int) -> tuple[CacheNetwork, np.ndarray]:
    rng = np.random.default_rng(seed)
    network = erdos_renyi(7, 0.4, rng).with_random_weights(1, 10, rng)
    instance = CacheNetwork.routed(
        network,
        items=5,
        capacities=rng.integers(0, 3, 7),
        servers=rng.integers(7, size=5),
        origins=rng.choice(7, 2, replace=False),
    )
    return instance, rng.integers(len(instance.item), size=120)


def plain_replication(instance: CacheNetwork, requests: np.ndarray, kind: str) -> tuple[float, int]:
    """LRU, FIFO and LFU with lists of [priority, age, item]."""
    caches: list[list[list[float]]] = [[] for _ in range(instance.network.nodes)]
    gain, moves, age = 0.0, 0, 0
    for now, d in enumerate(requests):
        item, route = instance.item[d], instance.paths[d][: instance.hops[d]].tolist()
        hit = next((k for k, v in enumerate(route) if any(e[2] == item for e in caches[v])), len(route))
        if hit < len(route):
            gain += instance.savings[d, hit]
            entry = next(e for e in caches[route[hit]] if e[2] == item)
            entry[0] = {"lru": now, "fifo": entry[0], "lfu": entry[0] + 1}[kind]
        for node in route[:hit][::-1]:
            age += 1
            new = [1 if kind == "lfu" else now, age, item]
            full = len(caches[node]) == instance.capacities[node]
            caches[node].append(new)
            if full:
                caches[node].remove(min(caches[node]))
            moves += new in caches[node]
    return gain, moves


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(["lru", "fifo", "lfu"]))
def test_copies_everywhere(seed: int, kind: Any) -> None:
    instance, requests = instance_of(seed)
    last = play_network(PathReplication(rule=kind), instance, requests, streams=Streams(0)).last
    gain, moves = plain_replication(instance, requests, kind)
    assert last["gain"] == pytest.approx(gain)
    assert last["moves"] == moves


def plain_grd(instance: CacheNetwork, requests: np.ndarray, beta: float, per_time: float) -> tuple[float, int]:
    averages: list[dict[int, float]] = [{} for _ in range(instance.network.nodes)]
    last = [0.0] * instance.network.nodes
    gain, control = 0.0, 0

    def holds(node: int, item: int) -> bool:
        ranked = sorted(averages[node], key=lambda i: (averages[node][i], i), reverse=True)
        return item in ranked[: instance.capacities[node]]

    def add(node: int, item: int, saving: float, now: float) -> None:
        fade = math.exp(-beta * (now - last[node]))
        averages[node] = {i: value * fade for i, value in averages[node].items()}
        averages[node][item] = averages[node].get(item, 0.0) + beta * saving
        last[node] = now

    for number, d in enumerate(requests, 1):
        item, route = int(instance.item[d]), instance.paths[d][: instance.hops[d]].tolist()
        holders = [k for k, v in enumerate(route) if holds(v, item)] + [len(route)]
        hit, savings = holders[0], instance.savings[d]
        gain += savings[hit]
        if hit < len(route):
            control += 2 * (holders[1] - hit)
            add(route[hit], item, savings[hit] - savings[holders[1]], number / per_time)
        for k in range(hit):
            add(route[k], item, savings[k] - savings[hit], number / per_time)
    return gain, control


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.5]), st.sampled_from([1.0, 4.0]))
def test_greedy_path_replication(seed: int, beta: float, per_time: float) -> None:
    instance, requests = instance_of(seed)
    last = play_network(GRD(forgetting=beta, per_time=per_time), instance, requests, streams=Streams(0)).last
    assert (last["gain"], last["control"]) == pytest.approx(plain_grd(instance, requests, beta, per_time))


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8), st.integers(1, 7))
def test_the_projection_is_onto_the_capped_simplex_or_below(values: list[float], most: int) -> None:
    y = np.array(values)
    x = project(y, min(most, len(y)))
    inside = np.clip(y, 0, 1)
    expected = inside if inside.sum() <= most else onto_capped(y, float(most))
    assert x == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [2, 3, 7])
def test_gradients_are_those_of_the_relaxation(seed: int) -> None:
    """One update from inside: y moves along ∂L/∂y, by finite differences; the fourth one by half as much."""
    instance, requests = instance_of(seed)
    policy = PGA(gain=1e-4, every=len(requests), per_time=len(requests))
    state = policy.init(instance, Streams(0))
    rng = np.random.default_rng(0)
    start = rng.random(state.tables.level.shape) * 0.2 * (instance.capacities > 0)[:, None]
    state.tables.level[:] = start
    policy.run_block(state, requests)
    counts = instance.counts(requests)
    for node in np.flatnonzero(instance.capacities):
        numeric = np.zeros(5)
        for item in range(5):
            up = start.copy()
            up[node, item] += 1e-6
            numeric[item] = (relaxation(instance, counts, up) - relaxation(instance, counts, start)) / 1e-6
        norm = np.linalg.norm(numeric)
        scaled = numeric / (norm if norm > 100 * instance.capacities[node] else 1.0)
        assert (state.tables.level - start)[node] / 1e-4 == pytest.approx(scaled, rel=1e-4, abs=1e-4)
    first = state.tables.level - start
    assert np.count_nonzero(first) > 9, "otherwise this shows nothing"
    for _ in range(3):
        state.tables.level[:] = start
        policy.run_block(state, requests)
    assert state.tables.level - start == pytest.approx(first / 2, abs=1e-12)


def test_gradient_ascent_reaches_the_optimum_of_the_relaxation_when_demand_is_fixed() -> None:
    setup = published_setup("geant", "zipf", Streams(0))
    requests = np.tile(setup.requests, 5)
    policy = PGA(gain=1.0, every=500, per_time=20)
    played = play_network(policy, setup.instance, requests, streams=Streams(0), every=len(requests) // 2)
    later = played.points[-1]["gain"] - played.points[0]["gain"]
    counts = setup.instance.counts(requests[len(requests) // 2 :])
    best = relaxed_optimum(setup.instance, counts).value
    assert 0.85 * best < later <= 1.02 * best
    level = played.state.tables.level
    assert (level >= 0).all()
    assert (level <= 1).all()
    assert (level.sum(axis=1) <= setup.instance.capacities + 1e-9).all()


def test_caches_are_drawn_from_fractions() -> None:
    """E x = y by systematic sampling; within four standard errors (false alarm 6e-5 each)."""
    instance, requests = instance_of(4)
    policy = PGA(gain=0.5, every=30, per_time=1.0)
    draws = 3000
    held, levels = np.zeros((7, 5)), None
    for seed in range(draws):
        state = policy.init(instance, Streams(seed))
        policy.run_block(state, requests[:30])
        held += state.tables.held
        levels = state.tables.level
    assert levels is not None
    error = np.sqrt(np.maximum(levels * (1 - levels), 1e-12) / draws)
    assert (np.abs(held / draws - levels) <= 4 * error + 1e-9).all()
    assert ((levels > 0.05) & (levels < 0.95)).any()


@pytest.mark.parametrize("kind", ["lru", "lfu", "fifo"])
@pytest.mark.parametrize("demand", ["oscillator", "changing_oscillator", "shot_oscillator"])
@pytest.mark.parametrize("network", ["path", "abilene"])
def test_adversaries_leave_deterministic_copies_nothing(network: str, demand: Any, kind: Any) -> None:
    """B1, and the published zeros."""
    setup = published_setup(network, demand, Streams(0))
    assert (
        play_network(PathReplication(rule=kind), setup.instance, setup.requests, streams=Streams(0)).last["gain"] == 0
    )


def test_random_priorities_are_not_so_helpless() -> None:
    setup = published_setup("path", "oscillator", Streams(0))
    gains = [
        2 * play_network(PathReplication(rule="rr"), setup.instance, setup.requests, streams=Streams(s)).last["gain"]
        for s in range(5)
    ]
    assert np.mean(gains) / 2000 == pytest.approx(13.8, abs=1.0)


def test_greedy_replication_collapses_under_the_adversary_and_shines_under_zipf() -> None:
    adverse, kind = published_setup("path", "oscillator", Streams(0)), published_setup("geant", "zipf", Streams(0))
    grd = GRD(forgetting=0.05, per_time=adverse.per_time)
    assert play_network(grd, adverse.instance, adverse.requests, streams=Streams(0)).last["gain"] == 0
    gains = {
        name: play_network(policy, kind.instance, kind.requests, streams=Streams(0)).last["gain"]
        for name, policy in (("grd", GRD(per_time=kind.per_time)), ("lru", PathReplication()))
    }
    best = relaxed_optimum(kind.instance, kind.instance.counts(kind.requests)).value
    assert gains["grd"] > 1.3 * gains["lru"]
    assert gains["grd"] > 0.85 * best


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (PGA, {"gain": 0.0}, "gain is 0"),
        (PGA, {"every": 0}, "every is 0"),
        (PGA, {"per_time": 0.0}, "per_time is 0"),
        (GRD, {"forgetting": -1.0}, "forgetting is -1"),
        (GRD, {"per_time": 0.0}, "per_time is 0"),
        (PathReplication, {"rule": "mru"}, 'rule is "mru"'),
    ],
)
def test_settings_out_of_range_are_refused(policy: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy(**settings)


def test_unknown_setups_are_told() -> None:
    with pytest.raises(ConfigError, match=r'no setup "abilen". Did you mean "abilene"\?'):
        published_setup("abilen", "zipf", Streams(0))

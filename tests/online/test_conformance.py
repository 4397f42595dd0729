"""What every registered policy keeps to, on one trace."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pytest

from rivage.core.seeding import Streams
from rivage.online.game import Played, play
from rivage.online.policy import CacheInstance, Policy
from rivage.online.registry import POLICIES

KINDS = sorted(POLICIES)
SETTINGS: dict[str, dict[str, Any]] = {"window_lfu": {"window": 500}}
SOFT = {"ogb", "adaptive", "mirror_descent"}  # the number of cached items is right in expectation only


def policy_of(kind: str) -> Any:
    return POLICIES.get(kind)(**SETTINGS.get(kind, {}))


def zipf(count: int = 4000, items: int = 150) -> np.ndarray:
    random = np.random.default_rng(0)
    popularity = 1 / np.arange(1, items + 1) ** 0.9
    return random.choice(items, count, p=popularity / popularity.sum())


def played(kind: str, seed: int = 0, every: int = 700, weights: np.ndarray | None = None) -> Played:
    instance = CacheInstance(items=150, capacity=15, horizon=4000, weights=weights)
    return play(policy_of(kind), instance, [zipf()], streams=Streams(seed), every=every)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_frozen_dataclass_and_a_policy(kind: str) -> None:
    policy = policy_of(kind)
    assert isinstance(policy, Policy)
    assert is_dataclass(policy)
    assert policy == policy_of(kind)
    assert policy.reference
    assert type(policy).__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_points_wherever_blocks_end(kind: str) -> None:
    one, again, finer = played(kind), played(kind), played(kind, every=1)
    assert one.points == again.points
    for point in one.points:
        other = finer.points[point["requests"] - 1]
        for name in ("hits", "inserted", "occupancy"):
            assert point[name] == other[name]
        assert point["fractional"] == pytest.approx(other["fractional"])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_accounts_add_up(kind: str, weighted: bool) -> None:
    weights = np.random.default_rng(1).random(150) if weighted else None
    last = played(kind, weights=weights).last
    requests = zipf()
    assert last["requests"] == len(requests)
    assert last["asked"] == pytest.approx(len(requests) if weights is None else weights[requests].sum())
    assert 0 < last["hits"] < len(requests)
    assert 0 < last["gain"] < last["asked"]
    assert kind in SOFT or last["occupancy"] <= 15
    assert last["inserted"] >= last["occupancy"]
    assert last["bound"] is None or last["regret"] <= last["bound"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_of_costs_changes_nothing(kind: str) -> None:
    """Not even at the ends of what `rivage.data.replays` lets in: 1e-150 to 1e150 for all requests together."""
    weights = np.random.default_rng(1).random(150)
    for scale in (1e-152, 1e146):
        last, scaled = played(kind, weights=weights).last, played(kind, weights=scale * weights).last
        for name in ("gain", "fractional", "asked", "bound"):
            assert (scaled[name] is None) == (last[name] is None)
            assert last[name] is None or scaled[name] / scale == pytest.approx(last[name], rel=1e-6)


def test_nobody_without_foresight_beats_who_may_do_anything() -> None:
    bound = played("belady").last["hits"]
    for kind in set(KINDS) - SOFT - {"belady", "static", "ftpl"}:
        assert played(kind).last["hits"] <= bound
    static = played("static").last
    assert static["regret"] == 0
    assert static["gain"] == static["optimum"]

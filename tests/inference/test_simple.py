"""Anchors: what each loads on the golden network, and what counting does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.gain import contend
from rivage.inference.policy import Seen
from rivage.inference.replay import deliver
from rivage.inference.simple import Anchor

from .conftest import REQUESTS, line


def held(rule: Any, batches: list[np.ndarray], alpha: float = 1.0, **settings: Any) -> list[list[int]]:
    """Models on nodes 0, 1 and 2 after some slots."""
    policy = Anchor(rule=rule, **settings)
    loaded = deliver(policy, line(alpha, keep_oversize=False), [*batches, REQUESTS], streams=Streams(0)).loaded
    return [np.flatnonzero(row).tolist() for row in loaded[:3]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all_cloud", [[], [], []]),
        # α = 1: quality 1 answers cheapest on nodes 0 to 2 and has size 2; tasks 0, 1, 2 are asked 80, 40, 20 times.
        # Node 2 is where nobody enters.
        ("all_device", [[1], [1, 4], []]),
        # The node after the entry: 1 for who enters at 0, 2 for who enters at 1; two of size 2 and one of size 1 fit.
        ("nearest_edge", [[], [1, 4], [1, 4, 6]]),
        # Size 4 does not fit on node 0; on node 2 one of size 1 remains.
        ("best_accuracy", [[1], [2], [0, 2]]),
        ("smallest", [[0, 3], [0, 3, 6], [0, 3, 6, 1]]),
    ],
)
def test_golden_sets(rule: Any, expected: list[list[int]]) -> None:
    assert held(rule, [REQUESTS]) == [sorted(each) for each in expected]


def test_popularity_is_what_has_passed_where_it_counts() -> None:
    """Task 2 becomes the most popular at node 0 only when its requests outnumber all that came before."""
    late = np.array([0.0, 0, 0, 0, 40, 0])
    assert held("all_device", [REQUESTS, late])[0] == [1]
    assert held("all_device", [REQUESTS, late, late])[0] == [7]
    assert held("all_device", [np.zeros(6)])[0] == [1], "no requests: by number"


def test_only_tasks_that_pass_are_considered() -> None:
    """A fifth node that no path crosses stays empty."""
    instance = line(keep_oversize=False)
    apart = replace(
        instance,
        sizes=np.vstack([instance.sizes, np.ones(9)]),
        delays_ms=np.vstack([instance.delays_ms, np.ones(9)]),
        throughput=np.vstack([instance.throughput, np.ones(9)]),
        budgets=np.append(instance.budgets, 9.0),
        pinned=np.vstack([instance.pinned, np.zeros(9, bool)]),
    )
    for rule in ("random", "smallest", "best_accuracy"):
        loaded = deliver(Anchor(rule=rule), apart, [REQUESTS] * 2, streams=Streams(1)).loaded
        assert loaded[:4].any(axis=1).all()
        assert not loaded[4].any()
    only_first = [np.array([1.0, 0, 0, 0, 0, 0])] * 2
    assert held("smallest", only_first)[0] == [0, 3], "types count, not whether they come"


def test_random_orders_come_from_the_seed_and_are_drawn_anew_when_due() -> None:
    instance = line(keep_oversize=False)

    def sets(seed: int, every: int | None) -> list[bytes]:
        policy, found = Anchor(rule="random", every=every), list[bytes]()
        state = policy.init(instance, Streams(seed))
        for _ in range(4):
            found.append(policy.act(state).tobytes())
            slot, served = contend(instance, REQUESTS, policy.act(state))
            state = policy.update(state, Seen(slot, policy.act(state), served))
        return found

    assert sets(0, None) == [sets(0, None)[0]] * 4
    assert sets(0, 2) == sets(0, 2)
    assert sets(0, 2)[0] == sets(0, 2)[1] != sets(0, 2)[2]
    assert sets(0, None) != sets(1, None)


def test_nothing_is_gained_from_the_cloud_alone() -> None:
    assert deliver(Anchor(), line(), [REQUESTS] * 3, streams=Streams(0)).last["gain"] == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "all_edge"}, 'rule is "all_edge"'),
        ({"rule": "random", "every": 0}, "every is 0"),
        ({"rule": "smallest", "every": 3}, "smallest draws nothing"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Anchor(**settings)

"""The loop of delivery and its meters, by hand on the golden network; what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.inference.infida import INFIDA
from rivage.inference.instance import Instance
from rivage.inference.replay import Delivered, deliver, require_feasible
from rivage.inference.simple import Anchor
from rivage.testing.strategies import delivery_network

from .conftest import REQUESTS, line

GOOD = line(keep_oversize=False)


@dataclass(frozen=True)
class Scripted:
    """Loads what it is told to, slot by slot."""

    loads: tuple[dict[int, tuple[int, ...]], ...]
    reference: ClassVar[None] = None

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> Any:
        return [instance, 0]

    def act(self, state: Any) -> np.ndarray:
        instance, clock = state
        x: np.ndarray = instance.pinned.copy()
        for node, models in self.loads[clock].items():
            x[node, list(models)] = True
        return x

    def update(self, state: Any, seen: Any) -> Any:
        return [state[0], state[1] + 1]


def played(
    loads: list[dict[int, tuple[int, ...]]], batches: list[np.ndarray], instance: Instance = GOOD, **more: Any
) -> Delivered:
    return deliver(Scripted(tuple(loads)), instance, batches, streams=Streams(0), **more)


def test_one_slot_by_hand() -> None:
    """Node 0 holds model 0 of task 0, 30 per slot; the rest goes to node 3, 27 or 21 ms away.

    There the three models of a task cost 2 + 60, 6 + 42 and 24 + 34 beyond the way: the second takes all.
    """
    only = np.array([60.0, 20, 0, 0, 0, 0])
    end = played([{0: (0,)}], [only]).last
    base = 60 * (27 + 48) + 20 * (21 + 48)
    saved = 30 * (75 - 68)
    assert (end["base"], end["cost"], end["gain"]) == (base, base - saved, saved)
    assert end["ntag"] == pytest.approx(saved / 80)
    assert end["requests"] == 80
    assert end["latency_ms"] == pytest.approx((30 * 8 + 30 * 33 + 20 * 27) / 80)
    assert end["latency_quantiles_ms"] == [27, 33, 33], "30 at 8 ms, 20 at 27, 30 at 33"
    assert end["accuracy"] == pytest.approx((30 * 0.40 + 50 * 0.58) / 80)
    assert end["in_time"] == 1.0
    assert end["by_node"] == [30, 0, 0, 50]
    assert (end["moved"], end["loads"]) == (1.0, 1)
    assert (end["regret"], end["bound"]) == (None, None)


def test_types_share_what_a_model_can_do_in_their_order() -> None:
    """Node 1 serves 60 of task 0: type 0 asks for 60 first, type 1 finds nothing left."""
    end = played([{1: (0,)}], [np.array([60.0, 20, 0, 0, 0, 0])]).last
    assert end["by_node"] == [0, 60, 0, 20]
    end = played([{1: (0,)}], [np.array([50.0, 20, 0, 0, 0, 0])]).last
    assert end["by_node"] == [0, 60, 0, 10]


def test_model_updates_count_what_was_not_there_a_slot_before() -> None:
    loads: list[dict[int, tuple[int, ...]]] = [{1: (0, 1)}, {1: (0, 4)}, {}, {1: (0, 1)}, {1: (0, 1)}]
    found = played(loads, [REQUESTS] * 5)
    assert [point["moved"] for point in found.points] == [3, 5, 5, 8, 8]
    assert [point["loads"] for point in found.points] == [2, 3, 3, 5, 5]


def test_normalised_gain_is_a_mean_of_slots_and_quiet_ones_count() -> None:
    few, many = np.array([1.0, 0, 0, 0, 0, 0]), np.array([60.0, 0, 0, 0, 0, 0])
    found = played([{0: (0,)}] * 3, [few, many, np.zeros(6)])
    assert [point["ntag"] for point in found.points] == pytest.approx([7.0, (7 + 3.5) / 2, (7 + 3.5) / 3])
    assert found.last["gain"] == pytest.approx(7 + 210)


def test_a_first_slot_without_requests_has_no_means() -> None:
    first, last = played([{}] * 2, [np.zeros(6), REQUESTS]).points
    assert (first["latency_ms"], first["accuracy"], first["in_time"]) == (None, None, None)
    assert first["latency_quantiles_ms"] == [None] * 3
    assert (first["ntag"], first["requests"]) == (0.0, 0.0)
    assert last["requests"] == 140


def test_deadlines_are_met_up_to_and_with_their_instant() -> None:
    timed = replace(GOOD, deadline_ms=np.array([8.0, 26.9, np.inf, np.inf, np.inf, np.inf]), late_cost=5.0)
    end = played([{0: (0,)}], [np.array([60.0, 20, 0, 0, 0, 0])], timed).last
    assert end["in_time"] == pytest.approx(30 / 80)
    assert end["base"] == pytest.approx(60 * (75 + 5) + 20 * (69 + 5)), "later than others, and still cheapest"


def test_points_are_where_they_should_be_and_add_up() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 60, 6).astype(float) for _ in range(7)]
    loads: list[dict[int, tuple[int, ...]]] = [{0: (0,), 2: (1, 4)}] * 7
    every, third = played(loads, batches), played(loads, batches, every=3)
    assert [point["slots"] for point in third.points] == [3, 6, 7]
    assert third.points == tuple(every.points[place] for place in (2, 5, 6))
    told: list[dict[str, Any]] = []
    played(loads, batches, every=3, observe=told.append)
    assert tuple(told) == third.points
    kept = played(loads, batches, keep=True).slots
    assert [slot.requests.tolist() for slot in kept] == [batch.tolist() for batch in batches]
    assert sum(slot.gain(every.loaded) for slot in kept) == pytest.approx(every.last["gain"])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_quantiles_are_those_of_the_requests_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng)
    requests = rng.integers(0, 30, 4).astype(float)
    requests[0] += 1
    instance = replace(instance, throughput=np.ceil(instance.throughput))
    found = deliver(Anchor(rule="smallest"), instance, [requests], streams=Streams(0), keep=True)
    served = found.slots[0].served(found.loaded)
    single = np.sort(np.repeat(instance.ranking.latency_ms, np.round(served).astype(int)))
    expected = [single[int(np.ceil(share * len(single) - 1e-6)) - 1] for share in (0.5, 0.95, 0.99)]
    assert found.last["latency_quantiles_ms"] == pytest.approx(expected)
    assert found.last["latency_ms"] == pytest.approx(single.mean())


def test_fractions_are_metered_beside_what_is_loaded() -> None:
    found = deliver(INFIDA(), GOOD, [REQUESTS] * 20, streams=Streams(0), keep=True)
    end = found.last
    assert end["fractional"] > 0
    assert end["fractional"] != pytest.approx(end["gain"])
    assert end["bound"] is None or end["regret"] <= end["bound"]
    again = deliver(INFIDA(), GOOD, [REQUESTS] * 20, streams=Streams(0))
    assert again.points == found.points, "the same seed, the same run"


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no slot"):
        played([], [])
    with pytest.raises(ConfigError, match="every is 0"):
        played([{}], [REQUESTS], every=0)
    with pytest.raises(ConfigError, match=r"models of size 3 on node 0, budget 2\. Round strictly\."):
        played([{0: (0, 1)}], [REQUESTS])
    with pytest.raises(ConfigError, match="an unusable model is loaded"):
        played([{0: (2,)}], [REQUESTS])
    with pytest.raises(ConfigError, match="a pinned one is not"):
        require_feasible(GOOD, np.zeros(GOOD.shape, bool))
    with pytest.raises(DataError, match="negative or not finite"):
        played([{}], [-REQUESTS])

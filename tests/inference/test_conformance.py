"""What every registered delivery policy keeps to, on random networks."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from rivage.core.seeding import Streams
from rivage.core.settings import dump, read
from rivage.inference.gain import contend
from rivage.inference.instance import Instance
from rivage.inference.policy import DELIVERY_POLICIES, DeliveryPolicy, Seen
from rivage.inference.pooled import pooled_optimum
from rivage.inference.replay import deliver, require_feasible
from rivage.testing.strategies import delivery_network

from .conftest import line

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "anchor": [
        {"rule": rule} for rule in ("all_cloud", "all_device", "nearest_edge", "best_accuracy", "smallest", "random")
    ]
    + [{"rule": "random", "every": 2}],
    "infida": [{}, {"refresh": 3, "keep_draws": False}, {"rounding": "reserve"}],
    "model_caches": [{"rule": rule, "fetch": fetch} for rule in ("lru", "lfu", "gds") for fetch in ("missed", "first")],
    "olag": [{"memory": 0.0}, {}],
    "rolling_plan": [{"program": program, "period": 3} for program in ("mean", "slots", "pooled")] + [{"greedy": True}],
    "static_greedy": [{"rule": rule} for rule in ("better", "plain", "per_size")],
}
CASES = [(kind, settings) for kind in DELIVERY_POLICIES for settings in VARIANTS.get(kind, [{}])]


def name(case: Any) -> str:
    return case if isinstance(case, str) else "-".join(map(str, case.values())) or "plain"


every_policy = pytest.mark.parametrize(("kind", "settings"), CASES, ids=name)


def scene(seed: int = 0, shared_pins: bool = False) -> tuple[Instance, list[np.ndarray]]:
    """A tree with a slot in which nobody asks."""
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=6, tasks=3, variants=3, types=9, shared_pins=shared_pins)
    batches = [rng.integers(0, 50, instance.types).astype(float) for _ in range(8)]
    batches[3] = np.zeros(instance.types)
    return instance, batches


@cache
def least_cost(shared_pins: bool) -> float:
    """No placement and no routing of any slot costs less."""
    instance, batches = scene(shared_pins=shared_pins)
    return sum(pooled_optimum(instance, requests).cost for requests in batches if requests.any())


@every_policy
def test_it_is_a_frozen_dataclass_and_a_policy(kind: str, settings: dict[str, Any]) -> None:
    policy = DELIVERY_POLICIES.get(kind)(**settings)
    assert isinstance(policy, DeliveryPolicy)
    assert is_dataclass(policy)
    assert policy == DELIVERY_POLICIES.get(kind)(**settings)
    assert policy.reference
    assert type(policy).__doc__
    first = fields(policy)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(policy, first, getattr(policy, first))


@every_policy
def test_settings_come_back_from_a_study_file(kind: str, settings: dict[str, Any]) -> None:
    policy = DELIVERY_POLICIES.get(kind)(**settings)
    assert read(type(policy), dump(policy)) == policy


@every_policy
@pytest.mark.parametrize("shared_pins", [False, True])
def test_every_slot_is_feasible_and_the_seed_decides(kind: str, settings: dict[str, Any], shared_pins: bool) -> None:
    """`deliver` refuses what no node could hold, slot by slot."""
    policy, (instance, batches) = DELIVERY_POLICIES.get(kind)(**settings), scene(shared_pins=shared_pins)
    one, again = (deliver(policy, instance, batches, streams=Streams(5)) for _ in range(2))
    assert one.points == again.points
    assert np.array_equal(one.loaded, again.loaded)
    assert least_cost(shared_pins) <= one.last["cost"] * (1 + 1e-9)
    assert one.last["cost"] <= one.last["base"] * (1 + 1e-9), "loading more never costs"


@every_policy
def test_to_look_changes_nothing_and_what_was_shown_stays(kind: str, settings: dict[str, Any]) -> None:
    policy, (instance, batches) = DELIVERY_POLICIES.get(kind)(**settings), scene(1)
    looking, blind = (policy.init(instance, Streams(2), slots=len(batches)) for _ in range(2))
    if hasattr(policy, "foresee"):
        for state in (looking, blind):
            policy.foresee(state, batches)
    shown = list[tuple[np.ndarray, np.ndarray]]()
    for requests in batches:
        loaded = policy.act(looking)
        for _ in range(3):
            assert np.array_equal(policy.act(looking), loaded)
        shown.append((loaded, loaded.copy()))
        slot, served = contend(instance, requests, loaded)
        kept = slot.requests.copy(), slot.capacity.copy(), served.copy()
        looking = policy.update(looking, Seen(slot, loaded, served))
        blind = policy.update(blind, Seen(slot, loaded, served))
        for before, after in zip(kept, (slot.requests, slot.capacity, served), strict=True):
            assert np.array_equal(before, after)
    if kind != "oracle":  # which has no next slot
        assert np.array_equal(policy.act(looking), policy.act(blind))
    for loaded, as_shown in shown:
        assert np.array_equal(loaded, as_shown)


@every_policy
@pytest.mark.parametrize("budget", [0.0, 21.0, np.inf])
def test_without_memory_nothing_fits_and_with_enough_of_it_nothing_overflows(
    kind: str, settings: dict[str, Any], budget: float
) -> None:
    policy = DELIVERY_POLICIES.get(kind)(**settings)
    instance = line(budgets=(budget, budget, budget), keep_oversize=False)
    batches = [np.array([9.0, 4, 0, 0, 0, 1])] * 4
    played = deliver(policy, instance, batches, streams=Streams(0))
    require_feasible(instance, played.loaded)
    if budget == 0:
        assert np.array_equal(played.loaded, instance.pinned)
        assert played.last["gain"] == 0.0


@every_policy
def test_a_single_type_on_a_single_node(kind: str, settings: dict[str, Any]) -> None:
    """The request ends where it enters, and all is pinned there: nothing can be done."""
    rng = np.random.default_rng(0)
    tree = delivery_network(rng, nodes=2, tasks=1, variants=2, types=1)
    instance = Instance(
        task=tree.task,
        accuracy=tree.accuracy,
        sizes=tree.sizes,
        delays_ms=tree.delays_ms,
        throughput=tree.throughput,
        budgets=tree.budgets,
        pinned=tree.pinned,
        asked=tree.asked,
        paths=np.zeros((1, 1), np.int64),
        latency_ms=np.zeros((1, 1)),
    )
    policy = DELIVERY_POLICIES.get(kind)(**settings)
    assert deliver(policy, instance, [np.array([5.0])] * 3, streams=Streams(0)).last["gain"] == 0.0

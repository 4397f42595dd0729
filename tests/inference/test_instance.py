"""Instances: everything that is wrong is told at once, with a remedy each; what can answer, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError, ShapeError
from rivage.inference.gain import Slot, contend
from rivage.inference.instance import Instance
from rivage.testing.strategies import delivery_networks

from .conftest import REQUESTS, alone, line

GOOD = line(keep_oversize=False)


def changed(array: np.ndarray, at: Any, value: float) -> np.ndarray:
    other = array.copy()
    other[at] = value
    return other


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "accuracy in percent": (
        {"accuracy": changed(GOOD.accuracy, 1, 58.0)},
        "model 1 of task 0 has accuracy 58. Give a share in [0, 1]: 62.8 % is 0.628.",
    ),
    "no accuracy": (
        {"accuracy": changed(GOOD.accuracy, 1, np.nan)},
        "model 1 of task 0 has accuracy nan. Give a share in [0, 1]: 62.8 % is 0.628.",
    ),
    "negative size": (
        {"sizes": changed(GOOD.sizes, (0, 4), -2.0)},
        "model 4 of task 1 has size -2. Give sizes above 0; inf where it cannot run.",
    ),
    "no size": (
        {"sizes": changed(GOOD.sizes, (0, 4), np.nan)},
        "model 4 of task 1 has size nan. Give sizes above 0; inf where it cannot run.",
    ),
    "larger than every budget": (
        {"sizes": changed(GOOD.sizes, (slice(3), 8), 100.0), "pinned": changed(GOOD.pinned, (3, 8), False)}
        | {"budgets": np.array([2.0, 4, 5, 17])},
        "model 8 of task 2 needs 4, more than any node has left, 5 at most",
    ),
    "no hardware": (
        {"sizes": changed(GOOD.sizes, (slice(4), 8), np.inf), "pinned": changed(GOOD.pinned, (3, 8), False)},
        "model 8 of task 2 can run on no node. Leave it out, or give its size on some hardware that is there.",
    ),
    "pinned where it cannot run": (
        {"sizes": changed(GOOD.sizes, (3, 8), np.inf)},
        "node 3 has a pinned model that cannot run there. Pin it elsewhere, or give its size.",
    ),
    "negative delay": (
        {"delays_ms": changed(GOOD.delays_ms, (2, 0), -1.0)},
        "model 0 of task 0 has a delay that is negative or missing. Give one >= 0 wherever it can run.",
    ),
    "no throughput": (
        {"throughput": changed(GOOD.throughput, (2, 0), 0.0)},
        "model 0 of task 0 has a throughput that is not above 0. Give one wherever it can run.",
    ),
    "negative budget": ({"budgets": np.array([2.0, -4, 5, 21])}, "node 1 has budget -4. Give one >= 0."),
    "no budget": ({"budgets": np.array([2.0, np.nan, 5, 21])}, "node 1 has budget nan. Give one >= 0."),
    "too much is pinned": (
        {"budgets": np.array([2.0, 4, 5, 20])},
        "node 3 has pinned models of size 21, budget 20. Raise the budget: what is pinned counts in it.",
    ),
    "a path in a circle": (
        {"paths": changed(GOOD.paths, (2, 2), 0)},
        "the path of request type 2, [0, 1, 0, 3], is not simple. Let it visit each node once.",
    ),
    "a path with a hole": (
        {"paths": changed(GOOD.paths, (0, 1), -1)},
        "the path of request type 0, [0, -1, 2, 3], is no list of nodes. Nodes are 0 to 3, then −1.",
    ),
    "a path to nowhere": (
        {"paths": changed(GOOD.paths, (0, 1), 9)},
        "the path of request type 0, [0, 9, 2, 3], is no list of nodes. Nodes are 0 to 3, then −1.",
    ),
    "latency that falls": (
        {"latency_ms": changed(GOOD.latency_ms, (0, 2), 1.0)},
        "request type 0 has latencies [0.0, 6.0, 1.0, 27.0]. Give finite round trips from the first node that never",
    ),
    "no latency": (
        {"latency_ms": changed(GOOD.latency_ms, (0, 3), np.inf)},
        "request type 0 has latencies [0.0, 6.0, 12.0, inf]",
    ),
    "a path that ends too early": (
        {"paths": changed(GOOD.paths, (0, 3), -1)},
        "no node of 0 → 1 → 2 has a pinned model of task 0. Pin one, or let the path go on to where one is",
    ),
    "a deadline that is none": (
        {"deadline_ms": np.array([np.inf, -1, 0, 0, 0, 0])},
        "request type 1 has deadline -1. Give one >= 0, or inf.",
    ),
    "a task without a model": ({"asked": np.array([7, 0, 1, 1, 2, 2])}, "no node of 0 → 1 → 2 → 3 has a pinned model"),
}
SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "duplicate names": ({"models": tuple("aacdefghi")}, 'two models are called "a". Give each a name of its own.'),
    "too few names": ({"nodes": ("a", "b")}, "2 names for 4 nodes. Name each, or none."),
    "sizes of one node": ({"sizes": GOOD.sizes[:1]}, "sizes has shape (1, 9), not (4, 9). Give it that shape."),
    "deadlines of a type": ({"deadline_ms": np.ones(2)}, "deadline_ms has shape (2,), not (6,)"),
    "a negative task": ({"task": changed(GOOD.task, 0, -1)}, "a task is negative. Number tasks from 0 on."),
    "no request type": (
        {"asked": np.zeros(0, np.int64), "paths": np.zeros((0, 4), np.int64), "latency_ms": np.zeros((0, 4))},
        "4 nodes, 9 models, 0 request types. Give at least one of each.",
    ),
    "alpha": ({"alpha": -1.0}, "alpha is -1.0"),
    "late cost": ({"late_cost": np.nan}, "late_cost is nan"),
}


@pytest.mark.parametrize("name", [*FAULTS, *SHAPES])
def test_a_faulty_instance(name: str) -> None:
    more, text = (FAULTS | SHAPES)[name]
    with pytest.raises(ConfigError) as caught:
        replace(GOOD, **more)
    assert text in str(caught.value)
    assert "problems" not in str(caught.value), "nothing else is wrong"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    names = ("accuracy in percent", "negative size", "negative delay", "too much is pinned", "a path in a circle")
    with pytest.raises(ConfigError) as caught:
        replace(GOOD, **{key: value for name in names for key, value in FAULTS[name][0].items()})
    first, *lines = str(caught.value).splitlines()
    assert first == "inference delivery network: 5 problems"
    assert sorted(line.strip() for line in lines) == sorted(FAULTS[name][1] for name in names)


def test_of_very_many_problems_the_first_are_shown() -> None:
    count = 50
    paths = np.tile(np.array([0, 1, 0, 3]), (count, 1))
    with pytest.raises(ConfigError) as caught:
        replace(GOOD, asked=np.zeros(count, np.int64), paths=paths, latency_ms=np.tile(GOOD.latency_ms[0], (count, 1)))
    assert str(caught.value).count("is not simple") == 20
    assert str(caught.value).endswith("and 30 more problems. Mend these first.")


def test_a_repository_that_cannot_absorb_the_batch() -> None:
    """All types that it leaves standing are named."""
    slow = replace(GOOD, throughput=changed(GOOD.throughput, 3, 10.0))
    with pytest.raises(DataError) as caught:
        contend(slow, REQUESTS, slow.pinned)
    assert str(caught.value) == (
        "pinned models take only 30 of 60 requests of type 0, task 0; 0 of 20 requests of type 1, task 0; 0 of 10 "
        "requests of type 3, task 1. Raise the throughput of a pinned model on the path; inf takes all."
    )


@pytest.mark.parametrize("requests", [np.full(6, np.nan), np.full(6, -1.0), np.full(6, np.inf)])
def test_requests_that_are_no_counts(requests: np.ndarray) -> None:
    with pytest.raises(DataError, match="negative or not finite"):
        contend(GOOD, requests, GOOD.pinned)
    with pytest.raises(ShapeError, match="one number for each of 6 types"):
        contend(GOOD, requests[:2], GOOD.pinned)


def test_capacities_are_capped_and_not_negative() -> None:
    good = alone(GOOD)
    for wrong in (good.capacity * 1.01, -good.capacity, good.capacity * np.nan):
        with pytest.raises(DataError, match="negative or above the requests"):
            Slot(instance=GOOD, requests=REQUESTS, capacity=wrong)


def by_hand(instance: Instance, type_: int) -> list[tuple[float, int, int]]:
    """Cost, hop and model of everything usable on the path, in order, down to the first that takes all."""
    found = []
    for hop, node in enumerate(instance.paths[type_]):
        for model in range(len(instance.task)):
            if node >= 0 and instance.usable[node, model] and instance.task[model] == instance.asked[type_]:
                latency = instance.latency_ms[type_, hop] + instance.delays_ms[node, model]
                late = instance.deadline_ms is not None and latency > instance.deadline_ms[type_]
                cost = latency + 100 * instance.alpha * (1 - instance.accuracy[model]) + late * instance.late_cost
                found.append((cost, hop, model))
    found.sort()
    ends = [place for place, (_, hop, m) in enumerate(found) if instance.takes_all[instance.paths[type_, hop], m]]
    return found[: ends[0] + 1] if ends else found


@settings(max_examples=50)
@given(delivery_networks(shared_pins=True), st.booleans())
def test_the_ranking_is_what_one_writes_down_by_hand(instance: Instance, timed: bool) -> None:
    if timed:
        instance = replace(instance, deadline_ms=np.linspace(0.0, 60.0, instance.types), late_cost=7.0)
    ranking = instance.ranking
    assert ranking.first[-1] == len(ranking)
    for type_ in range(instance.types):
        at = slice(ranking.first[type_], ranking.first[type_ + 1])
        expected = by_hand(instance, type_)
        assert ranking.cost[at] == pytest.approx([cost for cost, _, _ in expected])
        assert ranking.hop[at].tolist() == [hop for _, hop, _ in expected]
        assert ranking.model[at].tolist() == [model for _, _, model in expected]
        assert ranking.node[at].tolist() == instance.paths[type_, ranking.hop[at]].tolist()
        assert (ranking.type[at] == type_).all()
    assert (ranking.place == ranking.node * len(instance.task) + ranking.model).all()


def test_ties_go_to_the_nearer_node_and_then_to_the_lower_number() -> None:
    level = replace(GOOD, delays_ms=np.zeros((4, 9)), latency_ms=np.zeros((6, 4)), accuracy=np.ones(9))
    at = slice(level.ranking.first[0], level.ranking.first[1])
    assert level.ranking.hop[at].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert level.ranking.model[at].tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 0], "size 4 does not fit into 2"


def test_oversize_models_are_dropped_unless_they_are_to_be_kept() -> None:
    assert not GOOD.usable[0, [2, 5, 8]].any()
    assert line().usable[0, [2, 5, 8]].all()
    assert GOOD.free.sum() == 6 + 9 + 9
    assert not GOOD.free[3].any()


def test_what_is_pinned_takes_room() -> None:
    pinned = GOOD.pinned.copy()
    pinned[1, 1] = True
    other = replace(GOOD, pinned=pinned)
    assert other.free_budgets.tolist() == [2, 2, 5, 0]
    assert not other.usable[1, 2], "size 4 does not fit beside what is pinned"
    assert other.usable[1, 1]

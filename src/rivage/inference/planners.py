"""Planners: one allocation for the mean requests of a network, found when they are known.

A planner is a frozen dataclass of settings with a method ``plan``. All are judged alike: requests of the mean slot are
served as in a replay, and the cost is held against `rivage.inference.pooled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.convex.rounding import dep_round
from rivage.core.errors import require
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.inference.filling import filled
from rivage.inference.gain import contend
from rivage.inference.greedy import Rule, StaticGreedy
from rivage.inference.instance import Instance
from rivage.inference.pooled import Pooled, pooled_exact

__all__ = ["PLANNERS", "Exactly", "Greedy", "Planner", "Relaxed", "fill", "plan_cost"]

Loaded = Bool[ndarray, "nodes models"]
Requests = Float64[ndarray, "types"]

PLANNERS = Registry(
    "rivage.planners",
    "planner",
    {
        "exact": "rivage.inference.planners:Exactly",
        "greedy": "rivage.inference.planners:Greedy",
        "relaxed": "rivage.inference.planners:Relaxed",
    },
)
"""Kind -> settings of a planner; plug-ins register theirs under the entry-point group of the same name."""


@runtime_checkable
class Planner(Protocol):
    """Decides once."""

    reference: ClassVar[Any]

    def plan(self, instance: Instance, requests: Requests, relaxation: Pooled, streams: Streams) -> Loaded:
        """An allocation for the requests of the mean slot, within all budgets.

        Args:
            instance: the network.
            requests: r, of each type.
            relaxation: the optimum in fractions.
            streams: randomness of the planner.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """Rounding the relaxation: the best of several draws, with what is left of the memory filled.

    Args:
        draws: >= 1.
    """

    reference: ClassVar[str] = "sisalem24"

    draws: int = 20

    def __post_init__(self) -> None:
        require(self.draws, "draws", least=1)

    def plan(self, instance: Instance, requests: Requests, relaxation: Pooled, streams: Streams) -> Loaded:
        """DepRound on every node; of what does not fit, the least fractions are left out."""
        generator = streams.numpy("rounding")
        drawn = (_rounded(instance, relaxation.fractions, generator) for _ in range(self.draws))
        tried = [fill(instance, relaxation.fractions, loaded) for loaded in drawn]
        return min(tried, key=lambda loaded: plan_cost(instance, requests, loaded))


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """One model after the other, each time the one that saves most: `rivage.inference.greedy` for the mean slot.

    Args:
        rule: what is compared: ``plain``, ``per_size``, or the ``better`` of both.
        passes: >= 1, how often it is estimated how types share what a model can do.
    """

    reference: ClassVar[str] = "sisalem24"

    rule: Rule = "better"
    passes: int = 2

    def __post_init__(self) -> None:
        StaticGreedy(rule=self.rule, passes=self.passes)

    def plan(self, instance: Instance, requests: Requests, relaxation: Pooled, streams: Streams) -> Loaded:
        """What the policy would play if all slots were the mean one."""
        policy = StaticGreedy(rule=self.rule, passes=self.passes)
        state = policy.init(instance, streams)
        policy.foresee(state, [requests])
        return policy.act(state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactly:
    """The best placement there is, by branch and bound, or the best that is found in time.

    Best with the best routing: where types contend for a model, serving in turn may cost more.

    Args:
        seconds: > 0, after which the best placement so far has to do.
    """

    reference: ClassVar[None] = None

    seconds: float = 60.0

    def __post_init__(self) -> None:
        require(self.seconds, "seconds", above=0.0)

    def plan(self, instance: Instance, requests: Requests, relaxation: Pooled, streams: Streams) -> Loaded:
        """Whole models instead of fractions."""
        found = pooled_exact(instance, requests, seconds=self.seconds)
        return fill(instance, relaxation.fractions, found.loaded)


def plan_cost(instance: Instance, requests: Requests, loaded: Loaded) -> float:
    """What a slot of these requests costs with an allocation. O(K)."""
    _, served = contend(instance, requests, loaded)
    return float(served @ instance.ranking.cost)


def fill(instance: Instance, worth: Float64[ndarray, "nodes models"], loaded: Loaded) -> Loaded:
    """What is loaded as far as it fits, and free models beside it where they do: those of most worth first.

    Smaller ones come first among equals. With more models no type is served dearer, since each finds as much room as
    before: what another one leaves free is at least what it takes instead. O(V M log M).
    """
    order = np.lexsort((instance.sizes, -worth, ~loaded), axis=-1)
    return filled(instance, order, instance.free)


def _rounded(instance: Instance, fractions: Float64[ndarray, "nodes models"], generator: np.random.Generator) -> Loaded:
    """A draw for every node; it may exceed the budget by one model."""
    loaded = instance.pinned.copy()
    for node in np.flatnonzero(((fractions > 0) & (fractions < 1) & instance.free).any(axis=1)):
        models = np.flatnonzero(instance.free[node])
        loaded[node, models] = dep_round(fractions[node, models], generator, instance.sizes[node, models]) > 0
    return loaded | (instance.free & (fractions >= 1))

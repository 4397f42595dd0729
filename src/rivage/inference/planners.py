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
from rivage.inference.gain import contend
from rivage.inference.instance import Instance
from rivage.inference.pooled import Pooled, pooled_exact

__all__ = ["PLANNERS", "Exactly", "Planner", "Relaxed", "fill", "plan_cost"]

Loaded = Bool[ndarray, "nodes models"]
Requests = Float64[ndarray, "types"]

PLANNERS = Registry(
    "rivage.planners",
    "planner",
    {
        "exact": "rivage.inference.planners:Exactly",
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
        """DepRound on every node; what does not fit is left out, least fraction first."""
        generator = streams.numpy("rounding")
        tried = [
            fill(instance, relaxation.fractions, _rounded(instance, relaxation.fractions, generator))
            for _ in range(self.draws)
        ]
        return min(tried, key=lambda loaded: plan_cost(instance, requests, loaded))


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
    """Add free models where they fit, those of most worth first, smaller ones among equals. O(V M log M)."""
    loaded = loaded | instance.pinned
    for node in np.flatnonzero(instance.free.any(axis=1)):
        left = float(instance.free_budgets[node] - instance.sizes[node, loaded[node] & instance.free[node]].sum())
        open_models = np.flatnonzero(instance.free[node] & ~loaded[node])
        for model in open_models[np.lexsort((instance.sizes[node, open_models], -worth[node, open_models]))]:
            if instance.sizes[node, model] <= left:
                loaded[node, model], left = True, left - float(instance.sizes[node, model])
    return loaded


def _rounded(instance: Instance, fractions: Float64[ndarray, "nodes models"], generator: np.random.Generator) -> Loaded:
    loaded = instance.pinned.copy()
    for node in np.flatnonzero(instance.free.any(axis=1)):
        models = np.flatnonzero(instance.free[node])
        sizes = instance.sizes[node, models]
        chosen = models[dep_round(fractions[node, models], generator, sizes) > 0]
        order = chosen[np.argsort(-fractions[node, chosen], kind="stable")]
        kept = order[np.cumsum(instance.sizes[node, order]) <= instance.free_budgets[node] * (1 + 1e-12)]
        loaded[node, kept] = True
    return loaded

"""Anchors: simple rules for which models to hold, against which anything better must show.

================== =================================================================================================
``all_cloud``      pinned models alone: gain 0 by definition
``all_device``     only the nodes where requests enter hold models: of each task the one that answers cheapest and
                   still fits, the most popular tasks first
``nearest_edge``   the same on the next node of each path that can hold a model, and nothing where requests enter
``best_accuracy``  every node fills up with the most accurate models, popular tasks first among equals
``smallest``       every node fills up with the smallest models, popular tasks first among equals
``random``         every node fills up in a random order
================== =================================================================================================

A node considers models of tasks whose requests pass there. How popular those are it counts from the first slot on; in
the first slot all are equal, and equals are taken by number. No rule promises anything.

O(nodes · models log models) per slot.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray
from scipy.sparse import csr_array

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.core.seeding import Streams
from rivage.inference.filling import filled, storable
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen

__all__ = ["Anchor", "AnchorState"]

Loaded = Bool[ndarray, "nodes models"]
Rule = Literal["all_cloud", "all_device", "nearest_edge", "best_accuracy", "smallest", "random"]


@dataclass(slots=True, eq=False)
class AnchorState:
    """What a rule has counted.

    Args:
        instance: the network.
        passing: request types that pass where the rule counts them, for every node and task.
        allowed: models that a node considers.
        random: of ``random``.
        loaded: what is loaded now.
        clock: slots so far.
    """

    instance: Instance
    passing: csr_array
    allowed: Loaded
    random: np.random.Generator
    loaded: Loaded = field(init=False)
    counts: Float64[ndarray, "nodes tasks"] = field(init=False)
    clock: int = 0

    def __post_init__(self) -> None:
        self.loaded = self.instance.pinned
        self.counts = np.zeros((len(self.instance.budgets), _tasks(self.instance)))


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A simple rule.

    Args:
        rule: see above.
        every: slots, >= 1, after which ``random`` draws a new order; None keeps the first.
    """

    reference: ClassVar[str] = "sisalem24"

    rule: Rule = "all_cloud"
    every: int | None = None

    def __post_init__(self) -> None:
        require_one_of(self.rule, "rule", get_args(Rule))
        require(1 if self.every is None else self.every, "every", least=1)
        if self.every is not None and self.rule != "random":
            raise ConfigError(f"rule {self.rule} draws nothing", mend="Leave out every.")

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> AnchorState:
        """All tasks are equally popular yet."""
        tasks = _tasks(instance)
        type_, hop = np.nonzero(self._counted(instance))
        row = instance.paths[type_, hop] * tasks + instance.asked[type_]
        shape = (len(instance.budgets) * tasks, instance.types)
        passing = csr_array((np.ones(len(row)), (row, type_)), shape=shape)
        passes = np.zeros((len(instance.budgets), tasks), bool)
        passes.ravel()[row] = True
        state = AnchorState(instance, passing, passes[:, instance.task], streams.numpy("order"))
        self._fill(state)
        return state

    def act(self, state: AnchorState) -> Loaded:
        """What the rule loads."""
        return state.loaded

    def update(self, state: AnchorState, seen: Seen) -> AnchorState:
        """Count, and fill anew."""
        state.counts += (state.passing @ seen.slot.requests).reshape(state.counts.shape)
        state.clock += 1
        if self.rule != "random" or (self.every is not None and state.clock % self.every == 0):
            self._fill(state)
        return state

    def _counted(self, instance: Instance) -> Bool[ndarray, "types longest"]:
        """Where on its path each type is counted."""
        on = instance.paths >= 0
        hops = np.arange(instance.paths.shape[1])
        if self.rule == "all_cloud":
            return np.zeros_like(on)
        if self.rule == "all_device":
            return np.asarray(on & (hops == 0))
        if self.rule == "nearest_edge":
            roomy = on & np.asarray(storable(instance).any(axis=1))[instance.paths] & (hops > 0)
            return np.asarray(roomy & (np.cumsum(roomy, axis=1) == 1))
        return on

    def _fill(self, state: AnchorState) -> None:
        instance, shape = state.instance, state.instance.shape
        popular = -state.counts[:, instance.task]
        if self.rule in ("all_device", "nearest_edge"):
            keys = [popular, instance.delays_ms + 100.0 * instance.alpha * (1.0 - instance.accuracy)]
        elif self.rule == "best_accuracy":
            keys = [np.broadcast_to(-instance.accuracy, shape), popular]
        elif self.rule == "smallest":
            keys = [instance.sizes, popular]
        elif self.rule == "random":
            keys = [state.random.random(shape)]
        else:
            return
        order = np.lexsort(keys[::-1], axis=-1)
        one_each = self.rule in ("all_device", "nearest_edge")
        state.loaded = filled(instance, order, state.allowed, one_each=one_each)


def _tasks(instance: Instance) -> int:
    return int(max(instance.task.max(), instance.asked.max())) + 1

"""What decides which models are loaded where, slot by slot.

A policy is a frozen dataclass of settings. In every slot it first says what is loaded (`act`), then requests come and
are served, then it learns what came and what could have served it (`update`). Everything else, order, contention,
meters and the record, belongs to `rivage.inference.replay`.

More methods may be there. ``foresee(state, slots)`` gets all requests before the first slot: such a policy is no rival
but a yardstick. ``fractions(state)`` is the fractional allocation that the loaded one is drawn from, ``iterate(state)``
the one whose slope the next step follows, where that is another. ``bound(state)`` is what the fractions cannot lose to
``factor(state)`` times (1 without) the gain of any fixed ones, over the slots so far and whatever comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.inference.gain import Slot
from rivage.inference.instance import Instance

__all__ = ["DELIVERY_POLICIES", "DeliveryPolicy", "Seen"]

DELIVERY_POLICIES = Registry(
    "rivage.delivery_policies",
    "delivery policy",
    {
        "anchor": "rivage.inference.simple:Anchor",
        "infida": "rivage.inference.infida:INFIDA",
        "infida_by_messages": "rivage.inference.infida_by_messages:InfidaByMessages",
        "infida_offline": "rivage.inference.infida_offline:INFIDAOffline",
        "model_caches": "rivage.inference.model_caches:ModelCaches",
        "olag": "rivage.inference.olag:OLAG",
        "oracle": "rivage.inference.oracle:Oracle",
        "rolling_plan": "rivage.inference.rolling:RollingPlan",
        "static_greedy": "rivage.inference.greedy:StaticGreedy",
    },
)
"""Kind -> settings of a policy; plug-ins register theirs under the entry-point group of the same name."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a slot showed.

    Args:
        slot: its requests, and the potential available capacity of every possibility.
        loaded: the allocation that served it.
        served: requests that each possibility served.
    """

    slot: Slot
    loaded: Bool[ndarray, "nodes models"]
    served: Float64[ndarray, "ranks"]


@runtime_checkable
class DeliveryPolicy(Protocol):
    """Decides which models are loaded where."""

    reference: ClassVar[Any]

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> Any:
        """The state before the first of so many slots; None when unknown.

        Raises:
            ConfigError: when settings do not fit the network.
        """
        ...

    def act(self, state: Any) -> Bool[ndarray, "nodes models"]:
        """What is loaded in the next slot: usable models within the budgets, and all that is pinned."""
        ...

    def update(self, state: Any, seen: Seen) -> Any:
        """The state after a slot; may be the same object, changed."""
        ...

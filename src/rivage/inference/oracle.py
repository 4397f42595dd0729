"""The oracle of each slot: what could have been loaded, had the requests of the slot been known.

In every slot the best of these is loaded: the relaxation's optimum for the slot, rounded strictly so many times
(`rivage.inference.blocks`); the greedy allocation; what the slot before had. Fetching costs nothing, so the gain of the
oracle above the best fixed allocation is the price of being static. It is no upper bound: `slot_bounds` is.

Capacities are those of unloaded models, as in `rivage.inference.greedy`; what is compared is what really gains.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import DataError, require
from rivage.core.seeding import Streams
from rivage.inference.blocks import Blocks
from rivage.inference.gain import Slot, contend
from rivage.inference.greedy import greedy_patterns
from rivage.inference.instance import Instance
from rivage.inference.optimum import relaxed_optimum, relaxed_patterns
from rivage.inference.patterns import Patterns
from rivage.inference.policy import Seen

__all__ = ["Oracle", "OracleState", "slot_bounds"]

Loaded = Bool[ndarray, "nodes models"]


def slot_bounds(instance: Instance, slots: Sequence[Slot]) -> Float64[ndarray, "slots"]:
    """No allocation gains more in each slot, whatever it was before; equal slots are solved once."""
    found = dict[bytes, float]()
    bounds = list[float]()
    for slot in slots:
        key = slot.requests.tobytes() + slot.capacity.tobytes()
        if key not in found:
            found[key] = relaxed_optimum(instance, [slot]).value
        bounds.append(found[key])
    return np.array(bounds)


@dataclass(slots=True, eq=False)
class OracleState:
    """What each slot will load.

    Args:
        instance: the network.
        random: of rounding.
        plan: of all slots; None while nothing is known.
        clock: slots so far.
    """

    instance: Instance
    random: np.random.Generator
    plan: tuple[Loaded, ...] | None = None
    clock: int = 0


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The best known allocation of each slot, by foresight.

    Args:
        draws: >= 1, how often each optimum is rounded.
    """

    reference: ClassVar[str] = "sisalem24"

    draws: int = 4

    def __post_init__(self) -> None:
        require(self.draws, "draws", least=1)

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> OracleState:
        """Nothing is known yet."""
        return OracleState(instance, streams.numpy("rounding"))

    def foresee(self, state: OracleState, slots: Sequence[Float64[ndarray, "types"]]) -> None:
        """Choose for every slot; equal slots once. One linear program and two greedy runs each."""
        known, plan, before = dict[bytes, Loaded](), list[Loaded](), state.instance.pinned
        for requests in slots:
            key = requests.tobytes()
            if key not in known:
                known[key] = self._best(state, requests, before)
            before = known[key]
            plan.append(before)
        state.plan = tuple(plan)

    def act(self, state: OracleState) -> Loaded:
        """What was chosen for the slot.

        Raises:
            DataError: when its requests are not known.
        """
        if state.plan is None or state.clock >= len(state.plan):
            raise DataError("the requests are not known", mend="Call foresee with all of them before the first slot.")
        return state.plan[state.clock]

    def update(self, state: OracleState, seen: Seen) -> OracleState:
        """On to the next slot."""
        state.clock += 1
        return state

    def _best(self, state: OracleState, requests: Float64[ndarray, "types"], before: Loaded) -> Loaded:
        instance, blocks = state.instance, Blocks.of(state.instance)
        patterns = Patterns.of(instance, [contend(instance, requests, instance.pinned).slot])
        values = relaxed_patterns(patterns).y.ravel()[blocks.place]
        rounded = [blocks.rounded(values, state.random.random(len(values))) for _ in range(self.draws)]
        choices = [before, greedy_patterns(patterns).loaded, *rounded]
        paid = [float(contend(instance, requests, each).served @ instance.ranking.cost) for each in choices]
        return choices[int(np.argmin(paid))]

"""Rolling plans: every few slots solve the linear program of the last ones, and round it.

What an operator with a solver would do, and a strong rival: it needs all requests in one place and has no guarantee
against demand that changes, but no step size to choose either. Every ``period`` slots

1. the relaxation for the last ``window`` slots is solved, in one of three ``programs``: ``mean`` of their requests with
   mean capacities as they were seen (`rivage.inference.optimum`); all ``slots`` one beside the other, to 10⁻³
   (`rivage.inference.cuts`); or ``pooled``, mean requests that share throughput as is best (`rivage.inference.pooled`);
2. its fractions are rounded strictly (`rivage.inference.blocks`) ``draws`` times, always with the same random numbers,
   so that little moves when fractions do not; models of no use to the plan stay or come as they fit;
3. the best of the draws, the greedy allocation if ``greedy``, and what is loaded now, all served the requests of the
   window again, takes over. What is loaded now stays unless another would have gained more by ``margin``, relative.

One linear program per period, and (draws + 2) · window slots served.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the setting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import require, require_one_of
from rivage.core.seeding import Streams
from rivage.inference.blocks import Blocks
from rivage.inference.cuts import relaxed_by_cuts
from rivage.inference.gain import Slot, contend
from rivage.inference.greedy import greedy
from rivage.inference.instance import Instance
from rivage.inference.optimum import relaxed_optimum
from rivage.inference.patterns import Patterns
from rivage.inference.policy import Seen
from rivage.inference.pooled import pooled_optimum

__all__ = ["RollingPlan", "RollingState", "mean_slot"]

Program = Literal["mean", "slots", "pooled"]
Loaded = Bool[ndarray, "nodes models"]
_GAP = 1e-3  # of the gain: rounding loses more


@dataclass(slots=True, eq=False)
class RollingState:
    """The plan and what it will be made from.

    Args:
        instance: the network.
        blocks: what each node decides.
        draws: the random numbers of each draw, kept.
        window: the last slots.
        loaded: what is loaded now.
        clock: slots so far.
    """

    instance: Instance
    blocks: Blocks
    draws: Float64[ndarray, "draws decided"]
    window: deque[Slot]
    loaded: Loaded = field(init=False)
    clock: int = 0

    def __post_init__(self) -> None:
        self.loaded = self.blocks.held


@dataclass(frozen=True, kw_only=True)
class RollingPlan:
    """A linear program of the last slots, rounded.

    Args:
        period: slots between plans, >= 1.
        window: slots that a plan looks at, >= 1.
        draws: >= 1, how often fractions are rounded.
        program: which linear program; see above.
        greedy: whether the greedy allocation of the same slots competes too.
        margin: >= 0, what a new plan must gain more, relative, to replace the old one.
    """

    reference: ClassVar[str] = "sisalem24"

    period: int = 10
    window: int = 10
    draws: int = 8
    program: Program = "mean"
    greedy: bool = False
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("period", "window", "draws"):
            require(getattr(self, name), name, least=1)
        require_one_of(self.program, "program", get_args(Program))
        require(self.margin, "margin", least=0.0)

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> RollingState:
        """Nothing is seen yet; nodes where there is nothing to decide are full."""
        blocks = Blocks.of(instance)
        draws = streams.numpy("rounding").random((self.draws, len(blocks.place)))
        return RollingState(instance, blocks, draws, deque(maxlen=self.window))

    def act(self, state: RollingState) -> Loaded:
        """The plan."""
        return state.loaded

    def update(self, state: RollingState, seen: Seen) -> RollingState:
        """Remember the slot, and plan anew when it is time; the first slot is a reason too."""
        state.window.append(seen.slot)
        state.clock += 1
        if state.clock == 1 or state.clock % self.period == 0:
            state.loaded = self._plan(state)
        return state

    def _plan(self, state: RollingState) -> Loaded:
        instance, blocks, slots = state.instance, state.blocks, list(state.window)
        requests = [slot.requests for slot in slots if slot.requests.any()]
        if not requests:
            return state.loaded
        values = self._fractions(instance, slots).ravel()[blocks.place]
        choices = [blocks.rounded(values, draw) for draw in state.draws]
        if self.greedy:
            choices.append(greedy(instance, [mean_slot(instance, slots)]).loaded | blocks.held)
        paid = [_paid(instance, requests, choice) for choice in choices]
        best = int(np.argmin(paid))
        now, base = _paid(instance, requests, state.loaded), sum(slot.base_cost for slot in slots)
        return choices[best] if base - paid[best] > (base - now) * (1 + self.margin) else state.loaded

    def _fractions(self, instance: Instance, slots: Sequence[Slot]) -> Float64[ndarray, "nodes models"]:
        if self.program == "pooled":
            return pooled_optimum(instance, np.mean([slot.requests for slot in slots], axis=0)).fractions
        if self.program == "slots":
            return relaxed_by_cuts(Patterns.of(instance, slots), gap=_GAP).y
        return relaxed_optimum(instance, [mean_slot(instance, slots)]).y


def mean_slot(instance: Instance, slots: Sequence[Slot]) -> Slot:
    """Mean requests with mean capacities. Its relaxed gain is no less than the mean of theirs."""
    return Slot(
        instance=instance,
        requests=np.mean([slot.requests for slot in slots], axis=0),
        capacity=np.mean([slot.capacity for slot in slots], axis=0),
    )


def _paid(instance: Instance, requests: Sequence[Float64[ndarray, "types"]], loaded: Loaded) -> float:
    """What the requests would cost, contention included."""
    return float(sum(contend(instance, each, loaded).served @ instance.ranking.cost for each in requests))

"""What can be asked to share fairly in a study: policies, and allocations that never change to hold them against.

A contender is settings without the inequality aversion of the study, which is told when it is played; its own ``alpha``
takes precedence, so that a study may compare several under one judge. One that has ``foresee`` is told the utilities of
all slots and is a yardstick, no rival.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.convex.schedules import Progress
from rivage.core.errors import require
from rivage.online.fair_benchmarks import FairOptimum
from rivage.online.fairness import OHF, OSF, FairInstance, FairPolicy, FairState, Norms
from rivage.online.utilities import Seen

__all__ = ["Even", "FairContender", "Fixed", "Hindsight", "HorizonFair", "OnlineHorizon", "OnlineSlot", "SlotFair"]

_STUDY: dict[str, Any] = {"none": "study"}


class Hindsight(Protocol):
    """What is known when all slots are."""

    def horizon(self, alpha: float) -> FairOptimum:
        """The best fixed allocation, see `rivage.online.fair_benchmarks.horizon_optimum`."""
        ...

    def slotwise(self, alpha: float) -> FairOptimum:
        """The fixed allocation that is fairest slot by slot."""
        ...


@runtime_checkable
class FairContender(Protocol):
    """Settings of somebody who shares."""

    alpha: float | None
    reference: ClassVar[Any]

    def policy(self, alpha: float) -> FairPolicy:
        """Who plays; not asked of contenders with ``foresee(hindsight, alpha) -> FairPolicy``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """The same allocation in every slot.

    Args:
        x: the allocation; None is the point of least norm, equal shares.
    """

    reference: ClassVar[None] = None

    x: Float64[ndarray, "n"] | None = None

    def init(self, instance: FairInstance) -> FairState:
        """The allocation; all agents weigh 1."""
        x = instance.set.center if self.x is None else self.x
        return FairState(instance, x, np.ones(instance.agents), Progress())

    def update(self, state: FairState, seen: Seen) -> FairState:
        """Nothing is learnt."""
        net = state.instance.net(seen.values)
        outside = int(((net < state.instance.least) | (net > state.instance.most)).sum())
        return replace(state, slots=state.slots + 1, outside=state.outside + outside)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineHorizon:
    """OHF, fair over the horizon: weights learn who has had less.

    Args:
        alpha: inequality aversion >= 0; ``study`` takes that of the table [sharing].
        dual_step: of the weights: the authors' code, or what the proof asks for; the latter for alpha < 1.
        norms: what the step size adds up.
        start: first weights: ``one`` (moved into their range) or the ``middle`` of their range.
    """

    reference: ClassVar[str] = "sisalem23"

    alpha: float | None = field(default=None, metadata=_STUDY)
    dual_step: Literal["paper", "theory"] = "paper"
    norms: Norms = "sum"
    start: Literal["one", "middle"] = "one"

    def __post_init__(self) -> None:
        _require_alpha(self.alpha)

    def policy(self, alpha: float) -> OHF:
        """The policy."""
        return OHF(alpha=alpha, dual_step=self.dual_step, norms=self.norms, start=self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSlot:
    """OSF, fair in every slot: weights are those of the moment. The baseline of the publication.

    Args:
        alpha: inequality aversion >= 0; ``study`` takes that of the table [sharing].
        period: slots between updates, >= 1; an update uses the means over these slots.
        norms: what the step size adds up.
    """

    reference: ClassVar[str] = "sisalem23"

    alpha: float | None = field(default=None, metadata=_STUDY)
    period: int = 1
    norms: Norms = "sum"

    def __post_init__(self) -> None:
        _require_alpha(self.alpha)
        require(self.period, "period", least=1)

    def policy(self, alpha: float) -> OSF:
        """The policy."""
        return OSF(alpha=alpha, period=self.period, norms=self.norms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Even:
    """Equal shares, whatever is wanted."""

    reference: ClassVar[None] = None

    alpha: ClassVar[None] = None

    def policy(self, alpha: float) -> Fixed:
        """Shares that never change."""
        return Fixed()


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonFair:
    """The fairest fixed allocation over the horizon, in hindsight: what regret is measured against.

    Args:
        alpha: inequality aversion >= 0, 0 for the largest sum; ``study`` takes that of the table [sharing].
    """

    reference: ClassVar[str] = "sisalem23"

    alpha: float | None = field(default=None, metadata=_STUDY)

    def __post_init__(self) -> None:
        _require_alpha(self.alpha)

    def foresee(self, hindsight: Hindsight, alpha: float) -> Fixed:
        """Shares that never change."""
        return Fixed(hindsight.horizon(alpha).x)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFair:
    """The fixed allocation that is fairest slot by slot, in hindsight.

    Args:
        alpha: inequality aversion >= 0; ``study`` takes that of the table [sharing].
    """

    reference: ClassVar[str] = "sisalem23"

    alpha: float | None = field(default=None, metadata=_STUDY)

    def __post_init__(self) -> None:
        _require_alpha(self.alpha)

    def foresee(self, hindsight: Hindsight, alpha: float) -> Fixed:
        """Shares that never change."""
        return Fixed(hindsight.slotwise(alpha).x)


def _require_alpha(alpha: float | None) -> None:
    if alpha is not None:
        require(alpha, "alpha", least=0.0)

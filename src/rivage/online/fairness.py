"""Long-term fairness: allocations that are fair over the whole horizon rather than in every slot.

Si Salem, Iosifidis, Neglia. Enabling long-term fairness in dynamic resource allocation. SIGMETRICS 2023, arXiv
2208.05898. The steps are those of the authors' code; what the paper proves is in `rivage.online.fair_regret`.

In slot t an allocation x_t of a convex set X is played, then the concave utilities u_t,i of the agents i are revealed.
With the α-fair welfare F_α(u) = Σ_i (u_i^(1−α) − 1)/(1 − α), ln u_i for α = 1, *horizon-fair* (HF) is whoever
maximises F_α of the time-averaged utilities; *slot-fair* (SF) the time-average of F_α(u_t).

The welfare is a minimum over multipliers, which are the weights of the agents (λ = −θ of the paper):

    F_α(u) = min_λ Ψ(λ, u),   Ψ(λ, u) = (−F_α)*(−λ) + λ · u,   attained at λ_i = u_i^(−α)
    (−F_α)*(−λ) = Σ_i [α λ_i^(1−1/α) − 1]/(1 − α),   Σ_i [−ln λ_i − 1] for α = 1.

`OHF` descends in λ and ascends in x, both from what slot t showed, with g_i a supergradient of u_t,i at x_t:

    x_{t+1} = Π_X( x_t + η_t Σ_i λ_t,i g_i ),                       η_t = D / √(Σ_{s<=t} ‖Σ_i λ_s,i g_s,i‖²)
    λ_{t+1,i} = clip( λ_t,i − η'_t (u_t,i(x_t) − λ_t,i^(−1/α)),  [u_max^(−α), u_min^(−α)] ),   η'_t = c/t.

`OSF`, the slot-fair baseline, weighs by the utility of the moment: x_{t+1} = Π_X( x_t + η_t Σ_i g_i u_t,i^(−α) ).

Deviations. ``norms="separate"`` adds the squared norms of λ_i g_i agent by agent, as the authors' code does; the
default is the norm of the sum, which their analysis has. ``dual_step="theory"`` is c = α/u_min^(1+α), the inverse of
the conjugate's strong convexity; "paper", the default, is the code's α/u_min^(1+1/α), the same at α = 1 and smaller
above. `OSF` counts utilities below u_min as u_min, where the code divides by them.

Cost per slot: one projection, O(agents · n), and what the utilities cost. Nothing is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.convex.schedules import Progress, SelfConfident
from rivage.convex.sets import ConvexSet
from rivage.core.errors import ConfigError, DataError, ShapeError, require, require_one_of
from rivage.online.utilities import Seen

__all__ = ["OHF", "OSF", "AlphaFairness", "FairInstance", "FairPolicy", "FairState", "SlotState"]

Vector = Float64[ndarray, "n"]
Agents = Float64[ndarray, "agents"]
Norms = Literal["sum", "separate"]

_ROUNDING = 1e-9  # a utility at an end of its range may come out this far beyond
_LARGEST_LOG = 690.0  # e^690 is 1e299: with α near 0 a power of u_min would not fit into a float


@dataclass(frozen=True, slots=True)
class AlphaFairness:
    """α-fair welfare and its saddle form.

    Args:
        alpha: inequality aversion α >= 0: 0 is the sum of utilities, 1 Nash's product, the larger the closer to the
            least utility alone.

    Example:
        >>> AlphaFairness(2.0).value(np.array([0.5, 1.0]))
        -1.0
    """

    alpha: float

    def __post_init__(self) -> None:
        require(self.alpha, "alpha", least=0.0)

    def each(self, u: Agents) -> Agents:
        """f_α of each utility; −inf below 0, and at 0 for α >= 1."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            logs = np.log(u)
            one = 1.0 - self.alpha
            f = logs if one == 0 else np.expm1(one * logs) / one
        worth: Agents = np.where(np.asarray(u) < 0, -np.inf, f)
        return worth

    def value(self, u: Agents) -> float:
        """F_α(u)."""
        return float(self.each(u).sum())

    def weights(self, u: Agents) -> Agents:
        """u^(−α), the gradient of F_α: what a little more is worth to each agent."""
        weights: Agents = np.asarray(u, np.float64) ** -self.alpha
        return weights

    def target(self, multipliers: Agents) -> Agents:
        """λ^(−1/α), the utilities whose weights λ are; for α > 0."""
        utilities: Agents = multipliers ** (-1.0 / self.alpha)
        return utilities

    def conjugate(self, multipliers: Agents) -> float:
        """(−F_α)*(−λ); for α = 0 it is −agents at λ = 1 and infinite elsewhere."""
        if self.alpha == 0:
            return -float(len(multipliers)) if (multipliers == 1).all() else np.inf
        logs, over = np.log(multipliers), self.alpha - 1.0
        grown = logs if over == 0 else self.alpha * np.expm1(over / self.alpha * logs) / over
        return float((-1.0 - grown).sum())

    def saddle(self, multipliers: Agents, u: Agents) -> float:
        """Ψ(λ, u) >= F_α(u)."""
        return self.conjugate(multipliers) + float(multipliers @ u)


@dataclass(frozen=True, kw_only=True, eq=False)
class FairInstance:
    """What is shared, by whom, and in which range utilities are expected.

    Args:
        set: the allocations X.
        agents: how many, >= 1.
        least: u_min > 0, the smallest utility that is told from less; bounds how much an agent can weigh.
        most: u_max > u_min.
        disagreement: d_i, what each agent has without an agreement; fairness then concerns u_i − d_i, and so do
            ``least`` and ``most`` (Nash's bargaining at α = 1). None means 0.

    Raises:
        ConfigError: naming the value.
    """

    set: ConvexSet
    agents: int
    least: float = 0.1
    most: float = 1.0
    disagreement: Agents | None = None

    def __post_init__(self) -> None:
        require(self.agents, "agents", least=1)
        require(self.least, "least", above=0.0)
        require(self.most, "most", above=self.least)
        points = self.disagreement
        if points is not None and (points.shape != (self.agents,) or not np.isfinite(points).all()):
            raise ConfigError(
                f"disagreement is {points.tolist()}", mend=f"Give {self.agents} finite numbers, one per agent."
            )

    def net(self, u: Float64[ndarray, "*slots agents"]) -> Float64[ndarray, "*slots agents"]:
        """Utilities less the points of disagreement."""
        return u if self.disagreement is None else u - self.disagreement

    def box(self, alpha: float) -> tuple[float, float]:
        """The least and the largest multiplier, u_max^(−α) and u_min^(−α).

        Raises:
            ConfigError: when the square of a multiplier is no float.
        """
        if alpha * max(abs(math.log(self.least)), abs(math.log(self.most))) > _LARGEST_LOG / 2:
            raise ConfigError(
                f"alpha is {alpha:g}: weights of utilities from {self.least:g} to {self.most:g} are beyond floats",
                mend="Lower alpha, or bring least and most closer to 1.",
            )
        return self.most**-alpha, self.least**-alpha


@dataclass(frozen=True, slots=True, eq=False)
class FairState:
    """Between two slots.

    Args:
        instance: what is shared.
        x: the allocation.
        multipliers: λ, the weights of the agents.
        progress: of the step size.
        slots: played so far.
        outside: how many utilities (agents × slots) lay outside of [u_min, u_max].
    """

    instance: FairInstance
    x: Vector
    multipliers: Agents
    progress: Progress
    slots: int = 0
    outside: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SlotState:
    """Between two slots, for `OSF`.

    Args:
        instance: what is shared.
        x: the allocation.
        multipliers: the weights that the last update had.
        progress: of the step size.
        values: sum of utilities since the last update.
        gradients: sum of supergradients since then.
        slots: played so far.
        outside: how many utilities lay outside of [u_min, u_max].
    """

    instance: FairInstance
    x: Vector
    multipliers: Agents
    progress: Progress
    values: Agents
    gradients: Float64[ndarray, "agents n"]
    slots: int = 0
    outside: int = 0


@runtime_checkable
class FairPolicy(Protocol):
    """Allocates, slot by slot."""

    reference: ClassVar[Any]

    def init(self, instance: FairInstance) -> Any:
        """The state before the first slot; its ``x`` is the first allocation."""
        ...

    def update(self, state: Any, seen: Seen) -> Any:
        """The state after a slot that showed utilities and supergradients at ``state.x``."""
        ...


@dataclass(frozen=True, kw_only=True)
class OHF:
    """Online horizon-fair: gradient ascent on weighted utilities, while the weights learn who has had less.

    Its fairness regret is O(1/√T + min(V_T, W_T)/T), see `rivage.online.fair_regret`; for more than one agent and
    α > 0 no policy does without the second term.

    Args:
        alpha: inequality aversion α >= 0; at 0 the weights stay 1 and this is gradient ascent on the sum.
        dual_step: c of the dual step c/t, see the module.
        norms: what the step size adds up.
        start: first multipliers: ``one`` (moved into their range) or ``middle`` of their range.
    """

    reference: ClassVar[str] = "sisalem23"

    alpha: float = 1.0
    dual_step: Literal["paper", "theory"] = "paper"
    norms: Norms = "sum"
    start: Literal["one", "middle"] = "one"

    def __post_init__(self) -> None:
        AlphaFairness(self.alpha)
        require_one_of(self.dual_step, "dual_step", ("paper", "theory"))
        require_one_of(self.norms, "norms", get_args(Norms))
        require_one_of(self.start, "start", ("one", "middle"))

    def init(self, instance: FairInstance) -> FairState:
        """The point of least norm, and equal weights."""
        low, high = instance.box(self.alpha)
        first = min(max(1.0, low), high) if self.start == "one" else (low + high) / 2
        return FairState(instance, instance.set.center, np.full(instance.agents, first), Progress())

    def update(self, state: FairState, seen: Seen) -> FairState:
        """One step up in x with the weights that were, one step down in the weights."""
        instance = state.instance
        net = _net(instance, seen)
        x, progress = _ascend(state, seen.gradients * state.multipliers[:, None], self.norms)
        slots = state.slots + 1
        return replace(
            state,
            x=x,
            multipliers=self._descend(instance, state.multipliers, net, slots),
            progress=progress,
            slots=slots,
            outside=state.outside + _outside(instance, net),
        )

    def dual_rate(self, instance: FairInstance) -> float:
        """c, so that the dual step of slot t is c/t. Steps beyond any range are all the same, and 1e300 at most."""
        power = 1 + (self.alpha if self.dual_step == "theory" else 1 / self.alpha)
        return self.alpha * math.exp(min(-power * math.log(instance.least), _LARGEST_LOG))

    def _descend(self, instance: FairInstance, multipliers: Agents, net: Agents, slot: int) -> Agents:
        if self.alpha == 0:
            return multipliers
        slope = net - AlphaFairness(self.alpha).target(multipliers)
        low, high = instance.box(self.alpha)
        clipped: Agents = np.clip(multipliers - self.dual_rate(instance) / slot * slope, low, high)
        return clipped


@dataclass(frozen=True, kw_only=True)
class OSF:
    """Online slot-fair: gradient ascent on F_α of the utilities of the moment.

    Args:
        alpha: inequality aversion α >= 0.
        period: slots between updates, >= 1; an update uses the means over these slots.
        norms: what the step size adds up.
    """

    reference: ClassVar[str] = "sisalem23"

    alpha: float = 1.0
    period: int = 1
    norms: Norms = "sum"

    def __post_init__(self) -> None:
        AlphaFairness(self.alpha)
        require(self.period, "period", least=1)
        require_one_of(self.norms, "norms", get_args(Norms))

    def init(self, instance: FairInstance) -> SlotState:
        """The point of least norm."""
        agents, x = instance.agents, instance.set.center
        nothing = np.zeros(agents), np.zeros((agents, len(x)))
        return SlotState(instance, x, np.ones(agents), Progress(), *nothing)

    def update(self, state: SlotState, seen: Seen) -> SlotState:
        """At the end of a period, one step up."""
        instance, slots = state.instance, state.slots + 1
        net = _net(instance, seen)
        values, gradients = state.values + net, state.gradients + seen.gradients
        state = replace(state, slots=slots, outside=state.outside + _outside(instance, net))
        if slots % self.period:
            return replace(state, values=values, gradients=gradients)
        multipliers = AlphaFairness(self.alpha).weights(np.maximum(values / self.period, instance.least))
        x, progress = _ascend(state, gradients / self.period * multipliers[:, None], self.norms)
        empty = np.zeros_like(values), np.zeros_like(gradients)
        return replace(state, x=x, multipliers=multipliers, progress=progress, values=empty[0], gradients=empty[1])


def _ascend(state: FairState | SlotState, pulls: Float64[ndarray, "agents n"], norms: Norms) -> tuple[Vector, Progress]:
    """A projected step along the sum of what each agent pulls, and the progress of the step size."""
    pull = pulls.sum(axis=0)
    square = float(pull @ pull) if norms == "sum" else float((pulls * pulls).sum())
    step, progress = SelfConfident(state.instance.set.diameter_squared).next(state.progress, square)
    return (state.instance.set.project(state.x + step * pull) if step > 0 else state.x), progress


def _net(instance: FairInstance, seen: Seen) -> Agents:
    """Net utilities, refused unless each agent has one finite number, and a gradient as long as an allocation."""
    if seen.values.shape != (instance.agents,) or not np.isfinite(seen.values).all():
        raise DataError(
            f"utilities are {seen.values.tolist()}", mend=f"Give {instance.agents} finite numbers, one per agent."
        )
    if seen.gradients.shape != (instance.agents, instance.set.dimension):
        raise ShapeError(
            f"supergradients have shape {seen.gradients.shape}",
            mend=f"Give {instance.agents} rows of {instance.set.dimension} numbers, one row per agent.",
        )
    return instance.net(seen.values)


def _outside(instance: FairInstance, net: Agents) -> int:
    return int(((net < instance.least - _ROUNDING) | (net > instance.most + _ROUNDING)).sum())

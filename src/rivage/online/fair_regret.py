"""Fairness regret: where it comes from, what it cannot exceed, and how hard the utilities were.

With ū* the time-averaged utilities of a comparator x*, ū those that were played, and δ_t = ū* − u_t(x*),

    regret = F_α(ū*) − F_α(ū).

*Where it comes from.* Because F_α is the minimum of Ψ over the multipliers, see `rivage.online.fairness`::

    T · regret = Σ_t λ_t · (u_t(x*) − u_t(x_t))              primal: regret of gradient ascent in x
               + Σ_t Ψ(λ_t, u_t(x_t)) − T min_λ Ψ(λ, ū)      dual: regret of gradient descent in λ
               + Σ_t λ_t · δ_t                               drift: the comparator's utilities move while weights do
               − Σ_t [Ψ(λ_t, ū*) − F_α(ū*)]                  slack >= 0: the weights are not those of x*
               + T [min_λ Ψ(λ, ū) − F_α(ū)]                  beyond: ū is outside of [u_min, u_max], else 0

an identity, with min_λ over the multipliers' range. `explain` computes all five from what a game leaves. The first
two have bounds of √T and ln T, so the third is the one that no policy controls; an adversary makes it linear in T.

*What it cannot exceed* (`FairExplained.bound`): with G what the step size added up and D of the set, 3 D √G for the
primal part (`SelfConfident`). With ``norms="separate"`` it is (2 + agents) D √G: there G may be as small as the sum of
‖gradient_t‖² over the number of agents. With dual steps c/t, slopes h_t and σ = u_min^(1+α)/α,

    dual <= ½ Σ_t (c/t) ‖h_t‖² + ½ max(0, 1/c − σ) Σ_t ‖λ_t − λ*‖²,          λ* the minimiser in hindsight.

The second term is 0 for ``dual_step="theory"``. For ``"paper"`` and α > 1 it need not vanish: the code's step is
shorter than the one the proof is for.

*How hard it was*, for the realised utilities:

    V_T = Σ_t Σ_i |δ_t,i|
    W_T = min over partitions of the slots into intervals of  Σ_k ( Σ_i |Σ_{t in k} δ_t,i| + L_k²/(slots before k + 1) )

with L_k the length of interval k. The paper has suprema of these over what an adversary may do, and that the regret
vanishes iff min(V_T, W_T) = o(T). W_T is exact, by dynamic programming over the ends of intervals; O(T²) at worst, less
as long as W_T is small, since long intervals cost more than the best partition found.

References:
    Si Salem, Iosifidis, Neglia. Enabling long-term fairness in dynamic resource allocation. SIGMETRICS 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float64
from numba import njit
from numpy import ndarray

from rivage.core.errors import ShapeError
from rivage.online.fair_game import FairPlayed
from rivage.online.fairness import OHF, AlphaFairness, FairInstance

__all__ = [
    "FairBounded",
    "FairExplained",
    "FairSums",
    "FairTerms",
    "Severity",
    "budgeted_severity",
    "explain",
    "partitioned_severity",
    "require_whole",
    "severity",
]

Table = Float64[ndarray, "slots agents"]
Agents = Float64[ndarray, "agents"]

_ROWS = ("utilities", "comparator", "multipliers")  # of `FairSums`, one number per agent


@dataclass(frozen=True, slots=True)
class FairExplained:
    """The fairness regret and its parts, all per slot.

    Args:
        regret: F_α(ū*) − F_α(ū) = primal + dual + drift − slack + beyond.
        primal: of x against x*.
        dual: of λ against the best multipliers.
        drift: Σ λ_t · δ_t / T.
        slack: >= 0.
        beyond: >= 0, and 0 where ū lies in the range of utilities.
        primal_bound: no less than ``primal``.
        dual_bound: no less than ``dual``.
    """

    regret: float
    primal: float
    dual: float
    drift: float
    slack: float
    beyond: float
    primal_bound: float
    dual_bound: float

    @property
    def bound(self) -> float:
        """What the regret cannot exceed, given the drift."""
        return self.primal_bound + self.dual_bound + self.drift + self.beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class FairTerms:
    """What the bound needs to know of policy and set.

    Args:
        alpha: inequality aversion.
        least: u_min.
        most: u_max.
        disagreement: d of every agent.
        diameter_squared: D².
        factor: of D √G in the primal bound.
        rate: c of the dual steps; 0 where multipliers do not move.
    """

    alpha: float
    least: float
    most: float
    disagreement: tuple[float, ...]
    diameter_squared: float
    factor: int
    rate: float

    @classmethod
    def of(cls, policy: OHF, instance: FairInstance) -> Self:
        """Those of a policy and what it shares."""
        points = np.zeros(instance.agents) if instance.disagreement is None else instance.disagreement
        return cls(
            alpha=policy.alpha,
            least=instance.least,
            most=instance.most,
            disagreement=tuple(points.tolist()),
            diameter_squared=instance.set.diameter_squared,
            # W²/(2 D) + ½ Σ η_t ‖gradient_t‖² in units of D √G: 2 from the width, and 1, or as much as gradients add up
            factor=2 + (instance.agents if policy.norms == "separate" else 1),
            rate=policy.dual_rate(instance) if policy.alpha else 0.0,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What a record keeps of them."""
        return cls(**{**values, "disagreement": tuple(values["disagreement"])})

    @property
    def box(self) -> tuple[float, float]:
        """The least and the largest multiplier."""
        return self.most**-self.alpha, self.least**-self.alpha

    @property
    def convexity(self) -> float:
        """σ, of the conjugate; for α > 0."""
        return float(self.least ** (1 + self.alpha)) / self.alpha


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FairSums:
    """Sums over slots, all that the bound needs of them. Net utilities are less the points of disagreement.

    Args:
        slots: how many.
        utilities: Σ u_t(x_t), net.
        comparator: Σ u_t(x*), net.
        multipliers: Σ λ_t.
        squares: Σ ‖λ_t‖².
        slopes: Σ (c/t) ‖h_t‖².
        weighed: Σ λ_t · u_t(x*).
        lowest: the least multiplier.
        highest: the largest one.
    """

    slots: int
    utilities: Agents
    comparator: Agents
    multipliers: Agents
    squares: float
    slopes: float
    weighed: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, terms: FairTerms, utilities: Table, multipliers: Table, comparator: Table, first: int = 0) -> Self:
        """Those of slots that follow each other.

        Args:
            terms: of the game.
            utilities: that were played.
            multipliers: λ_t.
            comparator: u_t(x*).
            first: slots before.
        """
        points, slopes = np.array(terms.disagreement), 0.0
        net, other = utilities - points, comparator - points
        if terms.alpha:
            steps = terms.rate / np.arange(first + 1, first + len(net) + 1)
            slopes = float(steps @ ((net - multipliers ** (-1 / terms.alpha)) ** 2).sum(axis=1))
        return cls(
            slots=len(net),
            utilities=net.sum(axis=0),
            comparator=other.sum(axis=0),
            multipliers=multipliers.sum(axis=0),
            squares=float((multipliers**2).sum()),
            slopes=slopes,
            weighed=float((multipliers * other).sum()),
            lowest=float(multipliers.min()),
            highest=float(multipliers.max()),
        )

    def __add__(self, other: FairSums) -> FairSums:
        return FairSums(
            slots=self.slots + other.slots,
            utilities=self.utilities + other.utilities,
            comparator=self.comparator + other.comparator,
            multipliers=self.multipliers + other.multipliers,
            squares=self.squares + other.squares,
            slopes=self.slopes + other.slopes,
            weighed=self.weighed + other.weighed,
            lowest=min(self.lowest, other.lowest),
            highest=max(self.highest, other.highest),
        )

    def as_dict(self) -> dict[str, Any]:
        """As a record keeps them."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.tolist() if isinstance(value, ndarray) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse."""
        arrays: dict[str, Any] = {name: np.array(each, np.float64) for name, each in values.items() if name in _ROWS}
        return cls(**{**values, **arrays})

    def bounded(self, terms: FairTerms, squares: float) -> FairBounded:
        """The regret and what it cannot exceed.

        Args:
            terms: of the game.
            squares: G, Σ ‖gradient_t‖².
        """
        fairness, slots = AlphaFairness(terms.alpha), self.slots
        mean, best = self.utilities / slots, self.comparator / slots
        turned = fairness.weights(np.clip(mean, terms.least, terms.most))  # minimises Ψ(·, ū) over the range
        return FairBounded(
            regret=fairness.value(best) - fairness.value(mean),
            drift=float(best @ self.multipliers - self.weighed) / slots,
            beyond=fairness.saddle(turned, mean) - fairness.value(mean),
            primal_bound=terms.factor * (terms.diameter_squared * squares) ** 0.5 / slots,
            dual_bound=self._dual_bound(terms, turned) / slots,
        )

    def _dual_bound(self, terms: FairTerms, turned: Agents) -> float:
        """What the regret of the multipliers cannot exceed; 0 for α = 0, where they do not move."""
        if not terms.alpha:
            return 0.0
        short = max(0.0, 1 / terms.rate - terms.convexity) / 2
        away = self.squares - 2 * float(turned @ self.multipliers) + self.slots * float(turned @ turned)
        return self.slopes / 2 + short * max(away, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FairBounded:
    """The fairness regret and what it cannot exceed, per slot; for names see `FairExplained`."""

    regret: float
    drift: float
    beyond: float
    primal_bound: float
    dual_bound: float

    @property
    def bound(self) -> float:
        """What the regret cannot exceed, given the drift."""
        return self.primal_bound + self.dual_bound + self.drift + self.beyond


@dataclass(frozen=True, slots=True)
class Severity:
    """How hard utilities are on a fair policy.

    Args:
        budgeted: V_T.
        partitioned: W_T.
        slots: T.
    """

    budgeted: float
    partitioned: float
    slots: int

    @property
    def rate(self) -> float:
        """min(V_T, W_T)/T, which has to vanish if the regret shall."""
        return min(self.budgeted, self.partitioned) / self.slots


def explain(policy: OHF, instance: FairInstance, played: FairPlayed, comparator: Table) -> FairExplained:
    """Where the regret of a game comes from.

    Args:
        policy: who played it.
        instance: what is shared.
        played: the game.
        comparator: u_t(x*) of every slot.

    Raises:
        ShapeError: when the comparator has other slots, or the game begins elsewhere.
    """
    require_whole(played)
    if comparator.shape != played.utilities.shape:
        raise ShapeError(
            f"{len(comparator)} slots of the comparator, {len(played.utilities)} played", mend="Give the same slots."
        )
    fairness, slots, terms = AlphaFairness(policy.alpha), len(comparator), FairTerms.of(policy, instance)
    mine, other, weights = instance.net(played.utilities), instance.net(comparator), played.multipliers
    found = FairSums.of(terms, played.utilities, weights, comparator).bounded(terms, played.squares)
    mean, best = mine.mean(axis=0), other.mean(axis=0)
    conjugates = _conjugates(fairness, weights)
    return FairExplained(
        regret=found.regret,
        primal=float((weights * (other - mine)).sum()) / slots,
        dual=float(conjugates.mean() + (weights * mine).sum() / slots) - (found.beyond + fairness.value(mean)),
        drift=found.drift,
        slack=float(conjugates.mean() + (weights @ best).mean()) - fairness.value(best),
        beyond=found.beyond,
        primal_bound=found.primal_bound,
        dual_bound=found.dual_bound,
    )


def require_whole(played: FairPlayed) -> None:
    """Refuse a part of a game: steps and what they add up began before it.

    Raises:
        ShapeError: naming the slots that are missing.
    """
    before = 0 if played.state is None else int(played.state.slots) - len(played.utilities)
    if before:
        raise ShapeError(
            f"{before} slots of the game were played before these {len(played.utilities)}",
            mend="Join the parts: utilities and multipliers of all slots, squares and state of the last.",
        )


def severity(comparator: Table) -> Severity:
    """V_T and W_T for the utilities of a comparator. At worst O(T²)."""
    deviations = comparator.mean(axis=0) - comparator
    return Severity(budgeted_severity(deviations), partitioned_severity(deviations), len(comparator))


def budgeted_severity(deviations: Table) -> float:
    """V_T, the sum of all |δ_t,i|."""
    return float(np.abs(deviations).sum())


def partitioned_severity(deviations: Table) -> float:
    """W_T, exactly."""
    sums = np.concatenate([np.zeros((1, deviations.shape[1])), np.cumsum(deviations, axis=0)])
    return float(_partition(np.ascontiguousarray(sums)))


@njit(cache=True)
def _partition(sums: Float64[ndarray, "ends agents"]) -> float:
    """best[e] = min over begins b < e of best[b] + ‖sums[e] − sums[b]‖₁ + (e − b)²/(b + 1); all terms are >= 0."""
    ends, agents = sums.shape
    best = np.zeros(ends)
    for end in range(1, ends):
        least = np.inf
        for begin in range(end - 1, -1, -1):
            cost = (end - begin) ** 2 / (begin + 1.0)
            if cost >= least:  # grows as the interval gets longer
                break
            cost += best[begin]
            for agent in range(agents):
                cost += abs(sums[end, agent] - sums[begin, agent])
            least = min(least, cost)
        best[end] = least
    last: float = best[ends - 1]
    return last


def _conjugates(fairness: AlphaFairness, weights: Table) -> Float64[ndarray, "slots"]:
    """(−F_α)*(−λ_t) of every slot."""
    if fairness.alpha == 0:
        return np.full(len(weights), -float(weights.shape[1]))
    logs, over = np.log(weights), fairness.alpha - 1.0
    grown = logs if over == 0 else fairness.alpha * np.expm1(over / fairness.alpha * logs) / over
    conjugates: Float64[ndarray, "slots"] = (-1.0 - grown).sum(axis=1)
    return conjugates

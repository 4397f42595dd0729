"""What agents get from an allocation: concave utilities, one per agent, that may be other ones in every slot.

A policy of `rivage.online.fairness` asks for two things at its allocation x: the utilities u_i(x), and for each a
supergradient, a row g_i with u_i(y) <= u_i(x) + g_i · (y − x) for all y. Whatever answers is a `Utilities`; a few
lines do (docs/explanation/long-term-fairness.md, tenants that share graphics processors).

`CappedSums` is the one that most allocation problems are:

    u_i(x) = offset_i + Σ_j weights_j min( caps_j, rows_j · x )        over the terms j of agent i,

weights >= 0. It covers linear utilities (infinite caps), demands that can be met (share up to the demand) and caches
(an item is served as far as it is stored on the way). Being piecewise linear, it has exact optima by linear programs,
see `rivage.online.fair_benchmarks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from scipy.sparse import csr_array, vstack

from rivage.core.errors import ConfigError

__all__ = ["CappedSums", "Mixture", "Seen", "Stacked", "Utilities", "mean_utilities", "stacked_utilities"]

Vector = Float64[ndarray, "n"]


class Seen(NamedTuple):
    """What an allocation gave.

    Args:
        values: utility of each agent.
        gradients: a supergradient of each agent's utility.
    """

    values: Float64[ndarray, "agents"]
    gradients: Float64[ndarray, "agents n"]


@runtime_checkable
class Utilities(Protocol):
    """The concave utilities of one slot."""

    def at(self, x: Vector) -> Seen:
        """Utilities and supergradients at an allocation."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class CappedSums:
    """Sums of terms that saturate; see the module's formula.

    Args:
        rows: a SciPy sparse matrix, or a dense one, of one row per term.
        owner: agent of each term, from 0.
        weights: of the terms, >= 0.
        caps: where each term saturates; infinite for linear ones.
        agents: how many.
        offset: utility of each agent without any term; 0 when not given.

    Raises:
        ConfigError: naming all that is wrong.

    Example:
        >>> two_tenants = CappedSums(rows=np.eye(2), owner=np.array([0, 1]), weights=np.ones(2),
        ...                          caps=np.array([0.3, 0.9]), agents=2)
        >>> two_tenants.at(np.array([0.5, 0.5])).values.tolist()
        [0.3, 0.5]
    """

    rows: Any
    owner: Int64[ndarray, "terms"]
    weights: Float64[ndarray, "terms"]
    caps: Float64[ndarray, "terms"]
    agents: int
    offset: Float64[ndarray, "agents"] | None = None

    def __post_init__(self) -> None:
        rows = csr_array(self.rows, dtype=np.float64)
        terms = (rows.shape[0],)
        faults = {
            f"{terms[0]} rows, owners of shape {self.owner.shape}": self.owner.shape != terms,
            f"{terms[0]} rows, weights of shape {self.weights.shape}": self.weights.shape != terms,
            f"{terms[0]} rows, caps of shape {self.caps.shape}": self.caps.shape != terms,
            "a weight is negative or not finite, which is not concave": not bool(
                (np.isfinite(self.weights) & (self.weights >= 0)).all()
            ),
            "a cap is not a number": bool(np.isnan(self.caps).any()),
            f"owners are not 0 to {self.agents - 1}": bool(((self.owner < 0) | (self.owner >= self.agents)).any()),
            f"{self.agents} agents, not as many offsets": self.offset is not None
            and self.offset.shape != (self.agents,),
        }
        found = [fault for fault, present in faults.items() if present]
        if found:
            raise ConfigError("; ".join(found), where="utilities", mend="Give one owner, weight and cap for each row.")
        object.__setattr__(self, "rows", rows)

    def at(self, x: Vector) -> Seen:
        """Utilities and supergradients; at a kink the larger one, which keeps asking. O(nonzeros · agents)."""
        mass = self.rows @ x
        values = np.bincount(self.owner, self.weights * np.minimum(mass, self.caps), self.agents)
        rising = np.zeros((len(mass), self.agents))
        rising[np.arange(len(mass)), self.owner] = np.where(mass <= self.caps, self.weights, 0.0)
        gradients: Float64[ndarray, "agents n"] = np.ascontiguousarray((self.rows.T @ rising).T)
        return Seen(values if self.offset is None else values + self.offset, gradients)

    def with_weights(self, weights: Float64[ndarray, "terms"]) -> CappedSums:
        """The same terms with other weights >= 0; nothing is copied, and only the weights are checked."""
        if weights.shape != self.weights.shape or not (weights >= 0).all():
            raise ConfigError(
                f"weights of shape {weights.shape}, the least is {weights.min(initial=0.0)}",
                where="utilities",
                mend=f"Give {len(self.weights)} numbers >= 0, one for each term.",
            )
        other = object.__new__(CappedSums)
        for each in fields(self):
            object.__setattr__(other, each.name, weights if each.name == "weights" else getattr(self, each.name))
        return other


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Σ_k shares_k u_k(x), agent by agent.

    Args:
        parts: utilities of the same agents.
        shares: of the parts, >= 0; all equal and summing to 1 when not given.
    """

    parts: tuple[Utilities, ...]
    shares: Float64[ndarray, "parts"] | None = None

    def at(self, x: Vector) -> Seen:
        """Sums of the parts'. As slow as all parts together."""
        shares = np.full(len(self.parts), 1 / len(self.parts)) if self.shares is None else self.shares
        seen = [part.at(x) for part in self.parts]
        values = sum(share * one.values for share, one in zip(shares, seen, strict=True))
        gradients = sum(share * one.gradients for share, one in zip(shares, seen, strict=True))
        return Seen(np.asarray(values), np.asarray(gradients))


@dataclass(frozen=True, kw_only=True, eq=False)
class Stacked:
    """The agents of several utilities, one after the other: agent i of part k has number k · agents + i.

    Args:
        parts: utilities.
    """

    parts: tuple[Utilities, ...]

    def at(self, x: Vector) -> Seen:
        """Those of the parts, in order."""
        seen = [part.at(x) for part in self.parts]
        return Seen(np.concatenate([one.values for one in seen]), np.concatenate([one.gradients for one in seen]))


def mean_utilities(parts: Sequence[Utilities], shares: Float64[ndarray, "parts"] | None = None) -> Utilities:
    """The time-average of utilities, as `CappedSums` where all parts are.

    Args:
        parts: one or more.
        shares: of the time; equal when not given.
    """
    if not all(isinstance(part, CappedSums) for part in parts):
        return Mixture(parts=tuple(parts), shares=shares)
    stack, agents, count = _stack(parts), parts[0].agents, len(parts)  # type: ignore[attr-defined]
    weights = np.full(count, 1 / count) if shares is None else np.asarray(shares, np.float64)
    part = stack.owner // agents
    offset = None if stack.offset is None else weights @ stack.offset.reshape(count, agents)
    return CappedSums(
        rows=stack.rows,
        owner=stack.owner % agents,
        weights=stack.weights * weights[part],
        caps=stack.caps,
        agents=agents,
        offset=offset,
    )


def stacked_utilities(parts: Sequence[Utilities]) -> Utilities:
    """All agents of all parts, as `CappedSums` where all parts are; what slot-fairness is an optimum over."""
    return _stack(parts) if all(isinstance(part, CappedSums) for part in parts) else Stacked(parts=tuple(parts))


def _stack(parts: Sequence[Any]) -> CappedSums:
    agents = parts[0].agents
    return CappedSums(
        rows=vstack([part.rows for part in parts], format="csr"),
        owner=np.concatenate([part.owner + k * agents for k, part in enumerate(parts)]),
        weights=np.concatenate([part.weights for part in parts]),
        caps=np.concatenate([part.caps for part in parts]),
        agents=agents * len(parts),
        offset=np.concatenate([np.zeros(agents) if part.offset is None else part.offset for part in parts]),
    )

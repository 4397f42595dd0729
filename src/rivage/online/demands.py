"""Demands that change slot by slot: agents that want work done, and resources whose shares they get.

A resource r has a budget b_r, of which agent i gets the share x_r,i; a unit does rate_r,i of the agent's work:

    work_i(x) = Σ_r b_r rate_r,i x_r,i,      u_t,i(x) = weight_t,i min(work_i, demand_t,i)        form "capped"
                                             u_t,i(x) = weight_t,i ln(1 + work_i / scale_t,i)     form "log"

so that an agent's utility depends on its own work alone. All slots together are one table, whose means and sums over
slots are computed without a loop; a slot by itself is a `rivage.online.utilities.Utilities`.

Coordinates of x are resource by resource, agents in order. Cost of a slot: O(agents² resources), of all: O(slots
agents).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, overload

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.online.fairness import AlphaFairness
from rivage.online.utilities import Seen

__all__ = ["DemandTable", "Form", "require_wants"]

Form = Literal["capped", "log"]
Vector = Float64[ndarray, "n"]
Agents = Float64[ndarray, "agents"]
Table = Float64[ndarray, "*slots agents"]


@dataclass(frozen=True, slots=True, eq=False)
class DemandTable(Sequence["_Slot"]):
    """The utilities of all slots.

    Args:
        weights: of every slot and agent, >= 0.
        levels: demands of form "capped", >= 0, infinite where more always helps; scales of form "log", > 0.
        gains: work that all of a resource does, b_r rate_r,i >= 0.
        form: see the module.
    """

    weights: Float64[ndarray, "slots agents"]
    levels: Float64[ndarray, "slots agents"]
    gains: Float64[ndarray, "resources agents"]
    form: Form = "capped"

    def __len__(self) -> int:
        return len(self.weights)

    @overload
    def __getitem__(self, slot: int) -> _Slot: ...
    @overload
    def __getitem__(self, slot: slice) -> DemandTable: ...
    def __getitem__(self, slot: int | slice) -> _Slot | DemandTable:
        if isinstance(slot, slice):
            return replace(self, weights=self.weights[slot], levels=self.levels[slot])
        return _Slot(self.weights[slot], self.levels[slot], self.gains, self.form)

    def given(self, x: Vector) -> Float64[ndarray, "slots agents"]:
        """What one allocation gives in every slot."""
        return _worth(self.form, self.weights, self.levels, _work(self.gains, x))[0]

    def in_units(self, units: Agents) -> DemandTable:
        """The same, with utilities in units of these, one per agent, > 0."""
        return replace(self, weights=self.weights / units)

    @property
    def alone(self) -> Agents:
        """Mean utility of each agent if it had everything."""
        means: Agents = _worth(self.form, self.weights, self.levels, self.gains.sum(axis=0))[0].mean(axis=0)
        return means

    @property
    def mean(self) -> _Over:
        """The time-averaged utilities."""
        return _Over(self, lambda values, slopes: (values, slopes))

    def slot_welfare(self, alpha: float, least: float, disagreement: Agents) -> _Over:
        """The mean of f_α(u_t,i − d_i) over the slots, of every agent, up to a constant that makes it >= 0.

        Below ``least`` f_α goes on as a line, which is what `rivage.online.fairness.OSF` ascends: a slot in which an
        agent wants nothing would make the welfare of every allocation −∞.
        """
        fairness = AlphaFairness(alpha)
        lowest = _extended(fairness, -disagreement, least)[0]

        def turned(values: Table, slopes: Table) -> tuple[Table, Table]:
            worth, steepness = _extended(fairness, values - disagreement, least)
            return worth - lowest, steepness * slopes

        return _Over(self, turned)


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """The utilities of one slot."""

    weights: Agents
    levels: Agents
    gains: Float64[ndarray, "resources agents"]
    form: Form

    def at(self, x: Vector) -> Seen:
        """Utilities and supergradients."""
        values, slopes = _worth(self.form, self.weights, self.levels, _work(self.gains, x))
        return Seen(values, _gradients(self.gains, slopes))


@dataclass(frozen=True, slots=True, eq=False)
class _Over:
    """Means over the slots of a function of utilities and their slopes."""

    table: DemandTable
    turned: Callable[[Table, Table], tuple[Table, Table]]

    def at(self, x: Vector) -> Seen:
        """Means and their supergradients."""
        table = self.table
        values, slopes = self.turned(*_worth(table.form, table.weights, table.levels, _work(table.gains, x)))
        return Seen(values.mean(axis=0), _gradients(table.gains, slopes.mean(axis=0)))


def _work(gains: Float64[ndarray, "resources agents"], x: Vector) -> Agents:
    work: Agents = (gains * x.reshape(gains.shape)).sum(axis=0)
    return work


def _worth(form: Form, weights: Table, levels: Table, work: Agents) -> tuple[Table, Table]:
    """Utilities, and how fast they grow with the work; at a kink as fast as before it."""
    if form == "log":
        return weights * np.log1p(work / levels), weights / (levels + work)
    return weights * np.minimum(work, levels), np.where(work <= levels, weights, 0.0)


def _gradients(gains: Float64[ndarray, "resources agents"], slopes: Agents) -> Float64[ndarray, "agents n"]:
    resources, agents = gains.shape
    gradients = np.zeros((agents, resources, agents))
    own = np.arange(agents)
    gradients[own, :, own] = (gains * slopes).T
    return gradients.reshape(agents, resources * agents)


def _extended(fairness: AlphaFairness, u: Table, least: float) -> tuple[Table, Table]:
    """f_α and its slope, by its tangent below ``least``."""
    inside = np.maximum(u, least)
    slopes = fairness.weights(inside)
    return fairness.each(inside) + slopes * (u - inside), slopes


def require_wants(table: DemandTable, agents: Sequence[str]) -> None:
    """Refuse agents that no allocation gives anything.

    Raises:
        ConfigError: naming them.
    """
    idle = [name for name, worth in zip(agents, table.alone.tolist(), strict=True) if not worth > 0]
    if idle:
        verb = "get" if len(idle) > 1 else "gets"
        raise ConfigError(
            f"{', '.join(idle[:5])} {verb} nothing from any allocation",
            where="[demand]",
            mend="Give a weight, a demand and a rate above 0 in some slot, or leave them out.",
        )

"""What a study of fair sharing and a seed come to: a set, agents, utilities of every slot, and the optima in hindsight.

Optima are found when they are first asked for, once for each inequality aversion, and shared by all trials of a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.convex.sets import CappedSimplex, ConvexSet, Product, Simplex
from rivage.core.errors import ConfigError, RivageError
from rivage.core.seeding import Streams
from rivage.core.settings import combine
from rivage.online.demands import DemandTable, require_wants
from rivage.online.fair_benchmarks import FairOptimum, horizon_optimum
from rivage.online.fair_game import utilities_of
from rivage.online.fairness import FairInstance
from rivage.online.utilities import Utilities
from rivage.studies.games.sharing import Sharing, SharingPlay
from rivage.studies.games.sharing_demands import SharedCaches
from rivage.studies.games.sharing_files import Wanted

__all__ = ["FairScene", "draw_scene"]

_TOLERANCE = 1e-6
_SHARES = np.linspace(0.1, 1.0, 16)[1:]

Agents = Float64[ndarray, "agents"]


@dataclass(frozen=True, slots=True, eq=False)
class FairScene:
    """What is shared, and what is known of it in hindsight.

    Args:
        instance: set, agents, range of utilities.
        agents: their names.
        resources: their names; none where the set is not made of shares of resources.
        slots: the utilities of every slot.
        mean: their average.
        table: the slots, where they are demands.
        name: of the demand.
        fingerprint: of all that is played on.
    """

    instance: FairInstance
    agents: tuple[str, ...]
    resources: tuple[str, ...]
    slots: Sequence[Utilities]
    mean: Utilities
    table: DemandTable | None
    name: str
    fingerprint: str
    _found: dict[tuple[str, float], Any] = field(default_factory=dict)

    @property
    def points(self) -> Agents:
        """Of disagreement."""
        given = self.instance.disagreement
        return np.zeros(len(self.agents)) if given is None else given

    def horizon(self, alpha: float) -> FairOptimum:
        """The best fixed allocation, with an upper bound on all."""
        if ("horizon", alpha) not in self._found:
            self._found["horizon", alpha] = horizon_optimum(
                self.instance.set,
                self.mean,
                alpha,
                disagreement=self.points,
                tolerance=_TOLERANCE,
                ladder=self._ladder,
            )
        found: FairOptimum = self._found["horizon", alpha]
        return found

    @property
    def _ladder(self) -> list[Float64[ndarray, "n"]]:
        """Everybody has the same share of everything: from nearly nothing to all."""
        if self.table is None:
            return []
        return [np.full(self.instance.set.dimension, share) for share in (*np.geomspace(1e-3, 0.1, 16), *_SHARES)]

    @property
    def most(self) -> float:
        """The largest sum of utilities, whether or not all agree to it."""
        if ("most", 0.0) not in self._found:
            found = horizon_optimum(self.instance.set, self.mean, 0.0, tolerance=_TOLERANCE, ladder=self._ladder)
            self._found["most", 0.0] = float(found.utilities.sum())
        most: float = self._found["most", 0.0]
        return most

    def slotwise(self, alpha: float) -> FairOptimum:
        """The fixed allocation that is fairest slot by slot."""
        assert self.table is not None, "refused when the stage was built"
        if ("slot", alpha) not in self._found:
            welfare = self.table.slot_welfare(alpha, self.instance.least, self.points)
            self._found["slot", alpha] = horizon_optimum(
                self.instance.set, welfare, 0.0, tolerance=_TOLERANCE, ladder=self._ladder
            )
        found: FairOptimum = self._found["slot", alpha]
        return found

    def comparator(self, alpha: float) -> Float64[ndarray, "slots agents"]:
        """What the best fixed allocation gives in every slot."""
        if ("table", alpha) not in self._found:
            x = self.horizon(alpha).x
            self._found["table", alpha] = self.table.given(x) if self.table else utilities_of(x, self.slots)
        table: Float64[ndarray, "slots agents"] = self._found["table", alpha]
        return table

    def shares(self, x: Float64[ndarray, "n"]) -> dict[str, list[float]]:
        """Resource -> share of each agent."""
        if not self.resources:
            return {}
        rows = x.reshape(len(self.resources), len(self.agents))
        rows = rows / rows.sum(axis=1, keepdims=True)  # one agent at most: coordinates are shares of its largest
        return dict(zip(self.resources, rows.tolist(), strict=True))

    def describe(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "name": self.name,
            "slots": len(self.slots),
            "agents": list(self.agents),
            "resources": list(self.resources),
            "dimension": self.instance.set.dimension,
        }


def draw_scene(study: SharingPlay, streams: Streams) -> FairScene:
    """The scene of a seed.

    Raises:
        ConfigError: listing all settings that do not fit what is wanted.
        DataError: for a file that cannot be used.
    """
    if isinstance(study.demand, SharedCaches):
        return _caches(study.sharing, study.demand)
    return _demands(study.sharing, study.demand.wanted(streams))


def _demands(sharing: Sharing, wanted: Wanted) -> FairScene:
    if problems := [*_unknown(sharing, wanted.agents), *_undecided(sharing, len(wanted.agents))]:
        raise combine(problems)
    budgets = sharing.resources
    gains = np.array(
        [
            [budget * sharing.largest * sharing.rate(agent, name) for agent in wanted.agents]
            for name, budget in budgets.items()
        ]
    )
    table = DemandTable(weights=wanted.weights, levels=wanted.levels, gains=gains, form=wanted.form)
    require_wants(table, wanted.agents)
    if sharing.unit == "own":
        table = table.in_units(table.alone)
    count = len(wanted.agents)
    each: Any = Simplex(count) if sharing.largest == 1 else CappedSimplex(count, 1 / sharing.largest)
    names = tuple(name or "budget" for name in budgets)
    instance = _instance(sharing, Product((each,) * len(names)), wanted.agents)
    parts = (table.weights, table.levels, table.gains)
    mark = _mark(instance, wanted.agents, *parts, np.array([sharing.largest, wanted.form == "log"], np.float64))
    return FairScene(instance, wanted.agents, names, table, table.mean, table, wanted.name, mark)


def _caches(sharing: Sharing, demand: SharedCaches) -> FairScene:
    default = Sharing()
    own = [name for name in ("budget", "rates", "largest", "unit") if getattr(sharing, name) != getattr(default, name)]
    if own:
        raise ConfigError(
            f"{', '.join(own)} of virtual caches {'are' if len(own) > 1 else 'is'} that of their network",
            where="[sharing]",
            mend="Leave it out." if len(own) == 1 else "Leave them out.",
        )
    game = demand.game()
    agents = tuple(f"agent {number + 1}" for number in range(game.caches.agents))
    if problems := list(_unknown(sharing, agents)):
        raise combine(problems)
    instance = _instance(sharing, game.caches.set, agents)
    mark = _mark(instance, agents, game.batches, game.caches.costs, game.caches.capacities, game.caches.owners)
    return FairScene(instance, agents, (), game.slots, game.mean, None, f"caches of {demand.instance}", mark)


def _instance(sharing: Sharing, feasible: ConvexSet, agents: Sequence[str]) -> FairInstance:
    points = np.array([sharing.points.get(agent, sharing.points.get("", 0.0)) for agent in agents], np.float64)
    return FairInstance(
        set=feasible,
        agents=len(agents),
        least=sharing.least,
        most=sharing.most,
        disagreement=points if points.any() else None,
    )


def _unknown(sharing: Sharing, agents: Sequence[str]) -> Iterator[RivageError]:
    """Names in the table that nobody and nothing has."""
    shown = ", ".join(agents[:8]) + (f" and {len(agents) - 8} more" if len(agents) > 8 else "")
    for key, named in (("rates", sharing.rates), ("disagreement", sharing.points)):
        for name in named:
            if name and name not in agents:
                yield ConfigError(
                    f'{key} has "{name}", who is no agent', where="[sharing]", mend=f"Agents are {shown}."
                )
    for agent, given in sharing.rates.items():
        several = set(sharing.resources) != {""}
        if not isinstance(given, float | int) and not several:
            yield ConfigError(
                f"rates of {agent} is a table", where="[sharing]", mend="Give a number: there is one budget."
            )
        elif not isinstance(given, float | int):
            for name in given:
                if name not in sharing.resources:
                    mend = f"Resources are {', '.join(sharing.resources)}."
                    yield ConfigError(
                        f'rates of {agent} has "{name}", which is no resource', where="[sharing]", mend=mend
                    )


def _undecided(sharing: Sharing, agents: int) -> Iterator[RivageError]:
    if agents < 2:
        yield ConfigError("there is only one agent: it gets all", where="[demand]", mend="Give two or more.")
    elif sharing.largest * agents <= 1:
        yield ConfigError(
            f"largest is {sharing.largest:g}: {agents} agents cannot have more than {sharing.largest * agents:g} of a "
            "budget together, and there is nothing to decide",
            where="[sharing]",
            mend=f"Give more than {1 / agents:.3g}.",
        )


def _mark(instance: FairInstance, agents: Sequence[str], *arrays: ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    points = np.zeros(0) if instance.disagreement is None else instance.disagreement
    digest.update("\n".join(agents).encode())
    for part in (np.array([instance.least, instance.most]), points, *arrays):
        digest.update(repr(part.shape).encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()

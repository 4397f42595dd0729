"""Studies of long-term fair sharing, table ``[sharing]``: what is shared, what is wanted, who decides, what is fair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from rivage.core.errors import ConfigError, require
from rivage.core.registry import Registry
from rivage.core.settings import OneOf, combine
from rivage.online.registry import FAIR_POLICIES
from rivage.studies.games.sharing_demands import DEMANDS
from rivage.studies.games.study import Competitor, GameRun, require_game

if TYPE_CHECKING:
    from rivage.online.fair_contenders import FairContender
else:  # resolved when a study is read: policies are compiled
    FairContender = Any

__all__ = ["Sharing", "SharingPlay", "SharingPlayer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What is shared, and what is fair.

    Args:
        alpha: inequality aversion, >= 0: 0 is the sum of mean utilities, 1 proportional fairness, the larger the closer
            to the agent who has least. What policies are judged by, and aim at unless they say otherwise.
        budget: of a slot, > 0, in the unit of demands; of several resources, a table from names to numbers. All of it
            is handed out, since more never harms.
        rates: work that a unit does for an agent, >= 0, 1 where not given: a table from agents to numbers, or of
            several resources to tables such as ``{ fast = 1.0, slow = 0.3 }``.
        largest: share of each budget that one agent can have at most, in (0, 1].
        unit: of utilities: ``own`` divides by what the agent would have on average with all that one can have,
            ``given`` leaves them as they are.
        least: u_min > 0, the smallest utility that is told from less; it bounds how much an agent can weigh.
        most: u_max > u_min, the largest one.
        disagreement: what each agent has without an agreement, in units of utilities; fairness concerns what lies
            above. One number for all, or a table from agents to numbers, 0 for others.
    """

    alpha: float = 1.0
    budget: float | Mapping[str, float] = 1.0
    rates: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)
    largest: float = 1.0
    unit: Literal["own", "given"] = "own"
    least: float = 0.1
    most: float = 1.0
    disagreement: float | Mapping[str, float] = 0.0

    def __post_init__(self) -> None:
        if problems := list(self._faults()):
            raise combine(problems)

    def _faults(self) -> Iterator[ConfigError]:
        checks: list[tuple[float, str, dict[str, float]]] = [
            (self.alpha, "alpha", {"least": 0.0}),
            (self.least, "least", {"above": 0.0}),
            (self.most, "most", {"above": self.least}),
            *((amount, f"budget{f' of {name}' if name else ''}", {"above": 0.0}) for name, amount in self._budgets()),
            *((rate, f"rate of {name}", {"least": 0.0}) for name, rate in self._listed_rates()),
        ]
        for value, name, limits in checks:
            try:
                require(value, name, **limits)
            except ConfigError as error:
                yield error
        if not 0 < self.largest <= 1:
            yield ConfigError(f"largest is {self.largest}", mend="Give a share of the budget, above 0 and at most 1.")
        if not self.resources:
            yield ConfigError("budget is empty", mend="Name at least one resource.")
        for name, point in self._points():
            if not abs(point) < float("inf"):
                yield ConfigError(f"disagreement{name and f' of {name}'} is {point}", mend="Give a finite number.")

    def _budgets(self) -> list[tuple[str, float]]:
        return [*self.budget.items()] if isinstance(self.budget, Mapping) else [("", self.budget)]

    def _points(self) -> list[tuple[str, float]]:
        given = self.disagreement
        return [*given.items()] if isinstance(given, Mapping) else [("", given)]

    def _listed_rates(self) -> Iterator[tuple[str, float]]:
        for agent, given in self.rates.items():
            pairs = given.items() if isinstance(given, Mapping) else [("", given)]
            yield from ((f"{agent}{name and f' with {name}'}", rate) for name, rate in pairs)

    @property
    def resources(self) -> dict[str, float]:
        """Name -> budget; the only one has no name."""
        return dict(self._budgets())

    @property
    def points(self) -> dict[str, float]:
        """Agent -> point of disagreement; no name stands for all."""
        return dict(self._points())

    def rate(self, agent: str, resource: str) -> float:
        """What a unit of a resource does for an agent."""
        given = self.rates.get(agent, 1.0)
        return float(given.get(resource, 1.0)) if isinstance(given, Mapping) else float(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingPlayer(Competitor):
    """Somebody who shares, in a study.

    Args:
        name: what it is called in this study; its kind when left out.
        policy: the policy with its settings.
    """

    registry: ClassVar[Registry] = FAIR_POLICIES
    policy: Annotated[FairContender, OneOf(FAIR_POLICIES)] = field(metadata={"flat": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingPlay:
    """A comparison of policies that share the same among the same agents.

    Args:
        name: what the run folder is called after.
        sharing: what is shared, and what is fair.
        demand: the agents, and what they want slot by slot.
        policies: the competitors, at least one.
        run: seeds and meters.
    """

    game: ClassVar[str] = "sharing"

    name: str
    sharing: Sharing = field(default_factory=Sharing)
    demand: Annotated[Any, OneOf(DEMANDS)]
    policies: tuple[SharingPlayer, ...]
    run: GameRun = field(default_factory=GameRun)

    def __post_init__(self) -> None:
        require_game(self.name, [each.name for each in self.policies], "ohf")

"""Studies of a placement, ``rivage place``: the tables of a delivery, and planners that decide once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from rivage.core.registry import Registry
from rivage.core.settings import OneOf, combine, read
from rivage.core.toml import apply_overrides, load_toml
from rivage.graphs.underlay_kinds import UNDERLAYS
from rivage.inference.demand import DEMANDS
from rivage.inference.planners import PLANNERS
from rivage.inference.scene import Site
from rivage.studies.games.delivery import Delivery
from rivage.studies.games.study import Competitor, GameRun
from rivage.studies.shared_checks import ambiguous, blank

if TYPE_CHECKING:
    from rivage.inference.planners import Planner
else:  # resolved when a study is read: planners are compiled
    Planner = Any

__all__ = ["Candidate", "Placement", "load_placement"]

_PLANNERS = ({"kind": "relaxed"}, {"kind": "greedy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Competitor):
    """A planner in a study.

    Args:
        name: what it is called in this study; its kind when left out.
        policy: the planner with its settings.
    """

    registry: ClassVar[Registry] = PLANNERS
    policy: Annotated[Planner, OneOf(PLANNERS)] = field(metadata={"flat": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A comparison of planners on the same network and requests.

    Args:
        name: what the run folder is called after.
        delivery: what is delivered.
        underlay: the network.
        sites: what its nodes hold.
        requests: what is asked; a plan is for the mean of its slots.
        planners: the competitors; rounding the relaxation and greedy when left out.
        run: seeds.
    """

    game: ClassVar[str] = "planners"

    name: str
    delivery: Delivery
    underlay: Annotated[Any, OneOf(UNDERLAYS)]
    sites: tuple[Site, ...]
    requests: Annotated[Any, OneOf(DEMANDS)]
    planners: tuple[Candidate, ...]
    run: GameRun = field(default_factory=GameRun)

    def __post_init__(self) -> None:
        names = [each.name for each in self.planners]
        if problems := [*blank(self.name), *ambiguous(names, "planner", "planners", "relaxed")]:
            raise combine(problems)


def load_placement(path: Path, overrides: Sequence[str] = ()) -> Placement:
    """The study in a TOML file; its ``[[policies]]`` are for ``rivage play`` and are left alone.

    Args:
        path: of the file.
        overrides: ``KEY=VALUE`` as for `rivage.core.toml.apply_overrides`.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    mapping = {"name": path.stem, "planners": list(_PLANNERS), **load_toml(path)}
    mapping.pop("policies", None)
    where = str(path)
    if overrides:
        mapping = apply_overrides(mapping, overrides)
        where = " ".join([where, "with", *(f"--set {override}" for override in overrides)])
    return read(Placement, mapping, where)

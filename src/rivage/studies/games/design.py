"""Studies of overlays, ``rivage design``: a network, what its silos do in a round, and designers that compete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from rivage.core.errors import ConfigError, require
from rivage.core.registry import Registry
from rivage.core.settings import OneOf, combine, read
from rivage.core.toml import apply_overrides
from rivage.decentralized.clock import Clock
from rivage.decentralized.designers import DESIGNERS
from rivage.decentralized.silo_settings import NETWORKS, SiloSettings
from rivage.studies.games.study import Competitor, GameRun
from rivage.studies.shared_checks import ambiguous, blank

if TYPE_CHECKING:
    from rivage.decentralized.designers import Designer
else:  # resolved when a study is read
    Designer = Any

__all__ = ["BOUND", "CONTENDERS", "DesignStudy", "OverlayCandidate", "make_design"]

BOUND = "lower_bound"
"""The trial that bounds the cycle time of every overlay; no overlay may be called so."""

CONTENDERS: Sequence[Mapping[str, Any]] = (
    {"name": "star", "kind": "star", "hub": "first"},
    {"name": "star_best", "kind": "star", "hub": "best"},
    {"name": "mst", "kind": "mst"},
    {"name": "delta_mbst", "kind": "delta_mbst"},
    {"name": "ring", "kind": "ring", "improve": False},
    {"name": "ring_2opt", "kind": "ring"},
    {"name": "matcha", "kind": "matcha"},
    {"name": "matcha_plus", "kind": "matcha", "base": "links"},
    {"name": "best", "kind": "directed"},
)
"""The overlays of a study that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayCandidate(Competitor):
    """A designer in a study.

    Args:
        name: what its overlay is called in this study; its kind when left out.
        policy: the designer with its settings.
    """

    registry: ClassVar[Registry] = DESIGNERS
    policy: Annotated[Designer, OneOf(DESIGNERS)] = field(metadata={"flat": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How long to look for a lower bound.

    Args:
        seconds: after which no further silo is looked at, > 0.
        solver_seconds: for a stronger bound by OR-tools, which nobody can check without it, >= 0; 0 asks for none.
    """

    seconds: float = 45.0
    solver_seconds: float = 0.0

    def __post_init__(self) -> None:
        require(self.seconds, "seconds", above=0)
        require(self.solver_seconds, "solver_seconds", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignStudy:
    """A comparison of overlays for the same silos.

    Args:
        name: what the run folder is called after.
        silos: what they do in a round, and their access links.
        underlay: the network between them.
        overlays: the competitors; those of the literature and a search for the best when left out.
        bound: how long to look for a lower bound.
        times: how times of work and of messages scatter round their means; left out, they do not.
        run: seeds.
    """

    game: ClassVar[str] = "overlays"

    name: str
    silos: SiloSettings
    underlay: Annotated[Any, OneOf(NETWORKS)]
    overlays: tuple[OverlayCandidate, ...]
    bound: Bound = field(default_factory=Bound)
    times: Clock | None = None
    run: GameRun = field(default_factory=GameRun)

    def __post_init__(self) -> None:
        names = [each.name for each in self.overlays]
        problems = [*blank(self.name), *ambiguous(names, "overlay", "overlays", "ring")]
        if BOUND in names:
            where = f"[[overlays]] {names.index(BOUND) + 1}"
            problems.append(ConfigError(f'"{BOUND}" is what the bound is called', where=where, mend="Rename it."))
        if problems:
            raise combine(problems)


def make_design(mapping: Mapping[str, Any], where: str = "", overrides: Sequence[str] = ()) -> DesignStudy:
    """The study that a mapping describes; without overlays, those of the literature that its network allows.

    Raises:
        ConfigError: listing everything that is wrong, after the place ``where``.
    """
    underlay = mapping.get("underlay")
    measured = isinstance(underlay, Mapping) and underlay.get("kind") == "matrices"
    rivals = [dict(each) for each in CONTENDERS if not (measured and each["name"] == "matcha_plus")]
    table: dict[str, Any] = {"overlays": rivals, **mapping}
    if overrides:
        table = apply_overrides(table, overrides)
        where = " ".join([where, "with", *(f"--set {override}" for override in overrides)]).strip()
    return read(DesignStudy, table, where)

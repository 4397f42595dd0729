"""Studies of inference delivery, table ``[delivery]``: a network, what its nodes hold, what is asked, who decides.

The same file describes a replay, ``rivage play``, with ``[[policies]]``, and a plan, ``rivage place``, with
``[[planners]]``; each leaves the other's table alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from rivage.core.errors import ConfigError, RivageError, nearest, require
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.core.settings import OneOf, combine
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_kinds import UNDERLAYS
from rivage.inference.catalog import Catalog, load_catalog
from rivage.inference.demand import DEMANDS, Demand
from rivage.inference.instance import Instance
from rivage.inference.scene import Asked, Site, build_instance, nodes_at
from rivage.studies.games.study import Competitor, GameRun, require_game

if TYPE_CHECKING:
    from rivage.inference.policy import DeliveryPolicy
else:  # resolved when a study is read: policies are compiled
    DeliveryPolicy = Any

import numpy as np

from rivage.inference.policy import DELIVERY_POLICIES

__all__ = ["CLASSES", "Delivery", "DeliveryPlay", "Scene"]

CLASSES = {"xr": 20.0, "control": 10.0, "tactile": 1.0}
"""Latency classes -> deadline, milliseconds from request to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is delivered, and how it is judged.

    Args:
        catalog: one that comes with rivage, by name, or a TOML file.
        copies: of each task of the catalog, as tasks of their own, >= 1.
        alpha_ms_per_point: milliseconds that one point of accuracy, 0.01, is worth, >= 0.
        slot_s: seconds of a slot, > 0.
        deadlines: task, or "*" for all others -> milliseconds, or a class: xr (20), control (10), tactile (1).
        late_cost: what an answer after its deadline costs more, in milliseconds, >= 0.
    """

    catalog: str
    copies: int = 1
    alpha_ms_per_point: float = 1.0
    slot_s: float = 60.0
    deadlines: Mapping[str, float | str] = field(default_factory=dict)
    late_cost: float = 0.0

    def __post_init__(self) -> None:
        require(self.copies, "copies", least=1)
        require(self.alpha_ms_per_point, "alpha_ms_per_point", least=0.0)
        require(self.slot_s, "slot_s", above=0.0)
        require(self.late_cost, "late_cost", least=0.0)
        for task, given in self.deadlines.items():
            if isinstance(given, str) and given not in CLASSES:
                raise ConfigError(
                    f'deadline of "{task}" is "{given}"',
                    mend=nearest(given, CLASSES) or f"Give milliseconds, or a class: {', '.join(CLASSES)}.",
                )
            if not isinstance(given, str):
                require(given, f'deadline of "{task}"', least=0.0)

    def models(self) -> Catalog:
        """The catalog, with copies.

        Raises:
            ConfigError: for a catalog that cannot be read, and deadlines of tasks that it does not have.
        """
        catalog = load_catalog(self.catalog).copies(self.copies)
        kinds = {"*", *catalog.tasks, *(task.rpartition(" ")[0] for task in catalog.tasks if self.copies > 1)}
        if unknown := [task for task in self.deadlines if task not in kinds]:
            mend = nearest(unknown[0], kinds) or f"Tasks are {', '.join(catalog.tasks[:12])}."
            raise ConfigError(f'a deadline for "{unknown[0]}", which is no task', where="[delivery]", mend=mend)
        return catalog

    def deadline(self, task: str) -> float:
        """Milliseconds, infinite without one; a copy of a task has that of the task."""
        for name in (task, task.rpartition(" ")[0] if self.copies > 1 else task, "*"):
            if (given := self.deadlines.get(name)) is not None:
                return CLASSES[given] if isinstance(given, str) else float(given)
        return float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a study describes, for one seed.

    Args:
        underlay: the network.
        catalog: the models.
        instance: both, with what nodes hold and request types.
        demand: the requests.
    """

    underlay: Underlay
    catalog: Catalog
    instance: Instance
    demand: Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPlayer(Competitor):
    """A policy in a study.

    Args:
        name: what it is called in this study; its kind when left out.
        policy: the policy with its settings.
    """

    registry: ClassVar[Registry] = DELIVERY_POLICIES
    policy: Annotated[DeliveryPolicy, OneOf(DELIVERY_POLICIES)] = field(metadata={"flat": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPlay:
    """A comparison of policies on the same network and requests.

    Args:
        name: what the run folder is called after.
        delivery: what is delivered.
        underlay: the network.
        sites: what its nodes hold.
        requests: what is asked.
        policies: the competitors, at least one.
        run: seeds and meters.
    """

    game: ClassVar[str] = "delivery"

    name: str
    delivery: Delivery
    underlay: Annotated[Any, OneOf(UNDERLAYS)]
    sites: tuple[Site, ...]
    requests: Annotated[Any, OneOf(DEMANDS)]
    policies: tuple[DeliveryPlayer, ...]
    run: GameRun = field(default_factory=GameRun)

    def __post_init__(self) -> None:
        require_game(self.name, [each.name for each in self.policies], "infida")

    def scene(self, streams: Streams) -> Scene:
        """Build what the study describes.

        Raises:
            ConfigError, DataError: listing everything that is wrong.
        """
        return build_scene(self.delivery, self.underlay, self.sites, self.requests, streams)


def build_scene(delivery: Delivery, network: Any, sites: tuple[Site, ...], requests: Any, streams: Streams) -> Scene:
    """From settings to an instance and its requests.

    Raises:
        ConfigError, DataError: listing everything that is wrong.
    """
    problems = list[RivageError]()

    def attempt(make: Any, where: str) -> Any:
        try:
            return make()
        except RivageError as error:
            problems.append(error.at(where) if where else error)
            return None

    underlay = attempt(network.build, "[underlay]")
    catalog = attempt(delivery.models, "")
    if underlay is not None and catalog is None:
        for number, site in enumerate(sites, 1):
            attempt(lambda at=site.at: nodes_at(underlay, at), f"[[sites]] {number}")
    if underlay is None or catalog is None:
        raise combine(problems)
    demand: Demand = attempt(
        lambda: requests.build(underlay, catalog.tasks, delivery.slot_s, streams.child("demand")), "[requests]"
    )
    # Without requests the sites are looked at all the same: all that is wrong is told at once.
    entry, task = (demand.entry, demand.task) if demand else (np.zeros(1, np.int64), np.zeros(1, np.int64))
    limits = [delivery.deadline(catalog.tasks[number]) for number in task.tolist()]
    asked = Asked(entry=entry, task=task, deadline_ms=np.array(limits) if delivery.deadlines else None)
    instance = attempt(
        lambda: build_instance(
            underlay,
            catalog,
            sites,
            asked,
            slot_s=delivery.slot_s,
            alpha_ms_per_point=delivery.alpha_ms_per_point,
            late_cost=delivery.late_cost,
        ),
        "",
    )
    if problems:
        raise combine(problems)
    return Scene(underlay, catalog, instance, demand)

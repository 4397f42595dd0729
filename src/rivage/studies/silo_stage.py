"""Decentralised trials of a study: the network between its silos, the overlay of each method, and the clock.

Silo k is the k-th client that trains. Where every client is called like a node of the network, they belong together by
name; otherwise the k-th node is the k-th silo. An overlay is designed for what a method really sends and for the time
its local steps take, with seed 0, so that all seeds of a study train over the same one where the work is the same. A
trial that has begun keeps the overlay it has in its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, RivageError, nearest
from rivage.core.settings import dump, kind_of
from rivage.core.trial_records import TrialRecord
from rivage.decentralized.designers import DESIGNERS, Links
from rivage.decentralized.gossip import GossipAlgorithm, initial
from rivage.decentralized.mixing_plan import Drawn, MixingPlan
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.pace import Pace
from rivage.decentralized.planned_waiting import Planned
from rivage.decentralized.planning import plan_of
from rivage.decentralized.scattered import Scattered
from rivage.decentralized.silo_settings import SiloSettings
from rivage.decentralized.silo_trial import SiloTrial, Timekeeper
from rivage.decentralized.silos import Silos
from rivage.decentralized.waiting import Server
from rivage.federated.algorithm import Phase
from rivage.graphs.path_rules import Connectivity
from rivage.graphs.underlay import Underlay
from rivage.studies.stage import Stage, execution_of
from rivage.studies.study_tables import Method

__all__ = ["Designs", "SiloStage"]

Network = Underlay | Connectivity


@dataclass
class Designs:
    """What was designed so far in this process, by what it was designed for."""

    known: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class SiloStage:
    """The decentralised side of a stage.

    Args:
        stage: what the trials of a seed share.
        designs: shared by all seeds.
    """

    stage: Stage
    designs: Designs

    @cached_property
    def clients(self) -> Int64[ndarray, "silos"]:
        """Those that train."""
        return np.setdiff1d(np.arange(self.stage.population.size), self.stage.unseen)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the silos."""
        return tuple(self.stage.population.name(client) for client in self.clients.tolist())

    @cached_property
    def network(self) -> Network | None:
        """Between the silos; None where the study knows none."""
        return None if self.stage.study.underlay is None else self.stage.study.underlay.build()

    @cached_property
    def order(self) -> Int64[ndarray, "silos"]:
        """The node of each silo."""
        nodes = self.names if self.network is None else self.network.names
        if set(nodes) == set(self.names):
            return np.array([nodes.index(name) for name in self.names], np.int64)
        return np.arange(len(self.names))

    @cached_property
    def links(self) -> Links | None:
        """Of the underlay, as positions of silos."""
        if not isinstance(self.network, Underlay):
            return None
        silo = np.argsort(self.order)
        return [(int(silo[one]), int(silo[other])) for one, other in self.network.edges.tolist()]

    def misfits(self) -> Iterator[ConfigError]:
        """What keeps the decentralised methods of the study from its clients and its network."""
        if self.network is not None and len(self.network.names) != len(self.names):
            yield ConfigError(
                f"{len(self.network.names)} nodes for {len(self.names)} clients that train",
                where="[underlay]",
                mend="Give as many clients as the network has nodes; each silo is one of them.",
            )
        elif self.network is not None and (strangers := self._strangers()):
            known = set(self.network.names) - set(self.names)
            mend = f"Nodes without a client: {', '.join(sorted(known)[:5])}. {nearest(strangers[0], known)}".strip()
            yield ConfigError(f'client "{strangers[0]}" is no node, while others are', where="[underlay]", mend=mend)

    def _strangers(self) -> list[str]:
        """Clients that are called like no node, where some are."""
        assert self.network is not None, "asked for with one"
        strangers = [name for name in self.names if name not in self.network.names]
        return strangers if len(strangers) < len(self.names) else []

    def trial(self, method: Method, done: TrialRecord) -> SiloTrial:
        """A decentralised method on this stage.

        Args:
            method: of the study.
            done: what there is of its record; it may hold the overlay.

        Raises:
            ConfigError: when no overlay can be designed, or the method cannot train over it.
        """
        try:
            return self._trial(method, done)
        except RivageError as error:
            raise error.at(f'method "{method.name}"') from None

    def told(self, method: Method, trial: SiloTrial) -> str:
        """What a user reads of an overlay before the run."""
        overlay = trial.facts["overlay"]
        time = "" if self.network is None else f", {overlay['cycle_time_ms']:.5g} ms a round"
        return f"{method.name}: {len(overlay['arcs'])} arcs, at most {overlay['max_degree']} of one silo{time}"

    def _trial(self, method: Method, done: TrialRecord) -> SiloTrial:
        stage, algorithm, settings = self.stage, cast(GossipAlgorithm, method.algorithm), self.stage.study
        silos = self.silos(algorithm)
        told = self._designed(method, silos, done)
        overlay = Overlay.named(silos, [(one, other) for one, other in told["arcs"]], told["kind"])
        hub = None if told["hub"] is None else silos.names.index(told["hub"])
        plan = plan_of(algorithm, overlay, hub, links=self.links, seed=stage.seed)
        return SiloTrial(
            name=method.name,
            algorithm=algorithm,
            population=stage.population,
            task=stage.task,
            rounds=settings.run.rounds,
            plan=plan,
            clock=None if self.network is None else self._clock(silos, overlay, plan),
            seed=stage.seed,
            every=settings.evaluation.every,
            unseen=stage.unseen,
            facts={**stage.facts(method), "overlay": told, "silos": self._scene(silos)},
            execution=execution_of(settings),
        )

    def _clock(self, silos: Silos, overlay: Overlay, plan: MixingPlan) -> Timekeeper:
        """Start times of rounds; of one seed all methods have the same luck."""
        together, times = isinstance(plan, Drawn), self.stage.study.times
        if times is None:
            return Pace(silos=silos, plan=plan, together=together)
        if plan.hub is None:
            return Scattered(
                graph=Planned(silos=silos, plan=plan, together=together), times=times, seed=self.stage.seed
            )
        return Scattered(graph=Server.of_overlay(overlay, plan.hub), times=times, seed=self.stage.seed)

    def silos(self, algorithm: GossipAlgorithm) -> Silos:
        """What the silos do in a round of a method: one step that takes as long as all of its local steps."""
        models, dimension = initial(algorithm, self.stage.task, self.stage.seed), self.stage.task.dimension
        sent = algorithm.send(algorithm.start(models), models, algorithm.learning_rate)
        vectors = sum(values.numel() for values in sent.values()) / dimension
        steps = np.array([_steps(algorithm.work, records) for records in self._records], np.float64)
        steps *= models.numel() // dimension  # each of several models takes them
        silos = self._plain
        return replace(silos, step_ms=steps * silos.step_ms, local_steps=1, model_bits=silos.model_bits * vectors)

    @cached_property
    def _plain(self) -> Silos:
        """The silos with the time of one step, for one model."""
        task, settings = self.stage.task, self.stage.study.silos or SiloSettings()
        if self.network is None:
            return _nowhere(self.names)
        silos = settings.silos(self.network, 8.0 * task.dimension * task.dtype.itemsize)
        return silos.reordered(self.order)

    @cached_property
    def _records(self) -> list[int]:
        return [len(self.stage.population.client(client).train) for client in self.clients.tolist()]

    def _designed(self, method: Method, silos: Silos, done: TrialRecord) -> dict[str, Any]:
        """The overlay of a method in the words of its record: that of the record, if it has one."""
        for start in done.events("start"):
            return dict(start["overlay"])
        designer = cast(GossipAlgorithm, method.algorithm).overlay
        kind = kind_of(DESIGNERS, designer)
        key = dumps([kind, dump(designer), self._scene(silos), silos.connectivity.latency_ms.tolist()])
        if key not in self.designs.known:
            design = designer.design(silos, self.links, seed=0)
            delays = {"delays_ms": design.overlay.delays_ms.tolist(), "work_ms": silos.work_ms.tolist()}
            timed = delays if self.network is not None else {"cycle_time_ms": None, "error_ms": None}
            self.designs.known[key] = {"kind": kind, **design.plain(), "drawn": design.drawn, **timed}
        return self.designs.known[key]

    def _scene(self, silos: Silos) -> dict[str, Any]:
        """The silos in words and numbers."""
        places = getattr(self.network, "coordinates", None)
        return {
            "network": None if self.network is None else silos.name,
            "names": list(silos.names),
            "places": None if places is None else places[self.order].tolist(),
            "links": None if self.links is None else [list(link) for link in self.links],
            "model_bits": silos.model_bits,
            "step_ms": silos.step_ms.tolist(),
        }


def _nowhere(names: tuple[str, ...]) -> Silos:
    """Silos of which nothing is known but their names: all as far from one another."""
    count = len(names)
    apart = 1.0 - np.eye(count)
    between = Connectivity(names=names, latency_ms=apart, available_bps=np.full_like(apart, 1e12), name="clients")
    return Silos.of(between, model_bits=1.0, step_ms=0.0)


def _steps(work: Phase, records: int) -> int:
    """Local steps of a silo in a round."""
    if work.updates is not None:
        return work.updates
    return work.epochs * -(-records // min(work.batch_size or records, records)) if records else 0

"""What is designed for one seed of a study of overlays: a trial for the lower bound, and one for each overlay."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy import ndarray

from rivage.core.encoding import dumps
from rivage.core.errors import RivageError
from rivage.core.records import RunRecord
from rivage.core.settings import combine, dump
from rivage.decentralized.classical import mst, ring_2opt
from rivage.decentralized.cycle_time import critical_cycle
from rivage.decentralized.designers import Links, Searcher, named
from rivage.decentralized.designs import Design
from rivage.decentralized.fair_sharing import fair_cycle_time_ms
from rivage.decentralized.lower_bounds import CircuitProof, LowerBound, lower_bound
from rivage.decentralized.shared_bound import SharedBound, shared_bound
from rivage.decentralized.silos import Silos
from rivage.decentralized.stragglers import design_times
from rivage.graphs.underlay import Underlay
from rivage.online.references import reference_of
from rivage.studies.games.design import BOUND, DesignStudy, OverlayCandidate
from rivage.studies.games.study import Note, Trial

__all__ = ["DesignStage"]


@dataclass(frozen=True)
class Ground:
    """What all seeds share: the silos, what is known of their network, and the bound."""

    study: DesignStudy

    @cached_property
    def network(self) -> Any:
        """An `Underlay`, or a `rivage.graphs.Connectivity`."""
        return self.study.underlay.build()

    @cached_property
    def silos(self) -> Silos:
        """One at each node."""
        return self.study.silos.silos(self.network)

    @cached_property
    def links(self) -> Links | None:
        """Of the underlay."""
        if not isinstance(self.network, Underlay):
            return None
        return [(one, other) for one, other in self.network.edges.tolist()]

    @cached_property
    def bound(self) -> LowerBound:
        """What no overlay goes below."""
        return lower_bound(self.silos, seconds=self.study.bound.seconds)

    @cached_property
    def shared(self) -> SharedBound | None:
        """What a solver says none goes below; None where it is not asked."""
        seconds = self.study.bound.solver_seconds
        if not seconds:
            return None
        classical = min(ring_2opt(self.silos).cycle_time_ms, mst(self.silos).cycle_time_ms)
        return shared_bound(self.silos, self.bound, classical, seconds=seconds)

    @cached_property
    def scene(self) -> dict[str, Any]:
        """The silos in words and numbers."""
        silos, places = self.silos, getattr(self.network, "coordinates", None)
        return {
            "network": silos.name,
            "names": list(silos.names),
            "places": None if places is None else places.tolist(),
            "links": None if self.links is None else [list(link) for link in self.links],
            "model_bits": silos.model_bits,
            "local_steps": silos.local_steps,
            "step_ms": silos.step_ms.tolist(),
            "access_up_bps": _finite(silos.access_up_bps),
            "access_down_bps": _finite(silos.access_down_bps),
        }

    @cached_property
    def matrices(self) -> dict[str, Any]:
        """Latency and bandwidth of every two silos; null where there is no limit."""
        between = self.silos.connectivity
        assert between.available_bps is not None, "checked when silos were made"
        return {"latency_ms": between.latency_ms.tolist(), "available_bps": _finite(between.available_bps)}

    def misfits(self) -> Iterator[tuple[int, RivageError]]:
        """Which overlays, counted from 1, do not fit the silos."""
        for number, candidate in enumerate(self.study.overlays, 1):
            try:
                candidate.policy.require(self.silos, self.links)
            except RivageError as error:
                yield number, error

    @cached_property
    def fingerprint(self) -> str:
        """Of all that cycle times depend on, those with shared links too."""
        network = self.network
        shared = network.capacity_bps if isinstance(network, Underlay) else None
        text = dumps({**self.scene, **self.matrices, "capacity_bps": None if shared is None else shared.tolist()})
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class DesignStage:
    """The silos, and one seed."""

    study: DesignStudy
    seed: int
    ground: Ground

    unit: ClassVar[str] = "overlays"

    @classmethod
    def build(cls, study: DesignStudy, seed: int, before: DesignStage | None = None) -> Self:
        """Read the network.

        Raises:
            ConfigError, DataError: listing everything that is wrong.
        """
        ground = Ground(study) if before is None else before.ground
        _ = ground.fingerprint  # reads all there is to read
        problems = [fault.at(f"[[overlays]] {number}") for number, fault in ground.misfits()]
        if problems:
            raise combine(problems)
        return cls(study, seed, ground)

    @property
    def trials(self) -> list[Trial]:
        """The bound, then every overlay."""
        facts = {"policy": BOUND, "kind": BOUND, "foresees": True, "scene": self.ground.scene}
        bound = Trial(BOUND, self.seed, 1, self.ground.fingerprint, facts, self._bound)
        return [bound, *(self._trial(candidate) for candidate in self.study.overlays)]

    @property
    def notices(self) -> Iterator[str]:
        """What the user should read before the run."""
        silos, rule = self.ground.silos, ""
        if isinstance(self.ground.network, Underlay):
            chosen = self.study.silos.rule(self.ground.network)
            rule = "; paths " + ("as published" if chosen.bandwidth == "capacity_over_hops" else "by their links")
            assumed = "" if self.study.silos.core_bps is not None else " as nothing else is said (silos.core_bps)"
            rule += "" if chosen.core_bps is None else f", links of {chosen.core_bps / 1e9:.4g} Gbit/s{assumed}"
        counted = "1 silo" if len(silos) == 1 else f"{len(silos):,} silos"
        yield f"{counted}, {silos.model_bits / 1e6:.4g} Mbit a message{rule}"
        if not np.isfinite(silos.access_up_bps).all():
            yield "access rates are not known: access links are taken to be no limit (set silos.access_bps)"
        if not silos.work_ms.any():
            yield "local steps are taken to need no time (set silos.step_ms)"

    @staticmethod
    def claims(record: RunRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The bound; of every overlay that is the same in every round, its cycle time and how far it is above."""
        yield "cycle_time_bound", {}
        for trial in {trial.method: trial for trial in record.trials if trial.method != BOUND}.values():
            if trial.events("overlay")[0]["drawn"]:
                continue
            yield "cycle_time", {"method": trial.method}
            yield "overlay_gap", {"method": trial.method}

    def _trial(self, candidate: OverlayCandidate) -> Trial:
        facts = {
            "policy": candidate.name,
            "kind": candidate.kind,
            "foresees": False,
            "settings": dump(candidate.policy),
            "reference": reference_of(candidate.policy),
        }
        play = partial(self._design, candidate)
        return Trial(candidate.name, self.seed, 1, self.ground.fingerprint, facts, play)

    def _bound(self, note: Note) -> dict[str, Any]:
        note({"event": "network", **self.ground.matrices}, 0, "")
        found = self.ground.bound
        told = {"value_ms": found.value_ms, "silo": found.silo, "complete": found.complete}
        shared = self.ground.shared
        stronger = {} if shared is None else {"solver_ms": shared.value_ms, "solver_silos": list(shared.silos)}
        note({"event": "bound", **told, **stronger, "proof": _proof(found.proof)}, 1, f"{found.value_ms:.5g} ms")
        return {"seconds": found.seconds + (0.0 if shared is None else shared.seconds)}

    def _design(self, candidate: OverlayCandidate, note: Note) -> dict[str, Any]:
        least, started = self.ground.bound.value_ms, time.perf_counter()
        designer, silos, links = candidate.policy, self.ground.silos, self.ground.links
        if isinstance(designer, Searcher):
            found = designer.search(silos, links, seed=self.seed, least_ms=least, watch=partial(_progress, note))
        else:
            found = designer.design(silos, links, seed=self.seed, least_ms=least)
        seconds = time.perf_counter() - started
        event = {"event": "overlay", "kind": candidate.kind, **_told(named(found, candidate.name))}
        note({**event, **self._otherwise(found)}, 1, f"{found.cycle_time_ms:.5g} ms a round")
        return {"seconds": seconds}

    def _otherwise(self, design: Design) -> dict[str, Any]:
        """The mean time of a round when times scatter, with its 95 % interval, and when messages share links fairly."""
        told: dict[str, Any] = {}
        if design.drawn:
            return told
        if self.study.times is not None and (times := design_times(design, self.study.times, seed=self.seed)):
            told["scattered_ms"] = dict(zip(("mean", "low", "high"), times, strict=True))
        network = self.ground.network
        if isinstance(network, Underlay) and design.hub is None:  # a server does not send while it receives
            core = self.study.silos.rule(network).core_bps
            told["fair_ms"] = fair_cycle_time_ms(design.overlay, network, core_bps=core)
        return told


def _progress(note: Note, share: float, best_ms: float) -> None:
    """Tell the user, not the record: how far a search is depends on the clock."""
    note(None, 0, f"{best_ms:.5g} ms a round, {100 * share:.0f} % of the search")


def _told(design: Design) -> dict[str, Any]:
    """An overlay with the delays of its arcs, and the potentials that prove its cycle time where circuits set it."""
    overlay, drawn = design.overlay, design.drawn
    proved = not drawn and design.hub is None
    return {
        **design.plain(),
        "drawn": drawn,
        "delays_ms": overlay.delays_ms.tolist(),
        "work_ms": overlay.silos.work_ms.tolist(),
        "potentials": critical_cycle(overlay).potentials.tolist() if proved else None,
    }


def _proof(proof: CircuitProof | None) -> dict[str, Any] | None:
    """Multipliers as JSON values; sets as lists of their members."""
    if proof is None:
        return None
    sets = [np.flatnonzero(row).tolist() for row in proof.sets]
    plain = {key: value.tolist() if isinstance(value, ndarray) else value for key, value in _fields(proof).items()}
    return {**plain, "sets": sets}


def _fields(proof: CircuitProof) -> dict[str, Any]:
    return {key: value for key, value in asdict(proof).items() if key != "sets"}


def _finite(values: ndarray) -> Any:
    """Nested lists, with None for infinity."""
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    return plain.tolist()

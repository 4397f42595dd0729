"""What is planned for one seed of a study of a placement."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.inference.gain import contend
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen
from rivage.inference.pooled import Pooled, crossings, pooled_optimum
from rivage.inference.replay import Meters, require_feasible
from rivage.online.references import reference_of
from rivage.studies.games.delivery import Scene, build_scene
from rivage.studies.games.delivery_stage import fingerprint, placed, scene_facts
from rivage.studies.games.placement import Candidate, Placement
from rivage.studies.games.study import Note, Trial

__all__ = ["PlacementStage"]

MEMORY = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Multiples of all budgets for which the relaxation is solved: what more memory would buy."""

ALPHAS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
"""Multiples of what accuracy is worth, likewise: how latency and accuracy trade."""

_CURVED = 20_000  # with more ways to answer, the relaxation is not solved again and again for the curves


@dataclass(frozen=True)
class PlacementStage:
    """The network and the mean requests of one seed."""

    study: Placement
    seed: int
    scene: Scene

    unit: ClassVar[str] = "plans"

    @classmethod
    def build(cls, study: Placement, seed: int, before: PlacementStage | None = None) -> Self:
        """Build the scene.

        Raises:
            ConfigError, DataError: listing everything that is wrong.
        """
        streams = Streams(seed)
        return cls(study, seed, build_scene(study.delivery, study.underlay, study.sites, study.requests, streams))

    @property
    def trials(self) -> list[Trial]:
        """Every planner."""
        return [self._trial(candidate) for candidate in self.study.planners]

    @property
    def notices(self) -> Iterator[str]:
        """What the user should read before the run."""
        instance = self.scene.instance
        nodes, models = instance.shape
        yield (
            f"{models:,} models on {nodes:,} nodes, {int(instance.free.sum()):,} places to decide about; "
            f"{instance.types:,} request types with {len(instance.ranking):,} ways to answer"
        )

    @staticmethod
    def claims(record: RunRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Of every planner: how far from the bound, and whether it fits."""
        for method in dict.fromkeys(trial.method for trial in record.trials):
            yield "placement_gap", {"method": method}
            yield "placement_fits", {"method": method}

    @cached_property
    def requests(self) -> Float64[ndarray, "types"]:
        """Of the mean slot."""
        mean: Float64[ndarray, "types"] = self.scene.demand.requests.mean(axis=0)
        return mean

    @cached_property
    def relaxation(self) -> Pooled:
        """What nobody can do better than."""
        return pooled_optimum(self.scene.instance, self.requests)

    def _trial(self, candidate: Candidate) -> Trial:
        facts = {
            "policy": candidate.name,
            "kind": candidate.kind,
            "foresees": False,
            "settings": dump(candidate.policy),
            "reference": reference_of(candidate.policy),
            "scene": scene_facts(self.scene),
        }
        return Trial(candidate.name, self.seed, 1, self._fingerprint, facts, partial(self._plan, candidate))

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.scene)

    def _plan(self, candidate: Candidate, note: Note) -> dict[str, Any]:
        instance, requests = self.scene.instance, self.requests
        note({**self._bound, "event": "relaxation"}, 0, "")
        started = time.perf_counter()
        loaded = candidate.policy.plan(instance, requests, self.relaxation, Streams(self.seed).child("planner"))
        spent = time.perf_counter() - started
        require_feasible(instance, loaded)
        slot, served = contend(instance, requests, loaded)
        meters = Meters(instance)
        meters.read(Seen(slot, loaded, served), instance.pinned, None)
        cost = meters.cost / meters.requests
        note({**meters.point(), "routing": _routing(instance, served)}, 1, f"cost {cost:.4g} per request")
        note({"event": "placed", "loaded": placed(loaded), "used": _used(instance, loaded)}, 1, "")
        return {"slots": 1, "seconds": spent}

    @cached_property
    def _bound(self) -> dict[str, Any]:
        """The relaxation, its prices, and the curves over memory and accuracy."""
        instance, found = self.scene.instance, self.relaxation
        return {
            "least": found.cost,
            "memory_prices": found.memory_prices.tolist(),
            "links": [[*link, count] for link, count in sorted(crossings(instance, found.served).items())],
            "budgets": [float(each) if np.isfinite(each) else None for each in instance.free_budgets],
            **(self._curves() if len(instance.ranking) <= _CURVED else {"memory": [], "alphas": []}),
        }

    def _curves(self) -> dict[str, Any]:
        instance = self.scene.instance
        kept = instance.budgets - instance.free_budgets
        memory = [
            [times, self._relaxed(replace(instance, budgets=kept + times * instance.free_budgets), times).cost]
            for times in MEMORY
        ]
        alphas = []
        for times in ALPHAS:
            other = replace(instance, alpha=times * instance.alpha)
            served, ranking = self._relaxed(other, times).served, other.ranking
            accuracy = other.accuracy[ranking.model]
            alphas.append(
                [other.alpha, *(float(served @ each / served.sum()) for each in (ranking.latency_ms, accuracy))]
            )
        return {"memory": memory, "alphas": alphas}

    def _relaxed(self, instance: Instance, times: float) -> Pooled:
        """The relaxation of an instance with so many times something; that of the study is solved already."""
        return self.relaxation if times == 1.0 else pooled_optimum(instance, self.requests)


def _routing(instance: Instance, served: Float64[ndarray, "ranks"]) -> list[list[Any]]:
    """Task, node of entry, node and model that answer, requests per slot, latency and cost; only what is used."""
    ranking, rows = instance.ranking, list[list[Any]]()
    for k in np.flatnonzero(served > 0).tolist():
        kind = int(ranking.type[k])
        where = int(instance.asked[kind]), int(instance.paths[kind, 0]), int(ranking.node[k]), int(ranking.model[k])
        rows.append([*where, float(served[k]), float(ranking.latency_ms[k]), float(ranking.cost[k])])
    return rows


def _used(instance: Instance, loaded: ndarray) -> list[float]:
    """Memory that free models take on each node."""
    used: list[float] = np.where(loaded & instance.free, instance.sizes, 0.0).sum(axis=1).tolist()
    return used

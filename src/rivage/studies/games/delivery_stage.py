"""What is played for one seed of a study of inference delivery."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from rivage.core.errors import RivageError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import combine, dump
from rivage.inference.replay import deliver
from rivage.online.references import reference_of
from rivage.studies.games.delivery import DeliveryPlay, DeliveryPlayer, Scene
from rivage.studies.games.study import Note, Trial

__all__ = ["DeliveryStage", "fingerprint", "placed", "scene_facts"]


@dataclass(frozen=True)
class DeliveryStage:
    """The network and the requests of one seed."""

    study: DeliveryPlay
    seed: int
    scene: Scene

    unit: ClassVar[str] = "slots"

    @classmethod
    def build(cls, study: DeliveryPlay, seed: int, before: DeliveryStage | None = None) -> Self:
        """Build the scene, and see whether every policy can play in it.

        Raises:
            ConfigError, DataError: listing everything that is wrong.
        """
        stage = cls(study, seed, study.scene(Streams(seed)))
        if problems := list(stage._misfits()):
            raise combine(problems)
        return stage

    @property
    def trials(self) -> list[Trial]:
        """Every policy."""
        return [self._trial(player) for player in self.study.policies]

    @property
    def notices(self) -> Iterator[str]:
        """What the user should read before the run."""
        instance, requests = self.scene.instance, self.scene.demand.requests
        nodes, models = instance.shape
        yield (
            f"{requests.sum():,.0f} requests of {instance.types:,} types in {len(requests):,} slots; {models:,} models "
            f"on {nodes:,} nodes, {len(instance.ranking):,} ways to answer"
        )
        if not instance.free.any():
            yield "every node holds all that it can: there is nothing to decide"

    @staticmethod
    def claims(record: RunRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The bound of every policy that has one, and the gap of every rival to what no fixed allocation exceeds."""
        yardsticks = {trial.method for trial in record.trials if trial.start["foresees"]}
        for method in dict.fromkeys(trial.method for trial in record.trials):
            ends = [trial.events("point")[-1] for trial in record.trials if trial.method == method]
            if all(end["bound"] is not None for end in ends):
                yield "delivery_regret", {"method": method}
            if method not in yardsticks:
                yield "delivery_gap", {"method": method}

    def _misfits(self) -> Iterator[RivageError]:
        for number, player in enumerate(self.study.policies, 1):
            try:
                player.policy.init(self.scene.instance, Streams(self.seed), slots=len(self.scene.demand.requests))
            except RivageError as error:
                yield error.at(f"[[policies]] {number}")

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.scene)

    def _trial(self, player: DeliveryPlayer) -> Trial:
        facts = {
            "policy": player.name,
            "kind": player.kind,
            "foresees": hasattr(player.policy, "foresee"),
            "settings": dump(player.policy),
            "reference": reference_of(player.policy),
            "scene": scene_facts(self.scene),
        }
        slots = len(self.scene.demand.requests)
        return Trial(player.name, self.seed, slots, self._fingerprint, facts, partial(self._play, player))

    def _play(self, player: DeliveryPlayer, note: Note) -> dict[str, Any]:
        requests = self.scene.demand.requests
        note(self._reference, 0, "")
        # Let what is compiled on first use be compiled before time is taken.
        deliver(player.policy, self.scene.instance, list(requests[:1]), streams=Streams(0))
        played = deliver(
            player.policy,
            self.scene.instance,
            list(requests),
            streams=Streams(self.seed).child("policy"),
            every=-(-len(requests) // self.study.run.points),
            observe=lambda event: note(event, event["slots"], f"gain {event['ntag']:.4g} per request"),
        )
        note({"event": "placed", "loaded": placed(played.loaded)}, len(requests), "")
        return {"slots": len(requests), "seconds": played.seconds}

    @cached_property
    def _reference(self) -> dict[str, Any]:
        """What a slot costs at least with any fixed allocation, the same for all trials of the seed."""
        from rivage.inference.pooled import pooled_optimum

        found = pooled_optimum(self.scene.instance, self.scene.demand.requests.mean(axis=0))
        return {"event": "reference", "least": found.cost}


def placed(loaded: Bool[ndarray, "nodes models"]) -> list[list[int]]:
    """The numbers of the models on each node."""
    return [np.flatnonzero(row).tolist() for row in loaded]


def scene_facts(scene: Scene) -> dict[str, Any]:
    """What the record says of a scene."""
    instance, requests = scene.instance, scene.demand.requests
    return {
        "network": scene.underlay.name,
        "nodes": list(scene.underlay.names),
        "tiers": list(scene.underlay.tiers or ()),
        "links": [[int(end) for end in link] for link in scene.underlay.edges],
        "models": [model.name for model in scene.catalog.models],
        "tasks": list(scene.catalog.tasks),
        "catalog": scene.catalog.name,
        "types": instance.types,
        "ways": len(instance.ranking),
        "slots": len(requests),
        "requests": float(requests.sum()),
        "alpha": instance.alpha,
        "deadlines": instance.deadline_ms is not None,
    }


def fingerprint(scene: Scene) -> str:
    """A hash of all that is played on and told of it: files may have changed behind equal settings."""
    instance, digest = scene.instance, hashlib.sha256(repr(scene_facts(scene)).encode())
    ranking = instance.ranking
    arrays = (
        instance.task, instance.sizes, instance.throughput, instance.budgets, instance.pinned, instance.accuracy,
        instance.asked, instance.paths, ranking.first, ranking.place, ranking.cost, ranking.latency_ms,
        np.inf if instance.deadline_ms is None else instance.deadline_ms, scene.demand.requests,
    )  # fmt: skip
    for array in map(np.asarray, arrays):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

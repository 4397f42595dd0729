"""What is played for one seed of a study of one cache.

A trace in a file is read once, a block at a time, and played from the numbers of its items on the disk: memory does not
grow with the requests, unless a policy keeps them. A trace that is generated is made in memory, once for each seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from rivage.core.errors import RivageError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import combine, dump
from rivage.data.replays import Replay
from rivage.data.requests import RequestTrace
from rivage.online.game import play
from rivage.online.policy import CacheInstance
from rivage.online.references import reference_of
from rivage.studies.games.caches import Play, Player
from rivage.studies.games.study import Note, Trial

__all__ = ["CacheStage"]


@dataclass(frozen=True)
class CacheStage:
    """The requests of one seed, and the caches that meet them."""

    study: Play
    seed: int
    replay: Replay
    capacities: tuple[int, ...]

    unit: ClassVar[str] = "requests"

    @classmethod
    def build(cls, study: Play, seed: int, before: CacheStage | None = None) -> Self:
        """Read or draw the requests; a file holds the same for all seeds.

        Raises:
            ConfigError: for settings that do not fit the trace.
            DataError: for a trace or costs that cannot be used.
        """
        if before is not None and hasattr(study.trace, "stream"):
            return cls(study, seed, before.replay, before.capacities)
        replay = Replay.of(_parts(study, seed), costs=study.cache.costs)
        stage = cls(study, seed, replay, study.cache.capacities(replay.items))
        if problems := list(stage._misfits()):
            raise combine(problems)
        return stage

    @property
    def trials(self) -> list[Trial]:
        """Every policy with every capacity."""
        return [self._trial(player, place) for player in self.study.policies for place in range(len(self.capacities))]

    @property
    def notices(self) -> Iterator[str]:
        """What the user should read before the run."""
        replay = self.replay
        yield f"{replay.requests:,} requests for {replay.items:,} items, {replay.distinct:,} of them asked for"
        if replay.varying:
            yield f"requests for the same item cost different amounts ({replay.varying:,} of the items): means count"
        seers = [player.name for player in self.study.policies if hasattr(player.policy, "foresee")]
        if seers:
            yield f"{', '.join(seers)}: told all requests beforehand and no rival of the others"
        for player in self.study.policies:
            if kept := getattr(player.policy, "bytes_per_request", 0):
                yield f"{player.name}: keeps the trace in memory, {kept * replay.requests / 1e6:,.1f} MB"

    @staticmethod
    def claims(record: RunRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The bound of every policy that has one, and the gap of every rival to the best fixed set."""
        ends = {trial.method: trial.events("point")[-1] for trial in record.trials}
        for method, end in ends.items():
            if end["bound"] is not None:
                yield "regret_bound", {"method": method}
        yardsticks = {trial.method for trial in record.trials if trial.start["foresees"]}
        for method, end in ends.items():
            if method not in yardsticks:
                yield "optimum_gap", {"method": method}
                if end["windowed"] is not None:
                    yield "optimum_gap", {"method": method, "against": "windowed"}

    def _instance(self, place: int) -> CacheInstance:
        return CacheInstance(
            items=self.replay.items,
            capacity=self.capacities[place],
            horizon=self.replay.requests if self.study.cache.horizon == "known" else None,
            weights=self.replay.weights,
        )

    def _misfits(self) -> Iterator[RivageError]:
        """Policies that refuse the cache. O(N) for each."""
        for number, player in enumerate(self.study.policies, 1):
            for place in range(len(self.capacities)):
                try:
                    player.policy.init(self._instance(place), Streams(self.seed))
                except RivageError as error:
                    yield error.at(f"[[policies]] {number}")

    def _trial(self, player: Player, place: int) -> Trial:
        capacity = self.capacities[place]
        facts = {
            "policy": player.name,
            "kind": player.kind,
            "capacity": capacity,
            "place": place,
            "places": len(self.capacities),
            "foresees": hasattr(player.policy, "foresee"),
            "settings": dump(player.policy),
            "reference": reference_of(player.policy),
            "horizon": self.study.cache.horizon,
            "trace": self.replay.describe(),
        }
        name, steps = f"{player.name}@{capacity}", self.replay.requests
        return Trial(name, self.seed, steps, self.replay.fingerprint, facts, partial(self._play, player, place))

    def _play(self, player: Player, place: int, note: Note) -> dict[str, Any]:
        run, replay = self.study.run, self.replay
        instance = self._instance(place)
        _warm_up(player, instance)
        played = play(
            player.policy,
            instance,
            replay.blocks(run.block),
            streams=Streams(self.seed).child("policy"),
            every=-(-replay.requests // run.points),
            block=run.block,
            window=run.window,
            observe=lambda event: note(event, event["requests"], f"hit ratio {event['hits'] / event['requests']:.4g}"),
        )
        return {"requests": replay.requests, "seconds": played.seconds}


def _parts(study: Play, seed: int) -> Iterable[RequestTrace]:
    if hasattr(study.trace, "stream"):
        parts: Iterable[RequestTrace] = study.trace.stream(study.run.block)
        return parts
    return [study.trace.build(Streams(seed).child("trace"))]


def _warm_up(player: Player, instance: CacheInstance) -> None:
    """Let what is compiled on first use be compiled before time is taken."""
    weights = None if instance.weights is None else np.ones(4)
    small = CacheInstance(items=4, capacity=2, horizon=4 if instance.horizon else None, weights=weights)
    with suppress(RivageError):  # a policy that wants a larger cache is compiled when it is played
        play(player.policy, small, [np.arange(4)], streams=Streams(0), every=4)

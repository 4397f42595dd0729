"""From a study of online policies to a run folder: requests, trials, certificates, summary.

A trial is one policy with one capacity and one seed; the policies of one seed see the same requests. Trials that are
finished are left as they are, the one that was interrupted is played again from its beginning, the rest follows:
starting a study again is always safe, and gives the record of a run that was never interrupted.

A trace in a file is read once, a block at a time, and played from the numbers of its items on the disk: memory does not
grow with the requests, unless a policy must foresee them. A trace that is generated is made in memory, once for each
seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rivage.core.certificates import CHECKS, Certificate
from rivage.core.errors import ConfigError, RivageError
from rivage.core.games import optima, summarize_policies
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord, TrialRecord
from rivage.core.seeding import Streams
from rivage.core.settings import combine, dump
from rivage.data.replays import Replay
from rivage.data.requests import RequestTrace
from rivage.online.game import play
from rivage.online.policy import CacheInstance
from rivage.online.references import reference_of
from rivage.report.game_words import game_answer
from rivage.studies.play_settings import Play, Player

__all__ = ["play_study"]


def play_study(
    study: Play, *, out: Path | None = None, fresh: bool = False, observer: Observer | None = None
) -> RunRecord:
    """Play a study to its end, or take it up where it was left.

    Args:
        study: what to compare.
        out: folder that holds runs, ``runs`` by default; the run's own folder is named after the study and a hash of
            its settings.
        fresh: forget what an earlier start of the same study did.
        observer: is told what happens.

    Returns:
        The record, with certificates and summary written.

    Raises:
        ConfigError: for settings that do not fit the trace.
        DataError: for a trace or costs that cannot be used.
    """
    observer = Silent() if observer is None else observer
    stage = _Stage.build(study, study.run.seeds[0])
    record = RunRecord.create(out or Path("runs"), study.name, dump(study))
    if fresh:
        shutil.rmtree(record.folder / "trials", ignore_errors=True)
    observer.on_event(stage.plan())
    for notice in stage.notices():
        observer.on_event({"event": "notice", "text": notice})
    for seed in study.run.seeds:
        stage = stage.at(seed)
        _require_no_others(stage, record)
        for player in study.policies:
            for place in range(len(stage.capacities)):
                _play(stage, player, place, record, observer)
    _conclude(record)
    observer.on_event({"event": "study_end"})
    return record


@dataclass(frozen=True)
class _Stage:
    """What the trials of one seed share."""

    study: Play
    seed: int
    replay: Replay
    capacities: tuple[int, ...]

    @classmethod
    def build(cls, study: Play, seed: int) -> _Stage:
        replay = Replay.of(_parts(study, seed), costs=study.cache.costs)
        stage = cls(study, seed, replay, study.cache.capacities(replay.items))
        if problems := list(stage.misfits()):
            raise combine(problems)
        return stage

    def at(self, seed: int) -> _Stage:
        """The stage of another seed; a file holds the same requests for all of them."""
        if seed == self.seed:
            return self
        if hasattr(self.study.trace, "stream"):
            return _Stage(self.study, seed, self.replay, self.capacities)
        return _Stage.build(self.study, seed)

    def instance(self, place: int) -> CacheInstance:
        """The cache of one capacity."""
        return CacheInstance(
            items=self.replay.items,
            capacity=self.capacities[place],
            horizon=self.replay.requests if self.study.cache.horizon == "known" else None,
            weights=self.replay.weights,
        )

    def misfits(self) -> Iterator[RivageError]:
        """Policies that refuse the cache. O(N) for each."""
        for number, player in enumerate(self.study.policies, 1):
            for place in range(len(self.capacities)):
                try:
                    player.policy.init(self.instance(place), Streams(self.seed))
                except RivageError as error:
                    yield error.at(f"[[policies]] {number}")

    def plan(self) -> dict[str, Any]:
        """What the observer is told first; generated traces are taken to be equally long."""
        trials = len(self.study.policies) * len(self.capacities) * len(self.study.run.seeds)
        return {"event": "study", "trials": trials, "rounds": trials * self.replay.requests, "unit": "requests"}

    def notices(self) -> Iterator[str]:
        """What the user should read before the run."""
        replay = self.replay
        yield f"{replay.requests:,} requests for {replay.items:,} items, {replay.distinct:,} of them asked for"
        if replay.varying:
            yield f"requests for the same item cost different amounts ({replay.varying:,} of the items): means count"
        seers = [player.name for player in self.study.policies if hasattr(player.policy, "foresee")]
        if seers:
            yield (
                f"{', '.join(seers)}: told all requests beforehand and no rival of the others; the trace is held in "
                f"memory, {4 * replay.requests / 1e6:,.1f} MB"
            )

    def method(self, player: Player, place: int) -> str:
        """What the trials of a policy with one capacity are called."""
        return f"{player.name}@{self.capacities[place]}"

    def facts(self, player: Player, place: int) -> dict[str, Any]:
        """The first event of a trial."""
        capacity = self.capacities[place]
        return {
            "event": "start",
            "method": self.method(player, place),
            "policy": player.name,
            "kind": player.kind,
            "seed": self.seed,
            "capacity": capacity,
            "place": place,
            "places": len(self.capacities),
            "foresees": hasattr(player.policy, "foresee"),
            "settings": dump(player.policy),
            "reference": reference_of(player.policy),
            "horizon": self.study.cache.horizon,
            "trace": self.replay.describe(),
        }


def _parts(study: Play, seed: int) -> Iterable[RequestTrace]:
    if hasattr(study.trace, "stream"):
        parts: Iterable[RequestTrace] = study.trace.stream(study.run.block)
        return parts
    return [study.trace.build(Streams(seed).child("trace"))]


def _play(stage: _Stage, player: Player, place: int, record: RunRecord, observer: Observer) -> None:
    """One trial, unless it is finished."""
    facts, run, replay = stage.facts(player, place), stage.study.run, stage.replay
    trial = TrialRecord.open(record.trial_folder(facts["method"], stage.seed))
    told = {"method": facts["method"], "seed": stage.seed}
    observer.on_event({"event": "trial", "rounds": replay.requests, **told})
    if trial.finished:
        _require_same_requests(stage, trial)
    else:
        trial.truncate(0)
        trial.append(facts)
        _warm_up(player, stage.instance(place))

        def note(event: dict[str, Any]) -> None:
            trial.append(event)
            observer.on_event({**event, **told})

        played = play(
            player.policy,
            stage.instance(place),
            replay.blocks(run.block),
            streams=Streams(stage.seed).child("policy"),
            every=-(-replay.requests // run.points),
            block=run.block,
            window=run.window,
            observe=note,
        )
        trial.append_timing({"requests": replay.requests, "seconds": played.seconds})
        trial.append({"event": "end", "requests": replay.requests})
    observer.on_event({"event": "trial_end", **told})


def _warm_up(player: Player, instance: CacheInstance) -> None:
    """Let what is compiled on first use be compiled before time is taken."""
    weights = None if instance.weights is None else np.ones(4)
    small = CacheInstance(items=4, capacity=2, horizon=4 if instance.horizon else None, weights=weights)
    with suppress(RivageError):  # a policy that wants a larger cache is compiled when it is played
        play(player.policy, small, [np.arange(4)], streams=Streams(0), every=4)


def _require_same_requests(stage: _Stage, done: TrialRecord) -> None:
    """Refuse to mix trials of requests or costs that have changed since."""
    if done.start["trace"]["fingerprint"] != stage.replay.fingerprint:
        raise _changed(done)


def _require_no_others(stage: _Stage, record: RunRecord) -> None:
    """The same for capacities that are shares: other requests may make another number of items of them."""
    places = range(len(stage.capacities))
    known = {stage.method(player, place) for player in stage.study.policies for place in places}
    for trial in record.trials:
        if trial.seed == stage.seed and trial.method not in known:
            raise _changed(trial)


def _changed(trial: TrialRecord) -> ConfigError:
    return ConfigError(
        "the requests or their costs are not those this trial was played with",
        where=str(trial.folder),
        mend="Restore the files, or start anew with --fresh.",
    )


def _conclude(record: RunRecord) -> None:
    """Certificates and summary, from the record alone."""
    certificates: list[Certificate] = [CHECKS.get(name)(record, **fields) for name, fields in _claims(record)]
    record.write_certificates(certificates)
    page = record.folder / "report.html"
    policies = summarize_policies(record)
    record.write_summary(
        {
            "run": str(record.folder),
            "hash": record.hash,
            "report": str(page) if page.exists() else None,
            "answer": game_answer(record),
            "trace": record.trials[0].start["trace"],
            "static": [{"capacity": size, "cost_saved": saved} for size, saved in optima(record).items()],
            "policies": policies,
            "certificates": [certificate.as_dict() for certificate in certificates],
        }
    )


def _claims(record: RunRecord) -> Iterator[tuple[str, dict[str, Any]]]:
    """Which certificates a run can carry: the check and its fields."""
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

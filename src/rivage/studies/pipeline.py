"""From a study to a run folder: data, trials, guarded models, certificates, summary.

Methods of one seed see the same clients, the same splits and the same initial model. Trials that are finished are left
as they are, the one that was interrupted goes on from its last checkpoint, the rest follows: starting a study again is
always safe.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from rivage.core.errors import ConfigError, RivageError
from rivage.core.messages import LogPolicy
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord
from rivage.core.settings import combine
from rivage.core.trial_records import TrialRecord
from rivage.decentralized.session import run as run_silos
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.checkpoint import Files
from rivage.federated.engine import Outcome, run
from rivage.federated.guarded import Guarded
from rivage.federated.privacy_ledger import spent
from rivage.federated.trial import Trial
from rivage.studies.conclusion import conclude
from rivage.studies.guarding import guard
from rivage.studies.models import MODELS, save_models
from rivage.studies.notices import notices
from rivage.studies.settings import Study, dump_study, parse_study
from rivage.studies.silo_stage import Designs, SiloStage
from rivage.studies.stage import KEPT_BYTES, Stage
from rivage.studies.study_faults import is_decentralized
from rivage.studies.study_tables import Method

__all__ = ["PlaySilos", "built_in", "identity", "require_same_data", "rounds_of", "run_study"]

PlaySilos = Callable[[SiloTrial, Path, Files, Callable[[Mapping[str, Any]], None]], Outcome]
"""Trial, its folder, its journal, who is told of events -> what it ends with."""

_NO_LOG = LogPolicy("none")


def built_in() -> Study:
    """The study that `rivage run` plays without a file: data that ship with a dependency, a minute of work."""
    text = files("rivage.studies").joinpath("digits.toml").read_text("utf-8")
    return parse_study(text, "the built-in study")


def run_study(
    study: Study,
    *,
    out: Path | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
    play_silos: PlaySilos | None = None,
) -> RunRecord:
    """Play a study to its end, or take it up where it was left.

    Args:
        study: what to compare.
        out: folder that holds runs, ``runs`` by default; the run's own folder is named after the study and a hash of
            its settings.
        fresh: forget what an earlier start of the same study did.
        observer: is told what happens.
        play_silos: plays decentralised trials; None simulates them here.

    Returns:
        The record, with certificates and summary written.

    Raises:
        ConfigError: for settings that do not fit the data.
        DataError: for data that cannot be used.
        ProtocolError: when training breaks down; what was committed stays.
    """
    observer = Silent() if observer is None else observer
    stages = [Stage.build(study, seed) for seed in study.run.seeds[:1]]
    designs = Designs()
    record = RunRecord.create(out or Path("runs"), study.name, identity(study))
    if fresh:
        shutil.rmtree(record.folder / "trials", ignore_errors=True)
    trained = [method for method in study.methods if not isinstance(method.algorithm, Guarded)]
    observer.on_event(_plan(study, trained))
    for notice in chain(notices(stages[0]), _overlays(SiloStage(stages[0], designs), record)):
        observer.on_event({"event": "notice", "text": notice})
    for seed in study.run.seeds:
        stage = stages.pop() if stages else Stage.build(study, seed)
        for method in trained:
            _play(SiloStage(stage, designs), method, record, observer, play_silos)
        for method in study.methods:
            if isinstance(method.algorithm, Guarded):
                guard(stage, method.name, method.algorithm, record)
    conclude(record)
    observer.on_event({"event": "study_end"})
    return record


def identity(study: Study) -> dict[str, Any]:
    """The settings that a result depends on: all but the number of workers and the audit that comes after."""
    table = dump_study(study)
    table["run"].pop("workers", None)
    table.pop("audit", None)
    return table


def _plan(study: Study, trained: list[Method]) -> dict[str, Any]:
    rounds = sum(rounds_of(study, method) for method in trained)
    seeds = len(study.run.seeds)
    return {"event": "study", "trials": len(trained) * seeds, "rounds": rounds * seeds}


def rounds_of(study: Study, method: Method) -> int:
    """That a method will play."""
    return study.run.rounds if is_decentralized(method.algorithm) or method.algorithm.federates else 0


def _overlays(silos: SiloStage, record: RunRecord) -> Iterator[str]:
    """Design the overlays of methods that still have to begin, and tell of them.

    Raises:
        ConfigError: listing every method that cannot train over its overlay.
    """
    stage = silos.stage
    methods = [method for method in stage.study.methods if is_decentralized(method.algorithm)]
    problems: list[RivageError] = [*silos.misfits()] if methods else []
    for method in methods if not problems else ():
        done = TrialRecord.open(record.trial_folder(method.name, stage.seed))
        if done.finished:
            continue
        limit = getattr(method.algorithm.overlay, "seconds", None)  # type: ignore[attr-defined]
        if limit is not None and not done.events("start"):
            yield f"{method.name}: looking for an overlay, for {limit:g} s at most"
        try:
            yield silos.told(method, silos.trial(method, done))
        except ConfigError as error:
            problems.append(error)
    if problems:
        raise combine(problems)


def _play(
    silos: SiloStage, method: Method, record: RunRecord, observer: Observer, play_silos: PlaySilos | None
) -> None:
    """One trial, unless it is finished."""
    stage, study = silos.stage, silos.stage.study
    folder, rounds = record.trial_folder(method.name, stage.seed), rounds_of(study, method)
    observer.on_event({"event": "trial", "method": method.name, "seed": stage.seed, "rounds": rounds})
    done = TrialRecord.open(folder)
    if done.finished:
        require_same_data(stage, done)
    else:
        trial = silos.trial(method, done) if is_decentralized(method.algorithm) else stage.trial(method.name, method)
        policy = stage.policy() if play_silos is None else _NO_LOG  # nobody sees all messages of silos that are apart
        with Files(folder, policy, stage.header(method), limit=study.run.remembered) as journal:
            outcome = _outcome(trial, folder, journal, observer, play_silos)
            notice = save_models(stage, method, trial.identity, outcome, folder / MODELS)
            if notice:
                observer.on_event({"event": "notice", "text": notice})
            if (privacy := spent(journal.record.events())) is not None:
                journal.event(privacy)
            journal.event({"event": "end", "rounds": rounds})
    observer.on_event({"event": "trial_end", "method": method.name, "seed": stage.seed})


def _outcome(
    trial: Trial | SiloTrial, folder: Path, journal: Files, observer: Observer, play_silos: PlaySilos | None
) -> Outcome:
    """What a trial ends with, on the engine that plays it."""
    if isinstance(trial, SiloTrial):
        if play_silos is not None:
            return play_silos(trial, folder, journal, observer.on_event)
        return run_silos(trial, journal, observer.on_event, keep=KEPT_BYTES)
    return run(trial, journal, observer.on_event, keep=KEPT_BYTES)


def require_same_data(stage: Stage, done: TrialRecord) -> None:
    """Refuse to mix trials of data that have changed since; what is unfinished is refused by its checkpoint."""
    if done.start["population"]["fingerprint"] != stage.population.fingerprint:
        raise ConfigError(
            "the data are not those this trial was finished with",
            where=str(done.folder),
            mend="Restore the data, or start anew with --fresh.",
        )

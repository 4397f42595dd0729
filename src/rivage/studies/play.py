"""From a study of online policies to a run folder: trials, certificates, summary; whatever the game.

Trials that are finished are left as they are, the one that was interrupted is played again from its beginning, the rest
follows: starting a study again is always safe, and gives the record of a run that was never interrupted. What a game is
made of, its `Stage` knows: the policies of one seed meet the same requests.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rivage.core.certificates import CHECKS, Certificate
from rivage.core.errors import ConfigError
from rivage.core.games import view
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord
from rivage.core.settings import dump
from rivage.core.trial_records import TrialRecord
from rivage.studies.games.study import STAGES, GameStudy, Stage, Trial

__all__ = ["play_study"]


def play_study(
    study: GameStudy, *, out: Path | None = None, fresh: bool = False, observer: Observer | None = None
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
        ConfigError: for settings that do not fit what is played.
        DataError: for files that cannot be used.
    """
    observer = Silent() if observer is None else observer
    stages: type[Stage] = STAGES.get(study.game)
    seeds = study.run.seeds
    stage = stages.build(study, seeds[0])
    record = RunRecord.create(out or Path("runs"), study.name, dump(study))
    if fresh:
        shutil.rmtree(record.folder / "trials", ignore_errors=True)
    _announce(stage, len(seeds), observer)
    for position, seed in enumerate(seeds):
        stage = stages.build(study, seed, stage) if position else stage
        _require_no_others(stage, seed, record)
        for trial in stage.trials:
            _play(trial, record, observer)
    _conclude(stages, record)
    observer.on_event({"event": "study_end"})
    return record


def _announce(stage: Stage, seeds: int, observer: Observer) -> None:
    steps = sum(trial.steps for trial in stage.trials)
    observer.on_event(
        {"event": "study", "trials": seeds * len(stage.trials), "rounds": seeds * steps, "unit": stage.unit}
    )
    for notice in stage.notices:
        observer.on_event({"event": "notice", "text": notice})


def _play(trial: Trial, record: RunRecord, observer: Observer) -> None:
    """One trial, unless it is finished."""
    kept = TrialRecord.open(record.trial_folder(trial.method, trial.seed))
    told = {"method": trial.method, "seed": trial.seed}
    observer.on_event({"event": "trial", "rounds": trial.steps, **told})
    if kept.finished:
        if kept.start["fingerprint"] != trial.fingerprint:
            raise _changed(kept)
    else:
        kept.truncate(0)
        kept.append(trial.start)

        def note(event: dict[str, Any] | None, done: int, score: str) -> None:
            if event is not None:
                kept.append(event)
            observer.on_event({**(event or {"event": "point"}), **told, "done": done, "score": score})

        kept.append_timing(trial.play(note))
        kept.append({"event": "end", "steps": trial.steps})
    observer.on_event({"event": "trial_end", **told})


def _require_no_others(stage: Stage, seed: int, record: RunRecord) -> None:
    """Refuse to mix trials of what is played on now with those of what it was: names may depend on it."""
    known = {trial.method for trial in stage.trials}
    for trial in record.trials:
        if trial.seed == seed and trial.method not in known:
            raise _changed(trial)


def _changed(trial: TrialRecord) -> ConfigError:
    return ConfigError(
        "the requests or their costs are not those this trial was played with",
        where=str(trial.folder),
        mend="Restore the files, or start anew with --fresh.",
    )


def _conclude(stages: type[Stage], record: RunRecord) -> None:
    """Certificates and summary, from the record alone."""
    certificates: list[Certificate] = [CHECKS.get(name)(record, **fields) for name, fields in stages.claims(record)]
    record.write_certificates(certificates)
    page, game = record.folder / "report.html", view(record)
    record.write_summary(
        {
            "run": str(record.folder),
            "hash": record.hash,
            "report": str(page) if page.exists() else None,
            "answer": game.answer,
            **game.more,
            record.compared: game.policies,
            "certificates": [certificate.as_dict() for certificate in certificates],
        }
    )

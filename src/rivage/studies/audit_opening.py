"""Which trial, and whose log, an audit is about."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rivage.core.errors import ConfigError, StoreError, nearest
from rivage.core.message_log import LOG_NAME
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.federated.trial import Trial
from rivage.studies.audit_scene import Scene
from rivage.studies.audit_settings import Auditing
from rivage.studies.models import MODELS
from rivage.studies.pipeline import require_same_data
from rivage.studies.settings import Study, load_study
from rivage.studies.stage import Stage
from rivage.studies.study_faults import is_decentralized
from rivage.studies.study_tables import Method

__all__ = ["scene_of_log", "scene_of_run"]


def scene_of_run(record: RunRecord, settings: Auditing, seed: int) -> Scene:
    """A trial of a run: of the method that is named, or of the first that has sent something; of the first seed.

    Raises:
        StoreError: if there is no such trial, or none with a log.
        ConfigError: if the method cannot be audited.
    """
    if record.is_game:
        raise ConfigError(
            f"`rivage {record.verb}` trains nothing", where=str(record.folder), mend="Give a run of `rivage train`."
        )
    study = load_study(record.folder / "settings.toml")
    if settings.method:
        _method(study, settings.method)
    silos = {method.name for method in study.methods if is_decentralized(method.algorithm)}
    trial = _trial(record, settings.method, silos)
    stage = Stage.build(study, trial.seed)
    require_same_data(stage, trial)
    empty = frozenset(event["round"] for event in trial.events("round") if not event["cohort"])
    return Scene(_played(stage, trial.method), trial.folder / LOG_NAME, trial.folder / MODELS, settings, seed, empty)


def scene_of_log(log: Path, study: Study, settings: Auditing, seed: int) -> Scene:
    """A log of messages, with the study that tells model and data."""
    stage = Stage.build(study, study.run.seeds[0])
    return Scene(_played(stage, settings.method or study.methods[0].name), log, None, settings, seed)


def _trial(record: RunRecord, method: str, last: Collection[str]) -> TrialRecord:
    """Methods of the names in ``last`` are taken where there is no other."""
    if method:
        trials = sorted((trial for trial in record.trials if trial.method == method), key=lambda trial: trial.seed)[:1]
    else:
        trials = [trial for trial in record.trials if any(event.get("bytes_up") for event in trial.events("round"))]
        trials.sort(key=lambda trial: trial.method in last)
    logged = [trial for trial in trials if (trial.folder / LOG_NAME).exists() and trial.finished]
    if not logged:
        cut = not all(trial.finished for trial in record.trials)
        raise StoreError(
            "holds no message log of a finished trial" + (f' of "{method}"' if method else ""),
            where=str(record.folder),
            mend="Finish the training: the same command goes on where it stopped."
            if cut
            else 'Train a method that sends updates, with run.log = "all", for at least one round.',
        )
    return logged[0]


def _played(stage: Stage, name: str) -> Trial:
    return stage.trial(name, _method(stage.study, name))


def _method(study: Study, name: str) -> Method:
    """A method of the study that sends something to a server.

    Raises:
        ConfigError: for another.
    """
    known = {method.name: method for method in study.methods}
    if name not in known:
        mend = f"{nearest(name, known)} Methods: {', '.join(known)}.".strip()
        raise ConfigError(f'there is no method "{name}"', where="--method", mend=mend)
    method = known[name]
    if is_decentralized(method.algorithm):
        what = "has no server, and the views of an audit are those of a server and its clients"
        raise ConfigError(f'"{name}" {what}', where="--method", mend="Audit a federated method.")
    if not getattr(method.algorithm, "federates", False):
        raise ConfigError(f'"{name}" sends nothing', where="--method", mend="Audit a federated method.")
    return method

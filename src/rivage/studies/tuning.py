"""Fair tuning: every method gets equally many settings, judged on validation records alone; the run plays the best.

The settings that are tried form a study of their own, one method for each, which lies beside the run in a folder whose
name ends in ``-tuning``: what is finished there is not trained again, and what was interrupted goes on. What training
does not survive is recorded as diverged and counts as worse than everything else.

A setting is worth the validation metric of the seen clients after the last round, weighted by their validation records;
clients without any have no say. By default the seed is the first of the run, hence the clients and their division into
training, validation and test records are those of that seed: none of its test records is used. With the run's further
seeds records are divided anew, and some that were validation records while tuning are test records there; this is the
same for all methods.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rivage.core.errors import DataError, ProtocolError
from rivage.core.messages import LogPolicy
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord
from rivage.core.store import write_json
from rivage.core.summaries import weighted_mean
from rivage.core.trial_records import TrialRecord
from rivage.decentralized.session import run as run_silos
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.checkpoint import Files
from rivage.federated.engine import run
from rivage.federated.finetuned import FineTuned
from rivage.federated.guarded import Guarded
from rivage.federated.local import Local
from rivage.federated.trial import judged
from rivage.studies.pipeline import identity, require_same_data, rounds_of, run_study
from rivage.studies.settings import Study
from rivage.studies.silo_stage import Designs, SiloStage
from rivage.studies.stage import Stage
from rivage.studies.study_faults import is_decentralized
from rivage.studies.study_tables import Method
from rivage.studies.tuning_checks import TUNING, best, trial_name, value_of
from rivage.studies.tuning_grid import Values, at_edge, candidates, grid
from rivage.studies.tuning_settings import Tuning

__all__ = ["Tuned", "run_tuned", "tune", "with_references"]

_REFERENCES = {"local": Local, "fedavg+": FineTuned}
"""What every tuned comparison holds: training alone, and the simplest personalisation."""


@dataclass(frozen=True)
class Tuned:
    """What tuning ends with.

    Args:
        study: with the chosen settings.
        table: what was tried, as ``tuning.json`` keeps it.
    """

    study: Study
    table: Mapping[str, Any]


class _Unbiased:
    """Passes events on, but of evaluations what validation records say: nobody should see test records while tuning."""

    def __init__(self, inner: Observer) -> None:
        self._inner = inner

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Pass it on, or what it may say."""
        if event["event"] == "evaluation":
            mean = weighted_mean(event["validation"], event["validation_size"])
            kept = {key: event[key] for key in ("event", "round", "group", "method", "seed")}
            event = {**kept, "metric": "validation", "mean": mean}
        self._inner.on_event(event)


def run_tuned(
    study: Study, *, out: Path | None = None, fresh: bool = False, observer: Observer | None = None
) -> RunRecord:
    """Tune the methods of a study, then play it; both take up what an earlier start has left.

    Args:
        study: what to compare. Local and FedAvg+ are added where it lacks them.
        out: folder that holds runs, ``runs`` by default.
        fresh: forget what an earlier start did.
        observer: is told what happens.

    Returns:
        The record of the run, with ``tuning.json`` in its folder and a certificate for every tuned method.

    Raises:
        ConfigError: for settings that do not fit the data, or that leave no validation records.
        DataError: for data that cannot be used.
        ProtocolError: when no setting of a method can be trained.
    """
    observer = Silent() if observer is None else observer
    found = tune(study, out=out, fresh=fresh, observer=observer)
    record = RunRecord.create(out or Path("runs"), found.study.name, identity(found.study))
    write_json(record.folder / TUNING, found.table)
    return run_study(found.study, out=out, fresh=fresh, observer=observer)


def with_references(study: Study) -> tuple[Study, tuple[str, ...]]:
    """The study with Local in front and FedAvg+ behind it where they are missing, and the names of those added."""
    there = {method.kind for method in study.methods}
    names = {method.name for method in study.methods}
    added = tuple(
        Method(name=kind if kind not in names else f"{kind} (reference)", algorithm=algorithm(work=study.work))
        for kind, algorithm in _REFERENCES.items()
        if kind not in there
    )
    return replace(study, methods=(*added, *study.methods)), tuple(method.name for method in added)


def tune(study: Study, *, out: Path | None = None, fresh: bool = False, observer: Observer | None = None) -> Tuned:
    """Try the settings of every method; the arguments are those of `run_tuned`."""
    observer = Silent() if observer is None else observer
    study, added = with_references(study)
    tuning = study.tuning or Tuning()
    seed = study.run.seeds[0] if tuning.seed is None else tuning.seed
    fixed = [method.name for method in study.methods if not _tunable(method)]
    tried = {m.name: candidates(m, tuning, seed) for m in study.methods if _tunable(m)}
    trials = _trials(study, tuning, seed, tried)
    stage = Stage.build(trials, seed)
    _require_validation(stage)
    if added:
        observer.on_event(_notice(f"added, for no comparison is fair without: {', '.join(added)}"))
    for text in (_announcement(tuning, stage, len(tried), fixed), *_uncounted(stage, study)):
        observer.on_event(_notice(text))
    record = RunRecord.create(out or Path("runs"), trials.name, identity(trials))
    if fresh:
        shutil.rmtree(record.folder / "trials", ignore_errors=True)
    _play_all(stage, record, _Unbiased(observer))
    table = _table(stage, record, tuning, tried)
    chosen = {name: found["chosen"] for name, found in table["methods"].items()}
    methods = tuple(_with(method, chosen[method.name]) if method.name in chosen else method for method in study.methods)
    for text in _beyond(table):
        observer.on_event(_notice(text))
    return Tuned(replace(study, methods=methods, tuning=tuning), table)


def _notice(text: str) -> dict[str, str]:
    return {"event": "notice", "text": text}


def _tunable(method: Method) -> bool:
    return not isinstance(method.algorithm, Guarded) and hasattr(method.algorithm, "learning_rate")


def _with(method: Method, values: Values, name: str = "") -> Method:
    algorithm = replace(method.algorithm, **values)  # type: ignore[type-var]
    return replace(method, name=name or method.name, algorithm=algorithm)


def _trials(study: Study, tuning: Tuning, seed: int, tried: Mapping[str, Sequence[Values]]) -> Study:
    """The study whose methods are the settings to be tried; evaluated once, without a message log."""
    rounds = study.run.rounds if tuning.rounds is None else tuning.rounds
    methods = tuple(
        _with(method, values, trial_name(method.name, values))
        for method in study.methods
        for values in tried.get(method.name, ())
    )
    return replace(
        study,
        name=f"{study.name}-tuning",
        methods=methods,
        run=replace(study.run, rounds=rounds, seeds=(seed,), log="none"),
        evaluation=replace(study.evaluation, every=max(rounds, 1)),
        tuning=tuning,
    )


def _require_validation(stage: Stage) -> None:
    """Refuse clients among whom nobody has anything to choose with.

    Raises:
        DataError: when there is not a single validation record.
    """
    population = stage.population
    if not any(len(population.client(client).validation) for client in judged(population.size, stage.seed).tolist()):
        raise DataError(
            "no client has a validation record, so that there is nothing to choose settings with",
            where="[evaluation] validation",
            mend=f"Raise validation ({stage.study.evaluation.validation:g}), or give clients more records.",
        )


def _announcement(tuning: Tuning, stage: Stage, methods: int, fixed: Sequence[str]) -> str:
    compared = stage.task.metric.name if tuning.metric == "metric" else "loss"
    left = f"; as they are: {', '.join(fixed)}" if fixed else ""
    return (
        f"tuning: {tuning.budget} settings for each of {methods} methods, {stage.study.run.rounds} rounds each, chosen "
        f"by {compared} on validation records of seed {stage.seed}{left}"
    )


def _uncounted(stage: Stage, study: Study) -> Iterator[str]:
    """Of methods with noise: what their promise leaves out, for tuning reads the same records."""
    central = [method for method in study.methods if _tunable(method) and not is_decentralized(method.algorithm)]
    if private := [method.name for method in central if stage.trial(method.name, method).promise is not None]:
        yield f"the epsilon of {', '.join(private)} counts neither these trials nor the choice among them"


def _play_all(stage: Stage, record: RunRecord, observer: Observer) -> None:
    study, silos = stage.study, SiloStage(stage, Designs())
    rounds = sum(rounds_of(study, method) for method in study.methods)
    observer.on_event({"event": "study", "trials": len(study.methods), "rounds": rounds})
    for method in study.methods:
        head = {"method": method.name, "seed": stage.seed}
        observer.on_event({"event": "trial", **head, "rounds": rounds_of(study, method)})
        _play(silos, method, record.trial_folder(method.name, stage.seed), observer)
        observer.on_event({"event": "trial_end", **head})


def _play(silos: SiloStage, method: Method, folder: Path, observer: Observer) -> None:
    """One trial, unless it is finished; one that diverges is finished, too."""
    stage, done = silos.stage, TrialRecord.open(folder)
    if done.finished:
        require_same_data(stage, done)
        return
    trial = silos.trial(method, done) if is_decentralized(method.algorithm) else stage.trial(method.name, method)
    with Files(folder, LogPolicy("none"), stage.header(method), limit=stage.study.run.remembered) as journal:
        try:
            if isinstance(trial, SiloTrial):
                run_silos(trial, journal, observer.on_event, keep=0)
            else:
                run(trial, journal, observer.on_event, keep=0)
        except ProtocolError as error:
            journal.event({"event": "failed", "reason": str(error)})
        journal.event({"event": "end", "rounds": rounds_of(stage.study, method)})


def _table(stage: Stage, record: RunRecord, tuning: Tuning, tried: Mapping[str, Sequence[Values]]) -> dict[str, Any]:
    """What was tried, and what is best."""
    metric = stage.task.metric
    higher = metric.higher_is_better and tuning.metric == "metric"
    head = {
        "run": record.folder.name,
        "seed": stage.seed,
        "rounds": stage.study.run.rounds,
        "budget": tuning.budget,
        "value": metric.name if tuning.metric == "metric" else "loss",
        "higher_is_better": higher,
    }
    methods = {}
    for name, settings in tried.items():
        trials = [_judged(record.trial(trial_name(name, v), stage.seed), v, tuning.metric) for v in settings]
        if all(trial["value"] is None for trial in trials):
            reason = next((trial["failed"] for trial in trials if "failed" in trial), "no validation value is defined")
            raise ProtocolError(
                f"no setting of {len(trials)} can be used; the first: {reason}", where=f'method "{name}"'
            )
        chosen = settings[best(trials, higher_is_better=higher)]
        spans = grid(settings)
        methods[name] = {"chosen": dict(chosen), "grid": spans, "edge": at_edge(spans, chosen), "trials": trials}
    return {**head, "methods": methods}


def _judged(trial: TrialRecord, settings: Values, compared: str) -> dict[str, Any]:
    """A trial's entry: what its last evaluation says of the validation records of all seen clients."""
    failed, event = trial.events("failed"), trial.final("seen")
    if failed or event is None:
        return {"settings": dict(settings), "value": None, "loss": None, "failed": str(failed[0]["reason"])}
    sizes = event["validation_size"]
    value, loss = value_of(event, compared), value_of(event, "loss")
    told = [size for size in sizes if size]
    return {"settings": dict(settings), "value": value, "loss": loss, "records": sum(told), "clients": len(told)}


def _beyond(table: Mapping[str, Any]) -> Iterator[str]:
    """Methods whose best setting is the smallest or largest that was tried."""
    for name, found in table["methods"].items():
        if found["edge"]:
            what = ", ".join(f"{setting} = {found['chosen'][setting]:g}" for setting in found["edge"])
            rates = "learning_rate" in found["edge"]
            mend = " (widen [tuning] learning_rates)" if rates else ""
            yield f"{name}: the best of what was tried is at its edge, {what}; better may lie beyond{mend}"

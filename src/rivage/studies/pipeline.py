"""From a study to a run folder: data, trials, guarded models, certificates, summary.

Methods of one seed see the same clients, the same splits and the same initial model. Trials that are finished are left
as they are, the one that was interrupted goes on from its last checkpoint, the rest follows: starting a study again is
always safe.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rivage.core.certificates import CHECKS, Certificate
from rivage.core.errors import ConfigError, RivageError
from rivage.core.message_log import LOG_NAME
from rivage.core.messages import LogPolicy
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord, TrialRecord
from rivage.core.seeding import Streams
from rivage.core.settings import combine, dump
from rivage.core.summaries import local_method, summarize
from rivage.data import build_population
from rivage.data.population import ClientIds, Population
from rivage.federated.adversaries import Adversary, Malicious
from rivage.federated.checkpoint import Files
from rivage.federated.engine import Outcome, run
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.guarded import Guarded, compose, preference
from rivage.federated.trial import Trial
from rivage.learning.bundle import ModelBundle, Provenance
from rivage.learning.params import to_numpy
from rivage.learning.task import Task, make_task
from rivage.studies.settings import Method, Study, collector_faults, dump_study, parse_study

__all__ = ["built_in", "run_study"]

MODELS = "models.safetensors"
_LIMIT = 256 << 20  # bytes of a message log or of saved models, unless the study says otherwise


def built_in() -> Study:
    """The study that `rivage run` plays without a file: data that ship with a dependency, a minute of work."""
    text = files("rivage.studies").joinpath("digits.toml").read_text("utf-8")
    return parse_study(text, "the built-in study")


def run_study(
    study: Study, *, out: Path | None = None, fresh: bool = False, observer: Observer | None = None
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
        ConfigError: for settings that do not fit the data.
        DataError: for data that cannot be used.
        ProtocolError: when training breaks down; what was committed stays.
    """
    observer = Silent() if observer is None else observer
    stages = [_Stage.build(study, seed) for seed in study.run.seeds[:1]]
    record = RunRecord.create(out or Path("runs"), study.name, _identity(study))
    if fresh:
        shutil.rmtree(record.folder / "trials", ignore_errors=True)
    trained = [method for method in study.methods if not isinstance(method.algorithm, Guarded)]
    observer.on_event(_plan(study, trained))
    for notice in stages[0].notices():
        observer.on_event({"event": "notice", "text": notice})
    for seed in study.run.seeds:
        stage = stages.pop() if stages else _Stage.build(study, seed)
        for method in trained:
            _play(stage, method, record, observer)
        for method in study.methods:
            if isinstance(method.algorithm, Guarded):
                _guard(stage, method.name, method.algorithm, record)
    _conclude(record)
    observer.on_event({"event": "study_end"})
    return record


def _identity(study: Study) -> dict[str, Any]:
    """The settings that a result depends on: all but the number of workers."""
    table = dump_study(study)
    table["run"].pop("workers", None)
    return table


def _plan(study: Study, trained: list[Method]) -> dict[str, Any]:
    rounds = sum(study.run.rounds for method in trained if method.algorithm.federates)
    seeds = len(study.run.seeds)
    return {"event": "study", "trials": len(trained) * seeds, "rounds": rounds * seeds}


def _execution(study: Study) -> Execution:
    return Execution(executor=study.run.executor, workers=study.run.workers, device=study.run.device)


@dataclass(frozen=True)
class _Stage:
    """What the trials of one seed share."""

    study: Study
    seed: int
    population: Population
    task: Task
    unseen: ClientIds
    adversary: Adversary | None = None

    @classmethod
    def build(cls, study: Study, seed: int) -> _Stage:
        population = build_population(
            study.data,
            partition=study.partition,
            shift=study.shift,
            availability=study.availability,
            seed=seed,
            validation=study.evaluation.validation,
            test=study.evaluation.test,
        )
        task = make_task(
            study.task,
            population.schema,
            dtype=getattr(torch, study.run.dtype),
            device=_execution(study).resolved_device,
        )
        stage = cls(study, seed, population, task, np.empty(0, np.int64))
        judged = stage.trial("", study.methods[0]).judged
        count = math.floor(study.evaluation.unseen_clients * len(judged))
        chosen = Streams(seed).numpy("unseen").choice(judged, count, replace=False)
        stage = cls(study, seed, population, task, np.sort(chosen))
        if problems := list(stage.misfits()):
            raise combine(problems)
        return replace(stage, adversary=stage.known_adversary())

    @property
    def trainable(self) -> int:
        """How many clients may ever take part."""
        return self.population.size - len(self.unseen)

    def misfits(self) -> Iterator[RivageError]:
        """Settings that do not fit the population."""
        cohort, there, size = self.study.run.cohort, self.trainable, self.population.size
        if cohort is not None and cohort > there:
            apart = f", {len(self.unseen)} kept apart as unseen" if len(self.unseen) else ""
            yield ConfigError(
                f"cohort is {cohort}, but only {there} clients can train ({size} in all{apart})",
                where="[run] cohort",
                mend=f"Give at most {there}, or leave cohort out to take everyone available.",
            )
        for number, method in enumerate(self.study.methods, 1):
            if cohort is None:
                for fault in collector_faults(method.collector, there, f"{there} clients give"):
                    yield fault.at(f"[[methods]] {number}")
        if strangers := sorted(client for client in self.policy().clients if client >= size):
            yield ConfigError(
                f"log names {', '.join(map(str, strangers))}, but there are {size} clients",
                where="[run] log",
                mend=f"Give numbers from 0 to {size - 1}.",
            )
        try:
            self.known_adversary()
        except ConfigError as error:
            yield error

    def known_adversary(self) -> Adversary | None:
        """That of the study, with the numbers of the clients it names.

        Raises:
            ConfigError: for clients that the population does not have.
        """
        adversary = self.study.adversary
        return adversary.registered(self.population) if isinstance(adversary, Malicious) else adversary

    def trial(self, name: str, method: Method) -> Trial:
        """One method on this stage."""
        settings = self.study
        return Trial(
            name=name,
            algorithm=method.algorithm,
            population=self.population,
            task=self.task,
            rounds=settings.run.rounds,
            cohort=settings.run.cohort,
            seed=self.seed,
            every=settings.evaluation.every,
            unseen=self.unseen,
            facts=self.facts(method),
            stages=method.stages,
            collector=method.collector,
            adversary=self.adversary,
            devices=settings.devices,
            remembered=settings.run.remembered,
            execution=_execution(settings),
        )

    def facts(self, method: Method) -> dict[str, Any]:
        """What the record says of a trial beyond what the engine knows."""
        metric = self.task.metric
        return {
            "kind": method.kind,
            "settings": dump(method.algorithm),
            **self.exchange(method),
            **{name: part for name, part in dump(self.study).items() if name == "devices"},
            "metric": metric.name,
            "higher_is_better": metric.higher_is_better,
            "dtype": self.study.run.dtype,
            "reference": asdict(method.algorithm.reference),
            "population": self.census(),
        }

    def exchange(self, method: Method) -> dict[str, Any]:
        """What happens to updates between clients and server, where that is not the plain mean of what was sent."""
        table = dump(method)
        parts = {
            "stages": table["stages"],
            "collector": table["collector"],
            "adversary": dump(self.study).get("adversary"),
        }
        return {name: part for name, part in parts.items() if part and part != {"kind": "mean"}}

    def census(self) -> dict[str, Any]:
        """Who the clients are."""
        size = self.population.size
        names = [self.population.name(id) for id in range(size)] if size <= 1000 else None
        return {
            "size": size,
            "fingerprint": self.population.fingerprint,
            "unseen": self.unseen.tolist(),
            "names": names,
            "notes": self.population.notes,
        }

    def notices(self) -> Iterator[str]:
        """What the user should read before the run."""
        yield f"{self.population.size:,} clients, {self.task.dimension:,} parameters"
        if notice := Executor(self.task, _execution(self.study)).notice:
            yield notice
        for key, value in self.population.notes.items():
            label = key.replace("_", " ")
            if isinstance(value, Mapping):
                yield from (f"{label}, {name}: {_plain(item)}" for name, item in value.items())
            else:
                yield f"{label}: {_plain(value)}"
        if self.study.run.log is None and self.policy().keeps == "meta":
            yield 'the message log would exceed 256 MiB: payloads are left out (set run.log = "all" to keep them)'
        yield from self.forgetting()

    def forgetting(self) -> Iterator[str]:
        """What goes wrong with methods whose clients must not be forgotten: those with an attribute ``forgetting``."""
        remembered = self.study.run.remembered
        if remembered is None or remembered >= self.trainable:
            return
        for method in self.study.methods:
            if harm := getattr(method.algorithm, "forgetting", ""):
                yield (
                    f"{method.name}: of {self.trainable:,} clients run.remembered = {remembered:,} are remembered and "
                    f'the others forgotten: {harm} (set run.remembered = "all")'
                )

    def policy(self) -> LogPolicy:
        """What the message log keeps; by default everything, while that is small."""
        if self.study.run.log is not None:
            return LogPolicy.parse(self.study.run.log)
        cohort = self.study.run.cohort or self.population.size
        width = torch.finfo(self.task.dtype).bits // 8
        expected = self.study.run.rounds * (cohort + 1) * self.task.dimension * width
        return LogPolicy("all" if expected < _LIMIT else "meta")

    def header(self, method: Method) -> dict[str, Any]:
        """What the message log says of the training: never the seed, never where the data are."""
        return {
            **self.task.layout.as_json(),
            "loss": self.task.loss.name,
            "method": method.kind,
            "hyper_parameters": dump(method.algorithm),
            **self.exchange(method),
            "secure_aggregation": False,
            "differential_privacy": None,
        }


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _play(stage: _Stage, method: Method, record: RunRecord, observer: Observer) -> None:
    """One trial, unless it is finished."""
    folder = record.trial_folder(method.name, stage.seed)
    trial = stage.trial(method.name, method)
    observer.on_event({"event": "trial", "method": method.name, "seed": stage.seed, "rounds": trial.planned})
    done = TrialRecord.open(folder)
    if done.finished:
        _require_same_data(stage, done)
    else:
        with Files(folder, stage.policy(), stage.header(method), limit=trial.remembered) as journal:
            outcome = run(trial, journal, observer.on_event, keep=_LIMIT)
            notice = _save_models(stage, method, trial, outcome, folder / MODELS)
            if notice:
                observer.on_event({"event": "notice", "text": notice})
            journal.event({"event": "end", "rounds": trial.planned})
    observer.on_event({"event": "trial_end", "method": method.name, "seed": stage.seed})


def _require_same_data(stage: _Stage, done: TrialRecord) -> None:
    """Refuse to mix trials of data that have changed since; what is unfinished is refused by its checkpoint."""
    if done.start["population"]["fingerprint"] != stage.population.fingerprint:
        raise ConfigError(
            "the data are not those this trial was finished with",
            where=str(done.folder),
            mend="Restore the data, or start anew with --fresh.",
        )


def _save_models(stage: _Stage, method: Method, trial: Trial, outcome: Outcome, path: Path) -> str:
    """Write the personal models; returns a notice when they are too large to be kept."""
    evaluations = [outcome.seen] if outcome.unseen is None else [outcome.seen, outcome.unseen]
    predictors = {c: p for evaluation in evaluations for c, p in evaluation.predictors.items()}
    scores = {
        c: s
        for evaluation in evaluations
        for c, s in zip(evaluation.columns["clients"], evaluation.columns["test"], strict=True)
    }
    if any(evaluation.dropped for evaluation in evaluations):
        return f"{method.name}: personal models exceed 256 MiB and are not saved"
    newcomer = None
    if method.algorithm.federates:
        general = method.algorithm.predictor(outcome.state, {}, None, stage.task)
        newcomer = (to_numpy(general.params), to_numpy(general.mix))
    ModelBundle.collect(
        ((c, to_numpy(p.params), to_numpy(p.mix), scores[c]) for c, p in predictors.items()),
        newcomer=newcomer,
        settings=stage.study.task,
        task=stage.task,
        provenance=Provenance(
            run=trial.identity,
            method=method.name,
            seed=stage.seed,
            references=(asdict(method.algorithm.reference),),
        ),
    ).save(path)
    return ""


def _guard(stage: _Stage, name: str, guarded: Guarded, record: RunRecord) -> None:
    """The guarded trial: composed of the evaluations of others, in no time and at no further cost."""
    trial = TrialRecord.open(record.trial_folder(name, stage.seed))
    if trial.finished:
        return
    others = (m.name for m in stage.study.methods if not isinstance(m.algorithm, Guarded))
    candidates = {method: record.trial(method, stage.seed) for method in guarded.among or others}
    evaluations = {group: _last(candidates, group) for group in ("seen", "unseen")}
    among = guarded.among or preference(evaluations["seen"])
    trial.truncate(0)
    method = next(m for m in stage.study.methods if m.name == name)
    trial.append(
        {
            "event": "start",
            "method": name,
            "seed": stage.seed,
            "rounds": 0,
            "parameters": stage.task.dimension,
            **stage.facts(method),
        }
    )
    trial.append(_cost(candidates))
    for events in filter(None, evaluations.values()):
        for event in compose(events, among):
            trial.append(event)
    _save_chosen(stage, method, trial, candidates)
    trial.append_timing({"evaluation": 0, "seconds": sum(t.seconds for t in candidates.values())})
    trial.append({"event": "end", "rounds": 0})


def _save_chosen(stage: _Stage, method: Method, trial: TrialRecord, candidates: Mapping[str, TrialRecord]) -> None:
    """One bundle with every client's chosen model; newcomers get the preferred candidate that has a general model."""
    paths = {name: candidate.folder / MODELS for name, candidate in candidates.items()}
    if not all(path.exists() for path in paths.values()):
        return  # a candidate's models were too large to be saved
    bundles = {name: ModelBundle.load(path) for name, path in paths.items()}
    chosen = {
        client: bundles[name]
        for choice in trial.events("choice")
        for client, name in zip(choice["clients"], choice["chosen"], strict=True)
    }
    general = (bundles[name] for name in trial.events("choice")[0]["among"] if bundles[name].newcomer is not None)
    source = next(general, None)
    ModelBundle.collect(
        ((client, *bundle.parts(client), bundle.personal(client).score) for client, bundle in chosen.items()),
        newcomer=None if source is None else source.parts(None),
        settings=stage.study.task,
        task=stage.task,
        provenance=Provenance(
            run=trial.hash,
            method=method.name,
            seed=stage.seed,
            references=(asdict(method.algorithm.reference),),
        ),
    ).save(trial.folder / MODELS)


def _last(candidates: Mapping[str, TrialRecord], group: str) -> dict[str, Any]:
    return {name: event for name, trial in candidates.items() if (event := trial.final(group)) is not None}


def _cost(candidates: Mapping[str, TrialRecord]) -> dict[str, Any]:
    """Bytes of all candidates together, and what their rounds took on the devices; the set-up is needed once."""
    setups = [trial.events("setup")[0] for trial in candidates.values()]
    spent = {key: [getattr(trial, key) for trial in candidates.values()] for key in ("simulated_s", "energy_j")}
    known = {key: [value for value in values if value is not None] for key, values in spent.items()}
    return {
        "event": "setup",
        "messages": 0,
        "bytes_up": sum(t.bytes_up for t in candidates.values()) - sum(s["bytes_up"] for s in setups[1:]),
        "bytes_down": sum(t.bytes_down for t in candidates.values()) - sum(s["bytes_down"] for s in setups[1:]),
        **{key: math.fsum(values) for key, values in known.items() if values},
    }


def _conclude(record: RunRecord) -> None:
    """Certificates, per-client table and summary, from the record alone."""
    certificates = [CHECKS.get(name)(record, **fields) for name, fields in _claims(record)]
    record.write_certificates(certificates)
    record.write_clients()
    record.write_summary(_summary(record, certificates))


def _summary(record: RunRecord, certificates: list[Certificate]) -> dict[str, Any]:
    page = record.folder / "report.html"
    return {
        "run": str(record.folder),
        "hash": record.hash,
        "report": str(page) if page.exists() else None,
        "methods": summarize(record),
        "certificates": [certificate.as_dict() for certificate in certificates],
    }


def _claims(record: RunRecord) -> Iterator[tuple[str, dict[str, Any]]]:
    """Which certificates a run can carry: the check and its fields."""
    local = local_method(record)
    for method in record.methods:
        if local is not None and method != local:
            yield "paired_difference", {"method": method, "reference": local}
    for method in record.methods:
        trials = [record.trial(method, seed) for seed in record.seeds]
        if trials[0].events("choice"):
            yield "guard", {"method": method}
            yield "choice_gap", {"method": method}
        if all((trial.folder / LOG_NAME).exists() for trial in trials) and trials[0].bytes_up:
            yield "wire_bytes", {"method": method}

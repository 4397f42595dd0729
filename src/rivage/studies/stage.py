"""What the trials of one seed share: clients, their data, the task, who never trains and who does harm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from rivage.core.errors import ConfigError, RivageError
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.core.settings import combine, dump
from rivage.data import build_population
from rivage.data.population import ClientIds, Population
from rivage.data.streams import StreamPopulation
from rivage.federated.adversaries import Adversary, Malicious
from rivage.federated.execution import Execution
from rivage.federated.promises import accounting_faults, promise
from rivage.federated.record_privacy import REFERENCE as RECORDS
from rivage.federated.record_privacy import model_faults, phase_of
from rivage.federated.trial import Trial, judged
from rivage.federated.turns import period
from rivage.learning.task import Task, make_task
from rivage.studies.settings import Study
from rivage.studies.study_faults import collector_faults, is_decentralized
from rivage.studies.study_tables import Method

__all__ = ["KEPT_BYTES", "Stage", "execution_of"]

KEPT_BYTES = 256 << 20
"""Of a message log or of saved models, at most, unless the study says otherwise."""


def execution_of(study: Study) -> Execution:
    """Where and how local training runs."""
    return Execution(executor=study.run.executor, workers=study.run.workers, device=study.run.device)


@dataclass(frozen=True)
class Stage:
    """What the trials of one seed share."""

    study: Study
    seed: int
    population: Population
    task: Task
    unseen: ClientIds
    adversary: Adversary | None = None

    @classmethod
    def build(cls, study: Study, seed: int) -> Stage:
        """Make the clients, choose those that never train, and see that the settings fit them.

        Raises:
            ConfigError: listing all that does not.
            DataError: for data that cannot be used.
        """
        population = build_population(
            study.data,
            partition=study.partition,
            shift=study.shift,
            availability=study.availability,
            seed=seed,
            validation=study.evaluation.validation,
            test=study.evaluation.test,
        )
        if study.stream is not None:
            population = study.stream.population(population, rounds=study.run.rounds, seed=seed)
        task = make_task(
            study.task,
            population.schema,
            dtype=getattr(torch, study.run.dtype),
            device=execution_of(study).resolved_device,
        )
        known = judged(population.size, seed)
        count = math.floor(study.evaluation.unseen_clients * len(known))
        chosen = Streams(seed).numpy("unseen").choice(known, count, replace=False)
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
            if cohort is None and not is_decentralized(method.algorithm):
                for fault in collector_faults(method.collector, there, f"{there} clients give"):
                    yield fault.at(f"[[methods]] {number}")
        if strangers := sorted(client for client in self.policy().clients if client >= size):
            yield ConfigError(
                f"log names {', '.join(map(str, strangers))}, but there are {size} clients",
                where="[run] log",
                mend=f"Give numbers from 0 to {size - 1}.",
            )
        for number, method in enumerate(self.study.methods, 1):
            for fault in model_faults(method.algorithm, method.name, self.task.layout):
                yield fault.at(f"[[methods]] {number}")
            for missing in accounting_faults(method.algorithm, self.promise(method), (cohort or there) / max(1, there)):
                yield missing.at(f"[[methods]] {number}")
        for number, method in enumerate(self.study.methods, 1):  # optional: what a method asks of the clients
            if misfit := getattr(method.algorithm, "misfit", lambda clients: None)(self.population):
                yield misfit.at(f"[[methods]] {number}")
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
            sampling=settings.run.sampling,
            epoch=settings.run.epoch,
            seed=self.seed,
            every=settings.evaluation.every,
            unseen=self.unseen,
            facts=self.facts(method),
            stages=method.stages,
            collector=method.collector,
            adversary=self.adversary,
            devices=settings.devices,
            remembered=settings.run.remembered,
            execution=execution_of(settings),
        )

    def facts(self, method: Method) -> dict[str, Any]:
        """What the record says of a trial beyond what the engine knows."""
        metric = self.task.metric
        return {
            "kind": method.kind,
            "settings": dump(method.algorithm),
            **self.exchange(method),
            **({"differential_privacy": told} if (told := self.promise(method)) else {}),
            **{name: part for name, part in dump(self.study).items() if name == "devices"},
            "metric": metric.name,
            "higher_is_better": metric.higher_is_better,
            "dtype": self.study.run.dtype,
            "reference": asdict(method.algorithm.reference),
            **self.rests_on(method),
            "population": self.census(),
            **self.arrivals(),
        }

    def rests_on(self, method: Method) -> dict[str, Any]:
        """Where the noise, the stages and the collector of a method come from, where they come from anywhere."""
        parts = [part.reference for part in (*method.stages, method.collector) if hasattr(part, "reference")]
        parts += [RECORDS] if phase_of(method.algorithm) is not None else []
        return {"rests_on": [asdict(part) for part in parts]} if parts else {}

    def promise(self, method: Method) -> dict[str, Any] | None:
        """What its noise promises; None without, and for methods without a server."""
        run = self.study.run
        turns = period(run.sampling, run.epoch, run.cohort, self.trainable)
        return promise(method.algorithm, method.stages, method.collector, run.sampling, turns)

    def exchange(self, method: Method) -> dict[str, Any]:
        """What happens to updates between clients and server, where that is not the plain mean of what was sent."""
        table = dump(method)
        parts = {
            "stages": table["stages"],
            "collector": table["collector"],
            "adversary": dump(self.study).get("adversary"),
        }
        return {name: part for name, part in parts.items() if part and part != {"kind": "mean"}}

    def arrivals(self) -> dict[str, Any]:
        """Records that stay and records that pass, at clients that may train, where some arrive during the run."""
        if not isinstance(self.population, StreamPopulation):
            return {}
        return {"stream": asdict(self.population.volumes(self.unseen))}

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

    def policy(self) -> LogPolicy:
        """What the message log keeps; by default everything, while that is small."""
        if self.study.run.log is not None:
            return LogPolicy.parse(self.study.run.log)
        cohort = self.study.run.cohort or self.population.size
        width = torch.finfo(self.task.dtype).bits // 8
        expected = self.study.run.rounds * (cohort + 1) * self.task.dimension * width
        return LogPolicy("all" if expected < KEPT_BYTES else "meta")

    def header(self, method: Method) -> dict[str, Any]:
        """What the message log says of the training: never the seed, never where the data are."""
        return {
            **self.task.layout.as_json(),
            "loss": self.task.loss.name,
            "method": method.kind,
            "rounds": self.study.run.rounds,
            "hyper_parameters": dump(method.algorithm),
            **self.exchange(method),
            "secure_aggregation": False,
            **getattr(method.collector, "statement", dict)(),
            "differential_privacy": self.promise(method),
        }

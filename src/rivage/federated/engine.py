"""The round loop. It owns order, cohorts, losses on the way, bytes, evaluation and checkpoints, and knows no algorithm.

Transport-free: clients run in this process through an executor; what travels is still turned into `Message`s, counted
on their serialised form and, where asked, logged.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rivage.core.errors import ConfigError, ProtocolError, require
from rivage.core.messages import Message
from rivage.core.seeding import Streams
from rivage.data.population import ClientIds, Population, called
from rivage.federated.algorithm import Algorithm, Cohort, State, Update
from rivage.federated.checkpoint import Journal, Memory, Notebook, Snapshot
from rivage.federated.cohorts import Candidates, Permutation
from rivage.federated.collectors import Plain
from rivage.federated.evaluation import Evaluation, Evaluator, naming
from rivage.federated.exchange import as_payload, average, broadcast_message, fault_of, roster, traffic, update_message
from rivage.federated.executors.functional import Functional, Job, one_thread
from rivage.learning.task import Task

__all__ = ["Outcome", "Trial", "run"]

_JUDGED = 10_000  # populations up to this size are evaluated whole, larger ones on so many clients / 10

Observe = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One method with one seed.

    Args:
        name: what the method is called in this run.
        algorithm: the method.
        population: who holds which data.
        task: what is learnt.
        rounds: exchanges between server and clients, >= 0.
        cohort: clients per round; None takes everyone available.
        seed: root of all random streams.
        every: rounds between evaluations; the end is always evaluated.
        unseen: clients that never train, evaluated apart, sorted.
        facts: further facts for the record's first event (JSON values).
    """

    name: str
    algorithm: Algorithm
    population: Population
    task: Task
    rounds: int
    cohort: int | None = None
    seed: int = 0
    every: int = 10
    unseen: ClientIds = field(default_factory=lambda: np.empty(0, np.int64))
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, Algorithm):
            raise ConfigError(
                f"{type(self.algorithm).__name__} cannot be played by itself: it lacks hooks of an algorithm",
                mend="Name it in a study if it chooses among other methods; else see `Algorithm` for the hooks.",
            )
        require(self.rounds, "rounds", least=0)
        require(self.every, "every", least=1)
        if self.cohort is not None:
            require(self.cohort, "cohort", least=1)

    @property
    def planned(self) -> int:
        """Rounds that will be played."""
        return self.rounds if self.algorithm.federates else 0

    @property
    def judged(self) -> ClientIds:
        """Clients that are evaluated, ascending: all of them, or a uniform sample of a very large population."""
        size = self.population.size
        if size <= _JUDGED:
            return np.arange(size, dtype=np.int64)
        order = Permutation(size, Streams(self.seed).seed("judged"))
        return np.sort(order(np.arange(_JUDGED // 10, dtype=np.int64)))

    @property
    def identity(self) -> str:
        """Hash of everything the result depends on; a checkpoint of another identity is refused."""
        parts = {
            "algorithm": repr(self.algorithm),
            "population": self.population.fingerprint,
            "layout": self.task.layout.as_json(),
            "learns": [self.task.loss.name, self.task.metric.name, str(self.task.dtype)],
            "rounds": self.planned,
            "cohort": self.cohort,
            "seed": self.seed,
            "every": self.every,
            "unseen": self.unseen.tolist(),
        }
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial ends with.

    Args:
        state: the server's tensors.
        seen: evaluation of the clients that could train.
        unseen: evaluation of those that could not; None without such clients.
    """

    state: State
    seen: Evaluation
    unseen: Evaluation | None


def run(trial: Trial, journal: Journal | None = None, observe: Observe = lambda event: None) -> Outcome:
    """Play a trial from its last checkpoint to the end.

    Args:
        trial: what to run.
        journal: where to write and resume from; nothing is kept when None.
        observe: called with every event as it happens (progress bars, loggers).

    Raises:
        ProtocolError: when no update of a round is usable.
    """
    with one_thread():
        return _Session(trial, Notebook() if journal is None else journal, observe).play()


class _Session:
    """The state of a trial being played."""

    def __init__(self, trial: Trial, journal: Journal, observe: Observe) -> None:
        self.trial, self.journal, self.observe = trial, journal, observe
        self.streams = Streams(trial.seed)
        self.executor = Functional(trial.task)
        self.evaluator = Evaluator(trial.algorithm, trial.population, self.executor, self.streams)
        self.memories: dict[int, Memory] = {}
        self.state: State = {}

    def play(self) -> Outcome:
        snapshot = self.journal.resume(self.trial.identity)
        if snapshot is None:
            self._begin()
        else:
            self.state, self.memories = snapshot.state, dict(snapshot.memories)
        for number in range(snapshot.rounds if snapshot else 0, self.trial.planned):
            started = time.perf_counter()
            event = self._round(number)
            self._record(event)
            done = number + 1
            if done % self.trial.every == 0 and done < self.trial.planned:
                self._evaluate(done, keep=False)
            self.journal.timing(round=number, seconds=time.perf_counter() - started)
            self.journal.commit(Snapshot(done, self.state, self.memories))
        seen, unseen = self._evaluate(self.trial.planned, keep=True)
        return Outcome(self.state, seen, unseen)

    def _begin(self) -> None:
        trial = self.trial
        clients = trial.population.size - len(trial.unseen)
        self.state = trial.algorithm.init(trial.task, clients, self.streams)
        setup = trial.population.setup
        self._record(
            {
                "event": "start",
                "method": trial.name,
                "seed": trial.seed,
                "rounds": trial.planned,
                "parameters": trial.task.dimension,
                **trial.facts,
            }
        )
        self._record({"event": "setup", "messages": len(setup), **traffic(setup)})
        for message in setup:
            self.journal.message(message)

    def _record(self, event: dict[str, Any]) -> None:
        self.journal.event(event)
        self.observe({**event, "method": self.trial.name, "seed": self.trial.seed})

    def _round(self, number: int) -> dict[str, Any]:
        """Select, send, train, collect, aggregate."""
        trial = self.trial
        streams = self.streams.child("round", number)
        candidates = Candidates(trial.population, number, trial.cohort, trial.unseen)
        cohort = trial.algorithm.select(self.state, candidates, streams, trial.task)
        self._require_cohort(cohort, number)
        arrives = trial.population.completes(cohort.ids, number)
        collector = Plain(each=trial.algorithm.needs == "each")
        rejected: list[dict[str, Any]] = []
        tally = {"bytes_up": 0, "bytes_down": 0, "gradients": 0}
        metrics: dict[str, list[float]] = {}
        shared, payload = None, as_payload(None)
        for client, weight, arrived in zip(cohort.ids.tolist(), cohort.weights.tolist(), arrives, strict=True):
            down = trial.algorithm.broadcast(self.state, client, trial.task)
            if down is not shared:  # one object for all clients is turned into one payload
                shared, payload = down, as_payload(down)
            tally["bytes_down"] += self._send(broadcast_message(number, client, payload))
            if not arrived:
                continue
            update, memory, gradients = self._client(cohort, client, weight, down, number, streams)
            tally["gradients"] += gradients
            tally["bytes_up"] += self._send(update_message(number, client, update))
            fault = fault_of(update, trial.task.dimension, collector.shapes)
            if fault:
                rejected.append({"client": client, "reason": fault})
                continue
            collector.add(update)
            for name, value in update.metrics.items():
                metrics.setdefault(name, []).append(float(value))
            if memory is not None:
                self.memories[client] = memory
        self._require_one(number, collector.count, rejected)
        if collector.count:
            self.state = trial.algorithm.aggregate(self.state, collector.result(), trial.task)
        lost = cohort.ids[~arrives]
        return {
            "event": "round",
            "round": number,
            "cohort": roster(cohort.ids),
            "lost": roster(lost),
            "rejected": rejected,
            "metrics": {name: average(values) for name, values in metrics.items()},
            **tally,
        }

    def _require_cohort(self, cohort: Cohort, number: int) -> None:
        """Refuse what no `select` may return: it would train on clients that are kept apart, or twice on one."""
        ids, weights = cohort.ids, cohort.weights
        faults = {
            f"{len(ids)} clients and {len(weights)} weights": len(ids) != len(weights),
            "a client twice": len(np.unique(ids)) != len(ids),
            "a client that is not registered": bool(((ids < 0) | (ids >= self.trial.population.size)).any()),
            "an unseen client": bool(np.isin(ids, self.trial.unseen).any()),
            "a weight that is negative or not finite": not bool((np.isfinite(weights) & (weights >= 0)).all()),
        }
        found = [fault for fault, present in faults.items() if present]
        if found:
            raise ProtocolError(
                f"select returned {' and '.join(found)}",
                where=f'method "{self.trial.name}", seed {self.trial.seed}, round {number}',
                mend="Return distinct ids that candidates.eligible lets through, and one weight >= 0 for each.",
            )

    def _client(
        self,
        cohort: Cohort,
        client: int,
        weight: float,
        down: State | None,
        number: int,
        streams: Streams,
    ) -> tuple[Update, Memory | None, int]:
        """One client's round: start, train, finish. Also its memory, None when nothing changed, and its gradients."""
        trial = self.trial
        algorithm, task = trial.algorithm, trial.task
        data = trial.population.client(client, number)
        memory = self.memories.get(client, Memory())
        losses = None
        if algorithm.needs_losses and down is not None:
            losses = self.executor.losses(down["params"].reshape(-1, task.dimension), data.train)
        local = algorithm.start(down or {}, memory.values, data, losses, streams.child("client", client), task)
        local.weight = weight
        job = Job(client, local, data.train, memory.position)
        if cohort.work is not None:
            with naming(self._place(number, client)):
                self.executor.train(algorithm, cohort.work, [job], self.streams.child("train"), number)
        update = replace(algorithm.finish(local, task), client=client, version=number)
        if update.memory is None and job.position == memory.position:
            return update, None, local.gradients
        values = memory.values if update.memory is None else update.memory
        return update, Memory(values, job.position), local.gradients

    def _send(self, message: Message | None) -> int:
        if message is None:
            return 0
        self.journal.message(message)
        return message.nbytes

    def _require_one(self, number: int, accepted: int, rejected: list[dict[str, Any]]) -> None:
        """Stop when training has diverged: several clients answered, none usably. One bad client stops nothing."""
        if accepted or len(rejected) < 2:
            return
        first = rejected[0]
        raise ProtocolError(
            f"none of {len(rejected)} updates could be used; the first has {first['reason']}",
            where=self._place(number, first["client"]),
            mend="Lower learning_rate, or check the data of this client.",
        )

    def _place(self, number: int, client: int) -> str:
        who = called(self.trial.population, client)
        return f'method "{self.trial.name}", seed {self.trial.seed}, round {number}, {who}'

    def _evaluate(self, done: int, *, keep: bool) -> tuple[Evaluation, Evaluation | None]:
        started = time.perf_counter()
        judged, unseen = self.trial.judged, self.trial.unseen
        groups = {"seen": judged[~np.isin(judged, unseen)], "unseen": unseen}
        values = {client: memory.values for client, memory in self.memories.items()}
        results = {}
        for group, ids in groups.items():
            if len(ids):
                with naming(f'method "{self.trial.name}", seed {self.trial.seed}, evaluation after round {done}'):
                    results[group] = self.evaluator.evaluate(self.state, values, ids.tolist(), done, group, keep=keep)
                self._record(results[group].event())
        self.journal.timing(evaluation=done, seconds=time.perf_counter() - started)
        return results["seen"], results.get("unseen")

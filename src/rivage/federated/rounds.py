"""One round: who takes part, what is sent, trained, returned and combined.

Clients are worked on in blocks of the cohort, in its order: everyone in a block starts, the executor trains them
together, then each finishes and its update is taken in. Memory is bounded by the block, and what a block contains does
not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from rivage.core.errors import ProtocolError
from rivage.core.seeding import Streams
from rivage.data.population import called
from rivage.federated.algorithm import Cohort, State, Update
from rivage.federated.checkpoint import Journal
from rivage.federated.clipped_sum import ClippedSum, Moment
from rivage.federated.cohorts import Candidates
from rivage.federated.collectors import Conversing
from rivage.federated.exchange import Postman, average, fault_of, roster, usual_shapes
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.failures import Failed, explained
from rivage.federated.memories import Memory
from rivage.federated.promises import Spending, entry_of
from rivage.federated.trial import Trial
from rivage.simulation.devices import cost

__all__ = ["Round"]

_BLOCK_BYTES = 128 << 20  # parameters of the clients that are in memory at the same time
_BLOCK_CLIENTS = (8, 512)  # at least (there is something to do side by side), at most (their records are in memory too)


class Round:
    """One exchange between the server and a cohort.

    Args:
        trial: what is played.
        executor: trains.
        journal: takes messages and memories.
        state: the server's, before.
        number: of the round, from 0.
    """

    def __init__(self, trial: Trial, executor: Executor, journal: Journal, state: State, number: int) -> None:
        self.trial, self.executor, self.journal, self.state, self.number = trial, executor, journal, state, number
        self.streams = Streams(trial.seed).child("round", number)
        self.collector = trial.collector.collector(each=trial.algorithm.needs == "each")
        self.talking = self.collector if isinstance(self.collector, Conversing) else None
        self.postman = Postman(journal, number)
        self.shapes: Mapping[str, torch.Size] = {}
        self.rejected: list[dict[str, Any]] = []
        self.metrics: dict[str, list[float]] = {}
        self.gradients: dict[int, int] = {}
        self.spending = None if trial.promise is None else Spending(trial.algorithm, trial.promise, trial.share)
        if isinstance(self.collector, ClippedSum):
            entry = entry_of(trial.algorithm)
            assert entry is not None, "settings are refused otherwise"
            self.collector.begin(entry, state, trial.expected, self._moment())

    def _moment(self) -> Moment:
        trial = self.trial
        streams, throughout = (root.child("collector", trial.secret) for root in (self.streams, trial.streams))
        return Moment(self.number, trial.planned, trial.period, streams, throughout)

    def play(self) -> tuple[State, dict[str, Any]]:
        """The server's next state, and the round's event."""
        cohort = self._chosen()
        arrives, forgotten = self._collect(cohort)
        refusal = self.collector.refusal
        state = self._aggregated(refusal)
        event = self._event(cohort, arrives) | ({"refused": refusal} if refusal is not None else {})
        if self.spending is not None:
            event |= {"private": self.spending.event(getattr(self.collector, "multiplier", None))}
        if isinstance(self.collector, ClippedSum):
            state, event = {**state, **self.collector.carried()}, event | self.collector.report()
        event |= {"forgotten": forgotten} if forgotten else {}
        event |= {} if self.talking is None else self.talking.report()
        if hasattr(self.trial.algorithm, "report"):  # optional: numbers that the server knows, for the record
            event |= {"server": dict(self.trial.algorithm.report(state))}
        return state, event | self._cost(cohort, arrives)

    def _chosen(self) -> Cohort:
        trial = self.trial
        candidates = Candidates(trial.population, self.number, trial.cohort, trial.unseen, trial.sampling, trial.turns)
        cohort = trial.algorithm.select(self.state, candidates, self.streams, trial.task)
        self._require_sound(cohort)
        return cohort

    def _collect(self, cohort: Cohort) -> tuple[Bool[ndarray, "clients"], int]:
        """Exchange everything with the cohort; whose update arrived, and how many clients were forgotten."""
        arrives = self.trial.population.completes(cohort.ids, self.number)
        weights = dict(zip(cohort.ids.tolist(), cohort.weights.tolist(), strict=True))
        downs = self._broadcast(list(weights))
        if self.talking is not None:
            streams = self.streams.child("collector", self.trial.secret)
            arrives = self.talking.open(cohort, arrives, downs, self.postman, streams)
        harmful = self._harmful(cohort)
        changed: dict[int, Memory] = {}
        for block in self._blocks(cohort.ids[arrives].tolist()):
            changed |= self._block(cohort, block, downs, weights, harmful)
        forgotten = self.journal.memories.put(changed, self.number) if changed else 0
        self._require_one()
        if self.talking is not None:
            self.talking.close()
        return arrives, forgotten

    def _aggregated(self, refusal: str | None) -> State:
        """The server's next state; a sum with noise is taken in also when nobody came."""
        if refusal is None and (self.collector.count or isinstance(self.collector, ClippedSum)):
            return self.trial.algorithm.aggregate(self.state, self.collector.result(), self.trial.task)
        return self.state

    def _event(self, cohort: Cohort, arrives: Bool[ndarray, "clients"]) -> dict[str, Any]:
        """What every round tells."""
        return {
            "event": "round",
            "round": self.number,
            "cohort": roster(cohort.ids),
            "lost": roster(cohort.ids[~arrives]),
            "rejected": self.rejected,
            "metrics": {name: average(values) for name, values in self.metrics.items()},
            "bytes_up": self.postman.bytes_up,
            "bytes_down": self.postman.bytes_down,
            "gradients": sum(self.gradients.values()),
        }

    def _require_sound(self, cohort: Cohort) -> None:
        """Refuse what no `select` may return: it would train on clients that are kept apart, or twice on one."""
        ids, weights, turns = cohort.ids, cohort.weights, self.trial.turns
        faults = {
            f"{len(ids)} clients and {len(weights)} weights": len(ids) != len(weights),
            "a client twice": len(np.unique(ids)) != len(ids),
            "a client that is not registered": bool(((ids < 0) | (ids >= self.trial.population.size)).any()),
            "an unseen client": bool(len(self.trial.unseen) and np.isin(ids, self.trial.unseen).any()),
            "a client whose turn it is not": turns is not None and not turns.due(ids, self.number).all(),
            "a weight that is negative or not finite": not bool((np.isfinite(weights) & (weights >= 0)).all()),
        }
        found = [fault for fault, present in faults.items() if present]
        if found:
            raise ProtocolError(
                f"select returned {' and '.join(found)}",
                where=f'method "{self.trial.name}", seed {self.trial.seed}, round {self.number}',
                mend="Return distinct ids that candidates.eligible lets through, and one weight >= 0 for each.",
            )

    def _broadcast(self, clients: list[int]) -> Mapping[int, State | None]:
        """What goes down to each client of the cohort, also to those whose update will be lost."""
        downs: dict[int, State | None] = {}
        for client in clients:
            down = downs[client] = self.trial.algorithm.broadcast(self.state, client, self.trial.task)
            self.postman.down(client, down)
        return downs

    def _harmful(self, cohort: Cohort) -> frozenset[int]:
        adversary = self.trial.adversary
        if adversary is None:
            return frozenset()
        return frozenset(cohort.ids[adversary.malicious(cohort.ids, self.trial.seed)].tolist())

    def _blocks(self, clients: list[int]) -> Iterator[list[int]]:
        least, most = _BLOCK_CLIENTS
        task = self.trial.task
        size = max(least, min(most, _BLOCK_BYTES // (task.dimension * task.dtype.itemsize)))
        return (clients[i : i + size] for i in range(0, len(clients), size))

    def _block(
        self,
        cohort: Cohort,
        clients: list[int],
        downs: Mapping[int, State | None],
        weights: Mapping[int, float],
        harmful: frozenset[int],
    ) -> dict[int, Memory]:
        """Train some clients and take in their updates; returns the memories that changed."""
        memories = self.journal.memories.get(clients)
        jobs = self._start(clients, downs, memories)
        for job in jobs:
            job.local.weight = weights[job.client]
        if cohort.work is not None:
            try:
                self.executor.train(
                    self.trial.algorithm,
                    cohort.work,
                    jobs,
                    self.trial.streams.child("train"),
                    self.number,
                    secret=self.trial.secret,
                )
            except Failed as failure:
                raise explained(failure.__cause__ or failure, self._place(failure.client)) from failure.__cause__
        answers = [
            self._finish(job, downs[job.client], memory, harmful=job.client in harmful)
            for job, memory in zip(jobs, memories, strict=True)
        ]
        self.shapes = self.shapes or usual_shapes([update for update, _ in answers])
        changed = {}
        for job, memory, (update, residuals) in zip(jobs, memories, answers, strict=True):
            after = self._take_in(job, downs[job.client], memory, update, residuals)
            if after is not None:
                changed[job.client] = after
        return changed

    def _start(self, clients: list[int], downs: Mapping[int, State | None], memories: list[Memory]) -> list[Job]:
        trial = self.trial
        algorithm, task, population = trial.algorithm, trial.task, trial.population
        data = [population.client(client, self.number) for client in clients]
        losses = self.executor.client_losses(algorithm, [downs[client] for client in clients], data)
        jobs = []
        for client, memory, held, loss in zip(clients, memories, data, losses, strict=True):
            streams = self.streams.child("client", client)
            local = algorithm.start(downs[client] or {}, memory.values, held, loss, streams, task)
            jobs.append(Job(client, local, held.train, memory.position))
        return jobs

    def _finish(self, job: Job, down: State | None, memory: Memory, *, harmful: bool) -> tuple[Update, State]:
        """What a client returns, as the server reads it, and what compression has held back."""
        trial, client = self.trial, job.client
        update = trial.algorithm.finish(job.local, trial.task)
        if update.client >= 0:  # one object for several clients
            update = replace(update)
        update.client, update.version = client, self.number
        self.gradients[client] = job.local.gradients
        if self.spending is not None:
            self.spending.note(client, len(job.samples), job.local.steps)
        if harmful and trial.adversary is not None:
            update = trial.adversary.corrupt(update, down or {}, client, self.streams)
        residuals = memory.residuals
        if trial.stages:
            sent = trial.pipeline.transmit(
                update, down or {}, residuals, self.streams.child("stages", client, self.trial.secret)
            )
            update, residuals = sent.update, sent.residuals
        if self.talking is None:
            self.postman.up(client, update, sent.payload if trial.stages else None)
        return update, residuals

    def _take_in(self, job: Job, down: State | None, memory: Memory, update: Update, residuals: State) -> Memory | None:
        """Hand an update to the collector unless it is unusable; the client's memory, None when nothing changed."""
        client, fault = job.client, fault_of(update, self.trial.task.dimension, self.shapes)
        if fault is None and self.talking is not None:
            fault = self.talking.fault(update)
        if fault:
            self.rejected.append({"client": client, "reason": fault})
            return None
        self.collector.add(update, down)
        for name, value in update.metrics.items() if self.talking is None else ():
            self.metrics.setdefault(name, []).append(float(value))
        if update.memory is None and job.position == memory.position and not (residuals or memory.residuals):
            return None
        return Memory(memory.values if update.memory is None else update.memory, job.position, residuals)

    def _require_one(self) -> None:
        """Stop when training has diverged: several clients answered, none usably. One bad client stops nothing."""
        if self.collector.count or len(self.rejected) < 2:
            return
        first = self.rejected[0]
        raise ProtocolError(
            f"none of {len(self.rejected)} updates could be used; the first has {first['reason']}",
            where=self._place(first["client"]),
            mend="Lower learning_rate, or check the data of this client.",
        )

    def _place(self, client: int) -> str:
        who = called(self.trial.population, client)
        return f'method "{self.trial.name}", seed {self.trial.seed}, round {self.number}, {who}'

    def _cost(self, cohort: Cohort, arrives: Bool[ndarray, "clients"]) -> dict[str, Any]:
        """Simulated time and energy, where devices are described."""
        if self.trial.devices is None:
            return {}
        down, up = (
            np.array([self.postman.by_client[client][way] for client in cohort.ids.tolist()], np.float64)
            for way in (0, 1)
        )
        gradients = np.array([self.gradients.get(client, 0) for client in cohort.ids.tolist()], np.float64)
        seed = Streams(self.trial.seed).seed("devices")
        return cost(self.trial.devices, seed, cohort.ids, gradients, down, up, arrives=arrives)

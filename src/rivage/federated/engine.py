"""The round loop. It owns order, cohorts, losses on the way, bytes, evaluation and checkpoints, and knows no algorithm.

Transport-free: clients run in this process through an executor; what travels is still turned into `Message`s, counted
on their serialised form and, where asked, logged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from rivage.core.seeding import Streams
from rivage.federated.algorithm import State
from rivage.federated.checkpoint import Journal, Notebook, Snapshot
from rivage.federated.evaluation import Evaluation, Evaluator
from rivage.federated.exchange import opening
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import one_thread
from rivage.federated.failures import naming
from rivage.federated.rounds import Round
from rivage.federated.trial import Trial

__all__ = ["Outcome", "Session", "Trial", "run"]

Observe = Callable[[Mapping[str, Any]], None]


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


class Session:
    """A trial being played: iterate over it to play its rounds, one per step, then ask for `outcome`.

    It goes on from the journal's last checkpoint, and closes its workers when left as a context.

    Args:
        trial: what to run.
        journal: where to write and resume from; nothing is kept when None.
        observe: called with every event as it happens (progress bars, loggers).

    Attributes:
        state: the server's tensors after the last round played.
    """

    def __init__(self, trial: Trial, journal: Journal | None = None, observe: Observe = lambda event: None) -> None:
        self.trial, self.observe = trial, observe
        self.journal = Notebook(limit=trial.remembered) if journal is None else journal
        self.streams = Streams(trial.seed)
        self.executor = Executor(trial.task, trial.execution)
        self.evaluator = Evaluator(trial.algorithm, trial.population, self.executor, self.streams)
        snapshot = self.journal.resume(trial.identity)
        self.done = 0 if snapshot is None else snapshot.rounds
        self.state: State = {} if snapshot is None else snapshot.state
        if snapshot is None:
            self._begin()
        else:  # what a tile holds decides the rounding: it stays as it was
            self.executor.tile_bytes = int(snapshot.extra.get("tile_bytes", self.executor.tile_bytes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.executor.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The events of the rounds that are still to be played.

        Raises:
            ProtocolError: when no update of a round is usable.
        """
        while self.done < self.trial.planned:
            yield self._next()

    def outcome(self, keep: float = math.inf) -> Outcome:
        """The final evaluation; with at most so many bytes of personal models, or with none."""
        seen, unseen = self._evaluate(keep=keep)
        return Outcome(self.state, seen, unseen)

    def _begin(self) -> None:
        trial = self.trial
        clients = trial.population.size - len(trial.unseen)
        self.state = trial.algorithm.init(trial.task, clients, self.streams)
        for event in opening(trial, self.executor.kind):
            self._record(event)
        for message in trial.population.setup:
            self.journal.message(message)

    def _next(self) -> dict[str, Any]:
        """Play one round."""
        started = time.perf_counter()
        with one_thread():
            self.state, event = Round(self.trial, self.executor, self.journal, self.state, self.done).play()
        self._record(event)
        self.done += 1
        evaluated = self.done % self.trial.every == 0 and self.done < self.trial.planned
        if evaluated:
            self._evaluate(keep=0)
        self.journal.timing(round=self.done - 1, seconds=time.perf_counter() - started)
        snapshot = Snapshot(self.done, self.state, {"tile_bytes": self.executor.tile_bytes})
        self.journal.commit(snapshot, force=evaluated or self.done == self.trial.planned)
        return event

    def _record(self, event: dict[str, Any]) -> None:
        self.journal.event(event)
        self.observe({**event, "method": self.trial.name, "seed": self.trial.seed})

    def _evaluate(self, *, keep: float) -> tuple[Evaluation, Evaluation | None]:
        started, queries, search_s = time.perf_counter(), self.executor.searched, self.executor.search_s
        judged, unseen = self.trial.judged, self.trial.unseen
        groups = {"seen": judged[~np.isin(judged, unseen)], "unseen": unseen}
        results = {}
        where = f'method "{self.trial.name}", seed {self.trial.seed}, evaluation after round {self.done}'
        for group, ids in groups.items():
            if len(ids):
                recall, clients = self.journal.memories.get, ids.tolist()
                with one_thread(), naming(where):
                    results[group] = self.evaluator.evaluate(self.state, recall, clients, self.done, group, keep=keep)
                self._record(results[group].event())
        searched = self.executor.searched - queries
        search = {"queries": searched, "search_s": self.executor.search_s - search_s} if searched else {}
        self.journal.timing(evaluation=self.done, seconds=time.perf_counter() - started, **search)
        return results["seen"], results.get("unseen")


def run(
    trial: Trial, journal: Journal | None = None, observe: Observe = lambda event: None, *, keep: float = math.inf
) -> Outcome:
    """Play a trial from its last checkpoint to the end; the arguments are those of `Session` and `Session.outcome`.

    Raises:
        ProtocolError: when no update of a round is usable.
    """
    with Session(trial, journal, observe) as session:
        for _event in session:
            pass
        return session.outcome(keep)

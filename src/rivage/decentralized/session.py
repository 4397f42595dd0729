"""The loop of decentralised training in simulation: all silos in this process, their models stacked.

It owns order, local training, mixing, bytes, simulated time, evaluation and checkpoints, and knows no algorithm. A
round: every silo trains on its own data, sends what its algorithm says over the arcs of the round, and takes the
weighted sums of what came. Evaluated are each silo's own model after the round, on its own records (group ``seen``),
and on the same records the average of all models between local training and mixing (group ``average``), which is also
what clients get that are no silos (``unseen``). Where a silo has several models, they are averaged one by one, and it
mixes the averages as its own.

The record says of each round the bytes over all arcs; ``consensus``, the mean over silos and parameters of
(w_i − w̄)², at that same instant; and where time is simulated ``clock_ms``, the mean over silos of the time at which
they start the next round, and ``simulated_s``, by how much that is later than for the round before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch

from rivage.core.errors import ProtocolError
from rivage.data.population import called
from rivage.decentralized import gossip
from rivage.decentralized.exchange import Exchange
from rivage.decentralized.judging import Judge
from rivage.decentralized.local_training import Trained, train
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.batches import Position
from rivage.federated.checkpoint import Journal, Notebook, Snapshot
from rivage.federated.engine import Outcome
from rivage.federated.evaluation import Evaluation
from rivage.federated.exchange import opening, roster
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import one_thread
from rivage.federated.failures import Failed, explained

__all__ = ["SiloSession", "run"]

Observe = Callable[[Mapping[str, Any]], None]
_AVERAGE = "average of all silos"  # no name that an algorithm would give to what it keeps


class SiloSession:
    """A trial being played: iterate over it to play its rounds, one per step, then ask for `outcome`.

    It goes on from the journal's last checkpoint, and closes its workers when left as a context.

    Args:
        trial: what to run.
        journal: where to write and resume from; nothing is kept when None.
        observe: called with every event as it happens.

    Attributes:
        state: what all silos hold after the last round played, stacked.
        average: the average model, or models.
    """

    def __init__(self, trial: SiloTrial, journal: Journal | None = None, observe: Observe = lambda event: None) -> None:
        self.trial, self.observe = trial, observe
        self.journal = Notebook() if journal is None else journal
        self.executor = Executor(trial.task, trial.execution)
        self.judge = Judge(trial, self.executor)
        self.silos = trial.silos.tolist()
        self.positions: tuple[Position, ...] = (Position(),) * len(self.silos)
        self.starts_ms = np.zeros(len(self.silos))
        snapshot = self.journal.resume(trial.identity)
        if snapshot is None:
            self._begin()
        else:
            self._go_on(snapshot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.executor.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The events of the rounds that are still to be played.

        Raises:
            ProtocolError: when training diverges.
        """
        while self.done < self.trial.planned:
            yield self._next()

    def outcome(self, keep: float = math.inf) -> Outcome:
        """The final evaluation; with at most so many bytes of the silos' models, or with none."""
        seen, unseen = self._evaluate(keep=keep)
        return Outcome({"params": self.average}, seen, unseen)

    def _begin(self) -> None:
        trial = self.trial
        self.done = 0
        self.average = gossip.initial(trial.algorithm, trial.task, trial.seed)
        self.state = trial.algorithm.start(self.average.expand(len(self.silos), *self.average.shape).clone())
        for event in opening(trial, self.executor.kind):
            self._record(event)
        for message in trial.population.setup:
            self.journal.message(message)

    def _go_on(self, snapshot: Snapshot) -> None:
        self.done = snapshot.rounds
        self.state = {name: value for name, value in snapshot.state.items() if name != _AVERAGE}
        self.average = snapshot.state[_AVERAGE]
        self.starts_ms = np.array(snapshot.extra["starts_ms"], np.float64)
        self.positions = tuple(Position(*place) for place in snapshot.extra["positions"])
        self.executor.tile_bytes = int(snapshot.extra["tile_bytes"])  # what a tile holds decides the rounding

    def _snapshot(self) -> Snapshot:
        extra = {
            "starts_ms": self.starts_ms.tolist(),
            "positions": [[place.passes, place.position] for place in self.positions],
            "tile_bytes": self.executor.tile_bytes,
        }
        return Snapshot(self.done, {**self.state, _AVERAGE: self.average}, extra)

    def _next(self) -> dict[str, Any]:
        """Play one round."""
        started = time.perf_counter()
        with one_thread():
            event = self._round()
        self._record(event)
        self.done += 1
        evaluated = self.done % self.trial.every == 0 and self.done < self.trial.planned
        if evaluated:
            self._evaluate(keep=0)
        self.journal.timing(round=self.done - 1, seconds=time.perf_counter() - started)
        self.journal.commit(self._snapshot(), force=evaluated or self.done == self.trial.planned)
        return event

    def _round(self) -> dict[str, Any]:
        trial, round = self.trial, self.done
        trained = self._train(round)
        exchange = Exchange(trial.plan, self.journal, self.silos, round, self.starts_ms / 1000)
        self.state = gossip.play(
            trial.algorithm, trained.state, trained.params, trial.algorithm.learning_rate, exchange.mix
        )
        self.positions = trained.positions
        self.average = trained.params.mean(dim=0)
        self._require_finite()
        spread = float((trained.params - self.average).square().mean())  # may overflow before models do
        return {
            "event": "round",
            "round": round,
            "cohort": roster(trial.silos),
            "bytes_up": exchange.bytes_up,
            "bytes_down": exchange.bytes_down,
            "gradients": trained.gradients,
            "consensus": spread if math.isfinite(spread) else None,
            **self._time(round),
        }

    def _train(self, round: int) -> Trained:
        trial = self.trial
        data = [trial.population.client(client, round).train for client in self.silos]
        try:
            return train(
                self.executor,
                trial.algorithm,
                self.state,
                self.silos,
                data,
                self.positions,
                importance=trial.importance,
                seed=trial.seed,
                round=round,
            )
        except Failed as failure:
            raise explained(failure.__cause__ or failure, self._place(failure.client)) from failure.__cause__

    def _time(self, round: int) -> dict[str, float]:
        if self.trial.clock is None:
            return {}
        before = float(self.starts_ms.mean())
        self.starts_ms = self.trial.clock.after(round, self.starts_ms)
        after = float(self.starts_ms.mean())
        return {"clock_ms": after, "simulated_s": (after - before) / 1000}

    def _require_finite(self) -> None:
        params = self.state["params"]
        if math.isfinite(float(params.sum())):  # one fast pass; huge numbers are looked at closely
            return
        finite = torch.isfinite(params).flatten(1).all(dim=1)
        if not bool(finite.all()):
            client = self.silos[int(torch.argmin(finite.to(torch.uint8)))]
            raise ProtocolError(
                "the model is not finite after the exchange",
                where=self._place(client),
                mend="Lower learning_rate, or check the data of the silos.",
            )

    def _place(self, client: int) -> str:
        who = called(self.trial.population, client)
        return f'method "{self.trial.name}", seed {self.trial.seed}, round {self.done}, {who}'

    def _record(self, event: dict[str, Any]) -> None:
        self.journal.event(event)
        self.observe({**event, "method": self.trial.name, "seed": self.trial.seed})

    def _evaluate(self, *, keep: float) -> tuple[Evaluation, Evaluation | None]:
        started = time.perf_counter()
        own = {client: gossip.row(self.state, silo) for silo, client in enumerate(self.silos)}
        shared = {client: {**held, "params": self.average} for client, held in own.items()}
        seen = self.judge.silos(own, self.done, "seen", keep=keep)
        average = self.judge.silos(shared, self.done, "average")
        unseen = self.trial.unseen.tolist()
        others = self.judge.others(self.average, unseen, self.done, keep=keep) if unseen else None
        for found in (seen, average, others):
            if found is not None:
                self._record(found.event())
        self.journal.timing(evaluation=self.done, seconds=time.perf_counter() - started)
        return seen, others


def run(
    trial: SiloTrial, journal: Journal | None = None, observe: Observe = lambda event: None, *, keep: float = math.inf
) -> Outcome:
    """Play a trial from its last checkpoint to the end; the arguments are those of `SiloSession` and its `outcome`.

    Raises:
        ProtocolError: when training diverges.
    """
    with SiloSession(trial, journal, observe) as session:
        for _event in session:
            pass
        return session.outcome(keep)

"""The loop of decentralised training in one silo of several, each a process of its own.

It plays what `rivage.decentralized.session` simulates: the same algorithms, batches and weights, and silo 0 writes the
same record. Between two evaluations a silo hears of nobody but its neighbours; then the silos agree on what is known of
all (`census`), judge themselves (`judging`) and write a common checkpoint (`checkpoints`). What a simulation knows in
every round is therefore known then only: ``consensus`` of the rounds in between is null. Wall-clock times of rounds go
to ``timings.jsonl`` of each silo; ``begun_s`` counts from when all began the trial.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError, ProtocolError
from rivage.data.population import called
from rivage.decentralized import gossip
from rivage.decentralized.judging import Judge
from rivage.decentralized.local_training import Trained, train
from rivage.decentralized.silo_trial import SiloTrial
from rivage.decentralized.torchdist.census import Census
from rivage.decentralized.torchdist.checkpoints import joined, picked
from rivage.decentralized.torchdist.company import Company
from rivage.decentralized.torchdist.judging import assembled, require_local_metric, told
from rivage.decentralized.torchdist.mixer import Mixer, flattened, legs_a_round, legs_of
from rivage.decentralized.torchdist.transport import Transport
from rivage.federated.averaging import global_predictor
from rivage.federated.batches import Position
from rivage.federated.calibration import DEFAULT_TILE_BYTES
from rivage.federated.checkpoint import Journal, Snapshot
from rivage.federated.engine import Outcome
from rivage.federated.evaluation import Evaluation
from rivage.federated.exchange import opening, roster
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import one_thread
from rivage.federated.failures import Failed, explained

__all__ = ["Silo"]

Observe = Callable[[Mapping[str, Any]], None]
_AVERAGE = "average of all silos"


class Silo:
    """One silo playing its part of a trial; at silo 0 also the keeper of its record.

    Args:
        trial: what is played, the same for all.
        company: all silos.
        journal: of this silo: where it writes and resumes from. At silo 0 it is that of the trial.
        observe: called with every event of the record as it is written, at silo 0.
        ahead: how many rounds ahead a silo is ready to receive, see `Transport`.
    """

    def __init__(
        self,
        trial: SiloTrial,
        company: Company,
        journal: Journal,
        observe: Observe = lambda event: None,
        *,
        ahead: int = 2,
    ) -> None:
        require_local_metric(trial)
        self.trial, self.company, self.journal, self.observe = trial, company, journal, observe
        self.client = int(trial.silos[company.rank])
        self.executor = Executor(trial.task, _alone(trial.execution))
        self.judge = Judge(trial, self.executor)
        self.starts_ms = np.zeros(company.size)
        self._ahead = ahead
        self._before: Snapshot | None = None
        self._pending: list[dict[str, Any]] = []
        self._gradients: list[int] = []
        self._untold: list[dict[str, Any]] = []
        self._resume()

    @property
    def keeps_record(self) -> bool:
        """Whether this is silo 0."""
        return self.company.rank == 0

    def run(self, keep: float = math.inf) -> Outcome | None:
        """Play from the last common checkpoint to the end.

        Args:
            keep: bytes of the silos' models that silo 0 may collect at the end; if they are more, it collects none.

        Returns:
            What the trial ends with, at silo 0; None elsewhere.

        Raises:
            ProtocolError: when training diverges, or naming the silo that ended.
        """
        trial, company = self.trial, self.company
        sent = trial.algorithm.send(self.state, self.state["params"], trial.algorithm.learning_rate)
        legs = legs_a_round(trial.plan)
        judged = [done for done in range(self.done + 1, trial.planned + 1) if self._is_judged(done)]
        with (
            self.executor,
            Transport(
                company.group,
                company.rank,
                partial(legs_of, trial.plan),
                first=legs * self.done,
                end=legs * trial.planned,
                like=flattened(sent),
                watch=company.watch,
                ahead=legs * self._ahead,
            ) as transport,
            Census(company, self.average, len(judged)) as census,
        ):
            company.board.meet("trial")
            self._zero = time.perf_counter()
            while self.done < trial.planned:
                self._next(Mixer(trial.plan, transport, company.rank), census)
            return self._end(census, keep)

    # --- where it begins ------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Begin, or go on from the checkpoint that silo 0 has."""
        identity = f"{self.trial.identity} in silos apart"  # whose checkpoints are others than those of a simulation
        board, found = self.company.board, self.journal.resume(identity)
        own = {"rounds": 0 if found is None else found.rounds, "identity": self.trial.identity}
        first = board.announce("from", own)
        self._require_same(first["identity"])
        snapshot = picked(found, first["rounds"])
        if snapshot is None and first["rounds"]:
            raise ConfigError(
                f"there is no checkpoint of round {first['rounds']}, which silo 0 goes on from",
                where=self._where(first["rounds"]),
                mend="Give this silo its files back, or start anew with --fresh.",
            )
        board.meet("resumed")
        if snapshot is None:
            self._begin()
        else:
            self._go_on(snapshot)

    def _require_same(self, identity: str) -> None:
        if identity != self.trial.identity:
            raise ConfigError(
                "settings or data differ from those of silo 0",
                where=self._where(0),
                mend="Give all silos the same study and the same files.",
            )

    def _begin(self) -> None:
        trial = self.trial
        self.done = 0
        self.average = gossip.initial(trial.algorithm, trial.task, trial.seed)
        self.state = trial.algorithm.start(self.average[None].clone())
        self.position = Position()
        for event in opening(trial, self.executor.kind):
            self._record(event)

    def _go_on(self, snapshot: Snapshot) -> None:
        self.done, self._before = snapshot.rounds, snapshot
        self.state = {name: value for name, value in snapshot.state.items() if name != _AVERAGE}
        self.average = snapshot.state[_AVERAGE]
        self.starts_ms = np.array(snapshot.extra["starts_ms"], np.float64)
        self.position = Position(*snapshot.extra["position"])

    # --- rounds ---------------------------------------------------------------------------------------------

    def _is_judged(self, done: int) -> bool:
        return done % self.trial.every == 0 or done == self.trial.planned

    def _next(self, mixer: Mixer, census: Census) -> None:
        began = time.perf_counter()
        self.company.watch.where = self._where(self.done)
        with one_thread():
            trained = self._round(mixer)
        self.done += 1
        ended = time.perf_counter()
        if self._is_judged(self.done):
            self._agree(trained.params[0], census)
        self.journal.timing(round=self.done - 1, seconds=ended - began, begun_s=began - self._zero)

    def _round(self, mixer: Mixer) -> Trained:
        trial, round = self.trial, self.done
        trained = self._train(round)
        sizes: tuple[int, int] = (0, 0)

        def mix(sent: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            nonlocal sizes
            sizes = mixer.bytes(round, sent)
            return mixer.mix(round, sent)

        self.state = gossip.play(trial.algorithm, trained.state, trained.params, trial.algorithm.learning_rate, mix)
        self.position = trained.positions[0]
        self._require_finite(round)
        self._gradients.append(trained.gradients)
        self._pending.append(
            {
                "event": "round",
                "round": round,
                "cohort": roster(trial.silos),
                "bytes_up": sizes[0],
                "bytes_down": sizes[1],
                "gradients": 0,
                "consensus": None,
                **self._time(round),
            }
        )
        return trained

    def _train(self, round: int) -> Trained:
        trial = self.trial
        data = [trial.population.client(self.client, round).train]
        try:
            return train(
                self.executor,
                trial.algorithm,
                self.state,
                [self.client],
                data,
                [self.position],
                importance=[trial.importance[self.company.rank]],
                seed=trial.seed,
                round=round,
            )
        except Failed as failure:
            raise explained(failure.__cause__ or failure, self._place(round)) from failure.__cause__

    def _time(self, round: int) -> dict[str, float]:
        """What a simulation says of the time, for comparison."""
        if self.trial.clock is None:
            return {}
        before = float(self.starts_ms.mean())
        self.starts_ms = self.trial.clock.after(round, self.starts_ms)
        after = float(self.starts_ms.mean())
        return {"clock_ms": after, "simulated_s": (after - before) / 1000}

    def _require_finite(self, round: int) -> None:
        if not bool(torch.isfinite(self.state["params"]).all()):
            raise ProtocolError(
                "the model is not finite after the exchange",
                where=self._place(round),
                mend="Lower learning_rate, or check the data of the silos.",
            )

    # --- what all silos do together -------------------------------------------------------------------------

    def _agree(self, trained: Float[Tensor, "*groups dim"], census: Census) -> None:
        """After some rounds: the average, the events so far, scores, a checkpoint."""
        with one_thread():
            self.average, spread = census.average(trained)
        counts = self.company.board.collect("gradients", self._gradients)
        if counts is not None:
            self._pending[-1]["consensus"] = spread
            for event, each in zip(self._pending, zip(*counts, strict=True), strict=True):
                self._record({**event, "gradients": sum(each)})
        self._pending, self._gradients = [], []
        if self.done < self.trial.planned:
            self._evaluate()
        self._checkpoint()

    def _checkpoint(self) -> None:
        extra = {
            "starts_ms": self.starts_ms.tolist(),
            "position": [self.position.passes, self.position.position],
        }
        now = Snapshot(self.done, {**self.state, _AVERAGE: self.average}, extra)
        both = joined(now, self._before)
        self._before = now
        if not self.keeps_record:
            self.journal.commit(both, force=True)
        self.company.board.meet("checkpoint", partial(self.journal.commit, both, force=True))
        self._tell()

    def _evaluate(self, keep: float = 0) -> tuple[Evaluation, Evaluation | None] | None:
        """What silo 0 knows then; the others tell it."""
        started = time.perf_counter()
        held = gossip.row(self.state, 0)
        own = self.judge.silos({self.client: held}, self.done, "seen")
        shared = self.judge.silos({self.client: {**held, "params": self.average}}, self.done, "average")
        heard = self.company.board.collect("evaluation", [told(own), told(shared)])
        result = None if heard is None else self._judged(heard, keep)
        self.journal.timing(evaluation=self.done, seconds=time.perf_counter() - started)
        return result

    def _judged(self, heard: list[list[dict[str, Any]]], keep: float) -> tuple[Evaluation, Evaluation | None]:
        seen, average = (assembled([each[number] for each in heard]) for number in range(2))
        self._record(seen.event())
        self._record(average.event())
        strangers = self.trial.unseen.tolist()
        if not strangers:
            return seen, None
        unseen = self.judge.others(self.average, strangers, self.done, keep=keep)
        self._record(unseen.event())
        return seen, unseen

    def _end(self, census: Census, keep: float) -> Outcome | None:
        self.company.watch.where = self._where(self.done)
        result = self._evaluate(keep)
        secret = isinstance(self.trial.algorithm, gossip.Weighs)  # a silo predicts with shares that nobody is told
        fits = self.company.size * self.average.nbytes <= keep
        models = census.gather(self.state["params"][0]) if fits and not secret else None
        self.company.board.meet("end")
        self._tell()
        if result is None:
            return None
        seen, unseen = result
        seen.dropped = not fits and keep > 0 and not secret
        if models is not None:
            seen.predictors = {
                client: global_predictor(model) for client, model in zip(self.trial.silos.tolist(), models, strict=True)
            }
        return Outcome({"params": self.average}, seen, unseen)

    def _record(self, event: dict[str, Any]) -> None:
        if self.keeps_record:
            self.journal.event(event)
            self._untold.append({**event, "method": self.trial.name, "seed": self.trial.seed})

    def _tell(self) -> None:
        """Tell the observer what was recorded, once it is kept: an observer may end the run."""
        untold, self._untold = self._untold, []
        for event in untold:
            self.observe(event)

    def _where(self, round: int) -> str:
        return f'method "{self.trial.name}", seed {self.trial.seed}, round {round}'

    def _place(self, round: int) -> str:
        return f"{self._where(round)}, {called(self.trial.population, self.client)}"


def _alone(execution: Execution) -> Execution:
    """The same for a single silo: with one job there is nothing to spread, and no size of tiles to find."""
    return replace(execution, workers=1, tile_bytes=execution.tile_bytes or DEFAULT_TILE_BYTES)

"""The evaluation contract.

Every client is judged with *its own* model (after `adapt`, where the method personalises) on its own test records; the
last round counts, never the best one; choices are made on validation records only. The result is columnar, one entry
per client, so that means, deciles and comparisons with Local can be recomputed from the record alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ProtocolError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Population, Samples, called
from rivage.federated.algorithm import Adapts, Algorithm, Local, Predictor, State
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.failures import Failed, explained, naming
from rivage.federated.memories import Memory
from rivage.learning.params import to_numpy
from rivage.learning.shares import Peers

__all__ = ["Evaluation", "Evaluator"]

_BLOCK = 256  # clients judged together: bounds the memory of their models
_NUMBERS = 1 << 24  # numbers in their inputs: bounds that of their records

Recall = Callable[[Sequence[int]], Sequence[Memory]]


@dataclass(slots=True)
class Evaluation:
    """How each client fares with its personal model.

    Args:
        round: rounds trained before.
        group: ``seen`` or ``unseen`` at training.
        columns: per client: id, metric and loss on test, metric, mean loss and its standard error on validation,
            record counts, and the records differentiated to adapt its model; None where undefined (no records, AUROC
            of one class). Of mixtures also each group's share; of methods that remember records the share of the
            neighbours and the bytes that are remembered.
        skipped: clients without test records; they stand in the columns with None.
        pooled: metric over all predictions together, for metrics that exist only so.
        predictors: the personal models, by client, where they were to be kept.
        dropped: whether they were to be kept but exceeded the bytes allowed.
    """

    round: int
    group: str
    columns: dict[str, list[Any]] = field(default_factory=dict)
    skipped: int = 0
    pooled: float | None = None
    predictors: dict[int, Predictor] = field(default_factory=dict)
    dropped: bool = False

    def event(self) -> dict[str, Any]:
        """The record's form."""
        head = {"event": "evaluation", "round": self.round, "group": self.group, "skipped": self.skipped}
        return {**head, "pooled": self.pooled, **self.columns}


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates one method's clients.

    Args:
        algorithm: supplies `adapt` and `predictor`.
        population: supplies the records.
        executor: trains `adapt` and computes outputs.
        streams: the run's streams.
        peers: what the clients judged so far say of the share of neighbours, by round.
    """

    algorithm: Algorithm
    population: Population
    executor: Executor
    streams: Streams
    peers: dict[int, Peers] = field(default_factory=dict)

    def evaluate(
        self,
        state: State,
        recall: Recall,
        clients: Iterable[int],
        round: int,
        group: str,
        *,
        keep: float,
    ) -> Evaluation:
        """Judge clients, block by block; O(records) forward passes, plus what `adapt` trains.

        Args:
            state: the server's tensors.
            recall: what some clients remember, in their order; asked once per block.
            clients: who is judged.
            round: rounds trained before.
            group: ``seen`` or ``unseen`` at training.
            keep: bytes of personal models that may stay in memory, infinity for all; if they are more, none stays.
        """
        result = Evaluation(round, group)
        rows: list[dict[str, Any]] = []
        pool: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        kept = dict[int, int]()
        for data in self._blocks(clients, round):
            memories = [memory.values for memory in recall([held.id for held in data])]
            personal, trained = self._personal(state, memories, data, round)
            predictors = self._settled(personal, round)
            found = zip(data, predictors, trained, self._rows(predictors, data), strict=True)
            for held, predictor, gradients, (row, predictions) in found:
                rows.append(row | {"train_size": len(held.train), "gradients": gradients})
                kept[predictor.params.data_ptr()] = predictor.params.nbytes  # a shared model counts once
                if predictor.neighbours is not None:
                    store = predictor.neighbours.store
                    kept[store.features.data_ptr()] = store.nbytes
                result.predictors[held.id] = predictor
                if predictions is not None and self.executor.task.metric.kind == "pooled":
                    pool.append((predictions, held.test.y))
                result.skipped += len(held.test) == 0
            if sum(kept.values()) > keep or result.dropped:
                result.predictors, result.dropped, kept = {}, keep > 0, {}
        result.columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
        if pool:
            result.pooled = self.executor.task.score(
                np.concatenate([predictions for predictions, _ in pool]),
                np.concatenate([targets for _, targets in pool]),
            )
        return result

    def _blocks(self, clients: Iterable[int], round: int) -> Iterator[list[ClientData]]:
        """Clients that are judged together: their inputs are in memory at the same time."""
        width = math.prod(self.executor.task.schema.input_shape)
        block: list[ClientData] = []
        numbers = 0
        for client in clients:
            held = self.population.client(client, round)
            more = width * (len(held.test) + len(held.validation))
            if block and (len(block) == _BLOCK or numbers + more > _NUMBERS):
                yield block
                block, numbers = [], 0
            block.append(held)
            numbers += more
        if block:
            yield block

    def _personal(
        self, state: State, memories: Sequence[State], data: Sequence[ClientData], round: int
    ) -> tuple[list[Predictor], list[int]]:
        """The personal models after what `adapt` trains, all clients together, and records differentiated for each."""
        algorithm, task = self.algorithm, self.executor.task
        locals_: list[Local | None] = [None] * len(data)
        if isinstance(algorithm, Adapts):
            streams = self.streams.child("adapt")
            downs = [algorithm.broadcast(state, held.id, task) if algorithm.needs_losses else None for held in data]
            losses = self.executor.client_losses(algorithm, downs, data)
            locals_ = [
                algorithm.adapt(state, memory, held, loss, streams.child("client", held.id, round), task)
                for memory, held, loss in zip(memories, data, losses, strict=True)
            ]
            jobs = [Job(h.id, local, h.train) for h, local in zip(data, locals_, strict=True) if local is not None]
            if jobs and (work := algorithm.adaptation) is not None:
                try:
                    self.executor.train(algorithm, work, jobs, streams, round)
                except Failed as failure:
                    who = called(self.population, failure.client)
                    raise explained(failure.__cause__ or failure, who) from failure.__cause__
        pairs = zip(memories, locals_, strict=True)
        predictors = [algorithm.predictor(state, memory, local, task) for memory, local in pairs]
        return predictors, [0 if local is None else local.gradients for local in locals_]

    def _settled(self, predictors: list[Predictor], round: int) -> list[Predictor]:
        """Neighbours whose client left their share open get it, with what the clients judged so far say.

        So far: those of this block and of the blocks before, in this round.
        """
        if round not in self.peers:
            self.peers.clear()
        peers = self.peers.setdefault(round, Peers())
        peers.hear([p.neighbours.evidence for p in predictors if p.neighbours and p.neighbours.evidence])
        return [p if p.neighbours is None else replace(p, neighbours=p.neighbours.settled(peers)) for p in predictors]

    def _rows(
        self, predictors: Sequence[Predictor], data: Sequence[ClientData]
    ) -> Iterator[tuple[dict[str, Any], np.ndarray[Any, Any] | None]]:
        """Each client's entries of the columns, and its predictions on test records."""
        task = self.executor.task
        asked = [(p, part) for p, held in zip(predictors, data, strict=True) for part in (held.test, held.validation)]
        filled = [(predictor, task.inputs(part.x)) for predictor, part in asked if len(part)]
        found = iter(self.executor.predictions(filled))
        for held, predictor in zip(data, predictors, strict=True):
            with naming(called(self.population, held.id)):
                test, predictions = self._judge(held.test, found)
                validation, _ = self._judge(held.validation, found)
            row: dict[str, Any] = {
                "clients": held.id,
                "test": test["metric"],
                "test_loss": test["loss"],
                "test_size": len(held.test),
                "validation": validation["metric"],
                "validation_loss": validation["loss"],
                "validation_se": validation["se"],
                "validation_size": len(held.validation),
            }
            if len(predictor.mix) > 1:
                row["mix"] = predictor.mix.tolist()
            if predictor.neighbours is not None:
                row["neighbour_share"] = predictor.neighbours.share
                row["neighbour_bytes"] = predictor.neighbours.store.nbytes
            yield row, predictions

    def _judge(
        self, samples: Samples, found: Iterator[Float[Tensor, "records *output"]]
    ) -> tuple[dict[str, float | None], np.ndarray[Any, Any] | None]:
        """Score the next predictions, which are those for these records, if there are any."""
        if len(samples) == 0:
            return {"metric": None, "loss": None, "se": None}, None
        task, predictions = self.executor.task, next(found)
        losses = to_numpy(task.loss.of_predictions(predictions, task.tensors(samples)[1]))
        outputs = to_numpy(predictions)
        if not np.isfinite(outputs).all():
            raise ProtocolError(
                "the personal model predicts numbers that are not finite",
                mend="Lower learning_rate: its training diverged.",
            )
        spread = losses.std(ddof=1) / len(losses) ** 0.5 if len(losses) > 1 else np.nan
        judged = {
            "metric": task.score(outputs, samples.y),
            "loss": float(losses.mean()),
            "se": float(spread),
        }
        return {key: _finite(value) for key, value in judged.items()}, outputs


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)

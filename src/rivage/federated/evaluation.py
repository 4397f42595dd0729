"""The evaluation contract.

Every client is judged with *its own* model (after `adapt`, where the method personalises) on its own test records; the
last round counts, never the best one; choices are made on validation records only. The result is columnar, one entry
per client, so that means, deciles and comparisons with Local can be recomputed from the record alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ProtocolError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Population, Samples, called
from rivage.federated.algorithm import Adapts, Algorithm, Local, Predictor, State
from rivage.federated.executors.functional import Functional, Job
from rivage.learning.params import to_numpy

__all__ = ["Evaluation", "Evaluator"]


@dataclass(slots=True)
class Evaluation:
    """How each client fares with its personal model.

    Args:
        round: rounds trained before.
        group: ``seen`` or ``unseen`` at training.
        columns: per client: id, metric and loss on test, metric, mean loss and its standard error on validation,
            record counts; None where undefined (no records, AUROC of one class).
        skipped: clients without test records; they stand in the columns with None.
        pooled: metric over all predictions together, for metrics that exist only so.
        predictors: the personal models, by client.
    """

    round: int
    group: str
    columns: dict[str, list[Any]] = field(default_factory=dict)
    skipped: int = 0
    pooled: float | None = None
    predictors: dict[int, Predictor] = field(default_factory=dict)

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
    """

    algorithm: Algorithm
    population: Population
    executor: Functional
    streams: Streams

    def evaluate(
        self, state: State, memories: Mapping[int, State], clients: Iterable[int], round: int, group: str
    ) -> Evaluation:
        """Judge ``clients``; O(records) forward passes, plus what `adapt` trains."""
        result = Evaluation(round, group)
        rows: list[dict[str, Any]] = []
        pool: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        for client in clients:
            data = self.population.client(client, round)
            predictor = self._personal(state, memories.get(client, {}), data, round)
            result.predictors[client] = predictor
            rows.append(self._row(predictor, data, pool))
            result.skipped += len(data.test) == 0
        result.columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
        metric = self.executor.task.metric
        if metric.kind == "pooled" and pool:
            result.pooled = self.executor.task.score(
                np.concatenate([predictions for predictions, _ in pool]),
                np.concatenate([targets for _, targets in pool]),
            )
        return result

    def _personal(self, state: State, memory: State, data: ClientData, round: int) -> Predictor:
        local: Local | None = None
        algorithm, task = self.algorithm, self.executor.task
        if isinstance(algorithm, Adapts):
            losses = None
            if algorithm.needs_losses and (down := algorithm.broadcast(state, data.id, task)) is not None:
                losses = self.executor.losses(down["params"].reshape(-1, task.dimension), data.train)
            streams = self.streams.child("adapt")
            local = algorithm.adapt(state, memory, data, losses, streams.child("client", data.id, round), task)
            if local is not None:
                job = Job(data.id, local, data.train)
                self.executor.train(algorithm, algorithm.adaptation, [job], streams, round)
        return algorithm.predictor(state, memory, local, task)

    def _row(self, predictor: Predictor, data: ClientData, pool: list[Any]) -> dict[str, Any]:
        test, predictions = self._judge(predictor, data.test, data.id)
        validation, _ = self._judge(predictor, data.validation, data.id)
        if predictions is not None:
            pool.append((predictions, data.test.y))
        return {
            "clients": data.id,
            "test": test["metric"],
            "test_loss": test["loss"],
            "test_size": len(data.test),
            "validation": validation["metric"],
            "validation_loss": validation["loss"],
            "validation_se": validation["se"],
            "validation_size": len(data.validation),
        }

    def _judge(
        self, predictor: Predictor, samples: Samples, client: int
    ) -> tuple[dict[str, float | None], np.ndarray[Any, Any] | None]:
        if len(samples) == 0:
            return {"metric": None, "loss": None, "se": None}, None
        task = self.executor.task
        predictions = self._predict(predictor, samples)
        losses = to_numpy(task.loss.of_predictions(predictions, task.tensors(samples)[1]))
        outputs = to_numpy(predictions)
        if not np.isfinite(outputs).all():
            raise ProtocolError(
                "the personal model predicts numbers that are not finite",
                where=f"{called(self.population, client)}, evaluation",
                mend="Lower learning_rate: its training diverged.",
            )
        spread = losses.std(ddof=1) / len(losses) ** 0.5 if len(losses) > 1 else np.nan
        judged = {
            "metric": task.score(outputs, samples.y),
            "loss": float(losses.mean()),
            "se": float(spread),
        }
        return {key: _finite(value) for key, value in judged.items()}, outputs

    def _predict(self, predictor: Predictor, samples: Samples) -> Float[Tensor, "records *output"]:
        """Σ_m mix_m · prediction_m: probabilities or real outputs are mixed, never logits."""
        x, _ = self.executor.task.tensors(samples)
        bound = self.executor.bound
        total: Tensor | None = None
        for params, share in zip(predictor.params, predictor.mix, strict=True):
            if share == 0:
                continue
            bound.load(params)
            part = bound.predictions(x) * share
            total = part if total is None else total + part
        assert total is not None, "a mix sums to one"
        return total


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)

"""The evaluation contract.

Every client is judged with *its own* model (after `adapt`, where the method personalises) on its own test records; the
last round counts, never the best one; choices are made on validation records only. The result is columnar, one entry
per client, so that means, deciles and comparisons with Local can be recomputed from the record alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ProtocolError, RivageError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Population, Samples, called
from rivage.federated.algorithm import Adapts, Algorithm, Local, Predictor, State
from rivage.federated.executors.functional import Functional, Job
from rivage.learning.params import to_numpy

__all__ = ["Evaluation", "Evaluator", "naming"]


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
        predictors: the personal models, by client, where they were to be kept.
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
        self,
        state: State,
        memories: Mapping[int, State],
        clients: Iterable[int],
        round: int,
        group: str,
        *,
        keep: bool,
    ) -> Evaluation:
        """Judge ``clients``; O(records) forward passes, plus what `adapt` trains.

        With ``keep`` the personal models stay in memory, up to D numbers for each client.
        """
        result = Evaluation(round, group)
        metric = self.executor.task.metric
        rows: list[dict[str, Any]] = []
        pool: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        for client in clients:
            data = self.population.client(client, round)
            with naming(called(self.population, client)):
                predictor = self._personal(state, memories.get(client, {}), data, round)
                row, predictions = self._row(predictor, data)
            rows.append(row)
            if keep:
                result.predictors[client] = predictor
            if metric.kind == "pooled" and predictions is not None:
                pool.append((predictions, data.test.y))
            result.skipped += len(data.test) == 0
        result.columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
        if pool:
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
            if local is not None and (work := algorithm.adaptation) is not None:
                self.executor.train(algorithm, work, [Job(data.id, local, data.train)], streams, round)
        return algorithm.predictor(state, memory, local, task)

    def _row(self, predictor: Predictor, data: ClientData) -> tuple[dict[str, Any], np.ndarray[Any, Any] | None]:
        """One client's entries of the columns, and its predictions on test records."""
        test, predictions = self._judge(predictor, data.test)
        validation, _ = self._judge(predictor, data.validation)
        row = {
            "clients": data.id,
            "test": test["metric"],
            "test_loss": test["loss"],
            "test_size": len(data.test),
            "validation": validation["metric"],
            "validation_loss": validation["loss"],
            "validation_se": validation["se"],
            "validation_size": len(data.validation),
        }
        return row, predictions

    def _judge(
        self, predictor: Predictor, samples: Samples
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
        total: Tensor | None = None
        for params, share in zip(predictor.params, predictor.mix, strict=True):
            if share == 0:
                continue
            part = self.executor.predictions(params, x) * share
            total = part if total is None else total + part
        assert total is not None, "a mix sums to one"
        return total


@contextmanager
def naming(where: str) -> Iterator[None]:
    """What fails inside a model's own code says where."""
    try:
        yield
    except RivageError as error:
        raise error.at(where) from error
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ProtocolError(
            f"the model failed ({type(error).__name__}: {error})",
            where=where,
            mend="Check the model on a batch of this client; batch norm, for one, cannot train on a single record.",
        ) from error


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)

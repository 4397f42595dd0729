"""What every client is told about its own model, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from rivage.core.errors import ProtocolError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Samples
from rivage.federated.algorithm import Local, LocalWork, Phase, Predictor
from rivage.federated.evaluation import Evaluation, Evaluator
from rivage.federated.executors.executor import Executor
from rivage.federated.fedavg import FedAvg
from rivage.federated.finetuned import FineTuned
from rivage.federated.memories import Box, Memories, Memory
from rivage.learning.metrics import Metric
from rivage.testing.toys import Clients, linear_clients, linear_task

POPULATION = linear_clients((4, 7, 1))


class Split(Clients):
    """The first client has no test records, the second one validation record."""

    def client(self, id: int, round: int = 0) -> ClientData:
        data = super().client(id, round)
        none, one = np.arange(0), np.arange(1)
        if id == 0:
            return replace(data, test=data.test.take(none))
        return replace(data, validation=data.validation.take(one)) if id == 1 else data


def evaluate(algorithm: Any, state: Any, population: Any = POPULATION, task: Any = None, **changes: Any) -> Evaluation:
    executor = Executor(task or linear_task(population))
    given = {"recall": nobody, "clients": [0, 1, 2], "round": 5, "group": "seen", "keep": np.inf, **changes}
    return Evaluator(algorithm, population, executor, Streams(0)).evaluate(state, **given)


def nobody(ids: Sequence[int]) -> list[Memory]:
    """No client remembers anything."""
    return [Memory() for _ in ids]


def model(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_losses_their_error_and_the_metric_are_those_of_the_definitions() -> None:
    w = np.array([0.3, -0.2, 1.0])
    columns = evaluate(FedAvg(), {"params": model(*w)}).columns
    for client, (x, y) in enumerate(POPULATION.records):
        residual = x @ w - y[:, 0]
        losses = 0.5 * residual**2
        assert columns["test"][client] == pytest.approx(np.abs(residual).mean())
        assert columns["test_loss"][client] == columns["validation_loss"][client] == pytest.approx(losses.mean())
        error = losses.std(ddof=1) / len(losses) ** 0.5 if len(losses) > 1 else None
        assert columns["validation_se"][client] == (None if error is None else pytest.approx(error))
    assert columns["test_size"] == [4, 7, 1]


def test_clients_without_test_records_are_counted_and_stay_in_the_columns() -> None:
    population = Split(POPULATION.records, POPULATION.schema)
    result = evaluate(FedAvg(), {"params": model(0, 0, 0)}, population)
    assert result.skipped == 1
    assert result.columns["clients"] == [0, 1, 2]
    assert result.columns["test"][0] is None
    assert result.columns["test_size"] == [0, 7, 1]
    assert result.columns["validation_size"] == [4, 1, 1]
    assert result.columns["validation_se"][1] is None
    assert result.columns["validation_loss"][1] is not None


def test_what_adaptation_costs_is_counted() -> None:
    state, work = {"params": model(0, 0, 0)}, Phase(epochs=3, batch_size=2)
    columns = evaluate(FedAvg(), state).columns
    assert (columns["train_size"], columns["gradients"]) == ([4, 7, 1], [0, 0, 0]), "nothing is trained"
    assert evaluate(FineTuned(tuning=work), state).columns["gradients"] == [12, 21, 3]


@dataclass(frozen=True, kw_only=True)
class Mixed(FedAvg):
    """Two models per client, mixed by what adaptation finds; trains nothing."""

    needs_losses: ClassVar[bool] = True

    @property
    def adaptation(self) -> LocalWork | None:
        return None

    def adapt(self, state: Any, memory: Any, data: Any, losses: Any, streams: Any, task: Any) -> Local:
        assert losses.shape == (len(data.train), 2)
        return Local(state["params"], keep={"mix": (-losses).mean(dim=0).softmax(dim=0)})

    def predictor(self, state: Any, memory: Any, local: Any, task: Any) -> Predictor:
        return Predictor(state["params"], local.keep["mix"])


def test_a_mixture_predicts_the_mixed_outputs_and_adapts_on_losses() -> None:
    pair = np.array([[0.3, -0.2, 1.0], [0.0, 1.0, 0.0]])
    result = evaluate(Mixed(), {"params": torch.from_numpy(pair)})
    for client, (x, y) in enumerate(POPULATION.records):
        losses = 0.5 * (x @ pair.T - y) ** 2
        mix = np.exp(-losses.mean(axis=0)) / np.exp(-losses.mean(axis=0)).sum()
        error = np.abs(x @ pair.T @ mix - y[:, 0]).mean()
        assert result.columns["test"][client] == pytest.approx(error)


@dataclass(frozen=True, kw_only=True)
class Remembering(FedAvg):
    """Predicts with what the client remembers."""

    def predictor(self, state: Any, memory: Any, local: Any, task: Any) -> Predictor:
        return super().predictor({"params": memory.get("own", state["params"])}, memory, local, task)


def test_each_client_is_judged_with_its_own_model() -> None:
    memories = Memories(Box())
    memories.put({1: Memory({"own": model(1, 2, 3)})}, round=0)
    result = evaluate(Remembering(), {"params": model(0, 0, 0)}, recall=memories.get)
    x, y = POPULATION.records[1]
    assert result.columns["test"][1] == pytest.approx(np.abs(x @ [1, 2, 3] - y[:, 0]).mean())
    assert result.columns["test"][0] == pytest.approx(np.abs(POPULATION.records[0][1]).mean())


def test_memories_are_read_in_blocks() -> None:
    """However many clients are judged, the memories of few are in RAM."""
    clients, asked = 1000, list[list[int]]()

    def recall(ids: Sequence[int]) -> list[Memory]:
        asked.append(list(ids))
        return [Memory({"own": model(client, 0, 0)}) for client in ids]

    population = linear_clients((3,) * clients)
    evaluate(Remembering(), {"params": model(0, 0, 0)}, population, recall=recall, clients=range(clients), keep=0)
    assert [client for ids in asked for client in ids] == list(range(clients))
    assert max(map(len, asked)) <= 256


def test_models_are_kept_up_to_the_bytes_allowed() -> None:
    shared = {"params": model(0, 0, 0)}
    nothing = evaluate(FedAvg(), shared, keep=0)
    assert nothing.predictors == {}
    assert not nothing.dropped, "they were not to be kept"
    assert set(evaluate(FedAvg(), shared, keep=24).predictors) == {0, 1, 2}, "a shared model counts once"

    def recall(ids: Sequence[int]) -> list[Memory]:
        return [Memory({"own": model(client, 0, 0)}) for client in ids]

    enough, short = (evaluate(Remembering(), shared, recall=recall, keep=size) for size in (72, 71))
    assert (set(enough.predictors), enough.dropped) == ({0, 1, 2}, False)
    assert (short.predictors, short.dropped) == ({}, True)
    assert short.columns == enough.columns


def test_adaptation_trains_on_training_records_and_replays() -> None:
    from rivage.federated.finetuned import FineTuned

    tuned = FineTuned(tuning=Phase(updates=1, batch_size=None), tuning_rate=0.1)
    result = evaluate(tuned, {"params": model(0, 0, 0)})
    x, y = POPULATION.records[1]
    step = 0.1 * x.T @ y[:, 0] / 7
    np.testing.assert_allclose(result.predictors[1].params[0], step, atol=1e-12)
    assert evaluate(tuned, {"params": model(0, 0, 0)}).columns == result.columns


def test_a_model_that_diverged_is_named_by_client() -> None:
    with pytest.raises(ProtocolError, match=r"client 0: .*not finite.*learning_rate"):
        evaluate(FedAvg(), {"params": model(float("nan"), 0, 0)})


def test_a_pooled_metric_sees_all_predictions_together() -> None:
    pooled = Metric(
        name="largest_error",
        targets=("real",),
        kind="pooled",
        higher_is_better=False,
        function=lambda predictions, y: float(np.abs(predictions - y).max()),
    )
    task = linear_task(POPULATION)
    task.metric = pooled
    result = evaluate(FedAvg(), {"params": model(0, 0, 0)}, task=task)
    assert result.pooled == pytest.approx(max(np.abs(y).max() for _, y in POPULATION.records))
    assert evaluate(FedAvg(), {"params": model(0, 0, 0)}).pooled is None


def test_samples_are_left_alone() -> None:
    before = [x.copy() for x, _ in POPULATION.records]
    evaluate(FedAvg(), {"params": model(1, 1, 1)})
    assert all((x == old).all() for (x, _), old in zip(POPULATION.records, before, strict=True))
    assert isinstance(POPULATION.client(0).train, Samples)

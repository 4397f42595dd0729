"""kNN-Per: FedAvg underneath, brute force on top, and nothing that a test record or a deleted one could leave."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.messages import encode
from rivage.core.store import load_tensors, save_tensors
from rivage.data.population import ClientData, Samples, Schema
from rivage.federated import FedAvg, FineTuned, KNNPer, Notebook, Outcome, Phase, Trial, run
from rivage.federated.algorithm import Predictor
from rivage.federated.executors.executor import Executor
from rivage.learning.bundle import ModelBundle
from rivage.learning.losses import CROSS_ENTROPY, NEXT_CHARACTER
from rivage.learning.metrics import ACCURACY
from rivage.learning.networks import char_lstm, mlp
from rivage.learning.task import Task
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task

WORK = Phase(epochs=2, batch_size=4)
CLASSES, FEATURES = 3, 6


@dataclass(frozen=True)
class Parted(Clients):
    """The last records of every client are for test, those before for validation."""

    tested: int = 3
    validated: int = 0
    without: tuple[int, ...] = ()

    def client(self, id: int, round: int = 0) -> ClientData:
        x, y = self.records[id]
        rows = np.arange(len(x))
        ends = len(x) - self.tested - self.validated, len(x) - self.tested
        train, validation, test = np.split(rows, ends)
        train = np.setdiff1d(train, self.without)
        one, held, other = (Samples(x[part], y[part], part) for part in (train, validation, test))
        return ClientData(id, one, held, other, float(len(train)))


def clouds(sizes: tuple[int, ...] = (20, 9, 30, 14), seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Three classes round centres of their own; every second client calls them by other names."""
    generator = np.random.default_rng(seed)
    centres, records = generator.normal(size=(CLASSES, FEATURES)), []
    for client, size in enumerate(sizes):
        y = generator.integers(0, CLASSES, size)
        x = centres[y] + 0.7 * generator.normal(size=(size, FEATURES))
        records.append((x, (y + client % 2) % CLASSES))
    return tuple(records)


SCHEMA = Schema(input_shape=(FEATURES,), target="class", num_classes=CLASSES)


def task_of(dtype: torch.dtype = torch.float64) -> Task:
    return Task(lambda schema: mlp(schema, hidden=(5,)), CROSS_ENTROPY, ACCURACY, SCHEMA, dtype=dtype)


def played(algorithm: Any, population: Clients, task: Task | None = None, rounds: int = 3, **options: Any) -> Outcome:
    given = {"name": "m", "algorithm": algorithm, "population": population, "rounds": rounds, "every": 999}
    return run(Trial(**given, task=task or task_of(), **options))


def personal(outcome: Outcome, client: int) -> Predictor:
    evaluation = outcome.unseen if outcome.unseen and client in outcome.unseen.predictors else outcome.seen
    return evaluation.predictors[client]


def neighbours(outcome: Outcome, client: int) -> Any:
    found = personal(outcome, client).neighbours
    assert found is not None
    return found


# --- the model underneath -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("executor", ["tiled", "functional"])
def test_without_share_it_is_fedavg_bit_for_bit(dtype: torch.dtype, executor: Any) -> None:
    from rivage.federated import Execution

    population, options = Parted(clouds(), SCHEMA), {"execution": Execution(executor=executor)}
    plain = played(FedAvg(work=WORK), population, task_of(dtype), **options)
    ours = played(KNNPer(work=WORK, share=0.0), population, task_of(dtype), **options)
    assert torch.equal(ours.state["params"], plain.state["params"])
    extra = {"neighbour_share", "neighbour_bytes"}
    assert {name: c for name, c in ours.seen.columns.items() if name not in extra} == plain.seen.columns
    assert ours.seen.columns["neighbour_share"] == [0.0] * 4


def test_what_travels_is_fedavgs() -> None:
    population = Parted(clouds(), SCHEMA)
    books = [Notebook(keep_messages=True) for _ in range(2)]
    for method, book in zip((FedAvg(work=WORK), KNNPer(work=WORK)), books, strict=True):
        run(Trial(name="m", algorithm=method, population=population, task=task_of(), rounds=3, every=1), book)
    plain, ours = ([(m.round, m.sender, m.receiver, m.kind, encode(m.payload)) for m in b.messages] for b in books)
    assert ours == plain
    assert books[1].memories.get([0])[0].values == {}


def test_it_remembers_what_the_fine_tuned_model_sees() -> None:
    population = Parted(clouds(), SCHEMA)
    tuning: dict[str, Any] = {"tuning": Phase(epochs=3, batch_size=None), "tuning_rate": 0.2}
    plain = played(FineTuned(work=WORK, **tuning), population)
    ours = played(KNNPer(work=WORK, base="fedavg+", share=0.4, **tuning), population)
    for client in range(4):
        params = personal(plain, client).params
        assert torch.equal(personal(ours, client).params, params)
        bound = task_of().bind()
        bound.load(params[0])
        x, _ = task_of().tensors(population.client(client).train)
        assert torch.equal(neighbours(ours, client).store.features, bound.features(x))


# --- the neighbours -------------------------------------------------------------------------------------------


def by_hand(task: Task, params: Tensor, data: ClientData, share: float, k: int) -> np.ndarray:
    """Equation and definition, entry by entry."""
    bound = task.bind()
    bound.load(params)
    (x, y), (asked, _) = task.tensors(data.train), task.tensors(data.test)
    stored, queries = bound.features(x).numpy(), bound.features(asked).numpy()
    said = np.zeros((len(queries), task.schema.num_classes))
    for q, query in enumerate(queries):
        squares = ((stored - query) ** 2).sum(axis=1)
        for i in np.argsort(squares, kind="stable")[:k]:
            said[q, y[i]] += np.exp(-squares[i] / stored.shape[1])
    said /= said.sum(axis=1, keepdims=True)
    return share * said + (1 - share) * bound.predictions(asked).numpy()


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_predictions_are_those_of_the_definition(share: float) -> None:
    population, task = Parted(clouds(), SCHEMA), task_of()
    outcome = played(KNNPer(work=WORK, share=share, neighbours=4), population)
    for client in range(4):
        data, predictor = population.client(client), personal(outcome, client)
        expected = by_hand(task, predictor.params[0], data, share, 4)
        found = Executor(task).predictions([(predictor, task.inputs(data.test.x))])[0]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        sure = np.maximum(expected[np.arange(3), data.test.y], np.finfo(np.float64).tiny)
        loss = float(-np.log(sure).mean())
        assert outcome.seen.columns["test_loss"][client] == pytest.approx(loss)


def test_several_clients_are_asked_together_as_one_by_one() -> None:
    """Shared models and models of their own, with and without neighbours."""
    population, task = Parted(clouds(), SCHEMA), task_of()
    asked = []
    for method in (KNNPer(share=0.5), KNNPer(share=0.5, base="fedavg+"), FedAvg(), KNNPer(share=0.0)):
        outcome = played(method, population)
        asked += [(personal(outcome, c), task.inputs(population.client(c).test.x)) for c in range(4)]
    executor = Executor(task)
    for request, found in zip(asked, executor.predictions(asked), strict=True):
        torch.testing.assert_close(executor.predictions([request])[0], found, rtol=0, atol=1e-12)
    assert executor.searched == 2 * 8 * 3
    assert executor.search_s > 0


def test_a_real_target_is_a_kernel_mean() -> None:
    population = linear_clients()
    task = linear_task(population)
    outcome = played(KNNPer(work=WORK, share=1.0, neighbours=3), population, task)
    x, y = population.records[3]
    for row in range(12):
        squares = ((x - x[row]) ** 2).sum(axis=1)
        near = np.argsort(squares)[:3]
        kernel = np.exp(-squares[near] / 3)
        expected = kernel @ y[near] / kernel.sum()
        found = neighbours(outcome, 3).predictions(torch.from_numpy(x[row : row + 1]))
        np.testing.assert_allclose(found[0], expected, rtol=1e-9)


def test_the_order_of_records_and_deleted_ones_leave_no_trace() -> None:
    """Deleted before anything is stored, or taken out of the store: the same predictions, bit for bit."""
    records = clouds()
    method, gone = KNNPer(work=WORK, share=0.6), (2, 5)
    state = played(method, Parted(records, SCHEMA)).state
    task, left = task_of(), Parted(records, SCHEMA, without=gone)
    for client in range(4):
        data, other = Parted(records, SCHEMA).client(client), left.client(client)
        turned = replace(data, train=data.train.take(np.arange(len(data.train))[::-1].copy()))
        found, same, never = (made(method, state, d, task) for d in (data, turned, other))
        assert torch.equal(found.store.features, same.store.features)
        said = [made(KNNPer(work=WORK), state, d, task).evidence for d in (data, turned)]
        assert said[0].total.tolist() == said[1].total.tolist()
        taken = replace(found, store=found.store.remove(torch.tensor(gone)))
        x = torch.rand(50, 5, dtype=torch.float64)
        assert torch.equal(taken.predictions(x), never.predictions(x))


def made(method: KNNPer, state: Any, data: ClientData, task: Task) -> Any:
    from rivage.core.seeding import Streams

    local = method.adapt(state, {}, data, None, Streams(0), task)
    return method.predictor(state, {}, local, task).neighbours


# --- what is stored -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 17),
        ({"capacity": 5}, 5),
        ({"fraction": 0.5}, 9),
        ({"fraction": 0.5, "capacity": 4}, 4),
        ({"capacity": 100}, 17),
        ({"capacity": 0}, 0),
        ({"fraction": 0.0}, 0),
    ],
)
def test_as_many_records_are_stored_as_fit(settings: Any, expected: int) -> None:
    population = Parted(clouds(), SCHEMA)
    outcome = played(KNNPer(work=WORK, **settings), population)
    store = neighbours(outcome, 0).store
    assert len(store) == expected
    if expected:
        assert outcome.seen.columns["neighbour_bytes"][0] == store.nbytes == expected * (5 * 8 + 8 + 8)
    else:
        plain = played(FedAvg(work=WORK), population)
        assert outcome.seen.columns["test_loss"] == plain.seen.columns["test_loss"]


def test_which_records_are_stored_follows_the_rule_and_the_seed() -> None:
    population = Parted(clouds(), SCHEMA)

    def ids(seed: int = 0, **settings: Any) -> list[int]:
        outcome = played(KNNPer(work=WORK, capacity=6, **settings), population, seed=seed)
        return neighbours(outcome, 0).store.ids.tolist()  # type: ignore[no-any-return]

    assert ids(keep="fifo") == list(range(11, 17))
    assert ids(keep="first") == list(range(6))
    assert ids() == ids()
    assert ids() != ids(seed=1)


# --- the share ------------------------------------------------------------------------------------------------


def test_the_share_is_chosen_on_validation_records_where_there_are_enough() -> None:
    """Best accuracy over the grid, by the evaluation of every fixed share."""
    records, task = clouds((60, 40, 60, 60)), task_of()
    population = Parted(records, SCHEMA, validated=20)
    outcome = played(KNNPer(work=WORK), population)
    found = [played(KNNPer(work=WORK, share=s / 20), population).seen.columns["validation"] for s in range(21)]
    assert outcome.seen.columns["neighbour_share"] == (np.argmax(found, axis=0) / 20).tolist()
    trusting = played(KNNPer(work=WORK, trust=1e9), population)
    assert set(trusting.seen.columns["neighbour_share"]) == {float(np.argmax(np.mean(found, axis=1)) / 20)}
    fewer = played(KNNPer(work=WORK, least=21), population)
    for client in range(4):
        data = population.client(client)
        nothing = replace(data, validation=data.validation.take(np.arange(0)))
        evidence = made(KNNPer(work=WORK), fewer.state, nothing, task).evidence
        assert evidence.records == len(data.train)
        assert neighbours(fewer, client).share == evidence.share()


def test_test_records_do_not_move_the_share() -> None:
    records = clouds()
    spoilt = tuple((np.r_[x[:-3], x[-3:] + 5], np.r_[y[:-3], (y[-3:] + 1) % CLASSES]) for x, y in records)
    shares = [played(KNNPer(work=WORK), Parted(r, SCHEMA)).seen.columns["neighbour_share"] for r in (records, spoilt)]
    assert shares[0] == shares[1]


def test_a_client_that_cannot_choose_takes_the_median_of_the_others() -> None:
    """One training record, none for validation. A newcomer in that state asks those that trained."""
    population = Parted(clouds((33, 4, 33, 23, 33, 4)), SCHEMA)
    outcome = played(KNNPer(work=WORK), population, unseen=np.array([5]))
    shares = outcome.seen.columns["neighbour_share"]
    assert shares[1] == np.median([shares[c] for c in (0, 2, 3, 4)])
    assert outcome.unseen is not None
    assert outcome.unseen.columns["neighbour_share"] == [np.median(shares[:1] + shares[2:])]
    alone = played(KNNPer(work=WORK), Parted(clouds((4, 4)), SCHEMA))
    assert alone.seen.columns["neighbour_share"] == [0.0, 0.0], "nobody chose"


def test_a_newcomer_is_served_without_training() -> None:
    population = Parted(clouds(), SCHEMA)
    outcome = played(KNNPer(work=WORK, share=0.5), population, unseen=np.array([2]))
    assert torch.equal(personal(outcome, 2).params[0], outcome.state["params"])
    assert len(neighbours(outcome, 2).store) == 27
    assert KNNPer().predictor(outcome.state, {}, None, task_of()).neighbours is None


@pytest.mark.parametrize("settings", [{}, {"base": "fedavg+"}, {"share": 1.0}, {"capacity": 1}])
def test_clients_with_one_record_or_one_class_are_served(settings: Any) -> None:
    x, y = clouds((30,))[0]
    records = ((x[:4], y[:4]), (x, np.zeros_like(y)), (x, y))
    outcome = played(KNNPer(work=WORK, **settings), Parted(records, SCHEMA))
    assert all(np.isfinite(outcome.seen.columns["test_loss"]))
    assert len(neighbours(outcome, 0).store) == 1


# --- text -----------------------------------------------------------------------------------------------------


def test_a_text_is_remembered_position_by_position() -> None:
    schema = Schema(input_shape=(7,), target="tokens", num_classes=5)
    generator = np.random.default_rng(0)
    text = generator.integers(0, 5, (6, 8))
    population = Parted(tuple((text[i:, :-1], text[i:, 1:]) for i in range(2)), schema, tested=2)
    task = Task(lambda s: char_lstm(s, hidden=4, layers=1), NEXT_CHARACTER, ACCURACY, schema)
    outcome = played(KNNPer(share=0.5, neighbours=1), population, task, rounds=1)
    store = neighbours(outcome, 0).store
    assert len(store) == 4 * 7
    assert store.targets.tolist() == text[:4, 1:].ravel().tolist()
    assert outcome.seen.columns["neighbour_bytes"] == [28 * (4 * 4 + 16), 21 * (4 * 4 + 16)]
    predictor = personal(outcome, 0)
    found = Executor(task).predictions([(predictor, task.inputs(text[:4, :-1]))])[0]
    bound = task.bind()
    bound.load(predictor.params[0])
    known = torch.nn.functional.one_hot(torch.from_numpy(text[:4, 1:]), 5)
    torch.testing.assert_close(found, 0.5 * known + 0.5 * bound.predictions(task.inputs(text[:4, :-1])))
    tuned = played(KNNPer(), population, task, rounds=1)
    assert all(0 <= share <= 1 for share in tuned.seen.columns["neighbour_share"])


# --- saved and chosen -----------------------------------------------------------------------------------------

STUDY = """
name = "remembering"
[data]
kind = "digits"
[partition]
kind = "iid"
clients = 6
[shift]
kind = "concept"
offset = 3
[task]
model = "mlp"
options = { hidden = [16] }
[[methods]]
kind = "fedavg"
[[methods]]
kind = "knnper"
[[methods]]
kind = "guarded"
[run]
rounds = 4
[evaluation]
unseen_clients = 0.17
"""


def test_a_study_saves_what_clients_remember_and_a_guard_may_choose_it(tmp_path: Path) -> None:
    record = run_study(parse_study(STUDY), out=tmp_path)
    methods = record.summary["methods"]
    assert methods["knnper"]["bytes_up"] == methods["fedavg"]["bytes_up"]
    trial, guarded = record.trial("knnper", 0), record.trial("guarded", 0)
    bundle = ModelBundle.load(trial.folder / "models.safetensors")
    x = np.random.default_rng(0).random((5, 64)).astype(np.float32)
    event = trial.events("evaluation")[-2]
    assert event["group"] == "seen"
    searched = [timing for timing in trial.timings if "queries" in timing]
    assert searched[-1]["queries"] >= sum(event["test_size"]) + sum(event["validation_size"])
    assert searched[-1]["search_s"] > 0
    assert min(event["neighbour_share"]) > 0
    for client, share, size in zip(event["clients"], event["neighbour_share"], event["neighbour_bytes"], strict=True):
        found = bundle.personal(client).neighbours
        assert found is not None
        assert (found.share, found.store.nbytes) == (share, size)
        predictions = bundle.predictor(client)(x)
        np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
        assert not np.allclose(predictions, bundle.predictor()(x)), "a newcomer has the shared model alone"
    chosen = guarded.events("choice")[0]
    assert "knnper" in chosen["chosen"]
    other = ModelBundle.load(guarded.folder / "models.safetensors")
    for client, name in zip(chosen["clients"], chosen["chosen"], strict=True):
        assert (other.personal(client).neighbours is None) == (name != "knnper")
        if name == "knnper":
            assert np.array_equal(other.predictor(client)(x), bundle.predictor(client)(x))


def test_a_bundle_predicts_as_the_evaluation_did(tmp_path: Path) -> None:
    record = run_study(parse_study(STUDY, overrides=['methods.knnper.base="fedavg+"']), out=tmp_path)
    from rivage.studies.stage import Stage

    trial = record.trial("knnper", 0)
    bundle = ModelBundle.load(trial.folder / "models.safetensors")
    population = Stage.build(parse_study(STUDY), 0).population
    for event in trial.events("evaluation")[-2:]:
        for client, accuracy in zip(event["clients"], event["test"], strict=True):
            test = population.client(client).test
            found = bundle.predictor(client)(test.x).argmax(axis=1) == test.y
            assert found.mean() == pytest.approx(accuracy)


def test_what_is_too_large_is_not_kept() -> None:
    population = Parted(clouds(), SCHEMA)
    trial = Trial(name="m", algorithm=KNNPer(work=WORK), population=population, task=task_of(), rounds=1)
    whole = run(trial).seen
    size = task_of().dimension * 8 + sum(p.neighbours.store.nbytes for p in whole.predictors.values() if p.neighbours)
    assert len(run(trial, keep=size).seen.predictors) == 4
    assert run(trial, keep=size - 1).seen.dropped


def _beyond(tensors: dict[str, np.ndarray]) -> None:
    tensors["neighbours.targets"][0] = 99


def _fewer(tensors: dict[str, np.ndarray]) -> None:
    tensors["neighbours.features"] = tensors["neighbours.features"][1:].copy()


def _share(tensors: dict[str, np.ndarray]) -> None:
    tensors["neighbours.shares"][0, 0] = 2.0


def _stranger(tensors: dict[str, np.ndarray]) -> None:
    tensors["neighbours.clients"][0] = 77


@pytest.mark.parametrize("spoil", [_beyond, _fewer, _share, _stranger])
def test_spoilt_stores_are_refused(tmp_path: Path, spoil: Any) -> None:
    from rivage.core.errors import StoreError

    record = run_study(parse_study(STUDY, overrides=["run.rounds=1"]), out=tmp_path)
    path = record.trial("knnper", 0).folder / "models.safetensors"
    tensors, metadata = load_tensors(path)
    assert metadata["format"] == "rivage.bundle/2"
    tensors = {name: array.copy() for name, array in tensors.items()}
    spoil(tensors)
    save_tensors(path, tensors, metadata)
    with pytest.raises(StoreError, match="is not a model bundle"):
        ModelBundle.load(path)
    assert json.loads(metadata["bundle"])["provenance"]["method"] == "knnper"


# --- the contract ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        KNNPer(learning_rate=0.05),
        KNNPer(learning_rate=0.05, base="fedavg+", tuning_rate=0.01, capacity=3, keep="fifo"),
        KNNPer(learning_rate=0.05, share=0.5, neighbours=2, scale=3.0, fraction=0.5),
    ],
)
def test_conformance(method: KNNPer) -> None:
    battery = check_algorithm(method)
    battery.require()
    assert battery.ran == 11


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"tuning_rate": -1.0},
        {"neighbours": 0},
        {"scale": 0.0},
        {"share": 1.1},
        {"fraction": -0.1},
        {"capacity": -1},
        {"least": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a"):
        KNNPer(**wrong)

"""What must not change a result: the executor, its workers and tiles, who else takes part, how a session is driven."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Samples, Schema
from rivage.federated import FedAvg, Notebook, Phase, Trial, run
from rivage.federated.adversaries import SignFlip
from rivage.federated.algorithm import Adapts, Local, LocalWork, Predictor, Pull, Update
from rivage.federated.apfl import APFL
from rivage.federated.batches import Position
from rivage.federated.checkpoint import Files
from rivage.federated.engine import Outcome, Session
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.record_privacy import UNSOUND
from rivage.federated.registry import ALGORITHMS
from rivage.federated.robust import Krum
from rivage.federated.scaffold import Scaffold
from rivage.federated.sparsifying import TopK
from rivage.learning.losses import LOSSES
from rivage.learning.metrics import METRICS
from rivage.learning.networks import cnn
from rivage.learning.task import Task
from rivage.simulation.devices import LogNormal
from rivage.testing.toys import Clients, linear_clients, linear_task

SIZES = (9, 1, 14, 0, 5, 8)  # one sample, no record at all, partial last batches
FUNCTIONAL, TILED = Execution(executor="functional", workers=1), Execution(executor="tiled", workers=1)

# --- models, data and methods --------------------------------------------------------------------------------


class Own(nn.Module):
    """A module that users write: functions in place of layers, and a layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.middle, self.head = nn.Linear(6, 5), nn.Linear(5, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.body(torch.flatten(x, 1)))
        return self.head(self.middle(z).tanh())


def dense(activation: type[nn.Module], outputs: int = 3, *, bias: bool = True) -> Callable[[Schema], nn.Module]:
    return lambda schema: nn.Sequential(
        nn.Linear(6, 5, bias=bias), activation(), nn.Linear(5, 4, bias=bias), activation(), nn.Linear(4, outputs)
    )


def frozen(schema: Schema) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    return model


@dataclass(frozen=True)
class Family:
    """A model, its loss and the data it is for."""

    model: Callable[[Schema], nn.Module]
    loss: str = "cross_entropy"
    shape: tuple[int, ...] = (6,)
    classes: int = 3

    def population(self, sizes: Sequence[int] = SIZES) -> Clients:
        generator = np.random.default_rng(3)
        real = self.loss == "squared"
        records = []
        for size in sizes:
            x = generator.normal(size=(size, *self.shape))
            y = generator.normal(size=(size, 2)) if real else generator.integers(0, self.classes, size)
            records.append((x, y))
        kind = {"target": "real", "num_outputs": 2} if real else {"target": "class", "num_classes": self.classes}
        return Clients(tuple(records), Schema(input_shape=self.shape, **kind))  # type: ignore[arg-type]

    def task(self, dtype: torch.dtype = torch.float64) -> Task:
        metric = METRICS.get("mae" if self.loss == "squared" else "accuracy")
        return Task(self.model, LOSSES.get(self.loss), metric, self.population(()).schema, dtype=dtype)


CHAINS = {
    "linear": Family(lambda schema: nn.Linear(6, 3)),
    "relu": Family(dense(nn.ReLU)),
    "tanh": Family(dense(nn.Tanh)),
    "sigmoid": Family(dense(nn.Sigmoid)),
    "logistic": Family(dense(nn.Tanh, 1), "logistic", classes=2),
    "squared": Family(dense(nn.ReLU, 2), "squared"),
    "no bias": Family(dense(nn.Tanh, bias=False)),
    "own": Family(lambda schema: Own(), shape=(2, 3)),
    "frozen": Family(frozen),
}
OTHERS = {
    "cnn": Family(lambda schema: cnn(schema, channels=(2,), hidden=4), shape=(1, 4, 4)),
    "batch norm": Family(lambda schema: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))),
    "dropout": Family(lambda schema: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.4), nn.Linear(4, 3))),
}
PHASES = {
    "epochs": Phase(epochs=2, batch_size=4),
    "updates": Phase(updates=5, batch_size=3),
    "whole": Phase(epochs=2, batch_size=None),
    "poisson": Phase(updates=6, batch_size=1, batches="poisson", denominator="expected"),  # some batches are empty
    "endless": Phase(updates=3, batch_size=4, batches="endless"),
    "expected": Phase(batch_size=6, denominator="expected"),
    "clip": Phase(batch_size=4, clip=0.3),
    "noise": Phase(updates=4, batch_size=2, batches="poisson", denominator="expected", clip=0.3, noise=0.7),
    "one": Phase(epochs=3, batch_size=1),
}
METHODS = [kind for kind in ALGORITHMS if hasattr(ALGORITHMS.get(kind), "federates")]  # those of this engine
BODIES = {"fedrep", "fedem_heads"}  # methods that train a body and a head


def suits(kind: str, name: str) -> bool:
    """Whether a model has what the method trains."""
    return kind not in BODIES or name not in ("linear", "frozen")


def method(kind: str, phase: Phase, **changes: Any) -> Any:
    """A method of the registry with this work wherever it takes one; without noise where noise is refused."""
    cls = ALGORITHMS.get(kind)
    if f"{cls.__module__}:{cls.__qualname__}" in UNSOUND:
        phase = replace(phase, noise=None)
    given = {
        "work": phase,
        "tuning": replace(phase, batches="shuffle", updates=None, noise=None),
        "epochs": 2,
        **changes,
    }
    names = {field.name for field in fields(cls) if field.init}
    return cls(learning_rate=0.05, **{name: value for name, value in given.items() if name in names})


task_of: Callable[..., Task] = cache(lambda name, dtype=torch.float64: {**CHAINS, **OTHERS}[name].task(dtype))


def trial(name: str, algorithm: Any, execution: Execution = FUNCTIONAL, **changes: Any) -> Trial:
    family = {**CHAINS, **OTHERS}[name]
    given = {
        "name": "m",
        "algorithm": algorithm,
        "population": family.population(changes.pop("sizes", SIZES)),
        "task": task_of(name),
        "rounds": 3,
        "cohort": 4,
        "every": 2,
        "execution": execution,
        "unseen": np.array([2]),
    }
    return Trial(**{**given, **changes})


def played(trial: Trial) -> tuple[Outcome, Notebook]:
    notebook = Notebook()
    return run(trial, notebook), notebook


# --- equality ------------------------------------------------------------------------------------------------


def near(a: Any, b: Any, tolerance: float, where: str) -> None:
    """Equal in form, and numbers equal to a relative tolerance."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            near(a[key], b[key], tolerance, f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            near(one, other, tolerance, f"{where}[{i}]")
    elif isinstance(a, Tensor):
        scale = max(1.0, float(a.abs().max())) if a.numel() else 1.0
        torch.testing.assert_close(b, a, rtol=0, atol=tolerance * scale, msg=lambda text: f"{where}: {text}")
    elif isinstance(a, float):
        assert b == pytest.approx(a, rel=tolerance, abs=tolerance), where
    else:
        assert a == b, where


def kept(notebook: Notebook, size: int) -> dict[int, Any]:
    """What clients remember: values, positions, residuals."""
    memories = notebook.memories.get(range(size))
    return {i: [dict(m.values), m.position, dict(m.residuals)] for i, m in enumerate(memories)}


def require_near(one: tuple[Outcome, Notebook], other: tuple[Outcome, Notebook], tolerance: float = 1e-10) -> None:
    """State, personal predictors, memories and record."""
    size = len(SIZES)
    near(dict(one[0].state), dict(other[0].state), tolerance, "state")
    for group in ("seen", "unseen"):
        a, b = getattr(one[0], group), getattr(other[0], group)
        pairs = [{i: [p.params, p.mix] for i, p in x.predictors.items()} for x in (a, b)]
        near(*pairs, tolerance, f"{group} predictors")
    near(kept(one[1], size), kept(other[1], size), tolerance, "memories")
    near(*([e for e in n.events if e["event"] != "start"] for n in (one[1], other[1])), tolerance, "record")


def pairs() -> Iterator[Any]:
    """Every method on every model; phases take turns, so that every method also meets every phase."""
    phases = list(PHASES)
    for i, kind in enumerate(METHODS):
        for j, name in enumerate(CHAINS):
            phase = phases[(i + j) % len(phases)]
            if suits(kind, name):
                yield pytest.param(kind, name, phase, id=f"{kind}-{name}-{phase}")


def test_every_method_of_the_registry_is_compared_under_every_phase() -> None:
    assert {"apfl", "ditto", "fedavg", "local", "scaffold"} <= set(METHODS)
    assert len(CHAINS) >= len(PHASES)


@pytest.mark.parametrize(("kind", "name", "phase"), list(pairs()))
def test_three_rounds_are_the_same_on_both_executors(kind: str, name: str, phase: str) -> None:
    algorithm = method(kind, PHASES[phase])
    one, many = (played(trial(name, algorithm, execution)) for execution in (FUNCTIONAL, TILED))
    assert many[1].events[0]["executor"] == "tiled"
    require_near(one, many)


def jobs_of(algorithm: Any, population: Clients, task: Task) -> list[Job]:
    """What each client trains in its first round, or to adapt."""
    state = algorithm.init(task, population.size, Streams(0))
    data = [population.client(client) for client in range(population.size)]
    downs = [algorithm.broadcast(state, held.id, task) for held in data]
    losses = Executor(task, FUNCTIONAL).client_losses(algorithm, downs, data)
    jobs = []
    for held, down, loss in zip(data, downs, losses, strict=True):
        if algorithm.federates:
            local = algorithm.start(down, {}, held, loss, Streams(1), task)
        else:
            local = algorithm.adapt(state, {}, held, loss, Streams(1), task)
        jobs.append(Job(held.id, local, held.train))
    return jobs


def trained(name: str, algorithm: Any, work: LocalWork, execution: Execution, dtype: torch.dtype) -> list[Local]:
    task = task_of(name, dtype)
    jobs = jobs_of(algorithm, CHAINS[name].population(), task)
    with Executor(task, execution) as executor:
        executor.train(algorithm, work, jobs, Streams(0), 0)
    return [job.local for job in jobs]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in METHODS for n in CHAINS if suits(k, n)])
def test_one_local_step_agrees_in_single_precision(kind: str, name: str) -> None:
    """The step itself, not the parameters, is compared: it is what rounding could hide."""
    for phase in (Phase(updates=1, batch_size=None), Phase(updates=1, batch_size=2, clip=0.5)):
        algorithm = method(kind, phase)
        work = LocalWork((phase,), 0.05)
        before = jobs_of(algorithm, CHAINS[name].population(), task_of(name, torch.float32))
        one, many = (trained(name, algorithm, work, e, torch.float32) for e in (FUNCTIONAL, TILED))
        for job, a, b in zip(before, one, many, strict=True):
            moved = float((a.params - job.local.params).abs().max())
            error = float((a.params - b.params).abs().max())
            assert error <= 1e-5 * max(moved, float(a.params.abs().max()))
            assert (a.steps, a.records, a.rate, a.gradients) == (b.steps, b.records, b.rate, b.gradients)
            near(a.extra, b.extra, 1e-5, "extra")


def test_parts_of_a_model_learn_alike() -> None:
    for i, train in enumerate((("head",), ("body",), ("body.bias",), ("middle", "head.bias"), ("body", "head"))):
        for j, kind in enumerate(("fedavg", "ditto", "scaffold", "apfl")):
            algorithm = method(kind, Phase(batch_size=4, train=train, clip=(None, 0.2)[(i + j) % 2]))
            require_near(*(played(trial("own", algorithm, e, rounds=2)) for e in (FUNCTIONAL, TILED)))


def test_what_learns_in_an_adaptive_share_is_the_same() -> None:
    for name, phase in (("relu", "epochs"), ("logistic", "clip"), ("squared", "poisson")):
        algorithm = method("apfl", PHASES[phase], adaptive=True)
        require_near(*(played(trial(name, algorithm, e)) for e in (FUNCTIONAL, TILED)))


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_is_no_chain_falls_back_bit_for_bit(name: str) -> None:
    phase, sizes = Phase(updates=2, batch_size=None), (9, 2, 14, 3, 5, 8)
    for kind in METHODS:
        of = (
            played(trial(name, method(kind, phase), Execution(executor=e, workers=1), sizes=sizes, rounds=2))  # type: ignore[arg-type]
            for e in ("functional", "auto")
        )
        one, fallen = of
        assert fallen[1].events == one[1].events
        assert fallen[1].events[0]["executor"] == "functional"
        require_near(one, fallen, 0)


@dataclass(frozen=True, kw_only=True)
class Weighted(FedAvg):
    """Two groups with weights of their own for every record, pulled and drifting, by the plain or the joint path."""

    record_private: ClassVar[bool] = True

    def start(self, broadcast: Any, memory: Any, data: ClientData, losses: Any, streams: Any, task: Task) -> Local:
        params = torch.stack([broadcast["params"], broadcast["params"] * 0.5])
        generator = torch.Generator().manual_seed(data.id)
        weights = torch.rand(len(data.train), 2, generator=generator, dtype=torch.float64)
        weights[:1] = 0
        strength = torch.tensor([[0.0], [0.3 + data.id % 2]], dtype=torch.float64)
        return Local(params, weights=weights, pull=Pull(strength, params + 1 + data.id), drift=0.1 * params * data.id)

    def finish(self, local: Local, task: Task) -> Update:
        return replace(super().finish(local, task), memory={"second": local.params[1].clone()})


class Joint(Weighted):
    """The same through `correct`."""

    record_private: ClassVar[bool] = True

    def correct(self, extra: Any, params: Tensor, gradients: Tensor) -> Tensor:
        return gradients + 0.01 * params.sign()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", [Weighted, Joint])
def test_weights_groups_pulls_and_drifts_act_alike(kind: Any, phase: str) -> None:
    algorithm = kind(learning_rate=0.05, work=PHASES[phase])
    for name in ("relu", "squared", "frozen"):
        require_near(*(played(trial(name, algorithm, e)) for e in (FUNCTIONAL, TILED)))


@pytest.mark.parametrize("executor", ["functional", "tiled"])
@pytest.mark.parametrize("kind", METHODS)
def test_workers_do_not_change_a_bit(kind: str, executor: Any) -> None:
    algorithm = method(kind, Phase(epochs=2, batch_size=3, clip=0.5))
    events, states = [], []
    for workers in (1, 2, 3):
        execution = Execution(executor=executor, workers=workers, tile_bytes=2 * 8 * task_of("tanh").dimension)
        outcome, notebook = played(trial("tanh", algorithm, execution, rounds=2))
        events.append(notebook.events)
        states.append(outcome)
    assert events[0] == events[1] == events[2]
    for other in states[1:]:
        assert all(torch.equal(value, other.state[name]) for name, value in states[0].state.items())


@pytest.mark.parametrize("kind", METHODS)
def test_tiles_of_one_row_and_one_tile_of_all_rows_agree(kind: str) -> None:
    for name, phase in (("relu", "epochs"), ("logistic", "poisson"), ("no bias", "clip")):
        algorithm = method(kind, PHASES[phase])
        require_near(*(played(trial(name, algorithm, replace(TILED, tile_bytes=n))) for n in (1, 1 << 30)))


@pytest.mark.parametrize("kind", METHODS)
def test_a_client_trains_alike_whoever_else_takes_part(kind: str) -> None:
    cases = [("relu", "clip"), ("squared", "poisson"), ("own", "updates"), ("logistic", "expected")]
    for name, phase in (cases * 2)[METHODS.index(kind) % 4 :][:2]:
        algorithm, task = method(kind, PHASES[phase]), task_of(name)
        work = LocalWork((PHASES[phase], Phase(batch_size=5)), 0.05)
        population = CHAINS[name].population()
        together, alone = jobs_of(algorithm, population, task), jobs_of(algorithm, population, task)
        for execution, tolerance in ((FUNCTIONAL, 0.0), (TILED, 1e-12)):
            executor = Executor(task, execution)
            executor.train(algorithm, work, together, Streams(0), 1)
            for job in reversed(alone):
                executor.train(algorithm, work, [job], Streams(0), 1)
            for a, b in zip(together, alone, strict=True):
                near(a.local.params, b.local.params, tolerance, "params")
                near(a.local.extra, b.local.extra, tolerance, "extra")
                assert a.position == b.position
                assert (a.local.steps, a.local.gradients) == (b.local.steps, b.local.gradients)


# --- evaluation ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Mixtures(FedAvg):
    """Every client has groups of its own: one to four of them, some with a share of 0, some shared with others."""

    federates: ClassVar[bool] = False
    adaptation: ClassVar[None] = None  # type: ignore[misc]

    def adapt(self, state: Any, memory: Any, data: ClientData, losses: Any, streams: Any, task: Task) -> Local:
        held = mixture(data.id, task)
        return Local(held.params, keep={"mix": held.mix})

    def predictor(self, state: Any, memory: Any, local: Any, task: Task) -> Predictor:
        return Predictor(local.params, local.keep["mix"])


@cache
def mixture(client: int, task: Task) -> Predictor:
    if client in (4, 7):
        return mixture(100, task)  # one object for both
    groups = 1 + client % 4
    mix = torch.rand(groups, generator=torch.Generator().manual_seed(client), dtype=torch.float64) + 0.1
    mix[: groups // 2] = 0
    return Predictor(torch.stack([task.initial(10 * client + g) for g in range(groups)]), mix / mix.sum())


class Halves(Clients):
    """Training, validation and test records differ in number; some are missing."""

    def client(self, id: int, round: int = 0) -> ClientData:
        data = super().client(id, round)
        n = len(data.train)
        parts = np.split(np.arange(n), [n // 5 * (id % 3), n // 5 * (id % 3) + id % 2])
        return replace(data, validation=data.train.take(parts[0]), test=data.train.take(parts[2]))


@pytest.mark.parametrize("name", ["relu", "logistic", "squared", "own"])
def test_stacked_predictions_are_those_of_each_model_alone(name: str) -> None:
    task, sizes = task_of(name), (9, 1, 14, 3, 5, 30, 2, 1)
    plain = CHAINS[name].population(sizes)
    population = Halves(plain.records, plain.schema)
    columns = []
    for execution in (FUNCTIONAL, TILED, replace(TILED, tile_bytes=1)):
        outcome = run(trial(name, Mixtures(), execution, population=population, rounds=0, unseen=np.empty(0, np.int64)))
        columns.append({**outcome.seen.columns, "skipped": outcome.seen.skipped})
    near(columns[0], columns[1], 1e-12, "columns")
    near(columns[0], columns[2], 1e-12, "columns")
    bound = task.bind()
    for client in range(population.size):
        test, predictor = population.client(client).test, mixture(client, task)
        assert columns[1]["test_size"][client] == len(test)
        if len(test):
            mixed = torch.zeros(())
            for weight, vector in zip(predictor.mix, predictor.params, strict=True):
                bound.load(vector)
                mixed = mixed + weight * bound.predictions(task.inputs(test.x))
            loss = float(task.loss.of_predictions(mixed, task.tensors(test)[1]).mean())
            assert columns[1]["test_loss"][client] == pytest.approx(loss, rel=1e-12)
    assert 0 in columns[1]["validation_size"]


def test_predictions_do_not_depend_on_what_else_is_asked() -> None:
    task = task_of("tanh")
    generator = torch.Generator().manual_seed(1)
    asked = [
        (Predictor(task.initial(i)[None], torch.ones(1).double()), torch.randn(n, 6, generator=generator).double())
        for i, n in enumerate((3, 700, 1, 3, 40))
    ]
    executor = Executor(task, TILED)
    for request, found in zip(asked, executor.predictions(asked), strict=True):
        torch.testing.assert_close(executor.predictions([request])[0], found, rtol=0, atol=1e-14)


# --- sessions ------------------------------------------------------------------------------------------------


def rich(**changes: Any) -> Trial:
    """Everything a round can have: an adversary, compression with error feedback, memories, endless loaders."""
    given: dict[str, Any] = {
        "algorithm": Scaffold(learning_rate=0.05, work=Phase(updates=2, batch_size=3, batches="endless")),
        "stages": (TopK(share=0.3),),
        "adversary": SignFlip(clients=(0,)),
        "devices": LogNormal(),
        "rounds": 6,
    }
    given |= changes
    return trial("relu", given.pop("algorithm"), Execution(workers=1), **given)


def test_iterating_is_running() -> None:
    whole, notebook = played(rich()), Notebook()
    with Session(rich(), notebook) as session:
        events = [event for event in session]
        states = session.outcome()
    assert notebook.events == whole[1].events
    assert events == [event for event in notebook.events if event["event"] == "round"]
    require_near(whole, (states, notebook), 0)


def require_same_bits(one: tuple[Outcome, Any], other: tuple[Outcome, Any]) -> None:
    assert all(torch.equal(value, other[0].state[name]) for name, value in one[0].state.items())
    near(kept(one[1], len(SIZES)), kept(other[1], len(SIZES)), 0, "memories")
    assert one[0].seen.columns == other[0].seen.columns


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.parametrize("stages", [(), (TopK(share=0.3),)])
def test_a_session_left_after_any_round_goes_on_in_another(stop: int, stages: Any) -> None:
    whole, notebook = played(rich(stages=stages)), Notebook()
    with Session(rich(stages=stages), notebook) as session:
        for event in session:
            if event["round"] + 1 == stop:
                break
    resumed = run(rich(stages=stages), notebook)
    require_same_bits(whole, (resumed, notebook))
    assert notebook.events == whole[1].events
    residuals = [m.residuals for m in notebook.memories.get(range(len(SIZES)))]
    assert any(residual and any(bool(v.any()) for v in residual.values()) for residual in residuals) == bool(stages)


@pytest.mark.parametrize("stop", [1, 4])
def test_files_give_back_what_the_next_round_needs(tmp_path: Path, stop: int) -> None:
    whole = played(rich())
    with Files(tmp_path, LogPolicy("none"), {}, interval=0) as files, Session(rich(), files) as session:
        for event in session:
            if event["round"] + 1 == stop:
                break
    with Files(tmp_path, LogPolicy("none"), {}, interval=0) as files:
        require_same_bits(whole, (run(rich(), files), files))
    assert [dict(event) for event in files.record.events()] == whole[1].events


def test_what_the_residuals_and_the_adversary_do_is_seen() -> None:
    """Resuming would prove nothing about parts without effect."""
    base = run(rich()).state["params"]
    for change in ({"stages": (TopK(share=0.3, feedback=False),)}, {"adversary": None}, {"stages": ()}):
        assert not torch.equal(run(rich(**change)).state["params"], base)


def test_loaders_and_residuals_are_kept_for_methods_without_memory() -> None:
    endless = FedAvg(learning_rate=0.05, work=Phase(updates=2, batch_size=3, batches="endless"))
    _, notebook = played(trial("relu", endless, cohort=None, sizes=(9, 2, 8)))
    positions = [memory.position for memory in notebook.memories.get(range(3))]
    assert positions == [Position(2, 0), Position(6, 0), Position(0, 0)]  # the last one is unseen
    shuffled = FedAvg(learning_rate=0.05, work=Phase(batch_size=3))
    _, notebook = played(trial("relu", shuffled, cohort=None, stages=(TopK(share=0.3),)))
    assert bool(notebook.memories.get([0])[0].residuals["params"].any())


def test_only_malicious_clients_do_harm() -> None:
    honest, harmless = played(rich(adversary=None)), played(rich(adversary=SignFlip(clients=())))
    require_same_bits(honest, harmless)


def test_a_collector_that_refuses_leaves_the_state_and_the_round_counts() -> None:
    notebook = Notebook()
    algorithm = FedAvg(learning_rate=0.1, work=PHASES["epochs"])
    refused = trial("relu", algorithm, collector=Krum(faulty=1))  # needs five, four take part
    with Session(refused, notebook) as session:
        before = session.state["params"].clone()
        for event in session:
            assert "4 updates where Krum with faulty = 1 needs 5" in event["refused"]
            assert torch.equal(session.state["params"], before)
    assert session.done == 3
    accepted, _ = played(trial("relu", algorithm, collector=Krum(faulty=0)))
    assert not torch.equal(accepted.state["params"], before)


# --- devices -------------------------------------------------------------------------------------------------


def round_events(**changes: Any) -> list[dict[str, Any]]:
    return [event for event in played(rich(adversary=None, **changes))[1].events if event["event"] == "round"]


def test_devices_tell_time_and_energy_of_every_round() -> None:
    without, described = round_events(devices=None), round_events()
    assert not any("simulated_s" in event or "energy_j" in event for event in without)
    for plain, event in zip(without, described, strict=True):
        assert event["simulated_s"] > 0
        assert event["energy_j"] > event["energy_radio_j"] > 0
        added = ("simulated_s", "energy_j", "energy_radio_j")
        assert {key: value for key, value in event.items() if key not in added} == plain


def test_energy_is_that_of_the_bytes_and_records_of_the_round() -> None:
    """Devices that are alike: 3 W over 10 ms a record, 1 W over 8 S / 20e6 s down, 1.5 W over 8 S / 5e6 s up."""
    for event in round_events(devices=LogNormal(base_ms=10.0, mu=0.0, sigma=0.0)):
        radio = 8 * event["bytes_down"] / 20e6 + 1.5 * 8 * event["bytes_up"] / 5e6
        assert event["energy_radio_j"] == pytest.approx(radio, rel=1e-12)
        assert event["energy_j"] == pytest.approx(radio + 3 * 0.01 * event["gradients"], rel=1e-12)


def test_compression_lowers_only_the_radio_part() -> None:
    for full, less in zip(round_events(stages=()), round_events(), strict=True):
        assert less["bytes_up"] < full["bytes_up"]
        assert less["bytes_down"] == full["bytes_down"]
        assert less["energy_radio_j"] < full["energy_radio_j"]
        compute = [event["energy_j"] - event["energy_radio_j"] for event in (full, less)]
        assert compute[0] == pytest.approx(compute[1], rel=1e-9)


def test_whoever_is_lost_is_not_waited_for() -> None:
    whole = round_events(cohort=None, devices=LogNormal(sigma=0.0, mu=0.0, base_ms=10.0))[0]
    population = CHAINS["relu"].population()
    lost = replace(population, absent=frozenset((client, 0) for client in (0, 1, 3, 4)))
    left = round_events(cohort=None, population=lost, devices=LogNormal(sigma=0.0, mu=0.0, base_ms=10.0))[0]
    assert left["lost"] == [0, 1, 4]  # 3 has no records and is never asked
    assert 0 < left["simulated_s"] <= whole["simulated_s"]
    assert left["bytes_up"] < whole["bytes_up"]
    assert left["gradients"] == 6  # two batches of three
    assert left["energy_j"] - left["energy_radio_j"] == pytest.approx(3 * 0.01 * 6)
    nobody = replace(population, absent=frozenset((client, 0) for client in range(6)))
    assert round_events(cohort=None, population=nobody)[0]["simulated_s"] == 0


# --- what the executors owe to any algorithm -----------------------------------------------------------------

LINEAR = linear_clients((7, 5))


def both(jobs: Callable[[], list[Job]], phase: Phase, algorithm: Any = None) -> list[list[Local]]:
    """The same jobs on both executors."""
    results = []
    for execution in (FUNCTIONAL, TILED):
        given = jobs()
        task = linear_task(LINEAR)
        Executor(task, execution).train(algorithm or FedAvg(), LocalWork((phase,), 0.1), given, Streams(0), 0)
        results.append([job.local for job in given])
    return results


@pytest.mark.parametrize("batch", [None, 70])
@pytest.mark.parametrize("joint", [False, True])
def test_inputs_that_are_gathered_piece_by_piece_are_the_same(batch: int | None, joint: bool) -> None:
    """2,000 numbers each: one step of all rows is more than one piece, or a piece is a few steps."""
    population = linear_clients((150, 90, 140), features=2000)
    task = linear_task(population)
    start, phase = 0.01 * task.initial(0)[None], Phase(epochs=2, batch_size=batch)
    results = []
    for execution in (FUNCTIONAL, TILED):
        jobs = [Job(i, Local(start.clone()), population.client(i).train) for i in range(3)]
        algorithm = Plainly() if joint else FedAvg()
        Executor(task, execution).train(algorithm, LocalWork((phase,), 1e-4), jobs, Streams(0), 0)
        results.append([job.local for job in jobs])
    assert float((results[0][0].params - start).abs().max()) > 1e-3
    require_equal_params(results)


def models(groups: int) -> Tensor:
    task = linear_task(LINEAR)
    return torch.stack([task.initial(seed) for seed in range(groups)])


def require_equal_params(results: list[list[Local]]) -> None:
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.params, a.params, rtol=0, atol=1e-12, equal_nan=True)


def test_a_record_that_is_not_finite_harms_its_client_only() -> None:
    data = LINEAR.client(0).train
    bad = Samples(data.x.copy(), data.y, data.index)
    bad.x[0] = np.nan

    def jobs() -> list[Job]:
        return [Job(i, Local(models(1)), (bad, LINEAR.client(1).train)[i]) for i in (0, 1)]

    results = both(jobs, Phase(batch_size=2))
    assert torch.isfinite(results[0][1].params).all()
    require_equal_params(results)


@pytest.mark.parametrize("weighted", [0, 1])
def test_some_clients_may_have_weights_and_others_none(weighted: int) -> None:
    def jobs() -> list[Job]:
        data = [LINEAR.client(i).train for i in (0, 1)]
        weights = [torch.linspace(0.1, 2, len(part)).double()[:, None] for part in data]
        return [Job(i, Local(models(1), weights=weights[i] if i == weighted else None), data[i]) for i in (0, 1)]

    require_equal_params(both(jobs, Phase(batch_size=2)))


def test_clients_may_have_different_numbers_of_groups_under_clipping() -> None:
    def jobs() -> list[Job]:
        return [Job(i, Local(models(groups)), LINEAR.client(i).train) for i, groups in enumerate((1, 4))]

    require_equal_params(both(jobs, Phase(batch_size=2, clip=0.1)))


@dataclass(frozen=True, kw_only=True)
class Plainly(FedAvg):
    """SGD through `correct`."""

    def correct(self, extra: Any, params: Tensor, gradients: Tensor) -> Tensor:
        return gradients


def test_in_the_joint_path_a_client_without_pull_is_not_pulled() -> None:
    strength = torch.tensor([[0.0], [0.5]]).double()

    def jobs() -> list[Job]:
        pulls = (None, Pull(strength, models(2) + 1))
        return [Job(i, Local(models(2), pull=pulls[i]), LINEAR.client(i).train) for i in (0, 1)]

    require_equal_params(both(jobs, Phase(batch_size=2), Plainly()))


def test_in_the_joint_path_clients_may_have_different_numbers_of_groups() -> None:
    def jobs() -> list[Job]:
        return [Job(i, Local(models(groups)), LINEAR.client(i).train) for i, groups in enumerate((1, 2))]

    require_equal_params(both(jobs, Phase(batch_size=2), Plainly()))


@dataclass(frozen=True, kw_only=True)
class Counting(FedAvg):
    """A step that keeps something from its first call on."""

    def step(self, extra: Any, params: Tensor, gradient: Any, rate: float) -> Any:
        count = extra.get("count", torch.zeros_like(params[..., 0, :1]))
        return params - rate * gradient(params), {"count": count + 1}


@dataclass(frozen=True, kw_only=True)
class Forgetting(FedAvg):
    """A step that keeps nothing of what it was given."""

    def step(self, extra: Any, params: Tensor, gradient: Any, rate: float) -> Any:
        return params - rate * gradient(params), {}


@dataclass(frozen=True, kw_only=True)
class Looking(FedAvg):
    """Asks for a second gradient in its first step, and for one of a single group in its second."""

    def step(self, extra: Any, params: Tensor, gradient: Any, rate: float) -> Any:
        slope = gradient(params)
        done = int(extra["done"].flatten()[0])
        if done == 0:
            slope = gradient(params - rate * slope)
        if done == 1:
            gradient(params[..., :1, :])
        return params - rate * slope, {"done": extra["done"] + 1}


def test_every_gradient_that_a_step_asks_for_is_counted() -> None:
    """Two groups; batches of 2, 2, 2, 1 records at one client and of 2, 2, 1 at the other."""

    def jobs() -> list[Job]:
        return [Job(i, Local(models(2), extra={"done": torch.zeros(1)}), LINEAR.client(i).train) for i in (0, 1)]

    results = both(jobs, Phase(batch_size=2), Looking())
    require_equal_params(results)
    for locals_ in results:
        assert [local.gradients for local in locals_] == [2 * 7 + 2 * 2 + 2, 2 * 5 + 2 * 2 + 2]


@dataclass(frozen=True, kw_only=True)
class HeavyBall(FedAvg):
    """Keeps the very tensor it was given, and where the round began."""

    def step(self, extra: Any, params: Tensor, gradient: Any, rate: float) -> Any:
        first, before = extra.get("first", params), extra.get("before", params)
        after = params - rate * (gradient(params) + 0.1 * (params - first)) + 0.9 * (params - before)
        return after, {"before": params, "first": first}


def test_a_step_may_keep_what_it_was_given() -> None:
    def jobs() -> list[Job]:
        return [Job(i, Local(models(1)), LINEAR.client(i).train) for i in (0, 1)]

    results = both(jobs, Phase(epochs=3, batch_size=2), HeavyBall())
    require_equal_params(results)
    for functional, tiled in zip(*results, strict=True):
        for name in ("before", "first"):
            torch.testing.assert_close(tiled.extra[name], functional.extra[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("algorithm", [FedAvg(), Plainly()])
@pytest.mark.parametrize("execution", [FUNCTIONAL, TILED])
def test_what_was_trained_can_be_changed_and_differentiated(execution: Execution, algorithm: FedAvg) -> None:
    """Tiles compute in inference mode, whose tensors can be neither."""
    job = Job(0, Local(models(1)), LINEAR.client(0).train)
    Executor(linear_task(LINEAR), execution).train(algorithm, LocalWork((Phase(),), 0.1), [job], Streams(0), 0)
    params = job.local.params
    assert not params.is_inference()
    weight = torch.ones(1, dtype=params.dtype, requires_grad=True)
    (weight * params).sum().backward()
    assert weight.grad is not None
    params.mul_(2)


def test_steps_and_gradients_of_all_phases_add_up() -> None:
    work = LocalWork((Phase(epochs=2, batch_size=3), Phase(updates=5, batch_size=None), Phase(epochs=0)), 0.1)
    for execution in (FUNCTIONAL, TILED):
        job = Job(0, Local(models(2)), LINEAR.client(0).train)
        Executor(linear_task(LINEAR), execution).train(FedAvg(), work, [job], Streams(0), 0)
        assert (job.local.steps, job.local.gradients) == (2 * 3 + 5, 2 * (2 * 7 + 5 * 7))


def test_a_step_may_drop_tensors() -> None:
    def jobs() -> list[Job]:
        return [Job(i, Local(models(1), extra={"old": torch.ones(1)}), LINEAR.client(i).train) for i in (0, 1)]

    for locals_ in both(jobs, Phase(batch_size=2), Forgetting()):
        assert [local.extra for local in locals_] == [{}, {}]


def test_a_step_may_bring_tensors_of_its_own() -> None:
    def jobs() -> list[Job]:
        return [Job(i, Local(models(1)), LINEAR.client(i).train) for i in (0, 1)]

    results = both(jobs, Phase(batch_size=2), Counting())
    require_equal_params(results)
    assert [float(local.extra["count"]) for local in results[1]] == [4, 3]


def test_losses_of_a_stack_and_of_its_first_row_have_their_own_widths() -> None:
    stack, data = models(2), LINEAR.client(0).train
    for execution in (FUNCTIONAL, TILED):
        found = Executor(linear_task(LINEAR), execution).losses([(stack, data), (stack[:1], data)])
        assert [tuple(losses.shape) for losses in found] == [(7, 2), (7, 1)]


class Tempered(nn.Module):
    """Divides its outputs where it predicts, not where it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x)
        return outputs if self.training else outputs / 3


def test_a_model_that_predicts_otherwise_than_it_learns_predicts_alike_everywhere() -> None:
    task = Family(lambda schema: Tempered()).task()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    asked = [(Predictor(task.initial(i)[None], torch.ones(1).double()), x) for i in (0, 1)]
    one, many = (Executor(task, e).predictions(asked) for e in (FUNCTIONAL, Execution()))
    near(one, many, 1e-12, "predictions")


def test_adapting_methods_are_among_those_compared() -> None:
    assert sum(isinstance(method(kind, Phase()), Adapts) for kind in METHODS) >= 4
    assert isinstance(method("apfl", Phase()), APFL)

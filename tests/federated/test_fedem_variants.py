"""FedEM's settings and ends: noise of real targets, the mean over everyone, other starts, one component per client."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.generative import Generative
from rivage.data.population import ClientData, Samples, Schema
from rivage.federated import FedEM, Local, Notebook, Outcome, Phase, Session, Trial, run
from rivage.federated.algorithm import Local as Job
from rivage.federated.algorithm import State
from rivage.federated.cohorts import Candidates
from rivage.learning.losses import CROSS_ENTROPY, LOGISTIC
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.simulation.availability import Always
from rivage.testing.toys import Clients, linear_clients, linear_task

STEP = Phase(updates=1, batch_size=None)


@dataclass(frozen=True, kw_only=True)
class Placed(FedEM):
    """Components, and shares of clients that have none, where a test wants them."""

    first: tuple[tuple[float, ...], ...] = ()
    shares: tuple[tuple[float, ...], ...] = ()

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        return {"params": torch.tensor(self.first, dtype=task.dtype)}

    def start(self, broadcast: State, memory: State, data: ClientData, *rest: Any) -> Job:
        if self.shares:
            memory = {"shares": torch.tensor(self.shares[data.id], dtype=broadcast["params"].dtype)}
        return super().start(broadcast, memory, data, *rest)


def played(algorithm: Any, population: Any, rounds: int, **options: Any) -> Outcome:
    task = options.pop("task", None) or linear_task(population)
    return run(Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, **options))


def mixes(outcome: Outcome) -> np.ndarray:
    return np.stack([outcome.seen.predictors[client].mix.numpy() for client in sorted(outcome.seen.predictors)])


def two_classes(sizes: tuple[int, ...] = (9, 14, 5, 12), features: int = 3, seed: int = 0) -> Clients:
    records = []
    for client, size in enumerate(sizes):
        generator = np.random.default_rng((seed, client))
        x = generator.normal(size=(size, features))
        records.append((x, (x @ generator.normal(size=features) > 0).astype(np.int64)))
    return Clients(tuple(records), Schema(input_shape=(features,), target="class", num_classes=2))


def logistic(population: Any) -> Task:
    features = population.schema.input_shape[0]
    return Task(
        model=lambda schema: nn.Linear(features, 1, bias=False),
        loss=LOGISTIC,
        metric=ACCURACY,
        schema=population.schema,
        dtype=torch.float64,
    )


def surprise(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """−log p(y | x; w_m), [records, components]."""
    result: np.ndarray = np.logaddexp(0.0, np.where(y == 1, -1.0, 1.0)[:, None] * (x @ w.T))
    return result


# --- classification -------------------------------------------------------------------------------------------


def test_rounds_of_classification_follow_the_algorithm_written_out() -> None:
    population, rate = two_classes(), 0.3
    w, shares = np.array([[0.4, -0.2, 0.3], [-0.5, 0.4, 0.2]]), np.full((4, 2), 0.5)
    first = tuple(map(tuple, w.tolist()))
    for _ in range(3):
        ended = []
        for client, (x, y) in enumerate(population.records):
            joint = shares[client] * np.exp(-surprise(w, x, y))
            q = joint / joint.sum(axis=1, keepdims=True)
            shares[client] = q.mean(axis=0)
            slopes = (q * (1 / (1 + np.exp(-x @ w.T)) - y[:, None])).T @ x / len(x)
            ended.append(w - rate * slopes)
        w = np.average(ended, axis=0, weights=[len(x) for x, _ in population.records])
    method = Placed(learning_rate=rate, components=2, work=STEP, first=first)
    outcome = played(method, population, 3, task=logistic(population))
    np.testing.assert_allclose(outcome.state["params"], w, atol=1e-12)
    np.testing.assert_allclose(mixes(outcome), shares, atol=1e-12)
    x, y = population.records[2]
    p = 1 / (1 + np.exp(-x @ w.T)) @ shares[2]  # probabilities are mixed, not logits
    expected = -np.log(np.where(y == 1, p, 1 - p)).mean()
    assert outcome.seen.columns["test_loss"][2] == pytest.approx(expected, abs=1e-12)


def test_the_likelihood_of_classification_never_falls_in_200_rounds() -> None:
    """Steps below 1/L, L a quarter of the largest eigenvalue of the mean of x x'."""
    population = two_classes()
    x = np.concatenate([x for x, _ in population.records])
    rate = 0.99 * 4 / float(np.linalg.eigvalsh(x.T @ x / len(x)).max())
    book, values = Notebook(), []
    method = FedEM(learning_rate=rate, components=2, work=STEP)
    task = logistic(population)
    with Session(Trial(name="m", algorithm=method, population=population, task=task, rounds=200), book) as session:
        for _ in session:
            w = session.state["params"].numpy()
            kept = [memory.values["shares"].numpy() for memory in book.memories.get(range(4))]
            values.append(
                sum(
                    float(np.log(np.exp(-surprise(w, *xy)) @ pi).sum())
                    for pi, xy in zip(kept, population.records, strict=True)
                )
            )
    assert len(values) == 200
    assert np.diff(values).min() > -1e-9
    assert values[-1] - values[0] > 1


def test_permuted_components_of_classification_predict_alike() -> None:
    population = two_classes()
    first = ((0.1, -0.2, 0.3), (-0.5, 0.4, 0.2), (0.9, 0.1, -0.6))
    one, other = (
        played(Placed(work=Phase(batch_size=4), first=start), population, 3, task=logistic(population))
        for start in (first, (first[2], first[0], first[1]))
    )
    torch.testing.assert_close(other.state["params"], one.state["params"][[2, 0, 1]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(mixes(other), mixes(one)[:, [2, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(other.seen.columns["test_loss"], one.seen.columns["test_loss"], atol=1e-12)


# --- one component per client ---------------------------------------------------------------------------------


def test_components_of_their_own_are_local_training_with_a_smaller_step() -> None:
    """M = T, π the identity: component t moves with client t alone, by n_t / n of its step."""
    population = linear_clients((6, 6, 6, 6))
    own = tuple(tuple(float(t == m) for m in range(4)) for t in range(4))
    start = tuple(linear_task(population).initial(Streams(0).seed("model")).tolist())
    method = Placed(learning_rate=0.4, components=4, work=STEP, first=(start,) * 4, shares=own)
    ours = played(method, population, 7)
    alone = played(Local(learning_rate=0.1, epochs=7, work=Phase(batch_size=None)), population, 0)
    for client in range(4):
        expected = alone.seen.predictors[client].params[0]
        torch.testing.assert_close(ours.state["params"][client], expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(ours.seen.predictors[client].mix, own[client], atol=1e-9)
    np.testing.assert_allclose(ours.seen.columns["test_loss"], alone.seen.columns["test_loss"], atol=1e-9)


# --- noise ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.floats(0.1, 10.0))
def test_noise_is_in_the_unit_of_the_target(seed: int, unit: float) -> None:
    """Target, components and noise in another unit: the same shares, and components in that unit."""
    population, w = linear_clients((5, 8), seed=seed), np.array([[0.3, -0.2, 0.1], [-0.4, 0.5, 0.2]])

    def outcome(scale: float) -> Outcome:
        scaled = replace(population, records=tuple((x, scale * y) for x, y in population.records))
        first = tuple(map(tuple, (scale * w).tolist()))
        return played(Placed(learning_rate=0.1, components=2, work=STEP, first=first, noise=0.5 * scale), scaled, 3)

    one, other = outcome(1.0), outcome(unit)
    np.testing.assert_allclose(mixes(other), mixes(one), atol=1e-9)
    np.testing.assert_allclose(other.state["params"] / unit, one.state["params"], atol=1e-9)


@dataclass(frozen=True)
class Regression:
    """Two opposite slopes, mixed by eight clients in shares 1/8, …; noise of standard deviation 0.1."""

    shares = (np.arange(8) + 0.5) / 8
    noise = 0.1

    @property
    def population(self) -> Clients:
        generator, records = np.random.default_rng(1), []
        for share in self.shares:
            x = generator.normal(size=(200, 2))
            slope = np.where(generator.random(200) < share, 1.0, -1.0)
            records.append((x, (slope * (x @ [0.4, -0.2]) + self.noise * generator.normal(size=200))[:, None]))
        return Clients(tuple(records), Schema(input_shape=(2,), target="real", num_outputs=1))


def test_a_regression_mixture_is_recovered_once_its_noise_is_named() -> None:
    """With s = 1 the posteriors are too flat: components end half way to each other."""
    law, true, found = Regression(), np.array([[0.4, -0.2], [-0.4, 0.2]]), {}
    for noise in (law.noise, 1.0):
        options: dict[str, Any] = {"first": ((0.3, 0.1), (-0.2, 0.1)), "noise": noise}
        method = Placed(learning_rate=0.5, components=2, work=Phase(updates=3, batch_size=None), **options)
        found[noise] = played(method, law.population, 60)
    slopes = {noise: outcome.state["params"].numpy() for noise, outcome in found.items()}
    assert np.abs(slopes[law.noise] - true).max() < 0.01
    assert np.abs(mixes(found[law.noise])[:, 0] - law.shares).max() < 0.05
    assert np.linalg.norm(slopes[1.0][0] - slopes[1.0][1]) < 0.6 * np.linalg.norm(true[0] - true[1])


def test_newcomers_use_the_noise_too() -> None:
    losses = torch.tensor([[0.5, 0.0], [0.0, 0.4], [0.0, 0.3]], dtype=torch.float64)
    state, nobody = {"params": torch.zeros(2, 1, dtype=torch.float64)}, None

    def shares(losses: Tensor, noise: float) -> Tensor:
        method = FedEM(components=2, noise=noise)
        job = method.adapt(state, {}, nobody, losses, Streams(0), nobody)  # type: ignore[arg-type]
        assert job is not None
        return job.keep["shares"]

    assert torch.equal(shares(losses, 0.5), shares(losses * 4, 1.0))
    assert not torch.equal(shares(losses, 0.5), shares(losses, 1.0))


def test_noise_of_classes_is_refused() -> None:
    population = two_classes()
    with pytest.raises(ConfigError, match=r"noise is 0\.5, but the target is of kind class.*Leave it out"):
        FedEM(noise=0.5).init(logistic(population), 4, Streams(0))
    with pytest.raises(ConfigError, match=r"noise is 0"):
        FedEM(noise=0.0)


# --- the mean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_the_mean_over_everyone_counts_the_others_in_as_they_were_sent(rate: float) -> None:
    """Client 3 never trains; client 1 takes part in round 0, but its update is lost."""
    population = replace(linear_clients((4, 7, 3, 12)), absent=frozenset({(1, 0)}))
    options: dict[str, Any] = {"cohort": 2, "unseen": np.array([3])}
    work = Phase(epochs=2, batch_size=3)
    cohort = played(FedEM(work=work), population, 1, **options).state["params"]
    everyone = played(FedEM(work=work, average_over="everyone", server_rate=rate), population, 1, **options)
    first = FedEM().init(linear_task(population), 3, Streams(0))["params"]
    book = Notebook()
    trial = Trial(
        name="m", algorithm=FedEM(work=work), population=population, task=linear_task(population), rounds=1, **options
    )
    with Session(trial, book) as session:
        (event,) = list(session)
    arrived = set(event["cohort"]) - {1}
    mass = sum({0: 4, 1: 7, 2: 3}[client] for client in arrived) / 14
    assert 0 < mass < 1
    expected = first + rate * mass * (cohort - first)
    torch.testing.assert_close(everyone.state["params"], expected, rtol=0, atol=1e-12)


def test_both_means_are_one_where_everyone_takes_part() -> None:
    population = linear_clients()
    one, other = (played(FedEM(average_over=over), population, 3) for over in ("cohort", "everyone"))  # type: ignore[arg-type]
    torch.testing.assert_close(one.state["params"], other.state["params"], rtol=0, atol=1e-12)


def test_the_mean_over_everyone_is_refused_where_nobody_could_count_them() -> None:
    devices = Generative(size=10**9).population(seed=0, availability=Always(), key=0, validation=0.0, test=0.2)
    candidates = Candidates(devices, 0, 5, np.empty(0, np.int64))
    with pytest.raises(ConfigError, match=r"1000000000 clients.*server_rate"):
        FedEM(average_over="everyone").select({}, candidates, Streams(0), None)  # type: ignore[arg-type]
    assert len(FedEM().select({}, candidates, Streams(0), None).ids) == 5  # type: ignore[arg-type]


# --- starts ---------------------------------------------------------------------------------------------------


def test_restarts_draw_all_components_anew() -> None:
    task = linear_task(linear_clients())
    starts = [FedEM(restart=r).init(task, 4, Streams(0))["params"] for r in range(3)]
    assert torch.equal(starts[0], FedEM().init(task, 4, Streams(0))["params"])
    assert len({tuple(row) for start in starts for row in start.tolist()}) == 9
    assert torch.equal(starts[1][:2], FedEM(restart=1, components=2).init(task, 4, Streams(0))["params"])
    with pytest.raises(ConfigError, match="restart is -1"):
        FedEM(restart=-1)


# --- clients as they come -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Odd:
    """One sample, one class, no validation, no test, and a newcomer with one sample."""

    plain: Clients

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def client(self, id: int, round: int = 0) -> ClientData:
        x, y = self.plain.records[id]
        rows = np.arange(len(x))
        all_, none = Samples(x, y, rows), Samples(x[:0], y[:0], rows[:0])
        return ClientData(id, all_, none, none if id == 0 else all_, float(len(x)))


@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_clients_with_one_sample_one_class_or_nothing_to_choose_with(executor: str) -> None:
    generator = np.random.default_rng(0)
    x = [generator.normal(size=(size, 3)) for size in (1, 6, 8, 1, 10)]
    y = [np.zeros(len(part), np.int64) if i < 2 else generator.integers(0, 3, len(part)) for i, part in enumerate(x)]
    schema = Schema(input_shape=(3,), target="class", num_classes=3)
    population = Odd(Clients(tuple(zip(x, y, strict=True)), schema))
    task = Task(model=lambda s: nn.Linear(3, 3), loss=CROSS_ENTROPY, metric=ACCURACY, schema=schema)
    from rivage.federated import Execution

    execution = Execution(executor=executor)  # type: ignore[arg-type]
    outcome = played(FedEM(), population, 20, task=task, unseen=np.array([3]), execution=execution)
    assert outcome.unseen is not None
    assert outcome.seen.columns["test"][0] is None
    assert outcome.seen.columns["validation"] == [None] * 4
    assert all(np.isfinite(value) for value in outcome.seen.columns["test_loss"][1:])
    shares = {**outcome.seen.predictors, **outcome.unseen.predictors}
    for client in range(5):
        mix = shares[client].mix
        assert float(mix.sum()) == pytest.approx(1, abs=1e-6)
        assert bool((mix >= 0).all())
    best: Float[Tensor, "components"] = losses_of(outcome, task, x[3], y[3])
    assert int(shares[3].mix.argmax()) == int(best.argmin()), "a single record is the best component's"


def losses_of(outcome: Outcome, task: Task, x: np.ndarray, y: np.ndarray) -> Tensor:
    bound, found = task.bind(), []
    for row in outcome.state["params"]:
        bound.load(row)
        found.append(bound.losses(torch.tensor(x, dtype=torch.float32), torch.tensor(y)).detach()[0])
    return torch.stack(found)

"""FedEM: its steps written out, its ends (one component, held components), and the truth behind a drawn mixture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.dataset import Arrays
from rivage.data.population import ClientData, Samples, Schema
from rivage.data.synthetic import Mixture
from rivage.federated import Execution, FedAvg, FedEM, Local, Notebook, Outcome, Phase, Session, Trial, run
from rivage.federated.algorithm import State
from rivage.federated.fedem import responsibilities
from rivage.federated.robust import Median
from rivage.federated.rounding import Float16
from rivage.learning.bundle import ModelBundle
from rivage.learning.losses import LOGISTIC, SQUARED
from rivage.learning.metrics import ACCURACY, MAE
from rivage.learning.task import Task
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task

WORK = Phase(epochs=2, batch_size=3)
EVERYTHING = Phase(updates=2, batch_size=None)


@dataclass(frozen=True, kw_only=True)
class Placed(FedEM):
    """Components that start where a test wants them."""

    first: tuple[tuple[float, ...], ...] = ()

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        return {"params": torch.tensor(self.first, dtype=task.dtype)}


def trial_of(algorithm: Any, population: Clients, rounds: int, **options: Any) -> Trial:
    task = options.pop("task", None) or linear_task(population)
    return Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)


def played(algorithm: Any, population: Clients, rounds: int, **options: Any) -> Outcome:
    return run(trial_of(algorithm, population, rounds, **options))


def shares_of(outcome: Outcome) -> dict[int, Tensor]:
    evaluations = [outcome.seen] if outcome.unseen is None else [outcome.seen, outcome.unseen]
    return {client: p.mix for evaluation in evaluations for client, p in evaluation.predictors.items()}


def squares(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """½ (y − w_m · x)², [records, components]."""
    result: np.ndarray = 0.5 * (y - x @ w.T) ** 2
    return result


def likelihood(shares: np.ndarray, losses: np.ndarray) -> float:
    """Σ_i log Σ_m π_m exp(−ℓ_im), by brute force."""
    return float(np.log((shares * np.exp(-losses)).sum(axis=1)).sum())


# --- the E-step ---------------------------------------------------------------------------------------------


def test_responsibilities_by_hand() -> None:
    """π = (1/4, 3/4): likelihoods (1, 1/3) and (1/2, 1/2) and (1, 0) give (1/2, 1/2), (1/4, 3/4), (1, 0)."""
    losses = torch.tensor([[0.0, np.log(3)], [np.log(2), np.log(2)], [0.0, np.inf]], dtype=torch.float64)
    found = responsibilities(torch.tensor([0.25, 0.75], dtype=torch.float64), losses)
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], atol=1e-15)


@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 99), st.floats(0.1, 1e4))
def test_responsibilities_are_shares_of_records(components: int, records: int, seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    shares = torch.tensor(generator.dirichlet(np.ones(components)))
    losses = torch.tensor(scale * generator.random((records, components)))
    found = responsibilities(shares, losses)
    np.testing.assert_allclose(found.sum(dim=1), 1, atol=1e-12)
    assert bool((found >= 0).all())
    shifted = responsibilities(shares, losses + torch.tensor(generator.random((records, 1))))
    np.testing.assert_allclose(shifted, found, atol=1e-9)  # a record's constant does not matter
    order = torch.tensor(generator.permutation(components))
    np.testing.assert_allclose(responsibilities(shares[order], losses[:, order]), found[:, order], atol=1e-12)


def test_a_component_of_share_zero_can_come_back() -> None:
    found = responsibilities(torch.tensor([1.0, 0.0]), torch.tensor([[100.0, 0.0], [0.0, 0.0]]))
    assert found[0, 1] > 0.99
    assert found[1, 1] < 1e-11


# --- one component ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cohort", [None, 2])
@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_one_component_is_fedavg_bit_for_bit(dtype: torch.dtype, cohort: int | None, executor: str) -> None:
    population = linear_clients()
    task = linear_task(population, dtype)
    options: dict[str, Any] = {"task": task, "cohort": cohort, "execution": Execution(executor=executor)}  # type: ignore[arg-type]
    plain = played(FedAvg(work=WORK), population, 6, **options)
    mixed = played(FedEM(components=1, work=WORK), population, 6, **options)
    assert torch.equal(mixed.state["params"][0], plain.state["params"])
    assert mixed.seen.columns == plain.seen.columns
    assert all(shares.tolist() == [1.0] for shares in shares_of(mixed).values())


# --- several components -------------------------------------------------------------------------------------


def test_rounds_follow_the_algorithm_written_out() -> None:
    """Full batches, two local steps; the denominator is the number of records, the mean weighs clients by it."""
    population, rate, rounds = linear_clients(), 0.1, 4
    w = np.array([[0.1, -0.2, 0.3], [-0.5, 0.4, 0.2]])
    shares = np.full((4, 2), 0.5)
    first = tuple(map(tuple, w.tolist()))
    for _ in range(rounds):
        ended, sizes = [], []
        for client, (x, y) in enumerate(population.records):
            joint = shares[client] * np.exp(-squares(w, x, y))
            q = joint / joint.sum(axis=1, keepdims=True)
            shares[client] = q.mean(axis=0)
            local = w.copy()
            for _ in range(2):
                slopes = (q * (x @ local.T - y)).T @ x / len(x)
                local = local - rate * slopes
            ended.append(local)
            sizes.append(len(x))
        w = np.average(ended, axis=0, weights=sizes)
    outcome = played(Placed(learning_rate=rate, components=2, work=EVERYTHING, first=first), population, rounds)
    np.testing.assert_allclose(outcome.state["params"], w, atol=1e-12)
    np.testing.assert_allclose([shares_of(outcome)[client] for client in range(4)], shares, atol=1e-12)


@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_each_record_keeps_its_own_responsibilities_in_shuffled_batches(executor: str) -> None:
    """y = ±10 x and components at ±10: exact fits rest, unless a record met another one's q."""
    x = np.linspace(1, 2, 12)[:, None]
    slope = np.where(np.arange(12) % 3 == 0, 10.0, -10.0)[:, None]
    population = Clients(((x, slope * x),), Schema(input_shape=(1,), target="real", num_outputs=1))
    method = Placed(components=2, first=((10.0,), (-10.0,)), work=Phase(epochs=2, batch_size=2))
    outcome = played(method, population, 3, execution=Execution(executor=executor))  # type: ignore[arg-type]
    assert outcome.state["params"].flatten().tolist() == [10.0, -10.0]
    np.testing.assert_allclose(shares_of(outcome)[0], [1 / 3, 2 / 3], atol=1e-12)


def test_the_likelihood_never_falls() -> None:
    """One exact step of at most 1/L a round: every round decreases the bound that touches f."""
    population = linear_clients((9, 14, 5, 12))
    x = np.concatenate([x for x, _ in population.records])
    rate = 1 / float(np.linalg.eigvalsh(x.T @ x / len(x)).max())
    book = Notebook()
    method = FedEM(learning_rate=rate, components=2, work=Phase(updates=1, batch_size=None))
    values = []
    with Session(trial_of(method, population, 40), book) as session:
        for _ in session:
            w = session.state["params"].numpy()
            kept = [memory.values["shares"].numpy() for memory in book.memories.get(range(4))]
            values.append(sum(likelihood(p, squares(w, *xy)) for p, xy in zip(kept, population.records, strict=True)))
    assert len(values) == 40
    assert (np.diff(values) > -1e-9).all()
    assert values[-1] - values[0] > 0.1


def test_permuted_components_stay_permuted_and_predict_alike() -> None:
    population = linear_clients()
    first = ((0.1, -0.2, 0.3), (-0.5, 0.4, 0.2), (0.9, 0.1, -0.6))
    order = [2, 0, 1]
    one, other = (
        played(Placed(work=WORK, first=start), population, 3, unseen=np.array([1]))
        for start in (first, tuple(first[m] for m in order))
    )
    torch.testing.assert_close(other.state["params"], one.state["params"][order], rtol=0, atol=1e-12)
    for client, shares in shares_of(one).items():
        torch.testing.assert_close(shares_of(other)[client], shares[order], rtol=0, atol=1e-12)
    np.testing.assert_allclose(other.seen.columns["test_loss"], one.seen.columns["test_loss"], atol=1e-12)


def test_the_server_may_go_part_of_the_way() -> None:
    population = linear_clients()
    before, whole, half = (
        played(FedEM(server_rate=rate, work=WORK), population, rounds).state["params"]
        for rate, rounds in ((1.0, 0), (1.0, 1), (0.5, 1))
    )
    torch.testing.assert_close(half, (before + whole) / 2, rtol=0, atol=1e-12)


def test_shares_are_kept_until_a_client_takes_part_again() -> None:
    """One client a round; the others keep what they have, to the bit, and predict with it."""
    population, book = linear_clients(), Notebook()
    before: list[State] = [{}] * 4
    with Session(trial_of(FedEM(work=WORK), population, 8, cohort=1), book) as session:
        for event in session:
            (chosen,) = event["cohort"]
            after = [memory.values for memory in book.memories.get(range(4))]
            for client in range(4):
                same = before[client].keys() == after[client].keys() and all(
                    torch.equal(before[client][name], value) for name, value in after[client].items()
                )
                assert same is (client != chosen)
            before = after
    known = {client: memory["shares"] for client, memory in enumerate(before) if memory}
    outcome = played(FedEM(work=WORK), population, 8, cohort=1)
    assert 1 < len(known) < 4, "some client never took part"
    assert all(torch.equal(shares_of(outcome)[client], shares) for client, shares in known.items())


# --- starts -------------------------------------------------------------------------------------------------


def test_components_start_apart_the_first_as_every_other_method() -> None:
    task = linear_task(linear_clients())
    common = FedAvg().init(task, 4, Streams(3))["params"]
    three, five = (FedEM(components=m).init(task, 4, Streams(3))["params"] for m in (3, 5))
    assert torch.equal(three[0], common)
    assert torch.equal(five[:3], three)
    assert len({tuple(row) for row in five.tolist()}) == 5
    assert not torch.equal(FedEM().init(task, 4, Streams(4))["params"][1:], three[1:])


class Zero(nn.Linear):
    """Starts at 0 whatever the seed."""

    def __init__(self) -> None:
        super().__init__(3, 1, bias=False)
        nn.init.zeros_(self.weight)


def test_equal_starts_are_refused() -> None:
    task = Task(model=lambda schema: Zero(), loss=SQUARED, metric=MAE, schema=linear_clients().schema)
    with pytest.raises(ConfigError, match=r"equal parameters.*components = 1"):
        FedEM(components=2).init(task, 4, Streams(0))
    assert FedEM(components=1).init(task, 4, Streams(0))["params"].tolist() == [[0.0, 0.0, 0.0]]


def test_equal_components_stay_equal() -> None:
    outcome = played(Placed(components=2, work=WORK, first=((0.1, 0.2, 0.3),) * 2), linear_clients(), 3)
    assert torch.equal(outcome.state["params"][0], outcome.state["params"][1])
    assert all(shares.tolist() == [0.5, 0.5] for shares in shares_of(outcome).values())


# --- clients that never took part ---------------------------------------------------------------------------


def fitted(losses: np.ndarray, iterations: int = 100) -> np.ndarray:
    """Shares of a newcomer whose records have these losses under held components."""
    method = FedEM(components=losses.shape[1], iterations=iterations)
    state = {"params": torch.zeros(losses.shape[1], 1, dtype=torch.float64)}
    nobody: Any = None
    local = method.adapt(state, {}, nobody, torch.tensor(losses), Streams(0), nobody)
    predictor = method.predictor(state, {}, local, nobody)
    assert predictor.params is state["params"], "the components stay as they are"
    return predictor.mix.numpy()


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 99), st.integers(1, 40))
def test_newcomers_come_as_close_to_the_optimum_as_em_promises(
    components: int, records: int, seed: int, iterations: int
) -> None:
    """k steps from equal shares: at most log M / k away, per record. At π the optimum is at most log max r above."""
    losses = 3 * np.random.default_rng(seed).random((records, components))
    shares, best = fitted(losses, iterations), fitted(losses, 1000)
    likely = np.exp(-losses)
    bound = np.log((likely / (likely @ best)[:, None]).mean(axis=0).max())
    assert bound < 0.02
    gap = (likelihood(best, losses) - likelihood(shares, losses)) / records
    assert gap <= np.log(components) / iterations + 1e-12
    assert abs(shares.sum() - 1) < 1e-12


def test_newcomers_find_the_maximiser_of_a_convex_solver() -> None:
    losses = 4 * np.random.default_rng(0).random((50, 3))
    solved = minimize(
        lambda shares: -likelihood(shares, losses),
        np.full(3, 1 / 3),
        bounds=[(1e-9, 1)] * 3,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = fitted(losses)
    assert likelihood(found, losses) >= -solved.fun - 1e-4
    np.testing.assert_allclose(found, solved.x, atol=5e-3)
    assert likelihood(fitted(losses, 1), losses) < likelihood(found, losses) - 0.1, "one iteration is not enough"


def test_newcomers_change_nothing_and_take_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    population = linear_clients()
    asked: list[int] = []
    adapt = FedEM.adapt

    def counted(self: FedEM, state: State, memory: State, data: ClientData, *rest: Any) -> Any:
        job = adapt(self, state, memory, data, *rest)
        asked.extend([data.id] if job is not None else [])
        return job

    alone = played(FedEM(work=WORK), population, 3, unseen=np.array([1, 2]))
    monkeypatch.setattr(FedEM, "adapt", counted)
    outcome = played(FedEM(work=WORK, iterations=1), population, 3, unseen=np.array([1, 2]))
    assert asked == [1, 2], "clients that took part have their shares"
    assert FedEM().adaptation is None
    assert torch.equal(outcome.state["params"], alone.state["params"])
    x, y = population.records[1]
    likely = np.exp(-squares(outcome.state["params"].numpy(), x, y))
    once = (likely / likely.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(shares_of(outcome)[1], once, atol=1e-12)


def test_a_client_without_records_keeps_equal_shares() -> None:
    method, nobody = FedEM(components=2), None
    state = {"params": torch.zeros(2, 1)}
    local = method.start(state, {}, nobody, torch.empty(0, 2), Streams(0), nobody)  # type: ignore[arg-type]
    assert local.keep["shares"].tolist() == [0.5, 0.5]
    job = method.adapt(state, {}, nobody, torch.empty(0, 2), Streams(0), nobody)  # type: ignore[arg-type]
    assert method.predictor(state, {}, job, nobody).mix.tolist() == [0.5, 0.5]  # type: ignore[arg-type]
    assert method.predictor(state, {}, None, nobody).mix.tolist() == [0.5, 0.5]  # type: ignore[arg-type]


# --- what travels -------------------------------------------------------------------------------------------


def test_components_travel_with_the_number_of_records_and_nothing_else() -> None:
    population = linear_clients()
    book = Notebook(keep_messages=True)
    run(trial_of(FedEM(), population, 2), book)
    assert {frozenset(m.payload) for m in book.messages} == {
        frozenset({"params"}),
        frozenset({"params", "params.weight"}),
    }
    assert all(message.payload["params"].shape == (3, 3) for message in book.messages)
    weights = {float(m.payload["params.weight"][0]) for m in book.messages if "params.weight" in m.payload}
    assert weights == {4.0, 7.0, 1.0, 12.0}
    assert [set(memory.values) for memory in book.memories.get(range(4))] == [{"shares"}] * 4
    assert all(memory.values["shares"].shape == (3,) for memory in book.memories.get(range(4)))


def test_updates_pass_stages_and_robust_rules() -> None:
    """Half precision of the *difference* to the broadcast; with one client the median is its update."""
    population = linear_clients((9,))
    plain, halved, median = (
        played(FedEM(work=WORK), population, 1, **options).state["params"]
        for options in ({}, {"stages": (Float16(),)}, {"collector": Median()})
    )
    first = FedEM().init(linear_task(population), 1, Streams(0))["params"]
    np.testing.assert_array_equal(halved - first, ((plain - first).half().double() + first) - first)
    assert not torch.equal(halved, plain)
    torch.testing.assert_close(median, plain, rtol=0, atol=1e-12)


def test_a_study_runs_compares_and_saves_it(tmp_path: Path) -> None:
    """Named by its kind, guarded beside FedAvg; the saved model of a newcomer mixes all components equally."""
    short = ["run.rounds=2", "run.seeds=[0]", "evaluation.unseen_clients=0.2", "evaluation.every=2"]
    parts = '[partition]\nkind = "iid"\nclients = 5\n'
    methods = '[[methods]]\nkind = "fedem"\ncomponents = 2\n[[methods]]\nkind = "fedavg"\n'
    guarded = '[[methods]]\nkind = "guarded"\namong = ["fedavg", "fedem"]\n'
    study = parse_study(f'name = "mixed"\n[data]\nkind = "digits"\n{parts}{methods}{guarded}', overrides=short)
    record = run_study(study, out=tmp_path)
    assert set(record.summary["methods"]) == {"fedem", "fedavg", "guarded"}
    up = {name: values["bytes_up"] for name, values in record.summary["methods"].items()}
    assert 1.9 < up["fedem"] / up["fedavg"] < 2.0
    _, mix = ModelBundle.load(record.trial("fedem", 0).folder / "models.safetensors").parts(None)
    assert mix.tolist() == [0.5, 0.5]


# --- the truth ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn(Clients):
    """With test records apart: the last ``tested`` of each client."""

    tested: int = 0

    def client(self, id: int, round: int = 0) -> ClientData:
        x, y = self.records[id]
        rows = np.arange(len(x))
        train, test = rows[: len(x) - self.tested], rows[len(x) - self.tested :]
        one, none, other = (Samples(x[part], y[part], part) for part in (train, test[:0], test))
        return ClientData(id, one, none, other, float(len(train)))


def drawn(law: Mixture, seed: int) -> Drawn:
    data = law.load(seed)
    assert isinstance(data.records, Arrays)
    x, y = data.records.x.astype(np.float64), data.records.y
    records = tuple((x[data.clients == client], y[data.clients == client]) for client in range(law.clients))
    return Drawn(records, data.records.schema, tested=law.test_records)


def logistic(population: Clients) -> Task:
    features = population.schema.input_shape[0]
    return Task(
        model=lambda schema: nn.Linear(features, 1, bias=False),
        loss=LOGISTIC,
        metric=ACCURACY,
        schema=population.schema,
        dtype=torch.float64,
    )


def recovered(outcome: Outcome, law: Mixture, seed: int) -> tuple[np.ndarray, float, float]:
    """Cosines of directions, and mean total variation of shares of seen and unseen, in the best matching."""
    truth, w = law.truth(seed), outcome.state["params"].numpy()
    norms = np.linalg.norm(w, axis=1)[:, None] * np.linalg.norm(truth.components, axis=1)
    cosines = w @ truth.components.T / norms
    order = list(max(permutations(range(len(w))), key=lambda p: sum(cosines[m, true] for true, m in enumerate(p))))
    shares = shares_of(outcome)
    away = {c: 0.5 * np.abs(mix.numpy()[order] - truth.weights[c]).sum() for c, mix in shares.items()}
    assert outcome.unseen is not None
    seen, unseen = (np.mean([away[c] for c in e.predictors]) for e in (outcome.seen, outcome.unseen))
    return cosines[order, range(len(w))], float(seen), float(unseen)


def test_a_drawn_mixture_is_recovered() -> None:
    """Everything is seeded, so the result is one fixed run."""
    law, seed = Mixture(clients=40, features=10, max_records=300, test_records=200), 0
    population = drawn(law, seed)
    options: dict[str, Any] = {"task": logistic(population), "seed": seed, "unseen": np.arange(32, 40)}
    work = Phase(updates=5, batch_size=None)
    outcome = played(FedEM(learning_rate=2.0, work=work), population, 60, **options)
    plain = played(FedAvg(learning_rate=2.0, work=work), population, 60, **options)
    alone = played(Local(learning_rate=2.0, epochs=100, work=Phase(batch_size=None)), population, 0, **options)
    cosines, seen, unseen = recovered(outcome, law, seed)
    assert (cosines >= 0.98).all()
    assert seen <= 0.10
    assert unseen <= 0.10
    ours, shared, own = (np.mean(o.seen.columns["test"]) for o in (outcome, plain, alone))
    assert ours >= shared + 0.08
    assert ours >= own + 0.05


# --- the contract -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        FedEM(learning_rate=0.05),
        FedEM(learning_rate=0.05, components=1, work=WORK),
        FedEM(learning_rate=0.05, components=2, server_rate=0.5, work=replace(WORK, batches="poisson"), iterations=2),
    ],
)
def test_conformance(method: FedEM) -> None:
    battery = check_algorithm(method)
    battery.require()
    assert battery.ran == 11


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"components": 0},
        {"components": 1001},
        {"iterations": 0},
        {"server_rate": 0.0},
        {"server_rate": 1.5},
        {"server_rate": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a"):
        FedEM(**wrong)

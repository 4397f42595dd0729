"""Attribute inference: closed forms, equal paths, honest nulls, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from rivage.core.errors import ConfigError
from rivage.core.message_log import LOG_NAME
from rivage.core.messages import LogPolicy
from rivage.core.seeding import Streams
from rivage.data.arrays import ArrayPopulation
from rivage.data.population import ClientData, Samples, Schema
from rivage.federated import FedAvg, FedEM, Phase, Trial, run
from rivage.federated.checkpoint import Files
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy.active import ActiveAttributes, IsolatedAttributes, Walk, isolated
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.attribute_baselines import majority, markov_bound
from rivage.privacy.attribute_gradients import Messages, Tabulated, Unrolled, table_bytes
from rivage.privacy.attribute_relaxations import Binary, Categorical, Numerical
from rivage.privacy.gradient_attributes import Candidate, GradientAttributes, chosen, hindsight
from rivage.privacy.model_attributes import Decision, ModelAttributes
from rivage.privacy.questions import Attribute, AttributeQuestion
from rivage.privacy.views import ActiveServer, Eavesdropper, Exchange, Recorded, Refused

Array = np.ndarray

BINARY = Attribute("s", (1,), np.array([[-0.5], [1.5]]), ("no", "yes"))
ONE_HOT = Attribute("s", (0, 1), np.array([[1.0, 0.0], [0.0, 1.0]]), ("no", "yes"))
THREE = Attribute("s", (0, 1, 2), np.eye(3), ("a", "b", "c"))
NUMBER = Attribute("v", (1,), np.array([[-3.0], [3.0]]))
WEIGHTS = np.array([0.5, 4.0, -1.0, 0.3])


def regression(features: int = 4, dtype: torch.dtype = torch.float64, model: str = "linear") -> Task:
    options = {"hidden": (5,)} if model == "mlp" else {}
    schema = Schema(input_shape=(features,), target="real", num_outputs=1)
    return make_task(TaskSettings(model=model, options=options), schema, dtype=dtype)


def tools(task: Task, seed: int = 0) -> Tools:
    return Tools(task, Streams(seed))


def drawn(attribute: Attribute, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Inputs, and the values of the attribute in them."""
    generator = Streams(seed).numpy("drawn", attribute.kind)
    x = generator.normal(size=(n, 4))
    numerical = attribute.kind == "numerical"
    values: Array = generator.uniform(-2, 2, size=n) if numerical else generator.integers(len(attribute.codes), size=n)
    return attribute.plug(x, values), values


def question(attribute: Attribute, x: Array, y: Array, target: int | None = 0) -> AttributeQuestion:
    hidden = x.copy()
    hidden[:, list(attribute.columns)] = 0
    return AttributeQuestion(attribute, hidden, y, target)


def decided(attribute: Attribute, params: Array, x: Array, y: Array, **options: float) -> Array:
    task = regression()
    return Decision(**options)(params, question(attribute, x, y), tools(task))  # type: ignore[arg-type]


# --- one model decides --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", [BINARY, ONE_HOT, THREE], ids=["binary", "one-hot", "three"])
def test_without_noise_every_value_is_found(attribute: Attribute) -> None:
    x, values = drawn(attribute, 60)
    params = np.array([*WEIGHTS, 0.2])
    assert (decided(attribute, params, x, x @ WEIGHTS + 0.2) == values).all()


def test_numbers_are_found_by_descent() -> None:
    """The loss of a record is ½ (θ (v − v*))²: with step 1 the error shrinks by |1 − θ²| per step."""
    x, values = drawn(NUMBER, 40)
    weights = np.array([0.5, 0.9, -1.0, 0.3])
    found = decided(NUMBER, np.array([*weights, 0.0]), x, x @ weights)
    np.testing.assert_allclose(found, values, atol=1e-10)
    start = Streams(0).numpy("numerical").normal(size=40)
    once = decided(NUMBER, np.array([*weights, 0.0]), x, x @ weights, steps=1)
    np.testing.assert_allclose(once - values, (start - values) * (1 - 0.81), atol=1e-10)


def test_a_step_that_is_too_long_does_not_run_away() -> None:
    x, values = drawn(NUMBER, 40)
    found = decided(NUMBER, np.array([*(10 * WEIGHTS), 0.0]), x, x @ (10 * WEIGHTS))
    assert np.isfinite(found).all()
    assert (np.abs(found) <= 3).all()
    assert np.abs(found - values).mean() <= np.abs(Streams(0).numpy("numerical").normal(size=40) - values).mean()


def test_ties_go_to_the_lower_value_and_nan_never_wins() -> None:
    x, _ = drawn(THREE, 20)
    assert (decided(THREE, np.array([1.0, 1.0, 1.0, 0.0, 0.0]), x, x[:, 3]) == 0).all()
    huge = np.array([np.nan, 0.0, 0.0, 0.0, 0.0])
    assert (decided(BINARY, huge, x, x[:, 3]) == 0).all()


@given(st.integers(0, 10**6), st.floats(0, 5), st.sampled_from([BINARY, ONE_HOT]))
@settings(max_examples=50)
def test_the_markov_bound_holds_for_every_model_and_all_data(seed: int, noise: float, attribute: Attribute) -> None:
    generator = Streams(seed).numpy("markov")
    x, values = drawn(attribute, 25, seed)
    y = x @ WEIGHTS + noise * generator.normal(size=25)
    params = np.array([*WEIGHTS, 0.0]) + generator.normal(size=5) * generator.uniform(0, 2)
    bound = markov_bound(regression(), params, x, y, attribute)
    assert bound is not None
    assert (decided(attribute, params, x, y) == values).mean() >= bound - 1e-9


def test_records_are_decided_one_by_one() -> None:
    x, _ = drawn(THREE, 30)
    y, order = x @ WEIGHTS + Streams(0).numpy("noise").normal(size=30), Streams(0).numpy("order").permutation(30)
    params = np.array([*WEIGHTS, 0.0])
    np.testing.assert_array_equal(decided(THREE, params, x[order], y[order]), decided(THREE, params, x, y)[order])


def test_every_forward_pass_is_counted() -> None:
    x, _ = drawn(THREE, 30)
    used = tools(regression())
    Decision()(np.zeros(5), question(THREE, x, x[:, 3]), used)
    assert used.meter.evaluations == 3 * 30


ROUNDS = slice(0, 3)


# --- gradients ----------------------------------------------------------------------------------------------------


def messages(task: Task, x: Array, y: Array, rounds: int) -> Messages:
    """What a client shows that takes one full-batch step per round, by hand for linear models."""
    sent = torch.stack([task.initial(seed) for seed in range(rounds)])
    bound, directions = task.bind(), []
    for row in sent:
        bound.load(row)
        loss = bound.losses(*task.tensors(Samples(x, y, np.arange(len(x))))).mean()
        directions.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, bound.parameters)]))
    gradient = torch.stack(directions)
    return Messages(sent, gradient / gradient.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("attribute", [BINARY, ONE_HOT, THREE, NUMBER], ids=["binary", "one-hot", "three", "number"])
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_true_values_explain_the_messages_and_the_slope_is_the_difference_quotient(
    attribute: Attribute, model: str
) -> None:
    task = regression(model=model)
    x, _ = drawn(attribute, 7)
    y = x @ WEIGHTS
    unlike = Unrolled(messages(task, x, y, 3), question(attribute, x, y), tools(task))
    true = torch.from_numpy(x[:, list(attribute.columns)])[None]
    distance, _ = unlike(ROUNDS, true, None)
    assert distance.item() == pytest.approx(0, abs=1e-12)
    other = true + torch.from_numpy(Streams(0).numpy("other").normal(size=true.shape))
    distance, slope = unlike(ROUNDS, other, None)
    assert 0 < distance.item() < 2
    step = torch.zeros_like(other)
    for place in [(0, 0, 0), (0, 4, true.shape[2] - 1)]:
        step[place] = 1e-5
        quotient = (unlike(ROUNDS, other + step, None)[0] - unlike(ROUNDS, other - step, None)[0]) / 2e-5
        assert quotient.item() == pytest.approx(slope[place].item(), rel=1e-4, abs=1e-9)
        step[place] = 0


@pytest.mark.parametrize("attribute", [BINARY, ONE_HOT, THREE], ids=["binary", "one-hot", "three"])
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_tables_say_what_differentiation_says(attribute: Attribute, model: str) -> None:
    task = regression(model=model)
    x, _ = drawn(attribute, 7)
    seen, asked = messages(task, x, x @ WEIGHTS, 4), question(attribute, x, x @ WEIGHTS)
    index = torch.from_numpy(Streams(1).numpy("guess").integers(len(attribute.codes), size=(3, 7)))
    columns = torch.from_numpy(attribute.codes)[index]
    plain, tables = Unrolled(seen, asked, tools(task)), Tabulated(seen, asked, tools(task))
    for rounds in (slice(0, 1), slice(0, 4), slice(1, 3)):
        for one, other in zip(plain(rounds, columns, index), tables(rounds, columns, index), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    held = tables.gradients.nbytes + tables.slopes.nbytes
    assert table_bytes(seen, asked) == held


def test_the_order_of_records_does_not_matter() -> None:
    task, order = regression(model="mlp"), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    x, _ = drawn(BINARY, 7)
    y = x @ WEIGHTS
    seen = messages(task, x, y, 3)
    columns = torch.randn(2, 7, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distance, slope = Unrolled(seen, question(BINARY, x, y), tools(task))(ROUNDS, columns, None)
    moved = question(BINARY, x[order.numpy()], y[order.numpy()])
    again, turned = Unrolled(seen, moved, tools(task))(ROUNDS, columns[:, order], None)
    torch.testing.assert_close(again, distance)
    torch.testing.assert_close(turned, slope[:, order])


def test_a_logit_of_zero_is_a_fair_coin_and_the_public_code_is_not() -> None:
    """P[one] is ½ with logistic noise, 1 − 1/e with one Gumbel variable; 5 standard deviations of 10⁵ coins."""
    codes, zeros = torch.tensor([[0.0], [1.0]]), torch.zeros(1, 100_000)
    shares = []
    for noise in ("logistic", "gumbel"):
        sample = Binary(codes, 1.0, noise).sample(zeros, torch.Generator().manual_seed(0))
        assert sample.index is not None
        shares.append(sample.index.double().mean().item())
    assert shares[0] == pytest.approx(0.5, abs=0.008)
    assert shares[1] == pytest.approx(1 - math.exp(-1), abs=0.008)
    three = Categorical(torch.eye(3), 1.0).sample(torch.zeros(1, 100_000, 3), torch.Generator().manual_seed(0))
    assert three.index is not None
    np.testing.assert_allclose(np.bincount(three.index[0].numpy()) / 100_000, 1 / 3, atol=0.008)


@pytest.mark.parametrize("kind", [Binary, Categorical])
def test_the_soft_half_is_the_derivative_of_the_soft_values(kind: Callable[..., Binary | Categorical]) -> None:
    codes = torch.tensor([[-0.5, 0.0], [1.5, 1.0]], dtype=torch.float64)
    relaxed = kind(codes, 0.7)
    logits = relaxed.start(2, 3, torch.Generator().manual_seed(0)).requires_grad_()
    slope = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if kind is Binary:
        share = torch.sigmoid(logits / 0.7)
        soft = codes[0] + share[..., None] * (codes[1] - codes[0])
    else:
        soft = torch.softmax(logits / 0.7, dim=-1) @ codes
    (expected,) = torch.autograd.grad((soft * slope).sum(), logits)
    torch.testing.assert_close(relaxed.back(relaxed.decide(logits.detach()), slope), expected)


def test_ties_of_logits_go_to_the_lower_value() -> None:
    codes = torch.eye(3)
    for relaxed, shape in ((Binary(codes[:2], 1.0), (1, 4)), (Categorical(codes, 1.0), (1, 4, 3))):
        index = relaxed.decide(torch.zeros(shape)).index
        assert index is not None
        assert not index.any()
    assert Numerical(torch.tensor([[-1.0], [1.0]]), 1.0).keep(torch.tensor([-3.0, 0.2])).tolist() == pytest.approx(
        [-1, 0.2]
    )


def exchanges(seen: Messages, size: float = 0.01) -> list[Exchange]:
    sent, step = seen.sent.numpy(), size * seen.direction.numpy()
    return [Exchange(t, 0, w, w - d, 1.0) for t, (w, d) in enumerate(zip(sent, step, strict=True))]


@pytest.mark.parametrize("attribute", [BINARY, ONE_HOT, THREE], ids=["binary", "one-hot", "three"])
@pytest.mark.parametrize("table_bytes", [1, 1 << 28], ids=["unrolled", "tabulated"])
def test_exact_gradients_of_many_rounds_give_all_values(attribute: Attribute, table_bytes: int) -> None:
    task = regression()
    x, values = drawn(attribute, 5)
    y = x @ WEIGHTS
    rates = (1.0, 10.0, 100.0)
    attack = GradientAttributes(fractions=(1.0,), learning_rates=rates, table_bytes=table_bytes)
    seen = exchanges(messages(task, x, y, 20))
    found = attack.search(seen, len(seen), question(attribute, x, y), tools(task))
    assert len(found) == 3
    assert (chosen(found).values == values).all()
    assert chosen(found).own == pytest.approx(0, abs=1e-9)


def test_exact_gradients_give_numbers() -> None:
    task = regression()
    x, values = drawn(NUMBER, 2)
    y = x @ WEIGHTS
    attack = GradientAttributes(fractions=(1.0,), learning_rates=(0.3, 1.0), iterations=300)
    seen = exchanges(messages(task, x, y, 20))
    found = chosen(attack.search(seen, len(seen), question(NUMBER, x, y), tools(task)))
    assert found.own < 1e-5
    assert np.abs(found.values - values).mean() < 0.05, "of values between -2 and 2"


def test_messages_that_say_nothing_give_nothing() -> None:
    """Pseudo-gradients at random: 400 guesses are coins, two-sided at 1e-4."""
    task = regression(dtype=torch.float32)
    x, values = drawn(BINARY, 400)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(6, 5, generator=generator)
    seen = Messages(torch.randn(6, 5, generator=generator), direction / direction.norm(dim=1, keepdim=True))
    found = chosen(GradientAttributes().search(exchanges(seen), 6, question(BINARY, x, x[:, 0]), tools(task)))
    assert binomtest(int((found.values == values).sum()), 400).pvalue > 1e-4


def test_the_grid_is_of_first_rounds_and_every_pass_is_counted() -> None:
    task = regression()
    x, _ = drawn(BINARY, 9)
    seen = exchanges(messages(task, x, x @ WEIGHTS, 20))
    attack = GradientAttributes(fractions=(0.0, 0.1, 0.12, 1.0), learning_rates=(1.0, 2.0, 3.0), iterations=2)
    used = tools(task)
    found = attack.search(seen, 20, question(BINARY, x, x @ WEIGHTS), used)
    assert [(one.rounds, one.learning_rate) for one in found[:4]] == [(1, 1.0), (1, 2.0), (1, 3.0), (2, 1.0)]
    assert sorted({one.rounds for one in found}) == [1, 2, 20]
    assert used.meter.evaluations == 4 * 20 * 2 * 9, "a table: each record under each value in each round"
    used = tools(task)
    GradientAttributes(fractions=(0.1,), learning_rates=(1.0, 2.0), iterations=5, table_bytes=1).search(
        seen, 20, question(BINARY, x, x @ WEIGHTS), used
    )
    assert used.meter.evaluations == 4 * (5 + 1) * 2 * 2 * 9, "and once at the end"
    few = GradientAttributes(fractions=(1.0,), most_bytes=2 * seen[0].sent.nbytes * 7, iterations=1)
    assert {one.rounds for one in few.search(seen, 20, question(BINARY, x, x @ WEIGHTS), tools(task))} == {7}


def test_who_is_chosen() -> None:
    some = [
        Candidate(1, 1.0, 0.1, 0.9, np.array([0, 0])),
        Candidate(2, 1.0, 0.2, 0.3, np.array([1, 0])),
        Candidate(3, 1.0, 0.5, 0.5, np.array([1, 1])),
    ]
    assert chosen(some).rounds == 2
    assert chosen(some, "own").rounds == 1
    assert hindsight(some, np.array([1, 1])).rounds == 3
    assert hindsight(some, np.array([0.9, 0.1])).rounds == 2


# --- through the log ----------------------------------------------------------------------------------------------


def population(attribute: Attribute, sizes: tuple[int, ...] = (40, 40), noise: float = 0.05) -> ArrayPopulation:
    """Clients with regressions of their own."""
    clients = []
    for id, size in enumerate(sizes):
        x, _ = drawn(attribute, size, seed=id)
        generator = Streams(id).numpy("own")
        y = x @ (WEIGHTS * generator.uniform(0.5, 1.5, size=4)) + noise * generator.normal(size=size)
        samples = Samples(x.astype(np.float32), y.astype(np.float32), np.arange(size))
        clients.append(ClientData(id, samples, samples, samples, float(size)))
    schema = Schema(input_shape=(4,), target="real", num_outputs=1)
    return ArrayPopulation(clients=tuple(clients), names=tuple(map(str, range(len(sizes)))), schema=schema)


def logged(method: FedAvg | FedEM, clients: ArrayPopulation, task: Task, folder: Path, rounds: int = 30) -> Recorded:
    trial = Trial(name="m", algorithm=method, population=clients, task=task, rounds=rounds, every=rounds)
    header = {**task.layout.as_json(), "loss": task.loss.name, "hyper_parameters": {}}
    with Files(folder, LogPolicy(), header, interval=1e6) as journal:
        run(trial, journal)
    return Recorded(folder / LOG_NAME)


def asked(clients: ArrayPopulation, attribute: Attribute, client: int = 0) -> tuple[AttributeQuestion, Array]:
    data = clients.client(client).train
    coded = data.x[:, None, list(attribute.columns)]
    return question(attribute, data.x, data.y, client), np.abs(coded - attribute.codes).sum(axis=2).argmin(axis=1)


def test_a_log_gives_the_optimum_and_the_optimum_the_attribute(tmp_path: Path) -> None:
    """Heterogeneous clients, one full-batch step each: the closed form is exact, the last model is not."""
    clients, task = population(BINARY), regression(dtype=torch.float32)
    log = logged(FedAvg(learning_rate=0.1, work=Phase(epochs=3, batch_size=None)), clients, task, tmp_path)
    for client in (0, 1):
        view, (asks, values) = Eavesdropper(log, client), asked(clients, BINARY, client)
        answer = ModelAttributes().run(view, asks, tools(task))
        assert (answer.values == values).all()
        last = ModelAttributes(closed_form=False)
        params, facts = last.estimate(view, asks, tools(task))
        assert facts == {"estimate": "last returned model"}
        np.testing.assert_array_equal(params, view.last().returned)
        bound = markov_bound(task, params, clients.client(client).train.x, asks.y, BINARY)
        assert bound is not None
        assert (last.run(view, asks, tools(task)).values == values).mean() >= bound - 1e-6


def test_gradients_read_the_log_through_the_view(tmp_path: Path) -> None:
    clients, task = population(BINARY, sizes=(10, 30)), regression(dtype=torch.float32)
    log = logged(FedAvg(learning_rate=0.05, work=Phase(batch_size=None)), clients, task, tmp_path)
    asks, values = asked(clients, BINARY)
    answer = GradientAttributes(learning_rates=(10.0, 100.0, 1000.0)).run(Eavesdropper(log, 0), asks, tools(task))
    assert (answer.values == values).mean() >= 0.9
    assert answer.facts["tried"] == 3 * len({1, 2, 3, 6, 15, 30})
    assert (answer.values == GradientAttributes(learning_rates=(10.0, 100.0, 1000.0)).run(
        Eavesdropper(log, 0), asks, tools(task)).values).all()  # fmt: skip


def test_an_attribute_that_nothing_depends_on_is_not_found(tmp_path: Path) -> None:
    """y without the attribute: no passive attack beats the majority at 1e-3 (four tests)."""
    clients, task = population(BINARY, sizes=(300, 300)), regression(dtype=torch.float32)
    free = []
    for data in clients.clients:
        y = (data.train.x @ np.array([0.5, 0.0, -1.0, 0.3]) + Streams(data.id).numpy("e").normal(size=300)).astype("f4")
        samples = Samples(data.train.x, y, data.train.index)
        free.append(ClientData(data.id, samples, samples, samples, 300.0))
    clients = ArrayPopulation(clients=tuple(free), names=("0", "1"), schema=clients.schema)
    log = logged(FedAvg(learning_rate=0.05, work=Phase(batch_size=32)), clients, task, tmp_path)
    for client in (0, 1):
        asks, values = asked(clients, BINARY, client)
        guess = (values == majority(values)).mean()
        for attack in (ModelAttributes(), GradientAttributes()):
            answer = attack.run(Eavesdropper(log, client), asks, tools(task, client))
            hits = int((answer.values == values).sum())
            assert binomtest(hits, len(values), guess, alternative="greater").pvalue > 1e-3


def test_methods_with_several_models_are_refused(tmp_path: Path) -> None:
    clients, task = population(BINARY), regression(dtype=torch.float32)
    log = logged(FedEM(components=2), clients, task, tmp_path, rounds=2)
    asks, _ = asked(clients, BINARY)
    server = ActiveServer(log, lambda client, params, turn: params)
    passive: tuple[Attack, ...] = (ModelAttributes(), GradientAttributes())
    active: tuple[Attack, ...] = (ActiveAttributes(), IsolatedAttributes())
    for attack in (*passive, *active):
        with pytest.raises(Refused, match="2 models"):
            attack.run(server if attack in active else Eavesdropper(log, 0), asks, tools(task))


def test_nothing_to_ask_and_nobody_to_ask_are_refused(tmp_path: Path) -> None:
    clients, task = population(BINARY), regression(dtype=torch.float32)
    log = logged(FedAvg(), clients, task, tmp_path, rounds=2)
    asks, _ = asked(clients, BINARY)
    none = AttributeQuestion(BINARY, asks.x[:0], asks.y[:0], 0)
    with pytest.raises(Refused, match="no record"):
        ModelAttributes().run(Eavesdropper(log, 0), none, tools(task))
    with pytest.raises(Refused, match="sent nothing"):
        GradientAttributes().search([], 0, asks, tools(task))
    nobody = AttributeQuestion(BINARY, asks.x, asks.y)
    with pytest.raises(Refused, match="no client is named"):
        ActiveAttributes().run(ActiveServer(log, lambda client, params, turn: params), nobody, tools(task))


# --- a server that acts -------------------------------------------------------------------------------------------


class Trains:
    """A client of a linear model that takes one full-batch step, by hand."""

    def __init__(self, data: Samples, rate: float = 0.1) -> None:
        wide = np.concatenate([data.x, np.ones((len(data), 1))], axis=1).astype(np.float64)
        self.hessian, self.linear = wide.T @ wide / len(data), wide.T @ data.y / len(data)
        self.optimum, self.rate, self.turns = np.linalg.solve(self.hessian, self.linear), rate, list[int]()

    def __call__(self, client: int, params: Array, turn: int) -> Array:
        self.turns.append(turn)
        moved: Array = params - self.rate * (self.hessian @ params - self.linear)
        return moved.astype(params.dtype)


def test_a_walk_is_adam_on_pseudo_gradients(tmp_path: Path) -> None:
    clients, task = population(BINARY), regression()
    log = logged(FedAvg(), clients, task, tmp_path, rounds=2)
    client = Trains(clients.client(0).train)
    server = ActiveServer(log, client)
    walked = [exchange.sent for exchange in Walk(0.3, 0.8, 0.95).exchanges(server, 0, 12)]
    x = torch.nn.Parameter(torch.from_numpy(Eavesdropper(log, 0).last().returned.copy()))
    adam = torch.optim.Adam([x], lr=0.3, betas=(0.8, 0.95), eps=1e-8)
    for sent in walked:
        np.testing.assert_allclose(sent, x.detach().numpy(), rtol=1e-12)
        x.grad = x.detach() - torch.from_numpy(client(0, x.detach().numpy(), 0))
        adam.step()
    client.turns.clear()
    messages = list(isolated(server, 0, 3))
    assert all((one.returned == other.sent).all() for one, other in pairwise(messages))
    assert [exchange.round for exchange in messages] == [2, 3, 4], "after the log ends"
    assert client.turns == [0, 1, 2]


def test_the_best_walk_is_the_one_that_ends_where_the_client_stays(tmp_path: Path) -> None:
    clients, task = population(BINARY, noise=1.0), regression(dtype=torch.float32)
    log = logged(FedAvg(learning_rate=0.01), clients, task, tmp_path, rounds=3)
    client = Trains(clients.client(0).train)
    server, (asks, _) = ActiveServer(log, client), asked(clients, BINARY)
    attack = ActiveAttributes(rounds=40, draws=5, step_sizes=(0.01, 1.0))
    params, facts = attack.estimate(server, 0, Streams(0))
    last = Eavesdropper(log, 0).last().returned
    assert np.linalg.norm(params - client.optimum) < 0.2 * np.linalg.norm(last - client.optimum)
    assert facts["active_rounds"] == 200
    assert client.turns == list(range(200)), "each turn is asked for once"
    answer = attack.run(server, asks, tools(task))
    ideal = Decision()(client.optimum.astype(np.float32), asks, tools(task))
    assert (answer.values == ideal).mean() > 0.9
    alone = ActiveAttributes(rounds=40, draws=1).estimate(server, 0, Streams(0))[1]
    assert alone["step_size"] == 0
    assert alone["pseudo_gradient"] >= facts["pseudo_gradient"]


def test_gradients_of_an_isolated_client(tmp_path: Path) -> None:
    clients, task = population(BINARY, sizes=(10, 30)), regression(dtype=torch.float32)
    log = logged(FedAvg(learning_rate=0.01), clients, task, tmp_path, rounds=2)
    asks, values = asked(clients, BINARY)
    server = ActiveServer(log, Trains(clients.client(0).train, 0.02))
    attack = IsolatedAttributes(rounds=20, attack=GradientAttributes(learning_rates=(10.0, 100.0, 1000.0)))
    answer = attack.run(server, asks, tools(task))
    assert answer.facts["active_rounds"] == 20
    assert (answer.values == values).mean() >= 0.9


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_walks_that_diverge_are_refused_without_a_warning(tmp_path: Path, factor: float) -> None:
    clients, task = population(BINARY), regression(dtype=torch.float32)
    log = logged(FedAvg(), clients, task, tmp_path, rounds=2)
    asks, _ = asked(clients, BINARY)

    def runs_away(client: int, params: Array, turn: int) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.float32(factor) * params)

    with pytest.raises(Refused, match="not finite"):
        ActiveAttributes(rounds=6, draws=3).run(ActiveServer(log, runs_away), asks, tools(task))


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradientAttributes(fractions=()),
        lambda: GradientAttributes(fractions=(1.5,)),
        lambda: GradientAttributes(learning_rates=(0.0,)),
        lambda: GradientAttributes(noise="normal"),  # type: ignore[arg-type]
        lambda: GradientAttributes(temperature=0.0),
        lambda: ActiveAttributes(step_sizes=(0.0, 1.0)),
        lambda: ActiveAttributes(averaging=(0.5, 1.0)),
        lambda: ActiveAttributes(draws=0),
        lambda: Decision(step_size=0.0),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=r"(is|tried).*Give"):
        make()


@pytest.mark.parametrize(
    "kind", ["model_attributes", "gradient_attributes", "active_attributes", "isolated_attributes"]
)
def test_registered(kind: str) -> None:
    attack = ATTACKS.get(kind)()
    assert isinstance(attack, Attack)
    assert attack.asks == "attribute"
    assert not attack.oracle

"""L2GD: coin by coin on quadratics, its limit in closed form, and a byte only where models are exchanged anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.messages import encoded_size
from rivage.core.seeding import Streams
from rivage.data import Digits, Dirichlet, build_population
from rivage.federated import L2GD, Local, Notebook, Outcome, Phase, Trial, run
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import linear_clients, linear_task, quadratic_clients, quadratic_task

ONE = Phase(updates=1, batch_size=None)
A, C = np.array([0.5, 1.0, 4.0]), np.array([3.0, -1.0, 2.0])


def played(algorithm: Any, population: Any, task: Task, rounds: int, **options: Any) -> Outcome:
    return run(
        Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    )


def personal(outcome: Outcome, client: int) -> Tensor:
    evaluation = outcome.unseen if outcome.unseen and client in outcome.unseen.predictors else outcome.seen
    predictor = evaluation.predictors[client]
    assert predictor.mix.tolist() == [1.0]
    return predictor.params[0]


def coins(method: L2GD, rounds: int, seed: int = 0) -> list[bool]:
    """Which rounds are exchanges, from the key that a run with this seed starts with."""
    key = Streams(seed).seed("coin") >> 1
    return [Streams(key).numpy(number).random() < method.exchange_probability for number in range(rounds)]


def exchanged(method: L2GD, start: float, rounds: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The models of three quadratic clients after each round, by the two equations."""
    p, rate = method.exchange_probability, method.learning_rate
    s, w, path = rate * method.pull * (1 - p) / p, np.full(3, start), []
    for exchange in coins(method, rounds):
        w = (1 - s) * w + s * w.mean() if exchange else w - rate * A * (w - C)
        path.append(w)
    return w, path


@pytest.mark.parametrize("rounds", [1, 2, 7, 20, 33])
@pytest.mark.parametrize("p", [0.2, 0.6])
def test_every_coin_is_played_as_written(p: float, rounds: int) -> None:
    """Whatever round is the last: also one between exchanges, when clients have not heard of the mean yet."""
    population = quadratic_clients(A.tolist(), C.tolist())
    task = quadratic_task(population)
    method = L2GD(learning_rate=0.1, pull=1.5, exchange_probability=p, work=ONE)
    outcome = played(method, population, task, rounds)
    expected, _ = exchanged(method, task.initial(Streams(0).seed("model")).item(), rounds)
    np.testing.assert_allclose([personal(outcome, k).item() for k in range(3)], expected, atol=1e-12)


def test_the_limit_is_the_closed_form() -> None:
    """Both maps are affine and their mean rests at the closed form: so does the mean over many rounds.

    The engine ends within the scatter, which is of the order of the step. One fixed run.
    """
    population = quadratic_clients(A.tolist(), C.tolist())
    task = quadratic_task(population)
    method = L2GD(learning_rate=0.02, pull=0.7, exchange_probability=0.5, work=ONE)
    solved = np.linalg.solve(np.diag(A + 0.7) - 0.7 / 3, A * C)  # w̄ is the mean of the w_t
    np.testing.assert_allclose(solved, (A * C + 0.7 * solved.mean()) / (A + 0.7), atol=1e-12)
    start = task.initial(Streams(0).seed("model")).item()
    _, path = exchanged(method, start, 4_000)
    np.testing.assert_allclose(np.mean(path[500:], axis=0), solved, atol=0.1)
    outcome = played(method, population, task, 250)
    assert np.abs([personal(outcome, k).item() - v for k, v in enumerate(solved)]).max() < 0.2
    assert np.abs(solved - C).max() > 0.5, "not what clients find alone"
    assert np.ptp(solved) > 0.5, "not one model either"


def test_a_weak_pull_is_training_alone() -> None:
    population = linear_clients()
    task, rounds = linear_task(population), 20
    method = L2GD(pull=1e-12, exchange_probability=0.3, work=Phase(batch_size=None))
    local = rounds - sum(coins(method, rounds))
    assert 0 < local < rounds
    alone = played(Local(epochs=local, work=Phase(batch_size=None)), population, task, 0)
    outcome = played(method, population, task, rounds)
    for client in range(4):
        torch.testing.assert_close(personal(outcome, client), personal(alone, client), rtol=0, atol=1e-9)


def test_going_all_the_way_is_averaging() -> None:
    """s = 1: after an exchange all have the plain mean, then they train alone until the next."""
    population = quadratic_clients(A.tolist(), C.tolist())
    task = quadratic_task(population)
    method = L2GD(learning_rate=0.1, pull=10.0, exchange_probability=0.5, work=ONE)
    assert method._way == pytest.approx(1)
    tosses = coins(method, 30)
    first = tosses.index(True, 3)
    outcome = played(method, population, task, first + 1)
    models = [personal(outcome, k).item() for k in range(3)]
    assert models == [outcome.state["params"].item()] * 3
    w = np.full(3, task.initial(Streams(0).seed("model")).item())
    for exchange in tosses[: first + 1]:
        w = np.full(3, w.mean()) if exchange else w - 0.1 * A * (w - C)
    assert models[0] == pytest.approx(w[0], abs=1e-12)


def test_only_the_first_of_exchanges_in_a_row_sends_anything() -> None:
    """Up: the model in the first exchange after training. Down: a word to ask for it, the mean before the next step."""
    population = linear_clients()
    book = Notebook(keep_messages=True)
    method = L2GD(pull=0.5, exchange_probability=0.5, work=ONE)
    run(Trial(name="m", algorithm=method, population=population, task=linear_task(population), rounds=40), book)
    events = [event for event in book.events if event["event"] == "round"]
    model, word = encoded_size({"params": np.zeros(3)}), encoded_size({"wanted": np.array(1)})
    up = encoded_size({"params": np.zeros(3), "params.weight": np.zeros(1)})
    before, met = None, set[tuple[bool | None, bool]]()
    for exchange, event in zip(coins(method, 40), events, strict=True):
        expected = {
            (None, False): (0, model),  # the start
            (None, True): (0, 0),  # nobody has moved yet
            (False, False): (0, 0),
            (True, False): (0, model),
            (False, True): (up, word),
            (True, True): (0, 0),
        }[before, exchange]
        assert (event["bytes_up"], event["bytes_down"]) == (4 * expected[0], 4 * expected[1])
        assert (event["gradients"] == 0) is exchange
        met.add((before, exchange))
        before = exchange
    assert met >= {(False, False), (False, True), (True, False), (True, True)}
    assert [m.payload["params"].size for m in book.messages if m.kind == "update"] == [3] * 4 * sum(
        b and not a for a, b in zip(coins(method, 40), coins(method, 40)[1:], strict=False)
    )


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_the_share_of_exchanges_is_the_probability(seed: int, p: float) -> None:
    """400 coins; a share 6 standard errors away is as good as never seen (2e-9 per example)."""
    found = np.mean(coins(L2GD(learning_rate=1e-3, exchange_probability=p), 400, seed))
    assert abs(found - p) <= 6 * (p * (1 - p) / 400) ** 0.5


def test_clients_count_alike() -> None:
    """A client with 12 records pulls the mean no more than one with a single record."""
    population = linear_clients((1, 12))
    task = linear_task(population)
    method = L2GD(pull=0.5, exchange_probability=0.5, work=ONE)
    tosses = coins(method, 30)
    first = next(i for i in range(1, 30) if tosses[i] and not tosses[i - 1])
    before = played(method, population, task, first)
    after = played(method, population, task, first + 1)
    mean = torch.stack([personal(before, client) for client in range(2)]).mean(0)
    torch.testing.assert_close(after.state["params"], mean, rtol=0, atol=1e-12)


def test_newcomers_train_around_the_mean() -> None:
    population = quadratic_clients(A.tolist(), C.tolist())
    method = L2GD(pull=0.7, exchange_probability=0.4, work=ONE, tuning=Phase(updates=5, batch_size=None))
    outcome = played(method, population, quadratic_task(population), 12, unseen=np.array([1]))
    w = mean = outcome.state["params"].item()
    for _ in range(5):
        w = w - 0.1 * (A[1] * (w - C[1]) + 0.7 * (w - mean))
    np.testing.assert_allclose(personal(outcome, 1), [w], atol=1e-12)


def test_small_cohorts_and_lost_answers() -> None:
    """Everyone keeps a model; what is sent in a round is alike, so nobody is rejected."""
    population = linear_clients((4, 7, 1, 12, 5))
    book = Notebook()
    method = L2GD(learning_rate=0.05, pull=1.0, exchange_probability=0.4, work=Phase(batch_size=4))
    run(
        Trial(name="m", algorithm=method, population=population, task=linear_task(population), rounds=30, cohort=2),
        book,
    )
    rounds = [event for event in book.events if event["event"] == "round"]
    assert not any(event["rejected"] for event in rounds)
    assert sum(event["bytes_up"] > 0 for event in rounds) >= 4
    later = rounds[next(n for n, event in enumerate(rounds) if event["bytes_up"]) + 1 :]
    assert all(event["bytes_down"] for event in later if event["gradients"]), "somebody has not heard of the mean"
    memories = [memory.values for memory in book.memories.get(range(5))]
    assert len({tuple(memory["own"].tolist()) for memory in memories}) == 5


def test_who_comes_late_starts_from_the_mean() -> None:
    """Once it is known that not all take part, the mean goes along with whatever is sent or trained."""
    population = linear_clients((4, 7, 5))
    task = linear_task(population)
    method = L2GD(exchange_probability=0.5, work=ONE)
    state = dict(method.init(task, 3, Streams(0)))
    state |= {"params": state["params"] + 1, "heard": torch.tensor(2)}
    kinds = set()
    for number in range(1, 40):
        state["round"] = torch.tensor(number)
        down = method.broadcast(state, 0, task)
        exchange, moved = method._exchanges(state), method._moved(state)
        assert ("params" in down) is (moved or not exchange)
        kinds.add(frozenset(down))
        local = method.start(down, {}, population.client(0), None, Streams(0).child("client", 0), task)
        expected = state["params"] if "params" in down else task.initial(Streams(0).seed("model"))
        assert torch.equal(local.params[0], expected)
    assert kinds == {frozenset(), frozenset({"params"}), frozenset({"params", "wanted"})}


@pytest.mark.parametrize(
    "method",
    [
        L2GD(learning_rate=0.05, exchange_probability=0.4),
        L2GD(learning_rate=0.05, pull=0.3, exchange_probability=0.7, work=Phase(epochs=2, batch_size=3)),
    ],
)
def test_conformance(method: L2GD) -> None:
    battery = check_algorithm(method)
    battery.require()
    assert battery.ran == 11


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.0}, {"pull": 0.0}, {"exchange_probability": 0.0}, {"exchange_probability": 1.0}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a (finite )?number"):
        L2GD(**wrong)


def test_a_pull_beyond_the_mean_is_refused() -> None:
    """The step that is seen elsewhere, λ / p, goes ten times as far as the mean and away from it."""
    with pytest.raises(ConfigError) as caught:
        L2GD(pull=2.0)
    assert str(caught.value) == (
        "pull is 2.0 with learning_rate 0.1 and exchange_probability 0.1: an exchange would take every model 1.8 of "
        "the way to the mean, beyond it. Give pull at most 1.11111, or raise exchange_probability."
    )
    assert L2GD(pull=10.0, exchange_probability=0.5)._way == pytest.approx(1)


def test_on_digits_it_beats_its_start_and_clients_alone() -> None:
    """One fixed run; alone clients train for as many epochs as there are local rounds."""
    population = build_population(Digits(), partition=Dirichlet(clients=10, alpha=0.3), seed=0)
    task = make_task(TaskSettings(model="mlp", options={"hidden": [32]}), population.schema)
    method = L2GD(work=Phase(batch_size=16))
    trained, start, alone = (
        np.average(outcome.seen.columns["test"], weights=outcome.seen.columns["test_size"])
        for outcome in (
            played(method, population, task, 60),
            played(method, population, task, 0),
            played(Local(epochs=60 - sum(coins(method, 60)), work=method.work), population, task, 0),
        )
    )
    assert trained >= start + 0.3
    assert trained >= alone

"""Ditto: its shared half is FedAvg, its personal half a proximal recursion that can be written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.federated import Ditto, FedAvg, Local, Notebook, Outcome, Phase, Trial, run
from rivage.learning.task import Task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

WORK = Phase(epochs=2, batch_size=3)
A, C = (0.5, 1.0, 4.0), (3.0, -1.0, 2.0)


def played(algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any) -> Outcome:
    trial = Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    return run(trial)


def personal(outcome: Outcome, client: int) -> torch.Tensor:
    evaluation = outcome.unseen if outcome.unseen and client in outcome.unseen.predictors else outcome.seen
    predictor = evaluation.predictors[client]
    assert predictor.mix.tolist() == [1.0]
    return predictor.params[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cohort", [None, 2])
def test_the_shared_model_is_fedavgs_bit_for_bit(dtype: torch.dtype, cohort: int | None) -> None:
    population = linear_clients()
    task = linear_task(population, dtype)
    plain = played(FedAvg(work=WORK), population, task, 6, cohort=cohort).state["params"]
    for pull in (0.0, 0.3):
        outcome = played(Ditto(pull=pull, work=WORK), population, task, 6, cohort=cohort)
        assert torch.equal(outcome.state["params"], plain)


def test_both_models_follow_their_recursions() -> None:
    """On quadratics with exact gradients, step by step; the pull sees the model before the step."""
    rate, pull, steps, rounds = 0.1, 0.7, 3, 5
    population = quadratic_clients(A, C)
    task = quadratic_task(population)
    a, c = np.array(A), np.array(C)
    w = task.initial(Streams(0).seed("model")).item()
    v = np.full(3, w)
    for _ in range(rounds):
        local = np.full(3, w)
        for _ in range(steps):
            local = local - rate * a * (local - c)
            v = v - rate * (a * (v - c) + pull * (v - w))
        w = local.mean()
    method = Ditto(learning_rate=rate, pull=pull, work=Phase(updates=steps, batch_size=None))
    outcome = played(method, population, task, rounds)
    np.testing.assert_allclose(outcome.state["params"], [w], atol=1e-12)
    np.testing.assert_allclose([personal(outcome, k).item() for k in range(3)], v, atol=1e-12)


@pytest.mark.parametrize("pull", [0.0, 0.1, 2.0])
def test_the_personal_limit_lies_between_own_and_shared_optimum(pull: float) -> None:
    """a_k (v − c_k) + λ (v − w) = 0, whatever the number of local steps; λ = 0 is the client's own optimum."""
    population = quadratic_clients(A, C)
    method = Ditto(learning_rate=0.1, pull=pull, work=Phase(updates=4, batch_size=None))
    outcome = played(method, population, quadratic_task(population), 150)
    w, a, c = outcome.state["params"].item(), np.array(A), np.array(C)
    found = [personal(outcome, k).item() for k in range(3)]
    np.testing.assert_allclose(found, (a * c + pull * w) / (a + pull), atol=1e-8)


def test_without_pull_a_client_trains_alone() -> None:
    """As the method Local with as many full-batch steps, whoever else is there."""
    population = linear_clients()
    task = linear_task(population)
    alone = played(Local(epochs=12, work=Phase(batch_size=None)), population, task, 0)
    outcome = played(Ditto(pull=0.0, work=Phase(epochs=3, batch_size=None)), population, task, 4)
    for client in range(4):
        torch.testing.assert_close(personal(outcome, client), personal(alone, client), rtol=0, atol=1e-12)


def test_a_strong_pull_is_fedavg() -> None:
    """At v = w_t the gradient of f is all that moves v, hence |v − w_t| <= |∇f| / λ in the limit."""
    population = quadratic_clients(A, C)
    task, pull = quadratic_task(population), 1e5
    method = Ditto(learning_rate=0.5 / pull, pull=pull, work=Phase(updates=40, batch_size=None))
    outcome = played(method, population, task, 3)
    w = outcome.state["params"].item()
    steepest = max(a * abs(w - c) for a, c in zip(A, C, strict=True))
    # One round of FedAvg moves w by at most 40 steps; v is held at the broadcast, one round back.
    bound = 1.1 * steepest / pull + 40 * 0.5 / pull * steepest
    assert all(abs(personal(outcome, k).item() - w) <= bound for k in range(3))
    loose = played(Ditto(learning_rate=0.1, pull=0.0), population, task, 3)
    assert abs(personal(loose, 0).item() - loose.state["params"].item()) > 0.1


def test_newcomers_train_from_the_shared_model_with_the_pull() -> None:
    rate, pull, steps = 0.1, 0.7, 5
    population = quadratic_clients(A, C)
    method = Ditto(
        learning_rate=rate,
        pull=pull,
        work=Phase(updates=2, batch_size=None),
        tuning=Phase(updates=steps, batch_size=None),
    )
    outcome = played(method, population, quadratic_task(population), 4, unseen=np.array([1]))
    w = v = outcome.state["params"].item()
    for _ in range(steps):
        v = v - rate * (A[1] * (v - C[1]) + pull * (v - w))
    np.testing.assert_allclose(personal(outcome, 1), [v], atol=1e-12)


def test_only_clients_without_a_model_adapt() -> None:
    """One client a round: after one round three others have never been asked."""
    population = linear_clients()
    task = linear_task(population)
    outcomes = []
    for epochs in (0, 3):
        method = Ditto(work=WORK, tuning=Phase(epochs=epochs))
        book = Notebook()
        trial = Trial(name="m", algorithm=method, population=population, task=task, rounds=1, cohort=1)
        outcomes.append(run(trial, book))
        (chosen,) = next(event["cohort"] for event in book.events if event["event"] == "round")
    untuned, tuned = outcomes
    for client in range(4):
        assert torch.equal(personal(tuned, client), personal(untuned, client)) is (client == chosen)
        assert torch.equal(personal(untuned, client), untuned.state["params"]) is (client != chosen)


def test_nothing_but_the_shared_model_travels() -> None:
    population = linear_clients()
    book = Notebook(keep_messages=True)
    run(Trial(name="m", algorithm=Ditto(), population=population, task=linear_task(population), rounds=2), book)
    assert {frozenset(m.payload) for m in book.messages} == {
        frozenset({"params"}),
        frozenset({"params", "params.weight"}),
    }
    assert all(message.payload["params"].size == 3 for message in book.messages)


def test_conformance() -> None:
    check_algorithm(Ditto(learning_rate=0.05, pull=1.0, work=WORK, tuning=WORK)).require()


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"pull": -0.1}, {"pull": float("inf")}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a (finite )?number"):
        Ditto(**settings)


def test_a_pull_under_which_training_runs_away_is_refused() -> None:
    """Where the gradient of f is 0 a step multiplies v − w by 1 − ηλ."""
    with pytest.raises(ConfigError) as caught:
        Ditto(pull=50.0)
    assert str(caught.value) == (
        "pull is 50.0 with learning_rate 0.1: training diverges from a product of 2 on, theirs is 5. "
        "Give pull below 20, or lower learning_rate."
    )
    for rate, pull in ((0.25, 8.0), (8.0, 0.25)):
        with pytest.raises(ConfigError, match="theirs is 2"):
            Ditto(learning_rate=rate, pull=pull)
    population = quadratic_clients((1e-9,) * 3, C)
    method = Ditto(learning_rate=0.1, pull=19.0, work=Phase(updates=200, batch_size=None))
    outcome = played(method, population, quadratic_task(population), 3)
    assert abs(personal(outcome, 0).item() - outcome.state["params"].item()) < 1e-6, "1.9: it still contracts"

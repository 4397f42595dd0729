"""AFL: the minimax of quadratics is known, without ascent it is federated SGD, shares stay on the simplex."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.federated import AFL, FedSGD, Notebook, Outcome, Trial, run
from rivage.federated.algorithm import Cohort, State, Update
from rivage.federated.robust import Krum
from rivage.learning.losses import CROSS_ENTROPY
from rivage.learning.metrics import ACCURACY
from rivage.learning.task import Task
from rivage.testing.conformance import check_algorithm
from rivage.testing.toys import Clients, linear_clients, linear_task, quadratic_clients, quadratic_task

A, C = (0.5, 1.0, 4.0), (3.0, -1.0, 2.0)


def played(algorithm: Any, population: Clients, task: Task, rounds: int, **options: Any) -> Outcome:
    trial = Trial(name="m", algorithm=algorithm, population=population, task=task, rounds=rounds, every=999, **options)
    return run(trial)


def updates(theta: float, a: Any, c: Any, rate: float, who: Any = None) -> list[Update]:
    """What clients with quadratic losses answer."""
    found = []
    for client in range(len(a)) if who is None else who:
        model = theta - rate * a[client] * (theta - c[client])
        loss = 0.5 * a[client] * (theta - c[client]) ** 2
        payload = {"params": (torch.tensor([model]).double(), 1.0), "loss": (torch.tensor([loss]).double(), 1.0)}
        found.append(Update(payload, client=client))
    return found


def settled(a: Any, c: Any, *, rate: float = 0.05, weight_rate: float = 0.05, rounds: int = 2000) -> State:
    method, task = AFL(learning_rate=rate, weight_rate=weight_rate), quadratic_task(quadratic_clients(a, c))
    state = method.init(task, len(a), Streams(0))
    for _ in range(rounds):
        state = method.aggregate(state, updates(state["params"].item(), a, c, rate), task)
    return state


@pytest.mark.parametrize(("a", "c"), [((1.0, 1.0), (0.0, 4.0)), ((0.5, 4.0), (-1.0, 3.0)), ((2.0, 0.1), (1.0, 0.0))])
def test_two_quadratics_meet_where_their_losses_are_equal(a: Any, c: Any) -> None:
    """√a₁ |w − c₁| = √a₂ |w − c₂| between the centres, and λ₁ √a₁ = λ₂ √a₂ there."""
    state = settled(a, c)
    roots = np.sqrt(a)
    assert state["params"].item() == pytest.approx(float(roots @ np.array(c) / roots.sum()), abs=1e-4)
    np.testing.assert_allclose(state["shares"], roots[::-1] / roots.sum(), atol=1e-3)


def test_a_client_that_is_never_the_worst_has_no_share() -> None:
    state = settled((1.0, 1.0, 1.0), (0.0, 1.9, 4.0))
    assert state["params"].item() == pytest.approx(2.0, abs=1e-4)
    np.testing.assert_allclose(state["shares"], [0.5, 0.0, 0.5], atol=1e-3)


def test_the_limit_is_the_least_worst_loss() -> None:
    """Against a search over the whole line."""
    generator = np.random.default_rng(0)
    for _ in range(2):
        a, c = generator.uniform(0.5, 3, 5), generator.uniform(-2, 2, 5)
        line = np.linspace(-2, 2, 400_001)
        worst = (0.5 * a[:, None] * (line - c[:, None]) ** 2).max(axis=0)
        theta = settled(a, c)["params"].item()
        assert max(0.5 * a * (theta - c) ** 2) <= worst.min() + 1e-3
        alone = float(a @ c / a.sum())
        assert max(0.5 * a * (alone - c) ** 2) > worst.min() + 1e-2


def nearest(y: np.ndarray) -> np.ndarray:
    """The point of the simplex nearest to y, by a solver that knows nothing of it."""
    found = minimize(
        lambda x: ((x - y) ** 2).sum(),
        np.full(len(y), 1 / len(y)),
        jac=lambda x: 2 * (x - y),
        bounds=[(0, 1)] * len(y),
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(len(y))},
        options={"ftol": 1e-15},
    )
    return np.asarray(found.x)


def test_rounds_follow_the_paper() -> None:
    """Both steps from the same point: λ as it was, losses before the step; with everyone the mean loss is no matter."""
    rate, weight_rate = 0.1, 0.2
    population = quadratic_clients(A, C)
    task = quadratic_task(population)
    a, c = np.array(A), np.array(C)
    theta, shares = task.initial(Streams(0).seed("model")).item(), np.full(3, 1 / 3)
    for rounds in range(1, 6):
        losses = 0.5 * a * (theta - c) ** 2
        theta -= rate * float(shares @ (a * (theta - c)))
        shares = nearest(shares + weight_rate * losses)
        state = played(AFL(learning_rate=rate, weight_rate=weight_rate), population, task, rounds).state
        assert state["params"].item() == pytest.approx(theta, abs=1e-6)
        np.testing.assert_allclose(state["shares"], shares, atol=1e-6)
    assert shares.min() < 1e-6 < shares.max() < 1, "the projection has cut something off, and not all"


@dataclass(frozen=True, kw_only=True)
class Alike(FedSGD):
    """Federated SGD in which every client counts once."""

    def select(self, *args: Any) -> Cohort:
        cohort = super().select(*args)
        return replace(cohort, weights=np.ones(len(cohort.ids)))


@pytest.mark.parametrize("cohort", [None, 3])
def test_without_ascent_it_is_federated_sgd(cohort: int | None) -> None:
    population = linear_clients((5, 5, 5, 5, 5) if cohort is None else (4, 7, 1, 12, 3))
    task = linear_task(population)
    plain: Any = FedSGD() if cohort is None else Alike()
    expected = played(plain, population, task, 8, cohort=cohort).state["params"]
    found = played(AFL(weight_rate=0.0, batch_size=None), population, task, 8, cohort=cohort).state
    if cohort is None:
        torch.testing.assert_close(found["params"], expected, rtol=0, atol=1e-12)
    else:  # clients that enter later start at the mean share: with all of them known, a cohort's step is the mean
        np.testing.assert_allclose(found["shares"], np.full(len(found["shares"]), 1 / len(found["shares"])))
        torch.testing.assert_close(found["params"], expected, rtol=0, atol=1e-12)


def test_one_client_is_gradient_descent() -> None:
    state = settled((2.0,), (3.0,), rounds=400)
    assert state["params"].item() == pytest.approx(3.0)
    assert state["shares"].tolist() == [1.0]


def test_in_expectation_cohorts_move_shares_as_everyone_does() -> None:
    """Over all cohorts of three clients of five, where no share leaves the simplex."""
    a, c, theta = np.array([0.5, 1.0, 4.0, 2.0, 0.1]), np.array([3.0, -1.0, 2.0, 0.5, 0.0]), 0.3
    method, task = AFL(weight_rate=1e-3), quadratic_task(quadratic_clients(A, C))
    shares = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15]).double()
    state = {"params": torch.tensor([theta]).double(), "clients": torch.arange(5), "shares": shares}
    full = method.aggregate(state, updates(theta, a, c, 0.1), task)["shares"]
    some = [
        method.aggregate(state, updates(theta, a, c, 0.1, who), task)["shares"] for who in combinations(range(5), 3)
    ]
    torch.testing.assert_close(torch.stack(some).mean(dim=0), full, rtol=0, atol=1e-12)
    assert float((full - shares).abs().max()) > 1e-4


def test_no_step_is_longer_than_that_of_a_convex_combination() -> None:
    """A client with all of λ is drawn by one cohort in three: without bias the step would be three times as long."""
    method, task = AFL(weight_rate=0.0), quadratic_task(quadratic_clients(A, C))
    state = {
        "params": torch.zeros(1).double(),
        "clients": torch.arange(3),
        "shares": torch.tensor([1.0, 0.0, 0.0]).double(),
    }
    step = 0.1 * A[0] * C[0]
    assert method.aggregate(state, updates(0.0, A, C, 0.1, [0]), task)["params"].item() == pytest.approx(step)
    assert method.aggregate(state, updates(0.0, A, C, 0.1, [1]), task)["params"].item() == 0
    diffuse = {**state, "shares": torch.full((3,), 1 / 3).double()}
    one = method.aggregate(diffuse, updates(0.0, A, C, 0.1, [2]), task)["params"].item()
    assert one == pytest.approx(0.1 * A[2] * C[2])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1e6)), min_size=1, max_size=30), st.floats(0, 10))
def test_shares_stay_on_the_simplex(answers: list[tuple[int, float]], weight_rate: float) -> None:
    """Whoever answers, in cohorts of three, whatever the losses."""
    method, task = AFL(weight_rate=weight_rate), quadratic_task(quadratic_clients(A, C))
    state = method.init(task, 7, Streams(0))
    for start in range(0, len(answers), 3):
        some = dict(answers[start : start + 3])
        one = torch.zeros(1).double()
        received = [
            Update({"params": (one, 1.0), "loss": (one + loss, 1.0)}, client=client) for client, loss in some.items()
        ]
        state = method.aggregate(state, received, task)
        shares = state["shares"]
        assert bool((shares >= 0).all())
        assert float(shares.sum()) == pytest.approx(1.0)
        assert state["clients"].tolist() == sorted({client for client, _ in answers[: start + 3]})


def test_a_client_that_answers_late_enters_at_the_mean_share() -> None:
    method, task = AFL(weight_rate=0.0), quadratic_task(quadratic_clients(A, C))
    state: State = {
        "params": torch.zeros(1).double(),
        "clients": torch.tensor([0, 2]),
        "shares": torch.tensor([0.75, 0.25]).double(),
    }
    state = method.aggregate(state, updates(0.0, A, C, 0.1), task)
    assert state["clients"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(state["shares"], [0.5, 1 / 3, 1 / 6])


def test_running_statistics_take_the_mean_however_short_the_step() -> None:
    schema = Schema(input_shape=(3,), target="class", num_classes=2)
    task = Task(lambda s: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), CROSS_ENTROPY, ACCURACY, schema)
    size, start = task.layout.trainable, task.initial(0)
    state = {"params": start, "clients": torch.arange(2), "shares": torch.tensor([0.1, 0.9]).double()}
    update = Update({"params": (start + 1, 1.0), "loss": (torch.ones(1), 1.0)}, client=0)
    moved = AFL().aggregate(state, [update], task)["params"] - start
    torch.testing.assert_close(moved[:size], torch.full((size,), 0.2))  # 0.1 of two clients
    torch.testing.assert_close(moved[size:], torch.ones(task.dimension - size))


def test_clients_that_are_kept_apart_or_lost_have_no_share() -> None:
    population = replace(linear_clients(), absent=frozenset((1, r) for r in range(9)))
    outcome = played(AFL(), population, linear_task(population), 5, unseen=np.array([3]))
    assert outcome.state["clients"].tolist() == [0, 2]
    assert float(outcome.state["shares"].sum()) == pytest.approx(1.0)


def test_one_gradient_per_client_and_round() -> None:
    population = linear_clients((4, 7, 1, 12))
    book = Notebook()
    method = AFL(batch_size=3)
    run(Trial(name="m", algorithm=method, population=population, task=linear_task(population), rounds=2), book)
    assert [event["gradients"] for event in book.events if event["event"] == "round"] == [3 + 3 + 1 + 3] * 2


def test_the_model_travels_down_and_the_loss_up() -> None:
    population = linear_clients()
    book = Notebook(keep_messages=True)
    run(Trial(name="m", algorithm=AFL(), population=population, task=linear_task(population), rounds=2), book)
    down, up = frozenset({"params"}), frozenset({"params", "params.weight", "loss", "loss.weight"})
    assert {frozenset(message.payload) for message in book.messages} == {down, up}


def test_large_populations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"share for every client, and there are 100001. Use it with .* or take qffl"):
        AFL().init(linear_task(linear_clients()), 100_001, Streams(0))


def test_rules_that_combine_updates_are_refused() -> None:
    population = linear_clients()
    with pytest.raises(ConfigError, match="combines single updates itself"):
        played(AFL(), population, linear_task(population), 1, collector=Krum())


def test_what_it_reports() -> None:
    method, task = AFL(), linear_task(linear_clients())
    assert method.report(method.init(task, 4, Streams(0))) == {"largest_share": 0.0, "clients_with_a_share": 0.0}
    shares = torch.tensor([0.75, 0.25, 0.0]).double()
    assert method.report({"shares": shares}) == {"largest_share": 0.75, "clients_with_a_share": 2.0}


def test_conformance() -> None:
    for batch_size in (None, 2):
        check_algorithm(AFL(learning_rate=0.05, weight_rate=0.3, batch_size=batch_size)).require()


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"weight_rate": -0.1}, {"batch_size": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give a (finite )?number"):
        AFL(**wrong)

"""D-PSGD and DPASGD: fixed points in closed form, their bias, and what they become over a star (sheet, A7)."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Schema
from rivage.decentralized.dpsgd import DPASGD, DPSGD
from rivage.decentralized.gossip import GossipAlgorithm
from rivage.decentralized.gradient_tracking import GradientTracking
from rivage.decentralized.mixing_plan import Cycled, Exact, MixingPlan
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.algorithm import Phase
from rivage.federated.engine import Session
from rivage.federated.fedavg import FedAvg
from rivage.federated.trial import Trial
from rivage.testing.gossip import Quadratics, descend
from rivage.testing.toys import Clients, linear_clients, linear_task

SILOS, FEATURES = 8, 3


def ring(silos: int = SILOS) -> MixingPlan:
    """Weights of 1/3 for oneself and both neighbours."""
    one = np.eye(silos)
    return Cycled(matrices=[(one + np.roll(one, 1, axis=0) + np.roll(one, -1, axis=0)) / 3])


def block_diagonal(blocks: Float64[ndarray, "silos d d"]) -> Float64[ndarray, "all all"]:
    silos, d, _ = blocks.shape
    whole = np.zeros((silos * d, silos * d))
    for k, block in enumerate(blocks):
        whole[k * d : (k + 1) * d, k * d : (k + 1) * d] = block
    return whole


def fixed_point(clients: Clients, plan: MixingPlan, rate: float, *, adapt_first: bool) -> Float64[ndarray, "silos d"]:
    """Where both orders stand still: X = W X − η G(X), or X = W (X − η G(X))."""
    losses = Quadratics.of(clients)
    silos, d = losses.linear.shape
    wide = np.kron(plan.weights(0), np.eye(d))
    outer = wide if adapt_first else np.eye(silos * d)
    matrix = np.eye(silos * d) - wide + rate * outer @ block_diagonal(losses.hessians)
    return np.asarray(np.linalg.solve(matrix, rate * outer @ losses.linear.ravel()).reshape(silos, d))


CLIENTS = linear_clients((9, 7, 12, 6, 8, 10, 5, 11), FEATURES, seed=3)
LOSSES = Quadratics.of(CLIENTS)
START = torch.zeros(SILOS, FEATURES, dtype=torch.float64)


def trial(algorithm: GossipAlgorithm, plan: MixingPlan, clients: Clients = CLIENTS, **changes: Any) -> SiloTrial:
    given = {"name": "m", "population": clients, "task": linear_task(clients), "rounds": 50, "every": 1000}
    return SiloTrial(algorithm=algorithm, plan=plan, **{**given, **changes})


def models(trial: SiloTrial) -> Tensor:
    with SiloSession(trial) as session:
        for _ in session:
            pass
        return session.state["params"]


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["combine_then_adapt", "adapt_then_combine"])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_full_gradients_lead_to_the_fixed_point_in_closed_form(order: Any, rate: float) -> None:
    method = DPSGD(learning_rate=rate, batch_size=None, order=order)
    found = descend(method, ring(), LOSSES.gradient, START, 6_000)["params"].numpy()
    expected = fixed_point(CLIENTS, ring(), rate, adapt_first=order == "adapt_then_combine")
    assert np.abs(found - expected).max() < 1e-10


@pytest.mark.parametrize("order", ["combine_then_adapt", "adapt_then_combine"])
def test_so_does_the_engine_on_its_executors(order: Any) -> None:
    method = DPSGD(learning_rate=0.3, batch_size=None, order=order)
    expected = fixed_point(CLIENTS, ring(), 0.3, adapt_first=order == "adapt_then_combine")
    assert np.abs(models(trial(method, ring(), rounds=500)).numpy() - expected).max() < 1e-10


def test_the_two_orders_stand_still_at_different_points_and_neither_at_the_optimum() -> None:
    first, second = (fixed_point(CLIENTS, ring(), 0.1, adapt_first=way) for way in (False, True))
    assert np.abs(first - second).max() > 1e-3
    for point in (first, second):
        assert np.abs(point.mean(axis=0) - LOSSES.optimum).max() > 1e-4
        assert np.abs(point - point.mean(axis=0)).max() > 1e-3, "silos differ from one another as well"


@pytest.mark.parametrize("adapt_first", [False, True])
def test_half_the_step_size_leaves_about_half_the_bias(adapt_first: bool) -> None:
    points = [fixed_point(CLIENTS, ring(), 0.1 / 2**k, adapt_first=adapt_first) for k in range(5)]
    distances = [float(np.linalg.norm(point - LOSSES.optimum)) for point in points]
    ratios = [after / before for before, after in pairwise(distances)]
    assert all(0.5 <= ratio <= 0.65 for ratio in ratios), ratios
    assert ratios == sorted(ratios, reverse=True), "closer to ½ the smaller the step"


def test_a_round_worked_out_by_hand() -> None:
    """Two silos with losses ½ (w − 0)² and ½ · 2 (w − 3)², weights ½, η = 0.1, both at 1."""
    plan = Cycled(matrices=[np.full((2, 2), 0.5)])
    slopes, centres = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [3.0]])
    start = torch.ones(2, 1)
    for order, expected in (("combine_then_adapt", [0.9, 1.4]), ("adapt_then_combine", [1.15, 1.15])):
        method = DPSGD(learning_rate=0.1, order=order)  # type: ignore[arg-type]
        found = descend(method, plan, lambda params: slopes * (params - centres), start, 1)["params"]
        torch.testing.assert_close(found[:, 0], torch.tensor(expected))


# --- stars ----------------------------------------------------------------------------------------------------------


def signs(seed: int, silos: int, records: int) -> Clients:
    """Regressors of ±1 and small whole targets, as many at every silo: few bits."""
    rng = np.random.default_rng(seed)
    pairs = [
        (rng.choice([-1.0, 1.0], (records, 2)), rng.integers(-2, 3, (records, 1)).astype(np.float64))
        for _ in range(silos)
    ]
    return Clients(tuple(pairs), Schema(input_shape=(2,), target="real", num_outputs=1))


def centralised(clients: Clients, start: list[float], rate: Fraction, rounds: int) -> list[Fraction]:
    """Gradient descent on all records together, in exact arithmetic."""
    records = [(x, y) for xs, ys in clients.records for x, y in zip(xs.tolist(), ys.ravel().tolist(), strict=True)]
    w = [Fraction(value) for value in start]
    for _ in range(rounds):
        errors = [sum(Fraction(a) * b for a, b in zip(x, w, strict=True)) - Fraction(y) for x, y in records]
        slope = [
            sum(error * Fraction(x[k]) for error, (x, _) in zip(errors, records, strict=True)) / len(records)
            for k in range(len(w))
        ]
        w = [value - rate * step for value, step in zip(w, slope, strict=True)]
    return w


@pytest.mark.parametrize("seed", range(5))
def test_a_star_is_centralised_gradient_descent_bit_for_bit(seed: int) -> None:
    """All numbers of the first rounds have at most 53 bits: floating point computes them exactly, in any order."""
    clients, rounds = signs(seed, silos=4, records=2), 4
    method = DPSGD(learning_rate=0.5, batch_size=None, order="adapt_then_combine")
    playing = trial(method, Exact(silos=4, hub=2), clients, rounds=rounds)
    start = playing.task.initial(Streams(0).seed("model"))
    expected = centralised(clients, start.tolist(), Fraction(1, 2), rounds)
    assert all(Fraction(float(value)) == value for value in expected), "the test is exact"
    found = models(playing)
    for row in found:
        assert [Fraction(value) for value in row.tolist()] == expected


def test_a_star_stays_centralised_for_long() -> None:
    """One silo that holds everything, against four that hold as much each: the same up to rounding."""
    clients = signs(1, silos=4, records=6)
    joined = Clients(
        ((np.concatenate([x for x, _ in clients.records]), np.concatenate([y for _, y in clients.records])),),
        clients.schema,
    )
    method = DPSGD(learning_rate=0.2, batch_size=None, order="adapt_then_combine")
    apart = models(trial(method, Exact(silos=4, hub=0), clients, rounds=200))
    together = models(trial(method, Exact(silos=1, hub=0), joined, rounds=200))
    assert (apart - together).abs().max() < 1e-12
    assert bool((apart == apart[:1]).all()), "all silos hold the very same model"


@pytest.mark.parametrize("work", [Phase(epochs=2, batch_size=2), Phase(updates=3, batch_size=2, batches="endless")])
def test_dpasgd_over_a_star_is_fedavg_with_all_silos_and_equal_weights(work: Phase) -> None:
    clients = linear_clients((6, 6, 6, 6), seed=1)
    task, rounds = linear_task(clients), 12
    federated = Trial(
        name="f", algorithm=FedAvg(learning_rate=0.05, work=work), population=clients, task=task, rounds=rounds
    )
    silos = trial(DPASGD(learning_rate=0.05, work=work), Exact(silos=4, hub=1), clients, rounds=rounds)
    with Session(federated) as one, SiloSession(silos) as other:
        for _, _ in zip(one, other, strict=True):
            assert (one.state["params"] - other.state["params"]).abs().max() < 1e-12
            assert (one.state["params"] - other.average).abs().max() < 1e-12


def test_silos_that_count_by_records_are_fedavg_with_its_weights() -> None:
    """One full step a round: the mean of w − η n p_i g_i is the mean of w − η g_i with weights p_i."""
    clients = linear_clients((3, 9, 1, 7), seed=1)
    task, step = linear_task(clients), Phase(updates=1, batch_size=None)
    federated = Trial(
        name="f", algorithm=FedAvg(learning_rate=0.05, work=step), population=clients, task=task, rounds=15
    )
    method = DPASGD(learning_rate=0.05, work=step, count_by="records")
    silos = trial(method, Exact(silos=4, hub=1), clients, rounds=15)
    assert silos.importance == (0.6, 1.8, 0.2, 1.4)
    with Session(federated) as one, SiloSession(silos) as other:
        for _, _ in zip(one, other, strict=True):
            assert (one.state["params"] - other.average).abs().max() < 1e-12


def test_counting_by_records_tracks_to_the_optimum_of_all_records() -> None:
    method = GradientTracking(learning_rate=0.05, batch_size=None, count_by="records")
    found = models(trial(method, ring(), rounds=1200))
    x, y = (np.concatenate(parts) for parts in zip(*CLIENTS.records, strict=True))
    pooled = np.linalg.lstsq(x, y[:, 0], rcond=None)[0]
    assert np.abs(found.numpy() - pooled).max() < 1e-9
    assert np.abs(pooled - LOSSES.optimum).max() > 1e-3, "not that of all silos"


# --- degenerate cases -----------------------------------------------------------------------------------------------


def test_one_local_step_and_then_the_average_is_adapt_then_combine() -> None:
    step = Phase(updates=1, batch_size=3)
    one = models(trial(DPASGD(learning_rate=0.1, work=step), ring()))
    other = models(trial(DPSGD(learning_rate=0.1, batch_size=3, order="adapt_then_combine"), ring()))
    assert torch.equal(one, other)


def test_without_weights_for_others_silos_train_alone() -> None:
    alone = Cycled(matrices=[np.eye(SILOS)])
    for order in ("combine_then_adapt", "adapt_then_combine"):
        method = DPSGD(learning_rate=0.1, batch_size=None, order=order)  # type: ignore[arg-type]
        found = descend(method, alone, LOSSES.gradient, START, 4_000)["params"].numpy()
        own = np.stack([np.linalg.solve(h, c) for h, c in zip(LOSSES.hessians, LOSSES.linear, strict=True)])
        assert np.abs(found - own).max() < 1e-6


@given(
    rate=st.floats(0.01, 0.3),
    seed=st.integers(0, 2**32 - 1),
    rounds=st.integers(1, 6),
    order=st.sampled_from(["combine_then_adapt", "adapt_then_combine"]),
)
def test_the_mean_of_the_models_follows_the_mean_of_the_gradients(
    rate: float, seed: int, rounds: int, order: Any
) -> None:
    """1ᵀ W = 1ᵀ: what is averaged away in one silo is in others."""
    start = torch.randn(SILOS, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed % 2**31))
    seen: list[Tensor] = []

    def gradient(params: Tensor) -> Tensor:
        seen.append(LOSSES.gradient(params))
        return seen[-1]

    after = descend(DPSGD(learning_rate=rate, order=order), ring(), gradient, start, rounds)["params"]
    moved = start.mean(dim=0) - rate * sum(each.mean(dim=0) for each in seen)
    torch.testing.assert_close(after.mean(dim=0), moved)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"order": "adapt"}, 'order is "adapt"'),
        ({"count_by": "size"}, 'count_by is "size"'),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DPSGD(**settings)

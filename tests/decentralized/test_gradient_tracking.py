"""Gradient tracking reaches the optimum exactly, over doubly stochastic weights and over uneven directed overlays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.decentralized.gossip import State
from rivage.decentralized.gradient_tracking import GradientTracking, PushDIGing
from rivage.decentralized.mixing_plan import Cycled, MixingPlan
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.graphs.families import one_peer_exponential
from rivage.graphs.mixing import push_weights
from rivage.testing.gossip import Quadratics, descend, doubly_stochastic
from rivage.testing.toys import linear_clients, linear_task

CLIENTS = linear_clients((9, 7, 12, 6, 8, 10, 5, 11), 3, seed=3)
LOSSES = Quadratics.of(CLIENTS)
START = torch.zeros(8, 3, dtype=torch.float64)
OPTIMUM = torch.as_tensor(LOSSES.optimum)
RING = Cycled(matrices=[(np.eye(8) + np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0)) / 3])
DIRECTED = Cycled(matrices=[(np.eye(8) + np.roll(np.eye(8), 1, 0)) / 2])


def uneven() -> MixingPlan:
    """A directed ring with shortcuts into silo 0: nobody else has so many in-neighbours."""
    sends = np.roll(np.eye(8), 1, axis=1)
    sends[[2, 4, 5], 0] = 1
    weights = push_weights(sends)
    assert np.abs(weights.sum(axis=1) - 1).max() > 0.1, "rows do not sum to 1"
    return Cycled(matrices=[weights])


@pytest.mark.parametrize(
    ("plan", "rates"),
    [(RING, (0.1, 0.05)), (DIRECTED, (0.04, 0.03)), (Cycled(matrices=one_peer_exponential(8)), (0.1, 0.05))],
)
def test_tracking_reaches_the_optimum_whatever_the_step_size(plan: MixingPlan, rates: tuple[float, ...]) -> None:
    for rate in rates:
        found = descend(GradientTracking(learning_rate=rate), plan, LOSSES.gradient, START, 3_000)["params"]
        assert float((found - OPTIMUM).abs().max()) < 1e-10


@pytest.mark.parametrize(("plan", "rate"), [(RING, 0.3), (DIRECTED, 0.15)])
def test_as_long_as_it_is_small_enough(plan: MixingPlan, rate: float) -> None:
    found = descend(GradientTracking(learning_rate=rate), plan, LOSSES.gradient, START, 600)["params"]
    assert float((found - OPTIMUM).abs().max()) > 1.0, "models run away"


def test_push_diging_reaches_it_over_an_uneven_directed_overlay() -> None:
    found = descend(PushDIGing(learning_rate=0.05), uneven(), LOSSES.gradient, START, 4_000)
    assert float((found["params"] - OPTIMUM).abs().max()) < 1e-10
    assert float((found["weight"] - 1).abs().max()) > 0.1, "weights are what corrects"


def test_so_does_the_engine_on_its_executors() -> None:
    method = GradientTracking(learning_rate=0.12, batch_size=None)
    task = linear_task(CLIENTS)
    trial = SiloTrial(name="m", algorithm=method, population=CLIENTS, task=task, rounds=600, plan=RING, every=1000)
    with SiloSession(trial) as session:
        for _ in session:
            pass
    assert float((session.state["params"] - OPTIMUM).abs().max()) < 1e-10
    assert float((session.average - OPTIMUM).abs().max()) < 1e-10


@pytest.mark.parametrize(("method", "plan"), [(GradientTracking, RING), (PushDIGing, uneven())])
@given(seed=st.integers(0, 2**31), rounds=st.integers(1, 7), rate=st.floats(0.01, 0.3))
def test_trackers_sum_to_the_gradients(method: type, plan: MixingPlan, seed: int, rounds: int, rate: float) -> None:
    """Σ Y = Σ G(X), in every round, of any start and any gradients."""
    generator = torch.Generator().manual_seed(seed)
    state: State = method(learning_rate=rate).start(torch.randn(8, 3, dtype=torch.float64, generator=generator))
    algorithm = method(learning_rate=rate)
    for round in range(rounds):
        gradient = torch.randn(8, 3, dtype=torch.float64, generator=generator)
        trained = state["params"] - rate * gradient
        sent = algorithm.send(state, trained, rate)
        scale = max(1.0, float(state["params"].abs().max())) / rate
        difference = sent["tracker"].sum(dim=0) - gradient.sum(dim=0)
        assert float(difference.abs().max()) < 1e-13 * scale * (round + 1)
        weights = torch.as_tensor(plan.weights(round))
        state = algorithm.receive(state, trained, rate, sent, {name: weights @ part for name, part in sent.items()})


def test_over_doubly_stochastic_weights_push_diging_adapts_before_it_combines() -> None:
    """v stays 1: X ← W (X − η Y). The plain form combines first; both reach the same point by other ways."""
    plan = doubly_stochastic(8)
    found = descend(PushDIGing(learning_rate=0.1), plan, LOSSES.gradient, START, 20)
    torch.testing.assert_close(found["weight"], torch.ones(8, 1, dtype=torch.float64))
    weights = torch.as_tensor(plan.weights(0))
    models, trackers = START, LOSSES.gradient(START)
    for _ in range(20):
        after = weights @ (models - 0.1 * trackers)
        trackers = weights @ trackers + LOSSES.gradient(after) - LOSSES.gradient(models)
        models = after
    torch.testing.assert_close(found["params"], models)


def test_the_plain_form_is_the_published_recursion() -> None:
    weights = torch.as_tensor(RING.weights(0))
    models, trackers = START, LOSSES.gradient(START)
    for _ in range(20):
        after = weights @ models - 0.1 * trackers
        trackers = weights @ trackers + LOSSES.gradient(after) - LOSSES.gradient(models)
        models = after
    found = descend(GradientTracking(learning_rate=0.1), RING, LOSSES.gradient, START, 20)["params"]
    torch.testing.assert_close(found, models)


def test_noise_leaves_an_error_but_differing_data_leave_none() -> None:
    """Same noise, data of all silos alike or not: the error in the long run is the same size."""

    def error(losses: Quadratics) -> float:
        generator = torch.Generator().manual_seed(0)

        def gradient(params: Tensor) -> Tensor:
            return losses.gradient(params) + 0.1 * torch.randn(8, 3, dtype=torch.float64, generator=generator)

        ends = [descend(GradientTracking(learning_rate=0.05), RING, gradient, START, 400)["params"] for _ in range(4)]
        return float(np.mean([float((end - torch.as_tensor(losses.optimum)).square().mean()) for end in ends]))

    alike = Quadratics(np.stack([LOSSES.hessians.mean(axis=0)] * 8), np.stack([LOSSES.linear.mean(axis=0)] * 8))
    assert 0.5 < error(LOSSES) / error(alike) < 2


@pytest.mark.parametrize("method", [GradientTracking, PushDIGing])
def test_settings_out_of_range_are_refused(method: type) -> None:
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        method(learning_rate=-1)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        method(batch_size=0)

"""Stochastic gradient push: exact means over uneven directed overlays, and DPASGD where weights are even."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.decentralized.dpsgd import DPASGD
from rivage.decentralized.gradient_tracking import GradientTracking
from rivage.decentralized.mixing_plan import Cycled, balanced
from rivage.decentralized.push_sum import PushSum
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.algorithm import Phase
from rivage.graphs.mixing import pull_weights, push_weights
from rivage.testing.gossip import Quadratics, descend, doubly_stochastic
from rivage.testing.toys import linear_clients, linear_task

CLIENTS = linear_clients((9, 7, 12, 6, 8, 10, 5, 11), 3, seed=3)
LOSSES = Quadratics.of(CLIENTS)
START = torch.zeros(8, 3, dtype=torch.float64)
OPTIMUM = torch.as_tensor(LOSSES.optimum)

SHORTCUTS = np.roll(np.eye(8), 1, axis=1)
SHORTCUTS[[2, 4, 5], 0] = 1
UNEVEN = Cycled(matrices=[push_weights(SHORTCUTS)])
"""A directed ring with shortcuts into silo 0."""


def strong(seed: int) -> np.ndarray:
    """A directed ring with random arcs: strongly connected, degrees uneven."""
    rng = np.random.default_rng(seed)
    sends = np.maximum(np.roll(np.eye(8), 1, axis=1), rng.random((8, 8)) < 0.3)
    np.fill_diagonal(sends, 0)
    return np.asarray(sends)


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_without_training_silos_agree_on_the_exact_mean(seed: int) -> None:
    start = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    plan = Cycled(matrices=[push_weights(strong(seed))])
    after = descend(PushSum(), plan, torch.zeros_like, start, 500)
    assert float((after["params"] - start.mean(dim=0)).abs().max()) < 1e-10
    assert float(after["weight"].sum()) == pytest.approx(8, rel=1e-12)
    torch.testing.assert_close(after["mass"].sum(dim=0), start.sum(dim=0))


def test_plain_means_agree_on_something_else() -> None:
    start = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pulled = Cycled(matrices=[pull_weights(SHORTCUTS)])
    after = descend(DPASGD(), pulled, torch.zeros_like, start, 1_500)["params"]
    assert float((after - after.mean(dim=0)).abs().max()) < 1e-10, "they agree"
    assert float((after - start.mean(dim=0)).abs().max()) > 1e-2


def test_the_smaller_the_step_the_closer_to_the_optimum() -> None:
    distances = [
        float(
            (
                descend(PushSum(learning_rate=rate), UNEVEN, LOSSES.gradient, START, int(200 / rate))["params"]
                - OPTIMUM
            ).norm()
        )
        for rate in (0.1, 0.05, 0.025)
    ]
    assert 0.5 <= distances[1] / distances[0] <= 0.65
    assert 0.5 <= distances[2] / distances[1] <= 0.6


def test_steps_that_shrink_reach_it() -> None:
    """η of 4 / (20 + k) in round k: what is left falls with it, to nothing."""
    method, weights = PushSum(), torch.as_tensor(UNEVEN.weights(0))
    state, left = method.start(START), []
    for round in range(6_400):
        rate = 4 / (20 + round)
        trained = state["params"] - rate * LOSSES.gradient(state["params"])
        sent = method.send(state, trained, rate)
        state = method.receive(state, trained, rate, sent, {name: weights @ part for name, part in sent.items()})
        if round + 1 in (400, 1_600, 6_400):
            left.append(float((state["params"] - OPTIMUM).norm()))
    assert left[2] < 0.3 * left[1] < 0.09 * left[0]


@pytest.mark.parametrize("work", [Phase(updates=1, batch_size=3), Phase(epochs=2, batch_size=4)])
def test_with_doubly_stochastic_weights_it_is_dpasgd(work: Phase) -> None:
    task = linear_task(CLIENTS)
    ends = []
    for method in (PushSum(learning_rate=0.05, work=work), DPASGD(learning_rate=0.05, work=work)):
        trial = SiloTrial(
            name="m", algorithm=method, population=CLIENTS, task=task, rounds=20, plan=doubly_stochastic(8), every=50
        )
        with SiloSession(trial) as session:
            for _ in session:
                pass
        ends.append(session.state)
    torch.testing.assert_close(ends[0]["params"], ends[1]["params"], rtol=0, atol=1e-12)
    torch.testing.assert_close(ends[0]["weight"], torch.ones(8, 1, dtype=torch.float64), rtol=0, atol=1e-12)


def test_weights_grow_where_many_send_to() -> None:
    after = descend(PushSum(), UNEVEN, torch.zeros_like, START, 500)["weight"][:, 0]
    assert int(after.argmax()) == 0
    stationary = np.linalg.matrix_power(UNEVEN.weights(0), 2_000)[:, 0] * 8
    torch.testing.assert_close(after, torch.as_tensor(stationary))


def test_small_weights_take_large_steps_and_balanced_ones_do_not() -> None:
    """A chain of silos, of which each sends to all before it: the last has a weight of 1 / 2,000."""
    sends = np.tril(np.ones((8, 8)), -1) + np.eye(8, k=1)
    pushed, balancing = Cycled(matrices=[push_weights(sends)]), Cycled(matrices=[balanced(sends)])
    weights = descend(PushSum(), pushed, torch.zeros_like, START, 2_000)["weight"]
    assert float(weights.min()) < 1e-3
    ran_away = descend(PushSum(learning_rate=0.05), pushed, LOSSES.gradient, START, 500)["params"]
    assert not float((ran_away - OPTIMUM).abs().max()) < 1e3
    near = descend(DPASGD(learning_rate=0.05), balancing, LOSSES.gradient, START, 2_000)["params"]
    assert float((near - OPTIMUM).abs().max()) < 0.5, "biased by its step, no more"
    exact = descend(GradientTracking(learning_rate=0.05), balancing, LOSSES.gradient, START, 4_000)["params"]
    assert float((exact - OPTIMUM).abs().max()) < 1e-10


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="learning_rate is 0"):
        PushSum(learning_rate=0)

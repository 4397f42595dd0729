"""Exact diffusion reaches the optimum that diffusion misses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.decentralized.dpsgd import DPSGD
from rivage.decentralized.exact_diffusion import ExactDiffusion
from rivage.decentralized.mixing_plan import Cycled, Exact, MixingPlan
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.graphs.mixing import metropolis
from rivage.testing.gossip import Quadratics, descend, doubly_stochastic
from rivage.testing.toys import linear_clients, linear_task

CLIENTS = linear_clients((9, 7, 12, 6, 8, 10, 5, 11), 3, seed=3)
LOSSES = Quadratics.of(CLIENTS)
START = torch.zeros(8, 3, dtype=torch.float64)
OPTIMUM = torch.as_tensor(LOSSES.optimum)


def path() -> MixingPlan:
    return Cycled(matrices=[metropolis(np.eye(8, k=1) + np.eye(8, k=-1))])


@pytest.mark.parametrize(
    ("plan", "rounds"), [(doubly_stochastic(8), 2_000), (path(), 6_000), (Exact(silos=8, hub=0), 800)]
)
def test_the_optimum_is_reached_whatever_the_step_size(plan: MixingPlan, rounds: int) -> None:
    for rate in (0.2, 0.1):
        found = descend(ExactDiffusion(learning_rate=rate), plan, LOSSES.gradient, START, rounds)["params"]
        assert float((found - OPTIMUM).abs().max()) < 1e-10
    biased = DPSGD(learning_rate=0.2, order="adapt_then_combine")
    missed = descend(biased, path(), LOSSES.gradient, START, 2_000)["params"]
    assert float((missed - OPTIMUM).abs().max()) > 1e-2, "diffusion misses it"


def test_so_does_the_engine_on_its_executors() -> None:
    method = ExactDiffusion(learning_rate=0.3, batch_size=None)
    trial = SiloTrial(
        name="m",
        algorithm=method,
        population=CLIENTS,
        task=linear_task(CLIENTS),
        rounds=500,
        plan=doubly_stochastic(8),
        every=1000,
    )
    with SiloSession(trial) as session:
        for _ in session:
            pass
    assert float((session.state["params"] - OPTIMUM).abs().max()) < 1e-10


def test_it_is_the_published_recursion() -> None:
    weights = (torch.eye(8, dtype=torch.float64) + torch.as_tensor(path().weights(0))) / 2
    models = before = START
    for _ in range(15):
        adapted = models - 0.1 * LOSSES.gradient(models)
        models, before = weights @ (adapted + models - before), adapted
    found = descend(ExactDiffusion(learning_rate=0.1), path(), LOSSES.gradient, START, 15)["params"]
    torch.testing.assert_close(found, models)


@given(seed=st.integers(0, 2**31), rounds=st.integers(1, 7))
def test_models_sum_to_what_the_adapted_ones_summed_to(seed: int, rounds: int) -> None:
    """Σ X = Σ Ψ of the round before, of any start and any gradients: why no gradient is lost."""
    generator = torch.Generator().manual_seed(seed)

    def gradient(params: Tensor) -> Tensor:
        return torch.randn(8, 3, dtype=torch.float64, generator=generator)

    start = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    state = descend(ExactDiffusion(), path(), gradient, start, rounds)
    torch.testing.assert_close(state["params"].sum(dim=0), state["adapted"].sum(dim=0))


def test_over_a_directed_ring_it_would_not_converge() -> None:
    """Why symmetric weights are asked for: half of a directed ring and half of oneself, and models run away."""
    ring = Cycled(matrices=[(np.eye(8) + np.roll(np.eye(8), 1, 0)) / 2])
    found = descend(ExactDiffusion(learning_rate=0.2), ring, LOSSES.gradient, START, 4_000)["params"]
    assert not bool(torch.isfinite(found).all()) or float((found - OPTIMUM).abs().max()) > 1e-3


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="learning_rate is 0"):
        ExactDiffusion(learning_rate=0)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        ExactDiffusion(batch_size=0)

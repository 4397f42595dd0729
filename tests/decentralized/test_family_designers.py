"""Families and sequences as designers: their graphs, their exact means, and their cycle times by simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.decentralized import Silos
from rivage.decentralized.family_designers import Family, Sequence
from rivage.decentralized.mixing_plan import Cycled, fixed
from rivage.decentralized.pace import Pace

DEGREES = {"complete": 7, "directed_ring": 1, "exponential": 3, "hypercube": 3, "path": 2, "ring": 2, "torus": 3}


@pytest.mark.parametrize("family", DEGREES)
def test_families_have_the_degrees_of_their_name(square_of: Callable[..., Silos], family: Any) -> None:
    design = Family(family=family).design(square_of(0, 8))
    assert design.max_degree == DEGREES[family]
    weights = fixed(design.overlay).weights(0)
    assert np.allclose(weights.sum(axis=0), 1)
    assert np.allclose(weights.sum(axis=1), 1)


def test_random_regular_graphs_follow_their_seed(square_of: Callable[..., Silos]) -> None:
    silos = square_of(0, 10)
    arcs = [Family(family="random_regular", degree=3).design(silos, seed=seed).overlay.arcs for seed in (0, 0, 1)]
    assert np.array_equal(arcs[0], arcs[1])
    assert not np.array_equal(arcs[0], arcs[2])
    assert (np.bincount(arcs[0][:, 0]) == 3).all()


@pytest.mark.parametrize(
    ("sequence", "silos"), [(Sequence(), 8), (Sequence(family="base"), 7), (Sequence(family="base", degree=2), 9)]
)
def test_sequences_end_in_the_exact_mean(square_of: Callable[..., Silos], sequence: Sequence, silos: int) -> None:
    plan = sequence.plan(silos)
    assert isinstance(plan, Cycled)
    together = np.eye(silos)
    for round in range(len(plan.matrices)):
        together = plan.weights(round) @ together
        assert np.bincount(plan.arcs(round)[:, 0]).max() <= sequence.degree
    assert np.abs(together - 1 / silos).max() < 1e-12
    design = sequence.design(square_of(0, silos))
    assert design.spectral_gap > 0.999
    assert design.drawn


@pytest.mark.parametrize("sequence", [Sequence(), Sequence(family="base", degree=2)])
@pytest.mark.parametrize("access", [np.inf, 1e8])
def test_the_cycle_time_of_a_sequence_is_that_of_many_rounds(
    square_of: Callable[..., Silos], sequence: Sequence, access: float
) -> None:
    silos = square_of(3, 8, access_bps=access)
    plan = sequence.plan(8)
    assert isinstance(plan, Cycled)
    pace, starts, period = Pace(silos=silos, plan=plan), np.zeros(8), 40 * len(plan.matrices)
    times = []
    for round in range(2 * period):
        times.append(starts.mean())
        starts = pace.after(round, starts)
    measured = (starts.mean() - times[period]) / period
    assert sequence.design(silos).cycle_time_ms == pytest.approx(measured, rel=1e-2)


@pytest.mark.parametrize("design", [Family(family="ring"), Family(), Sequence(), Sequence(family="base")])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_silos(square_of: Callable[..., Silos], design: Any, count: int) -> None:
    silos = square_of(0, count)
    found = design.design(silos)
    assert len(found.overlay) == count
    assert found.cycle_time_ms >= 10 - 1e-9, "the local step"


def test_what_does_not_exist_is_refused(square_of: Callable[..., Silos]) -> None:
    with pytest.raises(ConfigError, match="a hypercube over 6 silos"):
        Family(family="hypercube").design(square_of(0, 6))
    with pytest.raises(ConfigError, match="has degree 3 at each"):
        Family(family="random_regular", degree=3).design(square_of(0, 5))
    with pytest.raises(ConfigError, match='family is "wheel"'):
        Family(family="wheel")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="degree is 0"):
        Sequence(degree=0)

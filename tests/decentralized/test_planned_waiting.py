"""Arcs that change from round to round, under random times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.decentralized import Overlay, Silos, matcha_law
from rivage.decentralized.clock import Clock, start_times
from rivage.decentralized.mixing_plan import Cycled, Drawn, Exact, fixed
from rivage.decentralized.pace import Pace
from rivage.decentralized.planned_waiting import Planned
from rivage.decentralized.stragglers import iteration_times
from rivage.decentralized.time_laws import Constant, Exponential, Uniform
from rivage.decentralized.waiting import Waits
from rivage.graphs.families import one_peer_exponential

SquareOf = Callable[..., Silos]


@given(st.integers(0, 10**6), st.integers(2, 7))
@hypothesis_settings(max_examples=30)
def test_a_plan_that_stays_is_its_overlay(square_of: SquareOf, seed: int, nodes: int) -> None:
    silos = square_of(seed, nodes, access_bps=1e9, symmetric=False)
    overlay = Overlay.ring(silos, np.random.default_rng(seed).permutation(nodes))
    times = Clock(law=Uniform(), transfer=Exponential())
    plan = Planned(silos=silos, plan=fixed(overlay))
    one, other = (start_times(graph, times, 12, seed=seed) for graph in (plan, Waits.of_overlay(overlay)))
    assert np.allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["matcha", "one peer"])
def test_without_chance_it_is_the_pace_of_the_plan(square_of: SquareOf, kind: str, together: bool) -> None:
    silos = square_of(5, 8, access_bps=5e8)
    law = matcha_law(silos)
    plan = Drawn(law=law, seed=3) if kind == "matcha" else Cycled(matrices=one_peer_exponential(8))
    found = start_times(Planned(silos=silos, plan=plan, together=together), Clock(law=Constant()), 40)
    pace, now = Pace(silos=silos, plan=plan, together=together), np.zeros(8)
    for k in range(40):
        assert np.allclose(found[k], now, rtol=1e-12)
        now = pace.after(k, now)


def test_mean_times_of_drawn_overlays(square_of: SquareOf) -> None:
    """Without chance in the times the published mean of a round, but for drawn rounds; each replication has its own."""
    silos = square_of(2, 6)
    law = matcha_law(silos)
    graphs = {
        together: Planned(silos=silos, plan=Drawn(law=law, seed=0), together=together) for together in (True, False)
    }
    steady = iteration_times({"": graphs[True]}, Clock(law=Constant()), rounds=300, warm_up=0, replications=5)[""]
    expected = law.expected_ms()
    assert expected is not None
    assert steady.low < steady.high
    assert steady.mean == pytest.approx(expected, rel=0.02)
    random = {
        together: iteration_times({"": graph}, Clock(), rounds=150, replications=5)[""].mean
        for together, graph in graphs.items()
    }
    assert random[False] < random[True]
    assert random[True] > expected


def test_plans_that_are_refused(square_of: SquareOf) -> None:
    silos = square_of(0, 4)
    with pytest.raises(ConfigError, match="a plan of 4 silos through a hub"):
        Planned(silos=silos, plan=Exact(silos=4, hub=0))
    with pytest.raises(ConfigError, match="a plan of 8 silos"):
        Planned(silos=silos, plan=Cycled(matrices=one_peer_exponential(8)))

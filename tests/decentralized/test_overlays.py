"""Overlays: delays by hand, cycle times published, and what is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.decentralized import Overlay, Silos, critical_cycle, cycle_time_ms, start_times_ms
from rivage.graphs import Connectivity


def trio(**changes: Any) -> Silos:
    every = Connectivity(
        names=("a", "b", "c"),
        latency_ms=np.array([[0.0, 10, 20], [11, 0, 30], [21, 31, 0]]),
        available_bps=np.array([[np.inf, 1e9, 1e8], [1e9, np.inf, 1e9], [1e9, 1e9, np.inf]]),
        name="trio",
    )
    plain = {"model_bits": 1e6, "step_ms": [1, 2, 3], "access_bps": [1e8, 1e9, 1e9], "access_down_bps": [1e9, 2e8, 1e9]}
    return Silos.of(every, **{**plain, **changes})


def test_delays_by_hand() -> None:
    """A sends to two over 100 Mb/s: 20 ms; b receives from two over 200 Mb/s: 10 ms; else the core: 1 ms."""
    overlay = Overlay.of(trio(local_steps=2), [(0, 1), (0, 2), (2, 1), (1, 0)])
    assert overlay.out_degrees.tolist() == [2, 1, 1]
    assert overlay.in_degrees.tolist() == [1, 2, 1]
    assert overlay.delays_ms.tolist() == [2 + 10 + 20, 2 + 20 + 20, 6 + 31 + 10, 4 + 11 + 1]
    none = -np.inf
    assert overlay.delay_matrix_ms.tolist() == [[2, 32, 42], [16, 4, none], [none, 47, 6]]
    assert overlay.max_degree == 2
    assert cycle_time_ms(overlay) == (42 + 47 + 16) / 3
    assert critical_cycle(overlay).circuit == (0, 2, 1)
    assert trio().single_delays_ms().tolist() == [[1, 21, 31], [14, 2, 33], [25, 39, 3]]
    assert trio().single_delays_ms(access=False).tolist() == [[1, 12, 31], [14, 2, 33], [25, 35, 3]]


def test_a_slow_silo_sets_the_pace_alone() -> None:
    overlay = Overlay.links(trio(step_ms=[1, 1000, 1]), [(0, 1), (1, 2)])
    assert critical_cycle(overlay).circuit == (1,) or cycle_time_ms(overlay) > 1000
    lazy = Overlay.links(trio(step_ms=[1e4, 1, 1], model_bits=1), [(0, 1), (1, 2)])
    assert critical_cycle(lazy).circuit == (0,)
    assert cycle_time_ms(lazy) == 1e4


def test_one_silo_and_two() -> None:
    every = Connectivity(names=("a",), latency_ms=np.zeros((1, 1)), available_bps=np.full((1, 1), np.inf))
    alone = Overlay.ring(Silos.of(every, model_bits=1, step_ms=7, local_steps=3), [0])
    assert (cycle_time_ms(alone), critical_cycle(alone).circuit, alone.max_degree) == (21, (0,), 0)
    pair = trio().reordered(np.array([2, 0]))
    assert pair.names == ("c", "a")
    ring, link = Overlay.ring(pair, [0, 1]), Overlay.links(pair, [(0, 1)])
    assert ring.arcs.tolist() == link.arcs.tolist()
    assert cycle_time_ms(ring) == (25 + 31) / 2


ARCS = """Virginia>California Virginia>Frankfurt Virginia>Sao California>Virginia Oregon>California Dublin>Frankfurt
Frankfurt>Dublin Frankfurt>Mumbai Tokyo>Oregon Tokyo>Dublin Tokyo>Sydney Seoul>Tokyo Singapore>Mumbai Sydney>Singapore
Mumbai>Seoul Sao>Dublin"""


@pytest.mark.parametrize(("access_bps", "cycle_ms"), [(1e10, 116.462), (1e9, 160.621), (1e8, 1162.716)])
def test_a_directed_overlay_of_gaia(silos_of: Callable[..., Silos], access_bps: float, cycle_ms: float) -> None:
    silos = silos_of("Gaia", access_bps=access_bps)
    full = {name.split()[0]: name for name in silos.names}
    overlay = Overlay.named(silos, [(full[a], full[b]) for a, b in (arc.split(">") for arc in ARCS.split())])
    assert cycle_time_ms(overlay) == pytest.approx(cycle_ms, abs=1e-3)
    assert overlay.arc_names()[2] == ("Virginia", "Sao Paulo")
    rounds = start_times_ms(overlay, 20_000)
    assert np.allclose(rounds[-1] / 20_000, cycle_ms, rtol=1e-4)


@given(st.integers(0, 10**6))
def test_order_of_silos_and_of_arcs_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arcs = np.array([(0, 1), (0, 2), (2, 1), (1, 0)])
    order = rng.permutation(3)
    moved = Overlay.of(trio().reordered(order), np.argsort(order)[rng.permutation(arcs)].tolist())
    assert cycle_time_ms(moved) == pytest.approx(cycle_time_ms(Overlay.of(trio(), arcs.tolist())), rel=1e-12)


@pytest.mark.parametrize(
    ("arcs", "message"),
    [
        ([(0, 1), (1, 2)], r'overlay "overlay": not strongly connected: no path from "b" to "a"'),
        ([], "not strongly connected"),
        ([(0, 1), (1, 0), (1, 1), (1, 2), (2, 1)], '"b" sends to itself'),
        ([(0, 1), (1, 0), (1, 2), (2, 1), (0, 1)], '"a" sends to "b" twice'),
        ([(0, 3)], "arc 0→3 leaves the nodes"),
    ],
)
def test_what_is_no_overlay_is_refused(arcs: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Overlay.of(trio(), arcs)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match='no silo "d"'):
        Overlay.named(trio(), [("a", "d")])
    with pytest.raises(ConfigError, match="arcs are float64"):
        Overlay(silos=trio(), arcs=np.zeros((2, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_bits": 0}, "model_bits is 0"),
        ({"local_steps": -1}, "local_steps is -1"),
        ({"step_ms": [1, 2]}, r"step_ms has shape \(2,\)"),
        ({"step_ms": [1, -2, 3]}, 'step_ms of "b" is -2'),
        ({"access_bps": 0, "access_down_bps": -1}, 'access_up_bps of "a" is 0'),
        ({"access_down_bps": [1, 1, np.nan]}, 'access_down_bps of "c" is nan'),
    ],
)
def test_silos_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trio(**changes)


def test_bandwidths_are_needed() -> None:
    bare = Connectivity(names=("a",), latency_ms=np.zeros((1, 1)))
    with pytest.raises(ConfigError, match="available_bps is not known"):
        Silos.of(bare, model_bits=1, step_ms=1)

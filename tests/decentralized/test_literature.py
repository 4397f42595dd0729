"""The contenders side by side, and what goes into a report."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from rivage.decentralized import Silos, contenders, cycle_time_ms
from rivage.graphs import Underlay


def test_every_contender_says_what_it_is_worth(
    silos_of: Callable[..., Silos], underlay_of: Callable[[str], Underlay]
) -> None:
    silos = silos_of("Geant")
    designs = contenders(silos, underlay_of("Geant").edges.tolist())
    assert list(designs) == ["star", "star_best", "mst", "delta_mbst", "ring", "ring_2opt", "matcha", "matcha_plus"]
    for name, design in designs.items():
        said = json.loads(json.dumps(design.plain()))
        assert said["cycle_time_ms"] > 0
        assert said["max_degree"] >= 1
        assert 0 < said["spectral_gap"] <= 1
        assert (said["hub"] is not None) == name.startswith("star")
        assert bool(said["critical_circuit"]) != name.startswith("matcha")
        assert {end for arc in said["arcs"] for end in arc} == set(silos.names)
    assert min(designs, key=lambda name: designs[name].cycle_time_ms) == "ring_2opt"


@pytest.mark.parametrize(("access_bps", "best"), [(1e9, "ring_2opt"), (1e8, "ring_2opt")])
def test_slow_access_favours_rings(silos_of: Callable[..., Silos], access_bps: float, best: str) -> None:
    for network in ("Gaia", "AWS", "Geant"):
        designs = contenders(silos_of(network, access_bps=access_bps))
        assert "matcha_plus" not in designs
        times = {name: design.cycle_time_ms for name, design in designs.items()}
        assert times[best] == min(times.values())
        assert all(
            design.cycle_time_ms == cycle_time_ms(design.overlay)
            for name, design in designs.items()
            if not name.startswith(("star", "matcha"))
        )


def test_a_single_silo_has_no_matcha(square_of: Callable[..., Silos]) -> None:
    assert "matcha" not in contenders(square_of(0, 1))
    assert contenders(square_of(0, 1))["mst"].cycle_time_ms == 10

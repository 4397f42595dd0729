"""The tables ``[silos]`` and ``[underlay]``: numbers that become silos, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.core.settings import dump, read
from rivage.decentralized.silo_settings import Matrices, SiloSettings
from rivage.graphs import Underlay
from rivage.graphs.underlay_files import parse_underlay


def line(**more: Any) -> Underlay:
    return Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], **more)


def test_distances_alone_go_by_the_published_rule() -> None:
    silos = SiloSettings(model_bits=1e6, step_ms=5).silos(line(distance_km=[1000, 3000]))
    assert silos.connectivity.latency_ms[0, 1] == pytest.approx(0.0085 * 1000 + 4)
    assert silos.connectivity.latency_ms[0, 2] == pytest.approx(0.0085 * 4000 + 4)
    assert silos.connectivity.available_bps is not None
    assert silos.connectivity.available_bps[0, 2] == 5e8, "1 Gbit/s over two hops"
    assert np.isinf(silos.access_up_bps).all()


def test_latencies_of_links_go_by_the_links() -> None:
    known = line(distance_km=[1000, 3000], latency_ms=[1, 2], capacity_bps=[1e9, 4e8])
    silos = SiloSettings(model_bits=1e6).silos(known)
    assert silos.connectivity.latency_ms[0, 2] == 3
    assert silos.connectivity.available_bps is not None
    assert silos.connectivity.available_bps[0, 2] == 4e8
    one = SiloSettings(model_bits=1e6, core_bps=7e8).silos(known)
    assert one.connectivity.available_bps is not None
    assert one.connectivity.available_bps[0].tolist() == [np.inf, 7e8, 7e8], "one capacity for all"
    published = SiloSettings(model_bits=1e6, paths="published", core_bps=2e9).silos(known)
    assert published.connectivity.latency_ms[0, 1] == pytest.approx(12.5)
    assert published.connectivity.available_bps is not None
    assert published.connectivity.available_bps[0, 2] == 1e9


def test_coordinates_give_lengths_over_the_globe() -> None:
    placed = replace(line(), coordinates=np.array([[48.86, 2.35], [51.51, -0.13], [40.71, -74.01]]))
    silos = SiloSettings(model_bits=1e6).silos(placed)
    assert silos.connectivity.latency_ms[0, 1] == pytest.approx(0.0085 * 343 + 4, abs=0.01)  # Paris, London
    with pytest.raises(ConfigError, match="neither latencies nor lengths"):
        SiloSettings(model_bits=1e6).silos(line())


def test_access_rates_are_the_studys_else_the_networks_else_unlimited() -> None:
    known = line(latency_ms=1, capacity_bps=1e9, access_bps=[1e6, 2e6, 3e6])
    assert SiloSettings(model_bits=1).silos(known).access_down_bps.tolist() == [1e6, 2e6, 3e6]
    slow = replace(known, access_down_bps=np.array([4e6, 5e6, 6e6]))
    assert SiloSettings(model_bits=1).silos(slow).access_up_bps.tolist() == [1e6, 2e6, 3e6]
    assert SiloSettings(model_bits=1).silos(slow).access_down_bps.tolist() == [4e6, 5e6, 6e6]
    told = SiloSettings(model_bits=1, access_bps=5e6).silos(known)
    assert told.access_up_bps.tolist() == told.access_down_bps.tolist() == [5e6] * 3
    apart = SiloSettings(model_bits=1, access_bps=5e6, access_down_bps=(1.0, 2.0, 3.0)).silos(known)
    assert apart.access_up_bps.tolist() == [5e6] * 3
    assert apart.access_down_bps.tolist() == [1.0, 2.0, 3.0]


def test_the_size_of_a_model_that_is_trained_fills_in() -> None:
    known = line(latency_ms=1, capacity_bps=1e9)
    assert SiloSettings().silos(known, 32e3).model_bits == 32e3
    assert SiloSettings(model_bits=7).silos(known, 32e3).model_bits == 7
    with pytest.raises(ConfigError, match="the size of the model is not known"):
        SiloSettings().silos(known)


def test_matrices_keep_their_directions(tmp_path: Path) -> None:
    (tmp_path / "ms.csv").write_text("ms,a,b\na,,10\nb,30,\n")
    (tmp_path / "rate.csv").write_text("Mbit,b,a\na,5,\nb,,7\n")
    table = {"latency": str(tmp_path / "ms.csv"), "bandwidth": str(tmp_path / "rate.csv")}
    table |= {"bandwidth_unit": "Mbit/s", "measured": "latency_ms"}
    silos = SiloSettings(model_bits=1e6).silos(read(Matrices, table).build())
    assert silos.connectivity.latency_ms.tolist() == [[0, 10], [30, 0]]
    assert silos.delay_ms(np.array([[0, 1], [1, 0]])).tolist() == pytest.approx([10 + 200, 30 + 1000 / 7])


@pytest.mark.parametrize("told", [{"core_bps": 1e9}, {"paths": "links"}])
def test_rules_for_links_are_refused_where_every_pair_was_measured(tmp_path: Path, told: dict[str, Any]) -> None:
    (tmp_path / "cells.csv").write_text("x,a,b\na,,10\nb,30,\n")
    measured = Matrices(latency=tmp_path / "cells.csv", bandwidth=tmp_path / "cells.csv").build()
    with pytest.raises(ConfigError, match="has no links"):
        SiloSettings(model_bits=1e6, **told).silos(measured)


def test_the_first_cell_of_a_matrix_may_name_its_unit(tmp_path: Path) -> None:
    (tmp_path / "ms.csv").write_text("ms,a,b\na,,10\nb,30,\n")
    (tmp_path / "rate.csv").write_text("Mbps;a;b\na;;5\nb;7;\n")
    files = {"latency": tmp_path / "ms.csv", "bandwidth": tmp_path / "rate.csv"}
    between = Matrices(**files).build()
    assert between.available_bps is not None
    assert between.available_bps[0, 1] == 5e6
    with pytest.raises(ConfigError, match="first cell says Mbit/s, and bandwidth_unit is Gbit/s"):
        Matrices(**files, bandwidth_unit="Gbit/s").build()


def test_sites_with_coordinates_and_no_links_are_linked_every_two(tmp_path: Path) -> None:
    places = {"Paris": (48.86, 2.35), "London": (51.51, -0.13), "Rome": (41.9, 12.5)}
    nodes = [f'[[nodes]]\nname = "{n}"\nlatitude = {a}\nlongitude = {b}\n' for n, (a, b) in places.items()]
    sites = parse_underlay("".join(nodes))
    assert len(sites.edges) == 3
    latency = SiloSettings(model_bits=1).silos(sites).connectivity.latency_ms
    assert latency[0, 1] == pytest.approx(0.0085 * 343 + 4, abs=0.01)


def test_settings_come_back_from_their_table() -> None:
    settings = SiloSettings(model_bits=3, step_ms=(1.0, 2.0), access_bps=1e9, paths="links")
    assert read(SiloSettings, dump(settings)) == settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model_bits": 0}, "model_bits is 0"),
        ({"step_ms": -1.0}, "step_ms is -1"),
        ({"step_ms": (1.0, float("nan"))}, "step_ms is nan"),
        ({"access_bps": 0.0}, "access_bps is 0"),
        ({"access_down_bps": (1.0, -2.0)}, "access_down_bps is -2"),
        ({"core_bps": -1}, "core_bps is -1"),
        ({"local_steps": -1}, "local_steps is -1"),
        ({"paths": "shortest"}, 'paths is "shortest"'),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SiloSettings(**given)


def test_work_is_local_steps_of_each_silo() -> None:
    known = line(latency_ms=1, capacity_bps=1e9)
    assert SiloSettings(model_bits=1, step_ms=(1.0, 2.0, 3.0), local_steps=4).silos(known).work_ms.tolist() == [
        4,
        8,
        12,
    ]


def test_one_number_for_each_silo_must_be_as_many() -> None:
    with pytest.raises(ConfigError, match="step_ms has 2 numbers for 3 silos"):
        SiloSettings(model_bits=1, step_ms=(1.0, 2.0)).silos(line(latency_ms=1, capacity_bps=1e9))

"""benchmarks/design: its networks, its peers, how bars are judged, and what its tables say. No clock."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest

from rivage.graphs import max_cycle_mean

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def design() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark, which is no installed package."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.design import __main__ as driver
        from benchmarks.design import networks, parts, peers, results, tables

        yield SimpleNamespace(
            driver=driver, networks=networks, parts=parts, peers=peers, results=results, tables=tables
        )
    finally:
        sys.path.remove(str(ROOT))


def test_random_networks_are_connected_and_as_dense_as_is_said(design: SimpleNamespace) -> None:
    sizes = design.parts.random_sizes(50)
    assert (sizes[0], sizes[-1], len(sizes)) == (10, 90, 50)
    links = []
    for seed in (0, 1, 24, 49):
        underlay, silos = design.networks.random_silos(seed, sizes[seed])
        assert nx.is_connected(nx.Graph(underlay.edges.tolist()))
        assert len(silos) == len(underlay) == sizes[seed]
        assert np.array_equal(underlay.edges, design.networks.random_silos(seed, sizes[seed])[0].edges)
        links.append(2 * len(underlay.edges) / len(underlay))
    assert 3 < links[3] < 7  # Waxman, and the tree
    assert {design.networks.random_silos(seed, 10)[1].access_up_bps[0] for seed in range(3)} == {1e8, 1e9, 1e10}


def test_peers_find_the_same_mean(design: SimpleNamespace) -> None:
    delays = np.random.default_rng(0).uniform(1, 10, (12, 12))
    ours = max_cycle_mean(delays).mean
    assert design.peers.karp_numpy(delays) == pytest.approx(ours, rel=1e-12)
    assert design.peers.bisection_networkx(delays) == pytest.approx(ours, rel=1e-5)


def play_of(found: float, bound: float, **changes: Any) -> dict[str, Any]:
    plain = {"found_ms": found, "bound_ms": bound, "bound_s": 1.0, "search_s": 60.0, "classical_s": 2.0}
    more = {"classical": {"ring": found * 1.1, "matcha": found * 2, "star_best": 9e3}, "nodes": 12}
    return {**plain, **more, "access_bps": 1e9, "arcs": 12, "max_degree": 2, **changes}


def test_bars_are_judged_by_medians(design: SimpleNamespace) -> None:
    plays = {str(k): play_of(found, 114.2) for k, found in enumerate((116.4, 116.46, 130.0))}
    slow = play_of(100.0, 90.0)
    slow["classical"] = {"ring": 99.0, "matcha": 200.0, "star_best": 1000.0}
    report = {"published": {"Gaia": plays}, "slow access": {"Gaia, 1 Gb/s": slow}}
    bars = {bar["claim"]: bar for bar in design.results.judged(report)}
    assert bars["Gaia: median cycle time of the seeds, ms"]["met"] is True
    assert bars["Gaia: bound, ms"]["met"] is True
    assert bars["slow access: to the best of the literature, worst"]["met"] is False
    assert bars["Géant: bound, ms"]["met"] is None
    assert design.results.best_classical(slow) == ("ring", 99.0)
    assert design.results.spent({"bound_s": 4.0}, "bound") == 4.0
    assert design.results.spent({"bound_s": 4.0, "bound_cpu_s": 1.5}, "bound") == 1.5


def test_tables_say_what_was_measured(design: SimpleNamespace) -> None:
    report = {
        "published": {"Gaia": {"0": play_of(116.46, 114.03)}},
        "slow access": {"Gaia, 1 Gb/s": play_of(118.1, 114.03)},
        "random": {"0": play_of(60.0, 60.0), "1": play_of(66.0, 60.0)},
        "cycle mean": {"seconds": {"Howard": 0.0005}},
    }
    tables = design.tables.all_tables(json.loads(json.dumps(report)))
    assert "| Gaia | 116.460 | 116.460 – 116.460 | 114.030 | 2.13 % | 12 · 2 | 1.0 + 60 s |" in next(
        iter(tables.values())
    )
    assert (
        "| Gaia, 1 Gb/s | 118.10 | 129.91 `ring` | 9.1 % | 9000 | 236 | 114.03 | 3.57 % |"
        in tables["overlay-design-access"]
    )
    assert "| all | 2 | 5.00 · 10.00 % |" in tables["overlay-design-random"]
    assert "Howard | 0.50 ms |" in tables["overlay-design-times"]
    assert "| Géant: bound, ms | ≥ 81.8 | not measured | not measured |" in tables["overlay-design-bars"]


def test_numbers_are_read(design: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert design.driver._numbers("0-2,7") == [0, 1, 2, 7]
    out = tmp_path / "out.json"
    assert design.driver.main(["--parts", "random", "--networks", "0", "--seconds", "0.2", "--json", str(out)]) == 0
    assert design.driver.main(["--parts", "random", "--networks", "1", "--seconds", "0.2", "--json", str(out)]) == 0
    assert set(json.loads(out.read_text(encoding="utf-8"))["random"]) == {"0", "1"}
    assert "| 1 Gb/s, 10 to 49 silos | 1 |" in capsys.readouterr().out

"""benchmarks/caching: that all serve the same requests, how bars are judged, and what its tables say. No clock."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rivage.core.seeding import Streams
from rivage.online.eviction import LRU
from rivage.online.ogb import OGB
from rivage.online.policy import CacheInstance

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def speed() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark, which is no installed package."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.caching import __main__ as driver
        from benchmarks.caching import race, results, tables

        yield SimpleNamespace(driver=driver, race=race, results=results, tables=tables)
    finally:
        sys.path.remove(str(ROOT))


@pytest.mark.process
def test_a_small_run_counts_hits_and_insertions(
    speed: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    speed.driver.main(["--sizes", "3", "--requests", "5000", "--plays", "2", "--json", str(out)])
    report = json.loads(out.read_text(encoding="utf-8"))
    lanes = report["sizes"]["1000"]
    assert all(len(lane["seconds"]) == 2 for lane in lanes.values())
    assert lanes["OGB"]["requests"] == 4000
    speed.race.write_trace(tmp_path, 1000, 5000)
    requests = np.load(tmp_path / "trace.npy")
    instance = CacheInstance(items=1000, capacity=10, horizon=5000)
    for policy, label in ((OGB(), "OGB"), (LRU(), "LRU")):
        outcome = policy.run_block(policy.init(instance, Streams(0)), requests)
        assert (lanes[label]["hits"], lanes[label]["inserted"]) == (outcome.hits, outcome.inserted)
    printed = capsys.readouterr().out
    assert "| libCacheSim LRU | not measured |" in printed
    assert "| OGB, requests/s at N = 10^6 | ≥ 1,500,000 | not measured | not measured |" in printed


@pytest.mark.process
def test_who_fails_or_takes_too_long_is_out_with_the_reason(speed: SimpleNamespace, tmp_path: Path) -> None:
    speed.race.write_trace(tmp_path, 100, 3000)
    lanes = [speed.race.Lane(label, sys.executable) for label in ("LRU", "nobody", "OGB by full projection")]
    lanes[2].share = 1000.0  # more than it can do in time

    speed.race.race(lanes[:2], tmp_path, 3000, 1, 60, lambda text: None)
    assert len(lanes[0].plays) == 1
    assert "KeyError: 'nobody'" in lanes[1].fault
    speed.race.race(lanes[2:], tmp_path, 3000, 1, 0.001, lambda text: None)
    assert lanes[2].fault == "over 0.001 s"


def test_the_trace_is_the_same_for_all(speed: SimpleNamespace, tmp_path: Path) -> None:
    speed.race.write_trace(tmp_path, 500, 20_000)
    numbers = np.load(tmp_path / "trace.npy")
    kind = [("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "trace.oracleGeneral", kind)["id"], numbers)
    counts = np.sort(np.bincount(numbers, minlength=500))[::-1]
    wanted = 20_000 * np.arange(1, 501) ** -0.8 / (np.arange(1, 501) ** -0.8).sum()
    np.testing.assert_allclose(counts[:5], wanted[:5], rtol=0.15)


def lanes_of(**rates: float) -> dict[str, dict[str, object]]:
    names = {"ogb": "OGB", "object": "NoRegretCache, one by one", "theirs": "libCacheSim LRU"}
    return {
        names[name]: {"seconds": [1e6 / rate, 1e6 / rate, 9.0], "requests": 1e6, "hits": 5, "share": 1.0}
        for name, rate in rates.items()
    }


def test_bars_are_judged(speed: SimpleNamespace) -> None:
    results = {
        "10000": lanes_of(ogb=4e6, theirs=8e6),
        "1000000": lanes_of(ogb=2e6, object=0.2e6, theirs=4e6),
        "10000000": lanes_of(ogb=1e6, theirs=4e6),
    }
    found = [(bar["measured"], bar["verdict"]) for bar in speed.results.judged(results)]
    assert found == [
        (pytest.approx(2e6), "met"),
        (pytest.approx(4), "not met"),
        (pytest.approx(2), "not met"),
        (pytest.approx(0.2e6), "not met"),
        (pytest.approx(0.5), "not as wanted"),
    ]
    assert {bar["verdict"] for bar in speed.results.judged({})} == {"not measured"}


def test_other_hits_than_ours_are_noticed(speed: SimpleNamespace) -> None:
    lane = {"hits": 5, "share": 1.0}
    results = {"100": {"LRU": lane, "libCacheSim LRU": lane, "cachetools LRU": {"hits": 2, "share": 0.2}}}
    assert speed.results.strays(results) == []
    results["100"]["libCacheSim LRU"] = {"hits": 6, "share": 1.0}
    assert len(speed.results.strays(results)) == 1


def test_tables_and_the_page_have_the_same_names(speed: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    report = {
        "sizes": {"10000": lanes_of(ogb=4e6) | {"LRU": {"fault": "lost"}}},
        "bars": speed.results.judged({}),
        "machine": {"cpu": "x", "load_before": 0.0, "python": "3"},
        "versions": {},
        "requests": 100,
        "plays": 3,
        "command": "",
    }
    for lane in report["sizes"]["10000"].values():
        lane |= {"inserted": None, "bytes": 2**20}
    text = speed.tables.PAGE.read_text(encoding="utf-8")
    for name, table in speed.tables.all_tables(report).items():
        assert f"<!-- table {name} -->" in text
        assert "| OGB | " in table or "bar" in table
    assert speed.tables.figure(report).startswith("<svg")

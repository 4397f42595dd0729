"""`rivage design` as a user meets it: published tables through the command line, JSON, wrong networks, texts.

``design_texts.txt`` holds what is said of wrong networks. After a wanted change, look at what
``UPDATE_TEXTS=1 pytest tests/cli/test_design.py`` writes there, and commit it.
"""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from rivage.cli.app import main
from rivage.core.records import RunRecord

TEXTS = Path(__file__).with_name("design_texts.txt")
TABLE = {  # iNaturalist, 10 Gb/s: Marfoq et al. 2020, Table 3, and what is left out there
    "gaia": {"star": 390.9, "star_best": 349.9, "mst": 138.1, "delta_mbst": 138.1, "ring": 118.1},
    "amazon_us": {"star": 288.1, "star_best": 270.6, "mst": 89.7, "delta_mbst": 89.7, "ring": 81.4},
    "geantdistance": {"star": 634.4, "star_best": 507.3, "mst": 101.0, "delta_mbst": 101.0, "ring": 109.0},
}
MATCHA = {"gaia": (228, 228), "amazon_us": (124, 124), "geantdistance": (452, 106)}
BOUNDS = {"gaia": 114.0, "amazon_us": 80.0, "geantdistance": 81.8}
PUBLISHED = ["--model-bits", "44961717", "--compute-ms", "25.4", "--access-gbps", "10", "--core-gbps", "1"]
LINE = """
name = "line"
[[nodes]]
name = "a"
[[nodes]]
name = "b"
[[nodes]]
name = "c"
[[links]]
ends = ["a", "b"]
distance_km = 1000.0
[[links]]
ends = ["b", "c"]
distance_km = 3000.0
"""
SMALL = ["design", "line.toml", "--model-bits", "1e6", "--compute-ms", "5"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "line.toml").write_text(LINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["design", *words, "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    result: dict[str, Any] = json.loads(shown.out)
    return result


@pytest.mark.parametrize("network", [*TABLE])
def test_the_published_table(network: str, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """STAR and MST to 0.1 ms; rings, bounded trees no slower; MATCHA to 3 %: bounds below all."""
    file = str(data_root / "underlays" / f"{network}.gml")
    result = answer(capsys, file, *PUBLISHED, "--set", "overlays.best.steps=2000")
    times = {name: row["cycle_time_ms"] for name, row in result["overlays"].items()}
    for name in ("star", "star_best", "mst"):
        assert times[name] == pytest.approx(TABLE[network][name], abs=0.1)
    for name in ("delta_mbst", "ring"):
        assert times[name] <= TABLE[network][name] + 0.1
    assert times["ring_2opt"] <= times["ring"]
    for name, published in zip(("matcha", "matcha_plus"), MATCHA[network], strict=True):
        assert times[name] == pytest.approx(published, rel=0.03)
    assert BOUNDS[network] <= result["lower_bound_ms"] <= times["best"] <= min(times["ring_2opt"], times["mst"])
    assert {c["verdict"] for c in result["certificates"]} == {"holds"}


def test_the_order_of_the_file_changes_nothing(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (data_root / "underlays" / "gaia.gml").read_text()
    blocks = re.findall(r"^\s*(?:node|edge)\s*\[.*?^\s*\]\s*$", text, re.DOTALL | re.MULTILINE)
    nodes = [block for block in blocks if block.lstrip().startswith("node")]
    edges = [block for block in blocks if block.lstrip().startswith("edge")]
    random.Random(1).shuffle(nodes)
    random.Random(2).shuffle(edges)
    Path("other.gml").write_text("graph [\n" + "\n".join([*nodes, *edges]) + "\n]\n")
    steps = ["--set", "overlays.best.steps=2000"]
    one = answer(capsys, str(data_root / "underlays" / "gaia.gml"), *PUBLISHED, *steps)
    two = answer(capsys, "other.gml", *PUBLISHED, *steps)
    assert one["scene"]["names"] != two["scene"]["names"]
    assert one["lower_bound_ms"] == pytest.approx(two["lower_bound_ms"], rel=1e-9)
    for name in set(one["overlays"]) - {"star"}:  # its published hub is the first of the file
        here, there = one["overlays"][name], two["overlays"][name]
        assert here["cycle_time_ms"] == pytest.approx(there["cycle_time_ms"], rel=1e-12), name
        if not name.startswith("matcha"):
            assert sorted(map(tuple, here["arcs"])) == sorted(map(tuple, there["arcs"])), name


def test_the_answer_stands_on_stdout_and_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    shown = capsys.readouterr()
    first = r"runs/line-[0-9a-f]{8}: 9 overlays; certificates: 15 hold, 0 no power, 0 fail\n"
    assert re.match(first, shown.out)
    assert "No overlay of these silos has rounds of less than" in shown.out
    assert "report.html" in shown.out.splitlines()[-1]
    assert "3 silos, 1 Mbit a message; paths as published" in shown.err
    assert "access rates are not known" in shown.err


def test_json_is_one_object_as_agreed(capsys: pytest.CaptureFixture[str]) -> None:
    result = answer(capsys, *SMALL[1:], "--seed", "3")
    assert {"run", "report", "overlays", "lower_bound_ms", "gap", "certificates", "answer", "hash"} <= set(result)
    assert list(result["overlays"])[:2] == ["star", "star_best"]
    assert result["overlays"]["best"]["cycle_time_ms"] == pytest.approx(33)  # a – b – c – a, and no better
    assert RunRecord.open(Path(result["run"])).seeds == (3,)


def test_a_run_is_verified_reported_cited_and_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    run = answer(capsys, *SMALL[1:])["run"]
    assert main(["verify", run, "--json"]) == 0
    assert all(c["agrees"] for c in json.loads(capsys.readouterr().out)["certificates"])
    assert main(["report", run, "--out", "page.html"]) == 0
    assert main(["cite", run]) == 0
    assert "marfoq20" in capsys.readouterr().out
    assert answer(capsys, f"{run}/settings.toml", "--out", "again")["hash"] == RunRecord.open(Path(run)).hash


def test_matrices_of_measured_sites(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ms.csv").write_text("ms,a,b,c\na,,10,20\nb,10,,30\nc,40,30,\n")
    Path("rate.csv").write_text("bps,a,b,c\na,,1e9,1e8\nb,1e9,,1e9\nc,1e9,2e8,\n")
    result = answer(capsys, "ms.csv", "--bandwidth", "rate.csv", "--model-bits", "1e7", "--compute-ms", "1")
    assert "matcha_plus" not in result["overlays"], "there is no underlay"
    ring = result["overlays"]["ring_2opt"]
    one_way = {"ab": 5, "bc": 15, "ca": 20, "ac": 10, "cb": 15, "ba": 5}
    transfer = {"ab": 10, "bc": 10, "ca": 10, "ac": 100, "cb": 50, "ba": 10}
    delays = {arc: 1 + one_way[arc] + transfer[arc] for arc in one_way}
    around = min(sum(delays[arc] for arc in ("ab", "bc", "ca")), sum(delays[arc] for arc in ("ac", "cb", "ba")))
    assert ring["cycle_time_ms"] == pytest.approx(around / 3)
    there = answer(capsys, "ms.csv", "--bandwidth", "rate.csv", "--model-bits", "1e7", "--latency", "one-way")
    assert there["overlays"]["ring_2opt"]["cycle_time_ms"] == pytest.approx(around / 3 - 1 + (5 + 15 + 20) / 3)


def test_options_replace_what_a_study_says(capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.toml").write_text(STUDY.replace("given", "ring").replace("1e6", "1e6\nstep_ms = 5"))
    plain, slower = answer(capsys, "study.toml"), answer(capsys, "study.toml", "--compute-ms", "9")
    times = [result["overlays"]["ring"]["cycle_time_ms"] for result in (plain, slower)]
    assert times == pytest.approx([33, 37])


def test_times_that_scatter_and_links_that_are_shared(capsys: pytest.CaptureFixture[str]) -> None:
    """c – a of the ring crosses both links; both ways each carries one message: twice the published bandwidth."""
    words = ["--core-gbps", "0.1", "--set", "times.kind=exponential", "--set", "overlays.matcha.rounds=50"]
    result = answer(capsys, *SMALL[1:], *words)
    ring = result["overlays"]["ring_2opt"]
    assert ring["cycle_time_ms"] - ring["fair_ms"] == pytest.approx(10 / 3)
    assert ring["scattered_ms"]["low"] > ring["cycle_time_ms"]
    assert result["overlays"]["star"]["fair_ms"] is None
    assert result["overlays"]["matcha"]["scattered_ms"] is None


def test_machines_are_measured_and_their_overlay_designed(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = "".join(f'[[hosts]]\nname = "{name}"\naddress = "127.0.0.1"\n' for name in "ab")
    Path("two.toml").write_text(f"{hosts}[probing]\nseconds = 0.1\npings = 5\n")
    measured = answer(capsys, "--measure", "two.toml")
    assert measured["names"] == ["a", "b"]
    assert set(measured["access_up_bps"]) == {"a", "b"}
    result = answer(capsys, "--measure", "two.toml", "--model-bits", "1e7", "--compute-ms", "2")
    assert result["scene"]["names"] == ["a", "b"]
    assert result["overlays"]["ring"]["cycle_time_ms"] > 2
    assert answer(capsys, measured["study"], "--model-bits", "1e7", "--compute-ms", "2")["gap"] == result["gap"]


MEASURED = ["design", "ms.csv", "--bandwidth", "rate.csv", "--model-bits", "1"]
WRONG = {
    "no such file": ["design", "nowhere.gml", "--model-bits", "1"],
    "no size of the model": ["design", "line.toml"],
    "no bandwidths": ["design", "ms.csv", "--model-bits", "1"],
    "bandwidths beside a network": [*SMALL, "--bandwidth", "rate.csv"],
    "a negative size": ["design", "line.toml", "--model-bits=-5"],
    "a model that never arrives": ["design", "line.toml", "--model-bits", "1e308"],
    "a folder": ["design", ".", "--model-bits", "1"],
    "no capacity": [*SMALL, "--core-gbps", "0"],
    "a negative access rate": [*SMALL, "--access-gbps=-1"],
    "a network in two parts": ["design", "parts.toml", "--model-bits", "1"],
    "a capacity of zero": ["design", "zero.toml", "--model-bits", "1"],
    "neither distances nor latencies": ["design", "bare.toml", "--model-bits", "1"],
    "no coordinates": ["design", "cities.toml"],
    "an unknown hub": [*SMALL, "--set", "overlays.star.hub=Paris"],
    "an overlay that is not strong": ["design", "weak.toml"],
    "an unknown silo": ["design", "stranger.toml"],
    "an unknown setting": [*SMALL, "--set", "silos.speed=3"],
    "an unknown overlay": [*SMALL, "--set", "overlays.bets.steps=3"],
    "matrices beside a study": ["design", "weak.toml", "--latency", "one-way"],
    "no network": ["design", "--model-bits", "1"],
    "two networks": [*SMALL, "--measure", "hosts.toml"],
    "machines that are not described": ["design", "--measure", "hosts.toml"],
    "a law that is none": [*SMALL, "--set", "times.kind=gaussian"],
    "no such kind of file": ["design", "line.xml", "--model-bits", "1"],
    "a file as folder of runs": [*SMALL, "--out", "line.toml"],
    "an underlay that is no table": ["design", "flat.toml"],
    "a graph that there is not": ["design", "cube.toml"],
    "capacities of links that are not known": [*MEASURED, "--core-gbps", "1"],
}
STUDY = '[silos]\nmodel_bits = 1e6\n[underlay]\nkind = "file"\npath = "line.toml"\n[[overlays]]\nkind = "given"\n'


def test_wrong_networks_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("parts.toml").write_text(LINE.rpartition("[[links]]")[0])
    Path("zero.toml").write_text(LINE.replace("distance_km = 1000.0", "distance_km = 1000.0\ncapacity_bps = 0.0"))
    Path("bare.toml").write_text(re.sub(r"distance_km.*", "", LINE))
    for matrix in ("ms.csv", "rate.csv"):
        Path(matrix).write_text("x,a,b\na,,10\nb,10,\n")
    Path("flat.toml").write_text('underlay = "line.toml"\n[silos]\nmodel_bits = 1e6\n')
    Path("cube.toml").write_text(STUDY.replace("given", "family") + 'family = "hypercube"\n')
    Path("line.xml").write_text("<graph/>")
    Path("weak.toml").write_text(STUDY + 'arcs = [["a", "b"], ["b", "c"]]\n')
    Path("stranger.toml").write_text(STUDY + 'arcs = [["a", "Nice"], ["Nice", "a"]]\n')
    Path("cities.toml").write_text(
        '[silos]\nmodel_bits = 1e6\n[underlay]\nkind = "cities"\nplaces = ["Paris", "Atlantis"]\nms_per_km = 0.01\n'
    )
    told = []
    for what, words in WRONG.items():
        code = main(words)
        shown = capsys.readouterr()
        assert code in (1, 2), what
        assert shown.out == "", what
        assert shown.err.startswith("error: "), what
        assert "fault of rivage" not in shown.err, what
        told.append(f"{what}\n$ rivage {' '.join(words)}\n{shown.err}({code})\n")
    text = "\n".join(told).replace(str(folder), "FOLDER")
    if os.environ.get("UPDATE_TEXTS"):
        TEXTS.write_text(text, encoding="utf-8")
    assert text == TEXTS.read_text(encoding="utf-8")

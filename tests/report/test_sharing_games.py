"""What is told of a run of fair sharing: numbers, sentences, page; and the way from a study file to all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.core.games import view
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.report import write_report
from rivage.report.games.sentences import unfinished
from rivage.report.games.sharing import SharingView
from rivage.report.games.sharing_numbers import fairest_fixed, jain, summarize_sharing
from rivage.report.games.sharing_words import sharing_answer, sharing_compared

POINTS = 20

Seeds = list[list[float]]


def write(
    folder: Path,
    utilities: dict[str, Seeds],
    *,
    bounds: dict[str, float] | None = None,
    seers: tuple[str, ...] = (),
    aims: dict[str, float] | None = None,
    points: int = POINTS,
    ends: bool = True,
) -> RunRecord:
    """Policies that end with these mean utilities, one list of agents per seed, judged by α = 1; best are 0.5 each."""
    settings = {
        "name": "toy",
        "sharing": {"alpha": 1.0},
        "policies": [{"kind": name} for name in utilities],
        "run": {"seeds": [0, 1]},
    }
    record = RunRecord.create(folder, "toy", settings)
    for name, seeds in utilities.items():
        for seed, means in enumerate(seeds):
            trial = TrialRecord.open(record.trial_folder(name, seed))
            trial.append(start(name, seed, len(means), name in seers, (aims or {}).get(name, 1.0)))
            best = {"welfare": len(means) * float(np.log(0.5)), "upper": -1.0, "utilities": [0.5] * len(means)}
            trial.append({"event": "optimum", "judge": best, "most": 0.6 * len(means)})
            for number in range(1, points + 1):
                trial.append(point(number, means))
            if ends:
                if name in (bounds or {}):
                    trial.append({"event": "bounded", "regret": 0.0, "bound": (bounds or {})[name]})
                trial.append_timing({"slots": 1000, "seconds": 0.5})
                trial.append({"event": "end", "steps": 1000})
    return RunRecord.open(record.folder)


def start(name: str, seed: int, agents: int, foresees: bool, alpha: float) -> dict[str, Any]:
    scene = {"name": "gpus.csv", "slots": 1000, "agents": [f"tenant {n}" for n in range(agents)], "resources": ["gpu"]}
    facts = {"method": name, "policy": name, "kind": name, "seed": seed, "foresees": foresees, "reference": None}
    return {"event": "start", **facts, "judge": 1.0, "alpha": alpha, "scene": scene}


def point(number: int, means: list[float]) -> dict[str, Any]:
    welfare = float(np.log(means).sum()) if min(means) > 0 else None
    told = {"utilities": means, "welfare": welfare, "multipliers": [1.0 + number] * len(means)}
    shares = {"gpu": [1 / len(means)] * len(means)}
    return {"event": "point", "slots": 50 * number, **told, "shares": shares, "outside": 0}


def test_equality_is_measured() -> None:
    assert jain([0.3, 0.3, 0.3]) == pytest.approx(1.0)
    assert jain([0.9, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain([0.0, 0.0]) is None


def test_numbers(tmp_path: Path) -> None:
    record = write(tmp_path, {"ohf": [[0.5, 0.4], [0.4, 0.4]], "osf": [[0.6, 0.0], [0.6, 0.2]]}, bounds={"ohf": 0.9})
    rows = summarize_sharing(record)
    ohf, osf = rows["ohf"], rows["osf"]
    assert ohf["utilities"] == pytest.approx({"tenant 0": 0.45, "tenant 1": 0.4})
    assert (ohf["worst_agent"], ohf["least_utility"]) == ("tenant 1", pytest.approx(0.4))
    assert ohf["gain"] == pytest.approx(0.85)
    assert ohf["gain_std"] == pytest.approx(np.std([0.9, 0.8], ddof=1))
    assert ohf["welfare"] == pytest.approx(np.mean([np.log(0.2), np.log(0.16)]))
    assert ohf["regret"] == pytest.approx(2 * np.log(0.5) - ohf["welfare"])
    assert ohf["price_of_fairness"] == pytest.approx(1 - 0.85 / 1.2)
    assert (ohf["regret_bound"], ohf["slots_per_s"]) == (0.9, 2000)
    assert (osf["welfare"], osf["regret"], osf["regret_bound"]) == (None, None, None), "minus infinity"
    assert osf["shares"] == {"gpu": {"tenant 0": 0.5, "tenant 1": 0.5}}
    assert fairest_fixed(record)["most"] == pytest.approx(1.2)


def test_the_answer_names_the_winner_and_what_it_lacks(tmp_path: Path) -> None:
    record = write(
        tmp_path, {"ohf": [[0.4, 0.4]], "osf": [[0.5, 0.45]], "hf": [[0.5, 0.5]]}, bounds={"ohf": 0.9}, seers=("hf",)
    )
    assert sharing_answer(record) == (
        "Over 1,000 slots osf is fairest (α = 1), welfare −1.492, 0.105 below the fairest shares that never change. "
        "tenant 1 has least, 0.450. The sum of utilities is 21 % below the largest of fixed shares. osf promises "
        "nothing for other demands; of the policies with a guarantee ohf is best, 0.341 less: it promises a regret of "
        "at most 0.900 here, and has 0.446."
    )
    assert sharing_compared(record) == "3 policies that share gpus.csv among 2 agents, 1,000 slots, 1 seed"
    assert unfinished(record, "slot") == [f"{name}, seed 1: not begun" for name in ("ohf", "osf", "hf")]


@pytest.mark.parametrize(
    ("utilities", "bounds", "part"),
    [
        ({"ohf": [[0.4, 0.4]]}, {"ohf": 0.1}, "It promises a regret of at most 0.100 here, but has 0.446."),
        ({"ohf": [[0.7, 0.7]]}, {}, "0.673 above the fairest shares that never change"),
        ({"ohf": [[0.7, 0.7]]}, {}, "The sum of utilities is 17 % above what any fixed shares give. No policy here"),
        ({"a": [[0.4, 0.4], [0.6, 0.6]], "b": [[0.5, 0.5], [0.45, 0.45]]}, {}, "(b within one standard deviation)"),
        ({"a": [[0.5, 0.5]]}, {}, "as much as the fairest shares that never change"),
        ({"a": [[0.5, 0.0]]}, {}, "No policy without foresight has a finite welfare"),
    ],
)
def test_other_answers(tmp_path: Path, utilities: dict[str, Seeds], bounds: dict[str, float], part: str) -> None:
    assert part in sharing_answer(write(tmp_path, utilities, bounds=bounds))


def test_a_bound_on_another_welfare_is_none_on_this(tmp_path: Path) -> None:
    record = write(tmp_path, {"sum": [[0.5, 0.4]]}, bounds={"sum": 0.9}, aims={"sum": 0.0})
    assert summarize_sharing(record)["sum"]["regret_bound"] is None


def test_yardsticks_are_never_best(tmp_path: Path) -> None:
    told = SharingView(write(tmp_path, {"hf": [[0.5, 0.5]], "ohf": [[0.4, 0.4]]}, seers=("hf",)))
    assert [(row["policy"], row["best"]) for row in told.rows] == [("hf", False), ("ohf", True)]


@pytest.mark.parametrize("agents", [2, 5, 30])
def test_every_column_has_a_text(tmp_path: Path, agents: int) -> None:
    told = view(write(tmp_path, {"ohf": [[0.4] * agents]}))
    for row in told.rows:
        assert all(isinstance(row[column.key], str) for column in told.columns)
    headings = [column.heading for column in told.columns if not column.detail]
    assert ("tenant 1" in headings) == (agents <= 4)
    assert ("who has least" in headings) == (agents > 4)
    assert len(told.columns) < 24


def figures_of(page: str) -> list[str]:
    return re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)


def test_the_page_shows_it_all_and_asks_for_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    record = write(tmp_path, {"<b>": [[0.5, 0.4], [0.4, 0.4]], "osf": [[0.6, 0.0]], "hf": [[0.5, 0.5]]}, seers=("hf",))
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    for heading in ("What each agent has", "Welfare over time", "Weights of the agents"):
        assert f"<h3>{heading}</h3>" in page
    drawn = figures_of(page)
    assert len(drawn) == 3
    assert "hf ends" not in drawn[0]
    for svg in drawn:
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert not re.findall(r"""(?:href|src)=["']http|@import|<script""", page)
    assert "<b>" not in page
    assert write_report([record], tmp_path / "b.html").read_text("utf-8") == page, "the same record, the same bytes"


@pytest.mark.parametrize("points", [0, 1])
def test_a_run_that_is_not_finished(tmp_path: Path, points: int) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    record = write(tmp_path, {"ohf": [[0.5, 0.4]]}, points=points, ends=False)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert f"ohf, seed 0: stopped after {50 * points} slots" in page
    assert "ohf, seed 1: not begun" in page


def test_a_run_that_has_just_been_created(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    settings = {"name": "toy", "sharing": {}, "policies": [{"kind": "ohf"}], "run": {"seeds": [0]}}
    record = RunRecord.create(tmp_path, "toy", settings)
    page = write_report([record], tmp_path / "a.html").read_text("utf-8")
    assert "No policy has begun." in page
    assert "ohf, seed 0: not begun" in page


STUDY = """
demand = { kind = "file", path = "gpus.csv" }
policies = [{ kind = "ohf" }, { kind = "hf" }]
run = { points = 5 }
[sharing]
"""


def test_from_a_file_to_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user does it: play, verify, report, cite, play again with what the run kept."""
    monkeypatch.chdir(tmp_path)
    demands = np.random.default_rng(0).uniform(0.1, 1.0, (60, 2)).round(3)
    lines = [f"{slot},{agent},{demands[slot, n]}" for slot in range(60) for n, agent in enumerate(("web", "batch"))]
    Path("gpus.csv").write_text("\n".join(["slot,agent,demand", *lines]))
    Path("gpus.toml").write_text(STUDY)
    assert main(["play", "gpus.toml", "--json", "--quiet", "--set", "sharing.alpha=2.0"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"run", "policies", "certificates", "answer", "fairest_fixed", "sharing", "alpha", "hash"} <= set(result)
    assert list(result["policies"]) == ["ohf", "hf"], "in the order of the study"
    keys = {"gain", "welfare", "utilities", "regret", "regret_bound", "price_of_fairness", "slots_per_s", "jain"}
    assert all(keys <= set(row) for row in result["policies"].values())
    run = result["run"]
    assert main(["verify", run]) == 0
    assert "4 of 4 certificates verified" in capsys.readouterr().out
    assert main(["cite", run]) == 0
    assert capsys.readouterr().out.startswith("@inproceedings{sisalem23,")
    assert main(["play", f"{run}/settings.toml", "--out", "again", "--quiet"]) == 0
    assert RunRecord.open(next(Path("again").iterdir())).hash == result["hash"]
    capsys.readouterr()
    assert main(["play", "gpus.toml"]) == 0
    shown = capsys.readouterr()
    assert "hf (foresees)" in shown.out
    assert "60 slots, shared by web, batch" in shown.err
    assert "ohf, seed 0: done, welfare" in shown.err


def test_all_that_is_wrong_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = STUDY.replace('"hf"', '"hff"').replace("points = 5", "points = 0") + "least = 0\nbudgets = 3\n"
    Path("gpus.toml").write_text(wrong)
    assert main(["play", "gpus.toml"]) == 2
    shown = capsys.readouterr().err
    for part in ("4 problems", "least is 0", 'unknown key "budgets"', '"hff"', "points is 0"):
        assert part in shown
    assert not Path("runs").exists()

"""`rivage place` and `rivage play` of delivery networks, as a user meets them: answers, JSON, exit codes, texts.

``place_texts.txt`` holds what is said of wrong studies. After a wanted change, look at what
``UPDATE_TEXTS=1 pytest tests/cli/test_place.py`` writes there, and commit it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from rivage.cli.app import main
from rivage.core.records import RunRecord

TEXTS = Path(__file__).with_name("place_texts.txt")
MODELS = """
[[models]]
name = "see-s"
task = "see"
accuracy = 0.4
size_mb = 20
delay_ms = { cpu = 20, gpu = 3 }
[[models]]
name = "see-l"
task = "see"
accuracy = 0.7
size_mb = 80
delay_ms = { cpu = 30, gpu = 10 }
[[models]]
name = "hear"
task = "hear"
accuracy = 0.9
size_mb = 15
delay_ms = { cpu = 10, gpu = 2 }
"""
STUDY = """
[delivery]
catalog = "mine.toml"
deadlines = { see = "xr" }
[underlay]
kind = "tiers"
counts = { cell = 3, hub = 1, cloud = 1 }
round_trip_ms = [6, 20]
[[sites]]
at = "cell"
budget_mb = 30
hardware = "cpu"
[[sites]]
at = "hub"
budget_mb = 100
hardware = "cpu"
[[sites]]
at = "cloud"
hardware = "gpu"
repository = true
[requests]
kind = "popularity"
rate_per_s = 20
entries = "cell"
slots = 6
[[planners]]
kind = "relaxed"
[[planners]]
kind = "greedy"
[[policies]]
kind = "infida"
[[policies]]
kind = "anchor"
"""
PLACE = ["place", "study.toml"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.toml").write_text(MODELS)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_answer_stands_on_stdout_and_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(PLACE) == 0
    shown = capsys.readouterr()
    assert re.match(r"runs/study-[0-9a-f]{8}: 2 planners; certificates: 4 hold, 0 no power, 0 fail\n", shown.out)
    assert " is best: " in shown.out
    assert "report.html" in shown.out.splitlines()[-1]
    assert "3 models on 5 nodes, 9 places to decide about; 6 request types" in shown.err


def test_json_is_one_object_as_agreed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLACE, "--json", "--quiet", "--seed", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    result = json.loads(shown.out)
    assert {
        "allocation",
        "routing",
        "cost",
        "lp_bound",
        "gap",
        "shadow_prices",
        "certificates",
        "run",
        "report",
    } <= set(result)
    assert result["lp_bound"] <= result["cost"] * (1 + 1e-6)
    assert result["gap"] == pytest.approx(result["cost"] / result["lp_bound"] - 1, abs=1e-9)
    assert set(result["allocation"]) == {"cell 1", "cell 2", "cell 3", "hub", "cloud"}
    assert result["allocation"]["cloud"] == ["see-s", "see-l", "hear"]
    keys = {"task", "entry", "node", "model", "requests", "latency_ms", "cost"}
    assert all(set(row) == keys for row in result["routing"])
    requests = sum(row["requests"] for row in result["routing"])
    assert sum(row["requests"] * row["cost"] for row in result["routing"]) / requests == pytest.approx(result["cost"])
    held = result["allocation"]
    assert all(row["model"] in held[row["node"]] for row in result["routing"]), "who answers holds the model"
    agreed = {"kind", "claim", "measured", "reference", "method", "confidence", "verdict"}
    assert all(agreed <= set(certificate) for certificate in result["certificates"])
    assert RunRecord.open(Path(result["run"])).seeds == (3,)


def test_play_of_the_same_study_leaves_its_planners_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "study.toml", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["policies"]) == ["infida", "anchor"]
    agreed = {"gain", "cost_saved", "requests_per_s", "regret", "regret_bound", "update_items", "ntag", "tiers"}
    assert all(agreed <= set(row) for row in result["policies"].values())


def test_a_plan_is_verified_reported_and_cited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLACE, "--quiet"]) == 0
    assert main(["play", "study.toml", "--quiet"]) == 0
    runs = sorted(str(path) for path in Path("runs").iterdir())
    assert len(runs) == 2
    capsys.readouterr()
    for run in runs:
        assert main(["verify", run]) == 0
        assert "certificates verified" in capsys.readouterr().out
        assert main(["cite", run]) == 0
        assert "sisalem24" in capsys.readouterr().out
    assert main(["report", *runs, "--out", "page.html"]) == 0
    assert "The network and its models" in Path("page.html").read_text()


def test_what_was_tampered_with_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLACE, "--quiet"]) == 0
    record = next(Path("runs").iterdir()) / "trials" / "relaxed" / "seed-0" / "record.jsonl"
    text = record.read_text()
    record.write_text(re.sub(r'"least": ?[0-9.]+', '"least":1.0', text, count=1))
    assert record.read_text() != text
    assert main(["verify", str(record.parents[3])]) == 3


def test_the_settings_of_a_run_repeat_it() -> None:
    assert main([*PLACE, "--quiet", "--set", "delivery.alpha_ms_per_point=2"]) == 0
    run = next(Path("runs").iterdir())
    assert main(["place", str(run / "settings.toml"), "--out", "again", "--quiet"]) == 0
    assert RunRecord.open(next(Path("again").iterdir())).hash == RunRecord.open(run).hash


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rivage.studies.games.placement_stage.pooled_optimum", interrupted)
        assert main(PLACE) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("Resume with: rivage place study.toml")
    assert main([*PLACE, "--quiet", "--set", 'planners=[{kind="relaxed"}]']) == 0
    assert ": 1 planner; " in capsys.readouterr().out


TRACE = '[requests]\nkind = "trace"\npath = "web.csv"\n'
POPULARITY = STUDY[STUDY.index("[requests]") : STUDY.index("[[planners]]")]
STUDIES: dict[str, list[tuple[str, str]]] = {
    "nothing": [(STUDY, "")],
    "unknown tier": [('at = "cell"', 'at = "cel"')],
    "unknown hardware": [('hardware = "gpu"', 'hardware = "gpv"')],
    "a budget too small for every model": [("budget_mb = 30", "budget_mb = 3")],
    "a negative budget": [("budget_mb = 30", "budget_mb = -3")],
    "no repository": [("repository = true", "budget_mb = 100")],
    "unknown catalog": [("mine.toml", "yolo-coco")],
    "no copies": [("[delivery]", "[delivery]\ncopies = 0")],
    "a deadline of no class": [('"xr"', '"xrr"')],
    "a deadline of no task": [("see =", "sea =")],
    "a negative deadline": [('"xr"', "-1")],
    "unknown entries": [('entries = "cell"', 'entries = ["cell 9", "hub"]')],
    "no entries": [('entries = "cell"', "entries = []")],
    "no requests": [("rate_per_s = 20", "rate_per_s = 1e-9")],
    "too many requests": [("rate_per_s = 20", "rate_per_s = 1e30")],
    "too many slots": [("slots = 6", "slots = 10000000000")],
    "no slots": [("slots = 6", "slots = 0")],
    "unknown profile": [("slots = 6", 'slots = 6\nprofile = "slidng"')],
    "more tasks than there are": [("slots = 6", "slots = 6\ntasks_per_entry = 9")],
    "an empty tier": [("cell = 3", "cell = 0")],
    "round trips that are missing": [("[6, 20]", "[6]")],
    "unknown kind of network": [('"tiers"', '"teirs"')],
    "unknown planner": [('"relaxed"', '"relaxd"')],
    "a planner twice": [('"greedy"', '"relaxed"')],
    "a planner without draws": [('"relaxed"', '"relaxed"\ndraws = 0')],
    "a trace that is nowhere": [(POPULARITY, TRACE.replace("web", "wbe"))],
    "a trace of other tasks and nodes": [(POPULARITY, TRACE)],
    "settings out of range": [("slots = 6", "slots = 0"), ("budget_mb = 30", "budget_mb = -1"), ("[6, 20]", '["x"]')],
    "catalog and tier": [("mine.toml", "nine.toml"), ('at = "cell"', 'at = "cel"')],
    "sites and requests": [
        ('at = "cell"', 'at = "cel"'),
        ("budget_mb = 100", "budget_mb = 1"),
        ('entries = "cell"', 'entries = ["a", "b"]'),
    ],
}
CATALOGS: dict[str, list[tuple[str, str]]] = {
    "accuracy in percent": [("0.7", "70")],
    "a negative size": [("size_mb = 80", "size_mb = -80")],
    "a model twice": [('"see-l"', '"see-s"')],
    "a model for no hardware": [("{ cpu = 30, gpu = 10 }", "{ tpu = 10 }")],
    "a task for no repository": [("{ cpu = 10, gpu = 2 }", "{ cpu = 10 }")],
    "several faults of models": [("0.7", "70"), ("size_mb = 80", "size_mb = -80"), ("gpu = 2", "gpu = -2")],
    "no model": [(MODELS, "models = []")],
}


def kept() -> dict[str, str]:
    blocks = re.split(r"^## (.*)\n", TEXTS.read_text("utf-8") if TEXTS.exists() else "", flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(blocks[1::2], blocks[2::2], strict=True)}


def keep(name: str, text: str) -> None:
    texts = kept() | {name: text}
    TEXTS.write_text("\n".join(f"## {c}\n{texts[c]}\n" for c in [*STUDIES, *CATALOGS] if c in texts), "utf-8")


@pytest.mark.parametrize("name", [*STUDIES, *CATALOGS])
def test_what_is_said_of_a_wrong_study(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.csv").write_text("time_s,item,origin\n0,see,0\n1,sea,0\n2,heer,9\n")
    file = Path("study.toml" if name in STUDIES else "mine.toml")
    text = file.read_text()
    for old, new in (STUDIES | CATALOGS)[name]:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text)
    assert main(PLACE) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert not Path("runs").exists(), "nothing is begun"
    # The kinds that exist are not the business of this test.
    said = re.sub(r"(one of the kinds|or one of) [^.]*", r"\1 ...", shown.err).strip()
    if os.environ.get("UPDATE_TEXTS"):
        keep(name, said)
    assert kept().get(name) == said
    assert said.startswith("error: ")


def test_every_text_says_what_is_wrong_and_how_to_mend_it() -> None:
    assert list(kept()) == [*STUDIES, *CATALOGS]
    for line in (line for text in kept().values() for line in text.splitlines() if not line.endswith("problems")):
        fault, _, mend = line.partition(". ")
        assert fault, line
        assert mend or "Did you mean" in line, line

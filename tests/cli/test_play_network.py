"""`rivage play` for networks of caches, as a user meets it: own links, own requests, answers, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rivage.cli.app import main
from rivage.core.records import RunRecord

LINKS = "from,to,cost\nParis,Lyon,4.5\nLyon,Nice,6\nLyon,cloud,20\n"
REQUESTS = "item,origin\n" + "a,0\nb,0\na,2\nc,2\na,2\nb,0\n" * 30
STUDY = """
trace = { kind = "file", path = "web.csv" }
policies = [{ kind = "tg_online" }, { kind = "grd" }, { kind = "path_replication", name = "lru" }]
run = { seeds = [0, 1], points = 6 }

[network]
kind = "links"
path = "links.csv"
servers = "cloud"
capacities = { Paris = 1, Lyon = 1, Nice = 1 }
"""
WORDS = ["play", "study.toml"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("links.csv", LINKS), ("web.csv", REQUESTS), ("study.toml", STUDY)):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of() -> Path:
    return next(Path("runs").iterdir())


def test_the_answer_stands_on_stdout_and_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WORDS) == 0
    shown = capsys.readouterr()
    first, *_ = shown.out.splitlines()
    assert re.fullmatch(r"runs/study-[0-9a-f]{8}: 3 policies; certificates: \d hold, \d no power, 0 fail", first)
    assert "With 3 slots in 4 nodes" in shown.out
    assert "report.html" in shown.out.splitlines()[-1]
    assert "180 requests for 3 items enter at Paris, Nice of 4 nodes with 3 slots" in shown.err
    assert "grd, seed 1: done, cost saved" in shown.err


def test_json_is_one_object_as_agreed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--json", "--quiet", "--seed", "5"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    result = json.loads(shown.out)
    assert {"run", "report", "policies", "certificates", "answer", "trace", "network", "placements", "hash"} <= set(
        result
    )
    assert list(result["policies"]) == ["tg_online", "grd", "lru"], "in the order of the study"
    agreed = {"gain", "hit_ratio", "cost_saved", "requests_per_s", "regret", "regret_bound", "update_items"}
    more = {"control_messages", "factor", "finished", "foresees", "kind"}
    for row in result["policies"].values():
        assert agreed | more <= set(row)
    assert result["policies"]["lru"]["regret_bound"] is None
    assert result["policies"]["lru"]["kind"] == "path_replication"
    keys = {"kind", "claim", "measured", "reference", "method", "confidence", "verdict"}
    assert all(keys <= set(certificate) for certificate in result["certificates"])
    assert RunRecord.open(Path(result["run"])).seeds == (5,)


def test_a_run_is_verified_reported_and_cited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--quiet"]) == 0
    run = run_of()
    capsys.readouterr()
    assert main(["verify", str(run)]) == 0
    assert "4 of 4 certificates verified" in capsys.readouterr().out
    assert main(["report", str(run), "--out", "page.html"]) == 0
    assert "Who answers" in Path("page.html").read_text()
    capsys.readouterr()
    assert main(["cite", str(run)]) == 0
    cited = capsys.readouterr().out
    assert "@inproceedings{li22," in cited
    assert "@inproceedings{ioannidis16," in cited


def test_a_run_without_power_is_verified_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not known is no number, and no number is not equal to itself."""
    monkeypatch.setattr("rivage.online.network_optimum.LARGEST_PROGRAM", 0)
    assert main([*WORDS, "--quiet"]) == 0
    assert "0 hold, 4 no power, 0 fail" in capsys.readouterr().out
    assert main(["verify", str(run_of())]) == 0
    assert "4 of 4 certificates verified" in capsys.readouterr().out


def test_what_was_tampered_with_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--quiet"]) == 0
    record = run_of() / "trials" / "grd" / "seed-0" / "record.jsonl"
    text = record.read_text()
    record.write_text(re.sub(r'"relaxed": ?[0-9.]+', '"relaxed":1.0', text, count=1))
    assert record.read_text() != text
    capsys.readouterr()
    assert main(["verify", str(run_of())]) == 3
    assert "differs" in capsys.readouterr().out


def test_the_settings_of_a_run_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--quiet", "--set", "network.weights=[1, 5]", "--set", "policies.grd.forgetting=0.5"]) == 0
    run = run_of()
    assert main(["play", str(run / "settings.toml"), "--out", "again", "--quiet"]) == 0
    assert RunRecord.open(next(Path("again").iterdir())).hash == RunRecord.open(run).hash


def test_everything_that_is_wrong_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.csv").write_text("item\na\nb\n")
    words = [*WORDS, "--set", "network.servers=clud", "--set", "network.capacities.Lion=2"]
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = [line.strip() for line in shown.err.splitlines()]
    assert lines == [
        "error: 3 problems",
        '[network] capacities: no node "Lion". Did you mean "Lyon"? Nodes are Paris, Lyon, Nice, cloud.',
        '[network] servers: no node "clud". Did you mean "cloud"? Nodes are Paris, Lyon, Nice, cloud.',
        '[trace] "web.csv": there is no column "origin". Give each request the node where it enters, or set [network] '
        "origins: a list of nodes, or how many are to be drawn.",
    ]
    assert not Path("runs").exists(), "nothing is begun"


def test_two_games_in_one_study_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.toml").write_text(STUDY + "\n[cache]\ncapacity = 3\n")
    assert main(WORDS) == 2
    assert "the tables [cache] and [network] describe different games" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rivage.studies.games.network_stage.play_network", interrupted)
        assert main(WORDS) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("Resume with: rivage play study.toml")
    assert main([*WORDS, "--quiet"]) == 0


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
from rivage.cli.app import main
sys.exit(main(["play", "study.toml", "--json"]))
"""


@pytest.mark.process
def test_it_needs_neither_torch_nor_matplotlib() -> None:
    program = BLOCKED.format(blocked={"torch", "matplotlib", "jinja2", "networkx"})
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["policies"]

"""`rivage play` as a user meets it: the answer, its JSON, exit codes, and what is said of wrong input.

``play_texts.txt`` holds every refusal. After a wanted change, look at what
``UPDATE_TEXTS=1 pytest tests/cli/test_play.py`` writes there, and commit it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.core.records import RunRecord
from rivage.online.eviction import LRU
from rivage.online.registry import POLICIES

TEXTS = Path(__file__).with_name("play_texts.txt")
CSV = "item,time_s,cost\n" + "".join(f"{item},{time},{1 + (item == 'c')}\n" for time, item in enumerate("abacabad" * 9))
GOOD = """
trace = { kind = "file", path = "web.csv" }
cache = { capacity = 2 }
policies = [{ kind = "lru" }, { kind = "ogb" }]
"""
SHORT = ["play", "--trace", "web.csv", "--capacity", "2", "--policies", "ogb,lru,static"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "web.csv").write_text(CSV)
    (tmp_path / "study.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_answer_stands_on_stdout_and_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SHORT) == 0
    shown = capsys.readouterr()
    first, *_ = shown.out.splitlines()
    assert re.fullmatch(r"runs/web-[0-9a-f]{8}: 3 policies; certificates: \d hold, 0 no power, 0 fail", first)
    assert "static (foresees)" in shown.out
    assert "With 2 of 4 items" in shown.out
    assert "report.html" in shown.out.splitlines()[-1]
    assert "72 requests for 4 items" in shown.err
    assert "lru@2, seed 0: done, hit ratio" in shown.err


def test_json_is_one_object_as_agreed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--capacity", "50%", "--capacity", "1", "--json", "--quiet", "--seed", "5"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    result = json.loads(shown.out)
    assert {"run", "report", "policies", "certificates", "answer", "static", "trace", "hash"} <= set(result)
    assert list(result["policies"]) == ["ogb", "lru", "static"], "in the order of the study"
    keys = {"hit_ratio", "cost_saved", "requests_per_s", "regret", "regret_bound", "update_items"}
    for row in result["policies"].values():
        assert keys <= set(row)
        assert [each["capacity"] for each in row["capacities"]] == [2, 1]
    assert result["policies"]["lru"]["regret_bound"] is None
    assert RunRecord.open(Path(result["run"])).seeds == (5,)
    assert Path(result["report"]).exists()


def test_quiet_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--quiet"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_settings_of_a_run_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--quiet"]) == 0
    run = next(Path("runs").iterdir())
    assert main(["play", str(run / "settings.toml"), "--out", "again", "--quiet"]) == 0
    assert RunRecord.open(next(Path("again").iterdir())).hash == RunRecord.open(run).hash


def test_a_run_is_verified_reported_and_cited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "study.toml", "--quiet", "--set", "cache.capacity=[1, 2]"]) == 0
    run = next(Path("runs").iterdir())
    capsys.readouterr()
    assert main(["verify", str(run)]) == 0
    assert "6 of 6 certificates verified" in capsys.readouterr().out
    assert main(["report", str(run), "--out", "page.html"]) == 0
    assert "How much cache to buy" in Path("page.html").read_text()
    capsys.readouterr()
    assert main(["cite", str(run)]) == 0
    cited = capsys.readouterr().out
    assert cited.startswith("@article{mattson70,")
    assert "@misc{carra24," in cited


def test_what_was_tampered_with_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "study.toml", "--quiet"]) == 0
    run = next(Path("runs").iterdir())
    record = run / "trials" / "ogb@2" / "seed-0" / "record.jsonl"
    lines = record.read_text().splitlines()
    end = json.loads(lines[-2])
    lines[-2] = json.dumps({**end, "regret": end["bound"] + 1})
    record.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert main(["verify", str(run)]) == 3
    shown = capsys.readouterr().out
    assert "differs" in shown
    assert "are not those that the summary was made from" in shown


class Liar(LRU):
    """LRU that promises what it cannot keep."""

    def bound(self, state: object) -> float:
        return -1e9


def test_strict_refuses_a_promise_that_was_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("liars")
    module.Liar = Liar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liars", module)
    monkeypatch.setitem(POLICIES.builtin, "liar", "liars:Liar")  # type: ignore[arg-type]
    words = [*SHORT[:-1], "liar", "--quiet", "--set", "run.seeds=[0, 1]"]
    assert main(words) == 0
    assert main([*words, "--strict"]) == 3


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
from rivage.cli.app import main
code = main({words})
print(sorted(set(sys.modules) & {blocked}), file=sys.stderr)
sys.exit(code)
"""


def without(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Let a module be missing in processes that are begun from here on."""
    (folder / "missing").mkdir()
    (folder / "missing" / f"{module}.py").write_text(f"raise ModuleNotFoundError({module!r})")
    monkeypatch.setenv("PYTHONPATH", str(folder / "missing"))


@pytest.mark.process
def test_it_needs_no_torch() -> None:
    program = BLOCKED.format(blocked={"torch", "flwr", "sklearn"}, words=[*SHORT, "--json"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    assert Path(json.loads(done.stdout)["report"]).exists()


@pytest.mark.process
def test_without_matplotlib_there_is_no_report_and_all_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(folder, monkeypatch, "matplotlib")
    program = BLOCKED.format(blocked={"torch", "matplotlib", "jinja2"}, words=[*SHORT, "--json"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] is None
    assert 'no report: Drawing figures needs matplotlib. Install it with: pip install "rivage[report]"' in done.stderr


@pytest.mark.process
def test_the_report_is_drawn_elsewhere() -> None:
    """What was compiled to play stays in memory, and Matplotlib is large."""
    program = BLOCKED.format(blocked={"torch", "matplotlib", "jinja2"}, words=[*SHORT, "--json"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert Path(answer["report"]).read_text().startswith("<!DOCTYPE html>")
    assert RunRecord.open(Path(answer["run"])).summary["report"] == answer["report"]


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rivage.studies.games.cache_stage.play", interrupted)
    assert main([*SHORT, "--fresh"]) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"what was played to the end is kept. Resume with: rivage {' '.join(SHORT)}")


def write(text: str, name: str = "web.csv") -> None:
    Path(name).write_text(text)


def costs(lines: str) -> None:
    write(f"item,cost\n{lines}", "costs.csv")


def toml(old: str = "", new: str = "") -> None:
    assert old in GOOD
    write(GOOD.replace(old, new), "study.toml")


def binary(content: bytes, name: str) -> None:
    Path(name).write_bytes(content)


STUDY = ["play", "study.toml"]
CASES: dict[str, tuple[list[str], Callable[[], object]]] = {
    "nothing to play": (["play"], lambda: None),
    "a study and a trace": (["play", "study.toml", "--trace", "web.csv"], lambda: None),
    "a study and a capacity": (["play", "study.toml", "--capacity", "3"], lambda: None),
    "no such study": (["play", "studi.toml"], lambda: None),
    "no such trace": (["play", "--trace", "wbe.csv"], lambda: None),
    "unknown policy": ([*SHORT[:-1], "lruu"], lambda: None),
    "no policy": ([*SHORT[:-1], ","], lambda: None),
    "a policy twice": ([*SHORT[:-1], "lru,lru"], lambda: None),
    "a policy that lacks a setting": ([*SHORT[:-1], "window_lfu"], lambda: None),
    "unknown format": ([*SHORT, "--format", "cvs"], lambda: None),
    "capacity 0": (["play", "--trace", "web.csv", "--capacity", "0"], lambda: None),
    "a negative capacity": ([*STUDY, "--set", "cache.capacity=-3"], lambda: None),
    "capacity of no number": (["play", "--trace", "web.csv", "--capacity", "lots"], lambda: None),
    "all items fit": (["play", "--trace", "web.csv", "--capacity", "4"], lambda: None),
    "several capacities do not fit": ([*STUDY, "--set", "cache.capacity=[2, 4, 9]"], lambda: None),
    "a share of less than one item": ([*STUDY, "--set", "cache.capacity='1%'"], lambda: None),
    "one item": (["play", "--trace", "web.csv", "--capacity", "1"], lambda: write("item\na\na\n")),
    "an empty trace": (SHORT, lambda: write("")),
    "a trace with a header only": (SHORT, lambda: write("item\n")),
    "an empty line": (SHORT, lambda: write("item,time_s\na,1\n\nb,2\n")),
    "a line with too many fields": (SHORT, lambda: write("item,time_s\na,1\nb,2,3\n")),
    "a time that is no number": (SHORT, lambda: write("item,time_s\na,1\nb,soon\n")),
    "time that goes back": (SHORT, lambda: write("item,time_s\na,1\nb,5\nc,4\n")),
    "a negative cost": ([*STUDY, "--set", "cache.costs=trace"], lambda: write("item,cost\na,1\nb,-2\n")),
    "a trace without costs": ([*STUDY, "--set", "cache.costs=trace"], lambda: write("item\na\nb\nc\n")),
    "costs that are nowhere": ([*STUDY, "--set", "cache.costs=costs.csv"], lambda: None),
    "a negative cost of an item": (
        [*STUDY, "--set", "cache.costs=costs.csv"],
        lambda: costs("a,1\nb,-2\nc,1\nd,1\n"),
    ),
    "an item without a cost": ([*STUDY, "--set", "cache.costs=costs.csv"], lambda: costs("a,1\n")),
    "a column that is missing": (SHORT, lambda: write("object,time_s\na,1\n")),
    "a record that is cut": (
        ["play", "--trace", "a.int32be", "--capacity", "1"],
        lambda: binary(np.arange(3).astype(">i4").tobytes()[:-1], "a.int32be"),
    ),
    "a compressed file that is none": (["play", "--trace", "a.csv.gz"], lambda: binary(b"item\na\n", "a.csv.gz")),
    "bytes of no known format": (["play", "--trace", "a.bin"], lambda: binary(bytes(range(64)), "a.bin")),
    "a folder for a trace": (["play", "--trace", "."], lambda: None),
    "unknown key": (STUDY, lambda: toml("capacity", "capacty")),
    "unknown key of a policy": (STUDY, lambda: toml('kind = "ogb"', 'kind = "ogb", scal = 2')),
    "unknown kind of trace": (STUDY, lambda: toml('"file"', '"zipff"')),
    "a setting out of range": (STUDY, lambda: toml('kind = "ogb"', 'kind = "ogb", scale = 0')),
    "several problems": (STUDY, lambda: write(GOOD.replace("2 }", "0 }") + "run = { points = 0 }\n", "study.toml")),
    "no policies": (STUDY, lambda: toml('policies = [{ kind = "lru" }, { kind = "ogb" }]', "policies = []")),
    "a study of training": (STUDY, lambda: write('methods = [{ kind = "local" }]\n', "study.toml")),
    "a file for the folder of runs": ([*SHORT, "--out", "web.csv"], lambda: None),
}  # fmt: skip


def kept() -> dict[str, str]:
    blocks = re.split(r"^## (.*)\n", TEXTS.read_text("utf-8") if TEXTS.exists() else "", flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(blocks[1::2], blocks[2::2], strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_of_wrong_input(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, prepare = CASES[name]
    prepare()
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    # The kinds that exist are not the business of this test.
    text = re.sub(r"(Known kinds:|one of the kinds) [^.]*", r"\1 ...", shown.err).strip()
    if os.environ.get("UPDATE_TEXTS"):
        texts = {case: said for case, said in (kept() | {name: text}).items() if case in CASES}
        blocks = [f"## {case}\n{texts[case]}\n" for case in CASES if case in texts]
        TEXTS.write_text("\n".join(blocks), "utf-8")
    assert kept().get(name) == text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    assert not Path("runs").exists(), "nothing is begun"

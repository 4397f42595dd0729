from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rivage.cli import commands
from rivage.cli.app import main
from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError
from rivage.core.message_log import MessageLog
from rivage.core.records import RunRecord

Capture = pytest.CaptureFixture[str]
STUDY = """
name = "toy"
[data]
kind = "tables"
folder = "x"
target = "y"
[[methods]]
kind = "local"
[[methods]]
kind = "fedavg"
"""


DIGITS = """
name = "toy"
data = { kind = "digits" }
partition = { kind = "iid", clients = 3 }
methods = [{ kind = "fedavg" }, { kind = "local", epochs = 1 }]
run = { rounds = 1 }
"""


class Pipeline:
    """Stands for `rivage.studies.pipeline`: notes what it was asked for and hands back a finished record."""

    def __init__(self, record: RunRecord) -> None:
        self.record, self.asked = record, dict[str, Any]()

    def run_study(self, study: Any, **options: Any) -> RunRecord:
        self.asked = {"study": study, **options}
        options["observer"].on_event({"event": "study", "trials": 1, "rounds": 0})
        options["observer"].on_event({"event": "notice", "text": "4 clients"})
        logging.getLogger("rivage.somewhere").info("told")
        logging.getLogger("rivage.somewhere").warning("warned")
        return self.record

    def built_in(self) -> Any:
        from rivage.studies.settings import parse_study

        return parse_study(STUDY)


@pytest.fixture
def pipeline(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    fake = Pipeline(record)
    module = ModuleType("rivage.studies.pipeline")
    module.__dict__.update(run_study=fake.run_study, built_in=fake.built_in)
    monkeypatch.setitem(sys.modules, "rivage.studies.pipeline", module)
    monkeypatch.setattr(commands, "audit_trained", lambda *_: None)  # nothing was trained
    return fake


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(STUDY)
    return path


def test_train_shows_a_line_and_tables_and_progress_elsewhere(pipeline: Pipeline, study: Path, capsys: Capture) -> None:
    assert main(["train", str(study)]) == 0
    captured = capsys.readouterr()
    line, *tables = captured.out.splitlines()
    assert line == f"{pipeline.record.folder}: 2 methods; certificates: 1 hold, 0 no power, 0 fail"
    assert [row.split()[0] for row in tables if row.startswith((" local", " fedavg"))] == ["local", "fedavg"]
    assert "\x1b" not in captured.out, "no colour when not a terminal"
    assert captured.err == "4 clients\nwarning: warned\n"


def test_simulated_time_has_a_table_of_its_own(pipeline: Pipeline, study: Path, capsys: Capture) -> None:
    assert main(["train", str(study)]) == 0
    assert "simulated joules" not in capsys.readouterr().out
    summary = pipeline.record.summary
    summary["methods"]["fedavg"] |= {"simulated_s": 46.16, "energy_j": 239.8}
    pipeline.record.write_summary(summary)
    assert main(["train", str(study)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["method", "simulated", "seconds", "simulated", "joules"] in lines
    assert ["fedavg", "46.16", "239.8"] in lines
    assert all(line[:2] != ["local", "–"] for line in lines), "Local plays no rounds"


def test_train_hands_its_options_on(pipeline: Pipeline, study: Path, tmp_path: Path) -> None:
    words = ["--set", "run.rounds=7", "--set", "methods.2.learning_rate=0.5", "--seed", "9", "--fresh"]
    assert main(["train", *words, str(study), "--out", str(tmp_path / "o"), "--quiet"]) == 0
    asked = pipeline.asked
    assert (asked["study"].run.rounds, asked["study"].run.seeds) == (7, (9,))
    assert asked["study"].methods[1].algorithm.learning_rate == 0.5
    assert (asked["out"], asked["fresh"]) == (tmp_path / "o", True)


def test_quiet_leaves_one_line_and_verbose_adds_the_log(pipeline: Pipeline, study: Path, capsys: Capture) -> None:
    assert main(["train", str(study), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert captured.err == ""
    assert main(["train", str(study), "--verbose"]) == 0
    assert "info: told" in capsys.readouterr().err
    assert logging.getLogger("rivage").handlers == [], "logging is as it was"


def test_json_of_train_is_the_summary(pipeline: Pipeline, study: Path, capsys: Capture) -> None:
    assert main(["train", str(study), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == pipeline.record.summary
    assert set(result) >= {"run", "report", "methods", "certificates"}


def test_strict_exits_with_3_only_for_a_failure(pipeline: Pipeline, study: Path) -> None:
    assert main(["train", str(study), "--strict", "--quiet"]) == 0
    summary = pipeline.record.summary
    failed = [{**certificate, "verdict": "fails"} for certificate in summary["certificates"]]
    pipeline.record.write_summary({**summary, "certificates": failed})
    assert main(["train", str(study), "--quiet"]) == 0
    assert main(["train", str(study), "--strict", "--quiet"]) == 3


def test_run_without_a_file_plays_the_built_in_study_and_draws(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(commands, "draw", lambda records, page: drawn.append(page))
    assert main(["run", "--set", "run.rounds=2"]) == 0
    page = pipeline.record.folder / "report.html"
    assert drawn == [page]
    assert pipeline.asked["study"].run.rounds == 2
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page}"
    assert pipeline.record.summary["report"] == str(page)


@pytest.mark.parametrize("engine", ["ray", "flower", "loca"])
def test_engines_to_come_are_refused(engine: str, pipeline: Pipeline, study: Path, capsys: Capture) -> None:
    assert main(["train", str(study), "--engine", engine]) == 2
    assert "What works: --engine local, torchdist." in capsys.readouterr().err
    assert pipeline.asked == {}
    assert main(["train", str(study), "--engine", "local", "--quiet"]) == 0


def test_a_missing_extra_is_reported_before_any_work(
    pipeline: Pipeline, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["run", str(study)]) == 2
    assert 'pip install "rivage[report]"' in capsys.readouterr().err
    assert pipeline.asked == {}


def test_verify_agrees_with_what_was_stored(record: RunRecord, capsys: Capture) -> None:
    assert main(["verify", str(record.folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{record.folder}: 1 of 1 certificates verified"
    assert main(["verify", str(record.folder), "--json"]) == 0
    (certificate,) = json.loads(capsys.readouterr().out)["certificates"]
    assert certificate["agrees"] is True
    assert set(certificate) >= {"kind", "claim", "measured", "reference", "method", "confidence", "verdict"}


@pytest.mark.parametrize(
    "change", [{"measured": 0.2}, {"verdict": "no_power"}, {"claim": "x"}, {"reference": float("nan")}]
)
def test_verify_exits_with_3_when_a_stored_certificate_was_changed(
    change: dict[str, Any], record: RunRecord, capsys: Capture
) -> None:
    record.write_certificates([replace(record.certificates[0], **change)])
    assert main(["verify", str(record.folder)]) == 3
    assert "differs" in capsys.readouterr().out


def test_verify_exits_with_3_when_a_certificate_fails(record: RunRecord, capsys: Capture) -> None:
    MessageLog.create(record.trial_folder("fedavg", 0) / "messages.rvg", {}).close()  # a log that lost its messages
    failing = CHECKS.get("wire_bytes")(record, method="fedavg")
    assert failing.verdict == "fails"
    record.write_certificates([failing])
    assert main(["verify", str(record.folder)]) == 3
    assert capsys.readouterr().out.splitlines()[0].endswith("0 of 1 certificates verified")


def test_verify_allows_for_rounding_and_nothing_more(record: RunRecord) -> None:
    (certificate,) = record.certificates
    record.write_certificates([replace(certificate, measured=certificate.measured * (1 + 1e-12))])
    assert main(["verify", str(record.folder), "--quiet"]) == 0
    record.write_certificates([replace(certificate, measured=certificate.measured * (1 + 1e-6))])
    assert main(["verify", str(record.folder), "--quiet"]) == 3


def test_a_certificate_of_another_version_is_told(record: RunRecord, capsys: Capture) -> None:
    record.write_certificates([replace(record.certificates[0], fields={"methods": ["fedavg"]})])
    assert main(["verify", str(record.folder)]) == 1
    assert "Another version of rivage wrote it" in capsys.readouterr().err


def test_a_run_without_certificates_is_not_verified(make_record: Callable[..., RunRecord], capsys: Capture) -> None:
    record = make_record(certified=False)
    assert main(["verify", str(record.folder)]) == 1
    assert "holds no certificates" in capsys.readouterr().err


def test_a_search_is_verified_with_its_run(
    make_record: Callable[..., RunRecord], tmp_path: Path, capsys: Capture
) -> None:
    """Finishing it would look at test records, which a search must not see."""
    folder = make_record(certified=False).folder.rename(tmp_path / "s-tuning-0123abcd")
    assert main(["verify", str(folder)]) == 1
    assert "verify the run that lies beside it" in capsys.readouterr().err


@pytest.mark.parametrize("parent", ["runs", "cut 2", "."])
def test_the_command_that_finishes_a_run_is_that_of_this_very_run(
    parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.toml").write_text(DIGITS)
    out = [] if parent == "runs" else ["--out", parent]
    assert main(["train", "toy.toml", "--seed", "3", "--set", "run.workers=1", "--quiet", *out]) == 0
    (folder,) = Path(parent).glob("toy-*")
    for here, name in ((tmp_path, folder), (tmp_path / folder, Path())):
        (folder / "certificates.json").unlink()
        monkeypatch.chdir(here)
        capsys.readouterr()
        assert main(["verify", str(name)]) == 1
        again = shlex.split(capsys.readouterr().err.partition("Finish the run with: rivage ")[2].strip())
        assert again[:1] == ["train"]
        assert main([*again, "--quiet"]) == 0
        monkeypatch.chdir(tmp_path)
        assert [*tmp_path.rglob("settings.toml")] == [tmp_path / folder / "settings.toml"]


@pytest.mark.parametrize("verb", ["train", "run"])
def test_a_folder_of_runs_that_is_a_file_is_refused(
    verb: str, pipeline: Pipeline, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results").write_text("mine")
    for out in ("results", "results/deep/down"):
        assert main([verb, str(study), "--out", out]) == 2
        assert capsys.readouterr().err == (
            'error: --out: "results" is a file, so it cannot hold the folder of the run. '
            "Give a folder with --out, or move the file away.\n"
        )
    assert not pipeline.asked
    Path("results").unlink()
    assert main([verb, str(study), "--out", "results/deep/down", "--quiet"]) == 0


@pytest.mark.parametrize("verb", ["report", "verify", "cite"])
def test_a_run_that_is_nowhere(verb: str, record: RunRecord, capsys: Capture) -> None:
    folder = record.folder
    assert main([verb, "nix"]) == 1
    assert capsys.readouterr() == (
        "",
        "error: nix: there is no such folder. Give a folder that `rivage run`, `train`, `play` or `place` has made.\n",
    )
    assert main([verb, str(folder)[:-1]]) == 1
    assert f'there is no such folder. Did you mean "{folder.name}"?' in capsys.readouterr().err


def test_cite_prints_each_reference_once(record: RunRecord, capsys: Capture) -> None:
    assert main(["cite", str(record.folder)]) == 0
    out = capsys.readouterr().out
    assert out.count("{one17,") == 1
    assert main(["cite", str(record.folder), "--json"]) == 0
    (reference,) = json.loads(capsys.readouterr().out)["references"]
    assert reference["title"] == "On Averages"
    assert reference["used_by"] == ["local: Algorithm 1", "fedavg: Algorithm 1"]


def test_report_draws_one_page(record: RunRecord, tmp_path: Path, capsys: Capture) -> None:
    assert main(["report", str(record.folder)]) == 0
    assert (record.folder / "report.html").read_text("utf-8").startswith("<!")
    capsys.readouterr()
    page = tmp_path / "both.html"
    assert main(["report", str(record.folder), str(record.folder), "--out", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(page), "runs": [str(record.folder)] * 2}
    assert page.exists()


def test_report_needs_a_run() -> None:
    with pytest.raises(ConfigError, match="no run to report on"):
        commands.report()

"""What an audit says to who asked: only what was asked, in words that are the same everywhere, and nothing lost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.cli.progress import Lines
from rivage.core.records import RunRecord
from rivage.report import audit_numbers, write_report
from rivage.studies.audit_answer import answer, notes
from rivage.studies.audit_settings import Auditing
from rivage.studies.auditing import audit_run
from rivage.studies.pipeline import run_study
from rivage.studies.settings import parse_study

SITES = ("east", "north", "south", "west")
DIGITS = """
name = "digits"
data = { kind = "digits" }
partition = { kind = "iid", clients = 4 }
methods = [{ kind = "fedavg", learning_rate = 0.3 }]
"""


def sites(folder: Path) -> None:
    """Tables in which smoking decides the cost."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for site in SITES:
        age, smokes = draw.integers(20, 80, 120), draw.random(120) < 0.4
        cost = draw.normal(0, 9000) + 100 * age + 6000 * smokes + draw.normal(0, 500, 120)  # sites differ
        lines = [f"{a},{'yes' if s else 'no'},{c:.0f}" for a, s, c in zip(age, smokes, cost, strict=True)]
        (folder / f"{site}.csv").write_text("\n".join(["age,smoker,cost", *lines]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("answers")
    sites(place / "sites")
    study = f"""
    name = "sites"
    data = {{ kind = "tables", folder = "{place / "sites"}", target = "cost" }}
    task = {{ model = "linear", loss = "squared" }}
    work = {{ epochs = 10 }}
    methods = [{{ kind = "fedavg", learning_rate = 0.05 }}, {{ kind = "local" }}]
    run = {{ rounds = 8 }}
    """
    return run_study(parse_study(study), out=place).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def asked(run: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON object of an audit."""
    assert main(["audit", str(run), "--json", "--quiet", *words]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def said(run: Path, *words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert main(["audit", str(run), *words]) == code
    return capsys.readouterr().out


# --- nothing is lost ------------------------------------------------------------------------------------------------


def test_an_audit_of_other_clients_loses_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("--attacks", "local_loss_threshold,model_attributes")
    first = asked(run, *kinds, capsys=capsys)
    fewer = asked(run, *kinds, "--targets", "2", capsys=capsys)
    assert [(row["attack"], len(row["targets"])) for row in fewer["attacks"]] == [
        ("local_loss_threshold", 2),
        ("model_attributes", 2),
    ]
    assert fewer["others"] == 2
    assert len(fewer["certificates"]) == 2
    assert {tuple(each["fields"]["targets"]) for each in fewer["certificates"]} == {tuple(fewer["targets"])}
    (audit,) = RunRecord.open(run).audits
    assert len(audit["attacks"]) == len(audit["certificates"]) == 4
    tested = sorted(row["p"] for row in audit["attacks"])
    held = {row["p"]: row["p_adjusted"] for row in audit["attacks"]}
    assert tested[0] < 1e-6
    assert held[tested[0]] == pytest.approx(4 * tested[0])  # corrected for all four, whoever asked for them
    again = asked(run, *kinds, capsys=capsys)
    assert [row["value"] for row in again["attacks"]] == [row["value"] for row in first["attacks"]]
    assert [row["cost"] for row in again["attacks"]] == [row["cost"] for row in first["attacks"]]  # not run again
    assert main(["verify", str(run), "--quiet"]) == 0


def test_rows_of_one_attack_on_several_targets_stand_apart_in_the_report(run: Path, tmp_path: Path) -> None:
    record = RunRecord.open(run)
    audit_run(record, Auditing(attacks=("local_loss_threshold",)))
    (audit,) = record.audits
    assert [row["targets"] for row in audit_numbers.rows(audit)] == [""]
    audit_run(record, Auditing(attacks=("local_loss_threshold",), clients=("west", 1)))
    (audit,) = record.audits
    assert {row["targets"] for row in audit_numbers.rows(audit)} == {"clients 0, 1, 2, 3", "clients 1, 3"}
    assert {row["targets"] for row in audit_numbers.alarm_rows(audit)} == {"clients 0, 1, 2, 3", "clients 1, 3"}
    write_report([record], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "2 attacks on the data of all 4 clients" in page
    assert "clients 1, 3</span>" in page


def test_only_what_was_asked_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(run, "--attacks", "local_loss_threshold,idlg", capsys=capsys)["others"] == 0
    text = said(run, "--attacks", "model_attributes", capsys=capsys)
    assert "2 more on file: local_loss_threshold, idlg" in text
    assert text.count("local_loss_threshold") == 1
    assert "which records" not in text
    text = said(run, "--attacks", "idlg", "--clients", "east", capsys=capsys)
    assert "3 more on file about other clients" in text


def test_a_certificate_fails_the_command_that_asks_for_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What another command has found stays on file, and is verified there."""
    asked(run, "--attacks", "local_loss_threshold,model_attributes", capsys=capsys)
    path = run / "audit.json"
    audits = json.loads(path.read_text())
    (row,) = (row for row in audits[0]["attacks"] if row["attack"] == "local_loss_threshold")
    row["evidence"]["targets"][0]["members"] = [score + 100 for score in row["evidence"]["targets"][0]["members"]]
    path.write_text(json.dumps(audits))
    assert main(["audit", str(run), "--attacks", "model_attributes", "--quiet"]) == 0
    assert main(["audit", str(run), "--attacks", "local_loss_threshold", "--quiet"]) == 3


# --- the same words -------------------------------------------------------------------------------------------------


def test_verify_has_the_words_of_the_audit(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(run, "--attacks", "local_loss_threshold,model_attributes", capsys=capsys)
    assert [row["verdict"] for row in found["attacks"]] == ["nothing found", "leaks"]
    assert main(["verify", str(run)]) == 0
    text = capsys.readouterr().out
    assert "nothing found" in text
    assert "leaks" in text
    assert "no power" not in text


def test_no_cell_is_cut_at_100_columns(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rivage.cli.output._PIPE_WIDTH", 100)
    kinds = ["local_loss_threshold", "gradient_attributes", "isolated_attributes", "idlg"]
    text = said(run, "--attacks", ",".join(kinds), "--quiet", capsys=capsys)
    text = said(run, "--attacks", ",".join(kinds), capsys=capsys)
    table = [line for line in text.splitlines() if line.startswith(" ")]
    assert all(len(line) <= 100 for line in table)
    assert [line.split()[0] for line in table if line.split() and line.split()[0] in kinds] == [
        "local_loss_threshold",
        "idlg",
        "gradient_attributes",
        "isolated_attributes",
    ]
    head = next(line for line in table if "verdict" in line)
    assert head.split() == ["attack", "question", "metric", "value", "base", "p", "verdict", "s"]
    assert sum("attribute smoker" in line for line in table) == 2
    assert "nothing found" in text
    assert "…" not in text
    assert "e+" not in text


def test_refusals_name_clients_once_for_each_reason(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(run, "--attacks", "idlg,dlg,cosine_inversion", capsys=capsys)
    assert "idlg: client 0 (east), client 1 (north) and 2 more: labels show in the last layer" in text
    assert "dlg, cosine_inversion: client 0 (east), client 1 (north) and 2 more: the client holds" in text
    assert text.count("Leave this attack out") == 1


# --- how clients, columns and methods are named ---------------------------------------------------------------------


def test_clients_are_given_by_name_or_number(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = asked(run, "--attacks", "local_loss_threshold", "--clients", "west, 1,west", capsys=capsys)
    assert by_name["targets"] == [1, 3]
    by_number = asked(run, "--attacks", "local_loss_threshold", "--clients", "3,1", capsys=capsys)
    assert by_number["attacks"] == by_name["attacks"]
    assert main(["audit", str(run), "--clients", "wst", "--quiet"]) == 2
    assert 'no client is called so. Did you mean "west"? They are called: east, north' in capsys.readouterr().err
    assert main(["audit", str(run), "--clients", "7", "--quiet"]) == 2
    assert "client 7 has no message in the log. Clients with some: 0 (east), 1 (north)" in capsys.readouterr().err


def test_the_target_is_no_attribute_and_a_wrong_method_wrong_usage(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(run), "--attribute", "cost", "--quiet"]) == 2
    assert '"cost" is the target, which the model predicts' in capsys.readouterr().err
    for name in ("fedavgg", "local"):
        assert main(["audit", str(run), "--method", name, "--quiet"]) == 2
    told = capsys.readouterr().err
    assert 'there is no method "fedavgg". Did you mean "fedavg"? Methods: fedavg, local.' in told
    assert '"local" sends nothing' in told
    shutil.rmtree(run / "trials" / "local")
    assert main(["audit", str(run), "--method", "local", "--quiet"]) == 2, "nothing has to be trained to know that"


def test_faults_of_a_study_name_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "s.toml"
    krum = DIGITS.replace("learning_rate = 0.3", 'collector = { kind = "krum", keep = 9 }')
    study.write_text(krum + 'task = { model = "cnn" }')
    (tmp_path / "log.rvg").write_bytes(b"")
    for words in (["train", str(study)], ["audit", str(tmp_path / "log.rvg"), "--study", str(study)]):
        assert main([*words, "--quiet"]) == 2
        assert f"error: {study}, task.model: cnn reads images" in capsys.readouterr().err
    study.write_text(DIGITS + "[run]\nrouns = 3\nseeds = []\n")
    assert main(["audit", str(tmp_path / "log.rvg"), "--study", str(study), "--quiet"]) == 2
    assert capsys.readouterr().err.count(str(study)) == 1
    study.write_text(krum)
    assert main(["train", str(study), "--quiet"]) == 2
    assert f"error: {study}, [[methods]] 1: 4 clients give 4 updates" in capsys.readouterr().err


# --- logs that tell too little --------------------------------------------------------------------------------------


def digits(folder: Path, **run: Any) -> RunRecord:
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in run.items())
    return run_study(parse_study(f"{DIGITS}[run]\nrounds = 2\n{settings}"), out=folder)


def test_a_log_without_bodies_is_told_before_what_was_not_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = digits(tmp_path, log="meta").folder
    kinds = "local_loss_threshold,fedmia"
    text = said(folder, "--attacks", kinds, "--quiet", capsys=capsys)
    assert text.startswith("None of 2 attacks could be run, because the log holds no payloads")
    assert "Nothing was found" not in text
    text = said(folder, "--attacks", f"{kinds},loss_threshold", "--quiet", "--targets", "3", capsys=capsys)
    assert "Nothing was found about which records were trained on" in text.partition("because the log holds no")[2]


def test_a_torn_log_is_told_first_and_an_empty_one_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = digits(tmp_path, seeds=[3]).folder
    log = folder / "trials" / "fedavg" / "seed-3" / "messages.rvg"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 3])
    text = said(folder, "--attacks", "local_loss_threshold,idlg", "--quiet", capsys=capsys)
    assert re.match(r"The log is not whole: \d+ bytes at the end are no whole message\. ", text)
    assert " Nothing was found" not in text
    assert "In what is left of it nothing was found" in text
    log.write_bytes(whole[:2000])
    assert main(["audit", str(folder), "--quiet"]) == 1
    assert "no client has answered in it, so there is nobody to attack" in capsys.readouterr().err


def row(attack: str, verdict: str, **changes: Any) -> dict[str, Any]:
    base = {"question": "membership", "view": "eavesdropper", "metric": "auc", "value": 0.5, "baseline": 0.5}
    return {"attack": attack, "verdict": verdict, "oracle": "", "targets": [0], "reasons": {}, **base, **changes}


def test_the_answer_has_the_reason_that_most_refusals_have() -> None:
    few, many = "it holds 7 records. Take more.", "it is no image. Leave it out."
    rows = [row("a", "refused", reasons={few: ["client 0"]}), row("b", "refused", reasons={many: ["client 0"]}),
            row("c", "refused", reasons={"it holds 9 records. Take more.": ["client 1"]})]  # fmt: skip
    assert answer(rows) == "None of 3 attacks could be run, 2 of them because it holds 7 records."
    clean = row("d", "nothing found")
    assert answer([*rows[:2], clean]) == (
        "2 attacks could not be run, one of them because it holds 7 records. "
        "Nothing was found about which records were trained on."
    )
    assert answer([rows[1]]) == "One attack could not be run, because it is no image."
    assert answer([row("d", "no power")]) == "One attack had too few records to tell."
    rough = answer([row("emulator", "estimated", question="model")])
    assert rough == "The model that a client's data alone would give was estimated, which no test can judge."
    assert answer([]) == "Nothing was tried."


def test_a_client_that_dropped_out_leaves_the_log_whole() -> None:
    clean = row("d", "nothing found")
    assert answer([clean], faults=["23 models were sent and never answered"]) == answer([clean])
    torn = answer([clean], faults=["7 bytes are no message", "2 updates answer no broadcast", "no round 3"])
    assert torn == (
        "The log is not whole: 7 bytes are no message, and 2 more faults. "
        "In what is left of it nothing was found about which records were trained on."
    )


def test_notes_tell_equal_reasons_once() -> None:
    whys = {"it holds 7 records.": ["client 0", "client 1"], "it holds 9 records.": ["client 2"]}
    late = [{"attack": name, "question": "record", "reason": "the budget of 1 s is spent"} for name in ("x", "y")]
    found = {
        "attacks": [row("a", "refused", reasons=whys), row("b", "refused", reasons=whys),
                    row("c", "refused", reasons={"there is no column": ["all targets"]})],
        "faults": ["3 bytes are no message"], "others": [], "targets": [0], "not_run": late,
    }  # fmt: skip
    assert notes(found) == [
        "log: 3 bytes are no message",
        "a, b: client 0, client 1 and 1 more: it holds 7 records.",
        "c: there is no column",
        "x, y: not run, the budget of 1 s is spent",
    ]


def test_progress_of_attacks_tells_time_so_far_and_none_left() -> None:
    """Attacks are as unlike as a second and an hour: those that are done tell nothing of those to come."""
    lines: list[str] = []
    now = [0.0]

    class Console:
        def print(self, text: str, **options: Any) -> None:
            lines.append(text)

    observer = Lines(Console(), clock=lambda: now[0])  # type: ignore[arg-type]  # prints, and no more is asked of it
    observer.on_event({"event": "study", "trials": 1, "rounds": 20, "unit": "attacks", "alike": False})
    observer.on_event({"event": "trial", "method": "audit of fedavg", "seed": 0, "rounds": 20})
    now[0] = 75.0
    observer.on_event({"event": "point", "done": 3, "score": "lira: leaks"})
    assert lines == ["audit of fedavg, seed 0: 3 of 20 attacks in all, lira: leaks, 0:01:15 so far"]

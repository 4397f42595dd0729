"""The text of every error that settings and the command line can show.

``error_texts.txt`` holds them as a user sees them. After a wanted change, look at what
``UPDATE_TEXTS=1 pytest tests/cli/test_error_texts.py`` writes there, and commit it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rivage.cli.app import main

TEXTS = Path(__file__).with_name("error_texts.txt")
DATA = '[data]\nkind = "tables"\nfolder = "sites"\ntarget = "y"\n'
LOCAL = '[[methods]]\nkind = "local"\n'
FEDAVG = '[[methods]]\nkind = "fedavg"\n'
GOOD = DATA + LOCAL + FEDAVG
HEADER = 'loss = "squared"\nparameters = [{ name = "weight", shape = [1, 3] }]\n'

STUDIES = {
    "unknown key": DATA + FEDAVG + "learning_rat = 0.1\n",
    "unknown key of a table": GOOD + "[run]\nround = 3\n",
    "unknown key of [work]": GOOD + "[work]\nepoch = 3\n",
    "unknown key of a method's work": GOOD + "[methods.work]\nepoch = 3\n",
    "unknown table": GOOD + "[evaluations]\nevery = 3\n",
    "unknown key, nothing close": GOOD + "[run]\nzzz = 3\n",
    "a whole number is text": GOOD + '[run]\nrounds = "ten"\n',
    "a whole number is a number": GOOD + "[run]\nrounds = 1.5\n",
    "a whole number is true": GOOD + "[run]\nrounds = true\n",
    "a number is text": DATA + FEDAVG + 'learning_rate = "fast"\n',
    "text is a number": "name = 3\n" + GOOD,
    "an item of a list": GOOD + "[run]\nseeds = [0, 1.5]\n",
    "a list is a number": GOOD + "[run]\nseeds = 3\n",
    "a word is misspelt": GOOD + '[run]\ndtype = "float46"\n',
    "a word out of others": GOOD + "[run]\ndtype = 32\n",
    "a word or a number": GOOD + '[work]\nbatch_size = "whole"\n',
    "a table is a number": "run = 3\n" + GOOD,
    "a list of tables is one table": DATA + '[methods]\nkind = "fedavg"\n',
    "unknown kind of method": DATA + '[[methods]]\nkind = "fedavgg"\n',
    "unknown kind of data": GOOD.replace("tables", "table"),
    "unknown kind of availability": GOOD + '[availability]\nkind = "markow"\n',
    "kind is missing": DATA + LOCAL + "[[methods]]\nlearning_rate = 0.1\n",
    "kind is a number": DATA + "[[methods]]\nkind = 3\n",
    "data are missing": LOCAL,
    "methods are missing": DATA,
    "no method": "methods = []\n" + DATA,
    "a required key is missing": '[data]\nkind = "tables"\nfolder = "sites"\n' + LOCAL,
    "value out of range": DATA + FEDAVG + "learning_rate = -1\n",
    "work out of range": GOOD + "[work]\nbatch_size = 0\n",
    "cohort of nobody": GOOD + "[run]\ncohort = 0\n",
    "the same seed twice": GOOD + "[run]\nseeds = [1, 1]\n",
    "a negative seed": GOOD + "[run]\nseeds = [-1]\n",
    "a log policy": GOOD + '[run]\nlog = "everything"\n',
    "an audit without end": GOOD + "[audit]\nbudget = inf\n",
    "an attack twice": GOOD + '[audit]\nattacks = ["lira", "lira"]\n',
    "a share of one": GOOD + "[evaluation]\nunseen_clients = 1.0\n",
    "nothing left to train on": GOOD + "[evaluation]\nvalidation = 0.5\ntest = 0.5\n",
    "two methods of one name": GOOD + FEDAVG,
    "an empty name": 'name = " "\n' + GOOD,
    "a method's name on two lines": GOOD + 'name = "a\\nb"\n',
    "unknown method in among": GOOD + '[[methods]]\nkind = "guarded"\namong = ["lokal"]\n',
    "among names itself": GOOD + '[[methods]]\nkind = "guarded"\namong = ["guarded"]\n',
    "nothing to choose among": DATA + '[[methods]]\nkind = "guarded"\n',
    "stages that are one table": DATA + FEDAVG + 'stages = { kind = "clip" }\n',
    "more to keep than a cohort has": DATA + FEDAVG + 'collector = { kind = "krum", keep = 9 }\n[run]\ncohort = 6\n',
    "a pull that diverges": DATA + '[[methods]]\nkind = "ditto"\npull = 50\n[[methods]]\nkind = "fedprox"\nmu = 20\n',
    "an adversary by share and by clients": GOOD + '[adversary]\nkind = "nan"\nshare = 0.2\nclients = [1]\n',
    "shares of devices": GOOD + '[devices]\nkind = "classes"\nclasses = [{ share = 0.8 }, { share = 0.9 }]\n',
    "a device that never ends": GOOD + '[devices]\nkind = "classes"\nclasses = [{ inference_ms = inf }]\n',
    "several problems": DATA + FEDAVG + 'learning_rat = 1\n[run]\nrounds = "x"\n[evalution]\n[work]\nepochs = -1\n',
    "not TOML": "[run]\nrounds = = 5\n",
    "TOML that ends too early": "name = [1,",
    "a key twice": "name = 'a'\nname = 'b'\n",
}
COMMANDS = {
    "no such file": ["train", "studi.toml"],
    "no such file, nothing beside": ["train", "empty/study.toml"],
    "no such folder": ["train", "nowhere/study.toml"],
    "a folder for a file": ["train", "empty"],
    "not UTF-8": ["train", "bytes.toml"],
    "engine to come": ["train", "good.toml", "--engine", "ray"],
    "unknown engine": ["train", "good.toml", "--engine", "locl"],
    "--set without a value": ["train", "good.toml", "--set", "run.rounds"],
    "--set of an unknown key": ["train", "good.toml", "--set", "run.roundz=5"],
    "--set of an unknown table": ["train", "good.toml", "--set", "rnu.rounds=5"],
    "--set of an unknown method": ["train", "good.toml", "--set", "methods.fedvag.work=5"],
    "--set past the end": ["train", "good.toml", "--set", "methods.3.work=5"],
    "--set through a value": ["train", "good.toml", "--set", "name.x=5", "--set", "name.x=5"],
    "--set of a wrong type": ["train", "good.toml", "--set", "run.rounds=many", "--set", "evaluation.every=2"],
    "an attack that is misspelt": ["audit", "empty", "--attacks", "loss_treshold"],
    "a method that is misspelt": ["audit", "trained", "--method", "fedavgg"],
    "no target": ["audit", "empty", "--targets", "0"],
    "neither a run nor updates": ["audit", "empty"],
    "a study beside a run folder": ["audit", "trained", "--study", "good.toml"],
    "updates without their study": ["audit", "updates"],
    "updates without a file": ["audit", "updates", "--study", "good.toml"],
    "a log without its study": ["audit", "good.toml"],
    "unknown verb": ["trian"],
    "unknown option": ["train", "good.toml", "--frsh"],
    "an option that is no number": ["train", "good.toml", "--seed", "x"],
    "no study": ["train"],
    "no run": ["report"],
    "not a run": ["verify", "empty"],
    "a run that is nowhere": ["verify", "nix"],
    "a file for the folder of runs": ["train", "good.toml", "--out", "bytes.toml"],
    "unknown claim": ["reproduce", "fedavg-equal-sgd"],
    "unknown claims, nothing close": ["reproduce", "zzz", "qqq"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the texts are relative to a folder with one good study."""
    for name, file, text in (("trained", "settings.toml", GOOD), ("updates", "header.toml", HEADER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    (tmp_path / "empty").mkdir()
    (tmp_path / "good.toml").write_text(GOOD)
    (tmp_path / "bytes.toml").write_bytes("name = 'é'".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    claims = ModuleType("rivage.studies.claims")
    claims.CLAIMS = {"fedavg-equals-sgd": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rivage.studies.claims", claims)


def kept() -> dict[str, str]:
    blocks = re.split(r"^## (.*)\n", TEXTS.read_text("utf-8") if TEXTS.exists() else "", flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(blocks[1::2], blocks[2::2], strict=True)}


def keep(name: str, text: str) -> None:
    order = {case: place for place, case in enumerate([*STUDIES, *COMMANDS])}
    texts = {case: shown for case, shown in (kept() | {name: text}).items() if case in order}
    blocks = [f"## {case}\n{texts[case]}\n" for case in sorted(texts, key=order.__getitem__)]
    TEXTS.write_text("\n".join(blocks), "utf-8")


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == (1 if words[0] == "verify" or words == ["audit", "empty"] else 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    # The kinds that exist are not the business of this test.
    return re.sub(r"(Known kinds:|one of the kinds) [^.]*", r"\1 ...", captured.err).strip()


def check(name: str, text: str) -> None:
    if os.environ.get("UPDATE_TEXTS"):
        keep(name, text)
    assert kept().get(name) == text
    assert text.startswith("error: ")


@pytest.mark.parametrize("name", STUDIES)
def test_a_faulty_study(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.toml").write_text(STUDIES[name])
    check(name, shown(["train", "study.toml"], capsys))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_faulty_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(name, shown(COMMANDS[name], capsys))


def test_no_text_is_kept_for_a_case_that_is_gone() -> None:
    assert list(kept()) == [*STUDIES, *COMMANDS]


def test_every_text_says_what_is_wrong_and_how_to_mend_it() -> None:
    lines = [line for text in kept().values() for line in text.splitlines() if not line.endswith("problems")]
    assert len(lines) >= 60
    for line in lines:
        fault, _, mend = line.partition(". ")
        assert fault, line
        assert mend or "Did you mean" in line, line

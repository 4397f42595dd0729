from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.studies.advice_plan import Plan


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight sites with sixty records of one and the same law, and room for the smallest comparison alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rivage.studies.advice_plan.PLANS", (Plan(1, 2, 2),))
    rng, folder = np.random.default_rng(0), tmp_path / "sites"
    folder.mkdir()
    for site in range(8):
        x = rng.normal(size=(60, 2))
        rows = [f"{a:.3f},{b:.3f},{'yes' if a > b else 'no'}" for a, b in x]
        (folder / f"site{site}.csv").write_text("\n".join(["age,dose,ill", *rows]))
    return folder


def test_a_folder_is_answered_in_text_and_in_json(sites: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["advise", str(sites), "--target", "ill", "--set", "tuning={ learning_rates = [0.1, 1.0] }"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "recommended" in printed.out
    assert printed.out.rstrip().endswith("next: rivage run advice.toml")
    assert "2 settings of each method, 1 rounds, 2 seeds" in printed.err
    assert main([*words, "--json", "--quiet"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"recommendation", "confidence", "methods", "certificates", "study"} <= set(answer)
    assert answer["recommendation"] in answer["methods"]
    assert answer["answer"] in " ".join(printed.out.split())
    assert Path(answer["study"]).read_text().startswith("# Written by rivage advise")
    assert main(["verify", answer["run"], "--quiet"]) == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["sites"], "Name it with --target COLUMN. site0.csv has the columns: age,dose,ill."),
        (["sites", "--target", "il"], 'Did you mean "ill"'),
        (["nothing"], 'there is no "nothing"'),
        (["nothing", "--target", "ill"], '"nothing" is no folder of tables. There is no such folder.'),
        (["sites/site0.csv", "--target", "ill"], 'Give the folder that holds one table per client, such as "sites".'),
        (["digits", "--target", "ill"], "Leave it out; a study names the target in [data]."),
        (["digits", "--minutes", "0"], "--minutes: minutes is 0"),
        (["digits", "--study", "sites/site0.csv"], "rivage advise has not written it"),
        (["digits", "--set", "task.modl=mlp"], 'Did you mean "model"'),
    ],
)
def test_wrong_usage_says_what_to_do(
    sites: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert main(["advise", *words]) != 0
    printed = capsys.readouterr()
    assert not printed.out
    assert text in printed.err

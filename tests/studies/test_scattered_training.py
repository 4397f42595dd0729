"""Training whose rounds take random times: the clock of a study with [times], and nothing else, changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.core.records import RunRecord
from rivage.studies.pipeline import run_study
from rivage.studies.settings import dump_study, parse_study

STUDY = """
name = "silos"
data = { kind = "digits" }
partition = { kind = "dirichlet", clients = 5, alpha = 0.5 }
work = { updates = 2, batch_size = 8 }
evaluation = { every = 4 }
run = { rounds = 8 }
[silos]
step_ms = 5.0
access_bps = 1e8
core_bps = 1e9
[underlay]
kind = "cities"
places = ["Paris", "Lyon", "Marseille", "Nice", "Lille"]
ms_per_km = 0.005
links = "mesh"
[[methods]]
name = "ring"
kind = "dpasgd"
[[methods]]
name = "star"
kind = "dpasgd"
overlay = { kind = "star", hub = "Lyon" }
[[methods]]
name = "matcha"
kind = "dpasgd"
overlay = { kind = "matcha" }
"""
NAMES = ("ring", "star", "matcha")


def played(folder: Path, law: str | None, seed: int = 0) -> RunRecord:
    times = "" if law is None else f'[times]\nkind = "{law}"\n'
    return run_study(parse_study(STUDY.replace("rounds = 8", f"rounds = 8, seeds = [{seed}]") + times), out=folder)


def clocks(record: RunRecord, name: str) -> list[float]:
    (trial,) = (trial for trial in record.trials if trial.method == name)
    return [event["clock_ms"] for event in trial.events("round")]


def test_times_that_do_not_scatter_are_no_times(tmp_path: Path) -> None:
    plain, constant = played(tmp_path, None), played(tmp_path, "constant")
    for name in NAMES:
        assert clocks(constant, name) == pytest.approx(clocks(plain, name), rel=1e-12)


def test_chance_changes_the_clock_alone(tmp_path: Path) -> None:
    """Models are the same; times are others in every round and for every seed, and the same when played again."""
    plain, random = played(tmp_path / "a", None), played(tmp_path / "a", "exponential")
    for name in NAMES:
        here, there = (record.trial(name, 0).events("evaluation") for record in (plain, random))
        assert [event["test"] for event in here] == [event["test"] for event in there]
        spent = np.diff([0.0, *clocks(random, name)])
        assert len({*spent.round(6)}) == 8
        assert (spent > 0).all()
    assert played(tmp_path / "b", "exponential").hash == random.hash
    assert clocks(played(tmp_path / "c", "exponential", seed=1), "ring") != clocks(random, "ring")


def test_settings_come_back(tmp_path: Path) -> None:
    study = parse_study(STUDY + '[times]\nkind = "pareto"\nshape = 3.0\npersistence = 0.5\n')
    assert dump_study(study)["times"]["persistence"] == 0.5


def test_a_misspelt_client_is_not_put_somewhere(tmp_path: Path) -> None:
    """Clients called like the nodes belong to them; where some are and one is not, nobody guesses."""
    for name in ("Paris", "Lyon", "Marseille", "Nice", "Lile"):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + "".join(f"{k},{k % 2}\n" for k in range(40)))
    data = f'data = {{ kind = "tables", folder = "{tmp_path}", target = "y" }}'
    text = STUDY.replace('data = { kind = "digits" }', data).replace(
        'partition = { kind = "dirichlet", clients = 5, alpha = 0.5 }', ""
    )
    with pytest.raises(ConfigError, match=r'client "Lile" is no node.*Did you mean "Lille"'):
        run_study(parse_study(text), out=tmp_path / "runs")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STUDY.partition("[silos]")[0] + '[times]\nkind = "uniform"\n[[methods]]\nkind = "dpasgd"\n', "no network"),
        (STUDY + '[times]\nkind = "gaussian"\n', "gaussian"),
        (STUDY + '[times]\nkind = "exponential"\npersistence = 1.0\n', "persistence is 1"),
    ],
)
def test_wrong_times_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_study(text)

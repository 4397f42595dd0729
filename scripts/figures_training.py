"""The figure of docs/explanation/decentralised-training.md, from a real run of its study; about a minute.

.venv/bin/python scripts/figures_training.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.core.summaries import weighted_mean
from rivage.core.trial_records import TrialRecord
from rivage.report.series import trials_of
from rivage.report.theme import looks, to_svg
from rivage.studies.pipeline import run_study
from rivage.studies.settings import load_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "decentralised-training"
ROOT = Path(__file__).parents[1]
_PANELS = (("rounds", "rounds", "linear"), ("seconds", "simulated seconds", "log"))


def accuracy(trial: TrialRecord) -> tuple[ndarray, ndarray, ndarray]:
    """Rounds, simulated seconds, and the accuracy of the average model then."""
    clock = [0.0, *(event["clock_ms"] / 1000 for event in trial.events("round"))]
    found = [event for event in trial.events("evaluation") if event["group"] == "average"]
    rounds = np.array([event["round"] for event in found])
    values = np.array([weighted_mean(event["test"], event["test_size"]) for event in found])
    return rounds, np.array(clock)[rounds], values


def figure(standalone: Callable[..., str], record: RunRecord) -> str:
    """The SVG file's text."""
    styles = looks((name, name) for name in record.methods)
    curves = {name: [accuracy(trial) for trial in trials_of(record, name)] for name in record.methods}

    def fill(canvas: Figure) -> None:
        for axes, (_, label, scale) in zip(canvas.subplots(1, 2, sharey=True), _PANELS, strict=True):
            for name, seeds in curves.items():
                at = np.mean([seed[0 if scale == "linear" else 1] for seed in seeds], axis=0)
                values, look = np.array([seed[2] for seed in seeds]), styles[name]
                axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=look.color, alpha=0.12, linewidth=0)
                axes.plot(at, values.mean(axis=0), color=look.color, linestyle=look.line, label=name)
            axes.set(xlabel=label, xscale=scale)
        canvas.axes[0].set_ylabel("accuracy of the average model")
        canvas.axes[0].legend(frameon=False, fontsize=8, loc="lower right")

    label = (
        "Accuracy of the average model of twelve silos over six overlays, against rounds and against simulated "
        "seconds: nearly the same by rounds, far apart by seconds, the star last."
    )
    return standalone(to_svg(fill, size=(10.0, 4.0), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    study = load_study(ROOT / "docs" / "explanation" / "decentralised-training.toml")
    with tempfile.TemporaryDirectory() as runs:
        record = run_study(study, out=Path(runs))
        (folder / f"{NAME}.svg").write_text(figure(standalone, record), encoding="utf-8")
        for name, row in record.summary["methods"].items():
            print(name, {key: row[key] for key in ("mean", "simulated_s", "bytes_up", "bytes_down")})


if __name__ == "__main__":
    draw(ROOT / "docs" / "_figures")

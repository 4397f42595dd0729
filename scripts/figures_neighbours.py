"""The figure of docs/explanation/knn-per.md, from real runs on MNIST's test part; about two minutes, RIVAGE_DATA.

.venv/bin/python scripts/figures_neighbours.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.federated.knnper import KNNPer
from rivage.report.theme import INK, MUTED, looks, to_svg
from rivage.studies.claims.neighbours import SEEDS, SHARES, skewed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "neighbours-and-model"
PARTS = (0.05, 0.25, 1.0)
CAPACITIES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
CHOICES: Mapping[str, Mapping[str, float]] = {
    "share 0.5": {"share": 0.5},
    "own choice": {},
    "own choice, trust 30": {"trust": 30.0},
}


def accuracy(**settings: float) -> float:
    """Mean test accuracy in percent, mean over the seeds."""
    return float(np.mean([skewed(0.3, seed).scores(KNNPer(**settings)).mean for seed in SEEDS]))  # type: ignore[arg-type]


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    curves = {f"{100 * part:g} % of the records": [accuracy(share=s, fraction=part) for s in SHARES] for part in PARTS}
    by_capacity = {name: [accuracy(fraction=part, **choice) for part in CAPACITIES] for name, choice in CHOICES.items()}
    plain = accuracy(share=0.0)
    for name, values in {**curves, **by_capacity}.items():
        print(name, np.round(values, 1).tolist())

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2, sharey=True)
        for (name, values), look in zip(curves.items(), looks((n, n) for n in curves).values(), strict=True):
            best = int(np.argmax(values))
            left.plot(SHARES, values, color=look.color, linestyle=look.line, label=name)
            left.scatter([SHARES[best]], [values[best]], s=26, color=look.color, marker=look.marker, zorder=3)
        left.set(xlabel="share of the neighbours", ylabel="test accuracy in percent", title="the best share by memory")
        for (name, values), look in zip(by_capacity.items(), looks((n, n) for n in by_capacity).values(), strict=True):
            right.plot(
                [100 * part for part in CAPACITIES],
                values,
                color=look.color,
                linestyle=look.line,
                marker=look.marker,
                label=name,
            )
        right.set(xlabel="records stored, in percent", title="accuracy by memory")
        for axes in (left, right):
            axes.axhline(plain, color=MUTED, linewidth=1, linestyle=":")
            axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower center")
        left.set_ylim(bottom=80)

    label = (
        "Left: accuracy against the share of the neighbours, for stores of 5, 25 and 100 percent of the records: "
        "inverted U's, highest with the largest store. Right: accuracy against memory for a fixed and for chosen "
        "shares; most of the gain comes with a quarter of the records. Dotted, the shared model alone."
    )
    return standalone(to_svg(fill, size=(10.0, 3.8), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

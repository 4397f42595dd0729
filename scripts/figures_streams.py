"""The figure of docs/explanation/data-streams.md, from real runs; about a minute. Needs MNIST below RIVAGE_DATA.

.venv/bin/python scripts/figures_streams.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.report.theme import looks, to_svg
from rivage.studies.claims.streams import SHARES, TABLE, accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "data-streams"
RATE, SEEDS = 0.5, range(4)


def measured() -> dict[float, tuple[list[float], tuple[float, float]]]:
    """N_H / N -> accuracy at every share, and share and accuracy of the rule; means over seeds."""
    found = {}
    for rate, held in TABLE:
        if rate != RATE:
            continue
        grid = [np.mean([accuracy(RATE, held, s, strategy="grid", p=p)[0] for s in SEEDS]) for p in SHARES]
        ruled, share = np.mean([accuracy(RATE, held, s, strategy="rule") for s in SEEDS], axis=0)
        found[held] = ([float(value) for value in grid], (float(share), float(ruled)))
    return found


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    rows = measured()
    styles = looks((f"{held:.0%}", f"{held:.0%}") for held in rows)

    def fill(canvas: Figure) -> None:
        axes = canvas.subplots()
        for held, (grid, rule) in rows.items():
            look = styles[f"{held:.0%}"]
            axes.plot(SHARES, grid, color=look.color, linestyle=look.line, label=f"{held:.0%} of the records stay")
            axes.plot(*rule, color=look.color, marker="o", markersize=8, markeredgecolor="white")
            axes.axvline(held, color=look.color, linewidth=0.6, linestyle=":")
        axes.set(xlabel="share p of historical data", ylabel="test accuracy (%)", xlim=(-0.02, 1.02), ylim=(73, 88))
        axes.set_title("dots: where the rule went; dotted: all records count the same")
        axes.legend(frameon=False, fontsize=8, loc="lower center")

    label = (
        "Test accuracy against the share p of historical data, for 10, 25, 50 and 75 % of records that stay. A curve "
        "is highest near its own share of records; the rule's choices lie there or somewhat to the right."
    )
    return standalone(to_svg(fill, size=(7.0, 4.2), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

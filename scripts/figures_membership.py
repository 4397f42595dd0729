"""The figure of docs/explanation/membership-inference.md, from real runs; about two minutes.

.venv/bin/python scripts/figures_membership.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.privacy.roc import auc, clopper_pearson, roc
from rivage.report.theme import MUTED, looks, to_svg
from rivage.studies.claims.membership import FITTED, SPREAD, found

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "membership-inference"
DRAWN = ("zari21", "white box", "loss of the last returned model", "FedMIA, cosine", "loss of the final model")
PANELS = {"four clients that learn by heart": FITTED, "ten clients, one epoch a round": SPREAD}
POINTS = 60  # of a curve
TICKS = (0.001, 0.01, 0.1, 1.0)


def curve(axes: Axes, scores: np.ndarray, member: np.ndarray, label: str, color: str, line: str) -> None:
    """Share of members found over share of false alarms, with the interval of the former."""
    whole, members = roc(scores, member), int(member.sum())
    floor = 1 / int((~member).sum())
    grid = np.geomspace(floor, 1, POINTS)
    share = whole.tpr[np.searchsorted(whole.fpr, grid * (1 + 1e-9), side="right") - 1]
    low, high = np.transpose([clopper_pearson(round(value * members), members) for value in share])
    axes.fill_between(grid, np.maximum(low, floor), high, color=color, alpha=0.12, linewidth=0)
    area = f"{label} ({auc(scores, member):.2f})"
    axes.plot(grid, np.where(share > 0, share, np.nan), color=color, linestyle=line, label=area)


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    styles = looks((name, name) for name in DRAWN)

    def fill(canvas: Figure) -> None:
        for axes, (title, recipe) in zip(canvas.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
            for name in DRAWN:
                pooled = found(recipe, name)
                scores = np.concatenate([each.scores for each in pooled])
                member = np.concatenate([each.member for each in pooled])
                curve(axes, scores, member, name, styles[name].color, styles[name].line)
            axes.plot([3e-4, 1], [3e-4, 1], color=MUTED, linewidth=0.6, linestyle=":")
            axes.set(xscale="log", yscale="log", xlim=(3e-4, 1), ylim=(3e-4, 1), xlabel="others called members")
            axes.set_xticks(TICKS, [f"{100 * tick:g} %" for tick in TICKS])
            axes.set_yticks(TICKS, [f"{100 * tick:g} %" for tick in TICKS])
            axes.set_title(title)
            axes.legend(frameon=False, fontsize=7, loc="lower right")
        canvas.axes[0].set_ylabel("members found")

    label = (
        "Share of members found against share of false alarms, both logarithmic, for five attacks. Where clients learn "
        "by heart zari21 has the largest area; where they do not, only FedMIA is clearly above the diagonal."
    )
    return standalone(to_svg(fill, size=(10.0, 4.6), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

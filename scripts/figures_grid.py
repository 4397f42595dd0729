"""The figure of docs/explanation/personalisation-compared.md, from the quick studies of the grid; minutes.

.venv/bin/python scripts/figures_grid.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rivage.report.theme import INK, looks, to_svg
from rivage.studies.claims.personalised_grid import played

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "personalisation-compared"
STUDIES = ("digits-dirichlet", "digits-iid", "mixture", "heart")


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    results = {name: played(name, tuned=False) for name in STUDIES}
    methods = list(results[STUDIES[0]].means)[::-1]
    mean, low = looks([("mean", "mean"), ("bottom decile", "bottom decile")]).values()

    def fill(canvas: Figure) -> None:
        for panel, (name, found) in zip(canvas.subplots(1, len(STUDIES), sharey=True), results.items(), strict=True):
            for label, values, look in (("mean", found.means, mean), ("bottom decile", found.deciles, low)):
                rows = [(values[method], place) for place, method in enumerate(methods) if method in values]
                panel.scatter(*zip(*rows, strict=True), s=26, color=look.color, marker=look.marker, label=label)
            panel.axvline(found.means["local"], color=mean.color, linewidth=1, linestyle=":")
            panel.set(title=name, xlabel="test accuracy", yticks=range(len(methods)), yticklabels=methods)
            panel.grid(axis="y", linewidth=0.4)
        canvas.axes[2].legend(frameon=False, labelcolor=INK, loc="lower right", fontsize=8)

    label = "Mean and bottom decile of test accuracy of every method on four data sets; dotted, the mean of Local."
    return standalone(to_svg(fill, size=(12.0, 4.4), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

"""The figure of docs/explanation/differential-privacy.md, from real runs; about two minutes.

.venv/bin/python scripts/figures_privacy.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.report.theme import MUTED, looks, to_svg
from rivage.studies.claims.differential_privacy import Way, accuracy, clipped_accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "differential-privacy"
WAYS: Mapping[str, Way] = {
    "records, noise on devices": "records",
    "clients, noise of the server": "server",
    "clients, their own noise": "clients",
}
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
CLIPS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SEEDS = range(3)


def by_epsilon() -> dict[str, np.ndarray]:
    """Accuracy of each way, [ε and then without noise, seed]."""
    return {
        name: np.array([[accuracy(way, epsilon, seed) for seed in SEEDS] for epsilon in (*EPSILONS, None)])
        for name, way in WAYS.items()
    }


def by_clip() -> dict[str, np.ndarray]:
    """Accuracy under a fixed clip, and under an adaptive one that starts from it, [clip, seed]."""
    return {
        name: np.array([[clipped_accuracy(clip, seed, adaptive=adaptive) for seed in SEEDS] for clip in CLIPS])
        for name, adaptive in (("fixed", False), ("adaptive, from there", True))
    }


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    ways, clips = by_epsilon(), by_clip()
    styles = looks((name, name) for name in (*ways, *clips))

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        for axes, places, rows in ((left, EPSILONS, ways), (right, CLIPS, clips)):
            for name, found in rows.items():
                style, part = styles[name], found[: len(places)]
                axes.plot(places, part.mean(axis=1), color=style.color, marker=style.marker, label=name)
                axes.fill_between(
                    places, part.min(axis=1), part.max(axis=1), color=style.color, alpha=0.15, linewidth=0
                )
            axes.set(xscale="log", ylim=(0, 1), ylabel="accuracy on test records")
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.minorticks_off()
        for name, high in (("records", "records, noise on devices"), ("clients", "clients, noise of the server")):
            level = float(ways[high][-1].mean())
            left.axhline(level, color=MUTED, linestyle="--", linewidth=0.8)
            left.text(EPSILONS[0], level + 0.01, f"{name}, without noise", fontsize=8, va="bottom")
        left.set(xlabel="epsilon of the whole training, delta 1e-5")
        left.set_title("what privacy costs")
        left.legend(frameon=False, fontsize=8, loc="center right")
        right.set(xlabel="clip")
        right.set_title("clients, noise of the server 0.5")
        right.legend(frameon=False, fontsize=8, loc="lower center")

    label = (
        "Left: accuracy on digits grows with epsilon; noise on records costs least, a trusted server's on clients "
        "more, and clients' own noise leaves nothing. Right: accuracy has a peak over fixed clips; an adaptive clip "
        "reaches about the peak from most starts."
    )
    return standalone(to_svg(fill, size=(10.0, 4.2), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

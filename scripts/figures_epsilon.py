"""The figure of docs/explanation/audited-epsilon.md, from real runs; about two minutes.

.venv/bin/python scripts/figures_epsilon.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.federated.accounting import Release, epsilon_of
from rivage.federated.user_privacy import PrivateMean
from rivage.report.theme import looks, to_svg
from rivage.studies.claims.epsilon_audit import DELTA, ROUNDS, proved_by_clients
from rivage.studies.claims.epsilon_faults import ClippingLeftOut, QuarterOfTheNoise, TheSameNoiseEveryRound

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "audited-epsilon"
NOISE = (1.5, 2.5, 4.0, 7.0, 12.0, 20.0)
MECHANISMS = {
    "as claimed": PrivateMean,
    "a quarter of the noise": QuarterOfTheNoise,
    "clipping left out": ClippingLeftOut,
    "the same noise every round": TheSameNoiseEveryRound,
}
SEEDS = range(2)


def measured() -> dict[str, list[float]]:
    """Mechanism -> mean of what canaries prove, for every noise."""
    return {
        name: [float(np.mean([proved_by_clients(kind(noise=noise), seed) for seed in SEEDS])) for noise in NOISE]
        for name, kind in MECHANISMS.items()
    }


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    rows, claims = measured(), [epsilon_of([Release(noise, 1.0, ROUNDS)], DELTA) for noise in NOISE]
    for name, bounds in rows.items():
        print(name, [f"{claim:.2f}: {bound:.2f}" for claim, bound in zip(claims, bounds, strict=True)])
    styles = looks((name, name) for name in rows)

    def fill(canvas: Figure) -> None:
        axes = canvas.subplots()
        axes.fill_between([0.5, 20], [0.5, 20], 20, color="#888888", alpha=0.15, linewidth=0)
        axes.text(0.62, 6.5, "proved above the claim:\nviolation", fontsize=8)
        for name, bounds in rows.items():
            look = styles[name]
            axes.plot(
                claims, np.maximum(bounds, 0.03), color=look.color, linestyle=look.line, marker=look.marker, label=name
            )
        axes.set(xscale="log", yscale="log", xlim=(0.6, 18), ylim=(0.025, 12))
        axes.set(xlabel="ε that the accountant tells", ylabel="ε that 600 canaries prove")
        axes.legend(frameon=False, fontsize=8, loc="lower right")

    label = (
        "Proved against claimed epsilon, for six amounts of noise. Of the honest mechanism at most about a third of "
        "its claim is proved. A quarter of the noise, clipping that is left out and noise that is the same in every "
        "round lie above their claims up to 2.6; 600 canaries cannot prove more than 4.06."
    )
    return standalone(to_svg(fill, size=(7.0, 4.2), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

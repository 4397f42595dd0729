"""The figure of docs/explanation/dp-ftrl.md, from real runs; about two minutes.

.venv/bin/python scripts/figures_dp_ftrl.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.federated.accounting import noise_for
from rivage.federated.dp_ftrl import releases, step_covariance
from rivage.report.theme import looks, to_svg
from rivage.studies.claims.dp_ftrl import COHORT, DELTA, ROUNDS, Way, best

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "dp-ftrl"
WAYS: Mapping[str, Way] = {
    "on prefix sums": "tree",
    "anew in every round": "fresh",
    "anew, clients sampled by chance": "sampled",
}
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)


def spread() -> dict[str, np.ndarray]:
    """Deviation of all noise in the model after each round, in clips, at ε = 1."""
    place, once = np.tri(ROUNDS), noise_for(1.0, DELTA)
    tree = np.sqrt(np.diag(place @ step_covariance(ROUNDS) @ place.T) * releases(ROUNDS).max())
    fresh = np.sqrt(np.arange(1, ROUNDS + 1))
    return {"on prefix sums": once * tree / COHORT, "anew in every round": once * fresh / COHORT}


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    noise, found = spread(), {name: [best(way, epsilon, 0) for epsilon in EPSILONS] for name, way in WAYS.items()}
    styles = looks((name, name) for name in WAYS)

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        for name, deviations in noise.items():
            left.step(range(1, ROUNDS + 1), deviations, where="post", color=styles[name].color, label=name)
        left.set(xlabel="round", ylabel="noise in the model, in clips", ylim=(0, None))
        left.set_title("clients that take part once, epsilon 1")
        for name, values in found.items():
            right.plot(EPSILONS, values, color=styles[name].color, marker=styles[name].marker, label=name)
        right.set(xscale="log", xlabel="epsilon of the whole training, delta 1e-5", ylabel="accuracy on test records")
        right.set_xticks(EPSILONS, [f"{epsilon:g}" for epsilon in EPSILONS])
        right.minorticks_off()
        right.set_title("2560 clients, 20 a round")
        for axes, place in ((left, "upper left"), (right, "lower right")):
            axes.legend(frameon=False, fontsize=8, loc=place, title="noise")

    label = (
        "Left: the noise in the model grows with the square root of the round where it is drawn anew, and hardly at "
        "all on prefix sums. Right: accuracy on prefix sums is above that of fresh noise at every epsilon, and meets "
        "that with sampling at large ones."
    )
    return standalone(to_svg(fill, size=(10.0, 4.2), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

"""The figure of docs/explanation/fedem.md, from real runs; about a minute.

.venv/bin/python scripts/figures_mixtures.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.federated import FedEM, Phase
from rivage.report.theme import INK, MUTED, looks, to_svg
from rivage.studies.claims.mixtures import (
    Recovery,
    drawn,
    mean_and_decile,
    mixture_trial,
    published,
    recovered,
    true_accuracy,
)
from rivage.studies.starts import best_start, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "recovered-mixture"
LAW, ROUNDS, SEED, STARTS = published(0.4, clients=40), 80, 0, 2
COMPONENTS = (1, 2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Found:
    """Accuracy (mean, bottom decile) by number of components, that of the true predictor, and the truth recovered."""

    accuracies: dict[int, tuple[float, float]]
    true: tuple[float, float]
    recovery: Recovery
    weights: np.ndarray


def found() -> Found:
    """One run per number of components, the better of two starts by training likelihood."""
    population, ids = drawn(LAW, SEED), list(range(LAW.clients))
    accuracies, recovery = {}, None
    for components in COMPONENTS:
        method = FedEM(learning_rate=2.0, components=components, work=Phase(updates=5, batch_size=None))
        kept = best_start(mixture_trial(method, population, ROUNDS, SEED), STARTS if components > 1 else 1)
        accuracies[components] = mean_and_decile(judge(kept, ids)["test"])
        if components == LAW.components:
            recovery = recovered(kept, population, ids)
    assert recovery is not None
    true = mean_and_decile(true_accuracy(population, ids))
    return Found(accuracies, true, recovery, population.truth.weights)


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    results = found()
    mean, low = looks([("mean", "mean"), ("bottom decile", "bottom decile")]).values()

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        for component, look in enumerate(
            looks((f"component {m + 1}", f"component {m + 1}") for m in range(3)).values()
        ):
            shares = results.weights[:, component], results.recovery.shares[:, component]
            left.scatter(*shares, s=14, color=look.color, marker=look.marker, label=f"component {component + 1}")
        left.set(xlabel="true proportion", ylabel="recovered proportion", title="40 clients, three components")
        left.legend(frameon=False, fontsize=8, labelcolor=INK)
        for place, (look, name) in enumerate(((mean, "mean"), (low, "bottom decile"))):
            values = [accuracy[place] for accuracy in results.accuracies.values()]
            right.plot(COMPONENTS, values, color=look.color, linestyle=look.line, marker=look.marker, label=name)
            right.axhline(results.true[place], color=look.color, linewidth=1, linestyle=":")
        right.set(
            xlabel="components learnt (three are true)", ylabel="test accuracy", title="flat beyond the true number"
        )
        right.legend(frameon=False, labelcolor=INK, loc="lower right")

    label = (
        "Left: recovered against true proportions of each component at each client, near the diagonal. "
        "Right: mean and bottom decile of test accuracy against the number of components; dotted, the true predictor."
    )
    return standalone(to_svg(fill, size=(10.0, 3.6), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

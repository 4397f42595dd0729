"""The figure of docs/explanation/attribute-inference.md, from real runs on the insurance file; a minute, RIVAGE_DATA.

.venv/bin/python scripts/figures_attributes.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.privacy.attribute_baselines import imputed, majority
from rivage.privacy.gradient_attributes import GradientAttributes, hindsight
from rivage.privacy.local_model import reconstruct
from rivage.privacy.model_attributes import Decision
from rivage.privacy.model_grading import local_optimum
from rivage.privacy.views import Eavesdropper
from rivage.report.theme import INK, MUTED, looks, to_svg
from rivage.studies.claims.attribute_inference import FRACTIONS
from rivage.studies.claims.attribute_scenarios import Scene, overheard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "attribute-inference"
ATTRIBUTE = "smoker"
TIMES = (1, 2, 5, 10, 15, 20, 35, 50, 75, 100, 150, 200, 300)
Curves = dict[str, list[float]]


def weighted(scene: Scene, of_client: Callable[[int], float]) -> float:
    """Mean over clients by records, in percent."""
    weights = [len(samples) for samples in scene.clients]
    return 100 * float(np.average([of_client(client) for client in range(len(weights))], weights=weights))


def right(scene: Scene, client: int, params: np.ndarray) -> float:
    """Accuracy of one model."""
    found = Decision()(params, scene.question(client, ATTRIBUTE), scene.tools("figure"))
    return float((found == scene.truth(client, ATTRIBUTE)).mean())


def last(scene: Scene, rounds: int) -> float:
    """What the model returned in a round gives."""

    def of(client: int) -> float:
        (exchange,) = islice(Eavesdropper(scene.log, client).exchanges(), rounds - 1, rounds)
        return right(scene, client, exchange.returned)

    return weighted(scene, of)


def closed(scene: Scene, rounds: int) -> float:
    """What the closed form from the first messages gives; NaN while a client's model is not determined."""

    def of(client: int) -> float:
        found = reconstruct(islice(Eavesdropper(scene.log, client).exchanges(), rounds))
        return float("nan") if found.params is None else right(scene, client, found.params)

    return weighted(scene, of)


def by_gradients(scene: Scene) -> Mapping[int, tuple[float, float]]:
    """Rounds -> accuracy of the best step size by similarity, and in hindsight."""
    grids = []
    for client in range(len(scene.clients)):
        view, question = Eavesdropper(scene.log, client), scene.question(client, ATTRIBUTE)
        attack = GradientAttributes(fractions=FRACTIONS["line"])
        grids.append(attack.search(view.exchanges(), view.rounds, question, scene.tools("gradients", client)))

    def of(rounds: int, oracle: bool) -> float:
        def accuracy(client: int) -> float:
            truth = scene.truth(client, ATTRIBUTE)
            grid = [candidate for candidate in grids[client] if candidate.rounds == rounds]
            best = hindsight(grid, truth) if oracle else min(grid, key=lambda candidate: candidate.own)
            return float((best.values == truth).mean())

        return weighted(scene, accuracy)

    return {rounds: (of(rounds, False), of(rounds, True)) for rounds in sorted({c.rounds for c in grids[0]})}


def levels(scene: Scene) -> Mapping[str, float]:
    """What does not depend on the round."""
    name = ATTRIBUTE

    def guessed(client: int) -> float:
        guess = imputed(scene.question(client, name), scene.others(client, name))
        return float(np.mean(guess == scene.truth(client, name)))

    def ideal(client: int) -> float:
        view = Eavesdropper(scene.log, client)
        return right(scene, client, local_optimum(scene.task, scene.clients[client], view.last().returned))

    def commonest(client: int) -> float:
        truth = scene.truth(client, name)
        return float((truth == majority(truth)).mean())

    return {
        "majority": weighted(scene, commonest),
        "imputation": weighted(scene, guessed),
        "own optimum (oracle)": weighted(scene, ideal),
    }


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    with overheard("line", "skewed", 0) as scene:
        skewed: Curves = {
            "last model": [last(scene, t) for t in TIMES],
            "closed form": [closed(scene, t) for t in TIMES],
        }
        skewed_levels = {name: level for name, level in levels(scene).items() if name != "imputation"}
    with overheard("line", "random", 0) as scene:
        grid = by_gradients(scene)
        rounds = list(grid)
        even: Curves = {
            "last model": [last(scene, t) for t in rounds],
            "gradients": [plain for plain, _ in grid.values()],
            "gradients, best step size in hindsight": [oracle for _, oracle in grid.values()],
        }
        even_levels = {name: level for name, level in levels(scene).items() if name != "own optimum (oracle)"}
    for curves in (skewed, even):
        for name, values in curves.items():
            print(name, np.round(values, 1).tolist())
    print(skewed_levels, even_levels)

    def fill(canvas: Figure) -> None:
        left, right_ = canvas.subplots(1, 2, sharey=True)
        draw_curves(left, TIMES, skewed, skewed_levels)
        draw_curves(right_, rounds, even, even_levels)
        left.set(xlabel="rounds overheard", ylabel="smokers recognised, percent", title="clients that disagree")
        right_.set(xlabel="rounds overheard", title="random halves")
        left.set_ylim(bottom=50)

    label = (
        "Accuracy of attacks against the number of rounds overheard. Left, clients that disagree: the closed form, "
        "from ten messages on, stays near the client's own optimum, while the last model falls away from it as "
        "training goes on. Right, random halves: the last model ends level with the imputation baseline; attacks by "
        "gradients stay below and get worse with more rounds."
    )
    return standalone(to_svg(fill, size=(10.0, 3.8), name=NAME, label=label))


def draw_curves(axes: object, x: Sequence[int], curves: Curves, lines: Mapping[str, float]) -> None:
    """Curves over rounds, and levels as dotted lines with their names."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    for (name, values), look in zip(curves.items(), looks((n, n) for n in curves).values(), strict=True):
        axes.plot(x, values, color=look.color, linestyle=look.line, marker=look.marker, markersize=4, label=name)
    for name, level in lines.items():
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=":")
        axes.annotate(name, (x[0], level), (0, 2), textcoords="offset points", color=INK, fontsize=8)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

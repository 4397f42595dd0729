"""The figure of docs/explanation/long-term-fairness.md, from real runs; about 15 seconds.

.venv/bin/python scripts/figures_fairness.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.convex.sets import Box
from rivage.online.fair_benchmarks import horizon_optimum
from rivage.online.fair_game import play_fair, utilities_of
from rivage.online.fairness import OHF, OSF, AlphaFairness, FairInstance
from rivage.online.utilities import CappedSums
from rivage.report.theme import INK, LABEL, MUTED, looks, to_svg
from rivage.studies.claims.fairness import linear_utilities, published_game

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "long-term-fairness"
ALPHA = 3.0
HORIZONS = tuple(int(t) for t in np.unique(np.logspace(2, 3.7, 12).astype(int) // 4 * 4))  # whole periods


def paths() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Running means of both policies on the alternating game, the optimum, and the Pareto front."""
    game, _ = published_game("cycle-3")
    instance, slots = FairInstance(set=game.caches.set, agents=2), game.slots
    means = {}
    for name, policy in {"horizon-fair": OHF(alpha=ALPHA), "slot-fair": OSF(alpha=ALPHA)}.items():
        utilities = play_fair(policy, instance, slots).utilities
        means[name] = np.cumsum(utilities, axis=0) / np.arange(1, len(utilities) + 1)[:, None]
    best = horizon_optimum(instance.set, game.mean, ALPHA).utilities
    return means, best, _front(game.mean, instance)


def _front(mean: CappedSums, instance: FairInstance) -> np.ndarray:
    """Optima of weighted sums of the two utilities."""
    points = []
    for share in np.linspace(0.3, 0.7, 41):
        weights = mean.weights * np.array([share, 1 - share])[mean.owner]
        x = horizon_optimum(instance.set, mean.with_weights(weights), 0.0).x
        points.append(mean.at(x).values)
    return np.array(points)


def gaps() -> dict[str, np.ndarray]:
    """Fairness regret of OHF at α = 1 for growing horizons: periodic utilities, and utilities that turn half-way."""
    rise, fall = linear_utilities([[0.9], [-0.9]], [0.1, 1.0]), linear_utilities([[0.0], [0.0]], [1.0, 0.1])
    other = linear_utilities([[0.2], [0.9]], [0.1, 0.1])
    instance = FairInstance(set=Box(np.zeros(1), np.ones(1)), agents=2)
    games: Mapping[str, Callable[[int], list[CappedSums]]] = {
        "utilities alternate": lambda t: [rise, other] * (t // 2),
        "utilities turn at T/2": lambda t: [rise] * (t // 2) + [fall] * (t // 2),
    }
    found = {}
    for name, make in games.items():
        found[name] = np.array([_gap(instance, make(horizon)) for horizon in HORIZONS])
    return found


def _gap(instance: FairInstance, slots: list[CappedSums]) -> float:
    best = horizon_optimum(instance.set, slots, 1.0)
    fairness = AlphaFairness(1.0)
    reached = fairness.value(play_fair(OHF(), instance, slots).average)
    return fairness.value(utilities_of(best.x, slots).mean(axis=0)) - reached


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    means, best, front = paths()
    regrets = gaps()
    styles = looks((name, name) for name in (*means, *regrets))

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        left.plot(front[:, 0], front[:, 1], color=MUTED, linewidth=1.0)
        left.annotate("what can be reached", front[2], (4, 4), textcoords="offset points", fontsize=8, color=LABEL)
        for name, path in means.items():
            shown = path[np.unique(np.logspace(1.3, np.log10(len(path)), 120).astype(int)) - 1]
            left.plot(shown[:, 0], shown[:, 1], color=styles[name].color, linestyle=styles[name].line)
            _name(left, shown[-1], name, styles[name].color)
        left.plot(*best, marker="*", markersize=11, color=INK, linestyle="")
        left.annotate("horizon-fair optimum", best, (6, 6), textcoords="offset points", fontsize=8, color=LABEL)
        left.set(xlim=(0.48, 0.62), ylim=(0.44, 0.58), xlabel="mean utility of agent 1", ylabel="of agent 2")
        left.set_title("CYCLE, same requests, other order (α = 3)")
        for name, values in regrets.items():
            right.plot(HORIZONS, values, color=styles[name].color, linestyle=styles[name].line, label=name)
        right.set(xscale="log", yscale="log", xlabel="horizon T, slots", ylabel="fairness regret")
        right.set_title("Regret of OHF (α = 1)")
        for axis in (right.xaxis, right.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(lambda value, _: "")
        right.legend(frameon=False, fontsize=8, loc="center right")

    label = (
        "Left: running mean utilities of two agents; the horizon-fair policy ends at the fair optimum, the slot-fair "
        "one elsewhere on the front. Right: fairness regret against the horizon; it falls for alternating utilities "
        "and stays for utilities that turn half-way."
    )
    return standalone(to_svg(fill, size=(10.0, 4.0), name=NAME, label=label))


def _name(axes: Axes, place: np.ndarray, text: str, color: str) -> None:
    axes.plot(*place, marker="o", color=color)
    axes.annotate(text, place, (-4, -14), textcoords="offset points", fontsize=8, color=LABEL)


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

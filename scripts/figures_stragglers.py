"""The figure of docs/explanation/stragglers-and-degree.md, from real runs; about half a minute.

.venv/bin/python scripts/figures_stragglers.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.decentralized.clock import Clock
from rivage.decentralized.degree_advice import Advice, advise_degree
from rivage.decentralized.stragglers import iteration_times
from rivage.decentralized.time_laws import Constant, Exponential, Law, Pareto, Uniform
from rivage.decentralized.waiting import Waits
from rivage.report.theme import INK, looks, to_svg
from rivage.studies.claims.stragglers import directed_ring, graphs_of, measured_rounds, regular

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "stragglers-and-degree"
DEGREES = (1, 2, 4, 10, 20, 50, 99)
LAWS: Mapping[str, Law] = {
    "Pareto, shape 2": Pareto(shape=2),
    "exponential": Exponential(),
    "uniform on [0, 2]": Uniform(),
    "constant": Constant(),
}
SPLITS = {"random split of the data": "random", "one class at each node": "per class"}


def rounds_by_degree() -> dict[str, list[float]]:
    """Mean time of a round of 100 nodes at each degree."""
    graphs = {
        str(degree): directed_ring(100) if degree == 1 else Waits.of_network(regular(100, degree)) for degree in DEGREES
    }
    found = {name: iteration_times(graphs, Clock(law=law), rounds=2_000) for name, law in LAWS.items()}
    return {name: [estimate.mean for estimate in each.values()] for name, each in found.items()}


def times_to_target() -> dict[str, Advice]:
    """Predicted times of 16 nodes with exponential work, rounds as measured in training."""
    return {
        name: advise_degree(Exponential(), graphs_of(0), rounds=measured_rounds(split))  # type: ignore[arg-type]
        for name, split in SPLITS.items()
    }


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    rounds, advices = rounds_by_degree(), times_to_target()
    styles = looks((name, name) for name in [*LAWS, *SPLITS])
    names = list(graphs_of(0))

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        for name, values in rounds.items():
            look = styles[name]
            left.plot(DEGREES, values, color=look.color, linestyle=look.line, marker=look.marker, label=name)
        left.set(xscale="log", xlabel="nodes that each waits for, of 100", ylabel="time of a round over mean work")
        left.set_xticks(DEGREES, [str(each) for each in DEGREES])
        left.minorticks_off()
        left.set_title("rounds get longer with every neighbour")
        left.legend(frameon=False, fontsize=8)
        for place, (name, advice) in enumerate(advices.items()):
            look, found = styles[name], {each.name: each.time for each in advice.candidates}
            at = np.arange(len(names)) + 0.24 * place - 0.12
            middle = np.array([found[each].mean for each in names])
            ends = np.abs(np.array([[found[each].low, found[each].high] for each in names]).T - middle)
            right.bar(at, middle, width=0.22, color=look.color, label=name)
            right.errorbar(at, middle, yerr=ends, fmt="none", ecolor=INK, elinewidth=1)
        right.set_xticks(range(len(names)), names, fontsize=8)
        right.set(ylabel="time to the target over mean work", title="16 nodes, exponential work", ylim=(0, 640))
        right.legend(frameon=False, fontsize=8)

    label = (
        "Left: mean time of a round against the degree of 100 nodes for four laws of work; it grows with the degree, "
        "most for heavy tails, and is 1 without chance. Right: predicted time to a target on four graphs."
    )
    return standalone(to_svg(fill, size=(10.0, 4.0), name=NAME, label=label))


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

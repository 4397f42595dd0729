"""The figure of docs/explanation/overlay-design.md, from real runs on the published networks; about a minute.

RIVAGE_DATA=... .venv/bin/python scripts/figures_overlays.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rivage.decentralized import Silos, contenders
from rivage.decentralized.directed_search import DirectedSearch
from rivage.decentralized.lower_bounds import lower_bound
from rivage.graphs import PathRule, connectivity, load_underlay
from rivage.report.theme import INK, LABEL, MUTED, looks, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "overlay-design"
ROOT = Path(os.environ.get("RIVAGE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
NETWORKS = {"Gaia": "gaia", "AWS North America": "amazon_us", "Géant": "geantdistance"}
STEPS = {"Gaia": 20_000, "AWS North America": 60_000, "Géant": 300_000}
SEEDS = 5
ROWS = ("star_best", "matcha", "matcha_plus", "mst", "delta_mbst", "ring", "ring_2opt", "directed")


def silos_of(name: str) -> tuple[Silos, list[list[int]]]:
    """ResNet-18 on iNaturalist, access of 10 Gb/s, core of 1 Gb/s; and the links."""
    underlay = load_underlay(ROOT / "underlays" / f"{NETWORKS[name]}.gml")
    every = connectivity(underlay, PathRule.published(1e9))
    return Silos.of(every, model_bits=44_961_717, step_ms=25.4, access_bps=1e10), underlay.edges.tolist()


def measured() -> tuple[dict[str, dict[str, float]], list[np.ndarray], dict[str, float]]:
    """Cycle times over the bound, improvements of the search on Géant by step, and what it is compared with there."""
    ratios: dict[str, dict[str, float]] = {}
    paths: list[np.ndarray] = []
    lines: dict[str, float] = {}
    for name in NETWORKS:
        silos, links = silos_of(name)
        bound = lower_bound(silos).value_ms
        times = {key: each.cycle_time_ms for key, each in contenders(silos, links).items()}
        search = DirectedSearch(seconds=600, steps=STEPS[name], target_ms=bound * (1 + 1e-9))
        found = search.design(silos)
        times["directed"] = found.design.cycle_time_ms
        ratios[name] = {row: times[row] / bound for row in ROWS}
        if name == "Géant":
            others = (
                DirectedSearch(seconds=600, steps=STEPS[name], seed=seed, target_ms=bound).design(silos)
                for seed in range(1, SEEDS)
            )
            paths = [np.array(each.improvements) for each in (found, *others)]
            lines = {"RING with 2-opt": times["ring_2opt"], "lower bound": bound}
    return ratios, paths, lines


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    ratios, paths, lines = measured()
    styles = looks((name, name) for name in NETWORKS)

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2)
        for name, times in ratios.items():
            look = styles[name]
            left.plot(
                [times[row] for row in ROWS], range(len(ROWS)), color=look.color, marker=look.marker, ls="", label=name
            )
        left.axvline(1, color=INK, linewidth=1)
        left.set(xscale="log", yticks=range(len(ROWS)), yticklabels=ROWS, xlabel="cycle time over the lower bound")
        left.set_xticks([1, 1.2, 1.5, 2, 3, 5, 7], ["1", "1.2", "1.5", "2", "3", "5", "7"])
        left.xaxis.set_minor_formatter(lambda value, _: "")
        left.set_title("iNaturalist, 10 Gb/s access")
        left.grid(True, axis="x")
        left.legend(frameon=False, fontsize=8, loc="upper right")
        _search(right, paths, lines)

    label = (
        "Left: cycle times of eight overlays on three networks, divided by the lower bound; the directed overlays are "
        "nearest to 1. Right: the best cycle time by step of the search on Géant, for five seeds, between the ring and "
        "the lower bound."
    )
    return standalone(to_svg(fill, size=(10.0, 4.0), name=NAME, label=label))


def _search(axes: Axes, paths: list[np.ndarray], lines: Mapping[str, float]) -> None:
    for seed, path in enumerate(paths):
        steps = np.append(np.maximum(path[:, 0], 1), STEPS["Géant"])
        look = looks((f"seed {k}", f"seed {k}") for k in range(SEEDS))[f"seed {seed}"]
        axes.step(steps, np.append(path[:, 1], path[-1, 1]), where="post", color=look.color, linestyle=look.line)
    for name, value in lines.items():
        axes.axhline(value, color=INK if name == "lower bound" else MUTED, linewidth=1)
        axes.annotate(name, (steps[-1], value), (0, 3), ha="right", textcoords="offset points", fontsize=8, color=LABEL)
    axes.set(
        xscale="log",
        xlabel="steps of the search",
        ylabel="cycle time, ms",
        ylim=(lines["lower bound"] - 1, lines["RING with 2-opt"] + 1.5),
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Géant, five seeds")


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

"""The figure and tables of docs/explanation/when-topology-matters.md.

.venv/bin/python scripts/figures_topology.py             draws from the stored results; seconds
.venv/bin/python scripts/figures_topology.py --measure [SCENE...]   trains first, a quarter of an hour; RIVAGE_DATA
.venv/bin/python scripts/figures_topology.py --table     prints the tables of the page
.venv/bin/python scripts/figures_topology.py --seconds   overlays of Gaia in iterations and in seconds; RIVAGE_DATA
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from rivage.core.errors import DataError
from rivage.decentralized import Silos, contenders, matcha_law
from rivage.decentralized.directed_search import DirectedSearch
from rivage.decentralized.mixing_plan import Drawn
from rivage.decentralized.probing import candidate_of, forecasts, probe
from rivage.decentralized.stragglers import interval
from rivage.graphs import PathRule, connectivity, load_underlay
from rivage.report.theme import INK, MUTED, looks, to_svg
from rivage.studies.claims.topology_matters import SCENES, compared, scene
from rivage.studies.claims.topology_scenarios import (
    GRAPHS,
    gaussian_classes,
    iterations_to,
    loss_curve,
    mixing_matrices,
    softmax,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "topology-matters"
STORED = f"{NAME}.json"
FEW = ("complete", "random 4-regular", "directed ring", "ring")
SIZES = {"gaussian": (range(10), GRAPHS), "digits": (range(10), GRAPHS), "digits, network": (range(5), FEW),
         "mnist": (range(5), FEW)}  # fmt: skip
TITLES = {"gaussian": "16 Gaussian classes", "digits": "digits", "digits, network": "digits, network",
          "mnist": "MNIST, test part"}  # fmt: skip
SPLITS = ("random", "per class")
OVERLAYS = ("star_best", "mst", "ring_2opt", "matcha")
_MOST = 8.0  # right edge of the last panel


def measure(path: Path, names: Sequence[str]) -> None:
    """Train over all graphs, and store what that took beside what a probe said; other scenes are kept as they are."""
    rows = [row for row in load(path) if row["scene"] not in names] if path.exists() else []
    for name in names:
        seeds, graphs = SIZES[name]
        for split, seed in product(SPLITS, seeds):
            try:
                found = compared(name, split, seed, graphs, most=1500)
            except DataError as error:
                print(f"{name} is left out: {error}")
                break
            row = {"scene": name, "split": split, "seed": seed, "ratio": round(found.ratio, 4)}
            for key in ("measured", "predicted", "kappa"):
                row[key] = {graph: round(value, 4) for graph, value in getattr(found, key).items()}
            print(row, flush=True)
            rows.append(row)
            path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")


def load(path: Path) -> list[dict[str, Any]]:
    """What is stored."""
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return rows


def of(rows: Sequence[dict[str, Any]], name: str, split: str) -> list[dict[str, Any]]:
    """The rows of one scene and split, by seed."""
    return [row for row in rows if row["scene"] == name and row["split"] == split]


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Measured and predicted iterations by graph, and how well κ and the probe rank the graphs."""
    lines = []
    for split in SPLITS:
        lines += ["", f"| {split}: measured, predicted | " + " | ".join(TITLES.values()) + " |", "|---" * 5 + "|"]
        for graph in GRAPHS[1:]:
            cells = [
                _cell([row for row in of(rows, name, split) if graph in row["measured"]], graph) for name in TITLES
            ]
            lines.append(f"| {graph} | " + " | ".join(cells) + " |")
        ratios = [_pm([row["ratio"] for row in of(rows, name, split)]) for name in TITLES]
        lines.append("| √(H E_sp)/E | " + " | ".join(ratios) + " |")
    lines += ["", "| rank correlation, per class | κ | slowdown | largest error |", "|---|---|---|---|"]
    for name, (_, graphs) in SIZES.items():
        own = of(rows, name, "per class")
        ranks = [
            [spearmanr([row["measured"][g] for g in graphs], [row[key][g] for g in graphs]).statistic for row in own]
            for key in ("kappa", "predicted")
        ]
        worst = max(abs(row["predicted"][g] / row["measured"][g] - 1) for row in own for g in graphs)
        lines.append(f"| {TITLES[name]} | " + " | ".join(map(_pm, ranks)) + f" | {worst:.0%} |")
    return "\n".join(lines)


def _cell(rows: Sequence[dict[str, Any]], graph: str) -> str:
    return ", ".join(_pm([row[key][graph] for row in rows]) for key in ("measured", "predicted")) if rows else ""


def _pm(values: Sequence[float]) -> str:
    """Mean ± half of the 95 % interval."""
    found = interval(np.array(values))
    return f"{found.mean:.2f} ± {found.high - found.mean:.2f}"


def seconds() -> str:
    """Overlays of Gaia, iNaturalist's model at 10 Gb/s: a probe's forecast for the time of 150 exact averages."""
    every = connectivity(load_underlay(locate_data() / "underlays" / "gaia.gml"), PathRule.published(1e9))
    silos = Silos.of(every, model_bits=44_961_717, step_ms=25.4, access_bps=1e10)
    designs = {name: design for name, design in contenders(silos).items() if name in OVERLAYS}
    designs["directed"] = DirectedSearch(steps=30_000).design(silos).design
    plans = {name: candidate_of(design) for name, design in designs.items() if name != "matcha"}
    plans["matcha"] = Drawn(law=matcha_law(silos, list(combinations(range(len(silos)), 2))), seed=0).weights
    times = {name: design.cycle_time_ms for name, design in designs.items()}
    lines = ["| overlay | cycle time, ms | " + " | ".join(f"{split}: forecast, measured, s" for split in SPLITS) + " |"]
    lines.append("|---|---|---|---|")
    cells: dict[str, list[str]] = {name: [f"{times[name]:.1f}"] for name in plans}
    for split in SPLITS:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in plans}
        for seed in range(5):
            x, y = gaussian_classes(seed, classes=len(silos))
            problem = softmax(x, y, split, nodes=len(silos), batch_size=16, seed=seed)  # type: ignore[arg-type]
            counts = iterations_to(problem, problem.start, plans, rate=0.1)
            probed = probe(problem, problem.start, len(silos), rate=0.1, candidates=plans)
            for each in forecasts(probed, plans, cycle_times_ms=times):
                measured = counts[each.name] * times[each.name] / 1000
                found[each.name].append((each.seconds(150) or 0.0, measured))
        for name, pairs in found.items():
            cells[name].append(", ".join(map(_pm, zip(*pairs, strict=True))))
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(row) + " |" for name, row in cells.items())])


def locate_data() -> Path:
    """Where published files are."""
    return Path(os.environ["RIVAGE_DATA"])


def figure(rows: Sequence[dict[str, Any]], standalone: Callable[..., str]) -> str:
    """Loss on digits in both splits, and predicted against measured slowdown."""

    def fill(figure: Figure) -> None:
        random, per_class, scatter = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        for axes, split in ((random, "random"), (per_class, "per class")):
            _curves(axes, split)
        per_class.legend(frameon=False, labelcolor=INK)
        _scatter(scatter, rows)

    label = (
        "Loss on digits against iterations: over all graphs alike with a random split, slowest over the ring with a "
        "split by class. Predicted against measured slowdown of all graphs and data: near the diagonal."
    )
    return standalone(to_svg(fill, size=(10.0, 3.6), name=NAME, label=label))


def _curves(axes: Axes, split: str) -> None:
    styles = looks((graph, graph) for graph in FEW)
    with scene("digits", split, 0) as (problem, start, nodes):  # type: ignore[arg-type]
        for graph, weights in mixing_matrices(nodes, 0, FEW).items():
            losses = loss_curve(problem, start, weights, rate=SCENES["digits"], iterations=300)
            look = styles[graph]
            axes.plot(losses, color=look.color, linestyle=look.line, label=graph, marker=look.marker, markevery=60,
                      markersize=4)  # fmt: skip
    axes.set(xlabel="iterations", ylim=(0, 2.4), title=f"digits, {split}")
    if split == "random":
        axes.set_ylabel("loss of the mean model")


def _scatter(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    axes.plot([0.85, _MOST], [0.85, _MOST], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    for name, look in looks((name, name) for name in TITLES).items():
        pairs = [
            (row["measured"][graph], row["predicted"][graph])
            for row in rows
            if row["scene"] == name
            for graph in row["measured"]
        ]
        axes.plot(*np.array(pairs).T, color=look.color, marker=look.marker, markersize=3.5, linestyle="none",
                  alpha=0.7, label=TITLES[name])  # fmt: skip
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="measured slowdown",
        ylabel="by a probe of 50 iterations",
    )
    axes.set(title="all graphs and seeds", xlim=(0.85, _MOST), ylim=(0.85, _MOST))
    ticks = (1, 1.5, 2, 3, 5, 8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.legend(frameon=False, labelcolor=INK, loc="upper left")


def draw(folder: Path) -> None:
    """Write the figure into a folder, from what is stored there."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(load(folder / STORED), standalone), encoding="utf-8")


if __name__ == "__main__":
    here = Path(__file__).parents[1] / "docs" / "_figures"
    if "--measure" in sys.argv:
        named = [each for each in sys.argv[2:] if each in SIZES]
        measure(here / STORED, named or list(SIZES))
    elif "--table" in sys.argv:
        print(tables(load(here / STORED)))
    elif "--seconds" in sys.argv:
        print(seconds())
    else:
        draw(here)

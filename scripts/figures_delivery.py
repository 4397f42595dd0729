"""The table and figures of docs/explanation/delivery-compared.md.

.venv/bin/python scripts/figures_delivery.py             draws from the stored results; a few seconds
.venv/bin/python scripts/figures_delivery.py --measure   runs the comparison first; half an hour, RIVAGE_DATA for GÉANT
.venv/bin/python scripts/figures_delivery.py --table     prints the tables of the page
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.inference.greedy import StaticGreedy
from rivage.inference.infida import INFIDA
from rivage.inference.olag import OLAG
from rivage.inference.replay import deliver
from rivage.inference.rolling import RollingPlan
from rivage.report.theme import INK, MUTED, looks, to_svg
from rivage.studies.claims.delivery import ALPHAS, traded
from rivage.studies.claims.delivery_comparison import Cell, compare
from rivage.studies.claims.delivery_scenarios import CANDIDATES, FORESIGHT, IN_PRACTICE, NETWORKS, PROFILES, scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("delivery-compared", "delivery-tracking")
STORED = "delivery-compared.json"
RIVALS = ("OLAG", "rolling plan", "model caches", "simple rules")
ORDER = (*CANDIDATES, *FORESIGHT)
PRACTICE = "INFIDA, 8 draws"
_MARKS = {"wins": "+", "loses": "−", "level": "="}


def measure(path: Path) -> None:
    """Run all cells, and store them."""
    cells = []
    for network in NETWORKS:
        for profile in PROFILES:
            try:
                candidates = {**CANDIDATES, PRACTICE: [IN_PRACTICE]}
                cells.append(stored(compare(network, profile, candidates=candidates, tell=print)))
            except DataError as error:
                print(f"{network} is left out: {error}")
            path.write_text(json.dumps(cells, ensure_ascii=False) + "\n", encoding="utf-8")


def stored(cell: Cell) -> dict[str, Any]:
    """A cell as JSON."""
    return {
        "network": cell.network,
        "profile": cell.profile,
        "bound": [round(value, 5) for value in cell.bound.tolist()],
        "gains": {name: [round(value, 5) for value in gains.tolist()] for name, gains in cell.gains.items()},
        "ntag": {name: [round(value, 5) for value in ntag.tolist()] for name, ntag in cell.ntag.items()},
        "moved": {name: round(value, 3) for name, value in cell.moved.items()},
        "chosen": cell.chosen,
    }


def load(path: Path) -> list[Cell]:
    """The stored cells."""
    return [
        Cell(
            network=each["network"],
            profile=each["profile"],
            gains={name: np.array(gains) for name, gains in each["gains"].items()},
            ntag={name: np.array(ntag) for name, ntag in each["ntag"].items()},
            moved=each["moved"],
            chosen=each["chosen"],
            bound=np.array(each["bound"]),
        )
        for each in json.loads(path.read_text("utf-8"))
    ]


def tables(cells: list[Cell]) -> str:
    """Gains with the best rival in bold, paired differences, MB fetched, and what tuning chose."""
    lines = ["| | " + " | ".join(ORDER) + " | bound |", "|---|" + "---|" * (len(ORDER) + 1)]
    for cell in cells:
        best = max(CANDIDATES, key=lambda name: cell.gains[name].mean())
        row = [f"{cell.gains[n].mean():.2f} ± {cell.gains[n].std(ddof=1):.2f}" for n in ORDER]
        row = [f"**{text}**" if name == best else text for name, text in zip(ORDER, row, strict=True)]
        lines.append(f"| {cell.network}, {cell.profile} | " + " | ".join(row) + f" | {cell.bound.mean():.2f} |")
    others = [name for name in ORDER if name != "INFIDA"]
    lines += ["", "| INFIDA − | " + " | ".join(others) + " |", "|---|" + "---|" * len(others)]
    for cell in cells:
        found = [cell.against(name) for name in others]
        row = [f"{each.mean:+.2f} ± {each.half:.2f} ({_MARKS[each.verdict]})" for each in found]
        lines.append(f"| {cell.network}, {cell.profile} | " + " | ".join(row).replace("-", "−") + " |")
    lines += ["", "| MB per slot | " + " | ".join(CANDIDATES) + " |", "|---|" + "---|" * len(CANDIDATES)]
    for cell in cells:
        row = [f"{cell.moved[name]:.0f} ({cell.chosen[name] + 1})" for name in CANDIDATES]
        lines.append(f"| {cell.network}, {cell.profile} | " + " | ".join(row) + " |")
    if all(PRACTICE in cell.gains for cell in cells):
        lines += ["", *_practice(cells)]
    return "\n".join(lines)


def _practice(cells: list[Cell]) -> list[str]:
    """The setting that was found afterwards, against the same games."""
    others = ("INFIDA", "OLAG", "rolling plan", "simple rules", "static greedy")
    lines = [f"| {PRACTICE} | gain | MB | " + " | ".join(f"− {name}" for name in others) + " |"]
    lines.append("|---|---|---|" + "---|" * len(others))
    for cell in cells:
        found = [cell.against(name, PRACTICE) for name in others]
        row = [f"{each.mean:+.2f} ± {each.half:.2f} ({_MARKS[each.verdict]})".replace("-", "−") for each in found]
        gain = f"{cell.gains[PRACTICE].mean():.2f} | {cell.moved[PRACTICE]:.0f}"
        lines.append(f"| {cell.network}, {cell.profile} | {gain} | " + " | ".join(row) + " |")
    return lines


def differences(cells: list[Cell], standalone: Callable[..., str]) -> str:
    """Paired differences with their intervals, in % of the bound."""
    styles = looks((name, name) for name in RIVALS)

    def panel(axes: Axes, network: str) -> None:
        for at, cell in enumerate(each for each in cells if each.network == network):
            scale = 100.0 / cell.bound.mean()
            for number, rival in enumerate(RIVALS):
                found, y = cell.against(rival), at + 0.17 * (number - 1.5)
                x, look = scale * found.mean, styles[rival]
                axes.errorbar(x, y, xerr=scale * found.half, color=look.color, linewidth=1.2)
                axes.plot([x], [y], color=look.color, marker=look.marker, linestyle="none")
                if at == 0:
                    axes.plot([], [], color=look.color, marker=look.marker, linestyle="none", label=rival)
        axes.axvline(0.0, color=MUTED, linewidth=0.8)
        axes.set(title=network, yticks=range(len(PROFILES)), yticklabels=PROFILES, xlim=(-22, 50))
        axes.set(xlabel="INFIDA − rival, % of bound")
        axes.grid(visible=False)
        axes.invert_yaxis()

    def fill(canvas: Figure) -> None:
        shown = [network for network in NETWORKS if any(cell.network == network for cell in cells)]
        panels = canvas.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, network in zip(panels, shown, strict=True):
            panel(axes, network)
        panels[0].legend(frameon=False, labelcolor=INK, loc="upper right")

    label = (
        "Paired differences of gain per request between INFIDA and four rivals on three networks under four demands, "
        "with 95 % intervals, in % of what no fixed fractions exceed."
    )
    return standalone(to_svg(fill, size=(10.0, 3.8), name=NAMES[0], label=label))


def tracking(standalone: Callable[..., str]) -> str:
    """Gain over time on the tree under sliding demand; latency against accuracy over α."""
    drawn = scene("tree", "sliding", 0)
    policies = {
        "INFIDA": INFIDA(scale=3.0),
        "rolling plan": RollingPlan(period=5, window=5, program="pooled"),
        "OLAG": OLAG(),
        "static greedy": StaticGreedy(),
    }
    styles = looks((name, name) for name in policies)
    rows = {name: over_time(policy, drawn) for name, policy in policies.items()}
    found = traded(0, 120)

    def fill(canvas: Figure) -> None:
        left, right = canvas.subplots(1, 2, width_ratios=[1.6, 1.0])
        for name, values in rows.items():
            x = 5 * np.arange(1, len(values) + 1)
            left.plot(x, values, color=styles[name].color, linestyle=styles[name].line, label=name)
        left.set(title="tree, sliding every 60 slots", xlabel="slot", ylabel="gain per request, ms", ylim=(0, None))
        left.legend(frameon=False, labelcolor=INK, loc="lower right")
        right.plot(found["latency"], found["accuracy"], color=styles["INFIDA"].color, marker="o")
        for alpha, x, y in zip(ALPHAS, found["latency"], found["accuracy"], strict=True):
            if alpha >= 1.0:
                words = "α ≤ 1" if alpha == 1.0 else f"α = {alpha:g}"
                right.annotate(
                    words, (x, y), xytext=(7, -7) if alpha < 8.0 else (-20, 6), textcoords="offset points", color=INK
                )
        right.set(title="INFIDA on Topology I", xlabel="latency, ms", ylabel="accuracy, points", xlim=(0, 62))

    label = (
        "Gain per request over time of INFIDA, a rolling plan, OLAG and static greedy under sliding popularity; and "
        "latency against accuracy of INFIDA for several α."
    )
    return standalone(to_svg(fill, size=(10.0, 3.4), name=NAMES[1], label=label))


def over_time(policy: Any, drawn: Any) -> np.ndarray:
    """Gain per request, five slots at a time."""
    points = deliver(policy, drawn.instance, drawn.requests, streams=Streams(0).child("policy"), every=5).points
    totals = np.array([[point["gain"], point["requests"]] for point in points])
    steps = np.diff(totals, axis=0, prepend=0.0)
    return np.asarray(steps[:, 0] / steps[:, 1])


def draw(folder: Path) -> None:
    """Write the figures into a folder."""
    from figures import standalone

    cells = load(Path(__file__).parents[1] / "docs" / "_figures" / STORED)
    texts: Mapping[str, str] = dict(zip(NAMES, (differences(cells, standalone), tracking(standalone)), strict=True))
    for name, text in texts.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    place = Path(__file__).parents[1] / "docs" / "_figures"
    if "--measure" in sys.argv:
        measure(place / STORED)
    if "--table" in sys.argv:
        print(tables(load(place / STORED)))
    else:
        draw(place)

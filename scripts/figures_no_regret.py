"""The figure and the large table of docs/explanation/no-regret-caching.md, from runs on web12; about 15 seconds.

RIVAGE_DATA=… .venv/bin/python scripts/figures_no_regret.py [table]

Without ``table`` the figure is written, with it the rows of the table are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivage.online.adaptive_eviction import ARC, S3FIFO
from rivage.online.eviction import FIFO, LFU, LFUDA, LRU
from rivage.online.experts import AdaptiveOGB
from rivage.online.ftpl import FTPL
from rivage.online.mirror_descent import MirrorDescent
from rivage.online.ogb import OGB
from rivage.online.statics import Belady, BestStatic
from rivage.report.theme import INK, LABEL, MUTED, looks, to_svg
from rivage.studies.claims.caching import hit_ratio, web12

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "no-regret-steps"
CAPACITIES = (137, 687)
POWERS = range(-4, 15)


def ratios(capacity: int) -> tuple[Mapping[str, list[float]], Mapping[str, float]]:
    """Hit ratios of both policies at every step, and of those that have none."""
    requests = web12()
    steps: Mapping[str, Callable[[float], Any]] = {
        "OGB": lambda scale: OGB(scale=scale),
        "entropy": lambda scale: MirrorDescent(scale=scale),
    }
    lines = {name: [hit_ratio(make(2.0**j), capacity, requests) for j in POWERS] for name, make in steps.items()}
    others = {"S3-FIFO": S3FIFO(), "best fixed set": BestStatic(), "step learnt while playing": AdaptiveOGB()}
    return lines, {name: hit_ratio(policy, capacity, requests) for name, policy in others.items()}


def figure(standalone: Callable[..., str]) -> str:
    """Hit ratio against the step, a panel per capacity."""
    found = {capacity: ratios(capacity) for capacity in CAPACITIES}

    def fill(figure: Figure) -> None:
        for axes, (capacity, (lines, others)) in zip(figure.subplots(1, len(CAPACITIES)), found.items(), strict=True):
            _panel(axes, lines, others)
            axes.set_title(f"capacity {capacity}", fontsize=10, color=INK)

    label = "Hit ratio on web12 against the step: OGB is flat from ten times the theory on, the entropy needs far more."
    return standalone(to_svg(fill, size=(10.0, 3.4), name=NAME, label=label))


def _panel(axes: Axes, lines: Mapping[str, list[float]], others: Mapping[str, float]) -> None:
    for name, height in others.items():
        axes.axhline(height, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(name, (2.0 ** POWERS[0], height), (0, 2), textcoords="offset points", fontsize=8.5, color=LABEL)
    for name, look in looks((name, name) for name in lines).items():
        axes.plot([2.0**j for j in POWERS], lines[name], color=look.color, linestyle=look.line, marker=look.marker,
                  markersize=4, label=name)  # fmt: skip
    axes.set(
        xscale="log",
        xlabel="step, as a multiple of the theory's",
        ylabel="hit ratio",
        ylim=(0, 1.08 * max(others.values())),
    )
    axes.legend(frameon=False, labelcolor=INK, loc="lower right")


def rows() -> list[str]:
    """Hit ratios of all policies at three capacities, best first at the middle one."""
    policies: Mapping[str, Any] = {
        "Belady (knows the future)": Belady(),
        "S3-FIFO": S3FIFO(),
        "LFU with aging": LFUDA(),
        "ARC": ARC(),
        "LFU, perfect counts": LFU(),
        "best fixed set (knows the future)": BestStatic(),
        "LRU": LRU(),
        "FTPL, a tenth of the noise": FTPL(scale=0.1),
        "OGB, ten times the step": OGB(scale=10),
        "adaptive OGB": AdaptiveOGB(),
        "FIFO": FIFO(),
        "OGB": OGB(),
        "entropy, 64 times the step": MirrorDescent(scale=64),
        "FTPL": FTPL(),
        "entropy": MirrorDescent(),
    }
    requests = web12()
    found = {
        name: [hit_ratio(policy, capacity, requests) for capacity in (137, 687, 1375)]
        for name, policy in policies.items()
    }
    ranked = sorted(found.items(), key=lambda pair: -pair[1][1])
    return [f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |" for name, values in ranked]


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        print("\n".join(rows()))
    else:
        draw(Path(__file__).parents[1] / "docs" / "_figures")

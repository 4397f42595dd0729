"""The figure of docs/explanation/inference-delivery.md, from real runs; about 20 seconds.

.venv/bin/python scripts/figures_inference.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rivage.core.seeding import Streams
from rivage.graphs.tiered import tiers
from rivage.inference.catalog import load_catalog
from rivage.inference.demand import Popularity
from rivage.inference.infida import INFIDA, published
from rivage.inference.infida_offline import INFIDAOffline
from rivage.inference.instance import Instance
from rivage.inference.policy import DeliveryPolicy
from rivage.inference.replay import deliver
from rivage.inference.scene import Asked, Site, build_instance
from rivage.report.theme import INK, looks, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "inference-delivery"
SLOTS, PERIOD = 360, 60
POLICIES: Mapping[str, DeliveryPolicy] = {
    "best of 8 draws": INFIDA(scale=3, candidates=8),
    "one draw": INFIDA(scale=3),
    "best fixed found": INFIDAOffline(),
}
REFRESH = (1, 2, 5, 10, 20, 40)


def scene() -> tuple[Instance, list[np.ndarray]]:
    """The network of the page: 8 edges, 2 offices, a cloud; popularity that is reversed every hour."""
    network = tiers({"edge": 8, "office": 2, "cloud": 1}, [10, 60])
    catalog = load_catalog("yolov4-coco").copies(8)
    demand = Popularity(rate_per_s=300, entries="edge", profile="reversing", period=PERIOD, slots=SLOTS)
    asked = demand.build(network, catalog.tasks, 60.0, Streams(0))
    sites = [
        Site(at="edge", budget_mb=150, hardware="gtx"),
        Site(at="office", budget_mb=300, hardware="titan"),
        Site(at="cloud", hardware="titan", repository=True),
    ]
    return build_instance(network, catalog, sites, Asked(entry=asked.entry, task=asked.task)), list(asked.requests)


def played(policy: DeliveryPolicy, seed: int = 0) -> tuple[dict[str, Any], ...]:
    """All points of a replay."""
    instance, requests = scene()
    return deliver(policy, instance, requests, streams=Streams(seed)).points


def column(points: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """One number of all points."""
    return np.array([point[key] for point in points], np.float64)


def figure(standalone: Callable[..., str]) -> str:
    """The SVG file's text."""
    games = {name: played(policy) for name, policy in POLICIES.items()}
    styles = looks((name, name) for name in (*POLICIES, "kept draws", "fresh draws"))
    label = (
        "Gain per request in every slot, of INFIDA and of an allocation that stays; its regret so far beside bounds "
        "from what was seen and from the theorem; models moved and gain, for refresh periods from 1 to 40 slots."
    )

    def gains(axes: Axes) -> None:
        for name, points in games.items():
            gain, requests = (np.diff(column(points, key)[9::10], prepend=0) for key in ("gain", "requests"))
            axes.plot(
                10 * np.arange(len(gain)) + 5,
                gain / requests,
                color=styles[name].color,
                linestyle=styles[name].line,
                label=name,
            )
        axes.set(title="means of 10 slots", xlabel="slot", ylabel="ms gained per request", ylim=(30, 57))
        axes.legend(frameon=False, labelcolor=INK, loc="lower right")

    def regret(axes: Axes) -> None:
        points = games["best of 8 draws"]
        slots, requests = column(points, "slots"), column(points, "requests")
        instance, asked = scene()
        theorem = published(instance, float(np.max(asked))).slope * np.sqrt(slots)
        names = ("the theorem", "from what was seen", "regret so far")
        looked = looks((name, name) for name in names)
        for name, values in zip(names, (theorem, column(points, "bound"), column(points, "regret")), strict=True):
            axes.plot(slots, values / requests, color=looked[name].color, linestyle=looked[name].line, label=name)
        axes.set(title="regret, ms per request", xlabel="slots", xscale="log", yscale="log")
        _ticks(axes.xaxis, (1, 10, 100))
        _ticks(axes.yaxis, (1, 10, 100, 1000, 10_000, 100_000))
        axes.legend(frameon=False, labelcolor=INK, loc="center right")

    def moves(axes: Axes) -> None:
        for name, keep in (("kept draws", True), ("fresh draws", False)):
            policies = [INFIDA(scale=3, candidates=8, refresh=every, keep_draws=keep) for every in REFRESH]
            ends = [np.mean([_end(played(policy, seed)) for seed in range(3)], axis=0) for policy in policies]
            x, y = np.array(ends).T
            look = styles[name]
            axes.plot(x, y, color=look.color, linestyle=look.line, marker=look.marker, label=name)
        axes.set(
            title="draws every 40 … 1 slots", xlabel="MB moved per slot", ylabel="ms gained per request", xscale="log"
        )
        _ticks(axes.xaxis, (30, 100, 300, 1000))
        axes.legend(frameon=False, labelcolor=INK, loc="lower right")

    def fill(canvas: Figure) -> None:
        for axes, draw_panel in zip(canvas.subplots(1, 3), (gains, regret, moves), strict=True):
            draw_panel(axes)

    return standalone(to_svg(fill, size=(10.0, 3.4), name=NAME, label=label))


def _ticks(axis: Any, values: Sequence[int]) -> None:
    """These numbers and nothing between; Matplotlib's own powers of ten are no text."""
    axis.set_ticks(values, [f"{value:,}".replace(",", " ") for value in values])
    axis.set_ticks([], minor=True)


def _end(points: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Megabytes per slot and gain per request."""
    return points[-1]["moved"] / points[-1]["slots"], points[-1]["gain"] / points[-1]["requests"]


def draw(folder: Path) -> None:
    """Write the figure into a folder."""
    from figures import standalone

    (folder / f"{NAME}.svg").write_text(figure(standalone), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "docs" / "_figures")

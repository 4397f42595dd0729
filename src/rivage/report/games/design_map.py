"""Overlays as maps: who sends to whom, and the circuit that sets the pace.

Silos stand where they are on the globe, in the cylindrical projection that keeps shapes at their middle latitude and
is cut in the widest gap of longitudes; without coordinates, so that distances on paper follow the latencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.report.games.design_numbers import OverlayRecord, network_of, scene_of
from rivage.report.games.network_map import spread_out
from rivage.report.theme import INK, LABEL, MUTED, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Arrow", "arrows", "draw_maps", "on_paper", "places_of"]

Places = Float64[ndarray, "silos 2"]

_WIDTHS = {1: (7.0,), 2: (6.1, 3.7)}  # inches, by the number of maps
_LEAST, _MOST = 3.0, 5.6  # inches of height
_MARGIN = 26.0  # points around the silos, for their names
_NAMED = 45  # silos whose names still find room; of more only those on the slowest circuit
_DENSE = 8  # arcs a silo above which heads would hide everything
_BOW = 0.13  # of arcs that have one the other way
_SIDES = ((0, 9), (0, -9), (8, 0), (-8, 0), (7, 7), (-7, 7), (7, -7), (-7, -7))


@dataclass(frozen=True, slots=True)
class Arrow:
    """One arc as it is drawn.

    Args:
        sender: position of the silo.
        receiver: likewise.
        critical: on the slowest circuit.
        bow: how far it bends aside, as a share of its length: arcs that go both ways bend apart.
    """

    sender: int
    receiver: int
    critical: bool
    bow: float


def arrows(overlay: OverlayRecord) -> list[Arrow]:
    """One for each arc, those of the slowest circuit last, so that they lie on top."""
    arcs = [(int(one), int(other)) for one, other in overlay.arcs]
    there, critical = set(arcs), set(overlay.critical_arcs)
    drawn = [Arrow(one, other, (one, other) in critical, _BOW if (other, one) in there else 0.0) for one, other in arcs]
    return sorted(drawn, key=lambda arrow: arrow.critical)


def places_of(record: RunRecord) -> Places | None:
    """Where silos stand, in units of one length for both axes; None before the network is known."""
    places = scene_of(record).get("places")
    if places:
        return _projected(np.array(places, np.float64))
    network = network_of(record)
    if not network:
        return None
    latency = np.array(network["latency_ms"], np.float64)
    far = (latency + latency.T) / 2
    top = float(far.max()) or 1.0
    return spread_out(np.where(np.eye(len(far), dtype=bool), 0.0, 4 * np.maximum(far, 0.01 * top) / top))


def _projected(degrees: Places) -> Places:
    latitude, longitude = degrees.T
    order = np.sort(longitude)
    gaps = np.diff(order, append=order[0] + 360)
    first = order[(int(gaps.argmax()) + 1) % len(order)]  # east of the widest gap
    shape = np.cos(np.deg2rad((latitude.min() + latitude.max()) / 2))
    return np.stack([(longitude - first) % 360 * shape, latitude], axis=1)


def on_paper(places: Places, width: float, height: float) -> Places:
    """Places in points within a box, as large as its margins allow, in the middle."""
    low, high = places.min(axis=0), places.max(axis=0)
    room = np.array([width, height]) - 2 * _MARGIN
    scale = float((room / np.maximum(high - low, 1e-9)).min()) if (high > low).any() else 1.0
    return np.asarray(np.array([width, height]) / 2 + scale * (places - (low + high) / 2))


def draw_maps(record: RunRecord, shown: Sequence[OverlayRecord], looks: Mapping[str, Look], *, name: str) -> str | None:
    """One or two overlays beside each other; None before the network is known.

    Args:
        record: of the run.
        shown: the overlays, the important one first.
        looks: of the overlays by name.
        name: begins the ids of the drawing.
    """
    places = places_of(record)
    if places is None or not shown:
        return None
    widths = _WIDTHS[len(shown)]
    spans = np.ptp(places, axis=0)
    room = 72 * widths[0] - 2 * _MARGIN
    height = float(np.clip((room * spans[1] / max(spans[0], 1e-9) + 2 * _MARGIN) / 72, _LEAST, _MOST))
    links = _drawn_links(scene_of(record).get("links"), len(places))

    def fill(figure: Figure) -> None:
        figure.set_layout_engine("none")  # one unit of the axes is one point: names know their size
        left, total, top = 0.0, sum(widths), height / (height + 0.3)
        for overlay, width in zip(shown, widths, strict=True):
            axes = figure.add_axes((left / total, 0, width / total, top))
            axes.set(xlim=(0, 72 * width), ylim=(0, 72 * height))
            axes.set_axis_off()
            axes.set_title(overlay.name[:40], color=looks[overlay.name].color)
            _draw(axes, overlay, links, on_paper(places, 72 * width, 72 * height), looks[overlay.name].color)
            left += width

    label = " ".join(_told(overlay) for overlay in shown)
    return to_svg(fill, size=(sum(widths), height + 0.3), name=name, label=label)


def _drawn_links(links: Iterable[Sequence[int]] | None, silos: int) -> list[tuple[int, int]]:
    """Links of the underlay; none where every two silos have one, since that would hide the rest."""
    found = [(int(one), int(other)) for one, other in links or ()]
    return found if len(found) < silos * (silos - 1) // 2 else []


def _told(overlay: OverlayRecord) -> str:
    circuit = [overlay.names[silo] for silo in (*overlay.circuit, *overlay.circuit[:1])]
    slowest = f"; slowest circuit {' → '.join(circuit)}" if circuit else ""
    return f"{overlay.name}: {len(overlay.arcs)} arcs among {len(overlay.names)} silos{slowest}."


def _draw(axes: Axes, overlay: OverlayRecord, links: list[tuple[int, int]], points: Places, color: str) -> None:
    for one, other in links:
        axes.plot(*points[[one, other]].T, color=MUTED, alpha=0.35, linewidth=0.8, zorder=1)
    heads = len(overlay.arcs) <= _DENSE * len(overlay.names)
    for arrow in arrows(overlay):
        _draw_arrow(axes, arrow, points, color, heads)
    _draw_silos(axes, overlay, points, color)
    chosen = range(len(points)) if len(points) <= _NAMED else overlay.circuit
    for silo, (x, y), (across, up) in _labels([overlay.names[silo][:18] for silo in chosen], chosen, points):
        weight = "bold" if silo in overlay.circuit else "normal"
        sides = {-1: "right", 0: "center", 1: "left"}[across], {-1: "top", 0: "center", 1: "bottom"}[up]
        text = overlay.names[silo][:18]
        axes.text(x, y, text, color=LABEL, fontsize=8, weight=weight, ha=sides[0], va=sides[1], zorder=6)


def _draw_arrow(axes: Axes, arrow: Arrow, points: Places, color: str, heads: bool) -> None:
    from matplotlib.patches import FancyArrowPatch

    width, over = (2.4, 4) if arrow.critical else (1.2, 3)
    axes.add_patch(
        FancyArrowPatch(
            tuple(points[arrow.sender]),
            tuple(points[arrow.receiver]),
            arrowstyle="-|>,head_length=0.42,head_width=0.2" if heads else "-",
            mutation_scale=13 if arrow.critical else 10,
            connectionstyle=f"arc3,rad={arrow.bow}",
            shrinkA=3.5,
            shrinkB=3.5,
            color=INK if arrow.critical else color,
            linewidth=width,
            alpha=1.0 if heads or arrow.critical else 0.25,
            zorder=over,
        )
    )


def _draw_silos(axes: Axes, overlay: OverlayRecord, points: Places, color: str) -> None:
    """Dots, black ones on the slowest circuit; the hub is a square."""
    critical = np.isin(np.arange(len(points)), overlay.circuit)
    for chosen, size, shade in ((~critical, 17, color), (critical, 30, INK)):
        axes.scatter(points[chosen, 0], points[chosen, 1], s=size, color=shade, linewidth=0, zorder=5)
    if overlay.hub is not None:
        x, y = points[overlay.hub].tolist()
        axes.scatter(x, y, marker="s", s=60, color=INK, linewidth=0, zorder=5)


def _labels(
    texts: Sequence[str], silos: Iterable[int], points: Places
) -> list[tuple[int, tuple[float, float], tuple[int, int]]]:
    """For each name the silo, where it is put, and the side; greedily where it covers the fewest names and silos."""
    taken = [np.array([x - 3, y - 3, x + 3, y + 3]) for x, y in points]
    found = []
    for text, silo in zip(texts, silos, strict=True):
        boxes = [_box(points[silo], side, 4.6 * len(text)) for side in _SIDES]
        best = min(range(len(boxes)), key=lambda k: (sum(_overlap(boxes[k], other) for other in taken), k))
        taken.append(boxes[best])
        x, y = points[silo]
        dx, dy = _SIDES[best]
        across, up = int(np.sign(dx)), int(np.sign(dy))
        found.append((silo, (float(x + 0.75 * dx), float(y + 0.75 * dy)), (across, up)))
    return found


def _box(point: Any, side: tuple[int, int], width: float) -> Float64[ndarray, "4"]:
    """Left, bottom, right, top of a word of 8 points on a side of a silo."""
    across, up = np.sign(side[0]), np.sign(side[1])
    x, y = point[0] + 0.75 * side[0], point[1] + 0.75 * side[1]
    left, bottom = x - width * (1 - across) / 2, y - 9 * (1 - up) / 2
    return np.array([left, bottom, left + width, bottom + 9])


def _overlap(one: ndarray, other: ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0.0)))

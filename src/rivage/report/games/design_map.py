"""Overlays as maps: who sends to whom, and the circuit that sets the pace.

Silos stand where they are on the globe, in the cylindrical projection that keeps shapes at their middle latitude and
is cut in the widest gap of longitudes; without coordinates, so that distances on paper follow the latencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.report.games.design_numbers import OverlayRecord, network_of, scene_of
from rivage.report.games.labels import outside, place_labels
from rivage.report.games.network_map import spread_out
from rivage.report.theme import INK, LABEL, MUTED, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Arrow", "arrows", "draw_maps", "on_paper", "places_of"]

Places = Float64[ndarray, "silos 2"]

_WIDTHS = {1: (7.0,), 2: (6.1, 3.7)}  # inches, by the number of maps
_LEAST, _MOST = 3.0, 5.6  # inches of height
_MARGIN = 32.0  # points around the silos, for their names
_NAMED = 45  # silos that are all named; of more those whose names cover little
_COVERED = 0.3  # share of a name's area that may cover something else
_NAMED_TWICE = 15  # likewise in the second, smaller map
_CROWD = 25  # silos above which lines are thinner
_DENSE = 8  # arcs a silo above which heads would hide everything
_BOW = 0.13  # of arcs that have one the other way
_FONT = 8.0


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
            points = on_paper(places, 72 * width, 72 * height)
            _draw(axes, overlay, links, points, looks[overlay.name].color)
            if overlay is shown[0] or len(places) <= _NAMED_TWICE:  # silos stand at the same places
                _draw_names(axes, overlay, points, (72 * width, 72 * height))
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


def _draw_names(axes: Axes, overlay: OverlayRecord, points: Places, room: tuple[float, float]) -> None:
    """Those on the slowest circuit first, in bold; of many silos only where there is room, in points."""
    first = list(overlay.circuit)
    chosen = [*first, *(silo for silo in range(len(points)) if silo not in first)]
    texts = [overlay.names[silo][:18] for silo in chosen]
    most = _COVERED if len(points) > _NAMED else np.inf
    taken = [*outside(*room), *_crossed(overlay, points)]
    for label in place_labels(texts, chosen, points, size=_FONT, taken=taken, most=most):
        weight = "bold" if label.point in overlay.circuit else "normal"
        place = points[label.point].tolist()
        style = {"color": LABEL, "fontsize": _FONT, "weight": weight, "zorder": 6, **label.sides}
        axes.annotate(label.text, place, label.away, textcoords="offset points", **style)


def _crossed(overlay: OverlayRecord, points: Places) -> list[Float64[ndarray, "4"]]:
    """Boxes along the arrows, larger ones at their heads."""
    boxes = []
    for arrow in arrows(overlay) if len(overlay.arcs) <= _DENSE * len(points) else []:
        start, end = points[arrow.sender], points[arrow.receiver]
        along = end - start
        length = float(np.hypot(*along)) or 1.0
        aside = arrow.bow * np.array([along[1], -along[0]])  # of the middle control point, twice that of the curve
        for share in np.arange(4.0, length, 5.0) / length:
            spot = start + share * along + 2 * share * (1 - share) * aside
            size = 4.0 if length * (1 - share) < 12 else 1.2
            boxes.append(np.concatenate([spot - size, spot + size]))
    return boxes


def _draw_arrow(axes: Axes, arrow: Arrow, points: Places, color: str, heads: bool) -> None:
    from matplotlib.patches import FancyArrowPatch

    thin = 0.75 if len(points) > _CROWD else 1.0
    width, over = (2.4 * thin, 4) if arrow.critical else (1.2 * thin, 3)
    axes.add_patch(
        FancyArrowPatch(
            tuple(points[arrow.sender]),
            tuple(points[arrow.receiver]),
            arrowstyle="-|>,head_length=0.42,head_width=0.2" if heads else "-",
            mutation_scale=(13 if arrow.critical else 10) * thin,
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

"""The figures of a run of ``rivage design``: times of a round against the bound, and against rounds until agreement.

Each function takes the summary of the run and the looks of the overlays and returns one inline SVG, or None when there
is nothing to draw. The same record gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rivage.report.games.design_numbers import winner
from rivage.report.games.design_words import above, human_ms, ms
from rivage.report.games.labels import outside, place_labels
from rivage.report.theme import INK, LABEL, MUTED, PAPER, Look, to_svg
from rivage.report.ticks import logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["agreement", "cycle_times"]

Looks = Mapping[str, Look]
Row = Mapping[str, Any]
WIDTH = 10.0  # inches
_FAR = 12.0  # times the bound from which on a scale of ratios is used
_DASHED: Any = (0, (4, 3))
_SAME = 2e-3  # relative: a mark on the end of its bar says nothing
_MOST_LINES = 6
_SECOND, _MINUTE, _HOUR = 1e3, 6e4, 3.6e6  # in ms
_TOTALS = (
    *(step * unit for unit in (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, _SECOND) for step in (1, 2, 5)),
    *(step * unit for unit in (10 * _SECOND, _MINUTE, 10 * _MINUTE) for step in (1, 2)),
    *(step * unit for unit in (_HOUR, 10 * _HOUR, 100 * _HOUR, 1e3 * _HOUR) for step in (1, 2, 5)),
)
_PLOT = (650.0, 270.0)  # points that the axes of `agreement` take, about
_BESIDE: Any = {"textcoords": "offset points", "va": "center", "color": LABEL, "fontsize": 8.5}


# --- times of a round -----------------------------------------------------------------------------------------------


def cycle_times(summary: Mapping[str, Row], bound: float | None, looks: Looks, *, name: str) -> str | None:
    """A bar for each overlay, the fastest on top; the bound that none goes below which is the same in every round."""
    rows = {overlay: row for overlay, row in summary.items() if row["cycle_time_ms"] is not None}
    if not rows:
        return None
    order = sorted(rows, key=lambda overlay: float(rows[overlay]["cycle_time_ms"]))
    longest, best = max(_ends(row)[1] for row in rows.values()), winner(rows)
    ratios = bound is not None and bound > 0 and longest > _FAR * bound
    start = min(bound or 0.0, *(_ends(row)[0] for row in rows.values())) if ratios else 0.0

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for place, overlay in enumerate(order):
            _draw_bar(axes, place, rows[overlay], looks[overlay].color, start)
            text, far = _said(rows[overlay], best=overlay == best), _ends(rows[overlay])[1]
            axes.annotate(text, (far, place), (5, 0), **_BESIDE)
        if bound is not None:
            _draw_bound(axes, bound)
        _shape_bars(axes, [overlay[:30] for overlay in order], start, longest, ratios)

    told = "; ".join(f"{overlay} {ms(rows[overlay]['cycle_time_ms'])}" for overlay in order)
    least = "" if bound is None else f" No fixed overlay goes below {ms(bound)}."
    size = (WIDTH, 0.85 + 0.34 * len(order))
    return to_svg(fill, size=size, name=name, label=f"Time of a round: {told}.{least}")


def _draw_bar(axes: Axes, place: int, row: Row, color: str, start: float) -> None:
    time = float(row["cycle_time_ms"])
    axes.barh(place, time - start, left=start, height=0.62, color=color, alpha=0.85, linewidth=0)
    low, high = _whiskers(row)
    if high > low:
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=7, zorder=4)
    _draw_marks(axes, place, row)


def _draw_bound(axes: Axes, bound: float) -> None:
    axes.axvline(bound, color=INK, linestyle=_DASHED, linewidth=1.1)
    text, across = f" no fixed overlay below {ms(bound)}", axes.get_xaxis_transform()
    axes.text(bound, 1.0, text, transform=across, color=LABEL, fontsize=8.5, va="bottom")


def _draw_marks(axes: Axes, place: int, row: Row) -> None:
    """What a round takes when times scatter, and when messages share links."""
    style: dict[str, Any] = {"color": INK, "markerfacecolor": PAPER, "linewidth": 1.2, "zorder": 5}
    if row["fair_ms"] is not None and not math.isclose(row["fair_ms"], row["cycle_time_ms"], rel_tol=_SAME):
        axes.plot(row["fair_ms"], place, marker="v", markersize=5, **style)
    if (times := row["scattered_ms"]) is not None:
        axes.plot([times["low"], times["high"]], [place, place], **style)
        axes.plot(times["mean"], place, marker="D", markersize=5, **style)


def _whiskers(row: Row) -> tuple[float, float]:
    """Smallest and largest of the seeds; of one seed one standard error to both sides."""
    time, error = float(row["cycle_time_ms"]), float(row["error_ms"])
    if row["least_ms"] < row["most_ms"]:
        return float(row["least_ms"]), float(row["most_ms"])
    return time - error, time + error


def _ends(row: Row) -> tuple[float, float]:
    """Of all that is drawn of an overlay."""
    marks = [row["fair_ms"], *(row["scattered_ms"] or {}).values()]
    every = [row["cycle_time_ms"], *_whiskers(row), *(mark for mark in marks if mark is not None)]
    return min(every), max(every)


def _said(row: Row, *, best: bool) -> str:
    time = ms(row["cycle_time_ms"])
    return f"{time}, at most {above(row['gap'])} above the bound" if best and row["gap"] is not None else time


def _shape_bars(axes: Axes, names: Sequence[str], start: float, longest: float, ratios: bool) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="time of a round, ms")
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    if ratios:
        axes.set_xlim(start * 0.92, start * (longest / start) ** 1.22)
        logarithmic(axes, "x")
    else:
        axes.set_xlim(0, 1.28 * longest or 1.0)


# --- agreement ------------------------------------------------------------------------------------------------------


def agreement(summary: Mapping[str, Row], looks: Looks, *, name: str) -> str | None:
    """Time of a round against rounds until models differ 1000 times less; what costs the same time is on one line."""
    rows = {overlay: row for overlay, row in summary.items() if row["agreement_ms"] is not None}
    if not rows:
        return None
    times = np.array([float(row["cycle_time_ms"]) for row in rows.values()])
    needed = np.array([float(row["agreement_rounds"]) for row in rows.values()])
    spans = [(low / 1.35, high * 1.7) for low, high in ((times.min(), times.max()), (needed.min(), needed.max()))]

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xlim=spans[0], ylim=spans[1])
        logarithmic(axes, "x")
        logarithmic(axes, "y")
        _draw_equal_times(axes, spans)
        for overlay, x, y in zip(rows, times, needed, strict=True):
            look = looks[overlay]
            marker = look.marker if look.marker != "_" else "o"
            axes.plot(x, y, marker, color=look.color, markersize=8, markeredgewidth=0, zorder=4)
        _name_points(axes, list(rows), times, needed, [human_ms(row["agreement_ms"]) for row in rows.values()])
        axes.set(xlabel="time of a round, ms", ylabel="rounds until models differ 1000 times less")
        axes.grid(True, axis="both")

    told = "; ".join(
        f"{overlay} {row['agreement_rounds']:.3g} rounds of {ms(row['cycle_time_ms'])}, {human_ms(row['agreement_ms'])}"
        for overlay, row in rows.items()
    )
    return to_svg(fill, size=(WIDTH, 4.6), name=name, label=f"Predicted agreement: {told}.")


def _draw_equal_times(axes: Axes, spans: Sequence[tuple[float, float]]) -> None:
    """Lines of the same predicted time, six or fewer."""
    (left, right), (low, high) = spans
    inside = [total for total in _TOTALS if left * low < total < right * high]
    for total in inside[:: max(1, -(-len(inside) // _MOST_LINES))]:
        axes.plot([left, right], [total / left, total / right], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        x, y = (right, total / right) if low <= total / right <= high else (total / low, low)
        sides: Any = {"ha": "right", "va": "bottom", "color": LABEL, "fontsize": 7.5}
        axes.annotate(human_ms(total), (x, y), (-3, 2), textcoords="offset points", **sides)


def _name_points(axes: Axes, names: Sequence[str], x: Any, y: Any, texts: Sequence[str]) -> None:
    """Names beside the points; those at nearly the same place share a line of text."""
    groups = _neighbours(np.log(x), np.log(y))
    texts = [f"{', '.join(names[point][:30] for point in group)}: {texts[group[0]]}" for group in groups]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    spots = np.stack([np.log(x / left) / np.log(right / left), np.log(y / low) / np.log(high / low)], axis=1)
    firsts, taken = [group[0] for group in groups], outside(*_PLOT)
    for label in place_labels(texts, firsts, spots * np.array(_PLOT), size=8.5, taken=taken, radius=4.0):
        place, style = (float(x[label.point]), float(y[label.point])), {"color": LABEL, "fontsize": 8.5, **label.sides}
        axes.annotate(label.text, place, label.away, textcoords="offset points", **style)


def _neighbours(x: Any, y: Any) -> list[list[int]]:
    """Points in groups that one line of text can name, each from left to right."""
    groups = list[list[int]]()
    for point in np.lexsort((y, x)).tolist():
        near = [group for group in groups if abs(x[point] - x[group[0]]) < 0.04 and abs(y[point] - y[group[0]]) < 0.1]
        if near:
            near[0].append(point)
        else:
            groups.append([point])
    return groups

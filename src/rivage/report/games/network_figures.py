"""The figures of a run of a network of caches over time: cost saved, and moves.

Each function takes a record and the looks of its policies and returns one inline SVG, or None when the record holds
nothing to draw. The same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.report.games.network_numbers import most_saved, trials_of
from rivage.report.theme import INK, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["moves_over_time", "saved_over_time"]

Looks = Mapping[str, Look]
Array = Float64[ndarray, "points"]
Value = Callable[[Mapping[str, Array]], Array]
WIDTH, HEIGHT = 10.0, 3.5  # inches
_SIDES: tuple[Any, Any] = ((0, (4, 3)), (0, (1, 2)))


@dataclass(frozen=True, slots=True)
class _Line:
    """One number of one policy over the requests: mean, smallest and largest of the seeds."""

    requests: Array
    mean: Array
    low: Array
    high: Array


def _line(record: RunRecord, policy: str, value: Value) -> _Line | None:
    """A number of each point; seeds are cut to the shortest."""
    seeds = [points for trial in trials_of(record, policy) if (points := trial.events("point"))]
    if not seeds:
        return None
    shortest = min(map(len, seeds))
    columns = [
        {key: np.array([point[key] for point in points[:shortest]], np.float64) for key in points[0] if key != "event"}
        for points in seeds
    ]
    values = np.array([value(column) for column in columns])
    return _Line(columns[0]["requests"], values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def _lines(record: RunRecord, value: Value) -> dict[str, _Line]:
    """A line for every policy that has begun."""
    found = {name: _line(record, name, value) for name in record.methods}
    return {name: line for name, line in found.items() if line is not None}


def _draw(axes: Axes, lines: Mapping[str, _Line], looks: Looks, label: str) -> None:
    from matplotlib.ticker import EngFormatter

    for policy, line in lines.items():
        look = looks[policy]
        if (line.low < line.high).any():
            axes.fill_between(line.requests, line.low, line.high, color=look.color, alpha=0.14, linewidth=0)
        axes.plot(line.requests, line.mean, color=look.color, linestyle=look.line)
    axes.set_xlabel("requests")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(label)
    axes.margins(x=0)


def _ends(lines: Mapping[str, _Line]) -> str:
    return "; ".join(f"{name} ends at {line.mean[-1]:.4g}" for name, line in lines.items())


def _share(at: Mapping[str, Array]) -> Array:
    """NaN as long as nothing that was asked for costs anything."""
    asked = at["asked"]
    share: Array = np.divide(at["gain"], asked, out=np.full_like(asked, np.nan), where=asked > 0)
    return share


def saved_over_time(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Cost saved from the beginning, and both sides of the best fixed placement."""
    lines = _lines(record, _share)
    if not lines:
        return None
    sides = most_saved(record)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        _draw(axes, lines, looks, "cost saved, share of that without caches")
        for side, dashes in zip(sides, _SIDES, strict=True):
            if side is not None:
                axes.axhline(side, color=INK, linestyle=dashes, linewidth=1.1)
        top = [float(np.nanmax(line.high)) for line in lines.values() if np.isfinite(line.high).any()]
        axes.set_ylim(0, 1.05 * max((*top, *(side for side in sides if side is not None)), default=1.0) or 1.0)

    return to_svg(fill, size=(WIDTH, HEIGHT), name=name, label=f"Cost saved over time: {_ends(lines)}.")


def moves_over_time(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Items moved between two points, per 100 requests."""
    lines = _lines(record, lambda at: 100 * np.diff(at["moves"], prepend=0) / np.diff(at["requests"], prepend=0))
    if not lines:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        _draw(axes, lines, looks, "moves per 100 requests")
        axes.set_ylim(bottom=0)

    return to_svg(fill, size=(WIDTH, HEIGHT), name=name, label=f"Moves per 100 requests: {_ends(lines)}.")

"""Curves over the rounds of a training: the metric by rounds, by bytes and by gradients, and the server's own numbers.

Each function takes a record and the looks of its methods and returns one inline SVG, or None when the record holds
nothing to draw. The same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.core.summaries import local_method
from rivage.core.trial_records import TrialRecord
from rivage.report import series
from rivage.report.theme import INK, LABEL, Look, to_svg
from rivage.report.ticks import whole_numbers
from rivage.report.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["learning_curves", "server_numbers"]

Looks = Mapping[str, Look]
Array = Float64[ndarray, "points"]
WIDTH = 10.0  # inches: 960 px, the width of the text column
MAX_PANELS = 8  # numbers of the server that get a panel
_MARKED = 30  # evaluations that get a marker each
_DOTTED: Any = (0, (1, 2))
_UNITS = ("", "thousand ", "million ", "10⁹ ", "10¹² ", "10¹⁵ ")
_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")


# --- the metric -----------------------------------------------------------------------------------------------------


def learning_curves(record: RunRecord, looks: Looks, *, name: str, budget: float | None = None) -> str | None:
    """Weighted mean over rounds, over traffic and over gradients per client; band: lowest to highest seed.

    Args:
        record: of a training.
        looks: of its methods.
        name: prefix of ids.
        budget: bytes per client at which methods are compared; dotted.
    """
    local = local_method(record)
    curves = {m: series.learning_curve(series.trials_of(record, m)) for m in record.methods}
    curves = {method: curve for method, curve in curves.items() if len(curve.rounds)}
    if not curves:
        return None
    metric = str(series.trials_of(record, next(iter(curves)))[0].start["metric"])
    moving = {m: c for m, c in curves.items() if m != local}
    panels = [("rounds", None), ("size", _reach(moving, "size")), ("gradients", _reach(moving, "gradients"))]
    drawn = [(against, reach) for against, reach in panels if reach is None or reach > 0]

    def fill(figure: Figure) -> None:
        found = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, (against, reach) in zip(found, drawn, strict=True):
            words, scale = _axis(against, reach)
            for method, curve in curves.items():
                if method == local:
                    _draw_reference(axes, curve, looks[method], method, named=against == "rounds")
                else:
                    _draw_curve(axes, getattr(curve, against) / scale, curve, looks[method])
            axes.set_xlabel(words)
            if reach is not None:
                axes.set_xlim(-0.04 * reach / scale, 1.04 * reach / scale)
            if against == "size" and budget is not None:
                axes.axvline(budget / scale, color=INK, linestyle=_DOTTED, linewidth=1.0)
        whole_numbers(found[0])
        found[0].set_ylabel(f"mean {metric}")

    label = "; ".join(f"{m} from {c.mean[0]:.3g} to {c.mean[-1]:.3g}" for m, c in curves.items())
    by = {1: "by rounds", 2: "by rounds and by bytes", 3: "by rounds, by bytes and by gradients"}[len(drawn)]
    return to_svg(fill, size=(WIDTH, 3.7), name=name, label=f"Mean {metric} {by}: {label}.")


def _reach(curves: Mapping[str, series.Curve], against: str) -> float:
    """How far the axis goes: to the end of the dearest method with rounds; what has one point must not squeeze it."""
    ends = [getattr(c, against)[-1] for c in curves.values() if len(c.rounds) > 1]
    ends = ends or [getattr(c, against)[-1] for c in curves.values()]
    return float(max((end for end in ends if np.isfinite(end)), default=0.0))


def _axis(against: str, reach: float | None) -> tuple[str, float]:
    """Words below an axis, and by what its numbers are divided."""
    if reach is None:
        return "rounds", 1.0
    power = min(int(np.log10(max(reach, 1.0))) // 3, 5)  # one to three digits before the point
    if against == "size":
        return f"traffic per client, {_BYTES[power]}", 1000.0**power
    return f"{_UNITS[power]}gradients per client".strip(), 1000.0**power


def _draw_curve(axes: Axes, x: Array, curve: series.Curve, look: Look) -> None:
    marker = look.marker if len(x) <= _MARKED else ""
    axes.fill_between(x, curve.low, curve.high, color=look.color, alpha=0.14, linewidth=0)
    axes.plot(x, curve.mean, color=look.color, linestyle=look.line, marker=marker, markeredgewidth=0)


def _draw_reference(axes: Axes, curve: series.Curve, look: Look, method: str, *, named: bool) -> None:
    axes.axhspan(curve.low[-1], curve.high[-1], color=look.color, alpha=0.07, linewidth=0)
    axes.axhline(curve.mean[-1], color=look.color, linestyle=look.line, linewidth=1.1)
    if named:
        across = axes.get_yaxis_transform()
        axes.text(0.01, curve.mean[-1], shown(method), transform=across, va="bottom", fontsize=8.5, color=LABEL)


# --- the server's numbers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    """One number of the server by rounds, over seeds.

    Args:
        rounds: of the number, ascending.
        mean: average over the seeds that got so far.
        low: smallest of these seeds.
        high: largest.
    """

    rounds: Array
    mean: Array
    low: Array
    high: Array


def _numbers(trials: Sequence[TrialRecord]) -> dict[str, Number]:
    """Name -> what a method reports of its server (``server`` in the rounds), where it is a number."""
    found: dict[str, dict[int, list[float]]] = {}
    for event in (event for trial in trials for event in trial.events("round")):
        for key, value in (event.get("server") or {}).items():
            if isinstance(value, int | float):  # JSON has null where a number is not finite
                found.setdefault(str(key), {}).setdefault(int(event["round"]), []).append(float(value))
    return {
        key: Number(*np.array([(r, np.mean(v), min(v), max(v)) for r, v in sorted(rounds.items())], np.float64).T)
        for key, rounds in found.items()
    }


def server_numbers(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """A panel for each number that methods report of their server after every round, at most eight."""
    found = {m: _numbers(series.trials_of(record, m)) for m in record.methods}
    keys = list(dict.fromkeys(key for curves in found.values() for key in curves))[:MAX_PANELS]
    if not keys:
        return None
    columns = min(len(keys), 4)
    rows = -(-len(keys) // columns)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, key in zip(panels, keys, strict=False):
            for method, curves in found.items():
                if key in curves:
                    _draw_number(axes, curves[key], looks[method])
            axes.set_title(shown(key.replace("_", " ")))
            axes.set_xlabel("round")
            whole_numbers(axes)
        for axes in panels[len(keys) :]:
            axes.set_axis_off()

    ends = "; ".join(f"{m} {k} {c[k].mean[-1]:.3g}" for m, c in found.items() for k in keys if k in c)
    size = (max(WIDTH * columns / 4, 5.0), 2.6 * rows)
    return to_svg(fill, size=size, name=name, label=f"Numbers of the server by rounds, at the end: {ends}.")


def _draw_number(axes: Axes, curve: Number, look: Look) -> None:
    marker = look.marker if len(curve.rounds) == 1 else ""
    axes.fill_between(curve.rounds, curve.low, curve.high, color=look.color, alpha=0.14, linewidth=0)
    axes.plot(curve.rounds, curve.mean, color=look.color, linestyle=look.line, marker=marker, markeredgewidth=0)

"""Training against simulated time: metric, loss and disagreement of the methods whose rounds have a clock.

Rounds of silos say when the next round starts (``clock_ms``), rounds on simulated devices how long they took
(``simulated_s``). The same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.core.summaries import weighted_mean
from rivage.core.trial_records import TrialRecord
from rivage.report.series import trials_of
from rivage.report.tables import human_seconds, number
from rivage.report.theme import INK, Look, to_svg
from rivage.report.ticks import logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ClockCurve", "against_time", "clock_curves", "first_reached", "told_reached"]

Quantity = Literal["metric", "loss", "consensus"]
Array = Float64[ndarray, "points"]

_SIZE = (10.0, 3.6)  # inches
_FAR = 8.0  # times as long as the shortest training: from here on time is on a logarithmic scale
_DOTTED: Any = (0, (1, 2))


@dataclass(frozen=True, slots=True)
class ClockCurve:
    """One number of a method over simulated time.

    Args:
        seconds: since the beginning, mean of the seeds that got so far.
        mean: of these seeds.
        low: smallest of them.
        high: largest.
    """

    seconds: Array
    mean: Array
    low: Array
    high: Array


def clock_curves(record: RunRecord, quantity: Quantity) -> dict[str, ClockCurve]:
    """The curves of all methods with a clock.

    Args:
        record: of a training.
        quantity: ``"metric"`` or ``"loss"``: weighted mean over clients on their test records, at each evaluation;
            ``"consensus"``: mean square by which the models of silos differ from their average, after each round.
    """
    found = {method: _curve(trials_of(record, method), quantity) for method in record.methods}
    return {method: curve for method, curve in found.items() if len(curve.seconds) > 1}


def _curve(trials: Sequence[TrialRecord], quantity: Quantity) -> ClockCurve:
    seeds = [dict(_points(trial, quantity)) for trial in trials]
    rows = []
    for done in sorted({done for points in seeds for done in points}):
        seconds, values = zip(*(points[done] for points in seeds if done in points), strict=True)
        rows.append((np.mean(seconds), np.mean(values), min(values), max(values)))
    return ClockCurve(*np.asarray(rows, np.float64).reshape(-1, 4).T)


def _points(trial: TrialRecord, quantity: Quantity) -> Iterator[tuple[int, tuple[float, float]]]:
    """Rounds done, with the time then and the value."""
    if not (clock := _clock(trial)):
        return
    if quantity == "consensus":
        events = [(int(event["round"]) + 1, event.get("consensus")) for event in trial.events("round")]
    else:
        key = "test" if quantity == "metric" else "test_loss"
        seen = [event for event in trial.events("evaluation") if event["group"] == "seen" and key in event]
        events = [(int(event["round"]), weighted_mean(event[key], event["test_size"])) for event in seen]
    yield from ((done, (clock[done], value)) for done, value in events if done in clock and value is not None)


def _clock(trial: TrialRecord) -> dict[int, float]:
    """Rounds done -> seconds since the beginning; empty for methods without a clock."""
    elapsed = sum(float(event.get("simulated_s", 0.0)) for event in trial.events("setup"))
    clock = {0: elapsed}
    for event in trial.events("round"):
        elapsed = event["clock_ms"] / 1000 if "clock_ms" in event else elapsed + event.get("simulated_s", 0.0)
        clock[int(event["round"]) + 1] = elapsed
    return clock if any(seconds > 0 for seconds in clock.values()) else {}


def first_reached(curves: Mapping[str, ClockCurve], *, higher_is_better: bool) -> tuple[float, dict[str, float]]:
    """A value that every method reaches, and after how many seconds each is there first.

    The value is the best one of the method that gets least far.

    Args:
        curves: at least one.
        higher_is_better: direction of the metric.
    """
    sign = 1 if higher_is_better else -1
    target = min(float((sign * curve.mean).max()) for curve in curves.values())
    times = {name: float(each.seconds[np.argmax(sign * each.mean >= target)]) for name, each in curves.items()}
    return sign * target, times


def told_reached(record: RunRecord) -> str:
    """Who is where all get to, and when: ``"All reach accuracy 0.812: ring after 12 s, star after 3 min 2 s."``."""
    curves = clock_curves(record, "metric")
    if len(curves) < 2:
        return ""
    start = trials_of(record, next(iter(curves)))[0].start
    target, times = first_reached(curves, higher_is_better=bool(start["higher_is_better"]))
    order = sorted(times, key=lambda name: times[name])
    listed = ", ".join(f"{name} after {human_seconds(times[name])}" for name in order)
    return f"All reach {start['metric']} {number(target)}: {listed}."


def against_time(record: RunRecord, looks: Mapping[str, Look], *, name: str) -> str | None:
    """Panels for metric, loss and disagreement; None where no method has a clock."""
    metric = clock_curves(record, "metric")
    if not metric:
        return None
    start = trials_of(record, next(iter(metric)))[0].start
    panels = {f"mean {start['metric']}": metric, "mean test loss": clock_curves(record, "loss")}
    panels["disagreement, mean square"] = clock_curves(record, "consensus")
    drawn = {label: curves for label, curves in panels.items() if curves}
    ends = [float(curve.seconds[-1]) for curve in metric.values()]
    unit, scale = _unit(max(ends))

    def fill(figure: Figure) -> None:
        for axes, (label, curves) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
            for method, curve in curves.items():
                _draw(axes, curve, looks[method], scale)
            axes.set(xlabel=f"simulated time, {unit}", ylabel=label)
            if max(ends) > _FAR * min(ends):
                logarithmic(axes, "x")
            if curves is panels["disagreement, mean square"] and all((each.low > 0).all() for each in curves.values()):
                logarithmic(axes, "y")
        if len(metric) > 1:
            target, _ = first_reached(metric, higher_is_better=bool(start["higher_is_better"]))
            figure.axes[0].axhline(target, color=INK, linestyle=_DOTTED, linewidth=1.0)

    told = "; ".join(f"{m} {c.mean[-1]:.3g} after {human_seconds(float(c.seconds[-1]))}" for m, c in metric.items())
    return to_svg(fill, size=_SIZE, name=name, label=f"Training against simulated time: {told}. {told_reached(record)}")


def _draw(axes: Axes, curve: ClockCurve, look: Look, scale: float) -> None:
    marker = look.marker if len(curve.seconds) <= 30 else ""
    axes.fill_between(curve.seconds / scale, curve.low, curve.high, color=look.color, alpha=0.14, linewidth=0)
    style: dict[str, Any] = {"color": look.color, "linestyle": look.line, "marker": marker, "markeredgewidth": 0}
    axes.plot(curve.seconds / scale, curve.mean, **style)


def _unit(seconds: float) -> tuple[str, float]:
    """In which a time has few digits."""
    return ("s", 1.0) if seconds < 300 else ("min", 60.0) if seconds < 18_000 else ("h", 3600.0)

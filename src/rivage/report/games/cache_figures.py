"""The figures of a run of one cache: cost, regret and its bound, occupancy, traffic, cost against capacity.

Each function takes a record and the looks of its policies and returns one inline SVG, or None when the record holds
nothing to draw. Figures over time are of the first capacity. The same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.report.games.cache_numbers import capacities, optima, summarize_policies, trials_of
from rivage.report.theme import INK, MUTED, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cost_by_capacity", "cost_over_time", "occupancy", "regret_and_bound", "traffic"]

Looks = Mapping[str, Look]
Array = Float64[ndarray, "points"]
Value = Callable[[Mapping[str, Array]], Array]
WIDTH, HEIGHT = 10.0, 3.5  # inches
_DASHED: Any = (0, (4, 3))


@dataclass(frozen=True, slots=True)
class _Line:
    """One number of one policy over the requests: mean, smallest and largest of the seeds."""

    requests: Array
    mean: Array
    low: Array
    high: Array


def _line(record: RunRecord, policy: str, value: Value) -> _Line | None:
    """A number of each point, for the first capacity; seeds are cut to the shortest."""
    sizes = capacities(record)
    trials = trials_of(record, policy, sizes[0]) if sizes else ()
    seeds = [points for trial in trials if (points := trial.events("point"))]
    if not seeds:
        return None
    shortest = min(map(len, seeds))
    columns = [
        {key: np.array([point[key] for point in points[:shortest]], np.float64) for key in points[0] if key != "event"}
        for points in seeds
    ]
    values = np.array([value(column) for column in columns])
    return _Line(columns[0]["requests"], values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def _lines(record: RunRecord, value: Value, *, seers: bool = False) -> dict[str, _Line]:
    """A line for every policy that has begun; without those that foresee, unless they are asked for."""
    names = dict.fromkeys(str(t.start["policy"]) for t in record.trials if seers or not t.start["foresees"])
    found = {name: _line(record, name, value) for name in names}
    return {name: line for name, line in found.items() if line is not None}


def _draw(axes: Axes, line: _Line, look: Look, **options: Any) -> None:
    if (line.low < line.high).any():
        axes.fill_between(line.requests, line.low, line.high, color=look.color, alpha=0.14, linewidth=0)
    axes.plot(line.requests, line.mean, color=look.color, linestyle=look.line, **options)


def _over_requests(axes: Axes, label: str) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel("requests")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(label)
    axes.margins(x=0)


def _look_at_late(axes: Axes, lines: Sequence[_Line]) -> None:
    """Leave out of the picture what only the first twentieth of the requests reached: an empty cache misses anyhow."""
    late = [values[len(values) // 20 :] for line in lines for values in (line.low, line.high)]
    low, high = min(np.nanmin(values) for values in late), max(np.nanmax(values) for values in late)
    margin = 0.06 * ((high - low) or 1.0)
    axes.set_ylim(max(low - margin, 0), high + margin)


def _left(saved: Array, asked: Array) -> Array:
    """Cost as a share of that without a cache; NaN as long as nothing that was asked for costs anything."""
    left: Array = 1 - np.divide(saved, asked, out=np.full_like(saved, np.nan), where=asked > 0)
    return left


def _ends(lines: Mapping[str, _Line]) -> str:
    return "; ".join(f"{name} ends at {line.mean[-1]:.4g}" for name, line in lines.items())


def cost_over_time(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Cost from the beginning, normalised; dashed the best fixed set for every prefix."""
    lines = _lines(record, lambda at: _left(at["gain"], at["asked"]))
    best = _lines(record, lambda at: _left(at["optimum"], at["asked"]), seers=True)
    if not best:
        return None
    static = next(iter(best.values()))

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for policy, line in lines.items():
            _draw(axes, line, looks[policy])
        axes.plot(static.requests, static.mean, color=INK, linestyle=_DASHED, linewidth=1.1)
        _over_requests(axes, "cost, share of that without cache")
        _look_at_late(axes, [*lines.values(), static])

    return to_svg(fill, size=(WIDTH, HEIGHT), name=name, label=f"Normalised cost over time: {_ends(lines)}.")


def regret_and_bound(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Regret and its bound, a panel per policy that promises something."""
    bounds = {p: b for p, b in _lines(record, lambda at: at["bound"]).items() if np.isfinite(b.mean).all()}
    regrets = _lines(record, lambda at: at["regret"])
    if not bounds:
        return None
    columns = min(len(bounds), 3)
    rows = -(-len(bounds) // columns)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for number, (axes, policy) in enumerate(zip(panels.ravel(), bounds, strict=False)):
            _draw_regret(axes, regrets[policy], bounds[policy], looks[policy])
            _over_requests(axes, "" if number % columns else "regret")
            axes.set_xlabel("requests" if number + columns >= len(bounds) else "")
            axes.tick_params(labelbottom=number + columns >= len(bounds))
            axes.set_title(policy[:30], color=looks[policy].color)
        for axes in panels.ravel()[len(bounds) :]:
            axes.set_axis_off()

    ends = "; ".join(f"{p} {regrets[p].mean[-1]:.4g} of {bound.mean[-1]:.4g}" for p, bound in bounds.items())
    size = (WIDTH if columns > 1 else 0.6 * WIDTH, 0.4 + 2.7 * rows)
    return to_svg(fill, size=size, name=name, label=f"Regret and bound at the end: {ends}.")


def _draw_regret(axes: Axes, regret: _Line, bound: _Line, look: Look) -> None:
    from matplotlib.ticker import EngFormatter

    bottom = min(float(regret.low.min()), 0.0)
    axes.fill_between(bound.requests, bottom, bound.low, color=look.color, alpha=0.09, linewidth=0)
    axes.plot(bound.requests, bound.low, color=look.color, linestyle=(0, (1, 1.5)), linewidth=1.4)
    axes.fill_between(regret.requests, regret.low, regret.high, color=look.color, alpha=0.2, linewidth=0)
    axes.plot(regret.requests, regret.mean, color=look.color)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def occupancy(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Items in the cache; dashed the capacity."""
    lines = _lines(record, lambda at: at["occupancy"])
    if not lines:
        return None
    capacity = capacities(record)[0]

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(capacity, color=INK, linestyle=_DASHED, linewidth=1.1)
        for policy, line in lines.items():
            _draw(axes, line, looks[policy], linewidth=1.3)
        _over_requests(axes, "items in the cache")
        _look_at_late(axes, [*lines.values()])

    return to_svg(fill, size=(WIDTH, 2.8), name=name, label=f"Items in the cache, capacity {capacity}: {_ends(lines)}.")


def traffic(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Items fetched between two points, per 100 requests."""
    lines = _lines(record, lambda at: 100 * np.diff(at["inserted"], prepend=0) / np.diff(at["requests"], prepend=0))
    if not lines:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for policy, line in lines.items():
            _draw(axes, line, looks[policy], linewidth=1.3)
        _over_requests(axes, "items fetched per 100 requests")
        later = max((line.high[1:].max() for line in lines.values() if len(line.high) > 1), default=0.0)
        axes.set_ylim(0, 1.05 * later if later > 0 else None)  # the first filling may be off the scale

    return to_svg(fill, size=(WIDTH, HEIGHT), name=name, label=f"Items fetched per 100 requests: {_ends(lines)}.")


def cost_by_capacity(record: RunRecord, looks: Looks, *, name: str, legend: bool = False) -> str | None:
    """Cost that is left at the end against the capacity; dashed the best fixed set. A page has its legend elsewhere."""
    best = {capacity: 1 - saved for capacity, saved in optima(record).items()}
    if len(best) < 2:
        return None
    curves = {
        policy: sorted((r["capacity"], 1 - r["cost_saved"]) for r in row["capacities"] if r["cost_saved"] is not None)
        for policy, row in summarize_policies(record).items()
        if not row["foresees"]
    }

    def fill(figure: Figure) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        axes = figure.subplots()
        axes.plot(list(best), list(best.values()), color=INK, linestyle=_DASHED, linewidth=1.1, label="best fixed set")
        for policy, points in curves.items():
            look = looks[policy]
            x, y = np.array(points, np.float64).reshape(-1, 2).T
            axes.plot(x, y, color=look.color, linestyle=look.line, marker=look.marker, markeredgewidth=0, label=policy)
        if legend:
            axes.legend(frameon=False, labelcolor=INK, loc="upper right", handlelength=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(list(best)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.set(xlabel="capacity, items", ylabel="cost, share of that without cache")
        axes.set_ylim(bottom=0)

    label = "; ".join(f"{policy} {', '.join(f'{y:.3f} at {x}' for x, y in pairs)}" for policy, pairs in curves.items())
    return to_svg(fill, size=(WIDTH, 3.9), name=name, label=f"Cost that is left by capacity: {label}.")

"""The figures of a run of fair sharing over time: what each agent has, the welfare, and the weights of the agents.

Each function takes a record and the looks of its policies and returns one inline SVG, or None when the record holds
nothing to draw. The same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.report.games.sharing_numbers import fairest_fixed, trials_of
from rivage.report.theme import INK, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["utilities_over_time", "weights_over_time", "welfare_over_time"]

Looks = Mapping[str, Look]
WIDTH, HEIGHT = 10.0, 3.5  # inches
_DASHED: Any = (0, (4, 3))
_MOST_PANELS = 9


@dataclass(frozen=True, slots=True)
class _Lines:
    """A number, or one for each agent, of one policy over the slots; a row per seed, all cut to the shortest."""

    slots: Float64[ndarray, "points"]
    values: Float64[ndarray, "seeds points *agents"]

    def of(self, agent: int) -> _Lines:
        """Those of one agent."""
        return _Lines(self.slots, self.values[..., agent])


def _lines(record: RunRecord, key: str) -> dict[str, _Lines]:
    """Those of every policy that has begun; yardsticks have the dashed line."""
    found = dict[str, _Lines]()
    for name in dict.fromkeys(str(t.start["policy"]) for t in record.trials if not t.start["foresees"]):
        seeds = [points for trial in trials_of(record, name) if (points := trial.events("point"))]
        if seeds:
            shortest = min(map(len, seeds))
            values = [[_number(point[key]) for point in points[:shortest]] for points in seeds]
            slots = [point["slots"] for point in seeds[0][:shortest]]
            found[name] = _Lines(np.array(slots, np.float64), np.array(values, np.float64))
    return found


def _number(value: Any) -> Any:
    return np.nan if value is None else value


def _draw(axes: Axes, lines: Mapping[str, _Lines], looks: Looks) -> None:
    from matplotlib.ticker import EngFormatter

    for policy, line in lines.items():
        look, low, high = looks[policy], line.values.min(axis=0), line.values.max(axis=0)
        if (low < high).any():
            axes.fill_between(line.slots, low, high, color=look.color, alpha=0.14, linewidth=0)
        axes.plot(line.slots, line.values.mean(axis=0), color=look.color, linestyle=look.line, linewidth=1.4)
    axes.set_xlabel("slots")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0)


def _late(axes: Axes, lines: Mapping[str, _Lines], *levels: float) -> None:
    """Leave out of the picture what only the first twentieth of the slots reached."""
    late = [line.values[:, line.values.shape[1] // 20 :].ravel() for line in lines.values()]
    values = np.concatenate([*late, np.array(levels)])
    values = values[np.isfinite(values)]
    if values.size:
        low, high = float(values.min()), float(values.max())
        margin = 0.06 * ((high - low) or 1.0)
        axes.set_ylim(low - margin, high + margin)


def _ends(lines: Mapping[str, _Lines]) -> str:
    return "; ".join(f"{name} ends at {line.values[:, -1].mean():.4g}" for name, line in lines.items())


def welfare_over_time(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Welfare of the mean utilities so far; dashed that of the fairest fixed allocation over all slots."""
    lines, best = _lines(record, "welfare"), fairest_fixed(record)
    if not lines or not best:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(best["welfare"], color=INK, linestyle=_DASHED, linewidth=1.1)
        _draw(axes, lines, looks)
        _late(axes, lines, best["welfare"])
        axes.set_ylabel("welfare")

    return to_svg(fill, size=(WIDTH, HEIGHT), name=name, label=f"Welfare over time: {_ends(lines)}.")


def utilities_over_time(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Mean utilities so far, a panel for each agent; dashed what the fairest fixed allocation gives."""
    lines, best = _lines(record, "utilities"), fairest_fixed(record)
    if not lines or not best:
        return None
    levels = list(best["utilities"].values())
    return _panels(record, lines, looks, name, "mean utility", levels, "Mean utilities over time")


def weights_over_time(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Weights of the agents, a panel for each, of the policies that have some."""
    lines = {policy: line for policy, line in _lines(record, "multipliers").items() if (line.values != 1).any()}
    if not lines:
        return None
    return _panels(record, lines, looks, name, "weight", None, "Weights of the agents over time")


def _panels(
    record: RunRecord,
    lines: Mapping[str, _Lines],
    looks: Looks,
    name: str,
    label: str,
    levels: list[float] | None,
    title: str,
) -> str:
    agents = record.trials[0].start["scene"]["agents"][:_MOST_PANELS]
    columns = min(len(agents), 3)
    rows = -(-len(agents) // columns)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for number, (axes, agent) in enumerate(zip(panels.ravel(), agents, strict=False)):
            here = {policy: line.of(number) for policy, line in lines.items()}
            level = [] if levels is None else [levels[number]]
            for height in level:
                axes.axhline(height, color=INK, linestyle=_DASHED, linewidth=1.1)
            _draw(axes, here, looks)
            if levels is None:
                axes.set_yscale("log")
            else:
                _late(axes, here, *level)
            axes.set_title(agent[:30])
            axes.set_ylabel("" if number % columns else label)
            axes.set_xlabel("slots" if number + columns >= len(agents) else "")
        for axes in panels.ravel()[len(agents) :]:
            axes.set_axis_off()

    told = " ".join(
        f"{agent[:30]}: {_ends({policy: line.of(number) for policy, line in lines.items()})}."
        for number, agent in enumerate(agents)
    )
    return to_svg(fill, size=(WIDTH, 0.4 + 2.7 * rows), name=name, label=f"{title}. {told}")

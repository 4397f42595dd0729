"""The figures of a report about its clients: against Local, from worst to best, choices, participation.

Each function takes a record and the looks of its methods and returns one inline SVG, or None when the record holds
nothing to draw. Clients and seeds are drawn in the order of the record; the same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rivage.core.records import RunRecord
from rivage.core.summaries import bottom_decile, local_method, mean_and_std
from rivage.report import series
from rivage.report.tables import percent
from rivage.report.theme import BAD, INK, LABEL, MUTED, PAPER, Look, to_svg
from rivage.report.ticks import whole_numbers
from rivage.report.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["guarded_choices", "participation", "scatter_against_local", "sorted_clients"]

Looks = Mapping[str, Look]
WIDTH = 10.0  # inches: 960 px, the width of the text column
MAX_DOTS = 4000  # dots in one figure; beyond, hexagons count the clients
MAX_BARS = 60  # clients that get a bar each


def _direction(record: RunRecord, method: str) -> tuple[str, bool]:
    start = series.trials_of(record, method)[0].start
    return str(start["metric"]), bool(start["higher_is_better"])


def _label(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A word on the drawing, with a rim of paper."""
    axes.text(x, y, text, fontsize=8.5, color=LABEL, **options)


# --- every client against Local -------------------------------------------------------------------------------------


def scatter_against_local(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """A panel per method: each client's value against its value with Local, one dot per client and seed."""
    local = local_method(record)
    points = {
        m: series.points_against_local(record, m, higher_is_better=_direction(record, m)[1])
        for m in record.methods
        if m != local
    }
    points = {method: p for method, p in points.items() if len(p.value)}
    if local is None or not points:
        return None
    metric, higher = _direction(record, local)
    rows = -(-len(points) // 4)
    columns = -(-len(points) // rows)  # five panels are three and two, not four and one
    side = min((WIDTH - 0.5) / columns, 3.6)
    values = np.concatenate([np.concatenate([p.local, p.value]) for p in points.values()])
    margin = 0.04 * (np.ptp(values) or abs(values[0]) or 1.0)
    limits = (values.min() - margin, values.max() + margin)
    sizes = np.concatenate([p.size for p in points.values()])

    def fill(figure: Figure) -> None:
        figure.set_layout_engine("compressed")  # "constrained" clips the titles of square panels
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (method, p) in zip(panels, points.items(), strict=False):
            dots = len(values) // 2 <= MAX_DOTS
            _draw_points(axes, p, looks[method], limits, higher, float(sizes.max()) if dots else None)
            axes.set_title(shown(method, int(11 * side)), color=looks[method].color)
        for axes in panels[len(points) :]:
            axes.set_axis_off()
        figure.supxlabel(f"{metric} with {shown(local)}", fontsize=9, color=MUTED)
        figure.supylabel(f"{metric} with the method", fontsize=9, color=MUTED)

    label = "; ".join(f"{m}: {percent(p.better)} better, {percent(p.worse)} worse" for m, p in points.items())
    size = (side * columns + 0.5, rows * (side + 0.1) + 0.45)
    return to_svg(fill, size=size, name=name, label=f"{metric} of each client against {local}. {label}.")


def _draw_points(
    axes: Axes, p: series.Points, look: Look, limits: tuple[float, float], higher: bool, largest: float | None
) -> None:
    axes.set(xlim=limits, ylim=limits, box_aspect=1)
    axes.grid(True, axis="both")
    better = (limits[1], limits[1]) if higher else (limits[0], limits[0])
    axes.fill_between(limits, limits, better, color=look.color, alpha=0.06, linewidth=0)
    axes.plot(limits, limits, color=MUTED, linewidth=0.8)
    if largest is None:
        bounds = (*limits, *limits)
        axes.hexbin(p.local, p.value, gridsize=32, extent=bounds, mincnt=1, cmap=_fade(look), bins="log", linewidths=0)
    else:
        _draw_dots(axes, p, look, largest)
    text = f"{percent(p.better)} better, {percent(p.worse)} worse"
    x, y, side = (0.97, 0.03, "right") if higher else (0.03, 0.97, "left")  # the emptier corner: that of the worse
    _label(axes, x, y, text, transform=axes.transAxes, va="bottom" if higher else "top", ha=side)


def _draw_dots(axes: Axes, p: series.Points, look: Look, largest: float) -> None:
    """Dots of five sizes: area grows with the number of test records."""
    area = np.ceil(5 * p.size / max(largest, 1.0)).clip(1, 5)
    for step in np.unique(area):
        rows = area == step
        axes.scatter(
            p.local[rows], p.value[rows], s=9 * step, color=look.color, marker=look.marker, alpha=0.6, linewidths=0,
            clip_on=False,
        )  # fmt: skip


def _fade(look: Look) -> Any:
    """From nearly transparent to the method's colour."""
    from matplotlib.colors import ListedColormap, to_rgb

    return ListedColormap([(*to_rgb(look.color), alpha) for alpha in np.linspace(0.15, 1.0, 12)])


# --- clients from worst to best -------------------------------------------------------------------------------------


def sorted_clients(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Values of all clients, the worst first; the dot on each curve is the bottom decile."""
    lines = {}
    for method in record.methods:
        metric, higher = _direction(record, method)
        share, value = series.sorted_clients(series.trials_of(record, method), higher_is_better=higher)
        if len(share):
            lines[method] = (share, value, _decile(record, method))
    if not lines:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(10, color=MUTED, linewidth=0.8)
        for method, (share, value, decile) in lines.items():
            look = looks[method]
            x, y = [*100 * share, 100], [*value, value[-1]]
            axes.step(x, y, where="post", color=look.color, linestyle=look.line, linewidth=1.5)
            axes.plot(10, decile, look.marker if look.marker != "_" else "o", color=look.color, markeredgewidth=0)
        _label(axes, 10.6, 0.02, "bottom decile", transform=axes.get_xaxis_transform())
        axes.set(xlim=(0, 100), xlabel="clients from worst to best, %", ylabel=f"{metric} of the client")

    label = "; ".join(
        f"{m}: worst {v[0]:.3g}, bottom decile {d:.3g}, best {v[-1]:.3g}" for m, (_, v, d) in lines.items()
    )
    return to_svg(fill, size=(WIDTH, 3.5), name=name, label=f"Sorted {metric} of the clients. {label}.")


def _decile(record: RunRecord, method: str) -> float:
    higher = _direction(record, method)[1]
    finals = [trial.final("seen") for trial in series.trials_of(record, method)]
    mean, _ = mean_and_std([bottom_decile(e["test"], higher_is_better=higher) for e in finals if e is not None])
    assert mean is not None, "there is a curve"
    return mean


# --- choices and participation --------------------------------------------------------------------------------------


def guarded_choices(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """How many clients chose which model: one bar per guarded method and group of clients."""
    bars = []
    for method in record.methods:
        trials = series.trials_of(record, method)
        for group in ("seen", "unseen"):
            if counts := series.choice_counts(trials, group):
                bars.append((f"{shown(method)}, {group} clients", counts))
    if not bars:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        total = max(sum(counts.values()) for _, counts in bars)
        for row, (_, counts) in enumerate(bars):
            _draw_bar(axes, row, counts, looks, total)
        axes.set_yticks(range(len(bars)), [text for text, _ in bars])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set(xlim=(0, total), ylim=(len(bars) - 0.5, -0.5), xlabel="clients, mean over seeds")
        whole_numbers(axes)
        axes.grid(False)
        axes.spines["left"].set_visible(False)

    label = "; ".join(f"{text}: " + ", ".join(f"{c} {k:.3g}" for c, k in counts.items()) for text, counts in bars)
    return to_svg(fill, size=(WIDTH, 0.62 + 0.42 * len(bars)), name=name, label=f"Models chosen. {label}.")


def _draw_bar(axes: Axes, row: int, counts: Mapping[str, float], looks: Looks, total: float) -> None:
    """Segments in the order of the methods; ``total`` is the length of the axis in clients."""
    left = 0.0
    for chosen in sorted(counts, key=lambda c: (list(looks).index(c) if c in looks else len(looks), c)):
        width, color = counts[chosen], looks[chosen].color if chosen in looks else MUTED
        hatch = looks[chosen].hatch if chosen in looks else ""
        axes.barh(row, width, left=left, height=0.66, color=color, edgecolor=PAPER, linewidth=1.5, hatch=hatch)
        count = f"{width:.1f}".removesuffix(".0")
        room = int(110 * width / total)  # characters that fit
        text = f"{shown(chosen, max(room - 5, 1))} {count}" if room > 12 else count if room > 3 else ""
        axes.text(left + width / 2, row, text, ha="center", va="center", color=PAPER, fontsize=8.5)
        left += width


def participation(record: RunRecord, *, name: str) -> str | None:
    """Share of the rounds in which each client took part; methods with the same cohorts share a panel."""
    groups: dict[tuple[bytes, bytes], tuple[list[str], series.Participation]] = {}
    for method in record.methods:
        p = series.participation(series.trials_of(record, method))
        if len(p.chosen) and (p.chosen.min() < p.rounds or p.failed.any()):
            groups.setdefault((p.chosen.tobytes(), p.failed.tobytes()), ([], p))[0].append(method)
    if not groups:
        return None

    def fill(figure: Figure) -> None:
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (methods, p) in zip(panels, groups.values(), strict=True):
            _draw_participation(axes, p)
            axes.set_title(shown(", ".join(methods), 110), fontsize=9, color=INK)
            axes.set(ylim=(0, 100), ylabel="% of rounds")
        few = max(len(p.chosen) for _, p in groups.values()) <= MAX_BARS
        panels[-1].set_xlabel("client" if few else "clients, most frequent first")

    size = (WIDTH, 0.5 + 1.75 * len(groups))
    label = "; ".join(_spread(methods, p) for methods, p in groups.values())
    return to_svg(fill, size=size, name=name, label=f"Share of rounds by client. {label}.")


def _spread(methods: Sequence[str], p: series.Participation) -> str:
    low, high = p.chosen.min() / p.rounds, p.chosen.max() / p.rounds
    return f"{', '.join(methods)}: between {percent(low)} and {percent(high)}"


def _draw_participation(axes: Axes, p: series.Participation) -> None:
    order = np.arange(len(p.chosen)) if len(p.chosen) <= MAX_BARS else np.argsort(-p.chosen, kind="stable")
    chosen, failed = 100 * p.chosen[order] / p.rounds, 100 * p.failed[order] / p.rounds
    if len(order) <= MAX_BARS:
        axes.bar(order, chosen - failed, width=0.72, color=MUTED, alpha=0.75)
        axes.bar(order, failed, bottom=chosen - failed, width=0.72, color=BAD)
        axes.set_xlim(-0.7, len(order) - 0.3)
        whole_numbers(axes)
    else:
        x = np.arange(len(order) + 1)
        axes.stairs(chosen, x, fill=True, color=MUTED, alpha=0.75, linewidth=0)
        axes.stairs(chosen, x, baseline=chosen - failed, fill=True, color=BAD, linewidth=0)
        axes.set_xlim(0, len(order))
    axes.axhline(chosen.mean(), color=INK, linewidth=0.8, linestyle=(0, (4, 3)))

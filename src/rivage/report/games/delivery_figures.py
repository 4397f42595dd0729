"""The figures of a run of inference delivery: gain over time, latency against accuracy, tiers, traffic, the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.report.games.delivery_numbers import most_gained, summarize_delivery, trials_of
from rivage.report.games.network_map import layout
from rivage.report.theme import GRID, INK, MUTED, PAPER, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["gain_over_time", "latency_and_accuracy", "placement", "tiers", "traffic"]

Looks = Mapping[str, Look]
Array = Float64[ndarray, "points"]
WIDTH = 10.0  # inches
_DASHED: Any = (0, (4, 3))
_MOST_NODES = 60  # that are drawn with the names of their models


def _lines(record: RunRecord, value: Callable[[Mapping[str, Array]], Array]) -> dict[str, list[tuple[Array, Array]]]:
    """For each policy that has begun: slots and a number, one pair per seed."""
    found = dict[str, list[tuple[Array, Array]]]()
    for trial in record.trials:
        points = trial.events("point")
        if points:
            columns = {
                key: np.array([0.0, *(point[key] for point in points)])
                for key in ("slots", "requests", "gain", "moved")
            }
            found.setdefault(str(trial.start["policy"]), []).append((columns["slots"][1:], value(columns)))
    return found


def _draw(axes: Axes, lines: Mapping[str, list[tuple[Array, Array]]], looks: Looks) -> None:
    for policy, seeds in lines.items():
        shortest = min(len(slots) for slots, _ in seeds)
        values, look = np.array([line[:shortest] for _, line in seeds]), looks[policy]
        slots = seeds[0][0][:shortest]
        if len(seeds) > 1:
            axes.fill_between(slots, values.min(0), values.max(0), color=look.color, alpha=0.14, linewidth=0)
        axes.plot(slots, values.mean(0), color=look.color, linestyle=look.line, linewidth=1.4)
    axes.set_xlabel("slots")
    axes.margins(x=0)


def _late(lines: Mapping[str, list[tuple[Array, Array]]]) -> tuple[float, float]:
    """The least and the largest value after a tenth of the points: the first filling may be off the scale."""
    later = [line[len(line) // 10 :] for seeds in lines.values() for _, line in seeds]
    return min(float(line.min()) for line in later), max(float(line.max()) for line in later)


def gain_over_time(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Gain per request since the last point; dashed what no fixed allocation exceeds over all slots."""
    lines = _lines(record, lambda at: np.diff(at["gain"]) / np.maximum(np.diff(at["requests"]), 1e-300))
    if not lines:
        return None
    most = [
        most for trial in record.trials if trial.finished and (most := most_gained(trial, trial.events("point")[-1]))
    ]

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        if most:
            axes.axhline(float(np.mean(most)), color=INK, linestyle=_DASHED, linewidth=1.1)
        _draw(axes, lines, looks)
        low, high = _late(lines)
        high = max(high, *most) if most else high
        axes.set_ylim(low - 0.06 * ((high - low) or 1.0), high + 0.06 * ((high - low) or 1.0))
        axes.set_ylabel("gain per request, ms")

    ends = "; ".join(f"{policy} {np.mean([line[-1] for _, line in seeds]):.4g}" for policy, seeds in lines.items())
    return to_svg(fill, size=(WIDTH, 3.5), name=name, label=f"Gain per request over time, at the end: {ends}.")


def latency_and_accuracy(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Where each policy stands between fast and accurate."""
    rows = {p: row for p, row in summarize_delivery(record).items() if row["latency_ms"] is not None}
    if not rows:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for policy, row in rows.items():
            look = looks[policy]
            axes.errorbar(
                row["latency_ms"],
                row["accuracy"],
                xerr=row["latency_ms_std"] or None,
                yerr=row["accuracy_std"] or None,
                color=look.color,
                marker=look.marker,
                markersize=9,
                linestyle="none",
            )
        axes.set(xlabel="mean latency, ms", ylabel="mean accuracy")
        axes.margins(0.12)

    label = "; ".join(f"{policy} {row['latency_ms']:.4g} ms, {row['accuracy']:.3g}" for policy, row in rows.items())
    return to_svg(fill, size=(0.6 * WIDTH, 3.6), name=name, label=f"Latency and accuracy: {label}.")


def tiers(summary: Mapping[str, Mapping[str, Any]], *, name: str) -> str | None:
    """Share of the requests that each tier answered, a bar per policy."""
    rows = {policy: row["tiers"] for policy, row in summary.items() if row["tiers"]}
    labels = list(next(iter(rows.values()), {}))
    if not rows or len(labels) > 12:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        place = np.arange(len(rows))
        left = np.zeros(len(rows))
        for number, label in enumerate(labels):
            shares = np.array([row[label] for row in rows.values()])
            shade = 0.85 - 0.7 * number / max(len(labels) - 1, 1)
            axes.barh(place, shares, left=left, color=INK, alpha=shade, linewidth=0)
            for y, x, share in zip(place.tolist(), left.tolist(), shares.tolist(), strict=True):
                if share > 0.09:
                    axes.text(
                        x + share / 2,
                        y,
                        f"{label}\n{share:.0%}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color=PAPER if shade > 0.5 else INK,
                    )
            left += shares
        axes.set_yticks(place, list(rows))
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share of the requests")
        axes.grid(visible=False)

    label = "; ".join(f"{p}: " + ", ".join(f"{k} {v:.0%}" for k, v in row.items()) for p, row in rows.items())
    return to_svg(fill, size=(WIDTH, 0.7 + 0.5 * len(rows)), name=name, label=f"Who answered: {label}.")


def traffic(record: RunRecord, looks: Looks, *, name: str) -> str | None:
    """Size of the models fetched per slot, between two points."""
    lines = _lines(record, lambda at: np.diff(at["moved"]) / np.diff(at["slots"]))
    if not lines:
        return None

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        _draw(axes, lines, looks)
        axes.set_ylim(0, 1.05 * _late(lines)[1] or None)
        axes.set_ylabel("models fetched per slot, MB")

    ends = "; ".join(f"{policy} {np.mean([line.mean() for _, line in seeds]):.4g}" for policy, seeds in lines.items())
    return to_svg(fill, size=(WIDTH, 2.8), name=name, label=f"Model updates per slot, MB: {ends}.")


def placement(record: RunRecord, policy: str, *, name: str) -> str | None:
    """The network with the models that a policy had loaded at the end, first seed."""
    trials = trials_of(record, policy)
    placed = trials[0].events("placed") if trials else ()
    if not placed:
        return None
    scene, loaded = trials[0].start["scene"], placed[-1]["loaded"]
    links = np.array(scene["links"], np.int64).reshape(-1, 2)
    places = layout(len(scene["nodes"]), links)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for one, other in links:
            axes.plot(*places[[one, other]].T, color=GRID, linewidth=1.2, zorder=1)
        held = np.array([len(models) for models in loaded], float)
        axes.scatter(
            places[:, 0], places[:, 1], s=30 + 120 * held / max(held.max(), 1.0), color=MUTED, zorder=2, linewidths=0
        )
        for node, models in enumerate(loaded):
            if len(scene["nodes"]) <= _MOST_NODES:
                axes.annotate(
                    _held(scene, node, models),
                    places[node],
                    fontsize=6,
                    ha="center",
                    va="bottom",
                    xytext=(0, 5),
                    textcoords="offset points",
                    color=INK,
                )
        axes.set_axis_off()
        axes.margins(0.06)

    words = "; ".join(f"{scene['nodes'][node]}: {len(models)}" for node, models in enumerate(loaded))
    return to_svg(fill, size=(WIDTH, 6.5), name=name, label=f"Models on each node under {policy}: {words}.")


def _held(scene: Mapping[str, Any], node: int, models: list[int]) -> str:
    name = scene["nodes"][node]
    if not models:
        return str(name)
    if len(models) == len(scene["models"]):
        return f"{name}\nall models"
    shown = [str(scene["models"][model]) for model in models[:3]]
    return "\n".join([name, *shown, *([f"+ {len(models) - 3}"] if len(models) > 3 else [])])

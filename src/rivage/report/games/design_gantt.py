"""The first rounds as a drawing: when silos work, when they wait, and for which messages the last start waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.report.games.design_numbers import OverlayRecord
from rivage.report.games.design_rounds import start_times_ms, waited_for
from rivage.report.games.design_words import ms
from rivage.report.games.sentences import count
from rivage.report.theme import INK, MUTED, PAPER, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ROUNDS", "draw_rounds", "rounds_ended", "shown_silos", "spans_of", "times_until"]

Times = Float64[ndarray, "rounds+1 silos"]

ROUNDS = 5
"""Rounds of the first overlay that are drawn; of the others as many as end in the same time, and what has begun."""

_WIDTH = 10.0  # inches
_SILOS = 25  # drawn at most
_MOST_ROUNDS = 1_000


def draw_rounds(overlays: Sequence[OverlayRecord], looks: Mapping[str, Look], *, name: str) -> str | None:
    """A panel for each overlay over the same time; None where rounds take none."""
    if not overlays or not (window := float(start_times_ms(overlays[0], ROUNDS)[-1].max())) > 0:
        return None
    shown, times = shown_silos(overlays), {each.name: times_until(each, window) for each in overlays}

    def fill(figure: Figure) -> None:
        panels = figure.subplots(len(overlays), 1, sharex=True, squeeze=False)[:, 0]
        for axes, overlay in zip(panels, overlays, strict=True):
            _draw_spans(axes, overlay, times[overlay.name], shown, window, looks[overlay.name].color)
            _draw_waits(axes, overlay, times[overlay.name], shown, window)
            _shape(axes, overlay, shown, window)
            ended = count(rounds_ended(times[overlay.name], window), "round")
            title = f"{overlay.name[:40]}: {ended} in {ms(window)}, one in {ms(overlay.cycle_time_ms)} in the long run"
            axes.set_title(title, color=looks[overlay.name].color)
        panels[-1].set_xlabel("ms since all silos started")

    told = "; ".join(f"{each.name} ends {count(rounds_ended(times[each.name], window), 'round')}" for each in overlays)
    size = (_WIDTH, len(overlays) * (0.5 + 0.16 * max(len(shown), 4)) + 0.35)
    return to_svg(fill, size=size, name=name, label=f"The first {ms(window)}: {told}.")


def shown_silos(overlays: Sequence[OverlayRecord]) -> list[int]:
    """The silos that are drawn, in the order of the record: all of few, else slowest circuits first, then others."""
    silos = len(overlays[0].names)
    if silos <= _SILOS:
        return list(range(silos))
    first = list(dict.fromkeys(silo for overlay in overlays for silo in overlay.circuit))[:_SILOS]
    rest = [silo for silo in range(silos) if silo not in first]
    even = np.linspace(0, len(rest) - 1, _SILOS - len(first)).astype(int).tolist()
    return sorted([*first, *(rest[place] for place in even)])


def times_until(overlay: OverlayRecord, window: float) -> Times:
    """Starts of the rounds until every silo is beyond the window, or of 1,000 rounds."""
    rounds = ROUNDS
    while (times := start_times_ms(overlay, rounds))[-1].min() < window and rounds < _MOST_ROUNDS:
        rounds = min(2 * rounds, _MOST_ROUNDS)
    return times


def rounds_ended(times: Times, window: float) -> int:
    """Rounds after which every silo had started the next one within the window."""
    return int((times[1:].max(axis=1) <= window).sum())


def spans_of(overlay: OverlayRecord, times: Times, silo: int, window: float) -> Float64[ndarray, "rounds 3"]:
    """Of each round that a silo starts within the window: start, end of its work, start of the next round."""
    starts, after = times[:-1, silo], times[1:, silo]
    spans = np.stack([starts, starts + overlay.work_ms[silo], after], axis=1)
    return np.asarray(np.minimum(spans[starts < window], window))


def _draw_spans(
    axes: Axes, overlay: OverlayRecord, times: Times, shown: Sequence[int], window: float, color: str
) -> None:
    for row, silo in enumerate(shown):
        spans, where = spans_of(overlay, times, silo, window), (row - 0.39, 0.78)
        axes.broken_barh([(start, end - start) for start, _, end in spans], where, color=color, alpha=0.2, linewidth=0)
        axes.broken_barh([(start, done - start) for start, done, _ in spans], where, color=color, linewidth=0)
        axes.vlines(spans[1:, 0], row - 0.39, row + 0.39, color=INK, linewidth=0.9)


def _draw_waits(axes: Axes, overlay: OverlayRecord, times: Times, shown: Sequence[int], window: float) -> None:
    """The messages for which the last start in the window waited, where both silos are drawn."""
    place = {silo: row for row, silo in enumerate(shown)}
    ended = rounds_ended(times, window)
    for leg in waited_for(overlay, times[: ended + 1]):
        if leg.sender in place and leg.receiver in place:
            ends: Any = [leg.sent_ms, leg.come_ms], [place[leg.sender], place[leg.receiver]]
            axes.plot(*ends, color=PAPER, linewidth=2.6, zorder=4)
            axes.plot(*ends, color=INK, linewidth=1.1, zorder=5, marker="o", markersize=2.6, markevery=[1])


def _shape(axes: Axes, overlay: OverlayRecord, shown: Sequence[int], window: float) -> None:
    axes.set_yticks(range(len(shown)), [overlay.names[silo][:18] for silo in shown], fontsize=7.5)
    for label, silo in zip(axes.get_yticklabels(), shown, strict=True):
        critical = silo in overlay.circuit
        label.set(color=INK if critical else MUTED, weight="bold" if critical else "normal")
    axes.set(xlim=(0, window), ylim=(len(shown) - 0.4, -0.6))
    axes.grid(False)

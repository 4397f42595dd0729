"""Rounds in the long run as a drawing: when silos work, when they wait, and for which messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.report.games.design_numbers import OverlayRecord
from rivage.report.games.design_rounds import Leg, start_times_ms, steady_start_ms, waited_for
from rivage.report.games.design_words import ms
from rivage.report.theme import INK, MUTED, PAPER, Look, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ROUNDS", "chain_of", "draw_rounds", "shown_silos", "spans_of", "times_until"]

Times = Float64[ndarray, "rounds+1 silos"]

ROUNDS = 5
"""Rounds of the first overlay that are drawn; of the others what happens in the same time."""

_WIDTH = 10.0  # inches
_SILOS = 25  # drawn at most
_MOST_ROUNDS = 1_000


def draw_rounds(overlays: Sequence[OverlayRecord], looks: Mapping[str, Look], *, name: str) -> str | None:
    """A panel for each overlay over the same time; None where rounds take none."""
    if not overlays or not (window := ROUNDS * overlays[0].cycle_time_ms) > 0:
        return None
    times = {overlay.name: times_until(overlay, window) for overlay in overlays}
    chains = {overlay.name: chain_of(overlay, times[overlay.name], window) for overlay in overlays}
    shown = shown_silos(overlays, [leg for chain in chains.values() for leg in chain if leg.come_ms > 0])

    def fill(figure: Figure) -> None:
        panels = figure.subplots(len(overlays), 1, sharex=True, squeeze=False)[:, 0]
        for axes, overlay in zip(panels, overlays, strict=True):
            color = looks[overlay.name].color
            _draw_spans(axes, overlay, times[overlay.name], shown, window, color)
            _draw_legs(axes, chains[overlay.name], shown)
            _shape(axes, overlay, shown, window)
            axes.set_title(f"{overlay.name[:40]}: {_pace(overlay, window)}", color=color)
        panels[-1].set_xlabel("ms")

    told = "; ".join(f"{overlay.name} {_pace(overlay, window)}" for overlay in overlays)
    size = (_WIDTH, len(overlays) * (0.5 + 0.16 * max(len(shown), 4)) + 0.35)
    return to_svg(fill, size=size, name=name, label=f"Rounds in the long run: {told}.")


def _pace(overlay: OverlayRecord, window: float) -> str:
    return f"{ms(overlay.cycle_time_ms)} a round, {window / overlay.cycle_time_ms:.3g} in {ms(window)}"


def shown_silos(overlays: Sequence[OverlayRecord], legs: Sequence[Leg] = ()) -> list[int]:
    """The silos that are drawn, in the order of the record: all of few; else ends of legs, slowest circuits, others."""
    silos = len(overlays[0].names)
    if silos <= _SILOS:
        return list(range(silos))
    ends = [silo for leg in legs for silo in (leg.receiver, leg.sender)]
    first = list(dict.fromkeys([*ends, *(silo for overlay in overlays for silo in overlay.circuit)]))[:_SILOS]
    rest = [silo for silo in range(silos) if silo not in first]
    even = np.linspace(0, len(rest) - 1, _SILOS - len(first)).astype(int).tolist()
    return sorted([*first, *(rest[place] for place in even)])


def times_until(overlay: OverlayRecord, window: float) -> Times:
    """Starts from a round that all silos have begun by 0, until all are beyond the window, or of 1,000 rounds."""
    start, rounds = steady_start_ms(overlay), ROUNDS
    while (times := start_times_ms(overlay, rounds, start))[-1].min() < window and rounds < _MOST_ROUNDS:
        rounds = min(2 * rounds, _MOST_ROUNDS)
    return times


def spans_of(overlay: OverlayRecord, times: Times, silo: int, window: float) -> Float64[ndarray, "rounds 3"]:
    """Of each round of a silo that touches the window: start, end of its work, start of the next round; cut at it."""
    starts, after = times[:-1, silo], times[1:, silo]
    spans = np.stack([starts, starts + overlay.work_ms[silo], after], axis=1)
    return np.asarray(spans[(starts < window) & (after > 0)].clip(0, window))


def chain_of(overlay: OverlayRecord, times: Times, window: float) -> list[Leg]:
    """The messages for which the last start of a silo on the slowest circuit waited that is in the window."""
    if not overlay.circuit:
        return []
    silo = overlay.circuit[0]
    last = int(np.flatnonzero(times[:, silo] <= window)[-1])
    return waited_for(overlay, times[: last + 1], silo)


def _draw_spans(
    axes: Axes, overlay: OverlayRecord, times: Times, shown: Sequence[int], window: float, color: str
) -> None:
    for row, silo in enumerate(shown):
        spans, where = spans_of(overlay, times, silo, window), (row - 0.39, 0.78)
        axes.broken_barh([(start, end - start) for start, _, end in spans], where, color=color, alpha=0.2, linewidth=0)
        axes.broken_barh([(start, done - start) for start, done, _ in spans], where, color=color, linewidth=0)
        axes.vlines(spans[1:, 0], row - 0.39, row + 0.39, color=INK, linewidth=0.9)


def _draw_legs(axes: Axes, legs: Sequence[Leg], shown: Sequence[int]) -> None:
    """Messages between silos that are drawn."""
    place = {silo: row for row, silo in enumerate(shown)}
    for leg in legs:
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

"""The figures of an audit: curves of attacks on membership, what leaks against what is known anyway, ε.

Each function takes an audit as ``audit.json`` holds it and returns one inline SVG, or None where it holds nothing to
draw. Verdicts differ in shape, not in colour alone. The same audit gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rivage.report.audit_numbers import Curve, answered, asked, curve, is_scored
from rivage.report.tables import number
from rivage.report.theme import BAD, INK, LABEL, MUTED, PAPER, looks, to_svg
from rivage.report.ticks import logarithmic
from rivage.report.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["leakage", "promises", "trade_offs"]

Row = Mapping[str, Any]
WIDTH = 10.0  # inches: 960 px, the width of the text column
MAX_PANELS = 12
_ROW = 0.27  # inches of a row of dots
_COLOR = looks([("", "")])[""].color  # that of the first series
_MARKERS = {"leaks": "D", "recovered": "*", "estimated": "^", "no power": "s", "nothing found": "o"}
_FILLED = ("leaks", "recovered")
_RELATIVE = ("mae", "distance")  # metrics that are better when they are less
_FLOOR = 1e-12  # of errors relative to their baseline


# --- curves of attacks on membership --------------------------------------------------------------------------------


def trade_offs(audit: Mapping[str, Any], *, name: str) -> str | None:
    """A panel per attack on membership: members found against false alarms, both logarithmic, with 95 % bands.

    Args:
        audit: of one trial.
        name: prefix of ids.
    """
    found = [(row, curve(row["evidence"])) for row in audit["attacks"] if is_scored(row)][:MAX_PANELS]
    if not any(len(each.fpr) for _, each in found):
        return None
    columns = min(len(found), 4)
    lines = -(-len(found) // columns)
    least = min(max(10.0 ** math.floor(math.log10(min(each.least, 1.0))), 1e-5) for _, each in found)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (row, each) in zip(panels, found, strict=False):
            _draw_curve(axes, row, each, least)
        for axes in panels[len(found) :]:
            axes.set_axis_off()
        for axes in panels[max(len(found) - columns, 0) : len(found)]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
        figure.supxlabel("share of non-members taken for members", fontsize=9, color=MUTED)
        figure.supylabel("share of members found", fontsize=9, color=MUTED)

    label = "; ".join(f"{row['attack']}: area {row['value']:.3g}, {row['verdict']}" for row, _ in found)
    size = (WIDTH * columns / 4 + (0.6 if columns < 4 else 0), 2.5 * lines + 0.3)
    title = "Members found against false alarms, both logarithmic."
    return to_svg(fill, size=size, name=name, label=f"{title} {label}.")


def _draw_curve(axes: Axes, row: Row, each: Curve, least: float) -> None:
    axes.set(xlim=(least, 1.0), ylim=(least, 1.1))
    for which in ("x", "y"):
        logarithmic(axes, which)
    axes.grid(True, axis="both")
    axes.plot((least, 1.0), (least, 1.0), color=MUTED, linewidth=0.8)
    if each.least > least:
        axes.axvspan(least, min(each.least, 1.0), color=MUTED, alpha=0.12, linewidth=0)
        _word(axes, 0.03, 0.94, "n/a", transform=axes.transAxes, va="top")
    if len(each.fpr):
        axes.fill_between(
            each.fpr, each.low.clip(least), each.high.clip(least), color=_COLOR, alpha=0.16, linewidth=0, step="post"
        )
        axes.step(each.fpr, each.tpr.clip(least), where="post", color=_COLOR, linewidth=1.5)
    _word(axes, 0.97, 0.05, f"AUC {row['value']:.3f}", transform=axes.transAxes, ha="right")
    axes.set_title(shown(str(row["attack"]), 24))


def _word(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    axes.text(x, y, text, fontsize=8.5, color=LABEL, **options)


# --- what leaks against what is known anyway ------------------------------------------------------------------------


def leakage(audit: Mapping[str, Any], *, name: str) -> str | None:
    """A dot with its interval for each attack that came to a number, and a bar where its baseline is.

    Args:
        audit: of one trial.
        name: prefix of ids.
    """
    known = [row for row in audit["attacks"] if answered(row)]
    shares = [row for row in known if row["metric"] not in _RELATIVE]
    errors = [row for row in known if row["metric"] in _RELATIVE]
    parts = [part for part in (shares, errors) if part]
    if not parts:
        return None

    def fill(figure: Figure) -> None:
        heights = [len(part) + 1.6 for part in parts]
        panels = figure.subplots(len(parts), 1, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel()
        for axes, part in zip(panels, parts, strict=True):
            (_draw_shares if part is shares else _draw_errors)(axes, part)

    label = "; ".join(
        f"{row['attack']} on {asked(row)}: {number(row['value'])} against {number(row['baseline'])}, {row['verdict']}"
        for row in known
    )
    size = (WIDTH, _ROW * len(known) + 0.85 * len(parts))
    return to_svg(fill, size=size, name=name, label=f"What attacks reach, against what is known anyway. {label}.")


def _draw_shares(axes: Axes, rows: Sequence[Row]) -> None:
    _lay_out(axes, rows)
    for place, row in enumerate(rows):
        if row.get("ci"):
            axes.plot(row["ci"], (place, place), color=_COLOR, linewidth=1.6)
        _draw_dot(axes, float(row["value"]), float(row["baseline"]), place, row)
    axes.set(xlim=(-0.01, 1.01), xlabel="AUC, or share that is right")


def _draw_errors(axes: Axes, rows: Sequence[Row]) -> None:
    """Errors over that of their baseline, on a logarithmic axis."""
    _lay_out(axes, rows)
    ratios = [max(float(row["value"]) / (float(row["baseline"]) or 1.0), _FLOOR) for row in rows]
    low, high = min(0.3, *ratios) / 1.5, max(2.0, *ratios) * 1.5
    axes.set(xlim=(low, high), xlabel="error over that of the baseline; less is more")
    logarithmic(axes, "x")
    for place, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        _draw_dot(axes, ratio, 1.0, place, row)


def _lay_out(axes: Axes, rows: Sequence[Row]) -> None:
    names = [f"{shown(str(row['attack']), 22)} · {shown(asked(row), 14)}" for row in rows]
    axes.set_yticks(range(len(rows)), names, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def _draw_dot(axes: Axes, value: float, baseline: float, place: int, row: Row) -> None:
    verdict = str(row["verdict"])
    axes.plot((baseline, value), (place, place), color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.plot((baseline, baseline), (place - 0.32, place + 0.32), color=INK, linewidth=1.8)
    marker, filled = _MARKERS.get(verdict, "o"), verdict in _FILLED
    color = BAD if filled else _COLOR
    axes.plot(
        value, place, marker, color=color, markerfacecolor=color if filled else PAPER, markeredgewidth=1.3,
        markersize=9 if marker == "*" else 6, clip_on=False, zorder=3,
    )  # fmt: skip


# --- promises -------------------------------------------------------------------------------------------------------


def promises(audit: Mapping[str, Any], *, name: str) -> str | None:
    """A bar per promise, from the ε that canaries prove to the ε that is claimed.

    Args:
        audit: of one trial.
        name: prefix of ids.
    """
    rows = [row for row in audit.get("epsilon") or () if row["epsilon"] is not None]  # JSON has no infinite claim
    if not rows:
        return None
    most = max(max(float(row["epsilon"]), float(row["bound"])) for row in rows)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            _draw_promise(axes, row, place)
        names = [f"per {'client' if row['unit'] == 'user' else row['unit']}" for row in rows]
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-0.005 * most, 1.32 * most or 1.0), xlabel="ε")
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)

    label = "; ".join(
        f"per {row['unit']} claimed {number(row['epsilon'])}, proved {number(row['bound'])}, {row['verdict']}"
        for row in rows
    )
    return to_svg(fill, size=(WIDTH, 0.5 * len(rows) + 0.75), name=name, label=f"ε claimed and audited. {label}.")


def _draw_promise(axes: Axes, row: Row, place: int) -> None:
    claim, bound, verdict = float(row["epsilon"]), float(row["bound"]), str(row["verdict"])
    broken = verdict == "VIOLATION"
    color = BAD if broken else _COLOR
    axes.plot((bound, claim), (place, place), color=color, linewidth=7, alpha=0.35, solid_capstyle="butt")
    axes.plot((claim, claim), (place - 0.3, place + 0.3), color=INK, linewidth=2)
    marker = "X" if broken else "D" if bound > 0 else "s"
    axes.plot(
        bound, place, marker, color=color, markerfacecolor=color if bound > 0 else PAPER, markersize=7, clip_on=False,
        markeredgewidth=1.3, zorder=3,
    )  # fmt: skip
    words = {"VIOLATION": "VIOLATION", "consistent": "not contradicted"}.get(verdict, verdict)
    axes.annotate(
        f"{words}: at least {number(bound)}, claimed {number(claim)}", (max(claim, bound), place), fontsize=8.5,
        xytext=(9, 0), textcoords="offset points", va="center", color=LABEL, weight="bold" if broken else "normal",
    )  # fmt: skip

"""Results as Markdown tables, and into the page of the documentation that holds them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..fedavg_speed.tables import documents
from .results import GATES, best_classical, gap, judged, median_of, spent

__all__ = ["PAGE", "all_tables", "fill_page"]

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "overlay-design.md"
_MISSING = "not measured"


def all_tables(report: Mapping[str, Any]) -> dict[str, str]:
    """Name of each table -> Markdown."""
    return {
        "overlay-design-published": _published(report),
        "overlay-design-access": _slow(report),
        "overlay-design-random": _random(report),
        "overlay-design-times": _times(report),
        "overlay-design-bars": _bars(report),
    }


def fill_page(report: Mapping[str, Any]) -> None:
    """Write the tables but the last into the documentation."""
    for name, table in all_tables(report).items():
        if name != "overlay-design-bars":
            documents().replace_table(PAGE, name, table)


def _markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    table: str = documents().markdown(header, rows)
    return table


def _published(report: Mapping[str, Any]) -> str:
    rows = []
    for name in GATES:
        plays = report.get("published", {}).get(name)
        if not plays:
            rows.append((name, *[_MISSING] * 6))
            continue
        found = [play["found_ms"] for play in plays.values()]
        typical = min(plays.values(), key=lambda play: abs(play["found_ms"] - statistics.median(found)))
        rows.append(
            (
                name,
                f"{statistics.median(found):.3f}",
                f"{min(found):.3f} – {max(found):.3f}",
                f"{median_of(plays, 'bound_ms'):.3f}",
                f"{100 * (statistics.median(found) / median_of(plays, 'bound_ms') - 1):.2f} %",
                f"{typical['arcs']} · {typical['max_degree']}",
                f"{statistics.median(spent(play, 'bound') for play in plays.values()):.1f} + "
                f"{median_of(plays, 'search_s'):.0f} s",
            )
        )
    head = ("network", "median of 5 seeds", "least – most", "bound", "gap", "arcs · degree", "bound + search")
    return _markdown(head, rows)


def _slow(report: Mapping[str, Any]) -> str:
    rows = []
    for key, play in report.get("slow access", {}).items():
        name, time = best_classical(play)
        matcha = min(value for label, value in play["classical"].items() if label.startswith("matcha"))
        gain = f"{100 * (1 - play['found_ms'] / time):.1f} %"
        rows.append(
            (
                key,
                f"{play['found_ms']:.2f}",
                f"{time:.2f} `{name}`",
                gain,
                f"{play['classical']['star_best']:.0f}",
                f"{matcha:.0f}",
                f"{play['bound_ms']:.2f}",
                f"{100 * gap(play):.2f} %",
            )
        )
    head = ("network, access", "directed", "best classical", "less", "best hub", "best MATCHA", "bound", "gap")
    return _markdown(head, rows)


def _random(report: Mapping[str, Any]) -> str:
    every = list(report.get("random", {}).values())
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for rate, label in ((1e10, "10 Gb/s"), (1e9, "1 Gb/s"), (1e8, "100 Mb/s")):
        for low, high in ((10, 49), (50, 90)):
            chosen = [play for play in every if play["access_bps"] == rate and low <= play["nodes"] <= high]
            groups[f"{label}, {low} to {high} silos"] = chosen
    rows = [_group(label, plays) for label, plays in (*groups.items(), ("all", every)) if plays]
    head = ("access", "networks", "gap", "less than the best classical", "bound", "classical")
    return _markdown(head, rows)


def _group(label: str, plays: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Median and extreme of some networks; the extreme of a gain is the largest."""
    less = [100 * (1 - play["found_ms"] / best_classical(play)[1]) for play in plays]
    return (
        label,
        str(len(plays)),
        _both([100 * gap(play) for play in plays], 2, "%"),
        _both(less, 1, "%"),
        _both([spent(play, "bound") for play in plays], 1, "s"),
        _both([spent(play, "classical") for play in plays], 1, "s"),
    )


def _both(values: Sequence[float], digits: int, unit: str) -> str:
    return f"{statistics.median(values):.{digits}f} · {max(values):.{digits}f} {unit}"


def _times(report: Mapping[str, Any]) -> str:
    rows = []
    for name, seconds in report.get("cycle mean", {}).get("seconds", {}).items():
        digits = 0 if seconds >= 0.1 else 2
        rows.append((f"cycle mean, complete digraph of 90 nodes: {name}", f"{1000 * seconds:,.{digits}f} ms"))
    ring = report.get("long ring", {})
    for name, seconds in ring.get("seconds", {}).items():
        rows.append((f"ring of 1,000 silos: {name}", f"{seconds:.1f} s, {ring['cycle_time_ms'][name]:.2f} ms a round"))
    for name, play in report.get("large", {}).items():
        parts = f"{spent(play, 'classical'):.0f} + {spent(play, 'bound'):.0f} + {play['search_s']:.0f} s"
        rows.append((f"{name}: classical + bound + search", f"{parts}, gap {100 * gap(play):.2f} %"))
    return _markdown(("what", "time"), rows)


def _bars(report: Mapping[str, Any]) -> str:
    rows = []
    for bar in judged(report):
        sign, limit = ("≤", bar["most"]) if bar["most"] is not None else ("≥", bar["least"])
        value = _MISSING if bar["measured"] is None else f"{bar['measured']:.6g}"
        verdict = {None: _MISSING, True: "met", False: "not met"}[bar["met"]]
        rows.append((bar["claim"], f"{sign} {limit:.6g}", value, verdict))
    return _markdown(("bar", "bound", "measured", "verdict"), rows)

"""Results as Markdown tables, and into the page of the documentation that holds them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..fedavg_speed.tables import documents
from .results import GATES, best_classical, gap, judged, median_of

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
                f"{median_of(plays, 'bound_s'):.1f} + {median_of(plays, 'search_s'):.0f} s",
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
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for play in report.get("random", {}).values():
        low = 10 + 20 * min(3, (play["nodes"] - 10) // 20)
        groups.setdefault(f"{low} to {low + (20 if low == 70 else 19)} silos", []).append(play)
    every = list(report.get("random", {}).values())
    rows = []
    for label, plays in (*sorted(groups.items()), ("all", every)):
        if not plays:
            continue
        gaps = [100 * gap(play) for play in plays]
        less = [100 * (1 - play["found_ms"] / best_classical(play)[1]) for play in plays]
        bound = [play["bound_s"] for play in plays]
        total = [play["bound_s"] + play["search_s"] + play["classical_s"] for play in plays]
        rows.append(
            (
                label,
                str(len(plays)),
                f"{statistics.median(gaps):.2f} · {max(gaps):.2f} %",
                f"{statistics.median(less):.1f} · {max(less):.1f} %",
                f"{statistics.median(bound):.1f} · {max(bound):.1f} s",
                f"{statistics.median(total):.0f} · {max(total):.0f} s",
            )
        )
    head = ("", "networks", "gap", "less than the best classical", "time of the bound", "time in all")
    return _markdown(head, rows)


def _times(report: Mapping[str, Any]) -> str:
    rows = []
    for name, spent in report.get("cycle mean", {}).get("seconds", {}).items():
        rows.append((f"cycle mean, complete digraph of 90 nodes: {name}", f"{1000 * spent:,.3g} ms"))
    ring = report.get("long ring", {})
    for name, spent in ring.get("seconds", {}).items():
        rows.append((f"ring of 1,000 silos: {name}", f"{spent:.1f} s, {ring['cycle_time_ms'][name]:.2f} ms a round"))
    for name, play in report.get("large", {}).items():
        parts = f"{play['classical_s']:.0f} + {play['bound_s']:.0f} + {play['search_s']:.0f} s"
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

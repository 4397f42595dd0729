"""What the measurements say: medians, gaps, and the bars. Works on the JSON that runs write."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

__all__ = ["GATES", "WANTED", "best_classical", "gap", "judged", "median_of", "spent"]

Report = Mapping[str, Any]

GATES = {"Gaia": (116.47, 114.0), "AWS North America": (80.08, 80.0), "Géant": (84.5, 81.8)}
"""The most that the median of the seeds may be, and the least that the bound may be, in ms."""
WANTED = {"Gaia": (116.4, None), "Géant": (83.6, 82.5)}
DESIGN_S, MEAN_S, RING_S = 120.0, 0.2, 30.0


def median_of(plays: Mapping[str, Mapping[str, Any]], field: str) -> float:
    """Over the seeds of one network."""
    return float(statistics.median(play[field] for play in plays.values()))


def gap(play: Mapping[str, Any]) -> float:
    """(found − bound) / bound."""
    return float(play["found_ms"] / play["bound_ms"] - 1)


def best_classical(play: Mapping[str, Any]) -> tuple[str, float]:
    """The fastest of the literature."""
    name = min(play["classical"], key=play["classical"].__getitem__)
    return name, float(play["classical"][name])


def spent(play: Mapping[str, Any], part: str) -> float:
    """Seconds of one core, whatever else the machine did."""
    return float(play.get(f"{part}_cpu_s", play[f"{part}_s"]))


def _in_all(play: Mapping[str, Any]) -> float:
    return spent(play, "classical") + spent(play, "bound") + float(play["search_s"])


def judged(report: Report) -> list[dict[str, Any]]:
    """Every bar: what was measured, and whether it is met; None where it was not measured."""
    bars: list[dict[str, Any]] = []

    def bar(claim: str, measured: float | None, *, most: float | None = None, least: float | None = None) -> None:
        met = None
        if measured is not None:
            met = (most is None or measured <= most) and (least is None or measured >= least)
        bars.append({"claim": claim, "measured": measured, "most": most, "least": least, "met": met})

    for name, (most, least) in GATES.items():
        plays = report.get("published", {}).get(name, {})
        bar(f"{name}: median cycle time of the seeds, ms", median_of(plays, "found_ms") if plays else None, most=most)
        bar(f"{name}: bound, ms", median_of(plays, "bound_ms") if plays else None, least=least)
        longest = max((play["bound_s"] + play["search_s"] for play in plays.values()), default=None)
        bar(f"{name}: bound and search, longest, s", longest, most=DESIGN_S)
    slow = report.get("slow access", {})
    worst = max((play["found_ms"] / best_classical(play)[1] for play in slow.values()), default=None)
    bar("slow access: to the best of the literature, worst", worst, most=1 + 1e-9)
    drawn = report.get("random", {})
    worst = max((play["found_ms"] / best_classical(play)[1] for play in drawn.values()), default=None)
    bar("random networks: to the best of the literature, worst", worst, most=1 + 1e-9)
    longest = max(map(_in_all, drawn.values()), default=None)
    bar("random networks: everything, longest, s", longest, most=DESIGN_S)
    large = report.get("large", {})
    longest = max(map(_in_all, large.values()), default=None)
    bar("90 silos, default settings: everything, longest, s", longest, most=DESIGN_S)
    mean = report.get("cycle mean", {}).get("seconds", {})
    bar("cycle mean of a complete digraph of 90 nodes, s", mean.get("Howard"), most=MEAN_S)
    ring = report.get("long ring", {}).get("seconds", {})
    total = ring["ring"] + ring["local search"] if ring else None
    bar("ring of 1,000 silos with local search, s", total, most=RING_S)
    return bars

"""What the measurements say: rates, ratios within a play, parity of hits, and the bars.

Works on the JSON that a run writes, so that tables and figures can be made again without running.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .race import Lane

__all__ = ["BARS", "PEERS", "Bar", "judged", "rate", "ratio", "slowdown", "strays", "summary", "verdict"]

PEERS = {
    "libcachesim": ("libCacheSim LRU", "libCacheSim LRU, default table", "libCacheSim S3-FIFO"),
    "cachetools": ("cachetools LRU", "cachetools LFU"),
}
SAME = {label: "LRU" for label in ("libCacheSim LRU", "libCacheSim LRU, default table", "cachetools LRU")}
"""Who must serve exactly the requests that somebody of ours serves; other definitions differ."""
THEIRS = "libCacheSim LRU"

Results = Mapping[str, Any]  # size as text -> label -> what `summary` makes


def summary(lane: Lane) -> dict[str, Any]:
    """One contestant at one size, as it stands in the JSON."""
    if lane.fault or not lane.plays:
        return {"fault": lane.fault or "no play"}
    last = lane.plays[-1]
    return {
        "seconds": [play["seconds"] for play in lane.plays],
        "bytes": lane.plays[0]["bytes"],
        **{name: last[name] for name in ("requests", "hits", "inserted")},
        "share": lane.share,
        "versions": dict(lane.versions),
    }


def rate(results: Results, size: str, label: str) -> float | None:
    """Requests per second, the median of the plays."""
    found = results.get(size, {}).get(label, {})
    return found["requests"] / statistics.median(found["seconds"]) if "seconds" in found else None


def ratio(results: Results, size: str, label: str, other: str) -> float | None:
    """How many times as fast as another: the median over plays of the ratio within one."""
    one, two = (results.get(size, {}).get(name, {}) for name in (label, other))
    if "seconds" not in one or "seconds" not in two:
        return None
    pairs = zip(one["seconds"], two["seconds"], strict=True)
    return statistics.median(b / two["requests"] * one["requests"] / a for a, b in pairs)


def slowdown(results: Results, label: str) -> float | None:
    """From the smallest catalog to the largest."""
    fast, slow = rate(results, "10000", label), rate(results, "10000000", label)
    return fast / slow if fast and slow else None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What must hold.

    Args:
        claim: what is measured.
        measured: from the results.
        least: it must be at least this; or None.
        most: it must be at most this; or None.
        wanted: a bar whose miss is reported and is no failure.
    """

    claim: str
    measured: Callable[[Results], float | None]
    least: float | None = None
    most: float | None = None
    wanted: bool = False


def _slower(results: Results) -> float | None:
    ours, theirs = slowdown(results, "OGB"), slowdown(results, THEIRS)
    return ours / theirs if ours and theirs else None


MILLION = "1000000"
BARS = (
    Bar(claim="OGB, requests/s at N = 10^6", measured=lambda r: rate(r, MILLION, "OGB"), least=1.5e6),
    Bar(claim="OGB, times slower at N = 10^7 than at 10^4", measured=lambda r: slowdown(r, "OGB"), most=3),
    Bar(claim="that slowdown relative to libCacheSim LRU's", measured=_slower, most=1.5),
    Bar(
        claim="NoRegretCache one by one, requests/s at N = 10^6",
        measured=lambda r: rate(r, MILLION, "NoRegretCache, one by one"),
        least=0.3e6,
    ),
    Bar(
        claim="OGB, times as fast as libCacheSim LRU at N = 10^6",
        measured=lambda r: ratio(r, MILLION, "OGB", THEIRS),
        least=1,
        wanted=True,
    ),
)


def verdict(bar: Bar, value: float | None) -> str:
    """``met``, ``not met``, ``not as wanted`` or ``not measured``."""
    if value is None:
        return "not measured"
    missed = (bar.least is not None and value < bar.least) or (bar.most is not None and value > bar.most)
    return ("not as wanted" if bar.wanted else "not met") if missed else "met"


def judged(results: Results) -> list[dict[str, Any]]:
    """Every bar, as it stands in the JSON."""
    found = []
    for bar in BARS:
        value = bar.measured(results)
        facts = {"claim": bar.claim, "least": bar.least, "most": bar.most, "wanted": bar.wanted}
        found.append({**facts, "measured": value, "verdict": verdict(bar, value)})
    return found


def strays(results: Results) -> list[str]:
    """Those whose hits differ from ours although they should not."""
    found = []
    for size, lanes in results.items():
        for label, ours in SAME.items():
            one, other = lanes.get(label, {}), lanes.get(ours, {})
            same = one.get("share") == other.get("share")
            if "hits" in one and "hits" in other and same and one["hits"] != other["hits"]:
                found.append(f"N = {size}, {label}: {one['hits']} hits, {ours} {other['hits']}")
    return found

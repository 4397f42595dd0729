"""Tables about clients: how they are spread, what the same bytes buy, how clients that never trained fare.

Rows are plain mappings of texts that the template lays out, made of what `rivage.core.summaries.summarize` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.report.tables import human_bytes, number, percent, whole, with_spread

__all__ = ["budget", "cost_rows", "spread_rows", "unseen_rows"]

Summary = Mapping[str, Mapping[str, Any]]
MISSING = "–"
_SAME = 1.02  # methods that have spent so nearly the same need no table at equal bytes


def spread_rows(summary: Summary, local: str | None) -> list[dict[str, str]]:
    """One row per method: both means, how the worst clients fare, who gained and who lost against Local."""
    return [
        {
            "method": method,
            "mean": number(row["mean"]),
            "unweighted": number(row["unweighted_mean"]),
            "decile": number(row["bottom_decile"]),
            "worst_tenth": number(row["worst_decile_mean"]),
            "worst": number(row["worst"]),
            "std": number(row["client_std"]),
            "better": _against(method, local, row["share_better_than_local"]),
            "worse": _against(method, local, row["share_worse_than_local"]),
        }
        for method, row in summary.items()
        if row["mean"] is not None
    ]


def _against(method: str, local: str | None, share: float | None) -> str:
    return "reference" if method == local else percent(share)


def budget(summary: Summary) -> float | None:
    """Bytes per client at which methods are compared; None where there is nothing to compare.

    Methods that all have spent about the same are compared by the table of results already.
    """
    known = [row["at_equal_bytes"]["budget_per_client"] for row in summary.values() if row["at_equal_bytes"]]
    dearest = max((row["bytes_per_client"] for row in summary.values()), default=0.0)
    return float(known[0]) if known and dearest > _SAME * known[0] else None


def cost_rows(summary: Summary) -> list[dict[str, str]]:
    """One row per method: traffic and gradients per client, and what the budget of the cheapest one buys."""
    return [
        {
            "method": method,
            "size": human_bytes(row["bytes_per_client"]),
            "gradients": whole(row["gradients_per_client"]),
            "stored": MISSING if row["neighbour_bytes"] is None else human_bytes(row["neighbour_bytes"]),
            "mean": with_spread(row["mean"], row["std"]),
            **_bought(row["at_equal_bytes"]),
        }
        for method, row in summary.items()
        if row["mean"] is not None
    ]


def _bought(found: Mapping[str, Any] | None) -> dict[str, str]:
    if found is None:
        return dict.fromkeys(("rounds_then", "mean_then", "decile_then"), MISSING)
    return {
        "rounds_then": f"{found['rounds']:.1f}".removesuffix(".0"),
        "mean_then": with_spread(found["mean"], found["std"]),
        "decile_then": with_spread(found["bottom_decile"], found["bottom_decile_std"]),
    }


def unseen_rows(summary: Summary, local: str | None) -> list[dict[str, str]]:
    """One row per method that judged clients which never trained, and what each of them had to do for its model."""
    return [
        {
            "method": method,
            "mean": with_spread(found["mean"], found["std"]),
            "unweighted": number(found["unweighted_mean"]),
            "decile": number(found["bottom_decile"]),
            "worst": number(found["worst"]),
            "worse": _against(method, local, found["share_worse_than_local"]),
            "records": whole(found["training_records"]),
            "adaptation": _adaptation(row, found["gradients"]),
            "gradients": whole(found["gradients"]),
        }
        for method, row in summary.items()
        if (found := row["unseen"]) is not None
    ]


def _adaptation(row: Mapping[str, Any], gradients: float | None) -> str:
    """What a client that never trained does with its own records, told by what the record holds of it."""
    if row["kind"] == "guarded":
        return "of the model it chose"
    if row["kind"] == "local":
        return "trains alone"
    if row["neighbour_share"] is not None:
        return "stores its records"
    if gradients:
        return "trains further"
    if row["mixed_models"] is not None:
        return "fits its shares"
    return MISSING if gradients is None else "none"

"""Everything that the page shows of one run of online policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.games import capacities, summarize_policies
from rivage.core.records import RunRecord
from rivage.core.toml import format_toml
from rivage.report import game_figures, game_words, tables, words
from rivage.report.theme import Look

__all__ = ["game_page"]


def game_page(record: RunRecord, styles: Mapping[str, Look], anchor: str) -> dict[str, Any]:
    """What the template needs of one run."""
    summary, sizes = summarize_policies(record), capacities(record)
    trace = record.trials[0].start["trace"] if record.trials else {}
    window = record.settings.get("run", {}).get("window")
    return {
        "anchor": anchor,
        "verb": record.verb,
        "title": words.title(record),
        "folder": record.folder.name,
        "compared": game_words.game_compared(record),
        "answer": game_words.game_answer(record),
        "progress": game_words.game_progress(record),
        "certificates": tables.certificate_groups(record.certificates),
        "policies": [name for name, policy in summary.items() if not policy["foresees"]],
        "results": _rows(summary),
        "weighted": trace.get("weighted", False),
        "windowed": f"{window:,}" if window else "",
        "capacity": f"{sizes[0]:,}" if sizes else "",
        "seeds": record.seeds,
        "figures": _figures(record, styles, anchor),
        "trace": _facts(trace),
        "settings": format_toml(record.settings),
        "versions": record.versions,
        "hash": record.hash,
    }


def _rows(summary: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per capacity and policy, as texts."""
    rows = []
    for place in range(max((len(policy["capacities"]) for policy in summary.values()), default=0)):
        here = {name: p["capacities"][place] for name, p in summary.items() if place < len(p["capacities"])}
        rivals = {name: row for name, row in here.items() if not summary[name]["foresees"]}
        best = max((row["cost_saved"] for row in rivals.values() if row["cost_saved"] is not None), default=None)
        for name, row in here.items():
            rows.append(
                {
                    "policy": name,
                    "foresees": summary[name]["foresees"],
                    "finished": row["finished"],
                    "best": name in rivals and best is not None and row["cost_saved"] == best,
                    "capacity": _whole(row["capacity"]),
                    "hit_ratio": tables.with_spread(row["hit_ratio"], row["hit_ratio_std"] or None),
                    "cost_saved": tables.with_spread(row["cost_saved"], row["cost_saved_std"] or None),
                    "static_saved": tables.number(row["static_saved"]),
                    "windowed_saved": tables.number(row["windowed_saved"]),
                    "regret": _whole(row["regret"]),
                    "bound": _whole(row["regret_bound"]),
                    "fetched": _whole(row["update_items"]),
                    "speed": _speed(row["requests_per_s"]),
                }
            )
    return rows


def _whole(value: float | None) -> str:
    """A count, grouped; small ones keep their decimals."""
    if value is None:
        return tables.MISSING
    if abs(value) < 10 and value != round(value):
        return tables.number(value)
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "−")


def _speed(per_s: float | None) -> str:
    return tables.MISSING if per_s is None else f"{per_s / 1e6:.2f}\N{NO-BREAK SPACE}M"


def _facts(trace: Mapping[str, Any]) -> dict[str, str]:
    labels = {"name": "Trace", "requests": "Requests", "items": "Items", "distinct": "Asked for", "weighted": "Costs"}
    found = {label: trace[key] for key, label in labels.items() if key in trace}
    if "Costs" in found:
        found["Costs"] = "one for each item" if found["Costs"] else "the same for all items: hits are counted"
    return {label: f"{value:,}" if isinstance(value, int) else str(value) for label, value in found.items()}


def _figures(record: RunRecord, styles: Mapping[str, Look], anchor: str) -> dict[str, Any]:
    from markupsafe import Markup  # comes with Jinja2

    drawn = {
        "capacity": game_figures.cost_by_capacity(record, styles, name=f"{anchor}-capacity"),
        "cost": game_figures.cost_over_time(record, styles, name=f"{anchor}-cost"),
        "regret": game_figures.regret_and_bound(record, styles, name=f"{anchor}-regret"),
        "occupancy": game_figures.occupancy(record, styles, name=f"{anchor}-occupancy"),
        "traffic": game_figures.traffic(record, styles, name=f"{anchor}-traffic"),
    }
    return {key: None if svg is None else Markup(svg) for key, svg in drawn.items()}

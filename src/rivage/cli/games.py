"""What ``rivage play`` prints: the answer, one row per policy and capacity, the promises and whether they were kept.

Gaps to the best fixed set stand in the table, so that their certificates are left to the JSON and the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rivage.cli.output import VIOLATION, Options, certificate_rows, number, show, table, verdicts

if TYPE_CHECKING:
    from rivage.core.records import RunRecord

__all__ = ["show_game"]


def show_game(record: RunRecord, options: Options, strict: bool) -> int:
    """Show the summary of a run of policies; the exit code."""
    summary = record.summary
    certificates, page = summary["certificates"], summary["report"]
    names = dict.fromkeys(str(trial.start["policy"]) for trial in record.trials)
    summary = {**summary, "policies": {name: summary["policies"][name] for name in names}}  # JSON files are sorted
    what = "cost saved" if summary["trace"]["weighted"] else "hit ratio"
    show(
        options,
        summary,
        f"{record.folder}: {len(summary['policies'])} policies; {verdicts(certificates)}",
        table(
            ("policy", "capacity", what, "best fixed set", "regret", "bound", "fetched", "M req/s"),
            _rows(summary["policies"]),
        ),
        certificate_rows(c for c in certificates if c["kind"] == "bound" or c["verdict"] != "holds"),
        then="\n".join([summary["answer"], *([f"report: {page}"] if page else [])]),
    )
    return VIOLATION if strict and any(c["verdict"] == "fails" for c in certificates) else 0


def _rows(policies: Mapping[str, Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    """By capacity, in the order of the study."""
    for place in range(max(len(row["capacities"]) for row in policies.values())):
        for name, policy in policies.items():
            row = policy["capacities"][place]
            speed = row["requests_per_s"]
            yield (
                f"{name} (foresees)" if policy["foresees"] else name,
                f"{row['capacity']:,}",
                number(row["cost_saved"]),
                number(row["static_saved"]),
                _whole(row["regret"]),
                _whole(row["regret_bound"]),
                _whole(row["update_items"]),
                "–" if speed is None else f"{speed / 1e6:.2f}",
            )


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"

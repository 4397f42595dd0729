"""What ``rivage play`` prints: the answer, one row per policy, the promises and whether they were kept.

Gaps to what the best fixed decision would have given stand in the table, so that their certificates are left to the
JSON and the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rivage.cli.output import VIOLATION, Options, certificate_rows, show, table, verdicts
from rivage.core.games import GameView, view

if TYPE_CHECKING:
    from rivage.core.records import RunRecord

__all__ = ["show_game"]


def show_game(record: RunRecord, options: Options, strict: bool) -> int:
    """Show the summary of a run of policies; the exit code."""
    game, summary = view(record), record.summary
    certificates, page = summary["certificates"], summary["report"]
    summary = {**summary, "policies": {name: summary["policies"][name] for name in game.policies}}  # files are sorted
    shown = [column for column in game.columns if not column.detail]
    show(
        options,
        summary,
        f"{record.folder}: {len(summary['policies'])} policies; {verdicts(certificates)}",
        table(("policy", *(column.heading for column in shown)), _rows(game, [column.key for column in shown])),
        certificate_rows(c for c in certificates if c["kind"] == "bound" or c["verdict"] != "holds"),
        then="\n".join([summary["answer"], *([f"report: {page}"] if page else [])]),
    )
    return VIOLATION if strict and any(c["verdict"] == "fails" for c in certificates) else 0


def _rows(game: GameView, keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for row in game.rows:
        name = f"{row['policy']} (foresees)" if row["foresees"] else row["policy"]
        yield (name, *(row[key] for key in keys))

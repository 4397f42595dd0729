"""Sentences that all games have: counts, who is as good as the best, what a run still lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rivage.core.records import RunRecord

__all__ = ["count", "names_of", "tied", "unfinished"]


def count(number: int, noun: str, several: str = "") -> str:
    """A count with its noun.

    Example:
        >>> count(1, "seed"), count(1200, "request"), count(2, "policy", "policies")
        ('1 seed', '1,200 requests', '2 policies')
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def tied(rivals: Mapping[str, Mapping[str, Any]], best: str, key: str) -> str:
    """Others that the spread over the seeds cannot tell from the best in a number of which more is better."""
    row, near = rivals[best], []
    for name, other in rivals.items():
        spread = max(row[f"{key}_std"] or 0.0, other[f"{key}_std"] or 0.0)
        if name != best and row[key] - other[key] <= spread:
            near.append(name)
    return f" ({', '.join(near)} within one standard deviation)" if near else ""


def names_of(record: RunRecord, table: str = "policies") -> list[tuple[str, int]]:
    """Every competitor of the study with every seed."""
    names = [str(each.get("name", each.get("kind"))) for each in record.settings.get(table, [])]
    return [(name, seed) for name in names for seed in record.settings.get("run", {}).get("seeds", [])]


def unfinished(record: RunRecord, noun: str, table: str = "policies") -> list[str]:
    """What a run still lacks, one sentence each; the points of its trials count in ``noun`` + "s"."""
    begun = {(str(trial.start["policy"]), trial.seed) for trial in record.trials}
    texts = [f"{name}, seed {seed}: not begun" for name, seed in names_of(record, table) if (name, seed) not in begun]
    return [*texts, *_stopped(record, noun)]


def _stopped(record: RunRecord, noun: str) -> Iterator[str]:
    for trial in record.trials:
        if not trial.finished:
            points = trial.events("point")
            done = count(int(points[-1][f"{noun}s"]) if points else 0, noun)
            yield f"{trial.method}, seed {trial.seed}: stopped after {done}"

"""The section of a report about audits: "What the messages tell"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rivage.core.records import RunRecord
from rivage.report import audit_figures, audit_numbers, audit_words

__all__ = ["audits"]


def audits(record: RunRecord, summary: Mapping[str, Mapping[str, Any]], anchor: str) -> list[dict[str, Any]]:
    """Everything the template shows of each audited trial; nothing for a run that was not audited.

    Args:
        record: of a run.
        summary: of it.
        anchor: prefix of ids.
    """
    return [_one(record, summary, audit, f"{anchor}-audit{n}") for n, audit in enumerate(record.audits, 1)]


def _one(
    record: RunRecord, summary: Mapping[str, Mapping[str, Any]], audit: Mapping[str, Any], anchor: str
) -> dict[str, Any]:
    from markupsafe import Markup  # comes with Jinja2

    drawn = {
        "leakage": audit_figures.leakage(audit, name=f"{anchor}-leakage"),
        "trade_offs": audit_figures.trade_offs(audit, name=f"{anchor}-curves"),
        "promises": audit_figures.promises(audit, name=f"{anchor}-epsilon"),
    }
    return {
        "anchor": anchor,
        "trial": f"{audit['method']}, seed {audit['seed']}",
        "sentences": audit_words.sentences(audit, _context(record, summary, audit)),
        "faults": list(audit.get("faults") or ()),
        "figures": {key: None if svg is None else Markup(svg) for key, svg in drawn.items()},
        "alarms": audit_numbers.alarm_rows(audit),
        "epsilon": audit_numbers.epsilon_rows(audit),
        "rows": audit_numbers.rows(audit),
    }


def _context(
    record: RunRecord, summary: Mapping[str, Mapping[str, Any]], audit: Mapping[str, Any]
) -> audit_words.Context:
    """What the audit does not hold of its run: how many clients, what else was trained, what is promised."""
    method, seed = audit["method"], audit["seed"]
    done = {each["method"] for each in record.audits}
    trained = [each for each in record.trials if any(event.get("bytes_up") for event in each.events("round"))]
    others = [each.method for each in trained if each.method not in done]
    seeds = [each.seed for each in trained if each.method == method and each.seed != seed]
    told, row = record.summary.get("audit") or {}, summary.get(method, {})
    return {
        "clients": int(record.trial(method, seed).start["population"]["size"]),
        "others": [*dict.fromkeys(others), *(f"seed {other}" for other in seeds)],
        "not_run": told.get("not_run", ()) if told.get("method") == method else (),
        "epsilon": row.get("epsilon"),
        "promise": row.get("privacy"),
    }

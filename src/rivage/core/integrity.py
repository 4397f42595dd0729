"""Do the files of a run still say what they said when it ended?

Certificates are computed again from the record; this looks after the rest: the record and the audits against the hashes
that the summary holds, the summary against the record, and the checksums of models and message logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rivage.core.audit_records import audit_hashes
from rivage.core.encoding import dumps
from rivage.core.games import view
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.records import RunRecord
from rivage.core.store import load_tensors
from rivage.core.summaries import summarize

__all__ = ["changes"]


def changes(record: RunRecord) -> Iterator[str]:
    """What has changed since the run ended, one sentence each. Reads every file of the run once.

    Raises:
        StoreError: for a file that is missing its end, damaged or not what it claims to be.
    """
    summary = record.summary
    if summary.get("hash") != record.hash:
        yield "the settings or a record.jsonl are not those that the summary was made from"
    audited = audit_hashes(record.audits)
    if summary.get("audited", audited) != audited:
        yield "audit.json is not what the audit wrote"
    told = view(record).policies if record.is_game else summarize(record)
    if _rounded(summary.get(record.compared)) != _rounded(json.loads(dumps(told))):
        yield "summary.json does not follow from the record"
    for trial in record.trials:
        models, log = trial.folder / "models.safetensors", trial.folder / LOG_NAME
        if models.exists():
            load_tensors(models)
        if log.exists():
            for _ in MessageLog.read(log):
                pass


def _rounded(value: Any) -> Any:
    """JSON values to nine digits: another machine may add in another order."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.9g}") if isinstance(value, float) else value

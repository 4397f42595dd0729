"""What a finished run says of itself: certificates, the table of clients, the summary; from the record alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rivage.core.certificates import CHECKS, Certificate
from rivage.core.message_log import LOG_NAME
from rivage.core.records import RunRecord
from rivage.core.summaries import local_method, summarize
from rivage.decentralized.training_checks import is_timed
from rivage.federated.privacy_checks import is_private
from rivage.federated.stream_checks import is_streamed
from rivage.studies.tuning_checks import tuning_of

__all__ = ["conclude"]


def conclude(record: RunRecord) -> None:
    """Certificates, per-client table and summary, from the record alone."""
    certificates = [CHECKS.get(name)(record, **fields) for name, fields in _claims(record)]
    record.write_certificates(certificates)
    record.write_clients()
    record.write_summary(_summary(record, certificates))


def _summary(record: RunRecord, certificates: list[Certificate]) -> dict[str, Any]:
    page, tuning, before = record.folder / "report.html", tuning_of(record), record.summary
    return {
        "run": str(record.folder),
        "hash": record.hash,
        "report": str(page) if page.exists() else None,
        "methods": summarize(record),
        "certificates": [certificate.as_dict() for certificate in certificates],
        **({} if tuning is None else {"tuning": tuning}),
        **{key: before[key] for key in ("audited", "audit") if key in before},
    }


def _claims(record: RunRecord) -> Iterator[tuple[str, dict[str, Any]]]:
    """Which certificates a run can carry: the check and its fields."""
    local, tuning = local_method(record), tuning_of(record)
    for method in {} if tuning is None else tuning["methods"]:
        yield "tuned", {"method": method}
    for method in record.methods:
        if local is not None and method != local:
            yield "paired_difference", {"method": method, "reference": local}
    for method in record.methods:
        trials = [record.trial(method, seed) for seed in record.seeds]
        if trials[0].events("choice"):
            yield "guard", {"method": method}
            yield "choice_gap", {"method": method}
        if all((trial.folder / LOG_NAME).exists() for trial in trials) and trials[0].bytes_up:
            yield "wire_bytes", {"method": method}
        if is_private(trials[0]):
            yield "privacy_spent", {"method": method}
        if is_streamed(trials[0]):
            yield "stream_share", {"method": method}
        if is_timed(record, method):
            yield "round_times", {"method": method}

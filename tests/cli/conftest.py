"""A small run written through the record's own interface: no training, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rivage.core.certificates import CHECKS
from rivage.core.records import RunRecord
from rivage.core.summaries import summarize
from rivage.core.trial_records import TrialRecord

REFERENCE = {
    "key": "one17",
    "authors": "A. One and B. Two",
    "title": "On Averages",
    "venue": "Conf",
    "year": 2017,
    "arxiv": "1701.00001",
    "part": "Algorithm 1",
}
VALUES = {"local": [0.5, 0.6, 0.7, 0.8], "fedavg": [0.7, 0.75, 0.9, 0.85]}


def write_run(parent: Path, *, certified: bool = True) -> RunRecord:
    """Local and FedAvg on four clients, one seed."""
    methods = [{"name": name, "kind": name} for name in VALUES]
    record = RunRecord.create(parent, "toy", {"name": "toy", "methods": methods, "run": {"seeds": [0]}})
    for name, values in VALUES.items():
        trial = TrialRecord.open(record.trial_folder(name, 0))
        count = len(values)
        start = {"method": name, "kind": name, "seed": 0, "settings": {}, "metric": "accuracy", "parameters": 10}
        people = {"size": count, "fingerprint": "f", "unseen": [], "names": ["a", "b", "c", "d"], "notes": {}}
        more = {"higher_is_better": True, "rounds": 1, "reference": REFERENCE, "population": people}
        trial.append({"event": "start", **start, **more, "dtype": "float32"})
        trial.append({"event": "setup", "messages": 0, "bytes_up": 0, "bytes_down": 0})
        traffic = {"bytes_up": 9000, "bytes_down": 40}
        trial.append({"event": "round", "round": 0, "cohort": [0, 1], "lost": [], "rejected": [], **traffic})
        columns = {key: [0.5] * count for key in ("test_loss", "validation", "validation_loss", "validation_se")}
        sizes = {"test_size": [10] * count, "validation_size": [5] * count, "skipped": 0}
        clients = {"group": "seen", "clients": list(range(count)), "test": values}
        trial.append({"event": "evaluation", "round": 1, **clients, **columns, **sizes})
        trial.append({"event": "end", "rounds": 1})
        trial.append_timing({"round": 0, "seconds": 1.5})
    record = RunRecord.open(record.folder)
    checked = [CHECKS.get("paired_difference")(record, method="fedavg", reference="local")] if certified else []
    record.write_certificates(checked)
    certificates = [certificate.as_dict() for certificate in checked]
    shared = {"run": str(record.folder), "report": None}
    record.write_summary({**shared, "hash": record.hash, "methods": summarize(record), "certificates": certificates})
    return RunRecord.open(record.folder)


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return write_run(tmp_path / "runs")


@pytest.fixture
def make_record(tmp_path: Path) -> Callable[..., RunRecord]:
    def make(**options: bool) -> RunRecord:
        return write_run(tmp_path / "runs", **options)

    return make

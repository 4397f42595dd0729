"""The record of a run: a folder that holds everything a report, a certificate or a reader needs.

::

    runs/<name>-<8 hex>/
      settings.toml  versions.json  summary.json  certificates.json  clients.parquet  audit.json  report.html
      trials/<method>/seed-<n>/
        record.jsonl     events of one trial; deterministic, hashed
        timings.jsonl    wall clock; not hashed
        checkpoint.sqlite  messages.rvg  models.safetensors

A *trial* is one method with one seed; of online policies also one capacity, and ``<method>`` is ``policy@capacity``.
The eight digits are the hash of the settings, so equal studies share a folder and resume. `RunRecord.hash` covers the
settings and every event, and depends on neither the folder nor the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rivage.core.audit_records import Audit, audit_hashes, audit_of, read_audits, with_audit
from rivage.core.certificates import Certificate, read_certificates
from rivage.core.client_columns import client_columns
from rivage.core.compared import compared, names, verb
from rivage.core.differences import different, different_trials
from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, StoreError, nearest
from rivage.core.store import read_json, read_text, write_json, write_table, write_text
from rivage.core.toml import format_toml, parse_toml
from rivage.core.trial_records import Event, TrialRecord, in_order
from rivage.core.versions import installed

__all__ = ["RunRecord"]


class RunRecord:
    """A run folder.

    Args:
        folder: of a run, made by `create`.

    Raises:
        StoreError: if it is no run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "settings.toml"
        if not path.is_file():
            raise StoreError(
                "is not the folder of a run: it has no settings.toml",
                where=str(self.folder),
                mend="Give a folder that `rivage run`, `train` or `play` has made.",
            )
        try:
            self.settings: dict[str, Any] = parse_toml(read_text(path), str(path))
        except ConfigError as error:
            raise StoreError(error.what, where=error.where, mend="Restore the file, or run again.") from error
        self._trials: dict[Path, TrialRecord] = {}

    @classmethod
    def open(cls, folder: Path) -> RunRecord:
        """The record in a folder."""
        return cls(folder)

    @classmethod
    def create(cls, parent: Path, name: str, settings: Mapping[str, Any]) -> RunRecord:
        """The run of these settings below ``parent``; the same folder, with what it holds, when called again.

        Args:
            parent: folder of runs.
            name: of the study.
            settings: fully resolved, defaults included, without None.

        Raises:
            StoreError: if the folder is there with other settings.
        """
        text = format_toml(settings)
        digest = hashlib.sha256(dumps(parse_toml(text)).encode()).hexdigest()
        folder = Path(parent) / f"{_file_name(name)}-{digest[:8]}"
        if not (folder / "settings.toml").exists():
            write_json(folder / "versions.json", installed())
            write_text(folder / "settings.toml", text)
        record = cls(folder)
        if dumps(record.settings) != dumps(parse_toml(text)):
            raise StoreError(
                "settings.toml is not what the run was made with",
                where=str(folder),
                mend="Undo the change, or move the folder away and run again.",
            )
        return record

    def trial_folder(self, method: str, seed: int) -> Path:
        """Where the trial of a method with a seed is kept."""
        return self.folder / "trials" / _file_name(method) / f"seed-{seed}"

    @property
    def verb(self) -> str:
        """The command that makes such a run: ``play``, ``place`` or ``design`` by what is compared, else ``train``."""
        return verb(self.settings)

    @property
    def compared(self) -> str:
        """What is compared, as settings and summary call it: policies, planners, overlays, methods."""
        return compared(self.settings)

    @property
    def is_game(self) -> bool:
        """Whether `rivage.core.games` tells it."""
        return self.verb != "train"

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Trials that have begun: methods in the order of the settings, then seeds in order."""
        folders = [path.parent for path in (self.folder / "trials").glob("*/seed-*/record.jsonl")]
        trials = [self._trials.setdefault(folder, TrialRecord(folder)) for folder in folders]
        return in_order(trials, names(self.settings))

    def trial(self, method: str, seed: int) -> TrialRecord:
        """One trial.

        Raises:
            StoreError: if there is none.
        """
        trials = self.trials
        for trial in trials:
            if (trial.method, trial.seed) == (method, seed):
                return trial
        mend = nearest(method, {t.method for t in trials} - {method})
        known = ", ".join(f"{t.method} with seed {t.seed}" for t in trials) or "none yet"
        raise StoreError(
            f'there is no trial of "{method}" with seed {seed}',
            where=str(self.folder),
            mend=mend or f"Trials: {known}.",
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that have begun, in the order of the settings."""
        return tuple(dict.fromkeys(trial.method for trial in self.trials))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that have begun, in order."""
        return tuple(sorted({trial.seed for trial in self.trials}))

    def events(self, kind: str | None = None, method: str | None = None, seed: int | None = None) -> tuple[Event, ...]:
        """Events of all trials, or of one kind, method, seed; ``method`` and ``seed`` are added to each."""
        return tuple(
            {**event, "method": trial.method, "seed": trial.seed}
            for trial in self.trials
            if method in (None, trial.method) and seed in (None, trial.seed)
            for event in trial.events(kind)
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the settings and of all events of all trials."""
        trials = [[trial.method, trial.seed, trial.hash] for trial in self.trials]
        return hashlib.sha256(dumps({"settings": self.settings, "trials": trials}).encode()).hexdigest()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of Python and of the packages that made the run; not hashed."""
        return dict(self._optional("versions.json", {}))

    @property
    def summary(self) -> dict[str, Any]:
        """What `write_summary` kept; empty before."""
        return dict(self._optional("summary.json", {}))

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """What `write_certificates` kept; empty before. Numbers that JSON cannot say come back as NaN."""
        values, where = self._optional("certificates.json", []), str(self.folder / "certificates.json")
        return read_certificates(values, where, mend="Delete it and run again.")

    @property
    def audits(self) -> tuple[Audit, ...]:
        """What `write_audit` kept, one for each trial that was audited."""
        return read_audits(self._optional("audit.json", []), self._audit_path)

    @property
    def _audit_path(self) -> str:
        return str(self.folder / "audit.json")

    def audit(self, method: str, seed: int) -> Audit:
        """The audit of one trial.

        Raises:
            StoreError: if there is none.
        """
        return audit_of(self.audits, method, seed, self._audit_path)

    def write_audit(self, audit: Mapping[str, Any]) -> None:
        """Keep the audit of a trial in place of an earlier one; the summary, if there is one, remembers its hash."""
        write_json(self.folder / "audit.json", with_audit(self.audits, audit))
        if summary := self.summary:
            self.write_summary({**summary, "audited": audit_hashes(self.audits)})

    @property
    def audit_certificates(self) -> tuple[Certificate, ...]:
        """Certificates of all audits."""
        values = [certificate for audit in self.audits for certificate in audit["certificates"]]
        return read_certificates(values, self._audit_path, mend="Audit again.")

    def _optional(self, name: str, empty: Any) -> Any:
        path = self.folder / name
        value = read_json(path) if path.exists() else empty
        if type(value) is not type(empty):
            raise StoreError("holds something else", where=str(path), mend="Delete it and run again.")
        return value

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Keep the object that ``--json`` prints."""
        write_json(self.folder / "summary.json", summary)

    def write_certificates(self, certificates: Iterable[Certificate]) -> None:
        """Keep the certificates of the run."""
        write_json(self.folder / "certificates.json", [each.as_dict() for each in certificates])

    def clients_table(self) -> dict[str, list[Any]]:
        """Every evaluation of every client as columns; one row per method, seed, round, group and client."""
        return client_columns(self.events("evaluation"))

    def write_clients(self) -> None:
        """Keep `clients_table` as ``clients.parquet``."""
        write_table(self.folder / "clients.parquet", self.clients_table())

    def compare(self, other: RunRecord) -> list[str]:
        """What differs between two runs, one sentence each; empty for equal settings, versions and events."""
        here, there = ({(t.method, t.seed): t.events() for t in run.trials} for run in (self, other))
        return [
            *different("settings", self.settings, other.settings),
            *different("versions", self.versions, other.versions),
            *different_trials(here, there),
        ]


def _file_name(name: str) -> str:
    # No separators, no "..", nothing hidden, whatever a study calls its methods.
    text = quote(name, safe=" +=,()@")
    return f"%2E{text[1:]}" if text.startswith(".") else text

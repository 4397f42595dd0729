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
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rivage.core.certificates import Certificate
from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, StoreError, nearest
from rivage.core.store import (
    append_jsonl,
    read_json,
    read_jsonl,
    read_text,
    sync,
    truncate_jsonl,
    write_json,
    write_table,
    write_text,
)
from rivage.core.toml import format_toml, parse_toml

__all__ = ["Event", "RunRecord", "TrialRecord"]

Event = dict[str, Any]

_VERBS = {"policies": "play", "planners": "place", "overlays": "design"}
_PACKAGES = ("rivage", "numba", "numpy", "scipy", "torch")
_PER_CLIENT = (
    "test",
    "test_size",
    "test_loss",
    "validation",
    "validation_loss",
    "validation_se",
    "validation_size",
    "train_size",
    "gradients",
    "neighbour_share",
)


class TrialRecord:
    """One method with one seed: what happened, event by event.

    Only whole lines count: what a killed process left torn at the end is never read, and the next append
    drops it. Events are read again whenever the file has changed; they are shared, not to be modified.

    Args:
        folder: where the files of the trial are, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._path, self._timings = self.folder / "record.jsonl", self.folder / "timings.jsonl"
        self._cache: tuple[tuple[int, int], tuple[Event, ...]] = (0, 0), ()

    @classmethod
    def open(cls, folder: Path) -> TrialRecord:
        """The record in a folder, which is made if it is missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def append(self, event: Mapping[str, Any]) -> None:
        """Add an event: one line, one write."""
        append_jsonl(self._path, event)

    def append_timing(self, timing: Mapping[str, Any]) -> None:
        """Add wall-clock facts, ``{"round": r, "seconds": s}`` or ``{"evaluation": r, "seconds": s}``."""
        append_jsonl(self._timings, timing)

    def events(self, kind: str | None = None) -> tuple[Event, ...]:
        """All events, or those of one kind (``start``, ``setup``, ``round``, ``evaluation``, ...), in order.

        Raises:
            StoreError: if the record is corrupt.
        """
        if not self._path.exists():
            return ()
        status = self._path.stat()
        stamp = status.st_size, status.st_mtime_ns
        if self._cache[0] != stamp:
            self._cache = stamp, tuple(read_jsonl(self._path))
        return tuple(event for event in self._cache[1] if kind is None or event.get("event") == kind)

    @property
    def start(self) -> Event:
        """The first event: what is tried.

        Raises:
            StoreError: if the trial has not begun.
        """
        begun = self.events("start")
        if not begun:
            raise StoreError("the trial has not begun", where=str(self.folder), mend="Run the study again.")
        return begun[0]

    @property
    def method(self) -> str:
        """Name of the method in the study."""
        return str(self.start["method"])

    @property
    def kind(self) -> str:
        """Registered kind of the method."""
        return str(self.start["kind"])

    @property
    def seed(self) -> int:
        """Root of all randomness of the trial."""
        return int(self.start["seed"])

    @property
    def finished(self) -> bool:
        """Whether the last round was played and evaluated."""
        return bool(self.events("end"))

    def final(self, group: str = "seen") -> Event | None:
        """The last evaluation of a group of clients; None if there is none."""
        return next((e for e in reversed(self.events("evaluation")) if e.get("group") == group), None)

    @property
    def bytes_up(self) -> int:
        """Bytes from clients to the server, set-up included."""
        return sum(event.get("bytes_up", 0) for event in self.events())

    @property
    def bytes_down(self) -> int:
        """Bytes from the server to clients, set-up included."""
        return sum(event.get("bytes_down", 0) for event in self.events())

    @property
    def simulated_s(self) -> float | None:
        """Seconds that the rounds would have taken on the simulated devices; None where none are described."""
        return self._of_devices("simulated_s")

    @property
    def energy_j(self) -> float | None:
        """Joules that the rounds would have cost the simulated devices; None where none are described."""
        return self._of_devices("energy_j")

    @property
    def refusals(self) -> Counter[str]:
        """Why rounds were not aggregated -> how many; such a round left the server's state as it was."""
        return Counter(str(event["refused"]) for event in self.events("round") if event.get("refused"))

    @property
    def forgotten(self) -> int:
        """Memories of clients that were dropped; that of a client which comes back may be dropped again."""
        return sum(int(event.get("forgotten", 0)) for event in self.events("round"))

    def _of_devices(self, key: str) -> float | None:
        values = [event[key] for event in self.events() if key in event]
        return math.fsum(values) if values else None

    @property
    def timings(self) -> tuple[Event, ...]:
        """Wall-clock facts, in order."""
        return tuple(read_jsonl(self._timings)) if self._timings.exists() else ()

    @property
    def seconds(self) -> float:
        """Wall-clock time of all rounds and evaluations that count."""
        return math.fsum(timing.get("seconds") or 0.0 for timing in self.timings)

    @property
    def offset(self) -> int:
        """Bytes of the events so far: what a checkpoint remembers."""
        return self._path.stat().st_size if self._path.exists() else 0

    def flush(self) -> None:
        """Bring the events to the disk; to be called before a checkpoint that remembers `offset`."""
        if self._path.exists():
            sync(self._path)

    def truncate(self, offset: int) -> None:
        """Drop every event from this offset on, and the timings of what they told.

        Raises:
            StoreError: if no event ends there.
        """
        if offset or self._path.exists():
            truncate_jsonl(self._path, offset)
        self._cache = (0, 0), ()
        done = {(kind, event["round"]) for kind in ("round", "evaluation") for event in self.events(kind)}
        kept = [
            timing
            for timing in self.timings
            if any((kind, timing.get(kind)) in done for kind in ("round", "evaluation"))
        ]
        if self._timings.exists():
            write_text(self._timings, "".join(f"{dumps(timing)}\n" for timing in kept))

    @property
    def hash(self) -> str:
        """SHA-256 of the events: equal for a trial that was killed and resumed and one that was not."""
        digest = hashlib.sha256()
        for event in self.events():
            digest.update(f"{dumps(event)}\n".encode())
        return digest.hexdigest()


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
            write_json(folder / "versions.json", _versions())
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
        return _VERBS.get(self.compared, "train")

    @property
    def compared(self) -> str:
        """What is compared, as settings and summary call it: policies, planners, overlays, methods."""
        return next((table for table in _VERBS if table in self.settings), "methods")

    @property
    def is_game(self) -> bool:
        """Whether `rivage.core.games` tells it."""
        return self.verb != "train"

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Trials that have begun: methods in the order of the settings, then seeds in order."""
        folders = [path.parent for path in (self.folder / "trials").glob("*/seed-*/record.jsonl")]
        trials = [self._trials.setdefault(folder, TrialRecord(folder)) for folder in folders]
        order = {name: place for place, name in enumerate(_method_names(self.settings))}
        begun = [trial for trial in trials if trial.events("start")]

        def place(trial: TrialRecord) -> tuple[int, int, str, int]:
            name = str(trial.start.get("policy", trial.method))
            return order.get(name, len(order)), int(trial.start.get("place", 0)), trial.method, trial.seed

        return tuple(sorted(begun, key=place))

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
        path = self.folder / "certificates.json"
        try:
            return tuple(_certificate(values) for values in self._optional(path.name, []))
        except (TypeError, AttributeError) as error:
            what = f"does not hold certificates ({error})"
            raise StoreError(what, where=str(path), mend="Delete it and run again.") from error

    @property
    def audits(self) -> tuple[dict[str, Any], ...]:
        """What `write_audit` kept, one for each trial that was audited."""
        audits = self._optional("audit.json", [])
        if not all(map(_is_audit, audits)):
            where = str(self.folder / "audit.json")
            raise StoreError("does not hold audits", where=where, mend="Delete it and audit again.")
        return tuple(audits)

    def audit(self, method: str, seed: int) -> dict[str, Any]:
        """The audit of one trial.

        Raises:
            StoreError: if there is none.
        """
        found = next((each for each in self.audits if (each["method"], each["seed"]) == (method, seed)), None)
        if found is None:
            where, mend = str(self.folder / "audit.json"), "Audit it with `rivage audit`."
            raise StoreError(f'there is no audit of "{method}" with seed {seed}', where=where, mend=mend)
        return found

    def write_audit(self, audit: Mapping[str, Any]) -> None:
        """Keep the audit of a trial in place of an earlier one; the summary, if there is one, remembers its hash."""
        trial = audit["method"], audit["seed"]
        others = [each for each in self.audits if (each["method"], each["seed"]) != trial]
        write_json(self.folder / "audit.json", [*others, audit])
        if summary := self.summary:
            self.write_summary({**summary, "audited": self.audit_hashes})

    @property
    def audit_hashes(self) -> dict[str, str]:
        """Audited trial -> SHA-256 of what was found, without what it cost."""
        return {f"{audit['method']}, seed {audit['seed']}": _audit_hash(audit) for audit in self.audits}

    @property
    def audit_certificates(self) -> tuple[Certificate, ...]:
        """Certificates of all audits."""
        try:
            return tuple(_certificate(values) for audit in self.audits for values in audit["certificates"])
        except (TypeError, AttributeError) as error:
            where = str(self.folder / "audit.json")
            raise StoreError(f"does not hold certificates ({error})", where=where, mend="Audit again.") from error

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
        columns: dict[str, list[Any]] = {
            name: [] for name in ("method", "seed", "round", "group", "client", *_PER_CLIENT)
        }
        for event in self.events("evaluation"):
            clients = event["clients"]
            for name in ("method", "seed", "round", "group"):
                columns[name] += [event[name]] * len(clients)
            columns["client"] += clients
            for name in _PER_CLIENT:
                columns[name] += event.get(name) or [None] * len(clients)
        return columns

    def write_clients(self) -> None:
        """Keep `clients_table` as ``clients.parquet``."""
        write_table(self.folder / "clients.parquet", self.clients_table())

    def compare(self, other: RunRecord) -> list[str]:
        """What differs between two runs, one sentence each; empty for equal settings, versions and events."""
        differences = [
            *_different("settings", self.settings, other.settings),
            *_different("versions", self.versions, other.versions),
        ]
        here, there = ({(t.method, t.seed): t for t in run.trials} for run in (self, other))
        for method, seed in dict.fromkeys([*here, *there]):
            one, two = here.get((method, seed)), there.get((method, seed))
            if one is None or two is None:
                differences.append(f"{method}, seed {seed}: only {'there' if one is None else 'here'}")
            elif one.hash != two.hash:
                differences.append(f"{method}, seed {seed}: {_first_difference(one, two)}")
        return differences


def _file_name(name: str) -> str:
    # No separators, no "..", nothing hidden, whatever a study calls its methods.
    text = quote(name, safe=" +=,()@")
    return f"%2E{text[1:]}" if text.startswith(".") else text


def _is_audit(value: Any) -> bool:
    if not isinstance(value, dict) or not {"method", "seed", "attacks", "certificates"} <= set(value):
        return False
    lists = value["attacks"], value["certificates"]
    if not all(isinstance(each, list) and all(isinstance(item, dict) for item in each) for each in lists):
        return False
    return all({"attack", "question", "view", "evidence", "p"} <= set(row) for row in value["attacks"])


def _audit_hash(audit: Mapping[str, Any]) -> str:
    rows = [{key: value for key, value in row.items() if key != "cost"} for row in audit["attacks"]]
    return hashlib.sha256(dumps({**audit, "attacks": rows}).encode()).hexdigest()


def _method_names(settings: Mapping[str, Any]) -> list[str]:
    methods: list[Any] = next((settings[table] for table in ("methods", *_VERBS) if table in settings), [])
    return [str(each.get("name", each.get("kind"))) for each in methods if isinstance(each, dict)]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # torch is an extra
            continue
    return versions


def _certificate(values: Mapping[str, Any]) -> Certificate:
    numbers = {name: math.nan for name in ("measured", "reference") if values.get(name) is None}
    return Certificate.from_dict({**values, **numbers})


def _leaves(tree: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping | list) and tree:
        for key, branch in tree.items() if isinstance(tree, Mapping) else enumerate(tree, 1):
            yield from _leaves(branch, f"{place}.{key}")
    else:
        yield place, tree


def _different(place: str, here: Any, there: Any) -> list[str]:
    one, two = dict(_leaves(here, place)), dict(_leaves(there, place))
    return [
        f"{key}: {one.get(key, 'nothing')!r} here, {two.get(key, 'nothing')!r} there"
        for key in dict.fromkeys([*one, *two])
        if key not in one or key not in two or dumps(one[key]) != dumps(two[key])
    ]


def _first_difference(one: TrialRecord, two: TrialRecord) -> str:
    pairs = zip_longest(one.events(), two.events())
    number, (here, there) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    if here is None or there is None:
        return f"{'there' if here is None else 'here'} it goes on after event {number}"
    at = f" of round {here['round']}" if "round" in here else ""
    return f"event {number} ({here.get('event')}{at}) differs: {'; '.join(_different('it', here, there)[:3])}"

"""The record of a trial, one method with one seed: a folder of `rivage.core.records`, written event by event.

::

    record.jsonl   events; deterministic, hashed
    timings.jsonl  wall clock; not hashed

A process that is killed leaves at most a torn last line, which is dropped; a checkpoint remembers the `offset` up to
which events count, and a trial that is resumed is cut there.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rivage.core.encoding import dumps
from rivage.core.errors import StoreError
from rivage.core.store import append_jsonl, read_jsonl, sync, truncate_jsonl, write_text

__all__ = ["Event", "TrialRecord", "in_order"]

Event = dict[str, Any]


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


def in_order(trials: Iterable[TrialRecord], names: Sequence[str]) -> tuple[TrialRecord, ...]:
    """Those that have begun: in the order of the names, then by what their place in a game is, then by seed.

    Args:
        trials: of one run.
        names: of the methods, or of the policies, planners, overlays of a game.
    """
    order = {name: place for place, name in enumerate(names)}

    def place(trial: TrialRecord) -> tuple[int, int, str, int]:
        name = str(trial.start.get("policy", trial.method))
        return order.get(name, len(order)), int(trial.start.get("place", 0)), trial.method, trial.seed

    return tuple(sorted((trial for trial in trials if trial.events("start")), key=place))

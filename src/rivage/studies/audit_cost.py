"""What an attack costs: seconds, memory at its peak, records put through a model."""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rivage.privacy.attack import Meter

__all__ = ["Cost", "Late", "Spent", "Watch"]

_STATUS = Path("/proc/self/statm")
_PERIOD_S = 0.01


@dataclass(frozen=True, slots=True)
class Spent:
    """Cost of one attack.

    Args:
        seconds: wall clock.
        peak_bytes: by which the resident memory of the process exceeded what it was at the start, sampled; None where
            the system does not tell.
        evaluations: records put through a model, forward or backward, each counted once.
    """

    seconds: float
    peak_bytes: int | None
    evaluations: int


class Late(BaseException):
    """The time of an audit is over; no error of the attack that runs, and not to be caught by it."""


@dataclass(slots=True)
class Watch(Meter):
    """A meter that looks at the clock.

    Args:
        evaluations: so far.
        ends: when, by the monotonic clock, it ends what counts.
    """

    ends: float = math.inf

    def count(self, records: int) -> None:
        """Add so many.

        Raises:
            Late: when time is over.
        """
        self.evaluations += records
        if time.monotonic() > self.ends:
            raise Late


class Cost:
    """Measures while it is entered, again and again; for one thread at a time."""

    def __init__(self) -> None:
        self.evaluations = 0
        self._seconds, self._peak = 0.0, 0
        self._before: int | None = None

    def __enter__(self) -> Self:
        self._started, self._before = time.perf_counter(), _resident()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._seconds += time.perf_counter() - self._started
        self._ended.set()
        self._watch.join()
        self._note()

    @property
    def spent(self) -> Spent:
        """What it was."""
        return Spent(self._seconds, None if self._before is None else self._peak, self.evaluations)

    def _look(self) -> None:
        while not self._ended.wait(_PERIOD_S):
            self._note()

    def _note(self) -> None:
        now = _resident()
        if now is not None and self._before is not None:
            self._peak = max(self._peak, now - self._before)


def _resident() -> int | None:
    try:
        return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None

"""Where does the time of a round of rivage go?

    python -m benchmarks.fedavg_speed.profile W1 [W2 …] [--rounds n] [--workers n] [--docs]

A timer interrupts the main thread every 0.2 ms and looks at what it is doing: the innermost function that belongs to
a *room* of the table below gets the time since the last look. So the shares are of wall-clock time, long operations of
torch count for the function that called them, and time spent waiting for workers counts for the room that waits.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from .replay import Replay
from .tables import PAGE, documents
from .workers.ours import Ours
from .workloads import WORKLOADS, prepare

__all__ = ["ROOMS", "Sampler", "rooms_of"]

PERIOD = 2e-4
WARM = 5
ROOMS: Sequence[tuple[str, str, str]] = (
    ("order, gather", r"federated/batches\.py|executors/packing\.py", ""),
    ("order, gather", r"executors/tiled\.py", r"^(__init__|steps|coefficients|weights|_join)$"),
    ("select", r"federated/cohorts\.py", ""),
    ("select", r"federated/", r"^(select|_require_sound)$"),
    ("data", r"fedavg_speed/workloads\.py|rivage/data/", ""),
    ("data", r"learning/task\.py", r"^(tensors|inputs)$"),
    ("start", r"federated/", r"^_?(broadcast|start)$"),
    ("training", r"federated/executors/", ""),
    ("training", r"learning/", ""),
    ("finish, faults", r"federated/", r"^(_?finish|fault_of)$"),
    ("aggregate", r"federated/(collectors|robust)\.py", ""),
    ("aggregate", r"federated/", r"^aggregate$"),
    ("record", r"federated/(checkpoint|exchange|memories)\.py|rivage/core/(?!philox|seeding)", ""),
    ("engine", r"federated/(engine|rounds)\.py", ""),
)
"""Room, pattern of the file, pattern of the function's name (empty: any); the first that fits a frame counts."""
ORDER = (*dict.fromkeys(room for room, _, _ in ROOMS), "elsewhere")
_PATTERNS = [(room, re.compile(path), re.compile(name)) for room, path, name in ROOMS]


class Sampler:
    """Adds up seconds by room while it is open; for the main thread.

    Attributes:
        seconds: by room.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._rooms: dict[Any, str | None] = {}
        self._last = 0.0

    def __enter__(self) -> Sampler:
        self._before = signal.signal(signal.SIGALRM, self._look)
        self._last = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, PERIOD, PERIOD)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _look(self, number: int, frame: FrameType | None) -> None:
        now = time.perf_counter()
        self.seconds[self._room(frame)] += now - self._last
        self._last = time.perf_counter()

    def _room(self, frame: FrameType | None) -> str:
        while frame is not None:
            code = frame.f_code
            if code not in self._rooms:
                self._rooms[code] = room_of(code.co_filename, code.co_name)
            if self._rooms[code] is not None:
                return str(self._rooms[code])
            frame = frame.f_back
        return "elsewhere"


def room_of(path: str, name: str) -> str | None:
    """The room of a function; None if it has none and its caller decides."""
    path = path.replace("\\", "/")
    return next((room for room, where, called in _PATTERNS if where.search(path) and called.search(name)), None)


def rooms_of(replay: Replay, variant: Mapping[str, Any], rounds: int) -> dict[str, float]:
    """Seconds per round by room, and ``round``: the median round while nobody looks."""
    contestant = Ours()
    contestant.setup(replay, variant)
    plain: list[float] = []
    for number in range(WARM + rounds):
        began = time.perf_counter()
        contestant.round(number)
        plain.append(time.perf_counter() - began)
    with Sampler() as sampler:
        for number in range(WARM + rounds, WARM + 2 * rounds):
            contestant.round(number)
    contestant.finish()
    found = {room: sampler.seconds.get(room, 0.0) / rounds for room in ORDER}
    return {**found, "round": statistics.median(plain[WARM:])}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Shares by room, a column per workload, and the round itself in milliseconds."""
    totals = {name: sum(rooms[room] for room in ORDER) for name, rooms in found.items()}
    rows = [(room, *(f"{100 * rooms[room] / totals[n]:.1f} %" for n, rooms in found.items())) for room in ORDER]
    rows.append(("a round", *(f"{1e3 * rooms['round']:.2f} ms" for rooms in found.values())))
    text: str = documents().markdown(("share of wall-clock time", *found), rows)
    return text


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fedavg_speed.profile", description=__doc__)
    parser.add_argument("workloads", nargs="+", choices=sorted(WORKLOADS))
    parser.add_argument("--rounds", type=int, help="as many as make some seconds by default")
    parser.add_argument("--workers", type=int, default=1, help="with more than one, the main thread mostly waits")
    parser.add_argument("--algorithm", default="fedavg")
    parser.add_argument("--docs", action="store_true", help="fill in the table of docs/explanation/engine-speed.md")
    options = parser.parse_args(words)
    found = {}
    for name in options.workloads:
        rounds = options.rounds or {"W1": 100, "W2": 20, "W3": 2, "W4": 5}.get(name, 20)
        with tempfile.TemporaryDirectory() as folder:
            replay = prepare(WORKLOADS[name][0], Path(folder), WARM + 2 * rounds)
            variant = {"workers": options.workers, "algorithm": options.algorithm}
            found[name] = rooms_of(replay, variant, rounds)
    print(table(found))
    if options.docs:
        documents().replace_table(PAGE, "engine-speed-rooms", table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

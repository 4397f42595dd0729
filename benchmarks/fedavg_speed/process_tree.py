"""CPU time and memory of this process and all that it started, from Linux' /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["cpu_seconds", "descendants", "helpers", "private_bytes"]

_LARGE = 32 * 2**20
_TICK = 1 / os.sysconf("SC_CLK_TCK")


def descendants() -> list[int]:
    """Processes that this one started, and those that they started."""
    found, todo = [], [os.getpid()]
    while todo:
        for task in _listed(Path("/proc") / str(todo.pop()) / "task"):
            children = [int(child) for child in _text(task / "children").split()]
            found += children
            todo += children
    return found


def cpu_seconds() -> float:
    """User and system time so far; of descendants in ticks of 10 ms, so add up many rounds."""
    return time.process_time() + sum(map(_ticks, descendants())) * _TICK


def private_bytes() -> int:
    """Memory that no file backs, each page counted once however many of the processes share it."""
    return sum(_proportional(pid) for pid in [os.getpid(), *descendants()])


def helpers() -> int:
    """Descendants with more than 32 MiB of their own: those that hold a model, not those that watch the others."""
    return sum(_proportional(pid) > _LARGE for pid in descendants())


def _ticks(pid: int) -> int:
    fields = _text(Path("/proc") / str(pid) / "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) if fields else 0  # its own, and of its children that ended


def _proportional(pid: int) -> int:
    lines = _text(Path("/proc") / str(pid) / "smaps_rollup").splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it has ended meanwhile
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""

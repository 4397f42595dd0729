"""Traces, contestants as processes, and plays in turn."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Lane", "here", "race", "write_trace"]

EXPONENT = 0.8
_READY = 120  # seconds for imports and compilation


@dataclass
class Lane:
    """One contestant at one size.

    Args:
        label: who.
        python: in whose environment.
        share: of the requests that it plays.
        plays: what the worker told of each.
        versions: of what takes part.
        fault: why it left; empty while it plays.
    """

    label: str
    python: str
    share: float = 1.0
    plays: list[dict[str, Any]] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""


def write_trace(folder: Path, items: int, requests: int, seed: int = 0) -> None:
    """Zipf requests for items in random order, for us and for libCacheSim; a hundredth of the items fits.

    The order is random because popular items that lie side by side would share cache lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    sums = np.cumsum(np.arange(1, items + 1) ** -EXPONENT)
    ranks = np.searchsorted(sums, random.random(requests) * sums[-1])
    numbers = random.permutation(items)[np.minimum(ranks, items - 1)]
    np.save(folder / "trace.npy", numbers)
    lines = np.zeros(requests, [("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    lines["id"], lines["size"], lines["next"] = numbers, 1, -1
    lines.tofile(folder / "trace.oracleGeneral")
    facts = {"items": items, "capacity": items // 100}
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


class _Worker:
    def __init__(self, lane: Lane, folder: Path) -> None:
        self.lane = lane
        command = [lane.python, str(Path(__file__).parent / "worker.py")]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        answer = self.ask({"label": lane.label, "folder": str(folder)}, _READY)
        lane.versions = answer.get("ready", {})

    def ask(self, question: Mapping[str, Any], patience: float) -> dict[str, Any]:
        """The answer; a contestant that fails or takes too long leaves the race."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            ready = select.select([self.process.stdout], [], [], patience)[0]
            line = self.process.stdout.readline() if ready else ""
        except BrokenPipeError:
            line = ""
            ready = [self.process.stdout]
        answer: dict[str, Any] = json.loads(line) if line else {"error": "ended" if ready else f"over {patience} s"}
        if "error" in answer:
            self.lane.fault = answer["error"]
            self.end()
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def race(
    lanes: Sequence[Lane], folder: Path, requests: int, plays: int, patience: float, tell: Callable[[str], None]
) -> None:
    """Let all play in turn, another one beginning each time, after a short play of each that does not count.

    Args:
        lanes: who; what they did is noted in them.
        folder: with the trace.
        requests: of the trace.
        plays: of each.
        patience: seconds for a play.
        tell: progress.
    """
    workers = []
    try:
        for lane in lanes:
            workers.append(_Worker(lane, folder))
            if not lane.fault:
                workers[-1].ask({"play": 1000}, patience)
        for number in range(plays):
            first = number % len(workers)
            for worker in [*workers[first:], *workers[:first]]:
                if not worker.lane.fault:
                    answer = worker.ask({"play": int(requests * worker.lane.share)}, patience)
                    if not worker.lane.fault:
                        worker.lane.plays.append(answer)
            tell(f"play {number + 1} of {plays}")
    finally:
        for worker in workers:
            worker.end()


def here() -> str:
    """Our own interpreter."""
    return sys.executable

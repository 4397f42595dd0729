"""Contestants side by side: their processes, and rounds played in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Entry", "Lane", "Plan", "race"]

_ABOVE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """Who takes part.

    Args:
        label: name in the results.
        module: of `workers`.
        variant: told to it at set-up.
        python: interpreter, this one's by default.
    """

    label: str
    module: str
    variant: Mapping[str, Any] = field(default_factory=dict)
    python: str = sys.executable


@dataclass(frozen=True)
class Plan:
    """Which rounds are played for what: first ``warm`` ones, then ``timed``, then ``watched`` for the memory.

    In each of its turns a contestant plays up to ``turn`` rounds of one sort.
    """

    warm: int
    timed: int
    watched: int
    turn: int = 1

    @property
    def rounds(self) -> int:
        """All of them."""
        return self.warm + self.timed + self.watched

    def turns(self) -> Iterator[tuple[str, int, int]]:
        """What each turn is for, its first round, and the one after its last."""
        start = 0
        for purpose in ("warm", "timed", "watched"):
            end = start + getattr(self, purpose)
            for first in range(start, end, self.turn):
                yield purpose, first, min(first + self.turn, end)
            start = end


class Lane:
    """One contestant of a race, in its own process.

    Attributes:
        seconds: per round, of each timed turn.
        cpu_seconds: alike.
        end: what it replied at the end.
        parameters: where it ended.
        fault: why it has left the race; empty while it takes part.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.versions: dict[str, str] = {}
        self.end: dict[str, Any] = {}
        self.parameters: np.ndarray | None = None
        self.fault = ""
        self._process = subprocess.Popen(
            [entry.python, "-m", f"{__package__.rpartition('.')[2]}.workers.{entry.module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("FEDAVG_SPEED_LOUD") else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ABOVE), os.environ.get("PYTHONPATH", "")])},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request; a contestant that fails is out, with the reason."""
        if self.fault:
            return {}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        answer = json.loads(line) if line else {"error": f"it ended with code {self._process.wait()}"}
        if "error" in answer:
            self.fault = answer["error"].strip()
            self._process.kill()
            self._process.wait()
        return dict(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def race(
    entries: Sequence[Entry], workload: Path, plan: Plan, ends: Path, tell: Callable[[str], None]
) -> dict[str, Lane]:
    """Play all rounds of the plan with every entry, which take turns, another one beginning each time.

    Args:
        entries: who takes part.
        workload: folder of a `Replay`.
        plan: how many rounds.
        ends: folder for final parameters.
        tell: called with a line of progress.
    """
    lanes = [Lane(entry) for entry in entries]
    try:
        for lane in lanes:
            lane.versions = lane.ask(setup=str(workload), variant=dict(lane.entry.variant)).get("ready", {})
            tell(f"{lane.entry.label}: {lane.fault.splitlines()[-1] if lane.fault else 'ready'}")
        for number, (purpose, first, end) in enumerate(plan.turns()):
            _turn(lanes, number, purpose, first, end)
            tell(f"round {end} of {plan.rounds}")
        for place, lane in enumerate(lanes):
            lane.end = lane.ask(finish=str(ends / f"{place}.npy"))
            lane.parameters = None if lane.fault else np.load(lane.end["parameters"])
    finally:
        for lane in lanes:
            lane.close()
    return {lane.entry.label: lane for lane in lanes}


def _turn(lanes: Sequence[Lane], number: int, purpose: str, first: int, end: int) -> None:
    opening = number % len(lanes)
    for lane in [*lanes[opening:], *lanes[:opening]]:
        answer = lane.ask(rounds=[first, end], watch=purpose == "watched")
        if purpose == "timed" and not lane.fault:
            lane.seconds.append(answer["seconds"] / (end - first))
            lane.cpu_seconds.append(answer["cpu_seconds"] / (end - first))

"""Checkpoints that all silos have in common.

All silos write one after the same rounds, and nobody goes on before all have. Silo 0 writes last, and with it the
record of the run, so what it has all have. A process killed in between leaves some silos one checkpoint further: each
keeps its last two, and takes up the one that silo 0 has.
"""

from __future__ import annotations

from typing import Any

from rivage.federated.checkpoint import Snapshot

__all__ = ["joined", "picked"]

_NOW, _BEFORE = "now", "before"


def joined(now: Snapshot, before: Snapshot | None) -> Snapshot:
    """Two checkpoints as one, which is written at once."""
    parts = {_NOW: now} if before is None else {_NOW: now, _BEFORE: before}
    state = {f"{which}/{name}": value for which, part in parts.items() for name, value in part.state.items()}
    extra: dict[str, Any] = {which: {"rounds": part.rounds, "extra": dict(part.extra)} for which, part in parts.items()}
    return Snapshot(now.rounds, state, extra)


def picked(both: Snapshot | None, rounds: int) -> Snapshot | None:
    """The one after so many rounds; None if it is not among them."""
    if both is None:
        return None
    for which, facts in both.extra.items():
        if facts["rounds"] == rounds:
            start = f"{which}/"
            state = {name.removeprefix(start): value for name, value in both.state.items() if name.startswith(start)}
            return Snapshot(rounds, state, facts["extra"])
    return None

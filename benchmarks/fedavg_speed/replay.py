"""A workload as files: data, first parameters, and who trains on which rows in which round.

Needs NumPy only: contestants with their own environments read it as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Replay", "Settings", "Turn", "write"]

Turn = tuple[int, list[np.ndarray]]
"""A client of a cohort and its mini-batches, as positions among its records."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a workload asks of everyone.

    Args:
        name: W1 … W4.
        model: ``linear``, ``mlp``, ``cnn`` or ``char_lstm``.
        options: of the model.
        input_shape: of one record.
        classes: classes, or symbols of ``char_lstm``.
        cohort: clients per round.
        batch_size: records per step.
        epochs: passes over the records, where ``updates`` is None.
        updates: steps.
        learning_rate: of plain SGD.
        seed: root of all random streams.
    """

    name: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...]
    classes: int
    cohort: int
    batch_size: int
    epochs: int = 1
    updates: int | None = None
    learning_rate: float
    seed: int = 0


class Replay:
    """A workload read back.

    Args:
        folder: as written by `write`.

    Attributes:
        folder: where it was read from.
        settings: what is asked.
        x: inputs of all records, client after client.
        y: targets, alike.
        offsets: where each client's records begin, and the end.
        initial: parameters before round 0, flat, in torch's order.
        cohorts: ``[rounds, cohort]`` client ids.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        facts = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.settings = Settings(**{**facts, "input_shape": tuple(facts["input_shape"])})
        self.x, self.y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
        with np.load(folder / "schedule.npz") as schedule:
            self.offsets, self.initial, self.cohorts = (schedule[name] for name in ("offsets", "initial", "cohorts"))
            self._rows, self._batches, self._turns = (schedule[name] for name in ("rows", "batches", "turns"))

    @property
    def rounds(self) -> int:
        """Rounds that are written down."""
        return len(self.cohorts)

    @property
    def clients(self) -> int:
        """Registered clients."""
        return len(self.offsets) - 1

    @property
    def data_bytes(self) -> int:
        """Size of one copy of the records."""
        return self.x.nbytes + self.y.nbytes

    def records(self, client: int) -> tuple[np.ndarray, np.ndarray]:
        """A client's inputs and targets, as views."""
        span = slice(self.offsets[client], self.offsets[client + 1])
        return self.x[span], self.y[span]

    def turns(self, number: int) -> Iterator[Turn]:
        """The clients of a round with their mini-batches, in order."""
        for place, client in enumerate(self.cohorts[number].tolist()):
            first, last = self._turns[number * self.cohorts.shape[1] + place :][:2]
            yield client, [self._rows[begin:end] for begin, end in zip(
                self._batches[first:last], self._batches[first + 1 : last + 1], strict=True
            )]  # fmt: skip

    def order(self, number: int) -> dict[int, np.ndarray]:
        """The clients of a round with the rows they train on, one after the other."""
        return {client: np.concatenate(rows) for client, rows in self.turns(number)}


def write(
    folder: Path,
    settings: Settings,
    records: tuple[np.ndarray, np.ndarray, np.ndarray],
    initial: np.ndarray,
    rounds: Sequence[Sequence[Turn]],
) -> None:
    """Write a workload.

    Args:
        folder: made if missing.
        settings: what is asked.
        records: x, y and offsets as in `Replay`.
        initial: first parameters.
        rounds: for each round its clients and their mini-batches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    x, y, offsets = records
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    turns = [rows for turn in rounds for _, rows in turn]
    batches = [rows for turn in turns for rows in turn]
    np.savez(
        folder / "schedule.npz",
        offsets=offsets,
        initial=initial,
        cohorts=np.array([[client for client, _ in turn] for turn in rounds]),
        rows=np.concatenate(batches),
        batches=np.cumsum([0, *map(len, batches)]),
        turns=np.cumsum([0, *map(len, turns)]),
    )
    (folder / "settings.json").write_text(json.dumps(asdict(settings)), encoding="utf-8")

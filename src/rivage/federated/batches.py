"""Which records stand in which mini-batch: pure functions of (seed, client, round, epoch, position).

Any round of any client replays alone. `shuffle` and `poisson` depend on the round; `endless` does not: its passes
follow one another over rounds, and the place where it stopped is kept in client memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt32
from numpy import ndarray

from rivage.core.philox import philox4x32
from rivage.federated.algorithm import Phase

__all__ = ["Position", "Rows", "Shuffler", "batches"]

Rows = Int64[ndarray, "batch"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where an endless loader stands: its pass over the records and the next position within it."""

    passes: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Shuffler:
    """Random words and orders of one client's records.

    Args:
        seed: 64-bit key of the run and the phase.
        client: whose records.
    """

    seed: int
    client: int

    def words(self, records: int, a: int, b: int) -> UInt32[ndarray, "records"]:
        """One random word per record, keyed by (seed, client, a, b)."""
        place = np.array([self.client & 0xFFFFFFFF, self.client >> 32, a, b], np.uint32)
        block = philox4x32(place, (self.seed & 0xFFFFFFFF, self.seed >> 32))
        counter = np.zeros((-(-records // 4), 4), np.uint32)
        counter[:, 0] = np.arange(len(counter))
        return philox4x32(counter, (int(block[0]), int(block[1]))).reshape(-1)[:records]

    def order(self, records: int, a: int, b: int) -> Int64[ndarray, "records"]:
        """A random permutation of the records."""
        return np.argsort(self.words(records, a, b), kind="stable")


def batches(
    phase: Phase, records: int, shuffler: Shuffler, round: int, position: Position
) -> tuple[list[Rows], Position]:
    """The mini-batches of one client in one phase, as row positions, and where an endless loader stops.

    A partial last batch of a pass is kept. A client without records has no batch.

    Args:
        phase: what is asked for.
        records: number of training records.
        shuffler: the client's random orders.
        round: current round.
        position: where an endless loader stands; returned unchanged by the other kinds.
    """
    if records == 0:
        return [], position
    size = min(phase.batch_size or records, records)
    if phase.batches == "endless":
        return _endless(phase, records, size, shuffler, position)
    per_pass = -(-records // size)
    steps = phase.epochs * per_pass if phase.updates is None else phase.updates
    if phase.batches == "poisson":
        threshold = round_to_word(size / records)
        return [np.flatnonzero(shuffler.words(records, round, step) < threshold) for step in range(steps)], position
    passes = (shuffler.order(records, round, epoch) for epoch in range(-(-steps // per_pass)))
    rows = [order[i : i + size] for order in passes for i in range(0, records, size)]
    return rows[:steps], position


def round_to_word(probability: float) -> int:
    """The threshold below which a 32-bit word falls with this probability."""
    return round(probability * 2**32)


def _endless(
    phase: Phase, records: int, size: int, shuffler: Shuffler, position: Position
) -> tuple[list[Rows], Position]:
    source = _passes(records, size, shuffler, position)
    rows: list[Rows] = []
    for _ in range(phase.updates or 0):
        batch, position = next(source)
        rows.append(batch)
    return rows, position


def _passes(records: int, size: int, shuffler: Shuffler, position: Position) -> Iterator[tuple[Rows, Position]]:
    passes, start = position.passes, position.position
    while True:
        order = shuffler.order(records, passes, 0)
        while start < records:
            end = start + size
            after = Position(passes, end) if end < records else Position(passes + 1, 0)
            yield order[start:end], after
            start = end
        passes, start = passes + 1, 0

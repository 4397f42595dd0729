"""Which records stand in which mini-batch: pure functions of (seed, client, round, epoch, position).

Any round of any client replays alone. `shuffle` and `poisson` depend on the round; `endless` does not: its passes
follow one another over rounds, and the place where it stopped is kept in client memory.

The shuffled orders of a whole cohort are drawn in one go; a client's own never depends on who else is in it. Poisson
batches take O(records × steps) time, since every record is drawn for every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt32
from numpy import ndarray

from rivage.core.philox import philox4x32
from rivage.federated.algorithm import Phase

__all__ = ["Batches", "Position", "batches", "orders", "within"]

Flat = Int64[ndarray, "rows"]
_DRAWN = 1 << 18  # words of Poisson batches drawn at a time


@dataclass(frozen=True, slots=True)
class Position:
    """Where an endless loader stands: its pass over the records and the next position within it."""

    passes: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Batches:
    """The mini-batches of one client in one phase.

    Args:
        rows: row positions of all batches, one after the other.
        sizes: rows of each batch; a Poisson batch may be empty.
    """

    rows: Flat
    sizes: Int64[ndarray, "steps"]

    def split(self) -> list[Flat]:
        """The rows of each batch."""
        return np.split(self.rows, np.cumsum(self.sizes)[:-1]) if len(self.sizes) else []


_NOTHING = Batches(np.empty(0, np.int64), np.empty(0, np.int64))


def batches(
    phase: Phase,
    seed: int,
    clients: Sequence[int],
    records: Sequence[int],
    round: int,
    positions: Sequence[Position],
) -> list[tuple[Batches, Position]]:
    """The mini-batches of a cohort in one phase, and where each endless loader stops.

    A partial last batch of a pass is kept. A client without records has no batch.

    Args:
        phase: what is asked for.
        seed: 64-bit key of the run and the phase.
        clients: whose records.
        records: number of training records of each.
        round: current round.
        positions: where each endless loader stands; returned unchanged by the other kinds.
    """
    if phase.batches == "endless":
        return [_endless(phase, seed, *one) for one in zip(clients, records, positions, strict=True)]
    if phase.batches == "poisson":
        drawn = [_poisson(phase, seed, c, n, round) for c, n in zip(clients, records, strict=True)]
    else:
        drawn = _shuffled(phase, seed, clients, records, round) if clients else []
    return list(zip(drawn, positions, strict=True))


def orders(seed: int, clients: Flat, records: Flat, a: Flat, b: Flat) -> Flat:
    """A random permutation of the records for each (client, a, b), one after the other.

    Records are sorted by a random word each, ties by their row. A handful of array operations for all together.
    """
    words, rows = _words(seed, clients, records, a, b).astype(np.uint64), within(records)
    bits = int(records.max(initial=1) - 1).bit_length()
    if bits + (len(clients) - 1).bit_length() <= 32:  # segment, word and row fit one sortable number
        segment = np.repeat(np.arange(len(clients), dtype=np.uint64), records)
        key = (segment << np.uint64(32 + bits)) | (words << np.uint64(bits)) | rows.astype(np.uint64)
        key.sort()
        return (key & np.uint64((1 << bits) - 1)).astype(np.int64)
    parts = np.split(words, np.cumsum(records)[:-1])
    return np.concatenate([np.argsort(part, kind="stable") for part in parts])


def _words(seed: int, clients: Flat, records: Flat, a: Flat, b: Flat) -> UInt32[ndarray, "rows"]:
    """One random word per record of each (client, a, b)."""
    place = np.stack([clients & 0xFFFFFFFF, clients >> 32, a, b], axis=1).astype(np.uint32)
    keys = philox4x32(place, (seed & 0xFFFFFFFF, seed >> 32))
    blocks = -(-records // 4)
    owner = np.repeat(np.arange(len(clients)), blocks)
    counter = np.zeros((len(owner), 4), np.uint32)
    counter[:, 0] = within(blocks)
    words = philox4x32(counter, (keys[owner, 0], keys[owner, 1])).reshape(-1)
    taken: UInt32[ndarray, "rows"] = words[within(4 * blocks) < np.repeat(records, 4 * blocks)]
    return taken


def within(sizes: Flat) -> Flat:
    """0, 1, … within each segment."""
    position: Flat = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return position


def _shuffled(phase: Phase, seed: int, clients: Sequence[int], records: Sequence[int], round: int) -> list[Batches]:
    shapes = [_shape(n, phase.batch_size, phase.epochs, phase.updates) for n in records]
    passes = np.array([-(-used // max(n, 1)) for (_, used), n in zip(shapes, records, strict=True)], np.int64)
    owner = np.repeat(np.arange(len(clients)), passes)
    counts = np.asarray(records, np.int64)[owner]
    flat = orders(seed, np.asarray(clients, np.int64)[owner], counts, np.full(len(owner), round), within(passes))
    drawn = passes * np.asarray(records, np.int64)
    starts = (np.cumsum(drawn) - drawn).tolist()
    return [Batches(flat[start : start + used], sizes) for start, (sizes, used) in zip(starts, shapes, strict=True)]


@lru_cache(maxsize=4096)
def _shape(
    records: int, batch_size: int | None, epochs: int, updates: int | None
) -> tuple[Int64[ndarray, "steps"], int]:
    """Rows of each batch of so many passes or steps, and their sum."""
    size = min(batch_size or records, records)
    if not size:
        return np.empty(0, np.int64), 0
    one = [size] * (records // size) + [records % size] * bool(records % size)
    steps = epochs * len(one) if updates is None else updates
    sizes = np.array(one * -(-steps // len(one)), np.int64)[:steps]
    sizes.flags.writeable = False
    return sizes, int(sizes.sum())


def _poisson(phase: Phase, seed: int, client: int, records: int, round: int) -> Batches:
    if not records:
        return _NOTHING
    size = min(phase.batch_size or records, records)
    steps = phase.epochs * -(-records // size) if phase.updates is None else phase.updates
    rows: list[Flat] = []
    sizes: list[Flat] = []
    some = max(1, _DRAWN // records)
    for step in (np.arange(first, min(first + some, steps)) for first in range(0, steps, some)):
        words = _words(seed, np.full(len(step), client), np.full(len(step), records), np.full(len(step), round), step)
        taken = words.reshape(len(step), records) < round_to_word(size / records)
        rows.append(np.nonzero(taken)[1])
        sizes.append(taken.sum(axis=1))
    return Batches(np.concatenate(rows), np.concatenate(sizes)) if steps else _NOTHING


def round_to_word(probability: float) -> int:
    """The threshold below which a 32-bit word falls with this probability."""
    return round(probability * 2**32)


def _endless(phase: Phase, seed: int, client: int, records: int, position: Position) -> tuple[Batches, Position]:
    if not records:
        return _NOTHING, position
    size = min(phase.batch_size or records, records)
    rows: list[Flat] = []
    order, held = np.empty(0, np.int64), -1
    for _ in range(phase.updates or 0):
        if position.position >= records:  # the client has lost records since
            position = Position(position.passes + 1, 0)
        if held != position.passes:
            held = position.passes
            order = orders(seed, *(np.array([value]) for value in (client, records, held, 0)))
        end = position.position + size
        rows.append(order[position.position : end])
        position = Position(held, end) if end < records else Position(held + 1, 0)
    flat = np.concatenate(rows) if rows else np.empty(0, np.int64)
    return Batches(flat, np.array([len(batch) for batch in rows], np.int64)), position

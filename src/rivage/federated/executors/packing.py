"""The order in which a tile uses its records.

Steps follow one another; within a step stand the active rows, each with ``batch`` places, of which a partial batch
leaves the last ones empty. Rows are sorted by falling number of steps, so that the active ones are a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.federated.batches import within
from rivage.federated.executors.jobs import Job

__all__ = ["Packed", "pack"]


@dataclass(frozen=True, slots=True)
class Packed:
    """Where each record stands.

    Args:
        index: record at every place, counted over the tile's clients one after the other; an empty place
            repeats a record of its batch, so that what is wrong with a record harms nobody else.
        places: the places that are not empty, row by row and batch by batch.
        sizes: records of each batch, in the same order.
        active: rows with a batch, by step.
        starts: first place of each step, and the number of places.
        batch: places per row and step.
    """

    index: Int64[ndarray, "places"]
    places: Int64[ndarray, "used"]
    sizes: Int64[ndarray, "batches"]
    active: list[int]
    starts: list[int]
    batch: int


def pack(rows: Sequence[Job], jobs: Sequence[Job]) -> Packed:
    """Lay out the batches of ``rows``, sorted by falling number of steps, whose records are those of ``jobs`` in turn.

    O(places), a few array operations and one list step per row.
    """
    ends = np.cumsum([len(job.samples) for job in jobs])
    offset = {id(job): int(end) - len(job.samples) for job, end in zip(jobs, ends, strict=True)}
    steps = np.array([len(job.batches.sizes) for job in rows])
    sizes = np.concatenate([job.batches.sizes for job in rows])
    records = np.concatenate([job.batches.rows + offset[id(job)] for job in rows])
    batch = max(int(sizes.max(initial=0)), 1)
    active = len(rows) - np.searchsorted(steps[::-1], np.arange(steps[0]), side="right")
    starts = np.concatenate([[0], np.cumsum(active * batch)])
    first = starts[within(steps)] + np.repeat(np.arange(len(rows)), steps) * batch  # place of each batch
    places = np.repeat(first, sizes) + within(sizes)
    index = np.empty(starts[-1], np.int64)
    fillers = np.repeat([offset[id(job)] for job in rows], steps)
    fillers[sizes > 0] = records[(np.cumsum(sizes) - sizes)[sizes > 0]]
    index[first[:, None] + np.arange(batch)] = fillers[:, None]
    index[places] = records
    return Packed(index, places, sizes, active.tolist(), starts.tolist(), batch)

"""The noise of record-level differential privacy, as both executors draw it.

Every model of every client has a generator of its own in every phase, keyed by (streams, round, client, phase, group):
what it draws depends neither on who else is trained nor on how the work is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rivage.federated.algorithm import Phase
from rivage.federated.executors.jobs import Job, expected
from rivage.learning.params import from_numpy

__all__ = ["Noise"]


class Noise:
    """What is added to each gradient of one model of one client; false where the phase has no noise.

    The sum of a batch gets N(0, (noise · clip)²) per coordinate and is then divided by the expected batch size. The
    norm of a record is bounded over all groups together, so the deviation is the same for every group.

    Args:
        phase: how it learns.
        job: whose it is; its noise is set.
        group: which model.
        shapes: of the parameters that learn, in order.
        like: of the dtype and on the device that are wanted.
    """

    def __init__(self, phase: Phase, job: Job, group: int, shapes: Sequence[tuple[int, ...]], like: Tensor) -> None:
        self._generator: np.random.Generator | None = None
        if phase.noise is None or phase.clip is None:
            return
        assert job.noise is not None, "the executor sets it"
        # Not torch's generator: it keeps 32 bits of a seed, and two clients must never get the same noise.
        self._generator = job.noise.numpy(group)
        self._deviation = phase.noise * phase.clip / expected(phase, len(job.samples))
        self._shapes = shapes
        self._sizes = [math.prod(shape) for shape in shapes]
        self._dtype, self._device = like.dtype, like.device

    def __bool__(self) -> bool:
        return self._generator is not None

    def draw(self) -> list[Tensor]:
        """The noise of the next gradient, by parameter."""
        assert self._generator is not None
        numbers = self._generator.standard_normal(sum(self._sizes)) * self._deviation
        parts = torch.split(from_numpy(numbers, dtype=self._dtype, device=self._device), self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

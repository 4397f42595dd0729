"""What an executor is given to train, and what both kinds of executors share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Samples
from rivage.federated.algorithm import Algorithm, Local, Phase
from rivage.federated.batches import Batches, Position
from rivage.learning.params import ParameterMap

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Job", "chosen", "expected", "joint_update", "named", "one_thread", "strength_of"]

_NO_BATCH = Batches(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(slots=True)
class Job:
    """One client's training.

    Args:
        client: its number, which keys its batches.
        local: what to train; filled in place.
        samples: the training records.
        position: where the client's endless loader stands; advanced in place.
        batches: of the phase that is being run (filled by the executor).
        noise: streams of the noise of that phase, for phases with noise (filled by the executor).
    """

    client: int
    local: Local
    samples: Samples
    position: Position = Position()
    batches: Batches = _NO_BATCH
    noise: Streams | None = None


def named(phase: Phase, task: Task) -> Phase:
    """The phase with the names of the model's parameters in place of ``@head`` and ``@body``.

    Raises:
        ConfigError: for a body that has nothing to train.
    """
    if not {"@head", "@body"} & set(phase.train):
        return phase
    learns = [entry.name for entry in task.layout.entries if entry.offset < task.layout.trainable]
    body = tuple(name for name in learns if name not in task.head)
    if "@body" in phase.train and not body:
        raise ConfigError(
            "the model has no body to train: all its parameters are its head",
            where="work.train",
            mend="Take a model with a layer before the last one, or another method.",
        )
    parts = {"@head": task.head, "@body": body}
    return replace(phase, train=tuple(name for part in phase.train for name in parts.get(part, (part,))))


def chosen(layout: ParameterMap, phase: Phase) -> tuple[int, ...]:
    """Positions among the layout's entries of the parameters that learn in this phase.

    Raises:
        ConfigError: if ``train`` names nothing that can learn.
    """
    names = [entry.name for entry in layout.entries if entry.offset < layout.trainable]
    if not phase.train:
        return tuple(range(len(names)))
    within = tuple(f"{prefix.removesuffix('.')}." for prefix in phase.train)  # "body" is not "body2"
    found = tuple(i for i, name in enumerate(names) if f"{name}.".startswith(within))
    if not found:
        raise ConfigError(
            f"no parameter name starts with {' or '.join(phase.train)}",
            where="work.train",
            mend=f"The model has {', '.join(names)}.",
        )
    return found


def expected(phase: Phase, records: int) -> int:
    """The batch size that is meant, whatever a batch really has."""
    return min(phase.batch_size or records, records)


def strength_of(local: Local, group: int) -> float:
    """How strongly one group is pulled; 0 without a pull."""
    if local.pull is None:
        return 0.0
    strength = local.pull.strength
    return float(strength if isinstance(strength, int | float) else strength[group])


def joint_update(
    algorithm: Algorithm,
    local: Local,
    extra: dict[str, Tensor],
    params: Tensor,
    gradient: Callable[[Tensor], Tensor],
    mask: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of an algorithm that sees all groups at once.

    Args:
        algorithm: has `step`, or `correct`.
        local: whose pull, drift and rate count; stacked where ``params`` is.
        extra: its tensors.
        params: ``[..., groups, D]``.
        gradient: of the current batch; zero where nothing learns.
        mask: 1 where something learns, 0 elsewhere, ``[D]``; None where all does.
    """
    if hasattr(algorithm, "step"):
        result: tuple[Tensor, dict[str, Tensor]] = algorithm.step(extra, params, gradient, local.rate)
        return result
    direction = algorithm.correct(extra, params, gradient(params))  # type: ignore[attr-defined]
    if local.pull is not None:
        direction = direction + local.pull.strength * (params - local.pull.anchor)
    if local.drift is not None:
        direction = direction + local.drift
    return params - local.rate * (direction if mask is None else direction * mask), extra


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside the block.

    Small steps lose time on several threads, and sums must not depend on their number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

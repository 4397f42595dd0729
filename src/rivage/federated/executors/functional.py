"""The plain executor: any module, one client at a time.

One module is reused for all clients; its parameters are views of one flat vector, so loading a client is one copy.
Every step descends along

    Σ_i q_i ∇ℓ_i(w) / |batch|  +  strength · (w − anchor)  +  drift

where the pull and the drift see the parameters before the step. Buffers (the tail of the vector) are written by the
module itself and never pulled, drifted or corrected.

Groups of a job are trained one after the other, unless the algorithm brings its own `step` or `correct`, which see
all groups at once.

Small steps lose time on several threads, and sums must not depend on their number: callers hold `one_thread`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Samples
from rivage.federated.algorithm import Algorithm, Corrects, Local, LocalWork, Phase, Steps
from rivage.federated.batches import Position, Shuffler, batches
from rivage.learning.task import Task

__all__ = ["Functional", "Job", "one_thread"]

_CHUNK = 1024  # records per forward pass without gradients: bounds the memory of their activations


@dataclass(slots=True)
class Job:
    """One client's training.

    Args:
        client: its number, which keys its batches.
        local: what to train; filled in place.
        samples: the training records.
        position: where the client's endless loader stands; advanced in place.
    """

    client: int
    local: Local
    samples: Samples
    position: Position = Position()


class Functional:
    """Trains jobs in this process.

    Args:
        task: what is learnt.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.bound = task.bind()
        self._keys: dict[tuple[Streams, int], int] = {}

    def losses(self, params: Float[Tensor, "groups dim"], samples: Samples) -> Float[Tensor, "records groups"]:
        """Loss of every record under every group's parameters, in evaluation mode, without gradients."""
        x, y = self.task.tensors(samples)
        self.bound.module.eval()
        columns = []
        with torch.no_grad():
            for row in params:
                self.bound.load(row)
                parts = zip(torch.split(x, _CHUNK), torch.split(y, _CHUNK), strict=True)
                columns.append(torch.cat([self.bound.losses(*part) for part in parts]))
        return torch.stack(columns, dim=1)

    def predictions(self, params: Float[Tensor, "dim"], x: Tensor) -> Float[Tensor, "records *output"]:
        """What one model predicts, without gradients."""
        self.bound.load(params)
        return torch.cat([self.bound.predictions(part) for part in torch.split(x, _CHUNK)])

    def train(self, algorithm: Algorithm, work: LocalWork, jobs: Sequence[Job], streams: Streams, round: int) -> None:
        """Run ``work`` on every job, in place: what the executor fills of its `Local`, and the loader's position.

        Results depend on (streams, client, round) only, never on the other jobs.
        """
        keys = [self._key(streams, number) for number in range(len(work.phases))]
        with torch.no_grad():
            self.bound.module.train()
            for job in jobs:
                with self._noise(streams, round, job.client):
                    self._train(algorithm, work, job, keys, round)

    def _key(self, streams: Streams, phase: int) -> int:
        """Key of a phase's batches, the same in every round: deriving it costs as much as a small step."""
        if (streams, phase) not in self._keys:
            self._keys[streams, phase] = streams.seed("batches", phase)
        return self._keys[streams, phase]

    @contextmanager
    def _noise(self, streams: Streams, round: int, client: int) -> Iterator[None]:
        """Layers such as dropout draw from torch's global generator: lend it to them and put it back."""
        if not self.bound.stochastic:
            yield
            return
        device = self.task.device
        generator = (
            torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
        )
        before = generator.get_state()
        generator.manual_seed(streams.seed("noise", round, client))
        try:
            yield
        finally:
            generator.set_state(before)

    def _train(self, algorithm: Algorithm, work: LocalWork, job: Job, keys: Sequence[int], round: int) -> None:
        local = job.local
        local.params = local.params.clone()  # the broadcast is shared by the cohort
        local.records, local.rate = len(job.samples), work.learning_rate
        x, y = self.task.tensors(job.samples)
        joint = hasattr(algorithm, "step") or hasattr(algorithm, "correct")  # isinstance on a protocol costs 20 µs
        for phase, key in zip(work.phases, keys, strict=True):
            rows, job.position = batches(phase, len(job.samples), Shuffler(key, job.client), round, job.position)
            steps = [torch.from_numpy(batch).to(x.device) for batch in rows]
            local.steps += len(steps)
            if joint:
                self._joint(cast("Corrects | Steps", algorithm), phase, local, x, y, steps)
            else:
                self._separate(phase, local, x, y, steps)

    def _separate(self, phase: Phase, local: Local, x: Tensor, y: Tensor, steps: Sequence[Tensor]) -> None:
        trained, spans = self._trained(phase), self._spans(phase)
        for group, params in enumerate(local.params):
            self.bound.load(params)
            for rows in steps:
                gradients = self._gradients(trained, phase, local, group, x, y, rows)
                for span in spans:
                    self._signals(self.bound.vector[span], span, local, group)
                torch._foreach_add_(trained, gradients, alpha=-local.rate)
            params.copy_(self.bound.vector)

    @staticmethod
    def _signals(part: Tensor, span: slice, local: Local, group: int) -> None:
        """Pull and drift on one stretch of the vector; the pull comes first, it needs the old parameters."""
        if local.pull is not None:
            strength = local.pull.strength
            strength = strength if isinstance(strength, int | float) else float(strength[group])
            part.lerp_(_row(local.pull.anchor, group)[span], local.rate * strength)
        if local.drift is not None:
            part.add_(_row(local.drift, group)[span], alpha=-local.rate)

    def _joint(
        self,
        algorithm: Corrects | Steps,
        phase: Phase,
        local: Local,
        x: Tensor,
        y: Tensor,
        steps: Sequence[Tensor],
    ) -> None:
        for rows in steps:

            def gradient(params: Tensor, rows: Tensor = rows) -> Tensor:
                return self._joint_gradient(phase, local, params, x, y, rows)

            if hasattr(algorithm, "step"):
                local.params, local.extra = algorithm.step(local.extra, local.params, gradient, local.rate)
                continue
            direction = algorithm.correct(local.extra, local.params, gradient(local.params))
            for group, params in enumerate(local.params):
                for span in self._spans(phase):
                    self._signals(params[span], span, local, group)
                    params[span].add_(direction[group, span], alpha=-local.rate)

    def _joint_gradient(self, phase: Phase, local: Local, params: Tensor, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Gradient of every group on one batch; buffers move in ``params``, their gradient is zero."""
        trained, size = self._trained(phase), self.task.layout.trainable
        result = torch.zeros_like(params)
        for group, vector in enumerate(params):
            self.bound.load(vector)
            gradients = self._gradients(trained, phase, local, group, x, y, rows)
            for view, value in zip(self._views(result[group], phase), gradients, strict=True):
                view.copy_(value)
            vector[size:] = self.bound.vector[size:]
        return result

    def _gradients(
        self,
        trained: Sequence[Tensor],
        phase: Phase,
        local: Local,
        group: int,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
    ) -> tuple[Tensor, ...]:
        if len(rows) == 0:  # an empty Poisson batch has no gradient, but the step counts
            return tuple(torch.zeros_like(parameter) for parameter in trained)
        local.gradients += len(rows)
        divisor = len(rows) if phase.denominator == "rows" else min(phase.batch_size or len(x), len(x))
        with torch.enable_grad():
            losses = self.bound.losses(x.index_select(0, rows), y.index_select(0, rows))
        shares = losses.new_full((len(rows),), 1 / divisor)  # d(objective) / d(loss of each record)
        if local.weights is not None:
            shares *= local.weights.index_select(0, rows)[:, group]
        return torch.autograd.grad(losses, trained, shares, allow_unused=True, materialize_grads=True)

    def _trained(self, phase: Phase) -> list[Tensor]:
        return [self.bound.parameters[i] for i in self._chosen(phase)]

    def _views(self, flat: Tensor, phase: Phase) -> list[Tensor]:
        chosen = [self.task.layout.entries[i] for i in self._chosen(phase)]
        return [flat[entry.span].view(entry.shape) for entry in chosen]

    def _spans(self, phase: Phase) -> list[slice]:
        """The stretches of the vector that learn in this phase."""
        if not phase.train:
            return [slice(0, self.task.layout.trainable)]
        return [self.task.layout.entries[i].span for i in self._chosen(phase)]

    def _chosen(self, phase: Phase) -> list[int]:
        """Positions of the parameters that learn in this phase."""
        names = [entry.name for entry in self.task.layout.entries if entry.offset < self.task.layout.trainable]
        if not phase.train:
            return list(range(len(names)))
        within = tuple(f"{prefix.removesuffix('.')}." for prefix in phase.train)  # "body" is not "body2"
        chosen = [i for i, name in enumerate(names) if f"{name}.".startswith(within)]
        if not chosen:
            raise ConfigError(
                f"no parameter name starts with {' or '.join(phase.train)}",
                where="work.train",
                mend=f"The model has {', '.join(names)}.",
            )
        return chosen


def _row(stack: Tensor, group: int) -> Tensor:
    return stack if stack.dim() == 1 else stack[min(group, len(stack) - 1)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

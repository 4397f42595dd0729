"""The plain executor: any module, one client at a time.

One module is reused for all clients; its parameters are views of one flat vector, so loading a client is one copy.
Every step descends along

    Σ_i q_i ∇ℓ_i(w) / |batch|  +  strength · (w − anchor)  +  drift

where the pull and the drift see the parameters before the step, and with `Phase.clip` each q_i ∇ℓ_i is first scaled
down to that norm. With `Phase.noise` those that are not finite are 0, and their sum gets its noise. Buffers (the tail
of the vector) are written by the module itself and never pulled, drifted or corrected. Groups of a job are trained one
after the other, unless the algorithm brings its own `step` or `correct`, which see all groups at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rivage.core.errors import ConfigError
from rivage.federated.algorithm import Algorithm, Phase
from rivage.federated.executors.jobs import Job, chosen, expected, joint_update, strength_of
from rivage.federated.executors.noise import Noise
from rivage.federated.executors.per_record import PerRecord
from rivage.learning.task import Task

__all__ = ["Functional"]

_CHUNK, _IMAGES = 1024, 128  # records per forward pass without gradients; activations of images stay in the cache


class Functional:
    """Trains jobs with one copy of the model; for one thread at a time.

    Args:
        task: what is learnt.

    Attributes:
        chunk: records per forward pass without gradients, which bounds the memory of their activations.
        vectorised: whether gradients of single records are taken side by side; None before the first.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.bound = task.bind()
        # Convolutions are faster on channels-last images; what flattens them sees the same order as before.
        self._images = any(isinstance(module, nn.Conv2d) for module in self.bound.module.modules())
        self.chunk = _IMAGES if self._images else _CHUNK
        self.vectorised: bool | None = None

    def losses(self, params: Float[Tensor, "groups dim"], x: Tensor, y: Tensor) -> Float[Tensor, "records groups"]:
        """Loss of every record under every group's parameters, in evaluation mode, without gradients."""
        self.bound.module.eval()
        x, columns = self._read(self._stored(x)), []
        with torch.no_grad():
            for row in params:
                self.bound.load(row)
                columns.append(self.bound.losses(x, y))
        return torch.stack(columns, dim=1)

    def predictions(self, params: Float[Tensor, "dim"], x: Tensor) -> Float[Tensor, "records *output"]:
        """What one model predicts, without gradients."""
        self.bound.load(params)
        return torch.cat(
            [self.bound.predictions(self._read(part)) for part in torch.split(self._stored(x), self.chunk)]
        )

    def features(self, params: Float[Tensor, "dim"], x: Tensor) -> Float[Tensor, "records *positions width"]:
        """What goes into the head of one model."""
        self.bound.load(params)
        return torch.cat([self.bound.features(self._read(part)) for part in torch.split(self._stored(x), self.chunk)])

    def train(self, algorithm: Algorithm, phase: Phase, job: Job, noise: int) -> None:
        """Run the batches of one phase on a job, in place.

        Args:
            algorithm: whose job it is.
            phase: how it learns.
            job: its batches are set.
            noise: seed of layers that draw random numbers.
        """
        x, y = self.task.tensors(job.samples)
        steps = [torch.from_numpy(rows).to(x.device) for rows in job.batches.split()]
        run = _Run(self, phase, job, self._stored(x), y)
        self.bound.module.train()
        with torch.no_grad(), self._noise(noise):
            if hasattr(algorithm, "step") or hasattr(algorithm, "correct"):  # isinstance on a protocol costs 20 µs
                run.together(algorithm, steps)
            else:
                run.apart(steps)

    def _stored(self, x: Tensor) -> Tensor:
        """Images with their channels last, so that gathered rows are channels-last images without a copy."""
        # Not contiguous(): of one channel it keeps strides in which torch sees no channels-last image.
        return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format) if self._is_images(x) else x

    def _read(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2) if self._is_images(x) else x

    def _is_images(self, x: Tensor) -> bool:
        return self._images and x.dim() == 4

    @contextmanager
    def _noise(self, seed: int) -> Iterator[None]:
        """Layers such as dropout draw from torch's global generator: lend it to them and put it back."""
        if not self.bound.stochastic:
            yield
            return
        device = self.task.device
        generator = (
            torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
        )
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            yield
        finally:
            generator.set_state(before)


class _Run:
    """One job in one phase."""

    def __init__(self, engine: Functional, phase: Phase, job: Job, x: Tensor, y: Tensor) -> None:
        local = job.local
        self.engine, self.phase, self.local, self.x, self.y = engine, phase, local, x, y
        self.bound, layout = engine.bound, engine.task.layout
        names = chosen(layout, phase)
        self.entries = [layout.entries[i] for i in names]
        self.trained: tuple[Tensor, ...] = tuple(self.bound.parameters[i] for i in names)
        self.whole = len(names) == len(self.bound.parameters)
        self.spans = [slice(0, layout.trainable)] if self.whole else [entry.span for entry in self.entries]
        self.clip = None if phase.clip is None else phase.clip / len(local.params) ** 0.5
        if self.clip is not None and (layout.buffers or layout.kept):
            raise ConfigError(
                "the gradient of one record cannot be clipped: batch statistics mix the records",
                where="work.clip",
                mend="Use group norm in place of batch norm, or leave clip out.",
            )

        shapes = [entry.shape for entry in self.entries]
        self.side_by_side = PerRecord(self.bound, [entry.name for entry in self.entries], self.trained)
        self.noise = [Noise(phase, job, group, shapes, like=self.bound.vector) for group in range(len(local.params))]

    def apart(self, steps: Sequence[Tensor]) -> None:
        """Every group by itself."""
        params = self.local.params.clone()  # the broadcast is shared by the cohort
        for group, row in enumerate(params):
            self.bound.load(row)
            for rows in steps:
                gradients = self.gradients(group, rows)
                for span in self.spans:
                    self.signals(self.bound.vector[span], span, group)
                torch._foreach_add_(self.trained, gradients, alpha=-self.local.rate)
            row.copy_(self.bound.vector)
        self.local.params = params

    def signals(self, part: Tensor, span: slice, group: int) -> None:
        """Pull and drift on one stretch of the vector; the pull comes first, it needs the old parameters."""
        local = self.local
        if local.pull is not None:
            part.lerp_(_row(local.pull.anchor, group)[span], local.rate * strength_of(local, group))
        if local.drift is not None:
            part.add_(_row(local.drift, group)[span], alpha=-local.rate)

    def together(self, algorithm: Algorithm, steps: Sequence[Tensor]) -> None:
        """All groups at once."""
        local, params = self.local, self.local.params.clone()
        mask = None
        if self.spans != [slice(0, len(params[0]))]:
            mask = torch.zeros_like(params[0])
            for span in self.spans:
                mask[span] = 1
        for rows in steps:

            def gradient(params: Tensor, rows: Tensor = rows) -> Tensor:
                return self.joint_gradient(params, rows)

            params, local.extra = joint_update(algorithm, local, local.extra, params, gradient, mask)
        local.params = params

    def joint_gradient(self, params: Tensor, rows: Tensor) -> Tensor:
        """Gradient of every group on one batch; buffers move in ``params``, their gradient is zero."""
        size = self.engine.task.layout.trainable
        result = torch.zeros_like(params)
        for group, vector in enumerate(params):
            self.bound.load(vector)
            for entry, value in zip(self.entries, self.gradients(group, rows), strict=True):
                result[group, entry.span].view(entry.shape).copy_(value)
            vector[size:] = self.bound.vector[size:]
        self.local.gradients += len(params) * len(rows)
        return result

    def gradients(self, group: int, rows: Tensor) -> tuple[Tensor, ...]:
        """Of the objective on one batch, by trained parameter, with its noise."""
        found = self.noiseless(group, rows)
        if self.noise[group]:
            torch._foreach_add_(found, self.noise[group].draw())
        return found

    def noiseless(self, group: int, rows: Tensor) -> tuple[Tensor, ...]:
        """The same without noise."""
        if len(rows) == 0:  # an empty Poisson batch has no gradient, but the step counts
            return tuple(torch.zeros_like(parameter) for parameter in self.trained)
        x, y = self.engine._read(self.x.index_select(0, rows)), self.y.index_select(0, rows)
        share = 1 / (len(rows) if self.phase.denominator == "rows" else expected(self.phase, len(self.x)))
        weights = None if self.local.weights is None else self.local.weights.index_select(0, rows)[:, group]
        if self.clip is not None:
            return self.clipped(x, y, weights, share)
        with torch.enable_grad():
            losses = self.bound.losses(x, y)
        shares = losses.new_full((len(rows),), share)  # d(objective) / d(loss of each record)
        if weights is not None:
            shares *= weights
        return torch.autograd.grad(losses, self.trained, shares, allow_unused=True, materialize_grads=True)

    def clipped(self, x: Tensor, y: Tensor, weights: Tensor | None, share: float) -> tuple[Tensor, ...]:
        """The sum of records' gradients, each scaled down to the largest norm allowed."""
        assert self.clip is not None
        if self.side_by_side.has_room and self.engine.vectorised is None:
            self.engine.vectorised = self.side_by_side.works(x, y)
        if self.side_by_side.has_room and self.engine.vectorised:
            finite = self.phase.noise is not None
            return self.side_by_side.sum(x, y, weights, self.clip, share, finite=finite)
        return self.one_by_one(x, y, weights, share)

    def one_by_one(self, x: Tensor, y: Tensor, weights: Tensor | None, share: float) -> tuple[Tensor, ...]:
        """The same with one backward pass per record."""
        assert self.clip is not None
        total = tuple(torch.zeros_like(parameter) for parameter in self.trained)
        for i in range(len(x)):
            with torch.enable_grad():
                loss = self.bound.losses(x[i : i + 1], y[i : i + 1])
            one = torch.autograd.grad(
                loss, self.trained, torch.ones_like(loss), allow_unused=True, materialize_grads=True
            )
            weight = 1.0 if weights is None else float(weights[i])
            norm = abs(weight) * float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(one))))
            if self.phase.noise is None or math.isfinite(norm):  # else one record would show through the noise
                torch._foreach_add_(total, one, alpha=share * weight * min(1.0, self.clip / max(norm, 1e-30)))
        return total


def _row(stack: Tensor, group: int) -> Tensor:
    return stack if stack.dim() == 1 else stack[min(group, len(stack) - 1)]

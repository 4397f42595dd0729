"""How unlike the client's messages are the gradients that guessed attribute values would give, and which way is better.

With w_t the model sent in round t, g_t the pseudo-gradient that came back, and c the attribute's columns of all the
client's records,

    v_t(c) = ∇_w (1/n) Σ_i ℓ(h_w(x_i, c_i), y_i)  at  w = w_t ,        L(c) = Σ_t (1 − cos(v_t(c), g_t)) .

`Unrolled` differentiates this by automatic differentiation, for many guesses c and rounds at once; any model will do.
`Tabulated` knows the few values that c_i can take: it differentiates every record once per value and round, after which
a guess costs two matrix products. It needs 4 T P n K (1 + C) bytes in single precision for T rounds, P parameters, n
records, K values and C columns: worth it for small models.

Buffers of the model stay as they were sent, and the model is in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import functional_call, grad, vjp, vmap

from rivage.data.population import Samples
from rivage.learning.params import from_numpy
from rivage.privacy.attack import Tools
from rivage.privacy.questions import AttributeQuestion

__all__ = ["Dissimilarity", "Messages", "Tabulated", "Unrolled", "table_bytes"]

_CHUNK = 1 << 21  # numbers of the widest layer that are in memory at once
Pulled = tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]
_PASSES = 4  # forward, backward, and both again for the derivative by the attribute


@dataclass(frozen=True, slots=True)
class Messages:
    """What was seen of a client, as tensors of the run.

    Args:
        sent: models, one row per round.
        direction: pseudo-gradients of the trained parameters, of norm 1.
    """

    sent: Float[Tensor, "rounds dim"]
    direction: Float[Tensor, "rounds trained"]


class Dissimilarity(Protocol):
    """L over some rounds, and its derivative by c, for several guesses."""

    def __call__(
        self, rounds: slice, columns: Float[Tensor, "guesses n columns"], index: Int64[Tensor, "guesses n"] | None
    ) -> tuple[Float[Tensor, "guesses"], Float[Tensor, "guesses n columns"]]:
        """Sum of 1 − cos over the rounds, and ∂L/∂c.

        Args:
            rounds: from one to before another.
            columns: the guesses c.
            index: of the values that these columns code, where there are finitely many.
        """
        ...


class _Model:
    """Mean loss and its gradient as functions of a flat vector."""

    def __init__(self, messages: Messages, question: AttributeQuestion, tools: Tools) -> None:
        task = tools.task
        self.messages, self.meter = messages, tools.meter
        self.layout, self.per_record = task.layout, task.loss.per_record
        self.module = task.bind().module.eval()
        self.x, self.y = task.tensors(Samples(question.x, question.y, np.arange(len(question.x))))
        self.columns = torch.tensor(question.attribute.columns, device=self.x.device)

    def loss(self, trained: Tensor, rest: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean over the records."""
        tensors = self.layout.unflatten(torch.cat([trained, rest]))
        outputs = functional_call(self.module, tensors, (x,))
        return self.per_record(outputs, y).mean()

    def split(self, rounds: slice) -> tuple[Tensor, Tensor]:
        """Trained parameters and the rest, of these rounds."""
        sent = self.messages.sent[rounds]
        return sent[:, : self.layout.trainable], sent[:, self.layout.trainable :]


class Unrolled:
    """By automatic differentiation, a few rounds at a time.

    Args:
        messages: rounds to choose from.
        question: records without the attribute.
        tools: architecture and meter.
    """

    def __init__(self, messages: Messages, question: AttributeQuestion, tools: Tools) -> None:
        self.model = _Model(messages, question, tools)
        widest = max(entry.shape[0] for entry in self.model.layout.entries if entry.shape)
        self._per_guess = max(1, len(question.x) * widest)
        per_round = vmap(grad(self.model.loss), (0, 0, None, None))
        self._gradients = vmap(per_round, (None, None, 0, None))

    def __call__(
        self, rounds: slice, columns: Float[Tensor, "guesses n columns"], index: Int64[Tensor, "guesses n"] | None
    ) -> tuple[Float[Tensor, "guesses"], Float[Tensor, "guesses n columns"]]:
        """See `Dissimilarity`."""
        model, step = self.model, max(1, _CHUNK // (self._per_guess * len(columns)))
        total = columns.new_zeros(len(columns))
        slope = torch.zeros_like(columns)
        for start in range(rounds.start, rounds.stop, step):
            part = slice(start, min(start + step, rounds.stop))
            guess = columns.detach().clone().requires_grad_()
            filled = model.x.expand(len(columns), *model.x.shape).index_copy(2, model.columns, guess)
            found = self._gradients(*model.split(part), filled, model.y)
            unlike = (1 - _cosine(found, model.messages.direction[part])).sum(dim=1)
            slope += torch.autograd.grad(unlike.sum(), guess)[0]
            total += unlike.detach()
            model.meter.count(_PASSES * (part.stop - start) * columns[..., 0].numel())
        return total, slope


class Tabulated:
    """By looking up the gradient of every record under every value.

    Args:
        messages: rounds to choose from.
        question: records without the attribute, which is not numerical.
        tools: architecture and meter.
    """

    def __init__(self, messages: Messages, question: AttributeQuestion, tools: Tools) -> None:
        self.model = _Model(messages, question, tools)
        model, (n, width) = self.model, (len(question.x), len(question.attribute.columns))
        codes = from_numpy(question.attribute.codes, dtype=model.x.dtype, device=model.x.device)
        rounds, trained = model.messages.direction.shape
        self.values = len(codes)
        # Rounds first, so that some in a row are one piece of memory.
        self.gradients = model.x.new_empty(rounds, trained, self.values, n)
        self.slopes = model.x.new_empty(rounds, trained, width, self.values, n)

        def of_record(trained: Tensor, rest: Tensor, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
            row = x.index_copy(0, model.columns, c)
            return cast(Tensor, grad(model.loss)(trained, rest, row[None], y[None]))

        records = (None, None, 0, 0, None)

        def slope_of_record(trained: Tensor, rest: Tensor, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
            """∂/∂c by two backward passes: forward mode would need decompositions that torch has deprecated."""
            value, pull = cast(Pulled, vjp(lambda c: of_record(trained, rest, x, y, c), c))
            _, push = cast(Pulled, vjp(lambda u: pull(u)[0], torch.zeros_like(value)))
            return torch.stack([push(direction)[0] for direction in torch.eye(width, dtype=c.dtype, device=c.device)])

        of_records: Any = vmap(of_record, records)
        slopes: Any = vmap(slope_of_record, records)
        for t in range(rounds):
            start = tuple(part[0] for part in model.split(slice(t, t + 1)))
            for k, code in enumerate(codes):
                self.gradients[t, :, k] = of_records(*start, model.x, model.y, code).detach().T
                self.slopes[t, :, :, k] = slopes(*start, model.x, model.y, code).detach().permute(2, 1, 0)
        model.meter.count(_PASSES * rounds * self.values * n)

    def __call__(
        self, rounds: slice, columns: Float[Tensor, "guesses n columns"], index: Int64[Tensor, "guesses n"] | None
    ) -> tuple[Float[Tensor, "guesses"], Float[Tensor, "guesses n columns"]]:
        """See `Dissimilarity`."""
        assert index is not None, "a table has values, not numbers"
        guesses, n, width = columns.shape
        target = self.model.messages.direction[rounds]
        chosen = torch.nn.functional.one_hot(index, self.values).transpose(1, 2).to(columns.dtype)
        table = self.gradients[rounds].flatten(2).flatten(0, 1)
        found = (chosen.flatten(1) @ table.T).view(guesses, *target.shape) / n
        cosine = _cosine(found, target)
        norm = found.norm(dim=2, keepdim=True).clamp_min(torch.finfo(found.dtype).tiny)
        pull = (cosine[..., None] * found / norm - target) / (norm * n)  # ∂(1 − cos)/∂v, and v is a mean
        slopes = self.slopes[rounds].flatten(2).flatten(0, 1)
        by_value = (pull.flatten(1) @ slopes).view(guesses, width, self.values, n)
        slope = (by_value * chosen[:, None]).sum(dim=2)
        return (1 - cosine).sum(dim=1), slope.transpose(1, 2)


def table_bytes(messages: Messages, question: AttributeQuestion) -> int:
    """Memory of the tables."""
    width, values = len(question.attribute.columns), len(question.attribute.codes)
    return messages.direction.nbytes * len(question.x) * values * (1 + width)


def _cosine(found: Float[Tensor, "guesses rounds dim"], unit: Float[Tensor, "rounds dim"]) -> Tensor:
    """Of gradients with directions of norm 1; 0 where there is no gradient."""
    norm = found.norm(dim=2).clamp_min(torch.finfo(found.dtype).tiny)
    cosine: Tensor = (found * unit).sum(dim=2) / norm
    return cosine

"""What a client would return if it held given records: its local steps, differentiable in the records.

    w_0 = w,   w_{k+1} = w_k − η ∇ (1/B) Σ_r ℓ(h_{w_k}(x_r), y_r),   displacement = w − w_K

for the number of steps that the header of the log tells. Targets may be soft: probabilities of classes, or reals. Steps
take all B records: which mini-batches a client drew is not in its messages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rivage.learning.params import from_numpy
from rivage.privacy.attack import Meter
from rivage.privacy.exchanges import Exchange, Header, Refused

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["LocalSteps", "local_steps"]

_MOST_STEPS = 64


@dataclass(frozen=True, eq=False)
class LocalSteps:
    """The local training of one exchange.

    Args:
        task: what is learnt.
        module: a copy of its model, in evaluation mode.
        start: w, the trainable parameters by name.
        fixed: frozen parameters and buffers.
        told: the displacement that was returned, of the trainable parameters.
        steps: K.
        rate: η; 1 where the log holds gradients.
        meter: counts records times steps.
    """

    task: Task
    module: nn.Module
    start: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    told: Float[Tensor, "trained"]
    steps: int
    rate: float
    meter: Meter

    def displacement(self, x: Float[Tensor, "records *input"], y: Float[Tensor, "records width"]) -> Tensor:
        """Of the trainable parameters, in their order."""
        params = {name: tensor.detach().requires_grad_() for name, tensor in self.start.items()}
        first = params
        for _ in range(self.steps):
            self.meter.count(len(x))
            outputs = torch.func.functional_call(self.module, {**params, **self.fixed}, (x,))
            slopes = torch.autograd.grad(soft_loss(self.task, outputs, y), list(params.values()), create_graph=True)
            params = {name: params[name] - self.rate * slope for name, slope in zip(params, slopes, strict=True)}
        return torch.cat([(first[name] - params[name]).flatten() for name in params])


def soft_loss(task: Task, outputs: Float[Tensor, "records width"], y: Float[Tensor, "records width"]) -> Tensor:
    """Mean loss under targets of the outputs' shape: probabilities of classes, or reals."""
    if task.loss.name == "cross_entropy":
        return F.cross_entropy(outputs, y)
    if task.loss.name == "logistic":
        return F.binary_cross_entropy_with_logits(outputs, y)
    if task.loss.name == "squared":
        return 0.5 * (y - outputs).square().sum(dim=1).mean()
    raise Refused(f'records are not searched for under the loss "{task.loss.name}"', mend="Leave this attack out.")


def local_steps(task: Task, header: Header, exchange: Exchange, records: int, meter: Meter) -> LocalSteps:
    """The local training of an exchange, as far as the header tells.

    Raises:
        Refused: if it tells no learning rate, there are too many steps to look through, or inputs are tokens.
    """
    if task.schema.target == "tokens":
        raise Refused("inputs are symbols, which have no gradient", mend="Leave this attack out.")
    steps, rate = (1, 1.0) if header.steps == 1 else _schedule(header.hyper_parameters, records)
    if steps > _MOST_STEPS:
        raise Refused(
            f"the client took {steps} local steps, and a search looks through {_MOST_STEPS} at most",
            mend="Ask about a client with fewer local steps.",
        )
    layout = task.layout
    vectors = layout.unflatten(from_numpy(exchange.sent, dtype=task.dtype, device=task.device))
    trained = {entry.name for entry in layout.entries if entry.span.stop <= layout.trainable}
    told = from_numpy(exchange.pseudo_gradient[: layout.trainable].copy(), dtype=task.dtype, device=task.device)
    return LocalSteps(
        task,
        task.bind().module.eval(),
        {name: tensor for name, tensor in vectors.items() if name in trained},
        {name: tensor for name, tensor in vectors.items() if name not in trained},
        told,
        steps,
        rate,
        meter,
    )


def _schedule(told: Mapping[str, Any], records: int) -> tuple[int, float]:
    """Number of local steps and their size."""
    rate, work = told.get("learning_rate"), told.get("work") or {}
    if not isinstance(rate, int | float):
        raise Refused("the header of the log tells no learning rate", mend="Add learning_rate to its hyper_parameters.")
    updates, batch = work.get("updates"), work.get("batch_size")
    if isinstance(updates, int):
        return updates, float(rate)
    size = batch if isinstance(batch, int) else records  # "all"
    return int(work.get("epochs", 1)) * math.ceil(records / size), float(rate)

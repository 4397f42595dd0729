"""Model-based attribute inference: which value fits a record best under the target's own model?

Driouich, Xu, Neglia, Giroire, Thomas. A novel model-based attribute inference attack in federated learning.
FL-NeurIPS 2022, arXiv 2210.16205; Diana, Marfoq, Xu, Neglia, Giroire, Thomas. Attribute inference attacks for federated
regression tasks. AAAI 2025, arXiv 2411.12697.

Given an estimate w of the model that the target's data alone would give,

    s_i = argmin_s ℓ(h_w(x_i, s), y_i)

for every record i by itself; ties go to the lower value. The estimate of a passive observer is the closed form of
`rivage.privacy.local_model` where the task is linear least squares and the messages determine it; else the last model
that the target returned, which has just been trained on its data.

A numerical attribute is found by gradient descent on the loss of its record, from a normal start, kept within its
range. Deviation: the answer is the iterate of least loss, not the last one, so that a step that is too long for a steep
model costs accuracy and never runs away.

Cost: K forward passes per record for K values, 2 per step for numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import require
from rivage.data.population import Samples
from rivage.federated.algorithm import Reference
from rivage.learning.params import from_numpy, to_numpy
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.local_model import LocalModel
from rivage.privacy.questions import AttributeAnswer, AttributeQuestion
from rivage.privacy.views import Eavesdropper, Refused

if TYPE_CHECKING:
    from rivage.learning.task import Bound

__all__ = ["REFERENCE", "Decision", "ModelAttributes", "require_attackable"]

REFERENCE = Reference(
    key="diana25",
    authors="Francesco Diana and Othmane Marfoq and Chuan Xu and Giovanni Neglia and Frédéric Giroire and Eoin Thomas",
    title="Attribute Inference Attacks for Federated Regression Tasks",
    venue="AAAI",
    year=2025,
    arxiv="2411.12697",
    part="model-based attack",
)


def require_attackable(question: AttributeQuestion, params: Float[ndarray, "*groups dim"]) -> None:
    """Refuse methods that send several models, and questions about no record.

    Raises:
        Refused: naming what was seen.
    """
    if params.ndim != 1:
        raise Refused(
            f"the method sends {len(params)} models to a client, and attribute inference attacks one",
            mend="Audit a method with one model per message.",
        )
    if not len(question.x):
        raise Refused("there is no record to infer from", mend="Ask about a client that has some.")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The value that fits best, by one model.

    Args:
        steps: of gradient descent on a numerical attribute, >= 0.
        step_size: of that descent, > 0.
    """

    steps: int = 100
    step_size: float = 1.0

    def __post_init__(self) -> None:
        require(self.steps, "steps", least=0)
        require(self.step_size, "step_size", above=0)

    def __call__(
        self, params: Float[ndarray, "dim"], question: AttributeQuestion, tools: Tools
    ) -> Shaped[ndarray, "n"]:
        """Per record: index of a value, or a number.

        Args:
            params: of the model, whoever made it.
            question: public inputs and targets.
            tools: architecture, loss, meter; the start of a numerical search.
        """
        bound = tools.task.bind()
        bound.module.eval()
        bound.load(from_numpy(params, dtype=tools.task.dtype, device=tools.task.device))
        if question.attribute.kind == "numerical":
            return self._number(bound, question, tools)
        return _fitting(bound, question, tools)

    def answer(
        self, params: Float[ndarray, "dim"], question: AttributeQuestion, tools: Tools, facts: Mapping[str, Any]
    ) -> AttributeAnswer:
        """The values, with the model as a rule for any records; who asks it is metered as well."""
        return AttributeAnswer(self(params, question, tools), facts, partial(self, params, tools=tools))

    def _number(self, bound: Bound, question: AttributeQuestion, tools: Tools) -> Float64[ndarray, "n"]:
        attribute, task = question.attribute, tools.task
        x, y = task.tensors(Samples(question.x, question.y, np.arange(len(question.x))))
        least, largest = attribute.codes[:, 0].tolist()
        start = tools.streams.numpy("numerical").normal(size=len(x))
        value = from_numpy(start, dtype=task.dtype, device=task.device).clamp(least, largest)
        best, lowest = value, torch.full_like(value, torch.inf)
        for _ in range(self.steps + 1):
            losses, slope = _slope(bound, x, y, attribute.columns[0], value)
            tools.meter.count(2 * len(x))
            best, lowest = torch.where(losses < lowest, value, best), torch.minimum(losses, lowest)
            value = (value - self.step_size * slope).nan_to_num().clamp(least, largest)
        return to_numpy(best).astype(np.float64)


def _fitting(bound: Bound, question: AttributeQuestion, tools: Tools) -> Int64[ndarray, "n"]:
    """Of K values the one of least loss; a loss that is not a number counts as infinite."""
    losses, rows = [], np.arange(len(question.x))
    for value in range(len(question.attribute.codes)):
        filled = question.attribute.plug(question.x, np.full(len(rows), value))
        with torch.no_grad():
            losses.append(to_numpy(bound.losses(*tools.task.tensors(Samples(filled, question.y, rows)))))
        tools.meter.count(len(rows))
    finite = np.nan_to_num(np.stack(losses), nan=np.inf)
    return np.asarray(finite.argmin(axis=0), np.int64)


def _slope(bound: Bound, x: Tensor, y: Tensor, column: int, value: Float[Tensor, "n"]) -> tuple[Tensor, Tensor]:
    """Loss of every record with this value, and its derivative by the value."""
    value = value.clone().requires_grad_()
    filled = x.index_copy(1, torch.tensor([column], device=x.device), value[:, None])
    losses = bound.losses(filled, y)
    (slope,) = torch.autograd.grad(losses.sum(), value)
    return losses.detach(), slope


@dataclass(frozen=True, kw_only=True)
class ModelAttributes:
    """Model-based inference by a passive observer of one client.

    Args:
        decision: how a model decides.
        closed_form: whether the local optimum is computed from the messages where that is possible.
    """

    reference: ClassVar[Reference] = REFERENCE
    asks: ClassVar[Asks] = "attribute"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    decision: Decision = Decision()
    closed_form: bool = True

    def run(self, view: Eavesdropper, question: AttributeQuestion, tools: Tools) -> AttributeAnswer:
        """The values that fit the estimate best.

        Raises:
            Refused: for methods that send several models.
        """
        params, facts = self.estimate(view, question, tools)
        return self.decision.answer(params, question, tools, facts)

    def estimate(
        self, view: Eavesdropper, question: AttributeQuestion, tools: Tools
    ) -> tuple[Float[ndarray, "dim"], Mapping[str, Any]]:
        """The model that is asked, and where it comes from; an evaluator holds the Markov bound against it."""
        last = view.last().returned
        require_attackable(question, last)
        facts = {"estimate": "last returned model"}
        if not self.closed_form:
            return last, facts
        try:
            found = LocalModel().run(view, None, tools)
        except Refused:  # no linear least squares
            return last, facts
        if found.params is None:
            return last, {**facts, "closed_form": found.status}
        told = {name: found.facts[name] for name in ("messages", "condition", "error") if name in found.facts}
        return found.params, {"estimate": "closed form", "closed_form": found.status, **told}

"""Records by search: those whose training would move the model as the client did.

**DLG** (Zhu, Liu, Han. Deep leakage from gradients. NeurIPS 2019, arXiv 1906.08935): inputs and soft labels from
N(0, 1),

    min over x, y:   ‖d(x, y) − g‖² / ‖g‖²        by L-BFGS.

**Cosine inversion** (Geiping, Bauermeister, Dröge, Moeller. Inverting gradients: how easy is it to break privacy in
federated learning? NeurIPS 2020, arXiv 2003.14053): labels as `rivage.privacy.inversion` reads them, inputs from
N(0, 1),

    min over x:   1 − cos(d(x, y), g) + α · TV(x)   by Adam on the signs of the gradient,

with a step size that falls to a tenth after 3/8, 5/8 and 7/8 of the iterations, and x kept in a box if one is given.
Total variation TV, the mean absolute difference of neighbouring pixels, applies to inputs with two or three axes.

In both, d is what a client with these records would return (`rivage.privacy.local_steps`): its local steps are part of
the objective, and g = w − w' is told.

Neither has a guarantee; the answer is an estimate, the best of all restarts by its objective. Deviations: L-BFGS has a
line search and the DLG objective is divided by ‖g‖², so that one tolerance suits all rounds; labels that cannot be read
(real targets, several records of a model with one output) are searched for with the inputs; iterations are few by
default, 300 where Zhu et al. take 1,200 and 600 where the public framework takes 24,000.

Cost: per iteration two passes for each record and local step, counted once each; for L-BFGS a little more for the line
search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Reference
from rivage.learning.params import from_numpy, to_numpy
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.inversion import chosen, read_labels
from rivage.privacy.local_steps import LocalSteps, local_steps
from rivage.privacy.questions import RecordAnswer, RecordQuestion
from rivage.privacy.views import Eavesdropper, Exchange, Refused

__all__ = ["DLG", "CosineInversion", "total_variation"]


@dataclass(frozen=True, slots=True)
class _Found:
    """Where one start ended."""

    x: Tensor
    y: Tensor
    objective: float


@dataclass(frozen=True, kw_only=True)
class _Search(ABC):
    """Searches from random starts, until one is good enough.

    Args:
        iterations: per start, >= 1.
        restarts: starts, >= 1; a further one is made only while the best objective is above ``enough``.
        enough: objective at which a start counts as found, >= 0.
        most_records: clients with more records are refused.
    """

    asks: ClassVar[Asks] = "record"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    iterations: int
    restarts: int
    enough: float = 1e-8
    most_records: int = 8

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts", "most_records"):
            require(getattr(self, name), name, least=1)
        require(self.enough, "enough", least=0)

    def run(self, view: Eavesdropper, question: RecordQuestion, tools: Tools) -> RecordAnswer:
        """The best records found.

        Raises:
            Refused: for too many records or local steps, tokens, several models, or a header without learning rate.
        """
        exchange = _few(view, question, self.most_records)
        work = local_steps(tools.task, view.header, exchange, question.records, tools.meter)
        known = self._known(tools, exchange, question.records)
        found: list[_Found] = []
        while len(found) < self.restarts and not any(one.objective <= self.enough for one in found):
            start = _start(work, question.records, tools.streams.child("start", len(found)))
            found.append(self._search(work, start, known))
        best = min(found, key=lambda one: one.objective if np.isfinite(one.objective) else float("inf"))
        facts = {"objective": best.objective, "starts": len(found), "steps": work.steps, "round": exchange.round}
        return RecordAnswer(to_numpy(best.x).astype(np.float64), _hard(work, best.y), "estimated", facts)

    def _known(self, tools: Tools, exchange: Exchange, records: int) -> Tensor | None:
        """Targets that need no search; None where they do."""
        return None

    @abstractmethod
    def _search(self, work: LocalSteps, start: tuple[Tensor, Tensor], known: Tensor | None) -> _Found:
        """From one start."""


@dataclass(frozen=True, kw_only=True)
class DLG(_Search):
    """Inputs and labels whose gradient is the client's, by L-BFGS.

    Args:
        iterations: of L-BFGS, per start.
        restarts: starts, >= 1; a further one is made only while the best objective is above ``enough``.
        enough: objective at which a start counts as found, >= 0.
        most_records: clients with more records are refused.
    """

    reference: ClassVar[Reference] = Reference(
        key="zhu19",
        authors="Ligeng Zhu and Zhijian Liu and Song Han",
        title="Deep Leakage from Gradients",
        venue="NeurIPS",
        year=2019,
        arxiv="1906.08935",
    )

    iterations: int = 300
    restarts: int = 3

    def _search(self, work: LocalSteps, start: tuple[Tensor, Tensor], known: Tensor | None) -> _Found:
        x, y = (tensor.requires_grad_() for tensor in start)
        size = work.told.square().sum().clamp_min(torch.finfo(work.told.dtype).tiny)
        search = torch.optim.LBFGS(
            [x, y], max_iter=self.iterations, history_size=50, line_search_fn="strong_wolfe",
            tolerance_grad=1e-14, tolerance_change=1e-18,
        )  # fmt: skip

        def objective() -> Tensor:
            return (work.displacement(x, _targets(work, y)) - work.told).square().sum() / size

        def closure() -> float:
            value = objective()
            x.grad, y.grad = torch.autograd.grad(value, (x, y))
            return float(value.detach())

        search.step(closure)  # type: ignore[no-untyped-call]
        return _Found(x.detach(), _targets(work, y).detach(), float(objective().detach()))


@dataclass(frozen=True, kw_only=True)
class CosineInversion(_Search):
    """Inputs whose gradient points as the client's does, by signed Adam, with total variation for images.

    Args:
        iterations: per start; a search ends earlier at an objective of ``enough``.
        step: size of the first steps.
        smoothness: α.
        box: least and largest number of an input; None leaves inputs free.
        restarts: starts, >= 1; a further one is made only while the best objective is above ``enough``.
        enough: objective at which a start counts as found, >= 0.
        most_records: clients with more records are refused.
    """

    reference: ClassVar[Reference] = Reference(
        key="geiping20",
        authors="Jonas Geiping and Hartmut Bauermeister and Hannah Dröge and Michael Moeller",
        title="Inverting Gradients - How easy is it to break privacy in federated learning?",
        venue="NeurIPS",
        year=2020,
        arxiv="2003.14053",
    )

    iterations: int = 600
    restarts: int = 1
    step: float = 0.1
    smoothness: float = 0.1
    box: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.step, "step", above=0)
        require(self.smoothness, "smoothness", least=0)
        if self.box is not None and not self.box[0] < self.box[1]:
            raise ConfigError(f"box is {self.box}", mend="Give the least number first.")

    def _known(self, tools: Tools, exchange: Exchange, records: int) -> Tensor | None:
        """Labels as targets, where the last layer tells them."""
        try:
            labels = from_numpy(read_labels(tools.task, exchange, records), device=tools.task.device)
        except Refused:
            return None
        if tools.task.loss.name == "logistic":
            return labels.to(tools.task.dtype)[:, None]
        return F.one_hot(labels, tools.task.schema.num_classes).to(tools.task.dtype)

    def _search(self, work: LocalSteps, start: tuple[Tensor, Tensor], known: Tensor | None) -> _Found:
        x = (start[0] if self.box is None else start[0].clamp(*self.box)).requires_grad_()
        y = start[1].requires_grad_()
        free = [x] if known is not None else [x, y]
        adam = torch.optim.Adam(free, lr=self.step)
        falling = torch.optim.lr_scheduler.MultiStepLR(adam, [self.iterations * k // 8 for k in (3, 5, 7)], gamma=0.1)
        best = _Found(x.detach().clone(), y.detach().clone(), float("inf"))
        for _ in range(self.iterations):
            targets = known if known is not None else _targets(work, y)
            value = 1 - F.cosine_similarity(work.displacement(x, targets), work.told, dim=0)
            value = value + self.smoothness * total_variation(x)
            reached = float(value.detach())
            if reached < best.objective:
                best = _Found(x.detach().clone(), targets.detach().clone(), reached)
            if reached <= self.enough:
                break
            for tensor, slope in zip(free, torch.autograd.grad(value, free), strict=True):
                tensor.grad = slope.sign()
            adam.step()
            falling.step()
            if self.box is not None:
                x.data.clamp_(*self.box)
        return best


def total_variation(x: Float[Tensor, "records *input"]) -> Tensor:
    """Mean absolute difference of neighbours along the last two axes; 0 for inputs with one axis."""
    if x.dim() < 3:
        return x.new_zeros(())
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean() + (x[..., 1:] - x[..., :-1]).abs().mean()


def _few(view: Eavesdropper, question: RecordQuestion, most: int) -> Exchange:
    if question.records > most:
        raise Refused(
            f"the client holds {question.records} records, and a search for more than {most} at once finds none",
            mend="Ask about a client with fewer records, or raise most_records.",
        )
    return chosen(view, question)


def _targets(work: LocalSteps, free: Float[Tensor, "records width"]) -> Tensor:
    """Free numbers as targets: probabilities for classes."""
    kind = work.task.loss.name
    if kind == "squared":
        return free
    return free.softmax(dim=1) if kind == "cross_entropy" else free.sigmoid()


def _start(work: LocalSteps, records: int, streams: Streams) -> tuple[Tensor, Tensor]:
    task, generator = work.task, streams.numpy()
    sizes: tuple[Any, Any] = ((records, *task.schema.input_shape), (records, task.loss.width(task.schema)))
    x, y = (from_numpy(generator.normal(size=size), dtype=task.dtype, device=task.device) for size in sizes)
    return x, y


def _hard(work: LocalSteps, y: Tensor) -> Any:
    """Targets in the form of the data."""
    kind = work.task.loss.name
    if kind == "squared":
        return to_numpy(y)
    return to_numpy(y.argmax(dim=1) if kind == "cross_entropy" else (y[:, 0] > 0.5).to(torch.int64))

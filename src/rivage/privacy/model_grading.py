"""Grading of estimated models: how far they are from the model that the target's data alone would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.optimize import minimize

from rivage.data.population import Samples
from rivage.learning.params import from_numpy, to_numpy
from rivage.learning.task import Task
from rivage.privacy.attribute_baselines import is_linear
from rivage.privacy.questions import ModelAnswer
from rivage.privacy.views import Refused

__all__ = ["ModelCase", "distances", "local_optimum"]

_ITERATIONS = 300  # of L-BFGS towards the optimum of a client's data

_MEND = {
    "rank-deficient": "Audit a log in which this client takes part in more rounds.",
    "ill-conditioned": "Audit a log in float64, or one of rounds in which other clients take part.",
}

Piece = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ModelCase:
    """Which model would the target's data alone give?

    Args:
        client: the target.
        task: what is learnt.
        train: records of the target.
        last: the last model that it returned: what an eavesdropper has without any attack.
    """

    client: int
    task: Task
    train: Samples
    last: Float[ndarray, "dim"]

    question: None = None

    @cached_property
    def optimum(self) -> Float64[ndarray, "dim"]:
        """The answer: the optimum of the target's records that is nearest to its last model."""
        return local_optimum(self.task, self.train, self.last)

    def grade(self, answer: ModelAnswer) -> Piece:
        """Distances to the optimum, in parameters and in outputs."""
        if answer.params is None:
            told = dict(answer.facts)
            why = f": {reason}" if (reason := told.pop("reason", "")) else ""
            facts = ", ".join(f"{name} {_short(value)}" for name, value in told.items())
            raise Refused(f"{answer.status}{why}" + (f" ({facts})" if facts else ""), mend=_MEND.get(answer.status, ""))
        scale = float(np.linalg.norm(self.optimum)) or 1.0
        aim = self._outputs(self.optimum)
        return {
            "client": self.client,
            "status": answer.status,
            "distance": float(np.linalg.norm(answer.params - self.optimum)) / scale,
            "baseline": float(np.linalg.norm(self.last - self.optimum)) / scale,
            "outputs": float(np.abs(self._outputs(answer.params) - aim).mean()),
            "outputs_of_last": float(np.abs(self._outputs(self.last) - aim).mean()),
        }

    def _outputs(self, params: Float[ndarray, "dim"]) -> Float64[ndarray, "n *output"]:
        bound = self.task.bind()
        bound.load(from_numpy(np.asarray(params, np.float64)))
        outputs: ndarray = to_numpy(bound.predictions(self.task.tensors(self.train)[0])).astype(np.float64)
        return outputs


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def local_optimum(task: Task, train: Samples, start: Float[ndarray, "dim"]) -> Float64[ndarray, "dim"]:
    """Parameters of least mean loss on these records, near ``start``; of least squares the nearest minimiser."""
    if task.loss.name == "squared" and is_linear(task):
        return _least_squares(task, train, start.astype(np.float64))
    bound = task.bind()
    bound.module.eval()
    x, y = task.tensors(train)
    trained, found = task.layout.trainable, start.astype(np.float64)

    def objective(params: Float64[ndarray, "P"]) -> tuple[float, Float64[ndarray, "P"]]:
        bound.load(from_numpy(np.concatenate([params, found[trained:]])))
        loss = bound.losses(x, y).mean()
        slopes = torch.autograd.grad(loss, bound.parameters)
        return loss.item(), to_numpy(torch.cat([slope.flatten() for slope in slopes])).astype(np.float64)

    best = minimize(objective, found[:trained], jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    return np.concatenate([best.x, found[trained:]])


def _least_squares(task: Task, train: Samples, start: Float64[ndarray, "dim"]) -> Float64[ndarray, "dim"]:
    flat = train.x.reshape(len(train), -1).astype(np.float64)
    parts = task.layout.unflatten(from_numpy(start))
    columns, found = {2: flat, 1: np.ones((len(flat), 1))}, dict(parts)
    design = np.concatenate([columns[value.dim()] for value in parts.values()], axis=1)
    begin = np.concatenate([to_numpy(v).reshape(len(v), -1).T for v in parts.values()])
    best = begin + np.linalg.lstsq(design, train.y.reshape(len(flat), -1) - design @ begin, rcond=None)[0]
    row = 0
    for name, value in parts.items():
        width = columns[value.dim()].shape[1]
        found[name] = from_numpy(np.ascontiguousarray(best[row : row + width].T)).reshape(value.shape)
        row += width
    optimum: ndarray = to_numpy(task.layout.flatten(found)).astype(np.float64)
    return optimum


def distances(pieces: Sequence[Piece]) -> dict[str, Any]:
    """Mean distances in outputs, of the estimates and of the last models."""
    names = ("outputs", "outputs_of_last")
    return {name: float(np.mean([piece[name] for piece in pieces])) for name in names}

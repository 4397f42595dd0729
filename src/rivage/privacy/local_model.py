"""Local-model reconstruction: the model that a client's data alone would give, from its messages.

Xu, Neglia. What else is leaked when eavesdropping federated learning? PPML at CCS 2021; Driouich, Xu, Neglia, Giroire,
Thomas. Local model reconstruction attacks in federated learning and their uses, arXiv 2210.16205; Diana, Marfoq, Xu,
Neglia, Giroire, Thomas. Attribute inference attacks for federated regression tasks. AAAI 2025, arXiv 2411.12697,
Algorithm 2. The mathematics is in `rivage.privacy.affine_map`.

The attack is for linear models under squared loss whose clients run plain SGD with a fixed step; the pull of a
proximal term or weight decay changes H only. Client momentum that is kept across rounds, client Adam and control
variates break the affine map; the left-out error shows it, and the answer then counts as an estimate.

==================  ===================================================================================================
status              when
==================  ===================================================================================================
`recovered`         every direction is explored, and the estimated error is below 1 % of the norm of the model
`estimated`         the same with a larger error (mini-batches, added noise), or with a solver that shrinks
`rank-deficient`    answers lie in a space of rank r < D. With at least r + 1 messages in it: the last returned model,
                    moved within that space to the client's optimum, which is where the client would go by training on
                    alone. With fewer: no model
`ill-conditioned`   the condition number of [g 1] times the unit of the log's numbers exceeds 0.1, or w does not move
                    where the client answers: no model
==================  ===================================================================================================

Deviation: the public code keeps the best of many random subsets of D + 1 messages and inverts it (``subset``). Least
squares on all messages is the default; with mini-batches ``forward`` takes over where it predicts left-out rounds
better. What mini-batches cost is estimated (`rivage.privacy.affine_errors`): a direction that their noise drowns may
still be missed by more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from rivage.core.errors import require, require_one_of
from rivage.federated.algorithm import Reference
from rivage.learning.params import from_numpy, to_numpy
from rivage.privacy.affine_map import SOLVERS, Fit, Solver, collect, condition, fit, project, row_space
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.questions import ModelAnswer
from rivage.privacy.views import Eavesdropper, Exchange, Refused

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["LocalModel", "is_linear", "reconstruct"]

_LOST = 0.1  # condition number times unit of the log's numbers above which nothing is left of the answer
_RECOVERED = 0.01  # relative error up to which a model counts as recovered
_PROBES = 8  # records on which linearity is tried


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """Where the client's answer vanishes, by least squares on its messages.

    Args:
        solver: ``auto``, ``least_squares``, ``forward``, ``subset``, ``ridge`` or ``truncated``.
        trials: random subsets that ``subset`` looks at, >= 1.
        most_parameters: larger models are refused: time grows with the cube of their number.
    """

    reference: ClassVar[Reference] = Reference(
        key="driouich22",
        authors="Ilias Driouich and Chuan Xu and Giovanni Neglia and Frédéric Giroire and Eoin Thomas",
        title="Local Model Reconstruction Attacks in Federated Learning and their Uses",
        venue="arXiv",
        year=2022,
        arxiv="2210.16205",
        entry="misc",
    )
    asks: ClassVar[Asks] = "model"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    solver: Solver = "auto"
    trials: int = 1000
    most_parameters: int = 1000

    def __post_init__(self) -> None:
        require_one_of(self.solver, "solver", SOLVERS)
        require(self.trials, "trials", least=1)
        require(self.most_parameters, "most_parameters", least=1)

    def run(self, view: Eavesdropper, question: Any, tools: Tools) -> ModelAnswer:
        """The client's optimum.

        Args:
            view: of the client.
            question: not looked at; which client is asked about is in the view.
            tools: task and randomness.

        Raises:
            Refused: for models that are not linear, other losses, models that are too large, logs without exchanges.
        """
        self._require_affine(tools)
        unit = None if view.header.precision is None else 2 * view.header.precision
        generator = tools.streams.numpy("subsets")
        return reconstruct(view.exchanges(), solver=self.solver, trials=self.trials, generator=generator, unit=unit)

    def _require_affine(self, tools: Tools) -> None:
        task = tools.task
        if task.loss.name != "squared" or not is_linear(task, tools.streams.numpy("linear")):
            raise Refused(
                "the answers of a client are affine in what it is sent only for a linear model under squared loss",
                mend="Use the emulator, which approximates the answers of other models.",
            )
        tools.meter.count(4 * _PROBES)
        if task.dimension > self.most_parameters:
            raise Refused(
                f"the model has {task.dimension} parameters, more than {self.most_parameters}",
                mend="Raise most_parameters, or use the emulator.",
            )


def is_linear(task: Task, generator: np.random.Generator) -> bool:
    """Whether the outputs of a model are an affine function of all its parameters, tried on random numbers."""
    if task.layout.trainable < task.dimension or task.schema.target == "tokens":
        return False
    bound = task.bind()
    bound.module.eval()
    x = task.inputs(generator.normal(size=(_PROBES, *task.schema.input_shape)))
    one, other = (from_numpy(generator.normal(size=task.dimension), dtype=task.dtype) for _ in range(2))

    def outputs(params: torch.Tensor) -> Any:
        bound.load(params)
        with torch.no_grad():
            return to_numpy(bound.outputs(x)).astype(np.float64)

    apart = outputs(one) + outputs(other) - outputs(one + other) - outputs(torch.zeros_like(one))
    return bool(np.abs(apart).max() < 1e-4)


def reconstruct(
    exchanges: Iterable[Exchange],
    *,
    solver: Solver = "auto",
    trials: int = 1000,
    generator: np.random.Generator | None = None,
    unit: float | None = None,
) -> ModelAnswer:
    """The optimum of one client with a linear model under squared loss.

    Args:
        exchanges: of the client, in any order.
        solver: see `LocalModel`.
        trials: of ``subset``.
        generator: of ``subset``; None is a fixed one.
        unit: of the log's numbers, see `rivage.privacy.affine_map.Answers`; None reads it off the models.

    Raises:
        Refused: without exchanges, or if several models are sent per round.
    """
    answers = collect(exchanges, unit)
    generator = np.random.default_rng(0) if generator is None else generator
    rounds, dimension = answers.sent.shape
    basis, moved = row_space(answers)
    rank = basis.shape[1]
    facts = {"messages": rounds, "parameters": dimension, "rank": rank, "unit": answers.unit}
    if solver in ("ridge", "truncated"):
        return _answer(fit(answers, solver, generator, trials), facts | {"condition": condition(answers)}, "estimated")
    explored = answers if rank == dimension else project(answers, basis)
    facts["condition"] = condition(explored)
    if rounds <= rank:
        return ModelAnswer(None, "rank-deficient", facts | {"reason": _too_few(rounds, rank, dimension)})
    if not moved or facts["condition"] * answers.unit > _LOST:
        return ModelAnswer(None, "ill-conditioned", facts | {"reason": "the models sent differ in too few directions"})
    found = fit(explored, solver, generator, trials)
    if rank == dimension:
        return _answer(found, facts, "recovered")
    nearest = answers.last + basis @ (found.optimum - basis.T @ answers.last)
    return _answer(Fit(nearest, found.error, found.left_out, found.solver), facts, "rank-deficient")


def _too_few(rounds: int, rank: int, dimension: int) -> str:
    return (
        f"{rounds} messages of rank {rank} for {dimension} parameters; {min(rank, dimension) + 1} are needed at least"
    )


def _answer(found: Fit, facts: dict[str, Any], status: Any) -> ModelAnswer:
    relative = found.error / max(float(np.linalg.norm(found.optimum)), np.finfo(float).tiny)
    facts |= {"solver": found.solver, "error": relative, "left_out": found.left_out}
    if status == "recovered" and not (relative <= _RECOVERED and math.isfinite(relative)):
        status = "estimated"
    return ModelAnswer(found.optimum, status, facts)

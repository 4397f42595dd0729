"""Evaluation of silos by themselves: models and records stay, scores go to silo 0.

As in simulation every silo's own model is judged on its own records (group ``seen``), the average of all models on the
same records (``average``) and, by silo 0, on the records of clients that are no silos (``unseen``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.algorithm import Algorithm, Local, Predictor, State
from rivage.federated.averaging import global_predictor
from rivage.federated.checkpoint import Memory
from rivage.federated.evaluation import Evaluation, Evaluator
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import one_thread
from rivage.federated.failures import naming
from rivage.learning.task import Task

__all__ = ["Judge", "assembled", "require_local_metric"]


@dataclass(frozen=True)
class _Given:
    """Predicts with the model it is given as a memory."""

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        return global_predictor(memory["params"])


class Judge:
    """Scores models on the records of clients.

    Args:
        trial: supplies the records.
        executor: computes.
    """

    def __init__(self, trial: SiloTrial, executor: Executor) -> None:
        self._trial = trial
        self._evaluator = Evaluator(cast(Algorithm, _Given()), trial.population, executor, Streams(trial.seed))

    def judge(
        self, model: Float[Tensor, "dim"], clients: Sequence[int], round: int, group: str, *, keep: float = 0
    ) -> Evaluation:
        """One model on the records of some clients."""
        trial = self._trial
        where = f'method "{trial.name}", seed {trial.seed}, evaluation after round {round}'
        with one_thread(), naming(where):
            return self._evaluator.evaluate(
                {}, lambda block: [Memory({"params": model}) for _ in block], clients, round, group, keep=keep
            )

    @staticmethod
    def predictor(model: Float[Tensor, "dim"]) -> Predictor:
        """A model as what predicts for its client."""
        return global_predictor(model)


def assembled(events: Sequence[dict[str, Any]]) -> Evaluation:
    """The evaluations of single clients as one, in their order."""
    first = events[0]
    head = ("event", "round", "group", "skipped", "pooled")
    columns = {name: [value for each in events for value in each[name]] for name in first if name not in head}
    return Evaluation(first["round"], first["group"], columns, skipped=sum(each["skipped"] for each in events))


def require_local_metric(trial: SiloTrial) -> None:
    """Refuse what only one who sees the predictions of all can compute.

    Raises:
        ConfigError: for a pooled metric.
    """
    metric = trial.task.metric
    if metric.kind == "pooled":
        raise ConfigError(
            f'metric "{metric.name}" is computed on the predictions of all silos together, which they keep',
            where="[task] metric",
            mend="Use a metric of each client, or --engine local, which simulates.",
        )

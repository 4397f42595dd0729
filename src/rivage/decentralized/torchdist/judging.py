"""Evaluation of silos by themselves: models and records stay, scores go to silo 0.

As in simulation every silo's own model is judged on its own records (group ``seen``), the average of all models on the
same records (``average``) and, by silo 0, on the records of clients that are no silos (``unseen``); all that by
`rivage.decentralized.judging`. In which shares a silo mixes its models is known to it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rivage.core.errors import ConfigError
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.evaluation import Evaluation

__all__ = ["assembled", "require_local_metric", "told"]


def told(evaluation: Evaluation) -> dict[str, Any]:
    """What silo 0 hears of an evaluation: scores, and not how the silo mixes its models."""
    return {name: value for name, value in evaluation.event().items() if name != "mix"}


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

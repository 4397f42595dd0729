"""What is learnt: tasks, losses, metrics, reference networks, parameters as values, and the bundle handed on.

Names are loaded on first use: importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.learning.bundle import ModelBundle, Personal, Provenance
    from rivage.learning.losses import LOSSES, Loss
    from rivage.learning.metrics import METRICS, Metric
    from rivage.learning.networks import MODELS
    from rivage.learning.params import ParameterMap, from_numpy, to_numpy
    from rivage.learning.task import Bound, Task, TaskSettings, make_task

_HOMES = {
    "Bound": "task",
    "LOSSES": "losses",
    "Loss": "losses",
    "METRICS": "metrics",
    "MODELS": "networks",
    "Metric": "metrics",
    "ModelBundle": "bundle",
    "ParameterMap": "params",
    "Personal": "bundle",
    "Provenance": "bundle",
    "Task": "task",
    "TaskSettings": "task",
    "from_numpy": "params",
    "make_task": "task",
    "to_numpy": "params",
}

__all__ = [
    "LOSSES",
    "METRICS",
    "MODELS",
    "Bound",
    "Loss",
    "Metric",
    "ModelBundle",
    "ParameterMap",
    "Personal",
    "Provenance",
    "Task",
    "TaskSettings",
    "from_numpy",
    "make_task",
    "to_numpy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

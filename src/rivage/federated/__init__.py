"""Federated learning: the algorithm protocol, the round engine, executors, and one file per method."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.federated.algorithm import Local as LocalJob
    from rivage.federated.algorithm import LocalWork, Phase, Predictor, Pull, Reference, Update
    from rivage.federated.checkpoint import Notebook
    from rivage.federated.engine import Outcome, Trial, run
    from rivage.federated.fedavg import FedAvg, FedSGD
    from rivage.federated.fedprox import FedProx
    from rivage.federated.finetuned import FineTuned
    from rivage.federated.guarded import Guarded
    from rivage.federated.local import Local

__all__ = [
    "FedAvg",
    "FedProx",
    "FedSGD",
    "FineTuned",
    "Guarded",
    "Local",
    "LocalJob",
    "LocalWork",
    "Notebook",
    "Outcome",
    "Phase",
    "Predictor",
    "Pull",
    "Reference",
    "Trial",
    "Update",
    "run",
]

_HOMES = {
    "FedAvg": "fedavg",
    "FedProx": "fedprox",
    "FedSGD": "fedavg",
    "FineTuned": "finetuned",
    "Guarded": "guarded",
    "Local": "local",
    "LocalWork": "algorithm",
    "Notebook": "checkpoint",
    "Outcome": "engine",
    "Phase": "algorithm",
    "Predictor": "algorithm",
    "Pull": "algorithm",
    "Reference": "algorithm",
    "Trial": "engine",
    "Update": "algorithm",
    "run": "engine",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: none of this loads torch before."""
    if name == "LocalJob":
        return import_module("rivage.federated.algorithm").Local
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rivage.federated.{_HOMES[name]}"), name)

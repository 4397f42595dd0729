"""Federated learning: the algorithm protocol, the round engine, executors, and one file per method."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.federated.afl import AFL
    from rivage.federated.algorithm import Local as LocalJob
    from rivage.federated.algorithm import LocalWork, Phase, Predictor, Pull, Reference, Update
    from rivage.federated.apfl import APFL
    from rivage.federated.checkpoint import Notebook
    from rivage.federated.clustered import Clustered
    from rivage.federated.ditto import Ditto
    from rivage.federated.engine import Outcome, Session, run
    from rivage.federated.execution import Execution
    from rivage.federated.fedavg import FedAvg, FedSGD
    from rivage.federated.fedem import FedEM
    from rivage.federated.fedem_heads import FedEMHeads
    from rivage.federated.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
    from rivage.federated.fedprox import FedProx
    from rivage.federated.fedrep import FedRep
    from rivage.federated.fedstream import FedStream
    from rivage.federated.finetuned import FineTuned
    from rivage.federated.guarded import Guarded
    from rivage.federated.knnper import KNNPer
    from rivage.federated.l2gd import L2GD
    from rivage.federated.local import Local
    from rivage.federated.perfedavg import PerFedAvg
    from rivage.federated.pfedme import PFedMe
    from rivage.federated.qffl import QFFL
    from rivage.federated.scaffold import Scaffold
    from rivage.federated.trial import Trial

__all__ = [
    "AFL",
    "APFL",
    "L2GD",
    "QFFL",
    "Clustered",
    "Ditto",
    "Execution",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedEM",
    "FedEMHeads",
    "FedProx",
    "FedRep",
    "FedSGD",
    "FedStream",
    "FedYogi",
    "FineTuned",
    "Guarded",
    "KNNPer",
    "Local",
    "LocalJob",
    "LocalWork",
    "Notebook",
    "Outcome",
    "PFedMe",
    "PerFedAvg",
    "Phase",
    "Predictor",
    "Pull",
    "Reference",
    "Scaffold",
    "Session",
    "Trial",
    "Update",
    "run",
]

_HOMES = {
    "AFL": "afl",
    "APFL": "apfl",
    "Clustered": "clustered",
    "Ditto": "ditto",
    "Execution": "execution",
    "FedAdagrad": "fedopt",
    "FedAdam": "fedopt",
    "FedAvg": "fedavg",
    "FedAvgM": "fedopt",
    "FedEM": "fedem",
    "FedEMHeads": "fedem_heads",
    "FedProx": "fedprox",
    "FedRep": "fedrep",
    "FedSGD": "fedavg",
    "FedStream": "fedstream",
    "FedYogi": "fedopt",
    "FineTuned": "finetuned",
    "Guarded": "guarded",
    "KNNPer": "knnper",
    "L2GD": "l2gd",
    "Local": "local",
    "LocalWork": "algorithm",
    "Notebook": "checkpoint",
    "Outcome": "engine",
    "PFedMe": "pfedme",
    "PerFedAvg": "perfedavg",
    "Phase": "algorithm",
    "Predictor": "algorithm",
    "Pull": "algorithm",
    "QFFL": "qffl",
    "Reference": "algorithm",
    "Scaffold": "scaffold",
    "Session": "engine",
    "Trial": "trial",
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

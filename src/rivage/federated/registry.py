"""The methods a study may name."""

from __future__ import annotations

from rivage.core.registry import Registry

__all__ = ["ALGORITHMS"]

ALGORITHMS = Registry(
    "rivage.algorithms",
    "method",
    {
        "fedavg": "rivage.federated.fedavg:FedAvg",
        "fedavg+": "rivage.federated.finetuned:FineTuned",
        "fedprox": "rivage.federated.fedprox:FedProx",
        "fedsgd": "rivage.federated.fedavg:FedSGD",
        "guarded": "rivage.federated.guarded:Guarded",
        "local": "rivage.federated.local:Local",
    },
)

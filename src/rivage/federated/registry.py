"""The methods a study may name."""

from __future__ import annotations

from rivage.core.registry import Registry

__all__ = ["ALGORITHMS"]

ALGORITHMS = Registry(
    "rivage.algorithms",
    "method",
    {
        "apfl": "rivage.federated.apfl:APFL",
        "ditto": "rivage.federated.ditto:Ditto",
        "dpasgd": "rivage.decentralized.dpsgd:DPASGD",
        "dpsgd": "rivage.decentralized.dpsgd:DPSGD",
        "fedadagrad": "rivage.federated.fedopt:FedAdagrad",
        "fedadam": "rivage.federated.fedopt:FedAdam",
        "fedavg": "rivage.federated.fedavg:FedAvg",
        "fedavg+": "rivage.federated.finetuned:FineTuned",
        "fedavgm": "rivage.federated.fedopt:FedAvgM",
        "fedem": "rivage.federated.fedem:FedEM",
        "fedprox": "rivage.federated.fedprox:FedProx",
        "fedsgd": "rivage.federated.fedavg:FedSGD",
        "fedyogi": "rivage.federated.fedopt:FedYogi",
        "guarded": "rivage.federated.guarded:Guarded",
        "local": "rivage.federated.local:Local",
        "scaffold": "rivage.federated.scaffold:Scaffold",
    },
)

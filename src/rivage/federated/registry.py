"""The methods a study may name."""

from __future__ import annotations

from rivage.core.registry import Registry

__all__ = ["ALGORITHMS"]

ALGORITHMS = Registry(
    "rivage.algorithms",
    "method",
    {
        "afl": "rivage.federated.afl:AFL",
        "apfl": "rivage.federated.apfl:APFL",
        "clustered": "rivage.federated.clustered:Clustered",
        "dfedem": "rivage.decentralized.dfedem:DFedEM",
        "ditto": "rivage.federated.ditto:Ditto",
        "dpasgd": "rivage.decentralized.dpsgd:DPASGD",
        "dpsgd": "rivage.decentralized.dpsgd:DPSGD",
        "exact_diffusion": "rivage.decentralized.exact_diffusion:ExactDiffusion",
        "fedadagrad": "rivage.federated.fedopt:FedAdagrad",
        "fedadam": "rivage.federated.fedopt:FedAdam",
        "fedavg": "rivage.federated.fedavg:FedAvg",
        "fedavg+": "rivage.federated.finetuned:FineTuned",
        "fedavgm": "rivage.federated.fedopt:FedAvgM",
        "fedem": "rivage.federated.fedem:FedEM",
        "fedem_heads": "rivage.federated.fedem_heads:FedEMHeads",
        "fedprox": "rivage.federated.fedprox:FedProx",
        "fedrep": "rivage.federated.fedrep:FedRep",
        "fedsgd": "rivage.federated.fedavg:FedSGD",
        "fedstream": "rivage.federated.fedstream:FedStream",
        "fedyogi": "rivage.federated.fedopt:FedYogi",
        "gradient_tracking": "rivage.decentralized.gradient_tracking:GradientTracking",
        "guarded": "rivage.federated.guarded:Guarded",
        "knnper": "rivage.federated.knnper:KNNPer",
        "l2gd": "rivage.federated.l2gd:L2GD",
        "local": "rivage.federated.local:Local",
        "perfedavg": "rivage.federated.perfedavg:PerFedAvg",
        "pfedme": "rivage.federated.pfedme:PFedMe",
        "push_diging": "rivage.decentralized.gradient_tracking:PushDIGing",
        "push_sum": "rivage.decentralized.push_sum:PushSum",
        "qffl": "rivage.federated.qffl:QFFL",
        "scaffold": "rivage.federated.scaffold:Scaffold",
    },
)

"""The stages, collectors and adversaries a study may name. Looking at these tables imports nothing."""

from __future__ import annotations

from rivage.core.registry import Registry

__all__ = ["ADVERSARIES", "COLLECTIONS", "STAGES"]

STAGES = Registry(
    "rivage.stages",
    "stage",
    {
        "bfloat16": "rivage.federated.rounding:BFloat16",
        "clip": "rivage.federated.clipping:Clip",
        "float16": "rivage.federated.rounding:Float16",
        "gaussian_noise": "rivage.federated.local_noise:GaussianNoise",
        "top_k": "rivage.federated.sparsifying:TopK",
    },
)

COLLECTIONS = Registry(
    "rivage.collectors",
    "collector",
    {
        "dp_ftrl": "rivage.federated.dp_ftrl:DPFTRL",
        "krum": "rivage.federated.robust:Krum",
        "mean": "rivage.federated.collectors:Averaged",
        "median": "rivage.federated.robust:Median",
        "norm_bounded": "rivage.federated.robust:NormBounded",
        "private_mean": "rivage.federated.user_privacy:PrivateMean",
        "secagg": "rivage.federated.secagg:SecAgg",
        "trimmed_mean": "rivage.federated.robust:TrimmedMean",
    },
)

ADVERSARIES = Registry(
    "rivage.adversaries",
    "adversary",
    {
        "huge": "rivage.federated.adversaries:Huge",
        "nan": "rivage.federated.adversaries:NotANumber",
        "sign_flip": "rivage.federated.adversaries:SignFlip",
    },
)

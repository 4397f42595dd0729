"""How sure models are of the true answers: one number per model and record, in float64.

For a class y with logits z the confidence is the log-odds of the true class,

    φ = log(p_y / (1 − p_y)) = z_y − log Σ_{c≠y} exp z_c,

which is nearly Gaussian over models and does not saturate where p_y rounds to 1. For sequences of symbols it is
averaged over positions; for real targets φ is minus the loss.

References:
    Carlini, Chien, Nasr, Song, Terzis, Tramèr. Membership inference attacks from first principles. S&P 2022,
    arXiv 2112.03570, Section V-A.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray
from torch import Tensor

from rivage.data.population import Samples
from rivage.learning.params import from_numpy, to_numpy
from rivage.learning.task import Task
from rivage.privacy.attack import Meter
from rivage.privacy.views import Refused

__all__ = ["confidence", "confidences", "log_likelihood"]

_CHUNK = 1024  # records per forward pass, which bounds the memory of activations


def confidence(task: Task, outputs: Float[Tensor, "n *output"], y: Shaped[Tensor, "n *target"]) -> Float64[Tensor, "n"]:
    """φ of every record.

    Args:
        task: whose loss says what an output stands for.
        outputs: of the model, before softmax.
        y: true targets.
    """
    outputs, target = outputs.double(), task.schema.target
    if target == "real":
        return -task.loss.per_record(outputs, y.double())
    if outputs.shape[-1] == 1:  # one output for two classes: the log-odds of class 1
        return torch.where(y == 1, outputs[:, 0], -outputs[:, 0])
    chosen = y.unsqueeze(-1)
    others = outputs.scatter(-1, chosen, -torch.inf).logsumexp(-1)
    odds = outputs.gather(-1, chosen).squeeze(-1) - others
    return odds if odds.dim() == 1 else odds.flatten(1).mean(1)


def confidences(
    task: Task, models: Iterable[Float[ndarray, "dim"]], records: Samples, meter: Meter
) -> Float64[ndarray, "models n"]:
    """φ of every record under every model, in evaluation mode; one forward pass each.

    Raises:
        Refused: if a model gives a record no finite φ.
    """
    bound, (x, y) = task.bind(), task.tensors(records)
    bound.module.eval()
    rows = []
    with torch.no_grad():
        for model in models:
            bound.load(from_numpy(model, dtype=task.dtype, device=task.device))
            parts = zip(torch.split(x, _CHUNK), torch.split(y, _CHUNK), strict=True)
            rows.append(torch.cat([confidence(task, bound.outputs(inputs), truth) for inputs, truth in parts]))
            meter.count(len(records))
    found = to_numpy(torch.stack(rows)) if rows else np.empty((0, len(records)))
    if not np.isfinite(found).all():
        raise Refused(
            f"{int((~np.isfinite(found)).any(1).sum())} of {len(found)} models have no finite confidence",
            mend="A training that diverges teaches nothing; lower the learning rate of the reference models.",
        )
    return found


def log_likelihood(phi: Float64[ndarray, "*shape"], target: str) -> Float64[ndarray, "*shape"]:
    """The log-likelihood of the truth that φ stands for: log p_y = −log(1 + exp(−φ)), or φ for a real target."""
    result: ndarray = phi if target == "real" else -np.logaddexp(0.0, -phi)
    return result

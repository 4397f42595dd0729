"""Losses: one number per record, and the prediction that a raw output stands for.

Every loss is the negative log-likelihood of a record, up to a constant: mixtures of models may use exp(−loss)
as a likelihood. Executors weigh and average records themselves, so nothing is reduced over records here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from rivage.core.registry import Registry
from rivage.data.population import Schema

__all__ = ["CROSS_ENTROPY", "LOGISTIC", "LOSSES", "NEXT_CHARACTER", "SQUARED", "Canonical", "Loss"]

Target = Literal["class", "real", "tokens"]


@dataclass(frozen=True, slots=True)
class Canonical:
    """A likelihood of the exponential family with its canonical link.

    Args:
        mean_: outputs ``[…, n, width]`` -> expected target ``[…, n, width]``, may overwrite its argument.
        encode: (y, width) -> targets ``[n, width]`` of the outputs' kind (one-hot rows for classes), as floats.
    """

    mean_: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a model is trained to make small.

    Args:
        name: its registered kind.
        targets: the kinds of target it is for (`Schema.target`).
        width: schema -> how many numbers the model puts out per record (per position, for tokens).
        per_record: (outputs ``[n, …, width]``, y) -> losses ``[n]``, differentiable.
        predict: outputs -> predictions: probabilities of the classes or symbols ``[n, …, num_classes]``, or
            real numbers ``[n, num_outputs]``. Predictions of several models may be mixed; outputs may not.
        of_predictions: (predictions, y) -> losses ``[n]``; equal to ``per_record`` of the outputs they came
            from.
        binary: whether it is for exactly two classes.
        canonical: what makes the derivative of a record's loss by its outputs ``mean(outputs) − encode(y)``;
            executors that write their own backward pass need it. None for losses without that form.
    """

    name: str
    targets: tuple[Target, ...]
    width: Callable[[Schema], int]
    per_record: Callable[[Tensor, Tensor], Tensor]
    predict: Callable[[Tensor], Tensor]
    of_predictions: Callable[[Tensor, Tensor], Tensor]
    binary: bool = False
    canonical: Canonical | None = None


def _cross_entropy(outputs: Float[Tensor, "n classes"], y: Int64[Tensor, "n"]) -> Float[Tensor, "n"]:
    """−log softmax(outputs)[y]."""
    return F.cross_entropy(outputs, y, reduction="none")


def _softmax(outputs: Float[Tensor, "n *positions classes"]) -> Float[Tensor, "n *positions classes"]:
    return outputs.softmax(dim=-1)


def _surprise(
    probabilities: Float[Tensor, "n *positions classes"], y: Int64[Tensor, "n *positions"]
) -> Float[Tensor, "n"]:
    """−log p[y], averaged over positions if there are some; p = 0 counts as the smallest positive number."""
    chosen = probabilities.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    surprise = -chosen.clamp_min(torch.finfo(chosen.dtype).tiny).log()
    return surprise.flatten(1).mean(dim=1) if surprise.dim() > 1 else surprise


def _squared(outputs: Float[Tensor, "n outputs"], y: Float[Tensor, "n *outputs"]) -> Float[Tensor, "n"]:
    """½ Σ_j (y_j − h_j)²: a Gaussian of variance 1 in every output, without its constant."""
    return 0.5 * (y.reshape(outputs.shape) - outputs).square().sum(dim=1)


def _identity(outputs: Tensor) -> Tensor:
    return outputs


def _softmax_rows(outputs: Float[Tensor, "*lead classes"]) -> Float[Tensor, "*lead classes"]:
    """Softmax; along an axis that is not the last, torch takes many records at a time."""
    return outputs.transpose(-1, -2).softmax(-2).transpose(-1, -2)


def _one_hot(y: Int64[Tensor, "n"], width: int) -> Int64[Tensor, "n width"]:
    return F.one_hot(y, width)


def _columns(y: Tensor, width: int) -> Tensor:
    return y.reshape(len(y), width)


def _logistic(outputs: Float[Tensor, "n 1"], y: Int64[Tensor, "n"]) -> Float[Tensor, "n"]:
    """log(1 + exp(∓h)), minus for class 1: the one output h is the log-odds of class 1."""
    return F.binary_cross_entropy_with_logits(outputs[:, 0], y.to(outputs.dtype), reduction="none")


def _two_classes(outputs: Float[Tensor, "n 1"]) -> Float[Tensor, "n 2"]:
    return torch.cat([outputs.neg(), outputs], dim=1).sigmoid()


def _next_character(outputs: Float[Tensor, "n length symbols"], y: Int64[Tensor, "n length"]) -> Float[Tensor, "n"]:
    """Mean over positions of −log softmax(outputs)[y]: nats per character."""
    flat = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none")
    return flat.view(y.shape).mean(dim=1)


def _num_classes(schema: Schema) -> int:
    return schema.num_classes


def _num_outputs(schema: Schema) -> int:
    return schema.num_outputs


def _one(schema: Schema) -> int:
    return 1


CROSS_ENTROPY = Loss(
    name="cross_entropy",
    targets=("class",),
    width=_num_classes,
    per_record=_cross_entropy,
    predict=_softmax,
    of_predictions=_surprise,
    canonical=Canonical(_softmax_rows, _one_hot),
)
SQUARED = Loss(
    name="squared",
    targets=("real",),
    width=_num_outputs,
    per_record=_squared,
    predict=_identity,
    of_predictions=_squared,
    canonical=Canonical(_identity, _columns),
)
LOGISTIC = Loss(
    name="logistic",
    targets=("class",),
    width=_one,
    per_record=_logistic,
    predict=_two_classes,
    of_predictions=_surprise,
    binary=True,
    canonical=Canonical(torch.sigmoid_, _columns),
)
NEXT_CHARACTER = Loss(
    name="next_character",
    targets=("tokens",),
    width=_num_classes,
    per_record=_next_character,
    predict=_softmax,
    of_predictions=_surprise,
)

LOSSES = Registry(
    "rivage.losses",
    "loss",
    {
        "cross_entropy": "rivage.learning.losses:CROSS_ENTROPY",
        "logistic": "rivage.learning.losses:LOGISTIC",
        "next_character": "rivage.learning.losses:NEXT_CHARACTER",
        "squared": "rivage.learning.losses:SQUARED",
    },
)
"""Kind -> `Loss`; plug-ins register a `Loss` under the entry-point group of the same name."""

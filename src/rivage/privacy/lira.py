"""LiRA: is the target's confidence in a record that of models which trained on it, or of models which did not?

Carlini, Chien, Nasr, Song, Terzis, Tramèr. Membership inference attacks from first principles. S&P 2022,
arXiv 2112.03570, Algorithm 1 (online) and Section VI-D (offline).

For every record the confidences φ (`rivage.privacy.confidence`) of the reference models that trained on it and of those
that did not are fitted by Gaussians; the score is

    online:   log N(φ_target; μ_in, σ²_in) − log N(φ_target; μ_out, σ²_out),
    offline:  log Φ((φ_target − μ_out) / σ_out),

summed over queries: copies of the record, and the observed rounds where the messages of a client are attacked.

Deviations: variances are pooled, within classes, over all records unless there are at least 64 reference models and 8
of them on each side of the record: few values give variances whose error is larger than their differences. They are
unbiased. With real targets φ is minus the loss.

Cost: that of the reference models (`rivage.privacy.shadows`), and one forward pass per model and query.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray
from scipy.stats import norm

from rivage.core.errors import DataError
from rivage.federated.algorithm import Reference
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.shadows import RETRAINED, UPDATES, Shadows
from rivage.privacy.views import Eavesdropper, ReleasedModel

__all__ = ["LiRA", "LocalLiRA", "offline", "online"]

_MANY, _SIDE = 64, 8  # reference models, and those on one side of a record, from which on its variance is its own
_LEAST = 1e-12  # variance: models that agree to the last digit


def online(
    target: Float64[ndarray, "n queries"],
    references: Float64[ndarray, "models n queries"],
    inside: Bool[ndarray, "models n"],
) -> Float64[ndarray, "n"]:
    """Logarithm of the likelihood ratio of every record.

    Args:
        target: confidences of the model that is asked about.
        references: confidences of the reference models, the target not among them.
        inside: whether the model trained on the record.

    Raises:
        DataError: if a record has no reference model on one side.
    """
    parts = [norm.logpdf(target, *_fit(references, side)) for side in (inside, ~inside)]
    ratio: ndarray = (parts[0] - parts[1]).sum(1)
    return ratio


def offline(
    target: Float64[ndarray, "n queries"],
    references: Float64[ndarray, "models n queries"],
    inside: Bool[ndarray, "models n"],
) -> Float64[ndarray, "n"]:
    """Logarithm of the probability that a model which did not train on the record is less sure of it; see `online`."""
    score: ndarray = norm.logcdf(target, *_fit(references, ~inside)).sum(1)
    return score


def _fit(
    values: Float64[ndarray, "models n queries"], side: Bool[ndarray, "models n"]
) -> tuple[Float64[ndarray, "n queries"], Float64[ndarray, "n queries"]]:
    """Mean and standard deviation of each record's values on one side."""
    count = side.sum(0)[:, None]
    if (count == 0).any() or (count < 2).all():
        raise DataError(
            f"{int((count < 1).sum())} of {count.size} records have no reference model on one side, "
            f"{int((count < 2).sum())} fewer than two",
            mend="Train more reference models, each record in half of them.",
        )
    chosen = side[..., None]
    mean = np.where(chosen, values, 0.0).sum(0) / count
    squares = np.where(chosen, np.square(values - mean), 0.0).sum(0)
    variance = np.broadcast_to(squares.sum(0) / (count - 1).sum(), mean.shape)
    if len(values) >= _MANY:
        own = (count >= _SIDE) & (len(values) - count >= _SIDE)
        variance = np.where(own, squares / np.maximum(count - 1, 1), variance)
    return mean, np.sqrt(np.maximum(variance, _LEAST))


@dataclass(frozen=True, kw_only=True)
class _LiRA(ABC):
    """What both views share."""

    reference: ClassVar[Reference] = Reference(
        key="carlini22",
        authors="Nicholas Carlini and Steve Chien and Milad Nasr and Shuang Song and Andreas Terzis and Florian Tramèr",
        title="Membership Inference Attacks From First Principles",
        venue="IEEE Symposium on Security and Privacy",
        year=2022,
        arxiv="2112.03570",
        part="Algorithm 1 and Section VI-D",
    )
    asks: ClassVar[Asks] = "membership"
    oracle: ClassVar[str] = ""

    shadows: Shadows

    def run(self, view: Any, question: MembershipQuestion, tools: Tools) -> MembershipAnswer:
        """Score the records whose membership is not known.

        Raises:
            Refused: see `Shadows.signals`.
        """
        signals = self.shadows.signals(view, question, tools)
        score = online if self.shadows.audited else offline
        rows = signals.asked
        found = score(signals.target[rows], signals.references[:, rows], signals.inside[:, rows])
        return MembershipAnswer(signals.answer(found), signals.facts)


@dataclass(frozen=True, kw_only=True)
class LiRA(_LiRA):
    """Likelihood ratios of the released model's confidences.

    Args:
        shadows: the reference models.
    """

    view: ClassVar[type] = ReleasedModel

    shadows: Shadows = field(default=RETRAINED)


@dataclass(frozen=True, kw_only=True)
class LocalLiRA(_LiRA):
    """Likelihood ratios of the confidences of the models that one client returned.

    Args:
        shadows: the reference clients.
    """

    view: ClassVar[type] = Eavesdropper

    shadows: Shadows = field(default=UPDATES)

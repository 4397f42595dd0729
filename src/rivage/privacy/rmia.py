"""RMIA: is the record more likely under the target, relative to reference models, than records of the population are?

Zarifzadeh, Liu, Shokri. Low-cost high-power membership inference attacks. ICML 2024, arXiv 2312.03262, Algorithm 1.

With p(x) the likelihood of record x averaged over reference models,

    LR(x) = p_target(x) / p(x),     score(x) = share of population records z with LR(x) / LR(z) >= γ.

Half of the reference models trained on x in the online form, where p(x) is the mean of the two halves' means. Offline
none did, and

    p(x) = (1 + a)/2 · p_out(x) + (1 − a)/2

stands in for it. The attacker chooses a from {0, 0.1, …, 1} by attacking a few of his own reference models in the same
way. It works with one to four reference models.

With one γ for all records the score grows with LR(x) alone: the population decides what a threshold means, not the
order of the records.

Deviations: likelihoods near 1 are kept by their distance to 1, since ratios of probabilities that round to 1 are ties.
The two halves' means are averaged, not all models: with a balanced design from which the target is left out, how many
models trained on a record tells whether the target did. Records that beat equally many of the population, such as all
of it, are ordered by LR(x): as ties they would be of no use at few false alarms. Where several rounds of a client or
several copies are asked about, their log-ratios are averaged. With real targets the likelihood is exp(−loss). Without
further records of the population the audited ones stand in for it.

Cost: that of the reference models (`rivage.privacy.shadows`), and one forward pass per model and query.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray
from scipy.stats import rankdata

from rivage.core.errors import DataError, require
from rivage.federated.algorithm import Reference
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.confidence import log_likelihood
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.roc import auc
from rivage.privacy.shadows import RETRAINED, UPDATES, Shadows
from rivage.privacy.views import Eavesdropper, ReleasedModel

__all__ = ["RMIA", "LocalRMIA", "log_ratio", "score", "tuned"]

_GRID = tuple(i / 10 for i in range(11))
_ATTACKED = 4  # reference models that a is chosen on


def log_ratio(
    target: Float64[ndarray, "n queries"],
    references: Float64[ndarray, "models n queries"],
    inside: Bool[ndarray, "models n"],
    a: float | None = None,
) -> Float64[ndarray, "n"]:
    """Logarithm of LR of every record, averaged over queries.

    Args:
        target: log-likelihoods under the model that is asked about.
        references: log-likelihoods under the reference models, the target not among them.
        inside: whether the model trained on the record.
        a: of the offline form, which reads models that did not train on the record; None is the online form. A record
            on which no reference model trained has the mean of all of them.

    Raises:
        DataError: if a record has no reference model that did not train on it.
    """
    alone = int(np.count_nonzero(inside.sum(0) == len(inside)))
    if alone:
        raise DataError(
            f"{alone} records have no reference model that did not train on them",
            mend="Train more reference models.",
        )
    likelihood, doubt = _means(references, ~inside)
    if a is None:
        inner = _means(references, inside)
        both = inside.any(0, keepdims=True).T
        likelihood = np.where(both, np.logaddexp(likelihood, inner[0]) - np.log(2), likelihood)
        doubt = np.where(both, (doubt + inner[1]) / 2, doubt)
    else:
        with np.errstate(divide="ignore"):  # a = 1
            likelihood = np.logaddexp(np.log((1 + a) / 2) + likelihood, np.log((1 - a) / 2))
        doubt = (1 + a) / 2 * doubt
    prior = np.where(doubt < 0.5, np.log1p(-np.minimum(doubt, 0.5)), likelihood)  # whichever has more digits
    result: ndarray = (target - prior).mean(1)
    return result


def _means(
    values: Float64[ndarray, "models n queries"], side: Bool[ndarray, "models n"]
) -> tuple[Float64[ndarray, "n queries"], Float64[ndarray, "n queries"]]:
    """Of the models on one side: logarithm of the mean likelihood p, and mean of 1 − p; −∞ and 0 without any."""
    chosen, count = side[..., None], np.maximum(side.sum(0), 1)[:, None]
    likelihood: ndarray = np.logaddexp.reduce(np.where(chosen, values, -np.inf), axis=0) - np.log(count)
    doubt: ndarray = np.where(chosen, -np.expm1(values), 0.0).sum(0) / count
    return likelihood, doubt


def score(
    records: Float64[ndarray, "n"], population: Float64[ndarray, "m"], gamma: float = 1.0
) -> Float64[ndarray, "n"]:
    """The number k of the m records of the population with LR(x) / LR(z) >= γ, from log-ratios, as (k + s) / (m + 1).

    Records of equal k are told apart by s in (0, 1), which grows with the rank of LR(x). O((n + m) log (n + m)).
    """
    below = np.searchsorted(np.sort(population), records - np.log(gamma), side="right")
    result: ndarray = (below + rankdata(records) / (len(records) + 1)) / (len(population) + 1)
    return result


def tuned(references: Float64[ndarray, "models n queries"], inside: Bool[ndarray, "models n"]) -> float:
    """The a with which attacks on a few of the reference models have the largest mean area; the first of the best.

    Each attacked model's records are ranked by the others that did not train on them.
    """
    areas = np.zeros(len(_GRID))
    for model in range(min(_ATTACKED, len(inside))):
        others = np.arange(len(inside)) != model
        rows = inside.any(0) & ~inside[others].all(0)
        member = inside[model, rows]
        if not others.any() or member.all() or not member.any():
            continue
        left, sides = references[others][:, rows], inside[others][:, rows]
        areas += [auc(log_ratio(references[model, rows], left, sides, a), member) for a in _GRID]
    return _GRID[int(np.argmax(areas))]


@dataclass(frozen=True, kw_only=True)
class _RMIA(ABC):
    """What both views share."""

    reference: ClassVar[Reference] = Reference(
        key="zarifzadeh24",
        authors="Sajjad Zarifzadeh and Philippe Liu and Reza Shokri",
        title="Low-Cost High-Power Membership Inference Attacks",
        venue="ICML",
        year=2024,
        arxiv="2312.03262",
        part="Algorithm 1",
    )
    asks: ClassVar[Asks] = "membership"
    oracle: ClassVar[str] = ""

    gamma: float = 1.0
    shadows: Shadows

    def __post_init__(self) -> None:
        require(self.gamma, "gamma", above=0)

    def run(self, view: Any, question: MembershipQuestion, tools: Tools) -> MembershipAnswer:
        """Score the records whose membership is not known.

        Raises:
            Refused: see `Shadows.signals`.
        """
        signals = self.shadows.signals(view, question, tools)
        kind = tools.task.schema.target
        target, references = log_likelihood(signals.target, kind), log_likelihood(signals.references, kind)
        a = None if self.shadows.audited else tuned(references, signals.inside)
        asked, rows = len(signals.asked), np.r_[signals.asked, signals.audited : len(target)]
        ratios = log_ratio(target[rows], references[:, rows], signals.inside[:, rows], a)
        population = ratios[asked:] if len(ratios) > asked else ratios
        found = score(ratios[:asked], population, self.gamma)
        facts = {**signals.facts, "population": len(population)} | ({} if a is None else {"a": a})
        return MembershipAnswer(signals.answer(found), facts)


@dataclass(frozen=True, kw_only=True)
class RMIA(_RMIA):
    """Relative likelihood ratios of the released model.

    Args:
        gamma: γ, how much more likely than a record of the population, > 0.
        shadows: the reference models.
    """

    view: ClassVar[type] = ReleasedModel

    shadows: Shadows = field(default=RETRAINED)


@dataclass(frozen=True, kw_only=True)
class LocalRMIA(_RMIA):
    """Relative likelihood ratios of the models that one client returned.

    Args:
        gamma: γ, how much more likely than a record of the population, > 0.
        shadows: the reference clients.
    """

    view: ClassVar[type] = Eavesdropper

    shadows: Shadows = field(default=UPDATES)

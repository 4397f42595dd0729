"""From what an attack got right to what is said about it: value, baseline, interval, p-value, verdict.

The evidence of an attack is a JSON object without any record's identity: sorted scores, counts, sums. All numbers of a
row follow from it, so that a certificate can compute them again (`rivage.privacy.checks`).

=============  =============================================================================  =======================
``kind``       holds                                                                          p-value
=============  =============================================================================  =======================
``scores``     per target the sorted scores of ``members`` and ``others``                     rank sums within targets
``counts``     ``records``, ``correct``, ``baseline_correct``; records that only the attack   sign test
               (``better``) or only the baseline (``worse``) gets right
``errors``     ``records``; mean absolute ``error`` and ``baseline_error``; ``deviation`` of  paired t test
               their difference over records
``matches``    ``records``, and how many of them are rebuilt: ``correct``, without            none: a record is there
               messages ``baseline_correct``                                                  or it is not
``estimates``  per target ``status``, ``distance`` to the truth, ``baseline`` distance        none
=============  =============================================================================  =======================

Scores are ranked within a target, never across: between targets differ the data and the model, and that is no
membership. The area is the mean over targets, its interval combines theirs (Zou, Donner, *Psychological Methods* 12,
2007), and its test permutes membership within targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray
from scipy.stats import norm, rankdata, t

from rivage.core.errors import StoreError
from rivage.core.seeding import Streams
from rivage.privacy.roc import auc, auc_interval, auc_test, clopper_pearson, holm, sign_test, tpr_at

__all__ = ["LEVEL", "Finding", "adjust", "finding", "verdict"]

LEVEL = 0.05
"""Chance that an audit in which nothing leaks says that something does, all its attacks together."""

_SHUFFLES = 9_999
_FEW = 10  # members or others of a target below which rank sums are not taken for normal

Evidence = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What evidence says.

    Args:
        metric: name of the value.
        value: what the attack reached.
        baseline: what is reached without it.
        ci: interval of the value, 95 %; None where it has none.
        p: p-value of "not better than the baseline", one-sided; None where nothing is tested.
        least: the smallest p-value that such records can give, however good the attack.
        facts: further numbers.
    """

    metric: str
    value: float
    baseline: float
    ci: tuple[float, float] | None
    p: float | None
    least: float | None = None
    facts: Mapping[str, Any]


def finding(evidence: Evidence) -> Finding:
    """What the evidence says.

    Raises:
        StoreError: if it is no evidence.
    """
    try:
        return _FINDINGS[evidence["kind"]](evidence)
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the evidence of an attack cannot be read ({type(error).__name__}: {error})",
            where="audit.json",
            mend="Audit again with --fresh.",
        ) from error


def adjust(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over those attacks that test something."""
    known = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(known) for p in p_values]


def verdict(found: Finding, p_adjusted: float | None, tests: int, status: str = "") -> str:
    """``leaks``, ``nothing found`` or ``no power``; of models their status; of records whether one is ``recovered``.

    Args:
        found: by the attack.
        p_adjusted: its p-value after correction.
        tests: attacks that the correction is over.
        status: of an estimate.
    """
    if found.metric == "exact":
        return "recovered" if found.value > found.baseline else "nothing found"
    if p_adjusted is None:
        return status
    if p_adjusted <= LEVEL:
        return "leaks"
    hopeless = found.least is not None and found.least * tests > LEVEL
    return "no power" if hopeless else "nothing found"


# --- scores ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Stratum:
    """Scores of one target."""

    scores: Float64[ndarray, "n"]
    member: Bool[ndarray, "n"]

    @classmethod
    def read(cls, target: Mapping[str, Any]) -> _Stratum:
        members, others = (np.asarray(target[name], np.float64) for name in ("members", "others"))
        return cls(np.concatenate([members, others]), np.repeat([True, False], [len(members), len(others)]))

    @property
    def pairs(self) -> int:
        ones = int(self.member.sum())
        return ones * (len(self.member) - ones)

    @property
    def few(self) -> bool:
        ones = int(self.member.sum())
        return min(ones, len(self.member) - ones) < _FEW

    @property
    def variance(self) -> float:
        """Of the area when membership is shuffled; ties count."""
        n, ones = len(self.scores), int(self.member.sum())
        ranks = rankdata(self.scores)
        return ones * (n - ones) / (n * (n - 1)) * float(np.sum((ranks - (n + 1) / 2) ** 2)) / self.pairs**2

    def shuffled(self, generator: np.random.Generator) -> Float64[ndarray, "shuffles"]:
        """Areas under shuffled membership."""
        ranks, ones = rankdata(self.scores), int(self.member.sum())
        drawn = generator.permuted(np.tile(ranks, (_SHUFFLES, 1)), axis=1)[:, :ones]
        areas: ndarray = (drawn.sum(axis=1) - ones * (ones + 1) / 2) / self.pairs
        return areas

    def perfect(self) -> _Stratum:
        """The same records, told apart without a fault."""
        return _Stratum(self.member.astype(np.float64), self.member)


def _of_scores(evidence: Evidence) -> Finding:
    strata = [_Stratum.read(target) for target in evidence["targets"]]
    if not strata:
        raise ValueError("there are no targets")
    areas = [auc(stratum.scores, stratum.member) for stratum in strata]
    value = float(np.mean(areas))
    return Finding(
        metric="auc",
        value=value,
        baseline=0.5,
        ci=_combined(areas, [auc_interval(stratum.scores, stratum.member) for stratum in strata]),
        p=_stratified(strata, value),
        least=_stratified([stratum.perfect() for stratum in strata], 1.0),
        facts={
            "members": sum(int(stratum.member.sum()) for stratum in strata),
            "others": sum(int((~stratum.member).sum()) for stratum in strata),
            **_low_alarms(strata),
        },
    )


def _combined(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Interval of the mean from intervals of independent parts: distances to their limits add like deviations."""
    mean, count = float(np.mean(values)), len(values)
    below = math.hypot(*(value - low for value, (low, _) in zip(values, intervals, strict=True))) / count
    above = math.hypot(*(high - value for value, (_, high) in zip(values, intervals, strict=True))) / count
    return max(mean - below, 0.0), min(mean + above, 1.0)


def _stratified(strata: Sequence[_Stratum], value: float) -> float:
    """P-value of the mean area under membership shuffled within each target."""
    if len(strata) == 1:
        return auc_test(strata[0].scores, strata[0].member)
    if any(stratum.few for stratum in strata):
        generator = Streams(0).numpy("leakage", "shuffles")  # fixed: the p-value is a function of the evidence
        means = np.mean([stratum.shuffled(generator) for stratum in strata], axis=0)
        return float((1 + np.sum(means >= value - 1e-12)) / (1 + _SHUFFLES))
    spread = math.sqrt(sum(stratum.variance for stratum in strata)) / len(strata)
    step = 0.5 * min(1 / stratum.pairs for stratum in strata) / len(strata)  # of the discrete areas
    return float(norm.sf((value - 0.5 - step) / spread)) if spread else 1.0


def _low_alarms(strata: Sequence[_Stratum]) -> dict[str, float]:
    """Members found at few false alarms, over all targets after each one's scores were put on the same scale."""
    scores = np.concatenate([_standard(stratum) for stratum in strata])
    member = np.concatenate([stratum.member for stratum in strata])
    rates = {f"tpr_at_{fpr:g}": tpr_at(scores, member, fpr) for fpr in (0.1, 0.01, 0.001)}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _standard(stratum: _Stratum) -> Float64[ndarray, "n"]:
    """Share of the target's others below each score, ties counting one half: the scale that targets have in common."""
    others = np.sort(stratum.scores[~stratum.member])
    below, up_to = (np.searchsorted(others, stratum.scores, side=side) for side in ("left", "right"))
    shares: ndarray = (below + up_to) / 2 / len(others)
    return shares


# --- counts, errors, estimates --------------------------------------------------------------------------------------


def _of_counts(evidence: Evidence) -> Finding:
    records, correct, guessed, better, worse = (
        int(evidence[name]) for name in ("records", "correct", "baseline_correct", "better", "worse")
    )
    consistent = correct - guessed == better - worse and better <= correct <= records and worse <= guessed <= records
    if not consistent or min(better, worse, records - correct - worse) < 0:
        raise ValueError("counts contradict one another")
    return Finding(
        metric=str(evidence.get("metric", "accuracy")),
        value=correct / records,
        baseline=guessed / records,
        ci=clopper_pearson(correct, records),
        p=sign_test(better, worse),
        least=sign_test(records - guessed, 0),
        facts={"records": records},
    )


def _of_errors(evidence: Evidence) -> Finding:
    records = int(evidence["records"])
    error, guessed, deviation = (float(evidence[name]) for name in ("error", "baseline_error", "deviation"))
    own = float(t.ppf(0.975, records - 1)) * float(evidence["error_deviation"]) / math.sqrt(records)
    gain, standard = guessed - error, deviation / math.sqrt(records)
    return Finding(
        metric="mae",
        value=error,
        baseline=guessed,
        ci=(max(error - own, 0.0), error + own),
        p=float(t.sf(gain / standard, records - 1)) if standard > 0 else float(gain <= 0),
        facts={"records": records},
    )


def _of_matches(evidence: Evidence) -> Finding:
    records, correct, guessed = (int(evidence[name]) for name in ("records", "correct", "baseline_correct"))
    if not 0 <= max(correct, guessed) <= records:
        raise ValueError("counts contradict one another")
    return Finding(
        metric="exact",
        value=correct / records,
        baseline=guessed / records,
        ci=clopper_pearson(correct, records),
        p=None,
        facts={"records": records},
    )


def _of_estimates(evidence: Evidence) -> Finding:
    if not (targets := evidence["targets"]):
        raise ValueError("there are no targets")
    distances, baselines = ([float(target[name]) for target in targets] for name in ("distance", "baseline"))
    return Finding(
        metric="distance",
        value=float(np.mean(distances)),
        baseline=float(np.mean(baselines)),
        ci=None,
        p=None,
        facts={},
    )


_FINDINGS: Mapping[str, Callable[[Evidence], Finding]] = {
    "scores": _of_scores,
    "counts": _of_counts,
    "errors": _of_errors,
    "matches": _of_matches,
    "estimates": _of_estimates,
}

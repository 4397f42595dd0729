"""How well scores tell members from others: curve, area, intervals, tests.

Scores are higher for members; a record with ``score >= threshold`` is called a member. Equal scores are one point of
the curve: no order among them is assumed, none is interpolated away, and a tied pair counts one half in the area.
Everything here is a function of arrays; nothing knows a model.

The area is the Mann-Whitney statistic. Its interval solves for the area with the variance of Hanley, McNeil,
*Radiology* 143, 1982, as Newcombe, *Statistics in Medicine* 25, 2006 (part 2, method 5) does: so it has a width where
the measured area is 1. Clopper, Pearson, *Biometrika* 26, 1934. Holm, *Scandinavian Journal of Statistics* 6, 1979. Why
rates are reported at a small share of false alarms rather than on average: Carlini et al., S&P 2022, arXiv 2112.03570.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy import ndarray
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm, rankdata

from rivage.core.errors import DataError, ShapeError

__all__ = [
    "Roc",
    "auc",
    "auc_interval",
    "auc_test",
    "balanced_accuracy",
    "best_balanced_accuracy",
    "best_threshold",
    "clopper_pearson",
    "holm",
    "roc",
    "sign_test",
    "tpr_at",
]

_EXACT = 50  # records up to which the null distribution is counted out: C(50, 25) is an exact float64
_ALARMS = 10  # others that a share of false alarms must stand for


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """The curve: from (0, 0), one point per distinct score from the highest down, to (1, 1).

    Args:
        fpr: share of others called members.
        tpr: share of members called members.
    """

    fpr: Float64[ndarray, "points"]
    tpr: Float64[ndarray, "points"]


def roc(scores: Float[ndarray, "n"], member: Bool[ndarray, "n"]) -> Roc:
    """The curve of these scores.

    Raises:
        DataError: if a score is NaN, or members or others are missing.
    """
    _, hits, alarms = _counted(scores, member)
    return Roc(np.concatenate([[0.0], alarms / alarms[-1]]), np.concatenate([[0.0], hits / hits[-1]]))


def auc(scores: Float[ndarray, "n"], member: Bool[ndarray, "n"]) -> float:
    """Area under the curve: the chance that a member scores above another, ties counting one half."""
    curve = roc(scores, member)
    return float(np.trapezoid(curve.tpr, curve.fpr))


def tpr_at(scores: Float[ndarray, "n"], member: Bool[ndarray, "n"], fpr: float) -> float | None:
    """The largest share of members found with at most this share of false alarms; no interpolation.

    Returns:
        None with fewer than 10 / ``fpr`` others, where the share stands for less than ten false alarms.
    """
    curve = roc(scores, member)
    others = int(np.sum(~member))
    if others * fpr < _ALARMS * (1 - 1e-9):
        return None
    return float(curve.tpr[curve.fpr <= fpr * (1 + 1e-9)].max())


def balanced_accuracy(scores: Float[ndarray, "n"], member: Bool[ndarray, "n"], threshold: float) -> float:
    """(TPR + 1 − FPR) / 2 at a threshold, which must come from other records than these."""
    _counted(scores, member)
    called = scores >= threshold
    return float((called[member].mean() + 1 - called[~member].mean()) / 2)


def best_threshold(scores: Float[ndarray, "n"], member: Bool[ndarray, "n"]) -> float:
    """The threshold of largest balanced accuracy on these records: the highest, where several are equal.

    It is infinite (nobody is a member) where no threshold is better than that.
    """
    values, hits, alarms = _counted(scores, member)
    gain = np.concatenate([[0], hits * alarms[-1] - alarms * hits[-1]])  # in integers: equal ones are equal
    return float(np.concatenate([[np.inf], values])[int(np.argmax(gain))])


def best_balanced_accuracy(scores: Float[ndarray, "n"], member: Bool[ndarray, "n"]) -> float:
    """The largest over all thresholds. Chosen in hindsight: above 1/2 even where there is nothing to find."""
    curve = roc(scores, member)
    return float((1 + (curve.tpr - curve.fpr).max()) / 2)


# --- intervals and tests --------------------------------------------------------------------------------------------


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval for the rate behind ``k`` successes in ``n`` trials, half of the doubt on each side."""
    if not 0 <= k <= n:
        raise DataError(f"{k} successes in {n} trials", mend="Give 0 <= k <= n.")
    _require_confidence(confidence)
    doubt = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(beta.ppf(doubt, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1 - doubt, k + 1, n - k))
    return low, high


def auc_interval(
    scores: Float[ndarray, "n"], member: Bool[ndarray, "n"], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval for the area: all areas A that lie within z(A) standard errors of the measured one.

    The squared error of m members and n others is, with N = (m + n) / 2,

        A (1 − A) [1 + (N − 1) ((1 − A) / (2 − A) + A / (1 + A))] / (m n).
    """
    _require_confidence(confidence)
    area, ones = auc(scores, member), int(np.sum(member))
    pairs, half = ones * (len(member) - ones), len(member) / 2
    z = float(norm.ppf((1 + confidence) / 2))

    def excess(a: float) -> float:
        spread = a * (1 - a) * (1 + (half - 1) * ((1 - a) / (2 - a) + a / (1 + a))) / pairs
        return (area - a) ** 2 - z * z * spread

    # At the measured area the excess is negative (or 0 at an end), at both ends positive (or 0).
    low = 0.0 if area == 0 else float(brentq(excess, 0.0, _inside(area)))
    high = 1.0 if area == 1 else float(brentq(excess, _inside(area), 1.0))
    return low, high


def _inside(area: float) -> float:
    """The area, moved off 0 and 1, where its error is 0."""
    return min(max(area, 1e-9), 1 - 1e-9)


def auc_test(scores: Float[ndarray, "n"], member: Bool[ndarray, "n"]) -> float:
    """P-value of "members do not score higher", one-sided: the chance of such an area if membership were shuffled.

    Exact up to 50 records, ties included; beyond that the normal approximation of the rank sum with corrections for
    ties and continuity.
    """
    _counted(scores, member)
    doubled = np.rint(2 * rankdata(scores)).astype(np.int64)  # mean ranks of ties are halves
    ones = int(np.sum(member))
    return (_counted_out if len(member) <= _EXACT else _approximated)(doubled, ones, int(doubled[member].sum()))


def _counted_out(doubled: ndarray, ones: int, seen: int) -> float:
    """Share of all choices of so many records whose doubled ranks sum to at least what was seen."""
    ways = np.zeros((ones + 1, int(doubled.sum()) + 1))
    ways[0, 0] = 1.0
    for rank in doubled.tolist():
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    return float(ways[ones, seen:].sum() / ways[ones].sum())


def _approximated(doubled: ndarray, ones: int, seen: int) -> float:
    n = len(doubled)
    variance = ones * (n - ones) / (n * (n - 1)) * float(np.sum((doubled / 2 - (n + 1) / 2) ** 2))
    if variance == 0:
        return 1.0
    return float(norm.sf((seen / 2 - ones * (n + 1) / 2 - 0.5) / np.sqrt(variance)))


def sign_test(better: int, worse: int) -> float:
    """P-value of "not better than the baseline", one-sided and exact, from the records that only one gets right.

    Args:
        better: records right here and wrong under the baseline.
        worse: the other way round.
    """
    if min(better, worse) < 0:
        raise DataError(f"{better} better and {worse} worse records", mend="Give counts.")
    return float(binom.sf(better - 1, better + worse, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: to reject where they are at most α keeps the chance of any false rejection below α.

    In ascending order, p_(i) becomes the largest of (m − j + 1) p_(j) over j <= i, at most 1.
    """
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"p-values are {list(p_values)}", mend="Give numbers between 0 and 1.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    result: list[float] = adjusted.tolist()
    return result


# --- shared ---------------------------------------------------------------------------------------------------------


def _counted(scores: ndarray, member: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Distinct scores descending, and how many members and others score at least that."""
    if scores.shape != member.shape or scores.ndim != 1:
        raise ShapeError(f"scores {scores.shape} and members {member.shape}", mend="Give one of each per record.")
    if np.isnan(scores).any():
        raise DataError(f"{int(np.isnan(scores).sum())} scores are NaN", mend="Leave such records out.")
    if member.all() or not member.any():
        missing = "others" if len(member) and member.all() else "members"
        raise DataError(f"there are no {missing} among {len(member)} records", mend="Give some of both.")
    order = np.argsort(-scores, kind="stable")
    values, hits = scores[order], np.cumsum(member[order])
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    return values[last], hits[last], last + 1 - hits[last]


def _require_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}", mend="Give a number between 0 and 1.")

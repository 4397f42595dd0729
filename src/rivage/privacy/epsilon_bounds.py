"""Lower bounds on ε that an attack proves, to be held against the ε that an accountant claims.

A mechanism is (ε, δ)-differentially private only if every test of "the canary was in" against "it was not" errs often:

    FPR + e^ε FNR >= 1 − δ    and    FNR + e^ε FPR >= 1 − δ                               (Kairouz et al.).

Turned round, measured errors bound ε from below. All bounds here hold with the confidence asked for, so that an honest
mechanism may pass its own ε in a share 1 − confidence of all audits.

- `from_errors`: many runs with and without the canary; Clopper–Pearson upper limits of both error rates, each at half
  of the level (Jagielski et al.). Holds for every mechanism.
- `from_errors(..., gaussian=True)`: the same limits, for mechanisms whose trade-off function is Gaussian: sums with
  Gaussian noise, without sampling. Then μ >= Φ⁻¹(1 − FPR⁺) − Φ⁻¹(FNR⁺), and ε follows from (μ, δ) (Nasr et al.). Much
  tighter, and wrong for other mechanisms.
- `from_one_run`: m canaries in one run, each in with probability 1/2 by a coin of its own; r guesses, v of them right
  (Steinke, Nasr, Jagielski, Theorem 5.2). With q = e^ε / (1 + e^ε) and f(v) = P[Bin(r, q) >= v], an (ε, δ) mechanism
  has

      P[v or more right] <= f(v) + 2 m δ max_{i = 1..v} (f(v − i) − f(v)) / i.

  The number of guesses is fixed in advance; `best_of_one_run` tries several, each at its share of the level
  (Bonferroni). Taking the best without that correction, as some tools do, claims more than it proves.

References:
    Jagielski, Ullman, Oprea. Auditing differentially private machine learning: how private is private SGD? NeurIPS
    2020, arXiv 2006.07709.
    Nasr, Hayes, Steinke, Balle, Tramèr, Jagielski, Carlini, Terzis. Tight auditing of differentially private machine
    learning. USENIX Security 2023, arXiv 2302.07956.
    Steinke, Nasr, Jagielski. Privacy auditing with one (1) training run. NeurIPS 2023, arXiv 2305.08846.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import beta, binom

from rivage.core.errors import DataError
from rivage.federated.accounting import gaussian_epsilon

__all__ = [
    "Guesses",
    "best_of_one_run",
    "from_errors",
    "from_one_run",
    "from_scores",
    "guesses",
]

Counts = Int64[ndarray, "*_"]

_LARGEST = 100.0  # beyond any ε that a finite experiment can prove


def _upper(errors: Counts, trials: int, level: float) -> Float64[ndarray, "_"]:
    """Clopper–Pearson upper limit of error rates."""
    limit: ndarray = np.where(errors < trials, beta.ppf(1 - level, errors + 1, np.maximum(trials - errors, 1)), 1.0)
    return limit


def _strength(fpr: ndarray, fnr: ndarray, delta: float, gaussian: bool) -> Float64[ndarray, "_"]:
    """What error rates prove: μ, or e^ε; a monotone function of ε either way."""
    if gaussian:
        mu: ndarray = ndtri(1 - fpr) - ndtri(fnr)
        return mu
    ratio: ndarray = np.maximum((1 - delta - fnr) / fpr, (1 - delta - fpr) / fnr)
    return ratio


def from_errors(
    false_positives: int,
    negatives: int,
    false_negatives: int,
    positives: int,
    *,
    delta: float,
    confidence: float = 0.95,
    gaussian: bool = False,
) -> float:
    """The ε proved by counts of errors of one test, which was fixed before they were counted.

    Args:
        false_positives: runs without the canary that were taken for runs with it.
        negatives: runs without it.
        false_negatives: runs with it that were taken for runs without.
        positives: runs with it.
        delta: of the claim.
        confidence: probability that the bound holds.
        gaussian: the mechanism's trade-off function is known to be Gaussian.
    """
    level = (1 - confidence) / 2
    fpr = _upper(np.array(false_positives), negatives, level)
    fnr = _upper(np.array(false_negatives), positives, level)
    found = float(_strength(fpr, fnr, delta, gaussian))
    return gaussian_epsilon(max(found, 0.0), delta) if gaussian else math.log(max(found, 1.0))


def from_scores(
    within: Float64[ndarray, "runs_in"],
    without: Float64[ndarray, "runs_out"],
    *,
    delta: float,
    confidence: float = 0.95,
    gaussian: bool = False,
) -> float:
    """The ε proved by scores of runs with and without the canary, in no order: higher says that it was in.

    The threshold is chosen on every other score, and errors are counted on the rest, which keeps the bound honest.

    Raises:
        DataError: for fewer than two scores on a side, or scores that are no numbers.
    """
    for scores in (within, without):
        if len(scores) < 2 or np.isnan(scores).any():
            raise DataError(f"{len(scores)} scores", where="canaries", mend="Give at least two numbers on each side.")

    chosen, held = slice(0, None, 2), slice(1, None, 2)
    candidates = np.unique(np.concatenate([within[chosen], without[chosen]]))
    level = (1 - confidence) / 2
    fpr = _upper(*_above(without[chosen], candidates), level)
    fnr = _upper(*_below(within[chosen], candidates), level)
    threshold = candidates[_strength(fpr, fnr, delta, gaussian).argmax()]
    alarms, negatives = _above(without[held], threshold)
    missed, positives = _below(within[held], threshold)
    counts = int(alarms), negatives, int(missed), positives
    return from_errors(*counts, delta=delta, confidence=confidence, gaussian=gaussian)


def _below(scores: Float64[ndarray, "n"], thresholds: Float64[ndarray, "*_"]) -> tuple[Counts, int]:
    """How many scores are below each threshold, and of how many."""
    return np.searchsorted(np.sort(scores), thresholds), len(scores)


def _above(scores: Float64[ndarray, "n"], thresholds: Float64[ndarray, "*_"]) -> tuple[Counts, int]:
    below, count = _below(scores, thresholds)
    return count - below, count


@dataclass(frozen=True, slots=True)
class Guesses:
    """What came of guessing which canaries were in.

    Args:
        canaries: m, each in with probability 1/2.
        made: r, canaries that were guessed about.
        right: v, of these.
    """

    canaries: int
    made: int
    right: int


def guesses(scores: Float64[ndarray, "m"], inside: Bool[ndarray, "m"], each: int) -> Guesses:
    """Guess "in" for the ``each`` highest scores and "out" for as many of the lowest; ties by position.

    Raises:
        DataError: for more guesses than canaries, or scores that are no numbers.
    """
    if 2 * each > len(scores) or np.isnan(scores).any():
        raise DataError(f"{2 * each} guesses about {len(scores)} canaries", mend="Guess about fewer, by real numbers.")
    order = np.argsort(scores, kind="stable")
    right = int(inside[order[len(order) - each :]].sum() + (~inside[order[:each]]).sum())
    return Guesses(len(scores), 2 * each, right)


def _p_value(epsilon: float, delta: float, found: Guesses) -> float:
    """Largest probability with which an (ε, δ) mechanism lets so many guesses be right."""
    q = 1 / (1 + math.exp(-epsilon))
    tail = binom.sf(np.arange(found.right, -1, -1) - 1.0, found.made, q)  # f(v), f(v − 1), …, f(0)
    gains = (tail[1:] - tail[0]) / np.arange(1, found.right + 1)
    return float(tail[0] + 2 * found.canaries * delta * gains.max(initial=0.0))


def from_one_run(found: Guesses, *, delta: float, confidence: float = 0.95) -> float:
    """The ε proved by guesses whose number was fixed in advance."""
    level = 1 - confidence
    if _p_value(0.0, delta, found) >= level:
        return 0.0
    if _p_value(_LARGEST, delta, found) < level:
        return _LARGEST
    return float(brentq(lambda epsilon: _p_value(epsilon, delta, found) - level, 0.0, _LARGEST, xtol=1e-9))


def best_of_one_run(
    scores: Float64[ndarray, "m"],
    inside: Bool[ndarray, "m"],
    *,
    each: Sequence[int],
    delta: float,
    confidence: float = 0.95,
) -> float:
    """The largest ε over several numbers of guesses, each at its share of the level.

    Args:
        scores: higher says that the canary was in.
        inside: whether it was.
        each: numbers of guesses on either side, fixed before the scores were seen.
        delta: of the claim.
        confidence: probability that the result holds.
    """
    share = 1 - (1 - confidence) / len(each)
    return max(from_one_run(guesses(scores, inside, count), delta=delta, confidence=share) for count in each)

"""How good guessed records are: each true record with the guess that is its own in the best assignment.

Guesses come in no order, so the assignment is that of least total squared distance (Hungarian method, O(n³)). A true
record without a guess is matched with nothing and counts as missed; its error is that of the baseline record, the mean
of what an attacker without messages knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

__all__ = ["Matched", "label_matches", "match"]


_FAR = 1e6  # times the largest squared distance to the baseline: guesses beyond are equally far


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Guesses held against the truth.

    Args:
        errors: mean squared error of each true record.
        exact: share of true records of which every number lies within the tolerance.
        cells: share of single numbers that do.
        psnr: peak signal-to-noise ratio in dB, 20 log10(range) − 10 log10(mean squared error); infinite if exact.
    """

    errors: Float64[ndarray, "records"]
    exact: float
    cells: float
    psnr: float

    @property
    def mse(self) -> float:
        """Over all numbers."""
        return float(self.errors.mean())


def match(
    found: Float[ndarray, "found *input"],
    truth: Float[ndarray, "records *input"],
    baseline: Float[ndarray, "*input"],
    tolerance: float | Float[ndarray, "*input"] = 0.05,
) -> Matched:
    """Hold guesses against the truth.

    Args:
        found: any number of guesses, in any order; numbers that are not finite count as the baseline.
        truth: at least one record.
        baseline: what a record is taken for without a guess.
        tolerance: largest distance, in the unit of the data, at which a number counts as found.
    """
    flat, base = truth.reshape(len(truth), -1).astype(np.float64), baseline.reshape(-1).astype(np.float64)
    guesses = found.reshape(len(found), base.size).astype(np.float64)
    guesses = np.where(np.isfinite(guesses), guesses, base)
    assigned = np.tile(base, (len(flat), 1))
    missed = np.ones(len(flat), bool)
    # Beside a guess that is far from everything the distances of all others would round to nothing.
    far = _FAR * (float(cdist(flat, base[None], "sqeuclidean").max()) or 1.0)
    rows, columns = linear_sum_assignment(np.minimum(cdist(flat, guesses, "sqeuclidean"), far))
    assigned[rows], missed[rows] = guesses[columns], False
    errors = ((flat - assigned) ** 2).mean(axis=1)
    hits = np.abs(flat - assigned) <= np.broadcast_to(np.asarray(tolerance), truth.shape[1:]).reshape(-1)
    hits[missed] = False
    mse, span = float(errors.mean()), float(np.ptp(flat))
    psnr = math.inf if mse == 0 else 20 * math.log10(max(span, 1e-300)) - 10 * math.log10(mse)
    return Matched(errors, float(hits.all(axis=1).mean()), float(hits.mean()), psnr)


def label_matches(found: Shaped[ndarray, "found"], truth: Shaped[ndarray, "records"]) -> float:
    """Share of true labels that are among the guesses, each guess used once."""
    values = np.union1d(found, truth)
    common = sum(min(int((found == value).sum()), int((truth == value).sum())) for value in values)
    return common / len(truth)

"""Promises in expectation, held against a few draws."""

from __future__ import annotations

from jaxtyping import Float64
from numpy import ndarray

from rivage.core.certificates import Verdict

__all__ = ["in_expectation"]


def in_expectation(excess: Float64[ndarray, "seeds points"], confidence: float) -> Verdict:
    """Whether the expected excess over what was promised may be at most 0 at every point.

    Args:
        excess: of every draw.
        confidence: probability that a promise that is kept does not fail.

    Returns:
        ``holds`` where no mean is above 0; ``fails`` where a one-sided t test at level 1 − confidence, Bonferroni over
        the points, says that one is; ``no_power`` in between, and for a single draw above 0.
    """
    from scipy.stats import t

    seeds, points = excess.shape
    mean = excess.mean(axis=0)
    if (mean <= 0).all():
        return "holds"
    if seeds == 1:
        return "no_power"
    error = excess.std(axis=0, ddof=1) / seeds**0.5
    return "fails" if (mean > t.ppf(1 - (1 - confidence) / points, seeds - 1) * error).any() else "no_power"

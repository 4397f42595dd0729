"""Choosing a model on validation losses: the one-standard-error rule, per client.

NumPy only, so that a certificate can repeat every choice without the training code.

References:
    Breiman, Friedman, Olshen, Stone. Classification and regression trees. 1984, section 3.4.3.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

__all__ = ["choose", "rank"]


def choose(
    losses: Float64[ndarray, "clients candidates"], errors: Float64[ndarray, "clients candidates"]
) -> Int64[ndarray, "clients"]:
    """The candidate each client takes.

    Args:
        losses: mean validation loss, candidates in order of preference; NaN where unknown.
        errors: standard error of each mean; NaN where unknown.

    Returns:
        Column per client. Clients with an unknown loss or error for every candidate follow the population; without
        any known client everybody takes the first. O(clients · candidates).
    """
    known = np.isfinite(losses) & np.isfinite(errors)
    fallback = _population_choice(losses, known.all(axis=1))
    chosen = np.full(len(losses), fallback, np.int64)
    for client in np.flatnonzero(known.any(axis=1)):
        chosen[client] = _one_error_rule(np.where(known[client], losses[client], np.inf), errors[client])
    return chosen


def _one_error_rule(losses: Float64[ndarray, "candidates"], errors: Float64[ndarray, "candidates"]) -> int:
    best = int(np.argmin(losses))
    return int(np.flatnonzero(losses <= losses[best] + errors[best])[0])


def _population_choice(losses: Float64[ndarray, "clients candidates"], whole: Bool[ndarray, "clients"]) -> int:
    if whole.sum() < 2:
        return 0
    means = losses[whole].mean(axis=0)
    return _one_error_rule(means, losses[whole].std(axis=0, ddof=1) / whole.sum() ** 0.5)


def rank(losses: Float64[ndarray, "clients candidates"]) -> Int64[ndarray, "candidates"]:
    """Candidates from the best to the worst for the population: by mean loss over the clients that know them all.

    Equal means, and candidates that nobody knows, keep their order.
    """
    whole = np.isfinite(losses).all(axis=1)
    means = losses[whole].mean(axis=0) if whole.any() else np.zeros(losses.shape[1])
    return np.argsort(means, kind="stable")

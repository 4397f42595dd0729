"""How wrong a fit of `rivage.privacy.affine_map` is, from its own messages.

*Scatter* is what regression leaves unexplained; *left-out* errors come from the leverages of one fit, not from n fits.

*Attenuation* is a bias. Regressing w on g takes g for exact, but with mini-batches the noise is in g, and slopes come
out too small. In coordinates in which g and its noise are both uncorrelated, let ρ be the share of the variance of a
coordinate that w does not explain. Then slopes are too small by 1 − ρ, and what w*, the value at g = 0, lacks is
ρ/(1 − ρ) of what they contribute. Without a bound a coordinate of pure noise would decide, and be far off either way:
as w explains D/n of the variance of noise by chance, the factor counts at most as 2 n/(D + 1).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

__all__ = ["attenuation", "left_out", "scatter"]

_DROWNED = 2.0  # times n/(D + 1): the most that a coordinate may lack


def scatter(left: Float64[ndarray, "rounds dim"], unknowns: int) -> float:
    """Root of the summed variances of what a fit leaves unexplained."""
    spare = len(left) - unknowns
    return math.sqrt(float((left**2).sum()) / spare) if spare > 0 else 0.0


def left_out(
    sent: Float64[ndarray, "rounds dim"],
    left: Float64[ndarray, "rounds dim"],
    leverage: Float64[ndarray, "rounds"],
    unknowns: int,
) -> float | None:
    """Root mean square error in rounds that are left out, over that of the mean of the others; None without spares."""
    rounds = len(left)
    if rounds <= unknowns:
        return None
    errors = left / np.maximum(1 - leverage, 1e-9)[:, None]
    alone = (sent - sent.mean(axis=0)) * rounds / (rounds - 1)
    return float(np.linalg.norm(errors) / max(float(np.linalg.norm(alone)), np.finfo(float).tiny))


def attenuation(sent: Float64[ndarray, "rounds dim"], gradient: Float64[ndarray, "rounds dim"]) -> float:
    """Length of what least squares of w on g lacks in w*; 0 without messages to spare. See the module."""
    rounds, dimension = gradient.shape
    if rounds <= dimension + 1:
        return 0.0
    level = gradient.mean(axis=0)
    varied, moved = gradient - level, sent - sent.mean(axis=0)
    q = np.linalg.qr(moved)[0]
    scale = np.maximum(np.linalg.norm(varied, axis=0), np.finfo(float).tiny)
    u, values, axes = np.linalg.svd(varied / scale, full_matrices=False)
    white = axes.T / np.maximum(values, np.finfo(float).tiny)
    noise = (varied - q @ (q.T @ varied)) / scale @ white
    shares, turned = np.linalg.eigh(noise.T @ noise)
    lacks = np.minimum(shares / np.maximum(1 - shares, 1e-12), _DROWNED * rounds / (dimension + 1)).clip(min=0)
    parts = (turned.T @ (level / scale @ white))[:, None] * (turned.T @ (u.T @ moved))
    return float(np.linalg.norm(lacks @ parts))

"""How much historical and how much fresh data should count: the trade-off of a stream, solved.

Marfoq, Neglia, Kameni, Vidal. Federated learning for data streams. AISTATS 2023, arXiv 2301.01542 (form of the
bounds, up to constants; the minimiser below is derived here, the paper's own could not be consulted).

Groups g of clients hold N_g records each and get the shares p_g of the total weight, equal within a group. A bound on
the true error of what is learnt has a statistical and an optimisation part, over A > 0

    ψ(p) / A = √(Σ_g p_g² / N_g)  +  κ Σ_g p_g v_g / √N_g  +  c Σ_g |p_g − α_g| .

The first term is 1 / √N_eff: it is smallest where all records count the same. The second is the noise of memories that
change, v_g in [0, 1]: 0 if all records stay, 1 if each serves one round. κ = B / A weighs the two. The third is for
groups whose data differ, and shares α that the user wants.

Two groups, historical (v = 0, N_H records) and fresh (v = 1, N_F), c = 0, γ = √(N_F / N_H):

    κ >= γ     p = 1: fresh data are not worth their noise
    otherwise  p = 1 / (1 + γ tan φ),  φ = arccos(κ / √(1 + γ²)) − arctan(1 / γ)
    κ = 0      p = N_H / (N_H + N_F)

With p = r cos θ √N_H and 1 − p = r sin θ √N_F the value is (1 + κ sin θ) / (√N_H cos θ + √N_F sin θ), whose derivative
vanishes where √N_H (sin θ + κ) = √N_F cos θ.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require

__all__ = ["best_shares", "bound", "effective_records", "historical_share"]

_HALVINGS = 60

Shares = Float64[ndarray, "groups"]


def historical_share(historical: float, fresh: float, kappa: float) -> float:
    """The share of historical data that minimises ψ for two groups, in closed form.

    Args:
        historical: N_H, records that stay, >= 0.
        fresh: N_F, records that each serve one round, >= 0; one of the two is positive.
        kappa: κ >= 0, infinite where there is no statistical error; for memories between the two kinds, κ v.

    Example:
        >>> round(historical_share(100, 400, 0.5), 5)
        0.29177
    """
    require(min(kappa, sys.float_info.max), "kappa", least=0)
    if not historical or not fresh:
        return float(historical > 0)
    if kappa == 0:
        return historical / (historical + fresh)
    gamma = math.sqrt(fresh / historical)
    if kappa >= gamma:
        return 1.0
    phi = math.acos(kappa / math.hypot(1, gamma)) - math.atan(1 / gamma)
    return 1 / (1 + gamma * math.tan(phi))


def effective_records(shares: Shares, counts: Shares) -> float:
    """N_eff: so many records of equal weight estimate as well; 1 / Σ_g p_g² / N_g.

    Args:
        shares: of the groups, on the simplex; 0 where there are no records.
        counts: records N_g of each.
    """
    held = counts > 0
    return float(1 / (shares[held] ** 2 / counts[held]).sum())


def bound(
    shares: Shares,
    counts: Shares,
    drift: Shares,
    kappa: float,
    *,
    wanted: Shares | None = None,
    discrepancy: float = 0.0,
) -> float:
    """ψ(p) / A; the arguments are those of `best_shares`."""
    held = counts > 0
    noise = float((shares[held] * drift[held] / np.sqrt(counts[held])).sum())
    apart = 0.0 if wanted is None else discrepancy * float(np.abs(shares - wanted).sum())
    return math.sqrt(1 / effective_records(shares, counts)) + kappa * noise + apart


def best_shares(
    counts: Shares,
    drift: Shares,
    kappa: float,
    *,
    wanted: Shares | None = None,
    discrepancy: float = 0.0,
) -> Shares:
    """The minimiser of ψ on the simplex, to about 1e-12. O(groups · 3,600).

    ‖u‖ = min over R > 0 of ‖u‖² / (2R) + R / 2, jointly convex, so the root R of ‖u(R)‖ = R is bracketed and halved,
    and for each R the problem is separable but for Σ p = 1, whose multiplier μ is found the same way.

    Args:
        counts: records N_g > 0 of each group.
        drift: v_g >= 0 of each group.
        kappa: κ >= 0.
        wanted: α on the simplex; only with a discrepancy.
        discrepancy: c >= 0, in units of A.

    Raises:
        ConfigError: for groups without records.
    """
    require(kappa, "kappa", least=0)
    require(discrepancy, "discrepancy", least=0)
    if not (counts > 0).all():
        raise ConfigError("a group has no records", mend="Leave it out.")
    price = kappa * drift / np.sqrt(counts)
    alpha = np.zeros_like(counts) if wanted is None else wanted
    apart = 0.0 if wanted is None else discrepancy

    low, high = 0.0, 1 / math.sqrt(counts.min())  # ‖u‖ is at most that on the simplex
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        p = _separable(middle * counts, price, alpha, apart)
        if math.sqrt(float((p**2 / counts).sum())) > middle:
            low = middle
        else:
            high = middle
    return _separable(high * counts, price, alpha, apart)


def _separable(scale: Shares, price: Shares, alpha: Shares, apart: float) -> Shares:
    """The minimiser on the simplex of Σ_g p²/(2 scale) + price p + apart |p − α|."""
    # p is a nondecreasing function of μ: below its α it may come up to it at μ − price + c, beyond it goes on at − c.
    low, high = float((price - apart).min()) - 1.0, float((price + apart).max()) + 1 / float(scale.sum()) + 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at(middle, scale, price, alpha, apart).sum() < 1:
            low = middle
        else:
            high = middle
    p = _at(high, scale, price, alpha, apart)
    result: Shares = p / p.sum()
    return result


def _at(multiplier: float, scale: Shares, price: Shares, alpha: Shares, apart: float) -> Shares:
    beyond = scale * (multiplier - price - apart)
    below = np.maximum(scale * (multiplier - price + apart), 0)
    result: Shares = np.where(beyond > alpha, beyond, np.minimum(below, alpha) if apart else np.maximum(beyond, 0))
    return result

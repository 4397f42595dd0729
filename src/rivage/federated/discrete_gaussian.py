"""Noise on whole numbers: the discrete Gaussian, sampled exactly, and what a sum of such noises promises.

N_Z(0, σ²) takes the value z with probability proportional to exp(−z² / 2σ²). It is sampled by rejection, for a whole
number σ >= 1, from the discrete Laplace law of scale σ:

1. Y with P[Y = y] ∝ exp(−|y| / σ): U uniform on {0, …, σ − 1}, kept with probability exp(−U / σ); V geometric, going on
   with probability exp(−1); |Y| = U + σ V with a random sign, drawn again when it is −0.
2. Y is kept with probability exp(−(|Y| − σ)² / 2σ²).

Every exp(−γ) is the parity of a run of coins: with K the first k at which a coin of probability γ/k shows tails,
P[K odd] = exp(−γ) for γ <= 1; larger γ are split into ones and a rest. All coins compare a uniform whole number with a
whole number, in 64 bits: no rounding anywhere, all samples at once.

**Deviation.** The algorithm of the paper takes any rational σ². A whole σ makes all fractions fit 64 bits; rounding up
to it adds noise and never takes any away.

**Concentrated privacy.** m clients add N_Z(0, σ²) each to whole vectors of d coordinates, of which one client changes
the sum by at most Δ in Euclidean norm. The sum satisfies ½ε²-concentrated differential privacy with

    ε = min( √(Δ² / mσ² + 2 τ d),  Δ / (√m σ) + τ √d ),   τ = 10 Σ_{k=1}^{m−1} exp(−2π² σ² k / (k + 1)),

where τ stands for a sum of discrete Gaussians not being one; it vanishes for σ of a few units. The proposition bounds
Rényi divergences of order α by α Δ² / 2mσ² + τ d, which is at most ½ε² α with the first of the two for every α > 1.

References:
    Canonne, Kamath, Steinke. The discrete Gaussian for differential privacy. NeurIPS 2020, arXiv 2004.00010, Algorithms
    1-3.
    Kairouz, Liu, Steinke. The distributed discrete Gaussian mechanism for federated learning with secure aggregation.
    ICML 2021, arXiv 2102.06387, Proposition 14.
    Bun, Steinke. Concentrated differential privacy: simplifications, extensions, and lower bounds. TCC 2016 (ρ-zCDP,
    which bounds the Rényi divergence of order α by ρ α).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from rivage.core.errors import require

__all__ = ["MOST_SIGMA", "concentrated", "discrete_gaussian", "epsilon"]

MOST_SIGMA = 2**24
"""Largest σ: (|Y| − σ)² and k σ² must fit 63 bits, for |Y| up to 100 σ and k up to 2¹⁴."""

Numbers = Int64[ndarray, "n"]
Coins = Bool[ndarray, "n"]


def discrete_gaussian(sigma: int, count: int, random: np.random.Generator) -> Numbers:
    """Independent samples of N_Z(0, σ²).

    Args:
        sigma: 1 <= σ <= 2²⁴.
        count: how many.
        random: draws whole numbers.

    Raises:
        ConfigError: for a sigma out of range.
    """
    require(sigma, "sigma", least=1)
    assert sigma <= MOST_SIGMA, "products of 64 bits"
    samples = np.empty(0, np.int64)
    while len(samples) < count:  # about 0.6 of the candidates are kept
        candidates = _laplace(sigma, 2 * (count - len(samples)) + 16, random)
        away = np.abs(candidates) - sigma
        samples = np.concatenate([samples, candidates[_fallen(away * away, 2 * sigma * sigma, random)]])
    return samples[:count]


def _laplace(scale: int, tries: int, random: np.random.Generator) -> Numbers:
    """Samples of the discrete Laplace law, at most so many."""
    rest = random.integers(0, scale, tries)
    rest = rest[_exponential(rest, scale, random)]
    sizes = rest + scale * _geometric(len(rest), random)
    negative = random.integers(0, 2, len(sizes)).astype(bool)
    kept = ~(negative & (sizes == 0))
    signed: Numbers = np.where(negative, -sizes, sizes)[kept]
    return signed


def _geometric(count: int, random: np.random.Generator) -> Numbers:
    """How often exp(−1) comes true before it does not."""
    numbers, running = np.zeros(count, np.int64), np.arange(count)
    while len(running):
        running = running[_exponential(np.ones(len(running), np.int64), 1, random)]
        numbers[running] += 1
    return numbers


def _fallen(above: Numbers, below: int, random: np.random.Generator) -> Coins:
    """True with probability exp(−above / below), any fraction >= 0: exp(−1) as often as it holds, then the rest."""
    true = _exponential(above % below, below, random)
    for turn in range(1, int(above.max(initial=0)) // below + 1):
        still = np.flatnonzero(true & (above >= turn * below))
        true[still] = _exponential(np.ones(len(still), np.int64), 1, random)
    return true


def _exponential(above: Numbers, below: int, random: np.random.Generator) -> Coins:
    """True with probability exp(−γ), γ = above / below in [0, 1]."""
    odd, running, k = np.zeros(len(above), bool), np.arange(len(above)), 0
    while len(running):
        k += 1
        heads = random.integers(0, k * below, len(running)) < above[running]
        odd[running[~heads]] = k % 2 == 1
        running = running[heads]
    return odd


def concentrated(sigma: int, clients: int, sensitivity: float, dimension: int) -> float:
    """ρ = ½ ε² of the sum of so many noises.

    Args:
        sigma: of each client's noise, in steps.
        clients: m, whose noise is in the sum.
        sensitivity: Δ, in steps.
        dimension: d.
    """
    apart = 10 * sum(math.exp(-2 * (math.pi * sigma) ** 2 * k / (k + 1)) for k in range(1, clients))
    plain = sensitivity / (math.sqrt(clients) * sigma)
    bound = min(math.sqrt(plain**2 + 2 * apart * dimension), plain + apart * math.sqrt(dimension))
    return bound**2 / 2


def epsilon(rho: float, delta: float) -> float:
    """The least ε of (ε, δ)-differential privacy that Rényi divergences of at most ρ α allow.

        ε = min_α  ρ α + ln(1 − 1/α) − ln(δ α) / (α − 1)

    Args:
        rho: added up over the rounds a client took part in, >= 0.
        delta: in (0, 1).
    """
    from scipy.optimize import minimize_scalar

    def at(logarithm: float) -> float:
        alpha = 1 + math.exp(logarithm)
        return rho * alpha + math.log1p(-1 / alpha) - (math.log(delta) + math.log(alpha)) / (alpha - 1)

    return max(0.0, float(minimize_scalar(at, bounds=(-8, 20), method="bounded", options={"xatol": 1e-10}).fun))

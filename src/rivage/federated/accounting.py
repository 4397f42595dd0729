"""What noise promises: ε at a given δ for Gaussian noise that was added many times.

A *release* is a number of steps that each publish a sum of vectors, every one of norm at most C, plus noise
N(0, (z C)²) per coordinate, where every unit is in the sum by itself with probability q. The neighbouring relation is
*add or remove* one unit: without it its vector is missing from the sum, which moves the sum by at most C. To replace a
unit moves it by 2 C: halve z for that. The unit is what owns one vector: a record under DP-SGD, a client under
DP-FedAvg.

Three accountants, each an upper bound on the true ε, and none below the one before:

- ``exact``, for q = 1 only: T steps of noise z are one step of noise z/√T. With μ = √(Σ T/z²),

      δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) ;

- ``pld``: the privacy loss distribution on a grid of 5 · 10⁻⁴, rounded pessimistically;
- ``rdp``: Rényi divergences of many orders, the loosest and the fastest.

The last two are dp-accounting's. A release that is not Gaussian, but whose Rényi divergences are known to be at most
those of Gaussian noise z, is *concentrated*: ρ = T/2z² adds up, also with Gaussian releases, and is turned into ε by
`rivage.federated.discrete_gaussian.epsilon`, whatever accountant is asked for.

The noise is that of the formulas, real numbers: it is drawn by a floating-point generator that is not cryptographic, so
whoever can guess its state, or read the last bits of a float64, is not covered.

References:
    Dong, Roth, Su. Gaussian differential privacy. JRSS B 84, 2022, arXiv 1905.02383, Corollary 1 (the exact formula).
    Mironov, Talwar, Zhang. Rényi differential privacy of the sampled Gaussian mechanism. arXiv 1908.10530.
    Doroshenko, Ghazi, Kamath, Kumar, Manurangsi. Connect the dots: tighter discrete approximations of privacy loss
    distributions. PoPETs 2022, arXiv 2207.04380.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from rivage.core.errors import ConfigError, require, require_extra
from rivage.federated.discrete_gaussian import epsilon as concentrated_epsilon

__all__ = [
    "Accountant",
    "Release",
    "epsilon_of",
    "gaussian_delta",
    "gaussian_epsilon",
    "merged",
    "noise_for",
    "require_accountants",
]

Accountant = Literal["exact", "pld", "rdp"]

_LEAST_NOISE, _MOST_NOISE = 1e-2, 1e6  # within which `noise_for` looks
_PRECISION = 1e-3  # of the noise it finds, relative
_GRID = 5e-4  # of privacy losses: five times as fast as dp-accounting's own grid, and above it by thousandths


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """Steps that were alike.

    Args:
        noise: multiplier z of the largest norm, >= 0; 0 protects nothing.
        sampling: probability q with which a unit is in a step, in [0, 1].
        steps: how many, >= 0.
        concentrated: whether the noise is Gaussian only in its Rényi divergences: those of order α are at most α/2z²;
            without sampling.
    """

    noise: float
    sampling: float
    steps: int
    concentrated: bool = False

    def __post_init__(self) -> None:
        require(self.noise, "noise", least=0)
        require(self.steps, "steps", least=0)
        if not 0 <= self.sampling <= 1:
            raise ConfigError(f"sampling is {self.sampling}", mend="Give a probability in [0, 1].")
        if self.concentrated and self.sampling not in (0, 1):
            raise ConfigError("what is known of concentrated releases has no sampling", mend="Give sampling 1.")


def merged(releases: Iterable[Release]) -> tuple[Release, ...]:
    """The same steps with those that are alike in one entry, sorted; what shows nothing is left out.

    Example:
        >>> [alike] = merged([Release(1.0, 0.5, 2), Release(1.0, 0.5, 3), Release(1.0, 0.0, 9)])
        >>> alike.noise, alike.sampling, alike.steps
        (1.0, 0.5, 5)
    """
    total: Counter[tuple[float, float, bool]] = Counter()
    for release in releases:
        if release.sampling > 0 and release.steps > 0:
            total[release.noise, release.sampling, release.concentrated] += release.steps
    return tuple(sorted(Release(noise, q, steps, bounded) for (noise, q, bounded), steps in total.items()))


def epsilon_of(releases: Iterable[Release], delta: float, accountant: Accountant | None = None) -> float:
    """ε of all these releases together; infinite where there is no noise.

    Args:
        releases: whatever order; each may depend on the results of those before it.
        delta: in (0, 1).
        accountant: None takes the exact formula where every unit is in every step, and ``pld`` otherwise.

    Raises:
        ConfigError: for a δ outside (0, 1), for the exact formula with sampling, and for sampled releases beside
            concentrated ones.
        MissingExtra: where dp-accounting is needed and not installed.
    """
    _require_probability(delta)
    composed = merged(releases)
    if not composed:
        return 0.0
    if any(release.noise == 0 for release in composed):
        return math.inf
    whole = all(release.sampling == 1 for release in composed)
    if any(release.concentrated for release in composed):
        return _concentrated(composed, delta, whole=whole)
    if accountant == "exact" and not whole:
        raise ConfigError("the exact formula has no sampling", mend='Take the accountant "pld".')
    if whole and accountant in (None, "exact"):
        return gaussian_epsilon(math.sqrt(sum(release.steps / release.noise**2 for release in composed)), delta)
    return _composed(composed, delta, accountant or "pld")


def gaussian_delta(mu: float, epsilon: float) -> float:
    """δ(ε) of the Gaussian mechanism whose noise is 1/μ of the sensitivity.

    Args:
        mu: > 0.
        epsilon: >= 0.
    """
    from scipy.special import log_ndtr

    above, below = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(np.exp(above) * -np.expm1(min(below - above, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The inverse of `gaussian_delta` in ε; 0 where already ε = 0 has a smaller δ."""
    from scipy.optimize import brentq

    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    highest = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # Φ(−x) <= exp(−x²/2)
    found = brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, highest, xtol=1e-12, rtol=1e-12)
    return float(found)


def noise_for(
    epsilon: float, delta: float, *, sampling: float = 1.0, steps: int = 1, accountant: Accountant | None = None
) -> float:
    """The least noise multiplier, to a thousandth and from above, that keeps within (ε, δ).

    Args:
        epsilon: > 0.
        delta: in (0, 1).
        sampling: probability with which a unit is in a step.
        steps: over the whole run: what a client spends in all its rounds.
        accountant: as for `epsilon_of`.

    Raises:
        ConfigError: for an ε that no noise in reach gives.
        MissingExtra: where dp-accounting is needed and not installed.

    Example:
        >>> round(noise_for(4.3772, 1e-5), 3)  # the table of the page: 1
        1.0
    """
    require(epsilon, "epsilon", above=0)

    def fits(noise: float) -> bool:
        return epsilon_of([Release(noise, sampling, steps)], delta, accountant) <= epsilon

    low, high = _LEAST_NOISE, 1.0
    while not fits(high):
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            raise ConfigError(f"no noise up to {_MOST_NOISE:g} gives epsilon {epsilon} at delta {delta}")
    while high > low * (1 + _PRECISION):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def require_accountants() -> Any:
    """The library that accounts for sampled noise.

    Raises:
        MissingExtra: where it is not installed.
    """
    return require_extra("dp_accounting", extra="privacy", purpose="Accounting for sampled noise")


def _require_probability(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta}", mend="Give a probability above 0 and below 1.")


def _concentrated(releases: tuple[Release, ...], delta: float, *, whole: bool) -> float:
    """From the sum of ρ."""
    if not whole:
        raise ConfigError("what is known of concentrated releases does not add up with sampled ones")
    return concentrated_epsilon(sum(release.steps / (2 * release.noise**2) for release in releases), delta)


@lru_cache(maxsize=4096)
def _composed(releases: tuple[Release, ...], delta: float, accountant: Accountant) -> float:
    """By dp-accounting: a tenth of a second to a second per new argument."""
    dp = require_accountants()
    ledger = _empty(accountant)
    for release in releases:
        event = dp.GaussianDpEvent(release.noise)
        if release.sampling < 1:
            event = dp.PoissonSampledDpEvent(release.sampling, event)
        ledger.compose(dp.SelfComposedDpEvent(event, release.steps))
    with _quiet():
        return float(ledger.get_epsilon(delta))


def _empty(accountant: Accountant) -> Any:
    if accountant == "rdp":
        from dp_accounting.rdp import RdpAccountant

        return RdpAccountant()
    from dp_accounting.pld import PLDAccountant

    return PLDAccountant(value_discretization_interval=_GRID)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a line for every order at which a series does not converge: such an order is only left out."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)

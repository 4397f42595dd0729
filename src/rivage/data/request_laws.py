"""Requests by chance: Zipf's law, fixed or changing, and items with a life of their own.

Every generator is a function of its settings and a random generator. Zipf's law gives rank i = 0, 1, … the probability
p_i ∝ (i + 1)^−α. What changes over time is which item has which rank.

References:
    Si Salem, Neglia, Ioannidis. No-regret caching via online mirror descent. ICC 2021, arXiv 2101.12588 (fixed,
    partially changing, globally changing and round-wise permuted popularity).

    Traverso, Ahmed, Garetto, Giaccone, Leonardi, Niccolini. Temporal locality in today's content caching: why it
    matters and how to model it. ACM SIGCOMM CCR 43(5), 2013 (shot noise).

    Li, Si Salem, Neglia, Ioannidis. Online caching networks with adversarial guarantees. SIGMETRICS 2022,
    doi 10.1145/3491047 (the parameters of the shots, rolled popularity).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.data.requests import RequestTrace

__all__ = [
    "Randomness",
    "check_change",
    "check_roundwise",
    "check_shots",
    "check_sizes",
    "check_zipf",
    "global_change",
    "partial_change",
    "rolled",
    "roundwise_permuted",
    "shot_noise",
    "zipf",
]

Randomness = np.random.Generator | int
"""A generator, or the seed of one."""


def zipf(items: int, requests: int, alpha: float, rng: Randomness) -> RequestTrace:
    """Independent requests with Zipf's law; item i has rank i.

    Args:
        items: N >= 1.
        requests: T >= 1.
        alpha: exponent α >= 0; 0 is uniform.
        rng: generator or seed. From one seed, a shorter trace is the beginning of a longer one.
    """
    check_zipf(items, requests, alpha)
    ranks = _zipf_ranks(items, requests, alpha, np.random.default_rng(rng))
    return RequestTrace(item=ranks, items=items, name="zipf")


def partial_change(
    items: int, requests: int, alpha: float, period: int, fraction: float, rng: Randomness
) -> RequestTrace:
    """Zipf's law in which, after every ``period`` requests, some items exchange their ranks at random.

    Args:
        items: N >= 1.
        requests: T >= 1.
        alpha: exponent α >= 0.
        period: requests between two changes, >= 1.
        fraction: share of the items that take part in a change, in (0, 1]; at each change other ones.
        rng: generator or seed.
    """
    check_change(items, requests, alpha, period, fraction)
    rng = np.random.default_rng(rng)
    item = _zipf_ranks(items, requests, alpha, rng)
    item_of_rank = np.arange(items)
    for start in range(period, requests, period):
        ranks = rng.choice(items, min(items, max(2, round(fraction * items))), replace=False)
        item_of_rank[np.sort(ranks)] = item_of_rank[ranks]
        item[start : start + period] = item_of_rank[item[start : start + period]]
    return RequestTrace(item=item, items=items, name="partial_change")


def global_change(items: int, requests: int, alpha: float, period: int, rng: Randomness) -> RequestTrace:
    """Zipf's law in which, after every ``period`` requests, all items are given new ranks at random.

    Args:
        items: N >= 1.
        requests: T >= 1.
        alpha: exponent α >= 0.
        period: requests between two changes, >= 1.
        rng: generator or seed.
    """
    check_change(items, requests, alpha, period, 1.0)
    return _permuted(items, requests, alpha, period, rng, "global_change", first=1)


def roundwise_permuted(items: int, rounds: int, slots: int, batch: int, alpha: float, rng: Randomness) -> RequestTrace:
    """Rounds of ``slots`` batches; in each round, the first included, all items have ranks of their own.

    Args:
        items: N >= 1.
        rounds: how many, >= 1.
        slots: batches per round, L >= 1.
        batch: requests per batch, R >= 1; all of a round are independent and have one law.
        alpha: exponent α >= 0.
        rng: generator or seed.
    """
    check_roundwise(items, rounds, slots, batch, alpha)
    period = slots * batch
    return _permuted(items, rounds * period, alpha, period, rng, "roundwise", first=0)


def rolled(items: int, requests: int, alpha: float, step: int, rng: Randomness) -> RequestTrace:
    """Zipf's law whose ranks move by ``step`` items with each quarter: in quarter q, item i has rank i − q·step mod N.

    Args:
        items: N >= 1.
        requests: T >= 1; the quarters are equal up to one request.
        alpha: exponent α >= 0.
        step: items per quarter; 0 is a fixed popularity.
        rng: generator or seed.
    """
    check_zipf(items, requests, alpha)
    ranks = _zipf_ranks(items, requests, alpha, np.random.default_rng(rng))
    quarter = 4 * np.arange(requests) // requests
    return RequestTrace(item=(ranks + step * quarter) % items, items=items, name="rolled")


_DAY_S = 86_400.0
_SHARES = np.array([0.044, 0.069, 0.041, 0.062, 1.196])  # of the items; they need not add up to 1
_VOLUMES = np.array([86.4, 41.9, 59.5, 36.9, 25.7])  # mean requests per item
_LIFESPANS = np.array([1.14, 3.36, 6.40, 10.53, 24.61])  # days


def shot_noise(items: int, rng: Randomness, *, rate: float = 5.0, volume: float = 3.0) -> RequestTrace:
    """Items that appear, are asked for a while, and vanish.

    Five classes of items, in the order of their numbers, with mean volume V and lifespan L: an item whose shot
    starts at τ is asked for by a Poisson process of rate V / L during [τ, τ + L]. The starts are the arrivals of a
    Poisson process, dealt to the items at random.

    Args:
        items: N >= 1. 100 gives some 8,940 requests.
        rng: generator or seed.
        rate: shots per day, > 0.
        volume: factor on the published volumes, > 0.

    Returns:
        The requests in order of time, with ``time_s``; how many there are is random.
    """
    check_shots(items, rate, volume)
    rng = np.random.default_rng(rng)
    kind = np.repeat(np.arange(len(_SHARES)), _apportion(items, _SHARES / _SHARES.sum()))
    starts = rng.permutation(np.cumsum(rng.exponential(1 / rate, items)))
    item = np.repeat(np.arange(items), rng.poisson(volume * _VOLUMES[kind]))
    days = starts[item] + _LIFESPANS[kind[item]] * rng.random(len(item))  # a Poisson process, given its number
    order = np.argsort(days, kind="stable")
    return RequestTrace(item=item[order], items=items, time_s=_DAY_S * days[order], name="shot_noise")


_CHUNK = 2**19


def _zipf_ranks(items: int, requests: int, alpha: float, rng: np.random.Generator) -> Int64[ndarray, "requests"]:
    """Independent ranks by inversion; 8 N bytes for the distribution and some 16 MB beside the result."""
    distribution = np.arange(1.0, items + 1)
    np.power(distribution, -alpha, out=distribution)
    np.cumsum(distribution, out=distribution)
    distribution /= distribution[-1]
    ranks = np.empty(requests, np.int64)
    for start in range(0, requests, _CHUNK):
        draws = rng.random(min(_CHUNK, requests - start))
        # In ascending order the look-ups walk through memory: several times as fast at N = 10^7.
        order = np.argsort(draws)
        ranks[start + order] = np.searchsorted(distribution, draws[order], side="right")
    return ranks


def _permuted(
    items: int, requests: int, alpha: float, period: int, rng: Randomness, name: str, *, first: int
) -> RequestTrace:
    """Zipf ranks, with a fresh permutation in each period from number ``first`` on."""
    rng = np.random.default_rng(rng)
    item = _zipf_ranks(items, requests, alpha, rng)
    for start in range(first * period, requests, period):
        item[start : start + period] = rng.permutation(items)[item[start : start + period]]
    return RequestTrace(item=item, items=items, name=name)


def _apportion(total: int, shares: Float64[ndarray, "classes"]) -> Int64[ndarray, "classes"]:
    """Whole numbers of the given sum, nearest to ``total · shares`` (largest remainders)."""
    sizes = np.floor(total * shares).astype(np.int64)
    sizes[np.argsort(sizes - total * shares, kind="stable")[: total - sizes.sum()]] += 1
    return np.asarray(sizes)


def check_sizes(**sizes: Any) -> None:
    """Refuse counts below 1."""
    for name, value in sizes.items():
        require(value, name, least=1)


def check_zipf(items: int, requests: int, alpha: float) -> None:
    """Refuse arguments that `zipf` has no use for."""
    check_sizes(items=items, requests=requests)
    require(alpha, "alpha", least=0.0)


def check_change(items: int, requests: int, alpha: float, period: int, fraction: float) -> None:
    """The same for changes of popularity."""
    check_zipf(items, requests, alpha)
    check_sizes(period=period)
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction}", mend="Give a share of the items, above 0 and at most 1.")


def check_roundwise(items: int, rounds: int, slots: int, batch: int, alpha: float) -> None:
    """The same for `roundwise_permuted`."""
    check_sizes(items=items, rounds=rounds, slots=slots, batch=batch)
    require(alpha, "alpha", least=0.0)


def check_shots(items: int, rate: float, volume: float) -> None:
    """The same for `shot_noise`."""
    check_sizes(items=items)
    require(rate, "rate", above=0.0)
    require(volume, "volume", above=0.0)

"""Requests that are hard on caches: cycles, cycles that take turns, and whatever is not cached.

References:
    Li, Si Salem, Neglia, Ioannidis. Online caching networks with adversarial guarantees. SIGMETRICS 2022,
    doi 10.1145/3491047 (oscillators).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.data.request_laws import Randomness, check_sizes
from rivage.data.requests import RequestTrace

__all__ = ["AskUncached", "changing_oscillator", "cyclic", "oscillator", "shot_oscillator"]


def cyclic(items: int, requests: int) -> RequestTrace:
    """0, 1, …, N − 1, 0, 1, …: LRU and FIFO with k < N never hit, the best static set has k / N."""
    check_sizes(items=items, requests=requests)
    return RequestTrace(item=np.arange(requests) % items, items=items, name="cyclic")


def oscillator(requests: int = 2_000) -> RequestTrace:
    """Two cycles that take turns, 0 … 24 and 25 … 49: 0, 25, 1, 26 and so on."""
    check_sizes(requests=requests)
    turn = np.arange(requests)
    return RequestTrace(item=turn // 2 % 25 + 25 * (turn % 2), items=50, name="oscillator")


def changing_oscillator() -> RequestTrace:
    """The oscillator with speeds that change: 3,000 requests for 50 items, no chance involved.

    Each half of the catalog has five cycles of five items, which advance together for three phases of 100 turns; a
    phase gives each half its start and the time between its turns. Requests at one time are in the order of the
    cycles. (The published file leaves that order to an unstable sort.)
    """
    # (first half: start, spacing; second half: start, spacing), in hundredths of a unit of time
    phases = ((0, 1, 0, 2), (100, 2, 200, 1), (300, 2, 300, 2))
    cycle, phase, turn, half = (axis.ravel() for axis in np.meshgrid(*map(np.arange, (5, 3, 100, 2)), indexing="ij"))
    table = np.array(phases).reshape(3, 2, 2)
    moment = table[phase, half, 0] + table[phase, half, 1] * turn
    item = turn % 5 + 5 * cycle + 25 * half
    return RequestTrace(item=item[np.argsort(moment, kind="stable")], items=50, name="changing_oscillator")


def shot_oscillator(rng: Randomness) -> RequestTrace:
    """Oscillators that appear and vanish: 3,000 requests for 100 items.

    Five shots, each of 300 turns 0.05 apart of two cycles of ten items, one from each half of the catalog; the shots
    start at the arrivals of a Poisson process of rate 1, dealt to them at random.
    """
    rng = np.random.default_rng(rng)
    starts = rng.permutation(np.cumsum(rng.exponential(1.0, 5)))
    shot, turn, half = (axis.ravel() for axis in np.meshgrid(*map(np.arange, (5, 300, 2)), indexing="ij"))
    order = np.argsort(starts[shot] + 0.05 * turn, kind="stable")
    return RequestTrace(item=(turn % 10 + 10 * shot + 50 * half)[order], items=100, name="shot_oscillator")


@dataclass(slots=True)
class AskUncached:
    """The adversary of deterministic caches: it asks for the next item, in cyclic order, that is not cached.

    A policy it plays against never hits, while the best static set has at least k / N.

    Args:
        items: catalog size N, >= 1.
        position: item to try first.
    """

    items: int
    position: int = 0

    def __post_init__(self) -> None:
        check_sizes(items=self.items)

    def next(self, cached: Bool[ndarray, "items"] | Callable[[int], bool]) -> int:
        """The next request.

        Args:
            cached: whether each item is cached, or a function that tells.

        Raises:
            ConfigError: if all are cached. At most k + 1 items are looked at.
        """
        is_cached = cached if callable(cached) else cached.__getitem__
        for offset in range(self.items):
            item = (self.position + offset) % self.items
            if not is_cached(item):
                self.position = (item + 1) % self.items
                return item
        raise ConfigError(f"all {self.items} items are cached", mend="Give the cache a capacity below the items.")

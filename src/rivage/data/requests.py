"""Request traces: what is asked for, in which order, and the laws and adversaries that make such sequences.

Items are numbered densely, 0 … N − 1. Every generator is a function of its settings and a random generator; for
each there is a frozen dataclass in `rivage.data.request_kinds`, the ``kind`` of a study's trace, that holds the
settings and calls it.

Zipf's law gives rank i = 0, 1, … the probability p_i ∝ (i + 1)^−α. What changes over time is which item has which
rank.

References:
    Si Salem, Neglia, Ioannidis. No-regret caching via online mirror descent. ICC 2021, arXiv 2101.12588 (fixed,
    partially changing, globally changing and round-wise permuted popularity).

    Traverso, Ahmed, Garetto, Giaccone, Leonardi, Niccolini. Temporal locality in today's content caching: why it
    matters and how to model it. ACM SIGCOMM CCR 43(5), 2013 (shot noise).

    Li, Si Salem, Neglia, Ioannidis. Online caching networks with adversarial guarantees. SIGMETRICS 2022,
    doi 10.1145/3491047 (the parameters of the shots, oscillators, rolled popularity).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, require
from rivage.core.registry import Registry

__all__ = [
    "REQUESTS",
    "AskUncached",
    "RequestTrace",
    "changing_oscillator",
    "cyclic",
    "global_change",
    "oscillator",
    "partial_change",
    "rolled",
    "roundwise_permuted",
    "shot_noise",
    "shot_oscillator",
    "zipf",
]

Randomness = np.random.Generator | int

_COLUMNS = {
    "item": np.dtype(np.int64),
    "time_s": np.dtype(np.float64),
    "origin": np.dtype(np.int64),
    "size_bytes": np.dtype(np.int64),
    "cost": np.dtype(np.float64),
    "deadline_ms": np.dtype(np.float64),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestTrace:
    """A sequence of T requests for N items, as columns.

    The arrays are kept as they are given, not copied, and nothing here writes to them.

    Args:
        item: what each request asks for, 0 <= item < N.
        items: catalog size N, >= 1; it may exceed what is asked for.
        time_s: when, in seconds; finite and never falling.
        origin: number of the node where each request enters, >= 0.
        size_bytes: size of what is asked for, >= 0.
        cost: of serving the request from afar, finite, >= 0.
        deadline_ms: time left to answer, in milliseconds, finite, >= 0.
        keys: what the items were called where they came from, one per item.
        name: of the trace, in messages and reports.

    Raises:
        DataError: naming the column, the first bad position and how to mend it. The check is O(T).
    """

    item: Int64[ndarray, "requests"]
    items: int
    time_s: Float64[ndarray, "requests"] | None = None
    origin: Int64[ndarray, "requests"] | None = None
    size_bytes: Int64[ndarray, "requests"] | None = None
    cost: Float64[ndarray, "requests"] | None = None
    deadline_ms: Float64[ndarray, "requests"] | None = None
    keys: Shaped[ndarray, "items"] | None = None
    name: str = "trace"

    def __post_init__(self) -> None:
        if self.items < 1:
            raise self._fault(f"items is {self.items}", "Give the number of items, at least 1.")
        if self.keys is not None and self.keys.shape != (self.items,):
            raise self._fault(f"keys have shape {self.keys.shape}", f"Give one key for each of the {self.items} items.")
        for name, column in self.columns().items():
            self._check(name, column)
        if self.item.size and self.item.max() >= self.items:
            place = int(np.argmax(self.item >= self.items))
            raise self._fault(
                f"item is {self.item[place]} at request {place}, but items are 0 to {self.items - 1}",
                "Number the items densely, or give a larger catalog.",
            )

    def _check(self, name: str, column: Shaped[ndarray, "..."]) -> None:
        if column.dtype != _COLUMNS[name] or column.ndim != 1:
            raise self._fault(
                f"{name} is an array of {column.dtype} with shape {column.shape}",
                f"Give one {_COLUMNS[name]} per request.",
            )
        if column.shape != self.item.shape:
            raise self._fault(f"{name} has {len(column)} values for {len(self)} requests", "Give one per request.")
        flaw = first_flaw(name, column)
        if flaw is not None:
            place, what, mend = flaw
            raise self._fault(f"{what} at request {place}", mend)

    def _fault(self, what: str, mend: str) -> DataError:
        return DataError(what, where=f'trace "{self.name}"', mend=mend)

    def columns(self) -> dict[str, Shaped[ndarray, "requests"]]:
        """The columns that are there, by name."""
        found = {name: getattr(self, name) for name in _COLUMNS}
        return {name: column for name, column in found.items() if column is not None}

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, part: slice) -> RequestTrace:
        """A part of the requests, in order; the columns are views and are not checked again. O(1)."""
        if not isinstance(part, slice) or (part.step is not None and part.step < 1):
            raise ConfigError(f"a trace cannot be cut by {part}", mend="Give a slice that runs forward, trace[a:b].")
        view = object.__new__(RequestTrace)
        for name in ("items", "keys", "name"):
            object.__setattr__(view, name, getattr(self, name))
        for name in _COLUMNS:
            column = getattr(self, name)
            object.__setattr__(view, name, None if column is None else column[part])
        return view

    def blocks(self, size: int) -> Iterator[RequestTrace]:
        """The trace cut into parts of ``size`` requests, the last one shorter; views."""
        require(size, "size", least=1)
        return (self[start : start + size] for start in range(0, len(self), size))

    def popularity(self) -> Int64[ndarray, "items"]:
        """How often each item is asked for. O(T + N)."""
        return np.bincount(self.item, minlength=self.items)

    def describe(self) -> dict[str, int | float]:
        """What the trace is like, in a few numbers. O(T + N).

        Returns:
            ``requests`` T; ``items`` N; ``distinct`` items asked for at all; ``one_hit_share`` of those, the ones asked
            for once; ``infinite_cache_hit_ratio`` of a cache that holds everything it has seen.
        """
        counts = self.popularity()
        distinct = int(np.count_nonzero(counts))
        return {
            "requests": len(self),
            "items": self.items,
            "distinct": distinct,
            "one_hit_share": int(np.count_nonzero(counts == 1)) / max(distinct, 1),
            "infinite_cache_hit_ratio": 1.0 - distinct / max(len(self), 1),
        }


def first_flaw(name: str, column: Shaped[ndarray, "n"]) -> tuple[int, str, str] | None:
    """Position of the first value that a column must not hold, what is wrong with it, and how to mend it."""
    if name == "time_s":
        bad, mend = ~np.isfinite(column), "Give finite seconds."
        if not bad.any():
            bad, mend = np.concatenate([[False], column[1:] < column[:-1]]), "Sort the requests by time."
    else:
        bad, mend = ~((column >= 0) & (column < np.inf)), "Give finite values of at least 0."
    if not bad.any():
        return None
    place = int(np.argmax(bad))
    before = f" after {column[place - 1]}" if mend.startswith("Sort") else ""
    return place, f"{name} is {column[place]}{before}", mend


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


def cyclic(items: int, requests: int) -> RequestTrace:
    """0, 1, …, N − 1, 0, 1, …: LRU and FIFO with k < N never hit, the best static set has k / N."""
    check_sizes(items=items, requests=requests)
    return RequestTrace(item=np.arange(requests) % items, items=items, name="cyclic")


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


REQUESTS = Registry(
    "rivage.requests",
    "trace",
    {
        "cyclic": "rivage.data.request_kinds:Cyclic",
        "file": "rivage.data.trace_files:TraceFile",
        "global_change": "rivage.data.request_kinds:GlobalChange",
        "oscillator": "rivage.data.request_kinds:Oscillator",
        "partial_change": "rivage.data.request_kinds:PartialChange",
        "rolled": "rivage.data.request_kinds:Rolled",
        "roundwise": "rivage.data.request_kinds:Roundwise",
        "shot_noise": "rivage.data.request_kinds:ShotNoise",
        "zipf": "rivage.data.request_kinds:Zipf",
    },
)

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
    for name, value in sizes.items():
        require(value, name, least=1)


def check_zipf(items: int, requests: int, alpha: float) -> None:
    check_sizes(items=items, requests=requests)
    require(alpha, "alpha", least=0.0)


def check_change(items: int, requests: int, alpha: float, period: int, fraction: float) -> None:
    check_zipf(items, requests, alpha)
    check_sizes(period=period)
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction}", mend="Give a share of the items, above 0 and at most 1.")


def check_roundwise(items: int, rounds: int, slots: int, batch: int, alpha: float) -> None:
    check_sizes(items=items, rounds=rounds, slots=slots, batch=batch)
    require(alpha, "alpha", least=0.0)


def check_shots(items: int, rate: float, volume: float) -> None:
    check_sizes(items=items)
    require(rate, "rate", above=0.0)
    require(volume, "volume", above=0.0)

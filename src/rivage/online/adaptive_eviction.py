"""ARC and S3-FIFO: caches that also remember what they evicted, and learn from its return.

Items of size 1, caches start empty, weights count in the gain and in no decision. Arrays of length N stand in for the
hash tables of the papers; O(1) per request, amortised for S3-FIFO.

ARC keeps cached items requested once lately (T1) apart from others (T2), both in LRU order, and behind each the ghosts
of its victims (B1, B2). The share p of T1 grows when a ghost of B1 is requested and shrinks for one of B2. This is
exactly Figure 4 of the paper, with p a real number.

S3-FIFO lets items into a small queue S and moves those requested again to the main queue M when they reach its end;
others leave and are remembered in G, from where they return straight into M. M gives second chances. It is Algorithm 1
of the paper. What that leaves open is done as follows: |S| ≥ 0.1 k is meant for the real number 0.1 k, M is full when
it holds more than ⌊0.9 k⌋ items, G remembers the last ⌊0.9 k⌋ of its items, who returns from G is no longer in it, and
frequencies start from 0 in M.

References:
    Megiddo, Modha. ARC: a self-tuning, low overhead replacement cache. FAST 2003, Figure 4.
    Yang, Zhang, Qiu, Yue, Rashmi. FIFO queues are all you need for cache eviction. SOSP 2023, Algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.online.eviction import Evicting, Kernel
from rivage.online.eviction_kernel import Lists, append, make_lists, remove
from rivage.online.heap import ABSENT
from rivage.online.policy import CacheInstance

__all__ = ["ARC", "S3FIFO"]

_T1, _T2, _B1, _B2 = range(4)
_S, _M, _G = range(3)
_GHOST = -2  # place of an item of list l that is only remembered: _GHOST - l

_TOUCHED = 3  # a frequency has two bits


class Adaptive(NamedTuple):
    """Four lists and the share of the first.

    Args:
        place: that of the lists.
        lists: T1, T2, B1, B2.
        share: float64 [1], p.
    """

    place: ndarray
    lists: Lists
    share: ndarray


@njit(cache=True)
def _oldest(t: Lists, number: int) -> int:
    return int(t.after[len(t.place) + number])


@njit(cache=True)
def _enter(t: Lists, number: int, item: int, ghost: bool) -> None:
    append(t, number, item)
    t.place[item] = _GHOST - number if ghost else number


@njit(cache=True)
def _drop(t: Lists, number: int) -> None:
    item = _oldest(t, number)
    remove(t, number, item)
    t.place[item] = ABSENT


@njit(cache=True)
def _demote(t: Lists, share: float, from_b2: bool) -> None:
    """REPLACE: the oldest of T1 or T2 becomes a ghost."""
    ones = t.length[_T1]
    number = _T1 if ones > 0 and (ones > share or (from_b2 and ones == share)) else _T2
    item = _oldest(t, number)
    remove(t, number, item)
    _enter(t, _B1 if number == _T1 else _B2, item, True)


@njit(cache=True)
def _make_room(t: Lists, share: float) -> None:
    """Case IV: the request is for an item of none of the lists."""
    size, capacity = t.length, t.capacity[0]
    total = size[_T1] + size[_T2] + size[_B1] + size[_B2]
    if size[_T1] + size[_B1] == capacity:
        if size[_T1] < capacity:
            _drop(t, _B1)
            _demote(t, share, False)
        else:
            _drop(t, _T1)
    elif total >= capacity:
        if total == 2 * capacity:
            _drop(t, _B2)
        _demote(t, share, False)


@njit(cache=True)
def _serve_adaptive(a: Adaptive, requests: ndarray, weights: ndarray) -> tuple[int, float, int, int]:
    t, place, size = a.lists, a.lists.place, a.lists.length
    hits, gain = 0, 0.0
    for item in requests:
        at = place[item]
        if at >= 0:
            hits += 1
            gain += weights[item] if len(weights) else 1.0
            remove(t, at, item)
            _enter(t, _T2, item, False)
        elif at == ABSENT:
            _make_room(t, a.share[0])
            _enter(t, _T1, item, False)
        else:
            number = _GHOST - at
            if number == _B1:
                a.share[0] = min(a.share[0] + max(size[_B2] / size[_B1], 1.0), t.capacity[0])
            else:
                a.share[0] = max(a.share[0] - max(size[_B1] / size[_B2], 1.0), 0.0)
            _demote(t, a.share[0], number == _B2)
            remove(t, number, item)
            _enter(t, _T2, item, False)
    return hits, gain, len(requests) - hits, size[_T1] + size[_T2]


@dataclass(frozen=True, kw_only=True)
class ARC(Evicting):
    """Adaptive replacement: between recency and frequency, as its ghosts advise. No settings."""

    reference: ClassVar[str] = "megiddo03"
    kernel: ClassVar[Kernel] = staticmethod(_serve_adaptive)

    def tables(self, instance: CacheInstance, streams: Streams) -> Adaptive:
        """Those of an empty cache."""
        lists = make_lists(instance, 4)
        return Adaptive(lists.place, lists, np.zeros(1))


class Queues(NamedTuple):
    """Three queues and frequencies.

    Args:
        place: that of the lists.
        lists: S, M, G.
        frequency: int8 [items], of cached items.
        small: length of S from which it has to give.
        main: length above which M is full, and of G.
        promote: frequency that moves an item from S to M.
    """

    place: ndarray
    lists: Lists
    frequency: ndarray
    small: int
    main: int
    promote: int


@njit(cache=True)
def _evict_main(q: Queues) -> None:
    """Whoever at the end of M has a chance left goes round once more."""
    t = q.lists
    while t.length[_M] > 0:
        item = _oldest(t, _M)
        if q.frequency[item] == 0:
            _drop(t, _M)
            break
        q.frequency[item] -= 1
        remove(t, _M, item)
        append(t, _M, item)


@njit(cache=True)
def _evict_small(q: Queues) -> None:
    t = q.lists
    while t.length[_S] > 0:
        item = _oldest(t, _S)
        remove(t, _S, item)
        if q.frequency[item] < q.promote:
            _remember(q, item)
            break
        _enter(t, _M, item, False)
        q.frequency[item] = 0
        if t.length[_M] > q.main:
            _evict_main(q)


@njit(cache=True)
def _remember(q: Queues, item: int) -> None:
    t = q.lists
    _enter(t, _G, item, True)
    if t.length[_G] > q.main:
        _drop(t, _G)


@njit(cache=True)
def _serve_queues(q: Queues, requests: ndarray, weights: ndarray) -> tuple[int, float, int, int]:
    t, place, size = q.lists, q.lists.place, q.lists.length
    hits, gain = 0, 0.0
    for item in requests:
        if place[item] >= 0:
            hits += 1
            gain += weights[item] if len(weights) else 1.0
            q.frequency[item] = min(q.frequency[item] + 1, _TOUCHED)
            continue
        while size[_S] + size[_M] >= t.capacity[0]:
            if size[_S] >= q.small:
                _evict_small(q)
            else:
                _evict_main(q)
        if place[item] == ABSENT:
            _enter(t, _S, item, False)
        else:
            remove(t, _G, item)
            _enter(t, _M, item, False)
        q.frequency[item] = 0
    return hits, gain, len(requests) - hits, size[_S] + size[_M]


@dataclass(frozen=True, kw_only=True)
class S3FIFO(Evicting):
    """Three static FIFO queues.

    Args:
        small: share of the cache that S may take, in (0, 1).
        promote: requests in S, the first not counted, that move an item to M, 1 to 3.

    Raises:
        ConfigError: for settings outside their range.
    """

    reference: ClassVar[str] = "yang23"
    kernel: ClassVar[Kernel] = staticmethod(_serve_queues)

    small: float = 0.1
    promote: int = 2

    def __post_init__(self) -> None:
        require(self.small, "small", above=0)
        if self.small >= 1:
            raise ConfigError(f"small is {self.small}", mend="Give a number below 1.")
        if self.promote not in range(1, _TOUCHED + 1):
            raise ConfigError(f"promote is {self.promote}", mend=f"Give 1 to {_TOUCHED}: frequencies end there.")

    def tables(self, instance: CacheInstance, streams: Streams) -> Queues:
        """Those of an empty cache."""
        lists = make_lists(instance, 3)
        # Products such as 0.07 · 100 lie a little above the integer they mean.
        small = max(math.ceil(self.small * instance.capacity - 1e-9), 1)
        return Queues(
            place=lists.place,
            lists=lists,
            frequency=np.zeros(instance.items, np.int8),
            small=small,
            main=instance.capacity - small,
            promote=self.promote,
        )

"""How it went with a no-regret cache: sums since its beginning, read from its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rivage.online import no_regret_memory as words
from rivage.online.cache_settings import CacheSettings
from rivage.online.key_slots import KeySlots
from rivage.online.wheels import CACHED, FRACTIONAL, HITS, INSERTED, POSITIVE, TIME

__all__ = ["CacheStats", "stats_of"]


@dataclass(frozen=True, kw_only=True)
class CacheStats:
    """How it went since the beginning.

    Args:
        requests: how many.
        hits: keys that were cached when they were asked for.
        fractional: Σ f before each request: what hits are on average over permanent numbers.
        insertions: keys that came in.
        evictions: keys that went.
        cached: keys in the cache now.
        positive: keys with f > 0 now.
        crowded: insertions that found no room, with ``hard`` or ``max_bytes``.
        lost: requests that the cache would have served with room for all; `regret` leaves them out.
        regret_bound: what the regret cannot exceed.
        optimum: hits of the best fixed set; None unless the cache compares.
        regret: optimum − fractional; None unless the cache compares.
    """

    requests: int
    hits: int
    fractional: float
    insertions: int
    evictions: int
    cached: int
    positive: int
    crowded: int
    lost: int
    regret_bound: float
    optimum: float | None
    regret: float | None

    @property
    def hit_ratio(self) -> float:
        """Hits per request; 0 before the first."""
        return self.hits / self.requests if self.requests else 0.0


def stats_of(settings: CacheSettings, table: KeySlots[Any], unserved: int) -> CacheStats:
    """What the memory tells. O(1); O(keys) if the cache compares.

    Args:
        settings: of the cache.
        table: its keys.
        unserved: hits on keys whose value had to be fetched all the same.
    """
    ints, gained = table.store.ints.tolist(), float(table.store.floats[FRACTIONAL])
    optimum = _optimum(settings, table)
    return CacheStats(
        requests=ints[TIME],
        hits=ints[HITS] - unserved,
        fractional=gained,
        insertions=ints[INSERTED],
        evictions=ints[words.EVICTED],
        cached=ints[CACHED],
        positive=ints[POSITIVE],
        crowded=ints[words.CROWDED],
        lost=ints[words.LOST],
        regret_bound=settings.regret_bound(ints[TIME]),
        optimum=optimum,
        regret=None if optimum is None else optimum - gained,
    )


def _optimum(settings: CacheSettings, table: KeySlots[Any]) -> float | None:
    """Hits of the keys that were asked for most often."""
    if not settings.compare:
        return None
    asked, most = table.store.asked, min(settings.capacity, len(table.keys))
    return float(np.partition(asked, -most)[-most:].sum())

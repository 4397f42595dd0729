"""A cache to embed in a program: OGB for any keys, any number of them, and any number of requests.

Carra, Neglia. An online gradient-based caching policy with logarithmic complexity and regret guarantees. arXiv
2405.01263; the policy itself is described in `rivage.online.ogb`.

**Unknown catalog.** The state is gradient descent on {0 ≤ f ≤ 1, Σ f ≤ C} over all keys there are. A key that was never
asked for has f = 0, and so does one whose value has been drained to 0: neither needs to be stored. Nothing in the
analysis asks for the number of keys, because f₁ = 0 is at distance D² = ‖f* − f₁‖² ≤ C from every corner.

**Unknown horizon.** With a horizon T the step is η = D / √T, and after t requests, for every t,

    E R_t ≤ D² / (2η) + η t / 2;

within any window of H requests E R ≤ C / η + η H / 2, because two states are at most 2C apart. Without, η_t = √(C / t),
and E R_t ≤ 2 √(C t) for every t; longer memory is the price of a guarantee for all time.

**Filling.** As long as there is room the step is 1, so that the first C keys come in at once, as in any other cache. Up
to then at most C requests miss, each for the first time. Afterwards D² ≤ 2C, hence with a horizon

    E R_t ≤ C + D² / (2η) + η t / 2,      D² = 2C,

and without, since the steps from request C on sum to at most 2 √C (√t − √C), still E R_t ≤ 2 √(C t): what filling costs
is what its steps would have cost. ``start="empty"`` is `rivage.online.ogb.OGB` with that start, to the last bit.

**Size.** C keys are cached on average, with a standard deviation of at most √C. With ``hard=True`` there are never more
than C: the one that would leave next makes way. Then E R ≤ bound + E lost, where *lost* counts requests that the soft
cache would have served. On Zipf(0.8) requests with C = 50, 200 and 2000 that was 0.3 % of the hits, and up to 3 % with
ten times the step on a web trace. To aim at C − z √C instead loses more, because fewer keys are cached all the time.

Cost per request: amortised O(1), one call into compiled code. Memory O(keys with f > 0), some 100 bytes each besides
the key; there are O(C / η) of them, whatever was asked for: each η that a request adds is drained from all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import numpy as np

from rivage.core.errors import ConfigError, DataError
from rivage.online import no_regret_kernel as kernel
from rivage.online.cache_settings import CacheSettings, whole
from rivage.online.cache_snapshots import image, reopened, settings_of
from rivage.online.key_slots import KeySlots, identity
from rivage.online.no_regret_kernel import first_request, request
from rivage.online.ogb_kernel import CACHED, FRACTIONAL, HITS, INSERTED, POSITIVE, RHO, TIME

__all__ = ["CacheStats", "NoRegretCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_Gone = Sequence[tuple[Any, Any]]  # evicted keys, and their values
_Flight = tuple[int, Future[Any]]  # the thread that fetches, and what it will bring

_NOTHING: _Gone = ()
_MISSING: Any = object()
_FIRST_SLOTS = 1024


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


class NoRegretCache(Generic[K, V]):
    """Decides which keys to cache, and keeps their values if asked to. Safe to share between threads.

    Args:
        capacity: C >= 1, keys cached on average, or at most with ``hard``.
        horizon: requests for which popularity is thought to last, T; None when unknown: then the step falls with time,
            and so does the weight of what is new.
        scale: multiple of the step that the bound asks for, > 0; recency pays off with larger ones.
        start: ``fill`` takes in what is asked for while there is room; ``empty`` is slower to fill, see above.
        hard: never cache more than ``capacity`` keys.
        compare: count requests by key, so that `stats` knows the best fixed set; every key ever seen is remembered.
        max_bytes: never hold more; experimental, without any claim about bytes: what does not fit stays out.
        sizeof: bytes of a value that `get_or_fetch` brought; needed for ``max_bytes``.
        seed: of the permanent numbers. Keep it secret where requests may be hostile.
        on_evict: called with key and value (None without one) after a key has left, outside the lock.

    Raises:
        ConfigError: for settings of other types or out of range.

    Example:
        >>> cache = NoRegretCache(2, seed=1)
        >>> [cache.request(key) for key in "abab"]
        [False, False, True, True]
        >>> cache.get_or_fetch("a", str.upper), len(cache)
        ('A', 2)
    """

    reference = "carra24"

    def __init__(
        self,
        capacity: int,
        *,
        horizon: int | None = None,
        scale: float = 1.0,
        start: Literal["fill", "empty"] = "fill",
        hard: bool = False,
        compare: bool = False,
        max_bytes: int | None = None,
        sizeof: Callable[[V], int] | None = None,
        seed: int = 0,
        on_evict: Callable[[K, V | None], object] | None = None,
    ) -> None:
        self.settings = CacheSettings(
            capacity=capacity,
            horizon=horizon,
            scale=scale,
            start=start,
            hard=hard,
            compare=compare,
            max_bytes=max_bytes,
            seed=seed,
        )
        for name, given in (("sizeof", sizeof), ("on_evict", on_evict)):
            if given is not None and not callable(given):
                raise ConfigError(f"{name} is {given!r}", mend="Give a function.")
        self._most_bytes, self._sizeof, self._on_evict = self.settings.max_bytes, sizeof, on_evict
        self._lock = threading.Lock()
        self._values: dict[K, V] = {}
        self._sizes: dict[K, int] = {}
        self._bytes = self._unserved = 0
        self._flights: dict[K, _Flight] = {}
        kernel.prepare()
        bits = self.settings.bits(self.settings.fine)
        self._table: KeySlots[K] = KeySlots(self.settings.memory(_FIRST_SLOTS, bits), bits, forgets=not compare)

    # --- requests -----------------------------------------------------------------------------------------------------

    def request(self, key: K, *, size: int = 0) -> bool:
        """Serve one request.

        Args:
            key: what is asked for.
            size: its bytes; counts with ``max_bytes`` only, and once, when the key comes in.

        Returns:
            Whether it was cached. Afterwards ``key in cache`` tells whether it is now.
        """
        with self._lock:
            table = self._table
            slot = table.index.get(key)
            if self._most_bytes is not None:
                hit, gone = self._serve(key, whole(size, "size"))
            else:  # as most often, with no more calls than it takes
                told = self._first(key, True) if slot is None else request(table.memory, slot, True)
                if told < 2:
                    return told == 1
                hit, gone = told & 1 == 1, self._let_go(told)
        self._tell(gone)
        return hit

    def requests(self, keys: Iterable[K]) -> list[bool]:
        """Serve many requests in order, faster than one by one; which of them were hits.

        ``on_evict`` is called after every 1024, for keys that are not back by then.
        """
        if self._most_bytes is not None:
            raise ConfigError("a batch tells no sizes", where="max_bytes", mend="Call request(key, size=...) for each.")
        asked, hits = list(keys), []
        for start in range(0, len(asked), kernel.BATCH):
            with self._lock:
                part, gone = self._serve_all(asked[start : start + kernel.BATCH])
            self._tell(gone)
            hits += part
        return hits

    def get_or_fetch(self, key: K, fetch: Callable[[K], V]) -> V:
        """The value of a key: the cached one, or ``fetch(key)``, which is kept if the key comes in.

        The lock is not held while fetching. Threads that ask for a key which another one is fetching wait for that, and
        get its exception if it fails; then no request is counted. ``fetch`` may itself ask for other keys.
        """
        if self._most_bytes is not None and self._sizeof is None:
            raise ConfigError("get_or_fetch cannot tell sizes", where="max_bytes", mend="Give sizeof=len, for example.")
        me, leads = threading.get_ident(), False
        with self._lock:
            value, flight = self._values.get(key, _MISSING), self._flights.get(key)
            if value is not _MISSING:
                _, gone = self._serve(key, 0)
            elif flight is None:
                flight, leads = (me, Future()), True
                self._flights[key] = flight
        if value is not _MISSING:
            self._tell(gone)
            return cast(V, value)
        assert flight is not None
        if leads:
            return self._fetch(key, fetch, flight)
        if me == flight[0]:
            return fetch(key)  # a fetch that asks for its own key: nobody could answer it
        brought: V = flight[1].result()
        self.request(key, size=self._size(brought))
        return brought

    def invalidate(self, key: K) -> None:
        """Drop the value of a key, say because it has changed; the next `get_or_fetch` brings the new one."""
        with self._lock:
            self._values.pop(key, None)
            self._flights.pop(key, None)  # what is under way may be old: its caller gets it, it is not kept

    def contains(self, key: K) -> bool:
        """Whether the key is cached; no request."""
        with self._lock:
            slot = self._table.index.get(key)
            return slot is not None and self._holds(slot)

    __contains__ = contains

    def __len__(self) -> int:
        return int(self._table.memory[CACHED])

    def __iter__(self) -> Iterator[K]:
        with self._lock:
            return iter([self._table.keys[slot] for slot in self._table.cached()])

    # --- what it promises, and how it went ----------------------------------------------------------------------------

    @property
    def step(self) -> float:
        """η; without a horizon what is divided by √t."""
        return self.settings.step

    def regret_bound(self, requests: int) -> float:
        """What the expected regret after so many requests cannot exceed."""
        return self.settings.regret_bound(requests)

    def value_of(self, key: K) -> float:
        """F of a key: how likely it is cached, over permanent numbers."""
        with self._lock:
            slot, store = self._table.index.get(key), self._table.store
            return 0.0 if slot is None else min(max(float(store.key[slot] - store.floats[RHO]), 0.0), 1.0)

    def stats(self) -> CacheStats:
        """How it went. O(1); O(keys) if the cache compares."""
        with self._lock:
            store, optimum = self._table.store, self._optimum()
            ints, gained = store.ints.tolist(), float(store.floats[FRACTIONAL])
            return CacheStats(
                requests=ints[TIME],
                hits=ints[HITS] - self._unserved,
                fractional=gained,
                insertions=ints[INSERTED],
                evictions=ints[kernel.EVICTED],
                cached=ints[CACHED],
                positive=ints[POSITIVE],
                crowded=ints[kernel.CROWDED],
                lost=ints[kernel.LOST],
                regret_bound=self.regret_bound(ints[TIME]),
                optimum=optimum,
                regret=None if optimum is None else optimum - gained,
            )

    # --- as bytes -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All but values and functions, for `restore`; no pickle. O(slots).

        Raises:
            DataError: for keys that are not str, int, float, bool, bytes or tuples of these.
        """
        with self._lock:
            self._table.tidy()
            self._table.memory[HITS] -= self._unserved
            self._unserved = 0
            return image(self._table, asdict(self.settings), self._sizes)

    @classmethod
    def restore(
        cls,
        data: bytes,
        *,
        sizeof: Callable[[V], int] | None = None,
        on_evict: Callable[[K, V | None], object] | None = None,
    ) -> NoRegretCache[K, V]:
        """The cache that a snapshot was made of; it goes on exactly as that one does.

        The same keys are cached, but without values: the first `get_or_fetch` of each fetches, and counts as a miss.

        Raises:
            DataError: for bytes that are no snapshot, or not a whole one.
        """
        settings, head, arrays = settings_of(data)
        try:
            cache = cls(**settings, sizeof=sizeof, on_evict=on_evict)
        except (ConfigError, TypeError) as error:
            raise DataError(f"a snapshot with impossible settings: {error}") from error
        cache._table, cache._sizes = reopened(head, arrays, cache.settings.memory, forgets=not cache.settings.compare)
        cache._bytes = sum(cache._sizes.values())
        return cache

    # --- within the lock ----------------------------------------------------------------------------------------------

    def _serve(self, key: K, size: int) -> tuple[bool, _Gone]:
        table, limit = self._table, self._most_bytes
        fits = limit is None or self._bytes + size <= limit
        slot = table.index.get(key)
        told = self._first(key, fits) if slot is None else request(table.memory, slot, fits)
        if limit is not None and not told & 1 and self._holds(table.index[key]):
            self._sizes[key] = size
            self._bytes += size
        return told & 1 == 1, self._let_go(told) if told > 1 else _NOTHING

    def _first(self, key: K, fits: bool) -> int:
        """Serve a request for a key without a slot."""
        table = self._table
        if not table.free:
            table.make_room(1)
        slot = table.place(key)
        told: int = first_request(table.memory, slot, identity(key), fits)
        return told

    def _serve_all(self, keys: list[K]) -> tuple[list[bool], _Gone]:
        table, hits = self._table, np.empty(len(keys), np.bool_)
        slots = table.slots_of(keys)  # before the memory is looked up, which this may enlarge
        told = kernel.request_all(table.memory, slots, hits)
        return hits.tolist(), self._let_go(told) if told > 1 else _NOTHING

    def _let_go(self, told: int) -> _Gone:
        """Drop the values of evicted keys, and return them; make finer wheels if it is time."""
        table, gone = self._table, []
        for slot in dict.fromkeys(table.store.gone[: told >> 2].tolist()):
            if not self._holds(slot):
                key = table.keys[slot]
                self._bytes -= self._sizes.pop(key, 0)
                gone.append((key, self._values.pop(key, None)))
        if told & 2:
            fine = table.memory[kernel.FINE] = 4 * int(table.memory[kernel.FINE])
            if self.settings.bits(fine) != table.bits:
                table.resize(len(table.keys), self.settings.bits(fine))
        return gone

    def _holds(self, slot: int) -> bool:
        return bool(self._table.store.shelf[slot] != kernel.OUT)

    def _optimum(self) -> float | None:
        if not self.settings.compare:
            return None
        asked, most = self._table.store.asked, min(self.settings.capacity, len(self._table.keys))
        return float(np.partition(asked, -most)[-most:].sum())

    # --- outside ------------------------------------------------------------------------------------------------------

    def _fetch(self, key: K, fetch: Callable[[K], V], flight: _Flight) -> V:
        try:
            value = fetch(key)
            size = self._size(value)
        except BaseException as error:
            with self._lock:
                self._land(key, flight)
            flight[1].set_exception(error)
            raise
        with self._lock:
            hit, gone = self._serve(key, size)
            self._unserved += hit
            if self._land(key, flight):
                self._keep(key, value, size)
        flight[1].set_result(value)
        self._tell(gone)
        return value

    def _land(self, key: K, flight: _Flight) -> bool:
        """End a flight; False if it was called off."""
        if self._flights.get(key) is not flight:
            return False
        del self._flights[key]
        return True

    def _keep(self, key: K, value: V, size: int) -> None:
        """Store the value of a cached key; one that came in without it may turn out to be larger than was said."""
        if not self._holds(self._table.index[key]):
            return
        if self._most_bytes is not None:
            change = size - self._sizes.get(key, 0)
            if self._bytes + change > self._most_bytes:
                return
            self._sizes[key] = size
            self._bytes += change
        self._values[key] = value

    def _size(self, value: V) -> int:
        if self._most_bytes is None or self._sizeof is None:
            return 0
        return whole(self._sizeof(value), "size")

    def _tell(self, gone: _Gone) -> None:
        if self._on_evict is not None:
            for key, value in gone:
                self._on_evict(key, value)

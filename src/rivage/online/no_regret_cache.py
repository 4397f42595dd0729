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
from dataclasses import asdict
from typing import Any, Generic, Literal, TypeVar, cast

from rivage.core.errors import ConfigError, DataError
from rivage.online import no_regret_kernel as kernel
from rivage.online import no_regret_memory as words
from rivage.online.cache_settings import CacheSettings, whole
from rivage.online.cache_snapshots import image, reopened, settings_of
from rivage.online.cache_stats import CacheStats, stats_of
from rivage.online.cache_values import MISSING, Flight, Flights, Values
from rivage.online.key_slots import KeySlots
from rivage.online.no_regret_kernel import request
from rivage.online.wheels import CACHED, HITS, RHO

__all__ = ["NoRegretCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_Gone = Sequence[tuple[Any, Any]]  # evicted keys, and their values

_NOTHING: _Gone = ()
_FIRST_SLOTS = 1024


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
        self._held: Values[K, V] = Values(self.settings.max_bytes)
        self._flights: Flights[K] = Flights()
        self._unserved = 0
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
                told = table.first_request(key, True) if slot is None else request(table.memory, slot, True)
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
        for start in range(0, len(asked), words.BATCH):
            with self._lock:
                part, told = self._table.request_all(asked[start : start + words.BATCH])
                gone = self._let_go(told) if told > 1 else _NOTHING
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
        with self._lock:
            value = self._held.values.get(key, MISSING)
            if value is MISSING:
                flight, leads = self._flights.board(key)
            else:
                _, gone = self._serve(key, 0)
        if value is not MISSING:
            self._tell(gone)
            return cast(V, value)
        if leads:
            return self._fetch(key, fetch, flight)
        if flight[0] == threading.get_ident():
            return fetch(key)  # a fetch that asks for its own key: nobody could answer it
        brought: V = flight[1].result()
        self.request(key, size=self._size(brought))
        return brought

    def invalidate(self, key: K) -> None:
        """Drop the value of a key, say because it has changed; the next `get_or_fetch` brings the new one."""
        with self._lock:
            self._held.values.pop(key, None)
            self._flights.call_off(key)

    def contains(self, key: K) -> bool:
        """Whether the key is cached; no request."""
        with self._lock:
            return self._table.holds(key)

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
            return stats_of(self.settings, self._table, self._unserved)

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
            return image(self._table, asdict(self.settings), self._held.sizes)

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
        cache._table, cache._held.sizes = reopened(
            head, arrays, cache.settings.memory, forgets=not cache.settings.compare
        )
        cache._held.bytes = sum(cache._held.sizes.values())
        return cache

    # --- within the lock ----------------------------------------------------------------------------------------------

    def _serve(self, key: K, size: int) -> tuple[bool, _Gone]:
        table, held = self._table, self._held
        fits = held.fits(size)
        slot = table.index.get(key)
        told = table.first_request(key, fits) if slot is None else request(table.memory, slot, fits)
        if held.most_bytes is not None and not told & 1 and table.holds(key):
            held.enter(key, size)
        return told & 1 == 1, self._let_go(told) if told > 1 else _NOTHING

    def _let_go(self, told: int) -> _Gone:
        """Drop the values of evicted keys, and return them; make finer wheels if it is time."""
        table = self._table
        gone = [(key, self._held.drop(key)) for key in table.gone(told)]
        if told & 2:
            fine = table.memory[words.FINE] = 4 * int(table.memory[words.FINE])
            if self.settings.bits(fine) != table.bits:
                table.resize(len(table.keys), self.settings.bits(fine))
        return gone

    # --- outside ------------------------------------------------------------------------------------------------------

    def _fetch(self, key: K, fetch: Callable[[K], V], flight: Flight) -> V:
        try:
            value = fetch(key)
            size = self._size(value)
        except BaseException as error:
            with self._lock:
                self._flights.land(key, flight)
            flight[1].set_exception(error)
            raise
        with self._lock:
            hit, gone = self._serve(key, size)
            self._unserved += hit
            if self._flights.land(key, flight) and self._table.holds(key):
                self._held.keep(key, value, size)
        flight[1].set_result(value)
        self._tell(gone)
        return value

    def _size(self, value: V) -> int:
        if self._most_bytes is None or self._sizeof is None:
            return 0
        return whole(self._sizeof(value), "size")

    def _tell(self, gone: _Gone) -> None:
        if self._on_evict is not None:
            for key, value in gone:
                self._on_evict(key, value)

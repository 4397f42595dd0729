"""`rivage.online.ogb_kernel` for a cache that lives inside a program: keys come and go, and one request is one call.

What differs from the tables of a game:

- Everything lies in one array of 64-bit words. Handing numba nine arrays costs more than serving a request; handing it
  one costs a tenth of that.
- Items are *slots*. A slot belongs to a key while the key has a positive value, and may then go to another key. Nobody
  starts with a value, so the catalog need not be known.
- The permanent number of a slot stands in the array, because it follows from the key.
- Slots that leave the cache are told to the caller, and the number of cached ones is limited on request.

The steps, the projection and the order of cached items are those of the game, by the same functions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from numba import njit
from numpy import ndarray

from rivage.online.wheels import (
    ABSENT,
    ANYTIME,
    CACHED,
    CURSOR,
    CURSOR_CACHED,
    END,
    FRACTIONAL,
    FREE,
    FULL,
    HITS,
    INSERTED,
    NEXT,
    NEXT_CACHED,
    OUT,
    REBASE,
    RHO,
    SEED,
    STEP,
    TIME,
    WHEEL_BITS,
    number_of,
    push,
    rebase,
    take_step,
)

__all__ = [
    "ABSENT",
    "BATCH",
    "OUT",
    "REBASE",
    "Store",
    "bits_for",
    "chain",
    "enter",
    "first_request",
    "make_memory",
    "opened",
    "prepare",
    "request",
    "request_all",
    "resized",
    "vacant",
]

# Words that the game does not have. SLOTS, BUCKETS: lengths of arrays. LIMIT: most slots cached. FILLS: step 1 while
# there is room. COUNTS: requests are counted by slot. EVICTED, LOST, CROWDED: sums. GONE: slots evicted in this call.
# FINE: request from which the wheel is too coarse.
_INTS = range(12, 22)
SLOTS, BUCKETS, LIMIT, FILLS, COUNTS, EVICTED, LOST, CROWDED, GONE, FINE = _INTS
HEADER, _FLOATS = 24, 16
BATCH = 1024
"""Requests in one call, at most."""

_HIT, _COARSE, _EVICTIONS = 1, 2, 2


class Store(NamedTuple):
    """Views into the words of a cache; the names that `rivage.online.ogb_kernel.Tables` has mean the same.

    Args:
        ints: see the names above.
        floats: those of the game.
        key: float64 [slots].
        number: float64 [slots], in (0, 1].
        asked: int64 [slots], requests since the beginning; empty unless they are counted.
        link: int32 [slots].
        shelf: int32 [slots].
        gone: int32 [slots + BATCH], slots evicted in this call.
        heads: int32 [buckets].
        slots: int32 [buckets].
    """

    ints: ndarray
    floats: ndarray
    key: ndarray
    number: ndarray
    asked: ndarray
    link: ndarray
    shelf: ndarray
    gone: ndarray
    heads: ndarray
    slots: ndarray


def bits_for(target: float, step: float) -> int:
    """Size of the wheels, as a power of two; see `rivage.online.ogb_kernel.make_tables`."""
    return min(max(round(math.log2(max(target / step, 1.0))), WHEEL_BITS[0]), WHEEL_BITS[1])


def make_memory(
    slots: int,
    bits: int,
    *,
    target: float,
    step: float,
    limit: int,
    seed: int,
    anytime: bool,
    fills: bool,
    counts: bool,
) -> Int64[ndarray, "words"]:
    """The words of an empty cache.

    Args:
        slots: how many there are; even.
        bits: of the wheels, see `bits_for`.
        target: Σ f when full.
        step: η, or with ``anytime`` what is divided by √t.
        limit: most slots cached.
        seed: of the permanent numbers.
        anytime: without a horizon.
        fills: with steps of 1 while there is room.
        counts: count requests by slot.
    """
    memory = _words(slots, 2 << bits, counts)
    ints = memory[:HEADER]
    ints[[SLOTS, BUCKETS, LIMIT, FILLS, COUNTS, ANYTIME]] = slots, 2 << bits, limit, fills, counts, anytime
    ints[SEED] = np.uint64(seed).astype(np.int64)
    store = opened(memory)
    store.floats[[STEP, FREE]] = step, target
    store.key[:], store.shelf[:], store.heads[:], store.slots[:] = ABSENT, OUT, END, END
    return memory


def _words(slots: int, buckets: int, counts: bool) -> Int64[ndarray, "words"]:
    return np.zeros(HEADER + _FLOATS + (2 + counts) * slots + (3 * slots + BATCH + 2 * buckets) // 2 + 1, np.int64)


def resized(memory: Int64[ndarray, "words"], slots: int, bits: int) -> Int64[ndarray, "words"]:
    """The same cache with other numbers of slots and buckets; chains are made anew, in the order of slots."""
    old, counts = opened(memory), bool(memory[COUNTS])
    grown = _words(slots, 2 << bits, counts)
    grown[: HEADER + _FLOATS] = memory[: HEADER + _FLOATS]
    grown[[SLOTS, BUCKETS]] = slots, 2 << bits
    new, kept = opened(grown), min(slots, len(old.key))
    new.key[:], new.shelf[:], new.heads[:], new.slots[:] = ABSENT, OUT, END, END
    for name in ("key", "number", "asked"):
        getattr(new, name)[:kept] = getattr(old, name)[:kept]
    chain(grown, old.shelf[:kept] != OUT)
    return grown


@njit(cache=True)
def opened(memory: Int64[ndarray, "words"]) -> Store:
    """The words by their names."""
    ints = memory[:HEADER]
    slots, buckets, at = ints[SLOTS], ints[BUCKETS], HEADER + _FLOATS
    small = memory[at + (2 + ints[COUNTS]) * slots :].view(np.int32)
    end = 3 * slots + BATCH
    return Store(
        ints,
        memory[HEADER:at].view(np.float64),
        memory[at : at + slots].view(np.float64),
        memory[at + slots : at + 2 * slots].view(np.float64),
        memory[at + 2 * slots : at + (2 + ints[COUNTS]) * slots],
        small[:slots],
        small[slots : 2 * slots],
        small[2 * slots : end],
        small[end : end + buckets],
        small[end + buckets : end + 2 * buckets],
    )


@njit(cache=True)
def chain(memory: Int64[ndarray, "words"], cached: Bool[ndarray, "slots"]) -> None:
    """Put all slots into empty wheels, so that ρ stands at their cursors."""
    t = opened(memory)
    f, c = t.floats, t.ints
    rho, unit = f[RHO], len(t.heads) >> 1
    c[CURSOR] = c[CURSOR_CACHED] = int(rho * unit)
    f[NEXT] = f[NEXT_CACHED] = rho
    for slot in range(len(cached)):
        if t.key[slot] != ABSENT:
            push(t.heads, t.link, c[CURSOR], slot, t.key[slot])
        if cached[slot]:
            push(t.slots, t.shelf, c[CURSOR_CACHED], slot, t.key[slot] - t.number[slot])


@njit(cache=True)
def enter(memory: Int64[ndarray, "words"], slots: Int64[ndarray, "n"], identities: Int64[ndarray, "n"]) -> None:
    """Give vacant slots to keys with these identities, 64 bits that the permanent numbers follow from."""
    t = opened(memory)
    for place in range(len(slots)):
        t.number[slots[place]] = number_of(t.ints[SEED], identities[place])


@njit(cache=True)
def vacant(memory: Int64[ndarray, "words"], first: int, end: int) -> Int64[ndarray, "found"]:
    """The slots from ``first`` up to ``end`` whose value is 0 and that are not cached: nothing of them is needed."""
    t = opened(memory)
    found, count = np.empty(end - first, np.int64), 0
    for slot in range(first, end):
        if t.key[slot] == ABSENT and t.shelf[slot] == OUT:
            found[count] = slot
            count += 1
    return found[:count]


@njit(cache=True)
def _evict(t: Store) -> None:
    """Let go of the slots whose value has fallen below their number, and note them."""
    f, c, slots, shelf = t.floats, t.ints, t.slots, t.shelf
    unit, mask, rho = len(slots) >> 1, len(slots) - 1, f[RHO]
    while rho > f[NEXT_CACHED]:
        cursor = c[CURSOR_CACHED]
        previous, slot, smallest = -1, slots[cursor & mask], np.inf
        while slot >= 0:
            following = shelf[slot]
            value = t.key[slot] - t.number[slot]
            if value >= rho and int(value * unit) <= cursor:
                smallest = min(smallest, value)
                previous = slot
            else:
                if previous < 0:
                    slots[cursor & mask] = following
                else:
                    shelf[previous] = following
                if value < rho:
                    _note(t, slot)
                else:
                    push(slots, shelf, cursor, slot, value)
            slot = following
        f[NEXT_CACHED] = min(smallest, (cursor + 1) / unit)
        if smallest == np.inf and rho > f[NEXT_CACHED]:
            c[CURSOR_CACHED] += 1


@njit(cache=True)
def _make_way(t: Store, value: float) -> bool:
    """Let go of the cached slot that would leave next, if it would do so before one of this value.

    The cursor goes ahead of ρ, as far as that slot: what is pushed behind it meanwhile lies in its bucket.
    """
    c, slots, shelf = t.ints, t.slots, t.shelf
    unit, mask = len(slots) >> 1, len(slots) - 1
    while True:
        cursor = c[CURSOR_CACHED]
        previous, slot, least, before, smallest = -1, slots[cursor & mask], -1, -1, np.inf
        while slot >= 0:
            following = shelf[slot]
            at = t.key[slot] - t.number[slot]
            if int(at * unit) > cursor:
                if previous < 0:
                    slots[cursor & mask] = following
                else:
                    shelf[previous] = following
                push(slots, shelf, cursor, slot, at)
            else:
                if at < smallest:
                    least, before, smallest = slot, previous, at
                previous = slot
            slot = following
        if least >= 0:
            break
        c[CURSOR_CACHED] += 1
    if smallest >= value:
        return False
    if before < 0:
        slots[cursor & mask] = shelf[least]
    else:
        shelf[before] = shelf[least]
    _note(t, least)
    return True


@njit(cache=True)
def _note(t: Store, slot: int) -> None:
    """A slot has left the cache."""
    c = t.ints
    t.shelf[slot] = OUT
    t.gone[c[GONE]] = slot
    c[GONE] += 1
    c[CACHED] -= 1
    c[EVICTED] += 1


@njit(cache=True)
def _admit(t: Store, slot: int, fits: bool) -> None:
    """Cache a slot that was asked for if its value has reached its number and there is room, or someone makes way."""
    f, c = t.floats, t.ints
    value = t.key[slot] - t.number[slot]
    if value < f[RHO]:
        return
    if not fits or c[CACHED] >= c[LIMIT]:
        c[CROWDED] += 1
        if not fits or not _make_way(t, value):
            return
    push(t.slots, t.shelf, c[CURSOR_CACHED], slot, value)
    f[NEXT_CACHED] = min(f[NEXT_CACHED], value)
    c[CACHED] += 1
    c[INSERTED] += 1


@njit(cache=True)
def _serve(t: Store, slot: int, fits: bool) -> bool:
    f, c = t.floats, t.ints
    now = min(max(t.key[slot] - f[RHO], 0.0), 1.0)
    hit = t.shelf[slot] != OUT
    f[FRACTIONAL] += now
    c[HITS] += hit
    c[LOST] += not hit and now >= t.number[slot]
    c[TIME] += 1
    if c[COUNTS]:
        t.asked[slot] += 1
    step = f[STEP]
    if c[ANYTIME]:
        step /= math.sqrt(c[TIME])
    if c[FILLS] and f[FREE] >= 1:
        step = max(step, 1.0)
    if now < FULL:
        take_step(t, slot, now, step)
        _evict(t)
    if not hit and t.key[slot] != ABSENT:
        _admit(t, slot, fits)
    if f[RHO] > REBASE:
        rebase(t)
    return hit  # type: ignore[no-any-return]


@njit(cache=True)
def _told(t: Store) -> int:
    c = t.ints
    return _COARSE * (c[TIME] >= c[FINE]) + (c[GONE] << _EVICTIONS)  # type: ignore[no-any-return]


@njit(cache=True)
def request(memory: Int64[ndarray, "words"], slot: int, fits: bool) -> int:
    """Serve one request.

    Returns:
        1 for a hit, plus 2 when the wheel has become too coarse, plus 4 times the number of slots in ``gone``.
    """
    t = opened(memory)
    t.ints[GONE] = 0
    hit = _serve(t, slot, fits)
    return hit + _told(t)


@njit(cache=True)
def first_request(memory: Int64[ndarray, "words"], slot: int, identity: int, fits: bool) -> int:
    """`enter` and `request` in one call."""
    t = opened(memory)
    t.number[slot] = number_of(t.ints[SEED], identity)
    t.ints[GONE] = 0
    hit = _serve(t, slot, fits)
    return hit + _told(t)


@njit(cache=True)
def request_all(memory: Int64[ndarray, "words"], slots: Int64[ndarray, "n"], hits: Bool[ndarray, "n"]) -> int:
    """Serve at most `BATCH` requests in order, and fill in ``hits``; what `request` returns, without the 1."""
    t = opened(memory)
    t.ints[GONE] = 0
    for place in range(len(slots)):
        hits[place] = _serve(t, slots[place], True)
    return _told(t)


def prepare() -> None:
    """Have everything compiled, or read from numba's cache, so that no request waits for it."""
    memory = make_memory(2, 10, target=1.0, step=1.0, limit=1, seed=0, anytime=False, fills=False, counts=False)
    enter(memory, np.zeros(1, np.int64), np.zeros(1, np.int64))
    first_request(memory, 0, 0, True)
    request(memory, 0, True)
    request_all(resized(memory, 4, 10), vacant(memory, 1, 2), np.empty(1, np.bool_))

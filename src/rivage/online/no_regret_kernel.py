"""`rivage.online.ogb_kernel` for a cache that lives inside a program: keys come and go, and one request is one call.

What differs from the tables of a game: the state is one array of words, `rivage.online.no_regret_memory`, whose slots
change hands; slots that leave the cache are told to the caller, and the number of cached ones is limited on request.
The steps, the projection and the order of cached items are those of the game, by the functions of
`rivage.online.wheels`.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int64
from numba import njit
from numpy import ndarray

from rivage.online.no_regret_memory import (
    COUNTS,
    CROWDED,
    EVICTED,
    FILLS,
    FINE,
    GONE,
    LIMIT,
    LOST,
    Store,
    enter,
    make_memory,
    opened,
    resized,
    vacant,
)
from rivage.online.wheels import (
    ABSENT,
    ANYTIME,
    CACHED,
    CURSOR_CACHED,
    FRACTIONAL,
    FREE,
    FULL,
    HITS,
    INSERTED,
    NEXT_CACHED,
    OUT,
    REBASE,
    RHO,
    SEED,
    STEP,
    TIME,
    number_of,
    push,
    rebase,
    take_step,
)

__all__ = ["first_request", "prepare", "request", "request_all"]

_HIT, _COARSE, _EVICTIONS = 1, 2, 2


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

"""Online gradient descent on the capped simplex, one request at a time, in amortised constant time.

The fractional state is f_i = key_i − ρ for positive items and 0 for all others. A request raises one key by the step
and then drains the excess evenly from all positive items, which only moves ρ; whoever falls to 0 on the way is removed.
This is the Euclidean projection on {0 ≤ f ≤ 1, Σ f = C} exactly (Carra and Neglia, arXiv 2405.01263).

Positive items lie in a wheel, see `rivage.online.wheels`; those that nobody has asked for yet all have the same value
and are one number. The cached items, f_i ≥ u_i with a permanent u_i, lie in a second wheel, keyed by key_i − u_i, which
turns with the same ρ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64
from numba import njit
from numpy import ndarray

from rivage.online.wheels import (
    ABSENT,
    ANYTIME,
    CACHED,
    CARRY,
    COMMON,
    CURSOR_CACHED,
    END,
    FIRST,
    FIRST_CACHED,
    FLOATS,
    FRACTIONAL,
    FREE,
    FULL,
    GAIN,
    HITS,
    INSERTED,
    INTS,
    NEXT,
    NEXT_CACHED,
    OUT,
    POSITIVE,
    REBASE,
    RHO,
    SEED,
    STEP,
    TIME,
    TOUCHED,
    UNTOUCHED,
    UNTOUCHED_KEY,
    WHEEL_BITS,
    number_of,
    permanent,
    push,
    rebase,
    take_step,
)

__all__ = ["Tables", "fractional", "make_tables", "serve", "set_step"]


class Tables(NamedTuple):
    """The state of one cache.

    Args:
        key: f + ρ of every item, or a mark.
        link: next item in the same bucket.
        heads: first item of every bucket.
        shelf: next cached item in the same bucket of cached items, or a mark.
        slots: first item of every bucket of cached items.
        first: items cached from the start, by falling permanent number.
        touched: items asked for since the cached set was last refreshed.
        floats: see the names of `rivage.online.wheels`.
        ints: the same.
    """

    key: ndarray
    link: ndarray
    heads: ndarray
    shelf: ndarray
    slots: ndarray
    first: ndarray
    touched: ndarray
    floats: ndarray
    ints: ndarray


def make_tables(items: int, capacity: float, every: int, seed: int, *, empty: bool, step: float) -> Tables:
    """The first state: every item at C / N, or nothing at all. O(N).

    Args:
        items: N.
        capacity: C.
        every: requests between refreshes of the cached set.
        seed: of the permanent numbers.
        empty: start with f = 0.
        step: η, in the order of magnitude. ρ moves by η per positive item and request, and a few times C items are
            positive: with M = C / η buckets, few requests reach a new one and few items share one. For the C cached
            ones 8 C are enough.
    """
    least, most = WHEEL_BITS
    most = min(most, max(least, items.bit_length() - 1))  # more buckets than items bring nothing
    buckets = min(max(capacity / step, 2.0**least), 2.0**most)
    floats, ints = np.zeros(len(FLOATS)), np.zeros(len(INTS), np.int64)
    shelf = np.full(items, OUT, np.int32)
    first = np.empty(0, np.int32)
    ints[SEED] = np.uint64(seed).astype(np.int64)
    if empty:
        floats[FREE] = capacity
    else:
        common = floats[COMMON] = capacity / items
        ints[POSITIVE] = ints[UNTOUCHED] = items
        numbers = permanent(ints[SEED], np.arange(items))
        first = np.flatnonzero(numbers <= common).astype(np.int32)
        first = first[np.argsort(-numbers[first], kind="stable")]
        shelf[first] = FIRST_CACHED
        ints[CACHED] = ints[INSERTED] = len(first)
    return Tables(
        key=np.full(items, ABSENT if empty else UNTOUCHED_KEY),
        link=np.empty(items, np.int32),
        heads=_wheel(buckets),
        shelf=shelf,
        slots=_wheel(min(max(8.0 * capacity, 2.0**least), buckets)),
        first=first,
        touched=np.empty(every, np.int32),
        floats=floats,
        ints=ints,
    )


def _wheel(buckets: float) -> Int32[ndarray, "buckets"]:
    """An empty wheel with about so many buckets for a unit of keys, and twice as many: those in use never meet."""
    return np.full(2 << round(math.log2(buckets)), END, np.int32)


def set_step(tables: Tables, step: float, *, anytime: bool = False) -> None:
    """The step size, or with ``anytime`` what is divided by √t in request t."""
    tables.floats[STEP], tables.ints[ANYTIME] = step, anytime


def fractional(tables: Tables) -> Float64[ndarray, "items"]:
    """The fractional state. O(N)."""
    floats = tables.floats
    common = max(floats[COMMON] - floats[RHO], 0.0) if tables.ints[UNTOUCHED] else 0.0
    values = np.where(tables.key == UNTOUCHED_KEY, common, tables.key - floats[RHO])
    result: Float64[ndarray, "items"] = np.clip(values, 0.0, 1.0)
    return result


@njit(cache=True)
def _admit(t: Tables, item: int) -> None:
    """Cache an item that was asked for if its value has reached its number."""
    f, c, mark = t.floats, t.ints, t.shelf[item]
    if t.key[item] == UNTOUCHED_KEY or (mark != OUT and mark != FIRST_CACHED):
        return
    value = t.key[item] - number_of(c[SEED], item)
    if value >= f[RHO]:
        push(t.slots, t.shelf, c[CURSOR_CACHED], item, value)
        f[NEXT_CACHED] = min(f[NEXT_CACHED], value)
        c[CACHED] += mark == OUT
        c[INSERTED] += mark == OUT
    elif mark == FIRST_CACHED:
        t.shelf[item] = OUT
        c[CACHED] -= 1


@njit(cache=True)
def _evict(t: Tables) -> None:
    """Let go of the items whose value has fallen below their number."""
    f, c, slots, shelf = t.floats, t.ints, t.slots, t.shelf
    unit, mask, rho = len(slots) >> 1, len(slots) - 1, f[RHO]
    while c[FIRST] < len(t.first):
        item = t.first[c[FIRST]]
        if shelf[item] == FIRST_CACHED:
            if c[UNTOUCHED] > 0 and f[COMMON] - rho >= number_of(c[SEED], item):
                break
            shelf[item] = OUT
            c[CACHED] -= 1
        c[FIRST] += 1
    while rho > f[NEXT_CACHED]:
        cursor = c[CURSOR_CACHED]
        previous, item, smallest = -1, slots[cursor & mask], np.inf
        while item >= 0:
            following = shelf[item]
            value = t.key[item] - number_of(c[SEED], item)
            if value >= rho and int(value * unit) <= cursor:
                smallest = min(smallest, value)
                previous = item
            else:
                if previous < 0:
                    slots[cursor & mask] = following
                else:
                    shelf[previous] = following
                if value < rho:
                    shelf[item] = OUT
                    c[CACHED] -= 1
                else:
                    push(slots, shelf, cursor, item, value)
            item = following
        f[NEXT_CACHED] = min(smallest, (cursor + 1) / unit)
        if smallest == np.inf and rho > f[NEXT_CACHED]:
            c[CURSOR_CACHED] += 1


@njit(cache=True)
def serve(t: Tables, requests: Int64[ndarray, "n"], weights: Float64[ndarray, "w"]) -> None:
    """Serve requests in order; ``weights`` is empty when all are 1. Sums are left in the tables."""
    f, c = t.floats, t.ints
    for item in requests:
        weight = weights[item] if len(weights) else 1.0
        key = t.key[item]
        if key == UNTOUCHED_KEY:
            now = f[COMMON] - f[RHO] if c[UNTOUCHED] > 0 else 0.0
        elif key == ABSENT:
            now = 0.0
        else:
            now = key - f[RHO]
        now = min(max(now, 0.0), 1.0)
        f[FRACTIONAL] += weight * now
        if t.shelf[item] != OUT:
            c[HITS] += 1
            f[GAIN] += weight
        c[TIME] += 1
        step = weight * f[STEP]
        if c[ANYTIME]:
            step /= math.sqrt(c[TIME])
        if now < FULL and step > 0:
            over = now + step - 1
            members = c[POSITIVE] - (over > 0)
            excess = min(step, 1 - now) + f[CARRY]
            rho, below = f[RHO], f[NEXT] if c[UNTOUCHED] == 0 else min(f[NEXT], f[COMMON])
            share = excess / max(members, 1)
            quiet = rho + share < below and (over <= 0 or share <= over) and members > 0 and f[FREE] == 0
            if quiet and -np.inf < key < np.inf:  # as most often: nobody falls to 0, and the item is in its chain
                f[RHO] = rho + share
                f[CARRY] = excess - members * (f[RHO] - rho)
                t.key[item] = f[RHO] + 1 if over > 0 else rho + now + step
            else:
                take_step(t, item, now, step)
        t.touched[c[TOUCHED]] = item
        c[TOUCHED] += 1
        if c[TOUCHED] == len(t.touched):
            for touched in t.touched:
                if t.shelf[touched] <= OUT:
                    _admit(t, touched)
            c[TOUCHED] = 0
            if f[RHO] > f[NEXT_CACHED] or c[FIRST] < len(t.first):
                _evict(t)
        if f[RHO] > REBASE:
            rebase(t)

"""Online gradient descent on the capped simplex, one request at a time, in amortised constant time.

The fractional state is f_i = key_i − ρ for positive items and 0 for all others. A request raises one key by the step
and then drains the excess evenly from all positive items, which only moves ρ; whoever falls to 0 on the way is removed.
This is the Euclidean projection on {0 ≤ f ≤ 1, Σ f = C} exactly (Carra and Neglia, arXiv 2405.01263).

The published algorithm keeps the positive items in an ordered tree, O(log N). Removal needs less than order: any item
with f ≤ d can go, in any order, since each removal makes d larger. Items therefore lie in a *wheel*: bucket b holds
keys in [b, b + 1) / M. ρ only grows, so buckets are visited once and in turn. A raised item stays where it is until its
bucket comes up and then moves on; each such move is paid for by a request. Items that nobody has asked for yet all have
the same value and are one number. The cached items, f_i ≥ u_i with a permanent u_i, lie in a second wheel, keyed by
key_i − u_i, which turns with the same ρ.

What rounding leaves over when ρ moves is carried to the next drain, so Σ f does not drift.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

__all__ = ["Tables", "fractional", "make_tables", "permanent", "serve", "set_step"]

_ABSENT = -np.inf  # key of an item whose value is 0
_UNTOUCHED = np.inf  # key of an item nobody has asked for: it has the common first value, while that is positive
_END, _OUT, _FIRST = -1, -2, -3  # end of a chain; not cached; cached from the start and in no chain yet

_FLOATS = range(9)
RHO, CARRY, NEXT, NEXT_CACHED, COMMON, FREE, STEP, FRACTIONAL, GAIN = _FLOATS
_INTS = range(12)
POSITIVE, UNTOUCHED, CURSOR, CURSOR_CACHED, CACHED, INSERTED, HITS, FIRST, TOUCHED, TIME, SEED, ANYTIME = _INTS

_FULL = 1 - 1e-12
_WHEEL_BITS = (10, 22)
_REBASE = 1024.0  # ρ from which precision is won back


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
        floats: see the names above.
        ints: see the names above.
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
            positive: with M = C / η buckets, few requests reach a new one and few items share one.
    """
    least, most = _WHEEL_BITS
    most = min(most, max(least, items.bit_length()))  # more buckets than items bring nothing
    bits = max(least, round(math.log2(min(max(capacity / step, 1.0), 2.0**most))))
    buckets = 2 << bits  # twice a unit of keys: buckets in use never meet
    floats, ints = np.zeros(len(_FLOATS)), np.zeros(len(_INTS), np.int64)
    shelf = np.full(items, _OUT, np.int32)
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
        shelf[first] = _FIRST
        ints[CACHED] = ints[INSERTED] = len(first)
    return Tables(
        key=np.full(items, _ABSENT if empty else _UNTOUCHED),
        link=np.empty(items, np.int32),
        heads=np.full(buckets, _END, np.int32),
        shelf=shelf,
        slots=np.full(buckets, _END, np.int32),
        first=first,
        touched=np.empty(every, np.int32),
        floats=floats,
        ints=ints,
    )


def set_step(tables: Tables, step: float, *, anytime: bool = False) -> None:
    """The step size, or with ``anytime`` what is divided by √t in request t."""
    tables.floats[STEP], tables.ints[ANYTIME] = step, anytime


def fractional(tables: Tables) -> Float64[ndarray, "items"]:
    """The fractional state. O(N)."""
    floats = tables.floats
    common = max(floats[COMMON] - floats[RHO], 0.0) if tables.ints[UNTOUCHED] else 0.0
    values = np.where(tables.key == _UNTOUCHED, common, tables.key - floats[RHO])
    result: Float64[ndarray, "items"] = np.clip(values, 0.0, 1.0)
    return result


@njit(cache=True)
def _number(seed: int, item: int) -> float:
    """The permanent number of an item, in (0, 1] (SplitMix64)."""
    z = np.uint64(seed) + np.uint64(item + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 1.0) * 2.0**-53


@njit(cache=True)
def permanent(seed: int, items: Int64[ndarray, "n"]) -> Float64[ndarray, "n"]:
    """The permanent numbers of items."""
    return np.array([_number(seed, item) for item in items])


@njit(cache=True)
def _push(heads: ndarray, link: ndarray, cursor: int, item: int, value: float) -> None:
    place = max(int(value * (len(heads) >> 1)), cursor) & (len(heads) - 1)
    link[item] = heads[place]
    heads[place] = item


@njit(cache=True)
def _sweep(t: Tables, excess: float, members: int, most: float, raised: int) -> tuple[float, int]:
    """Remove who falls to 0 when ``excess`` is drained evenly from ``members``, ``most`` from each at most.

    The raised item never falls to 0; met on the way it leaves its chain, to be put where it then belongs.

    Returns what is left of both, such that draining it removes nobody else.
    """
    f, c, heads, link, key = t.floats, t.ints, t.heads, t.link, t.key
    unit, mask, rho = len(heads) >> 1, len(heads) - 1, f[RHO]
    while members > 0:
        target = rho + min(excess / members, most)
        if c[UNTOUCHED] > 0 and f[COMMON] <= target:
            excess -= c[UNTOUCHED] * (f[COMMON] - rho)
            members -= c[UNTOUCHED]
            c[POSITIVE] -= c[UNTOUCHED]
            c[UNTOUCHED] = 0
            continue
        if target < f[NEXT]:
            break
        cursor = c[CURSOR]
        previous, item, smallest = -1, heads[cursor & mask], np.inf
        while item >= 0:
            following, value = link[item], key[item]
            if item != raised and value > target and int(value * unit) <= cursor:
                smallest = min(smallest, value)
                previous = item
            else:
                if previous < 0:
                    heads[cursor & mask] = following
                else:
                    link[previous] = following
                if item == raised:
                    link[item] = _OUT
                elif value <= target:
                    excess -= value - rho
                    members -= 1
                    c[POSITIVE] -= 1
                    key[item] = _ABSENT
                    target = rho + min(excess / max(members, 1), most)
                else:
                    _push(heads, link, cursor, item, value)
            item = following
        f[NEXT] = min(smallest, (cursor + 1) / unit)
        if smallest == np.inf and target >= f[NEXT]:
            c[CURSOR] += 1
    return excess, members


@njit(cache=True)
def _lower(t: Tables, excess: float, members: int) -> None:
    """Drain ``excess`` evenly: ρ moves."""
    f = t.floats
    before = f[RHO]
    f[RHO] = before + (excess / members if members > 0 else 1.0)  # without members: above every key there was
    f[CARRY] = excess - members * (f[RHO] - before)


@njit(cache=True)
def _raise(t: Tables, item: int, now: float, step: float) -> None:
    """One gradient step on an item of value ``now`` < 1, and the projection."""
    f, c = t.floats, t.ints
    if t.key[item] == _UNTOUCHED and c[UNTOUCHED] > 0:
        c[UNTOUCHED] -= 1
    elif t.key[item] == _UNTOUCHED or t.key[item] == _ABSENT:
        c[POSITIVE] += 1
    if t.key[item] == _UNTOUCHED or t.key[item] == _ABSENT:
        t.link[item] = _OUT
    t.key[item] = _settle(t, item, now, step)
    if t.link[item] == _OUT:
        _push(t.heads, t.link, c[CURSOR], item, t.key[item])
        f[NEXT] = min(f[NEXT], t.key[item])


@njit(cache=True)
def _settle(t: Tables, item: int, now: float, step: float) -> float:
    """Drain what a step adds to an item; its key."""
    f, c = t.floats, t.ints
    rho, over = f[RHO], now + step - 1
    wanted = min(step, 1 - now)
    given = min(f[FREE], wanted)
    f[FREE] -= given
    excess = wanted - given + f[CARRY]
    if f[FREE] > 0 or excess == 0.0:
        return float(rho + now + wanted)
    f[CARRY] = 0.0
    if over <= 0:
        excess, members = _sweep(t, excess, c[POSITIVE], np.inf, item)
        _lower(t, excess, members)
        return float(rho + now + step)
    excess, members = _sweep(t, excess, c[POSITIVE] - 1, over, item)
    if excess <= over * members:
        _lower(t, excess, members)
        return float(f[RHO] + 1)
    # The others lose more than what is over: after all the item is not at its bound.
    excess, members = _sweep(t, excess + over, members + 1, np.inf, item)
    _lower(t, excess, members)
    return float(rho + now + step)


@njit(cache=True)
def _admit(t: Tables, item: int) -> None:
    """Cache an item that was asked for if its value has reached its number."""
    f, c, mark = t.floats, t.ints, t.shelf[item]
    if t.key[item] == _UNTOUCHED or (mark != _OUT and mark != _FIRST):
        return
    value = t.key[item] - _number(c[SEED], item)
    if value >= f[RHO]:
        _push(t.slots, t.shelf, c[CURSOR_CACHED], item, value)
        f[NEXT_CACHED] = min(f[NEXT_CACHED], value)
        c[CACHED] += mark == _OUT
        c[INSERTED] += mark == _OUT
    elif mark == _FIRST:
        t.shelf[item] = _OUT
        c[CACHED] -= 1


@njit(cache=True)
def _evict(t: Tables) -> None:
    """Let go of the items whose value has fallen below their number."""
    f, c, slots, shelf = t.floats, t.ints, t.slots, t.shelf
    unit, mask, rho = len(slots) >> 1, len(slots) - 1, f[RHO]
    while c[FIRST] < len(t.first):
        item = t.first[c[FIRST]]
        if shelf[item] == _FIRST:
            if c[UNTOUCHED] > 0 and f[COMMON] - rho >= _number(c[SEED], item):
                break
            shelf[item] = _OUT
            c[CACHED] -= 1
        c[FIRST] += 1
    while rho > f[NEXT_CACHED]:
        cursor = c[CURSOR_CACHED]
        previous, item, smallest = -1, slots[cursor & mask], np.inf
        while item >= 0:
            following = shelf[item]
            value = t.key[item] - _number(c[SEED], item)
            if value >= rho and int(value * unit) <= cursor:
                smallest = min(smallest, value)
                previous = item
            else:
                if previous < 0:
                    slots[cursor & mask] = following
                else:
                    shelf[previous] = following
                if value < rho:
                    shelf[item] = _OUT
                    c[CACHED] -= 1
                else:
                    _push(slots, shelf, cursor, item, value)
            item = following
        f[NEXT_CACHED] = min(smallest, (cursor + 1) / unit)
        if smallest == np.inf and rho > f[NEXT_CACHED]:
            c[CURSOR_CACHED] += 1


@njit(cache=True)
def _rebase(t: Tables) -> None:
    """Subtract an even number from ρ and all keys: exact, and every bucket keeps its place in the wheel."""
    f, unit = t.floats, len(t.heads) >> 1
    shift = 2.0 * math.floor(f[RHO] / 2)
    for item in range(len(t.key)):
        t.key[item] -= shift  # marks are infinite and stay
    for name in (RHO, COMMON, NEXT, NEXT_CACHED):
        f[name] -= shift
    t.ints[CURSOR] -= int(shift) * unit
    t.ints[CURSOR_CACHED] -= int(shift) * unit


@njit(cache=True)
def serve(t: Tables, requests: Int64[ndarray, "n"], weights: Float64[ndarray, "w"]) -> None:
    """Serve requests in order; ``weights`` is empty when all are 1. Sums are left in the tables."""
    f, c = t.floats, t.ints
    for item in requests:
        weight = weights[item] if len(weights) else 1.0
        key = t.key[item]
        if key == _UNTOUCHED:
            now = f[COMMON] - f[RHO] if c[UNTOUCHED] > 0 else 0.0
        elif key == _ABSENT:
            now = 0.0
        else:
            now = key - f[RHO]
        now = min(max(now, 0.0), 1.0)
        f[FRACTIONAL] += weight * now
        if t.shelf[item] != _OUT:
            c[HITS] += 1
            f[GAIN] += weight
        c[TIME] += 1
        step = weight * f[STEP]
        if c[ANYTIME]:
            step /= math.sqrt(c[TIME])
        if now < _FULL and step > 0:
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
                _raise(t, item, now, step)
        t.touched[c[TOUCHED]] = item
        c[TOUCHED] += 1
        if c[TOUCHED] == len(t.touched):
            for touched in t.touched:
                if t.shelf[touched] <= _OUT:
                    _admit(t, touched)
            c[TOUCHED] = 0
            if f[RHO] > f[NEXT_CACHED] or c[FIRST] < len(t.first):
                _evict(t)
        if f[RHO] > _REBASE:
            _rebase(t)

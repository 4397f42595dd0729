"""Wheels: values that all fall alike, and who reaches 0 on the way, in amortised constant time.

Gradient ascent on the capped simplex {0 ≤ f ≤ 1, Σ f = C}, one request at a time: f_i = key_i − ρ for positive items
and 0 for all others. A step raises one key and drains what is too much evenly from all positive items, which only moves
ρ; whoever falls to 0 is removed. What is kept of whom, and what is cached, belongs to `rivage.online.ogb_kernel` and
`rivage.online.no_regret_kernel`.

The published algorithm keeps the positive items in an ordered tree, O(log N). Removal needs less than order: any item
with f ≤ d can go, in any order, since each removal makes d larger. Items therefore lie in a *wheel*: bucket b holds
keys in [b, b + 1) / M. ρ only grows, so buckets are visited once and in turn. A raised item stays where it is until its
bucket comes up and then moves on; each such move is paid for by a request.

What rounding leaves over when ρ moves is carried to the next drain, so Σ f does not drift.

References:
    Carra, Neglia. An online gradient-based caching policy with logarithmic complexity and regret guarantees. arXiv
    2405.01263 (the algorithm with a tree).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit
from numpy import ndarray

__all__ = [
    "ABSENT",
    "ANYTIME",
    "CACHED",
    "CARRY",
    "COMMON",
    "CURSOR",
    "CURSOR_CACHED",
    "END",
    "FIRST",
    "FIRST_CACHED",
    "FLOATS",
    "FRACTIONAL",
    "FREE",
    "FULL",
    "GAIN",
    "HITS",
    "INSERTED",
    "INTS",
    "NEXT",
    "NEXT_CACHED",
    "OUT",
    "POSITIVE",
    "REBASE",
    "RHO",
    "SEED",
    "STEP",
    "TIME",
    "TOUCHED",
    "UNTOUCHED",
    "UNTOUCHED_KEY",
    "WHEEL_BITS",
    "Wheels",
    "number_of",
    "permanent",
    "push",
    "rebase",
    "take_step",
]

ABSENT = -np.inf  # key of an item whose value is 0
UNTOUCHED_KEY = np.inf  # key of an item nobody has asked for: it has the common first value, while that is positive
END, OUT, FIRST_CACHED = -1, -2, -3  # end of a chain; not cached; cached from the start and in no chain yet

FLOATS = range(9)
RHO, CARRY, NEXT, NEXT_CACHED, COMMON, FREE, STEP, FRACTIONAL, GAIN = FLOATS
INTS = range(12)
POSITIVE, UNTOUCHED, CURSOR, CURSOR_CACHED, CACHED, INSERTED, HITS, FIRST, TOUCHED, TIME, SEED, ANYTIME = INTS

FULL = 1 - 1e-12
WHEEL_BITS = (10, 22)
REBASE = 1024.0  # ρ from which precision is won back


class Wheels(Protocol):
    """What the functions below need of a state."""

    @property
    def key(self) -> ndarray:
        """F + ρ of every item, or a mark."""
        ...

    @property
    def link(self) -> ndarray:
        """Next item in the same bucket."""
        ...

    @property
    def heads(self) -> ndarray:
        """First item of every bucket."""
        ...

    @property
    def slots(self) -> ndarray:
        """First cached item of every bucket of the cached ones."""
        ...

    @property
    def floats(self) -> ndarray:
        """See the names above."""
        ...

    @property
    def ints(self) -> ndarray:
        """See the names above."""
        ...


@njit(cache=True)
def number_of(seed: int, item: int) -> float:
    """The permanent number of an item, in (0, 1] (SplitMix64)."""
    z = np.uint64(seed) + np.uint64(item + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 1.0) * 2.0**-53


@njit(cache=True)
def permanent(seed: int, items: Int64[ndarray, "n"]) -> Float64[ndarray, "n"]:
    """The permanent numbers of items."""
    return np.array([number_of(seed, item) for item in items])


@njit(cache=True)
def push(heads: ndarray, link: ndarray, cursor: int, item: int, value: float) -> None:
    """Put an item of this value into its bucket, which is that of the cursor at least."""
    place = max(int(value * (len(heads) >> 1)), cursor) & (len(heads) - 1)
    link[item] = heads[place]
    heads[place] = item


@njit(cache=True)
def _sweep(t: Wheels, excess: float, members: int, most: float, raised: int) -> tuple[float, int]:
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
                    link[item] = OUT
                elif value <= target:
                    excess -= value - rho
                    members -= 1
                    c[POSITIVE] -= 1
                    key[item] = ABSENT
                    target = rho + min(excess / max(members, 1), most)
                else:
                    push(heads, link, cursor, item, value)
            item = following
        f[NEXT] = min(smallest, (cursor + 1) / unit)
        if smallest == np.inf and target >= f[NEXT]:
            c[CURSOR] += 1
    return excess, members


@njit(cache=True)
def _lower(t: Wheels, excess: float, members: int) -> None:
    """Drain ``excess`` evenly: ρ moves."""
    f = t.floats
    before = f[RHO]
    f[RHO] = before + (excess / members if members > 0 else 1.0)  # without members: above every key there was
    f[CARRY] = excess - members * (f[RHO] - before)


@njit(cache=True)
def take_step(t: Wheels, item: int, now: float, step: float) -> None:
    """One gradient step on an item of value ``now`` < 1, and the projection."""
    f, c = t.floats, t.ints
    if t.key[item] == UNTOUCHED_KEY and c[UNTOUCHED] > 0:
        c[UNTOUCHED] -= 1
    elif t.key[item] == UNTOUCHED_KEY or t.key[item] == ABSENT:
        c[POSITIVE] += 1
    if t.key[item] == UNTOUCHED_KEY or t.key[item] == ABSENT:
        t.link[item] = OUT
    t.key[item] = _settle(t, item, now, step)
    if t.link[item] == OUT:
        push(t.heads, t.link, c[CURSOR], item, t.key[item])
        f[NEXT] = min(f[NEXT], t.key[item])


@njit(cache=True)
def _settle(t: Wheels, item: int, now: float, step: float) -> float:
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
def rebase(t: Wheels) -> None:
    """Subtract an even number from ρ and all keys: exact, and every bucket keeps its place in the wheel."""
    f = t.floats
    shift = 2.0 * math.floor(f[RHO] / 2)
    for item in range(len(t.key)):
        t.key[item] -= shift  # marks are infinite and stay
    for name in (RHO, COMMON, NEXT, NEXT_CACHED):
        f[name] -= shift
    t.ints[CURSOR] -= int(shift) * (len(t.heads) >> 1)
    t.ints[CURSOR_CACHED] -= int(shift) * (len(t.slots) >> 1)

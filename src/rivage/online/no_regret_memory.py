"""The memory of a cache that lives inside a program: one array of 64-bit words, and views into it by name.

Handing numba nine arrays costs more than serving a request; handing it one costs a tenth of that. Items are *slots*: a
slot belongs to a key while the key has a positive value, and may then go to another key. Nobody starts with a value, so
the catalog need not be known. The permanent number of a slot stands in the array, because it follows from the key.
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
    CURSOR,
    CURSOR_CACHED,
    END,
    FREE,
    NEXT,
    NEXT_CACHED,
    OUT,
    RHO,
    SEED,
    STEP,
    WHEEL_BITS,
    number_of,
    push,
)

__all__ = [
    "BATCH",
    "BUCKETS",
    "COUNTS",
    "CROWDED",
    "EVICTED",
    "FILLS",
    "FINE",
    "GONE",
    "LIMIT",
    "LOST",
    "SLOTS",
    "Store",
    "bits_for",
    "chain",
    "enter",
    "make_memory",
    "opened",
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

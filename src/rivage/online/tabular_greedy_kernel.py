"""The compiled half of `rivage.online.tabular_greedy`: requests travel, control messages teach selectors.

All draws are SplitMix64 of the seed and a running number, so where blocks of requests end changes nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

from rivage.online.network_ways import Ways, uniform

__all__ = ["CONTROL", "HITS", "MOVES", "SEED", "Tables", "adahedge", "hedge", "reward", "sample", "serve"]

_INTS = range(6)
DRAWS, MOVES, CONTROL, HITS, WAITING, SEED = _INTS
_LEAST = 1e-300  # in place of 0: what has no chance at all would never have one again


class Tables(NamedTuple):
    """The state of all slots.

    Args:
        chance: float64 [slots, colors, items], distribution of each selector.
        arm: int64 [slots, colors], each selector's item (correlated arms only).
        color: int64 [slots].
        shown: int64 [slots], the item in each slot.
        asked: bool [slots], taught since the slot time began.
        times: int64 [slots], slot times in which it was taught.
        spread: float64 [slots], ranges of the rewards in this slot time, summed.
        squares: float64 [slots], squares of the ranges of past slot times, summed.
        sums: float64 [slots, colors, items], rewards of past slot times (adaptive rates only, else empty).
        mixed: float64 [slots, colors], Δ, what mixing has cost so far and the start (likewise).
        waiting: float64 [slots, items], rewards of this slot time (likewise).
        taught: int64 [slots, colors], feedback of each selector.
        probed: bool [types], whether its weights are known.
        ints: see the names above.
    """

    chance: ndarray
    arm: ndarray
    color: ndarray
    shown: ndarray
    asked: ndarray
    times: ndarray
    spread: ndarray
    squares: ndarray
    sums: ndarray
    mixed: ndarray
    waiting: ndarray
    taught: ndarray
    probed: ndarray
    ints: ndarray


@njit(cache=True)
def _next(t: Tables) -> float:
    t.ints[DRAWS] += 1
    return uniform(t.ints[SEED], t.ints[DRAWS])


@njit(cache=True)
def sample(chance: ndarray, u: float) -> int:
    """The item at u in the cumulated distribution; never one of chance 0."""
    left, last = u, 0
    for i in range(len(chance)):
        if chance[i] > 0.0:
            last = i
            left -= chance[i]
            if left < 0.0:
                break
    return last


@njit(cache=True)
def hedge(chance: ndarray, item: int, growth: float, mixing: float) -> tuple[float, float]:
    """Multiply one entry by e^growth, normalise, mix with the uniform; how old entries turn into new ones.

    Returns:
        a and b: every other entry became a p + b.
    """
    shrink = math.exp(-growth)  # of the others, so that nothing overflows
    whole = chance[item] + (1.0 - chance[item]) * shrink
    factor, lift = shrink / (whole * (1.0 + len(chance) * mixing)), mixing / (1.0 + len(chance) * mixing)
    raised = chance[item] / (whole * (1.0 + len(chance) * mixing)) + lift
    total = 0.0
    for i in range(len(chance)):
        chance[i] = max(raised if i == item else chance[i] * factor + lift, _LEAST)
        total += chance[i]
    for i in range(len(chance)):
        chance[i] /= total
    return factor, lift


@njit(cache=True)
def _learn(t: Tables, s: int, item: int, growth: float, mixing: float, correlated: bool) -> None:
    """Feedback to the selector that is shown; a correlated arm moves no oftener than its distribution does."""
    chance = t.chance[s, t.color[s]]
    if not correlated:
        hedge(chance, item, growth, mixing)
        return
    old = chance.copy()
    hedge(chance, item, growth, mixing)
    _jump(t, s, old)


@njit(cache=True)
def _jump(t: Tables, s: int, old: ndarray) -> None:
    """Turn a selector's arm, a sample of its old distribution, into one of the new."""
    c = t.color[s]
    chance, arm = t.chance[s, c], t.arm[s, c]
    leave, where = _next(t), _next(t)
    if leave * old[arm] < old[arm] - chance[arm]:
        rising = np.maximum(chance - old, 0.0)
        t.arm[s, c] = sample(rising, where * rising.sum())


@njit(cache=True)
def adahedge(chance: ndarray, sums: ndarray, mixed: float, rewards: ndarray) -> float:
    """AdaHedge after one slot time: η = ln N / Δ with Δ what mixing has cost, max instead of mean; the new Δ."""
    most, top, scale = rewards.max(), -1.0, math.log(len(chance))
    mean, part = 0.0, 0.0  # Σ p r, and Σ p e^{η (r − max r)}; η is infinite while nothing was mixed
    for i in range(len(chance)):
        mean += chance[i] * rewards[i]
        if mixed > 0.0:
            part += chance[i] * math.exp(scale / mixed * (rewards[i] - most))
        sums[i] += rewards[i]
        top = max(top, sums[i])
    mix = most + math.log(max(part, _LEAST)) * mixed / scale if mixed > 0.0 else most
    mixed += max(mix - mean, 0.0)
    if mixed > 0.0:
        total = 0.0
        for i in range(len(chance)):
            chance[i] = math.exp(scale / mixed * (sums[i] - top))
            total += chance[i]
        chance /= total
    return mixed


@njit(cache=True)
def _adapt(t: Tables, s: int, correlated: bool) -> None:
    """Feedback of a whole slot time to a selector whose rate is its own."""
    c = t.color[s]
    if t.spread[s] > 0.0 and t.chance.shape[2] > 1:
        old = t.chance[s, c].copy()
        t.mixed[s, c] = adahedge(t.chance[s, c], t.sums[s, c], t.mixed[s, c], t.waiting[s])
        t.waiting[s] = 0.0
        if correlated:
            _jump(t, s, old)


@njit(cache=True)
def _refresh(t: Tables, s: int, recolor: int, correlated: bool) -> None:
    """The end of a slot time: perhaps another colour, then an arm."""
    if len(t.sums):
        _adapt(t, s, correlated)
    t.asked[s] = False
    t.squares[s] += t.spread[s] ** 2
    t.spread[s] = 0.0
    t.times[s] += 1
    if recolor > 0 and t.times[s] % recolor == 0:
        t.color[s] = int(_next(t) * t.chance.shape[1])
    c = t.color[s]
    item = t.arm[s, c] if correlated else sample(t.chance[s, c], _next(t))
    if item != t.shown[s]:
        t.shown[s] = item
        t.ints[MOVES] += 1


@njit(cache=True)
def reward(w: float, color: int, slot: int, held: ndarray, colors: ndarray, holders: ndarray) -> float:
    """What item i in this slot adds to the slots before it, max(b, W) − b with b the most that one of these saves."""
    before = 0.0
    for k in range(len(held)):
        earlier = colors[k] < color or (colors[k] == color and holders[k] < slot)
        if earlier and held[k] > before:
            before = held[k]
    return max(before, w) - before


@njit(cache=True)
def _request(w: Ways, t: Tables, d: int, rate: float, mixing: float, correlated: bool) -> float:
    """Serve one request and teach the slots on its path; the gain."""
    item, hops = w.item[d], w.hops[d]
    most = 0
    for place in range(hops):
        most += w.first[w.paths[d, place] + 1] - w.first[w.paths[d, place]]
    held, colors, holders = np.empty(most), np.empty(most, np.int64), np.empty(most, np.int64)
    count, hit = 0, hops
    for place in range(hops):
        node = w.paths[d, place]
        for s in range(w.first[node], w.first[node + 1]):
            if t.shown[s] == item:
                hit = min(hit, place)
                held[count], colors[count], holders[count] = w.savings[d, place], t.color[s], s
                count += 1
    t.ints[HITS] += hit < hops
    t.ints[CONTROL] += 2 * hops - hit if t.probed[d] else 4 * hops - hit
    t.probed[d] = True
    for place in range(hops):
        node, saving = w.paths[d, place], w.savings[d, place]
        for s in range(w.first[node], w.first[node + 1]):
            gain = reward(saving, t.color[s], s, held[:count], colors[:count], holders[:count])
            t.asked[s] = True
            t.spread[s] += gain
            t.taught[s, t.color[s]] += 1
            if len(t.sums):
                t.waiting[s, item] += gain
            else:
                _learn(t, s, item, rate * gain, mixing, correlated)
    return float(w.savings[d, hit])


@njit(cache=True)
def serve(
    w: Ways, t: Tables, requests: ndarray, rate: float, mixing: float, batch: int, recolor: int, correlated: bool
) -> float:
    """Serve requests in order; slots change their items after every ``batch`` of them. The gain."""
    gain = 0.0
    for d in requests:
        gain += _request(w, t, d, rate, mixing, correlated)
        t.ints[WAITING] += 1
        if t.ints[WAITING] < batch:
            continue
        t.ints[WAITING] = 0
        if batch == 1:
            for place in range(w.hops[d]):
                node = w.paths[d, place]
                for s in range(w.first[node], w.first[node + 1]):
                    _refresh(t, s, recolor, correlated)
        else:
            for s in range(len(t.shown)):
                if t.asked[s]:
                    _refresh(t, s, recolor, correlated)
    return gain

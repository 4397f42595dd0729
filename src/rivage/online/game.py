"""The only loop of this package: a policy meets a trace, and meters watch.

`play` feeds the policy blocks of requests, stops at *points*, and there notes sums from the beginning: what the policy
gained, what the best fixed set would have, how much moved. Time is taken around the policy only. A policy that must see
the whole trace beforehand, such as the best fixed set itself, says so by having `foresee`, and gets it twice. Memory is
that of the policy, of the meters and of one block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer
from numpy import ndarray

from rivage.core.errors import DataError, require
from rivage.core.seeding import Streams
from rivage.online.policy import CacheInstance, Outcome, Policy
from rivage.online.regret import StaticOptimum, WindowedOptimum

__all__ = ["Played", "play"]

Block = Integer[ndarray, "n"]


@dataclass(frozen=True, slots=True)
class Played:
    """How a game went.

    Args:
        points: one event per point: sums from the beginning, see `play`.
        seconds: spent in the policy.
        state: of the policy, at the end.
    """

    points: tuple[dict[str, Any], ...]
    seconds: float
    state: Any

    @property
    def last(self) -> dict[str, Any]:
        """The point at the end."""
        return self.points[-1]


def play(
    policy: Policy,
    instance: CacheInstance,
    blocks: Iterable[Block],
    *,
    streams: Streams,
    every: int,
    block: int = 2**16,
    window: int | None = None,
    observe: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Played:
    """Let a policy serve requests.

    An event has ``requests``, ``asked`` (Σ w of all requests), ``hits``, ``gain``, ``fractional``, ``inserted`` as in
    `Outcome` but from the beginning, ``prefetched`` likewise, ``occupancy``, ``optimum`` (of the best fixed set for the
    requests so far), ``windowed`` (the same with a set for each window; None without), ``regret`` = optimum −
    fractional, and ``bound`` (what the policy promises for it; None where it promises nothing).

    Args:
        policy: decides.
        instance: the cache.
        blocks: the requests, in parts of any length. A policy that foresees gets them twice: an iterator, which gives
            them once, is then held in memory.
        streams: randomness of the policy.
        every: requests between points; the end is a point too.
        block: requests that the policy gets at once, at most.
        window: requests per window of the windowed optimum.
        observe: called with every event.

    Raises:
        ConfigError: when a count is below 1.
        DataError: when a request is no item.
    """
    for count, name in ((every, "every"), (block, "block"), (1 if window is None else window, "window")):
        require(count, name, least=1)
    state, total, asked = policy.init(instance, streams), Outcome(), 0.0
    if hasattr(policy, "foresee"):
        blocks = list(blocks) if isinstance(blocks, Iterator) else blocks
        policy.foresee(state, _known(blocks, instance.items))
    static, windowed = StaticOptimum(instance), None if window is None else WindowedOptimum(instance, window)
    promised = getattr(policy, "bound", None)
    points: list[dict[str, Any]] = []
    spent = optimum = changing = 0.0
    for part, ends in _cut(_known(blocks, instance.items), every, block):
        started = time.perf_counter()
        outcome = policy.run_block(state, part)
        spent += time.perf_counter() - started
        total = _sum(total, outcome)
        asked += len(part) if instance.weights is None else float(instance.weights[part].sum())
        optimum = static.add(part)
        changing = 0.0 if windowed is None else windowed.add(part)
        if not ends:
            continue
        event = {
            "event": "point",
            "requests": total.requests,
            "asked": asked,
            "hits": total.hits,
            "gain": total.gain,
            "fractional": total.fractional,
            "inserted": total.inserted,
            "prefetched": total.prefetched,
            "occupancy": total.occupancy,
            "optimum": optimum,
            "windowed": None if windowed is None else changing,
            "regret": optimum - total.fractional,
            "bound": None if promised is None else promised(state),
        }
        points.append(event)
        observe(event)
    return Played(tuple(points), spent, state)


def _known(blocks: Iterable[Block], items: int) -> Iterator[Block]:
    """The blocks, refused unless all requests are items: compiled policies do not look where they write."""
    before = 0
    for block in blocks:
        if len(block) and (block.dtype.kind not in "iu" or block.min() < 0 or block.max() >= items):
            at = int(((block < 0) | (block >= items) | (block % 1 != 0)).argmax())
            raise DataError(
                f"request {before + at} is for item {block[at]}, of type {block.dtype}",
                mend=f"Give whole numbers from 0 to {items - 1}, or the cache more items.",
            )
        yield block
        before += len(block)


def _sum(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(
        requests=one.requests + other.requests,
        hits=one.hits + other.hits,
        gain=one.gain + other.gain,
        fractional=one.fractional + other.fractional,
        inserted=one.inserted + other.inserted,
        occupancy=other.occupancy,
        prefetched=one.prefetched + other.prefetched,
    )


def _cut(blocks: Iterable[Block], every: int, most: int) -> Iterator[tuple[Block, bool]]:
    """The same requests cut at every multiple of ``every`` and into parts of at most ``most``; whether a point follows.

    Where the blocks end makes no difference. The end of the requests is a point too.
    """
    held: list[Block] = []
    count, left = 0, every  # requests held; requests until the next point
    for block in blocks:
        rest = block
        while count + len(rest) >= min(most, left):
            taken, rest = np.split(rest, [min(most, left) - count])
            part = np.concatenate([*held, taken]).astype(np.int64, copy=False)
            held, count, left = [], 0, left - len(part)
            yield part, left == 0
            left = left or every
        held.append(rest)
        count += len(rest)
    if count or left < every:
        yield np.concatenate([np.empty(0, np.int64), *held]).astype(np.int64, copy=False), True

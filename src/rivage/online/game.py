"""The only loop of this package: a policy meets a trace, and meters watch.

`play` feeds the policy blocks of requests, stops at *points*, and there notes sums from the beginning: what the policy
gained, what the best fixed set would have, how much moved. Time is taken around the policy only. A policy that must see
the whole trace beforehand, such as the best fixed set itself, says so by having `foresee`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.online.policy import CacheInstance, Outcome, Policy
from rivage.online.regret import StaticOptimum, WindowedOptimum

__all__ = ["Played", "play"]

Block = Int64[ndarray, "n"]


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
    window: int | None = None,
    observe: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Played:
    """Let a policy serve requests.

    An event has ``requests``, ``asked`` (Σ w of all requests), ``hits``, ``gain``, ``fractional``, ``inserted`` as in
    `Outcome` but from the beginning, ``occupancy``, ``optimum`` (of the best fixed set for the requests so far),
    ``windowed`` (the same with a set for each window; None without), ``regret`` = optimum − fractional, and ``bound``
    (what the policy promises for it; None where it promises nothing).

    Args:
        policy: decides.
        instance: the cache.
        blocks: the requests, in parts of any length.
        streams: randomness of the policy.
        every: requests between points; the end is a point too.
        window: requests per window of the windowed optimum.
        observe: called with every event.
    """
    state, total, asked = policy.init(instance, streams), Outcome(), 0.0
    if hasattr(policy, "foresee"):
        blocks = [np.concatenate([np.empty(0, np.int64), *blocks])]
        policy.foresee(state, blocks[0])
    static, windowed = StaticOptimum(instance), None if window is None else WindowedOptimum(instance, window)
    points: list[dict[str, Any]] = []
    spent = 0.0
    for block in _cut(blocks, every):
        started = time.perf_counter()
        part = policy.run_block(state, block)
        spent += time.perf_counter() - started
        total = _sum(total, part)
        asked += len(block) if instance.weights is None else float(instance.weights[block].sum())
        optimum = static.add(block)
        promised = getattr(policy, "bound", None)
        event = {
            "event": "point",
            "requests": total.requests,
            "asked": asked,
            "hits": total.hits,
            "gain": total.gain,
            "fractional": total.fractional,
            "inserted": total.inserted,
            "occupancy": total.occupancy,
            "optimum": optimum,
            "windowed": None if windowed is None else windowed.add(block),
            "regret": optimum - total.fractional,
            "bound": None if promised is None else promised(state),
        }
        points.append(event)
        observe(event)
    return Played(tuple(points), spent, state)


def _sum(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(
        requests=one.requests + other.requests,
        hits=one.hits + other.hits,
        gain=one.gain + other.gain,
        fractional=one.fractional + other.fractional,
        inserted=one.inserted + other.inserted,
        occupancy=other.occupancy,
    )


def _cut(blocks: Iterable[Block], every: int) -> Iterator[Block]:
    """The same requests in blocks of ``every``; the last may be shorter."""
    held: list[Block] = []
    count = 0
    for block in blocks:
        rest = block
        while count + len(rest) >= every:
            taken, rest = rest[: every - count], rest[every - count :]
            yield np.concatenate([*held, taken])
            held, count = [], 0
        held.append(rest)
        count += len(rest)
    if count:
        yield np.concatenate(held)

"""Playing in slots: the cache stays as it is while R requests come, then learns from all of them.

`serve_slots` cuts requests into slots wherever blocks end, counts what the cache as it was at the beginning of the slot
was worth, and hands the requests of every full slot to the policy. A slot that has begun stays open in the `Board`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer
from numpy import ndarray

from rivage.convex.rounding import dep_round, madow, poisson
from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.online.policy import CacheInstance, Outcome

__all__ = ["Board", "Rounder", "Rounding", "Slot", "serve_slots"]

Rounding = Literal["poisson", "coupled", "independent", "dep_round"]


@dataclass(frozen=True, slots=True)
class Slot:
    """The requests of one slot.

    Args:
        requests: in order.
        items: requested ones, ascending.
        gradient: w times the number of requests, for each of them: the gradient of the gain.
    """

    requests: Int64[ndarray, "batch"]
    items: Int64[ndarray, "requested"]
    gradient: Float64[ndarray, "requested"]


@dataclass(slots=True)
class Board:
    """What is cached, and the slot that is open.

    Args:
        instance: the cache.
        kept: which items are cached.
        x: the fractional state; None for policies without one.
        weights: of all items, also when all are 1.
        open: requests of the slot; the first ``filled`` of them have come.
        filled: see above.
        served: requests so far.
        unreported: items fetched since the last block.
        prefetched: weight of those among them that were fetched without having been asked for.
    """

    instance: CacheInstance
    kept: Bool[ndarray, "items"]
    x: Float64[ndarray, "items"] | None = None
    weights: Float64[ndarray, "items"] = field(init=False)
    open: Int64[ndarray, "batch"] = field(init=False)
    filled: int = 0
    served: int = 0
    unreported: int = field(init=False)
    prefetched: float = 0.0

    def __post_init__(self) -> None:
        weights = self.instance.weights
        self.weights = np.ones(self.instance.items) if weights is None else np.asarray(weights, np.float64)
        self.open = np.empty(self.instance.batch, np.int64)
        self.unreported = int(np.count_nonzero(self.kept))

    @property
    def begun(self) -> int:
        """Slots so far, the open one included."""
        return -(-self.served // self.instance.batch)

    def counts(self) -> tuple[Int64[ndarray, "requested"], Int64[ndarray, "requested"]]:
        """The items of the slot so far, ascending, and how often each was asked for. O(R log R).

        Raises:
            DataError: when that is more often than the instance says.
        """
        items, counts = np.unique(self.open[: self.filled], return_counts=True)
        if counts.max(initial=0) > self.instance.multiplicity:
            raise DataError(
                f"item {items[counts.argmax()]} was requested {counts.max()} times in one slot",
                where=f"slot {self.begun - 1}",
                mend=f"Give the cache a multiplicity of that, it is {self.instance.multiplicity}; the most is batch.",
            )
        return items, counts

    def cache(self, kept: Bool[ndarray, "items"], requested: Int64[ndarray, "requested"]) -> None:
        """Hold other items from now on.

        Args:
            kept: which ones.
            requested: the items of the slot that has ended, whose fetching is not extra traffic.
        """
        entered = kept & ~self.kept
        self.unreported += int(np.count_nonzero(entered))
        entered[requested] = False
        self.prefetched += float(self.weights[entered].sum())
        self.kept = kept


@dataclass(frozen=True, slots=True)
class Rounder:
    """From fractions to cached items, slot after slot.

    ``poisson`` compares each item with a number of its own, drawn once: moves least, and holds k items on average only.
    ``coupled`` is systematic sampling with one draw for all slots, always k items. ``independent`` (systematic) and
    ``dep_round`` draw afresh in every slot, which moves a good part of the cache each time.

    Args:
        kind: see above.
        numbers: of the items, for ``poisson``.
        random: of all other draws.
        xi: the one draw of ``coupled``.
    """

    kind: Rounding
    numbers: Float64[ndarray, "items"]
    random: np.random.Generator
    xi: float

    @classmethod
    def of(cls, kind: Rounding, items: int, streams: Streams) -> Rounder:
        """With the draws that last. O(N)."""
        numbers = streams.numpy("permanent").random(items) if kind == "poisson" else np.empty(0)
        random = streams.numpy("rounding")
        return cls(kind, numbers, random, float(random.random()))

    def kept(self, x: Float64[ndarray, "items"]) -> Bool[ndarray, "items"]:
        """Which items to cache. O(N)."""
        if self.kind == "poisson":
            return poisson(x, self.numbers).astype(np.bool_)
        if self.kind == "dep_round":
            return dep_round(x, self.random).astype(np.bool_)
        return madow(x, self.xi if self.kind == "coupled" else self.random.random()).astype(np.bool_)


def serve_slots(board: Board, requests: Integer[ndarray, "n"], learn: Callable[[Slot], None]) -> Outcome:
    """Serve requests in order; ``learn`` is called at the end of every slot.

    Raises:
        DataError: when an item is asked for more often in a slot than the instance says.
    """
    total = Outcome(requests=len(requests))
    for part in _parts(requests, board):
        weights, hit = board.weights[part], board.kept[part]
        gain = float(weights[hit].sum())
        total.hits += float(np.count_nonzero(hit))
        total.gain += gain
        total.fractional += gain if board.x is None else float(weights @ board.x[part])
        board.open[board.filled : board.filled + len(part)] = part
        board.filled += len(part)
        board.served += len(part)
        if board.filled == len(board.open):
            learn(_slot(board))
            board.filled = 0
    total.inserted, board.unreported = board.unreported, 0
    total.prefetched, board.prefetched = board.prefetched, 0.0
    total.occupancy = float(np.count_nonzero(board.kept))
    return total


def _parts(requests: Integer[ndarray, "n"], board: Board) -> list[Integer[ndarray, "m"]]:
    """Cut where slots end."""
    size = len(board.open)
    return np.split(requests, range(size - board.filled, len(requests), size)) if len(requests) else []


def _slot(board: Board) -> Slot:
    items, counts = board.counts()
    return Slot(board.open.copy(), items, board.weights[items] * counts)

"""What an online policy is, and what one slot or block of a game costs it.

A policy is a frozen dataclass of settings. Its state is made by `init` and changed in place by `run_block`, which may
be given the requests one by one or a million at a time: where blocks end changes nothing. Everything else, time,
blocks, meters and the record, belongs to `rivage.online.game`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams

__all__ = ["CacheInstance", "Outcome", "Policy"]


@dataclass(frozen=True, kw_only=True)
class CacheInstance:
    """One cache and what may be asked of it.

    Args:
        items: catalog size N; items are 0 … N − 1.
        capacity: items that the cache holds, k, 1 <= k < N.
        horizon: requests T that will come; None when unknown.
        weights: cost of fetching each item when it is not cached, >= 0; None means 1.
        batch: requests per slot, R, at most.
        multiplicity: how often one item may be asked for in a slot, h, at most.

    Raises:
        ConfigError: naming all that is wrong.
    """

    items: int
    capacity: int
    horizon: int | None = None
    weights: Float64[ndarray, "items"] | None = None
    batch: int = 1
    multiplicity: int = 1

    def __post_init__(self) -> None:
        faults = {
            f"capacity is {self.capacity}; a cache holds at least one item": self.capacity < 1,
            f"capacity {self.capacity} is not below the {self.items} items: everything fits, there is nothing to "
            "decide": 1 <= self.items <= self.capacity,
            f"items is {self.items}": self.items < 1,
            f"horizon is {self.horizon}": self.horizon is not None and self.horizon < 1,
            f"batch is {self.batch}": self.batch < 1,
            f"multiplicity {self.multiplicity} is not between 1 and batch": not 1 <= self.multiplicity <= self.batch,
        }
        if self.weights is not None:
            faults["weights are not one for each item"] = self.weights.shape != (self.items,)
            faults["weights are negative or not finite"] = not bool(
                (np.isfinite(self.weights) & (self.weights >= 0)).all()
            )
        found = [fault for fault, present in faults.items() if present]
        if found:
            raise ConfigError(
                "; ".join(found),
                where="cache",
                mend="Give 1 <= capacity < items, counts >= 1 and one finite weight >= 0 for each item.",
            )

    @property
    def largest_weight(self) -> float:
        """The largest weight, 1 without weights."""
        return 1.0 if self.weights is None else float(self.weights.max())


@dataclass(slots=True)
class Outcome:
    """What a policy made of a block of requests; sums, except ``occupancy``.

    Args:
        requests: how many there were.
        hits: served by the cache as it was before each request.
        gain: weight of the hits.
        fractional: Σ w x before each request, for policies with a fractional state x; otherwise equal to ``gain``.
        inserted: items brought into the cache, each of which costs one fetch, the first filling included.
        occupancy: items in the cache after the block.
        prefetched: weight of the items brought in though they had not just been asked for: the update cost
            Σ w max(0, x'_i − x_i) over items i outside the slot. The first contents cost nothing, as those of the best
            fixed set.
    """

    requests: int = 0
    hits: float = 0.0
    gain: float = 0.0
    fractional: float = 0.0
    inserted: int = 0
    occupancy: float = 0.0
    prefetched: float = 0.0


@runtime_checkable
class Policy(Protocol):
    """Decides what one cache holds.

    Two more methods may be there. ``foresee(state, blocks)`` gets all requests, a block at a time, before the first one
    is served: such a policy is no rival but a yardstick. It keeps what it needs of the future; ``bytes_per_request``
    says how much that is, where it grows with the trace. ``bound(state)`` is what the regret for the requests served so
    far cannot exceed, for every sequence: of the fractional state where the policy has one, else in expectation.
    """

    reference: ClassVar[Any]

    def init(self, instance: CacheInstance, streams: Streams) -> Any:
        """The state before the first request."""
        ...

    def run_block(self, state: Any, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests in order, and change the state accordingly."""
        ...

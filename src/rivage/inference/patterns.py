"""The gain averaged over many slots, with equal ones counted once.

Costs are linear in the scale of a type's requests and capacities: C(c r, c l, x) = c C(r, l, x), type by type. So all
that matters of a type in a slot is its *pattern*, the shares l/r of its requests that each possibility could serve, and
for each distinct pattern its weight, the mean requests that come with it:

    (1/W) Σ_t w_t C(r_t, l_t, x) = Σ_i weight_i Σ_k γ_i^k φ_i^k(x),

with φ_i^k the share that rank k serves. Where throughput is ample one pattern per type is left of any number of slots.
Possibilities beyond the worst one that pinned models alone would need never serve, and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import DataError, ShapeError
from rivage.inference import serving_kernel as kernel
from rivage.inference.gain import Slot
from rivage.inference.instance import Instance

__all__ = ["Patterns"]

_DIGITS = 12  # of shares: sums in another order are no other pattern


@dataclass(frozen=True, kw_only=True, eq=False)
class Patterns:
    """Distinct patterns with their weights.

    Args:
        instance: the network.
        first: where the ways of each pattern begin, and at the end how many there are.
        type: request type of each pattern.
        weight: its mean requests per slot.
        place: node · models + model of each way, cheapest first.
        cost: γ of each way.
        share: of the pattern's requests that the way could serve, in (0, 1].
    """

    instance: Instance
    first: Int64[ndarray, "n"]
    type: Int64[ndarray, "patterns"]
    weight: Float64[ndarray, "patterns"]
    place: Int64[ndarray, "ways"]
    cost: Float64[ndarray, "ways"]
    share: Float64[ndarray, "ways"]

    @classmethod
    def of(
        cls, instance: Instance, slots: Sequence[Slot], weights: Float64[ndarray, "slots"] | None = None
    ) -> Patterns:
        """The patterns of some slots. O(T K log T) for T slots of K possibilities.

        Args:
            instance: of all slots.
            slots: at least one.
            weights: of the slots, >= 0 and not all 0; all equal when not given.

        Raises:
            DataError, ShapeError: when there is no slot, or weights do not fit.
        """
        weight = _normalized(slots, weights)
        ranking, pinned = instance.ranking, instance.pinned
        requests = np.stack([slot.requests for slot in slots])
        shares = np.stack([_shares(slot, pinned) for slot in slots])
        parts, types, totals = list[ndarray](), list[int](), list[float]()
        for type_ in range(instance.types):
            asked = np.flatnonzero((requests[:, type_] > 0) & (weight > 0))
            a, b = ranking.first[type_], ranking.first[type_ + 1]
            rows, which = np.unique(shares[asked, a:b], axis=0, return_inverse=True)
            amounts = np.bincount(which.ravel(), weight[asked] * requests[asked, type_], minlength=len(rows))
            for row, amount in zip(rows, amounts.tolist(), strict=True):
                some = np.flatnonzero(row)
                parts.append(np.stack([a + some, row[some]]))
                types.append(type_)
                totals.append(amount)
        ways, share = np.concatenate(parts, axis=1) if parts else np.empty((2, 0))
        rank = ways.astype(np.int64)
        return cls(
            instance=instance,
            first=np.concatenate([[0], np.cumsum([part.shape[1] for part in parts])]).astype(np.int64),
            type=np.array(types, np.int64),
            weight=np.array(totals, np.float64),
            place=ranking.place[rank],
            cost=ranking.cost[rank],
            share=share,
        )

    def __len__(self) -> int:
        return len(self.type)

    @cached_property
    def pattern(self) -> Int64[ndarray, "ways"]:
        """Pattern of each way."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    def served(self, allocation: ndarray) -> Float64[ndarray, "ways"]:
        """Share of its pattern's requests that each way serves. O(ways)."""
        y = np.asarray(allocation, np.float64).ravel()
        shares: Float64[ndarray, "ways"] = kernel.serve(self.first, self.place, np.ones(len(self)), self.share, y)
        return shares

    def price(self, allocation: Float64[ndarray, "nodes models"] | Bool[ndarray, "nodes models"]) -> float:
        """The mean cost of a slot. O(ways)."""
        return float((self.weight[self.pattern] * self.cost) @ self.served(allocation))

    @cached_property
    def base_price(self) -> float:
        """The same with pinned models alone."""
        return self.price(self.instance.pinned)

    def gain(self, allocation: Float64[ndarray, "nodes models"] | Bool[ndarray, "nodes models"]) -> float:
        """The mean gain of a slot. O(ways)."""
        return self.base_price - self.price(allocation)


def _normalized(slots: Sequence[Slot], weights: Float64[ndarray, "slots"] | None) -> Float64[ndarray, "slots"]:
    if not slots:
        raise DataError("there is no slot", mend="Give at least one.")
    if weights is None:
        return np.full(len(slots), 1.0 / len(slots))
    if weights.shape != (len(slots),):
        raise ShapeError(f"weights have shape {weights.shape}", mend=f"Give one for each of {len(slots)} slots.")
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise DataError("weights are negative, not finite or all 0", mend="Say how often each slot counts.")
    return np.asarray(weights / weights.sum())


def _shares(slot: Slot, pinned: Bool[ndarray, "nodes models"]) -> Float64[ndarray, "ranks"]:
    """l/r of every possibility that may be needed, 0 elsewhere."""
    ranking = slot.instance.ranking
    worst = slot.slope(pinned).worst[ranking.type]
    asked = slot.requests[ranking.type]
    needed = (np.arange(len(ranking)) <= worst) & (asked > 0)
    return np.where(needed, np.round(np.minimum(slot.capacity / np.where(asked > 0, asked, 1.0), 1.0), _DIGITS), 0.0)

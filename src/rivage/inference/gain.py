"""What an allocation is worth in a slot, how much is left to gain, and in which direction.

In a slot r_ρ requests of each type come, and the possibility at rank k of type ρ could serve l_ρ^k of them if its model
were loaded: the *potential available capacity*, given what else the model has to do. With z_ρ^k = x l_ρ^k requests fill
the ranks from the cheapest on::

    C(r, l, x) = Σ_ρ Σ_k γ_ρ^k min{ r_ρ − Σ_{k'<k} z_ρ^k' , z_ρ^k } 1{ Σ_{k'<k} z_ρ^k' < r_ρ }
    G(r, l, x) = C(r, l, ω) − C(r, l, x)
               = Σ_ρ Σ_k (γ_ρ^{k+1} − γ_ρ^k) ( Z_ρ^k(x) − Z_ρ^k(ω) ),   Z_ρ^k = min{ r_ρ , Σ_{k'<=k} z_ρ^k' }.

The same formulas for fractions y in [0, 1] give the relaxed gain: concave and piecewise linear, so that::

    g_m^v = Σ_ρ l_ρ^k ( γ_ρ^{K*} − γ_ρ^k ) 1{ k < K* },   K*_ρ = min{ k : Σ_{k'<=k} z_ρ^k' >= r_ρ },

with k the rank of m on v, is a supergradient at y. On 0/1 matrices the gain is monotone and submodular. Both need two
things of every slot, which `Slot` sees to: l <= r, and that pinned models can take any batch.

*Contention* (`contend`): requests of a slot arrive type by type in the order of the types and share what a loaded model
can do, L. For a model that is loaded l is what was served plus what is left over; for one that is not, the share of L
that the type has in all requests that could use it.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024, arXiv 2105.02510: serving cost, gain, subgradient. The discipline of contention is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import DataError, ShapeError
from rivage.inference import serving_kernel as kernel
from rivage.inference.instance import Instance

__all__ = ["Contended", "Slope", "Slot", "contend"]

Allocation = Float64[ndarray, "nodes models"] | Bool[ndarray, "nodes models"]
Ranks = Float64[ndarray, "ranks"]

_LISTED = 20  # types shown at once
_TOLERANCE = 1e-9  # of the requests of a type: sums of capacities that meet them up to rounding do


class Slope(NamedTuple):
    """A supergradient of the gain.

    Args:
        gradient: for every node and model; pinned ones included.
        worst: place in the ranking of the worst possibility that each type needs, −1 for types without requests.
    """

    gradient: Float64[ndarray, "nodes models"]
    worst: Int64[ndarray, "types"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """The requests of one slot, and what could serve them.

    Args:
        instance: the network.
        requests: r, of each type, >= 0.
        capacity: l, of each possibility of the ranking, 0 <= l <= r of its type.

    Raises:
        DataError: for numbers that are negative or not finite, and when pinned models cannot take all requests.
    """

    instance: Instance
    requests: Float64[ndarray, "types"]
    capacity: Ranks

    def __post_init__(self) -> None:
        instance = self.instance
        _require_requests(instance, self.requests)
        if self.capacity.shape != (len(instance.ranking),):
            raise ShapeError(f"capacities have shape {self.capacity.shape}", mend="Give one for each possibility.")
        most = self.requests[instance.ranking.type]
        if not ((self.capacity >= 0) & (self.capacity <= most * (1 + _TOLERANCE))).all():
            raise DataError("a capacity is negative or above the requests of its type", mend="Cap them: 0 <= l <= r.")
        self._require_absorbed()

    @classmethod
    def contended(cls, instance: Instance, requests: Float64[ndarray, "types"], capacity: Ranks) -> Slot:
        """The slot of capacities that `contend` found: 0 <= l <= r need not be looked at again."""
        slot = object.__new__(cls)
        for name, value in (("instance", instance), ("requests", requests), ("capacity", capacity)):
            object.__setattr__(slot, name, value)
        if not instance.absorbs:
            slot._require_absorbed()
        return slot

    def _require_absorbed(self) -> None:
        taken = np.add.reduceat(self.served(self.instance.pinned), self.instance.ranking.first[:-1])
        short = np.flatnonzero(taken < self.requests * (1 - 1e-6))
        if short.size:
            lacking = [
                f"{taken[type_]:g} of {self.requests[type_]:g} requests of type {type_}, task "
                f"{self.instance.task_name(int(self.instance.asked[type_]))}"
                for type_ in short[:_LISTED].tolist()
            ]
            raise DataError(
                f"pinned models take only {'; '.join(lacking)}{'; …' if len(short) > _LISTED else ''}",
                mend="Raise the throughput of a pinned model on the path; inf takes all.",
            )

    def served(self, allocation: Allocation) -> Ranks:
        """Requests that each possibility serves. O(K)."""
        ranking, y = self.instance.ranking, np.asarray(allocation, np.float64).ravel()
        ranks: Ranks = kernel.serve(ranking.first, ranking.place, self.requests, self.capacity, y)
        return ranks

    def cost(self, allocation: Allocation) -> float:
        """C(r, l, x). O(K)."""
        ranking, y = self.instance.ranking, np.asarray(allocation, np.float64).ravel()
        return float(kernel.price(ranking.first, ranking.place, ranking.cost, self.requests, self.capacity, y))

    @cached_property
    def base_cost(self) -> float:
        """C(r, l, ω), with pinned models alone."""
        if not self.instance.single_pinned:
            return self.cost(self.instance.pinned)
        last = self.instance.ranking.first[1:] - 1
        return float(np.minimum(self.requests, self.capacity[last]) @ self.instance.ranking.cost[last])

    def gain(self, allocation: Allocation) -> float:
        """G(r, l, x) for an allocation or fractions. O(K)."""
        return self.base_cost - self.cost(allocation)

    def slope(self, allocation: Allocation) -> Slope:
        """A supergradient at an allocation or fractions. O(K)."""
        ranking, y = self.instance.ranking, np.asarray(allocation, np.float64).ravel()
        gradient, worst = kernel.slopes(
            ranking.first, ranking.place, ranking.cost, self.requests, self.capacity, y, _TOLERANCE
        )
        return Slope(gradient.reshape(self.instance.shape), worst)


class Contended(NamedTuple):
    """A slot as it went.

    Args:
        slot: requests and potential capacities.
        served: requests that each possibility served.
    """

    slot: Slot
    served: Ranks


def contend(
    instance: Instance, requests: Float64[ndarray, "types"], loaded: Bool[ndarray, "nodes models"]
) -> Contended:
    """Let an allocation serve the requests of a slot. O(K).

    Args:
        instance: the network.
        requests: r, of each type, >= 0.
        loaded: the allocation; what is pinned is loaded anyhow.

    Raises:
        DataError: as `Slot`.
    """
    _require_requests(instance, requests)
    ranking = instance.ranking
    capacity, served = kernel.contend(
        ranking.first, ranking.place, requests, instance.throughput.ravel(), (loaded | instance.pinned).ravel()
    )
    return Contended(Slot.contended(instance, requests, capacity), served)


def _require_requests(instance: Instance, requests: Float64[ndarray, "types"]) -> None:
    if requests.shape != (instance.types,):
        raise ShapeError(
            f"requests have shape {requests.shape}", mend=f"Give one number for each of {instance.types} types."
        )
    if not (np.isfinite(requests) & (requests >= 0)).all():
        raise DataError("a number of requests is negative or not finite", mend="Count the requests of each type.")

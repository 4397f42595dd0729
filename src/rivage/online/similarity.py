"""Similarity caching: a request is a vector, the answer k objects like it, from the cache where that is cheaper.

Si Salem, Neglia, Carra. Ascent similarity caching with approximate indexes. IEEE/ACM Transactions on Networking, 2022,
arXiv 2107.00957. A cache holds h of N objects. An answer o costs its distance d_o from the request, and c_f more where
it is fetched from the server, which has all of them. Both know all distances, so the k cheapest are served:

    C(r, x) = min Σ_o u_o d_o + v_o (d_o + c_f)   over   0 <= u <= x,  0 <= v,  u + v <= 1,  Σ_o (u_o + v_o) = k.

For fractions x in X = {0 <= x <= 1, Σ x = h} this is a linear program in (u, v, x), so that C is convex and the gain
G(r, x) = C(r, 0) − C(r, x) concave. It is solved by taking from the merged list of local copies, x_o at cost d_o, and
remote ones, 1 − x_o at cost d_o + c_f, the cheapest first until k are taken. With c* the cost of the last one taken,

    g_o = min(c_f, max(0, c* − d_o))

is a supergradient of G, between 0 and c_f; and at whole x it is exactly what the gain grows by when o is added. With
S(λ, x) = Σ_{λ − c_f < d_o <= λ} x_o and n(λ) the number of d_o <= λ, the gain is
∫ min( S(λ, x), max(0, k − n(λ − c_f)) ) dλ: a sum of truncated counts, monotone and submodular over sets.

The lists of nearest objects come from `rivage.online.nearest`. Where these are approximate or end after m objects,
costs and gains are of what is in the list, for the cache, its rivals and the best fixed set alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, ShapeError, require
from rivage.core.seeding import Streams
from rivage.online.nearest import Nearest

__all__ = [
    "Merged",
    "Priced",
    "Served",
    "SimilarityInstance",
    "SimilarityPolicy",
    "SimilarityRequests",
    "merge",
    "play_similarity",
    "price",
]

Vector = Float64[ndarray, "items"]

_FULL = 1e-9  # of an answer: rounding of the sums of fractions


@dataclass(frozen=True, kw_only=True)
class SimilarityInstance:
    """One similarity cache.

    Args:
        items: objects N.
        capacity: of them the cache holds, h, 1 <= h < N.
        answers: objects per answer, k.
        fetch_cost: c_f > 0, in the unit of distances.
        horizon: requests T that will come; None when unknown.
        catalog: one row per object, for policies that compare requests with what they hold by themselves.
    """

    items: int
    capacity: int
    answers: int
    fetch_cost: float
    horizon: int | None = None
    catalog: Float64[ndarray, "items dim"] | None = None

    def __post_init__(self) -> None:
        require(self.answers, "answers", least=1)
        require(self.fetch_cost, "fetch_cost", above=0)
        if self.horizon is not None:
            require(self.horizon, "horizon", least=1)
        if not 1 <= self.capacity < self.items:
            raise ConfigError(
                f"capacity is {self.capacity} of {self.items} objects", mend="Give a cache that holds some, not all."
            )
        if self.answers > self.items:
            raise ConfigError(f"{self.answers} answers from {self.items} objects", mend="Ask for fewer.")
        if self.catalog is not None and (self.catalog.ndim != 2 or len(self.catalog) != self.items):
            raise ShapeError(
                f"a catalog of shape {self.catalog.shape} for {self.items} objects", mend="Give one row per object."
            )


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityRequests:
    """Requests with the objects near to them.

    Args:
        vectors: what is asked for.
        items: objects of the index's answer, nearest first.
        distances: of these.
    """

    vectors: Float64[ndarray, "n dim"]
    items: Int64[ndarray, "n m"]
    distances: Float64[ndarray, "n m"]

    def __post_init__(self) -> None:
        if self.items.shape != self.distances.shape or len(self.vectors) != len(self.items):
            raise ShapeError(
                f"{len(self.vectors)} vectors, objects of shape {self.items.shape}, distances of shape "
                f"{self.distances.shape}",
                mend="Give one list of objects and one of distances for each vector.",
            )

    @classmethod
    def of(cls, vectors: Float64[ndarray, "n dim"], near: Nearest) -> SimilarityRequests:
        """Requests and what an index found."""
        return cls(vectors, near.items, near.distances)

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int) -> SimilarityRequests:
        """Some of them, in order."""
        return SimilarityRequests(self.vectors[start:stop], self.items[start:stop], self.distances[start:stop])


class Merged(NamedTuple):
    """Local and remote copies, the cheapest first; on ties local ones.

    Args:
        items: object of each copy.
        local: whether it is that of the cache.
        costs: of each copy.
    """

    items: Int64[ndarray, "n c"]
    local: Bool[ndarray, "n c"]
    costs: Float64[ndarray, "n c"]


class Priced(NamedTuple):
    """What requests cost.

    Args:
        cost: of each.
        last: c*, the cost of the last copy taken.
        local: answers from the cache.
    """

    cost: Float64[ndarray, "n"]
    last: Float64[ndarray, "n"]
    local: Float64[ndarray, "n"]


def merge(requests: SimilarityRequests, instance: SimilarityInstance) -> Merged:
    """The merged lists, which do not depend on the cache. O(n m log m).

    Raises:
        ConfigError: when a list is shorter than an answer.
    """
    known = requests.items.shape[1]
    if known < instance.answers:
        raise ConfigError(
            f"lists of {known} objects for answers of {instance.answers}", mend="Ask the index for more objects."
        )
    costs = np.concatenate([requests.distances, requests.distances + instance.fetch_cost], axis=1)
    order = np.argsort(costs, axis=1, kind="stable")
    items = np.take_along_axis(np.concatenate([requests.items, requests.items], axis=1), order, axis=1)
    return Merged(items, order < known, np.take_along_axis(costs, order, axis=1))


def price(x: Vector, merged: Merged, answers: int) -> Priced:
    """C(r, x) of requests, for fractions or whole objects x. O(n m)."""
    there = x[merged.items]
    supply = np.where(merged.local, there, 1.0 - there)
    filled = np.cumsum(supply, axis=1)
    taken = np.clip(answers - (filled - supply), 0.0, supply)
    last = np.argmax(filled >= answers - _FULL, axis=1)
    return Priced(
        (taken * merged.costs).sum(axis=1),
        merged.costs[np.arange(len(last)), last],
        np.where(merged.local, taken, 0.0).sum(axis=1),
    )


@dataclass(slots=True)
class Served:
    """What a policy made of a block of requests; sums, except ``occupancy``.

    Args:
        requests: how many there were.
        empty: cost without a cache.
        cost: of the answers, with the cache as it was before each request.
        fractional: cost at the fractional state, for policies that have one; otherwise equal to ``cost``.
        local: answers from the cache, k for each request at most.
        inserted: objects brought into the cache, the first ones included.
        prefetched: those among them that were not fetched for the answer just given, the first ones left out.
        occupancy: objects in the cache after the block.
    """

    requests: int = 0
    empty: float = 0.0
    cost: float = 0.0
    fractional: float = 0.0
    local: float = 0.0
    inserted: int = 0
    prefetched: int = 0
    occupancy: int = 0

    def plus(self, other: Served) -> Served:
        """Both, one after the other."""
        return Served(
            self.requests + other.requests,
            self.empty + other.empty,
            self.cost + other.cost,
            self.fractional + other.fractional,
            self.local + other.local,
            self.inserted + other.inserted,
            self.prefetched + other.prefetched,
            other.occupancy,
        )


@runtime_checkable
class SimilarityPolicy(Protocol):
    """Decides what a similarity cache holds.

    Two more methods may be there. ``foresee(state, requests)`` gets all requests before the first: such a policy is a
    yardstick. ``bound(state)`` is what the gain of the fractional state can be below that of the best fixed fractions.
    """

    reference: ClassVar[Any]

    def init(self, instance: SimilarityInstance, streams: Streams) -> Any:
        """The state before the first request."""
        ...

    def run_block(self, state: Any, requests: SimilarityRequests) -> Served:
        """Serve requests in order, and change the state accordingly."""
        ...


def play_similarity(
    policy: SimilarityPolicy,
    instance: SimilarityInstance,
    requests: SimilarityRequests,
    *,
    streams: Streams,
    every: int,
    observe: Callable[[dict[str, Any]], None] = lambda event: None,
) -> tuple[dict[str, Any], ...]:
    """Let a policy serve requests; one event after every ``every`` requests and at the end.

    An event has the sums of `Served` from the beginning, ``gain`` = empty − cost, ``fractional_gain`` and ``bound``
    (None where the policy promises nothing).

    Raises:
        ConfigError: when ``every`` is below 1, or lists are shorter than answers.
    """
    require(every, "every", least=1)
    state, total, points = policy.init(instance, streams), Served(), []
    if hasattr(policy, "foresee"):
        policy.foresee(state, requests)
    promised = getattr(policy, "bound", None)
    for start in range(0, len(requests), every):
        total = total.plus(policy.run_block(state, requests.part(start, start + every)))
        event = {
            "event": "point",
            **{name: getattr(total, name) for name in Served.__slots__},
            "gain": total.empty - total.cost,
            "fractional_gain": total.empty - total.fractional,
            "bound": None if promised is None else promised(state),
        }
        points.append(event)
        observe(event)
    return tuple(points)

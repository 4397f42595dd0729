"""What a similarity cache is held against: caches that follow the last requests, and the best fixed contents.

`ObjectLRU` is exact: the answer is always the k nearest objects, each of which counts as asked for. `SimLRU` (Pandey et
al. Nearest-neighbor caching for content-match applications. WWW 2009) keeps past requests with their answers, ⌊h/k⌋ of
them, and hands out the answer of the nearest past request when that is no further than a threshold; a hit refreshes, a
miss replaces what was used longest ago. With ``composed`` both serve the k cheapest of what they hold and the server
has, as `rivage.online.acai.ACAI` does: they then use the index of the catalog too.

`greedy_contents` adds the object that the gain of all requests grows by most, h times: at least (1 − 1/e) of the best
fixed set (Nemhauser, Wolsey, Fisher. An analysis of approximations for maximizing submodular set functions.
Mathematical Programming, 1978). `relaxed_optimum` ascends on the concave gain of all requests: from any x the best
fractions, and so the best set, gain at most Σ_t G(r_t, x) + max_{y in X} ⟨Σ_t g_t(x), y − x⟩, of which the least over
all steps is returned.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.convex.sets import CappedSimplex
from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.online.similarity import (
    Merged,
    Served,
    SimilarityInstance,
    SimilarityRequests,
    merge,
    price,
)

__all__ = ["BestFixed", "Contents", "ObjectLRU", "Relaxed", "SimLRU", "greedy_contents", "relaxed_optimum"]


@dataclass(slots=True)
class Contents:
    """Objects held, by how many entries hold them.

    Args:
        instance: the cache.
        order: entries, those used longest ago first: objects, or numbers of past requests.
        held: which objects are there.
        times: by how many entries.
        vectors: past requests of `SimLRU`.
        answers: theirs.
        came: entries so far.
    """

    instance: SimilarityInstance
    held: Bool[ndarray, "items"]
    order: OrderedDict[int, None] = field(default_factory=OrderedDict)
    times: Counter[int] = field(default_factory=Counter)
    vectors: dict[int, ndarray] = field(default_factory=dict)
    answers: dict[int, ndarray] = field(default_factory=dict)
    came: int = 0

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached objects, ascending."""
        return np.flatnonzero(self.held)

    def add(self, items: Int64[ndarray, "n"]) -> int:
        """Hold these once more; how many were not there."""
        fresh = int(np.count_nonzero(~self.held[items]))
        self.times.update(items.tolist())
        self.held[items] = True
        return fresh

    def drop(self, items: Int64[ndarray, "n"]) -> None:
        """Hold these once less."""
        for item in items.tolist():
            self.times[item] -= 1
            if not self.times[item]:
                del self.times[item]
                self.held[item] = False


@dataclass(frozen=True, kw_only=True)
class ObjectLRU:
    """The objects that were among the nearest of a request most recently.

    Args:
        composed: serve the k cheapest copies, rather than the k nearest objects; what is kept is the same.
    """

    reference: ClassVar[str] = "mattson70"

    composed: bool = False

    def init(self, instance: SimilarityInstance, streams: Streams) -> Contents:
        """Empty."""
        return Contents(instance, np.zeros(instance.items, np.bool_))

    def run_block(self, state: Contents, requests: SimilarityRequests) -> Served:
        """Serve requests in order; O(m log m) each."""
        instance = state.instance
        total, merged = _begun(requests, instance)
        for at in range(len(requests)):
            nearest, distances = requests.items[at, : instance.answers], requests.distances[at, : instance.answers]
            if self.composed:
                _serve_composed(total, state.held, _one(merged, at), instance)
            else:
                there = int(np.count_nonzero(state.held[nearest]))
                total.local += there
                total.cost += float(distances.sum()) + instance.fetch_cost * (instance.answers - there)
            self._touch(state, total, nearest)
        return _ended(total, state)

    @staticmethod
    def _touch(state: Contents, total: Served, nearest: Int64[ndarray, "k"]) -> None:
        """The nearest object becomes the most recent one."""
        for item in nearest[::-1]:
            if state.held[item]:
                state.order.move_to_end(int(item))
                continue
            total.inserted += state.add(nearest[nearest == item])
            state.order[int(item)] = None
            if len(state.order) > state.instance.capacity:
                oldest, _ = state.order.popitem(last=False)
                state.drop(np.array([oldest]))


@dataclass(frozen=True, kw_only=True)
class SimLRU:
    """Past requests with their answers; a request near to one gets that one's answer.

    Args:
        threshold: how far a past request may be from the new one, in units of the fetch cost, >= 0.
        composed: serve the k cheapest copies instead; hits and misses are decided as before.
    """

    reference: ClassVar[str] = "pandey09"

    threshold: float = 1.0
    composed: bool = False

    def __post_init__(self) -> None:
        require(self.threshold, "threshold", least=0)

    def init(self, instance: SimilarityInstance, streams: Streams) -> Contents:
        """Empty."""
        if instance.capacity < instance.answers:
            raise ConfigError(
                f"a cache of {instance.capacity} objects holds no answer of {instance.answers}",
                mend="Give it room for one.",
            )
        if instance.catalog is None:
            raise ConfigError("the cache does not know its objects", where="instance", mend="Give it the catalog.")
        return Contents(instance, np.zeros(instance.items, np.bool_))

    def run_block(self, state: Contents, requests: SimilarityRequests) -> Served:
        """Serve requests in order; O(h/k dim + m log m) each."""
        instance, catalog = state.instance, state.instance.catalog
        assert catalog is not None
        total, merged = _begun(requests, instance)
        for at in range(len(requests)):
            near = self._near(state, requests.vectors[at])
            answer = requests.items[at, : instance.answers] if near is None else state.answers[near]
            if self.composed:
                _serve_composed(total, state.held, _one(merged, at), instance)
            else:
                apart = np.linalg.norm(catalog[answer] - requests.vectors[at], axis=1)
                total.cost += float(apart.sum()) + (instance.fetch_cost * instance.answers if near is None else 0.0)
                total.local += 0.0 if near is None else instance.answers
            if near is None:
                total.inserted += self._store(state, requests.vectors[at], answer)
            else:
                state.order.move_to_end(near)
        return _ended(total, state)

    def _near(self, state: Contents, vector: Float64[ndarray, "dim"]) -> int | None:
        """The nearest past request, if it is near enough."""
        if not state.vectors:
            return None
        numbers = list(state.vectors)
        apart = np.linalg.norm(np.stack([state.vectors[number] for number in numbers]) - vector, axis=1)
        best = int(apart.argmin())
        return numbers[best] if apart[best] <= self.threshold * state.instance.fetch_cost else None

    @staticmethod
    def _store(state: Contents, vector: Float64[ndarray, "dim"], answer: Int64[ndarray, "k"]) -> int:
        if len(state.order) == state.instance.capacity // state.instance.answers:
            oldest, _ = state.order.popitem(last=False)
            state.drop(state.answers.pop(oldest))
            del state.vectors[oldest]
        state.vectors[state.came], state.answers[state.came] = vector, answer
        state.order[state.came] = None
        state.came += 1
        return state.add(answer)


@dataclass(frozen=True, kw_only=True)
class BestFixed:
    """The greedy contents for all requests, known beforehand."""

    reference: ClassVar[str] = "nemhauser78"

    def init(self, instance: SimilarityInstance, streams: Streams) -> Contents:
        """Empty until it sees the requests."""
        return Contents(instance, np.zeros(instance.items, np.bool_))

    def foresee(self, state: Contents, requests: SimilarityRequests) -> None:
        """Choose."""
        state.held[greedy_contents(state.instance, requests)] = True

    def run_block(self, state: Contents, requests: SimilarityRequests) -> Served:
        """Serve requests in order."""
        total, merged = _begun(requests, state.instance)
        priced = price(state.held.astype(np.float64), merged, state.instance.answers)
        total.cost, total.local = float(priced.cost.sum()), float(priced.local.sum())
        if not state.came:
            total.inserted, state.came = int(np.count_nonzero(state.held)), 1
        return _ended(total, state)


def greedy_contents(instance: SimilarityInstance, requests: SimilarityRequests) -> Int64[ndarray, "h"]:
    """Objects in the order in which they are added; ties go to the smaller number. O(n m log m + h N) and updates.

    An object is worth min(c_f, max(0, c* − d)) to a request, which changes only where c* does.
    """
    merged, held = merge(requests, instance), np.zeros(instance.items)
    last = price(held, merged, instance.answers).last
    worth = _worth(requests, last, instance)
    value = np.bincount(requests.items.ravel(), weights=worth.ravel(), minlength=instance.items)
    chosen: list[int] = []
    for _ in range(instance.capacity):
        value[chosen[-1:]] = -np.inf
        best = int(value.argmax())
        chosen.append(best)
        held[best] = 1.0
        rows = np.flatnonzero((requests.items == best).any(axis=1))
        part = Merged(*(each[rows] for each in merged))
        near = SimilarityRequests(requests.vectors[rows], requests.items[rows], requests.distances[rows])
        after = _worth(near, price(held, part, instance.answers).last, instance)
        np.add.at(value, near.items, after - worth[rows])
        worth[rows] = after
    return np.array(chosen, np.int64)


class Relaxed(NamedTuple):
    """Fractions for all requests.

    Args:
        x: the best that were met.
        gain: of these.
        limit: what no fractions, and so no set, can exceed.
    """

    x: Float64[ndarray, "items"]
    gain: float
    limit: float


def relaxed_optimum(instance: SimilarityInstance, requests: SimilarityRequests, *, steps: int = 200) -> Relaxed:
    """Mirror ascent on the mean gain; ``limit`` is certified whatever the number of steps. O(steps n m)."""
    merged, ground = merge(requests, instance), CappedSimplex(instance.items, instance.capacity)
    empty = float(price(np.zeros(instance.items), merged, instance.answers).cost.sum())
    x, best, limit = ground.center, Relaxed(ground.center, -math.inf, math.inf), math.inf
    for step in range(1, steps + 1):
        priced = price(x, merged, instance.answers)
        gain = empty - float(priced.cost.sum())
        worth = _worth(requests, priced.last, instance)
        slope = np.bincount(requests.items.ravel(), weights=worth.ravel(), minlength=instance.items)
        limit = min(limit, gain + float(np.sort(slope)[-instance.capacity :].sum() - slope @ x))
        best = Relaxed(x, gain, limit) if gain > best.gain else best
        x = ground.project_entropic(x * np.exp(4.0 / math.sqrt(step) * slope / max(slope.max(), 1e-300)))
    return best._replace(limit=limit)


def _worth(
    requests: SimilarityRequests, last: Float64[ndarray, "n"], instance: SimilarityInstance
) -> Float64[ndarray, "n m"]:
    worth: Float64[ndarray, "n m"] = np.clip(last[:, None] - requests.distances, 0.0, instance.fetch_cost)
    return worth


def _begun(requests: SimilarityRequests, instance: SimilarityInstance) -> tuple[Served, Merged]:
    merged = merge(requests, instance)
    empty = float(price(np.zeros(instance.items), merged, instance.answers).cost.sum())
    return Served(requests=len(requests), empty=empty), merged


def _one(merged: Merged, at: int) -> Merged:
    return Merged(*(part[at : at + 1] for part in merged))


def _serve_composed(total: Served, held: Bool[ndarray, "items"], one: Merged, instance: SimilarityInstance) -> None:
    priced = price(held.astype(np.float64), one, instance.answers)
    total.cost += float(priced.cost[0])
    total.local += float(priced.local[0])


def _ended(total: Served, state: Contents) -> Served:
    total.fractional, total.occupancy = total.cost, int(np.count_nonzero(state.held))
    return total

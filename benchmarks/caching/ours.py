"""What rivage brings to the race."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from worker import Serve, Trace

import rivage
from rivage.convex.projections import onto_capped
from rivage.core.seeding import Streams
from rivage.online.adaptive_eviction import S3FIFO
from rivage.online.eviction import LRU
from rivage.online.no_regret_cache import NoRegretCache
from rivage.online.ogb import OGB
from rivage.online.policy import CacheInstance, Policy


def contestant(label: str) -> tuple[Callable[[Trace], Iterator[Serve]], dict[str, str]]:
    """Who plays under this label, and versions."""
    found: dict[str, Callable[[Trace], Iterator[Serve]]] = {
        "OGB": partial(_blocks, OGB()),
        "NoRegretCache, one by one": partial(_embedded, False),
        "NoRegretCache, batches": partial(_embedded, True),
        "LRU": partial(_blocks, LRU()),
        "S3-FIFO": partial(_blocks, S3FIFO()),
        "OGB by full projection": _projected,
    }
    return found[label], {"rivage": rivage.__version__, "numpy": np.__version__}


def _blocks(policy: Policy, trace: Trace) -> Iterator[Any]:
    """A policy that is given the requests in two blocks, as in a game."""
    requests = trace.numbers
    small = CacheInstance(items=10, capacity=2, horizon=10)
    policy.run_block(policy.init(small, Streams(0)), np.zeros(10, np.int64))  # compiled from here on
    yield None
    instance = CacheInstance(items=trace.items, capacity=trace.capacity, horizon=len(requests))
    state = policy.init(instance, Streams(0))

    def serve(first: int, end: int) -> tuple[int, int]:
        outcome = policy.run_block(state, requests[first:end])
        return int(outcome.hits), outcome.inserted

    yield serve


def _embedded(batches: bool, trace: Trace) -> Iterator[Any]:
    """The object, without a horizon, called from Python."""
    requests = trace.numbers.tolist()
    yield None
    cache: NoRegretCache[int, None] = NoRegretCache(trace.capacity)

    def serve(first: int, end: int) -> tuple[int, int]:
        before = cache.stats()
        if batches:
            cache.requests(requests[first:end])
        else:
            request = cache.request
            for key in requests[first:end]:
                request(key)
        after = cache.stats()
        return after.hits - before.hits, after.insertions - before.insertions

    yield serve


def _projected(trace: Trace) -> Iterator[Any]:
    """The policy of OGB as it was before: a projection of all values for every request, O(N log N)."""
    requests = trace.numbers
    yield None
    instance = CacheInstance(items=trace.items, capacity=trace.capacity, horizon=len(requests))
    step, numbers = OGB().step(instance), np.random.default_rng(0).random(trace.items)
    state = [np.full(trace.items, trace.capacity / trace.items)]

    def serve(first: int, end: int) -> tuple[int, int]:
        hits = inserted = 0
        for item in requests[first:end].tolist():
            value = state[0]
            hits += value[item] >= numbers[item]
            raised = value.copy()
            raised[item] += step
            state[0] = onto_capped(raised, trace.capacity)
            inserted += value[item] < numbers[item] <= state[0][item]
        return int(hits), int(inserted)

    yield serve

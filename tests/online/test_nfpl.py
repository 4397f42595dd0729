"""NFPL: sketches overestimate as they should, wide ones play as FTPL, memory does not grow with the catalog."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.online.ftpl import FTPL
from rivage.online.nfpl import NFPL
from rivage.online.policy import CacheInstance
from rivage.online.sketch_kernel import noises


def test_noise_is_standard_normal() -> None:
    """200,000 numbers: mean, variance, fourth moment and neighbours' correlation at 4 standard errors (below 3e-4)."""
    found = noises(7, np.arange(200_000))
    error = 4 / math.sqrt(200_000)
    assert abs(found.mean()) < error
    assert abs(found.var() - 1) < error * math.sqrt(2)
    assert abs((found**4).mean() - 3) < error * math.sqrt(96)
    assert abs((found[1:] * found[:-1]).mean()) < error
    assert abs((found * noises(8, np.arange(200_000))).mean()) < error
    assert (found[:5] == noises(7, np.arange(5))).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 4))
def test_estimates_are_never_below_the_counts(seed: int, width: int, depth: int) -> None:
    random = np.random.default_rng(seed)
    requests, items = random.integers(30, size=300), np.arange(30)
    instance, found = CacheInstance(items=30, capacity=3, horizon=300), {}
    for update in ("plain", "conservative"):
        policy = NFPL(width=width, depth=depth, update=update)  # type: ignore[arg-type]
        state = policy.init(instance, Streams(seed))
        policy.run_block(state, requests)
        found[update] = state.counts(items)
        counted = state.sketch.counters.sum(axis=1)
        assert (counted == 300).all() if update == "plain" else (counted <= 300).all()
    assert (found["conservative"] >= np.bincount(requests, minlength=30)).all()
    assert (found["plain"] >= found["conservative"]).all()
    if width == 1:
        assert (found["plain"] == 300).all()


def test_the_excess_of_plain_updates_is_as_promised() -> None:
    """P(excess > e T / w) <= e^−d: over 20,000 pairs of item and seed, plus 4 standard errors."""
    requests, over = np.random.default_rng(0).integers(1000, size=20_000), []
    counts, policy = np.bincount(requests, minlength=1000), NFPL(width=50, depth=2, update="plain")
    for seed in range(20):
        state = policy.init(CacheInstance(items=1000, capacity=3, horizon=len(requests)), Streams(seed))
        policy.run_block(state, requests)
        over.append(state.counts(np.arange(1000)) - counts > math.e * 20_000 / 50)
    assert np.mean(over) <= math.exp(-2) + 4 * math.sqrt(0.25 / 20_000)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_alone_in_its_counters_it_is_ftpl(data: st.DataObject) -> None:
    """The same noise handed to FTPL: equal hits, gain, insertions, prefetching and contents, block by block."""
    items = data.draw(st.integers(3, 25))
    known, weighted = data.draw(st.booleans()), data.draw(st.booleans())
    asked = np.array(data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=120)), np.int64)
    weights = np.random.default_rng(items).random(items) if weighted else None
    instance = CacheInstance(
        items=items,
        capacity=data.draw(st.integers(1, items - 1)),
        horizon=len(asked) if known else None,
        weights=weights,
    )
    policy, plain = NFPL(width=4096, depth=4, scale=0.5), FTPL(scale=0.5)
    state, other = policy.init(instance, Streams(2)), plain.init(instance, Streams(2))
    other.noise = noises(state.seed, np.arange(items))
    other.values = other.step * other.noise
    plain._rank(other)
    other.prefetched, other.unreported = 0.0, instance.capacity
    for part in np.array_split(asked, 4):
        ours, theirs = policy.run_block(state, part), plain.run_block(other, part)
        assert (ours.hits, ours.inserted) == (theirs.hits, theirs.inserted)
        assert ours.gain == pytest.approx(theirs.gain)
        assert ours.prefetched == pytest.approx(theirs.prefetched)
        assert state.cached.tolist() == other.cached.tolist()
    assert state.counts(np.arange(items)).tolist() == np.bincount(asked, minlength=items).tolist()


def test_the_table_and_the_heap_agree_after_many_changes() -> None:
    requests = np.random.default_rng(1).integers(5000, size=20_000)
    policy = NFPL(width=300, depth=2, scale=0.01)
    state = policy.init(CacheInstance(items=5000, capacity=64, horizon=len(requests)), Streams(0))
    outcome = policy.run_block(state, requests)
    sketch = state.sketch
    assert outcome.inserted > 1000
    assert len(set(sketch.item.tolist())) == 64
    assert (sketch.name >= 0).sum() == 64
    assert (sketch.name[sketch.slot] == sketch.item).all()
    assert (sketch.place[sketch.slot] == np.arange(64)).all()
    parents = (np.arange(1, 64) - 1) // 2
    assert (sketch.key[parents] <= sketch.key[1:]).all()


def test_where_blocks_end_changes_nothing() -> None:
    requests, results = np.random.default_rng(0).zipf(1.3, 3000) % 200, []
    for cuts in ([], [1, 2, 3, 64, 1000], list(range(1, 3000))):
        policy = NFPL(width=40, depth=2)
        state, hits, inserted = policy.init(CacheInstance(items=200, capacity=20), Streams(1)), 0.0, 0
        for part in np.split(requests, cuts):
            outcome = policy.run_block(state, part)
            hits, inserted = hits + outcome.hits, inserted + outcome.inserted
        results.append((hits, inserted, state.cached.tolist()))
    assert results[0] == results[1] == results[2]


def test_memory_does_not_grow_with_the_catalog() -> None:
    sizes = []
    for items in (1000, 1_000_000):
        state = NFPL(width=512, depth=4).init(CacheInstance(items=items, capacity=100, horizon=100), Streams(0))
        sizes.append(state.nbytes)
    assert sizes[0] == sizes[1] <= 8 * 512 * 4 + 88 * 100


def test_on_zipf_a_sketch_of_a_tenth_of_the_catalog_costs_little_and_a_tiny_one_much() -> None:
    """N = 10,000, C = 100, 100,000 requests; deterministic for the seeds."""
    popularity = 1 / np.arange(1, 10_001) ** 0.8
    requests = np.random.default_rng(0).choice(10_000, 100_000, p=popularity / popularity.sum())
    instance = CacheInstance(items=10_000, capacity=100, horizon=len(requests))

    def hits(policy: NFPL | FTPL) -> float:
        found = [policy.run_block(policy.init(instance, Streams(seed)), requests).hits for seed in range(3)]  # type: ignore[arg-type]
        return float(np.mean(found)) / len(requests)

    full = hits(FTPL())
    assert hits(NFPL(width=1000, depth=4)) > full - 0.01
    assert hits(NFPL(width=16, depth=4, update="plain")) < full - 0.05


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"scale": 0}, {"width": 0}, {"depth": 0}, {"update": "none"}):
        with pytest.raises(RivageError, match=r"scale|width|depth|update"):
            NFPL(**wrong)  # type: ignore[arg-type]

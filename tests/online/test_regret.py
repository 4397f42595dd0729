"""Comparators: the optimum of every prefix and of every window, against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.online.policy import CacheInstance
from rivage.online.regret import StaticOptimum, WindowedOptimum


def best(requests: np.ndarray, instance: CacheInstance) -> float:
    weights = np.ones(instance.items) if instance.weights is None else instance.weights
    sums = np.bincount(requests, minlength=instance.items) * weights
    return float(np.sort(sums)[-instance.capacity :].sum())


@st.composite
def games(draw: st.DrawFn) -> tuple[CacheInstance, np.ndarray]:
    items = draw(st.integers(2, 9))
    weights = draw(st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=items, max_size=items))
    instance = CacheInstance(
        items=items,
        capacity=draw(st.integers(1, items - 1)),
        weights=None if weights is None else np.array(weights),
    )
    return instance, np.array(draw(st.lists(st.integers(0, items - 1), max_size=60)), np.int64)


@settings(deadline=None)  # the kernel is compiled on first use
@given(games(), st.integers(1, 9))
def test_every_prefix(game: tuple[CacheInstance, np.ndarray], size: int) -> None:
    instance, requests = game
    optimum = StaticOptimum(instance)
    for start in range(0, len(requests), size):
        seen = requests[: start + size]
        assert optimum.add(requests[start : start + size]) == pytest.approx(best(seen, instance))
        weights = np.ones(instance.items) if instance.weights is None else instance.weights
        kept = np.isin(seen, optimum.best)
        assert float(weights[seen[kept]].sum()) == pytest.approx(optimum.value), "the set has the value it claims"
        assert len(optimum.best) <= instance.capacity


@settings(deadline=None)  # the kernel is compiled on first use
@given(games(), st.integers(1, 9), st.integers(1, 20))
def test_every_window(game: tuple[CacheInstance, np.ndarray], size: int, window: int) -> None:
    instance, requests = game
    optimum = WindowedOptimum(instance, window)
    for start in range(0, len(requests), size):
        optimum.add(requests[start : start + size])
    wanted = sum(best(requests[start : start + window], instance) for start in range(0, len(requests), window))
    assert optimum.value == pytest.approx(wanted)
    assert optimum.value >= best(requests, instance) - 1e-9


def test_one_window_of_everything_is_the_static_optimum() -> None:
    instance = CacheInstance(items=50, capacity=7)
    requests = np.random.default_rng(0).integers(0, 50, 1000)
    windowed, static = WindowedOptimum(instance, 1000), StaticOptimum(instance)
    assert windowed.add(requests) == static.add(requests) == best(requests, instance)

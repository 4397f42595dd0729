"""The computed population: the same device every time, and nothing that grows with their number."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.data.build import build_population
from rivage.data.generative import Generative, GenerativePopulation
from rivage.simulation import Heterogeneous

BILLION = 10**9


def devices(size: int = BILLION, seed: int = 0, **law: object) -> GenerativePopulation:
    held = build_population(Generative(size, **law), availability=Heterogeneous(0.2, 0.9, 0.5), seed=seed)  # type: ignore[arg-type]
    assert isinstance(held, GenerativePopulation)
    return held


@given(id=st.integers(0, 2**40 - 1), seed=st.integers(0, 2**63))
@settings(max_examples=30, deadline=None)
def test_a_device_is_the_same_whenever_asked(id: int, seed: int) -> None:
    held = devices(2**40, seed)
    one, same, other = held.client(id), held.client(id, round=7), held.client((id + 1) % 2**40)
    assert np.array_equal(one.train.x, same.train.x)
    assert np.array_equal(one.test.y, same.test.y)
    assert one.train.x[0, 0] != other.train.x[0, 0]
    index = np.concatenate([one.train.index, one.validation.index, one.test.index])
    assert np.sort(index).tolist() == list(range(int(held.records(np.array([id]))[0])))


@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.2), (0.0, 0.0), (0.9, 0.05), (0.5, 0.5)])
def test_sizes_are_those_of_the_data(validation: float, test: float) -> None:
    held = build_population(Generative(1000, median=3.0, sigma=1.5), seed=1, validation=validation, test=test)
    ids = np.arange(200)
    weights = [held.client(int(id)).weight for id in ids]
    assert held.sizes(ids).tolist() == weights == [len(held.client(int(id)).train) for id in ids]
    assert min(weights) >= 1


def test_numbers_of_records_are_lognormal() -> None:
    """Quantiles of 50·exp(Z) at 20,000 devices; 4 standard errors of a share."""
    held = devices(max_records=10**6)
    drawn = held.records(np.arange(0, BILLION, BILLION // 20_000)[:20_000])
    for share, quantile in ((0.1587, 50 * np.exp(-1)), (0.5, 50.0), (0.8413, 50 * np.exp(1))):
        below = np.mean(drawn < np.rint(quantile)) + np.mean(drawn == np.rint(quantile)) / 2
        assert abs(below - share) < 4 * np.sqrt(share * (1 - share) / 20_000)
    assert set(devices(sigma=0.0).records(np.arange(9))) == {50.0}
    bounded = devices(sigma=3.0, max_records=70).records(np.arange(5_000))
    assert (bounded.min(), bounded.max()) == (1, 70)


def test_far_away_ids_share_nothing() -> None:
    held = devices()
    first = [float(held.client(id).train.x[0, 0]) for id in (0, 1, 2**16, 2**32 % BILLION, BILLION - 1)]
    assert len(set(first)) == 5


def test_asking_in_any_order() -> None:
    held, ids = devices(), np.array([5, 999_999_999, 17])
    assert held.sizes(ids[::-1]).tolist() == held.sizes(ids)[::-1].tolist()
    assert held.available(ids[::-1], 3).tolist() == held.available(ids, 3)[::-1].tolist()
    assert held.completes(ids, 3).all()


def test_settings_are_the_fingerprint() -> None:
    prints = {
        devices().fingerprint,
        devices(size=7).fingerprint,
        devices(seed=1).fingerprint,
        devices(alpha=0.5).fingerprint,
        build_population(Generative(BILLION), seed=0).fingerprint,
        build_population(Generative(BILLION), seed=0, test=0.3).fingerprint,
    }
    assert len(prints) == 6
    assert devices().fingerprint in prints


def test_what_it_answers() -> None:
    held = devices(features=4, classes=3)
    assert held.size == BILLION
    assert held.name(12) == "device 12"
    assert held.schema.input_shape == (4,)
    assert held.client(1).train.x.shape[1] == 4
    assert held.client(1).train.y.max() < 3
    assert held.setup == ()
    assert held.notes == {"devices": "computed from (seed, id), not stored"}


def test_nothing_grows_with_the_population() -> None:
    ids = np.linspace(0, BILLION - 1, 1_000).astype(np.int64)
    devices().records(ids)  # imports come first
    tracemalloc.start()
    held = devices()
    held.sizes(ids)
    held.available(ids, 0)
    held.completes(ids, 0)
    for id in ids[:50].tolist():
        held.client(id)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_time_does_not_grow_with_the_population() -> None:
    """The best of five passes at 10^9 devices takes less than twice that at 10^3: the same work, but for noise."""

    def best(size: int) -> float:
        held, ids = devices(size), np.linspace(0, size - 1, 500).astype(np.int64)
        passes = []
        for _ in range(5):
            start = time.perf_counter()
            held.sizes(ids)
            for id in ids[:30].tolist():
                held.client(id)
            passes.append(time.perf_counter() - start)
        return min(passes)

    best(10)
    assert best(BILLION) < 2 * best(1_000)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Generative(0), "size is 0"),
        (lambda: Generative(2**40 + 1), "Give at most 1099511627776"),
        (lambda: Generative(5, classes=1), "classes is 1"),
        (lambda: Generative(5, sigma=-1.0), "sigma is -1.0"),
    ],
)
def test_settings_out_of_range(build: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build()  # type: ignore[operator]

"""The search is brute force, whatever the numbers; ties go to the entry that stands first."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rivage.core.errors import MissingExtra
from rivage.learning import nearest as module
from rivage.learning.nearest import nearest


def brute(features: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squared differences in float64, a stable sort."""
    differences = queries[:, None].astype(np.float64) - features[None].astype(np.float64)
    squares = (differences**2).sum(axis=2)
    rows = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squares, rows, axis=1), rows


def require_brute(features: np.ndarray, queries: np.ndarray, k: int, search: Any = "exact") -> None:
    distances, rows = nearest(torch.from_numpy(features), torch.from_numpy(queries), k, search)
    expected, order = brute(features, queries, k)
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(rows, order)


def drawn(entries: int, queries: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return tuple(generator.normal(size=(n, width)).astype(np.float32) for n in (entries, queries))  # type: ignore[return-value]


@pytest.mark.parametrize("k", [1, 10, 500])
def test_a_thousand_queries_are_answered_as_by_brute_force(k: int) -> None:
    require_brute(*drawn(500, 1000, 20), k)


@given(st.data())
def test_any_store_is_searched_as_by_brute_force(data: st.DataObject) -> None:
    """Small whole numbers, so that many distances are equal: sums are exact and the first entry wins."""
    width, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    entries, queries = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 6))
    numbers = st.integers(-2, 2).map(float)
    features, asked = (data.draw(arrays(np.float64, (n, width), elements=numbers)) for n in (entries, queries))
    require_brute(features, asked, k)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=30),
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_distances_are_those_of_brute_force_at_any_size(features: Any, queries: Any, k: int) -> None:
    store, asked = np.array(features), np.array(queries)
    distances, _ = nearest(torch.from_numpy(store), torch.from_numpy(asked), k)
    np.testing.assert_allclose(distances, brute(store, asked, k)[0], rtol=1e-9, atol=1e-12)


def test_what_lies_far_from_the_origin_is_told_apart() -> None:
    """In float32 ‖x‖² − 2 ⟨x, q⟩ + ‖q‖² has no digit left here."""
    features, queries = drawn(200, 50, 8)
    require_brute(features.astype(np.float64) + 1e6, queries.astype(np.float64) + 1e6, 10)
    require_brute(features, queries + np.float32(1e6), 10)


def test_more_equals_than_candidates_are_settled_by_their_place() -> None:
    features, queries = drawn(60, 3, 4)
    features[5:45] = features[5]  # forty copies, k + spare is eighteen
    _, rows = nearest(torch.from_numpy(features), torch.from_numpy(features[5:6]), 10)
    assert rows[0].tolist() == list(range(5, 15))
    require_brute(features, np.concatenate([queries, features[5:6]]), 10)


def test_the_number_of_queries_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, queries = (torch.from_numpy(part) for part in drawn(300, 70, 5))
    whole = nearest(features, queries, 7)
    monkeypatch.setattr(module, "_NUMBERS", 1000)
    parts = nearest(features, queries, 7)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    one = nearest(features, queries[3:4], 7)
    assert all(torch.equal(a[3:4], b) for a, b in zip(whole, one, strict=True))


def test_fewer_entries_than_k_and_no_query() -> None:
    features, queries = (torch.from_numpy(part) for part in drawn(3, 5, 4))
    assert nearest(features, queries, 10)[0].shape == (5, 3)
    assert [tuple(part.shape) for part in nearest(features, queries[:0], 2)] == [(0, 2), (0, 2)]


def test_faiss_finds_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its wrappers are not made for the newest Python
        pytest.importorskip("faiss", reason="faiss-cpu is not installed: pip install rivage[knn]")
    for entries, k in ((2000, 10), (4, 10), (300, 1)):
        require_brute(*drawn(entries, 200, 16), k, "faiss")


def test_faiss_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r'Searching with faiss needs faiss\. .*pip install "rivage\[knn\]"'):
        nearest(torch.zeros(2, 2), torch.zeros(1, 2), 1, "faiss")


def test_texts_that_repeat_themselves_are_searched_once_and_exactly() -> None:
    generator = np.random.default_rng(0)
    distinct = generator.normal(size=(40, 3)).astype(np.float32)  # as n-grams: few features, many entries and queries
    features, queries = (distinct[generator.integers(0, 40, size)] for size in (900, 300))
    require_brute(features, queries, 7)
    require_brute(features, queries[:3], 7)

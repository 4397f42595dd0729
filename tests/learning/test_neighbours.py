"""What neighbours say, against a loop over entries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivage.learning.datastore import Datastore
from rivage.learning.neighbours import Neighbours, leave_one_out

CLASSES = 4


def store_of(entries: int, width: int = 5, seed: int = 0, real: bool = False) -> Datastore:
    generator = np.random.default_rng(seed)
    features = torch.from_numpy(generator.normal(size=(entries, width)))
    y = generator.normal(size=(entries, 2)) if real else generator.integers(0, CLASSES, entries)
    return Datastore.of(features, torch.from_numpy(y), np.arange(entries))


def by_hand(store: Datastore, query: np.ndarray, k: int, scale: float, outputs: int, barred: int = -1) -> np.ndarray:
    """The definition, with no smallest distance subtracted."""
    near = sorted(
        (float(((store.features[i].numpy() - query) ** 2).sum()), i) for i in range(len(store)) if i != barred
    )
    above, below = np.zeros(outputs), 0.0
    for square, i in near[:k]:
        kernel = np.exp(-square / (len(query) * scale))
        y = store.targets[i].numpy()
        above += kernel * (np.eye(outputs)[y] if y.ndim == 0 else y)
        below += kernel
    return above / below


@given(st.integers(1, 15), st.integers(1, 6), st.integers(1, 8), st.floats(0.1, 10), st.booleans(), st.integers(0, 99))
def test_predictions_are_kernel_means(entries: int, width: int, k: int, scale: float, real: bool, seed: int) -> None:
    store, outputs = store_of(entries, width, seed, real), 2 if real else CLASSES
    queries = np.random.default_rng(seed + 1000).normal(size=(4, width))
    found = Neighbours(store, 1.0, outputs, k, scale).predictions(torch.from_numpy(queries))
    expected = [by_hand(store, query, k, scale, outputs) for query in queries]
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9, atol=1e-12)


def test_a_thousand_random_queries_are_answered_by_the_definition() -> None:
    store = store_of(300, 16)
    queries = np.random.default_rng(7).normal(size=(1000, 16))
    found = Neighbours(store, 1.0, CLASSES).predictions(torch.from_numpy(queries)).numpy()
    expected = np.array([by_hand(store, query, 10, 1.0, CLASSES) for query in queries])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_a_stored_point_has_its_label_for_sure() -> None:
    store = store_of(50)
    found = Neighbours(store, 1.0, CLASSES, k=1).mixed(torch.full((50, CLASSES), 0.25).double(), store.features)
    assert torch.equal(found, torch.eye(CLASSES).double()[store.targets])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_sum_to_one_however_far_the_query(dtype: torch.dtype) -> None:
    """exp(−10¹² / D) is 0 for every entry: without the smallest distance this would be 0 / 0."""
    store = store_of(40)
    store = Datastore(store.features.to(dtype), store.targets, store.ids)
    queries = store.features[:7] + 1e6
    found = Neighbours(store, 1.0, CLASSES).predictions(queries)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(7, dtype=dtype))
    assert found.dtype == dtype


def test_without_share_or_entries_the_model_predicts_bit_for_bit() -> None:
    store, model = store_of(9), torch.rand(9, CLASSES, dtype=torch.float64)
    assert Neighbours(store, 0.0, CLASSES).mixed(model, store.features) is model
    empty = Datastore(store.features[:0], store.targets[:0], store.ids[:0])
    assert Neighbours(empty, 0.7, CLASSES).mixed(model, store.features) is model


def test_shares_mix_probabilities() -> None:
    store, model = store_of(9), torch.rand(9, CLASSES, dtype=torch.float64)
    neighbours = Neighbours(store, 0.3, CLASSES)
    expected = 0.7 * model + 0.3 * neighbours.predictions(store.features)
    torch.testing.assert_close(neighbours.mixed(model, store.features), expected)


def test_every_position_of_a_text_is_a_query() -> None:
    store, queries = store_of(30, 3), torch.rand(2, 6, 3, dtype=torch.float64)
    neighbours = Neighbours(store, 1.0, CLASSES)
    found = neighbours.predictions(queries)
    assert found.shape == (2, 6, CLASSES)
    assert torch.equal(found.flatten(0, 1), neighbours.predictions(queries.flatten(0, 1)))


def test_features_of_several_axes_are_one_vector_where_the_target_is_one() -> None:
    features = torch.rand(8, 2, 3, dtype=torch.float64)
    store = Datastore.of(features, torch.arange(8) % CLASSES, np.arange(8))
    found = Neighbours(store, 1.0, CLASSES, k=1).predictions(features)
    assert found.argmax(dim=1).tolist() == [0, 1, 2, 3] * 2


# --- without oneself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [2, 3, 12, 60])
def test_left_out_records_are_asked_of_the_others(entries: int) -> None:
    store = store_of(entries)
    found = leave_one_out(Neighbours(store, None, CLASSES, k=5))
    for i in range(entries):
        others = store.remove(torch.tensor([i]))
        expected = Neighbours(others, 1.0, CLASSES, k=5).predictions(store.features[i : i + 1])[0]
        torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-12)


def test_a_left_out_text_takes_all_its_positions_along() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(5, 4, 3, generator=generator, dtype=torch.float64)
    store = Datastore.of(features, torch.randint(0, CLASSES, (5, 4), generator=generator), np.arange(5))
    found = leave_one_out(Neighbours(store, None, CLASSES, k=6)).reshape(5, 4, CLASSES)
    for i in range(5):
        others = Neighbours(store.remove(torch.tensor([i])), 1.0, CLASSES, k=6)
        torch.testing.assert_close(found[i], others.predictions(features[i : i + 1])[0])


def test_copies_of_a_record_are_still_others() -> None:
    """Twenty equal records: each is asked of the nineteen others, though they stand at the same place."""
    store = Datastore.of(torch.ones(20, 2).double(), torch.arange(20) % 2, np.arange(20))
    found = leave_one_out(Neighbours(store, None, 2, k=19))
    expected = torch.where(torch.arange(20)[:, None] % 2 == torch.arange(2), 9 / 19, 10 / 19)
    torch.testing.assert_close(found, expected.double())

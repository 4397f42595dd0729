"""A store is what is in it: neither the order of what happened to it nor what was taken out leaves a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivage.learning.datastore import Datastore, kept_rows

RECORDS = st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True)


def store_of(ids: Any, width: int = 3) -> Datastore:
    """Features and targets that depend on the number alone."""
    numbers = np.array(ids, np.int64)
    features = torch.stack([torch.from_numpy(np.random.default_rng(i).normal(size=width)) for i in ids])
    return Datastore.of(features, torch.from_numpy(numbers % 4), numbers)


def require_equal(one: Datastore, other: Datastore) -> None:
    for name in ("features", "targets", "ids"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@given(RECORDS, st.randoms())
def test_the_order_of_insertion_leaves_no_trace(ids: list[int], random: Any) -> None:
    shuffled = random.sample(ids, len(ids))
    require_equal(store_of(shuffled), store_of(ids))
    cut = random.randint(1, len(ids))
    grown = store_of(shuffled[:cut])
    for number in shuffled[cut:]:
        grown = grown.add(store_of([number]))
    require_equal(grown, store_of(ids))


@given(RECORDS, st.data())
def test_a_record_that_was_deleted_has_never_been_stored(ids: list[int], data: st.DataObject) -> None:
    gone = data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=len(ids) - 1))
    left = [number for number in ids if number not in gone]
    require_equal(store_of(ids).remove(torch.tensor(gone, dtype=torch.int64)), store_of(left))


def test_a_record_that_is_stored_again_is_replaced() -> None:
    other = store_of([3])
    changed = Datastore(other.features + 1, other.targets, other.ids)
    assert torch.equal(store_of([1, 3]).add(changed).features[1], changed.features[0])
    assert len(store_of([1, 3]).add(changed)) == 2


def test_the_oldest_leave_first() -> None:
    """Entry by entry as the last so many numbers."""
    grown = store_of([0])
    for number in range(1, 12):
        grown = grown.add(store_of([number])).newest(4)
        assert grown.ids.tolist() == list(range(max(0, number - 3), number + 1))
    require_equal(grown, store_of([8, 9, 10, 11]))


def test_a_text_has_an_entry_for_every_position() -> None:
    features = torch.arange(24.0).reshape(2, 3, 4)
    store = Datastore.of(features, torch.tensor([[1, 2, 3], [4, 5, 6]]), np.array([9, 7]))
    assert store.ids.tolist() == [7, 7, 7, 9, 9, 9]
    assert store.targets.tolist() == [4, 5, 6, 1, 2, 3]
    assert torch.equal(store.features, features.flip(0).reshape(6, 4))
    assert store.positions == 3
    assert store.remove(torch.tensor([7])).targets.tolist() == [1, 2, 3]
    assert store.newest(1).targets.tolist() == [1, 2, 3]
    assert store.nbytes == 6 * (4 * 4 + 8 + 8)


@given(RECORDS, st.integers(0, 30), st.sampled_from(["uniform", "fifo", "first"]), st.data())
def test_what_is_kept_depends_on_the_records_alone(ids: list[int], size: int, keep: Any, data: st.DataObject) -> None:
    """Not on their order; and without a record that is not kept, or with room for one more, the rest stays."""
    numbers = np.array(ids)
    kept = set(numbers[kept_rows(numbers, size, keep, 5)].tolist())
    assert len(kept) == min(size, len(ids))
    turned = numbers[::-1].copy()
    assert set(turned[kept_rows(turned, size, keep, 5)].tolist()) == kept
    if len(ids) > size:
        gone = data.draw(st.sampled_from(sorted(set(ids) - kept)))
        left = numbers[numbers != gone]
        assert set(left[kept_rows(left, size, keep, 5)].tolist()) == kept
    assert kept <= set(numbers[kept_rows(numbers, size + 1, keep, 5)].tolist())


def test_which_records_each_rule_keeps() -> None:
    ids = np.array([30, 10, 20, 0])
    assert ids[kept_rows(ids, 2, "fifo", 0)].tolist() == [30, 20]
    assert ids[kept_rows(ids, 2, "first", 0)].tolist() == [10, 0]


def test_a_uniform_subset_is_uniform() -> None:
    """3,000 seeds, 4 of 10 records: each is kept with probability 0.4; five standard errors, p < 1e-5 in all."""
    counts = np.zeros(10)
    for seed in range(3000):
        counts[kept_rows(np.arange(10), 4, "uniform", seed * 2**33 + 1)] += 1
    assert np.abs(counts / 3000 - 0.4).max() < 5 * (0.4 * 0.6 / 3000) ** 0.5
    assert counts.sum() == pytest.approx(12_000)

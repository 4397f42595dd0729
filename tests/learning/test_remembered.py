"""Datastores in a file: what comes out is what went in, and what does not fit together is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivage.learning.datastore import Datastore
from rivage.learning.neighbours import Neighbours
from rivage.learning.remembered import pack, unpack


def neighbours(entries: int, seed: int, *, real: bool = False) -> Neighbours:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(entries, 3, generator=generator)
    targets = torch.randn(entries, 2, generator=generator) if real else torch.arange(entries) % 4
    store = Datastore(features, targets, torch.arange(entries) * 2 + seed)
    return Neighbours(store, 0.25 * (seed % 5), 2 if real else 4, k=1 + seed, scale=0.5 + seed)


@given(st.dictionaries(st.integers(0, 99), st.integers(1, 6), max_size=5), st.booleans())
def test_what_comes_out_is_what_went_in(sizes: dict[int, int], real: bool) -> None:
    given = {client: neighbours(size, client % 7, real=real) for client, size in sizes.items()}
    found = dict(unpack(pack(given)))
    assert list(found) == list(given)
    for client, one in given.items():
        other = found[client]
        assert (one.share, one.outputs, one.k, one.scale, one.search) == (
            other.share,
            other.outputs,
            other.k,
            other.scale,
            other.search,
        )
        for part in ("features", "targets", "ids"):
            assert torch.equal(getattr(one.store, part), getattr(other.store, part))


def packed() -> dict[str, np.ndarray]:
    return {name: column.copy() for name, column in pack({3: neighbours(4, 1), 8: neighbours(2, 2)}).items()}


def refusal(**changed: np.ndarray) -> str:
    columns = packed() | {f"neighbours.{name}": column for name, column in changed.items()}
    with pytest.raises(ValueError, match=r".") as error:
        list(unpack(columns))
    return str(error.value)


@pytest.mark.parametrize("part", ["features", "targets", "ids"])
def test_entries_that_are_missing_or_too_many_are_refused(part: str) -> None:
    column = packed()[f"neighbours.{part}"]
    assert "for 6 entries" in refusal(**{part: column[:-1]})
    assert "for 6 entries" in refusal(**{part: np.concatenate([column, column[:1]])})


def test_a_store_of_one_entry_is_one_and_an_empty_one_is_refused() -> None:
    ((client, found),) = unpack(pack({5: neighbours(1, 0)}))
    assert (client, len(found.store)) == (5, 1)
    assert "for 6 entries" in refusal(entries=np.array([6, 0]))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("shares", [[1.5, 1.0], [0.5, 1.0]], "share 1.5"),
        ("shares", [[-0.1, 1.0], [0.5, 1.0]], "share -0.1"),
        ("shares", [[0.5, 0.0], [0.5, 1.0]], "scale 0.0"),
        ("shares", [[np.nan, 1.0], [0.5, 1.0]], "share nan"),
        ("numbers", [[4, 0, 0], [4, 3, 0]], "k 0"),
        ("numbers", [[0, 2, 0], [4, 3, 0]], "0 outputs"),
        ("numbers", [[3, 2, 0], [4, 3, 0]], "targets 0 to 3 of 3 classes"),
        ("targets", [0, 1, 2, 3, -1, 1], "targets -1 to 1 of 4 classes"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, value: list[object], said: str) -> None:
    assert said in refusal(**{name: np.array(value)})


def test_the_largest_class_and_share_are_in_range() -> None:
    columns = packed()
    columns["neighbours.shares"] = np.array([[1.0, 1e-9], [0.0, 1.0]])
    assert [one.share for _, one in unpack(columns)] == [1.0, 0.0]


def test_targets_that_are_real_numbers_have_no_range() -> None:
    given = {0: neighbours(3, 0, real=True)}
    given[0].store.targets.fill_(-7.5)
    ((_, found),) = unpack(pack(given))
    assert torch.equal(found.store.targets, given[0].store.targets)


def test_nothing_is_packed_of_nobody() -> None:
    assert pack({}) == {}
    assert list(unpack({"vectors": np.zeros(3)})) == []

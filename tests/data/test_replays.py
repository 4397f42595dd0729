"""A trace read once: the same requests again and again, counted, priced, and told apart."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import DataError
from rivage.data.replays import Replay
from rivage.data.requests import RequestTrace
from rivage.data.trace_files import TraceFile


def trace(item: list[int], items: int = 9, cost: list[float] | None = None, keyed: bool = False) -> RequestTrace:
    keys = np.array([f"k{each}" for each in range(items)], object) if keyed else None
    costs = None if cost is None else np.array(cost)
    return RequestTrace(item=np.array(item, np.int64), items=items, cost=costs, keys=keys)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 9))
def test_what_comes_out_is_what_went_in_wherever_parts_end(item: list[int], cut: int, size: int) -> None:
    whole, parts = trace(item), Replay.of(trace(item).blocks(cut))
    blocks = parts.blocks(size)
    for _ in range(2):
        assert np.concatenate([*blocks]).tolist() == item
    assert all(len(block) <= size for block in blocks)
    described = whole.describe()
    assert (parts.requests, parts.items, parts.distinct) == (len(item), 9, described["distinct"])
    assert parts.fingerprint == Replay.of([whole]).fingerprint
    assert parts.fingerprint != Replay.of([trace([*item, 0])]).fingerprint
    assert parts.fingerprint != Replay.of([trace(item, items=10)]).fingerprint


def test_the_catalog_of_a_file_is_what_it_asks_for() -> None:
    assert Replay.of([trace([0, 1, 2], keyed=True)]).items == 3
    assert Replay.of([trace([0, 1, 2])]).items == 9


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.5, 9)), min_size=1, max_size=30), st.integers(1, 9))
def test_costs_become_weights_that_cost_the_same_together(pairs: list[tuple[int, float]], cut: int) -> None:
    item, cost = map(list, zip(*pairs, strict=True))
    replay = Replay.of(trace(item, 4, cost).blocks(cut), costs="trace")
    assert replay.weights is not None
    assert replay.weights[item].sum() == pytest.approx(sum(cost))
    assert replay.varying == sum(len({c for i, c in pairs if i == each}) > 1 for each in range(4))
    assert Replay.of([trace(item, 4, cost)]).weights is None


def test_costs_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "costs.csv"
    path.write_text("item,cost\nk2,5\nk0,0\nk1,1.5\nother,7\n")
    replay = Replay.of([trace([0, 1, 2, 1], keyed=True)], costs=str(path))
    assert replay.weights is not None
    assert replay.weights.tolist() == [0, 1.5, 5]
    numbered = tmp_path / "numbered.csv"
    numbered.write_text("cost,item\n1,0\n2,1\n")
    assert Replay.of([trace([0, 1], 2)], costs=str(numbered)).weights.tolist() == [1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,cost\nk0,1\n", 'item "k1" of the trace and 1 others have no cost'),
        ("item,cost\nk0,1\nk1,-2\nk2,1\n", 'line 3: cost is "-2"'),
        ("item,cost\nk0,cheap\n", 'line 2: cost is "cheap"'),
        ("item,cost\nk0\n", 'line 2: cost is "None"'),
        ("item,cost\nk0,1\nk0,1\n", 'line 3: item "k0" is there twice'),
        ("item,cost\nk0,0\nk1,0\nk2,0\n", "all costs are 0"),
        ("name,price\nk0,0\n", 'line 1: its columns are "name", "price"'),
        ("", "its columns are none"),
        ('item,cost\n"k0,1\n', "it is no CSV"),
    ],
)
def test_costs_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "costs.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Replay.of([trace([0, 1, 2], keyed=True)], costs=str(path))


def test_a_trace_of_nothing_and_one_without_costs() -> None:
    with pytest.raises(DataError, match="there is no request"):
        Replay.of([])
    with pytest.raises(DataError, match="it has no costs"):
        Replay.of([trace([0])], costs="trace")
    with pytest.raises(DataError, match="all costs are 0"):
        Replay.of([trace([0], cost=[0.0])], costs="trace")
    with pytest.raises(DataError, match="there is no file"):
        Replay.of([trace([0])], costs="nix.csv")


def test_a_stream_of_a_file_ends_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("b\na\nb\nc\nd\n")
    for limit, items in ((None, 4), (2, 2), (3, 2), (4, 3), (5, 4), (9, 4)):
        source = TraceFile(path, limit=limit)
        for block in (1, 2, 3, 100):
            replay = Replay.of(source.stream(block))
            assert (replay.requests, replay.items) == (min(limit or 5, 5), items)


def test_costs_of_items_that_nobody_asks_for_save_nothing(tmp_path: Path) -> None:
    path = tmp_path / "costs.csv"
    path.write_text("item,cost\n0,0\n1,0\n2,5\n")
    with pytest.raises(DataError, match="all costs are 0: there is nothing to save"):
        Replay.of([trace([0, 1], 3)], costs=str(path))
    assert Replay.of([trace([0, 2], 3)], costs=str(path)).weights is not None


def test_mean_costs_do_not_depend_on_where_parts_end() -> None:
    """To the last bit: they are part of what runs are known by."""
    random = np.random.default_rng(0)
    whole = trace(random.integers(0, 9, 500).tolist(), 9, random.random(500).tolist())
    prints = {Replay.of(whole.blocks(size), costs="trace").fingerprint for size in (1, 7, 64, 500)}
    assert len(prints) == 1


def test_a_small_part_of_a_large_catalog_costs_no_more_than_itself() -> None:
    """2,000 parts; passing over the catalog in each would take a minute."""
    part, began = trace([3, 1, 2], 2_000_000, [1.0, 2.0, 3.0]), time.perf_counter()
    replay = Replay.of([part] * 2000, costs="trace")
    assert (replay.requests, replay.distinct, replay.items) == (6000, 3, 2_000_000)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ([1.0, 1e308, 1e308], r'\[trace\]: the 2 requests for item "k1" cost inf. Give costs in another unit'),
        ([1.0, 1.5e308, 0.0], r'the 2 requests for item "k1" cost 1.5e\+308'),  # their sum is a number, its square none
        ([1e308, 1e307, 0.0], r'the 1 requests for item "k0" cost 1e\+308'),
        ([1.1e150, 0.0, 0.0], r"may cost from 1e-150 to 1e\+150"),
        ([1e-151, 1e-320, 0.0], r'item "k0" cost 1e-151'),
    ],
)
def test_costs_that_cannot_be_added_up_are_named(tmp_path: Path, cost: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Replay.of(trace([0, 1, 1], 3, cost, keyed=True).blocks(2), costs="trace")
    path = tmp_path / "costs.csv"
    path.write_text("item,cost\n" + "".join(f"k{item},{each!r}\n" for item, each in enumerate(cost)))
    with pytest.raises(DataError, match=r"costs\.csv: the . requests for item .* Give costs in another unit"):
        Replay.of([trace([0, 1, 2], keyed=True)], costs=str(path))

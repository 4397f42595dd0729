"""The heap, and the top of growing values, against sorting."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.online.heap import ABSENT, Heap, make_heap, settle, sink
from rivage.online.top import MOVES, fill, grow, make_top, nudge


def is_heap(heap: Heap, held: int) -> bool:
    pairs = [(heap.key[at], heap.stamp[at]) for at in range(held)]
    places = [heap.place[heap.item[at]] for at in range(held)]
    inside = np.flatnonzero(heap.place != ABSENT).tolist()
    ordered = all(pairs[(at - 1) // 4] <= pairs[at] for at in range(1, held))
    return ordered and places == list(range(held)) and inside == sorted(heap.item[:held].tolist())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 5)), min_size=1, max_size=120), st.booleans())
def test_the_root_is_the_smallest_whatever_is_put_in_moved_and_taken_out(
    moves: list[tuple[int, int]], whole: bool
) -> None:
    heap, held = make_heap(30, 30, np.int64 if whole else np.float64), 0
    inside: dict[int, tuple[int, int]] = {}
    for stamp, (item, key) in enumerate(moves):
        if key == 0 and held:  # take the smallest out
            smallest = min(inside, key=lambda i: inside[i])
            assert heap.item[0] == smallest
            heap.place[smallest], held = ABSENT, held - 1
            del inside[smallest]
            if held:
                sink(heap, held, 0, heap.item[held], heap.key[held], heap.stamp[held])
        elif item in inside:
            settle(heap, held, heap.place[item], item, key, stamp)
            inside[item] = (key, stamp)
        else:
            held += 1
            settle(heap, held, held - 1, item, key, stamp)
            inside[item] = (key, stamp)
        assert is_heap(heap, held)
        assert held == len(inside)


@settings(deadline=None)
@given(st.data())
def test_the_top_has_the_largest_sum_after_every_growth(data: st.DataObject) -> None:
    items, nudged = data.draw(st.integers(2, 20)), data.draw(st.booleans())
    capacity = data.draw(st.integers(1, items))
    values, heap, held, worth = np.zeros(items), make_top(items, capacity), 0, 0.0
    if data.draw(st.booleans()):
        values[:] = np.random.default_rng(items).standard_normal(items)
        fill(heap, values)
        held, worth = capacity, float(np.sort(values)[-capacity:].sum())
    for item in data.draw(st.lists(st.integers(0, items - 1), max_size=80)):
        before = set(heap.item[:held].tolist())
        by = data.draw(st.sampled_from([0.0, 0.5, 1.0, 3.0]))
        gained = nudge(item, by, values, heap.place, heap.key, held) if nudged else MOVES
        if gained == MOVES:
            held, gained = grow(item, by, values, heap, held)
        worth += gained
        inside = heap.item[:held]
        assert is_heap(heap, held)
        np.testing.assert_array_equal(heap.key[:held], values[inside])
        assert np.isclose(worth, values[inside].sum())
        if held == capacity:
            assert np.isclose(worth, np.sort(values)[-capacity:].sum())
        assert set(inside.tolist()) - before <= {item}

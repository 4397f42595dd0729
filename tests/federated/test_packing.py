"""Where records stand in a tile, against a construction place by place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.data.population import Samples
from rivage.federated.algorithm import Local, Pull
from rivage.federated.batches import Batches
from rivage.federated.executors.jobs import Job
from rivage.federated.executors.packing import Packed, pack
from rivage.federated.executors.tiled import cut


def job(client: int, records: int, batches: list[list[int]], groups: int = 1, **local: object) -> Job:
    samples = Samples(np.zeros((records, 1)), np.zeros(records), np.arange(records))
    rows = np.array([row for batch in batches for row in batch], np.int64)
    drawn = Batches(rows, np.array([len(batch) for batch in batches], np.int64))
    return Job(client, Local(torch.zeros(groups, 2), **local), samples, batches=drawn)  # type: ignore[arg-type]


@st.composite
def clients(draw: st.DrawFn) -> list[Job]:
    """Clients with at least one batch each; batches may be empty, and hold any records in any order."""
    found = []
    for client in range(draw(st.integers(1, 5))):
        records = draw(st.integers(1, 6))
        batch = st.lists(st.integers(0, records - 1), max_size=4)
        found.append(job(client, records, draw(st.lists(batch, min_size=1, max_size=5))))
    return found


def by_hand(rows: list[Job], jobs: list[Job]) -> tuple[list[int], list[int], list[int], int]:
    """(record at each place, used places in the rows' order, active rows per step, places per batch).

    An empty place repeats the first record of its batch, or of its client where the batch is empty.
    """
    first: dict[int, int] = {}
    so_far = 0
    for one in jobs:
        first[one.client], so_far = so_far, so_far + len(one.samples)
    width = max(1, max(int(size) for row in rows for size in row.batches.sizes))
    record: list[int] = []
    place_of: dict[tuple[int, int, int], int] = {}
    active: list[int] = []
    place = 0
    for step in range(max(len(row.batches.sizes) for row in rows)):
        there = [i for i, row in enumerate(rows) if step < len(row.batches.sizes)]
        assert there == list(range(len(there)))  # a prefix
        active.append(len(there))
        for i in there:
            batch = rows[i].batches.split()[step]
            for k in range(width):
                shown = int(batch[k if k < len(batch) else 0]) if len(batch) else 0
                record.append(first[rows[i].client] + shown)
                if k < len(batch):
                    place_of[i, step, k] = place
                place += 1
    return record, [place_of[key] for key in sorted(place_of)], active, width


def require_by_hand(packed: Packed, rows: list[Job], jobs: list[Job]) -> None:
    record, places, active, width = by_hand(rows, jobs)
    assert packed.places.tolist() == places
    assert packed.index.tolist() == record
    assert packed.sizes.tolist() == [int(size) for row in rows for size in row.batches.sizes]
    assert packed.active == active
    assert packed.starts == np.cumsum([0, *(count * width for count in active)]).tolist()
    assert packed.batch == width


@settings(deadline=None, max_examples=150)
@given(jobs=clients(), groups=st.integers(1, 3), seed=st.integers(0, 9))
def test_records_stand_where_a_construction_by_hand_puts_them(jobs: list[Job], groups: int, seed: int) -> None:
    rows = [one for one in jobs for _ in range(groups)]
    np.random.default_rng(seed).shuffle(rows)  # type: ignore[arg-type]
    rows.sort(key=lambda one: -len(one.batches.sizes))
    order = list({id(row): row for row in rows}.values())
    require_by_hand(pack(rows, order), rows, order)


def test_only_partial_batches_and_ended_rows_leave_room() -> None:
    jobs = [job(0, 5, [[4, 1], [0, 2], [3]]), job(1, 3, [[2, 0], [1]])]
    packed = pack(jobs, jobs)
    assert packed.index.tolist() == [4, 1, 7, 5, 0, 2, 6, 6, 3, 3]
    assert packed.places.tolist() == [0, 1, 4, 5, 8, 2, 3, 6]
    assert (packed.active, packed.starts, packed.batch) == ([2, 2, 1], [0, 4, 8, 10], 2)


def test_batches_without_a_record_have_one_place() -> None:
    jobs = [job(0, 2, [[], []])]
    packed = pack(jobs, jobs)
    assert (packed.places.tolist(), packed.sizes.tolist()) == ([], [0, 0])
    assert (packed.active, packed.starts, packed.batch) == ([1, 1], [0, 1, 2], 1)


# --- tiles ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(jobs=clients(), groups=st.integers(1, 3), most=st.integers(1, 7), joint=st.booleans())
def test_tiles_hold_every_row_once_alike_sorted_and_no_more_than_fit(
    jobs: list[Job], groups: int, most: int, joint: bool
) -> None:
    for one in jobs:
        one.local.params = torch.zeros(groups, 2)
        if one.client % 2:
            one.local.pull = Pull(0.5, torch.zeros(2))
        if one.client % 3 == 0:
            one.local.drift = torch.zeros(groups, 2)
    idle = job(9, 3, [], groups)
    tiles = cut([*jobs, idle], 16, 16 * most, joint=joint)
    held = [(row.job.client, row.group) for tile in tiles for row in tile]
    assert sorted(held) == [(one.client, g) for one in jobs for g in range(1 if joint else groups)]
    for tile in tiles:
        assert 1 <= len(tile) <= max(1, most // groups if joint else most)
        steps = [row.steps for row in tile]
        assert steps == sorted(steps, reverse=True)
        assert len({(row.job.local.pull is None, row.job.local.drift is None) for row in tile}) == 1


def test_a_row_larger_than_a_tile_has_one_of_its_own() -> None:
    jobs = [job(i, 2, [[0]]) for i in range(3)]
    assert [len(tile) for tile in cut(jobs, 1000, 1, joint=False)] == [1, 1, 1]


def test_tiles_are_as_few_as_fit_and_about_equal() -> None:
    jobs = [job(i, 2, [[0]]) for i in range(10)]
    assert sorted(len(tile) for tile in cut(jobs, 10, 40, joint=False)) == [3, 3, 4]


def test_groups_of_other_strengths_are_in_tiles_of_their_own() -> None:
    strength = torch.tensor([[0.0], [0.5]])
    jobs = [job(i, 2, [[0]], 2, pull=Pull(strength, torch.zeros(2))) for i in range(3)]
    tiles = cut(jobs, 1, 1 << 20, joint=False)
    assert [[row.group for row in tile] for tile in tiles] == [[0, 0, 0], [1, 1, 1]]


def test_nobody_makes_no_tile() -> None:
    assert cut([], 10, 10, joint=False) == []
    assert cut([job(0, 0, [])], 10, 10, joint=True) == []


def test_rows_out_of_order_are_a_fault_of_the_test_helper() -> None:
    jobs = [job(0, 1, [[0]]), job(1, 1, [[0], [0]])]
    with pytest.raises(AssertionError):
        by_hand(jobs, jobs)

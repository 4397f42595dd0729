from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.philox import philox4x32
from rivage.federated.algorithm import Phase
from rivage.federated.batches import Position, orders
from rivage.federated.batches import batches as of_cohort

START = Position()


def batches(
    phase: Phase, records: int, who: tuple[int, int], round: int, position: Position
) -> tuple[list[np.ndarray], Position]:
    """One client's."""
    ((found, after),) = of_cohort(phase, who[0], [who[1]], [records], round, [position])
    return found.split(), after


def shuffler(client: int = 3, seed: int = 5) -> tuple[int, int]:
    return seed, client


@settings(deadline=None)
@given(records=st.integers(1, 70), size=st.integers(1, 80), epochs=st.integers(0, 3))
def test_every_pass_holds_every_record_once(records: int, size: int, epochs: int) -> None:
    rows, position = batches(Phase(epochs=epochs, batch_size=size), records, shuffler(), 0, START)
    per_pass = -(-records // min(size, records))
    assert len(rows) == epochs * per_pass
    assert position == START
    for epoch in range(epochs):
        one = np.concatenate(rows[epoch * per_pass : (epoch + 1) * per_pass])
        assert sorted(one.tolist()) == list(range(records))


def test_the_partial_last_batch_is_kept() -> None:
    rows, _ = batches(Phase(batch_size=4), 10, shuffler(), 0, START)
    assert [len(batch) for batch in rows] == [4, 4, 2]


def test_whole_batch_and_no_records() -> None:
    rows, _ = batches(Phase(batch_size=None), 10, shuffler(), 0, START)
    assert [len(batch) for batch in rows] == [10]
    assert batches(Phase(), 0, shuffler(), 0, START) == ([], START)


def test_orders_differ_by_seed_client_round_and_epoch_only() -> None:
    def order(client: int, seed: int, round: int) -> list[int]:
        rows, _ = batches(Phase(epochs=2, batch_size=50), 50, shuffler(client, seed), round, START)
        return [int(i) for batch in rows for i in batch]

    base = order(1, 1, 1)
    assert base == order(1, 1, 1)
    assert base[:50] != base[50:]
    others = (order(2, 1, 1), order(1 + 2**32, 1, 1), order(1, 2, 1), order(1, 1 + 2**32, 1), order(1, 1, 2))
    assert len({tuple(o) for o in (base, *others)}) == 6


def test_updates_count_steps_instead_of_passes() -> None:
    rows, _ = batches(Phase(updates=7, batch_size=4), 10, shuffler(), 0, START)
    assert [len(batch) for batch in rows] == [4, 4, 2, 4, 4, 2, 4]


def test_endless_batches_go_on_where_they_stopped() -> None:  # E4: 2 rounds × 50 updates = 1 × 100 updates
    phase = Phase(updates=50, batch_size=4, batches="endless")
    first, position = batches(phase, 11, shuffler(), 0, START)
    second, end = batches(phase, 11, shuffler(), 1, position)
    whole, same_end = batches(Phase(updates=100, batch_size=4, batches="endless"), 11, shuffler(), 9, START)
    assert [b.tolist() for b in first + second] == [b.tolist() for b in whole]
    assert end == same_end
    assert sorted(np.concatenate(whole[:3]).tolist()) == list(range(11))


def test_poisson_batches_have_the_rate_asked_for() -> None:
    phase = Phase(updates=2000, batch_size=5, batches="poisson")
    rows, _ = batches(phase, 50, shuffler(), 0, START)
    counts = np.bincount(np.concatenate(rows), minlength=50)
    # each record: Binomial(2000, 0.1), sd 13.4; 5 sd over 50 records has false-alarm probability 3e-5
    assert abs(counts - 200).max() < 5 * 13.4
    assert len({len(batch) for batch in rows}) > 3


# --- cohorts -------------------------------------------------------------------------------------------------

KINDS = {
    "epochs": Phase(epochs=3, batch_size=4),
    "whole": Phase(epochs=2, batch_size=None),
    "updates": Phase(updates=7, batch_size=3),
    "none": Phase(updates=0, batch_size=3),
    "poisson": Phase(updates=5, batch_size=2, batches="poisson"),
    "poisson epochs": Phase(epochs=2, batch_size=3, batches="poisson"),
    "endless": Phase(updates=6, batch_size=4, batches="endless"),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(
    records=st.lists(st.integers(0, 23), min_size=1, max_size=6),
    seed=st.integers(0, 2**64 - 1),
    round=st.integers(0, 2**20),
    order=st.randoms(use_true_random=False),
)
def test_a_client_has_the_same_batches_whoever_else_is_drawn(
    kind: str, records: list[int], seed: int, round: int, order: random.Random
) -> None:
    clients = [3 * i + (i % 2 << 40) for i in range(len(records))]
    positions = [Position(i, min(i, max(n - 1, 0))) for i, n in enumerate(records)]
    places = list(range(len(records)))
    order.shuffle(places)
    of = [clients[i] for i in places], [records[i] for i in places], [positions[i] for i in places]
    together = of_cohort(KINDS[kind], seed, of[0], of[1], round, of[2])
    for place, (found, after) in zip(places, together, strict=True):
        one = [clients[place]], [records[place]], [positions[place]]
        ((alone, end),) = of_cohort(KINDS[kind], seed, one[0], one[1], round, one[2])
        assert found.rows.tolist() == alone.rows.tolist()
        assert found.sizes.tolist() == alone.sizes.tolist()
        assert after == end
        assert int(found.sizes.sum()) == len(found.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_cohort_has_no_batches(kind: str) -> None:
    assert of_cohort(KINDS[kind], 1, [], [], 0, []) == []


def words_of(seed: int, client: int, records: int, a: int, b: int) -> list[int]:
    """One word per record, block by block."""
    place = np.array([[client & 0xFFFFFFFF, client >> 32, a, b]], np.uint32)
    key = philox4x32(place, (seed & 0xFFFFFFFF, seed >> 32))[0]
    words: list[int] = []
    for block in range(-(-records // 4)):
        words += philox4x32(np.array([[block, 0, 0, 0]], np.uint32), (int(key[0]), int(key[1])))[0].tolist()
    return words[:records]


def naive_orders(seed: int, places: list[tuple[int, int, int, int]]) -> list[int]:
    """One argsort of the words of each (client, records, a, b)."""
    found: list[int] = []
    for place in places:
        words = words_of(seed, *place)
        found += sorted(range(place[1]), key=lambda row, words=words: (words[row], row))  # type: ignore[misc]
    return found


def test_poisson_batches_hold_whoever_has_a_small_word_of_its_round_and_step() -> None:
    client, seed = 5 + 2**35, 2**63 + 9
    rows, _ = batches(Phase(updates=4, batch_size=3, batches="poisson"), 10, (seed, client), 7, START)
    small = [[w < 0.3 * 2**32 for w in words_of(seed, client, 10, 7, step)] for step in range(4)]
    assert [batch.tolist() for batch in rows] == [np.nonzero(taken)[0].tolist() for taken in small]


def of_arrays(seed: int, places: list[tuple[int, int, int, int]]) -> list[int]:
    columns = [np.array([place[i] for place in places], np.int64) for i in range(4)]
    return orders(seed, *columns).tolist()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**64 - 1),
    places=st.lists(
        st.tuples(st.integers(0, 2**40), st.integers(0, 33), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        min_size=1,
        max_size=6,
    ),
)
def test_orders_are_an_argsort_of_the_words(seed: int, places: list[tuple[int, int, int, int]]) -> None:
    assert of_arrays(seed, places) == naive_orders(seed, places)


def test_orders_are_the_same_where_keys_do_not_fit_one_number() -> None:
    """17 bits for the row of the longest and 16 for the segment are more than 32: each is then sorted by itself."""
    long, many = (2**16 + 1, 2**15 + 1)
    places = [(7, long, 1, 2), *((client, 1 + client % 3, 1, 2) for client in range(many - 1))]
    found = of_arrays(11, places)
    assert found[:long] == of_arrays(11, places[:1]) == naive_orders(11, places[:1])
    assert found[long : long + 60] == naive_orders(11, places[1:31])
    assert found[long:] == of_arrays(11, places[1:])


@pytest.mark.parametrize("fits", [True, False])
def test_ties_between_words_go_to_the_smaller_row(fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2^32 words and few records ties never happen by themselves."""
    import rivage.federated.batches as module

    long = 5 if fits else 2**16 + 1
    records = np.array([long, 6, *([1] * (0 if fits else 2**15))], np.int64)
    monkeypatch.setattr(module, "_words", lambda seed, c, r, a, b: (np.arange(r.sum()) % 2).astype(np.uint32))
    zeros = np.zeros(len(records), np.int64)
    found = orders(0, zeros, records, zeros, zeros)
    first = [row for row in range(long) if row % 2 == 0] + [row for row in range(long) if row % 2]
    assert found[:long].tolist() == first
    assert found[long : long + 6].tolist() == [1, 3, 5, 0, 2, 4]  # the words of the second start with 1


def test_an_endless_loader_with_more_than_all_records_takes_all() -> None:
    rows, position = batches(Phase(updates=2, batch_size=50, batches="endless"), 7, shuffler(), 0, START)
    assert [sorted(batch.tolist()) for batch in rows] == [list(range(7))] * 2
    assert position == Position(2, 0)


def test_poisson_batches_of_everything_hold_everything() -> None:
    for size in (None, 9, 20):
        rows, _ = batches(Phase(updates=3, batch_size=size, batches="poisson"), 9, shuffler(), 0, START)
        assert [batch.tolist() for batch in rows] == [list(range(9))] * 3


def test_poisson_batches_of_a_pass_are_as_many_as_of_a_shuffle() -> None:
    rows, _ = batches(Phase(epochs=2, batch_size=4, batches="poisson"), 10, shuffler(), 0, START)
    assert len(rows) == 2 * 3

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.federated.algorithm import Phase
from rivage.federated.batches import Position
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

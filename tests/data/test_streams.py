"""Client memories: what stays, what never comes back, and that every round can be replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from rivage.core.errors import ConfigError, ProtocolError
from rivage.core.settings import dump, read
from rivage.data.arrays import ArrayPopulation
from rivage.data.population import ClientData, Samples, Schema
from rivage.data.streams import Stream, StreamPopulation
from rivage.data.streams_memory import (
    MEMORIES,
    ClassBalanced,
    FirstIn,
    Fixed,
    Offer,
    OneBatch,
    RandomReplacement,
    Reservoir,
    replay,
)

BOUNDED = (Fixed, FirstIn, Reservoir, RandomReplacement, ClassBalanced)
SCHEMA = Schema(input_shape=(1,), target="class", num_classes=3)


def population(*sizes: int, schema: Schema = SCHEMA) -> ArrayPopulation:
    """Client k holds so many records; x tells them apart, the class follows from it."""

    def client(id: int, size: int) -> ClientData:
        x = np.arange(size, dtype=np.float32)[:, None] + 1000 * id
        samples = Samples(x, np.arange(size) % 3, np.arange(size))
        return ClientData(id, samples, samples.take(np.arange(0)), samples, float(size))

    clients = tuple(client(id, size) for id, size in enumerate(sizes))
    return ArrayPopulation(clients=clients, names=tuple(f"c{id}" for id in range(len(sizes))), schema=schema)


def streaming(base: ArrayPopulation, rounds: int, seed: int = 0, **table: Any) -> StreamPopulation:
    return Stream(**{"historical": 0.0, **table}).population(base, rounds=rounds, seed=seed)


def held(stream: StreamPopulation, id: int = 0) -> list[set[int]]:
    return [set(stream.client(id, t).train.index.tolist()) for t in range(stream.rounds)]


def arrivals(stream: StreamPopulation, id: int = 0) -> list[set[int]]:
    """What comes in each round: what a memory without limit gains."""
    whole = Stream(historical=0.0, batch=stream.stream.batch, memory=Fixed(), order=stream.stream.order)
    kept = held(whole.population(stream.base, rounds=stream.rounds, seed=stream.seed), id)
    return [now - before for before, now in zip([set(), *kept], kept, strict=False)]


memories = st.one_of(
    st.just(OneBatch()), *(st.builds(kind, capacity=st.none() | st.integers(1, 12)) for kind in BOUNDED)
)


@settings(deadline=None, max_examples=60)
@given(memories, st.integers(0, 30), st.integers(1, 12), st.none() | st.integers(1, 7), st.integers(0, 3))
def test_a_memory_is_bounded_and_what_is_dropped_never_comes_back(
    memory: Any, size: int, rounds: int, batch: int | None, seed: int
) -> None:
    stream = streaming(population(size), rounds, seed, memory=memory, batch=batch)
    came, before, gone = arrivals(stream), set[int](), set[int]()
    assert sum(map(len, came)) == len(set().union(*came))  # each at most once
    for now, batch_ in zip(held(stream), came, strict=True):
        assert len(now) <= (memory.capacity or size)
        assert now <= before | batch_
        assert not now & gone
        gone |= (before | batch_) - now
        before = now


@settings(deadline=None, max_examples=40)
@given(memories, st.integers(1, 30), st.integers(1, 12), st.integers(0, 3))
def test_every_record_that_is_kept_counts_the_same_over_the_run(memory: Any, size: int, rounds: int, seed: int) -> None:
    stream = streaming(population(size), rounds, seed, memory=memory)
    total = np.zeros(size)
    for t in range(rounds):
        data = stream.client(0, t)
        assert data.importance is not None
        total[data.train.index] += data.importance
        assert data.weight == pytest.approx(stream.sizes(np.array([0]), t)[0])
        assert data.weight == pytest.approx(data.importance.sum())
        assert data.arrives
    ever = stream.history(0).stay > 0
    np.testing.assert_allclose(total[ever], rounds)
    assert not total[~ever].any()
    shares = total / total.sum()  # p_{m,j}
    assert shares.sum() == pytest.approx(1)
    assert 1 / (shares**2).sum() == pytest.approx(ever.sum())  # N_eff = N
    assert stream.volumes().fresh == ever.sum()


@pytest.mark.parametrize("memory", [OneBatch(), Reservoir(4), RandomReplacement(4), ClassBalanced(4)])
def test_a_round_can_be_asked_for_alone_and_in_any_order(memory: Any) -> None:
    whole = held(streaming(population(20), 9, memory=memory))
    for t in (8, 0, 5):
        assert set(streaming(population(20), 9, memory=memory).client(0, t).train.index.tolist()) == whole[t]
    assert whole != held(streaming(population(20), 9, seed=1, memory=memory))


def test_a_client_does_not_depend_on_the_others() -> None:
    one = held(streaming(population(20, 7), 9, memory=Reservoir(4)), 0)
    assert one == held(streaming(population(20, 30, 4), 9, memory=Reservoir(4)), 0)
    other = held(streaming(population(20, 20), 9, memory=Reservoir(4)), 1)
    assert one != other


def test_one_batch_serves_one_round_and_after_the_last_round_nothing_changes() -> None:
    stream = streaming(population(10), 4, memory=OneBatch(), batch=3, order="given")
    assert held(stream) == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9}]
    assert stream.client(0, 4).train.index.tolist() == stream.client(0, 99).train.index.tolist() == [9]
    short = streaming(population(4), 4, memory=OneBatch(), batch=2)
    assert [len(now) for now in held(short)] == [2, 2, 0, 0]
    assert short.sizes(np.array([0]), 2).tolist() == [0.0]


def test_records_spread_over_the_rounds_and_what_does_not_arrive_in_time_never_does() -> None:
    assert [len(batch) for batch in arrivals(streaming(population(10), 4, batch=None))] == [2, 3, 2, 3]
    assert set().union(*arrivals(streaming(population(10), 2, batch=3, order="given"))) == set(range(6))


def test_first_in_first_out_and_fixed_by_hand() -> None:
    fifo = streaming(population(8), 4, memory=FirstIn(3), batch=2, order="given")
    assert held(fifo) == [{0, 1}, {1, 2, 3}, {3, 4, 5}, {5, 6, 7}]
    assert fifo.history(0).stay.tolist() == [1, 2, 1, 2, 1, 2, 1, 1]
    fixed = streaming(population(8), 4, memory=Fixed(3), batch=2, order="given")
    assert held(fixed) == [{0, 1}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2}]
    assert fixed.volumes().fresh == 3


def memories_after(memory: Any, runs: int, records: int = 12, batch: int = 3) -> list[np.ndarray]:
    rng, rows = np.random.default_rng(0), np.arange(records)
    batches = np.split(rows, records // batch)
    found = [replay(memory, batches, rows % 3, keys, lambda t: rng) for keys in rng.random((runs, records))]
    return [residence.at(len(batches) - 1) for residence in found]


def test_a_reservoir_keeps_every_record_with_the_same_probability() -> None:
    """C2: 10,000 runs. Indicators of one run are negatively correlated: (n − 1)/(n (1 − C/n)) scales Pearson's sum."""
    runs, n, capacity = 10_000, 12, 5
    counts = np.bincount(np.concatenate(memories_after(Reservoir(capacity), runs)), minlength=n)
    assert counts.sum() == runs * capacity
    share = capacity / n
    statistic = float((((counts - runs * share) ** 2) / (runs * share * (1 - share))).sum()) * (n - 1) / n
    assert statistic < chi2.ppf(0.999, n - 1)


def test_random_replacement_forgets_geometrically() -> None:
    """Once full, each newcomer takes one of C places: of the first C records a share (1 − 1/C)^k is left after k."""
    capacity, runs = 4, 4000
    left = np.mean([np.count_nonzero(rows < capacity) for rows in memories_after(RandomReplacement(capacity), runs)])
    expected = capacity * (1 - 1 / capacity) ** 8
    assert abs(left - expected) < 4 * capacity / 2 / runs**0.5


def test_class_balanced_keeps_rare_classes() -> None:
    labels = np.array([0] * 20 + [1] * 3 + [2] * 2)
    rng = np.random.default_rng(0)
    order = rng.permutation(25)
    found = replay(ClassBalanced(9), np.split(order, 5), labels, rng.random(25), lambda t: rng)
    counts = np.bincount(labels[found.at(4)], minlength=3)
    assert counts.tolist() == [4, 3, 2]


def test_class_balanced_needs_classes() -> None:
    offer = Offer(np.arange(0), np.arange(3), np.zeros(3), np.zeros(3), np.random.default_rng)
    with pytest.raises(ConfigError, match=r"the target is no class.*reservoir"):
        ClassBalanced(2).keep(offer)


def test_historical_clients_keep_everything_and_are_chosen_by_share_or_name() -> None:
    base = population(5, 6, 7, 8)
    stream = streaming(base, 6, historical=("c1", "c3"))
    assert stream.historical.tolist() == [False, True, False, True]
    assert stream.client(3, 2) is base.client(3)
    assert stream.sizes(np.arange(4), 3).tolist() == [6.0, 6.0, 6.0, 8.0]  # T = 6 for each fresh record
    found = stream.volumes()
    assert (found.historical, found.fresh, found.drift) == (14.0, 12.0, 1.0)
    assert stream.volumes(np.array([3])).historical == 6.0
    assert streaming(base, 6, historical=0.5).historical.sum() == 2
    assert stream.notes["stream"]["historical_clients"] == 2


def test_drift_is_the_formula_of_its_docstring() -> None:
    found = streaming(population(24), 8, batch=3, memory=FirstIn(6)).volumes()
    mean = (3 + 7 * 6) / 8  # records in memory per round: the batch, then the capacity
    assert found.fresh == 24
    assert found.drift == pytest.approx(np.sqrt((1 / mean - 1 / 24) / (1 / 3 - 1 / 24)))


def test_drift_lies_between_that_of_a_batch_and_none() -> None:
    drifts = [
        streaming(population(24), 8, batch=3, memory=memory).volumes().drift
        for memory in (OneBatch(), FirstIn(6), FirstIn(12))
    ]
    assert drifts[0] == 1.0
    assert 1 > drifts[1] > drifts[2] > 0
    assert streaming(population(24), 1, memory=Fixed()).volumes().drift == 0.0
    assert streaming(population(24), 8, historical=1.0).volumes().drift == 0.0


def test_weights_per_round_count_a_record_in_every_round() -> None:
    stream = streaming(population(8), 4, memory=FirstIn(4), batch=2, weights="per_round")
    assert [stream.client(0, t).weight for t in range(4)] == [2.0, 4.0, 4.0, 4.0]
    assert [float(stream.sizes(np.array([0]), t)[0]) for t in range(4)] == [2.0, 4.0, 4.0, 4.0]


def test_the_fingerprint_tells_streams_apart() -> None:
    base = population(8)
    variants = [streaming(base, 4), streaming(base, 5), streaming(base, 4, 1), streaming(base, 4, memory=FirstIn(2))]
    assert len({variant.fingerprint for variant in [*variants, streaming(base, 4)]}) == 4


@pytest.mark.parametrize("kind", list(MEMORIES))
def test_the_table_survives_a_file(kind: str) -> None:
    stream = read(Stream, {"historical": ["a"], "memory": {"kind": kind}})
    assert read(Stream, dump(stream)) == stream
    assert isinstance(stream.memory, MEMORIES.get(kind))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"historical": 1.5}, r"historical is 1\.5.*at most 1, or a list of names"),
        ({"batch": 0}, "batch is 0"),
        ({"memory": {"kind": "fifo", "capacity": 0}}, "capacity is 0"),
        ({"memory": {"kind": "lifo"}}, "unknown memory kind"),
    ],
)
def test_bad_tables_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(Stream, table)


def test_names_that_no_client_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'historical names "c9".*They are called: .*, '):
        _ = streaming(population(5, 6), 3, historical=("c9",)).historical
    with pytest.raises(ConfigError, match="arrive in 0 rounds"):
        streaming(population(5), 0)


@dataclass(frozen=True)
class Greedy:
    """Keeps everything, whatever its capacity."""

    capacity: int = 2

    def keep(self, offer: Offer) -> np.ndarray:
        return offer.all


def test_a_policy_that_cheats_is_caught() -> None:
    with pytest.raises(ProtocolError, match="keeps 3 records"):
        replay(Greedy(), [np.arange(3)], np.zeros(3), np.zeros(3), lambda t: np.random.default_rng(0))

"""Partitions: every record once, no hang, exact laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.data.partition import (
    IID,
    PARTITIONS,
    Dirichlet,
    Hand,
    Natural,
    Pachinko,
    Partition,
    Pathological,
    Quantity,
    by_code,
)

KINDS = {
    "iid": lambda clients: IID(clients),
    "dirichlet": lambda clients: Dirichlet(clients, 0.3),
    "dirichlet, 2 clusters": lambda clients: Dirichlet(clients, 0.3, clusters=2),
    "dirichlet, tiny alpha": lambda clients: Dirichlet(clients, 1e-3),
    "dirichlet, huge alpha": lambda clients: Dirichlet(clients, 1e6),
    "pathological": lambda clients: Pathological(clients, 2),
    "pachinko": lambda clients: Pachinko(clients),
    "pachinko, tiny alpha": lambda clients: Pachinko(clients, 1e-3, 1e-3),
    "quantity": lambda clients: Quantity(clients, 1.0),
    "quantity, huge sigma": lambda clients: Quantity(clients, 1e4),
}


def hand(size: int, classes: int = 10, seed: int = 0) -> Hand:
    labels = np.random.default_rng(seed).integers(classes, size=size)
    return Hand(
        size=size, labels=labels, coarse=labels // 2, attributes={"parity": np.where(labels % 2, "odd", "even")}
    )


def deal(partition: Partition, hand: Hand, seed: int = 1) -> list[np.ndarray]:
    return list(partition.deal(hand, np.random.default_rng(seed)).values())


def assert_partition(parts: list[np.ndarray], size: int) -> None:
    assert sorted(np.concatenate(parts).tolist()) == list(range(size))
    assert all(part.dtype == np.int64 for part in parts)


@pytest.mark.parametrize("kind", KINDS)
@given(size=st.integers(1, 200), clients=st.integers(1, 40), classes=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_record_once_and_one_part_per_client(kind: str, size: int, clients: int, classes: int, seed: int) -> None:
    partition, cards = KINDS[kind](clients), hand(size, classes, seed)
    parts = deal(partition, cards, seed)
    assert len(parts) == clients
    assert_partition(parts, size)
    assert all(map(np.array_equal, parts, deal(partition, cards, seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_far_more_clients_than_records(kind: str) -> None:
    parts = deal(KINDS[kind](10_000), hand(50))
    assert len(parts) == 10_000
    assert_partition(parts, 50)


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_split(kind: str) -> None:
    cards = hand(400)
    assert not all(map(np.array_equal, deal(KINDS[kind](8), cards, 1), deal(KINDS[kind](8), cards, 2)))


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = [len(part) for part in deal(IID(7), hand(100))]
    assert max(sizes) - min(sizes) <= 1


def test_dirichlet_counts_follow_the_dirichlet_multinomial() -> None:
    """Counts of one label over T clients: mean n/T, variance n (1/T)(1 − 1/T)(n + αT)/(1 + αT)."""
    clients, alpha, size, draws = 5, 0.5, 60, 4_000
    cards = Hand(size=size, labels=np.zeros(size, np.int64))
    rng = np.random.default_rng(3)
    counts = np.array([[len(p) for p in Dirichlet(clients, alpha).deal(cards, rng).values()] for _ in range(draws)])
    share, total = 1 / clients, alpha * clients
    variance = size * share * (1 - share) * (size + total) / (1 + total)
    assert (counts.sum(axis=1) == size).all()
    # 3.5 standard errors on 5 clients: false alarm below 0.3 % on a fresh seed.
    assert (np.abs(counts.mean(axis=0) - size * share) < 3.5 * np.sqrt(variance / draws)).all()
    deviations = (counts - size * share) ** 2
    assert (np.abs(deviations.mean(axis=0) - variance) < 3.5 * deviations.std(axis=0) / np.sqrt(draws)).all()


def test_dirichlet_is_over_clients_for_each_label() -> None:
    """Labels are drawn apart: with α -> 0 a label goes to one client whole, and clients' sizes vary."""
    cards = hand(1_000)
    parts = deal(Dirichlet(20, 1e-5), cards)
    for label in range(10):
        holders = [(cards.labels[part] == label).sum() for part in parts]
        assert max(holders) >= 0.95 * sum(holders)
    even = deal(Dirichlet(20, 1e6), cards)
    assert np.std([len(part) for part in even]) < 3 * np.sqrt(1_000 / 20)


def test_dirichlet_clusters_pool_labels() -> None:
    """With α -> 0 and K = 2, each of the two groups of five labels stays together at one client."""
    cards = hand(1_000)
    parts = [part for part in deal(Dirichlet(30, 1e-4, clusters=2), cards) if len(part) > 100]
    assert [len(np.unique(cards.labels[part])) for part in parts] == [5, 5]


def test_more_clusters_than_labels_is_one_per_label() -> None:
    cards = hand(100, classes=3)
    assert all(map(np.array_equal, deal(Dirichlet(4, 0.3, clusters=99), cards), deal(Dirichlet(4, 0.3), cards)))


@given(clients=st.integers(1, 12), shards=st.integers(1, 4), seed=st.integers(0, 50))
@settings(deadline=None)
def test_pathological_labels_per_client(clients: int, shards: int, seed: int) -> None:
    """Where shards divide the classes evenly, a client has at most s labels and exactly s shards' worth of records."""
    classes, per_shard = clients * shards, 3
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), 2 * per_shard))
    parts = deal(Pathological(clients, shards * 2), Hand(size=len(labels), labels=labels), seed)
    assert all(len(part) == 2 * shards * per_shard for part in parts)
    assert all(len(np.unique(labels[part])) <= 2 * shards for part in parts)


def test_pathological_by_hand() -> None:
    labels = np.array([2, 0, 1, 0, 2, 1])
    parts = deal(Pathological(3, 1), Hand(size=6, labels=labels))
    assert sorted(part.tolist() for part in parts) == [[0, 4], [1, 3], [2, 5]]


def test_pachinko_sizes_and_skew() -> None:
    rng = np.random.default_rng(0)
    fine = rng.permutation(np.repeat(np.arange(20), 60))
    cards = Hand(size=1_200, labels=fine, coarse=fine // 5)
    parts = deal(Pachinko(12, alpha=0.05, beta=1e4), cards)
    assert [len(part) for part in parts] == [100] * 12
    first = fine[parts[0]]
    top = np.bincount(first // 5, minlength=4).argmax()
    assert (first // 5 == top).mean() > 0.9  # small α: one super-class
    inside = np.bincount(first[first // 5 == top] % 5, minlength=5)
    assert inside.min() > 5  # large β: its classes alike


def test_pachinko_classes_of_the_same_name_in_two_super_classes() -> None:
    cards = Hand(size=40, labels=np.tile([0, 1], 20), coarse=np.repeat([0, 1], 20))
    assert_partition(deal(Pachinko(4), cards), 40)


def test_quantity_sizes() -> None:
    assert {len(part) for part in deal(Quantity(4, 0.0), hand(100))} == {25}
    sizes = np.array([len(part) for part in deal(Quantity(2_000, 1.0), hand(1_000_000))])
    assert abs(np.std(np.log(sizes)) - 1.0) < 0.06  # 3.5 standard errors of a standard deviation, plus rounding


def test_natural_names_the_clients() -> None:
    cards = hand(30)
    dealt = Natural("parity").deal(cards, np.random.default_rng(0))
    assert list(dealt) == ["even", "odd"]
    assert (cards.labels[dealt["odd"]] % 2 == 1).all()
    assert_partition(list(dealt.values()), 30)


def test_numbered_names() -> None:
    assert list(IID(2).deal(hand(4), np.random.default_rng(0))) == ["client 0", "client 1"]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_by_code(codes: list[int]) -> None:
    expected = [[row for row, code in enumerate(codes) if code == wanted] for wanted in range(6)]
    assert [part.tolist() for part in by_code(np.array(codes, np.int64), 6)] == expected


@pytest.mark.parametrize("partition", [Dirichlet(3, 0.5), Pathological(3), Pachinko(3)])
def test_no_classes_to_split_by(partition: Partition) -> None:
    with pytest.raises(ConfigError, match=r'splits by class, but the target is no class.*"iid", "quantity"'):
        deal(partition, Hand(size=10))


def test_no_super_classes() -> None:
    with pytest.raises(ConfigError, match='Give the data an array "coarse"'):
        deal(Pachinko(3), Hand(size=4, labels=np.array([0, 1, 0, 1])))


def test_unknown_attribute() -> None:
    with pytest.raises(ConfigError, match=r'no attribute "pairity" to split by. Did you mean "parity"'):
        deal(Natural("pairity"), hand(4))
    with pytest.raises(ConfigError, match="These records have: none"):
        deal(Natural("x"), Hand(size=4))


@pytest.mark.parametrize(
    "build",
    [
        lambda: IID(0),
        lambda: Dirichlet(0, 1.0),
        lambda: Dirichlet(2, 0.0),
        lambda: Dirichlet(2, float("nan")),
        lambda: Dirichlet(2, 1.0, clusters=0),
        lambda: Pathological(2, 0),
        lambda: Pachinko(2, alpha=-1.0),
        lambda: Quantity(2, -0.1),
    ],
)
def test_settings_out_of_range(build: object) -> None:
    with pytest.raises(ConfigError, match=r" is .*Give "):
        build()  # type: ignore[operator]


def test_registered_kinds() -> None:
    assert {PARTITIONS.get(kind) for kind in PARTITIONS} >= {IID, Dirichlet, Pathological, Pachinko, Quantity, Natural}

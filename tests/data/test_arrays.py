"""The population in memory: how records are divided, fingerprints, who is asked what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.data.arrays import ArrayPopulation, divide
from rivage.data.population import ClientData, Samples, Schema
from rivage.simulation import Bernoulli

SHARES = st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.5, 0.9, 0.99])


@given(size=st.integers(0, 60), validation=SHARES, test=SHARES, seed=st.integers(0, 9), ordered=st.booleans())
def test_each_record_is_for_one_thing(size: int, validation: float, test: float, seed: int, ordered: bool) -> None:
    division = divide(size, np.random.default_rng(seed), validation=validation, test=test, ordered=ordered)
    parts = [division.train, division.validation, division.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(size))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert len(division.train) >= min(size, 1)
    if size and test < 0.9:
        assert abs(len(division.test) - test * size) <= 0.5
    if ordered and size:
        assert division.train.max() == len(division.train) - 1
        assert division.test.tolist() == list(range(size - len(division.test), size))


@given(st.lists(st.booleans(), max_size=40), st.booleans())
def test_records_set_aside_are_the_test_records(mask: list[bool], ordered: bool) -> None:
    aside = np.array(mask, bool)
    division = divide(len(mask), np.random.default_rng(0), validation=0.2, test=0.5, set_aside=aside, ordered=ordered)
    assert division.test.tolist() == np.flatnonzero(aside).tolist()
    assert len(division.train) >= min(1, np.count_nonzero(~aside))


def test_divided_by_hand() -> None:
    division = divide(10, np.random.default_rng(0), validation=0.25, test=0.2, ordered=True)
    assert division.train.tolist() == [0, 1, 2, 3, 4, 5]
    assert division.validation.tolist() == [6, 7]
    assert division.test.tolist() == [8, 9]


def population(**changes: object) -> ArrayPopulation:
    def samples(*rows: int) -> Samples:
        index = np.array(rows, np.int64)
        return Samples(index[:, None].astype(np.float32), index % 2, index)

    clients = tuple(
        ClientData(
            id=client,
            train=samples(*range(client + 1)),
            validation=samples(7),
            test=samples(8, 9),
            weight=client + 1.0,
        )
        for client in range(3)
    )
    schema = Schema(input_shape=(1,), target="class", num_classes=2)
    return ArrayPopulation(clients=clients, names=("a", "b", "c"), schema=schema, **changes)  # type: ignore[arg-type]


def test_what_it_answers() -> None:
    held = population()
    assert held.size == 3
    assert held.name(1) == "b"
    assert held.client(2) is held.client(2, round=9)
    assert held.sizes(np.array([2, 0])).tolist() == [3.0, 1.0]
    assert held.available(np.array([0, 2]), 0).tolist() == [True, True]
    assert held.completes(np.array([0, 2]), 0).all()
    assert held.setup == ()
    assert held.notes == {}


def test_availability_is_that_of_the_key() -> None:
    law, ids = Bernoulli(0.5, 0.5), np.arange(3)
    held = population(availability=law, key=11)
    for t in range(20):
        assert (held.available(ids, t) == law.available(11, ids, t)).all()
        assert (held.completes(ids, t) == law.completes(11, ids, t)).all()


def test_fingerprint_sees_every_number() -> None:
    held = population()
    assert held.fingerprint == population().fingerprint
    first = held.clients[0]
    changed = [
        replace(first, weight=2.0),
        replace(first, train=replace(first.train, x=first.train.x + 1)),
        replace(first, validation=replace(first.validation, y=1 - first.validation.y)),
        replace(first, test=replace(first.test, index=first.test.index + 1)),
        replace(first, test=replace(first.test, y=first.test.y.astype(np.int32))),
    ]
    prints = {replace(held, clients=(client, *held.clients[1:])).fingerprint for client in changed}
    prints |= {replace(held, names=("a", "b", "d")).fingerprint, population(key=1).fingerprint}
    prints.add(population(availability=Bernoulli(0.5)).fingerprint)
    assert len(prints | {held.fingerprint}) == 9


def test_records_taken_keep_their_identity() -> None:
    taken = population().client(2).train.take(np.array([2, 0]))
    assert taken.index.tolist() == [2, 0]
    assert taken.x[:, 0].tolist() == [2.0, 0.0]
    assert len(taken) == 2


def test_ids_count_from_zero() -> None:
    held = population()
    with pytest.raises(AssertionError, match="ids count from 0"):
        replace(held, clients=held.clients[::-1])

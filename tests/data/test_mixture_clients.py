"""Mixtures with test records on demand: the truth of `Mixture`, the same records whenever asked, no memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.data.build import build_population
from rivage.data.mixture_clients import DrawnSamples, MixtureOnDemand, MixturePopulation
from rivage.data.partition import IID
from rivage.data.population import Population
from rivage.data.synthetic import Mixture
from rivage.studies.settings import dump_study, parse_study

LAW = MixtureOnDemand(clients=12, features=8, noise=0.0, max_records=300, test_records=2_000)


def made(law: MixtureOnDemand = LAW, seed: int = 3, validation: float = 0.25) -> MixturePopulation:
    population = build_population(law, seed=seed, validation=validation)
    assert isinstance(population, MixturePopulation)
    assert isinstance(population, Population)
    return population


def test_truth_and_sizes_are_those_of_the_mixture() -> None:
    held, population = Mixture(**asdict(LAW)), made()
    assert np.array_equal(population.truth.components, held.truth(3).components)
    assert np.array_equal(population.truth.weights, held.truth(3).weights)
    data: Any = held.load(3)
    for client in range(12):
        part = population.client(client)
        assert len(part.train) + len(part.validation) == int((~data.test[data.clients == client]).sum())
        assert part.weight == len(part.train) == population.sizes(np.array([client]))[0]
        assert len(part.test) == 2_000
    assert population.schema == data.records.schema


def test_records_come_from_the_components_in_the_clients_shares() -> None:
    population = made()
    truth = population.truth
    for client in range(12):
        data = population.client(client)
        for part in (data.train, data.validation, data.test):
            votes = (part.x @ truth.components.T > 0).astype(int)
            assert (votes == part.y[:, None]).any(axis=1).all(), "some component explains each record"
        votes = (data.test.x @ truth.components.T > 0).astype(int)
        same = (votes[:, :, None] == votes[:, None, :]).mean(axis=0)
        agreement = (votes == data.test.y[:, None]).mean(axis=0)
        assert np.abs(agreement - same @ truth.weights[client]).max() < 4 * 0.5 / np.sqrt(2_000)


def test_records_are_the_same_whenever_they_are_asked_for() -> None:
    one, other = made(), made()
    for client in (7, 0, 7):
        for name in ("train", "validation", "test"):
            mine, yours = getattr(one.client(client, 5), name), getattr(other.client(client), name)
            assert np.array_equal(mine.x, yours.x)
            assert np.array_equal(mine.y, yours.y)
            assert np.array_equal(mine.index, yours.index)
    assert not np.array_equal(one.client(0).test.x[:100], one.client(1).test.x[:100])
    assert not np.array_equal(one.client(0).test.x[0], one.client(0).train.x[0])
    assert one.fingerprint == other.fingerprint != made(seed=4).fingerprint
    more = made(MixtureOnDemand(**{**asdict(LAW), "test_records": 5}))
    assert np.array_equal(more.client(2).train.x, one.client(2).train.x), "tests do not move what is trained on"


def test_rows_can_be_taken_of_drawn_records() -> None:
    test = made().client(0).test
    some = test.take(np.array([5, 2]))
    assert np.array_equal(some.x, test.x[[5, 2]])
    assert some.index.tolist() == [5, 2]


def test_test_records_take_memory_only_while_somebody_looks() -> None:
    """12 clients with 20,000 test records of 50 numbers: 48 MB if all were held, 4 MB for one."""
    population = made(MixtureOnDemand(clients=12, features=50, max_records=300, test_records=20_000))
    clients = [population.client(id) for id in range(12)]
    assert all(isinstance(client.test, DrawnSamples) for client in clients)
    tracemalloc.start()
    for id in range(12):
        assert population.client(id).test.x.shape == (20_000, 50)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after < 2e6
    assert peak < 40e6, "one client and what drawing it takes"


def test_a_study_names_it() -> None:
    text = 'name = "m"\n[data]\nkind = "mixture"\nclients = 4\n[[methods]]\nkind = "local"\n'
    study = parse_study(text)
    assert study.data == MixtureOnDemand(clients=4)
    assert dump_study(study)["data"]["kind"] == "mixture"


def test_it_makes_its_own_clients() -> None:
    with pytest.raises(ConfigError, match="makes its own clients"):
        build_population(LAW, partition=IID(clients=3), seed=0)
    with pytest.raises(ConfigError, match="alpha is 0"):
        MixtureOnDemand(alpha=0.0)

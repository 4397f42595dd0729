"""From a source to a population: pairing by seed, what is refused, what is skipped."""

from __future__ import annotations

import numpy as np
import pytest

from rivage.core.errors import ConfigError, DataError
from rivage.core.settings import dump, read
from rivage.data.build import DATASETS, PopulationSource, build_population
from rivage.data.dataset import Columns, Dataset, dataset_of
from rivage.data.generative import Generative
from rivage.data.partition import IID, Dirichlet, Natural
from rivage.data.readers import Digits
from rivage.data.shifts import ConceptShift, FeatureShift
from rivage.data.synthetic import Linear
from rivage.simulation import Bernoulli, Markov


class Given:
    """A source that hands over what it was given."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def load(self, seed: int) -> Dataset:
        return self.dataset


def numbered(size: int = 40, **placed: object) -> Given:
    """Records whose only input is their number."""
    return Given(dataset_of(np.arange(size)[:, None], np.arange(size) % 4, source="numbers", **placed))


def everything(population: object, id: int) -> np.ndarray:
    client = population.client(id)  # type: ignore[attr-defined]
    return np.concatenate([part.x[:, 0] for part in (client.train, client.validation, client.test)])


def test_every_record_goes_to_one_client_and_one_use() -> None:
    held = build_population(numbered(), partition=Dirichlet(5, 0.5), seed=3)
    records = np.concatenate([everything(held, id) for id in range(held.size)])
    assert np.sort(records).tolist() == list(range(40))
    for id in range(held.size):
        client = held.client(id)
        index = np.concatenate([part.index for part in (client.train, client.validation, client.test)])
        assert np.sort(index).tolist() == list(range(len(index)))
        assert client.weight == len(client.train) == held.sizes(np.array([id]))[0]
        assert client.id == id


def test_the_seed_alone_decides() -> None:
    one, same, other = (build_population(numbered(), partition=IID(4), seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_availability_changes_no_record() -> None:
    one = build_population(numbered(), partition=IID(4), seed=1)
    other = build_population(numbered(), partition=IID(4), availability=Markov(0.5, 0.3), seed=1)
    assert all(np.array_equal(everything(one, id), everything(other, id)) for id in range(4))
    assert not all(other.available(np.arange(4), t).all() for t in range(9))


def test_two_seeds_have_two_availabilities() -> None:
    ids = np.arange(4)
    one, other = (
        build_population(numbered(), partition=IID(4), availability=Bernoulli(0.5), seed=seed) for seed in (1, 2)
    )
    assert any((one.available(ids, t) != other.available(ids, t)).any() for t in range(9))


def test_a_division_depends_on_no_other_client() -> None:
    clients = np.repeat([0, 1, 2], [10, 12, 18])
    names = ("a", "b", "c")
    before = build_population(numbered(clients=clients, names=names), seed=5)
    after = build_population(numbered(size=41, clients=np.append(clients, 2), names=names), seed=5)
    assert np.array_equal(before.client(1).test.index, after.client(1).test.index)
    assert np.array_equal(before.client(1).train.x, after.client(1).train.x)


def test_clients_of_equal_size_are_divided_differently() -> None:
    held = build_population(numbered(), partition=IID(4), seed=0)
    assert len({tuple(held.client(id).test.index) for id in range(4)}) > 1


def test_clients_without_records_are_skipped_and_counted() -> None:
    held = build_population(numbered(6), partition=IID(10), seed=0)
    assert held.size == 6
    assert held.notes["skipped_clients"] == 4
    assert "skipped_clients" not in build_population(numbered(), partition=IID(4), seed=0).notes


def test_clients_with_nothing_but_test_records_are_skipped() -> None:
    source = numbered(6, clients=np.array([0, 0, 0, 1, 1, 1]), names=("a", "b"), test=np.arange(6) > 2)
    held = build_population(source, seed=0)
    assert [held.name(id) for id in range(held.size)] == ["a"]
    with pytest.raises(DataError, match="numbers: no client has a training record"):
        build_population(numbered(6, clients=np.zeros(6, int), names=("a",), test=np.ones(6, bool)), seed=0)


def test_published_test_records_stay_so() -> None:
    aside = np.arange(40) % 5 == 0
    held = build_population(numbered(test=aside), partition=IID(3), seed=0, test=0.5)
    tested = np.concatenate([held.client(id).test.x[:, 0] for id in range(3)])
    assert np.sort(tested).tolist() == np.flatnonzero(aside).tolist()


def test_ordered_records_validate_on_the_last() -> None:
    held = build_population(numbered(ordered=True, clients=np.zeros(40, int), names=("a",)), seed=0)
    client = held.client(0)
    assert client.train.x.max() < client.validation.x.min()
    assert client.validation.x.max() < client.test.x.min()


def test_natural_clients_unless_a_partition_is_given() -> None:
    placed = {"attributes": {"parity": np.array(["even", "odd"] * 20)}, "natural": "parity"}
    assert build_population(numbered(**placed), seed=0).name(1) == "odd"
    assert build_population(numbered(**placed), partition=IID(5), seed=0).size == 5
    assert build_population(numbered(**placed), partition=Natural("parity"), seed=0).size == 2


def test_treated_columns_reach_the_clients() -> None:
    columns = Columns(columns={"a": np.arange(20.0)}, target=np.arange(20.0) % 2, target_name="y", target_type="class")
    held = build_population(Given(Dataset(source="columns", records=columns)), partition=IID(2), seed=0)
    trained = np.concatenate([held.client(id).train.x for id in range(2)])
    assert np.allclose([trained.mean(), trained.std()], [0, 1], atol=1e-6)
    assert len(held.setup) == 16
    assert [message.receiver for message in held.setup[2:4]] == ["client:0", "client:1"]


def test_shifted_clients_are_shifted_in_all_their_records() -> None:
    plain = build_population(numbered(), partition=IID(4), seed=0)
    shifted = build_population(numbered(), partition=IID(4), shift=ConceptShift(0.5, offset=1), seed=0)
    moved = 0
    for id in range(4):
        parts = [
            (getattr(held.client(id), name).y for held in (plain, shifted)) for name in ("train", "validation", "test")
        ]
        offsets = {int(offset) for before, after in parts for offset in (after - before) % 4}
        assert len(offsets) == 1
        moved += offsets == {1}
        assert np.array_equal(everything(plain, id), everything(shifted, id))
    assert moved == 2


def test_a_feature_shift_of_images() -> None:
    held = build_population(Digits(image=True), partition=IID(3), shift=FeatureShift(rotation=40.0), seed=0)
    assert held.client(0).train.x.shape[1:] == (1, 8, 8)


def test_refusals() -> None:
    with pytest.raises(
        ConfigError, match=r"numbers is not split into clients. Add \[partition\] with one of the kinds"
    ):
        build_population(numbered(), seed=0)
    with pytest.raises(ConfigError, match=r"\[partition\]: linear is split into 20 clients already. Remove"):
        build_population(Linear(), partition=IID(2), seed=0)
    with pytest.raises(ConfigError, match=r"\[shift\] cannot be used: a population makes its own clients"):
        build_population(Generative(10), shift=ConceptShift(), seed=0)
    with pytest.raises(ConfigError, match="validation is 1"):
        build_population(Linear(), seed=0, validation=1)
    with pytest.raises(ConfigError, match=r"test is -0.1"):
        build_population(Linear(), seed=0, test=-0.1)


def test_records_are_checked() -> None:
    x = np.array([[0.0], [np.nan], [1.0], [2.0]])
    with pytest.raises(DataError, match="bad, record 1: input is nan in column 0"):
        build_population(Given(dataset_of(x, [0, 1, 0, 1], source="bad")), partition=IID(2), seed=0)


def test_a_population_source_makes_its_own() -> None:
    assert isinstance(Generative(10), PopulationSource)
    assert not isinstance(Linear(), PopulationSource)
    held = build_population(Generative(10), availability=Bernoulli(0.5), seed=0, validation=0.0, test=0.5)
    assert held.size == 10
    assert len(held.client(3).validation) == 0


REQUIRED = {
    "arrays": {"path": "d.npz"},
    "population": {"size": 7},
    "python": {"function": "my_pkg.data:make", "options": {"n": 3}},
    "tables": {"folder": "sites", "target": "ill", "ignore": ["id"]},
}


@pytest.mark.parametrize("kind", sorted(DATASETS))
def test_settings_of_every_kind_survive_a_file(kind: str) -> None:
    cls = DATASETS.get(kind)
    settings = read(cls, REQUIRED.get(kind, {}))
    assert read(cls, dump(settings)) == settings
    assert hasattr(cls, "load") or hasattr(cls, "population")

"""A user's own arrays and functions."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError, DataError
from rivage.data.build import build_population
from rivage.data.dataset import dataset_of
from rivage.data.own import NpzFile, PythonFunction
from rivage.data.partition import IID, Pachinko
from rivage.data.synthetic import Linear
from rivage.simulation import Bernoulli

X, Y = np.arange(60.0).reshape(20, 3), np.arange(20) % 2


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


def test_arrays_to_be_split(tmp_path: Path) -> None:
    held = build_population(NpzFile(saved(tmp_path, x=X, y=Y)), partition=IID(4), seed=0)
    assert held.size == 4
    assert sum(len(held.client(client).train) for client in range(4)) == 4 * 3


def test_arrays_that_are_split(tmp_path: Path) -> None:
    client = np.array(["b", "a"] * 10)
    path = saved(tmp_path, x=X, y=Y.astype(str), client=client, test=np.arange(20) >= 15)
    held = build_population(NpzFile(path), seed=0, validation=0.0)
    assert [held.name(id) for id in range(2)] == ["a", "b"]
    assert held.client(0).test.x[:, 0].tolist() == [45.0, 51.0, 57.0]
    assert held.client(0).train.y.tolist() == [1] * 7
    with pytest.raises(ConfigError, match=r"is split into 2 clients already"):
        build_population(NpzFile(path), partition=IID(2), seed=0)


def test_super_classes_for_pachinko(tmp_path: Path) -> None:
    path = saved(tmp_path, x=X, y=np.arange(20) % 4, coarse=np.array(["u", "v"])[np.arange(20) % 2])
    assert build_population(NpzFile(path), partition=Pachinko(2), seed=0).size == 2


def test_target_type_of_whole_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path, x=X, y=Y)
    assert NpzFile(path, "real").load(0).records.schema.target == "real"


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": X}, 'there is no array "y". It holds: x.'),
        ({"X": X, "y": Y}, 'there is no array "x". It holds: X, y.'),
        ({}, 'there is no array "x". It holds: nothing.'),
        ({"x": X, "y": Y, "client": np.zeros(3)}, 'array "client" has shape (3,). Give one value for each of the 20'),
        ({"x": np.array([{}] * 20), "y": Y}, "the file cannot be read (Object arrays cannot be loaded"),
    ],
)
def test_files_that_lack_something(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(DataError) as caught:
        NpzFile(saved(tmp_path, **arrays)).load(0)
    assert text in str(caught.value)
    assert 'arrays "' in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip", pickle.dumps(1), b"PK\x03\x04broken"])
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"the file cannot be read .* Write it with numpy\.savez"):
        NpzFile(tmp_path / "d.npz").load(0)


def test_a_single_array_in_npy_format(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(DataError, match="the file cannot be read"):
        NpzFile(tmp_path / "d.npy").load(0)


def test_no_file() -> None:
    with pytest.raises(DataError, match=r'\[data\] path: there is no file "nowhere.npz"'):
        NpzFile(Path("nowhere.npz")).load(0)


def pair(*, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return X + seed, Y


def sites(*, seed: int, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {f"site {number}": (X[: number + 5], Y[: number + 5]) for number in range(count)}


def dataset(*, seed: int) -> Any:
    return dataset_of(X, Y, source="mine", attributes={"half": np.arange(20) // 10}, natural="half")


def population(*, seed: int) -> Any:
    return build_population(Linear(clients=3), seed=seed)


def nothing(*, seed: int) -> None:
    return None


def broken(*, seed: int, how: str) -> Any:
    return {
        "lengths": {"a": (X, Y[:3])},
        "shapes": {"a": (X, Y), "b": (X[:, :2], Y)},
        "empty": {"a": (X, Y), "b": (X[:0], Y[:0])},
        "no pair": {"a": X},
    }[how]


HERE = __name__


def test_a_pair_of_arrays() -> None:
    held = build_population(PythonFunction(f"{HERE}:pair"), partition=IID(1), seed=7, test=0.0, validation=0.0)
    assert np.sort(held.client(0).train.x[:, 0]).tolist() == (X[:, 0] + 7).tolist()


def test_one_pair_per_client() -> None:
    held = build_population(PythonFunction(f"{HERE}:sites", {"count": 3}), seed=0)
    assert held.size == 3
    assert held.name(2) == "site 2"
    assert sum(len(part) for part in (held.client(2).train, held.client(2).validation, held.client(2).test)) == 7


def test_a_dataset_with_natural_clients() -> None:
    held = build_population(PythonFunction(f"{HERE}:dataset"), seed=0)
    assert [held.name(id) for id in range(held.size)] == ["0", "1"]


def test_a_population_passes_through_untouched() -> None:
    source = PythonFunction(f"{HERE}:population")
    assert build_population(source, seed=4).fingerprint == population(seed=4).fingerprint
    with pytest.raises(ConfigError, match=r"\[partition\] cannot be used: the function returned a population"):
        build_population(source, partition=IID(2), seed=4)
    with pytest.raises(ConfigError, match=r"\[availability\]: .* answers for its own availability"):
        build_population(source, availability=Bernoulli(0.5), seed=4)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("lengths", 'client "a": no pair (x, y) of equal length'),
        ("empty", 'client "b": no pair (x, y) of equal length'),
        ("no pair", 'client "a": no pair (x, y) of equal length'),
        ("shapes", 'client "b": records have shapes (2,) and (), those of the first client (3,) and ()'),
    ],
)
def test_clients_that_do_not_fit(how: str, text: str) -> None:
    with pytest.raises(DataError) as caught:
        PythonFunction(f"{HERE}:broken", {"how": how}).load(0)
    assert text in str(caught.value)


def test_functions_that_return_something_else() -> None:
    with pytest.raises(DataError, match="the function returned NoneType"):
        PythonFunction(f"{HERE}:nothing").load(0)


def test_functions_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match=r'\[data\] function: .* has no "pear". Did you mean "pair"'):
        PythonFunction(f"{HERE}:pear").load(0)

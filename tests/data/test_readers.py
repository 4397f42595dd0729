"""Published data sets: sizes and preparations as their publishers state them, and what is said when files lack."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from rivage.core.errors import ConfigError, DataError
from rivage.data.build import build_population
from rivage.data.images import MNIST, read_idx
from rivage.data.partition import IID, Dirichlet, Natural
from rivage.data.readers import Adult, BreastCancer, Digits, HeartDisease, Insurance


def test_digits() -> None:
    records = Digits().load(0).records
    assert records.x.shape == (1797, 64)
    assert (records.x.min(), records.x.max()) == (0.0, 1.0)
    assert records.schema.num_classes == 10
    assert np.array_equal(Digits(image=True).load(0).records.x.reshape(-1, 64), records.x)


def test_breast_cancer_is_scaled_by_the_federation() -> None:
    held = build_population(BreastCancer(), partition=IID(4), seed=0)
    assert held.schema.classes == ("benign", "malignant")
    assert len(held.schema.features) == 30
    train = np.concatenate([held.client(id).train.x for id in range(4)])
    assert np.allclose(train.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(train.std(axis=0), 1, atol=1e-5)
    y = np.concatenate(
        [getattr(held.client(id), part).y for id in range(4) for part in ("train", "validation", "test")]
    )
    assert np.bincount(y).tolist() == [357, 212]


def test_mnist(data_root: Path) -> None:
    records = MNIST().load(0).records
    assert records.x.shape == (10_000, 1, 28, 28)
    assert records.x.dtype == np.float32
    assert abs(records.x.mean() - 0.13251) < 1e-5
    assert np.bincount(records.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def test_other_files_in_mnist_format(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "images").write_bytes(idx(images))
    (tmp_path / "labels.gz").write_bytes(gzip.compress(idx(np.array([7, 3], np.uint8))))
    records = MNIST(tmp_path, "images", "labels.gz").load(0).records
    assert np.allclose(records.x[:, 0] * 255, images)
    assert records.schema.classes == ("3", "7")
    with pytest.raises(ConfigError, match="images and labels belong together"):
        MNIST(tmp_path, images="images")
    with pytest.raises(DataError, match=r'\[data\]: there is no file ".*lost"'):
        MNIST(tmp_path, "images", "lost").load(0)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x05abc", idx(np.zeros((2, 2), np.uint8))])
def test_files_in_another_format(content: bytes) -> None:
    with pytest.raises(DataError, match="somewhere: no IDX file of bytes with 1 dimensions"):
        read_idx(content, 1, where="somewhere")


def test_a_broken_gzip_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(b"x" * 100)[:-9])
    with pytest.raises(DataError, match="the gzip file is broken"):
        MNIST(tmp_path, "a", "a").load(0)


def test_heart_disease_is_flambys(data_root: Path) -> None:
    """Train and test sizes, positives and standardisation of the four hospitals as published."""
    held = build_population(HeartDisease(), seed=0, validation=0.0)
    clients = [held.client(id) for id in range(held.size)]
    assert [held.name(id) for id in range(4)] == ["Cleveland", "Hungary", "Switzerland", "VA Long Beach"]
    assert [(len(c.train), len(c.test)) for c in clients] == [(199, 104), (172, 89), (30, 16), (85, 45)]
    assert [int(c.train.y.sum() + c.test.y.sum()) for c in clients] == [139, 98, 45, 101]
    assert held.schema.features[-5:] == ("cp=2", "cp=3", "cp=4", "restecg=1", "restecg=2")
    for client in clients:
        assert client.train.x.shape[1] == 13
        deviation = client.train.x.std(axis=0)
        assert np.allclose(client.train.x.mean(axis=0), 0, atol=1e-5)
        assert np.allclose(deviation[deviation > 0], 1, atol=1e-4)
    # The hidden missing value: cholesterol is 0 everywhere in Switzerland.
    assert np.flatnonzero(clients[2].train.x.std(axis=0) == 0).tolist() == [3]
    strata = [client.test.y.mean() - client.train.y.mean() for client in clients]
    assert np.abs(np.delete(strata, 2)).max() < 0.01


def test_heart_disease_is_divided_alike_at_every_seed(data_root: Path) -> None:
    one, other = (build_population(HeartDisease(), seed=seed, validation=0.0) for seed in (0, 1))
    assert all(np.array_equal(one.client(id).test.x, other.client(id).test.x) for id in range(4))
    with_validation = build_population(HeartDisease(), seed=0)
    assert len(with_validation.client(0).validation) == 30
    assert np.array_equal(with_validation.client(0).test.x, one.client(0).test.x)


def test_adult(data_root: Path) -> None:
    held = build_population(Adult(), seed=0)
    clients = [held.client(id) for id in range(held.size)]
    assert held.size == 16
    assert "Bachelors" in {held.name(id) for id in range(16)}
    assert sum(len(c.test) for c in clients) == 16_281
    assert sum(int(c.test.y.sum()) for c in clients) == 3_846
    assert sum(len(c.train) + len(c.validation) for c in clients) == 32_561
    assert held.schema.classes == ("<=50K", ">50K")
    assert not any(name.startswith(("fnlwgt", "education=")) for name in held.schema.features)
    assert sum(name.startswith("native-country=") for name in held.schema.features) <= 41


def test_adult_split_otherwise(data_root: Path) -> None:
    by_occupation = build_population(Adult(), partition=Natural("occupation"), seed=0)
    assert by_occupation.size == 15
    assert by_occupation.name(14) == "unknown"
    assert build_population(Adult(), partition=Dirichlet(30, 0.5), seed=0).size == 30
    with pytest.raises(ConfigError, match=r'no attribute "ocupation" to split by\. Did you mean "occupation"'):
        build_population(Adult(), partition=Natural("ocupation"), seed=0)
    with pytest.raises(ConfigError, match='no attribute "income"'):
        build_population(Adult(), partition=Natural("income"), seed=0)


def test_insurance(data_root: Path) -> None:
    held = build_population(Insurance(), seed=0, validation=0.0, test=0.0)
    assert [held.name(id) for id in range(4)] == ["northeast", "northwest", "southeast", "southwest"]
    assert held.sizes(np.arange(4)).tolist() == [324, 325, 364, 325]
    assert held.notes["target"]["mean"] == pytest.approx(13_270.42, abs=0.01)
    assert held.schema.target == "real"
    assert {"smoker=no", "smoker=yes", "bmi"} <= set(held.schema.features)


def test_files_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RIVAGE_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        Insurance().load(0)
    assert str(caught.value) == (
        '[data]: kind "insurance" needs files that are not there: insurance.csv '
        "(sha256 505c1cbc2e63d0363bac59501563df2530aadf4cdb9cfee226f4ef32f5468281). Get them from "
        "github.com/stedy/Machine-Learning-with-R-datasets, insurance.csv (B. Lantz, Machine Learning with R) and put "
        "them into a folder named by [data] folder or, below RIVAGE_DATA, insurance/."
    )
    assert caught.value.exit_code == 2
    monkeypatch.setenv("RIVAGE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r'adult\.data .*adult\.test .*put them into ".*adult"'):
        Adult().load(0)
    with pytest.raises(DataError, match="the MNIST database"):
        MNIST().load(0)


def test_a_folder_of_ones_own_comes_first(data_root: Path, tmp_path: Path) -> None:
    shutil.copy(data_root / "insurance" / "insurance.csv", tmp_path)
    assert len(Insurance(tmp_path).load(0)) == 1_338


def test_altered_files_are_refused(data_root: Path, tmp_path: Path) -> None:
    for file in (data_root / "heart-disease").glob("*.data"):
        shutil.copy(file, tmp_path)
    with (tmp_path / "processed.va.data").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"processed\.va\.data: the content has sha256 .* the published file has e7c9"):
        HeartDisease(tmp_path).load(0)


def test_an_altered_image_is_refused(data_root: Path, tmp_path: Path) -> None:
    for file in (data_root / "mnist-t10k").glob("*.gz"):
        content = bytearray(gzip.decompress(file.read_bytes()))
        content[-1] ^= 1
        (tmp_path / file.name).write_bytes(gzip.compress(bytes(content), 1))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: the content has sha256"):
        MNIST(tmp_path).load(0)


def test_the_same_content_in_another_gzip_file_is_accepted(data_root: Path, tmp_path: Path) -> None:
    for file in (data_root / "mnist-t10k").glob("*.gz"):
        (tmp_path / file.name).write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), 1))
    assert len(MNIST(tmp_path).load(0)) == 10_000

"""Published data: digits and breast cancer from scikit-learn, and tables in files the user has.

Nothing is shipped and nothing is downloaded; the files are checked against their known hashes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from numpy import ndarray

from rivage.core.errors import require_extra
from rivage.data.dataset import Arrays, Columns, Dataset, dataset_of
from rivage.data.files import Publication
from rivage.data.population import Schema

__all__ = ["Adult", "BreastCancer", "Digits", "HeartDisease", "Insurance"]


@dataclass(frozen=True, slots=True)
class Digits:
    """1,797 images 8 x 8 of ten handwritten digits, which come with scikit-learn; pixels in [0, 1].

    Args:
        image: keep images of shape (1, 8, 8), for convolutions and rotations, instead of vectors of 64.
    """

    image: bool = False

    def load(self, seed: int) -> Dataset:
        """Read them; ``seed`` is not used."""
        sklearn = require_extra("sklearn.datasets", extra="train", purpose='data of kind "digits"')
        pixels, digits = sklearn.load_digits(return_X_y=True)
        x = (pixels / 16).astype(np.float32)
        return dataset_of(x.reshape(-1, 1, 8, 8) if self.image else x, digits, source="digits")


@dataclass(frozen=True, slots=True)
class BreastCancer:
    """569 biopsies with 30 measurements, malignant or benign, which come with scikit-learn."""

    def load(self, seed: int) -> Dataset:
        """Read them; ``seed`` is not used."""
        sklearn = require_extra("sklearn.datasets", extra="train", purpose='data of kind "breast_cancer"')
        bunch = sklearn.load_breast_cancer()
        names = [str(name) for name in bunch.feature_names]
        diagnosis = np.array([str(bunch.target_names[code]) for code in bunch.target], object)
        return Dataset(
            source="breast_cancer",
            records=Columns(
                columns=dict(zip(names, bunch.data.T, strict=True)),
                target=diagnosis,
                target_name="diagnosis",
                target_type="class",
            ),
        )


_HEART = Publication(
    "heart_disease",
    "heart-disease",
    "the UCI Machine Learning Repository, Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano, 1988)",
    {
        "processed.cleveland.data": "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
        "processed.hungarian.data": "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
        "processed.switzerland.data": "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
        "processed.va.data": "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
    },
)
_HEART_NUMBERS = ("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak")
_HEART_COLUMNS = (0, 1, 3, 4, 5, 7, 8, 9)  # of these; 10-12 (slope, ca, thal) are mostly missing and dropped
_HEART_CATEGORIES = (("cp", 2, (2, 3, 4)), ("restecg", 6, (1, 2)))  # first level dropped
_HEART_SEED = 43  # FLamby's, so that the hospitals have its 199/104, 172/89, 30/16 and 85/45 records


@dataclass(frozen=True, slots=True)
class HeartDisease:
    """Four hospitals: is there a heart disease? Prepared and divided as Fed-Heart-Disease of FLamby.

    Columns 10-12 are dropped, then rows with a missing value (740 stay); 13 features, each standardised
    with mean and standard deviation (+ 1e-9) of the hospital's own training records. 66 % train, 34 % test,
    stratified unless a class has two rows or fewer. Validation records come out of the training part; they
    have had a say in the standardisation. Switzerland has one healthy patient among 46: accuracy there says
    little.

    Args:
        folder: where the ``processed.*.data`` files are; left out, ``heart-disease`` below RIVAGE_DATA.

    References:
        Ogier du Terrail et al. FLamby: datasets and benchmarks for cross-silo federated learning in realistic
        healthcare settings. NeurIPS 2022, arXiv 2210.04620.
    """

    folder: Path | None = None

    def load(self, seed: int) -> Dataset:
        """Read the four files; the division is the published one whatever the seed.

        Raises:
            DataError: if a file is missing or altered.
        """
        hospitals = [_hospital(_HEART.read(self.folder, name)) for name in _HEART.hashes]
        inputs, targets, tests = zip(*hospitals, strict=True)
        features = _HEART_NUMBERS + tuple(f"{name}={level}" for name, _, ls in _HEART_CATEGORIES for level in ls)
        schema = Schema(
            input_shape=(len(features),),
            target="class",
            num_classes=2,
            features=features,
            classes=("healthy", "disease"),
        )
        return Dataset(
            source="heart_disease",
            records=Arrays(np.concatenate(inputs).astype(np.float32), np.concatenate(targets), schema),
            clients=np.repeat(np.arange(len(hospitals)), [len(target) for target in targets]),
            names=("Cleveland", "Hungary", "Switzerland", "VA Long Beach"),
            test=np.concatenate(tests),
        )


def _hospital(content: bytes) -> tuple[Float64[ndarray, "n 13"], Shaped[ndarray, "n"], Bool[ndarray, "n"]]:
    """Inputs, targets and test mask of one file."""
    table = np.genfromtxt(io.BytesIO(content), delimiter=",", missing_values="?", filling_values=np.nan)
    table = table[~np.isnan(np.delete(table, [10, 11, 12], axis=1)).any(axis=1)]
    y = (table[:, 13] > 0).astype(np.int64)
    dummies = [table[:, [column]] == levels for _, column, levels in _HEART_CATEGORIES]
    x = np.concatenate([table[:, _HEART_COLUMNS], *dummies], axis=1)
    train, test = _flamby_division(y)
    x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-9)
    mask = np.zeros(len(y), bool)
    mask[test] = True
    return x, y, mask


def _flamby_division(y: Shaped[ndarray, "n"]) -> Sequence[Shaped[ndarray, "_"]]:
    selection = require_extra(
        "sklearn.model_selection", extra="train", purpose='the published division of "heart_disease"'
    )
    rows: Sequence[Shaped[ndarray, "_"]] = selection.train_test_split(
        np.arange(len(y)),
        train_size=0.66,
        test_size=1 - 0.66,
        random_state=_HEART_SEED,
        stratify=y if np.bincount(y, minlength=2).min() > 2 else None,
    )
    return rows


_ADULT = Publication(
    "adult",
    "adult",
    "the UCI Machine Learning Repository, Adult (Becker, Kohavi, 1996)",
    {
        "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
    },
)
_ADULT_COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
]
_ADULT_NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
_ADULT_DROPPED = ("fnlwgt", "education", "income")  # a sampling weight; the same as education-num; the target


@dataclass(frozen=True, slots=True)
class Adult:
    """48,842 people of the 1994 US census: does their income exceed 50,000 dollars a year?

    Split by ``education`` (16 clients) unless a partition is given; ``natural`` can split by any text
    column. The published test part stays the test part of each client.

    Args:
        folder: where ``adult.data`` and ``adult.test`` are; left out, ``adult`` below RIVAGE_DATA.
    """

    folder: Path | None = None

    def load(self, seed: int) -> Dataset:
        """Read both files; ``seed`` is not used.

        Raises:
            DataError: if a file is missing or altered.
        """
        parts = [_adult_rows(_ADULT.read(self.folder, name)) for name in _ADULT.hashes]
        columns = _columns([row for part in parts for row in part], _ADULT_COLUMNS, _ADULT_NUMBERS)
        return Dataset(
            source="adult",
            records=Columns(
                columns={name: column for name, column in columns.items() if name not in _ADULT_DROPPED},
                target=columns["income"],
                target_name="income",
                target_type="class",
            ),
            test=np.repeat([False, True], [len(part) for part in parts]),
            attributes=_attributes(columns, without="income"),
            natural="education",
        )


def _adult_rows(content: bytes) -> list[list[str]]:
    """The fields of each person; the test part starts with a comment and ends its labels with a dot."""
    lines = content.decode("ascii").splitlines()
    return [line.rstrip(".").split(", ") for line in lines if line and not line.startswith("|")]


_INSURANCE = Publication(
    "insurance",
    "insurance",
    "github.com/stedy/Machine-Learning-with-R-datasets, insurance.csv (B. Lantz, Machine Learning with R)",
    {"insurance.csv": "505c1cbc2e63d0363bac59501563df2530aadf4cdb9cfee226f4ef32f5468281"},
)
_INSURANCE_NUMBERS = ("age", "bmi", "children", "charges")


@dataclass(frozen=True, slots=True)
class Insurance:
    """1,338 insured people: what does their health care cost? Split by region unless a partition is given.

    Args:
        folder: where ``insurance.csv`` is; left out, ``insurance`` below RIVAGE_DATA.
    """

    folder: Path | None = None

    def load(self, seed: int) -> Dataset:
        """Read the file; ``seed`` is not used.

        Raises:
            DataError: if the file is missing or altered.
        """
        content = _INSURANCE.read(self.folder, "insurance.csv").decode("ascii")
        names, *rows = csv.reader(io.StringIO(content))
        columns = _columns(rows, names, _INSURANCE_NUMBERS)
        charges = columns.pop("charges")
        return Dataset(
            source="insurance",
            records=Columns(columns=columns, target=charges, target_name="charges", target_type="real"),
            attributes=_attributes(columns),
            natural="region",
        )


def _columns(
    rows: Sequence[Sequence[str]], names: Sequence[str], numbers: Sequence[str]
) -> dict[str, Shaped[ndarray, "n"]]:
    """Fields by column: float64 where they are numbers, else objects with None for ``?``."""
    columns: dict[str, Shaped[ndarray, "n"]] = {}
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        if name in numbers:
            columns[name] = np.array(values, np.float64)
        else:
            columns[name] = np.array([None if value == "?" else value for value in values], object)
    return columns


def _attributes(
    columns: dict[str, Shaped[ndarray, "n"]], *, without: Literal["income", ""] = ""
) -> dict[str, Shaped[ndarray, "n"]]:
    """Text columns to split by; what is missing is a group of its own."""
    return {
        name: np.where(np.equal(column, np.array(None)), "unknown", column).astype(str)
        for name, column in columns.items()
        if column.dtype == object and name != without
    }

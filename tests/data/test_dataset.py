"""Records as sources hand them over: schemas read off arrays, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rivage.core.errors import ConfigError, DataError
from rivage.data.dataset import Columns, as_text, dataset_of, require_share

X = np.arange(12.0).reshape(4, 3)


def test_classes_by_value() -> None:
    data = dataset_of(X, np.array(["b", "a", "b", "c"]), source="s")
    assert data.records.schema.classes == ("a", "b", "c")
    assert data.records.schema.num_classes == 3
    assert data.records.y.tolist() == [1, 0, 1, 2]
    assert data.records.y.dtype == np.int64
    assert data.records.x.dtype == np.float32
    assert data.records.labels is data.records.y


def test_numbers_of_classes_need_not_be_contiguous() -> None:
    data = dataset_of(X, np.array([7, -1, 7, 30]), source="s")
    assert data.records.y.tolist() == [1, 0, 1, 2]
    assert data.records.schema.classes == ("-1", "7", "30")


def test_reals() -> None:
    one = dataset_of(X, np.array([0.5, 1, 2, 3]), source="s")
    assert one.records.schema.target == "real"
    assert one.records.schema.num_outputs == 1
    assert one.records.labels is None
    assert dataset_of(X, X, source="s").records.schema.num_outputs == 3
    assert dataset_of(X, np.array([1, 2, 3, 4]), source="s", target_type="real").records.y.dtype == np.float32


def test_tokens() -> None:
    tokens = np.array([[0, 3], [1, 2]], np.uint8)
    data = dataset_of(tokens, tokens, source="s")
    assert data.records.schema.target == "tokens"
    assert data.records.schema.num_classes == 4
    assert data.records.x.dtype == np.int64


def test_images_keep_their_shape() -> None:
    assert dataset_of(np.zeros((4, 1, 8, 8)), [0, 1, 0, 1], source="s").records.schema.input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("x", "y", "kind", "text"),
    [
        (np.array([["a"]] * 4), np.zeros(4), None, "x has type"),
        (X, np.array([None] * 4), None, "y has type object"),
        (X, np.zeros(3), None, r"x has shape \(4, 3\) and y has shape \(3,\)"),
        (np.zeros(4), np.zeros(4), None, r"x has shape \(4,\)"),
        (X, np.zeros((4, 2), int), None, r"classes have shape \(4, 2\)"),
        (X, np.array([0, 1, np.nan, 1]), "class", "record 2: target is nan"),
        (X, np.array(["a"] * 4), "real", "real targets have type"),
        (X, np.zeros((4, 3), int), "tokens", "tokens have types float64"),
        (np.full((4, 3), -1), np.zeros((4, 3), int), "tokens", "integers from 0"),
    ],
)
def test_arrays_that_do_not_fit(x: np.ndarray, y: np.ndarray, kind: str | None, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        dataset_of(x, y, source="s", target_type=kind)
    assert str(caught.value).startswith("s")


def test_infinite_input_is_named_by_client_record_and_column() -> None:
    x = X.copy()
    x[3, 1] = np.inf
    data = dataset_of(
        x, [0, 1, 0, 1], source="s", features=("a", "b", "c"), clients=np.array([0, 1, 0, 1]), names=("u", "v")
    )
    with pytest.raises(DataError) as caught:
        data.validate()
    assert str(caught.value) == (
        's, client "v", record 1: input is inf in column 1 ("b"). Replace or drop missing and infinite values.'
    )


def test_missing_values_of_images_and_targets() -> None:
    images = np.zeros((4, 1, 2, 2))
    images[2, 0, 1, 0] = np.nan
    with pytest.raises(DataError, match=r"s, record 2: input is nan in column \(0, 1, 0\)"):
        dataset_of(images, [0, 1, 0, 1], source="s").validate()
    with pytest.raises(DataError, match="s, record 3: target is nan"):
        dataset_of(X, [0.0, 1, 2, np.nan], source="s").validate()


def test_one_class_over_all_clients_together() -> None:
    with pytest.raises(DataError, match="all records of all clients together have one and the same class"):
        dataset_of(X, [5, 5, 5, 5], source="s").validate()


def test_no_record_at_all() -> None:
    with pytest.raises(DataError, match="there is no record at all"):
        dataset_of(X[:0], np.zeros(0), source="s").validate()


def test_labels_of_columns() -> None:
    text = Columns(columns={}, target=np.array(["no", "yes", "no"], object), target_name="t", target_type="class")
    assert text.labels.tolist() == [0, 1, 0]
    mixed = Columns(columns={}, target=np.array([1.0, "1", "b"], object), target_name="t", target_type="class")
    assert mixed.labels.tolist() == [0, 0, 1]
    real = Columns(columns={}, target=np.array([1.0, 2.0]), target_name="t", target_type="real")
    assert real.labels is None


def test_numbers_as_text() -> None:
    column = np.array([1.0, 2.5, np.nan, None, "x", np.inf, -3.0], object)
    assert as_text(column).tolist() == ["1", "2.5", None, None, "x", "inf", "-3"]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(ConfigError, match=r"test is .* Give a share of at least 0 and below 1"):
        require_share(share, "test")

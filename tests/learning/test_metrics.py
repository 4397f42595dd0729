from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as oracle

from rivage.core.errors import ShapeError
from rivage.learning.metrics import (
    ACCURACY,
    AUROC,
    BALANCED_ACCURACY,
    C_INDEX,
    MACRO_F1,
    MAE,
    METRICS,
    RMSE,
    SQUARED_ERROR,
)


def _classified(seed: int, n: int = 40, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Few distinct scores, so that ties happen.
    return rng.integers(0, 5, (n, classes)).astype(np.float32) / 4, rng.integers(0, classes, n)


@pytest.mark.parametrize("seed", range(5))
def test_class_metrics_agree_with_scikit_learn(seed: int) -> None:
    predictions, y = _classified(seed)
    labels = predictions.argmax(1)
    assert ACCURACY.of_client(predictions, y) == pytest.approx(oracle.accuracy_score(y, labels))
    assert BALANCED_ACCURACY.of_client(predictions, y) == pytest.approx(oracle.balanced_accuracy_score(y, labels))
    assert MACRO_F1.of_client(predictions, y) == pytest.approx(oracle.f1_score(y, labels, average="macro"))


def test_macro_f1_averages_over_classes_that_occur_or_are_predicted() -> None:
    predictions = np.eye(5, dtype=np.float32)[[0, 0, 1]]
    y = np.array([0, 2, 2])
    assert MACRO_F1.of_client(predictions, y) == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert MACRO_F1.of_client(predictions, y) == pytest.approx(
        oracle.f1_score(y, [0, 0, 1], average="macro", zero_division=0)
    )


def test_balanced_accuracy_ignores_absent_classes() -> None:
    predictions = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]]
    assert BALANCED_ACCURACY.of_client(predictions, np.array([0, 0, 1, 1])) == 0.75


@pytest.mark.parametrize("outputs", [1, 3])
def test_real_metrics_agree_with_scikit_learn(outputs: int) -> None:
    rng = np.random.default_rng(outputs)
    predictions, y = rng.normal(size=(2, 30, outputs)).astype(np.float32)
    assert MAE.of_client(predictions, y) == pytest.approx(oracle.mean_absolute_error(y, predictions))
    squared = oracle.mean_squared_error(y, predictions)
    assert SQUARED_ERROR.of_client(predictions, y) == pytest.approx(squared)
    assert RMSE.of_client(predictions, y) == pytest.approx(np.sqrt(squared))


def test_a_single_real_may_come_without_its_axis() -> None:
    # Subtracting [n] from [n, 1] would broadcast to [n, n].
    assert MAE.per_record(np.array([[1.0], [2.0]]), np.array([1.0, 4.0])).tolist() == [0, 2]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30))
def test_additive_means_weighted_by_size_are_the_value_on_all(seed: int, first: int, second: int) -> None:
    predictions, y = _classified(seed, first + second)
    parts = [slice(0, first), slice(first, None)]
    reals = predictions[:, :1], predictions[:, 1]
    for metric, (p, t) in ((ACCURACY, (predictions, y)), (MAE, reals), (SQUARED_ERROR, reals)):
        clients = [metric.of_client(p[part], t[part]) for part in parts]
        total = (first * clients[0] + second * clients[1]) / (first + second)
        assert total == pytest.approx(metric.of_client(p, t))
        assert metric.per_record(p, t).shape == t.shape


def test_accuracy_of_sequences_is_the_share_of_positions() -> None:
    predictions = np.eye(3, dtype=np.float32)[[[0, 1, 2, 2], [1, 1, 1, 1]]]
    y = np.array([[0, 1, 0, 2], [1, 0, 0, 0]])
    assert ACCURACY.per_record(predictions, y).tolist() == [0.75, 0.25]
    flat = BALANCED_ACCURACY.of_client(predictions.reshape(-1, 3), y.ravel())
    assert BALANCED_ACCURACY.of_client(predictions, y) == flat


def _auroc_by_pairs(score: np.ndarray, y: np.ndarray) -> float:
    pairs = list(product(score[y == 1], score[y == 0]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, st.integers(2, 25), elements=st.integers(0, 4)), st.integers(0, 10**6))
def test_auroc_counts_pairs(levels: np.ndarray, seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 2, len(levels))
    score = levels / 4
    value = AUROC.of_client(np.stack([1 - score, score], 1), y)
    if y.min() == y.max():
        assert value is None
    else:
        assert value == pytest.approx(_auroc_by_pairs(score, y))
        assert value == pytest.approx(oracle.roc_auc_score(y, score))
        assert AUROC.of_client(np.stack([score, 1 - score], 1), y) == pytest.approx(1 - value)


def _c_index_by_pairs(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float | None:
    concordant, comparable = 0.0, 0
    for i, j in product(range(len(risk)), repeat=2):
        first = event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j]))
        comparable += bool(first)
        concordant += first * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
    return concordant / comparable if comparable else None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 15))
def test_c_index_counts_pairs_with_ties_and_censoring(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    risk, time, event = rng.integers(0, 4, n), rng.integers(0, 4, n), rng.integers(0, 2, n)
    y = np.stack([time, event], 1).astype(np.float32)
    value = C_INDEX.of_client(risk[:, None].astype(np.float32), y)
    assert value == pytest.approx(_c_index_by_pairs(risk, time, event))
    assert C_INDEX.of_client(risk.astype(np.float32), y) == value


def test_c_index_scores_risk_not_survival() -> None:
    y = np.array([[1, 1], [2, 1], [3, 0]], np.float32)
    assert C_INDEX.of_client(np.array([3.0, 2.0, 1.0]), y) == 1
    assert C_INDEX.of_client(-np.array([3.0, 2.0, 1.0]), y) == 0
    # The event at time 2 precedes the censoring at time 2; two events at the same time say nothing.
    assert C_INDEX.of_client(np.array([1.0, 0.0]), np.array([[2, 1], [2, 0]], np.float32)) == 1
    assert C_INDEX.of_client(np.array([1.0, 0.0]), np.array([[2, 1], [2, 1]], np.float32)) is None


def test_c_index_refuses_several_scores() -> None:
    with pytest.raises(ShapeError, match=r"predictions of shape \(3, 2\).*one risk score per record"):
        C_INDEX.of_client(np.zeros((3, 2)), np.zeros((3, 2)))


def test_auroc_equals_c_index_of_a_single_death() -> None:
    """Positives die at time 1, negatives are censored later: comparable pairs are those of AUROC."""
    predictions, y = _classified(11, classes=2)
    survival = np.stack([np.where(y == 1, 1, 2), y], 1).astype(np.float32)
    assert C_INDEX.of_client(predictions[:, 1], survival) == pytest.approx(AUROC.of_client(predictions, y))


@pytest.mark.parametrize("kind", sorted(METRICS.builtin))
def test_registry_and_empty_clients(kind: str) -> None:
    metric = METRICS.get(kind)
    assert metric.name == kind
    assert metric.of_client(np.empty((0, 2)), np.empty(0, np.int64)) is None
    assert metric.higher_is_better == (kind not in ("mae", "rmse", "squared_error", "pooled_rmse"))
    assert kind.startswith("pooled_") == (metric.kind == "pooled")


@pytest.mark.parametrize("metric", [ACCURACY, BALANCED_ACCURACY, MACRO_F1, AUROC], ids=lambda m: m.name)
def test_a_diverged_model_gets_nothing_right(metric) -> None:
    predictions = np.full((6, 2), np.nan, np.float32)
    assert metric.of_client(predictions, np.array([0, 0, 0, 0, 1, 1])) == 0


def test_a_diverged_risk_orders_no_pair() -> None:
    assert C_INDEX.of_client(np.full(2, np.nan), np.array([[1.0, 1.0], [2.0, 1.0]])) == 0
    assert np.isnan(MAE.of_client(np.full((2, 1), np.nan), np.zeros(2)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_records_does_not_matter(seed: int) -> None:
    predictions, y = _classified(seed, classes=2)
    order = np.random.default_rng(seed).permutation(len(y))
    for metric in (ACCURACY, BALANCED_ACCURACY, MACRO_F1, AUROC):
        assert metric.of_client(predictions[order], y[order]) == pytest.approx(metric.of_client(predictions, y))

"""Metrics: what is reported about predictions. NumPy only; nothing here is differentiated.

Three kinds, which differ in what may be averaged:

- ``additive``: a mean over records, so the mean over clients weighted by size is the value on all records
  together;
- ``client``: a function of all predictions of one client (ranks, per-class rates, roots); clients may be
  averaged, and a client on which it is undefined has None;
- ``pooled``: the same functions on the predictions of all clients together, which only a simulation can see.

Predictions are what `rivage.learning.losses.Loss.predict` gives: probabilities ``[n, classes]`` (``[n,
length, classes]`` for tokens) or real numbers ``[n, outputs]``. A prediction that is not a number counts as
wrong wherever right and wrong are counted: a model that diverged never scores by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ShapeError
from rivage.core.registry import Registry

__all__ = [
    "ACCURACY",
    "AUROC",
    "BALANCED_ACCURACY",
    "C_INDEX",
    "MACRO_F1",
    "MAE",
    "METRICS",
    "RMSE",
    "Metric",
]

Target = Literal["class", "real", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is reported.

    Args:
        name: its registered kind.
        kind: ``additive``, ``client`` or ``pooled``, see the module.
        higher_is_better: direction of improvement.
        targets: the kinds of target it is for (`rivage.data.population.Schema.target`).
        function: (predictions, y) -> one value per record ``[n]`` if additive, else one value or None.
        binary: whether it is for exactly two classes.
        degree: power of the target's unit in the value: 0 for shares, 1 for errors, 2 for squared errors.
    """

    name: str
    kind: Literal["additive", "client", "pooled"]
    higher_is_better: bool
    targets: tuple[Target, ...]
    function: Callable[[ndarray, ndarray], ndarray | float | None]
    binary: bool = False
    degree: int = 0

    def per_record(
        self, predictions: Shaped[ndarray, "n *output"], y: Shaped[ndarray, "n *target"]
    ) -> Float64[ndarray, "n"]:
        """The value of every record; additive metrics only."""
        assert self.kind == "additive", f"{self.name} has no value per record"
        return cast(ndarray, self.function(predictions, y))

    def of_client(self, predictions: Shaped[ndarray, "n *output"], y: Shaped[ndarray, "n *target"]) -> float | None:
        """The value on these records; None where it is undefined, which it always is without records.

        Raises:
            ShapeError: if the metric cannot read predictions of this shape.
        """
        if len(y) == 0:
            return None
        if self.kind == "additive":
            return float(self.per_record(predictions, y).mean())
        return cast("float | None", self.function(predictions, y))


def _labels(probabilities: Float[ndarray, "n *positions classes"]) -> Int64[ndarray, "n *positions"]:
    """The most probable class, the lowest of equals; −1 where a probability is not a number."""
    labels: ndarray = probabilities.argmax(axis=-1)
    labels[np.isnan(probabilities).any(axis=-1)] = -1
    return labels


def _correct(
    probabilities: Float[ndarray, "n *positions classes"], y: Int64[ndarray, "n *positions"]
) -> Float64[ndarray, "n"]:
    """1 where the most probable class is right, else 0; for tokens the share of positions."""
    hits = (_labels(probabilities) == y).reshape(len(y), -1)
    result: ndarray = hits.mean(axis=1)
    return result


def _absolute(predictions: Float[ndarray, "n *output"], y: Float[ndarray, "n *target"]) -> Float64[ndarray, "n"]:
    """|y − h|, averaged over outputs."""
    result: ndarray = np.abs(_errors(predictions, y)).mean(axis=1)
    return result


def _squared(predictions: Float[ndarray, "n *output"], y: Float[ndarray, "n *target"]) -> Float64[ndarray, "n"]:
    """(y − h)², averaged over outputs."""
    result: ndarray = np.square(_errors(predictions, y)).mean(axis=1)
    return result


def _rmse(predictions: Float[ndarray, "n *output"], y: Float[ndarray, "n *target"]) -> float:
    """Square root of the squared error averaged over records and outputs, in the unit of the target."""
    return float(np.sqrt(_squared(predictions, y).mean()))


def _errors(predictions: Float[ndarray, "n *output"], y: Float[ndarray, "n *target"]) -> Float64[ndarray, "n outputs"]:
    # Without float64 a mean over 10⁷ records of one client loses digits.
    errors: ndarray = predictions.reshape(len(y), -1).astype(np.float64) - y.reshape(len(y), -1)
    return errors


def _counts(
    probabilities: Float[ndarray, "n *positions classes"], y: Int64[ndarray, "n *positions"]
) -> tuple[Int64[ndarray, "classes"], Int64[ndarray, "classes"], Int64[ndarray, "classes"]]:
    """Per class: how often it was hit, how often it is true, how often it was predicted."""
    labels, truth, classes = _labels(probabilities).ravel(), y.ravel(), probabilities.shape[-1]
    hits = np.bincount(truth[labels == truth], minlength=classes)
    predicted = np.bincount(labels[labels >= 0], minlength=classes)
    return hits, np.bincount(truth, minlength=classes), predicted


def _balanced_accuracy(
    probabilities: Float[ndarray, "n *positions classes"], y: Int64[ndarray, "n *positions"]
) -> float:
    """Mean over the classes that occur of the share of their records that is recognised."""
    hits, true, _ = _counts(probabilities, y)
    return float((hits[true > 0] / true[true > 0]).mean())


def _macro_f1(probabilities: Float[ndarray, "n *positions classes"], y: Int64[ndarray, "n *positions"]) -> float:
    """Mean of F1 = 2·hits / (true + predicted) over the classes that occur or are predicted."""
    hits, true, predicted = _counts(probabilities, y)
    total = true + predicted
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def _auroc(probabilities: Float[ndarray, "n 2"], y: Int64[ndarray, "n"]) -> float | None:
    """P(score of a positive > score of a negative), ties count half; None when one class only. O(n log n).

    From rank sums (Mann-Whitney): (Σ ranks of positives − m(m + 1)/2) / (m · negatives), with mean ranks for
    ties.
    """
    positive = y == 1
    m = int(positive.sum())
    if m in (0, len(y)):
        return None
    score = probabilities[:, 1]
    # Not a number: below every negative if positive, above every positive if negative.
    score = np.where(np.isnan(score), np.where(positive, -np.inf, np.inf), score)
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - m * (m + 1) / 2) / (m * (len(y) - m)))


def _c_index(predictions: Float[ndarray, "n *one"], y: Float[ndarray, "n 2"]) -> float | None:
    """P(the record whose event comes first has the higher score), ties of scores count half. O(n · events).

    The score is a *risk*: higher means an earlier event. Implementations that score survival instead expect
    the negated score; the value is the same.

    ``y`` holds (time, event): event 1 happened at that time, event 0 was censored then. A pair is comparable
    if the event of one happened before the time of the other, or at the same time if the other was censored.
    None when no pair is comparable.

    References:
        Harrell, Lee, Mark. Multivariable prognostic models. Statistics in Medicine, 1996, section 5.5.
    """
    if predictions.size != len(y) or y.ndim != 2 or y.shape[1] != 2:
        raise ShapeError(
            f"c_index got predictions of shape {predictions.shape} and targets of shape {y.shape}",
            where="task.metric",
            mend="It needs one risk score per record, and targets with two columns: time and event (0 or 1).",
        )
    risk, time, event = predictions.ravel(), y[:, 0], y[:, 1] > 0
    concordant, comparable = 0.0, 0
    for i in np.flatnonzero(event):
        later = (time > time[i]) | ((time == time[i]) & ~event)
        comparable += int(later.sum())
        concordant += float((risk[i] > risk[later]).sum() + 0.5 * (risk[i] == risk[later]).sum())
    return concordant / comparable if comparable else None


def _pooled(metric: Metric) -> Metric:
    return replace(metric, name=f"pooled_{metric.name}", kind="pooled")


ACCURACY = Metric(
    name="accuracy",
    kind="additive",
    higher_is_better=True,
    targets=("class", "tokens"),
    function=_correct,
)
MAE = Metric(name="mae", kind="additive", higher_is_better=False, targets=("real",), function=_absolute, degree=1)
SQUARED_ERROR = Metric(
    name="squared_error", kind="additive", higher_is_better=False, targets=("real",), function=_squared, degree=2
)
RMSE = Metric(name="rmse", kind="client", higher_is_better=False, targets=("real",), function=_rmse, degree=1)
BALANCED_ACCURACY = Metric(
    name="balanced_accuracy",
    kind="client",
    higher_is_better=True,
    targets=("class", "tokens"),
    function=_balanced_accuracy,
)
MACRO_F1 = Metric(
    name="macro_f1",
    kind="client",
    higher_is_better=True,
    targets=("class", "tokens"),
    function=_macro_f1,
)
AUROC = Metric(
    name="auroc",
    kind="client",
    higher_is_better=True,
    targets=("class",),
    function=_auroc,
    binary=True,
)
C_INDEX = Metric(name="c_index", kind="client", higher_is_better=True, targets=("real",), function=_c_index)
POOLED_RMSE = _pooled(RMSE)
POOLED_BALANCED_ACCURACY = _pooled(BALANCED_ACCURACY)
POOLED_MACRO_F1 = _pooled(MACRO_F1)
POOLED_AUROC = _pooled(AUROC)
POOLED_C_INDEX = _pooled(C_INDEX)

_NAMES = (
    "accuracy",
    "auroc",
    "balanced_accuracy",
    "c_index",
    "macro_f1",
    "mae",
    "pooled_auroc",
    "pooled_balanced_accuracy",
    "pooled_c_index",
    "pooled_macro_f1",
    "pooled_rmse",
    "rmse",
    "squared_error",
)
METRICS = Registry("rivage.metrics", "metric", {name: f"{__name__}:{name.upper()}" for name in _NAMES})
"""Kind -> `Metric`; plug-ins register a `Metric` under the entry-point group of the same name."""

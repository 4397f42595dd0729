"""What an attribute can be guessed by without any message: leakage is what an attack finds beyond that.

Two baselines, and a guarantee.

- *Majority*: everyone has the commonest value. The evaluator counts it on the target's own records, which favours it.
- *Imputation*: the best guess of the attribute from what the attacker knows of a record, public inputs x and target y,
  learnt from the records of OTHER clients. A high accuracy of an attack that stays below it is no leakage of the
  target: it is what everybody knows about people.
- *Markov*: a linear model h under squared loss gives a record a lower loss with a wrong value only if its residual is
  at least half as long as the step δ = h(x, s₁) − h(x, s₀) that the attribute makes,

      ‖y − h(x, s)‖ >= ‖δ‖ / 2 ,   hence by Markov's inequality   accuracy >= 1 − 4 E / ‖δ‖² ,

  with E the mean squared error on the records. With one coefficient θ and codes Δ apart, ‖δ‖ = |θ| Δ. This holds for
  every data set and every such model: where it does not, the attack is broken.

Reference: Driouich, Xu, Neglia, Giroire, Thomas. A novel model-based attribute inference attack in federated learning.
FL-NeurIPS 2022, arXiv 2210.16205, whose abstract announces a lower bound; the form above is derived here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped
from numpy import ndarray
from torch import nn

from rivage.core.seeding import Streams
from rivage.learning.losses import SQUARED
from rivage.learning.params import from_numpy
from rivage.privacy.questions import Attribute, AttributeQuestion

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Known", "imputed", "is_linear", "majority", "markov_bound"]

Known = tuple[Float[ndarray, "m d"], Shaped[ndarray, "m *target"], Shaped[ndarray, "m"]]
"""Records of others: inputs with the columns of the attribute set to 0, targets, values of the attribute."""

_FOLDS = 5
_PAIRS = 24  # inputs up to which products of two are tried as well
_RIDGE = 1e-3


def majority(values: Shaped[ndarray, "n"]) -> int | float:
    """The constant guess: the commonest index, ties to the lower one; of numbers their mean."""
    if values.dtype.kind == "f":
        return float(values.mean())
    return int(np.bincount(values).argmax())


def imputed(question: AttributeQuestion, others: Known) -> Shaped[ndarray, "n"] | None:
    """The values that the public part of each record suggests.

    Logistic regression (ridge for a numerical attribute) on standardised inputs and target; whether products of two of
    them help, beyond 24 inputs those with the target, is decided by cross-validation on the other clients' records.

    Args:
        question: whose ``x`` and ``y`` are read.
        others: records of other clients.

    Returns:
        Indices into the codes, or numbers; None without other records.
    """
    x, y, values = others
    if len(values) < 2:
        return None
    known, asked, targets = _features(x, y, question.x, question.y)
    model = _number if question.attribute.kind == "numerical" else _class
    few = known.shape[1] <= _PAIRS
    candidates = [
        partial(model, expand=lambda x: x),
        partial(model, expand=_products if few else partial(_with_target, targets=targets)),
    ]
    scores = [_validated(fit, known, values) for fit in candidates]
    return candidates[int(np.argmin(scores))](known, values, asked)


def markov_bound(
    task: Task,
    params: Float[ndarray, "dim"],
    x_true: Float[ndarray, "n d"],
    y: Float[ndarray, "n *outputs"],
    attribute: Attribute,
) -> float | None:
    """Least accuracy that model-based inference with these parameters must reach on these records.

    Rounding may decide records on the very edge: allow 1e-6 when it is asserted.

    Args:
        task: architecture and loss.
        params: of the model that the attack uses.
        x_true: the records with their true values.
        y: their targets.
        attribute: that is asked for.

    Returns:
        1 − 4 E / ‖δ‖², −inf where the attribute makes no step; None unless the model is linear, its loss squared and
        the attribute binary.
    """
    if attribute.kind != "binary" or task.loss is not SQUARED or not is_linear(task):
        return None
    entries = task.layout.unflatten(from_numpy(params.astype(np.float64)))
    weight = next(value.numpy() for value in entries.values() if value.dim() == 2)
    bias = sum((value.numpy() for value in entries.values() if value.dim() == 1), np.zeros(len(weight)))
    step = weight[:, list(attribute.columns)] @ (attribute.codes[1] - attribute.codes[0])
    residuals = y.reshape(len(y), -1) - (x_true.astype(np.float64) @ weight.T + bias)
    squared = float(step @ step)
    error = float(np.square(residuals).sum(axis=1).mean())
    return 1 - 4 * error / squared if squared > 0 else -math.inf


def is_linear(task: Task) -> bool:
    """Whether the model is one dense layer and nothing else."""
    leaves = [module for module in task.bind().module.modules() if not any(module.children())]
    dense = [module for module in leaves if isinstance(module, nn.Linear)]
    return len(dense) == 1 and all(isinstance(m, nn.Linear | nn.Flatten | nn.Identity) for m in leaves)


# --- imputation -------------------------------------------------------------------------------------------------------


def _features(x: ndarray, y: ndarray, asked_x: ndarray, asked_y: ndarray) -> tuple[ndarray, ndarray, int]:
    """Inputs and target side by side, standardised by the known records; columns that say nothing are left out.

    The last columns are of the target; their number is returned, too.
    """
    classes = np.unique(y) if y.dtype.kind in "iu" else None
    known, asked = (
        np.concatenate([a.reshape(len(a), -1).astype(np.float64), _target(b, classes)], axis=1)
        for a, b in ((x, y), (asked_x, asked_y))
    )
    varies = known.std(axis=0) > 0
    mean, deviation = known.mean(axis=0)[varies], known.std(axis=0)[varies]
    targets = int(varies[x.reshape(len(x), -1).shape[1] :].sum())
    return (known[:, varies] - mean) / deviation, (asked[:, varies] - mean) / deviation, targets


def _target(y: Shaped[ndarray, "n *target"], classes: Shaped[ndarray, "k"] | None) -> Float64[ndarray, "n k"]:
    flat = y.reshape(len(y), -1)
    if classes is None:
        return flat.astype(np.float64)
    return np.asarray(flat[:, :1] == classes, np.float64)


def _products(x: Float64[ndarray, "n d"]) -> Float64[ndarray, "n k"]:
    rows, columns = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, rows] * x[:, columns]], axis=1)


def _with_target(x: Float64[ndarray, "n d"], targets: int) -> Float64[ndarray, "n k"]:
    """The target beside its products with every input: an attribute that decides how another one counts."""
    if not targets:
        return x
    inputs, outcome = x[:, :-targets], x[:, -targets:]
    return np.concatenate([x, (inputs[:, :, None] * outcome[:, None]).reshape(len(x), -1)], axis=1)


Expand = Callable[[Any], Any]


def _class(x: ndarray, values: Int64[ndarray, "m"], asked: ndarray, *, expand: Expand) -> Int64[ndarray, "n"]:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(values)) == 1:
        return np.full(len(asked), values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not having quite converged makes a baseline, too
        model = LogisticRegression(max_iter=1000).fit(expand(x), values)
    guess: ndarray = model.predict(expand(asked))
    return guess


def _number(x: ndarray, values: Float64[ndarray, "m"], asked: ndarray, *, expand: Expand) -> Float64[ndarray, "n"]:
    wide = expand(x)
    mean, centre = wide.mean(axis=0), values.mean()
    gram = wide - mean
    system = gram.T @ gram + _RIDGE * len(values) * np.eye(wide.shape[1])
    solution: ndarray = np.linalg.solve(system, gram.T @ (values - centre))
    return np.asarray((expand(asked) - mean) @ solution + centre)


def _validated(fit: Callable[..., ndarray], x: ndarray, values: Shaped[ndarray, "m"]) -> float:
    """Mean error over folds: wrong classes, or squared differences."""
    fold = Streams(0).numpy("folds").permutation(len(values)) % min(_FOLDS, len(values))
    errors = []
    for held in range(fold.max() + 1):
        guess = fit(x[fold != held], values[fold != held], x[fold == held])
        off = guess - values[fold == held]
        errors.append(np.square(off) if values.dtype.kind == "f" else off != 0)
    return float(np.concatenate(errors).mean())

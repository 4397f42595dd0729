"""Inputs and labels that can be read off one update, without a search.

**Analytic inversion** (Phong, Aono, Hayashi, Wang, Moriai. Privacy-preserving deep learning via additively homomorphic
encryption. IEEE Transactions on Information Forensics and Security 2018). A linear layer with bias that reads the
input of a record, z = Wx + b, has

    ∂ℓ/∂W_i = (∂ℓ/∂z_i) x'   and   ∂ℓ/∂b_i = ∂ℓ/∂z_i ,   so   x = (∂ℓ/∂W_i) / (∂ℓ/∂b_i)

for every unit i with ∂ℓ/∂b_i ≠ 0. That holds for sums over any number of local steps as well, since x is the same in
all of them: one record is found exactly from what a client returns, whatever its epochs. With several records a unit
shows their mean weighted by ∂ℓ_r/∂z_i, which is a record if that record alone passes a ReLU behind the unit. The status
is then ``mixed``. Two units that agree point at such a record, unless the layers behind give all units the same
weights up to a factor, as a single output does; how many candidates are agreed on is told, and they come first.

**iDLG** (Zhao, Mopuri, Bilen. iDLG: improved deep leakage from gradients, arXiv 2001.02610). Under cross-entropy
∂ℓ/∂b_k = p_k − 1[k = y] in the last layer, negative for the label and for no other class. For B records, counts come
from the *bias-corrected* rule: every class with a negative gradient is there once, one record moves its class by the
sum of the negative gradients over B, and the rest go one by one to the class whose gradient, less what its records
explain, is lowest. That is an estimate. A last layer without bias is read by its weights, whose row sums have the signs
of the bias gradient where features are not negative.

Cost: none beyond reading the exchange and one forward pass that finds the layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from torch import Tensor, nn

from rivage.federated.algorithm import Reference
from rivage.learning.params import ParameterMap
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.questions import RecordAnswer, RecordQuestion
from rivage.privacy.views import Eavesdropper, Exchange, Refused

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["IDLG", "AnalyticInversion", "chosen", "first_layer", "label_counts", "read_labels"]

_AGREE = 64.0  # times the rounding error of two candidates: as far apart they may be and count as one
_HEARD = 1e3  # times its rounding error: what a bias must have moved to be divided by


@dataclass(frozen=True, kw_only=True)
class AnalyticInversion:
    """Divide the change of a unit's weights by the change of its bias."""

    reference: ClassVar[Reference] = Reference(
        key="phong18",
        authors="Le Trieu Phong and Yoshinori Aono and Takuya Hayashi and Lihua Wang and Shiho Moriai",
        title="Privacy-Preserving Deep Learning via Additively Homomorphic Encryption",
        venue="IEEE Transactions on Information Forensics and Security",
        year=2018,
        entry="article",
    )
    asks: ClassVar[Asks] = "record"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    def run(self, view: Eavesdropper, question: RecordQuestion, tools: Tools) -> RecordAnswer:
        """Distinct candidates, those that most units agree on first.

        Raises:
            Refused: if no linear layer with bias reads the input, or several models are sent.
        """
        task = tools.task
        name = first_layer(task)
        tools.meter.count(1)
        exchange = chosen(view, question)
        gradient = exchange.pseudo_gradient
        weight, bias = (_entry(task.layout, gradient, f"{name}{part}") for part in ("weight", "bias"))
        sizes = (_entry(task.layout, exchange.sent, f"{name}{part}") for part in ("weight", "bias"))
        unit = float(np.finfo(exchange.sent.dtype).eps)
        errors = [unit * (1e-3 + float(np.abs(size).max())) for size in sizes]
        found, votes = _candidates(weight, bias, errors[0], errors[1])
        kept = found[: question.records].reshape(-1, *task.schema.input_shape)
        alone = question.records == 1 and len(found) == 1
        facts = {"units": int((bias != 0).sum()), "candidates": len(found), "agreed": int((votes > 1).sum())}
        return RecordAnswer(kept, None, "recovered" if alone else "mixed", facts | {"round": exchange.round})


def _candidates(
    weight: Float64[ndarray, "units inputs"], bias: Float64[ndarray, "units"], weight_error: float, bias_error: float
) -> tuple[Float64[ndarray, "found inputs"], Int64[ndarray, "found"]]:
    """Quotients that differ by more than rounding, and how many units gave each."""
    order = np.argsort(-np.abs(bias))
    found: list[ndarray] = []
    slack: list[float] = []
    votes: list[int] = []
    for unit in order[np.abs(bias[order]) > _HEARD * bias_error]:
        x = weight[unit] / bias[unit]
        error = _AGREE * (weight_error + bias_error * float(np.abs(x).max())) / abs(float(bias[unit]))
        same = next((i for i in range(len(found)) if np.abs(found[i] - x).max() <= error + slack[i]), None)
        if same is None:
            found.append(x)
            slack.append(error)
            votes.append(1)
        else:
            votes[same] += 1
    ranked = np.argsort(-np.array(votes, np.int64), kind="stable")
    stacked = np.stack(found)[ranked] if found else np.empty((0, weight.shape[1]))
    return stacked, np.array(votes, np.int64)[ranked]


@dataclass(frozen=True, kw_only=True)
class IDLG:
    """Labels from the signs of the last layer's gradient."""

    reference: ClassVar[Reference] = Reference(
        key="zhao20",
        authors="Bo Zhao and Konda Reddy Mopuri and Hakan Bilen",
        title="iDLG: Improved Deep Leakage from Gradients",
        venue="arXiv",
        year=2020,
        arxiv="2001.02610",
        entry="misc",
    )
    asks: ClassVar[Asks] = "record"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    def run(self, view: Eavesdropper, question: RecordQuestion, tools: Tools) -> RecordAnswer:
        """One label per record, ascending.

        Raises:
            Refused: for losses other than cross-entropy, several records of a model with one output, or a method that
                sends several models.
        """
        exchange = chosen(view, question)
        labels = read_labels(tools.task, exchange, question.records)
        status: Any = "recovered" if question.records == 1 else "estimated"
        return RecordAnswer(None, labels, status, {"round": exchange.round})


def read_labels(task: Task, exchange: Exchange, records: int) -> Int64[ndarray, "records"]:
    """The labels behind an update, ascending; see `IDLG`."""
    if task.loss.name not in ("cross_entropy", "logistic"):
        raise Refused(
            f'labels show in the last layer under cross-entropy, not under "{task.loss.name}"',
            mend="Leave this attack out.",
        )
    gradient = exchange.pseudo_gradient
    rows = [_entry(task.layout, gradient, name) for name in task.head]
    signs = next((row for row in rows if row.ndim == 1), rows[0].reshape(len(rows[0]), -1).sum(axis=1))
    if task.loss.name == "logistic":
        if records != 1:
            raise Refused(
                f"one output does not tell how many of {records} records are of which class",
                mend="Ask about a client with one record, or train with cross_entropy.",
            )
        return np.array([int(signs[0] < 0)], np.int64)
    return np.repeat(np.arange(len(signs)), label_counts(signs, records))


def label_counts(gradient: Float64[ndarray, "classes"], records: int) -> Int64[ndarray, "classes"]:
    """How many records of each class stand behind a gradient of the last layer's bias, up to its scale."""
    left, counts = gradient.copy(), np.zeros(len(gradient), np.int64)
    present = np.argsort(left)[: min(records, int((left < 0).sum()))]
    impact = left[left < 0].sum() / records
    counts[present] += 1
    left[present] -= impact
    for _ in range(records - len(present)):
        lowest = left.argmin()
        counts[lowest] += 1
        left[lowest] -= impact
    return counts


def chosen(view: Eavesdropper, question: RecordQuestion) -> Exchange:
    """The exchange that is asked about.

    Raises:
        Refused: if there is none, or it holds several models.
    """
    for exchange in view.exchanges():
        if question.round is None or exchange.round == question.round:
            break
    else:
        what = "no exchange" if question.round is None else f"no exchange in round {question.round}"
        raise Refused(f"the client has {what}", mend="Name a client and a round that are in the log.")
    if exchange.sent.ndim != 1:
        raise Refused("several models are sent per round", mend="Choose a method that sends one model.")
    return exchange


def first_layer(task: Task) -> str:
    """What the parameters of the linear layer that reads the input are called, up to ``weight`` and ``bias``.

    Raises:
        Refused: if there is none, or it has no bias or is frozen, or the inputs are symbols.
    """
    if task.schema.target == "tokens":
        raise Refused("inputs are symbols, which no linear layer reads", mend="Leave this attack out.")
    bound = task.bind()
    bound.module.eval()
    size = math.prod(task.schema.input_shape)
    x = torch.linspace(0.1, 0.9, size, dtype=task.dtype, device=task.device).reshape(1, *task.schema.input_shape)
    trained = {entry.name for entry in task.layout.entries if entry.span.stop <= task.layout.trainable}
    layers = {name: module for name, module in bound.module.named_modules() if isinstance(module, nn.Linear)}
    with _inputs(layers) as seen, torch.no_grad():
        bound.outputs(x)
    for name, given in seen.items():
        prefix = f"{name}." if name else ""
        if given.numel() == x.numel() and torch.equal(given.flatten(), x.flatten()) and f"{prefix}bias" in trained:
            return prefix
    raise Refused(
        "no linear layer with bias reads the input as it is",
        mend="Use an attack that searches: dlg or cosine_inversion.",
    )


@contextmanager
def _inputs(layers: dict[str, nn.Linear]) -> Iterator[dict[str, Tensor]]:
    """What goes into each layer in forward passes within the block."""
    seen: dict[str, Tensor] = {}

    def noting(name: str) -> Any:
        return lambda module, arguments: seen.setdefault(name, arguments[0].detach())

    hooks = [layer.register_forward_pre_hook(noting(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _entry(layout: ParameterMap, vector: Float[ndarray, "dim"], name: str) -> Float64[ndarray, "..."]:
    entry = next(entry for entry in layout.entries if entry.name == name)
    result: ndarray = vector[entry.span].astype(np.float64).reshape(entry.shape)
    return result

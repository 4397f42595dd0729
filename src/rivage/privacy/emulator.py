"""An emulator of the client: learn what it answers, then let it train on alone.

Xu, Neglia. What else is leaked when eavesdropping federated learning? PPML at CCS 2021; Diana, Marfoq, Xu, Neglia,
Giroire, Thomas. AAAI 2025, arXiv 2411.12697.

From the messages (w_t, g_t) of a client, g = w − w', learn a map φ: w -> g. A client that trained alone would go from
its last returned model w through w − φ(w), and so on, to where φ vanishes: the optimum of its own data. So

    w <- w − s φ(w)    until ‖φ(w)‖ <= tolerance · ‖φ(start)‖ .

========  ============================================================================================================
map       φ
========  ============================================================================================================
`affine`  ridge regression of g on w, of the strength with the smallest left-out error: exact for least squares, and
          near any optimum g is affine in w to first order
`mlp`     one hidden layer of tanh units on standardised w and g, trained by Adam
========  ============================================================================================================

Loss of the ``mlp``: ``mse``, or ``cosine``, ½ (1 − cos(φ, g)) + mse.

Early messages come from where the client's answer is curved, so only the latest count (``latest``). Steps that leave
the region of the messages are cut to it, as an emulator knows nothing there, and the answer is the model met with the
least predicted norm.

The answer is an estimate without guarantee. Deviations: affine first, as it needs fewest messages (an ``mlp``
extrapolates badly from models that all lie to one side of the optimum); s = 1 by default, because φ emulates a whole
local training and not a gradient.

Cost: O(n D² + D³) for ``affine``, n · epochs evaluations of a small network for ``mlp``; O(n D) memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.errors import require, require_one_of
from rivage.federated.algorithm import Reference
from rivage.learning.params import from_numpy, to_numpy
from rivage.privacy.affine_map import Answers, collect
from rivage.privacy.attack import Asks, Meter, Tools
from rivage.privacy.questions import ModelAnswer
from rivage.privacy.views import Eavesdropper, Refused

__all__ = ["Emulator", "jensen_shannon"]

Map = Callable[[Float64[ndarray, "dim"]], Float64[ndarray, "dim"]]

_STRENGTHS = np.logspace(-10, 2, 25)


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """Where an emulated client would arrive if it trained alone.

    Args:
        form: ``affine`` or ``mlp``.
        latest: messages that are learnt from, the last ones; None takes all.
        step: s, in (0, 2).
        tolerance: of the predicted norm, relative to that at the start.
        steps: at most so many.
        reach: how far from the mean of the models met a step may lead, in radii of the ball around it that holds them.
        hidden: units of the ``mlp``.
        epochs: of its training, full batch.
        learning_rate: of its Adam.
        loss: of its training, ``mse`` or ``cosine``.
        most_parameters: larger models are refused.
    """

    reference: ClassVar[Reference] = Reference(
        key="xu21",
        authors="Chuan Xu and Giovanni Neglia",
        title="What else is leaked when eavesdropping Federated Learning?",
        venue="PPML workshop at CCS",
        year=2021,
    )
    asks: ClassVar[Asks] = "model"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    form: Literal["affine", "mlp"] = "affine"
    latest: int | None = 60
    step: float = 1.0
    tolerance: float = 1e-3
    steps: int = 1000
    reach: float = 3.0
    hidden: int = 64
    epochs: int = 500
    learning_rate: float = 1e-2
    loss: Literal["mse", "cosine"] = "mse"
    most_parameters: int = 2000

    def __post_init__(self) -> None:
        require_one_of(self.form, "form", ("affine", "mlp"))
        require_one_of(self.loss, "loss", ("mse", "cosine"))
        for name in ("step", "tolerance", "reach", "learning_rate"):
            require(getattr(self, name), name, above=0)
        for name in ("steps", "hidden", "epochs", "most_parameters"):
            require(getattr(self, name), name, least=1)
        if self.latest is not None:
            require(self.latest, "latest", least=3)

    def run(self, view: Eavesdropper, question: Any, tools: Tools) -> ModelAnswer:
        """The emulated optimum.

        Args:
            view: of the client.
            question: not looked at; which client is asked about is in the view.
            tools: randomness of the ``mlp``.

        Raises:
            Refused: for fewer than three messages, models that are too large, or several models per round.
        """
        if tools.task.dimension > self.most_parameters:
            raise Refused(
                f"the model has {tools.task.dimension} parameters, more than {self.most_parameters}",
                mend="Raise most_parameters; the emulator has that number squared.",
            )
        answers = _latest(collect(view.exchanges()), self.latest)
        if len(answers.sent) < 3:
            raise Refused(f"{len(answers.sent)} messages tell nothing of a map", mend="Listen for longer.")
        if self.form == "affine":
            emulated, left_out = _affine(answers)
        else:
            emulated, left_out = _network(answers, self, tools.streams.seed("emulator"), tools.meter)
        end, ratio, steps, cut = self._descend(emulated, answers)
        facts = {"messages": len(answers.sent), "steps": steps, "remaining": ratio, "left_out": left_out, "cut": cut}
        return ModelAnswer(end, "estimated", facts | {"form": self.form})

    def _descend(self, emulated: Map, answers: Answers) -> tuple[Float64[ndarray, "dim"], float, int, bool]:
        """The model with the least norm, that norm relative to the start's, how many steps, and whether any was cut."""
        models = np.concatenate([answers.sent, answers.sent - answers.gradient])
        center = models.mean(axis=0)
        radius = self.reach * float(np.linalg.norm(models - center, axis=1).max())
        w, cut, taken = answers.last, False, 0
        first = norm = least = float(np.linalg.norm(emulated(w)))
        best = w
        while taken < self.steps and norm > self.tolerance * first:
            w, taken = w - self.step * emulated(w), taken + 1
            distance = float(np.linalg.norm(w - center))
            if distance > radius:
                w, cut = center + (w - center) * (radius / distance), True
            norm = float(np.linalg.norm(emulated(w)))
            if norm < least:
                best, least = w, norm
        return best, least / first if first else 0.0, taken, cut


def _latest(answers: Answers, count: int | None) -> Answers:
    if count is None or len(answers.sent) <= count:
        return answers
    return Answers(answers.sent[-count:], answers.gradient[-count:], answers.rounding, answers.unit)


def _affine(answers: Answers) -> tuple[Map, float]:
    """Ridge regression of g on w, and its left-out error: relative to that of the mean of the other messages."""
    rounds = len(answers.sent)
    center, level = answers.sent.mean(axis=0), answers.gradient.mean(axis=0)
    u, values, axes = np.linalg.svd(answers.sent - center, full_matrices=False)
    onto = u.T @ (answers.gradient - level)

    def left_out(share: Float64[ndarray, "directions"]) -> float:
        left = answers.gradient - level - (u * share) @ onto
        leverage = 1 / rounds + (u**2) @ share
        return float(np.linalg.norm(left / np.maximum(1 - leverage, 1e-9)[:, None]))

    shares = [values**2 / (values**2 + strength) for strength in _STRENGTHS * max(values[0], 1e-300) ** 2]
    best = min(shares, key=left_out)
    slopes = (axes.T * (best / np.maximum(values, 1e-300))) @ onto
    alone = float(np.linalg.norm(answers.gradient - level)) * rounds / (rounds - 1)
    return lambda w: level + (w - center) @ slopes, left_out(best) / max(alone, 1e-300)


def _network(answers: Answers, settings: Emulator, seed: int, meter: Meter) -> tuple[Map, float]:
    """A small network on standardised messages, and its error on the last fifth, which it is not trained on."""
    center, level = answers.sent.mean(axis=0), answers.gradient.mean(axis=0)
    wide, tall = (np.maximum(a.std(axis=0), 1e-12) for a in (answers.sent, answers.gradient))
    x, y = from_numpy((answers.sent - center) / wide), from_numpy((answers.gradient - level) / tall)
    kept = max(2, len(x) * 4 // 5)
    network = _fresh(x.shape[1], settings.hidden, seed)
    adam = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    for _ in range(settings.epochs):
        adam.zero_grad()
        _loss(network(x[:kept]), y[:kept], settings.loss).backward()  # type: ignore[no-untyped-call]
        adam.step()
    meter.count(kept * settings.epochs)
    with torch.no_grad():
        spare = (network(x[kept:]) - y[kept:]).norm() / y[kept:].norm().clamp_min(1e-12) if kept < len(x) else None

    def emulated(w: Float64[ndarray, "dim"]) -> Float64[ndarray, "dim"]:
        meter.count(1)
        with torch.no_grad():
            result: ndarray = level + tall * to_numpy(network(from_numpy((w - center) / wide)))
        return result

    return emulated, float("nan") if spare is None else float(spare)


def _fresh(dimension: int, hidden: int, seed: int) -> nn.Sequential:
    first, last = nn.Linear(dimension, hidden).double(), nn.Linear(hidden, dimension).double()
    generator = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
    return nn.Sequential(first, nn.Tanh(), last)


def _loss(predicted: Float[Tensor, "n dim"], told: Float[Tensor, "n dim"], kind: str) -> Tensor:
    mse = (predicted - told).square().mean()
    if kind == "mse":
        return mse
    return 0.5 * (1 - torch.cosine_similarity(predicted, told, dim=1)).mean() + mse


def jensen_shannon(one: Float[ndarray, "n classes"], other: Float[ndarray, "n classes"]) -> float:
    """Mean over records of the Jensen-Shannon divergence of two predictions, in bits: 0 if equal, 1 if disjoint.

    Args:
        one: probabilities, one row per record.
        other: those of another model on the same records.
    """
    p, q = one.astype(np.float64), other.astype(np.float64)
    middle = (p + q) / 2

    def entropy(rows: Float64[ndarray, "n classes"]) -> Float64[ndarray, "n"]:
        result: ndarray = -(rows * np.log2(np.where(rows > 0, rows, 1))).sum(axis=1)
        return result

    return float(np.mean(entropy(middle) - (entropy(p) + entropy(q)) / 2))

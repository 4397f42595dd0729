"""Passive white-box membership inference: gradients, outputs and losses of the target's models, read by a network.

Nasr, Shokri, Houmansadr. Comprehensive privacy analysis of deep learning: passive and active white-box inference
attacks against centralized and federated learning. S&P 2019, arXiv 1812.00910: the supervised passive local attacker.

Of every record and observed round, at the model that the target returned:

    the gradient of the loss by the last layer,  s (a, 1)'  with inputs a and signal s = ∂ℓ/∂z
    the true label, one-hot
    the output (probabilities)
    the loss

Each has an encoder; the codes of all rounds are put together, and a network tells members from others. All are trained
at once on records whose membership the attacker knows.

Deviations. The published network (1,000 kernels over the gradient, then 1024-512-128; 128-64 for label and output; then
256-128-64-1) is made for tens of thousands of known records; here there are hundreds. So: 32 kernels of the size of one
class's row of the gradient, then 64-32 with dropout 0.2; 32-16 for label, output and loss together; then 64-1. All
rounds share their encoders. Rounds are chosen as in `rivage.privacy.trajectories`. Gradients are centred and divided by
one number, and so is the rest: with a scale per coordinate, coordinates that hardly move drown the others (digits, 150
known records: area 0.79 against 0.74).

Cost: two forward passes of the records and one backward pass of the last layer per observed round, then training of
some 10⁴ weights. Memory: (width + 1) · classes floats per record and round, the price that `zari21` avoids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.errors import require
from rivage.federated.algorithm import Reference
from rivage.learning.params import to_numpy
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.classifier import Fitting, fitted
from rivage.privacy.membership import answered, observed, require_known
from rivage.privacy.probing import Probe
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.views import Eavesdropper, Refused

__all__ = ["WhiteBox"]

_CODE = 16  # width of each encoder's code, twice that for the gradient


@dataclass(frozen=True, kw_only=True)
class WhiteBox:
    """Membership by all that the last layer shows.

    Args:
        rounds: how many are looked at, >= 1; None for all.
        kernels: of the encoder of gradients, >= 1.
        fitting: how the network learns.
    """

    reference: ClassVar[Reference] = Reference(
        key="nasr19",
        authors="Milad Nasr and Reza Shokri and Amir Houmansadr",
        title="Comprehensive Privacy Analysis of Deep Learning: Passive and Active White-box Inference Attacks against "
        "Centralized and Federated Learning",
        venue="S&P",
        year=2019,
        arxiv="1812.00910",
        part="passive local attacker",
    )
    asks: ClassVar[Asks] = "membership"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    rounds: int | None = field(default=5, metadata={"none": "all"})
    kernels: int = 32
    fitting: Fitting = field(default_factory=lambda: Fitting(learning_rate=3e-3, epochs=100))

    def __post_init__(self) -> None:
        require(self.kernels, "kernels", least=1)
        if self.rounds is not None:
            require(self.rounds, "rounds", least=1)

    def run(self, view: Eavesdropper, question: MembershipQuestion, tools: Tools) -> MembershipAnswer:
        """The log-odds of the network for every record that is not known.

        Raises:
            Refused: if too few records are known, the target has no exchange or several models, or the model does not
                end with a linear layer whose outputs the loss reads.
        """
        known = require_known(question)
        rounds, gradients, rest = self.features(view, question, tools)
        inputs = [_scaled(gradients, known), _scaled(rest, known)]
        _, count, classes, width = gradients.shape
        scores = fitted(
            lambda: _Network(count, classes, width, rest.shape[-1], self.kernels),
            inputs,
            known,
            question.member,
            tools.streams,
            self.fitting,
        )
        return answered(scores, question, rounds=rounds, feature_bytes=gradients.nbytes + rest.nbytes)

    def features(
        self, view: Eavesdropper, question: MembershipQuestion, tools: Tools
    ) -> tuple[list[int], Float32[ndarray, "n rounds classes width"], Float32[ndarray, "n rounds k"]]:
        """The observed rounds; gradients by the last layer, bias last; label, output and loss."""
        probe = _probe(tools, question)
        rounds, gradients, rest = [], [], []
        for exchange in observed(view, self.rounds):
            if exchange.returned.ndim > 1:
                raise Refused("it reads one model per round, the target returns several", mend="Use zari21.")
            gradient, other = _seen(probe, exchange.returned)
            rounds.append(exchange.round)
            gradients.append(gradient)
            rest.append(other)
        return rounds, np.stack(gradients, axis=1), np.stack(rest, axis=1)


def _probe(tools: Tools, question: MembershipQuestion) -> Probe:
    if tools.task.schema.target == "tokens":
        raise Refused("it reads one output per record, the model has one per position", mend="Use zari21.")
    probe = Probe(tools, question.records)
    if not probe.ends_with_head():
        raise Refused("the model does not end with a linear layer whose outputs the loss reads", mend="Use zari21.")
    return probe


def _seen(
    probe: Probe, params: Float[ndarray, "dim"]
) -> tuple[Float32[ndarray, "n classes width"], Float32[ndarray, "n k"]]:
    """What one model shows of every record."""
    inputs, outputs = probe.head(params)
    schema, loss, y = probe.task.schema, probe.task.loss, probe.y
    truth = y.double() if y.is_floating_point() else y
    outputs.requires_grad_()
    losses = loss.per_record(outputs, truth)
    (signal,) = torch.autograd.grad(losses.sum(), outputs)
    widened = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    label = F.one_hot(y, schema.num_classes).double() if schema.target == "class" else truth
    rest = torch.cat([label, loss.predict(outputs), losses[:, None]], dim=1)
    return to_numpy((signal[:, :, None] * widened[:, None, :]).float()), to_numpy(rest.float())


def _scaled(features: Float32[ndarray, "n *shape"], known: Bool[ndarray, "n"]) -> Float32[ndarray, "n *shape"]:
    """Mean 0 in every coordinate and standard deviation 1 over all of them, on the known records."""
    centred = features - features[known].mean(axis=0)
    spread = float(centred[known].std())
    result: ndarray = centred / np.float32(spread if spread > 0 else 1.0)
    return result


class _Network(nn.Module):
    """Encoders, shared by rounds, and the classifier of their codes."""

    def __init__(self, rounds: int, classes: int, width: int, rest: int, kernels: int) -> None:
        super().__init__()
        self.gradient = nn.Sequential(
            nn.Linear(width, kernels), nn.ReLU(), nn.Flatten(-2), nn.Dropout(0.2),
            nn.Linear(classes * kernels, 64), nn.ReLU(), nn.Linear(64, 2 * _CODE), nn.ReLU(),
        )  # fmt: skip
        self.rest = nn.Sequential(nn.Linear(rest, 2 * _CODE), nn.ReLU(), nn.Linear(2 * _CODE, _CODE), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(3 * _CODE * rounds, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, gradients: Tensor, rest: Tensor) -> Tensor:
        """Gradients ``[n, rounds, classes, width]`` and the rest ``[n, rounds, k]`` to log-odds ``[n, 1]``."""
        codes = torch.cat([self.gradient(gradients), self.rest(rest)], dim=-1)
        odds: Tensor = self.classifier(codes.flatten(1))
        return odds

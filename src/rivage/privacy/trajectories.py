"""Passive membership inference by what the target's models think of a record's label, round after round.

Zari, Xu, Neglia. Efficient passive membership inference attack in federated learning. PriML 2021 (NeurIPS workshop),
arXiv 2111.00430.

An eavesdropper keeps, of every record (x, y) and observed round t, one number: the probability that the model returned
by the target gives to the true label,

    p_t(x, y) = f_{w'_t}(x)[y],        p = (p_t)_t,

and a small fully connected network tells members from others by p. It learns from records whose membership the attacker
knows. Hence the savings over attacks on gradients: memory is one float per record and round.

``of`` says which numbers. ``returned``: as above. ``sent``: the same of the models that the target was sent, all that
who receives only shared models could use. ``updates``: p_t(returned) − p_t(sent) and the cosine between
g_t = w_t − w_t' and the record's gradient at w_t; two floats.

Deviations, where the sources at hand do not say: one hidden layer of 64 ReLU, Adam, a fifth held back to stop by, the
mean of three such networks (`rivage.privacy.classifier`); five rounds, equally spaced over the last two thirds of those
that the target took part in. A round without the target has no number. Real targets have half the squared error in
place of p. Several models sent at once count as their equal mixture.

Cost: one forward pass of the records per observed round (``updates``: two, and one backward), then training of a
network with a few hundred weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from torch import nn

from rivage.core.errors import require, require_one_of
from rivage.federated.algorithm import Reference
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.classifier import Fitting, fitted, standardised
from rivage.privacy.membership import answered, observed, require_known
from rivage.privacy.probing import Probe
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.views import Eavesdropper, Exchange

__all__ = ["Trajectories"]


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Membership by the likelihood of the label over rounds.

    Args:
        rounds: how many are looked at, >= 1; None for all.
        of: ``returned``, ``sent`` or ``updates``.
        hidden: width of the hidden layer, >= 1.
        fitting: how the network learns.
    """

    reference: ClassVar[Reference] = Reference(
        key="zari21",
        authors="Oualid Zari and Chuan Xu and Giovanni Neglia",
        title="Efficient Passive Membership Inference Attack in Federated Learning",
        venue="PriML (NeurIPS workshop)",
        year=2021,
        arxiv="2111.00430",
    )
    asks: ClassVar[Asks] = "membership"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    rounds: int | None = field(default=5, metadata={"none": "all"})
    of: Literal["returned", "sent", "updates"] = "returned"
    hidden: int = 64
    fitting: Fitting = field(default_factory=lambda: Fitting(networks=3))

    def __post_init__(self) -> None:
        require_one_of(self.of, "of", ("returned", "sent", "updates"))
        require(self.hidden, "hidden", least=1)
        if self.rounds is not None:
            require(self.rounds, "rounds", least=1)

    def run(self, view: Eavesdropper, question: MembershipQuestion, tools: Tools) -> MembershipAnswer:
        """The log-odds of the network for every record that is not known.

        Raises:
            Refused: if too few records are known, or the target has no exchange.
        """
        known = require_known(question)
        rounds, features = self.features(view, question, tools)
        width = features.shape[1]
        scores = fitted(
            lambda: nn.Sequential(nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1)),
            [standardised(features, known)],
            known,
            question.member,
            tools.streams,
            self.fitting,
        )
        return answered(scores, question, rounds=rounds, feature_bytes=features.nbytes)

    def features(
        self, view: Eavesdropper, question: MembershipQuestion, tools: Tools
    ) -> tuple[list[int], Float64[ndarray, "n k"]]:
        """The observed rounds, and the numbers of every record."""
        probe, rounds, columns = Probe(tools, question.records), [], []
        for exchange in observed(view, self.rounds):
            rounds.append(exchange.round)
            columns += list(self._numbers(probe, exchange))
        return rounds, np.stack(columns, axis=1)

    def _numbers(self, probe: Probe, exchange: Exchange) -> Iterator[Float64[ndarray, "n"]]:
        if self.of == "returned":
            yield probe.fits(exchange.returned)
            return
        sent = probe.fits(exchange.sent)
        if self.of == "sent":
            yield sent
            return
        yield probe.fits(exchange.returned) - sent
        yield probe.alignments(exchange.sent, exchange.pseudo_gradient[None])[0]

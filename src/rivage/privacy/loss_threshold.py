"""Membership by the loss: what a model fits well it has seen.

Yeom, Giacomelli, Fredrikson, Jha. Privacy risk in machine learning: analyzing the connection to overfitting. CSF 2018,
arXiv 1709.01604, Adversary 2.

    score(x, y) = −ℓ(f(x), y)

`LossThreshold` asks the final model, as anyone can who holds it; `LocalLossThreshold` asks the last model that the
target returned, which an eavesdropper has. A method that sends several models at once is asked for the likelihood of
their equal mixture (`rivage.privacy.probing`).

Deviation: scores instead of decisions. The paper calls a record a member below the mean loss of training, which the
attacker is told; here the threshold of largest balanced accuracy among the records with known membership is a fact of
the answer, where there are some.

Cost: one forward pass of the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from numpy import ndarray

from rivage.federated.algorithm import Reference
from rivage.privacy.attack import Asks, Tools
from rivage.privacy.membership import answered
from rivage.privacy.probing import Probe
from rivage.privacy.questions import MembershipAnswer, MembershipQuestion
from rivage.privacy.views import Eavesdropper, ReleasedModel

__all__ = ["LocalLossThreshold", "LossThreshold"]

_REFERENCE = Reference(
    key="yeom18",
    authors="Samuel Yeom and Irene Giacomelli and Matt Fredrikson and Somesh Jha",
    title="Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting",
    venue="CSF",
    year=2018,
    arxiv="1709.01604",
    part="Adversary 2",
)


@dataclass(frozen=True, kw_only=True)
class LossThreshold:
    """The loss under the final model."""

    reference: ClassVar[Reference] = _REFERENCE
    asks: ClassVar[Asks] = "membership"
    view: ClassVar[type] = ReleasedModel
    oracle: ClassVar[str] = ""

    def run(self, view: ReleasedModel, question: MembershipQuestion, tools: Tools) -> MembershipAnswer:
        """Minus the loss of every record that is not known."""
        return answered(_scores(view.params, question, tools), question)


@dataclass(frozen=True, kw_only=True)
class LocalLossThreshold:
    """The loss under the last model that the target returned."""

    reference: ClassVar[Reference] = _REFERENCE
    asks: ClassVar[Asks] = "membership"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    def run(self, view: Eavesdropper, question: MembershipQuestion, tools: Tools) -> MembershipAnswer:
        """Minus the loss of every record that is not known."""
        last = view.last()
        return answered(_scores(last.returned, question, tools), question, round=last.round)


def _scores(params: Float[ndarray, "*groups dim"], question: MembershipQuestion, tools: Tools) -> ndarray:
    return -Probe(tools, question.records).losses(params)

"""Federated Averaging.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas. Communication-efficient learning of deep networks from decentralized
data. AISTATS 2017, arXiv 1602.05629, Algorithm 1.

Round t: m clients, uniformly without replacement, start from w_t and run E epochs of mini-batch SGD with batch B;
w_{t+1} = Σ_k (n_k / n_S) w_k over the clients that answered. FedSGD is E = 1, B = ∞.

Deviations: a round in which nobody answers leaves the model unchanged and still counts; clients without training
records are never part of a population, hence never sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, Phase, Predictor, Reference, State
from rivage.federated.averaging import Averaging, global_predictor

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["FedAvg", "FedSGD"]

_REFERENCE = Reference(
    key="mcmahan17",
    authors="H. Brendan McMahan and Eider Moore and Daniel Ramage and Seth Hampson and Blaise Agüera y Arcas",
    title="Communication-Efficient Learning of Deep Networks from Decentralized Data",
    venue="AISTATS",
    year=2017,
    arxiv="1602.05629",
    part="Algorithm 1",
)


@dataclass(frozen=True, kw_only=True)
class FedAvg(Averaging):
    """Clients run SGD from the shared model; the server averages their models.

    Args:
        learning_rate: local step size η, > 0.
        work: local epochs E and batch size B.
    """

    reference: ClassVar[Reference] = _REFERENCE

    learning_rate: float = 0.1
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, on the plain local loss."""
        return Local(broadcast["params"][None])

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])


@dataclass(frozen=True, kw_only=True)
class FedSGD(Averaging):
    """One full-batch step per round: the large-batch synchronous baseline of the paper.

    Args:
        learning_rate: step size η, > 0.
    """

    reference: ClassVar[Reference] = _REFERENCE

    learning_rate: float = 0.1
    work: ClassVar[Phase] = Phase(epochs=1, batch_size=None)  # type: ignore[misc]  # fixed, not a setting

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, on the plain local loss."""
        return Local(broadcast["params"][None])

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])

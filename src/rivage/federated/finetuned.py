"""FedAvg+: the shared model, fine-tuned by every client before it predicts.

Jiang, Konečný, Rush, Kannan. Improving federated learning personalization via model agnostic meta learning.
arXiv 1909.12488, section 3 (FedAvg followed by personalisation); the baseline called FedAvg+ by Marfoq et al.,
NeurIPS 2021, arXiv 2108.10252, section 5.

Training is FedAvg's. Before each evaluation client k runs a few epochs of SGD on its own records from w_t; the result
is its personal model and is never fed back. Clients that arrive after training do the same.

Cost beyond FedAvg: ``tuning.epochs`` local passes per client, no communication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, LocalWork, Phase, Predictor, Reference, State
from rivage.federated.averaging import Averaging, global_predictor

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["FineTuned"]


@dataclass(frozen=True, kw_only=True)
class FineTuned(Averaging):
    """FedAvg, then local fine-tuning.

    Args:
        learning_rate: step size while training together, > 0.
        work: local epochs and batch size while training together.
        tuning_rate: step size of the fine-tuning, > 0; None uses ``learning_rate``.
        tuning: epochs and batch size of the fine-tuning.
    """

    reference: ClassVar[Reference] = Reference(
        key="jiang19",
        authors="Yihan Jiang and Jakub Konečný and Keith Rush and Sreeram Kannan",
        title="Improving Federated Learning Personalization via Model Agnostic Meta Learning",
        venue="arXiv",
        year=2019,
        arxiv="1909.12488",
        part="Section 3",
        entry="misc",
    )

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"tuning_rate": (None, 0.01, 0.1)}

    learning_rate: float = 0.1
    work: Phase = Phase()
    tuning_rate: float | None = None
    tuning: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        if self.tuning_rate is not None:
            require(self.tuning_rate, "tuning_rate", above=0)

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """As FedAvg."""
        return Local(broadcast["params"][None])

    @property
    def adaptation(self) -> LocalWork:
        """The fine-tuning."""
        rate = self.learning_rate if self.tuning_rate is None else self.tuning_rate
        return LocalWork((self.tuning,), rate)

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, on own records."""
        return Local(state["params"][None])

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The fine-tuned model."""
        return global_predictor(state["params"] if local is None else local.params[0])

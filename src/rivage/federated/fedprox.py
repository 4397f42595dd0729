"""FedProx: federated averaging with a proximal term.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith. Federated optimization in heterogeneous networks. MLSys 2020,
arXiv 1812.06127, Algorithm 2.

Client k approximately minimises  F_k(w) + (μ/2) ‖w − w_t‖²  from w_t; the server averages as FedAvg does. μ = 0 is
FedAvg, bit for bit.

Deviations: clients are weighted by their training records, and all run the same number of epochs (the paper lets slow
devices do less).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, Phase, Predictor, Pull, Reference, State
from rivage.federated.averaging import Averaging, global_predictor, require_stable

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["FedProx"]


@dataclass(frozen=True, kw_only=True)
class FedProx(Averaging):
    """FedAvg whose clients are pulled towards the broadcast model.

    Args:
        learning_rate: local step size, > 0.
        mu: strength μ of the proximal term, >= 0; ``learning_rate * mu`` is below 2, from there on training diverges.
        work: local epochs and batch size.
    """

    reference: ClassVar[Reference] = Reference(
        key="li20",
        authors="Tian Li and Anit Kumar Sahu and Manzil Zaheer and Maziar Sanjabi and Ameet Talwalkar "
        "and Virginia Smith",
        title="Federated Optimization in Heterogeneous Networks",
        venue="MLSys",
        year=2020,
        arxiv="1812.06127",
        part="Algorithm 2",
    )

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"mu": (0.01, 0.1, 1.0, 10.0)}

    learning_rate: float = 0.1
    mu: float = 0.1
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.mu, "mu", least=0)
        require_stable(self.learning_rate, self.mu, "mu")

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, held close to it."""
        params = broadcast["params"][None]
        return Local(params, pull=Pull(self.mu, params))

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])

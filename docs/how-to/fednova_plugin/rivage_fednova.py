"""FedNova: federated averaging of normalised updates.

Wang, Liu, Liang, Joshi, Poor. Tackling the objective inconsistency problem in heterogeneous federated
optimization. NeurIPS 2020, arXiv 2007.07481; the update rule for local solvers that are plain SGD.

Client k takes τ_k local steps from w, ends in w_k and sends d_k = (w − w_k) / τ_k with τ_k. The server sets

    w ← w − (Σ_k p_k τ_k) Σ_k p_k d_k ,    p_k = n_k / Σ_j n_j over the cohort.

When all τ_k are equal this is FedAvg; when they differ, FedAvg favours clients that take many steps.
Cost beyond FedAvg: one number more per update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor
from rivage.learning.task import Task


@dataclass(frozen=True, kw_only=True)
class FedNova(Averaging):
    """Clients run SGD from the shared model; the server averages their mean steps.

    Args:
        learning_rate: local step size η, > 0.
        work: local epochs and batch size.
    """

    reference: ClassVar[Reference] = Reference(
        key="wang20",
        authors="Jianyu Wang and Qinghua Liu and Hao Liang and Gauri Joshi and H. Vincent Poor",
        title="Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
        venue="NeurIPS",
        year=2020,
        arxiv="2007.07481",
        part="FedNova with plain SGD as local solver",
    )

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
        """From the shared model, which is kept for `finish`."""
        return Local(broadcast["params"][None], keep={"start": broadcast["params"]})

    def finish(self, local: Local, task: Task) -> Update:
        """The mean step, and how many were taken."""
        steps = local.params.new_tensor([max(local.steps, 1)])
        direction = (local.keep["start"] - local.params[0]) / steps
        return Update({"direction": (direction, local.weight), "steps": (steps, local.weight)})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """As many mean steps along the mean direction as the cohort took on average."""
        return {"params": state["params"] - received["steps"].mean * received["direction"].mean}

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])

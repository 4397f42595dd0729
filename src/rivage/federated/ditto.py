"""Ditto: a personal model for every client, held close to the shared one.

Li, Hu, Beirami, Smith. Ditto: fair and robust federated learning through personalization. ICML 2021,
arXiv 2012.04221, Algorithm 1.

Next to FedAvg, which it leaves untouched, client k of a cohort trains a personal model v_k that is never sent:

    w ← w − η ∇f_k(w)                          from w_t; the server averages as FedAvg does
    v_k ← v_k − η (∇f_k(v_k) + λ (v_k − w_t))   from where its last round left it

λ = 0 is training alone; as λ grows, v_k tends to w_t, which is FedAvg.

Deviations: both models see the same batches and take equally many steps with one step size. v_k starts from the model
of the client's first round. Clients that never took part (newcomers, and clients no cohort has drawn) train a v from
the current w, with the same pull, before they predict; it is not kept.

Cost beyond FedAvg: twice the local gradients and one model of memory per client that ever took part; nothing more
travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, LocalWork, Phase, Predictor, Pull, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor, require_stable

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Ditto"]


@dataclass(frozen=True, kw_only=True)
class Ditto(Averaging):
    """FedAvg, and beside it a personal model per client that is pulled towards the shared one.

    Args:
        learning_rate: local step size η of both models, > 0.
        pull: strength λ, >= 0; ``learning_rate * pull`` is below 2, from there on the personal model diverges.
        work: local epochs and batch size in a round.
        tuning: epochs and batch size with which clients that never took part make their personal model.
    """

    reference: ClassVar[Reference] = Reference(
        key="li21",
        authors="Tian Li and Shengyuan Hu and Ahmad Beirami and Virginia Smith",
        title="Ditto: Fair and Robust Federated Learning Through Personalization",
        venue="ICML",
        year=2021,
        arxiv="2012.04221",
        part="Algorithm 1",
    )

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"pull": (0.1, 1.0, 2.0)}

    learning_rate: float = 0.1
    pull: float = 0.1
    work: Phase = Phase()
    tuning: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.pull, "pull", least=0)
        require_stable(self.learning_rate, self.pull, "pull")

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """Two independent groups: the shared model, left alone, and the personal one, pulled."""
        shared = broadcast["params"]
        strength = shared.new_tensor([[0.0], [self.pull]])
        return Local(torch.stack([shared, memory.get("personal", shared)]), pull=Pull(strength, shared))

    def finish(self, local: Local, task: Task) -> Update:
        """The shared model leaves, the personal one stays."""
        return Update({"params": (local.params[0], local.weight)}, memory={"personal": local.params[1].clone()})

    @property
    def adaptation(self) -> LocalWork:
        """How a client that never took part trains."""
        return LocalWork((self.tuning,), self.learning_rate)

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local | None:
        """A personal model from the shared one, for whoever has none."""
        if "personal" in memory:
            return None
        return Local(state["params"][None], pull=Pull(self.pull, state["params"]))

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The personal model."""
        return global_predictor(memory.get("personal", state["params"]) if local is None else local.params[0])

"""APFL: every client blends the shared model with one of its own.

Deng, Kamani, Mahdavi. Adaptive personalized federated learning. arXiv 2003.13461, Algorithm 1.

Client k has a copy w of the shared model, a model v of its own and a share a in [0, 1]; it predicts with

    v̄ = a v + (1 − a) w .

A local step, all of it with the values before the step,

    w ← w − η ∇f_k(w)
    v ← v − η a ∇f_k(v̄)
    a ← a − η ⟨∇f_k(v̄), v − w⟩, clipped to [0, 1]        if a is learnt, in the first step of a round; else it stays

sends w alone; the server averages as FedAvg does. v and a stay with the client. a = 0 is FedAvg; with a = 1 a client
trains alone.

A share is learnt in the first step only because the client predicts with the w it is sent. Later in the round its copy
of w has been fitted to its own records, faster than v, and the slope then says to do without v.

Deviations: v starts from the model of the client's first round.
A client that never took part (a newcomer, or one no cohort has drawn) trains v and a from v = w before it predicts,
with w held fixed at the shared model; they are not kept. BatchNorm's running means and variances of v̄ are kept with v.

Cost beyond FedAvg: twice the local gradients, and one model and one number of memory per client that ever took part;
nothing more travels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, LocalWork, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["APFL"]


@dataclass(frozen=True, kw_only=True)
class APFL(Averaging):
    """Each client predicts with its own blend of the shared model and one that it keeps.

    Args:
        learning_rate: local step size η of both models and of a learnt share, > 0.
        share: a, how much of a client's own model is in the blend, in [0, 1]; where it starts if it is learnt.
        adaptive: whether each client learns its share.
        work: local epochs and batch size in a round.
        tuning: epochs and batch size with which clients that never took part make their own model.
    """

    reference: ClassVar[Reference] = Reference(
        key="deng20",
        authors="Yuyang Deng and Mohammad Mahdi Kamani and Mehrdad Mahdavi",
        title="Adaptive Personalized Federated Learning",
        venue="arXiv",
        year=2020,
        arxiv="2003.13461",
        part="Algorithm 1",
        entry="misc",
    )

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"share": (0.25, 0.5, 0.75)}

    learning_rate: float = 0.1
    share: float = 0.5
    adaptive: bool = False
    work: Phase = Phase()
    tuning: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}", mend="Give a number from 0 to 1.")

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The shared model, and the client's own from its last round."""
        return self._job(broadcast["params"], memory, learns=1.0)

    def _job(self, shared: Tensor, memory: State, *, learns: float) -> Local:
        """Groups w and v; ``learns`` scales the step of w, ``turns`` that of the share."""
        share = memory.get("share", shared.new_tensor([self.share]))
        extra = {"share": share, "learns": shared.new_tensor([learns]), "turns": shared.new_ones(1)}
        return Local(torch.stack([shared, memory.get("personal", shared)]), extra=extra)

    def step(
        self,
        extra: dict[str, Tensor],
        params: Float[Tensor, "*clients two dim"],
        gradient: Callable[[Tensor], Tensor],
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One local step of w, v and a."""
        share, shared, own = extra["share"], params[..., 0, :], params[..., 1, :]
        blend = share * own + (1 - share) * shared
        points = torch.stack([shared, blend], dim=-2)
        slopes = gradient(points)  # the oracle moves buffers in points; they have no slope
        moved = torch.add(points[..., 0, :], extra["learns"] * slopes[..., 0, :], alpha=-rate)
        # Where the oracle moved v̄ it is a buffer; v takes it over, as statistics belong to the model that met the data.
        kept = torch.where(points[..., 1, :] == blend, own, points[..., 1, :])
        kept = torch.add(kept, share * slopes[..., 1, :], alpha=-rate)
        if self.adaptive:
            slope = (slopes[..., 1, :] * (own - shared)).sum(-1, keepdim=True)
            turned = (share - rate * extra["turns"] * slope).clamp(0, 1)
            extra = {**extra, "share": turned, "turns": extra["turns"] * (1 - extra["learns"])}  # while w rests
        return torch.stack([moved, kept], dim=-2), extra

    def finish(self, local: Local, task: Task) -> Update:
        """The shared model leaves; the own one and its share stay."""
        memory = {"personal": local.params[1].clone(), "share": local.extra["share"].clone()}
        return Update({"params": (local.params[0], local.weight)}, memory=memory)

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
        """An own model from the shared one, which is held fixed, for whoever has none."""
        return None if "personal" in memory else self._job(state["params"], memory, learns=0.0)

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The blend of the client's own model and the current shared one, as one model."""
        shared = state["params"]
        if local is not None:
            memory = {"personal": local.params[1], "share": local.extra["share"]}
        if "personal" not in memory:
            return global_predictor(shared)
        share = memory["share"]
        return global_predictor(share * memory["personal"] + (1 - share) * shared)

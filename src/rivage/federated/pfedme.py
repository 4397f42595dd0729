"""pFedMe: federated averaging of Moreau envelopes, with a personal model on the way.

T. Dinh, Tran, Nguyen. Personalized federated learning with Moreau envelopes. NeurIPS 2020, arXiv 2006.08848,
Algorithm 1.

The clients' losses f_k are replaced by their envelopes, and what attains the minimum is the personal model,

    F_k(w) = min_θ f_k(θ) + (λ/2) ‖θ − w‖² ,        θ_k(w) the minimiser,        ∇F_k(w) = λ (w − θ_k(w)) .

Client k of a cohort takes local steps on its envelope, from w as broadcast. For each mini-batch B

    θ ← (θ − α ∇f_B(θ) + α λ w) / (1 + α λ)     K times
    w ← w − η λ (w − θ)

and sends w; the server takes w ← (1 − β) w + β Σ_k n_k w_k / Σ_k n_k. θ stays with the client, which predicts with it.
As λ grows, θ = w − ∇f_k(w) / λ and a step on the envelope is one on f_k: FedAvg with step size η.

Deviations: clients are weighted by their training records. The paper leaves the inner solver open; here it is gradient
descent on f_B with the quadratic taken implicitly, which has the minimiser as its rest for every λ, and which no λ can
drive apart. θ starts a round from w and each further batch from where it stood. A client that never took part (a
newcomer, or one no cohort has drawn) looks for its θ around the current w, which rests, before it predicts; it is not
kept. BatchNorm's running means and variances are those met at θ, in both models. The code published with FedEM (Marfoq
et al., 2021) calls pFedMe a simpler variant, in which clients keep their models and a proximal term pulls those to the
average; that is not what is implemented here.

Cost beyond FedAvg: K gradients per batch instead of one; one model of memory per client that ever took part; nothing
more travels.
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
from rivage.federated.algorithm import Local, LocalWork, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["PFedMe"]


@dataclass(frozen=True, kw_only=True)
class PFedMe(Averaging):
    """FedAvg on the clients' Moreau envelopes; personal models are where the envelopes touch.

    Args:
        learning_rate: step size η on the envelope, > 0.
        pull: strength λ with which personal models are held to the shared one, > 0.
        inner_rate: step size α towards the personal model, > 0; None uses ``learning_rate``.
        inner_steps: K, gradient steps towards the personal model per mini-batch, >= 1.
        server_rate: β, how far the server goes from the model it sent to the mean, in (0, 1].
        work: local epochs and batch size in a round; each batch is one step on the envelope.
        tuning: epochs and batch size with which clients that never took part make their personal model.
    """

    reference: ClassVar[Reference] = Reference(
        key="tdinh20",
        authors="Canh T. Dinh and Nguyen H. Tran and Tuan Dung Nguyen",
        title="Personalized Federated Learning with Moreau Envelopes",
        venue="NeurIPS",
        year=2020,
        arxiv="2006.08848",
        part="Algorithm 1",
    )
    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"pull": (1.0, 15.0, 100.0)}

    learning_rate: float = 0.1
    pull: float = 15.0
    inner_rate: float | None = None
    inner_steps: int = 5
    server_rate: float = 1.0
    work: Phase = Phase()
    tuning: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.pull, "pull", above=0)
        if self.inner_rate is not None:
            require(self.inner_rate, "inner_rate", above=0)
        require(self.inner_steps, "inner_steps", least=1)
        if not 0 < self.server_rate <= 1:
            raise ConfigError(f"server_rate is {self.server_rate}", mend="Give a number above 0, at most 1.")

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """Groups w and θ, both from the shared model."""
        return self._job(broadcast["params"], task, moves=1.0)

    def _job(self, shared: Tensor, task: Task, *, moves: float) -> Local:
        """``moves`` scales the step of w, ``learnt`` counts the numbers in front of the buffers."""
        learnt = torch.tensor([task.layout.trainable], device=shared.device)
        extra = {"moves": shared.new_tensor([moves]), "learnt": learnt}
        return Local(torch.stack([shared, shared]), extra=extra)

    def step(
        self,
        extra: dict[str, Tensor],
        params: Float[Tensor, "*clients two dim"],
        gradient: Callable[[Tensor], Tensor],
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """K steps of θ and one of w on one mini-batch."""
        shared, personal = params[..., 0, :], params[..., 1:, :].clone()  # the oracle writes buffers into θ
        alpha = self.learning_rate if self.inner_rate is None else self.inner_rate
        # Buffers have no gradient, and no envelope: they stay what the oracle makes them.
        held = alpha * self.pull * self._learnt(extra, shared)
        for _ in range(self.inner_steps):
            slopes = gradient(personal)
            personal = torch.add(personal, slopes, alpha=-alpha)
            personal = (personal + (held * shared).unsqueeze(-2)) / (1 + held).unsqueeze(-2)
        theta = personal[..., 0, :]
        # A buffer of w is that of θ: a way of 1. Else η λ of the way, by clients whose w moves.
        way = torch.where(held > 0, extra["moves"] * (rate * self.pull), torch.ones_like(held))
        return torch.stack([shared + way * (theta - shared), theta], dim=-2), extra

    def _learnt(self, extra: dict[str, Tensor], like: Tensor) -> Float[Tensor, "*clients dim"]:
        """1 for what is learnt, 0 for buffers."""
        return (torch.arange(like.shape[-1], device=like.device) < extra["learnt"]).to(like.dtype)

    def finish(self, local: Local, task: Task) -> Update:
        """The shared model leaves, the personal one stays."""
        return Update({"params": (local.params[0], local.weight)}, memory={"personal": local.params[1].clone()})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """β of the way to the weighted mean; no step if what arrived has weight 0."""
        found = received["params"]
        if not found.weight > 0:
            return state
        return {"params": torch.lerp(state["params"], found.mean, self.server_rate)}

    @property
    def adaptation(self) -> LocalWork:
        """How a client that never took part looks for its personal model."""
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
        """A personal model around the shared one, which rests, for whoever has none."""
        return None if "personal" in memory else self._job(state["params"], task, moves=0.0)

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The personal model."""
        return global_predictor(memory.get("personal", state["params"]) if local is None else local.params[1])

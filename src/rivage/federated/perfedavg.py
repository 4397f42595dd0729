"""Per-FedAvg: a shared start from which one step of every client's own goes far.

Fallah, Mokhtari, Ozdaglar. Personalized federated learning with theoretical guarantees: a model-agnostic meta-learning
approach. NeurIPS 2020, arXiv 2002.07948, Algorithm 1, first-order variant (FO).

What is averaged is not a model to predict with but one to start from: all minimise the mean of

    F_k(w) = f_k(w − α ∇f_k(w)) .

Client k of a cohort takes local steps, each with two mini-batches B and B' that are drawn apart,

    θ ← w − α ∇f_B(w)
    w ← w − η ∇f_B'(θ)

and sends w; the server averages as FedAvg does. The client predicts with w − α ∇f_k(w), one step on all its records.
The first-order variant leaves the factor I − α ∇²f_k(w) out of ∇F_k(w) = (I − α ∇²f_k(w)) ∇f_k(θ). With exact
gradients w therefore rests where Σ_k n_k ∇f_k(θ_k) = 0, and α = 0 is FedAvg.

An epoch counts as many local steps as FedAvg's: for each a client takes two batches, so it goes over its records twice.
A client with fewer records than a batch has them all in both.

Deviations: first order only; clients are weighted by their training records. The personal model takes one step on all
records, or what ``tuning`` says; it is made anew before each prediction, for clients that never took part as well.

Cost beyond FedAvg: twice the local gradients, one gradient before each prediction; messages are FedAvg's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Cohort, Local, LocalWork, Phase, Predictor, Reference, State
from rivage.federated.averaging import Averaging, global_predictor
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["PerFedAvg"]


@dataclass(frozen=True, kw_only=True)
class PerFedAvg(Averaging):
    """FedAvg of models to start from; each client predicts after a step of its own.

    Args:
        learning_rate: local step size η, > 0.
        inner_rate: α, size of the step that makes a model personal, >= 0; None uses ``learning_rate``.
        work: local epochs and batch size; each local step takes two batches.
        tuning: the personal step, with step size α: one on all records.
    """

    reference: ClassVar[Reference] = Reference(
        key="fallah20",
        authors="Alireza Fallah and Aryan Mokhtari and Asuman Ozdaglar",
        title="Personalized Federated Learning with Theoretical Guarantees: A Model-Agnostic Meta-Learning Approach",
        venue="NeurIPS",
        year=2020,
        arxiv="2002.07948",
        part="Algorithm 1, first-order variant",
    )
    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"inner_rate": (0.01, 0.03, 0.1)}

    learning_rate: float = 0.1
    inner_rate: float | None = None
    work: Phase = Phase()
    tuning: Phase = Phase(updates=1, batch_size=None)

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        if self.inner_rate is not None:
            require(self.inner_rate, "inner_rate", least=0)

    @property
    def _alpha(self) -> float:
        return self.learning_rate if self.inner_rate is None else self.inner_rate

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """As FedAvg, with twice as many batches."""
        updates = None if self.work.updates is None else 2 * self.work.updates
        twice = replace(self.work, epochs=2 * self.work.epochs, updates=updates)
        cohort = super().select(state, candidates, streams, task)
        return replace(cohort, work=LocalWork((twice,), self.learning_rate))

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared start; ``second`` says whether the next batch is the second of its step."""
        shared = broadcast["params"]
        return Local(shared[None], extra={"inner": shared, "second": shared.new_zeros(1)})

    def step(
        self,
        extra: dict[str, Tensor],
        params: Float[Tensor, "*clients one dim"],
        gradient: Callable[[Tensor], Tensor],
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """With a first batch: θ, from w. With a second one: w, along the slope at θ. To adapt: plain descent."""
        if "second" not in extra:
            point = params.clone()  # the oracle moves buffers in it
            slopes = gradient(point)
            return torch.add(point, slopes, alpha=-rate), extra
        shared, inner, second = params[..., 0, :], extra["inner"], extra["second"]
        before = torch.where(second > 0, inner, shared)
        point = before.clone().unsqueeze(-2)
        slopes = gradient(point)[..., 0, :]
        shared = shared + (point[..., 0, :] - before)  # 0 but for buffers, which are those of either point
        inner = torch.add(point[..., 0, :], slopes, alpha=-self._alpha)
        shared = torch.add(shared, second * slopes, alpha=-rate)
        return shared.unsqueeze(-2), {"inner": inner, "second": 1 - second}

    @property
    def adaptation(self) -> LocalWork | None:
        """The step that makes a model personal; none for α = 0."""
        return LocalWork((self.tuning,), self._alpha) if self._alpha > 0 else None

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared start."""
        return Local(state["params"][None])

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The model after the client's own step."""
        return global_predictor(state["params"] if local is None else local.params[0])

"""AFL: a model for the worst mixture of the clients, found by descending in the model and ascending in the mixture.

Mohri, Sivek, Suresh. Agnostic federated learning. ICML 2019, arXiv 1902.00146, Figure 3 (Stochastic-AFL).

The problem is min_θ max_{λ in the simplex} Σ_k λ_k F_k(θ): at the solution the clients with the largest loss have it in
common. In a round every client takes one stochastic gradient g_k at θ, and with ℓ_k its loss at θ

    θ ← θ − η Σ_k λ_k g_k ,        λ ← the point of the simplex nearest to λ + η_λ ℓ .

η_λ = 0 is federated SGD in which every client counts once.

Deviations: ℓ_k is the mean over all training records of the client, not over a batch. The last model counts, where the
theory is about the mean of all of them. All clients are meant to take part in every round; with cohorts of m the
shares λ of the others rest, and so that λ moves in expectation as with everyone, of K clients that were heard of,

    λ_k ← λ_k + η_λ (K − 1)/(m − 1) (ℓ_k − mean ℓ of the cohort)        then onto the simplex;
    θ   ← θ − η min(1/Σ_S λ, K/m) Σ_{k in S} λ_k g_k ,

where the step is never longer than that of a convex combination: without the bound it is a draw without bias, but K/m
times too long whenever a client that holds all of λ is drawn. A client enters when it first answers, with 1/K. Running
means and variances of BatchNorm are averaged in the shares λ.

Cost beyond FedSGD: a forward pass over the training records per client and round, and one number up: the server sees
every client's loss, and single updates, so there is no secure aggregation. One number of state per client, and
O(K log K) for the projection; populations beyond 100,000 are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from rivage.convex.projections import onto_simplex
from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Cohort, Local, LocalWork, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import global_predictor
from rivage.federated.cohorts import Candidates
from rivage.learning.params import to_numpy

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["AFL"]

_MOST = 100_000  # clients: in larger populations hardly a share would ever move


@dataclass(frozen=True, kw_only=True)
class AFL:
    """One model for the worst mixture of the clients.

    Args:
        learning_rate: step size η of the model, > 0.
        weight_rate: step size η_λ of the clients' shares, >= 0; 0 keeps them equal.
        batch_size: records of the one gradient that a client takes, >= 1; None takes all.
    """

    reference: ClassVar[Reference] = Reference(
        key="mohri19",
        authors="Mehryar Mohri and Gary Sivek and Ananda Theertha Suresh",
        title="Agnostic Federated Learning",
        venue="ICML",
        year=2019,
        arxiv="1902.00146",
        part="Stochastic-AFL",
    )
    needs: ClassVar[Literal["sum", "each"]] = "each"
    needs_losses: ClassVar[bool] = True
    federates: ClassVar[bool] = True
    tuned: ClassVar[Mapping[str, tuple[float, ...]]] = {"weight_rate": (0.01, 0.1)}

    learning_rate: float = 0.1
    weight_rate: float = 0.1
    batch_size: int | None = field(default=32, metadata={"none": "all"})

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.weight_rate, "weight_rate", least=0)
        if self.batch_size is not None:
            require(self.batch_size, "batch_size", least=1)

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """One model, and no client that has answered yet.

        Raises:
            ConfigError: for populations in which hardly a share would ever move.
        """
        if clients > _MOST:
            raise ConfigError(
                f"afl keeps a share for every client, and there are {clients}",
                mend=f"Use it with at most {_MOST:,} clients, or take qffl, which keeps none.",
            )
        return {
            "params": task.initial(streams.seed("model")),
            "clients": torch.empty(0, dtype=torch.int64),  # those that ever answered, ascending
            "shares": torch.empty(0, dtype=torch.float64),  # and their λ
        }

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """Everyone, or uniformly without replacement among the available; the server weighs them."""
        ids = candidates.uniform(streams)
        phase = Phase(updates=1, batch_size=self.batch_size)
        return Cohort(ids, np.ones(len(ids)), LocalWork((phase,), self.learning_rate))

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The model; the shares stay at the server."""
        return {"params": state["params"]}

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records groups"] | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, whose loss is kept."""
        assert losses is not None, "needs_losses"
        loss = losses.mean(dim=0) if len(losses) else losses.new_zeros(1)
        return Local(broadcast["params"][None], keep={"loss": loss})

    def finish(self, local: Local, task: Task) -> Update:
        """The model after one step, and the loss before it."""
        return Update({"params": (local.params[0], local.weight), "loss": (local.keep["loss"], 1.0)})

    def aggregate(self, state: State, received: Sequence[Update], task: Task) -> State:
        """A step of the model with the shares as they were, and of the shares with the losses that came."""
        clients, shares = _entered(state, [update.client for update in received])
        places = np.searchsorted(clients, [update.client for update in received])
        return {
            "params": self._moved(state["params"], received, shares[places], len(clients), task),
            "clients": torch.from_numpy(clients),
            "shares": torch.from_numpy(self._ascended(shares, places, received)),
        }

    def _moved(
        self, params: Tensor, received: Sequence[Update], shares: Float64[ndarray, "m"], known: int, task: Task
    ) -> Tensor:
        total, size = float(shares.sum()), task.layout.trainable
        if not total > 0:
            return params
        models = [update.payload["params"][0] for update in received]
        mean = torch.zeros_like(params)
        for model, share in zip(models, (shares / total).tolist(), strict=True):
            mean.add_(model, alpha=share)
        length = min(1.0, total * known / len(received))
        return torch.cat([torch.lerp(params[:size], mean[:size], length), mean[size:]])

    def _ascended(
        self, shares: Float64[ndarray, "clients"], places: Int64[ndarray, "m"], received: Sequence[Update]
    ) -> Float64[ndarray, "clients"]:
        """Losses less their mean: with everyone that moves no projection, with few it keeps the others in place."""
        if len(received) < 2:  # nobody to compare with
            return shares
        losses = np.array([float(update.payload["loss"][0]) for update in received])
        raised = shares.copy()
        raised[places] += self.weight_rate * (len(shares) - 1) / (len(places) - 1) * (losses - losses.mean())
        return onto_simplex(raised, 1.0)

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])

    def report(self, state: State) -> Mapping[str, float]:
        """The largest share, and how many clients have one."""
        shares = state["shares"]
        largest = float(shares.max()) if len(shares) else 0.0
        return {"largest_share": largest, "clients_with_a_share": float((shares > 0).sum())}


def _entered(state: State, answered: Sequence[int]) -> tuple[Int64[ndarray, "clients"], Float64[ndarray, "clients"]]:
    """Clients and shares, with those that answer for the first time at the mean share."""
    before, shares = to_numpy(state["clients"]), to_numpy(state["shares"])
    clients = np.union1d(before, np.array(answered, np.int64))
    entered = np.full(len(clients), 1 / len(clients))
    entered[np.searchsorted(clients, before)] = shares * (len(before) / len(clients))
    return clients, entered

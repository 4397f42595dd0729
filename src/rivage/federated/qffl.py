"""q-FFL: averaging that lets clients with a large loss pull harder, for accuracies that lie closer together.

Li, Sanjabi, Beirami, Smith. Fair resource allocation in federated learning. ICLR 2020, arXiv 1905.10497, equation 2
(q-FFL) and Algorithm 2 (q-FedAvg).

The objective is Σ_k F_k(θ)^{q+1} / (q+1) with F_k the mean loss of client k. In a round client k trains from θ to w_k
with step size η; with F_k its loss at θ, *before* it trains, and 1/η for the paper's L,

    Δ_k = (θ − w_k) / η ,   D_k = F_k^q Δ_k ,   h_k = q F_k^{q−1} ‖Δ_k‖² + F_k^q / η ,   θ ← θ − Σ_k D_k / Σ_k h_k .

It is computed as a step towards a mean of models, the same thing: with u_k = F_k^q and c_k = q ‖θ − w_k‖² / (η F_k),

    θ ← θ + s (Σ_k u_k w_k / Σ_k u_k − θ) ,   s = 1 / (1 + Σ_k u_k c_k / Σ_k u_k) ,

which keeps large powers out of the numbers that travel.

q = 0 is FedAvg in which every client counts once, bit for bit. As q grows only the largest losses count (as in AFL),
and steps get shorter.

Deviations: cohorts are uniform, so that clients count alike whatever their size (the paper draws them in proportion to
their records). A loss below 1e-10 counts as 1e-10: its powers below 1 have no end. Running means and variances of
BatchNorm are no gradient steps: the server takes their mean, weighted by u_k. A c_k below 0, which only a client that
lies sends, makes no step longer than to the mean.

Cost beyond FedAvg: a forward pass over the training records per client and round, and two numbers up, from which the
server learns each client's loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Cohort, Local, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["QFFL"]

_LEAST = 1e-10  # what a loss counts as at least


@dataclass(frozen=True, kw_only=True)
class QFFL(Averaging):
    """Averaging weighted by powers of the clients' losses.

    Args:
        learning_rate: local step size η, > 0.
        q: how much fairness counts, >= 0; 0 is FedAvg with equal weights.
        work: local epochs and batch size.
    """

    reference: ClassVar[Reference] = Reference(
        key="li20",
        authors="Tian Li and Maziar Sanjabi and Ahmad Beirami and Virginia Smith",
        title="Fair Resource Allocation in Federated Learning",
        venue="ICLR",
        year=2020,
        arxiv="1905.10497",
        part="Algorithm 2 (q-FedAvg)",
    )
    needs_losses: ClassVar[bool] = True
    tuned: ClassVar[Mapping[str, tuple[float, ...]]] = {"q": (0.1, 1.0, 5.0)}

    learning_rate: float = 0.1
    q: float = 1.0
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.q, "q", least=0)

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """Uniformly without replacement among the available; everyone counts once."""
        cohort = super().select(state, candidates, streams, task)
        return replace(cohort, weights=np.ones(len(cohort.ids)))

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records groups"] | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, whose loss is kept together with it."""
        assert losses is not None, "needs_losses"
        params = broadcast["params"]
        loss = losses[:, 0].mean() if len(losses) else losses.new_zeros(())
        return Local(params[None], keep={"start": params, "loss": loss})

    def finish(self, local: Local, task: Task) -> Update:
        """The trained model and c_k, both with weight u_k.

        Raises:
            ConfigError: for a negative loss, which has no powers.
        """
        loss, size = float(local.keep["loss"]), task.layout.trainable
        if loss < 0:
            raise ConfigError(
                f"the mean loss is {loss:g}, but q-FFL takes powers of losses",
                mend="Use a loss that is never negative, or another method.",
            )
        moved = float((local.params[0, :size] - local.keep["start"][:size]).double().square().sum())
        loss = max(loss, _LEAST)
        weight = local.weight * self._power(loss)
        curvature = local.params.new_tensor([self.q * moved / (self.learning_rate * loss)])
        return Update({"params": (local.params[0], weight), "curvature": (curvature, weight)})

    def _power(self, loss: float) -> float:
        """u; infinite, which the server rejects, where training has run away."""
        try:
            power: float = loss**self.q
        except OverflowError:
            return math.inf
        return power

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """From the model towards the weighted mean; it stays where it was if all of that has weight 0."""
        found, size = received["params"], task.layout.trainable
        if not found.weight > 0:
            return state
        share = 1 / (1 + max(float(received["curvature"].mean), 0.0))
        moved = torch.lerp(state["params"][:size], found.mean[:size], share)  # the mean itself for q = 0
        return {"params": torch.cat([moved, found.mean[size:]])}

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])

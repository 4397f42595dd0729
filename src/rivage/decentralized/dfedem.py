"""D-FedEM: a mixture of distributions learnt without a server. Silos pass components on, and keep their shares.

Marfoq, Neglia, Bellet, Kameni, Vidal. Federated multi-task learning under a mixture of distributions. NeurIPS 2021,
arXiv 2108.10252, the fully decentralised algorithm; client-server: `rivage.federated.fedem`, whose model of the data
and whose E-step are used here.

Silo t holds a copy θ_tm of every component and its shares π_t, 1/M at the start. In a round, for each of its training
records i and all m,

    q_i(m) = π_tm exp(−ℓ_i(θ_tm)) / Σ_j π_tj exp(−ℓ_i(θ_tj))        (`DFedEM.weigh`)
    π_tm   ← mean_i q_i(m)
    θ_tm   ← local SGD from θ_tm on (1/|B|) Σ_{i in B} q_i(m) ℓ_i(θ)
    θ_tm   ← Σ_s W_ts θ_sm                                          (gossip, W doubly stochastic)

Only components travel. With W = 1 1ᵀ / T this is FedEM with all clients and equal weights; with M = 1 it is `DPASGD`.
The mean of the silos' components moves as under W = 1 1ᵀ / T, and how far silos are from it shrinks in squared norm by
λ₂(W)² in an average, λ₂ the second largest modulus.

W counts silos the same. The objective of FedEM counts records: ``count_by = "records"`` multiplies the loss of silo t
by n_t T / n.

In words of surrogates (partial first-order surrogates, as the paper calls them): f_t(Θ, π_t) is the silo's negative
log-likelihood; q gives the bound g_t(Θ, π) = (1/n_t) Σ_i Σ_m q_i(m) (ℓ_i(θ_m) − log π_m + log q_i(m)), which lies above
f_t and touches it, with its gradient in Θ, where q was taken. `weigh` builds g_t and returns its minimiser in the
private π; the engine descends g_t in the shared Θ, of which the weights of records are all that is left; gossip takes
the place of the server. A method with another surrogate is another `weigh`, where its g_t is a weighted loss.

Deviations: W need not be symmetric. Clients that are no silos, and what is printed of the average, take the averages
of the components; clients that are no silos iterate q and π to convergence with these held fixed, as in FedEM. Plain
SGD, without momentum or weight decay.

Cost per round: M models to every out-neighbour; M times the local gradients, and M forward passes over all training
records of a silo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from rivage.core.seeding import Streams
from rivage.decentralized.gossip import Needs
from rivage.decentralized.gossip_settings import GossipSettings
from rivage.decentralized.mixing_plan import Weighting
from rivage.federated.algorithm import Phase, Predictor, Reference, State
from rivage.federated.fedem import FedEM, likeliest_shares, responsibilities, shares_of

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["DFedEM"]


@dataclass(frozen=True, kw_only=True)
class DFedEM(GossipSettings):
    """Components that silos train and average, mixed by every silo in its own shares.

    Args:
        learning_rate: local step size η, > 0.
        components: M, from 1 to 1000.
        work: local steps and batch size, for each component.
        overlay: who sends to whom.
        mixing: weights on an undirected overlay: ``metropolis``, ``best_constant``, ``fdla`` or ``fmmc``.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
        iterations: at most so many E-steps give a client that is no silo its shares, >= 1.
        noise: s > 0, standard deviation of a real target around its component's prediction, in the unit in which
            models see it; 1 for classes.
        restart: which of several random starts, >= 0.
    """

    reference: ClassVar[Reference] = replace(FedEM.reference, part="D-FedEM, the fully decentralised algorithm")
    needs: ClassVar[Needs] = "doubly"

    components: int = 3
    work: Phase = Phase()
    mixing: Weighting = "metropolis"
    iterations: int = 100
    noise: float = 1.0
    restart: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._with_server  # which refuses settings out of range

    @property
    def _with_server(self) -> FedEM:
        return FedEM(components=self.components, iterations=self.iterations, noise=self.noise, restart=self.restart)

    def initial(self, task: Task, streams: Streams) -> Float[Tensor, "components dim"]:
        """The components from which FedEM starts.

        Raises:
            ConfigError: when two start alike.
        """
        return self._with_server.init(task, 0, streams)["params"]

    def start(self, params: Tensor) -> State:
        """The components, in equal shares."""
        return {"params": params, "shares": params.new_full(params.shape[:-1], 1 / self.components)}

    def weigh(
        self, state: State, losses: Float[Tensor, "records components"]
    ) -> tuple[State, Float[Tensor, "records components"]]:
        """The new shares, and q."""
        found = responsibilities(state["shares"], losses / self.noise**2)
        return {**state, "shares": shares_of(found, state["shares"])}, found

    def send(self, state: State, trained: Tensor, rate: float) -> State:
        """The trained components."""
        return {"params": trained}

    def receive(self, state: State, trained: Tensor, rate: float, sent: State, sums: State) -> State:
        """Their averages; the shares stay."""
        return {**state, "params": sums["params"]}

    def settle(self, state: State, losses: Float[Tensor, "records components"]) -> State:
        """The most likely shares under the components as they are."""
        return {**state, "shares": likeliest_shares(losses / self.noise**2, self.iterations)}

    def predictor(self, state: State) -> Predictor:
        """The components in the silo's shares."""
        return Predictor(state["params"], state["shares"])

"""FedEM: a few shared models, and for every client its own mixture of them.

Marfoq, Neglia, Bellet, Kameni, Vidal. Federated multi-task learning under a mixture of distributions. NeurIPS 2021,
arXiv 2108.10252, Algorithm 1 (client-server; the decentralised variant has a module of its own).

The records of client t come from a mixture of M unknown distributions in proportions π_t of its own. Component m is a
model θ_m with the likelihood exp(−ℓ(θ_m; x, y)), and all minimise the negative log-likelihood

    f(Θ, π) = −(1/n) Σ_t Σ_i log Σ_m π_tm exp(−ℓ_i(θ_m)) .

In a round the server sends all θ_m. Client t, which keeps π_t (1/M at the start),

    q_i(m) = π_tm exp(−ℓ_i(θ_m)) / Σ_j π_tj exp(−ℓ_i(θ_j))     for every training record i, the model in evaluation mode
    π_tm   ← mean_i q_i(m)
    θ_tm   ← local SGD from θ_m on (1/|B|) Σ_{i in B} q_i(m) ℓ_i(θ)

and sends all θ_tm; the server takes θ_m ← Σ_t n_t θ_tm / Σ_t n_t over the cohort. The batch loss is divided by the
number of its records, not by their q: a component that a client does not use hardly moves there. The client predicts
with Σ_m π_tm p(y | x; θ_m): probabilities or real outputs are mixed, never logits.

π and q never leave the client: one weight, n_t, goes with all components. M = 1 is FedAvg.

A squared loss ½ (y − h)² is a likelihood only once the variance s² of the noise is named: ℓ above is then
(y − h)² / (2 s²), and s (``noise``) decides how sharply q tells components apart. Components train on ½ (y − h)²
whatever s is: a factor common to all records is a matter of the step size.

Equal components stay equal for ever. Component 0 starts as the model of all other methods does, each further one from
a seed of its own; models that start alike whatever the seed are refused. The likelihood has several maxima:
``restart`` draws other starts, to keep the one with the best training likelihood (`rivage.studies.starts`).

Deviations: plain SGD without momentum or weight decay. A component of share 0 counts as 1e-12 in the next round, or it
could never come back. The mean is over the cohort; the published code averages over all clients, those outside the
cohort with the components as broadcast, θ_m ← θ_m + (Σ_{t in S} n_t / n) (mean_S − θ_m), which is
``average_over = "everyone"``. A client that never took part iterates q and π to convergence, with the components held
fixed, before it predicts, where the published code does one iteration per evaluation; π is not kept. BatchNorm's
running means and variances are each component's own, over all records alike.

Cost beyond FedAvg: M times the bytes in both directions and the local gradients; M forward passes over a client's
training records per round and per evaluation; M numbers of memory per client that ever took part. The mean over
everyone asks for the size of every client in every round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Cohort, Local, LocalWork, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["FedEM", "likeliest_shares", "responsibilities", "shares_of"]

_LEAST = 1e-12  # what a share counts as at least
_STILL = 1e-6  # shares that move less have converged
_MOST_COMPONENTS = 1000  # beyond, a start alone would take hours
_MOST_SCANNED = 10_000_000  # clients whose sizes a round may add up


def responsibilities(
    shares: Float[Tensor, "components"], losses: Float[Tensor, "records components"]
) -> Float[Tensor, "records components"]:
    """How likely each record came from each component: π_m exp(−ℓ_i(m)), rows scaled to sum 1.

    Args:
        shares: π, on the simplex.
        losses: of each record under each component, up to a constant per record.
    """
    return torch.softmax(shares.clamp_min(_LEAST).log() - losses, dim=1)


def shares_of(found: Float[Tensor, "records components"], before: Tensor) -> Float[Tensor, "components"]:
    """The M-step of π: the mean of q; what was there before where there are no records."""
    return found.mean(dim=0) if len(found) else before


def likeliest_shares(losses: Float[Tensor, "records components"], iterations: int) -> Float[Tensor, "components"]:
    """argmax_π Σ_i log Σ_m π_m exp(−ℓ_i(m)), a concave problem; every E-step goes up.

    Args:
        losses: of each record under each component, which are held fixed.
        iterations: at most so many, from equal shares.
    """
    components = losses.shape[1]
    shares = losses.new_full((components,), 1 / components)
    for _ in range(iterations):
        before, shares = shares, shares_of(responsibilities(shares, losses), shares)
        if float((shares - before).abs().max()) < _STILL:
            break
    return shares


def require_apart(params: Float[Tensor, "components dim"]) -> None:
    """Refuse components that start alike.

    Raises:
        ConfigError: they would remain one.
    """
    if any(torch.equal(one, other) for one, other in combinations(params, 2)):
        raise ConfigError(
            "components start from equal parameters and would stay equal",
            where="components",
            mend="Use a model that starts at random, or components = 1.",
        )


def require_components(components: int) -> None:
    """Refuse a number that nobody could train.

    Raises:
        ConfigError: it is not between 1 and 1000.
    """
    require(components, "components", least=1)
    if components > _MOST_COMPONENTS:
        mend = f"Give a number from 1 to {_MOST_COMPONENTS}: each is a model that every client trains."
        raise ConfigError(f"components is {components}", mend=mend)


def require_no_noise_of_classes(noise: float, task: Task) -> None:
    """Refuse a standard deviation where the target is not a number.

    Raises:
        ConfigError: for classes and tokens, whose losses are likelihoods as they are.
    """
    if noise != 1 and task.schema.target != "real":
        raise ConfigError(
            f"noise is {noise}, but the target is of kind {task.schema.target}",
            where="noise",
            mend="Leave it out: it is the spread of a real target.",
        )


@dataclass(frozen=True, kw_only=True)
class FedEM(Averaging):
    """Shared components, mixed by every client in its own shares.

    Args:
        learning_rate: local step size, > 0.
        components: M, from 1 to 1000.
        server_rate: how far the server goes from the components it sent to their mean, in (0, 1].
        average_over: ``cohort`` takes the mean over those who took part; ``everyone`` counts all others in with the
            components as they were sent, which damps the step by the cohort's share of all records.
        work: local epochs and batch size, for each component.
        iterations: at most so many E-steps give a client that never took part its shares, >= 1.
        noise: s > 0, standard deviation of a real target around its component's prediction, in the unit in which
            models see it; 1 for classes.
        restart: which of several random starts, >= 0.
    """

    reference: ClassVar[Reference] = Reference(
        key="marfoq21",
        authors="Othmane Marfoq and Giovanni Neglia and Aurélien Bellet and Laetitia Kameni and Richard Vidal",
        title="Federated Multi-Task Learning under a Mixture of Distributions",
        venue="NeurIPS",
        year=2021,
        arxiv="2108.10252",
        part="Algorithm 1",
    )
    needs_losses: ClassVar[bool] = True

    learning_rate: float = 0.1
    components: int = 3
    server_rate: float = 1.0
    average_over: Literal["cohort", "everyone"] = "cohort"
    work: Phase = Phase()
    iterations: int = 100
    noise: float = 1.0
    restart: int = 0

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require_components(self.components)
        require(self.iterations, "iterations", least=1)
        require(self.noise, "noise", above=0)
        require(self.restart, "restart", least=0)
        if not 0 < self.server_rate <= 1:
            raise ConfigError(f"server_rate is {self.server_rate}", mend="Give a number above 0, at most 1.")

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """All components ``[M, D]``, each from its own seed.

        Raises:
            ConfigError: when two start alike, or ``noise`` is given for classes.
        """
        require_no_noise_of_classes(self.noise, task)
        first = () if self.restart == 0 else ("restart", self.restart, 0)
        seeds = [streams.seed("model", *first)]
        seeds += [streams.seed("model", *first[:-1], m) for m in range(1, self.components)]
        params = torch.stack([task.initial(seed) for seed in seeds])
        require_apart(params)
        return {"params": params}

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """Uniformly among the available, weighted by training records, or by their share of everyone's."""
        ids = candidates.uniform(streams)
        weights = candidates.sizes(ids)
        if self.average_over == "everyone":
            weights = weights / _everyones(candidates)
        return Cohort(ids, weights, LocalWork((self.work,), self.learning_rate))

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records components"] | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The components as groups, each record weighted by its q; π before the components train."""
        assert losses is not None, "needs_losses"
        shares = memory.get("shares", self._uniform(losses))
        found = responsibilities(shares, losses / self.noise**2)
        return Local(broadcast["params"], weights=found, keep={"shares": shares_of(found, shares)})

    def _uniform(self, like: Tensor) -> Float[Tensor, "components"]:
        return like.new_full((self.components,), 1 / self.components)

    def finish(self, local: Local, task: Task) -> Update:
        """All components with one weight; the shares stay."""
        return Update({"params": (local.params, local.weight)}, memory={"shares": local.keep["shares"]})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """Towards the weighted mean of what arrived; no step if all of that has weight 0."""
        found = received["params"]
        if not found.weight > 0:
            return state
        rate = self.server_rate
        if self.average_over == "everyone":  # weights are shares of everyone's records
            rate *= min(found.weight, 1.0)
        return {"params": torch.lerp(state["params"], found.mean, rate)}  # the mean itself at rate 1

    @property
    def adaptation(self) -> None:
        """Nothing is trained to adapt."""

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records components"] | None,
        streams: Streams,
        task: Task,
    ) -> Local | None:
        """Shares for whoever has none: the most likely ones under the components as they are."""
        assert losses is not None, "needs_losses"
        if "shares" in memory:
            return None
        return Local(state["params"], keep={"shares": likeliest_shares(losses / self.noise**2, self.iterations)})

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The current components in the client's shares; in equal ones for clients nobody knows."""
        params = state["params"]
        kept = memory if local is None else local.keep
        return Predictor(params, kept.get("shares", self._uniform(params)))


def _everyones(candidates: Candidates) -> float:
    """Training records of all clients that may ever take part. O(population)."""
    size = candidates.population.size
    if size > _MOST_SCANNED:
        raise ConfigError(
            f"the records of {size} clients cannot be added up in every round",
            where="average_over",
            mend='Use average_over = "cohort", with a server_rate below 1 if steps are to be damped.',
        )
    ids = np.setdiff1d(np.arange(size, dtype=np.int64), candidates.excluded, assume_unique=True)
    return float(candidates.sizes(ids).sum())

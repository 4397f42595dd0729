"""L2GD: own models that are pulled to their mean now and then, at the toss of a coin.

Hanzely, Richtárik. Federated learning of a mixture of global and local models. arXiv 2002.05516, Algorithm 1.

Every one of T clients has a model w_t of its own, and all minimise

    (1/T) Σ_t f_t(w_t) + (λ / 2T) Σ_t ‖w_t − w̄‖² ,        w̄ = (1/T) Σ_t w_t .

A coin decides what a round is:

    with probability 1 − p    w_t ← w_t − η ∇f_t(w_t)            nothing travels
    with probability p        w_t ← (1 − s) w_t + s w̄            s = η λ (1 − p) / p, in (0, 1]

(the paper's step size is η T (1 − p)). The expected step is one of gradient descent, so that on quadratics with
curvature H_t and optimum w_t* the models scatter around

    w_t = (H_t + λ I)⁻¹ (H_t w_t* + λ w̄) .

Going towards w̄ leaves w̄ where it is: of exchanges in a row only the first sends anything. There clients send w_t when
the server asks; w̄ comes down with the next local round, before which no client needs it. λ → 0 is training alone; with
s = 1 all models are made equal in every exchange, which is FedAvg with a random number of local rounds.

Deviations: a local round runs ``work``; one step is the paper's. With K steps the pull acts like λ / K. Where not all
clients take part, those who answer make the mean, and a client is pulled for the exchanges it took part in, when it
next gets a mean. Nobody knows then who has heard of it, so it goes along whenever something is sent or trained. A
client starts from a mean, if it is sent one first, or from the start that all methods share, which it makes from the
seed of the run; who has been forgotten (`remembered`) does that again. A client that never took part minimises f_t(w) +
(λ/2) ‖w − w̄‖² from w̄ before it predicts; it is not kept. A round in which nobody answers is tossed the same way
again. What is sent is a model and no difference to one, for the mean need not have gone down before: a stage that clips
bounds the model itself.

Cost beyond FedAvg: one model of memory per client that ever took part. Of R rounds about R p (1 − p) send a model up,
and as many one down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Cohort, Local, LocalWork, Mean, Phase, Predictor, Pull, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor, require_stable
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["L2GD"]


@dataclass(frozen=True, kw_only=True)
class L2GD(Averaging):
    """Models of one's own, pulled to their mean in random rounds.

    Args:
        learning_rate: local step size η, > 0.
        pull: λ, how strongly models are held together, > 0; s = η λ (1 − p) / p is at most 1.
        exchange_probability: p, in (0, 1).
        work: what a local round does; ``updates = 1`` is the paper's.
        tuning: epochs and batch size with which clients that never took part make their model.
    """

    reference: ClassVar[Reference] = Reference(
        key="hanzely20",
        authors="Filip Hanzely and Peter Richtárik",
        title="Federated Learning of a Mixture of Global and Local Models",
        venue="arXiv",
        year=2020,
        arxiv="2002.05516",
        part="Algorithm 1",
        entry="misc",
    )
    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"pull": (0.1, 0.3, 1.0)}

    learning_rate: float = 0.1
    pull: float = 1.0
    exchange_probability: float = 0.1
    work: Phase = Phase()
    tuning: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.pull, "pull", above=0)
        p = self.exchange_probability
        if not 0 < p < 1:
            raise ConfigError(f"exchange_probability is {p}", mend="Give a number above 0 and below 1.")
        if self._way > 1 + 1e-9:
            raise ConfigError(
                f"pull is {self.pull} with learning_rate {self.learning_rate} and exchange_probability {p}: an "
                f"exchange would take every model {self._way:g} of the way to the mean, beyond it",
                mend=f"Give pull at most {self.pull / self._way:g}, or raise exchange_probability.",
            )
        require_stable(self.learning_rate, self.pull, "pull")

    @property
    def _way(self) -> float:
        """s, how far an exchange takes a model to the mean."""
        return self.learning_rate * self.pull * (1 - self.exchange_probability) / self.exchange_probability

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """The mean, where all models start; what coins come from; rounds played; T, and how many made the mean."""
        state = super().init(task, clients, streams)
        numbers = {"key": streams.seed("coin") >> 1, "round": 0, "clients": clients, "heard": clients}
        return {**state, **{name: torch.tensor(number) for name, number in numbers.items()}}

    def _exchanges(self, state: State, ago: int = 0) -> bool:
        """Whether the coin of this round, or of one before, says that models are pulled to their mean."""
        return _coin(int(state["key"]), int(state["round"]) - ago) < self.exchange_probability

    def _moved(self, state: State) -> bool:
        """Whether models have trained since the last exchange."""
        return int(state["round"]) > 0 and not self._exchanges(state, ago=1)

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """As FedAvg, but clients count alike, and in an exchange nobody trains."""
        ids = candidates.uniform(streams)
        work = None if self._exchanges(state) else LocalWork((self.work,), self.learning_rate)
        return Cohort(ids, np.ones(len(ids)), work)

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The mean, before a local round, if it is new to somebody; a word that models are wanted, if they are."""
        exchange, moved = self._exchanges(state), self._moved(state)
        whole = bool(state["heard"] >= state["clients"])
        mean = {"params": state["params"]}
        if exchange and moved:
            return {"wanted": state["round"], **({} if whole else mean)}
        return {} if exchange or (moved and whole) else mean

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The client's own model, pulled for its past exchanges once it hears of a mean."""
        if "own" not in memory:
            own = broadcast["params"] if "params" in broadcast else task.initial(Streams(streams.root).seed("model"))
            memory = {"own": own, "pulls": torch.tensor(0)}
        if "params" in broadcast:
            memory = {"own": self._pulled(memory, broadcast["params"]), "pulls": torch.tensor(0)}
        wanted = {"wanted": broadcast["wanted"]} if "wanted" in broadcast else {}
        return Local(memory["own"][None], keep={"pulls": memory["pulls"], **wanted})

    def _pulled(self, memory: State, mean: Tensor) -> Tensor:
        """(1 − s)ᵐ of the way from the mean, after m exchanges."""
        own = memory["own"]
        return torch.lerp(mean, own, max(0.0, 1 - self._way) ** int(memory["pulls"])) if memory["pulls"] else own

    def finish(self, local: Local, task: Task) -> Update:
        """The model leaves if it is wanted; it stays, with the number of exchanges since it last heard of a mean."""
        pulls = local.keep["pulls"] + (local.steps == 0)
        payload = {"params": (local.params[0], local.weight)} if "wanted" in local.keep else {}
        return Update(payload, memory={"own": local.params[0].clone(), "pulls": pulls})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """The mean of what arrived, if something did; one round more."""
        after = {**state, "round": state["round"] + 1}
        if "params" in received and received["params"].weight > 0:
            after["params"] = received["params"].mean
            after["heard"] = torch.tensor(round(received["params"].weight))
        return after

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
        """A model around the mean, for whoever has none."""
        return None if "own" in memory else Local(state["params"][None], pull=Pull(self.pull, state["params"]))

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The client's own model, pulled as far as it will be; the mean for clients nobody knows yet."""
        if local is not None:
            return global_predictor(local.params[0])
        return global_predictor(self._pulled(memory, state["params"]) if "own" in memory else state["params"])


@lru_cache(maxsize=16)
def _coin(key: int, round: int) -> float:
    """In [0, 1). All clients of a round ask for the same two coins."""
    return float(Streams(key).numpy(round).random())

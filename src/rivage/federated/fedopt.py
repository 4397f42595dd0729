"""Federated averaging with an optimiser at the server: FedAvgM, FedAdagrad, FedAdam, FedYogi.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan. Adaptive federated optimization. ICLR 2021,
arXiv 2003.00295, Algorithm 2. FedAvgM: Hsu, Qi, Brown. Measuring the effects of non-identical data distribution for
federated visual classification. arXiv 1909.06335.

Clients train as in FedAvg. The server reads the mean of their moves as a negative gradient,

    Δ = Σ_k (n_k / n_S) w_k − w_t ,

and takes one step of an optimiser, coordinate by coordinate and without bias correction:

    FedAvgM      v ← β v + Δ                      w ← w + η v
    the others   m ← β₁ m + (1 − β₁) Δ            w ← w + η m / (√v + τ)
    FedAdagrad   v ← v + Δ²
    FedAdam      v ← β₂ v + (1 − β₂) Δ²
    FedYogi      v ← v − (1 − β₂) Δ² sign(v − Δ²)

FedAvgM with β = 0 and η = 1 is FedAvg, bit for bit.

Deviations: clients are weighted by their training records. Only trainable parameters take optimiser steps; what lies
behind them in the vector (running means and variances of BatchNorm) is averaged as in FedAvg, for a step along the
direction of a variance may leave it negative.

Cost beyond FedAvg: one or two vectors of the size of the model at the server and O(D) time per round. Nothing more
travels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, Mean, Phase, Predictor, Reference, State
from rivage.federated.averaging import Averaging, global_predictor

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["FedAdagrad", "FedAdam", "FedAvgM", "FedYogi"]

_REFERENCE = Reference(
    key="reddi21",
    authors="Sashank J. Reddi and Zachary Charles and Manzil Zaheer and Zachary Garrett and Keith Rush "
    "and Jakub Konečný and Sanjiv Kumar and H. Brendan McMahan",
    title="Adaptive Federated Optimization",
    venue="ICLR",
    year=2021,
    arxiv="2003.00295",
    part="Algorithm 2",
)


class _Optimizing(Averaging, ABC):
    """FedAvg's clients; the server's step is `_step`."""

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The model; the optimiser's tensors stay at the server."""
        return {"params": state["params"]}

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the shared model, on the plain local loss."""
        return Local(broadcast["params"][None])

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """One step of the optimiser; nothing moves if all of what arrived has weight 0."""
        if not received["params"].weight > 0:
            return state
        size, mean = task.layout.trainable, received["params"].mean
        moved = self._step({**state, "params": state["params"][:size]}, mean[:size])
        return {**moved, "params": torch.cat([moved["params"], mean[size:]])}

    @abstractmethod
    def _step(self, state: State, mean: Float[Tensor, "trainable"]) -> State:
        """The next state, given the clients' mean; ``params`` are the trainable ones in both."""

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The shared model."""
        return global_predictor(state["params"])


@dataclass(frozen=True, kw_only=True)
class FedAvgM(_Optimizing):
    """FedAvg with momentum at the server.

    Args:
        learning_rate: local step size, > 0.
        server_rate: step size η at the server, > 0.
        momentum: share β of the previous step that is kept, in [0, 1); with it, steps grow up to 1 / (1 − β)-fold.
        work: local epochs and batch size.
    """

    reference: ClassVar[Reference] = Reference(
        key="hsu19",
        authors="Tzu-Ming Harry Hsu and Hang Qi and Matthew Brown",
        title="Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
        venue="arXiv",
        year=2019,
        arxiv="1909.06335",
        part="FedAvgM",
        entry="misc",
    )

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"server_rate": (0.1, 0.3, 1.0)}

    learning_rate: float = 0.1
    server_rate: float = 1.0
    momentum: float = 0.9
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.server_rate, "server_rate", above=0)
        _require_share(self.momentum, "momentum")

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """The model, at rest."""
        params = task.initial(streams.seed("model"))
        return {"params": params, "momentum": torch.zeros_like(params[: task.layout.trainable])}

    def _step(self, state: State, mean: Float[Tensor, "trainable"]) -> State:
        delta = mean - state["params"]
        velocity = self.momentum * state["momentum"] + delta
        # w + η v, as the mean less what η v lacks of Δ: exactly 0 for β = 0 and η = 1, where w + (mean − w) rounds.
        return {"params": mean - (delta - self.server_rate * velocity), "momentum": velocity}


@dataclass(frozen=True, kw_only=True)
class _Adaptive(_Optimizing, ABC):
    """What the rules with a step size per coordinate share; `_second` tells them apart."""

    reference: ClassVar[Reference] = _REFERENCE

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"server_rate": (0.01, 0.1, 1.0), "adaptivity": (1e-3, 1e-1)}

    learning_rate: float = 0.1
    server_rate: float = 0.1
    momentum: float = 0.9
    adaptivity: float = 1e-3
    initial_variance: float | None = None
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.server_rate, "server_rate", above=0)
        _require_share(self.momentum, "momentum")
        require(self.adaptivity, "adaptivity", above=0)
        if self.initial_variance is not None:
            require(self.initial_variance, "initial_variance", least=0)

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """The model, at rest, and v of the paper's size τ² unless set."""
        params = task.initial(streams.seed("model"))
        rest = torch.zeros_like(params[: task.layout.trainable])
        value = self.adaptivity**2 if self.initial_variance is None else self.initial_variance
        return {"params": params, "momentum": rest, "variance": torch.full_like(rest, value)}

    def _step(self, state: State, mean: Float[Tensor, "trainable"]) -> State:
        delta = mean - state["params"]
        momentum = self.momentum * state["momentum"] + (1 - self.momentum) * delta
        variance = self._second(state["variance"], delta.square())
        step = self.server_rate * momentum / (variance.sqrt() + self.adaptivity)
        return {"params": state["params"] + step, "momentum": momentum, "variance": variance}

    @abstractmethod
    def _second(
        self, variance: Float[Tensor, "trainable"], square: Float[Tensor, "trainable"]
    ) -> Float[Tensor, "trainable"]:
        """The next v, given Δ²."""


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(_Adaptive):
    """FedAvg with Adagrad at the server: steps shrink with all moves so far.

    Args:
        learning_rate: local step size, > 0.
        server_rate: step size η at the server, > 0.
        momentum: β₁, share of the previous mean move that is kept, in [0, 1); 0 is Adagrad without momentum.
        adaptivity: τ, > 0; the larger, the less the step sizes of coordinates differ.
        initial_variance: v before the first round, >= 0; None takes τ².
        work: local epochs and batch size.
    """

    def _second(
        self, variance: Float[Tensor, "trainable"], square: Float[Tensor, "trainable"]
    ) -> Float[Tensor, "trainable"]:
        return variance + square


@dataclass(frozen=True, kw_only=True)
class FedAdam(_Adaptive):
    """FedAvg with Adam at the server: steps shrink with the recent moves.

    Args:
        learning_rate: local step size, > 0.
        server_rate: step size η at the server, > 0.
        momentum: β₁, share of the previous mean move that is kept, in [0, 1).
        variance_decay: β₂, share of the previous mean square that is kept, in [0, 1).
        adaptivity: τ, > 0; the larger, the less the step sizes of coordinates differ.
        initial_variance: v before the first round, >= 0; None takes τ².
        work: local epochs and batch size.
    """

    variance_decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_share(self.variance_decay, "variance_decay")

    def _second(
        self, variance: Float[Tensor, "trainable"], square: Float[Tensor, "trainable"]
    ) -> Float[Tensor, "trainable"]:
        return self.variance_decay * variance + (1 - self.variance_decay) * square


@dataclass(frozen=True, kw_only=True)
class FedYogi(_Adaptive):
    """FedAvg with Yogi at the server: like Adam, but v changes by a bounded amount, whatever its size.

    Args:
        learning_rate: local step size, > 0.
        server_rate: step size η at the server, > 0.
        momentum: β₁, share of the previous mean move that is kept, in [0, 1).
        variance_decay: β₂, in [0, 1); v moves by (1 − β₂) Δ² towards Δ².
        adaptivity: τ, > 0; the larger, the less the step sizes of coordinates differ.
        initial_variance: v before the first round, >= 0; None takes τ².
        work: local epochs and batch size.
    """

    variance_decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_share(self.variance_decay, "variance_decay")

    def _second(
        self, variance: Float[Tensor, "trainable"], square: Float[Tensor, "trainable"]
    ) -> Float[Tensor, "trainable"]:
        return variance - (1 - self.variance_decay) * square * torch.sign(variance - square)


def _require_share(value: float, name: str) -> None:
    """Refuse what would never forget.

    Raises:
        ConfigError: naming the value and its range.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{name} is {value}", mend="Give a number of at least 0 and less than 1.")

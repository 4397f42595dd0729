"""The protocol of a decentralised algorithm: silos train, and average with those they have arcs with. No server.

An algorithm is one frozen dataclass of hyper-parameters, written for ONE silo and run for all: the last axis of every
tensor is the flat parameter vector D, scalars of a silo have shape ``[..., 1]``, so the same code broadcasts over a
stack of silos ``[silos, D]`` unchanged, and runs alone in a process of its own. Engines know no algorithm, algorithms
know neither engine nor overlay.

A round, as an engine plays it::

    state   = start(initial model)                       the same for all silos, before round 0
    trained = <local training from state["params"]>
    sent    = send(state, trained, rate)                 to every silo that receives from this one
    sums    = Σ_j W_ij sent_j, entry by entry            own share W_ii included
    state   = receive(state, trained, rate, sent, sums)

With one mini-batch step of plain SGD the gradient is (state["params"] − trained) / rate: methods that need it have it.
What `send` leaves out of a state never leaves the silo; checkpoints have it.

A method that `Weighs` has several models in each silo, ``params`` being ``[*silos, groups, dim]``, and before it trains

    state, weights = weigh(state, losses)                of every record of the silo, under each of its models
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.seeding import Streams
from rivage.federated.algorithm import Phase, Predictor, Reference, State
from rivage.federated.averaging import global_predictor

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = [
    "BatchKind",
    "CountBy",
    "GossipAlgorithm",
    "Losses",
    "Mix",
    "Needs",
    "State",
    "Weighs",
    "initial",
    "one_step",
    "play",
    "predictor",
    "row",
    "weighed",
]

Needs = Literal["symmetric", "doubly", "column"]
"""What a method asks of W: one symmetric matrix for all rounds, rows and columns that sum to 1, or columns only."""

CountBy = Literal["silos", "records"]
"""What a silo counts for in what all want to make small: the mean over silos, or the mean over all training records."""

BatchKind = Literal["shuffle", "poisson", "endless"]

Mix = Callable[[State], State]
"""``sent`` of the silos at hand -> ``sums`` of the same silos."""

Losses = Callable[[Float[Tensor, "silos groups dim"]], Sequence[Float[Tensor, "records groups"]]]
"""Models of the silos at hand -> the loss of each silo's training records under each of its own."""


@runtime_checkable
class GossipAlgorithm(Protocol):
    """A decentralised algorithm."""

    reference: ClassVar[Reference]
    needs: ClassVar[Needs]

    @property
    def learning_rate(self) -> float:
        """Step size, > 0."""
        ...

    @property
    def overlay(self) -> Any:
        """Settings of the overlay: one of `rivage.decentralized.designers.DESIGNERS`."""
        ...

    @property
    def count_by(self) -> CountBy:
        """What silos count for; the engine scales their losses accordingly."""
        ...

    @property
    def work(self) -> Phase:
        """What a silo does on its own data in a round."""
        ...

    def start(self, params: Float[Tensor, "*silos dim"]) -> State:
        """What a silo holds before round 0.

        Args:
            params: the initial model, or models, the same for all silos.

        Returns:
            Named tensors. Under ``params`` is the model from which the silo trains, and with which it predicts.
        """
        ...

    def send(self, state: State, trained: Float[Tensor, "*silos dim"], rate: float) -> State:
        """What goes to every out-neighbour, after local training.

        Args:
            state: before the round.
            trained: the model that local training made of ``state["params"]``.
            rate: step size with which it was trained, > 0.
        """
        ...

    def receive(
        self, state: State, trained: Float[Tensor, "*silos dim"], rate: float, sent: State, sums: State
    ) -> State:
        """The state after the round.

        Args:
            state: before it.
            trained: as for `send`.
            rate: as for `send`.
            sent: what `send` returned.
            sums: for each entry Σ_j W_ij sent_j over the silos this one receives from and itself.
        """
        ...


@runtime_checkable
class Weighs(Protocol):
    """A method whose silos have several models each, weigh their records among them, and predict with a mixture.

    Hooks see ONE silo, ``params`` being ``[groups, dim]``: silos have as many records as they have.
    """

    def initial(self, task: Task, streams: Streams) -> Float[Tensor, "groups dim"]:
        """The models from which all silos start."""
        ...

    def weigh(
        self, state: State, losses: Float[Tensor, "records groups"]
    ) -> tuple[State, Float[Tensor, "records groups"]]:
        """What a silo makes of its records before it trains.

        Args:
            state: before the round.
            losses: of every training record under each of ``state["params"]``, in evaluation mode.

        Returns:
            The state from which the silo trains, with the same ``params``; what else is new in it is the silo's own,
            and `send` leaves it out. And the weight of each record in the loss of each model, >= 0.
        """
        ...

    def settle(self, state: State, losses: Float[Tensor, "records groups"]) -> State:
        """The state of a client that never trained, from what `start` made of the average models: they stay."""
        ...

    def predictor(self, state: State) -> Predictor:
        """What a silo predicts with."""
        ...


def initial(algorithm: GossipAlgorithm, task: Task, seed: int) -> Float[Tensor, "*groups dim"]:
    """Where all silos of a trial start: from the model from which federated methods start."""
    streams = Streams(seed)
    return algorithm.initial(task, streams) if isinstance(algorithm, Weighs) else task.initial(streams.seed("model"))


def weighed(algorithm: GossipAlgorithm, state: State, losses: Losses) -> tuple[State, list[Tensor | None]]:
    """What the silos at hand make of their records: their states, and each one's weights; None where all count as 1."""
    if not isinstance(algorithm, Weighs):
        return state, [None] * len(state["params"])
    found = [algorithm.weigh(row(state, silo), each) for silo, each in enumerate(losses(state["params"]))]
    stacked = {name: torch.stack([each[name] for each, _ in found]) for name in state}
    return stacked, [weights for _, weights in found]


def predictor(algorithm: GossipAlgorithm, state: State) -> Predictor:
    """What one silo predicts with."""
    return algorithm.predictor(state) if isinstance(algorithm, Weighs) else global_predictor(state["params"])


def row(state: State, silo: int) -> State:
    """What one of several silos holds."""
    return {name: values[silo] for name, values in state.items()}


def play(
    algorithm: GossipAlgorithm, state: State, trained: Float[Tensor, "*silos dim"], rate: float, mix: Mix
) -> State:
    """The exchange of one round, for the silos at hand."""
    sent = algorithm.send(state, trained, rate)
    return algorithm.receive(state, trained, rate, sent, mix(sent))


def one_step(batch_size: int | None, batches: BatchKind = "shuffle") -> Phase:
    """The local work of methods that take one mini-batch gradient a round."""
    return Phase(updates=1, batch_size=batch_size, batches=batches)

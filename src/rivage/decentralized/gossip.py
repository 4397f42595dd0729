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
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from rivage.federated.algorithm import Phase, Reference, State

__all__ = ["BatchKind", "CountBy", "GossipAlgorithm", "Mix", "Needs", "State", "one_step", "play"]

Needs = Literal["symmetric", "doubly", "column"]
"""What a method asks of W: one symmetric matrix for all rounds, rows and columns that sum to 1, or columns only."""

CountBy = Literal["silos", "records"]
"""What a silo counts for in what all want to make small: the mean over silos, or the mean over all training records."""

BatchKind = Literal["shuffle", "poisson", "endless"]

Mix = Callable[[State], State]
"""``sent`` of the silos at hand -> ``sums`` of the same silos."""


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
            params: the initial model, the same for all silos.

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


def play(
    algorithm: GossipAlgorithm, state: State, trained: Float[Tensor, "*silos dim"], rate: float, mix: Mix
) -> State:
    """The exchange of one round, for the silos at hand."""
    sent = algorithm.send(state, trained, rate)
    return algorithm.receive(state, trained, rate, sent, mix(sent))


def one_step(batch_size: int | None, batches: BatchKind = "shuffle") -> Phase:
    """The local work of methods that take one mini-batch gradient a round."""
    return Phase(updates=1, batch_size=batch_size, batches=batches)

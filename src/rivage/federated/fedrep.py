"""FedRep: a shared body, and for every client a head of its own.

Collins, Hassani, Mokhtari, Shakkottai. Exploiting shared representations for personalized federated learning. ICML
2021, arXiv 2102.07078, Algorithm 1.

The parameters are a body φ, which makes a representation of a record, and a head h, which reads it. Client k of a
cohort keeps h_k and in a round

    h_k ← h_k − η ∇_h f_k(h_k, φ)     first, for several epochs, φ as broadcast and held fixed
    φ   ← φ − η ∇_φ f_k(h_k, φ)       then, for the epochs of ``work``, h_k held fixed

sends φ alone; the server takes the mean, φ ← Σ_k n_k φ_k / Σ_k n_k. The client predicts with the current φ and its h_k.

Deviations: gradients are those of mini-batches in both phases. All heads start as the model does that all methods start
from; a client makes that start from the seed of the run, so that no head ever travels. Running means and variances of
BatchNorm belong to the body and move in both phases. A client that never took part (a newcomer, or one no cohort has
drawn) trains a head on the current body before it predicts; it is not kept. With ``refresh`` all others do that too,
from their own head.

Cost beyond FedAvg: the epochs of the head; one head of memory per client that ever took part. The head's numbers do not
travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Cohort, Local, LocalWork, Mean, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["FedRep"]


@dataclass(frozen=True, kw_only=True)
class FedRep(Averaging):
    """Shared body, own heads.

    Args:
        learning_rate: local step size η of both phases, > 0.
        head: parameters of the head by name, a prefix stands for all below it (``"classifier"``); empty means the last
            linear layer.
        head_epochs: passes over its records in which a client trains its head, before the body, >= 1; batches are
            those of ``work``, shuffled where those are endless.
        work: epochs and batch size with which the body trains.
        refresh: whether clients with a head go on training it on the current body before they predict.
    """

    reference: ClassVar[Reference] = Reference(
        key="collins21",
        authors="Liam Collins and Hamed Hassani and Aryan Mokhtari and Sanjay Shakkottai",
        title="Exploiting Shared Representations for Personalized Federated Learning",
        venue="ICML",
        year=2021,
        arxiv="2102.07078",
        part="Algorithm 1",
    )
    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"head_epochs": (1, 5, 10)}

    learning_rate: float = 0.1
    head: tuple[str, ...] = ()
    head_epochs: int = 10
    work: Phase = Phase()
    refresh: bool = False

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.head_epochs, "head_epochs", least=1)
        if self.work.train:
            raise ConfigError(
                f"work.train is {list(self.work.train)}, but FedRep trains head and body in turn",
                mend="Leave it out; head says what belongs to the head.",
            )

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """Body, and the head that all clients start from, which stays what it is.

        Raises:
            ConfigError: for a model without body or head, or one of them without anything to train.
        """
        mask = self._in_head(task)
        self._require_parts(task, mask)
        return _split(task.initial(streams.seed("model")), mask)

    def _in_head(self, task: Task) -> Bool[Tensor, "dim"]:
        """Where the parameters of the head lie."""
        return task.layout.mask(self.head or task.head).to(task.device)

    def _require_parts(self, task: Task, mask: Bool[Tensor, "dim"]) -> None:
        learns = mask[: task.layout.trainable]
        for part, found in (("body", bool((~learns).any())), ("head", bool(learns.any()))):
            if not found:
                known = ", ".join(entry.name for entry in task.layout.entries)
                raise ConfigError(
                    f"the model has no {part} to train: its head is {', '.join(self.head or task.head)}",
                    where="task.model",
                    mend=f"Take a model with a layer before the head, or name the head among {known}.",
                )

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """As FedAvg; the head's phase, then the body's."""
        cohort, mask = super().select(state, candidates, streams, task), self._in_head(task)
        learns = [entry for entry in task.layout.entries if entry.offset < task.layout.trainable]
        body = tuple(entry.name for entry in learns if not mask[entry.offset])
        phases = (self._head_phase, replace(self.work, train=body))
        return replace(cohort, work=LocalWork(phases, self.learning_rate))

    @property
    def _head_phase(self) -> Phase:
        batches = "shuffle" if self.work.batches == "endless" else self.work.batches
        train = self.head or ("@head",)
        return replace(self.work, epochs=self.head_epochs, updates=None, batches=batches, train=train)

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The body."""
        return {"body": state["body"]}

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The body under the client's own head."""
        mask = self._in_head(task)
        head = memory["head"] if "head" in memory else task.initial(Streams(streams.root).seed("model"))[mask]
        return Local(_joined(broadcast["body"], head, mask)[None])

    def finish(self, local: Local, task: Task) -> Update:
        """The body leaves, the head stays."""
        parts = _split(local.params[0], self._in_head(task))
        return Update({"body": (parts["body"], local.weight)}, memory={"head": parts["head"]})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """The mean body; it stays where it was if what arrived has weight 0."""
        return {**state, "body": received["body"].mean} if received["body"].weight > 0 else state

    @property
    def adaptation(self) -> LocalWork:
        """How a head is trained on the current body."""
        return LocalWork((self._head_phase,), self.learning_rate)

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local | None:
        """A head for whoever has none, and with ``refresh`` for all."""
        if "head" in memory and not self.refresh:
            return None
        return Local(_joined(state["body"], memory.get("head", state["head"]), self._in_head(task))[None])

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The current body under the client's own head; under the head that all start from where there is none."""
        if local is not None:
            return global_predictor(local.params[0])
        return global_predictor(_joined(state["body"], memory.get("head", state["head"]), self._in_head(task)))


def _split(params: Float[Tensor, "dim"], in_head: Bool[Tensor, "dim"]) -> dict[str, Tensor]:
    return {"body": params[~in_head], "head": params[in_head]}


def _joined(
    body: Float[Tensor, "below"], head: Float[Tensor, "above"], in_head: Bool[Tensor, "dim"]
) -> Float[Tensor, "dim"]:
    params = body.new_empty(len(in_head))
    params[~in_head], params[in_head] = body, head
    return params

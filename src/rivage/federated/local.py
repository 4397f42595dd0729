"""Local: every client on its own, the reference that collaboration has to beat.

No message is ever sent. A client trains from the common start on its own records for a fixed number of epochs; clients
that arrive later do the same.

Cost: ``work.epochs`` local passes per client, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import (
    Cohort,
    LocalWork,
    Mean,
    Phase,
    Predictor,
    Reference,
    State,
    Update,
)
from rivage.federated.algorithm import Local as Job
from rivage.federated.averaging import global_predictor
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Local"]


@dataclass(frozen=True, kw_only=True)
class Local:
    """Training on own data alone.

    Args:
        learning_rate: step size, > 0.
        epochs: passes over the client's records, in place of ``work.epochs``.
        work: batch size and kind of batches.
    """

    reference: ClassVar[Reference] = Reference(
        key="kairouz21",
        authors="Peter Kairouz and H. Brendan McMahan and others",
        title="Advances and Open Problems in Federated Learning",
        venue="Foundations and Trends in Machine Learning",
        year=2021,
        arxiv="1912.04977",
        part="Section 3.3",
        entry="article",
    )
    needs: ClassVar[Literal["sum", "each"]] = "sum"
    needs_losses: ClassVar[bool] = False
    federates: ClassVar[bool] = False

    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"epochs": (10, 30, 100)}

    learning_rate: float = 0.1
    epochs: int = 30
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.epochs, "epochs", least=1)

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """The start that all methods share."""
        return {"params": task.initial(streams.seed("model"))}

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """Nobody."""
        return Cohort(np.empty(0, np.int64), np.empty(0), None)

    def broadcast(self, state: State, client: int, task: Task) -> None:
        """Nothing."""

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Job:
        """Never asked for: nobody is selected."""
        raise AssertionError("Local sends nobody to a round")

    def finish(self, local: Job, task: Task) -> Update:
        """Nothing leaves the device."""
        return Update({})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """Nothing arrives."""
        return state

    @property
    def adaptation(self) -> LocalWork:
        """All the training there is."""
        batches = "shuffle" if self.work.batches == "endless" else self.work.batches
        phase = replace(self.work, epochs=self.epochs, updates=None, batches=batches, noise=None)  # nothing is sent
        return LocalWork((phase,), self.learning_rate)

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Job:
        """From the common start."""
        return Job(state["params"][None])

    def predictor(self, state: State, memory: State, local: Job | None, task: Task) -> Predictor:
        """The client's own model."""
        return global_predictor(state["params"] if local is None else local.params[0])

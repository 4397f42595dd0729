"""Evaluation of silos: each with what it holds, on its own records; other clients with the average of all silos.

Clients that are no silos take no gradient. Where models are mixed, they find their mixture of the average models on
their own training records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor

from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.decentralized import gossip
from rivage.decentralized.gossip import GossipAlgorithm, State, Weighs
from rivage.decentralized.silo_trial import SiloTrial
from rivage.federated.algorithm import Algorithm, Local, Predictor
from rivage.federated.checkpoint import Memory
from rivage.federated.evaluation import Evaluation, Evaluator
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import one_thread
from rivage.federated.failures import naming
from rivage.learning.task import Task

__all__ = ["Judge"]


@dataclass(frozen=True)
class _Judged:
    """A decentralised algorithm as evaluation knows algorithms.

    What a silo holds is its memory. What others adapt to is the state, as it would be broadcast.
    """

    algorithm: GossipAlgorithm
    adaptation: None = None

    @property
    def needs_losses(self) -> bool:
        return isinstance(self.algorithm, Weighs)

    def broadcast(self, state: State, client: int, task: Task) -> State | None:
        return state or None

    def adapt(
        self, state: State, memory: State, data: ClientData, losses: Tensor | None, streams: Streams, task: Task
    ) -> Local | None:
        if losses is None:
            return None
        held = cast(Weighs, self.algorithm).settle(self.algorithm.start(state["params"]), losses)
        return Local(held["params"], keep=dict(held))

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        return gossip.predictor(self.algorithm, memory if local is None else local.keep)


class Judge:
    """Scores models on the records of clients.

    Args:
        trial: supplies the records.
        executor: computes.
    """

    def __init__(self, trial: SiloTrial, executor: Executor) -> None:
        self._trial = trial
        judged = cast(Algorithm, _Judged(trial.algorithm))
        self._evaluator = Evaluator(judged, trial.population, executor, Streams(trial.seed))

    def silos(self, held: Mapping[int, State], round: int, group: str, *, keep: float = 0) -> Evaluation:
        """Silos, by client, with what each holds."""
        return self._judge({}, held, round, group, keep)

    def others(
        self, average: Float[Tensor, "*groups dim"], clients: Sequence[int], round: int, *, keep: float = 0
    ) -> Evaluation:
        """Clients that are no silos."""
        state = {"params": average}
        return self._judge(state, dict.fromkeys(clients, state), round, "unseen", keep)

    def _judge(self, state: State, held: Mapping[int, State], round: int, group: str, keep: float) -> Evaluation:
        trial = self._trial
        where = f'method "{trial.name}", seed {trial.seed}, evaluation after round {round}'
        with one_thread(), naming(where):
            return self._evaluator.evaluate(
                state,
                lambda block: [Memory(held[client]) for client in block],
                list(held),
                round,
                group,
                keep=keep,
            )

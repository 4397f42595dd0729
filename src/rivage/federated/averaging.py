"""What methods with one shared, averaged model have in common.

The server keeps one vector ``w``; every client of a uniform cohort starts from it, trains with plain SGD and returns
its model; the server takes the mean weighted by training records,

    w_{t+1} = Σ_{k in S} n_k w_k / Σ_{k in S} n_k .

Final classes add the local objective (`start`) and the personal model (`predictor`).
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Cohort, Local, LocalWork, Mean, Phase, Predictor, State, Update
from rivage.federated.cohorts import Candidates

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Averaging", "global_predictor", "require_stable"]


def global_predictor(params: Tensor) -> Predictor:
    """The same single model for everyone."""
    return Predictor(params[None], params.new_ones(1))


def require_stable(learning_rate: float, strength: float, name: str) -> None:
    """Refuse a proximal term (λ/2) ‖w − a‖² under which gradient descent with step size η runs away.

    The term alone multiplies w − a by 1 − η λ in every step, which shrinks nothing unless η λ < 2.

    Raises:
        ConfigError: naming both numbers.
    """
    if learning_rate * strength >= 2:
        raise ConfigError(
            f"{name} is {strength} with learning_rate {learning_rate}: training diverges from a product of 2 on, "
            f"theirs is {learning_rate * strength:g}",
            mend=f"Give {name} below {2 / learning_rate:g}, or lower learning_rate.",
        )


class Averaging(ABC):
    """Server side of federated averaging; see the module's equation.

    Cost per round and client: D numbers down, D numbers and one weight up.
    """

    needs: ClassVar[Literal["sum", "each"]] = "sum"
    needs_losses: ClassVar[bool] = False
    federates: ClassVar[bool] = True
    learning_rate: float
    work: Phase

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """One model, from the seed that all methods share."""
        return {"params": task.initial(streams.seed("model"))}

    def select(self, state: State, candidates: Candidates, streams: Streams, task: Task) -> Cohort:
        """Uniformly without replacement among the available, weighted by training records."""
        ids = candidates.uniform(streams)
        return Cohort(ids, candidates.sizes(ids), LocalWork((self.work,), self.learning_rate))

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The model, one object for all."""
        return state

    def finish(self, local: Local, task: Task) -> Update:
        """The trained model, weighted by the client's importance."""
        return Update({"params": (local.params[0], local.weight)})

    def aggregate(self, state: State, received: Mapping[str, Mean], task: Task) -> State:
        """The weighted mean of what arrived; the model stays where it was if all of that has weight 0."""
        return {"params": received["params"].mean} if received["params"].weight > 0 else state

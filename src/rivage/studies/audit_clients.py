"""Clients that go on training after a run has ended: what an active server can ask."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.federated.algorithm import LocalWork, State
from rivage.federated.averaging import Averaging
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.stages import Pipeline
from rivage.federated.trial import Trial
from rivage.learning.params import from_numpy, to_numpy
from rivage.privacy.views import Refused

__all__ = ["LiveClients"]


class LiveClients:
    """Trains a client from whatever model it is sent, as it did in the run: same method, stages and records.

    Args:
        trial: that was played; its seed is not used.
        streams: for the order of records from now on.
    """

    def __init__(self, trial: Trial, streams: Streams) -> None:
        self._trial, self._streams = trial, streams
        self._executor = Executor(trial.task, trial.execution)

    def __call__(self, client: int, params: Float[ndarray, "dim"], turn: int) -> Float[ndarray, "dim"]:
        """What the client returns in the ``turn``-th round after the log ends.

        Raises:
            Refused: for methods whose clients need more than one model.
        """
        trial, task = self._trial, self._trial.task
        method = trial.algorithm
        if not isinstance(method, Averaging):
            raise Refused(f'clients of "{trial.name}" train from more than the one model that an active server sends')
        down: State = {"params": from_numpy(params.copy(), dtype=task.dtype, device=task.device)}
        data = trial.population.client(client, max(trial.rounds - 1, 0))
        (losses,) = self._executor.client_losses(method, [down], [data])
        streams = self._streams.child("turn", turn, "client", client)
        try:
            local = method.start(down, {}, data, losses, streams, task)
        except KeyError as error:  # of the broadcast, or of what a client remembers
            raise Refused(f'clients of "{trial.name}" need {error} beside the one model that they are sent') from error
        job = Job(client, local, data.train)
        job.local.weight = float(data.weight)
        work = LocalWork((method.work,), method.learning_rate)
        self._executor.train(method, work, [job], self._streams.child("train"), turn)
        update = method.finish(job.local, task)
        if trial.stages:
            update = Pipeline(trial.stages).transmit(update, down, {}, streams.child("stages")).update
        if "params" not in update.payload:
            raise Refused(f'clients of "{trial.name}" return {", ".join(update.payload)}, no whole model')
        returned: ndarray = to_numpy(update.payload["params"][0])
        return np.asarray(returned).reshape(-1)

    def close(self) -> None:
        """Let the workers go."""
        self._executor.close()

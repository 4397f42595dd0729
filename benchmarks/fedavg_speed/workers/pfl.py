"""pfl-research (`pfl`): its algorithm, its simulated backend, torch models; the loop waits in a callback.

Users come from the schedule; their records are put in its order when they are loaded, because pfl does not shuffle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from ..models import build, flat, loss_of
from ..protocol import Gate, serve
from ..replay import Replay

__all__ = ["Pfl"]


class _Waits(TrainingProcessCallback):
    """Ends a round where pfl ends its iteration."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
        """Wait until the next is asked for."""
        self.gate.wait()
        return False, Metrics()


class Pfl:
    """Federated averaging of pfl."""

    def setup(self, replay: Replay, variant: Mapping[str, Any]) -> dict[str, str]:
        """Build model, data and backend, and start pfl's loop."""
        torch.set_num_threads(int(variant.get("workers") or torch.get_num_threads()))
        self.replay, self.gate, settings = replay, Gate(), replay.settings
        self.model = build(settings, torch.from_numpy(replay.initial))
        self.model.loss = lambda x, y: loss_of(self.model, x, y)
        self.model.metrics = lambda x, y: {"count": Weighted(len(y), 1)}
        users = self._users()
        data = FederatedDataset(self._dataset, lambda: next(users))
        backend = SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()])
        model = PyTorchModel(self.model, torch.optim.SGD, torch.optim.SGD(self.model.parameters(), lr=1.0))
        asked = NNAlgorithmParams(
            central_num_iterations=replay.rounds,
            evaluation_frequency=replay.rounds + 1,
            train_cohort_size=settings.cohort,
            val_cohort_size=0,
        )
        work = NNTrainHyperParams(
            local_num_epochs=settings.epochs if settings.updates is None else None,
            local_num_steps=settings.updates,
            local_learning_rate=settings.learning_rate,
            local_batch_size=settings.batch_size,
        )

        def loop() -> None:
            asyncio.set_event_loop(asyncio.new_event_loop())  # a thread has none by itself
            self.gate.wait()
            FederatedAveraging().run(asked, backend, model, work, callbacks=[_Waits(self.gate)])

        self.gate.run(loop)
        return {name: version(name) for name in ("pfl", "torch")}

    def _users(self) -> Iterator[int]:
        for number, cohort in enumerate(self.replay.cohorts):
            self.orders = self.replay.order(number)
            yield from cohort.tolist()

    def _dataset(self, client: int) -> Dataset:
        x, y = self.replay.records(client)
        rows = torch.from_numpy(self.orders[client])
        return Dataset([torch.from_numpy(x)[rows], torch.from_numpy(y)[rows]], user_id=str(client))

    def round(self, number: int) -> None:
        """Let the loop go round once."""
        self.gate.step()

    def finish(self) -> np.ndarray:
        """The shared model."""
        result: np.ndarray = flat(self.model).numpy()
        return result


if __name__ == "__main__":
    serve(Pfl())

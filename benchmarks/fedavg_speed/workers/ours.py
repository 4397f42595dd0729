"""rivage through its public API: a `Trial` played round by round, with its record on in files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import rivage
from rivage.core.messages import LogPolicy
from rivage.federated import Trial
from rivage.federated.algorithm import Algorithm, Phase
from rivage.federated.checkpoint import Files
from rivage.federated.engine import Session
from rivage.federated.execution import Execution

from ..protocol import serve
from ..replay import Replay
from ..workloads import Held, phase_of, schema_of, task_of

__all__ = ["Ours", "algorithm_of"]

_METHODS = {"fedavg": "FedAvg", "fedprox": "FedProx", "scaffold": "Scaffold", "fedem": "FedEM"}


class Ours:
    """A trial of one method.

    Variant: ``algorithm`` (a name, ``fedavg`` by default), ``log`` (what the message log keeps, ``none``),
    ``workers`` and ``executor`` (of `Execution`; rivage's own choice by default), ``components`` (of FedEM).
    """

    def __init__(self) -> None:
        self._played_s, self._began = 0.0, 0.0

    def _clock(self) -> float:
        """Time in which this one played: what it writes once a second must not be due anew after every other's turn."""
        return self._played_s + (time.perf_counter() - self._began if self._began else 0.0)

    def setup(self, replay: Replay, variant: Mapping[str, Any]) -> dict[str, str]:
        """Build the trial and its folder."""
        settings = replay.settings
        trial = Trial(
            name=variant.get("algorithm", "fedavg"),
            algorithm=algorithm_of(variant, settings.learning_rate, phase_of(settings)),
            population=Held(replay.x, replay.y, replay.offsets, schema_of(settings)),
            task=task_of(settings),
            rounds=replay.rounds,
            cohort=settings.cohort,
            seed=settings.seed,
            every=replay.rounds + 1,
            execution=Execution(**{name: variant[name] for name in ("executor", "workers") if variant.get(name)}),
        )
        self.held = ExitStack()
        folder = Path(self.held.enter_context(tempfile.TemporaryDirectory()))
        policy = LogPolicy.parse(variant.get("log", "none"))
        self.files = Files(folder, policy, {"benchmark": settings.name}, clock=self._clock)
        self.session = self.held.enter_context(Session(trial, self.held.enter_context(self.files)))
        self.rounds = iter(self.session)
        return {"rivage": rivage.__version__, "torch": import_module("torch").__version__}

    def round(self, number: int) -> None:
        """The next one."""
        self._began = time.perf_counter()
        next(self.rounds)
        self._played_s, self._began = self._clock(), 0.0

    def rest(self) -> None:
        """What still waits to be written must not be written in another's turn."""
        self._began = time.perf_counter()
        self.files.drain()
        self._played_s, self._began = self._clock(), 0.0

    def finish(self) -> np.ndarray:
        """The shared model."""
        result: np.ndarray = self.session.state["params"].reshape(-1).numpy().copy()
        self.held.close()
        return result


def algorithm_of(variant: Mapping[str, Any], rate: float, work: Phase) -> Algorithm:
    """A method with the workload's local work."""
    name = variant.get("algorithm", "fedavg")
    kind = getattr(import_module(f"rivage.federated.{name}"), _METHODS[name])
    more = {"components": variant["components"]} if "components" in variant else {}
    algorithm: Algorithm = kind(learning_rate=rate, work=work, **more)
    return algorithm


if __name__ == "__main__":
    serve(Ours())

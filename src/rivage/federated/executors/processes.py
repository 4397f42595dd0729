"""Workers in processes of their own, for models that draw from torch's one global generator, such as dropout.

The pool is loky's: workers need no ``__main__`` guard, live from round to round, and go when they have been idle or
their parent is gone. A job is a pure function of what is sent, so the jobs of a worker that was killed are simply done
again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from loky import ProcessPoolExecutor
from torch import Tensor

from rivage.federated.algorithm import Algorithm, Phase
from rivage.federated.executors.functional import Functional
from rivage.federated.executors.jobs import Job
from rivage.federated.failures import working_on
from rivage.learning.task import Task

__all__ = ["Processes"]

_IDLE_S = 60.0  # a worker that has had nothing to do for so long goes; the next round starts it again
_WATCH_S = 0.5
_ATTEMPTS = 3

Result = tuple[Tensor, dict[str, Tensor], int]


class Processes:
    """A pool of processes that train one client at a time.

    Args:
        task: what is learnt; sent to each worker once.
        workers: how many, >= 1.
    """

    def __init__(self, task: Task, workers: int) -> None:
        self._task, self._workers = task, workers
        self._pool: ProcessPoolExecutor | None = None

    def train(self, algorithm: Algorithm, phase: Phase, jobs: Sequence[Job], noise: Sequence[int]) -> None:
        """Run the batches of one phase on every job, in place; long jobs should come first.

        Args:
            algorithm: whose jobs they are.
            phase: how they learn.
            jobs: their batches are set.
            noise: seed of layers that draw random numbers, for each job.

        Raises:
            Failed: when the work on a client failed.
            BrokenProcessPool: when workers were killed again and again.
        """
        missing = list(range(len(jobs)))
        for attempt in range(_ATTEMPTS):
            futures = {i: self._started().submit(_train, algorithm, phase, jobs[i], noise[i]) for i in missing}
            missing = []
            for i, future in futures.items():
                try:
                    local = jobs[i].local
                    local.params, local.extra, local.gradients = future.result()
                except BrokenProcessPool:
                    missing.append(i)
                    if attempt == _ATTEMPTS - 1:
                        raise
            if not missing:
                return
            self.close()

    def close(self) -> None:
        """Let the workers go."""
        if self._pool is not None:
            self._pool.shutdown(kill_workers=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers, timeout=_IDLE_S, initializer=_start, initargs=(self._task, os.getpid())
            )
        return self._pool


_engines: dict[str, Functional] = {}  # of this worker: what a process holds between two jobs has no other place


def _start(task: Task, parent: int) -> None:
    """Make a worker ready: one thread, its copy of the model, and a watch on its parent."""
    torch.set_num_threads(1)
    _engines["task"] = Functional(task)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """End this process when its parent has gone, however it went."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


def _train(algorithm: Algorithm, phase: Phase, job: Job, noise: int) -> Any:
    with working_on(job.client):
        _engines["task"].train(algorithm, phase, job, noise)
    return job.local.params, job.local.extra, job.local.gradients

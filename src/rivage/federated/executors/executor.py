"""The executor that engines use: it chooses how clients are trained, and spreads the work over threads.

A model that is a dense chain is trained in tiles, any other one client at a time. Torch releases the interpreter while
it computes, and whole tiles (or the convolutions of one client) compute for long enough: threads share data and
broadcast without copying, and cost a fraction of the memory of processes. Only layers that draw from torch's one global
generator, such as dropout, cannot run side by side in threads: for them processes take over once a run has lasted long
enough to pay for their start. Long work goes first.
"""

from __future__ import annotations

import os
import queue
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any, Self, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, Samples
from rivage.federated.algorithm import Algorithm, LocalWork, Phase, Predictor, State
from rivage.federated.batches import batches
from rivage.federated.calibration import DEFAULT_TILE_BYTES, tile_bytes
from rivage.federated.execution import Execution
from rivage.federated.executors.chain import NotAChain, trace
from rivage.federated.executors.functional import Functional
from rivage.federated.executors.jobs import Job, chosen, named, one_thread
from rivage.federated.executors.processes import Processes
from rivage.federated.executors.tiled import Row, Tiled, cut
from rivage.federated.failures import working_on
from rivage.learning.task import Task

__all__ = ["Executor"]

_WORTH_S = 5.0  # of training on one thread, after which starting processes (seconds each) is worth it
_PADDED = 1 << 22  # numbers of inputs in one stacked evaluation

T = TypeVar("T")


class Executor:
    """Trains jobs and computes losses and predictions, in this process.

    Args:
        task: what is learnt.
        execution: how.

    Attributes:
        notice: why tiles are not used although they might be; empty otherwise.
        searched: queries that were compared with remembered records so far, and ``search_s`` what that took.

    Raises:
        ConfigError: when tiles are asked for and the model is no dense chain.
    """

    def __init__(self, task: Task, execution: Execution | None = None) -> None:
        self.task, self.execution = task, execution or Execution()
        self.tiled, self.notice = _tiled(task, self.execution)
        with one_thread():  # as it will be used
            measured = tile_bytes() if self.tiled and not self.execution.tile_bytes else DEFAULT_TILE_BYTES
        self.tile_bytes = self.execution.tile_bytes or measured
        # Layers that draw from torch's one global generator cannot run side by side.
        self.workers = 1 if task.stochastic and self.tiled is None else self.execution.resolved_workers
        self._spare: queue.SimpleQueue[Functional] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._spent_s = 0.0  # on one client at a time, in this process
        self.searched, self.search_s = 0, 0.0
        self._keys: dict[tuple[Streams, int], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the workers go."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        if "processes" in self.__dict__:
            self.processes.close()
            del self.processes

    @cached_property
    def processes(self) -> Processes:
        """The pool of processes, which starts them when it is first given work."""
        return Processes(self.task, self.execution.resolved_workers)

    @property
    def kind(self) -> str:
        """``tiled`` or ``functional``."""
        return "functional" if self.tiled is None else "tiled"

    def train(
        self,
        algorithm: Algorithm,
        work: LocalWork,
        jobs: Sequence[Job],
        streams: Streams,
        round: int,
        *,
        secret: str = "",
    ) -> None:
        """Run ``work`` on every job, in place: what the executor fills of its `Local`, and the loader's position.

        A job's result depends on (streams, client, round) only; beyond rounding never on the other jobs, and not at all
        on the number of workers.

        Raises:
            Failed: when the work on a client failed.
        """
        for job in jobs:
            job.local.records, job.local.rate = len(job.samples), work.learning_rate
        for number, phase in enumerate(named(phase, self.task) for phase in work.phases):
            chosen(self.task.layout, phase)  # what it names must be there, whoever is trained
            drawn = batches(
                phase,
                self._key(streams, number),
                [job.client for job in jobs],
                [job.local.records for job in jobs],
                round,
                [job.position for job in jobs],
            )
            # Other settings get other noise: two runs on the same data must not cancel one another's.
            noise = None if phase.noise is None else streams.child("privacy", _named(algorithm), secret)
            for job, (job.batches, job.position) in zip(jobs, drawn, strict=True):
                job.local.steps += len(job.batches.sizes)
                job.noise = None if noise is None else noise.child(round, job.client, number)
            if self.tiled is None:
                self._one_by_one(algorithm, phase, jobs, streams, round)
            else:
                self._in_tiles(self.tiled, algorithm, phase, jobs)

    def losses(
        self, requests: Sequence[tuple[Float[Tensor, "groups dim"], Samples]]
    ) -> list[Float[Tensor, "records groups"]]:
        """Loss of every record of each request under its parameters, in evaluation mode, without gradients.

        Requests with the same parameters, such as a broadcast, share their forward passes.
        """
        results: list[Tensor] = [torch.empty(0)] * len(requests)
        for members in _alike([params for params, _ in requests]):
            records = [self.task.tensors(requests[i][1]) for i in members]
            found = self._losses(requests[members[0]][0], *(torch.cat(column) for column in zip(*records, strict=True)))
            for i, part in zip(members, torch.split(found, [len(x) for x, _ in records]), strict=True):
                results[i] = part
        return results

    def _losses(self, params: Float[Tensor, "groups dim"], x: Tensor, y: Tensor) -> Float[Tensor, "records groups"]:
        """Of joined records, in pieces that do not depend on the number of workers."""

        def run(piece: tuple[Tensor, Tensor]) -> Tensor:
            with self._functional() as engine:
                return cast(Tensor, engine.losses(params, *piece))

        with self._functional() as engine:
            pieces = zip(torch.split(x, engine.chunk), torch.split(y, engine.chunk), strict=True)
        return torch.cat(self._spread(run, list(pieces)))

    def client_losses(
        self, algorithm: Algorithm, downs: Sequence[State | None], data: Sequence[ClientData]
    ) -> list[Float[Tensor, "records groups"] | None]:
        """What `start` and `adapt` get as ``losses``: of the training records, at the broadcast; None if not needed."""
        found: list[Tensor | None] = [None] * len(data)
        if not algorithm.needs_losses:
            return found
        which = [i for i, down in enumerate(downs) if down is not None]
        dimension = self.task.dimension
        requests = [((downs[i] or {})["params"].reshape(-1, dimension), data[i].train) for i in which]
        for i, losses in zip(which, self.losses(requests), strict=True):
            found[i] = losses
        return found

    def predictions(self, requests: Sequence[tuple[Predictor, Tensor]]) -> list[Float[Tensor, "records *output"]]:
        """Σ_m mix_m · prediction_m for the records of each request, none of which is empty.

        Probabilities or real outputs are mixed, never logits. Parameters that several requests share are loaded once.
        What a predictor's neighbours say is mixed in by their share.
        """
        owners = [(i, g) for i, (p, _) in enumerate(requests) for g in range(len(p.mix)) if float(p.mix[g]) != 0]
        vectors = [requests[i][0].params[g] for i, g in owners]
        shared: list[list[int]] = []
        own: list[list[int]] = []
        for members in _alike(vectors):
            (own if len(members) == 1 and self.tiled is not None else shared).append(members)
        parts: list[Tensor] = [torch.empty(0)] * len(owners)
        for members in shared:
            x = [requests[owners[i][0]][1] for i in members]
            with self._functional() as engine:
                found = engine.predictions(vectors[members[0]], torch.cat(x))
            for i, part in zip(members, found.split([len(p) for p in x]), strict=True):
                parts[i] = part
        self._predict_stacked([members[0] for members in own], vectors, [requests[i][1] for i, _ in owners], parts)
        results: list[Tensor | None] = [None] * len(requests)
        for (i, g), part in zip(owners, parts, strict=True):
            share, total = part * requests[i][0].mix[g], results[i]
            results[i] = share if total is None else total + share
        return self._with_neighbours(requests, [result for result in results if result is not None])

    def _with_neighbours(
        self, requests: Sequence[tuple[Predictor, Tensor]], results: list[Tensor]
    ) -> list[Float[Tensor, "records *output"]]:
        """What the models predict, mixed with what is remembered where something is."""
        which = [i for i, (p, _) in enumerate(requests) if p.neighbours is not None and p.neighbours.speak]
        asked: list[tuple[int, Tensor]] = []
        for members in _alike([requests[i][0].params[0] for i in which]):
            x = [requests[which[m]][1] for m in members]
            with self._functional() as engine:
                found = engine.features(requests[which[members[0]]][0].params[0], torch.cat(x))
            asked += zip([which[m] for m in members], found.split([len(part) for part in x]), strict=True)

        def run(piece: tuple[int, Tensor]) -> Tensor:
            i, features = piece
            neighbours = requests[i][0].neighbours
            assert neighbours is not None
            return neighbours.mixed(results[i], features)

        started = time.perf_counter()
        for (i, features), mixed in zip(asked, self._spread(run, asked), strict=True):
            results[i] = mixed
            self.searched += features.shape[:-1].numel()
        self.search_s += time.perf_counter() - started if asked else 0.0
        return results

    def _predict_stacked(
        self, which: Sequence[int], vectors: Sequence[Tensor], x: Sequence[Tensor], parts: list[Tensor]
    ) -> None:
        """Models of their own, stacked with others that have about as many records."""
        order = sorted(which, key=lambda i: len(x[i]))
        most = max(1, self.tile_bytes // (self.task.dimension * self.task.dtype.itemsize))
        while order:
            longest = max(1, len(x[order[-1]]) * x[order[-1]][0].numel())
            count = min(most, max(1, _PADDED // longest))
            order, members = order[:-count], order[-count:]
            assert self.tiled is not None
            found = self.tiled.predictions(torch.stack([vectors[i] for i in members]), [x[i] for i in members])
            for i, part in zip(members, found, strict=True):
                parts[i] = part

    def _key(self, streams: Streams, phase: int) -> int:
        """Key of a phase's batches, the same in every round: deriving it costs as much as a small step."""
        if (streams, phase) not in self._keys:
            self._keys[streams, phase] = streams.seed("batches", phase)
        return self._keys[streams, phase]

    def _one_by_one(
        self, algorithm: Algorithm, phase: Phase, jobs: Sequence[Job], streams: Streams, round: int
    ) -> None:
        busy = sorted((job for job in jobs if len(job.batches.sizes)), key=lambda job: -len(job.batches.sizes))
        stochastic = self.task.stochastic
        noise = {job.client: streams.seed("noise", round, job.client) if stochastic else 0 for job in busy}

        def run(job: Job) -> None:
            with working_on(job.client), self._functional() as engine:
                engine.train(algorithm, phase, job, noise[job.client])

        started = time.perf_counter()
        if self._in_processes(busy):
            self.processes.train(algorithm, phase, busy, [noise[job.client] for job in busy])
        else:
            self._spread(run, busy)
            self._spent_s += time.perf_counter() - started
        if not (hasattr(algorithm, "step") or hasattr(algorithm, "correct")):
            for job in busy:
                job.local.gradients += len(job.batches.rows) * len(job.local.params)

    def _in_processes(self, jobs: Sequence[Job]) -> bool:
        """Whether these jobs go to processes: if asked for, or if threads cannot take them and it pays."""
        pool = self.execution.pool
        if self.execution.resolved_workers == 1 or len(jobs) < 2 or self.task.device.type != "cpu":
            return False
        if pool != "auto":
            return pool == "processes"
        return self.task.stochastic and self._spent_s > _WORTH_S

    def _in_tiles(self, tiled: Tiled, algorithm: Algorithm, phase: Phase, jobs: Sequence[Job]) -> None:
        joint = hasattr(algorithm, "step") or hasattr(algorithm, "correct")
        tiles = cut(jobs, self.task.dimension * self.task.dtype.itemsize, self.tile_bytes, joint=joint)

        def run(tile: list[Row]) -> list[Tensor]:
            with working_on(tile[0].job.client):
                return tiled.train(algorithm, phase, tile)

        tiles.sort(key=lambda tile: -len(tile) * tile[0].steps)
        ended: dict[int, dict[int, Tensor]] = defaultdict(dict)
        for tile, results in zip(tiles, self._spread(run, tiles), strict=True):
            for row, result in zip(tile, results, strict=True):
                ended[id(row.job)][row.group] = result
        for job in jobs:
            if groups := ended.get(id(job)):
                job.local.params = groups[0] if len(groups) == 1 else torch.cat([groups[i] for i in range(len(groups))])
                job.local.gradients += 0 if joint else len(job.batches.rows) * len(groups)

    def _spread(self, run: Callable[[Any], T], work: Sequence[Any]) -> list[T]:
        """Run each piece of work, begun in the order given, on as many threads as there are workers.

        The calling thread is one of them: it is awake already.
        """
        if self.workers == 1 or len(work) < 2:
            return [run(piece) for piece in work]
        todo, done = deque(enumerate(work)), dict[int, T]()

        def drain(worker: int) -> None:
            with _on_core(worker, self.workers):
                while todo:
                    try:
                        place, piece = todo.popleft()
                    except IndexError:  # another thread was faster
                        return
                    try:
                        done[place] = run(piece)
                    except BaseException:
                        todo.clear()
                        raise

        helpers = [self._pool.submit(drain, worker) for worker in range(1, min(self.workers, len(work)))]
        try:
            drain(0)
        finally:
            wait(helpers)
        for helper in helpers:
            helper.result()
        return [done[place] for place in range(len(work))]

    @property
    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self.workers - 1, "rivage", initializer=torch.set_num_threads, initargs=(1,)
            )
        return self._threads

    @contextmanager
    def _functional(self) -> Any:
        """A copy of the model that nobody else is using."""
        try:
            engine = self._spare.get_nowait()
        except queue.Empty:
            engine = Functional(self.task)
        try:
            yield engine
        finally:
            self._spare.put(engine)


def _named(algorithm: Algorithm) -> str:
    """Class and settings of a method."""
    return repr(algorithm) if is_dataclass(algorithm) else type(algorithm).__qualname__


@contextmanager
def _on_core(worker: int, workers: int) -> Iterator[None]:
    """Keep this thread on a core of its own, where every core has a worker.

    Threads that wake together after a pause may be put on one core, and share it for tens of milliseconds.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if workers == 1 or len(cores) != workers:
        yield
        return
    os.sched_setaffinity(0, {cores[worker]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _tiled(task: Task, execution: Execution) -> tuple[Tiled | None, str]:
    """The stacked executor, or why there is none."""
    if execution.executor == "functional":
        return None, ""
    try:
        return Tiled(task, trace(task)), ""
    except NotAChain as reason:
        if execution.executor == "tiled":
            raise ConfigError(
                f"the model has no generated backward pass: {reason}",
                where="[run] executor",
                mend='Use executor = "functional", or leave it out.',
            ) from reason
        return None, f"clients are trained one at a time: {reason}"


def _alike(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Positions of what is one and the same tensor, in order of their first."""
    found: dict[Any, list[int]] = defaultdict(list)
    for position, tensor in enumerate(tensors):
        found[tensor.data_ptr(), tensor.shape, tensor.stride()].append(position)
    return list(found.values())

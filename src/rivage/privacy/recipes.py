"""Training many models of one architecture, each on records of its own.

A model is trained on its members only. Where the architecture is a dense chain, many models take their steps together
in one batched product per layer; any other architecture is trained one model at a time, with equal results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import RivageError, require
from rivage.core.seeding import Streams
from rivage.core.settings import read
from rivage.data.arrays import ArrayPopulation
from rivage.data.population import ClientData, Samples
from rivage.federated.algorithm import Algorithm, Local, LocalWork, Phase, Predictor, Reference, State
from rivage.federated.averaging import Averaging, global_predictor
from rivage.federated.engine import Session
from rivage.federated.execution import Execution
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job, one_thread
from rivage.federated.fedavg import FedAvg
from rivage.federated.registry import ALGORITHMS
from rivage.federated.trial import Trial
from rivage.learning.params import from_numpy, to_numpy
from rivage.privacy.attack import Meter
from rivage.privacy.views import Header, Refused

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Method", "Recipe", "federate", "method_of", "recipe_of", "train"]

_BLOCK_BYTES = 64 << 20  # of records and parameters of the models that are in training at the same time


@runtime_checkable
class Method(Algorithm, Protocol):
    """A method whose clients train one model in one phase."""

    @property
    def learning_rate(self) -> float:
        """Step size of local training."""
        ...

    @property
    def work(self) -> Phase:
        """What a client does in a round."""
        ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained from where it starts.

    Args:
        optimizer: ``sgd``, or ``adam`` with its usual coefficients 0.9, 0.999 and 1e-8.
        learning_rate: its step size, > 0.
        work: epochs and batches.
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    work: Phase = field(default_factory=Phase)

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)

    @property
    def method(self) -> Method:
        """A method whose clients train like this."""
        if self.optimizer == "adam":
            return _Adam(learning_rate=self.learning_rate, work=self.work)
        return FedAvg(learning_rate=self.learning_rate, work=self.work)

    def times(self, rounds: int) -> Recipe:
        """The same work, so many times in one go."""
        updates = None if self.work.updates is None else self.work.updates * rounds
        return replace(self, work=replace(self.work, epochs=self.work.epochs * rounds, updates=updates))


def train(
    task: Task,
    method: Method,
    starts: Float[ndarray, "*models dim"],
    members: Sequence[Samples],
    *,
    streams: Streams,
    meter: Meter,
    executor: Literal["auto", "functional", "tiled"] = "auto",
    round: int = 0,
) -> Float[ndarray, "models dim"]:
    """Train one model on each set of records, as a client of ``method`` would.

    Args:
        task: what is learnt.
        method: its ``work`` is done once.
        starts: where each model starts; one vector for all, or one per model.
        members: the records of each model.
        streams: for the order of records, another one for every model.
        meter: is told of every record that is differentiated.
        executor: which kind of executor trains; they agree beyond rounding.
        round: of the training that is repeated, which keys the batches.
    """
    starts = np.broadcast_to(starts, (len(members), starts.shape[-1]))
    result = np.empty_like(starts)
    work = LocalWork((method.work,), method.learning_rate)
    with one_thread(), Executor(task, Execution(executor=executor, device=str(task.device))) as engine:
        for block in _blocks(members, 4 * result.itemsize * task.dimension):
            jobs = [_job(task, method, starts[m], m, members[m], streams) for m in block]
            engine.train(method, work, jobs, streams, round)
            for m, job in zip(block, jobs, strict=True):
                meter.count(job.local.gradients)
                result[m] = to_numpy(method.finish(job.local, task).payload["params"][0])
    return result


def federate(
    task: Task, method: Method, clients: Sequence[Samples], rounds: int, *, streams: Streams, meter: Meter
) -> Float[ndarray, "dim"]:
    """The model after a whole simulated federation, in which every client takes part in every round.

    Args:
        task: what is learnt.
        method: of the federation.
        clients: records of each.
        rounds: of it.
        streams: for its seed.
        meter: is told of every record that is differentiated.

    Raises:
        Refused: for a method without one shared model.
    """
    population = ArrayPopulation(
        clients=tuple(_data(number, samples) for number, samples in enumerate(clients)),
        names=tuple(map(str, range(len(clients)))),
        schema=task.schema,
    )
    seed = streams.seed("federation")
    trial = Trial(
        name="reference", algorithm=method, population=population, task=task, rounds=rounds, every=rounds, seed=seed
    )
    with Session(trial) as session:
        if "params" not in session.state:
            raise Refused(f"{type(method).__name__} has no model of its own that could be released whole", mend=_MEND)
        for event in session:
            meter.count(event["gradients"])
        return to_numpy(session.state["params"])


def _blocks(members: Sequence[Samples], model_bytes: int) -> Iterator[list[int]]:
    """Models whose records and parameters fit the memory together, at least one at a time."""
    block, used = list[int](), 0
    for m, samples in enumerate(members):
        size = samples.x.nbytes + model_bytes
        if block and used + size > _BLOCK_BYTES:
            yield block
            block, used = [], 0
        block, used = [*block, m], used + size
    if block:
        yield block


def _job(task: Task, method: Method, start: ndarray, m: int, samples: Samples, streams: Streams) -> Job:
    down = {"params": from_numpy(start.copy(), dtype=task.dtype, device=task.device)}
    try:
        return Job(m, method.start(down, {}, _data(m, samples), None, streams, task), samples)
    except KeyError as error:  # of the broadcast: only the model is in a view
        raise Refused(f"clients of {type(method).__name__} are sent {error} beside the model", mend=_MEND) from error


def _data(client: int, samples: Samples) -> ClientData:
    """All records are for training."""
    nothing = samples.take(_NONE)
    return ClientData(client, samples, nothing, nothing, float(len(samples)))


_NONE = np.empty(0, np.int64)


def method_of(header: Header) -> Method:
    """The method that a log names, with its settings.

    Raises:
        Refused: for one that is not here, or whose clients need more than one model that they are sent.
    """
    name, settings = str(header.fields.get("method", "")), dict(header.hyper_parameters)
    settings.pop("kind", None)
    try:
        method = read(ALGORITHMS.get(name), settings)
    except RivageError as error:
        raise Refused(f'the log names method "{name}", which cannot be built: {error}', mend=_MEND) from error
    if not isinstance(method, Averaging) or method.needs_losses or not isinstance(method.work, Phase):
        raise Refused(f'clients of "{name}" train from more than the one model that they are sent', mend=_MEND)
    return cast(Method, method)


_MEND = "Give the attack a recipe: optimizer, learning rate and work of the clients."


def recipe_of(header: Header) -> Recipe:
    """Plain SGD with the learning rate and the work that a log tells.

    Raises:
        Refused: if it does not tell them.
    """
    told = header.hyper_parameters
    work: Mapping[str, Any] = told.get("work", told)
    try:
        phase = read(Phase, {name: work[name] for name in Phase.__dataclass_fields__ if name in work})
        return Recipe(learning_rate=float(told["learning_rate"]), work=phase)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused("the log does not tell learning rate and work of the clients", mend=_MEND) from error


@dataclass(frozen=True, kw_only=True)
class _Adam(Averaging):
    """Clients run Adam from fresh moments (Kingma, Ba, ICLR 2015, Algorithm 1)."""

    reference: ClassVar[Reference] = Reference(
        key="kingma15",
        authors="Diederik P. Kingma and Jimmy Ba",
        title="Adam: A Method for Stochastic Optimization",
        venue="ICLR",
        year=2015,
        arxiv="1412.6980",
        part="Algorithm 1",
    )

    learning_rate: float
    work: Phase

    def start(
        self, broadcast: State, memory: State, data: ClientData, losses: Tensor | None, streams: Streams, task: Task
    ) -> Local:
        params = broadcast["params"][None]
        zero = torch.zeros_like(params)
        return Local(params, extra={"first": zero, "second": zero, "steps": params.new_zeros(1, 1)})

    def step(
        self, extra: dict[str, Tensor], params: Tensor, gradient: Any, rate: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        slope = gradient(params)
        first = extra["first"].lerp(slope, 0.1)
        second = (0.999 * extra["second"]).addcmul_(slope, slope, value=0.001)
        steps = extra["steps"] + 1
        size = (second / (1 - 0.999**steps)).sqrt_().add_(1e-8)
        moved = params - rate / (1 - 0.9**steps) * first / size
        return moved, {"first": first, "second": second, "steps": steps}

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        return global_predictor(state["params"])

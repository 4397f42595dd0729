"""What is learnt: a model, a loss and a metric on records of one schema. Not how, by whom or where.

A `Task` is a value shared by all parties of a run; a `Bound` is a working copy of its model whose parameters
are views of one flat vector, one per worker.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor, nn

from rivage.core.errors import ConfigError, RivageError
from rivage.data.population import Samples, Schema
from rivage.learning import heads
from rivage.learning.losses import LOSSES, Loss
from rivage.learning.metrics import METRICS, Metric
from rivage.learning.networks import factory, find
from rivage.learning.params import ParameterMap, bind, from_numpy, to_numpy

__all__ = ["Bound", "Task", "TaskSettings", "make_task"]

_DEFAULTS = {
    "class": ("linear", "cross_entropy", "accuracy"),
    # Not the root of the squared error: absolute errors are additive, so the mean over clients weighted by
    # size is the error on all records, and they stay in the unit of the target.
    "real": ("linear", "squared", "mae"),
    "tokens": ("char_lstm", "next_character", "accuracy"),
}
_PROBE = 2  # records of the trial batch: batch norm needs two


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """The ``[task]`` table of a study; what is left empty follows from the kind of target.

    Args:
        model: ``linear``, ``mlp``, ``cnn``, ``resnet``, ``char_lstm``, a plug-in, or ``"my_pkg.nets:Net"``
            (`rivage.learning.networks.factory` says how it is called). Default: ``linear``; ``char_lstm`` for
            tokens.
        loss: default ``cross_entropy``; ``squared`` for reals; ``next_character`` for tokens.
        metric: default ``accuracy``; ``mae`` for reals.
        options: keyword arguments of the model.
    """

    model: str = ""
    loss: str = ""
    metric: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def resolved(self, schema: Schema) -> TaskSettings:
        """The same with nothing left empty."""
        model, loss, metric = _DEFAULTS[schema.target]
        return replace(self, model=self.model or model, loss=self.loss or loss, metric=self.metric or metric)


def make_task(
    settings: TaskSettings,
    schema: Schema,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    model: Callable[..., Any] | None = None,
) -> Task:
    """The task that the settings describe.

    Args:
        settings: what is empty follows from the schema.
        schema: what a record looks like.
        dtype: of parameters and records.
        device: where they are.
        model: class or function to use instead of the one that ``settings.model`` names.

    Raises:
        ConfigError: for unknown names or options, parts that do not suit the target, or a model that fails on
            a trial batch.
    """
    settings = settings.resolved(schema)
    loss = LOSSES.get(settings.loss, where="task.loss")
    metric = METRICS.get(settings.metric, where="task.metric")
    target = find(settings.model) if model is None else model
    return Task(
        factory(target, settings.options, outputs=loss.width(schema)),
        loss,
        metric,
        schema,
        dtype=dtype,
        device=device,
    )


@final
class Task:
    """What is learnt. Made once per run; it can be sent to another process.

    Args:
        model: schema -> module. It is called with torch's generator seeded by us, and cast to ``dtype``.
        loss: what training makes small.
        metric: what is reported.
        schema: what a record looks like.
        dtype: ``torch.float32`` or ``torch.float64``.
        device: where the model and the records are.

    Raises:
        ConfigError: if loss or metric do not suit the target, or the model cannot be built, fails on a trial
            batch, or puts out another shape than the loss reads.
    """

    def __init__(
        self,
        model: Callable[[Schema], Any],
        loss: Loss,
        metric: Metric,
        schema: Schema,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        _require_suitable(loss, "loss", schema)
        _require_suitable(metric, "metric", schema)
        self.model, self.loss, self.metric, self.schema = model, loss, metric, schema
        self.dtype, self.device = dtype, torch.device(device)
        self._prototype = self._fresh(0)
        with _naming_the_model():
            self.layout = ParameterMap.of(self._prototype)
        self.stochastic = self._try()

    def __reduce__(self) -> tuple[Any, ...]:
        # The module stays behind: it is made again there, and need not be picklable.
        return _remake, (self.model, self.loss, self.metric, self.schema, self.dtype, str(self.device))

    @property
    def dimension(self) -> int:
        """D, the length of a parameter vector: trainable parameters, then what else travels."""
        return self.layout.dimension

    @cached_property
    def head(self) -> tuple[str, ...]:
        """Names of the parameters of the last linear layer that a forward pass calls.

        Raises:
            ConfigError: if the model has no linear layer.
        """
        names = {parameter: name for name, parameter in self._prototype.named_parameters()}  # tied ones have the first
        return tuple(names[parameter] for parameter in self._prototype.get_submodule(self.head_layer).parameters())

    @cached_property
    def head_layer(self) -> str:
        """Name of that layer within the model; empty where it is the whole model."""
        with _naming_the_model():
            return heads.head_name(self.bind().module.eval(), self._probe())

    def initial(self, seed: int) -> Float[Tensor, "dim"]:
        """The vector of a newly initialised model.

        Args:
            seed: 0 <= seed < 2**64; the same seed gives the same vector. Global generators are left alone.
                Numbers are drawn in float32 on the CPU and then cast, so that runs of every dtype and device
                start alike.
        """
        return self.layout.gather(self._fresh(seed))

    def bind(self) -> Bound:
        """A working copy of the model."""
        return Bound(self)

    def tensors(self, samples: Samples) -> tuple[Shaped[Tensor, "n *input"], Shaped[Tensor, "n *target"]]:
        """Records as tensors of the run.

        Returns:
            x of the run's dtype, but int64 if it came as int64 (tokens); y int64 for classes and tokens, else
            of the run's dtype and of shape ``[n, num_outputs]``. They share memory with the arrays where type
            and device allow.
        """
        x = self.inputs(samples.x)
        if self.schema.target != "real":
            return x, from_numpy(samples.y, dtype=torch.int64, device=self.device)
        y = from_numpy(samples.y, dtype=self.dtype, device=self.device)
        return x, y.reshape(len(y), self.schema.num_outputs)

    def score(self, predictions: Shaped[ndarray, "n *output"], y: Shaped[ndarray, "n *target"]) -> float | None:
        """The metric on these records, in the unit the target had before it was scaled; None where undefined."""
        value = self.metric.of_client(predictions, y)
        return None if value is None else value * self.schema.unit**self.metric.degree

    def inputs(self, x: Shaped[ndarray, "n *input"]) -> Shaped[Tensor, "n *input"]:
        """The x of `tensors`."""
        dtype = torch.int64 if x.dtype == np.int64 else self.dtype
        return from_numpy(x, dtype=dtype, device=self.device)

    def _fresh(self, seed: int) -> nn.Module:
        with _generator(seed), _naming_the_model("it cannot be built"):
            module = self.model(self.schema)
            if not isinstance(module, nn.Module):
                raise ConfigError(
                    f"the model is a {type(module).__name__}, not a torch module", mend="Return an nn.Module."
                )
            return module.to(device=self.device, dtype=self.dtype)

    def _try(self) -> bool:
        """Run a trial batch through evaluation and training; says whether training draws random numbers."""
        x, tokens = self._probe(), self.schema.target == "tokens"
        positions = self.schema.input_shape[:1] if tokens else ()
        target = (self.schema.num_outputs,) if self.schema.target == "real" else positions
        y = torch.zeros(_PROBE, *target, dtype=self.dtype if self.schema.target == "real" else torch.int64)
        expected = (_PROBE, *positions, self.loss.width(self.schema))
        with (
            _generator(0),
            torch.no_grad(),
            _naming_the_model(f"it fails on inputs of shape {tuple(x.shape)}"),
        ):
            bound = self.bind()
            bound.module.eval()
            _require_shape(bound.module(x), expected, self.loss)
            bound.module.train()
            before = _generator_state(self.device)
            bound.losses(x, y.to(self.device))
            stochastic = not torch.equal(before, _generator_state(self.device))
            _require_in_place(bound, self.layout)
        self.metric.of_client(to_numpy(bound.predictions(x)), to_numpy(y))
        return stochastic

    def _probe(self) -> Shaped[Tensor, "n *input"]:
        """Inputs of a trial batch."""
        dtype = torch.int64 if self.schema.target == "tokens" else self.dtype
        return torch.zeros(_PROBE, *self.schema.input_shape, dtype=dtype, device=self.device)


def _remake(
    model: Callable[[Schema], Any],
    loss: Loss,
    metric: Metric,
    schema: Schema,
    dtype: torch.dtype,
    device: str,
) -> Task:
    return Task(model, loss, metric, schema, dtype=dtype, device=device)


@final
class Bound:
    """A working copy of a task's model, whose parameters are views of one vector. For one thread at a time.

    Args:
        task: what is learnt.

    Attributes:
        module: the model, in training mode at first. Its mode is the caller's; only `predictions` sets its
            own.
        vector: ``[D]``; writing to it changes the model, and training the model in place changes it.
        parameters: the trainable parameters, in the order of ``task.layout.entries``; views of the first P
            numbers.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._loss = task, task.loss
        # A copy and not a new model: it needs no random numbers, and workers may bind at the same time.
        self.module = copy.deepcopy(task._prototype).train()
        self.vector = bind(self.module, task.layout)
        self.parameters = tuple(p for p in self.module.parameters() if p.requires_grad)
        buffers = dict(self.module.named_buffers())
        self._kept = tuple((buffers[name], buffers[name].clone()) for name in task.layout.kept)

    @property
    def stochastic(self) -> bool:
        """Whether training draws random numbers (dropout); they come from torch's global generator."""
        return self._task.stochastic

    def load(self, vector: Float[Tensor, "dim"]) -> None:
        """Take over a parameter vector, and forget what buffers outside it learnt from other data."""
        self.vector.copy_(vector)
        for buffer, fresh in self._kept:
            buffer.copy_(fresh)

    def outputs(self, x: Shaped[Tensor, "n *input"]) -> Float[Tensor, "n *output"]:
        """What the model puts out: logits or real numbers; differentiable."""
        outputs: Tensor = self.module(x)
        return outputs

    def losses(self, x: Shaped[Tensor, "n *input"], y: Shaped[Tensor, "n *target"]) -> Float[Tensor, "n"]:
        """Loss of every record; differentiable."""
        return self._loss.per_record(self.module(x), y)

    def loss_of(self, outputs: Float[Tensor, "n *output"], y: Shaped[Tensor, "n *target"]) -> Float[Tensor, "n"]:
        """Loss of every record, given what the model puts out."""
        return self._loss.per_record(outputs, y)

    def predictions(self, x: Shaped[Tensor, "n *input"]) -> Float[Tensor, "n *output"]:
        """Probabilities or real numbers, in evaluation mode and without gradients."""
        with self._evaluating(), torch.no_grad():
            return self._loss.predict(self.module(x))

    def features(self, x: Shaped[Tensor, "n *input"]) -> Float[Tensor, "n *positions width"]:
        """What goes into the head (`Task.head`), in evaluation mode and without gradients.

        Raises:
            ConfigError: if the model has no linear layer.
        """
        with self._evaluating():
            return heads.features(self.module, self._task.head_layer, x)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.module.training
        self.module.eval()
        yield
        self.module.train(training)


@contextmanager
def _generator(seed: int) -> Iterator[None]:
    """Torch's global CPU generator, seeded for a while and then put back."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU, which fork_rng was told to leave alone.
        torch.default_generator.manual_seed(seed)
        yield


def _generator_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _naming_the_model(what: str = "") -> Iterator[None]:
    """Errors of the model's own code, and ours about it, say that it is the model that is wrong."""
    try:
        yield
    except RivageError as error:
        raise (error if error.where else error.at("task.model")) from error.__cause__
    except Exception as error:
        if not what:
            raise
        raise ConfigError(
            f"{what} ({type(error).__name__}: {error})",
            where="task.model",
            mend="Make it accept what the schema of the data says, or choose another model.",
        ) from error


def _require_suitable(part: Loss | Metric, noun: str, schema: Schema) -> None:
    if schema.target not in part.targets:
        raise ConfigError(
            f'{noun} "{part.name}" is for targets of kind {" or ".join(part.targets)}, not {schema.target}',
            where=f"task.{noun}",
            mend=f"Use {_DEFAULTS[schema.target][1 if noun == 'loss' else 2]}, or leave {noun} out.",
        )
    if part.binary and schema.num_classes != 2:
        raise ConfigError(
            f'{noun} "{part.name}" is for two classes, the target has {schema.num_classes}',
            where=f"task.{noun}",
            mend=f"Use {'cross_entropy' if noun == 'loss' else 'balanced_accuracy'}.",
        )


def _require_shape(outputs: Any, expected: tuple[int, ...], loss: Loss) -> None:
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if shape != expected:
        raise ConfigError(
            f'its output for {expected[0]} records is {shape}, loss "{loss.name}" reads {expected}',
            mend=f"Make its last layer put out {expected[-1]} numbers, as one tensor with no axis dropped.",
        )


def _require_in_place(bound: Bound, layout: ParameterMap) -> None:
    """Refuse models that replace a buffer instead of writing to it: the vector would miss what it learnt."""
    buffers = dict(bound.module.named_buffers())
    views = layout.unflatten(bound.vector)
    for name in layout.buffers:
        if buffers[name].data_ptr() != views[name].data_ptr():
            raise ConfigError(
                f'it replaces buffer "{name}" while training',
                mend=f"Write to it in place: self.{name}.copy_(…).",
            )

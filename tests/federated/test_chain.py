"""Which models have a generated backward pass, and clipping of single records in it."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated.algorithm import Local, LocalWork, Phase, Predictor
from rivage.federated.batches import Position, batches
from rivage.federated.execution import Execution
from rivage.federated.executors.chain import NotAChain, trace
from rivage.federated.executors.executor import Executor
from rivage.federated.executors.jobs import Job
from rivage.federated.fedavg import FedAvg
from rivage.learning.losses import CROSS_ENTROPY, LOGISTIC, LOSSES, Loss
from rivage.learning.metrics import METRICS
from rivage.learning.networks import cnn, linear, mlp
from rivage.learning.task import Task

SCHEMA = Schema(input_shape=(4,), target="class", num_classes=3)
IMAGE = Schema(input_shape=(1, 4, 4), target="class", num_classes=3)
REAL = Schema(input_shape=(4,), target="real", num_outputs=3)
BINARY = Schema(input_shape=(4,), target="class", num_classes=2)


def task(
    model: Callable[[Schema], nn.Module],
    schema: Schema = SCHEMA,
    loss: str | Loss = "cross_entropy",
    dtype: torch.dtype = torch.float64,
) -> Task:
    metric = METRICS.get("mae" if schema.target == "real" else "accuracy")
    return Task(model, LOSSES.get(loss) if isinstance(loss, str) else loss, metric, schema, dtype=dtype)


# --- what is a chain -----------------------------------------------------------------------------------------


class Module(nn.Module):
    """Layers a, b and c, applied as told."""

    def __init__(self, apply: Callable[[Any, Tensor], Tensor], c: int = 3) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, c)
        self.apply_to = apply

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_to(self, x)


ACCEPTED: dict[str, Callable[[Schema], nn.Module]] = {
    "one layer": lambda s: nn.Linear(4, 3),
    "one layer in a list": lambda s: nn.Sequential(nn.Linear(4, 3)),
    "ours, linear": linear,
    "ours, mlp": lambda s: mlp(s, hidden=(5, 6)),
    "all activations": lambda s: nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 3)
    ),
    "in place": lambda s: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)),
    "no activation": lambda s: nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3)),
    "no bias": lambda s: nn.Sequential(nn.Linear(4, 2, bias=False), nn.Tanh(), nn.Linear(2, 3, bias=False)),
    "nested, with identity": lambda s: nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Identity(), nn.Linear(4, 4), nn.Sequential(nn.ReLU())), nn.Linear(4, 3)
    ),
    "functions": lambda s: Module(lambda m, x: m.c(torch.tanh(m.b(F.relu(m.a(torch.flatten(x, 1))))))),
    "methods": lambda s: Module(lambda m, x: m.c(m.b(m.a(x.flatten(1)).relu()).sigmoid())),
    "function in place": lambda s: Module(lambda m, x: m.c(F.relu(m.b(m.a(x)), inplace=True))),
    "used in another order than made": lambda s: Module(lambda m, x: m.c(m.a(m.b(x).tanh()))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_chain_learns_and_predicts_as_by_autograd(name: str, dtype: torch.dtype) -> None:
    learnt = task(ACCEPTED[name], dtype=dtype)
    trace(learnt)
    executor = Executor(learnt, Execution(executor="tiled", workers=1))
    generator, bound = torch.Generator().manual_seed(1), learnt.bind()
    x, y = torch.randn(9, 4, generator=generator).to(dtype), torch.arange(9) % 3
    weights = torch.rand(9, 1, generator=generator).to(dtype)
    weights[2] = 0
    data, models = Samples(x.numpy(), y.numpy(), np.arange(9)), [learnt.initial(seed) * 2 for seed in (7, 8)]
    jobs = [Job(i, Local(model[None].clone(), weights=weights), data) for i, model in enumerate(models)]
    executor.train(FedAvg(), LocalWork((Phase(updates=1, batch_size=None),), 1.0), jobs, Streams(0), 0)
    ones = torch.ones(1, dtype=dtype)
    predicted = executor.predictions([(Predictor(model[None], ones), x) for model in models])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for job, model, found in zip(jobs, models, predicted, strict=True):
        bound.load(model)
        wanted = torch.autograd.grad((bound.losses(x, y) * weights[:, 0]).mean(), bound.parameters)
        moved = torch.cat([part.flatten() for part in wanted])
        torch.testing.assert_close(job.local.params[0], model - moved, rtol=0, atol=tolerance)
        torch.testing.assert_close(found, bound.predictions(x), rtol=0, atol=tolerance)
    assert (Executor(learnt).kind, Executor(learnt).notice) == ("tiled", "")


def test_images_are_flattened_as_by_the_model() -> None:
    for schema, loss in ((IMAGE, "cross_entropy"), (REAL, "squared"), (BINARY, "logistic")):
        learnt = task(lambda s, n=(1 if loss == "logistic" else 3): mlp(s, outputs=n), schema, loss)  # type: ignore[misc]
        assert Executor(learnt).kind == "tiled"


class Doubling(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def tied(s: Schema) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    return model


def same_bias(s: Schema) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].bias = model[0].bias
    return model


def hooked(register: str, hook: Callable[..., Any], layer: int = 0) -> Callable[[Schema], nn.Module]:
    def build(s: Schema) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
        getattr(model[layer], register)(hook)
        return model

    return build


def patched(layer: int, forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Schema], nn.Module]:
    """The class of a layer says one thing, the instance does another: no tracer sees it."""

    def build(s: Schema) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
        part = model[layer]
        part.forward = types.MethodType(forward, part)  # type: ignore[method-assign]
        return model

    return build


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.lstm(x[:, None])[0][:, -1])
        return outputs


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x)
        return outputs


def holding(buffer: Tensor, *, saved: bool = True) -> Callable[[Schema], nn.Module]:
    def build(s: Schema) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 3))
        model.register_buffer("seen", buffer, persistent=saved)
        return model

    return build


def branching(m: Any, x: Tensor) -> Tensor:
    return m.c(m.b(x) if float(x.sum()) > 0 else m.a(x))  # type: ignore[no-any-return]


REFUSED: dict[str, tuple[Callable[[Schema], nn.Module], str]] = {
    "tied weights": (tied, "tied"),
    "tied biases": (same_bias, "tied"),
    "a layer used twice": (lambda s: Module(lambda m, x: m.c(m.b(m.a(m.a(x))))), "tied"),
    "an unused layer": (lambda s: Module(lambda m, x: m.c(m.a(x))), "not those of Linear layers"),
    "a parameter of its own": (lambda s: Spare(), "not those of Linear layers"),
    "forward hook": (hooked("register_forward_hook", lambda m, x, y: None), "hooks"),
    "forward pre-hook": (hooked("register_forward_pre_hook", lambda m, x: None), "hooks"),
    "backward hook": (hooked("register_full_backward_hook", lambda m, i, o: None), "hooks"),
    "dropout": (lambda s: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)), "dropout"),
    "dropout of nothing": (lambda s: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0), nn.Linear(4, 3)), "Dropout layer"),
    "batch norm": (lambda s: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "buffers"),
    "a buffer": (holding(torch.zeros(1)), "buffers"),
    "a buffer of whole numbers": (holding(torch.zeros(1, dtype=torch.int64)), "buffers"),
    "a buffer that is not saved": (holding(torch.zeros(1), saved=False), "buffers"),
    "layer norm": (lambda s: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "LayerNorm layer"),
    "another activation": (lambda s: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3)), "GELU layer"),
    "another function": (lambda s: Module(lambda m, x: m.c(F.softplus(m.b(m.a(x))))), "it calls softplus"),
    "another method": (lambda s: Module(lambda m, x: m.c(m.b(m.a(x)).abs())), "it calls abs"),
    "scaled outputs": (lambda s: Module(lambda m, x: 2 * m.c(m.b(m.a(x)))), "it calls mul"),
    "own kind of Linear": (lambda s: nn.Sequential(Doubling(4, 4), nn.Linear(4, 3)), "it calls|Doubling|one another"),
    "branches": (lambda s: Module(lambda m, x: m.c(m.a(x) + m.b(x))), "do not follow one another"),
    "a skip": (lambda s: Module(lambda m, x: m.c(m.b(m.a(x)) + x)), "do not follow one another"),
    "a dead end": (lambda s: Module(lambda m, x: (m.a(x), m.c(m.b(x)))[1]), "do not follow one another"),
    "a decision by values": (lambda s: Module(branching), "cannot be traced"),
    "activation at the end": (lambda s: nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "does not end with a Linear"),
    "activation first": (lambda s: nn.Sequential(nn.Tanh(), nn.Linear(4, 3)), "tanh does not follow a Linear"),
    "two activations": (
        lambda s: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 3)),
        "tanh does not follow a Linear",
    ),
    "flattened late": (
        lambda s: nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(4, 3)),
        "flattens after a layer",
    ),
    "weight norm": (lambda s: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3))), "Parametrized"),
    "lstm": (lambda s: Recurrent(), "it "),
    "a layer that is not what it says": (
        patched(2, lambda self, x: 2 * F.linear(x, self.weight, self.bias)),
        "differs from autograd's",
    ),
    "an inner layer that is not what it says": (
        patched(0, lambda self, x: F.linear(x, self.weight, 2 * self.bias)),
        "differs from autograd's",
    ),
    "an activation that is not what it says": (patched(1, lambda self, x: F.leaky_relu(x, 0.1)), "differs from"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_chain_is_refused_with_the_reason(name: str) -> None:
    model, reason = REFUSED[name]
    learnt = task(model)
    with pytest.raises(NotAChain, match=reason):
        trace(learnt)
    with pytest.raises(ConfigError, match=reason) as refusal:
        Executor(learnt, Execution(executor="tiled"))
    assert 'executor = "functional"' in refusal.value.mend
    fallen = Executor(learnt, Execution())
    assert fallen.kind == "functional"
    with pytest.raises(NotAChain) as told:
        trace(learnt)
    assert str(told.value) in fallen.notice
    asked = Executor(learnt, Execution(executor="functional"))
    assert (asked.kind, asked.notice) == ("functional", "")


def test_a_hook_before_the_backward_pass_is_seen() -> None:
    """Bounds signals that the trial gradient, a mean over three records, never reaches."""
    hook = hooked("register_full_backward_pre_hook", lambda m, o: tuple(part.clamp(-0.34, 0.34) for part in o), 2)
    with pytest.raises(NotAChain, match="hooks"):
        trace(task(hook))


def test_a_model_that_predicts_otherwise_than_it_learns_is_no_chain() -> None:
    model = Module(lambda m, x: m.c(m.b(m.a(x))) if m.training else m.c(m.b(m.a(x))) / 3)
    with pytest.raises(NotAChain, match="predicts otherwise"):
        trace(task(lambda s: model))


def test_convolutions_are_no_chain() -> None:
    with pytest.raises(NotAChain, match="Conv2d layer"):
        trace(task(lambda s: cnn(s, channels=(2,), hidden=3), IMAGE))


def test_a_loss_must_say_its_derivative() -> None:
    plain = LOSSES.get("cross_entropy")
    silent = Loss(
        name="silent",
        targets=plain.targets,
        width=plain.width,
        per_record=plain.per_record,
        predict=plain.predict,
        of_predictions=plain.of_predictions,
    )
    with pytest.raises(NotAChain, match='loss "silent" does not say its derivative'):
        trace(task(linear, loss=silent))


def test_a_loss_that_misstates_its_derivative_is_caught() -> None:
    assert LOGISTIC.canonical is not None
    assert CROSS_ENTROPY.canonical is not None
    wrong = replace(CROSS_ENTROPY, canonical=replace(CROSS_ENTROPY.canonical, mean_=LOGISTIC.canonical.mean_))
    with pytest.raises(NotAChain, match="differs from autograd"):
        trace(task(linear, loss=wrong))


def test_tracing_draws_nothing_and_leaves_the_model_alone() -> None:
    learnt = task(ACCEPTED["all activations"])
    before, vector = torch.get_rng_state(), learnt.bind().vector.clone()
    trace(learnt)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(learnt.bind().vector, vector)


# --- clipping ------------------------------------------------------------------------------------------------

X = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 4)))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
DATA = Samples(X.numpy(), Y.numpy(), np.arange(7))
CLIP = 0.25


@dataclass(frozen=True, kw_only=True)
class Corrected(FedAvg):
    """SGD through `correct`."""

    def correct(self, extra: Any, params: Tensor, gradients: Tensor) -> Tensor:
        return gradients


@dataclass(frozen=True, kw_only=True)
class Stepped(FedAvg):
    """SGD through `step`."""

    def step(self, extra: Any, params: Tensor, gradient: Any, rate: float) -> Any:
        return params - rate * gradient(params), extra


def by_hand(learnt: Task, start: Tensor, phase: Phase, weights: Tensor | None, data: int, client: int) -> Tensor:
    """Every record's gradient by autograd, at the parameters before the step, clipped, weighted and summed."""
    ((found, _),) = batches(phase, Streams(0).seed("batches", 0), [client], [data], 0, [Position()])
    bound, after, groups = learnt.bind(), start.clone(), len(start)
    names = [entry.name for entry in learnt.layout.entries]
    assert phase.clip is not None
    for group in range(groups):
        for rows in found.split():
            bound.load(after[group])
            total = torch.zeros(learnt.dimension, dtype=torch.float64)
            for row in rows.tolist():
                loss = bound.losses(X[row : row + 1], Y[row : row + 1])[0]
                if weights is not None:
                    loss = loss * weights[row, group]
                parts = torch.autograd.grad(loss, bound.parameters)
                flat = torch.cat(
                    [
                        part.flatten() * (not phase.train or name.startswith(phase.train))
                        for name, part in zip(names, parts, strict=True)
                    ]
                )
                total += flat * min(1.0, phase.clip / groups**0.5 / float(flat.norm().clamp_min(1e-300)))
            expected = min(phase.batch_size or data, data)
            after[group] -= 0.1 * total / (max(len(rows), 1) if phase.denominator == "rows" else expected)
    return after


PHASES = {
    "padded": Phase(epochs=2, batch_size=3, clip=CLIP),
    "expected": Phase(batch_size=4, denominator="expected", clip=CLIP),
    "poisson": Phase(updates=5, batch_size=2, batches="poisson", denominator="expected", clip=CLIP),
    "head": Phase(batch_size=3, train=("2",), clip=CLIP),
    "bias": Phase(batch_size=3, train=("0.bias",), clip=CLIP),
    "weight": Phase(batch_size=3, train=("0.weight", "2.bias"), clip=CLIP),
    "loose": Phase(batch_size=3, clip=1e6),
    "tight": Phase(batch_size=3, clip=1e-6),
}


@pytest.mark.parametrize("executor", ["functional", "tiled"])
@pytest.mark.parametrize("algorithm", [FedAvg(), Corrected(), Stepped()])
@pytest.mark.parametrize("phase", PHASES)
def test_records_are_clipped_as_by_hand(phase: str, algorithm: Any, executor: Any) -> None:
    learnt = task(lambda s: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    weights = torch.rand(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    weights[1] = 0
    for groups, weighted in ((1, False), (3, True), (2, False)):
        start = torch.stack([learnt.initial(seed) for seed in range(groups)])
        given = weights[:, :groups] if weighted else None
        jobs = [  # the second client is shorter: its rows are padded, its steps end before
            Job(
                client,
                Local(start.clone(), weights=None if given is None else given[:n]),
                DATA.take(np.arange(n)),
            )
            for client, n in ((0, 7), (1, 4), (2, 1))
        ]
        work = LocalWork((PHASES[phase],), 0.1)
        Executor(learnt, Execution(executor=executor, workers=1)).train(algorithm, work, jobs, Streams(0), 0)
        for job in jobs:
            hand = by_hand(learnt, start, PHASES[phase], given, len(job.samples), job.client)
            torch.testing.assert_close(job.local.params, hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_one_record_moves_a_client_by_no_more_than_the_clip(executor: Any) -> None:
    """However large the record, over all groups together."""
    learnt = task(linear)
    huge = Samples(DATA.x * 1e6, DATA.y, DATA.index)
    for groups in (1, 4):
        local = Local(torch.stack([learnt.initial(seed) for seed in range(groups)]))
        work = LocalWork((Phase(updates=1, batch_size=1, clip=CLIP),), 1.0)
        job = Job(0, local, huge)
        before = local.params.clone()
        Executor(learnt, Execution(executor=executor, workers=1)).train(FedAvg(), work, [job], Streams(0), 0)
        assert float((job.local.params - before).norm()) <= CLIP * (1 + 1e-9)


@pytest.mark.parametrize("executor", ["functional", "tiled"])
def test_a_record_without_gradient_is_not_divided_by_zero(executor: Any) -> None:
    learnt = task(lambda s: nn.Linear(4, 3, bias=False))
    nothing = Samples(np.zeros((3, 4)), DATA.y[:3], DATA.index[:3])
    job = Job(0, Local(learnt.initial(0)[None]), nothing)
    work = LocalWork((Phase(batch_size=2, clip=CLIP),), 1.0)
    Executor(learnt, Execution(executor=executor, workers=1)).train(FedAvg(), work, [job], Streams(0), 0)
    assert torch.equal(job.local.params[0], learnt.initial(0))

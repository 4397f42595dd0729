"""Dense chains: models whose forward and backward pass can be written down for many clients at once.

A chain is Linear layers with elementwise activations between them,

    a_0 = x,   z_l = a_{l-1} W_l' + b_l,   a_l = φ_l(z_l),   outputs = z_L,

under a loss whose derivative by the outputs is ``mean(z_L) − target`` (`rivage.learning.losses.Canonical`). With
``s_L`` this derivative times the record's share in the objective, the signals are

    s_{l-1} = (s_l W_l) ∘ φ'_{l-1},      ∂/∂W_l = s_l' a_{l-1},      ∂/∂b_l = Σ s_l .

Every tensor of the parameters is kept as ``[rows, out, in]``, one row per model, and one batched matrix product serves
all rows. `trace` reads the chain off a module with torch.fx and compares one gradient with autograd's, so that a model
that only looks like a chain is not mistaken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fx, nn

from rivage.learning.losses import Canonical
from rivage.learning.params import ParameterMap
from rivage.learning.task import Bound, Task

__all__ = ["Chain", "Layer", "NotAChain", "Stack", "trace"]

_PROBE = 3  # records of the trial gradient
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}

Backward = Callable[[Tensor, Tensor], Tensor]


def _relu_backward(signal: Tensor, output: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.threshold_backward(signal, output, 0)
    return result


def _tanh_backward(signal: Tensor, output: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.tanh_backward(signal, output)
    return result


def _sigmoid_backward(signal: Tensor, output: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.sigmoid_backward(signal, output)
    return result


@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function: in place, and its backward pass from (signal, output)."""

    apply_: Callable[[Tensor], Tensor]
    backward: Backward


_ACTIVATIONS = {
    "relu": Activation(torch.relu_, _relu_backward),
    "tanh": Activation(torch.tanh_, _tanh_backward),
    "sigmoid": Activation(torch.sigmoid_, _sigmoid_backward),
}
_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Flatten: "flatten",
    nn.Identity: "identity",
}
_FUNCTIONS: dict[Any, str] = {
    torch.relu: "relu",
    F.relu: "relu",
    torch.tanh: "tanh",
    F.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    torch.flatten: "flatten",
}


class NotAChain(Exception):
    """Why a model has no generated backward pass."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One Linear layer.

    Args:
        weight: position of its weight ``[out, in]`` among the layout's entries.
        bias: position of its bias; None without one.
        activation: what follows; None after the last layer, or where nothing does.
    """

    weight: int
    bias: int | None
    activation: Activation | None


@dataclass(frozen=True, slots=True)
class Stack:
    """Parameters of some rows, by layer, as views on those of `Chain.unflatten`.

    Args:
        weights: ``[rows, out, in]``.
        transposed: the same, ``[rows, in, out]``.
        biases: ``[rows, 1, out]``; None without one.
    """

    weights: list[Tensor]
    transposed: list[Tensor]
    biases: list[Tensor | None]


@dataclass(frozen=True, slots=True)
class Chain:
    """A model as a chain.

    Args:
        layers: from input to output.
        layout: where the parameters lie in the flat vector.
        canonical: the loss's derivative.
    """

    layers: tuple[Layer, ...]
    layout: ParameterMap
    canonical: Canonical

    def unflatten(self, vectors: Float[Tensor, "rows dim"]) -> list[Tensor]:
        """The parameters of each row, by entry, copied: weights ``[rows, out, in]``, biases ``[rows, 1, out]``."""
        shapes = [entry.shape if len(entry.shape) > 1 else (1, *entry.shape) for entry in self.layout.entries]
        return [
            vectors[:, entry.span].reshape(len(vectors), *shape).clone(memory_format=torch.contiguous_format)
            for entry, shape in zip(self.layout.entries, shapes, strict=True)
        ]

    @staticmethod
    def flatten(tensors: Sequence[Tensor]) -> Float[Tensor, "rows dim"]:
        """The inverse of `unflatten`."""
        return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1)

    def stack(self, params: Sequence[Tensor]) -> Stack:
        """The layers' views on the parameters, as of `unflatten`, which may be cut to the first rows."""
        weights = [params[layer.weight] for layer in self.layers]
        biases = [None if layer.bias is None else params[layer.bias] for layer in self.layers]
        return Stack(weights, [weight.transpose(1, 2) for weight in weights], biases)

    def forward(self, stack: Stack, x: Float[Tensor, "rows batch in"]) -> list[Tensor]:
        """The input of every layer, then the outputs ``[rows, batch, width]``."""
        values = [x]
        for layer, weight, bias in zip(self.layers, stack.transposed, stack.biases, strict=True):
            x = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)
            values.append(x if layer.activation is None else layer.activation.apply_(x))
        return values

    def signals(
        self,
        stack: Stack,
        values: Sequence[Tensor],
        targets: Float[Tensor, "rows batch width"],
        shares: Float[Tensor, "rows batch one"],
        lowest: int = 0,
    ) -> list[Tensor]:
        """Derivative of the objective by every layer's z, from layer ``lowest`` up. Overwrites the outputs.

        Args:
            stack: of the forward pass.
            values: as of `forward`.
            targets: encoded.
            shares: derivative of the objective by each record's loss; 0 for padding.
            lowest: first layer whose signal is needed.
        """
        signal = self.canonical.mean_(values[-1])
        signal -= targets
        signal *= shares
        signals = [signal]
        for index in range(len(self.layers) - 1, lowest, -1):
            signal = torch.bmm(signal, stack.weights[index])
            activation = self.layers[index - 1].activation
            if activation is not None:
                signal = activation.backward(signal, values[index])
            signals.append(signal)
        return signals[::-1]

    def record_norms(
        self, values: Sequence[Tensor], signals: Sequence[Tensor], trained: frozenset[int], lowest: int
    ) -> Tensor:
        """Squared norm of each record's gradient ``[rows, batch, 1]`` without forming it (ghost norms).

        ‖s a'‖² = ‖s‖² ‖a‖² for one record; the bias adds ‖s‖².
        """
        total = torch.zeros_like(signals[-1][..., :1])
        for layer, value, signal in zip(self.layers[lowest:], values[lowest:-1], signals, strict=True):
            factor = value.square().sum(-1, keepdim=True) if layer.weight in trained else torch.zeros_like(total)
            if layer.bias in trained:
                factor = factor + 1
            total += signal.square().sum(-1, keepdim=True) * factor
        return total


def trace(task: Task) -> Chain:
    """Read the chain off a task's model, and check one gradient against autograd.

    Raises:
        NotAChain: saying which part of the model or loss has no place in a chain.
    """
    if task.loss.canonical is None:
        raise NotAChain(f'loss "{task.loss.name}" does not say its derivative')
    if task.stochastic:
        raise NotAChain("training draws random numbers (dropout)")
    if task.layout.buffers or task.layout.kept:
        raise NotAChain("it has buffers")
    bound = task.bind()
    chain = Chain(tuple(_layers(bound.module, task.layout)), task.layout, task.loss.canonical)
    _require_equal(chain, bound, task)
    return chain


def _layers(module: nn.Module, layout: ParameterMap) -> Iterator[Layer]:
    places = {id(dict(module.named_parameters())[entry.name]): i for i, entry in enumerate(layout.entries)}
    found: list[tuple[nn.Linear, str]] = []
    for kind, part in _parts(module):
        if part is not None:
            found.append((part, ""))
        elif kind == "flatten":
            if found:
                raise NotAChain("it flattens after a layer")
        elif kind != "identity":
            if not found or found[-1][1]:
                raise NotAChain(f"{kind} does not follow a Linear layer")
            found[-1] = (found[-1][0], kind)
    used = [id(p) for linear, _ in found for p in linear.parameters()]
    if sorted(places[key] for key in used) != list(range(len(layout.entries))):
        raise NotAChain("it has parameters that are tied, or not those of Linear layers")
    if not found or found[-1][1]:
        raise NotAChain("it does not end with a Linear layer")
    for linear, kind in found:
        bias = None if linear.bias is None else places[id(linear.bias)]
        yield Layer(places[id(linear.weight)], bias, _ACTIVATIONS.get(kind))


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Linear | None]]:
    """What the model applies to its input, in order."""
    whole = nn.Sequential(module)  # a model that is a single layer is then a part, not opened up
    try:
        graph = fx.Tracer().trace(whole)
    except Exception as error:
        raise NotAChain(f"its code cannot be traced ({type(error).__name__})") from error
    modules = dict(whole.named_modules())
    if any(_hooked(m) for m in modules.values()):
        raise NotAChain("it has hooks")
    previous: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if previous is not None:
                raise NotAChain("it takes several inputs")
        elif previous is None or node.all_input_nodes != [previous]:
            raise NotAChain("its layers do not follow one another")
        elif node.op != "output":
            yield _part(node, modules)
        previous = node


def _hooked(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _part(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[str, nn.Linear | None]:
    target = node.target
    if node.op == "call_module":
        part = modules[str(target)]
        if type(part) is nn.Linear:
            return "linear", part
        if type(part) in _MODULES:
            return _MODULES[type(part)], None
        raise NotAChain(f"it has a {type(part).__name__} layer")
    if node.op == "call_function" and target in _FUNCTIONS:
        return _FUNCTIONS[target], None
    if node.op == "call_method" and target in ("relu", "tanh", "sigmoid", "flatten"):
        return str(target), None
    raise NotAChain(f"it calls {getattr(target, '__name__', target)}")


def _require_equal(chain: Chain, bound: Bound, task: Task) -> None:
    """Predictions and one gradient of random records, by both ways: whatever the tracer misread shows here."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_PROBE, *task.schema.input_shape, generator=generator).to(device=task.device, dtype=task.dtype)
    if task.schema.target == "real":
        y = torch.randn(_PROBE, task.schema.num_outputs, generator=generator).to(device=task.device, dtype=task.dtype)
    else:
        y = (torch.arange(_PROBE) % task.schema.num_classes).to(task.device)
    with torch.enable_grad():
        losses = bound.losses(x, y)
    shares = torch.full((_PROBE,), 1 / _PROBE, dtype=task.dtype, device=task.device)
    wanted = torch.autograd.grad(losses, bound.parameters, shares, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        stack = chain.stack(chain.unflatten(bound.vector[None]))
        predicted = task.loss.predict(chain.forward(stack, x[None].flatten(2))[-1][0])
        found = gradient(chain, chain.unflatten(bound.vector[None]), x[None], y, shares)
    tolerance = _TOLERANCE.get(task.dtype, 1e-2)
    for entry, one, other in zip(task.layout.entries, wanted, found, strict=False):
        scale = float(one.abs().max()) + tolerance
        if float((one - other.reshape(one.shape)).abs().max()) > tolerance * scale:
            raise NotAChain(f'the gradient of "{entry.name}" differs from autograd\'s')
    if not torch.allclose(bound.predictions(x), predicted, rtol=tolerance, atol=tolerance):
        raise NotAChain("it predicts otherwise than it learns")


def gradient(chain: Chain, params: Sequence[Tensor], x: Tensor, y: Tensor, shares: Tensor) -> list[Tensor]:
    """Gradients of one model, by entry, as of `Chain.unflatten`."""
    stack = chain.stack(params)
    values = chain.forward(stack, x.flatten(2))
    width = values[-1].shape[-1]
    targets = chain.canonical.encode(y, width).to(x.dtype)[None]
    signals = chain.signals(stack, values, targets, shares[None, :, None])
    result = [torch.zeros_like(tensor) for tensor in params]
    for layer, value, signal in zip(chain.layers, values, signals, strict=False):
        result[layer.weight] = torch.bmm(signal.transpose(1, 2), value)
        if layer.bias is not None:
            result[layer.bias] = signal.sum(1, keepdim=True)
    return result

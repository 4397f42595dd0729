"""The last linear layer of a model, its *head*, and what goes into it: the representation that the *body* makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rivage.core.errors import ConfigError

__all__ = ["features", "head_name"]


def head_name(module: nn.Module, x: Shaped[Tensor, "n *input"]) -> str:
    """Name of the `nn.Linear` that a forward pass calls last; empty where the module is itself that layer.

    Raises:
        ConfigError: if it calls none.
    """
    called: list[str] = []
    linear = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: called.append(name))
        for name, layer in linear.items()
    ]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        raise ConfigError(
            "the model has no linear layer that could be told from the rest as its head",
            where="task.model",
            mend="End it with nn.Linear, or choose a method that needs no head.",
        )
    return called[-1]


def features(module: nn.Module, head: str, x: Shaped[Tensor, "n *input"]) -> Float[Tensor, "n *positions width"]:
    """What goes into the head, one row per record (per position, for tokens), in the module's present mode."""
    with torch.no_grad(), _caught(module.get_submodule(head)) as inputs:
        module(x)
    return inputs[-1]


@contextmanager
def _caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What is given to a layer inside the block."""
    seen: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    hook = layer.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()

"""The models of the workloads in JAX, on lists of arrays in torch's order, but with matrices as ``[in, out]``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..replay import Settings

__all__ = ["cut", "joined", "loss_of"]

Params = Sequence[Any]


def cut(settings: Settings, vector: np.ndarray) -> list[np.ndarray]:
    """A flat vector as one array per tensor."""
    shapes = _shapes(settings)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    assert ends[-1] == len(vector), "the vector is of another model"
    parts = np.split(vector, ends[:-1])
    return [_turned(part.reshape(shape), settings) for part, shape in zip(parts, shapes, strict=True)]


def joined(settings: Settings, params: Params) -> np.ndarray:
    """The flat vector again."""
    return np.concatenate([_turned(np.asarray(part), settings).ravel() for part in params])


def _turned(part: np.ndarray, settings: Settings) -> np.ndarray:
    """Matrices from torch's ``[out, in]`` or back, but not the table of an embedding."""
    table = settings.model == "char_lstm" and part.shape == (settings.classes, settings.options["embedding"])
    return part if part.ndim != 2 or table else np.ascontiguousarray(part.T)


def loss_of(settings: Settings) -> Callable[..., Any]:
    """Mean cross-entropy over the records of a batch that are no padding; of tokens over positions too."""
    outputs = {"char_lstm": _lstm, "cnn": _cnn}.get(settings.model, _dense)

    def loss(params: Params, x: Any, y: Any, mask: Any) -> Any:
        logs = jax.nn.log_softmax(outputs(params, x))
        each = -jnp.take_along_axis(logs, y[..., None], axis=-1)[..., 0]
        each = each.mean(axis=tuple(range(1, each.ndim)))
        return (each * mask).sum() / mask.sum()

    return loss


def _shapes(settings: Settings) -> list[tuple[int, ...]]:
    options = settings.options
    if settings.model == "char_lstm":
        hidden, width = options["hidden"], options["embedding"]
        shapes: list[tuple[int, ...]] = [(settings.classes, width)]
        for layer in range(options["layers"]):
            shapes += [(4 * hidden, hidden if layer else width), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
        return [*shapes, (settings.classes, hidden), (settings.classes,)]
    shapes = []
    if settings.model != "cnn":
        widths = [math.prod(settings.input_shape), *options.get("hidden", ()), settings.classes]
    else:
        depth, height, width = settings.input_shape
        for count in options["channels"]:
            shapes += [(count, depth, 5, 5), (count,)]
            depth, height, width = count, height // 2, width // 2
        widths = [depth * height * width, options["hidden"], settings.classes]
    for fan_in, fan_out in pairwise(widths):
        shapes += [(fan_out, fan_in), (fan_out,)]
    return shapes


def _dense(params: Params, x: Any) -> Any:
    x = x.reshape(len(x), -1)
    for place in range(0, len(params), 2):
        x = x @ params[place] + params[place + 1]
        x = jax.nn.relu(x) if place + 2 < len(params) else x
    return x


def _cnn(params: Params, x: Any) -> Any:
    for place in range(0, len(params) - 4, 2):
        x = jax.lax.conv_general_dilated(x, params[place], (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
        x = jax.nn.relu(x + params[place + 1][:, None, None])
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _dense(params[-4:], x)


def _lstm(params: Params, tokens: Any) -> Any:
    x = params[0][tokens].swapaxes(0, 1)
    for place in range(1, len(params) - 2, 4):
        x = _lstm_layer(params[place : place + 4], x)
    return x.swapaxes(0, 1) @ params[-2] + params[-1]


def _lstm_layer(params: Params, x: Any) -> Any:
    """One layer over positions (first axis): input products at once, the recurrence by scan; gates i, f, g, o."""
    from_input, from_state, bias, other_bias = params
    products = x @ from_input + (bias + other_bias)

    def cell(carried: tuple[Any, Any], product: Any) -> tuple[tuple[Any, Any], Any]:
        state, memory = carried
        i, f, g, o = jnp.split(product + state @ from_state, 4, axis=-1)
        memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
        state = jax.nn.sigmoid(o) * jnp.tanh(memory)
        return (state, memory), state

    nothing = jnp.zeros((x.shape[1], from_state.shape[0]), x.dtype)
    return jax.lax.scan(cell, (nothing, nothing), products)[1]

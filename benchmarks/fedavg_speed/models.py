"""The models of the workloads in plain torch, parameters in the order of rivage's, for contestants without it."""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from .replay import Settings

__all__ = ["CharLSTM", "build", "flat", "loss_of"]


class CharLSTM(nn.Module):
    """Embedding, stacked LSTM, one dense layer at every position."""

    def __init__(self, symbols: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next symbol, position last: ``[n, symbols, length]``."""
        logits: Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return logits.transpose(1, 2)


def build(settings: Settings, initial: Tensor) -> nn.Module:
    """The model with these parameters."""
    module = _module(settings)
    nn.utils.vector_to_parameters(initial.clone(), module.parameters())  # they become views of it
    return module


def flat(module: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def loss_of(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy; of tokens over positions too."""
    return F.cross_entropy(module(x), y)


def _module(settings: Settings) -> nn.Module:
    if settings.model == "char_lstm":
        return CharLSTM(settings.classes, **settings.options)
    if settings.model == "cnn":
        return _cnn(settings)
    widths = [math.prod(settings.input_shape), *settings.options.get("hidden", ()), settings.classes]
    layers: list[nn.Module] = [nn.Flatten()] if len(settings.input_shape) > 1 else []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _cnn(settings: Settings) -> nn.Module:
    depth, height, width = settings.input_shape
    layers: list[nn.Module] = []
    for count in settings.options["channels"]:
        layers += [nn.Conv2d(depth, count, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        depth, height, width = count, height // 2, width // 2
    dense = nn.Linear(depth * height * width, settings.options["hidden"])
    return nn.Sequential(
        *layers, nn.Flatten(), dense, nn.ReLU(), nn.Linear(settings.options["hidden"], settings.classes)
    )

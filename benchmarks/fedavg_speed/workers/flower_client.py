"""What runs in Flower's actors; a module of its own, so that they import it once instead of unpickling it each time."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ..models import build
from ..replay import Replay, Turn
from .plain import trained

__all__ = ["app", "split"]


@cache
def _held(folder: str) -> Replay:
    return Replay(Path(folder))


@cache
def _turns(folder: str, number: int) -> dict[int, Turn]:
    return {turn[0]: turn for turn in _held(folder).turns(number)}


@cache
def _model(folder: str) -> torch.nn.Module:
    torch.set_num_threads(1)
    held = _held(folder)
    return build(held.settings, torch.from_numpy(held.initial))


def split(replay: Replay) -> list[np.ndarray]:
    """The first parameters, one array per tensor."""
    model = build(replay.settings, torch.from_numpy(replay.initial))
    return [parameter.detach().numpy() for parameter in model.parameters()]


def train(message: Message, context: Context) -> Message:
    """One client's local work."""
    config = message.content["config"]
    folder, client = config["folder"], config["client"]
    held, model = _held(folder), _model(folder)
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), message.content["arrays"].to_numpy_ndarrays(), strict=True):
            parameter.copy_(torch.from_numpy(array))
    records = held.records(client)
    rate = held.settings.learning_rate
    result = trained(model, records, _turns(folder, config["round"])[client][1], rate)
    arrays = ArrayRecord(numpy_ndarrays=[parameter.detach().numpy() for parameter in result.parameters()])
    metrics = MetricRecord({"num-examples": len(records[1])})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


app = ClientApp()
app.train()(train)

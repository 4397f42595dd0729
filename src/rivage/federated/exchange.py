"""What a round's values look like on the wire and in the record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rivage.core.messages import Message, Payload
from rivage.data.population import ClientIds
from rivage.federated.algorithm import State, Update
from rivage.learning.params import to_numpy

__all__ = ["as_payload", "average", "broadcast_message", "fault_of", "roster", "traffic", "update_message"]

SERVER = "server"
_LISTED = 1000  # cohorts up to this size are written out in the record, larger ones as a digest


def as_payload(state: State | None) -> Payload:
    """What a broadcast carries; nothing for None."""
    return {name: to_numpy(value) for name, value in (state or {}).items()}


def broadcast_message(number: int, client: int, payload: Payload) -> Message | None:
    """The server's message to one client; None when there is nothing to say."""
    if not payload:
        return None
    return Message(round=number, sender=SERVER, receiver=f"client:{client}", kind="broadcast", payload=payload)


def update_message(number: int, client: int, update: Update) -> Message | None:
    """Vectors, their weights and the metrics, all that leaves the device; None when nothing does."""
    payload = {name: to_numpy(vector) for name, (vector, _) in update.payload.items()}
    payload |= {f"{name}.weight": np.array([weight]) for name, (_, weight) in update.payload.items()}
    payload |= {f"metric.{name}": np.array([float(value)]) for name, value in update.metrics.items()}
    if not payload:
        return None
    return Message(round=number, sender=f"client:{client}", receiver=SERVER, kind="update", payload=payload)


def fault_of(update: Update, dimension: int, shapes: Mapping[str, torch.Size]) -> str | None:
    """Why an update cannot be used, given what the others of the round look like; None when it can."""
    if shapes and update.payload.keys() != shapes.keys():
        return f"entries {', '.join(update.payload) or 'none'} where others sent {', '.join(shapes)}"
    for name, (vector, weight) in update.payload.items():
        if not (np.isfinite(weight) and weight >= 0):
            return f"{name} with weight {weight}"
        if name == "params" and vector.shape[-1] != dimension:
            return f"{name} of shape {tuple(vector.shape)} where {dimension} parameters were expected"
        if vector.shape != shapes.get(name, vector.shape):
            return f"{name} of shape {tuple(vector.shape)} where others sent {tuple(shapes[name])}"
        if not bool(torch.isfinite(vector).all()):
            return f"{name} with norm {float(torch.linalg.vector_norm(vector))} after local training"
    return None


def average(values: list[float]) -> float | None:
    """The mean; None when it is not finite."""
    mean = float(np.mean(values))
    return mean if np.isfinite(mean) else None


def roster(ids: ClientIds) -> Any:
    """Clients in the record: listed, or counted with a digest where they are many."""
    if len(ids) <= _LISTED:
        return ids.tolist()
    digest = hashlib.blake2b(ids.astype("<i8").tobytes(), digest_size=16).hexdigest()
    return {"count": len(ids), "digest": digest}


def traffic(messages: tuple[Message, ...]) -> dict[str, int]:
    """Bytes to the server and from it."""
    up = sum(message.nbytes for message in messages if message.receiver == SERVER)
    return {"bytes_up": up, "bytes_down": sum(message.nbytes for message in messages) - up}

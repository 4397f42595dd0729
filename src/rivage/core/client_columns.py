"""Every evaluation of every client, as the columns of one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["client_columns"]

_PER_EVENT = ("method", "seed", "round", "group")
_PER_CLIENT = (
    "test",
    "test_size",
    "test_loss",
    "validation",
    "validation_loss",
    "validation_se",
    "validation_size",
    "train_size",
    "gradients",
    "neighbour_share",
)


def client_columns(evaluations: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """One row per method, seed, round, group and client.

    Args:
        evaluations: events of a run, with their method and seed. What one of them does not tell is None.
    """
    columns: dict[str, list[Any]] = {name: [] for name in (*_PER_EVENT, "client", *_PER_CLIENT)}
    for event in evaluations:
        clients = event["clients"]
        for name in _PER_EVENT:
            columns[name] += [event[name]] * len(clients)
        columns["client"] += clients
        for name in _PER_CLIENT:
            columns[name] += event.get(name) or [None] * len(clients)
    return columns

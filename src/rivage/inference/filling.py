"""Filling nodes: models in an order of preference, each where it still fits."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray

from rivage.inference.instance import Instance

__all__ = ["filled", "storable"]

_ROUNDING = 1e-9  # of a budget


def storable(instance: Instance) -> Bool[ndarray, "nodes models"]:
    """Free models that a node can hold when it holds nothing else of them; never oversize ones."""
    fits = instance.sizes <= instance.free_budgets[:, None] * (1 + _ROUNDING)
    return np.asarray(instance.free & fits)


def filled(
    instance: Instance,
    order: Int64[ndarray, "nodes models"],
    allowed: Bool[ndarray, "nodes models"],
    *,
    one_each: bool = False,
) -> Bool[ndarray, "nodes models"]:
    """The allocation when every node takes models in an order. O(nodes · models).

    Args:
        instance: the network.
        order: for each node its models, the first choice first.
        allowed: which it may take; pinned ones are there anyhow.
        one_each: whether it takes at most one of each task, those pinned there included.
    """
    loaded = instance.pinned.copy()
    room = instance.free_budgets * (1 + _ROUNDING)
    _fill(order, allowed & storable(instance), instance.sizes, room, instance.task, one_each, loaded)
    return loaded


@njit(cache=True)
def _fill(
    order: Int64[ndarray, "nodes models"],
    allowed: Bool[ndarray, "nodes models"],
    sizes: Float64[ndarray, "nodes models"],
    room: Float64[ndarray, "nodes"],
    task: Int64[ndarray, "models"],
    one_each: bool,
    loaded: Bool[ndarray, "nodes models"],
) -> None:
    has = np.zeros(task.max() + 1, np.bool_)
    for v in range(len(room)):
        has[:] = False
        for m in range(len(task)):
            has[task[m]] |= loaded[v, m]
        for m in order[v]:
            if allowed[v, m] and sizes[v, m] <= room[v] and not (one_each and has[task[m]]):
                loaded[v, m] = True
                has[task[m]] = True
                room[v] -= sizes[v, m]

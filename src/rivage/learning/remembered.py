"""The datastores of a bundle's clients as arrays of one file, end to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy import ndarray

from rivage.learning.datastore import Datastore
from rivage.learning.nearest import SEARCHES
from rivage.learning.neighbours import Neighbours
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["pack", "unpack"]

_PREFIX = "neighbours."
_PARTS = ("features", "targets", "ids")


def pack(neighbours: Mapping[int, Neighbours]) -> dict[str, ndarray]:
    """By name, what `unpack` reads; nothing where nobody remembers anything."""
    if not neighbours:
        return {}
    found = list(neighbours.values())
    stores = [n.store for n in found]
    columns = {name: to_numpy(torch.cat([getattr(store, name) for store in stores])) for name in _PARTS}
    columns |= {
        "clients": np.array(list(neighbours), np.int64),
        "entries": np.array([len(store) for store in stores], np.int64),
        "numbers": np.array([(n.outputs, n.k, SEARCHES.index(n.search)) for n in found], np.int64),
        "shares": np.array([(n.share, n.scale) for n in found], np.float64),
    }
    return {_PREFIX + name: column for name, column in columns.items()}


def unpack(tensors: Mapping[str, ndarray]) -> Iterator[tuple[int, Neighbours]]:
    """Client and neighbours, one after the other.

    Raises:
        ValueError: if the arrays do not fit together.
    """
    columns = {name.removeprefix(_PREFIX): a for name, a in tensors.items() if name.startswith(_PREFIX)}
    if not columns:
        return
    ends = np.cumsum([0, *columns["entries"].tolist()]).tolist()
    if (columns["entries"] < 1).any() or any(len(columns[name]) != ends[-1] for name in _PARTS):
        raise ValueError(
            f"{len(columns['features'])} features, {len(columns['targets'])} targets for {ends[-1]} entries"
        )
    rows = (columns[name].tolist() for name in ("clients", "numbers", "shares"))
    for client, (outputs, k, search), (share, scale), (start, end) in zip(*rows, pairwise(ends), strict=True):
        _require(columns["targets"][start:end], outputs, k, share, scale)
        store = Datastore(*(from_numpy(columns[name][start:end]) for name in _PARTS))
        yield client, Neighbours(store, share, outputs, k, scale, SEARCHES[search])


def _require(targets: ndarray, outputs: int, k: int, share: float, scale: float) -> None:
    if not (0 <= share <= 1 and scale > 0 and k >= 1 and outputs >= 1):
        raise ValueError(f"neighbours with share {share}, scale {scale}, k {k} and {outputs} outputs")
    if targets.dtype.kind == "i" and not 0 <= targets.min() <= targets.max() < outputs:
        raise ValueError(f"targets {targets.min()} to {targets.max()} of {outputs} classes")

"""The objects nearest to a vector: exactly, or among a few cells only.

`exact_nearest` compares with every object. `Cells` is an inverted file (Sivic, Zisserman. Video Google: a text
retrieval approach to object matching in videos. ICCV 2003): some objects are drawn as pivots, every object belongs to
its nearest pivot, and a query is compared with the objects of its nearest pivots only. Both are NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, ShapeError, require

__all__ = ["Cells", "Nearest", "exact_nearest", "recall"]

Vectors = Float64[ndarray, "n dim"]

_AT_ONCE = 2**22  # distances held in memory


class Nearest(NamedTuple):
    """Objects by their distance from each query.

    Args:
        items: object numbers, nearest first; equal distances by number.
        distances: Euclidean.
    """

    items: Int64[ndarray, "n m"]
    distances: Float64[ndarray, "n m"]


def exact_nearest(catalog: Vectors, queries: Vectors, count: int) -> Nearest:
    """The ``count`` nearest objects of each query. O(n N dim) time.

    Args:
        catalog: one row per object.
        queries: one row per query.
        count: 1 <= count <= N.

    Raises:
        ShapeError: when the dimensions differ.
        ConfigError: when there are fewer objects.
    """
    _check(catalog, queries, count)
    rows = max(1, _AT_ONCE // len(catalog))
    parts = [_among(catalog, part, count) for part in np.split(queries, range(rows, len(queries), rows))]
    return Nearest(np.concatenate([p.items for p in parts]), np.concatenate([p.distances for p in parts]))


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """An approximate index.

    Args:
        catalog: one row per object.
        pivots: the objects that are pivots.
        cell: which pivot each object belongs to.
        probes: cells that a query looks into; more where these hold too few objects.
    """

    catalog: Vectors
    pivots: Int64[ndarray, "cells"]
    cell: Int64[ndarray, "items"]
    probes: int

    @classmethod
    def of(cls, catalog: Vectors, cells: int, probes: int, generator: np.random.Generator) -> Cells:
        """With pivots drawn from the objects. O(N cells dim)."""
        require(probes, "probes", least=1)
        if not probes <= cells <= len(catalog):
            raise ConfigError(
                f"{cells} cells, {probes} probes, {len(catalog)} objects", mend="Give probes <= cells <= objects."
            )
        pivots = np.sort(generator.choice(len(catalog), cells, replace=False))
        return cls(catalog, pivots, exact_nearest(catalog[pivots], catalog, 1).items[:, 0], probes)

    def nearest(self, queries: Vectors, count: int) -> Nearest:
        """The ``count`` nearest objects in the cells probed."""
        _check(self.catalog, queries, count)
        order = exact_nearest(self.catalog[self.pivots], queries, len(self.pivots)).items
        members = [np.flatnonzero(self.cell == number) for number in range(len(self.pivots))]
        found = [self._one(query, cells, members, count) for query, cells in zip(queries, order, strict=True)]
        return Nearest(np.array([f.items[0] for f in found]), np.array([f.distances[0] for f in found]))

    def _one(self, query: Float64[ndarray, "dim"], cells: ndarray, members: list[ndarray], count: int) -> Nearest:
        sizes = np.cumsum([len(members[cell]) for cell in cells])
        probed = max(self.probes, int(np.searchsorted(sizes, count)) + 1)
        objects = np.sort(np.concatenate([members[cell] for cell in cells[:probed]]))
        near = _among(self.catalog[objects], query[None, :], count)
        return Nearest(objects[near.items], near.distances)


def recall(found: Nearest, exact: Nearest, count: int) -> float:
    """Share of the ``count`` nearest that were found."""
    pairs = zip(found.items[:, :count], exact.items[:, :count], strict=True)
    return float(np.mean([np.isin(true, guess).mean() for guess, true in pairs]))


def _among(catalog: Vectors, queries: Vectors, count: int) -> Nearest:
    squares = (queries**2).sum(axis=1)[:, None] - 2 * (queries @ catalog.T) + (catalog**2).sum(axis=1)
    near = np.argpartition(squares, count - 1, axis=1)[:, :count] if count < len(catalog) else _all(squares)
    near = np.sort(near, axis=1)  # so that a stable sort leaves equal distances in the order of the numbers
    distances = np.sqrt(((catalog[near] - queries[:, None, :]) ** 2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")
    return Nearest(np.take_along_axis(near, order, axis=1), np.take_along_axis(distances, order, axis=1))


def _all(squares: ndarray) -> ndarray:
    return np.broadcast_to(np.arange(squares.shape[1]), squares.shape)


def _check(catalog: Vectors, queries: Vectors, count: int) -> None:
    if catalog.ndim != 2 or queries.ndim != 2 or catalog.shape[1] != queries.shape[1]:
        raise ShapeError(
            f"catalog of shape {catalog.shape}, queries of shape {queries.shape}",
            mend="Give rows of the same length.",
        )
    if not 1 <= count <= len(catalog):
        raise ConfigError(f"{count} of {len(catalog)} objects are asked for", mend="Ask for 1 to all of them.")

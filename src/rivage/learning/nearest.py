"""Nearest neighbours by Euclidean distance, exactly.

Candidates come from one matrix product, ‖x − q‖² = ‖x‖² − 2 ⟨x, q⟩ + ‖q‖² in float64 with the store's mean taken off;
the distances of a few more than are needed are then computed again as sums of squared differences, and among equals
the entry that stands first wins. A query whose candidates do not settle the matter (many entries as far away as the
k-th) is compared with every entry. So the result is that of brute force, whatever the order and number of queries.

``faiss`` (Douze et al., arXiv 2401.08281) finds the candidates in float32 instead; its index is exact too, and what it
finds is treated the same. Of entries that are equally far to float32 it may leave others out.

Cost: O(queries · entries · width) time, and 32 MiB beside a copy of the store in float64.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from rivage.core.errors import require_extra
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["SEARCHES", "Search", "nearest"]

Search = Literal["exact", "faiss"]
SEARCHES: tuple[Search, ...] = ("exact", "faiss")

_SPARE = 8  # candidates beyond k
_NUMBERS = 1 << 22  # in the largest temporary: 32 MiB


def nearest(
    features: Float[Tensor, "entries width"],
    queries: Float[Tensor, "queries width"],
    k: int,
    search: Search = "exact",
) -> tuple[Float64[Tensor, "queries k"], Int64[Tensor, "queries k"]]:
    """Squared distances to the nearest entries, ascending, and their rows; all entries where there are fewer than k.

    Raises:
        MissingExtra: if faiss is asked for and not installed.
    """
    k = min(k, len(features))
    if len(torch.unique(queries.sum(dim=1))) <= len(queries) / 2:  # texts repeat themselves
        queries, which = torch.unique(queries, dim=0, return_inverse=True)
        distances, rows = _nearest(features, queries, k, search)
        return distances[which], rows[which]
    return _nearest(features, queries, k, search)


def _nearest(
    features: Tensor, queries: Tensor, k: int, search: Search
) -> tuple[Float64[Tensor, "queries k"], Int64[Tensor, "queries k"]]:
    """Part by part."""
    size = min(k + _SPARE, len(features))
    finder = _Faiss(features, size) if search == "faiss" else _Product(features, k, size)
    parts = torch.split(queries, max(1, _NUMBERS // max(len(features), size * features.shape[1], 1)))
    found = [_settled(features, part, *finder.candidates(part), k) for part in parts if len(part)]
    if not found:
        return queries.new_empty((0, k), dtype=torch.float64), torch.empty((0, k), dtype=torch.int64)
    distances, rows, doubted = (torch.cat(column) for column in zip(*found, strict=True))
    if bool(doubted.any()):
        distances[doubted], rows[doubted] = _among_all(features, queries[doubted], k)
    return distances, rows


class _Product:
    """Candidates by a matrix product."""

    def __init__(self, features: Tensor, k: int, size: int) -> None:
        self.k, self.size = k, size
        self.center = features.double().mean(dim=0)
        self.points = features.double() - self.center
        self.lengths = self.points.square().sum(dim=1)

    def candidates(self, queries: Tensor) -> tuple[Int64[Tensor, "queries size"], Tensor]:
        """Rows in any order, and for which queries they may not hold all of the k nearest."""
        centred = queries.double() - self.center
        near = torch.addmm(self.lengths, centred, self.points.T, alpha=-2)
        values, rows = near.topk(self.size, largest=False)
        if self.size == len(self.points):
            return rows, torch.zeros(len(queries), dtype=torch.bool, device=rows.device)
        error = 4e-16 * self.points.shape[1] * (self.lengths.max() + centred.square().sum(dim=1))
        return rows, values[:, -1] - values[:, self.k - 1] <= 2 * error


class _Faiss:
    """Candidates by faiss."""

    def __init__(self, features: Tensor, size: int) -> None:
        faiss: Any = require_extra("faiss", extra="knn", purpose="Searching with faiss")
        self.index, self.size = faiss.IndexFlatL2(features.shape[1]), size
        self.index.add(to_numpy(features.float()))

    def candidates(self, queries: Tensor) -> tuple[Int64[Tensor, "queries size"], Tensor]:
        """Rows in any order; none is doubted."""
        _, rows = self.index.search(to_numpy(queries.float()), self.size)
        found = from_numpy(rows, device=queries.device)
        return found, torch.zeros(len(queries), dtype=torch.bool, device=queries.device)


def _settled(
    features: Tensor, queries: Tensor, candidates: Int64[Tensor, "queries size"], doubted: Tensor, k: int
) -> tuple[Float64[Tensor, "queries k"], Int64[Tensor, "queries k"], Tensor]:
    """The k nearest of the candidates, the first of equals; and who is in doubt."""
    candidates = candidates.sort(dim=1).values
    distances = (features[candidates].double() - queries[:, None].double()).square().sum(dim=2)
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], candidates.gather(1, order)[:, :k], doubted


def _among_all(
    features: Tensor, queries: Tensor, k: int
) -> tuple[Float64[Tensor, "queries k"], Int64[Tensor, "queries k"]]:
    """The k nearest of all entries, the first of equals; entries that are equal are compared once."""
    points, place = torch.unique(features, dim=0, return_inverse=True)
    distances = queries.new_empty((len(queries), k), dtype=torch.float64)
    rows = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    for number, query in enumerate(queries):
        every = (points.double() - query.double()).square().sum(dim=1)[place]
        near = (every <= every.kthvalue(k).values).nonzero().flatten()
        found, order = every[near].sort(stable=True)
        distances[number], rows[number] = found[:k], near[order][:k]
    return distances, rows

"""Links in classes without common ends: what can be exchanged at once.

`edge_coloring` needs at most Δ + 1 classes for a graph of largest degree Δ (Vizing), by the constructive proof of Misra
and Gries: an uncoloured edge uv gets a colour after the colours of a fan of edges at u have moved on by one, and two
colours have changed places along one path. O(E V).

References:
    Misra, Gries. A constructive proof of Vizing's theorem. Information Processing Letters 41, 1992.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.errors import ConfigError

__all__ = ["edge_coloring", "matchings"]


def edge_coloring(nodes: int, edges: Int64[ndarray, "edges 2"]) -> Int64[ndarray, "edges"]:
    """A colour for each edge, none twice at a node.

    Args:
        nodes: how many.
        edges: the ends of each, every pair once, none a loop.

    Returns:
        Colours from 0 to at most the largest degree.

    Raises:
        ConfigError: for loops, pairs given twice, and ends outside the nodes.
    """
    _require_simple(nodes, edges)
    colors = int(np.bincount(edges.ravel(), minlength=1).max()) + 1
    paint = _Paint(nodes, colors)
    for one, other in edges.tolist():
        _color(paint, one, other)
    return np.array([paint.color[one, other] for one, other in edges.tolist()], np.int64)


def matchings(nodes: int, edges: Int64[ndarray, "edges 2"]) -> list[Int64[ndarray, "class 2"]]:
    """The edges by colour; classes without edges are left out."""
    colors = edge_coloring(nodes, edges)
    return [edges[colors == color] for color in np.unique(colors).tolist()]


class _Paint:
    """Colours of edges, by both ends and by node and colour."""

    def __init__(self, nodes: int, colors: int) -> None:
        self.color: dict[tuple[int, int], int] = {}
        self.at: list[list[int]] = [[-1] * colors for _ in range(nodes)]  # the neighbour along each colour

    def free(self, node: int) -> int:
        return self.at[node].index(-1)

    def put(self, one: int, other: int, color: int) -> None:
        self.color[one, other] = self.color[other, one] = color
        self.at[one][color], self.at[other][color] = other, one

    def clear(self, one: int, other: int) -> int:
        color = self.color.pop((one, other))
        del self.color[other, one]
        self.at[one][color] = self.at[other][color] = -1
        return color


def _color(paint: _Paint, u: int, v: int) -> None:
    """Colour one more edge."""
    fan = _fan(paint, u, v)
    c, d = paint.free(u), paint.free(fan[-1])
    _swap(paint, u, c, d)
    last = 0  # the fan may have ended where the path went through; some beginning of it still is a fan with d free
    while paint.at[fan[last]][d] >= 0:
        last += 1
    for here, ahead in pairwise(fan[: last + 1]):
        paint.put(u, here, paint.clear(u, ahead))
    paint.put(u, fan[last], d)


def _fan(paint: _Paint, u: int, v: int) -> list[int]:
    """Neighbours of u from v on, as many as can be: the colour of each edge is free at the end of the one before."""
    fan, inside = [v], {v}
    while True:
        around = paint.at[fan[-1]]
        ahead = next((w for k, w in enumerate(paint.at[u]) if w >= 0 and w not in inside and around[k] < 0), -1)
        if ahead < 0:
            return fan
        fan.append(ahead)
        inside.add(ahead)


def _swap(paint: _Paint, u: int, c: int, d: int) -> None:
    """Exchange two colours along the path of both that begins at u with d; c is free at u."""
    path, node, color = [], u, d
    while paint.at[node][color] >= 0:
        path.append((node, paint.at[node][color]))
        node, color = paint.at[node][color], c + d - color
    old = [paint.clear(one, other) for one, other in path]
    for (one, other), color in zip(path, old, strict=True):
        paint.put(one, other, c + d - color)


def _require_simple(nodes: int, edges: Int64[ndarray, "edges 2"]) -> None:
    ends = np.sort(edges, axis=1)
    if len(ends) and (ends.min() < 0 or ends.max() >= nodes):
        raise ConfigError("an edge leaves the nodes", mend=f"Nodes are 0 to {nodes - 1}.")
    if (ends[:, 0] == ends[:, 1]).any() or len(np.unique(ends, axis=0)) < len(ends):
        raise ConfigError("a loop, or an edge given twice", mend="Give each pair of different nodes once.")

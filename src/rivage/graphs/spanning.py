"""Trees that span a graph: the lightest, of bounded degree, and a path along the cube of a tree.

The cube T³ of a tree joins nodes at a distance of at most 3 edges in T. It always has a Hamiltonian path, and one from
u to v for any edge uv of T (Sekanina): without uv the tree falls in two; in u's part take a path from u to a neighbour
a of u, in v's part one from a neighbour b of v to v; a and b are at most 3 apart. Where u has no neighbour left, a is u
itself. If no edge of T is longer than w and triangles hold, no step of the path is longer than 3 w.

References:
    Prim. Shortest connection networks and some generalizations. Bell System Technical Journal 36, 1957.
    Sekanina. On an ordering of the set of vertices of a connected graph. Publ. Fac. Sci. Univ. Brno 412, 1960.
    Andersen, Ras. Minimum bottleneck spanning trees with degree bounds. Networks 68, 2016 (both together).
    Marfoq, Xu, Neglia, Vidal. NeurIPS 2020, arXiv 2010.12229, Algorithm 1, where they are candidates for overlays.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.graphs.tree_kernel import bounded_prim

__all__ = ["cube_path", "degree_bounded_tree", "minimum_spanning_tree"]

Edges = Int64[ndarray, "edges 2"]


def minimum_spanning_tree(weights: Float64[ndarray, "nodes nodes"]) -> Edges:
    """The edges of a lightest spanning tree, which is also one of least longest edge. O(n²).

    Args:
        weights: symmetric, inf where there is no edge; the diagonal does not count.

    Raises:
        ConfigError: when the graph is not connected, or weights differ by direction or are NaN.

    Example:
        >>> minimum_spanning_tree(np.array([[0.0, 1, 4], [1, 0, 2], [4, 2, 0]])).tolist()
        [[0, 1], [1, 2]]
    """
    return degree_bounded_tree(weights, max(2, len(weights)))


def degree_bounded_tree(weights: Float64[ndarray, "nodes nodes"], bound: int, start: int = 0) -> Edges:
    """Prim's tree where nodes of ``bound`` edges take no more: spanning, light, not always the lightest. O(n²) mostly.

    Args:
        weights: symmetric, inf where there is no edge; the diagonal does not count.
        bound: the largest degree, >= 2.
        start: where the tree begins to grow; other starts give other trees once the bound binds.

    Returns:
        nodes − 1 edges. With a bound that does not bind, a minimum spanning tree.

    Raises:
        ConfigError: as `minimum_spanning_tree`, and when missing edges leave no way on: in a complete graph never.
    """
    require(bound, "bound", least=2)
    if np.isnan(weights).any() or not np.array_equal(weights, weights.T):
        raise ConfigError("weights of a tree differ by direction", mend="Give a symmetric matrix: (w + wᵀ) / 2.")
    parent = bounded_prim(np.ascontiguousarray(weights, np.float64), bound, start)
    children = np.delete(np.arange(len(weights)), start)
    if (parent[children] < 0).any():
        stuck = children[parent[children] < 0][0]
        raise ConfigError(f"no edge leads on to node {stuck}", mend="Add edges, or give a larger bound.")
    return np.stack([parent[children], children], axis=1)


def cube_path(tree: Edges, edge: int = 0) -> Int64[ndarray, "nodes"]:
    """A Hamiltonian path of the cube of a tree, between the ends of one of its edges. O(n).

    Args:
        tree: the edges; none for a single node.
        edge: the position of the edge whose ends become those of the path.

    Returns:
        All nodes once; consecutive ones are at most 3 edges apart in the tree.

    Example:
        >>> cube_path(np.array([[0, 1], [1, 2], [2, 3], [3, 4]])).tolist()
        [0, 2, 4, 3, 1]
    """
    if not len(tree):
        return np.zeros(1, np.int64)
    around: list[dict[int, None]] = [{} for _ in range(len(tree) + 1)]  # ordered sets
    for one, other in tree.tolist():
        around[one][other] = around[other][one] = None
    path: list[int] = []
    begin, end = tree[edge].tolist()
    # What is left to walk: from x to its neighbour y, within what is still joined to them; or one node alone.
    parts: list[tuple[int, int]] = [(begin, end)]
    while parts:
        one, other = parts.pop()
        if one == other:
            path.append(one)
            continue
        del around[one][other], around[other][one]
        a = next(iter(around[one]), one)
        b = next(iter(around[other]), other)
        parts += [(b, other), (one, a)]
    return np.array(path, np.int64)

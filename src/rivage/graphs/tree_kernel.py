"""The compiled half of `rivage.graphs.spanning`: Prim's tree with bounded degrees."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import ndarray

__all__ = ["bounded_prim"]


@njit(cache=True)
def bounded_prim(weights: ndarray, bound: int, start: int) -> ndarray:
    """Grow a tree by the lightest edge to a node of fewer than ``bound`` edges. O(n²) while none is full.

    Args:
        weights: float64 [nodes, nodes], symmetric, inf where there is no edge.
        bound: the largest degree, >= 2.
        start: where the tree begins.

    Returns:
        int64 [nodes]: the node that each was attached to, −1 for the start and for nodes that could not be reached.
    """
    nodes = len(weights)
    parent, degree = np.full(nodes, -1, np.int64), np.zeros(nodes, np.int64)
    inside = np.zeros(nodes, np.bool_)
    near, best = np.full(nodes, start, np.int64), weights[start].copy()  # the lightest edge of each node into the tree
    inside[start] = True
    for _ in range(nodes - 1):
        chosen, least = -1, np.inf
        for node in range(nodes):
            if not inside[node] and best[node] < least:
                chosen, least = node, best[node]
        if chosen < 0:
            break
        parent[chosen], inside[chosen] = near[chosen], True
        degree[chosen] += 1
        degree[near[chosen]] += 1
        full = near[chosen] if degree[near[chosen]] == bound else -1
        for node in range(nodes):
            if inside[node]:
                continue
            if near[node] == full:
                best[node] = np.inf
                for other in range(nodes):
                    if inside[other] and degree[other] < bound and weights[other, node] < best[node]:
                        near[node], best[node] = other, weights[other, node]
            elif degree[chosen] < bound and weights[chosen, node] < best[node]:
                near[node], best[node] = chosen, weights[chosen, node]
    return parent

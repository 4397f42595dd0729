"""The compiled half of `rivage.graphs.rings`: 2-opt and Or-opt moves on rings whose arcs cost more one way.

A ring is an array of nodes in order. A move that turns a part round pays for its arcs in the other direction: sums of
both directions along the ring price it in O(1).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import ndarray

__all__ = ["improve"]

_LONGEST = 3  # nodes that Or-opt moves at once


@njit(cache=True)
def _sums(order: ndarray, costs: ndarray, along: ndarray, back: ndarray) -> None:
    """Cost from the first node to each, and back."""
    for k in range(1, len(order)):
        along[k] = along[k - 1] + costs[order[k - 1], order[k]]
        back[k] = back[k - 1] + costs[order[k], order[k - 1]]


@njit(cache=True)
def _two_opt(order: ndarray, costs: ndarray, along: ndarray, back: ndarray, least: float) -> bool:
    """Turn round the part after each place that gains most; whether any did. O(n²)."""
    nodes, found = len(order), False
    for i in range(nodes - 1):
        a, b, best, chosen = order[i], order[i + 1], least, -1
        for j in range(i + 2, nodes):
            c, d = order[j], order[(j + 1) % nodes]
            now = costs[a, b] + along[j] - along[i + 1] + costs[c, d]
            gain = now - costs[a, c] - (back[j] - back[i + 1]) - costs[b, d]
            if gain > best:
                best, chosen = gain, j
        if chosen >= 0:
            order[i + 1 : chosen + 1] = order[i + 1 : chosen + 1][::-1].copy()
            _sums(order, costs, along, back)
            found = True
    return found


@njit(cache=True)
def _or_opt(order: ndarray, costs: ndarray, least: float) -> bool:
    """Move each part of up to three nodes to where it gains most, either way round; whether any did. O(n²)."""
    nodes, found = len(order), False
    for size in range(1, min(_LONGEST, nodes - 2) + 1):
        for start in range(nodes):
            ring = np.concatenate((order[start:], order[:start]))  # the part, then the others
            first, last = ring[0], ring[size - 1]
            turned = 0.0  # what the part costs more the other way round
            for k in range(1, size):
                turned += costs[ring[k], ring[k - 1]] - costs[ring[k - 1], ring[k]]
            freed = costs[ring[nodes - 1], first] + costs[last, ring[size]] - costs[ring[nodes - 1], ring[size]]
            best, chosen, reverse = least, -1, False
            for k in range(size, nodes - 1):
                u, v = ring[k], ring[k + 1]
                room = freed + costs[u, v]
                gain = room - costs[u, first] - costs[last, v]
                if gain > best:
                    best, chosen, reverse = gain, k, False
                gain = room - costs[u, last] - costs[first, v] - turned
                if gain > best:
                    best, chosen, reverse = gain, k, True
            if chosen >= 0:
                part = ring[:size][::-1].copy() if reverse else ring[:size].copy()
                order[:] = np.concatenate((ring[size : chosen + 1], part, ring[chosen + 1 :]))
                found = True
    return found


@njit(cache=True)
def improve(order: ndarray, costs: ndarray, least: float) -> None:
    """Apply both moves, in place, until none gains more than ``least``."""
    along, back = np.zeros(len(order)), np.zeros(len(order))
    better = len(order) > 2
    while better:
        _sums(order, costs, along, back)
        better = _two_opt(order, costs, along, back, least)
        better = _or_opt(order, costs, least) or better

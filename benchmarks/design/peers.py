"""The largest mean of a circuit, as one would write it without rivage."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

__all__ = ["bisection_networkx", "karp_numpy"]


def karp_numpy(delays: ndarray) -> float:
    """Karp's recursion in vectorised NumPy; the mean alone, without a circuit or a proof."""
    nodes = len(delays)
    longest = np.full((nodes + 1, nodes), -np.inf)
    longest[0, 0] = 0.0
    for k in range(nodes):
        longest[k + 1] = (longest[k][:, None] + delays).max(axis=0)
    counts = nodes - np.arange(nodes)[:, None]
    return float(((longest[nodes] - longest[:nodes]) / counts).min(axis=0).max())


def bisection_networkx(delays: ndarray, tolerance: float = 1e-6) -> float:
    """Lawler's bisection with `networkx.negative_edge_cycle`, which has nothing nearer."""
    import networkx as nx

    low, high = float(delays.min()), float(delays.max())
    while high - low > tolerance * high:
        mean = (low + high) / 2
        graph = nx.from_numpy_array(mean - delays, create_using=nx.DiGraph)
        if nx.negative_edge_cycle(graph):
            low = mean
        else:
            high = mean
    return high

"""Shortest paths by weight, with ties broken the same way everywhere.

Of several paths of one cost the one with the fewest links is taken, and of these the one that goes to the node of the
smallest number at the first difference. So all paths to one target form a tree: a part of a path is the path of its
ends.

References:
    Dijkstra. A note on two problems in connexion with graphs. Numerische Mathematik 1, 1959.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from rivage.core.errors import ConfigError
from rivage.graphs.network import Network

__all__ = ["cost_matrix", "follow", "next_hops", "path_cost", "shortest_path"]

_TIE = 1e-12  # relative: sums of the same weights in another order are ties


def cost_matrix(network: Network) -> Float64[ndarray, "nodes nodes"]:
    """Cost of the cheapest path between every two nodes, inf without one. O(N (E + N log N))."""
    costs: Float64[ndarray, "nodes nodes"] = dijkstra(_matrix(network))
    return costs


def next_hops(network: Network, target: int) -> Int64[ndarray, "nodes"]:
    """The node after each node on its path to the target; −1 at the target and where no path leads. O(E log N).

    Raises:
        ConfigError: when the target is no node.
    """
    _require_node(network, target)
    costs = dijkstra(_matrix(network), indices=target)
    begins, others, weights = network.halves
    hops = np.full(network.nodes, -1, np.int64)
    seen, front = np.zeros(network.nodes, bool), [target]
    seen[target] = True
    while front:  # links outward from the target, only along cheapest paths: in ascending order, so the least wins
        reached: list[int] = []
        for node in sorted(front):
            part = slice(begins[node], begins[node + 1])
            fresh = others[part]
            gap = costs[fresh] - (costs[node] + weights[part])
            fresh = fresh[(np.abs(gap) <= _TIE * costs[fresh]) & ~seen[fresh]]
            hops[fresh], seen[fresh] = node, True
            reached += fresh.tolist()
        front = reached
    return hops


def shortest_path(network: Network, source: int, target: int) -> Int64[ndarray, "path"]:
    """The nodes of the path, both ends included.

    Raises:
        ConfigError: when an end is no node, or there is no path.
    """
    _require_node(network, source)
    return np.array(follow(network, next_hops(network, target), source, target), np.int64)


def follow(network: Network, hops: Int64[ndarray, "nodes"], source: int, target: int) -> list[int]:
    """The nodes of a path along `next_hops` of its target, both ends included.

    Raises:
        ConfigError: when there is no path.
    """
    if source != target and hops[source] < 0:
        raise ConfigError(
            f"no path from {network.label(source)} to {network.label(target)}",
            where=f'network "{network.name}"',
            mend="Add the missing links.",
        )
    nodes = [source]
    while nodes[-1] != target:
        nodes.append(int(hops[nodes[-1]]))
    return nodes


def path_cost(network: Network, nodes: Int64[ndarray, "path"]) -> float:
    """Sum of the weights along a path.

    Raises:
        ConfigError: when a link is missing.
    """
    return sum(network.weight(int(one), int(other)) for one, other in pairwise(nodes))


def _require_node(network: Network, node: int) -> None:
    if not 0 <= node < network.nodes:
        raise ConfigError(
            f"no node {node}", where=f'network "{network.name}"', mend=f"Nodes are 0 to {network.nodes - 1}."
        )


def _matrix(network: Network) -> csr_array:
    """Weights by node; links of weight 0 are stored, and so are links."""
    begins, others, weights = network.halves
    return csr_array((weights, others, begins), shape=(network.nodes, network.nodes))

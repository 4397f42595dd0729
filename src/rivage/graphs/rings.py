"""Short rings through all nodes: Christofides' walk, and local search from any ring.

`christofides_ring` is within 3/2 of the shortest ring where costs are symmetric and triangles hold, up to
`_EXACT_PAIRS` nodes of odd degree in the tree; above that these are paired greedily and nothing is promised. Elsewhere
it is a good start. `improved_ring` never makes a ring longer, and prices each direction at its own costs.

References:
    Christofides. Worst-case analysis of a new heuristic for the travelling salesman problem. CMU report 388, 1976.
    Croes. A method for solving traveling-salesman problems. Operations Research 6, 1958 (2-opt).
    Or. Traveling salesman-type combinatorial problems. PhD thesis, Northwestern, 1976 (Or-opt).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.graphs.ring_kernel import improve
from rivage.graphs.spanning import minimum_spanning_tree

__all__ = ["christofides_ring", "improved_ring", "ring_cost"]

_WALKS = 24
_EXACT_PAIRS = 150  # odd nodes; the exact matching takes about 2 s there, and grows with the cube


def ring_cost(costs: Float64[ndarray, "nodes nodes"], order: Int64[ndarray, "nodes"]) -> float:
    """Sum of the costs from each node to the next, and from the last to the first; 0 for a single node."""
    return float(costs[order, np.roll(order, -1)].sum()) if len(order) > 1 else 0.0


def christofides_ring(costs: Float64[ndarray, "nodes nodes"]) -> Int64[ndarray, "nodes"]:
    """A ring from the lightest tree and a lightest matching of its odd nodes, in its cheaper direction.

    Of a few walks along tree and matching, each is shortened where it passes a node again, where that saves most first,
    and the best ring is kept. Cost: O(n²) and the matching.

    Args:
        costs: from row to column, finite off the diagonal. The tree and the matching weigh both directions alike.

    Returns:
        The nodes in order, from node 0.

    Raises:
        ConfigError: when a cost is missing.
    """
    _require_complete(costs)
    nodes = len(costs)
    if nodes < 4:
        return _turned(costs, np.arange(nodes))
    both = (costs + costs.T) / 2
    tree = minimum_spanning_tree(both)
    odd = np.flatnonzero(np.bincount(tree.ravel(), minlength=nodes) % 2)
    edges = [*map(tuple, tree.tolist()), *_matching(both, odd)]
    rng = np.random.default_rng(0)  # walks are many and all as good; a fixed handful of them is tried
    walks = (_euler_walk(nodes, [edges[k] for k in rng.permutation(len(edges))]) for _ in range(_WALKS))
    rings = (_turned(costs, _shortened(both, walk)) for walk in walks)
    return min(rings, key=lambda ring: ring_cost(costs, ring))


def improved_ring(
    costs: Float64[ndarray, "nodes nodes"], order: Int64[ndarray, "nodes"] | None = None
) -> Int64[ndarray, "nodes"]:
    """A ring that no turned part and no move of up to three nodes makes shorter. O(n²) a pass.

    Args:
        costs: from row to column, finite off the diagonal.
        order: the ring to start from; Christofides' by default.

    Returns:
        The nodes in order, from node 0.

    Raises:
        ConfigError: when a cost is missing.
    """
    _require_complete(costs)
    ring = christofides_ring(costs) if order is None else np.array(order, np.int64)
    prices = np.where(np.eye(len(costs), dtype=bool), 0.0, costs)
    improve(ring, prices, 1e-12 * float(np.abs(prices).max(initial=0)) * len(ring))
    return _turned(costs, ring)


def _turned(costs: ndarray, order: ndarray) -> Int64[ndarray, "nodes"]:
    """The cheaper direction, from node 0."""
    back = order[::-1]
    best = back if ring_cost(costs, back) < ring_cost(costs, order) else order
    return np.roll(best, -int(np.argmin(best)))


def _shortened(costs: ndarray, walk: list[int]) -> Int64[ndarray, "nodes"]:
    """A closed walk without its second visits: the visit whose omission saves most goes first."""
    ring = np.array(walk, np.int64)
    while len(ring) > len(costs):
        before, after = np.roll(ring, 1), np.roll(ring, -1)
        saved = costs[before, ring] + costs[ring, after] - np.where(before == after, 0, costs[before, after])
        again = np.bincount(ring)[ring] > 1
        ring = np.delete(ring, int(np.argmax(np.where(again, saved, -np.inf))))
        ring = ring[ring != np.roll(ring, 1)]  # a node that the walk returned to at once
    return ring


def _matching(weights: ndarray, odd: ndarray) -> list[tuple[int, int]]:
    """Pairs of the odd nodes, lightest in all or, for many, taken lightest first."""
    pairs = [(float(weights[a, b]), int(a), int(b)) for k, a in enumerate(odd) for b in odd[k + 1 :]]
    if len(odd) <= _EXACT_PAIRS:
        import networkx as nx  # half a second to import

        graph = nx.Graph()
        graph.add_weighted_edges_from((a, b, weight) for weight, a, b in pairs)
        return [(min(pair), max(pair)) for pair in sorted(map(sorted, nx.min_weight_matching(graph)))]
    free, chosen = set(odd.tolist()), []
    for _, a, b in sorted(pairs):
        if a in free and b in free:
            free -= {a, b}
            chosen.append((a, b))
    return chosen


def _euler_walk(nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    """A closed walk over each edge once, without its last node (Hierholzer). All degrees are even."""
    around: list[list[int]] = [[] for _ in range(nodes)]
    for number, pair in enumerate(edges):
        for node in pair:
            around[node].append(number)
    used, walk, stack = [False] * len(edges), [], [0]
    while stack:
        node = stack[-1]
        while around[node] and used[around[node][-1]]:
            around[node].pop()
        if around[node]:
            number = around[node].pop()
            used[number] = True
            stack.append(sum(edges[number]) - node)
        else:
            walk.append(stack.pop())
    assert all(used), "an edge was missed"
    assert all(node != other for node, other in pairwise(walk)), "no edge is a loop"
    return walk[:-1]


def _require_complete(costs: ndarray) -> None:
    bad = ~np.isfinite(costs) & ~np.eye(len(costs), dtype=bool)
    if bad.any():
        one, other = np.argwhere(bad)[0].tolist()
        raise ConfigError(f"the cost from node {one} to node {other} is {costs[one, other]}", mend="Give all costs.")

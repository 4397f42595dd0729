"""What a network is: nodes, links between them, and what it costs to cross a link."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError

__all__ = ["Network"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """An undirected graph without loops and parallel links, with one cost per link, the same in both directions.

    The arrays are kept as they are given, not copied, and nothing here writes to them.

    Args:
        nodes: how many, >= 1; nodes are 0 … nodes − 1.
        edges: the two ends of each link.
        weights: cost of crossing each link, finite and >= 0, in whatever unit the caller counts.
        names: of the nodes, all different; None for numbers.
        name: of the network, in messages and reports.

    Raises:
        ConfigError: naming all that is wrong.

    Example:
        >>> line = Network.of(3, [(0, 1), (1, 2)], [1.0, 5.0])
        >>> line.neighbours(1).tolist(), line.weight(2, 1)
        ([0, 2], 5.0)
    """

    nodes: int
    edges: Int64[ndarray, "edges 2"]
    weights: Float64[ndarray, "edges"]
    names: tuple[str, ...] | None = None
    name: str = "network"

    def __post_init__(self) -> None:
        found = [fault for fault, present in self._faults().items() if present]
        if found:
            raise ConfigError(
                "; ".join(found),
                where=f'network "{self.name}"',
                mend="Give each link once, as two different nodes from 0 on, with one finite weight >= 0.",
            )

    @classmethod
    def of(
        cls,
        nodes: int,
        edges: Iterable[tuple[int, int]],
        weights: Iterable[float] | float = 1.0,
        *,
        names: tuple[str, ...] | None = None,
        name: str = "network",
    ) -> Network:
        """A network from plain pairs; one weight may stand for all."""
        pairs = np.array(list(edges), np.int64).reshape(-1, 2)
        costs = np.full(len(pairs), weights) if isinstance(weights, int | float) else np.array(list(weights))
        return cls(nodes=nodes, edges=pairs, weights=costs.astype(np.float64), names=names, name=name)

    def _faults(self) -> dict[str, bool]:
        ends, faults = self.edges, {f"nodes is {self.nodes}": self.nodes < 1}
        if ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype != np.int64:
            return {**faults, f"edges are {ends.dtype} of shape {ends.shape}, not pairs of int64": True}
        outside = np.asarray(((ends < 0) | (ends >= self.nodes)).any(axis=1))
        loops = ends[:, 0] == ends[:, 1]
        twice = _repeated(ends)
        faults[f"link {_first(ends, outside)} leaves the nodes 0 to {self.nodes - 1}"] = bool(outside.any())
        faults[f"link {_first(ends, loops)} joins a node with itself"] = bool(loops.any())
        faults[f"link {_first(ends, twice)} is there twice"] = bool(twice.any())
        if self.weights.shape != (len(ends),):
            faults[f"{len(ends)} links, weights of shape {self.weights.shape}"] = True
        else:
            bad = ~((self.weights >= 0) & (self.weights < np.inf))
            faults[f"link {_first(ends, bad)} costs {self.weights[bad][:1].tolist()}"] = bool(bad.any())
        if self.names is not None:
            faults[f"{len(self.names)} names for {self.nodes} nodes"] = len(self.names) != self.nodes
            faults["two nodes have one name"] = len(set(self.names)) != len(self.names)
        return faults

    def __len__(self) -> int:
        return self.nodes

    def neighbours(self, node: int) -> Int64[ndarray, "degree"]:
        """The nodes that a node has a link to, ascending. O(degree) after a first O(E log E)."""
        begins, others, _ = self.halves
        return others[begins[node] : begins[node + 1]]

    def weight(self, one: int, other: int) -> float:
        """Cost of the link between two nodes.

        Raises:
            ConfigError: when there is none.
        """
        begins, others, costs = self.halves
        place = begins[one] + int(np.searchsorted(self.neighbours(one), other))
        if place == begins[one + 1] or others[place] != other:
            raise ConfigError(
                f"no link between {self.label(one)} and {self.label(other)}",
                where=f'network "{self.name}"',
                mend=f"{self.label(one)} has links to {', '.join(map(self.label, self.neighbours(one).tolist()))}.",
            )
        return float(costs[place])

    def label(self, node: int) -> str:
        """The name of a node, or its number."""
        return str(node) if self.names is None else self.names[node]

    def node(self, name: str) -> int:
        """The number of a named node.

        Raises:
            ConfigError: for unknown names.
        """
        known = self.names or tuple(map(str, range(self.nodes)))
        if name not in known:
            raise ConfigError(
                f'no node "{name}"', where=f'network "{self.name}"', mend=f"Nodes are {', '.join(known[:30])}."
            )
        return known.index(name)

    @cached_property
    def halves(self) -> tuple[Int64[ndarray, "n"], Int64[ndarray, "halves"], Float64[ndarray, "halves"]]:
        """Both directions of all links, sorted: where each node's begin (nodes + 1 numbers), other ends, costs."""
        tails, heads = np.concatenate([self.edges, self.edges[:, ::-1]]).T
        order = np.lexsort((heads, tails))
        begins = np.searchsorted(tails[order], np.arange(self.nodes + 1)).astype(np.int64)
        return begins, heads[order], np.concatenate([self.weights, self.weights])[order]

    @property
    def degrees(self) -> Int64[ndarray, "nodes"]:
        """Links of each node."""
        return np.bincount(self.edges.ravel(), minlength=self.nodes)

    @property
    def adjacency(self) -> Bool[ndarray, "nodes nodes"]:
        """Whether there is a link."""
        matrix = np.zeros((self.nodes, self.nodes), bool)
        matrix[self.edges[:, 0], self.edges[:, 1]] = matrix[self.edges[:, 1], self.edges[:, 0]] = True
        return matrix

    @property
    def is_connected(self) -> bool:
        """Whether every node can be reached from every other. O(E)."""
        seen, front = np.zeros(self.nodes, bool), [0]
        seen[0] = True
        while front:
            fresh = [v for v in self.neighbours(front.pop()).tolist() if not seen[v]]
            seen[fresh] = True
            front += fresh
        return bool(seen.all())

    def with_weights(self, weights: Float64[ndarray, "edges"] | float) -> Network:
        """The same links at other costs; one number for all, or one each."""
        costs = np.broadcast_to(np.asarray(weights, np.float64), (len(self.edges),)).copy()
        return replace(self, weights=costs)

    def with_random_weights(self, low: float, high: float, rng: np.random.Generator) -> Network:
        """The same links at independent costs, uniform between two numbers."""
        return self.with_weights(rng.uniform(low, high, len(self.edges)))


def _first(edges: Int64[ndarray, "edges 2"], chosen: Bool[ndarray, "edges"]) -> str:
    return "–".join(map(str, edges[int(chosen.argmax())].tolist())) if len(edges) else ""


def _repeated(edges: Int64[ndarray, "edges 2"]) -> Bool[ndarray, "edges"]:
    """Which links are there before, in either direction."""
    _, first = np.unique(np.sort(edges, axis=1), axis=0, return_index=True)
    repeated = np.ones(len(edges), bool)
    repeated[first] = False
    return repeated

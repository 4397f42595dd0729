"""The largest mean of a circuit, and what follows from it: how often a system that waits for messages can go round.

Node j starts round k + 1 when all it waits for has come, t_j(k + 1) = max_i t_i(k) + d_ij: in max-plus algebra,
t(k + 1) = t(k) ⊗ D. If the arcs make the nodes strongly connected, t_j(k) / k tends to

    λ = max over circuits γ of d(γ) / |γ|

for every j and every start. `max_cycle_mean` finds λ with a circuit that attains it and with potentials π,

    d_ij − λ + π_i − π_j <= surplus   for every arc,

summed along a circuit: no mean exceeds λ + surplus. The surplus is rounding error, and is returned.

References:
    Karp. A characterization of the minimum cycle mean in a digraph. Discrete Mathematics 23, 1978.
    Cochet-Terrasson, Cohen, Gaubert, McGettrick, Quadrat. Numerical computation of spectral elements in max-plus
    algebra. IFAC SSC 1998 (Howard's policy iteration).
    Chaturvedi, McConnell. A note on finding minimum mean cycle. Information Processing Letters 127, 2017 (the circuit
    in Karp's walk).
    Baccelli, Cohen, Olsder, Quadrat. Synchronization and Linearity. Wiley, 1992.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.graphs.cycle_kernel import howard, karp, longest_first, reached, rounds_of, surplus

__all__ = ["CycleMean", "max_cycle_mean", "max_cycle_mean_of_arcs", "require_strong", "start_times"]

Method = Literal["howard", "karp"]

_IMPROVEMENTS = 1_000  # policy iteration takes tens; where rounding keeps it turning, Karp's recursion answers


@dataclass(frozen=True, kw_only=True, eq=False)
class CycleMean:
    """A circuit of largest mean, and why none is larger.

    Args:
        mean: λ, the mean delay of the arcs of ``circuit``.
        circuit: its nodes in order, each once, from the one of the smallest number; of one node for a loop.
        potentials: π with d_ij − λ + π_i − π_j <= ``surplus``: when nodes may start, up to a constant.
        surplus: what rounding leaves; every circuit has a mean of at most ``mean`` + ``surplus``.
    """

    mean: float
    circuit: tuple[int, ...]
    potentials: Float64[ndarray, "nodes"]
    surplus: float


def max_cycle_mean(
    delays: Float64[ndarray, "nodes nodes"], *, method: Method = "howard", names: Sequence[str] | None = None
) -> CycleMean:
    """The largest mean of the circuits of a strongly connected digraph, as a matrix.

    Args:
        delays: from row to column, of any sign; inf or −inf where there is no arc. The diagonal holds loops.
        method: policy iteration, or Karp's recursion in O(n m) time and O(n²) memory.
        names: of the nodes, for messages.

    Returns:
        The mean, a critical circuit, and the potentials that prove it.

    Raises:
        ConfigError: when some node cannot reach some other, there is no arc at all, or a delay is NaN.

    Example:
        >>> missing = -np.inf
        >>> found = max_cycle_mean(np.array([[1.0, 4.0, missing], [3.0, missing, 9.0], [5.0, missing, missing]]))
        >>> found.mean, found.circuit
        (6.0, (0, 1, 2))
    """
    return _solve(*_rows(delays), method, names)


def max_cycle_mean_of_arcs(
    nodes: int,
    arcs: Int64[ndarray, "arcs 2"],
    delays: Float64[ndarray, "arcs"],
    *,
    method: Method = "howard",
    names: Sequence[str] | None = None,
) -> CycleMean:
    """`max_cycle_mean` of a list of arcs, which costs O(arcs) memory with policy iteration.

    Args:
        nodes: how many.
        arcs: tails and heads; loops and parallel arcs are allowed.
        delays: of the arcs, finite.
        method: as there.
        names: of the nodes, for messages.

    Raises:
        ConfigError: as there, and for arcs that leave the nodes.
    """
    if not np.isfinite(delays).all():
        raise ConfigError(f"arc {arcs[~np.isfinite(delays)][0].tolist()} takes no finite time", mend="Leave it out.")
    return _solve(*_sorted(nodes, arcs, delays), method, names)


def require_strong(nodes: int, arcs: Int64[ndarray, "arcs 2"], names: Sequence[str] | None = None) -> None:
    """Refuse a digraph in which some node cannot reach some other. O(nodes + arcs log arcs).

    Raises:
        ConfigError: naming two nodes without a path.
    """
    begins, heads, _ = _sorted(nodes, arcs, np.zeros(len(arcs)))
    _require_strong(begins, heads, names)


def start_times(
    delays: Float64[ndarray, "nodes nodes"], rounds: int, *, start: Float64[ndarray, "nodes"] | None = None
) -> Float64[ndarray, "rounds+1 nodes"]:
    """When each node starts each round: t_j(0) as given, t_j(k + 1) = max_i t_i(k) + d_ij. O(rounds · arcs).

    Args:
        delays: from row to column, inf or −inf where there is no arc; what a node does itself is on the diagonal.
        rounds: how many to play, >= 0.
        start: of round 0; all at 0 by default.

    Raises:
        ConfigError: when a node waits for nothing, so that its start is not defined, or a delay is NaN.
    """
    require(rounds, "rounds", least=0)
    begins, heads, lengths = _rows(delays)
    idle = np.flatnonzero(np.bincount(heads, minlength=len(delays)) == 0)
    if len(idle):
        raise ConfigError(f"no arc leads to node {idle[0]}", mend="Give it a loop: the time of its own work.")
    times = np.zeros((rounds + 1, len(delays)))
    times[0] = 0.0 if start is None else start
    rounds_of(begins, heads, lengths, times)
    return times


Sorted = tuple[Int64[ndarray, "nodes+1"], Int64[ndarray, "arcs"], Float64[ndarray, "arcs"]]


def _rows(delays: Float64[ndarray, "nodes nodes"]) -> Sorted:
    """The arcs of a matrix by tail."""
    if delays.ndim != 2 or delays.shape[0] != delays.shape[1]:
        raise ConfigError(f"delays of shape {delays.shape}", mend="Give a row and a column for each node.")
    if np.isnan(delays).any():
        one, other = np.argwhere(np.isnan(delays))[0].tolist()
        raise ConfigError(f"the delay from node {one} to node {other} is NaN", mend="Give inf where there is no arc.")
    tails, heads = np.nonzero(np.isfinite(delays))
    begins = np.searchsorted(tails, np.arange(len(delays) + 1)).astype(np.int64)
    return begins, heads.astype(np.int64), delays[tails, heads].astype(np.float64)


def _sorted(nodes: int, arcs: Int64[ndarray, "arcs 2"], delays: Float64[ndarray, "arcs"]) -> Sorted:
    """A list of arcs by tail."""
    outside = ((arcs < 0) | (arcs >= nodes)).any(axis=1)
    if outside.any():
        mend = f"Nodes are 0 to {nodes - 1}."
        raise ConfigError(f"arc {'→'.join(map(str, arcs[outside][0]))} leaves the nodes", mend=mend)
    order = np.argsort(arcs[:, 0], kind="stable")
    begins = np.searchsorted(arcs[order, 0], np.arange(nodes + 1)).astype(np.int64)
    return begins, np.ascontiguousarray(arcs[order, 1], np.int64), np.ascontiguousarray(delays[order], np.float64)


def _require_strong(begins: ndarray, heads: ndarray, names: Sequence[str] | None) -> None:
    nodes = len(begins) - 1
    if nodes < 1:
        raise ConfigError("there is no node", mend="Give at least one.")
    tails = np.repeat(np.arange(nodes), np.diff(begins))
    order = np.argsort(heads, kind="stable")
    back = np.searchsorted(heads[order], np.arange(nodes + 1)).astype(np.int64)
    forward, backward = reached(begins, heads, 0), reached(back, tails[order], 0)
    if forward.all() and backward.all():
        return
    cut = int(np.argmin(forward if not forward.all() else backward))
    one, other = (0, cut) if not forward.all() else (cut, 0)
    label = str if names is None else (lambda node: f'"{names[node]}"')
    raise ConfigError(
        f"not strongly connected: no path from {label(one)} to {label(other)}",
        mend="Add arcs until every node can reach every other.",
    )


def _solve(begins: ndarray, heads: ndarray, delays: ndarray, method: Method, names: Sequence[str] | None) -> CycleMean:
    require_one_of(method, "method", ("howard", "karp"))
    _require_strong(begins, heads, names)
    if not len(heads):
        raise ConfigError("a single node without a loop has no circuit", mend="Give it a loop.")
    found = _by_policies(begins, heads, delays) if method == "howard" else None
    circuit, potentials = found or _by_walks(begins, heads, delays)
    mean = float(np.mean(delays[circuit]))
    nodes = heads[circuit].tolist()
    first = nodes.index(min(nodes))
    return CycleMean(
        mean=mean,
        circuit=tuple(nodes[first:] + nodes[:first]),
        potentials=potentials,
        surplus=max(0.0, float(surplus(begins, heads, delays, potentials, mean))),
    )


def _by_policies(begins: ndarray, heads: ndarray, delays: ndarray) -> tuple[list[int], ndarray] | None:
    """The arcs of a critical circuit, and potentials."""
    policy, values = longest_first(begins, delays), np.zeros(len(begins) - 1)
    tolerance = 2e-15 * len(values) * float(np.abs(delays).max())
    root, _, improvements = howard(begins, heads, delays, policy, values, tolerance, _IMPROVEMENTS)
    if improvements == _IMPROVEMENTS:
        return None
    circuit = [int(policy[root])]
    while heads[circuit[-1]] != root:
        circuit.append(int(policy[heads[circuit[-1]]]))
    return circuit, -values


def _by_walks(begins: ndarray, heads: ndarray, delays: ndarray) -> tuple[list[int], ndarray]:
    """The same by Karp's recursion: the first circuit on a walk of n arcs that attains the mean."""
    walk, _, starts = karp(begins, heads, delays)
    since = {0: -1}  # nodes by the arc that led to them
    for place, node in enumerate(heads[walk].tolist()):
        if node in since:
            return walk[since[node] + 1 : place + 1].tolist(), starts
        since[node] = place
    raise AssertionError("n arcs among n nodes hold a circuit")

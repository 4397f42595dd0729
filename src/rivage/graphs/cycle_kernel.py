"""The compiled half of `rivage.graphs.cycles`: policy iteration, Karp's recursion, rounds in max-plus algebra.

Arcs are sorted by tail: those of node i are ``begins[i]`` … ``begins[i + 1] − 1``, each with a head and a delay.
A *policy* is one outgoing arc for every node; it leads every node into one of its circuits.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import ndarray

__all__ = ["howard", "karp", "longest_first", "reached", "rounds_of", "surplus"]


@njit(cache=True)
def reached(begins: ndarray, heads: ndarray, source: int) -> ndarray:
    """Which nodes a path leads to. O(m)."""
    nodes = len(begins) - 1
    seen, stack, top = np.zeros(nodes, np.bool_), np.empty(nodes, np.int64), 1
    seen[source], stack[0] = True, source
    while top:
        top -= 1
        node = stack[top]
        for arc in range(begins[node], begins[node + 1]):
            if not seen[heads[arc]]:
                seen[heads[arc]] = True
                stack[top] = heads[arc]
                top += 1
    return seen


@njit(cache=True)
def longest_first(begins: ndarray, delays: ndarray) -> ndarray:
    """The policy of the longest outgoing arcs, where `howard` may start."""
    policy = begins[:-1].copy()
    for node in range(len(policy)):
        for arc in range(begins[node], begins[node + 1]):
            if delays[arc] > delays[policy[node]]:
                policy[node] = arc
    return policy


@njit(cache=True)
def _best_circuit(heads: ndarray, delays: ndarray, policy: ndarray) -> tuple[int, float]:
    """A node on the circuit of largest mean among those of a policy, and the mean. O(n)."""
    nodes = len(policy)
    walk = np.full(nodes, -1, np.int64)  # the start of the walk that came by first
    best, root = -np.inf, 0
    for start in range(nodes):
        node = start
        while walk[node] < 0:
            walk[node] = start
            node = heads[policy[node]]
        if walk[node] != start:
            continue
        total, arcs, other = delays[policy[node]], 1, heads[policy[node]]
        while other != node:
            total += delays[policy[other]]
            arcs += 1
            other = heads[policy[other]]
        if total / arcs > best:
            best, root = total / arcs, node
    return root, best


@njit(cache=True)
def _evaluate(
    begins: ndarray, heads: ndarray, delays: ndarray, policy: ndarray, values: ndarray, root: int, mean: float
) -> None:
    """Values v_i = d − λ + v_next along a policy, with v_root = 0; nodes that miss the root's circuit are led there."""
    nodes = len(policy)
    done, stack = np.zeros(nodes, np.bool_), np.empty(nodes, np.int64)
    done[root], values[root] = True, 0.0
    mark = np.full(nodes, -1, np.int64)
    for start in range(nodes):
        node, top = start, 0
        while not done[node] and mark[node] != start:
            mark[node] = start
            stack[top] = node
            top += 1
            node = heads[policy[node]]
        if not done[node]:
            continue  # another circuit
        while top:
            top -= 1
            node = stack[top]
            done[node] = True
            values[node] = delays[policy[node]] - mean + values[heads[policy[node]]]
    changed = True
    while changed:
        changed = False
        for node in range(nodes):
            if done[node]:
                continue
            best = -np.inf
            for arc in range(begins[node], begins[node + 1]):
                value = delays[arc] - mean + values[heads[arc]]
                if done[heads[arc]] and value > best:
                    best, policy[node] = value, arc
            if best > -np.inf:
                values[node], done[node], changed = best, True, True


@njit(cache=True)
def howard(
    begins: ndarray,
    heads: ndarray,
    delays: ndarray,
    policy: ndarray,
    values: ndarray,
    tolerance: float,
    most: int,
) -> tuple[int, float, int]:
    """Policy iteration on a strong digraph: v_i <- max_j d_ij − λ + v_j until no arc gains more than ``tolerance``.

    Args:
        begins: where the arcs of each node begin.
        heads: of the arcs.
        delays: of the arcs.
        policy: an arc of each node to start with; becomes the last policy.
        values: becomes v, so that d_ij − λ + v_j − v_i <= tolerance on every arc.
        tolerance: gains below this are rounding errors.
        most: improvements to try.

    Returns:
        A node on a circuit of largest mean, the mean, and how many improvements it took; ``most`` if it did not end.
    """
    for improvement in range(most):
        root, mean = _best_circuit(heads, delays, policy)
        _evaluate(begins, heads, delays, policy, values, root, mean)
        better = False
        for node in range(len(policy)):
            best = values[node] + tolerance
            for arc in range(begins[node], begins[node + 1]):
                value = delays[arc] - mean + values[heads[arc]]
                if value > best:
                    best, policy[node], better = value, arc, True
        if not better:
            return root, mean, improvement
    return root, mean, most


@njit(cache=True)
def karp(begins: ndarray, heads: ndarray, delays: ndarray) -> tuple[ndarray, float, ndarray]:
    """Karp's recursion on a strong digraph, from node 0. O(n m), memory O(n²).

    Returns:
        The arcs of a longest walk of n arcs that holds a critical circuit, its circuit mean by Karp's formula, and
        max_k F_k(v) − k λ of every node v.
    """
    nodes = len(begins) - 1
    longest = np.full((nodes + 1, nodes), -np.inf)
    through = np.full((nodes + 1, nodes), -1, np.int64)
    tails = np.empty(len(heads), np.int64)
    longest[0, 0] = 0.0
    for k in range(nodes):
        for node in range(nodes):
            if longest[k, node] == -np.inf:
                continue
            for arc in range(begins[node], begins[node + 1]):
                tails[arc] = node
                length = longest[k, node] + delays[arc]
                if length > longest[k + 1, heads[arc]]:
                    longest[k + 1, heads[arc]], through[k + 1, heads[arc]] = length, arc
    best, last = -np.inf, 0
    for node in range(nodes):
        if longest[nodes, node] == -np.inf:
            continue
        least = np.inf
        for k in range(nodes):
            if longest[k, node] > -np.inf:
                least = min(least, (longest[nodes, node] - longest[k, node]) / (nodes - k))
        if least > best:
            best, last = least, node
    walk = np.empty(nodes, np.int64)
    for k in range(nodes, 0, -1):
        walk[k - 1] = through[k, last]
        last = tails[walk[k - 1]]
    starts = np.full(nodes, -np.inf)
    for k in range(nodes):
        starts = np.maximum(starts, longest[k] - k * best)
    return walk, best, starts


@njit(cache=True)
def surplus(begins: ndarray, heads: ndarray, delays: ndarray, potentials: ndarray, mean: float) -> float:
    """The largest d_ij − λ + π_i − π_j: no circuit has a mean above λ by more."""
    most = -np.inf
    for node in range(len(begins) - 1):
        for arc in range(begins[node], begins[node + 1]):
            most = max(most, delays[arc] - mean + potentials[node] - potentials[heads[arc]])
    return most


@njit(cache=True)
def rounds_of(begins: ndarray, heads: ndarray, delays: ndarray, times: ndarray) -> None:
    """Fill rows 1 … of start times from row 0: t_j(k + 1) = max_i t_i(k) + d_ij. O(m) a round."""
    times[1:] = -np.inf
    for k in range(len(times) - 1):
        for node in range(times.shape[1]):
            for arc in range(begins[node], begins[node + 1]):
                times[k + 1, heads[arc]] = max(times[k + 1, heads[arc]], times[k, node] + delays[arc])

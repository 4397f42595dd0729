"""The cycle time of an overlay under change, compiled: Howard's policy iteration, kept warm.

It starts from the policy and the values of the overlay before, so that a change costs a few passes over the arcs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from rivage.decentralized.search_net import SAME, Costs, Memory, Net, delay

__all__ = ["earliest", "howard"]

_POLICIES = 200  # improvements after which a search takes the policy as it is


@njit(cache=True)
def _best_circuit(net: Net, costs: Costs, memory: Memory) -> tuple[int, float]:
    """A silo on the circuit of largest mean of the policy, and the mean. O(n)."""
    policy, seen = memory.policy, memory.stack
    seen[:] = -1
    best, root = -np.inf, 0
    for start in range(len(policy)):
        node = start
        while seen[node] < 0:
            seen[node] = start
            node = policy[node]
        if seen[node] != start:
            continue
        total, arcs, other = delay(net, costs, node, policy[node]), 1, policy[node]
        while other != node:
            total += delay(net, costs, other, policy[other])
            arcs += 1
            other = policy[other]
        if total / arcs > best:
            best, root = total / arcs, node
    return root, best


@njit(cache=True)
def _evaluate(net: Net, costs: Costs, root: int, mean: float, memory: Memory) -> None:
    """Values along the policy; silos that miss the root's circuit are then led there by any arc. O(m)."""
    policy, values, done, queue = memory.policy, memory.values, memory.marks, memory.stack
    done[:] = False
    done[root], values[root], queue[0], top = True, 0.0, root, 1
    for anyhow in (False, True):
        low = 0
        while low < top < len(policy):
            node = queue[low]
            low += 1
            for k in range(net.receiving[node]):
                other = net.into[node, k]
                if not done[other] and (anyhow or policy[other] == node):
                    done[other], policy[other] = True, node
                    values[other] = delay(net, costs, other, node) - mean + values[node]
                    queue[top] = other
                    top += 1


@njit(cache=True)
def howard(net: Net, costs: Costs, memory: Memory) -> tuple[int, float]:
    """A silo on a circuit of largest mean, and the mean; policy and values become those that prove it."""
    policy, values = memory.policy, memory.values
    for node in range(len(policy)):
        if not net.has[node, policy[node]]:
            policy[node] = net.out[node, 0]
    root, mean = 0, 0.0
    for _ in range(_POLICIES):
        root, mean = _best_circuit(net, costs, memory)
        _evaluate(net, costs, root, mean, memory)
        better = False
        for node in range(len(policy)):
            best = values[node] + SAME
            for k in range(net.sending[node]):
                other = net.out[node, k]
                value = delay(net, costs, node, other) - mean + values[other]
                if value > best:
                    best, policy[node], better = value, other, True
        if not better:
            break
    return root, mean


@njit(cache=True)
def earliest(net: Net, costs: Costs, root: int, mean: float, memory: Memory) -> bool:
    """The longest reduced path from the root to each silo: the least potentials. Those of Howard are the greatest.

    Returns:
        Whether it ended. Where rounding, or a mean that is too low, leaves a circuit of positive length, paths would
        grow for ever: a silo that comes up more than n times in the mean ends it. O(n m).
    """
    starts, inside, queue = memory.starts, memory.marks, memory.stack
    nodes = len(starts)
    starts[:], inside[:] = -np.inf, False
    starts[root], queue[0], inside[root] = 0.0, root, True
    low, size = 0, 1
    for _ in range(nodes * nodes):
        node = queue[low]
        low = (low + 1) % nodes
        size -= 1
        inside[node] = False
        for k in range(net.sending[node]):
            other = net.out[node, k]
            start = starts[node] + delay(net, costs, node, other) - mean
            if start > starts[other] + SAME:
                starts[other] = start
                if not inside[other]:
                    inside[other] = True
                    queue[(low + size) % nodes] = other
                    size += 1
        if size == 0:
            return True
    return False

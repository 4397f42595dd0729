"""An overlay under change, compiled: neighbours in lists that keep the degrees, delays, and what a search remembers.

The delay of arc (i, j) is fixed[i, j] + max(sending[i] · up[i], receiving[j] · down[j], core[i, j]) (`Costs`). Random
numbers come from one 64-bit word (xorshift64*: Vigna. An experimental exploration of Marsaglia's xorshift generators,
scrambled. ACM TOMS 42, 2016), so that a run goes on where it stopped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

__all__ = ["SAME", "Costs", "Memory", "Net", "delay", "draw", "is_spare", "link", "load", "unlink"]

SAME = 1e-9  # of delays of up to a thousand; gains below this are rounding errors


class Net(NamedTuple):
    """An overlay: who sends to whom, as a matrix and as lists, and the degrees."""

    has: ndarray
    out: ndarray
    into: ndarray
    sending: ndarray
    receiving: ndarray


class Costs(NamedTuple):
    """What delays are made of: latency and work of arcs, transfers over core, uplinks and downlinks."""

    fixed: ndarray
    core: ndarray
    up: ndarray
    down: ndarray


class Memory(NamedTuple):
    """What goes on from one overlay to the next (policy, values, order, random state), and room to work in."""

    policy: ndarray
    values: ndarray
    order: ndarray
    state: ndarray
    marks: ndarray
    stack: ndarray
    circuit: ndarray
    lengths: ndarray
    starts: ndarray


@njit(cache=True)
def draw(state: ndarray) -> float:
    """A number in [0, 1)."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return float((x * np.uint64(2685821657736338717)) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def link(net: Net, i: int, j: int) -> None:
    """Add arc (i, j)."""
    net.has[i, j] = True
    net.out[i, net.sending[i]] = j
    net.into[j, net.receiving[j]] = i
    net.sending[i] += 1
    net.receiving[j] += 1


@njit(cache=True)
def unlink(net: Net, i: int, j: int) -> None:
    """Remove arc (i, j)."""
    net.has[i, j] = False
    net.sending[i] -= 1
    net.receiving[j] -= 1
    for k in range(net.sending[i]):
        if net.out[i, k] == j:
            net.out[i, k] = net.out[i, net.sending[i]]
    for k in range(net.receiving[j]):
        if net.into[j, k] == i:
            net.into[j, k] = net.into[j, net.receiving[j]]


@njit(cache=True)
def load(net: Net, arcs: ndarray) -> None:
    """Make the overlay that of a matrix."""
    net.has[:], net.sending[:], net.receiving[:] = False, 0, 0
    for i in range(len(arcs)):
        for j in range(len(arcs)):
            if arcs[i, j]:
                link(net, i, j)


@njit(cache=True)
def delay(net: Net, costs: Costs, i: int, j: int) -> float:
    """Of arc (i, j), which need not be there, at the degrees that are."""
    shared = max(net.sending[i] * costs.up[i], net.receiving[j] * costs.down[j])
    return float(costs.fixed[i, j] + max(shared, costs.core[i, j]))


@njit(cache=True)
def is_spare(net: Net, i: int, j: int, memory: Memory) -> bool:
    """Whether a path from i to j avoids the arc between them: without it all silos still reach one another."""
    marks, stack = memory.marks, memory.stack
    marks[:] = False
    marks[i], stack[0], top = True, i, 1
    while top:
        top -= 1
        node = stack[top]
        for k in range(net.sending[node]):
            other = net.out[node, k]
            if marks[other] or (node == i and other == j):
                continue
            if other == j:
                return True
            marks[other] = True
            stack[top] = other
            top += 1
    return False

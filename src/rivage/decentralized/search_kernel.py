"""The compiled half of `rivage.decentralized.directed_search`: an overlay under change, its cycle time kept warm.

An overlay is lists of neighbours that keep their degrees (`Net`). The delay of arc (i, j) is

    fixed[i, j] + max(sending[i] · up[i], receiving[j] · down[j], core[i, j])

(`Costs`). Howard's policy iteration starts from the policy and the values of the overlay before, so that a change costs
a few passes over the arcs. Random numbers come from one 64-bit word (xorshift64*: Vigna. An experimental exploration of
Marsaglia's xorshift generators, scrambled. ACM TOMS 42, 2016), so that a run goes on where it stopped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

__all__ = ["Costs", "Memory", "Net", "fill_free", "load", "prune", "walk"]

_SAME = 1e-9  # ms; gains below this are rounding errors
_POLICIES = 200  # improvements after which a search takes the policy as it is


class Net(NamedTuple):
    """An overlay: who sends to whom, as a matrix and as lists, and the degrees."""

    has: ndarray
    out: ndarray
    into: ndarray
    sending: ndarray
    receiving: ndarray


class Costs(NamedTuple):
    """What delays are made of: latency and work of arcs, transfers over core, uplinks and downlinks, in ms."""

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
def _draw(state: ndarray) -> float:
    """A number in [0, 1)."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return float((x * np.uint64(2685821657736338717)) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _link(net: Net, i: int, j: int) -> None:
    """Add arc (i, j)."""
    net.has[i, j] = True
    net.out[i, net.sending[i]] = j
    net.into[j, net.receiving[j]] = i
    net.sending[i] += 1
    net.receiving[j] += 1


@njit(cache=True)
def _unlink(net: Net, i: int, j: int) -> None:
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
                _link(net, i, j)


@njit(cache=True)
def _delay(net: Net, costs: Costs, i: int, j: int) -> float:
    shared = max(net.sending[i] * costs.up[i], net.receiving[j] * costs.down[j])
    return float(costs.fixed[i, j] + max(shared, costs.core[i, j]))


@njit(cache=True)
def _is_spare(net: Net, i: int, j: int, memory: Memory) -> bool:
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
        total, arcs, other = _delay(net, costs, node, policy[node]), 1, policy[node]
        while other != node:
            total += _delay(net, costs, other, policy[other])
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
                    values[other] = _delay(net, costs, other, node) - mean + values[node]
                    queue[top] = other
                    top += 1


@njit(cache=True)
def _howard(net: Net, costs: Costs, memory: Memory) -> tuple[int, float]:
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
            best = values[node] + _SAME
            for k in range(net.sending[node]):
                other = net.out[node, k]
                value = _delay(net, costs, node, other) - mean + values[other]
                if value > best:
                    best, policy[node], better = value, other, True
        if not better:
            break
    return root, mean


@njit(cache=True)
def _earliest(net: Net, costs: Costs, root: int, mean: float, memory: Memory) -> None:
    """The longest reduced path from the root to each silo: the least potentials. Those of Howard are the greatest."""
    starts, inside, queue = memory.starts, memory.marks, memory.stack
    nodes = len(starts)
    starts[:], inside[:] = -np.inf, False
    starts[root], queue[0], inside[root] = 0.0, root, True
    low, size = 0, 1
    while size:
        node = queue[low]
        low = (low + 1) % nodes
        size -= 1
        inside[node] = False
        for k in range(net.sending[node]):
            other = net.out[node, k]
            start = starts[node] + _delay(net, costs, node, other) - mean
            if start > starts[other] + _SAME:
                starts[other] = start
                if not inside[other]:
                    inside[other] = True
                    queue[(low + size) % nodes] = other
                    size += 1


@njit(cache=True)
def _mix(net: Net, costs: Costs, root: int, mean: float, memory: Memory) -> None:
    """Potentials for free arcs: the least, the greatest or between, at random."""
    _earliest(net, costs, root, mean, memory)
    part = min(1.0, max(0.0, 2.0 * _draw(memory.state) - 0.5))
    for node in range(len(memory.starts)):
        memory.starts[node] = part * memory.starts[node] - (1.0 - part) * memory.values[node]


@njit(cache=True)
def _is_free(net: Net, costs: Costs, i: int, j: int, mean: float, potentials: ndarray) -> bool:
    """Whether arc (i, j) may come, and slow the others of i and j, with no reduced delay above the mean."""
    sends, receives = (net.sending[i] + 1) * costs.up[i], (net.receiving[j] + 1) * costs.down[j]
    arrival = costs.fixed[i, j] + max(sends, receives, costs.core[i, j])
    if arrival + potentials[i] - potentials[j] > mean:
        return False
    for k in range(net.sending[i]):
        other = net.out[i, k]
        if sends > costs.core[i, other]:
            late = costs.fixed[i, other] + max(sends, net.receiving[other] * costs.down[other])
            if late + potentials[i] - potentials[other] > mean + _SAME:
                return False
    for k in range(net.receiving[j]):
        other = net.into[j, k]
        if receives > costs.core[other, j]:
            late = costs.fixed[other, j] + max(receives, net.sending[other] * costs.up[other])
            if late + potentials[other] - potentials[j] > mean + _SAME:
                return False
    return True


@njit(cache=True)
def _add_free(net: Net, costs: Costs, mean: float, memory: Memory) -> int:
    """Add all arcs that cost nothing, in a random order; how many. O(n²) and the degrees."""
    order, state, nodes, added = memory.order, memory.state, len(memory.order), 0
    for k in range(nodes - 1, 0, -1):
        other = int(_draw(state) * (k + 1))
        order[k], order[other] = order[other], order[k]
    for i in order:
        shift = int(_draw(state) * nodes)
        for k in range(nodes):
            j = order[(k + shift) % nodes]
            if i != j and not net.has[i, j] and _is_free(net, costs, i, j, mean, memory.starts):
                _link(net, i, j)
                added += 1
    return added


@njit(cache=True)
def _relieve(net: Net, costs: Costs, i: int, j: int, memory: Memory) -> bool:
    """Remove an arc that shares the access link which slows arc (i, j); whether there was one."""
    sends, receives = net.sending[i] * costs.up[i], net.receiving[j] * costs.down[j]
    if max(sends, receives) <= costs.core[i, j] or sends == receives:
        return False
    if sends > receives:
        for k in range(net.sending[i]):
            other = net.out[i, k]
            if other != j and _is_spare(net, i, other, memory):
                _unlink(net, i, other)
                return True
        return False
    for k in range(net.receiving[j]):
        other = net.into[j, k]
        if other != i and _is_spare(net, other, j, memory):
            _unlink(net, other, j)
            return True
    return False


@njit(cache=True)
def _drop(net: Net, costs: Costs, root: int, noise: float, memory: Memory) -> bool:
    """Remove the longest arc of the critical circuit that can go, or one beside it that slows it; whether any."""
    policy, circuit, lengths = memory.policy, memory.circuit, memory.lengths
    size, node = 0, root
    while size == 0 or node != root:
        circuit[size] = node
        lengths[size] = _delay(net, costs, node, policy[node]) * (1.0 + noise * _draw(memory.state))
        size, node = size + 1, policy[node]
    for _ in range(size):
        k = int(np.argmax(lengths[:size]))
        i, lengths[k] = circuit[k], -1.0
        if _is_spare(net, i, policy[i], memory):
            _unlink(net, i, policy[i])
            return True
    first = int(_draw(memory.state) * size)
    for k in range(size):
        i = circuit[(first + k) % size]
        if _relieve(net, costs, i, policy[i], memory):
            return True
    return False


@njit(cache=True)
def _descend(net: Net, costs: Costs, noise: float, memory: Memory) -> float:
    """Drop arcs of critical circuits; when none can go, add what is free and go on, while the mean falls."""
    least = np.inf
    while True:
        root, mean = _howard(net, costs, memory)
        if _drop(net, costs, root, noise, memory):
            continue
        if mean > least - _SAME:
            return mean
        least = mean
        _mix(net, costs, root, mean, memory)
        if _add_free(net, costs, mean, memory) == 0:
            return mean


@njit(cache=True)
def _perturb(net: Net, costs: Costs, mean: float, margin: float, most: int, memory: Memory) -> None:
    """Add some arcs of reduced delay at most mean + margin, half of the time for potentials moved as much."""
    potentials, state, nodes = memory.starts, memory.state, len(memory.starts)
    wobble = margin if _draw(state) < 0.5 else 0.0
    for node in range(nodes):
        potentials[node] = wobble * (2.0 * _draw(state) - 1.0) - memory.values[node]
    count = 1 + int(_draw(state) * most)
    for _ in range(50 * count):
        i, j = int(_draw(state) * nodes), int(_draw(state) * nodes)
        if i == j or net.has[i, j] or _delay(net, costs, i, j) + potentials[i] - potentials[j] > mean + margin:
            continue
        _link(net, i, j)
        count -= 1
        if count == 0:
            return


@njit(cache=True)
def walk(
    net: Net,
    costs: Costs,
    memory: Memory,
    current: ndarray,
    best: ndarray,
    means: ndarray,
    settings: tuple[float, float, int, float],
    heats: ndarray,
) -> None:
    """One step for each heat: perturb the current overlay, descend, and keep the result by Metropolis' rule.

    Args:
        net: room for an overlay.
        costs: of delays.
        memory: of the walk.
        current: its overlay, as a matrix; changed.
        best: the best seen; changed.
        means: their cycle times, current and best; changed.
        settings: the largest margin θ, noise on lengths, arcs added at most, power of the uniform draw of θ.
        heats: temperature of each step, in ms.
    """
    largest, noise, most, power = settings
    for heat in heats:
        load(net, current)
        _, mean = _howard(net, costs, memory)
        _perturb(net, costs, mean, largest * _draw(memory.state) ** power, most, memory)
        mean = _descend(net, costs, noise, memory)
        if mean > means[0] and _draw(memory.state) >= np.exp(-(mean - means[0]) / max(heat, 1e-12)):
            continue
        current[:], means[0] = net.has, mean
        if mean < means[1] - _SAME:
            best[:], means[1] = net.has, mean


@njit(cache=True)
def prune(net: Net, costs: Costs, memory: Memory) -> None:
    """Remove arcs, slowest first, until every one is needed. The cycle time does not rise."""
    nodes = len(net.has)
    pairs = [(-_delay(net, costs, i, j), i, j) for i in range(nodes) for j in range(nodes) if net.has[i, j]]
    pairs.sort()
    for _, i, j in pairs:
        if _is_spare(net, i, j, memory):
            _unlink(net, i, j)


@njit(cache=True)
def fill_free(net: Net, costs: Costs, memory: Memory) -> None:
    """Add arcs, in a random order, until none is left that costs nothing."""
    while True:
        root, mean = _howard(net, costs, memory)
        _mix(net, costs, root, mean, memory)
        if _add_free(net, costs, mean, memory) == 0:
            return

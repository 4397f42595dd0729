"""The moves of `rivage.decentralized.directed_search`, compiled: what is added, what is dropped, and walks of both."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import ndarray

from rivage.decentralized.search_cycles import earliest, howard
from rivage.decentralized.search_net import SAME, Costs, Memory, Net, delay, draw, is_spare, link, load, unlink

__all__ = ["fill_free", "prune", "walk"]


@njit(cache=True)
def _mix(net: Net, costs: Costs, root: int, mean: float, memory: Memory) -> None:
    """Potentials for free arcs: the least (where there are any), the greatest or between, at random."""
    part = min(1.0, max(0.0, 2.0 * draw(memory.state) - 0.5))
    if not earliest(net, costs, root, mean, memory):
        part, memory.starts[:] = 0.0, 0.0
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
            if late + potentials[i] - potentials[other] > mean + SAME:
                return False
    for k in range(net.receiving[j]):
        other = net.into[j, k]
        if receives > costs.core[other, j]:
            late = costs.fixed[other, j] + max(receives, net.sending[other] * costs.up[other])
            if late + potentials[other] - potentials[j] > mean + SAME:
                return False
    return True


@njit(cache=True)
def _add_free(net: Net, costs: Costs, mean: float, memory: Memory) -> int:
    """Add all arcs that cost nothing, in a random order; how many. O(n²) and the degrees."""
    order, state, nodes, added = memory.order, memory.state, len(memory.order), 0
    for k in range(nodes - 1, 0, -1):
        other = int(draw(state) * (k + 1))
        order[k], order[other] = order[other], order[k]
    for i in order:
        shift = int(draw(state) * nodes)
        for k in range(nodes):
            j = order[(k + shift) % nodes]
            if i != j and not net.has[i, j] and _is_free(net, costs, i, j, mean, memory.starts):
                link(net, i, j)
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
            if other != j and is_spare(net, i, other, memory):
                unlink(net, i, other)
                return True
        return False
    for k in range(net.receiving[j]):
        other = net.into[j, k]
        if other != i and is_spare(net, other, j, memory):
            unlink(net, other, j)
            return True
    return False


@njit(cache=True)
def _drop(net: Net, costs: Costs, root: int, noise: float, memory: Memory) -> bool:
    """Remove the longest arc of the critical circuit that can go, or one beside it that slows it; whether any."""
    policy, circuit, lengths = memory.policy, memory.circuit, memory.lengths
    size, node = 0, root
    while size == 0 or node != root:
        circuit[size] = node
        lengths[size] = delay(net, costs, node, policy[node]) * (1.0 + noise * draw(memory.state))
        size, node = size + 1, policy[node]
    for _ in range(size):
        k = int(np.argmax(lengths[:size]))
        i, lengths[k] = circuit[k], -1.0
        if is_spare(net, i, policy[i], memory):
            unlink(net, i, policy[i])
            return True
    first = int(draw(memory.state) * size)
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
        root, mean = howard(net, costs, memory)
        if _drop(net, costs, root, noise, memory):
            continue
        if mean > least - SAME:
            return mean
        least = mean
        _mix(net, costs, root, mean, memory)
        if _add_free(net, costs, mean, memory) == 0:
            return mean


@njit(cache=True)
def _perturb(net: Net, costs: Costs, mean: float, margin: float, most: int, memory: Memory) -> None:
    """Add some arcs of reduced delay at most mean + margin, half of the time for potentials moved as much."""
    potentials, state, nodes = memory.starts, memory.state, len(memory.starts)
    wobble = margin if draw(state) < 0.5 else 0.0
    for node in range(nodes):
        potentials[node] = wobble * (2.0 * draw(state) - 1.0) - memory.values[node]
    count = 1 + int(draw(state) * most)
    for _ in range(50 * count):
        i, j = int(draw(state) * nodes), int(draw(state) * nodes)
        if i == j or net.has[i, j] or delay(net, costs, i, j) + potentials[i] - potentials[j] > mean + margin:
            continue
        link(net, i, j)
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
        _, mean = howard(net, costs, memory)
        _perturb(net, costs, mean, largest * draw(memory.state) ** power, most, memory)
        mean = _descend(net, costs, noise, memory)
        if mean > means[0] and draw(memory.state) >= np.exp(-(mean - means[0]) / max(heat, 1e-12)):
            continue
        current[:], means[0] = net.has, mean
        if mean < means[1] - SAME:
            best[:], means[1] = net.has, mean


@njit(cache=True)
def prune(net: Net, costs: Costs, memory: Memory) -> None:
    """Remove arcs, slowest first, until every one is needed. The cycle time does not rise."""
    nodes = len(net.has)
    pairs = [(-delay(net, costs, i, j), i, j) for i in range(nodes) for j in range(nodes) if net.has[i, j]]
    pairs.sort()
    for _, i, j in pairs:
        if is_spare(net, i, j, memory):
            unlink(net, i, j)


@njit(cache=True)
def fill_free(net: Net, costs: Costs, memory: Memory) -> None:
    """Add arcs, in a random order, until none is left that costs nothing."""
    while True:
        root, mean = howard(net, costs, memory)
        _mix(net, costs, root, mean, memory)
        if _add_free(net, costs, mean, memory) == 0:
            return

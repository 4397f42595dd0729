"""The compiled half of `rivage.decentralized.clock`: draws by (seed, id, round), and rounds with their delays.

The generator is Philox4x32-10 of `rivage.core.philox`, bit for bit, one block at a time instead of array by array.
Arcs are sorted by head: those into node j are ``begins[j]`` … ``begins[j + 1] − 1``, each with a tail and a delay.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import ndarray

__all__ = ["draws", "rounds_by_the_fastest", "rounds_of_a_server", "rounds_of_all"]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_FIRST, _SECOND = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEP_A, _STEP_B = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@njit(cache=True)
def _pair(seed: np.uint64, number: np.uint64, t: np.uint64, stream: np.uint64) -> tuple[float, float]:
    """Two uniforms on [0, 1): what `rivage.core.philox.uniforms` gives for this id, time and stream."""
    a, b, c, d = number & _LOW, number >> _HALF, t, stream
    key, other = seed & _LOW, seed >> _HALF
    for _ in range(10):
        one, two = a * _FIRST, c * _SECOND
        a, b, c, d = (two >> _HALF) ^ b ^ key, two & _LOW, (one >> _HALF) ^ d ^ other, one & _LOW
        key, other = (key + _STEP_A) & _LOW, (other + _STEP_B) & _LOW
    high, low = np.float64(a >> np.uint64(5)), np.float64(b >> np.uint64(6))
    second, rest = np.float64(c >> np.uint64(5)), np.float64(d >> np.uint64(6))
    return (high * 67108864.0 + low) / 9007199254740992.0, (second * 67108864.0 + rest) / 9007199254740992.0


@njit(cache=True)
def draws(seed: np.uint64, ids: ndarray, first: int, stream: int, renewal: float, out: ndarray) -> None:
    """Fill out[k, i] with the uniform of id i in round first + k.

    An id gets a new one with probability ``renewal`` in every round, and surely in round 0; otherwise it keeps the one
    of the round before. Whether it does is drawn for each round alone, so looking back finds where the current one
    began: 1/renewal rounds on average.
    """
    for i in range(len(ids)):
        number, t = np.uint64(ids[i]), first
        value, luck = _pair(seed, number, np.uint64(t), np.uint64(stream))
        while t > 0 and luck >= renewal:
            t -= 1
            value, luck = _pair(seed, number, np.uint64(t), np.uint64(stream))
        for k in range(len(out)):
            if k > 0:
                fresh, luck = _pair(seed, number, np.uint64(first + k), np.uint64(stream))
                if luck < renewal:
                    value = fresh
            out[k, i] = value


@njit(cache=True)
def rounds_of_all(
    begins: ndarray, tails: ndarray, work: ndarray, transfer: ndarray, every: ndarray, first: int, times: ndarray
) -> None:
    """t_j(k + 1) = max of t_j(k) + x_j(k) and of t_i(k) + x_i(k) + c_ij(k) over the arcs awaited in this round.

    Args:
        begins: where the arcs into each node begin.
        tails: of the arcs.
        work: x, a row for each round.
        transfer: c, a row for each round, or one for all.
        every: an arc is awaited in rounds whose number is a multiple of this; empty if in all.
        first: number of the first round.
        times: row 0 is given, the others are filled.
    """
    finish = np.empty(times.shape[1])
    for k in range(len(times) - 1):
        row = transfer[k % len(transfer)]
        for node in range(len(finish)):
            finish[node] = times[k, node] + work[k, node]
        for node in range(len(finish)):
            latest = finish[node]
            for arc in range(begins[node], begins[node + 1]):
                if len(every) == 0 or (first + k) % every[arc] == 0:
                    latest = max(latest, finish[tails[arc]] + row[arc])
            times[k + 1, node] = latest


@njit(cache=True)
def rounds_by_the_fastest(
    begins: ndarray, tails: ndarray, work: ndarray, transfer: ndarray, least: ndarray, times: ndarray
) -> None:
    """The same, but node j waits for no more than the first ``least[j]`` of its in-neighbours.

    Of d messages that is the one of which d − least[j] come later: the largest so many plus one are kept, in order.
    O(arcs · backups) a round.
    """
    nodes = times.shape[1]
    finish, kept = np.empty(nodes), np.empty(nodes + 1)
    for k in range(len(times) - 1):
        row = transfer[k % len(transfer)]
        for node in range(nodes):
            finish[node] = times[k, node] + work[k, node]
        for node in range(nodes):
            size = begins[node + 1] - begins[node] - least[node] + 1
            kept[:size] = finish[node]  # nobody goes on before its own work is done
            if least[node] > 0:
                for arc in range(begins[node], begins[node + 1]):
                    come, place = finish[tails[arc]] + row[arc], 0
                    if come <= kept[0]:
                        continue
                    while place + 1 < size and kept[place + 1] < come:
                        kept[place] = kept[place + 1]
                        place += 1
                    kept[place] = come
            times[k + 1, node] = kept[0]


@njit(cache=True)
def rounds_of_a_server(work: ndarray, up: ndarray, down: ndarray, times: ndarray) -> None:
    """All send to a server, which averages when all have come and sends back; ways to and from each node."""
    for k in range(len(times) - 1):
        done = -np.inf
        for node in range(times.shape[1]):
            done = max(done, times[k, node] + work[k, node] + up[k % len(up), node])
        for node in range(times.shape[1]):
            times[k + 1, node] = done + down[k % len(down), node]

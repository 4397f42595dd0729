"""What a fixed placement could have gained in a network of caches: from above by a linear program, from below by greed.

The best placement is NP-hard to find. With counts n_d of the request types and fractions y of the caches,

    L(y) = Σ_d n_d Σ_l w_l min(1, Σ_{l'≤l} y_{p_l', i}),    F(y) = Σ_d n_d Σ_l w_l (1 − Π_{l'≤l} (1 − y_{p_l', i})),

(1 − 1/e) L ≤ F ≤ L on [0, 1], both equal to the gain at whole y. The maximum of L is a linear program and lies above
every placement; F, the expected gain when nodes draw their items independently, is linear in what one node draws, so
rounding one after the other never loses.

*Tabular greedy* gives every slot one item for each of M colours, colour by colour, each time the one that adds most to
the expected gain when slots draw their colours. Its value is at least β(|S|, M) times the optimum, see
`rivage.online.tabular_greedy`. Expectations over colours are products here, so nothing is sampled. One colour is the
greedy algorithm, factor 1/2.

References:
    Ioannidis, Yeh. Adaptive caching networks with optimality guarantees. SIGMETRICS 2016, arXiv 1604.03490.
    Streeter, Golovin, Krause. Online learning of assignments. NIPS 2009.
    Fisher, Nemhauser, Wolsey. An analysis of approximations for maximizing submodular set functions, II. 1978 (greed).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from numpy import ndarray
from scipy.sparse import coo_array, hstack

from rivage.convex.programs import linear_program
from rivage.core.errors import ConfigError, require
from rivage.online.cache_networks import CacheNetwork
from rivage.online.network_ways import Ways

__all__ = [
    "LARGEST_PROGRAM",
    "Placed",
    "Relaxed",
    "Yardsticks",
    "exhaustive",
    "multilinear",
    "program_size",
    "relaxation",
    "relaxed_optimum",
    "tabular_greedy",
    "yardsticks",
]

Counts = Int64[ndarray, "types"]
Fractions = Float64[ndarray, "nodes items"]

_MOST_PLACEMENTS = 1_000_000
LARGEST_PROGRAM = 1_000_000
"""Non-zeros of a program that is still solved: 400,000 take seconds, twice as many as this take minutes."""
_LONGEST_GREED = 10_000_000_000  # steps of a loop


@dataclass(frozen=True, slots=True, eq=False)
class Relaxed:
    """The maximum of L.

    Args:
        y: where it is.
        value: of L there; no placement gains more.
    """

    y: Fractions
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A placement found by greed.

    Args:
        chance: distribution of each slot's item over its colours.
        expected: gain of slots that draw their colours.
        contents: item of each slot when they are fixed one after the other.
        value: gain of that, at least ``expected``.
    """

    chance: Float64[ndarray, "slots items"]
    expected: float
    contents: Int64[ndarray, "slots"]
    value: float

    def placement(self, instance: CacheNetwork) -> Bool[ndarray, "nodes items"]:
        """What each node holds."""
        return instance.placement(self.contents)


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """What a fixed placement could have gained, as far as it can be found in reasonable time.

    Args:
        relaxed: no placement gains more; None when the program is too large.
        placed: the placement that greed finds gains this; None when there are too many slots and paths.
        size: non-zeros of the program.
    """

    relaxed: float | None
    placed: float | None
    size: int


def yardsticks(instance: CacheNetwork, counts: Counts) -> Yardsticks:
    """Both sides of the best fixed placement. What is too large is left out by its size, never by the clock."""
    size = program_size(instance, counts)
    steps = 2 * instance.slots * int(instance.hops[counts > 0].sum())
    return Yardsticks(
        relaxed=relaxed_optimum(instance, counts).value if size <= LARGEST_PROGRAM else None,
        placed=tabular_greedy(instance, counts).value if steps <= _LONGEST_GREED else None,
        size=size,
    )


def program_size(instance: CacheNetwork, counts: Counts) -> int:
    """Non-zeros of the linear program of `relaxed_optimum`, up to those of the capacities."""
    hops = instance.hops[counts > 0]
    return int((hops * (hops + 3) // 2).sum())


def relaxation(instance: CacheNetwork, counts: Counts, y: Fractions) -> float:
    """L(y)."""
    return float(counts @ (_links(instance) * np.minimum(np.cumsum(_along(instance, y), axis=1), 1.0)).sum(axis=1))


def multilinear(instance: CacheNetwork, counts: Counts, y: Fractions) -> float:
    """F(y)."""
    return float(counts @ (_links(instance) * (1.0 - np.cumprod(1.0 - _along(instance, y), axis=1))).sum(axis=1))


def relaxed_optimum(instance: CacheNetwork, counts: Counts) -> Relaxed:
    """The maximum of L over 0 ≤ y ≤ 1, Σ_i y_{v,i} ≤ c_v, by HiGHS.

    One variable per node and item on a path with room, one per link of a path; exact to HiGHS' tolerance.
    """
    nodes, items = instance.network.nodes, instance.items
    types = np.flatnonzero(counts)
    inside = np.arange(instance.paths.shape[1]) < instance.hops[types, None]
    rows, places = np.nonzero(inside)
    node, item = instance.paths[types[rows], places], instance.item[types[rows]]
    keys, cell = np.unique(node * items + item, return_inverse=True)
    y = np.zeros((nodes, items))
    if not len(keys):
        return Relaxed(y, 0.0)
    # Link number k of a path waits for the cells of all places up to its own, which stand right before it.
    link = np.repeat(np.arange(len(rows)), places + 1)
    ahead = np.concatenate([cell[k - place : k + 1] for k, place in enumerate(places.tolist())])
    variables, links = len(keys), len(rows)
    full = coo_array((np.ones(variables), (links + keys // items, np.arange(variables))), (links + nodes, variables))
    sums = coo_array((-np.ones(len(link)), (link, ahead)), (links + nodes, variables))
    own = coo_array((np.ones(links), (np.arange(links), np.arange(links))), (links + nodes, links))
    matrix = hstack([full + sums, own], format="csr")
    limits = np.concatenate([np.zeros(links), instance.capacities.astype(np.float64)])
    worth = counts[types[rows]] * _links(instance)[types[rows], places]
    scale = float(worth.max()) or 1.0
    solution = linear_program(np.concatenate([np.zeros(variables), -worth / scale]), upper=(matrix, limits), high=1.0)
    y.flat[keys] = np.clip(solution.x[:variables], 0.0, 1.0)
    return Relaxed(y, -solution.value * scale)


def tabular_greedy(instance: CacheNetwork, counts: Counts, *, colors: int = 1) -> Placed:
    """Greedy placement, offline. O(|S| M · types · path · slots per node).

    Args:
        instance: the network.
        counts: how often each type is asked for.
        colors: M >= 1.
    """
    require(colors, "colors", least=1)
    ways, weights = Ways.of(instance), counts.astype(np.float64)
    chance = np.zeros((instance.slots, instance.items))
    _fill(ways, weights, chance, colors)
    whole = chance.copy()
    _settle(ways, weights, whole)
    contents = whole.argmax(axis=1) if instance.slots else np.zeros(0, np.int64)
    value = float(counts @ instance.gains(instance.placement(contents)))
    return Placed(chance, _expected(instance, counts, chance), contents, value)


def exhaustive(instance: CacheNetwork, counts: Counts) -> float:
    """Gain of the best placement, by trying all N^|S| of them.

    Raises:
        ConfigError: when there are more than a million.
    """
    if instance.items**instance.slots > _MOST_PLACEMENTS:
        raise ConfigError(f"{instance.items}^{instance.slots} placements", mend="Use relaxed_optimum for a bound.")
    choices = product(range(instance.items), repeat=instance.slots)
    return max(float(counts @ instance.gains(instance.placement(np.array(c, np.int64)))) for c in choices)


def _expected(instance: CacheNetwork, counts: Counts, chance: Float64[ndarray, "slots items"]) -> float:
    """Gain when slots draw independently, those of one node too."""
    some = np.zeros((instance.network.nodes, instance.items))
    for node in range(instance.network.nodes):
        some[node] = 1.0 - np.prod(1.0 - chance[instance.first[node] : instance.first[node + 1]], axis=0)
    return multilinear(instance, counts, some)


def _links(instance: CacheNetwork) -> Float64[ndarray, "types longest"]:
    """Cost of the link after each place of each path, 0 at its end."""
    after = np.concatenate([instance.savings[:, 1:], np.zeros((len(instance.item), 1))], axis=1)
    return np.asarray(instance.savings - after)


def _along(instance: CacheNetwork, y: Fractions) -> Float64[ndarray, "types longest"]:
    inside = np.arange(instance.paths.shape[1]) < instance.hops[:, None]
    return np.where(inside, y[instance.paths, instance.item[:, None]], 0.0)


@njit(cache=True)
def _worth(w: Ways, counts: ndarray, miss: ndarray, own: int, values: ndarray) -> None:
    """What each item adds at a node, given the chance that each node (this one's other slots) misses it."""
    values[:] = 0.0
    for d in range(len(w.item)):
        if counts[d] == 0.0:
            continue
        item, reach, met, total = w.item[d], 1.0, False, 0.0
        for place in range(w.hops[d]):
            node = w.paths[d, place]
            met |= node == own
            reach *= miss[node, item]
            if met:
                total += reach * (w.savings[d, place] - w.savings[d, place + 1])
        values[item] += counts[d] * total


@njit(cache=True)
def _missed(w: Ways, chance: ndarray, node: int, without: int) -> ndarray:
    """Chance that a node's slots, all but one, miss each item."""
    miss = np.ones(chance.shape[1])
    for s in range(w.first[node], w.first[node + 1]):
        if s != without:
            miss *= 1.0 - chance[s]
    return miss


@njit(cache=True)
def _fill(w: Ways, counts: ndarray, chance: ndarray, colors: int) -> None:
    """Tabular greedy: colour by colour, slot by slot."""
    nodes, values = len(w.first) - 1, np.empty(chance.shape[1])
    miss = np.ones((nodes, chance.shape[1]))
    for _ in range(colors):
        for node in range(nodes):
            for s in range(w.first[node], w.first[node + 1]):
                miss[node] = _missed(w, chance, node, s)
                _worth(w, counts, miss, node, values)
                chance[s, values.argmax()] += 1.0 / colors
                miss[node] = _missed(w, chance, node, -1)


@njit(cache=True)
def _settle(w: Ways, counts: ndarray, chance: ndarray) -> None:
    """Give each slot in turn the item that is best while later slots still draw."""
    nodes, values = len(w.first) - 1, np.empty(chance.shape[1])
    miss = np.ones((nodes, chance.shape[1]))
    for node in range(nodes):
        miss[node] = _missed(w, chance, node, -1)
    for node in range(nodes):
        for s in range(w.first[node], w.first[node + 1]):
            miss[node] = _missed(w, chance, node, s)
            _worth(w, counts, miss, node, values)
            best = values.argmax()
            chance[s] = 0.0
            chance[s, best] = 1.0
            miss[node] = _missed(w, chance, node, -1)

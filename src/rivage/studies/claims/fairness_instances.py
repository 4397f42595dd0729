"""The networks and traces of Si Salem, Iosifidis, Neglia, SIGMETRICS 2023, as their published code draws them.

Capacities, owners, query nodes, sources and link costs are what Python's and NumPy's generators give for seed 42 in the
order of that code (costs to four decimals), so results can be held against the published ones to four digits. The
traces come from the same generator, through `numpy.random.RandomState`, which is kept for such purposes.

Retrieval costs are those of the paths with the fewest links. Among several such paths in the grid the published code
takes what networkx' search meets first; those costs are written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.graphs.network import Network
from rivage.graphs.paths import path_cost, shortest_path
from rivage.online.utilities import CappedSums
from rivage.online.virtual_caches import VirtualCaches, zipf_law

__all__ = ["Game", "alternating_game", "cycle_caches", "published_caches", "stationary_game", "zipf_trace"]

ITEMS = 20
Name = Literal["tree", "grid", "abilene", "geant"]

_EXPONENTS = (1.2, 0.8, 0.6)  # of the agents' requests

_TREE = (
    "9.2377 6.0260 9.2233 3.7926 2.3610 1.6219 4.8289 2.3464 1.3710 1.3869 4.3900 3.4149",
    "1 1 3 2 2 2 1 5 1 5 4 1 1",
    "-1 1 2 2 0 1 2 0 1 2 0 1 2",
    "4 10 7 11 5 8 12 9 6",
    " ".join("0" * ITEMS),
)
_TREE_LINKS = tuple(((node - 1) // 3, node) for node in range(1, 13))

_GRID_LINKS = ((0, 3), (0, 1), (1, 4), (1, 2), (2, 5), (3, 6), (3, 4), (4, 7), (4, 5), (5, 8), (6, 7), (7, 8))
_GRID = (
    "3.2450 3.8641 3.8053 2.6781 2.7968 7.1128 4.4772 4.0352 1.6386 2.6905 7.1115 1.8613",
    "1 1 3 2 2 2 1 5 1",
    "1 2 2 1 0 0 -1 0 2",
    "4 7 0 3 1 8",
    " ".join("6" * ITEMS),
)
_GRID_COSTS = np.array(
    [
        [7.7222, 3.8053, 6.4834, 4.4772, 0.0, 1.6386, 11.5900, 4.0352, 4.3291],
        [17.4693, 7.8405, 10.5186, 14.2243, 4.0352, 5.6738, 7.1115, 0.0, 1.8613],
        [0.0, 3.8641, 6.5422, 3.2450, 7.6694, 9.3608, 10.3578, 17.4693, 12.0295],
        [3.2450, 7.1091, 9.7872, 0.0, 4.4772, 6.1158, 7.1128, 8.5124, 8.8063],
        [3.8641, 0.0, 2.6781, 7.1091, 3.8053, 5.4749, 14.2219, 7.8405, 8.1654],
        [19.3306, 8.1654, 5.4873, 8.8063, 5.8965, 2.6905, 8.9728, 1.8613, 0.0],
    ]
)

_ABILENE_LINKS = (
    *((0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 5), (3, 4), (4, 5), (4, 7), (5, 6), (6, 7), (6, 8), (7, 8)),
)
_ABILENE = (
    "8.8641 8.8053 2.6781 2.7968 2.1128 4.4772 4.0352 1.6386 2.6905 7.1115 6.8613 9.0540 1.4088",
    "1 1 3 2 2 2 1 5 1",
    "-1 1 2 2 1 0 -1 0 0",
    "5 8 1 4 2 3",
    "6 0 0 0 6 0 6 0 0 0 0 0 0 0 0 6 6 0 0 0",
)

_GEANT_LINKS = (
    *((0, 1), (0, 21), (1, 2), (1, 3), (1, 15), (2, 3), (3, 12), (3, 4), (4, 21), (4, 18), (4, 7), (5, 6), (5, 14)),
    *((6, 7), (7, 8), (8, 9), (9, 10), (9, 12), (10, 11), (11, 12), (12, 13), (12, 15), (13, 14), (14, 15), (14, 16)),
    *((14, 21), (15, 17), (16, 17), (17, 18), (18, 19), (18, 20), (19, 20), (20, 21)),
)
_GEANT = (
    "1.6219 4.8289 2.3464 1.3710 1.3869 4.3900 3.4149 4.2285 3.9189 3.1449 9.8925 2.5141 3.2082 9.3176 8.4741 4.4468 "
    "3.3094 3.8183 1.1833 1.9116 7.1576 1.3192 6.9312 1.4040 2.1119 3.5427 2.4593 2.4807 1.8380 2.0679 4.7466 3.5921 "
    "3.4365",
    "1 1 3 2 2 2 1 5 1 5 4 1 1 1 2 2 5 5 1 5 2 5",
    "1 2 2 1 0 0 0 -1 2 1 2 0 2 -1 2 0 0 0 0 1 1 0",
    "18 15 17 0 3 9 10 8 12",
    "7 13 13 13 13 13 7 13 13 7 13 7 13 7 13 13 7 7 7 7",
)
_PUBLISHED = {
    "tree": (_TREE_LINKS, _TREE),
    "grid": (_GRID_LINKS, _GRID),
    "abilene": (_ABILENE_LINKS, _ABILENE),
    "geant": (_GEANT_LINKS, _GEANT),
}


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """A network with utilities in their published unit, and its requests.

    Args:
        caches: the network.
        batches: requests for each item at each query node, slot by slot.
    """

    caches: VirtualCaches
    batches: Int64[ndarray, "slots queries items"]

    @classmethod
    def of(cls, caches: VirtualCaches, batches: Int64[ndarray, "slots queries items"]) -> Game:
        """Utilities are normalised by the requests that come."""
        return cls(caches.normalized(batches.mean(axis=0)), batches)

    @property
    def mean(self) -> CappedSums:
        """The time-averaged utilities."""
        return self.caches.utilities(self.batches.mean(axis=0))

    @property
    def slots(self) -> list[CappedSums]:
        """The utilities of every slot."""
        return [self.caches.utilities(batch) for batch in self.batches]


def cycle_caches(far: float) -> VirtualCaches:
    """CYCLE: agents 0 and 1 with capacity 5 each, one link of cost 1 apart; the repository costs 2 and ``far``."""
    return VirtualCaches(
        network=Network.of(3, [(0, 1), (0, 2), (1, 2)], [1.0, 2.0, far]),
        capacities=np.array([5, 5, 0]),
        owners=np.array([0, 1, -1]),
        sources=np.full(ITEMS, 2),
        queries=np.array([0, 1]),
        retrieval=np.array([[0.0, 1.0, 2.0], [1.0, 0.0, far]]),
    )


def published_caches(name: Name) -> VirtualCaches:
    """TREE, GRID, ABILENE or GEANT, three agents each."""
    links, (costs, *columns) = _PUBLISHED[name]
    capacities, owners, queries, sources = (np.array(column.split(), np.int64) for column in columns)
    network = Network.of(len(owners), links, [float(cost) for cost in costs.split()], name=name)
    return VirtualCaches(
        network=network,
        capacities=capacities,
        owners=owners,
        sources=sources,
        queries=queries,
        retrieval=_GRID_COSTS if name == "grid" else _fewest_links(network, queries),
    )


def _fewest_links(network: Network, queries: Int64[ndarray, "queries"]) -> Float64[ndarray, "queries nodes"]:
    hops = network.with_weights(1.0)
    paths = [[shortest_path(hops, query, node) for node in range(network.nodes)] for query in queries.tolist()]
    return np.array([[path_cost(network, path) for path in row] for row in paths], np.float64)


def stationary_game(name: Name, slots: int = 5_000, batch: int = 100) -> Game:
    """Zipf requests with exponents 1.2, 0.8 and 0.6 of the three agents; all query nodes of an agent see the same."""
    caches = published_caches(name)
    traces = np.stack([zipf_trace(slots, batch, alpha) for alpha in _EXPONENTS])
    return Game.of(caches, np.moveaxis(traces[caches.owners[caches.queries]], 0, 1))


def alternating_game(slots: int = 5_000, batch: int = 50) -> Game:
    """CYCLE 1-2-2 under the non-stationary adversary, see `rivage.online.virtual_caches.alternating_batches`."""
    random = _generator(slots, batch)
    requests = _blocks(random, slots * batch, 1.2)
    turns = np.roll(requests, -_BLOCK)
    random.shuffle(requests)
    counts = [_counts(each.reshape(slots, batch)) for each in (requests, turns)]
    return Game.of(cycle_caches(2.0), np.stack(counts, axis=1))


def zipf_trace(slots: int, batch: int, alpha: float) -> Int64[ndarray, "slots items"]:
    """Requests per item and slot; the published code draws, and throws away, the adversary's before."""
    random = _generator(slots, batch)
    _blocks(random, slots * batch, alpha)
    law = zipf_law(ITEMS, alpha)
    return _counts(random.choice(ITEMS, (slots, batch), p=law))


_BLOCK = 50


def _generator(slots: int, batch: int) -> np.random.RandomState:
    random = np.random.RandomState(42)
    random.uniform(batch, batch, slots)  # sizes of the batches, all equal
    return random


def _blocks(random: np.random.RandomState, count: int, alpha: float) -> Int64[ndarray, "count"]:
    """Blocks of Zipf's law, and of that with half the exponent rounded down to 0, in turns."""
    laws = zipf_law(ITEMS, alpha), zipf_law(ITEMS, 0.0)
    drawn = [random.choice(ITEMS, _BLOCK, p=law) for _ in range(count // (2 * _BLOCK)) for law in laws]
    return np.concatenate(drawn)


def _counts(requests: Int64[ndarray, "slots batch"]) -> Int64[ndarray, "slots items"]:
    return np.stack([np.bincount(row, minlength=ITEMS) for row in requests])

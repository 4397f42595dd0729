"""The usual graphs, and a few real backbones; every link costs 1 until `Network.with_weights` says otherwise.

The links of the backbones are those used by Li, Si Salem, Neglia, Ioannidis. Online caching networks with adversarial
guarantees. SIGMETRICS 2022, doi 10.1145/3491047: Abilene without its two-link node, GEANT of 22 nodes and Deutsche
Telekom's network of 68 routers as Rossi, Rossini. Caching performance of content centric networks under multi-path
routing. Telecom ParisTech, 2011, had them.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np

from rivage.core.errors import ConfigError, require
from rivage.graphs.network import Network

__all__ = [
    "abilene",
    "balanced_tree",
    "cycle",
    "dtelekom",
    "erdos_renyi",
    "geant",
    "grid",
    "hypercube",
    "path",
]

_ATTEMPTS = 1_000

_ABILENE = {
    "NEWY": "WASH CHIC",
    "WASH": "CHIC ATLA",
    "CHIC": "ATLA KANS",
    "ATLA": "HOUS",
    "HOUS": "KANS LOSA",
    "KANS": "SALT",
    "SALT": "LOSA SEAT",
    "LOSA": "SEAT",
    "SEAT": "",
}

# A node and its neighbours of higher number.
_GEANT = (
    "0:1,21 1:2,3,15 2:3 3:4,12 4:7,18,21 5:6,14 6:7 7:8 8:9 9:10,12 10:11 11:12 12:13,15 13:14 14:15,16,21 "
    "15:17 16:17 17:18 18:19,20 19:20 20:21"
)
_DTELEKOM = (
    "0:1,2,3,4,5,6 1:2,3,4,5,6,7,9,10,11,14,16,17,18,20,21,24,25,28,29,30,32,34,35,36,38,39,40,41,42,43,44,45,47,48,"
    "49,50,52,54,55,56,58 2:3,4,5,11,13,20,26,32,44,50,57 3:4,5,6,7,8,9,10,13,14,16,18,20,21,24,27,28,29,30,31,32,33,"
    "35,36,40,41,42,44,45,48,49,50,52,54,55,56,58,60 4:5,6,7,8,9,10,11,12,13,14,15,16,18,20,21,24,28,29,30,31,32,34,"
    "35,38,40,41,42,43,44,45,48,49,50,52,54,56,57,58,60,61,64,65,66,67 5:6,7,9,11,12,15,16,19,20,21,22,23,24,25,26,"
    "27,28,29,30,32,34,35,36,38,41,42,43,46,48,49,50,51,52,53,54,55,56,57,58,60,61,66 6:7,8,9,10,11,13,15,19,20,21,22,"
    "23,24,25,26,28,29,30,32,36,38,39,43,44,47,54,55,56 8:40,55 9:15,33,40,52,53,55,56,59 10:43 11:15 12:26 15:33 "
    "17:19,39,60 18:33 19:39 23:24,33,34,37,38,40,49,51,53,56,59,61,62,64 26:29,34,43,65 27:51,59 28:59,62 31:41 "
    "37:59 38:59 40:42,46,55,59 42:54,59 45:48,51,53,58,59,61,63 47:59 48:51 51:53,63 52:67 58:59 62:65"
)


def path(nodes: int) -> Network:
    """0 – 1 – … – (nodes − 1)."""
    require(nodes, "nodes", least=1)
    return Network.of(nodes, pairwise(range(nodes)), name=f"path of {nodes}")


def cycle(nodes: int) -> Network:
    """A path whose ends are joined; at least 3 nodes."""
    require(nodes, "nodes", least=3)
    return Network.of(nodes, [*pairwise(range(nodes)), (0, nodes - 1)], name=f"cycle of {nodes}")


def grid(rows: int, columns: int) -> Network:
    """Nodes in rows, each linked to the next in its row and in its column; node r · columns + c is in row r."""
    require(rows, "rows", least=1)
    require(columns, "columns", least=1)
    places = [(r * columns + c, r, c) for r, c in product(range(rows), range(columns))]
    across = [(node, node + 1) for node, _, c in places if c + 1 < columns]
    down = [(node, node + columns) for node, r, _ in places if r + 1 < rows]
    return Network.of(rows * columns, across + down, name=f"grid {rows} × {columns}")


def balanced_tree(degree: int, depth: int) -> Network:
    """Node 0 and everything below it: all nodes down to ``depth`` have ``degree`` children, in order of numbers."""
    require(degree, "degree", least=1)
    require(depth, "depth", least=0)
    nodes = sum(degree**level for level in range(depth + 1))
    return Network.of(nodes, [((v - 1) // degree, v) for v in range(1, nodes)], name=f"tree {degree}, depth {depth}")


def hypercube(dimension: int) -> Network:
    """2^dimension nodes; linked are those whose numbers differ in one bit."""
    require(dimension, "dimension", least=0)
    nodes = 2**dimension
    links = [(v, v | 1 << bit) for v in range(nodes) for bit in range(dimension) if not v >> bit & 1]
    return Network.of(nodes, links, name=f"hypercube {dimension}")


def erdos_renyi(nodes: int, p: float, rng: np.random.Generator, *, connected: bool = True) -> Network:
    """Every pair is linked with probability p, independently.

    Args:
        nodes: how many.
        p: probability of each link, in [0, 1].
        rng: generator.
        connected: draw again until every node can be reached.

    Raises:
        ConfigError: when 1,000 draws were not connected.
    """
    require(nodes, "nodes", least=1)
    if not 0 <= p <= 1:
        raise ConfigError(f"p is {p}", mend="Give a probability.")
    pairs = np.stack(np.triu_indices(nodes, 1), axis=1).astype(np.int64)
    for _ in range(_ATTEMPTS):
        edges = pairs[rng.random(len(pairs)) < p]
        network = Network(nodes=nodes, edges=edges, weights=np.ones(len(edges)), name=f"erdos-renyi {nodes}, {p:g}")
        if not connected or network.is_connected:
            return network
    raise ConfigError(
        f"{_ATTEMPTS} graphs of {nodes} nodes with p = {p:g} were not connected",
        mend=f"Give p above ln(nodes)/nodes = {np.log(nodes) / nodes:.3g}, or connected=False.",
    )


def abilene() -> Network:
    """Internet2's backbone: 9 nodes, 13 links."""
    names = tuple(_ABILENE)
    links = [(names.index(a), names.index(b)) for a, others in _ABILENE.items() for b in others.split()]
    return Network.of(9, links, names=names, name="abilene")


def geant() -> Network:
    """The European research network: 22 nodes, 33 links."""
    return Network.of(22, _links(_GEANT), name="geant")


def dtelekom() -> Network:
    """Deutsche Telekom's backbone: 68 nodes, 273 links."""
    return Network.of(68, _links(_DTELEKOM), name="dtelekom")


def _links(text: str) -> list[tuple[int, int]]:
    parts = (part.split(":") for part in text.split())
    return [(int(node), int(other)) for node, others in parts for other in others.split(",")]

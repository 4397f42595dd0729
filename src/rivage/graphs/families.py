"""Families of graphs for averaging: fixed ones as networks or arcs, and sequences that reach the exact mean.

Fixed: `torus`, `random_regular`, `exponential` beside `cycle`, `hypercube` and `path` of `rivage.graphs.topologies`.

Sequences give one mixing matrix a round, all doubly stochastic:

- `one_peer_exponential`: in round k node i sends to i + 2^k, both keep half. For n = 2^τ the product of the τ matrices
  is J = 1 1ᵀ / n; for other n it only tends to it.
- `base_graphs`, the Base-(k + 1) graphs: for every n the product is J, with at most k neighbours a round. For n whose
  prime factors are at most k + 1, groups of each factor average in turn (`hyper_hypercube`). Otherwise write
  n = Σ_l a_l (k + 1)^{p_l} with p_1 > p_2 > … and 1 <= a_l <= k, let each part V_l of a_l (k + 1)^{p_l} nodes reach its
  own mean, and then for l = 1, 2, …: all nodes of later parts exchange shares with a node in each of the a_l blocks of
  V_l, so that their mean and that of each block become the mean of all; the blocks average on, and the later parts go
  on with l + 1.

References:
    Ying, Yuan, Chen, Hu, Pan, Yin. Exponential graph is provably efficient for decentralized deep training. NeurIPS
    2021, arXiv 2110.13363.
    Takezawa, Sato, Bao, Niwa, Yamada. Beyond exponential graph: communication-efficient topologies for decentralized
    learning via finite-time convergence. NeurIPS 2023, arXiv 2305.11420 (Algorithms 1-3).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.graphs.network import Network

__all__ = ["base_graphs", "exponential", "hyper_hypercube", "one_peer_exponential", "random_regular", "torus"]

Matrices = list[Float64[ndarray, "nodes nodes"]]

_ATTEMPTS = 1_000


def torus(rows: int, columns: int) -> Network:
    """A grid whose rows and columns are rings: node r · columns + c is in row r. Between two rows there is one link."""
    require(rows, "rows", least=1)
    require(columns, "columns", least=1)
    places = product(range(rows), range(columns))
    links = set()
    for r, c in places:
        for other in ((r + 1) % rows * columns + c, r * columns + (c + 1) % columns):
            links.add((min(r * columns + c, other), max(r * columns + c, other)))
    edges = sorted(link for link in links if link[0] != link[1])
    return Network.of(rows * columns, edges, name=f"torus {rows} × {columns}")


def random_regular(nodes: int, degree: int, rng: np.random.Generator) -> Network:
    """A connected graph in which every node has ``degree`` links, drawn by pairing half-links (networkx).

    Args:
        nodes: how many; nodes · degree is even.
        degree: of each node, below ``nodes``.
        rng: generator.

    Raises:
        ConfigError: when there is no such graph, or 1,000 draws were not connected.
    """
    require(nodes, "nodes", least=1)
    require(degree, "degree", least=0)
    if degree >= nodes or nodes * degree % 2 or (degree < 2 and nodes > degree + 1):
        mend = "Give a degree below the number of nodes, 2 or more, and one of them even."
        raise ConfigError(f"no connected graph of {nodes} nodes has degree {degree} at each", mend=mend)
    import networkx as nx  # half a second to import

    for _ in range(_ATTEMPTS):
        graph = nx.random_regular_graph(degree, nodes, seed=int(rng.integers(2**31)))
        if nx.is_connected(graph):
            return Network.of(nodes, sorted(map(_sorted, graph.edges)), name=f"random {degree}-regular {nodes}")
    raise ConfigError(f"{_ATTEMPTS} graphs of degree {degree} were not connected", mend="Give a larger degree.")


def exponential(nodes: int) -> Int64[ndarray, "arcs 2"]:
    """Arcs of the static exponential graph: node i sends to i + 1, i + 2, i + 4, … (mod n), ⌈log₂ n⌉ of them."""
    require(nodes, "nodes", least=1)
    start = np.arange(nodes)
    offsets = [2**k for k in range((nodes - 1).bit_length())]
    return np.array([(i, (i + offset) % nodes) for i in start.tolist() for offset in offsets], np.int64).reshape(-1, 2)


def one_peer_exponential(nodes: int) -> Matrices:
    """One matrix for each of ⌈log₂ n⌉ rounds: node i keeps half and gets half of i − 2^k. To be repeated."""
    require(nodes, "nodes", least=1)
    identity = np.eye(nodes)
    return [(identity + np.roll(identity, 2**k, axis=0)) / 2 for k in range((nodes - 1).bit_length())]


def hyper_hypercube(nodes: int, degree: int) -> Matrices:
    """Groups of each factor of n average in turn: exact after as few rounds as n has factors of at most degree + 1.

    Raises:
        ConfigError: when n has a prime factor above degree + 1.
    """
    require(nodes, "nodes", least=1)
    require(degree, "degree", least=1)
    factors = _factors(nodes, degree + 1)
    if factors is None:
        what = f"{nodes} nodes have a prime factor above {degree + 1}"
        raise ConfigError(what, mend="Use base_graphs, or a larger degree.")
    return _averages(nodes, np.arange(nodes), factors)


def base_graphs(nodes: int, degree: int = 1) -> Matrices:
    """The Base-(k + 1) graphs: exact averages after finitely many rounds, for every n.

    Args:
        nodes: n.
        degree: k, the most neighbours that a node has in a round.

    Returns:
        Symmetric doubly stochastic matrices W_1, …, W_T with W_T … W_1 = J. Of two constructions the one of fewer
        rounds: the one above for all nodes, or for each of m groups of n / m nodes, followed by averages across the
        groups, where m is the part of n with prime factors up to k + 1.
    """
    require(nodes, "nodes", least=1)
    require(degree, "degree", least=1)
    smooth = 1
    for prime in range(2, degree + 2):
        while nodes % (smooth * prime) == 0:
            smooth *= prime
    size = nodes // smooth
    within = [np.kron(np.eye(smooth), each) for each in _simple(size, degree)]
    across = [np.kron(each, np.eye(size)) for each in hyper_hypercube(smooth, degree)]
    return min(_simple(nodes, degree), within + across, key=len)


def _simple(nodes: int, degree: int) -> Matrices:
    """The construction in the module's docstring."""
    if _factors(nodes, degree + 1) is not None:
        return hyper_hypercube(nodes, degree)
    parts = _parts(nodes, degree + 1)
    first = [_averages(nodes, np.concatenate(blocks), _digits(blocks, degree + 1)) for blocks in parts]
    rounds = _together(first)
    waiting: list[Matrices] = []  # blocks that average on while later parts exchange
    for index, blocks in enumerate(parts[:-1]):
        later = np.concatenate([node for others in parts[index + 1 :] for node in others])
        beside = [each.pop(0) for each in waiting if each]
        rounds.append(_product([_exchange(nodes, blocks, later), *beside]))
        inside = [_averages(nodes, block, [degree + 1] * _power(block, degree + 1)) for block in blocks]
        waiting.append(_together(inside))
    return rounds + _together(waiting)


def _parts(nodes: int, base: int) -> list[list[Int64[ndarray, "block"]]]:
    """The digits of n: for each a_l > 0 its a_l blocks of (k + 1)^p_l nodes, the largest first."""
    parts, start, size = [], 0, 1
    while size * base <= nodes:
        size *= base
    while size:
        count = (nodes - start) // size
        if count:
            parts.append([start + size * k + np.arange(size) for k in range(count)])
        start, size = start + size * count, size // base
    return parts


def _power(block: Int64[ndarray, "block"], base: int) -> int:
    return round(float(np.log(len(block)) / np.log(base)))


def _digits(blocks: list[Int64[ndarray, "block"]], base: int) -> list[int]:
    """Factors of a part: those of a block, then the number of blocks."""
    return [base] * _power(blocks[0], base) + ([len(blocks)] if len(blocks) > 1 else [])


def _averages(nodes: int, members: Int64[ndarray, "members"], factors: list[int]) -> Matrices:
    """Averages of members that differ in one digit, one digit a round; other nodes rest."""
    matrices, stride = [], 1
    for factor in factors:
        matrix = np.eye(nodes)
        place = np.arange(len(members))
        group = place // (stride * factor) * stride + place % stride
        matrix[np.ix_(members, members)] = (group[:, None] == group) / factor
        matrices.append(matrix)
        stride *= factor
    return matrices


def _exchange(
    nodes: int, blocks: list[Int64[ndarray, "block"]], later: Int64[ndarray, "later"]
) -> Float64[ndarray, "nodes nodes"]:
    """Each later node and one node of every block: shares that make their means those of all."""
    total = sum(map(len, blocks))
    share = total / (len(blocks) * (total + len(later)))
    matrix = np.eye(nodes)
    for block in blocks:
        partners = block[: len(later)]
        matrix[later, partners] = matrix[partners, later] = share
        matrix[later, later] -= share
        matrix[partners, partners] -= share
    return matrix


def _together(sequences: list[Matrices]) -> Matrices:
    """Sequences over different nodes, side by side."""
    longest = max(map(len, sequences), default=0)
    return [_product([each[k] for each in sequences if k < len(each)]) for k in range(longest)]


def _product(matrices: Matrices) -> Float64[ndarray, "nodes nodes"]:
    """One round of matrices that move different nodes."""
    result = matrices[0]
    for each in matrices[1:]:
        result = np.asarray(each @ result)
    return result


def _factors(number: int, most: int) -> list[int] | None:
    """The fewest factors from 2 to ``most`` with a product of ``number``; None when there are none."""
    if number <= most:
        return [number] if number > 1 else []
    found = (
        [factor, *rest]
        for factor in range(most, 1, -1)
        if number % factor == 0 and (rest := _factors(number // factor, most)) is not None
    )
    return min(found, key=len, default=None)


def _sorted(pair: tuple[int, int]) -> tuple[int, int]:
    return min(pair), max(pair)

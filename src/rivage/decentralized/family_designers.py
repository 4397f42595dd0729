"""Overlays that are the same for every network: families of graphs over the silos in their order, and sequences.

What they cost on a network is measured like that of any other overlay. They need none: without times they are what
decentralised methods are usually compared on.

- `Family`: one graph for all rounds.
- `Sequence`: a sparse graph in each round, repeated, whose mixing matrices multiply to the exact mean: every silo sends
  to one other in one-peer exponential, to at most ``degree`` in Base-(k + 1). With D_1 … D_T the delays of the rounds,
  the cycle time is the maximum cycle mean of their max-plus product, over T.

References: `rivage.graphs.families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import isqrt
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.core.seeding import Streams
from rivage.decentralized.designers import Links
from rivage.decentralized.designs import Design, design_of
from rivage.decentralized.mixing_plan import Cycled, MixingPlan
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.silos import Silos
from rivage.graphs.cycles import max_cycle_mean
from rivage.graphs.families import base_graphs, exponential, one_peer_exponential, random_regular, torus
from rivage.graphs.mixing import contraction
from rivage.graphs.network import Network
from rivage.graphs.topologies import cycle, hypercube, path

__all__ = ["Family", "Sequence"]

Square = Float64[ndarray, "silos silos"]

_FAMILIES = (
    "complete", "directed_ring", "exponential", "hypercube", "path", "random_regular", "ring", "torus",
)  # fmt: skip
_SEQUENCES = ("base", "one_peer_exponential")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A graph over the silos in their order.

    Args:
        family: ``complete``, ``ring`` (both ways), ``directed_ring``, ``path``, ``torus`` (rows and columns as equal as
            can be), ``hypercube`` (a power of two), ``exponential`` (to the silos 1, 2, 4, … further on) or
            ``random_regular``.
        degree: of a random regular graph, >= 2.
    """

    reference: ClassVar[Mapping[str, Any]] = {
        "key": "ying21",
        "authors": "Bicheng Ying and Kun Yuan and Yiming Chen and Hanbin Hu and Pan Pan and Wotao Yin",
        "title": "Exponential Graph is Provably Efficient for Decentralized Deep Training",
        "venue": "Advances in Neural Information Processing Systems",
        "year": 2021,
        "arxiv": "2110.13363",
        "part": "Section 3",
    }
    family: Literal[
        "complete", "directed_ring", "exponential", "hypercube", "path", "random_regular", "ring", "torus"
    ] = "complete"
    degree: int = 4

    def __post_init__(self) -> None:
        require_one_of(self.family, "family", _FAMILIES)
        require(self.degree, "degree", least=2)

    def require(self, silos: Silos, links: Links | None = None) -> None:
        """Refuse numbers of silos over which there is no such graph."""
        if self.family not in ("directed_ring", "exponential"):
            self._network(len(silos), 0)

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """The graph and what it is worth on this network.

        Raises:
            ConfigError: when there is no such graph over so many silos.
        """
        count = len(silos)
        if self.family == "directed_ring":
            return design_of(Overlay.ring(silos, range(count), self.family))
        if self.family == "exponential":
            return design_of(Overlay.of(silos, np.unique(_without_loops(exponential(count)), axis=0), self.family))
        return design_of(Overlay.links(silos, self._network(count, seed).edges.tolist(), self.family))

    def _network(self, count: int, seed: int) -> Network:
        match self.family:
            case "complete":
                return Network.of(count, [(i, j) for j in range(count) for i in range(j)])
            case "path":
                return path(count)
            case "torus":
                rows = max(divisor for divisor in range(1, isqrt(count) + 1) if count % divisor == 0)
                return torus(rows, count // rows)
            case "hypercube":
                return hypercube(_dimension(count))
            case "random_regular":
                return random_regular(count, self.degree, Streams(seed).numpy("random regular"))
        return cycle(count) if count > 2 else path(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A graph of few arcs in each round, repeated, over the silos in their order.

    Args:
        family: ``one_peer_exponential``: each silo sends to one, 1, 2, 4, … further on in turn; exact where their
            number is a power of two. ``base``: Base-(k + 1), exact for every number.
        degree: k of Base-(k + 1): the most neighbours of a silo in a round, >= 1.
    """

    reference: ClassVar[Mapping[str, Any]] = {
        "key": "takezawa23",
        "authors": "Yuki Takezawa and Ryoma Sato and Han Bao and Kenta Niwa and Makoto Yamada",
        "title": "Beyond Exponential Graph: Communication-Efficient Topologies for Decentralized Learning via "
        "Finite-time Convergence",
        "venue": "Advances in Neural Information Processing Systems",
        "year": 2023,
        "arxiv": "2305.11420",
        "part": "Algorithms 1 to 3",
    }
    family: Literal["base", "one_peer_exponential"] = "one_peer_exponential"
    degree: int = 1

    def __post_init__(self) -> None:
        require_one_of(self.family, "family", _SEQUENCES)
        require(self.degree, "degree", least=1)

    def require(self, silos: Silos, links: Links | None = None) -> None:
        """Refuse numbers of silos over which there is no such sequence."""
        self.plan(len(silos))

    def plan(self, silos: int) -> MixingPlan:
        """The mixing matrices of the sequence."""
        if silos == 1:
            return Cycled(matrices=[np.ones((1, 1))])
        if self.family == "one_peer_exponential":
            return Cycled(matrices=one_peer_exponential(silos))
        return Cycled(matrices=base_graphs(silos, self.degree))

    def design(self, silos: Silos, links: Links | None = None, *, seed: int = 0, least_ms: float = 0.0) -> Design:
        """All arcs that are ever in use, and what the sequence is worth on this network."""
        plan = self.plan(len(silos))
        assert isinstance(plan, Cycled)
        pairs = [plan.arcs(round) for round in range(len(plan.matrices))]
        overlay = Overlay.of(silos, np.unique(np.concatenate(pairs), axis=0), self.family)
        together = reduce(np.matmul, reversed(plan.matrices))
        return Design(
            name=self.family,
            cycle_time_ms=_cycle_time_ms(silos, pairs),
            overlay=overlay,
            critical_circuit=(),
            spectral_gap=1 - min(1.0, contraction(together)) ** (1 / len(pairs)),
            max_degree=max(int(np.bincount(arcs.T[end]).max(initial=0)) for arcs in pairs for end in (0, 1)),
        )


def _cycle_time_ms(silos: Silos, pairs: list[Int64[ndarray, "arcs 2"]]) -> float:
    """Of rounds with these arcs, repeated."""
    matrices = [_delays(silos, arcs) for arcs in pairs]
    return max_cycle_mean(reduce(_max_plus, matrices), names=silos.names).mean / len(pairs)


def _delays(silos: Silos, arcs: Int64[ndarray, "arcs 2"]) -> Square:
    """Delays of a round: s T_c on the diagonal, −inf where there is no arc."""
    matrix = np.full((len(silos), len(silos)), -np.inf)
    sending, receiving = (np.bincount(arcs[:, end], minlength=len(silos)) for end in (0, 1))
    matrix[arcs[:, 0], arcs[:, 1]] = silos.delay_ms(arcs, sending=sending[arcs[:, 0]], receiving=receiving[arcs[:, 1]])
    np.fill_diagonal(matrix, silos.work_ms)
    return matrix


def _max_plus(one: Square, other: Square) -> Square:
    """max_k one_ik + other_kj."""
    return np.asarray((one[:, :, None] + other[None]).max(axis=1))


def _without_loops(arcs: Int64[ndarray, "arcs 2"]) -> Int64[ndarray, "arcs 2"]:
    return np.asarray(arcs[arcs[:, 0] != arcs[:, 1]])


def _dimension(count: int) -> int:
    if count & (count - 1):
        raise ConfigError(
            f"a hypercube over {count} silos", mend="Give a power of two, or another family, such as torus."
        )
    return count.bit_length() - 1

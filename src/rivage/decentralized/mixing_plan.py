"""Who sends to whom in each round, and with which weights the silos average what they get.

A plan gives one mixing matrix W a round, row i of W X at silo i; W_ij = 0 unless j sends to i or i = j. It says nothing
of what is mixed or how long it takes.

- An overlay that stays: Metropolis weights (or faster ones) where all arcs go both ways; on directed overlays the plain
  mean of what came, if that is doubly stochastic (a ring: ½ own, ½ of the predecessor), and else `balanced` weights;
  for push-sum every silo splits what it has evenly among itself and its out-neighbours, so that only columns need sum
  to 1, and no silo need know more than its own arcs.
- A star: the hub takes the exact mean and sends it back, W = J = 1 1ᵀ / n, in two transfers.
- MATCHA: matchings drawn from (seed, round), W = I − α L of the links in use.
- Sequences of sparse matrices whose product is J, repeated: one-peer exponential, Base-(k + 1).

References:
    Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS 2020.
    Xiao, Boyd. Fast linear iterations for distributed averaging. Systems & Control Letters 53, 2004.
    Assran, Loizou, Ballas, Rabbat. Stochastic gradient push for distributed deep learning. ICML 2019.
    Gharesifard, Cortés. When does a digraph admit a doubly stochastic adjacency matrix? American Control Conference
    2010; Sinkhorn, Knopp. Concerning nonnegative matrices and doubly stochastic matrices. Pacific Journal of
    Mathematics 21, 1967 (`balanced`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.decentralized.drawn import Matcha
from rivage.decentralized.overlays import Overlay
from rivage.graphs.fastest import fastest_mixing
from rivage.graphs.mixing import best_constant, metropolis, pull_weights, push_weights

__all__ = ["Cycled", "Drawn", "Exact", "Fixed", "MixingPlan", "Weighting", "arcs_of", "balanced", "fixed"]

Square = Float64[ndarray, "silos silos"]
Arcs = Int64[ndarray, "arcs 2"]
Weighting = Literal["metropolis", "best_constant", "fdla", "fmmc"]
"""How silos of an undirected overlay weigh each other, see `rivage.graphs.mixing` and `rivage.graphs.fastest`."""

_SUMS = 1e-13  # how far the sum of a row or column may be from 1
_SWEEPS = 100_000


class MixingPlan(Protocol):
    """One mixing matrix and its arcs for every round; a function of the round only."""

    @property
    def silos(self) -> int:
        """How many there are."""
        ...

    @property
    def hub(self) -> int | None:
        """The silo that takes the mean of all and sends it back; None where silos average for themselves."""
        ...

    def weights(self, round: int) -> Square:
        """W: row i at silo i, which receives from j where W_ij is not 0."""
        ...

    def arcs(self, round: int) -> Arcs:
        """Senders and receivers; of a star both ways, of which the ways to the hub come first in time."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Fixed:
    """The same overlay in every round; made by `fixed`.

    Args:
        matrix: W.
        pairs: the arcs.
    """

    matrix: Square
    pairs: Arcs
    hub: None = None

    @property
    def silos(self) -> int:
        """How many there are."""
        return len(self.matrix)

    def weights(self, round: int) -> Square:
        """W."""
        return self.matrix

    def arcs(self, round: int) -> Arcs:
        """Those of the overlay."""
        return self.pairs


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The exact mean in every round, by way of a hub.

    Args:
        silos: how many, the hub among them.
        hub: which of them.
    """

    silos: int
    hub: int

    def weights(self, round: int) -> Square:
        """J."""
        return np.full((self.silos, self.silos), 1 / self.silos)

    def arcs(self, round: int) -> Arcs:
        """To the hub, then from it."""
        others = np.array([k for k in range(self.silos) if k != self.hub], np.int64)
        up = np.stack([others, np.full_like(others, self.hub)], axis=1)
        return np.concatenate([up, up[:, ::-1]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """MATCHA: matchings drawn anew in each round. Any round replays alone.

    Args:
        law: what is drawn from.
        seed: of the draws.
    """

    law: Matcha
    seed: int
    hub: None = None

    @property
    def silos(self) -> int:
        """How many there are."""
        return len(self.law.silos)

    def weights(self, round: int) -> Square:
        """I − α L of the links in use."""
        return self.law.mixing(self._used(round))

    def arcs(self, round: int) -> Arcs:
        """The links in use, both ways."""
        links = self.law.links(self._used(round))
        return np.concatenate([links, links[:, ::-1]])

    def _used(self, round: int) -> ndarray:
        used: ndarray = self.law.draw(1, Streams(self.seed).numpy("overlay", round))[0]
        return used


@dataclass(frozen=True, kw_only=True, eq=False)
class Cycled:
    """A sequence of mixing matrices, repeated.

    Args:
        matrices: W of each round of the sequence, at least one.
    """

    matrices: Sequence[Square]
    hub: None = None

    @property
    def silos(self) -> int:
        """How many there are."""
        return len(self.matrices[0])

    def weights(self, round: int) -> Square:
        """That of its turn."""
        return self.matrices[round % len(self.matrices)]

    def arcs(self, round: int) -> Arcs:
        """Those of its turn."""
        return self._pairs[round % len(self.matrices)]

    @cached_property
    def _pairs(self) -> list[Arcs]:
        return [arcs_of(matrix) for matrix in self.matrices]


def fixed(overlay: Overlay, *, column: bool = False, weighting: Weighting = "metropolis") -> Fixed:
    """The plan of an overlay that stays.

    Args:
        overlay: who sends to whom.
        column: whether columns alone need sum to 1, as for push-sum: silos split evenly what they have.
        weighting: of undirected overlays, where rows and columns sum to 1.

    """
    matrix = push_weights(overlay.adjacency) if column else _doubly(overlay, weighting)
    return Fixed(matrix=matrix, pairs=overlay.arcs)


def arcs_of(weights: Square) -> Arcs:
    """Senders and receivers of the entries off the diagonal that are not 0."""
    receiver, sender = np.nonzero(np.where(np.eye(len(weights), dtype=bool), 0, weights))
    return np.stack([sender, receiver], axis=1).astype(np.int64)


def balanced(adjacency: Square) -> Square:
    """Doubly stochastic weights on any strongly connected overlay: W_ij = r_i c_j where j sends to i or i = j.

    Every arc is on a circuit, and a circuit with the loops of all other silos is a permutation: such a pattern always
    has doubly stochastic weights, and of these exactly one of this form. Sinkhorn's iteration finds it, in O(n²) a
    sweep and some thousand sweeps. Weights are small on arcs into silos that many send to.

    Args:
        adjacency: not 0 where the row sends to the column; strongly connected.
    """
    pattern = ((np.asarray(adjacency).T != 0) | np.eye(len(adjacency), dtype=bool)).astype(np.float64)
    rows = np.ones(len(pattern))
    for _ in range(_SWEEPS):
        columns = 1 / (pattern.T @ rows)
        rows = 1 / (pattern @ columns)
        if np.abs(columns * (pattern.T @ rows) - 1).max() < _SUMS:
            break
    return np.asarray(rows[:, None] * pattern * columns)


def _doubly(overlay: Overlay, weighting: Weighting) -> Square:
    if overlay.is_undirected:
        return _symmetric(overlay.adjacency, weighting)
    matrix = pull_weights(overlay.adjacency)
    return matrix if np.abs(matrix.sum(axis=0) - 1).max() < _SUMS else balanced(overlay.adjacency)


def _symmetric(adjacency: Square, weighting: Weighting) -> Square:
    if weighting == "metropolis" or len(adjacency) == 1:
        return metropolis(adjacency)
    if weighting == "best_constant":
        return best_constant(adjacency)
    return fastest_mixing(adjacency, nonnegative=weighting == "fmmc").weights

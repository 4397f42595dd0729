"""Overlays: who sends its model to whom in every round, and the delays that follow.

An overlay is a set of directed arcs over the silos of a network that makes them strongly connected. Silo j starts round
k + 1 when the models of round k of all its in-neighbours have come and its own work is done
(`rivage.decentralized.cycle_time`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, RivageError, nearest
from rivage.decentralized.silos import Silos
from rivage.graphs.cycles import require_strong

__all__ = ["Overlay"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlay:
    """A strongly connected set of arcs over silos.

    Args:
        silos: the nodes, and what they ask of the network.
        arcs: senders and receivers, as positions among the silos; no loops, each once.
        name: of the overlay, in messages and reports.

    Raises:
        ConfigError: for arcs that no overlay has, or when some silo cannot reach some other.

    Example:
        >>> from rivage.graphs import PathRule, Underlay, connectivity
        >>> line = Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], distance_km=[1000, 3000])
        >>> silos = Silos.of(connectivity(line, PathRule.published()), model_bits=1e6, step_ms=5)
        >>> Overlay.links(silos, [(0, 1), (1, 2)]).delays_ms.tolist()
        [18.5, 18.5, 35.5, 35.5]
    """

    silos: Silos
    arcs: Int64[ndarray, "arcs 2"]
    name: str = "overlay"

    def __post_init__(self) -> None:
        try:
            self._check()
        except RivageError as error:
            raise error.at(f'overlay "{self.name}"') from None

    @classmethod
    def of(cls, silos: Silos, arcs: Iterable[Sequence[int]], name: str = "overlay") -> Overlay:
        """An overlay from plain pairs."""
        return cls(silos=silos, arcs=_pairs(arcs), name=name)

    @classmethod
    def links(cls, silos: Silos, links: Iterable[Sequence[int]], name: str = "overlay") -> Overlay:
        """Both directions of undirected links."""
        pairs = _pairs(links)
        return cls(silos=silos, arcs=np.stack([pairs, pairs[:, ::-1]], axis=1).reshape(-1, 2), name=name)

    @classmethod
    def ring(cls, silos: Silos, order: Sequence[int], name: str = "ring") -> Overlay:
        """Each silo sends to the next in order, the last to the first."""
        nodes = np.asarray(order, np.int64)
        arcs = np.stack([nodes, np.roll(nodes, -1)], axis=1)
        return cls(silos=silos, arcs=arcs if len(nodes) > 1 else arcs[:0], name=name)

    @classmethod
    def named(cls, silos: Silos, arcs: Iterable[tuple[str, str]], name: str = "overlay") -> Overlay:
        """An overlay from pairs of names.

        Raises:
            ConfigError: for unknown names.
        """
        pairs = list(arcs)
        unknown = [end for pair in pairs for end in pair if end not in silos.names]
        if unknown:
            raise ConfigError(
                f'no silo "{unknown[0]}"',
                where=f'overlay "{name}"',
                mend=f"Silos are {', '.join(silos.names[:30])}. {nearest(unknown[0], silos.names)}".strip(),
            )
        return cls.of(silos, [(silos.names.index(one), silos.names.index(other)) for one, other in pairs], name)

    def __len__(self) -> int:
        return len(self.silos)

    @property
    def out_degrees(self) -> Int64[ndarray, "silos"]:
        """To how many each silo sends."""
        return np.bincount(self.arcs[:, 0], minlength=len(self))

    @property
    def in_degrees(self) -> Int64[ndarray, "silos"]:
        """From how many each silo receives."""
        return np.bincount(self.arcs[:, 1], minlength=len(self))

    @property
    def max_degree(self) -> int:
        """The largest number of silos that one sends to, or receives from."""
        return int(max(self.out_degrees.max(), self.in_degrees.max()))

    @property
    def is_undirected(self) -> bool:
        """Whether every arc is there in both directions."""
        pairs = set(map(tuple, self.arcs.tolist()))
        return all((other, one) in pairs for one, other in pairs)

    @property
    def delays_ms(self) -> Float64[ndarray, "arcs"]:
        """d(i, j) of each arc, with the degrees of this overlay."""
        sending, receiving = self.out_degrees[self.arcs[:, 0]], self.in_degrees[self.arcs[:, 1]]
        return self.silos.delay_ms(self.arcs, sending=sending, receiving=receiving)

    @property
    def delay_matrix_ms(self) -> Float64[ndarray, "silos silos"]:
        """The same as a matrix: s T_c on the diagonal, −inf where there is no arc."""
        matrix = np.full((len(self), len(self)), -np.inf)
        matrix[self.arcs[:, 0], self.arcs[:, 1]] = self.delays_ms
        np.fill_diagonal(matrix, self.silos.work_ms)
        return matrix

    @property
    def adjacency(self) -> Float64[ndarray, "silos silos"]:
        """1 where the row sends to the column."""
        matrix = np.zeros((len(self), len(self)))
        matrix[self.arcs[:, 0], self.arcs[:, 1]] = 1
        return matrix

    def arc_names(self) -> list[tuple[str, str]]:
        """The arcs as pairs of names."""
        names = self.silos.names
        return [(names[one], names[other]) for one, other in self.arcs.tolist()]

    def _check(self) -> None:
        arcs, names = self.arcs, self.silos.names
        if arcs.ndim != 2 or arcs.shape[1] != 2 or arcs.dtype != np.int64:
            raise ConfigError(f"arcs are {arcs.dtype} of shape {arcs.shape}", mend="Give int64 pairs, (arcs, 2).")
        require_strong(len(self), arcs, names)  # which refuses arcs that leave the silos first
        loops = arcs[:, 0] == arcs[:, 1]
        if loops.any():
            who = names[int(arcs[loops][0, 0])]
            raise ConfigError(f'"{who}" sends to itself', mend="Leave it out: a silo always keeps its own model.")
        if len(np.unique(arcs, axis=0)) < len(arcs):
            kinds, times = np.unique(arcs, axis=0, return_counts=True)
            one, other = kinds[int(times.argmax())].tolist()
            raise ConfigError(f'"{names[one]}" sends to "{names[other]}" twice', mend="Give each arc once.")


def _pairs(pairs: Iterable[Sequence[int]]) -> Int64[ndarray, "pairs 2"]:
    return np.array([tuple(pair) for pair in pairs], np.int64).reshape(-1, 2)

"""The networks that a study of caches can name: the usual graphs, a few real ones, and files of yours.

Each kind is a frozen dataclass that calls a builder of `rivage.graphs.topologies` or reads a file. Links cost what the
file says, and 1 where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rivage.core.errors import ConfigError, require
from rivage.core.registry import Registry
from rivage.graphs import topologies
from rivage.graphs.network import Network
from rivage.studies.games.link_files import read_links

__all__ = [
    "TOPOLOGIES",
    "Abilene",
    "BalancedTree",
    "Cycle",
    "Dtelekom",
    "ErdosRenyi",
    "Geant",
    "Grid",
    "Hypercube",
    "Line",
    "LinkFile",
    "UnderlayFile",
]

_HERE = "rivage.studies.games.network_topologies"

TOPOLOGIES = Registry(
    "rivage.topologies",
    "network",
    {
        "abilene": f"{_HERE}:Abilene",
        "balanced_tree": f"{_HERE}:BalancedTree",
        "cycle": f"{_HERE}:Cycle",
        "dtelekom": f"{_HERE}:Dtelekom",
        "erdos_renyi": f"{_HERE}:ErdosRenyi",
        "file": f"{_HERE}:UnderlayFile",
        "geant": f"{_HERE}:Geant",
        "grid": f"{_HERE}:Grid",
        "hypercube": f"{_HERE}:Hypercube",
        "links": f"{_HERE}:LinkFile",
        "path": f"{_HERE}:Line",
    },
)
"""Kind -> settings of a network; plug-ins register theirs under the entry-point group of this name."""

_MOST_NODES = 10_000  # paths are checked against a table of all pairs of nodes


def _require_nodes(nodes: int) -> None:
    if nodes > _MOST_NODES:
        raise ConfigError(f"the network would have {nodes:,} nodes", mend=f"Give at most {_MOST_NODES:,}.")


@dataclass(frozen=True, slots=True)
class Line:
    """Nodes in a line, 0 – 1 – … .

    Args:
        nodes: how many, >= 1.
    """

    nodes: int

    def __post_init__(self) -> None:
        require(self.nodes, "nodes", least=1)
        _require_nodes(self.nodes)

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.path(self.nodes)


@dataclass(frozen=True, slots=True)
class Cycle:
    """A line whose ends are joined.

    Args:
        nodes: how many, >= 3.
    """

    nodes: int

    def __post_init__(self) -> None:
        require(self.nodes, "nodes", least=3)
        _require_nodes(self.nodes)

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.cycle(self.nodes)


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows and columns; node r · columns + c stands in row r.

    Args:
        rows: >= 1.
        columns: >= 1.
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        require(self.rows, "rows", least=1)
        require(self.columns, "columns", least=1)
        _require_nodes(self.rows * self.columns)

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.grid(self.rows, self.columns)


@dataclass(frozen=True, slots=True)
class BalancedTree:
    """A tree; node 0 is the root, the leaves have the highest numbers.

    Args:
        degree: children of every node above the leaves, >= 1.
        depth: links from the root to a leaf, >= 0.
    """

    degree: int
    depth: int

    def __post_init__(self) -> None:
        require(self.degree, "degree", least=1)
        require(self.depth, "depth", least=0)
        _require_nodes(self.depth + 1 if self.degree == 1 else self.degree ** min(self.depth, 64))

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.balanced_tree(self.degree, self.depth)


@dataclass(frozen=True, slots=True)
class Hypercube:
    """Nodes are linked when their numbers differ in one bit.

    Args:
        dimension: bits, >= 0.
    """

    dimension: int

    def __post_init__(self) -> None:
        require(self.dimension, "dimension", least=0)
        _require_nodes(2 ** min(self.dimension, 64))

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.hypercube(self.dimension)


@dataclass(frozen=True, slots=True)
class ErdosRenyi:
    """Every pair is linked with one probability; drawn for each seed until it hangs together.

    Args:
        nodes: how many, >= 1.
        p: probability of a link, in [0, 1].
    """

    nodes: int
    p: float

    def __post_init__(self) -> None:
        require(self.nodes, "nodes", least=1)
        _require_nodes(self.nodes)
        if not 0 <= self.p <= 1:
            raise ConfigError(f"p is {self.p}", mend="Give a probability.")

    def build(self, rng: np.random.Generator) -> Network:
        """The network.

        Raises:
            ConfigError: when p is so low that no draw is connected.
        """
        return topologies.erdos_renyi(self.nodes, self.p, rng)


@dataclass(frozen=True, slots=True)
class Abilene:
    """Internet2's backbone: 9 nodes with names, 13 links."""

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.abilene()


@dataclass(frozen=True, slots=True)
class Geant:
    """The European research network: 22 nodes, 33 links."""

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.geant()


@dataclass(frozen=True, slots=True)
class Dtelekom:
    """Deutsche Telekom's backbone: 68 nodes, 273 links."""

    def build(self, rng: np.random.Generator) -> Network:
        """The network."""
        return topologies.dtelekom()


@dataclass(frozen=True, slots=True)
class UnderlayFile:
    """A network of yours, as TOML, GML or GraphML; `rivage.graphs.load_underlay` reads it.

    Args:
        path: the file.
        cost: of a link, by what the file knows of it: ``round_trip_ms``, ``latency_ms``, ``distance_km``, or ``hops``,
            which is 1 for every link.
    """

    path: Path
    cost: Literal["round_trip_ms", "latency_ms", "distance_km", "hops"] = "round_trip_ms"

    def build(self, rng: np.random.Generator) -> Network:
        """The network.

        Raises:
            ConfigError: for a file that cannot be read, is no connected network, or does not know the cost.
        """
        from rivage.graphs.underlay_files import load_underlay

        try:
            underlay = load_underlay(self.path)
        except ConfigError as error:
            if self.path.suffix.lower() != ".csv":
                raise
            mend = f'{error.mend} A CSV with a line for each link is kind = "links".'
            raise ConfigError(error.what, where=error.where, mend=mend.strip()) from error
        _require_nodes(len(underlay))
        try:
            return underlay.network(self.cost)
        except ConfigError as error:
            known = [name for name in ("latency_ms", "distance_km") if getattr(underlay, name) is not None]
            others = ", ".join(f'"{name}"' for name in (*known, "hops"))
            raise ConfigError(error.what, where=str(self.path), mend=f"Give it there, or set cost: {others}.") from None


@dataclass(frozen=True, slots=True)
class LinkFile:
    """A network of yours, as CSV: a line for each link, columns ``from``, ``to`` and, where links differ, ``cost``.

    Args:
        path: the file.
    """

    path: Path

    def build(self, rng: np.random.Generator) -> Network:
        """The network.

        Raises:
            ConfigError: for a file that cannot be read, listing the lines that are wrong.
        """
        network = read_links(self.path)
        _require_nodes(network.nodes)
        return network

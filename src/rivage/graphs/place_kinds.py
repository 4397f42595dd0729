"""Networks that a study spells out itself: node by node and link by link, or by the names of cities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rivage.core.errors import require, require_one_of
from rivage.graphs.geography import cities
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_tables import LinkTable, NodeTable, UnderlayTable, assemble

__all__ = ["Cities", "Described"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A network that is written into the study.

    Args:
        nodes: at least one.
        links: between them.
        name: of the network.
    """

    nodes: tuple[NodeTable, ...]
    links: tuple[LinkTable, ...] = ()
    name: str = "network"

    def __post_init__(self) -> None:
        self.build()  # what several tables say together is checked where it is read

    def build(self) -> Underlay:
        """Put it together."""
        return assemble(UnderlayTable(nodes=self.nodes, links=self.links, name=self.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cities:
    """A network between cities, see `rivage.graphs.cities`.

    Args:
        places: their names.
        ms_per_km: one-way latency of a link per km, >= 0; light in fibre takes 0.005.
        ms_per_link: one-way latency to add for each link, >= 0.
        links: which places are linked.
        neighbours: how many nearest places each is linked to, for ``nearest``, >= 1.
    """

    places: tuple[str, ...]
    ms_per_km: float
    ms_per_link: float = 0.0
    links: Literal["mesh", "tree", "nearest"] = "nearest"
    neighbours: int = 2

    def __post_init__(self) -> None:
        require(self.ms_per_km, "ms_per_km", least=0.0)
        require(self.ms_per_link, "ms_per_link", least=0.0)
        require_one_of(self.links, "links", ("mesh", "tree", "nearest"))
        require(self.neighbours, "neighbours", least=1)
        self.build()

    def build(self) -> Underlay:
        """Draw the links."""
        underlay = cities(self.places, links=self.links, neighbours=self.neighbours)
        return underlay.with_links(latency_ms=self.ms_per_km * underlay.known("distance_km") + self.ms_per_link)

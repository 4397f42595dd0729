"""What the graph formats of others say, made into an `Underlay`: nodes and links with free attributes.

Read are the attributes below; others are passed over. Of an attribute that is there twice the first counts.

====================================================  =============================================
of a node                                             becomes
====================================================  =============================================
``label``, else ``id``                                its name
``latitude``, ``longitude`` (or capitalised)          coordinates, in degrees
``tier``, ``access_bps``, ``access_up_bps``,          themselves
``access_down_bps``
====================================================  =============================================

====================================================  =============================================
of a link                                             becomes
====================================================  =============================================
``distance_km``, else ``distance``                    its length, in km
``capacity_bps``, ``capacity``, ``LinkSpeedRaw``      its capacity, in bit/s: the first of them
``latency_ms``, ``round_trip_ms``                     themselves
====================================================  =============================================

These files often lack capacities, coordinates, tiers or access rates here and there; then none is kept, and
`Underlay.left_out` tells whoever needs them. Distances and latencies that only some links have are refused: paths would
go wrong unseen. So are directed graphs, parallel links and everything that `rivage.graphs.Underlay` refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rivage.core.errors import ConfigError, RivageError
from rivage.core.settings import combine
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_tables import LinkTable, NodeTable, UnderlayTable, assemble

__all__ = ["Entry", "Graph", "describe"]

_NODE = {
    "latitude": ("latitude", "Latitude"),
    "longitude": ("longitude", "Longitude"),
    "access_bps": ("access_bps",),
    "access_up_bps": ("access_up_bps",),
    "access_down_bps": ("access_down_bps",),
}
_LINK = {
    "latency_ms": ("latency_ms",),
    "round_trip_ms": ("round_trip_ms",),
    "distance_km": ("distance_km", "distance"),
    "capacity_bps": ("capacity_bps", "capacity", "LinkSpeedRaw"),
}

T = TypeVar("T", NodeTable, LinkTable)


@dataclass(slots=True)
class Entry:
    """A node, a link or the graph itself, with the line it begins at."""

    line: int
    values: dict[str, Any] = field(default_factory=dict)

    def number(self, names: Sequence[str]) -> float | None:
        """The first of the attributes that is there.

        Raises:
            ConfigError: when it is no number.
        """
        name = next((name for name in names if self.values.get(name) is not None), None)
        if name is None:
            return None
        value = self.values[name]
        if isinstance(value, int | float):
            return float(value)
        raise ConfigError(f'{name} is "{value}"', mend="Give a number.")


@dataclass(slots=True)
class Graph:
    """One graph of a file."""

    head: Entry
    nodes: list[Entry] = field(default_factory=list)
    links: list[Entry] = field(default_factory=list)


def describe(graph: Graph, name: str) -> Underlay:
    """The underlay of a graph.

    Args:
        graph: what a reader found.
        name: of the network, when the graph has none.

    Raises:
        ConfigError: listing everything that is wrong, with lines.
    """
    problems: list[RivageError] = []
    if graph.head.values.get("directed") not in (None, 0, "0", "undirected"):
        problems.append(ConfigError("the graph is directed", mend="Give each link once, undirected."))
    nodes = _built(graph.nodes, _node, problems)
    names = {entry.values.get("id"): node.name for entry, node in zip(graph.nodes, nodes, strict=True) if node}
    seen: set[object] = set()
    for entry in graph.nodes:
        if entry.values.get("id") in seen:
            what = f"several nodes have id {entry.values.get('id')}"
            problems.append(ConfigError(what, where=f"line {entry.line}", mend="Number them all differently."))
        seen.add(entry.values.get("id"))
    links = _built(graph.links, lambda entry: _link(entry, names, seen), problems)
    if problems:
        raise combine(problems)
    head = graph.head.values
    whole_nodes, lack = _whole([node for node in nodes if node], (*_NODE, "tier"), "nodes")
    whole_links, more = _whole([link for link in links if link], ("capacity_bps",), "links")
    table = UnderlayTable(
        nodes=whole_nodes,
        links=whole_links,
        name=str(head.get("label") or head.get("name") or head.get("Network") or name),
        source=str(head.get("Source") or ""),
    )
    places = [[f"line {entry.line}" for entry in entries] for entries in (graph.nodes, graph.links)]
    return replace(assemble(table, node_places=places[0], link_places=places[1]), left_out=_by_field({**lack, **more}))


def _built(entries: list[Entry], build: Callable[[Entry], T], problems: list[RivageError]) -> list[T | None]:
    """The tables of all entries, None where there is a problem."""
    tables: list[T | None] = []
    for entry in entries:
        try:
            tables.append(build(entry))
        except RivageError as error:
            problems.append(error.at(f"line {entry.line}"))
            tables.append(None)
    return tables


def _node(entry: Entry) -> NodeTable:
    if entry.values.get("id") is None:
        raise ConfigError("a node without id", mend="Give it one.")
    tier = entry.values.get("tier")
    return NodeTable(
        name=str(entry.values.get("label", entry.values["id"])),
        tier=None if tier is None else str(tier),
        **{key: entry.number(names) for key, names in _NODE.items()},
    )


def _link(entry: Entry, names: dict[Any, str], known: set[object]) -> LinkTable:
    ends = [entry.values.get("source"), entry.values.get("target")]
    for end in ends:
        if end is None:
            raise ConfigError("a link without source or target", mend="Give the ids of its two nodes.")
        if end not in known:
            raise ConfigError(f"no node has id {end}", mend="Links lead from id to id.")
    return LinkTable(
        ends=(names.get(ends[0], ""), names.get(ends[1], " ")),  # of a refused node: no second complaint
        **{key: entry.number(attributes) for key, attributes in _LINK.items()},
    )


def _whole(tables: list[T], fields: Sequence[str], what: str) -> tuple[tuple[T, ...], dict[str, str]]:
    """The tables without those fields that only some of them have, and how many lack them."""
    lacking = {name: sum(getattr(table, name) is None for table in tables) for name in fields}
    partial = {name: f"{count} of {len(tables)} {what}" for name, count in lacking.items() if 0 < count < len(tables)}
    return tuple(replace(table, **dict.fromkeys(partial)) for table in tables), partial  # type: ignore[arg-type]


def _by_field(lack: dict[str, str]) -> dict[str, str]:
    """By the fields of an underlay instead of the attributes in a file."""
    places: dict[str, tuple[str, ...]] = {
        "latitude": ("coordinates",),
        "longitude": ("coordinates",),
        "tier": ("tiers",),
        "access_bps": ("access_up_bps", "access_down_bps"),
    }
    return {field: count for name, count in lack.items() for field in places.get(name, (name,))}

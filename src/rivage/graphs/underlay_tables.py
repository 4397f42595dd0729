"""A described network, node by node and link by link, made into an `Underlay`; what every file format is turned into.

Each table checks itself, so that a reader can say where a fault stands; `assemble` checks what takes several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, RivageError, nearest
from rivage.core.settings import combine
from rivage.graphs.underlay import Underlay

__all__ = ["LinkTable", "NodeTable", "UnderlayTable", "assemble", "tabulate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeTable:
    """A node.

    Args:
        name: unlike any other.
        tier: a label, such as "cloud".
        latitude: in degrees.
        longitude: in degrees.
        access_bps: bits per second it can send, and receive, in all.
        access_up_bps: bits per second it can send, in place of ``access_bps``.
        access_down_bps: bits per second it can receive, in place of ``access_bps``.
    """

    name: str
    tier: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    access_bps: float | None = None
    access_up_bps: float | None = None
    access_down_bps: float | None = None

    def __post_init__(self) -> None:
        faults: list[RivageError] = []
        if not self.name:
            faults.append(ConfigError("the name is empty", mend="Name the node."))
        if (self.latitude is None) != (self.longitude is None):
            faults.append(ConfigError("latitude without longitude, or the reverse", mend="Give both or none."))
        for field, most in (("latitude", 90), ("longitude", 180)):
            value = getattr(self, field)
            if value is not None and not -most <= value <= most:
                faults.append(ConfigError(f"{field} is {value}", mend=f"Give degrees from −{most} to {most}."))
        faults += _unusable(self, ("access_bps", "access_up_bps", "access_down_bps"), zero=False)
        _refuse(faults, f'node "{self.name}"')

    @property
    def up_bps(self) -> float | None:
        """What it can send."""
        return self.access_bps if self.access_up_bps is None else self.access_up_bps

    @property
    def down_bps(self) -> float | None:
        """What it can receive."""
        return self.access_bps if self.access_down_bps is None else self.access_down_bps


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkTable:
    """A link, the same in both directions.

    Args:
        ends: names of its two nodes.
        latency_ms: to cross it one way.
        round_trip_ms: there and back, in place of ``latency_ms``; what ``ping`` shows.
        distance_km: its length.
        capacity_bps: bits per second in each direction.
    """

    ends: tuple[str, str]
    latency_ms: float | None = None
    round_trip_ms: float | None = None
    distance_km: float | None = None
    capacity_bps: float | None = None

    def __post_init__(self) -> None:
        faults: list[RivageError] = []
        if self.ends[0] == self.ends[1]:
            faults.append(ConfigError("the link joins a node with itself", mend="Remove it."))
        if self.latency_ms is not None and self.round_trip_ms is not None:
            faults.append(ConfigError("both latency_ms and round_trip_ms are given", mend="Give one of them."))
        faults += _unusable(self, ("latency_ms", "round_trip_ms", "distance_km"), zero=True)
        faults += _unusable(self, ("capacity_bps",), zero=False)
        _refuse(faults, f"link {self.label}")

    @property
    def label(self) -> str:
        """The link as its two names."""
        return "–".join(self.ends)

    @property
    def one_way_ms(self) -> float | None:
        """Latency one way, whichever way it is given."""
        return self.latency_ms if self.round_trip_ms is None else self.round_trip_ms / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class UnderlayTable:
    """A network as its file describes it.

    Args:
        nodes: at least one.
        links: none for a single node; without any, nodes with coordinates are linked every two.
        name: of the network, in messages and reports.
        source: where the description comes from.
        license: under which terms it came.
    """

    nodes: tuple[NodeTable, ...]
    links: tuple[LinkTable, ...] = ()
    name: str = "underlay"
    source: str = ""
    license: str = ""


def assemble(
    table: UnderlayTable,
    *,
    node_places: Sequence[str] | None = None,
    link_places: Sequence[str] | None = None,
    where: str = "",
) -> Underlay:
    """The underlay of a table.

    What some links (or nodes) have, all must have, so that no array has holes.

    Args:
        table: nodes and links.
        node_places: where each node stands in its file.
        link_places: where each link stands.
        where: the file.

    Raises:
        ConfigError: listing everything that is wrong, each with its place.
    """
    node_places = node_places or [f"[[nodes]] {number + 1}" for number in range(len(table.nodes))]
    link_places = link_places or [f"[[links]] {number + 1}" for number in range(len(table.links))]
    problems = [*_between(table, node_places, link_places), *_holes(table, node_places, link_places)]
    if problems:
        raise combine(problems, where)
    places = {node.name: place for place, node in enumerate(table.nodes)}
    coordinates = _coordinates(table.nodes)
    pairs = [[places[end] for end in link.ends] for link in table.links]
    if not pairs and coordinates is not None:  # sites on the Internet: who cares about its links
        pairs = [[one, other] for other in range(len(places)) for one in range(other)]
    try:
        return Underlay(
            names=tuple(places),
            edges=np.array(pairs, np.int64).reshape(-1, 2),
            latency_ms=_column([link.one_way_ms for link in table.links]),
            capacity_bps=_column([link.capacity_bps for link in table.links]),
            distance_km=_column([link.distance_km for link in table.links]),
            access_up_bps=_column([node.up_bps for node in table.nodes]),
            access_down_bps=_column([node.down_bps for node in table.nodes]),
            coordinates=coordinates,
            tiers=None if table.nodes[0].tier is None else tuple(node.tier or "" for node in table.nodes),
            name=table.name,
            source=table.source,
            license=table.license,
        )
    except RivageError as error:  # no path between some nodes
        raise (error.at(where) if where else error) from None


def tabulate(underlay: Underlay) -> UnderlayTable:
    """The table of an underlay; the inverse of `assemble`."""
    up, down = _cells(underlay.access_up_bps, len(underlay)), _cells(underlay.access_down_bps, len(underlay))
    places = [(None, None)] * len(underlay) if underlay.coordinates is None else underlay.coordinates.tolist()
    nodes = tuple(
        NodeTable(
            name=name,
            tier=None if underlay.tiers is None else underlay.tiers[node],
            latitude=places[node][0],
            longitude=places[node][1],
            access_bps=up[node] if up[node] == down[node] else None,
            access_up_bps=up[node] if up[node] != down[node] else None,
            access_down_bps=down[node] if up[node] != down[node] else None,
        )
        for node, name in enumerate(underlay.names)
    )
    links = len(underlay.edges)
    columns = (_cells(v, links) for v in (underlay.latency_ms, underlay.distance_km, underlay.capacity_bps))
    return UnderlayTable(
        nodes=nodes,
        links=tuple(
            LinkTable(
                ends=(underlay.names[one], underlay.names[other]), latency_ms=ms, distance_km=km, capacity_bps=bps
            )
            for (one, other), ms, km, bps in zip(underlay.edges.tolist(), *columns, strict=True)
        ),
        name=underlay.name,
        source=underlay.source,
        license=underlay.license,
    )


def _refuse(faults: Sequence[RivageError], where: str) -> None:
    """One error for all faults of one table: its reader adds the place, and lists it among others."""
    if faults:
        mends = dict.fromkeys(fault.mend for fault in faults)
        raise ConfigError("; ".join(fault.what for fault in faults), where=where, mend=" ".join(mends))


def _unusable(table: NodeTable | LinkTable, fields: Sequence[str], *, zero: bool) -> Iterator[ConfigError]:
    """Numbers that are negative, not finite, or zero where that means nothing."""
    for field in fields:
        value = getattr(table, field)
        if value is not None and not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
            need = "a finite number >= 0" if zero else "a finite number > 0, or remove the line"
            yield ConfigError(f"{field} is {value}", mend=f"Give {need}.")


def _between(table: UnderlayTable, node_places: Sequence[str], link_places: Sequence[str]) -> Iterator[ConfigError]:
    """Faults that take two tables: names and links given twice, links to nobody."""
    first: dict[object, str] = {}
    for node, place in zip(table.nodes, node_places, strict=True):
        if node.name in first:
            yield ConfigError(f'"{node.name}" is the name of {first[node.name]} too', where=place, mend="Rename one.")
        first.setdefault(node.name, place)
    if not table.nodes:
        yield ConfigError("there is no node", mend="Give at least one.")
    names = {node.name: None for node in table.nodes}
    known = f"Nodes are {', '.join(list(names)[:30])}{', ...' * (len(names) > 30)}."
    for link, place in zip(table.links, link_places, strict=True):
        for end in dict.fromkeys(link.ends):
            if end not in names:
                yield ConfigError(f'no node "{end}"', where=place, mend=f"{known} {nearest(end, names)}".strip())
        ends = frozenset(link.ends)
        if ends in first:
            mend = "Give each link once; links are the same in both directions."
            yield ConfigError(f"link {link.label} is {first[ends]} too", where=place, mend=mend)
        first.setdefault(ends, place)


def _holes(table: UnderlayTable, node_places: Sequence[str], link_places: Sequence[str]) -> Iterator[ConfigError]:
    """What some have and others lack."""
    labels = [f"link {link.label}" for link in table.links]
    columns: dict[str, Sequence[object]] = {
        "latency_ms (or round_trip_ms)": [link.one_way_ms for link in table.links],
        "distance_km": [link.distance_km for link in table.links],
        "capacity_bps": [link.capacity_bps for link in table.links],
    }
    for field, column in columns.items():
        yield from _lacking(field, column, labels, link_places)
    names = [f'node "{node.name}"' for node in table.nodes]
    rows: dict[str, Sequence[object]] = {
        "tier": [node.tier for node in table.nodes],
        "latitude and longitude": [node.latitude for node in table.nodes],
        "access_bps (or access_up_bps)": [node.up_bps for node in table.nodes],
        "access_bps (or access_down_bps)": [node.down_bps for node in table.nodes],
    }
    for field, row in rows.items():
        yield from _lacking(field, row, names, node_places)


def _lacking(
    field: str, values: Sequence[object], labels: Sequence[str], places: Sequence[str]
) -> Iterator[ConfigError]:
    lacking = [place for place, value in enumerate(values) if value is None]
    if 0 < len(lacking) < len(values):
        first = lacking[0]
        more = f", as {len(lacking) - 1} more of {len(values)}" if len(lacking) > 1 else ""
        what = f"{labels[first]} has no {field}{more}"
        yield ConfigError(what, where=places[first], mend="Give it to all or to none.")


def _column(values: Sequence[float | None]) -> Float64[ndarray, "values"] | None:
    known = [value for value in values if value is not None]
    return np.array(known, np.float64) if known else None


def _coordinates(nodes: Sequence[NodeTable]) -> Float64[ndarray, "nodes 2"] | None:
    known = [(node.latitude, node.longitude) for node in nodes if node.latitude is not None]
    return np.array(known, np.float64) if known else None


def _cells(values: Float64[ndarray, "values"] | None, length: int) -> list[float | None]:
    return [None] * length if values is None else values.tolist()

"""The physical network: nodes, the links between them, and what is known of both.

Links are undirected and the same in both directions, as the published networks are. What is measured between every two
nodes, and differs by direction, is a `rivage.graphs.path_rules.Connectivity`.

Nothing is derived here: a latency that follows from a distance is the decision of the caller, see
`rivage.graphs.path_rules.PathRule` and `with_links`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from numpy.typing import ArrayLike

from rivage.core.errors import ConfigError, nearest, require_one_of
from rivage.core.settings import combine
from rivage.graphs.network import Network

__all__ = ["Underlay", "Weight"]

Weight = Literal["round_trip_ms", "latency_ms", "distance_km", "hops"]
"""What crossing a link costs."""

_SHOWN = 5  # links or names listed in one message


@dataclass(frozen=True, kw_only=True, eq=False)
class Underlay:
    """An undirected connected network with latencies, capacities, distances and access rates, each known or None.

    An array that is there has a value for every link, or every node, and no value is NaN or infinite. The arrays are
    kept as they are given, not copied, and nothing here writes to them.

    Args:
        names: of the nodes, all different.
        edges: the two ends of each link, as positions among ``names``.
        latency_ms: time to cross each link one way, >= 0. A round trip takes twice as long.
        capacity_bps: bits per second of each link in each direction, > 0.
        distance_km: length of each link, >= 0.
        access_up_bps: bits per second that each node can send in all (C_UP), > 0.
        access_down_bps: bits per second that each node can receive in all (C_DN), > 0.
        coordinates: latitude and longitude of each node in degrees.
        tiers: a label for each node, such as "cloud".
        name: of the network, in messages and reports.
        source: where the description comes from.
        license: under which terms it came.
        left_out: what a file says of some nodes or links only, and is None for that reason: field -> how many lack it.

    Raises:
        ConfigError: naming all that is wrong.

    Example:
        >>> line = Underlay.of(["phone", "edge", "cloud"], [("phone", "edge"), ("edge", "cloud")], latency_ms=[3, 20])
        >>> line.network("round_trip_ms").weights.tolist()
        [6.0, 40.0]
    """

    names: tuple[str, ...]
    edges: Int64[ndarray, "edges 2"]
    latency_ms: Float64[ndarray, "edges"] | None = None
    capacity_bps: Float64[ndarray, "edges"] | None = None
    distance_km: Float64[ndarray, "edges"] | None = None
    access_up_bps: Float64[ndarray, "nodes"] | None = None
    access_down_bps: Float64[ndarray, "nodes"] | None = None
    coordinates: Float64[ndarray, "nodes 2"] | None = None
    tiers: tuple[str, ...] | None = None
    name: str = "underlay"
    source: str = ""
    license: str = ""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = list(self._shape_problems())
        if not problems:
            problems = [*self._name_problems(), *self._link_problems(), *self._value_problems()]
        if problems:
            raise combine(problems, f'underlay "{self.name}"')

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        links: Iterable[tuple[str, str]],
        *,
        latency_ms: ArrayLike | None = None,
        capacity_bps: ArrayLike | None = None,
        distance_km: ArrayLike | None = None,
        access_bps: ArrayLike | None = None,
        tiers: Sequence[str] | None = None,
        name: str = "underlay",
    ) -> Underlay:
        """An underlay from plain names; one number may stand for all links or nodes, and for both access rates.

        Raises:
            ConfigError: naming all that is wrong, links that lead to unknown nodes first.
        """
        pairs = list(links)
        edges = _numbered(names, pairs, name)
        access = _spread(access_bps, len(names))
        return cls(
            names=tuple(names),
            edges=edges,
            latency_ms=_spread(latency_ms, len(pairs)),
            capacity_bps=_spread(capacity_bps, len(pairs)),
            distance_km=_spread(distance_km, len(pairs)),
            access_up_bps=access,
            access_down_bps=access,
            tiers=None if tiers is None else tuple(tiers),
            name=name,
        )

    def __len__(self) -> int:
        return len(self.names)

    def node(self, name: str) -> int:
        """The position of a named node.

        Raises:
            ConfigError: for unknown names.
        """
        if name not in self.names:
            raise _unknown(name, self.names).at(f'underlay "{self.name}"')
        return self.names.index(name)

    def label(self, link: int) -> str:
        """A link as its two names."""
        one, other = self.edges[link].tolist()
        return f"{self.names[one]}–{self.names[other]}"

    def tier(self, label: str) -> Int64[ndarray, "chosen"]:
        """The nodes that bear a label, ascending.

        Raises:
            ConfigError: when no node does.
        """
        found = np.flatnonzero(np.array(self.tiers or (), str) == label)
        if not len(found):
            known = ", ".join(dict.fromkeys(self.tiers or ())) or "there are none"
            raise ConfigError(f'no tier "{label}"', where=f'underlay "{self.name}"', mend=f"Tiers: {known}.")
        return found

    def network(self, weight: Weight = "round_trip_ms") -> Network:
        """The same links with one cost each, for `rivage.graphs.paths`.

        Raises:
            ConfigError: when the underlay does not know what the cost is made of.
        """
        require_one_of(weight, "weight", get_args(Weight))
        if weight == "hops":
            costs = np.ones(len(self.edges))
        elif weight == "distance_km":
            costs = self.known("distance_km")
        else:
            costs = self.known("latency_ms") * (2 if weight == "round_trip_ms" else 1)
        return Network(nodes=len(self), edges=self.edges, weights=costs, names=self.names, name=self.name)

    def known(
        self, field: Literal["latency_ms", "capacity_bps", "distance_km", "access_up_bps", "access_down_bps"]
    ) -> Float64[ndarray, "values"]:
        """One of the arrays.

        Raises:
            ConfigError: when it is None.
        """
        values: Float64[ndarray, "values"] | None = getattr(self, field)
        if values is None and not field.startswith("access") and not len(self.edges):
            return np.zeros(0)  # a single node knows all about its links
        if values is None:
            give = "with_access" if field.startswith("access") else f"with_links({field}=...)"
            lack = f": {self.left_out[field]} lack it" if field in self.left_out else ""
            raise ConfigError(
                f"{field} is not known{lack}",
                where=f'underlay "{self.name}"',
                mend=f"Give it in the file, or by {give}.",
            )
        return values

    def with_links(
        self,
        *,
        latency_ms: ArrayLike | None = None,
        capacity_bps: ArrayLike | None = None,
        distance_km: ArrayLike | None = None,
    ) -> Underlay:
        """The same network with other values of its links; one number for all, or one each. None keeps what is there.

        Raises:
            ConfigError: for values that no link can have.
        """
        links = len(self.edges)
        return replace(
            self,
            latency_ms=self.latency_ms if latency_ms is None else _spread(latency_ms, links),
            capacity_bps=self.capacity_bps if capacity_bps is None else _spread(capacity_bps, links),
            distance_km=self.distance_km if distance_km is None else _spread(distance_km, links),
        )

    def with_access(self, up_bps: ArrayLike, down_bps: ArrayLike | None = None) -> Underlay:
        """The same network with other access rates; one number for all nodes, or one each. Down is up unless given.

        Raises:
            ConfigError: for rates that are not above 0.
        """
        up = _spread(up_bps, len(self))
        return replace(self, access_up_bps=up, access_down_bps=up if down_bps is None else _spread(down_bps, len(self)))

    def _shape_problems(self) -> Iterator[ConfigError]:
        if not self.names:
            yield ConfigError("there is no node", mend="Give at least one.")
        if self.edges.ndim != 2 or self.edges.shape[1] != 2 or self.edges.dtype != np.int64:
            yield ConfigError(
                f"edges are {self.edges.dtype} of shape {self.edges.shape}",
                mend="Give pairs of int64, shape (links, 2).",
            )
            return
        nodes, links = len(self.names), len(self.edges)
        shapes = {"latency_ms": (links,), "capacity_bps": (links,), "distance_km": (links,)}
        shapes |= {"access_up_bps": (nodes,), "access_down_bps": (nodes,)}
        for field, shape in {**shapes, "coordinates": (nodes, 2)}.items():
            values = getattr(self, field)
            if values is not None and (values.shape != shape or values.dtype != np.float64):
                yield ConfigError(f"{field} is {values.dtype} of shape {values.shape}", mend=f"Give float64, {shape}.")
        if self.tiers is not None and len(self.tiers) != nodes:
            yield ConfigError(f"{len(self.tiers)} tiers for {nodes} nodes", mend="Give one label for each node.")

    def _name_problems(self) -> Iterator[ConfigError]:
        seen: set[str] = set()
        twice = [name for name in self.names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        if twice:
            yield ConfigError(f"several nodes are called {_listed(map(_quoted, twice))}", mend="Rename all but one.")
        if "" in seen:
            yield ConfigError("a node has no name", mend="Name it.")

    def _link_problems(self) -> Iterator[ConfigError]:
        ends = self.edges
        outside = np.asarray(((ends < 0) | (ends >= len(self))).any(axis=1))
        if outside.any():
            pairs = _listed("–".join(map(str, pair)) for pair in ends[outside].tolist())
            yield ConfigError(f"links {pairs} leave the nodes 0 to {len(self) - 1}", mend="Use positions among names.")
            return
        loops = ends[:, 0] == ends[:, 1]
        if loops.any():
            yield ConfigError(f"links from a node to itself: {self._labels(loops)}", mend="Remove them.")
        twice = _repeated(ends)
        if twice.any():
            mend = "Give each link once; links are the same in both directions."
            yield ConfigError(f"links given twice: {self._labels(twice)}", mend=mend)
        apart = ~_reached(len(self), ends)
        if apart.any():
            far = _listed(_quoted(self.names[node]) for node in np.flatnonzero(apart))
            yield ConfigError(f'no path from "{self.names[0]}" to {far}', mend="Add links, or give two networks.")

    def _value_problems(self) -> Iterator[ConfigError]:
        for field, zero in (("latency_ms", True), ("distance_km", True), ("capacity_bps", False)):
            values = getattr(self, field)
            bad = None if values is None else ~_usable(values, zero=zero)
            if bad is not None and bad.any():
                need = (
                    "a finite number >= 0" if zero else "a finite number > 0; leave a link out to say it is not there"
                )
                what = f"{field} of {self._labels(bad)} is {_listed(map(str, values[bad]))}"
                yield ConfigError(what, mend=f"Give {need}.")
        for field in ("access_up_bps", "access_down_bps"):
            values = getattr(self, field)
            bad = None if values is None else ~_usable(values, zero=False)
            if bad is not None and bad.any():
                who = _listed(_quoted(self.names[node]) for node in np.flatnonzero(bad))
                what = f"{field} of {who} is {_listed(map(str, values[bad]))}"
                yield ConfigError(what, mend="Give a finite number > 0.")
        if self.coordinates is not None:
            bad = ~(np.abs(self.coordinates) <= [90, 180]).all(axis=1)
            if bad.any():
                who = _listed(_quoted(self.names[node]) for node in np.flatnonzero(bad))
                yield ConfigError(
                    f"{who}: coordinates outside the globe",
                    mend="Give latitude (−90 to 90) and longitude (−180 to 180) in degrees, in this order.",
                )

    def _labels(self, chosen: Bool[ndarray, "edges"]) -> str:
        return _listed(map(self.label, np.flatnonzero(chosen).tolist()))


def _numbered(names: Sequence[str], pairs: Sequence[tuple[str, str]], network: str) -> Int64[ndarray, "edges 2"]:
    """Pairs of names as pairs of positions."""
    places = {name: place for place, name in enumerate(names)}
    unknown = dict.fromkeys(end for pair in pairs for end in pair if end not in places)
    if unknown:
        raise combine([_unknown(end, names) for end in unknown], f'underlay "{network}"')
    return np.array([[places[end] for end in pair] for pair in pairs], np.int64).reshape(-1, 2)


def _unknown(name: str, names: Sequence[str]) -> ConfigError:
    known = f"Nodes are {', '.join(names[:30])}{', ...' * (len(names) > 30)}. {nearest(name, names)}"
    return ConfigError(f'no node "{name}"', mend=known.strip())


def _spread(value: ArrayLike | None, length: int) -> Float64[ndarray, "length"] | None:
    """One number for all; other arrays as they are, to be checked."""
    if value is None:
        return None
    array = np.asarray(value, np.float64)
    return np.full(length, array) if array.ndim == 0 else array


def _usable(values: Float64[ndarray, "values"], *, zero: bool) -> Bool[ndarray, "values"]:
    return np.asarray(np.isfinite(values) & ((values >= 0) if zero else (values > 0)))


def _listed(words: Iterable[str]) -> str:
    """The first words, and how many more there are."""
    every = list(words)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def _quoted(name: str) -> str:
    return f'"{name}"'


def _repeated(edges: Int64[ndarray, "edges 2"]) -> Bool[ndarray, "edges"]:
    """Which links are there before, in either direction."""
    _, first = np.unique(np.sort(edges, axis=1), axis=0, return_index=True)
    repeated = np.ones(len(edges), bool)
    repeated[first] = False
    return repeated


def _reached(nodes: int, edges: Int64[ndarray, "edges 2"]) -> Bool[ndarray, "nodes"]:
    """Which nodes have a path from node 0: labels flow along links, halving distances, until nothing changes."""
    label = np.arange(nodes)
    while True:
        least = label.copy()
        np.minimum.at(least, edges[:, 0], label[edges[:, 1]])
        np.minimum.at(least, edges[:, 1], label[edges[:, 0]])
        least = least[least]
        if (least == label).all():
            return np.asarray(label == 0)
        label = least

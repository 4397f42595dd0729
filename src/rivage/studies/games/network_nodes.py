"""From names in a study to nodes of its network: capacities, servers, and where requests enter.

Every method notes what is wrong, so that all faults are told at once; what it returns then stands for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, RivageError, nearest
from rivage.core.seeding import Streams
from rivage.data.requests import RequestTrace
from rivage.graphs.network import Network
from rivage.studies.games.link_files import read_servers
from rivage.studies.games.networks import NetworkTable, Node

__all__ = ["Nodes"]

_SHOWN = 30  # names listed in one message


@dataclass(frozen=True, eq=False)
class Nodes:
    """Reads what a study says about nodes.

    Args:
        table: the settings.
        network: that they are of.
        streams: of what is drawn.
        problems: gets what is wrong.
    """

    table: NetworkTable
    network: Network
    streams: Streams
    problems: list[RivageError]

    def capacities(self, items: int) -> Int64[ndarray, "nodes"]:
        """Items that each node keeps, of so many that there are."""
        given, nodes = self.table.capacities, self.network.nodes
        counts, before = np.zeros(nodes, np.int64), len(self.problems)
        if self.table.capacity_range is not None:
            low, high = self.table.capacity_range
            counts = self.streams.numpy("capacities").integers(low, high + 1, nodes)
        elif isinstance(given, Mapping):
            for name, count in given.items():
                counts[self._found([name], "capacities")] = count
        elif isinstance(given, tuple) and len(given) != nodes:
            what = f"{len(given)} capacities for {nodes} nodes"
            self._fault(what, "capacities", "Give one for each node, in their order, or a table from names to numbers.")
        else:
            counts[:] = np.array(given, np.int64)
        if not counts.any() and len(self.problems) == before:
            self._fault("no node keeps anything", "capacities", "Give at least one node room for an item.")
        if counts.max() > items:
            node = self.network.label(int(counts.argmax()))
            what = f"{node} keeps {counts.max():,}, and the trace has {items:,} item{'s' * (items > 1)}"
            self._fault(what, "capacities", f"Give at most {items}.")
        return counts

    def servers(self, trace: RequestTrace) -> Int64[ndarray, "items"]:
        """The node that serves each item."""
        given, items = self.table.servers, trace.items
        if self.table.serving_file is not None:
            return self._served(trace, self.table.serving_file)
        among = np.arange(self.network.nodes) if given == "random" else self._found(_listed(given), "servers")
        return self.streams.numpy("servers").choice(among, items) if len(among) else np.zeros(items, np.int64)

    def _served(self, trace: RequestTrace, path: Path) -> Int64[ndarray, "items"]:
        """What a file says about every item of the trace; others may stand there too."""
        nothing = np.zeros(trace.items, np.int64)
        try:
            told = read_servers(path)
        except RivageError as error:
            self.problems.append(error.at("[network] servers"))
            return nothing
        keys = list(map(str, range(trace.items) if trace.keys is None else trace.keys.tolist()))
        lacking = [key for key in keys if key not in told]
        if lacking:
            more = f", and {len(lacking) - 1} more have none" if len(lacking) > 1 else ""
            what = f'item "{lacking[0]}" of the trace has no server{more}'
            mend = "Give every item of the trace a line."
            self.problems.append(ConfigError(what, where=f"[network] servers, {path}", mend=mend))
            return nothing
        nodes = {name: self._names.get(name, self._numbers.get(_whole(name))) for name, _ in told.values()}
        unknown = {name: line for name, line in told.values() if nodes[name] is None}
        for name, line in list(unknown.items())[:_SHOWN]:
            mend = f"{nearest(name, self._names)} {self._known}".strip()
            place = f"[network] servers, {path}, line {line}"
            self.problems.append(ConfigError(f'no node "{name}"', where=place, mend=mend))
        return nothing if unknown else np.array([nodes[told[key][0]] for key in keys], np.int64)

    def entered(self, trace: RequestTrace) -> Int64[ndarray, "requests"]:
        """The node where each request enters."""
        given, nodes = self.table.origins, self.network.nodes
        if given == "trace":
            return self._told(trace)
        if not isinstance(given, int):
            among = self._found(_listed(given), "origins")
        elif given > nodes:
            mend = "Give fewer; a single node stands in brackets."
            self._fault(f"origins is {given}, and there are {nodes} nodes", "origins", mend)
            among = np.zeros(0, np.int64)
        else:
            among = np.sort(self.streams.numpy("origins").choice(nodes, given, replace=False))
        entered = self.streams.numpy("requests").choice(among, len(trace)) if len(among) else np.zeros(len(trace))
        return entered.astype(np.int64)

    def _told(self, trace: RequestTrace) -> Int64[ndarray, "requests"]:
        """The nodes of the column ``origin``."""
        where, nothing = f'[trace] "{trace.name}"', np.zeros(len(trace), np.int64)
        if trace.origin is None:
            mend = (
                "Give each request the node where it enters, or set [network] origins: a list of nodes, or how many "
                "are to be drawn."
            )
            self.problems.append(DataError('there is no column "origin"', where=where, mend=mend))
            return nothing
        asked, place = np.unique(trace.origin, return_inverse=True)
        unknown = [value for value in asked.tolist() if value not in self._numbers]
        if unknown:
            first = int(np.argmax(trace.origin == unknown[0])) + 1
            more = f", and {len(unknown) - 1} more are no nodes" if len(unknown) > 1 else ""
            what = f"origin {unknown[0]} of request {first} is no node{more}"
            self.problems.append(DataError(what, where=where, mend=self._known_numbers))
            return nothing
        return np.array([self._numbers[value] for value in asked.tolist()], np.int64)[place]

    def _fault(self, what: str, key: str, mend: str) -> None:
        self.problems.append(ConfigError(what, where=f"[network] {key}", mend=mend))

    def _found(self, given: Iterable[Node], key: str) -> Int64[ndarray, "found"]:
        """The nodes of some names; unknown ones are problems."""
        found = list[int]()
        for name in given:
            node = self._numbers.get(name) if isinstance(name, int) else self._names.get(name)
            if node is not None:
                found.append(node)
            elif isinstance(name, int):
                self._fault(f"no node {name}", key, self._known_numbers)
            else:
                self._fault(f'no node "{name}"', key, f"{nearest(name, self._names)} {self._known}".strip())
        return np.array(found, np.int64)

    @cached_property
    def _names(self) -> Mapping[str, int]:
        return {self.network.label(node): node for node in range(self.network.nodes)}

    @cached_property
    def _numbers(self) -> Mapping[int, int]:
        """Whole numbers that name nodes: names where all are such numbers, otherwise positions."""
        if all(name.isdecimal() for name in self._names):
            return {int(name): node for name, node in self._names.items()}
        return {node: node for node in range(self.network.nodes)}

    @property
    def _known(self) -> str:
        names = list(self._names)
        return f"Nodes are {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}."

    @property
    def _known_numbers(self) -> str:
        if all(name.isdecimal() for name in self._names):
            return self._known
        return f"A number is the position of a node, 0 to {self.network.nodes - 1}. {self._known}"


def _whole(text: str) -> int:
    """The number that a text is, or −1, which is no node."""
    return int(text) if text.isdecimal() else -1


def _listed(given: Node | Sequence[Node]) -> Sequence[Node]:
    return [given] if isinstance(given, str | int) else given

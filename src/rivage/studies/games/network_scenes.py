"""What the settings of a network of caches, a seed and a trace come to: an instance, and requests as its types.

Request types are the pairs of a node and an item that occur; policies know them beforehand, as in the publications, but
not how often or when they are asked for. Everything that is drawn comes from streams of its own, so that changing one
setting leaves the draws of the others as they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, RivageError
from rivage.core.seeding import Streams
from rivage.core.settings import combine
from rivage.data.requests import RequestTrace
from rivage.graphs.network import Network
from rivage.graphs.paths import follow, next_hops
from rivage.online.cache_networks import CacheNetwork
from rivage.online.network_optimum import Yardsticks, yardsticks
from rivage.studies.games.network_nodes import Nodes
from rivage.studies.games.networks import NetworkPlay, NetworkTable

__all__ = ["Scene", "draw_scene"]

_SHOWN = 5  # nodes or paths named in one message


@dataclass(frozen=True, eq=False)
class Scene:
    """A network of caches and what is asked of it.

    Args:
        instance: the network.
        requests: request types, in order.
        servers: node that serves each item.
        origins: nodes where requests enter.
        trace: name of the trace, for records.
        distinct: items asked for at all.
        unused: whether the trace says where requests enter, and nobody listens.
    """

    instance: CacheNetwork
    requests: Int64[ndarray, "requests"]
    servers: Int64[ndarray, "items"]
    origins: Int64[ndarray, "origins"]
    trace: str
    distinct: int
    unused: bool

    @cached_property
    def counts(self) -> Int64[ndarray, "types"]:
        """How often each type is asked for."""
        return self.instance.counts(self.requests)

    @cached_property
    def yardsticks(self) -> Yardsticks:
        """What fixed placements could have gained; the program is solved once."""
        return yardsticks(self.instance, self.counts)

    @cached_property
    def fingerprint(self) -> str:
        """Of all that is played on."""
        network, digest = self.instance.network, hashlib.blake2b(digest_size=16)
        sizes = np.array([network.nodes, self.instance.items, self.instance.horizon or 0])
        for part in (sizes, network.edges, network.weights, self.instance.capacities, self.instance.paths):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(self.instance.item.tobytes())
        digest.update(self.requests.tobytes())
        return digest.hexdigest()

    def answered(self, held: Bool[ndarray, "nodes items"]) -> Int64[ndarray, "nodes"]:
        """How many of the requests each node would answer if it held this all the time."""
        instance = self.instance
        inside = np.arange(instance.paths.shape[1]) < instance.hops[:, None]
        hits = held[instance.paths, instance.item[:, None]] & inside
        first, some = hits.argmax(axis=1), hits.any(axis=1)
        nodes = instance.paths[np.arange(len(first)), first][some]
        found = np.bincount(nodes, weights=self.counts[some], minlength=instance.network.nodes)
        return found.astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """What a record says of the trace."""
        return {
            "name": self.trace,
            "requests": len(self.requests),
            "items": self.instance.items,
            "distinct": self.distinct,
            "types": len(self.instance.item),
        }

    def describe_network(self) -> dict[str, Any]:
        """What a record says of the network, in a few numbers."""
        network = self.instance.network
        return {
            "name": network.name,
            "nodes": network.nodes,
            "links": len(network.edges),
            "slots": self.instance.slots,
            "origins": len(self.origins),
            "servers": len(np.unique(self.servers)),
        }

    def map(self) -> dict[str, Any]:
        """What can be drawn: links, capacities, how many items each node serves, where requests enter."""
        network = self.instance.network
        return {
            "links": network.edges.tolist(),
            "weights": network.weights.tolist(),
            "names": [network.label(node) for node in range(network.nodes)],
            "capacities": self.instance.capacities.tolist(),
            "serves": np.bincount(self.servers, minlength=network.nodes).tolist(),
            "origins": self.origins.tolist(),
        }


def draw_scene(study: NetworkPlay, streams: Streams, trace: RequestTrace | None = None) -> tuple[Scene, RequestTrace]:
    """Network and requests of a seed.

    Args:
        study: the settings.
        streams: of the seed.
        trace: the requests, when they are known already.

    Raises:
        ConfigError: listing everything that does not fit together.
        DataError: for a trace that cannot be used.
    """
    problems: list[RivageError] = []
    network = _network(study.network, streams.child("network"), problems)
    if trace is None:
        trace = _requests(study, streams, problems)
    if network is None or trace is None:
        raise combine(problems)
    nodes = Nodes(study.network, network, streams.child("network"), problems)
    capacities, servers, entered = nodes.capacities(trace.items), nodes.servers(trace), nodes.entered(trace)
    if problems:
        raise combine(problems)
    return _scene(study, network, trace, capacities, servers, entered), trace


def _network(table: NetworkTable, streams: Streams, problems: list[RivageError]) -> Network | None:
    try:
        network: Network = table.topology.build(streams.numpy("topology"))
    except RivageError as error:
        problems.append(error.at("[network]"))
        return None
    if table.weights == "given":
        return network
    if isinstance(table.weights, tuple):
        return network.with_random_weights(*table.weights, streams.numpy("weights"))
    return network.with_weights(float(table.weights))


def _requests(study: NetworkPlay, streams: Streams, problems: list[RivageError]) -> RequestTrace | None:
    try:
        trace: RequestTrace = study.trace.build(streams.child("trace"))
        if not len(trace):
            raise DataError("there is no request", mend="Give a trace of at least one request.")
    except RivageError as error:
        problems.append(error.at("[trace]"))
        return None
    return trace


def _scene(
    study: NetworkPlay,
    network: Network,
    trace: RequestTrace,
    capacities: Int64[ndarray, "nodes"],
    servers: Int64[ndarray, "items"],
    entered: Int64[ndarray, "requests"],
) -> Scene:
    keys, requests = np.unique(entered * trace.items + trace.item, return_inverse=True)
    origin, item = keys // trace.items, keys % trace.items
    instance = CacheNetwork(
        network=network,
        items=trace.items,
        capacities=capacities,
        item=item,
        paths=_paths(network, origin, servers[item]),
        horizon=len(requests) if study.network.horizon == "known" else None,
    )
    scene = Scene(
        instance=instance,
        requests=requests.astype(np.int64),
        servers=servers,
        origins=np.unique(origin),
        trace=trace.name,
        distinct=len(np.unique(item)),
        unused=trace.origin is not None and study.network.origins != "trace",
    )
    if not (scene.counts @ instance.costs) > 0:
        raise ConfigError(
            "no request costs anything: there is nothing to save",
            where="[network]",
            mend="Let requests enter at nodes that do not serve them, over links that cost something.",
        )
    return scene


def _paths(
    network: Network, origin: Int64[ndarray, "types"], server: Int64[ndarray, "types"]
) -> Int64[ndarray, "types longest"]:
    """Shortest paths, found once for each pair of nodes."""
    pairs, place = np.unique(np.stack([server, origin], axis=1), axis=0, return_inverse=True)
    routes, problems, hops = list[list[int]](), list[RivageError](), dict[int, Int64[ndarray, "nodes"]]()
    for target, start in pairs.tolist():
        if target not in hops:
            hops = {target: next_hops(network, target)}  # pairs are sorted by server
        try:
            routes.append(follow(network, hops[target], start, target))
        except RivageError as error:
            problems.append(error)
    if problems:
        raise combine(problems[:_SHOWN])
    table = np.full((len(pairs), max(map(len, routes))), -1, np.int64)
    for row, route in zip(table, routes, strict=True):
        row[: len(route)] = route
    return table[place.reshape(-1)]

"""Networks of caches: requests travel along paths, any node on the way may answer.

Ioannidis, Yeh. Adaptive caching networks with optimality guarantees. SIGMETRICS 2016, arXiv 1604.03490 (the model). Li,
Si Salem, Neglia, Ioannidis. Online caching networks with adversarial guarantees. SIGMETRICS 2022, doi 10.1145/3491047.

Node v keeps c_v items besides those it serves for good. A request for item i follows a path p_1 … p_P from the node
where it enters to the designated server of i, until a node holds i; the response goes back the same way. Its cost is
that of the response,

    Σ_{l<P} w_{l,l+1} Π_{l'≤l} (1 − x_{p_l', i}),

and its *gain* what that is below the cost without caches: W_v, the cost from v to the server, if v is the first node of
the path that holds i. A cache is c_v *slots* with one item each, so a placement is a choice of one item for each slot,
and the gain is monotone and submodular in the chosen pairs.

Requests are numbers of *request types*, pairs of an item and a path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, require
from rivage.core.seeding import Streams
from rivage.graphs.network import Network
from rivage.graphs.paths import follow, next_hops

__all__ = ["CacheNetwork", "NetworkOutcome", "NetworkPlayed", "NetworkPolicy", "play_network"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheNetwork:
    """Caches in a network, and what may be asked of them.

    Args:
        network: nodes, and the cost of a response over each link.
        items: catalog size N; items are 0 … N − 1.
        capacities: c_v, items that each node keeps besides those it serves.
        item: what each request type asks for.
        paths: nodes of each type's path, from where it enters to a designated server; −1 fills up shorter ones.
        horizon: requests T that will come; None when unknown.

    Raises:
        ConfigError: naming all that is wrong. Paths must be simple and follow links, and must not pass a server of
            their item before the end.
    """

    network: Network
    items: int
    capacities: Int64[ndarray, "nodes"]
    item: Int64[ndarray, "types"]
    paths: Int64[ndarray, "types longest"]
    horizon: int | None = None

    def __post_init__(self) -> None:
        found = [fault for fault, present in self._faults().items() if present]
        if not found:
            found = list(self._broken_paths())[:5]
        if found:
            raise ConfigError(
                "; ".join(found),
                where=f'caches in "{self.network.name}"',
                mend="Give counts >= 0 for all nodes and, for each request type, an item and a simple path to its "
                "server; CacheNetwork.routed finds shortest ones.",
            )

    @classmethod
    def routed(
        cls,
        network: Network,
        *,
        items: int,
        capacities: Sequence[int] | Int64[ndarray, "nodes"],
        servers: Sequence[int] | Int64[ndarray, "items"],
        origins: Sequence[int] | Int64[ndarray, "origins"],
        horizon: int | None = None,
    ) -> CacheNetwork:
        """Every item asked for at every origin, over shortest paths: type q · items + i enters at origins[q].

        Args:
            network: as above.
            items: as above.
            capacities: as above.
            servers: designated server of each item.
            origins: nodes where requests enter.
            horizon: as above.

        Raises:
            ConfigError: when there is no server for each item, an origin is no node, or no path leads to a server.
        """
        serving, entering = np.asarray(servers, np.int64), np.asarray(origins, np.int64)
        wrong = [v for v in entering.tolist() if not 0 <= v < network.nodes]
        if serving.shape != (items,) or wrong:
            raise ConfigError(
                f"origin {wrong[0]} is no node" if wrong else f"{items} items, servers of shape {serving.shape}",
                where=f'caches in "{network.name}"',
                mend=f"Give one server for each item, and origins of 0 to {network.nodes - 1}.",
            )
        hops = {int(server): next_hops(network, int(server)) for server in np.unique(serving)}
        routes = [follow(network, hops[int(server)], int(v), int(server)) for v in entering for server in serving]
        paths = np.full((len(routes), max(map(len, routes), default=1)), -1, np.int64)
        for row, route in zip(paths, routes, strict=True):
            row[: len(route)] = route
        return cls(
            network=network,
            items=items,
            capacities=np.asarray(capacities, np.int64),
            item=np.tile(np.arange(len(serving)), len(entering)),
            paths=paths,
            horizon=horizon,
        )

    def _faults(self) -> dict[str, bool]:
        types, ends = len(self.item), self.paths
        return {
            f"items is {self.items}": self.items < 1,
            f"{self.network.nodes} nodes, capacities of shape {self.capacities.shape}": self.capacities.shape
            != (self.network.nodes,),
            f"capacity {self.capacities.min(initial=0)}": bool((self.capacities < 0).any()),
            f"{types} request types, paths of shape {ends.shape}": ends.ndim != 2 or len(ends) != types or not types,
            f"a request type asks for no item of 0 to {self.items - 1}": bool(
                ((self.item < 0) | (self.item >= self.items)).any()
            ),
            f"a path has a node that is not 0 to {self.network.nodes - 1}": bool(
                ((ends < -1) | (ends >= self.network.nodes)).any()
            ),
            f"horizon is {self.horizon}": self.horizon is not None and self.horizon < 1,
        }

    def _broken_paths(self) -> Sequence[str]:
        """Faults of the paths, each told of the first type that has it; few paths are shared by many types."""
        ways, first = np.unique(self.paths, axis=0, return_index=True)
        adjacency, faults = self.network.adjacency, dict[int, str]()
        for number, path in zip(first.tolist(), ways, strict=True):
            nodes = path[path >= 0].tolist()
            if not nodes or (path[: len(nodes)] < 0).any() or len(set(nodes)) < len(nodes):
                faults[number] = f"the path of type {number}, {path.tolist()}, is not simple"
            elif not adjacency[nodes[:-1], nodes[1:]].all():
                faults[number] = f"the path of type {number}, {nodes}, leaves the links"
        return [faults[number] for number in sorted(faults)] or list(self._passed_servers())

    def _passed_servers(self) -> Iterator[str]:
        """Paths that go past a server of their item."""
        nodes, types = self.network.nodes, np.arange(len(self.item))
        served = np.unique(self.item * nodes + self.paths[types, self.hops])
        inside = np.arange(self.paths.shape[1]) < self.hops[:, None]
        passed = np.isin(self.item[:, None] * nodes + self.paths, served) & inside
        for number in np.flatnonzero(passed.any(axis=1)).tolist():
            path, item = self.paths[number, : self.hops[number] + 1].tolist(), self.item[number]
            yield f"the path of type {number}, {path}, passes a server of item {item} before its end"

    @cached_property
    def hops(self) -> Int64[ndarray, "types"]:
        """Links of each path."""
        return np.asarray((self.paths >= 0).sum(axis=1) - 1)

    @cached_property
    def savings(self) -> Float64[ndarray, "types longest"]:
        """W: cost from each place of each path to its end, what is saved by an answer from there."""
        ways, way = np.unique(self.paths, axis=0, return_inverse=True)
        costs = np.zeros(ways.shape)
        for row, path in zip(costs, ways, strict=True):
            nodes = path[path >= 0].tolist()
            links = [self.network.weight(one, other) for one, other in pairwise(nodes)]
            row[: len(links)] = np.cumsum(links[::-1])[::-1]
        return costs[way.reshape(-1)]

    @cached_property
    def most_saved(self) -> Float64[ndarray, "nodes"]:
        """The most that an answer from each node saves, 0 for nodes off all paths."""
        most = np.zeros(self.network.nodes)
        inside = np.arange(self.paths.shape[1]) < self.hops[:, None]
        np.maximum.at(most, self.paths[inside], self.savings[inside])
        return most

    @property
    def costs(self) -> Float64[ndarray, "types"]:
        """Cost of each request type without caches."""
        return self.savings[:, 0]

    @cached_property
    def first(self) -> Int64[ndarray, "n"]:
        """The first slot of each node, and at the end the number of slots."""
        return np.concatenate([[0], np.cumsum(self.capacities)]).astype(np.int64)

    @property
    def slots(self) -> int:
        """All slots together."""
        return int(self.first[-1])

    @cached_property
    def useful_slots(self) -> int:
        """Slots of nodes that some path passes before its end: no item elsewhere saves anything."""
        nodes = np.unique(self.paths[np.arange(self.paths.shape[1]) < self.hops[:, None]])
        return int(self.capacities[nodes].sum())

    def counts(self, requests: Int64[ndarray, "n"]) -> Int64[ndarray, "types"]:
        """How often each type is asked for.

        Raises:
            DataError: when a request is no type.
        """
        if requests.size and not 0 <= requests.min() <= requests.max() < len(self.item):
            raise DataError(
                f"a request of type {requests.min() if requests.min() < 0 else requests.max()}",
                where=f'caches in "{self.network.name}"',
                mend=f"Types are 0 to {len(self.item) - 1}.",
            )
        return np.bincount(requests, minlength=len(self.item)).astype(np.int64)

    def placement(self, contents: Int64[ndarray, "slots"]) -> Bool[ndarray, "nodes items"]:
        """What each node holds when slots hold these items; negative ones hold nothing."""
        held = np.zeros((self.network.nodes, self.items), bool)
        nodes = np.repeat(np.arange(self.network.nodes), self.capacities)
        held[nodes[contents >= 0], contents[contents >= 0]] = True
        return held

    def gains(self, placement: Bool[ndarray, "nodes items"]) -> Float64[ndarray, "types"]:
        """Gain of one request of each type under a fixed placement."""
        inside = np.arange(self.paths.shape[1]) < self.hops[:, None]
        held = placement[self.paths, self.item[:, None]] & inside
        gains: Float64[ndarray, "types"] = np.where(held, self.savings, 0.0).max(axis=1)
        return gains


@dataclass(slots=True)
class NetworkOutcome:
    """What a policy made of a block of requests; sums.

    Args:
        requests: how many there were.
        cost: of the responses.
        gain: cost without caches, minus ``cost``.
        hits: answered by a cache rather than a server.
        moves: items brought into a slot, each of which has to be fetched.
        control: links crossed by messages other than requests and responses.
    """

    requests: int = 0
    cost: float = 0.0
    gain: float = 0.0
    hits: int = 0
    moves: int = 0
    control: int = 0


@runtime_checkable
class NetworkPolicy(Protocol):
    """Decides what all caches of a network hold; where blocks of requests end changes nothing."""

    reference: ClassVar[Any]

    def init(self, instance: CacheNetwork, streams: Streams) -> Any:
        """The state before the first request."""
        ...

    def run_block(self, state: Any, requests: Int64[ndarray, "n"]) -> NetworkOutcome:
        """Serve requests in order, and change the state accordingly."""
        ...

    def placement(self, state: Any) -> Bool[ndarray, "nodes items"]:
        """What each node holds now."""
        ...


@dataclass(frozen=True, slots=True)
class NetworkPlayed:
    """How a game went.

    Args:
        points: one event per point: `NetworkOutcome` from the beginning, ``asked``, the cost without caches, and
            ``bound``, what the policy promises about its regret (None for those that promise nothing).
        seconds: spent in the policy.
        state: of the policy, at the end.
    """

    points: tuple[dict[str, Any], ...]
    seconds: float
    state: Any

    @property
    def last(self) -> dict[str, Any]:
        """The point at the end."""
        return self.points[-1]


def play_network(
    policy: NetworkPolicy,
    instance: CacheNetwork,
    requests: Int64[ndarray, "n"],
    *,
    streams: Streams,
    every: int | None = None,
    observe: Callable[[dict[str, Any]], None] = lambda event: None,
) -> NetworkPlayed:
    """Let a policy serve requests; the only loop of caching networks.

    Args:
        policy: decides.
        instance: the network.
        requests: types, in order.
        streams: randomness of the policy.
        every: requests between points; the end is a point too, and the only one by default.
        observe: called with every event.

    Raises:
        DataError: when a request is no type.
    """
    require(every or 1, "every", least=1)
    instance.counts(requests)
    state, total, asked, spent = policy.init(instance, streams), NetworkOutcome(), 0.0, 0.0
    points: list[dict[str, Any]] = []
    promise = getattr(policy, "bound", None)
    for begin in range(0, len(requests), every or max(len(requests), 1)):
        block = requests[begin : begin + (every or len(requests))]
        started = time.perf_counter()
        part = policy.run_block(state, block)
        spent += time.perf_counter() - started
        total = NetworkOutcome(**{name: value + getattr(part, name) for name, value in asdict(total).items()})
        asked += float(instance.costs[block].sum())
        event = {"event": "point", **asdict(total), "asked": asked, "bound": promise(state) if promise else None}
        points.append(event)
        observe(event)
    return NetworkPlayed(tuple(points), spent, state)

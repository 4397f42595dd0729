"""The networks and demands on which caching networks were compared.

Li, Si Salem, Neglia, Ioannidis. Online caching networks with adversarial guarantees. SIGMETRICS 2022, doi
10.1145/3491047, with the settings of the authors' stored results: link weights uniform on [1, 1000] (adversarial
networks 100), capacities uniform on 1 … 5, five nodes where requests enter, one uniform node per item as its server.

A request of a trace enters at a uniform one of these nodes. *Poisson demands* are 200 pairs of such a node and an item,
one for each item and the rest drawn with power law 1.2, each asked for at rate 1 during 100 units of time.

Published costs count requests and responses, so they are twice ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, nearest
from rivage.core.seeding import Streams
from rivage.data.adversarial_requests import changing_oscillator, oscillator, shot_oscillator
from rivage.data.request_laws import rolled, zipf
from rivage.data.requests import RequestTrace
from rivage.graphs import topologies
from rivage.graphs.network import Network
from rivage.online.cache_networks import CacheNetwork

__all__ = ["TOPOLOGIES", "TRACES", "Setup", "published_setup"]

_WEIGHT = 100.0
_ORIGINS, _ITEMS, _DEMANDS, _POWER, _DURATION = 5, 50, 200, 1.2, 100.0

TOPOLOGIES: dict[str, Callable[[np.random.Generator], Network]] = {
    "balanced_tree": lambda rng: topologies.balanced_tree(4, 4),
    "dtelekom": lambda rng: topologies.dtelekom(),
    "erdos_renyi": lambda rng: topologies.erdos_renyi(100, 0.1, rng),
    "geant": lambda rng: topologies.geant(),
    "hypercube": lambda rng: topologies.hypercube(7),
}
"""Name -> network, from a generator."""

TRACES: dict[str, Callable[[np.random.Generator], RequestTrace]] = {
    "zipf": lambda rng: zipf(_ITEMS, 20_000, 0.6, rng),
    "changing": lambda rng: rolled(_ITEMS, 20_000, 0.6, 5, rng),
    "oscillator": lambda rng: oscillator(),
    "changing_oscillator": lambda rng: changing_oscillator(),
    "shot_oscillator": shot_oscillator,
}
"""Name -> trace, from a generator."""

Demand = Literal["poisson", "zipf", "changing", "oscillator", "changing_oscillator", "shot_oscillator"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A network and what is asked of it.

    Args:
        instance: the network, with the horizon.
        requests: types, in order.
        per_time: requests per unit of the time that periods and rates of forgetting count in.
    """

    instance: CacheNetwork
    requests: Int64[ndarray, "n"]
    per_time: float


def published_setup(network: str, demand: Demand, streams: Streams) -> Setup:
    """One cell of the comparison, drawn anew: the authors' own draws are not known.

    Args:
        network: ``path``, ``abilene`` (adversarial) or one of `TOPOLOGIES`.
        demand: ``poisson`` or one of `TRACES`.
        streams: randomness of network and demand.

    Raises:
        ConfigError: for unknown names.
    """
    known = ("path", "abilene", *TOPOLOGIES)
    if network not in known or demand not in ("poisson", *TRACES):
        wrong = network if network not in known else demand
        raise ConfigError(f'no setup "{wrong}"', mend=nearest(wrong, (*known, "poisson", *TRACES)) or ", ".join(known))
    draw = streams.numpy("network")
    if demand == "poisson":
        instance = _instance(network, _ITEMS, draw)
        requests = _poisson(instance, streams.numpy("demand"))
        return Setup(_lasting(instance, len(requests)), requests, len(requests) / _DURATION)
    trace = TRACES[demand](streams.numpy("trace"))
    instance = _instance(network, trace.items, draw)
    origins = len(instance.item) // trace.items
    entered = streams.numpy("origins").integers(origins, size=len(trace))
    return Setup(_lasting(instance, len(trace)), entered * trace.items + trace.item, len(trace) / 1000.0)


def _lasting(instance: CacheNetwork, requests: int) -> CacheNetwork:
    return replace(instance, horizon=requests)


def _instance(network: str, items: int, draw: np.random.Generator) -> CacheNetwork:
    if network == "path":
        line = Network.of(4, [(0, 1), (0, 2), (2, 3)], _WEIGHT, names=("u", "v", "w", "z"), name="path")
        return CacheNetwork.routed(line, items=items, capacities=[5, 0, 5, 0], servers=[1] * items, origins=[0])
    if network == "abilene":
        capacities = draw.integers(0, 2, 9)
        capacities[[0, 5]] = 5
        servers = draw.choice([7, 8], items)
        ring = topologies.abilene().with_weights(_WEIGHT)
        return CacheNetwork.routed(ring, items=items, capacities=capacities, servers=servers, origins=[0, 5])
    graph = TOPOLOGIES[network](draw).with_random_weights(1, 1000, draw)
    return CacheNetwork.routed(
        graph,
        items=items,
        capacities=draw.integers(1, 6, graph.nodes),
        servers=draw.integers(graph.nodes, size=items),
        origins=draw.choice(graph.nodes, _ORIGINS, replace=False),
    )


def _poisson(instance: CacheNetwork, draw: np.random.Generator) -> Int64[ndarray, "n"]:
    popularity = np.arange(1.0, _ITEMS + 1) ** -_POWER
    more = draw.choice(_ITEMS, _DEMANDS - _ITEMS, p=popularity / popularity.sum())
    item = draw.permutation(np.concatenate([more, np.arange(_ITEMS)]))
    types = np.arange(_DEMANDS) * (len(instance.item) // _ITEMS) // _DEMANDS * _ITEMS + item
    requests: Int64[ndarray, "n"] = types[draw.integers(_DEMANDS, size=draw.poisson(_DEMANDS * _DURATION))]
    return requests

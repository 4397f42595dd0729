"""Hypothesis strategies: random networks of models and slots of requests, for tests of what decides where models are.

Sizes are drawn by Hypothesis and shrink; numbers come from a generator whose seed does. ``delivery_network`` and
``delivery_slot`` are the functions behind the strategies, for loops of one's own.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.inference.gain import Slot
from rivage.inference.instance import Instance

__all__ = ["delivery_fractions", "delivery_network", "delivery_networks", "delivery_slot", "delivery_slots"]


def delivery_network(
    rng: np.random.Generator,
    *,
    nodes: int = 5,
    tasks: int = 2,
    variants: int = 3,
    types: int = 4,
    shared_pins: bool = False,
) -> Instance:
    """A random tree whose root holds everything; requests go up from any node.

    Args:
        rng: of all numbers.
        nodes: at least 2; node 0 is the root.
        tasks: at least 1.
        variants: models of each task.
        types: kinds of requests.
        shared_pins: whether other nodes may pin models of limited throughput too: rounding then promises nothing.
    """
    models = tasks * variants
    parents = np.array([0, *(rng.integers(node) for node in range(1, nodes))])
    up = rng.uniform(0.5, 20.0, nodes)
    ways = [_up(parents, int(node)) for node in rng.integers(1, nodes, types)]
    longest = max(map(len, ways))
    paths, latency = np.full((types, longest), -1), np.full((types, longest), np.inf)
    for type_, way in enumerate(ways):
        paths[type_, : len(way)] = way
        latency[type_, : len(way)] = np.concatenate([[0.0], np.cumsum(up[way[:-1]])])
    sizes = rng.uniform(1.0, 5.0, (nodes, models))
    pinned = np.zeros((nodes, models), bool)
    pinned[0] = True
    if shared_pins:
        pinned[1:] = rng.random((nodes - 1, models)) < 0.1
    throughput = rng.uniform(2.0, 40.0, (nodes, models))
    throughput[0] = np.inf
    extra = rng.uniform(0.0, 0.8, nodes) * sizes.sum(axis=1)
    return Instance(
        task=np.repeat(np.arange(tasks), variants),
        accuracy=rng.uniform(0.2, 0.9, models),
        sizes=sizes,
        delays_ms=rng.uniform(1.0, 60.0, (nodes, models)),
        throughput=throughput,
        budgets=np.where(pinned, sizes, 0.0).sum(axis=1) + extra,
        pinned=pinned,
        asked=rng.integers(tasks, size=types),
        paths=paths,
        latency_ms=latency,
        alpha=float(rng.choice([0.0, 0.3, 1.0])),
    )


def delivery_slot(rng: np.random.Generator, instance: Instance) -> Slot:
    """Requests, some types without any, and capacities that depend on nothing."""
    ranking = instance.ranking
    requests = np.where(rng.random(instance.types) < 0.2, 0.0, rng.integers(1, 40, instance.types))
    most = np.minimum(requests[ranking.type], instance.throughput[ranking.node, ranking.model])
    share = np.where(instance.takes_all[ranking.node, ranking.model], 1.0, rng.random(len(ranking)))
    return Slot(instance=instance, requests=requests, capacity=most * share)


def delivery_fractions(rng: np.random.Generator, instance: Instance) -> Float64[ndarray, "nodes models"]:
    """Anything in [0, 1] for usable models, 1 for what is pinned; budgets are not looked at."""
    y = rng.random(instance.shape) * (rng.random(instance.shape) < rng.uniform(0.2, 1.0))
    return np.asarray(np.where(instance.pinned, 1.0, y * instance.usable))


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


generators = st.integers(0, 2**32 - 1).map(_rng)
"""A NumPy generator."""


@st.composite
def delivery_networks(draw: st.DrawFn, *, shared_pins: bool = False) -> Instance:
    """Random trees with models, see `delivery_network`."""
    return delivery_network(
        draw(generators),
        nodes=draw(st.integers(2, 6)),
        tasks=draw(st.integers(1, 3)),
        variants=draw(st.integers(1, 4)),
        types=draw(st.integers(1, 6)),
        shared_pins=shared_pins,
    )


@st.composite
def delivery_slots(draw: st.DrawFn, *, shared_pins: bool = False) -> Slot:
    """A random network and a slot of it."""
    instance = draw(delivery_networks(shared_pins=shared_pins))
    return delivery_slot(draw(generators), instance)


def _up(parents: Int64[ndarray, "nodes"], node: int) -> Int64[ndarray, "way"]:
    way = [node]
    while way[-1]:
        way.append(int(parents[way[-1]]))
    return np.array(way)

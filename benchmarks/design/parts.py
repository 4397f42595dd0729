"""What is measured. Each part is a function from what is asked to plain numbers, as they stand in the JSON."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rivage.decentralized import Silos, contenders
from rivage.decentralized.directed_search import DirectedSearch
from rivage.decentralized.lower_bounds import lower_bound
from rivage.graphs import max_cycle_mean
from rivage.graphs.rings import christofides_ring, improved_ring, ring_cost

from .networks import published, random_silos
from .peers import bisection_networkx, karp_numpy

__all__ = ["cycle_mean", "long_ring", "one_network", "random_network", "random_sizes", "slow_access"]

_SAME = 1e-9  # a search ends at a bound it meets


def one_network(name: str, seed: int, access_bps: float, seconds: float | None) -> dict[str, Any]:
    """Bound and search on a published network."""
    return _designed(published(name, access_bps)[1], seed, seconds)


def slow_access(name: str, access_bps: float, seconds: float) -> dict[str, Any]:
    """All overlays of the literature, MATCHA and the best hub among them, beside the search."""
    underlay, silos = published(name, access_bps)
    classical = {key: each.cycle_time_ms for key, each in contenders(silos, underlay.edges.tolist()).items()}
    return {**_designed(silos, 0, seconds), "classical": classical}


def random_sizes(count: int) -> list[int]:
    """Numbers of silos from 10 to 90."""
    return [round(float(nodes)) for nodes in np.linspace(10, 90, count)]


def random_network(seed: int, nodes: int, seconds: float | None) -> dict[str, Any]:
    """Bound, overlays of the literature and search on a random network, each with its time."""
    underlay, silos = random_silos(seed, nodes)
    began, worked = time.perf_counter(), time.process_time()
    classical = {key: each.cycle_time_ms for key, each in contenders(silos, underlay.edges.tolist()).items()}
    spent, worked = time.perf_counter() - began, time.process_time() - worked
    facts = {"network": underlay.name, "nodes": nodes, "links": len(underlay.edges)}
    facts |= {"access_bps": float(silos.access_up_bps[0]), "classical": classical}
    facts |= {"classical_s": spent, "classical_cpu_s": worked}
    return {**facts, **_designed(silos, 0, seconds)}


def cycle_mean(nodes: int = 90, plays: int = 21) -> dict[str, Any]:
    """Seconds for the largest mean of a complete digraph: ours and others', in turn on the same digraphs."""
    lanes: dict[str, Callable[[Any], float]] = {
        "Howard": lambda delays: max_cycle_mean(delays).mean,
        "Karp": lambda delays: max_cycle_mean(delays, method="karp").mean,
        "Karp in NumPy": karp_numpy,
        "bisection with networkx": bisection_networkx,
    }
    spent: dict[str, list[float]] = {name: [] for name in lanes}
    for play in range(plays + 1):
        delays = np.random.default_rng(play).uniform(1, 10, (nodes, nodes))
        means = {}
        for name, solve in lanes.items():
            if name.startswith("bisection") and play > 2:
                continue  # it takes minutes
            began = time.perf_counter()
            means[name] = solve(delays)
            if play:  # the first is for compiling
                spent[name].append(time.perf_counter() - began)
        assert np.allclose(list(means.values()), means["Howard"], rtol=1e-5), "all find the same"
    return {"nodes": nodes, "seconds": {name: statistics.median(values) for name, values in spent.items()}}


def long_ring(nodes: int = 1000) -> dict[str, Any]:
    """Seconds for a ring of many silos, Christofides' and local search; beside it networkx's greedy ring."""
    import networkx as nx

    rng = np.random.default_rng(0)
    places = rng.uniform(0, 4000, (nodes, 2))
    costs = 0.0085 * np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) + 4 + STEP_AND_MODEL_MS
    improved_ring(costs[:20, :20])
    began = time.perf_counter()
    start = christofides_ring(costs)
    middle = time.perf_counter()
    ring = improved_ring(costs, start)
    ended = time.perf_counter()
    graph = nx.from_numpy_array(costs)
    greedy = np.array(nx.approximation.greedy_tsp(graph, source=0)[:-1])
    last = time.perf_counter()
    return {
        "nodes": nodes,
        "seconds": {"ring": middle - began, "local search": ended - middle, "greedy with networkx": last - ended},
        "cycle_time_ms": {
            "ring": ring_cost(costs, start) / nodes,
            "local search": ring_cost(costs, ring) / nodes,
            "greedy with networkx": ring_cost(costs, greedy) / nodes,
        },
    }


STEP_AND_MODEL_MS = 25.4 + 44.961717
"""Work of a step, and a model over 1 Gb/s."""


def _designed(silos: Silos, seed: int, seconds: float | None) -> dict[str, Any]:
    """Bound, then search; the search stops where it meets the bound."""
    load, began, worked = os.getloadavg()[0], time.perf_counter(), time.process_time()
    bound = lower_bound(silos)
    middle, worked = time.perf_counter(), time.process_time() - worked
    search = DirectedSearch(seed=seed, target_ms=bound.value_ms * (1 + _SAME))
    if seconds is not None:
        search = DirectedSearch(seed=seed, target_ms=bound.value_ms * (1 + _SAME), seconds=seconds)
    found = search.design(silos)
    ended = time.perf_counter()
    return {
        "seed": seed,
        "found_ms": found.design.cycle_time_ms,
        "arcs": len(found.design.overlay.arcs),
        "max_degree": found.design.max_degree,
        "spectral_gap": found.design.spectral_gap,
        "steps": found.steps,
        "improvements": [list(pair) for pair in found.improvements],
        "bound_ms": bound.value_ms,
        "bound_complete": bound.complete,
        "bound_s": middle - began,
        "bound_cpu_s": worked,
        "search_s": ended - middle,
        "load": load,
    }

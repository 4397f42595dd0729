"""The overlays of the literature: STAR, MST, δ-MBST, RING.

Reference: Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS
2020, arXiv 2010.12229, §3 and Algorithm 1; MATCHA is in `rivage.decentralized.drawn`.

- `star`: silos send to a hub, which averages and sends back. Silo i starts its next round when the model is back, so
  τ = max_i d(i, hub) + d(hub, i) − s T_c(hub): with equal T_c the published s T_c + 2 (κ − s T_c), where κ is the cycle
  time of the star as an overlay. The hub's silo trains as well.
- `mst`: the lightest spanning tree for s T_c + l + M / A, links in both directions. Optimal among undirected overlays
  where access links do not matter.
- `delta_mbst`: the fastest of trees of bounded degree and of Hamiltonian paths of the cube of the tree.
- `ring`: Christofides' ring for the delays of degree 1, in its faster direction; `ring_2opt` improves it by local
  search. The cycle time of a ring is the mean of its delays.

Deviations. The public code takes its path from a routine for tournaments, and may leave the cube of the tree; here the
path is in the cube, and one from each of some edges is tried; bounded trees grow from each of some silos. Candidates of
δ-MBST come from three weights instead of one, the paper's, its code's and those of `mst`, so it is never slower than
`mst`. The published hub is the silo of greatest load centrality, which is 0 for all where direct arcs are shortest, so
the first of the file: hub "first".

Silos are put in the order of their names first: the order of a file changes nothing but the hub "first". Cost: O(N³)
for N silos, times the number of candidates in `delta_mbst`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, nearest
from rivage.decentralized.cycle_time import cycle_time_ms
from rivage.decentralized.designs import Design, design_of
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.silos import Silos
from rivage.graphs.rings import christofides_ring, improved_ring
from rivage.graphs.spanning import cube_path, degree_bounded_tree, minimum_spanning_tree

__all__ = ["delta_mbst", "hub_of", "mst", "ring", "ring_2opt", "star", "tree_candidates"]

_TRIED = 24  # edges of a tree from which a path is tried, and silos from which a bounded tree grows
_HUBS = ("first", "closeness", "best")


def star(silos: Silos, hub: str = "best") -> Design:
    """FedAvg with one silo's machine as server.

    Args:
        silos: at least one.
        hub: "first" of the silos, as published; "closeness": least sum of latencies; "best": least cycle time; or the
            name of a silo.

    Raises:
        ConfigError: for unknown hubs.
    """
    chosen = hub_of(silos, hub)
    overlay = Overlay.links(silos, [(chosen, k) for k in range(len(silos)) if k != chosen], "star")
    delays = overlay.delay_matrix_ms
    there_and_back = delays[chosen] + delays[:, chosen]
    there_and_back[chosen] = 2 * silos.work_ms[chosen]  # the hub's silo trains while the others do
    slowest = int(np.argmax(there_and_back))
    return Design(
        name=overlay.name,
        cycle_time_ms=float(_star_times(silos)[chosen]),
        overlay=overlay,
        critical_circuit=tuple(silos.names[k] for k in sorted({chosen, slowest})),
        spectral_gap=1.0,
        max_degree=overlay.max_degree,
        hub=silos.names[chosen],
    )


def mst(silos: Silos) -> Design:
    """The lightest spanning tree, both ways."""
    order, named = _by_name(silos)
    return design_of(Overlay.links(silos, order[minimum_spanning_tree(_free(named))], "mst"))


def delta_mbst(silos: Silos) -> Design:
    """The fastest of `tree_candidates`, each with its true degrees."""
    order, named = _by_name(silos)
    trees = (Overlay.links(named, tree, "delta_mbst") for tree in tree_candidates(named))
    best = min(trees, key=cycle_time_ms)
    return design_of(replace(best, silos=silos, arcs=order[best.arcs]))


def tree_candidates(silos: Silos) -> Iterator[Int64[ndarray, "edges 2"]]:
    """Trees of degrees 2, 3, … until the bound does not bind, and paths of the cube, for each of three weights."""
    latency = silos.work_ms[:, None] + silos.connectivity.latency_ms
    paper = latency + (1000 * silos.model_bits / silos.access_up_bps)[:, None]
    code = 2 * silos.single_delays_ms() - latency
    starts = _spread_over(len(silos))
    for weights in (_free(silos), _both(paper), _both(code)):
        lightest = minimum_spanning_tree(weights)
        degree = int(np.bincount(lightest.ravel(), minlength=1).max())
        yield lightest
        yield from (degree_bounded_tree(weights, bound, start) for bound in range(2, degree) for start in starts)
        for edge in _spread_over(len(lightest)):
            path = cube_path(lightest, edge)
            yield np.stack([path[:-1], path[1:]], axis=1)


def _spread_over(count: int) -> list[int]:
    """All of so many positions, or a few of them, evenly."""
    return list(dict.fromkeys(np.linspace(0, count - 1, min(count, _TRIED)).astype(int).tolist()))


def ring(silos: Silos) -> Design:
    """Christofides' ring, in its faster direction."""
    order, named = _by_name(silos)
    return design_of(Overlay.ring(silos, order[christofides_ring(named.single_delays_ms())].tolist(), "ring"))


def ring_2opt(silos: Silos) -> Design:
    """The same ring after 2-opt and Or-opt."""
    order, named = _by_name(silos)
    return design_of(Overlay.ring(silos, order[improved_ring(named.single_delays_ms())].tolist(), "ring_2opt"))


def _star_times(silos: Silos) -> Float64[ndarray, "silos"]:
    """The cycle time of the star round each silo."""
    nodes, work = np.arange(len(silos)), silos.work_ms
    times = work.copy()
    for hub in nodes if len(silos) > 1 else ():
        others, leaves = nodes[nodes != hub], len(silos) - 1
        up = silos.delay_ms(np.stack([others, np.full(leaves, hub)], axis=1), receiving=leaves)
        down = silos.delay_ms(np.stack([np.full(leaves, hub), others], axis=1), sending=leaves)
        times[hub] = max(work[hub], float((up + down).max()) - work[hub])
    return times


def hub_of(silos: Silos, hub: str) -> int:
    """The position of the hub that `star` takes."""
    order, named = _by_name(silos)
    if hub == "first":
        return 0
    if hub == "closeness":
        return int(order[np.argmin((named.connectivity.latency_ms + named.connectivity.latency_ms.T).sum(axis=1))])
    if hub == "best":
        return int(order[np.argmin(_star_times(named))])
    if hub in silos.names:
        return silos.names.index(hub)
    known = f"Give {', '.join(_HUBS)} or the name of a silo: {', '.join(silos.names[:30])}."
    raise ConfigError(f'hub is "{hub}"', mend=f"{known} {nearest(hub, (*_HUBS, *silos.names))}".strip())


def _by_name(silos: Silos) -> tuple[Int64[ndarray, "silos"], Silos]:
    """The order of the names, and the silos in it."""
    order = np.array(sorted(range(len(silos)), key=silos.names.__getitem__), np.int64)
    return order, silos.reordered(order)


def _free(silos: Silos) -> Float64[ndarray, "silos silos"]:
    """Delays of links where access does not matter: (s T_c + l + M / A) of both directions, halved."""
    return _both(silos.single_delays_ms(access=False))


def _both(weights: Float64[ndarray, "silos silos"]) -> Float64[ndarray, "silos silos"]:
    return np.asarray((weights + weights.T) / 2)

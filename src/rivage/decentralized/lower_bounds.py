"""A cycle time that no overlay of a network goes below, with its proof.

**Theorem.** Let d(i, j) be the delays at degrees of 1. For every silo v, every overlay has a cycle time of at least

    β_v = min of d(γ) / |γ| over the simple circuits γ through v of two silos or more,

so max_v β_v is a lower bound. *Proof.* An overlay is strongly connected: v has an out-neighbour, from which a path
leads back, and a shortest such path closes a simple circuit γ through v whose arcs are all in the overlay. Its cycle
time is the largest mean of a circuit, hence at least that of γ, with the delays of its own degrees. These are no
smaller than d: delays grow with degrees, and a silo of an overlay has a degree of 1 or more. A loop has mean s T_c(v),
which bounds the cycle time too.

β_v is bounded in turn by `rivage.decentralized.circuit_bounds`, with multipliers that prove it.

Silos are taken by the least mean of a circuit through them that has been seen, the largest first; when it falls below
the best bound no other silo can give a better one, and the search ends. Circuits are seen by a greedy search, and along
the arcs that the programmes use most; each counts for all silos on it. Every prefix is a valid bound. Cost: a few to
some tens of linear programmes of O(10 N) arcs a silo.

The theorem is about overlays that are the same in every round. A law that draws them, as MATCHA does, may be faster: it
may seldom use a slow link that every fixed overlay needs.

References:
    Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS 2020,
    arXiv 2010.12229 (the problem; the bound is not in it).
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import require
from rivage.decentralized.circuit_bounds import CircuitProof, bounded, circuit_bound
from rivage.decentralized.seen_circuits import SeenCircuits
from rivage.decentralized.silos import Silos

__all__ = ["CircuitProof", "LowerBound", "circuit_bound", "lower_bound"]

_SAME = 1e-9  # relative: bounds that are better by less are not looked for


@dataclass(frozen=True, kw_only=True, eq=False)
class LowerBound:
    """A cycle time below which there is no overlay.

    Args:
        value_ms: the bound, rounded down.
        silo: which gives it, by name.
        values_ms: the bound of every silo; NaN for those that could not give a better one, or had no time.
        proof: of ``value_ms``; None where the silo's own work sets the pace.
        complete: whether all silos were done, or shown to give nothing better.
        seconds: it took.
    """

    value_ms: float
    silo: str
    values_ms: Float64[ndarray, "silos"]
    proof: CircuitProof | None
    complete: bool
    seconds: float


def lower_bound(silos: Silos, *, seconds: float = np.inf) -> LowerBound:
    """The largest bound that one silo gives.

    Args:
        silos: at least one.
        seconds: after which no further silo is begun, > 0.

    Raises:
        ConfigError: for a limit that is not positive.

    Example:
        >>> from rivage.graphs import PathRule, Underlay, connectivity
        >>> line = Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], distance_km=[1000, 3000])
        >>> found = lower_bound(Silos.of(connectivity(line, PathRule.published()), model_bits=1e6, step_ms=5))
        >>> found.silo, round(found.value_ms, 6)  # c – b – c
        ('c', 35.5)
    """
    require(min(seconds, 1e9), "seconds", above=0)
    start, delays = perf_counter(), silos.single_delays_ms()
    values, slowest = np.full(len(silos), np.nan), int(np.argmax(silos.work_ms))
    best, silo, proof = float(silos.work_ms[slowest]), slowest, None
    seen = SeenCircuits(delays)
    left = set(range(len(silos))) if len(silos) > 1 else set()
    while left and perf_counter() - start < seconds:
        v = max(left, key=lambda node: (seen.means[node], -node))
        enough = best * (1 + _SAME)
        if seen.means[v] <= enough:
            break
        if seen.through(v) <= enough:
            continue
        left.remove(v)
        found, circuit, mean = bounded(delays, v, enough)
        values[v] = found.value(delays)
        seen.note(circuit, mean)
        if values[v] > best:
            best, silo, proof = float(values[v]), v, found
    return LowerBound(
        value_ms=best,
        silo=silos.names[silo],
        values_ms=values,
        proof=proof,
        complete=all(seen.means[node] <= best * (1 + _SAME) for node in left),
        seconds=perf_counter() - start,
    )

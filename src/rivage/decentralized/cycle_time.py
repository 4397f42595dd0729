"""How often an overlay goes round.

With t_j(k) the time at which silo j starts round k, and N_j those it receives from,

    t_j(k + 1) = max over i in N_j and j itself of t_i(k) + d(i, j),

so t_j(k) / k tends to the *cycle time* τ = max over circuits γ of d(γ) / |γ|, loops included: the same for every silo
and every start (Marfoq et al., NeurIPS 2020, arXiv 2010.12229; Baccelli et al., Synchronization and Linearity, 1992).
The throughput is 1/τ. A directed ring has one long circuit, so its cycle time is the *mean* delay of its arcs; an
undirected overlay with the same delays both ways has the cycle time of its *slowest* link.
"""

from __future__ import annotations

from jaxtyping import Float64
from numpy import ndarray

from rivage.decentralized.overlays import Overlay
from rivage.graphs.cycles import CycleMean, max_cycle_mean, start_times

__all__ = ["critical_cycle", "cycle_time_ms", "start_times_ms"]


def critical_cycle(overlay: Overlay) -> CycleMean:
    """The cycle time in ms with a circuit that attains it and the potentials that prove it."""
    return max_cycle_mean(overlay.delay_matrix_ms, names=overlay.silos.names)


def cycle_time_ms(overlay: Overlay) -> float:
    """τ of the overlay, with its own degrees."""
    return critical_cycle(overlay).mean


def start_times_ms(
    overlay: Overlay, rounds: int, *, start: Float64[ndarray, "silos"] | None = None
) -> Float64[ndarray, "rounds+1 silos"]:
    """When each silo starts each round, from round 0 at ``start`` (all at 0 by default). O(rounds · arcs)."""
    return start_times(overlay.delay_matrix_ms, rounds, start=start)

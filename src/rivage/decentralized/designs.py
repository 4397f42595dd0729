"""What a designer of overlays answers: the overlay, how fast it goes round, and how fast it agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.decentralized.cycle_time import critical_cycle
from rivage.decentralized.overlays import Overlay
from rivage.graphs.mixing import metropolis, pull_weights, spectral_gap

__all__ = ["Design", "design_of", "mixing_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """An overlay, or a law of overlays, and what it is worth.

    Args:
        name: of the designer.
        cycle_time_ms: τ, the mean time of a round in the long run.
        overlay: the arcs in use; of a law of overlays those that ever are.
        critical_circuit: names of the silos on a slowest circuit, in order; empty where rounds are drawn.
        spectral_gap: 1 − the second largest modulus of the eigenvalues of the mixing matrix (`mixing_of`); for a law of
            overlays 1 − ρ^½ with ρ = ‖E WᵀW − J‖₂, the same measure for the mean square; 1 for exact averages.
        max_degree: the largest number of silos that one sends to or receives from in a round.
        hub: name of the silo through which all goes, if one is.
        error_ms: standard error of ``cycle_time_ms`` where it was measured on draws.
    """

    name: str
    cycle_time_ms: float
    overlay: Overlay
    critical_circuit: tuple[str, ...]
    spectral_gap: float
    max_degree: int
    hub: str | None = None
    error_ms: float = 0.0

    @property
    def drawn(self) -> bool:
        """Whether rounds differ by chance."""
        return not self.critical_circuit

    def plain(self) -> dict[str, Any]:
        """The same in words and numbers, for JSON."""
        return {
            "cycle_time_ms": self.cycle_time_ms,
            "error_ms": self.error_ms,
            "arcs": [list(arc) for arc in self.overlay.arc_names()],
            "max_degree": self.max_degree,
            "hub": self.hub,
            "critical_circuit": list(self.critical_circuit),
            "spectral_gap": self.spectral_gap,
        }


def mixing_of(overlay: Overlay) -> Float64[ndarray, "silos silos"]:
    """Metropolis weights on an undirected overlay, plain means of what came on a directed one."""
    return metropolis(overlay.adjacency) if overlay.is_undirected else pull_weights(overlay.adjacency)


def design_of(overlay: Overlay) -> Design:
    """The worth of one overlay that is the same in every round."""
    cycle = critical_cycle(overlay)
    return Design(
        name=overlay.name,
        cycle_time_ms=cycle.mean,
        overlay=overlay,
        critical_circuit=tuple(overlay.silos.names[node] for node in cycle.circuit),
        spectral_gap=float(np.clip(spectral_gap(mixing_of(overlay)), 0, 1)),
        max_degree=overlay.max_degree,
    )

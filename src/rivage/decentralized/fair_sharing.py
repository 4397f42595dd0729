"""The cycle time of an overlay whose messages share the links of the network max-min fairly.

The published rule gives every path of h links the core capacity divided by h, whoever else sends. Where an overlay
sends many messages over one link, each gets less than that rule says, or more where few do. Here the arcs of the
overlay share each link they cross (`rivage.graphs.fair_rates`), all at once, as if every silo sent at the same time:

    d(i, j) = s T_c(i) + l(i, j) + M / min(C_UP(i) / out-degree, C_DN(j) / in-degree, fair rate of (i, j)).
"""

from __future__ import annotations

import numpy as np

from rivage.decentralized.overlays import Overlay
from rivage.graphs.cycles import max_cycle_mean
from rivage.graphs.fair_rates import fair_rates
from rivage.graphs.underlay import Underlay

__all__ = ["fair_cycle_time_ms"]


def fair_cycle_time_ms(overlay: Overlay, underlay: Underlay, *, core_bps: float | None = None) -> float:
    """τ when the arcs of an overlay share links fairly.

    Args:
        overlay: over the silos of the underlay, with the paths that `rivage.graphs.connectivity` found.
        underlay: with capacities of links.
        core_bps: one capacity for all links in place of their own.

    Raises:
        ConfigError: when capacities or paths are not known.
    """
    silos, arcs = overlay.silos, overlay.arcs
    rates = fair_rates(underlay, silos.connectivity, map(tuple, arcs.tolist()), core_bps=core_bps)
    sending, receiving = overlay.out_degrees[arcs[:, 0]], overlay.in_degrees[arcs[:, 1]]
    one, other = arcs.T
    slowest = np.maximum(sending / silos.access_up_bps[one], receiving / silos.access_down_bps[other])
    seconds = silos.model_bits * np.maximum(slowest, 1 / rates)
    matrix = np.full((len(silos), len(silos)), -np.inf)
    matrix[one, other] = silos.work_ms[one] + silos.connectivity.latency_ms[one, other] + 1000 * seconds
    np.fill_diagonal(matrix, silos.work_ms)
    return max_cycle_mean(matrix, names=silos.names).mean

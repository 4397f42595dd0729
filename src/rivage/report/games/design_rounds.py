"""The first rounds of an overlay: when each silo starts, and which messages the last start had waited for.

With t_j(k) the time at which silo j starts round k, all at 0 in round 0, and d the delays of the record,

    t_j(k + 1) = max over its senders i of t_i(k) + d(i, j), and its own work t_j(k) + s T_c(j).

In a STAR the hub averages first: with h the hub and g(k) = max_i t_i(k) + d(i, h) and the work of the hub's own silo,
t_j(k + 1) = g(k) + d(h, j) − s T_c(h), and g(k) for the hub's silo.

Reference: Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS
2020, arXiv 2010.12229.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.report.games.design_numbers import OverlayRecord

__all__ = ["Leg", "start_times_ms", "waited_for"]


@dataclass(frozen=True, slots=True)
class Leg:
    """A message under way: from which silo and when, to which and when."""

    sender: int
    sent_ms: float
    receiver: int
    come_ms: float


def start_times_ms(overlay: OverlayRecord, rounds: int) -> Float64[ndarray, "rounds+1 silos"]:
    """When each silo starts each round. O(rounds · arcs)."""
    times = np.zeros((rounds + 1, len(overlay.names)))
    for k in range(rounds):
        times[k + 1] = _next(overlay, times[k])
    return times


def _next(overlay: OverlayRecord, start: Float64[ndarray, "silos"]) -> Float64[ndarray, "silos"]:
    senders, receivers = overlay.arcs.T
    ready = start + overlay.work_ms
    if overlay.hub is None:
        np.maximum.at(ready, receivers, start[senders] + overlay.delays_ms)
        return np.asarray(ready)
    up, down = receivers == overlay.hub, senders == overlay.hub
    averaged = max(ready[overlay.hub], *(start[senders] + overlay.delays_ms)[up], -np.inf)
    back = np.full(len(start), averaged)
    back[receivers[down]] += overlay.delays_ms[down] - overlay.work_ms[overlay.hub]
    return back


def waited_for(overlay: OverlayRecord, times: Float64[ndarray, "rounds+1 silos"]) -> list[Leg]:
    """The messages for which the latest start of the last round had to wait, the last one first.

    Where the silo's own work came last there is no message; a message to the hub of a STAR and the one that follows
    from it are two.
    """
    silo, legs = int(times[-1].argmax()), list[Leg]()
    for k in range(len(times) - 1, 0, -1):
        found, silo = _before(overlay, times[k - 1], times[k], silo)
        legs += found
    return legs


def _before(
    overlay: OverlayRecord, start: Float64[ndarray, "silos"], after: Float64[ndarray, "silos"], silo: int
) -> tuple[list[Leg], int]:
    """What a start waited for, and the silo from which that came."""
    if overlay.hub is None or overlay.hub == silo:
        return _last_to(overlay, start, silo, float(after[silo]))
    averaged = float(after[overlay.hub])
    down = Leg(overlay.hub, averaged, silo, float(after[silo]))
    legs, sender = _last_to(overlay, start, overlay.hub, averaged)
    return [down, *legs], sender


def _last_to(overlay: OverlayRecord, start: Float64[ndarray, "silos"], silo: int, come: float) -> tuple[list[Leg], int]:
    """The message that came last to a silo; none where its own work took longest."""
    arcs: Int64[ndarray, "arcs"] = np.flatnonzero(overlay.arcs[:, 1] == silo)
    senders = overlay.arcs[arcs, 0]
    arrivals = start[senders] + overlay.delays_ms[arcs]
    if not len(arcs) or arrivals.max() < come:
        return [], silo
    sender = int(senders[arrivals.argmax()])
    return [Leg(sender, float(start[sender] + overlay.work_ms[sender]), silo, come)], sender

"""The rounds of an overlay in the long run: when each silo starts, and which messages a start had waited for.

With t_j(k) the time at which silo j starts round k, and d the delays of the record,

    t_j(k + 1) = max over its senders i of t_i(k) + d(i, j), and its own work t_j(k) + s T_c(j).

In a STAR the hub averages first: with h the hub and g(k) = max_i t_i(k) + d(i, h) and the work of the hub's own silo,
t_j(k + 1) = g(k) + d(h, j) − s T_c(h), and g(k) for the hub's silo.

Started at the potentials π of the cycle time τ, with d(i, j) + π_i − π_j <= τ, silo j starts round k at π_j + k τ or
before, and those on the slowest circuit exactly then. A STAR is in its long run after the first round.

Reference: Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS
2020, arXiv 2010.12229.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.report.games.design_numbers import OverlayRecord

__all__ = ["Leg", "start_times_ms", "steady_start_ms", "waited_for"]

_ROUNDING = 1e-9  # of a round: what comes at the same time may differ by as much


@dataclass(frozen=True, slots=True)
class Leg:
    """A message under way: from which silo and when, to which and when."""

    sender: int
    sent_ms: float
    receiver: int
    come_ms: float


def start_times_ms(
    overlay: OverlayRecord, rounds: int, start: Float64[ndarray, "silos"] | None = None
) -> Float64[ndarray, "rounds+1 silos"]:
    """When each silo starts each round, from round 0 at ``start``, all at 0 by default. O(rounds · arcs)."""
    times = np.zeros((rounds + 1, len(overlay.names)))
    if start is not None:
        times[0] = start
    for k in range(rounds):
        times[k + 1] = _next(overlay, times[k])
    return times


def steady_start_ms(overlay: OverlayRecord) -> Float64[ndarray, "silos"]:
    """Starts of a round in the long run; the last of them is at 0."""
    start = start_times_ms(overlay, 1)[-1] if overlay.potentials is None else overlay.potentials
    return np.asarray(start - start.max())


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


def waited_for(overlay: OverlayRecord, times: Float64[ndarray, "rounds+1 silos"], silo: int) -> list[Leg]:
    """The messages for which a silo's start of the last round had to wait, the last one first.

    Where a silo's own work came last there is no message; a message to the hub of a STAR and the one that follows from
    it are two.
    """
    legs = list[Leg]()
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
    """The message that came last to a silo, of equals one on the slowest circuit; none where its work took longest."""
    arcs: Int64[ndarray, "arcs"] = np.flatnonzero(overlay.arcs[:, 1] == silo)
    senders = overlay.arcs[arcs, 0]
    arrivals = start[senders] + overlay.delays_ms[arcs]
    last = np.flatnonzero(arrivals >= come - _ROUNDING * overlay.cycle_time_ms)
    if not len(last):
        return [], silo
    on_circuit = [k for k in last.tolist() if (int(senders[k]), silo) in overlay.critical_arcs]
    sender = int(senders[on_circuit[0] if on_circuit else last[0]])
    return [Leg(sender, float(start[sender] + overlay.work_ms[sender]), silo, come)], sender

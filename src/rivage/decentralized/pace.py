"""How long the rounds of a training take: when each silo starts the next round, one round at a time.

t_j(k) is the time at which silo j starts round k. With d the delays of the arcs in use in round k, at the degrees of
these arcs, and d(i, i) = s T_c(i) (`rivage.decentralized.silos`):

- silos that wait for their neighbours:  t_j(k + 1) = max over i in N_j and j itself of t_i(k) + d(i, j);
- a star: the hub's mean is there at u = max_i t_i(k) + d(i, hub), and t_j(k + 1) = u + d(hub, j) − s T_c(hub), for the
  hub u itself;
- drawn overlays, as published: t_j(k + 1) = max_i t_i(k) + the largest d in use, for all j alike.

The first and second are max-plus recursions: k rounds take k τ only in the long run (`cycle_time`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.decentralized.mixing_plan import MixingPlan
from rivage.decentralized.silos import Silos

__all__ = ["Pace"]

Times = Float64[ndarray, "silos"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pace:
    """Start times of rounds, without chance.

    Args:
        silos: the network and the work of a round.
        plan: which arcs are in use.
        together: whether all wait for the slowest arc of the round, as published for drawn overlays.
    """

    silos: Silos
    plan: MixingPlan
    together: bool = False

    def after(self, round: int, starts_ms: Times) -> Times:
        """When each silo starts the next round, if it started this one then. O(arcs)."""
        arcs = self.plan.arcs(round)
        if not len(arcs):
            return np.asarray(starts_ms + self.silos.work_ms)
        if self.plan.hub is not None:
            return self._star(round, self.plan.hub, starts_ms)
        sending, receiving = (np.bincount(arcs[:, end], minlength=len(self.silos)) for end in (0, 1))
        delays = self.silos.delay_ms(arcs, sending=sending[arcs[:, 0]], receiving=receiving[arcs[:, 1]])
        if self.together:
            slowest = max(float(delays.max()), float(self.silos.work_ms.max()))
            return np.full(len(self.silos), starts_ms.max() + slowest)
        ends = starts_ms + self.silos.work_ms
        np.maximum.at(ends, arcs[:, 1], starts_ms[arcs[:, 0]] + delays)
        return np.asarray(ends)

    def _star(self, round: int, hub: int, starts_ms: Times) -> Times:
        leaves = len(self.silos) - 1
        up, down = np.split(self.plan.arcs(round), 2)
        arrive = starts_ms[up[:, 0]] + self.silos.delay_ms(up, receiving=leaves)
        mean_ms = max(float(arrive.max()), float(starts_ms[hub] + self.silos.work_ms[hub]))
        ends = np.full(len(self.silos), mean_ms)
        ends[down[:, 1]] += self.silos.delay_ms(down, sending=leaves) - self.silos.work_ms[hub]
        return ends

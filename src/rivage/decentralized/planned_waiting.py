"""Waiting where the arcs change from round to round: drawn overlays, and sequences of sparse ones.

As `rivage.decentralized.pace`, with work and transfers that take random times: a silo waits for those it receives from
in this round, or, as published for drawn overlays, all wait for the slowest message of the round. The loop over rounds
is Python's: some 50 µs a round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.decentralized.mixing_plan import MixingPlan
from rivage.decentralized.silos import Silos

__all__ = ["Planned"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """Every silo waits for the arcs of a plan.

    Args:
        silos: the network and the work of a round.
        plan: which arcs are in use; not through a hub, for which there is `rivage.decentralized.waiting.Server`.
        together: whether all wait for the slowest work and message of the round.
        name: in messages and reports.

    Raises:
        ConfigError: for plans of other silos, or through a hub.
    """

    silos: Silos
    plan: MixingPlan
    together: bool = False
    name: str = "plan"

    def __post_init__(self) -> None:
        if self.plan.hub is not None or self.plan.silos != len(self.silos):
            what = f"a plan of {self.plan.silos} silos" + ("" if self.plan.hub is None else " through a hub")
            mend = f"Give one of the {len(self.silos)} silos; for a hub use Server."
            raise ConfigError(what, where=f'"{self.name}"', mend=mend)

    def __len__(self) -> int:
        return len(self.silos)

    @property
    def work(self) -> Float64[ndarray, "silos"]:
        """Mean time of a round's work of each silo, in ms."""
        return self.silos.work_ms

    @cached_property
    def arcs(self) -> Int64[ndarray, "pairs 2"]:
        """All ordered pairs, in use or not."""
        pairs = np.stack(np.divmod(np.arange(len(self) ** 2), len(self)), axis=1)
        return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]])

    @property
    def transfer(self) -> Float64[ndarray, "pairs"]:
        """One: times of messages depend on what else is sent in the round, so that `play` gets their factors alone."""
        return np.ones(len(self.arcs))

    def play(
        self,
        work: Float64[ndarray, "rounds silos"],
        transfer: Float64[ndarray, "rows pairs"],
        first: int,
        times: Float64[ndarray, "rounds+1 silos"],
    ) -> None:
        """See `rivage.decentralized.waiting.Waiting`."""
        for k, factors in enumerate(np.broadcast_to(transfer, (len(work), len(self.arcs)))):
            arcs, finish = self.plan.arcs(first + k), times[k] + work[k]
            one, other = arcs.T
            come = finish[one] + self._messages_ms(arcs) * factors[one * (len(self) - 1) + other - (other > one)]
            times[k + 1] = finish
            if self.together:
                times[k + 1] = max(finish.max(), come.max(initial=-np.inf))
            else:
                np.maximum.at(times[k + 1], other, come)

    def _messages_ms(self, arcs: Int64[ndarray, "arcs 2"]) -> Float64[ndarray, "arcs"]:
        """Latency and transmission, with as many at once as the round has."""
        sending, receiving = (np.bincount(arcs[:, end], minlength=len(self)) for end in (0, 1))
        delays = self.silos.delay_ms(arcs, sending=sending[arcs[:, 0]], receiving=receiving[arcs[:, 1]])
        return np.asarray(np.maximum(delays - self.work[arcs[:, 0]], 0))

"""Start times of the rounds of a training whose work and messages take random times; see `rivage.decentralized.clock`.

Without chance, `rivage.decentralized.pace` says the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.decentralized.clock import Times, start_times
from rivage.decentralized.waiting import Waiting

__all__ = ["Scattered"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scattered:
    """Start times of rounds, by chance.

    Args:
        graph: who waits for whom, and the mean times.
        times: how they scatter.
        seed: of the draws; the times of a round depend on it and on the number of the round only.
    """

    graph: Waiting
    times: Times
    seed: int = 0

    def after(self, round: int, starts_ms: Float64[ndarray, "silos"]) -> Float64[ndarray, "silos"]:
        """When each silo starts the next round, if it started this one then."""
        return np.asarray(start_times(self.graph, self.times, 1, seed=self.seed, first=round, start=starts_ms)[-1])

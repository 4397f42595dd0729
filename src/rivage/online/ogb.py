"""OGB: online gradient-based caching, integral, with the regret of gradient descent.

Carra, Neglia. An online gradient-based caching policy with logarithmic complexity and regret guarantees. arXiv
2405.01263. The fractional policy is that of Paschos, Destounis, Vigneri, Iosifidis. Learning to cache with no regrets.
INFOCOM 2019; its analysis for any batch is in Si Salem, Neglia, Ioannidis. No-regret caching via online mirror descent.
ICC 2021, arXiv 2101.12588.

Fractional state f in {0 ≤ f ≤ 1, Σ f = C}, request j_t with weight w:

    f_{t+1} = Π( f_t + η w_{j_t} e_{j_t} ),        f_1 = C / N.

Item i is cached iff f_i ≥ u_i, where u_i is uniform and drawn once (permanent random numbers): the expected gain is
that of f, an update moves ‖f_{t+1} − f_t‖₁ items in expectation, and only requested items ever enter. The number of
cached items is C in expectation, with a standard deviation of at most √(C (1 − C/N)).

Regret after T requests, with D² = ‖f* − f_1‖² = C (1 − C/N) and the cached set refreshed every B requests:

    E R_T ≤ D² / (2η) + η w² T B / 2,    which is  w √(D² T B)  for  η = D / (w √(T B)).

Each of the B − 1 delayed gradients meets a state that moved by at most η w per request, which adds
η w² T (B − 1) / 2 to the classic bound. With an unknown horizon η_t = D / (w √t), and with Δ² = 2 min(C, N − C), the
squared diameter, R_T ≤ w √T (Δ² / (2D) + D) for B = 1. A cache that starts empty is in {Σ f ≤ C} instead: then D² = C
and Δ² = min(2C, N).

Cost per request: amortised O(1) instead of the paper's O(log N), see `rivage.online.ogb_kernel`. Memory O(N).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import require, require_one_of
from rivage.core.seeding import Streams
from rivage.online.ogb_kernel import Tables, fractional, make_tables, serve, set_step
from rivage.online.policy import CacheInstance, Outcome
from rivage.online.wheels import CACHED, FRACTIONAL, GAIN, HITS, INSERTED, TIME

__all__ = ["OGB", "OGBState"]

_LONG = 1 << 20  # requests


@dataclass(slots=True)
class OGBState:
    """The state of one cache.

    Args:
        instance: what it is for.
        tables: of the kernel.
        weights: of the items; empty when all are 1.
    """

    instance: CacheInstance
    tables: Tables
    weights: Float64[ndarray, "w"]

    @property
    def fractional(self) -> Float64[ndarray, "items"]:
        """The fractional state; O(N)."""
        return fractional(self.tables)

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return np.flatnonzero(self.tables.shelf != -2)


@dataclass(frozen=True, kw_only=True)
class OGB:
    """Gradient descent on the fractional cache, sampled with permanent random numbers.

    Args:
        scale: multiple of the step size that the bound asks for, > 0; recency pays off with larger ones.
        every: requests between refreshes of the cached set, B >= 1.
        start: ``uniform`` begins with f = C / N, so that about C random items are fetched at once; ``empty`` with
            f = 0, and fills up as items are asked for.
    """

    reference: ClassVar[str] = "carra24"

    scale: float = 1.0
    every: int = 1
    start: Literal["uniform", "empty"] = "uniform"

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0)
        require(self.every, "every", least=1)
        require_one_of(self.start, "start", ("uniform", "empty"))

    def init(self, instance: CacheInstance, streams: Streams) -> OGBState:
        """The first state. O(N)."""
        empty = self.start == "empty"
        step, seed = self.step(instance), streams.seed("permanent")
        # Without a horizon steps fall with time: the wheels are made for those of a million requests and more.
        late = step if instance.horizon else step / math.sqrt(max(instance.items, _LONG))
        tables = make_tables(instance.items, instance.capacity, self.every, seed, empty=empty, step=late)
        set_step(tables, step, anytime=instance.horizon is None)
        weights = np.empty(0) if instance.weights is None else np.ascontiguousarray(instance.weights, np.float64)
        return OGBState(instance, tables, weights)

    def run_block(self, state: OGBState, requests: Int64[ndarray, "n"]) -> Outcome:
        """Serve requests in order; amortised O(1) each."""
        floats, ints = state.tables.floats, state.tables.ints
        floats[[FRACTIONAL, GAIN]] = ints[HITS] = 0
        serve(state.tables, requests, state.weights)
        inserted, ints[INSERTED] = int(ints[INSERTED]), 0
        return Outcome(
            requests=len(requests),
            hits=float(ints[HITS]),
            gain=float(floats[GAIN]),
            fractional=float(floats[FRACTIONAL]),
            inserted=inserted,
            occupancy=float(ints[CACHED]),
        )

    def step(self, instance: CacheInstance) -> float:
        """η; without a horizon what is divided by √t."""
        weight = instance.largest_weight or 1.0
        return self.scale * math.sqrt(self._distance(instance) / ((instance.horizon or 1) * self.every)) / weight

    def regret_bound(self, instance: CacheInstance, requests: int, *, sampled: bool = True) -> float:
        """What the regret cannot exceed: that of f, or in expectation that of the cached set.

        Args:
            instance: the cache.
            requests: T.
            sampled: of the cached set, which is refreshed every B requests, rather than of f.
        """
        weight, step = instance.largest_weight, self.step(instance)
        every = self.every if sampled else 1
        if not step or not weight:
            return 0.0
        if instance.horizon is None:
            items, capacity = instance.items, instance.capacity
            diameter = min(2 * capacity, items if self.start == "empty" else 2 * (items - capacity))
            return math.sqrt(requests) * (diameter / (2 * step) + step * weight**2 * every)
        return self._distance(instance) / (2 * step) + step * weight**2 * requests * every / 2

    def bound(self, state: OGBState) -> float:
        """What the regret of f cannot exceed for the requests served so far."""
        return self.regret_bound(state.instance, int(state.tables.ints[TIME]), sampled=False)

    def _distance(self, instance: CacheInstance) -> float:
        """D², the squared distance from the start to the best corner."""
        share = 0.0 if self.start == "empty" else instance.capacity / instance.items
        return instance.capacity * (1 - share)

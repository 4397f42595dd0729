"""How far fractions are behind the best fixed ones, bounded without knowing these: by the slopes of the gains.

A concave gain lies below its tangents, so for fractions y_t, supergradients g_t at them, and every x in Y,

    Σ_t G_t(x) − G_t(y_t) <= Σ_t ⟨g_t, x − y_t⟩ <= max_{x in Y} ⟨Σ_t g_t, x⟩ − Σ_t ⟨g_t, y_t⟩,

a fractional knapsack for every node, filled by falling gradient per size. What is loaded may be drawn from other, older
fractions z_t: Σ_t G_t(y_t) − G_t(z_t) comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.inference.gain import Slot
from rivage.inference.instance import Instance

__all__ = ["LinearRegret"]

Matrix = Float64[ndarray, "nodes models"]


@dataclass(slots=True, eq=False)
class LinearRegret:
    """Sums over the slots so far.

    Args:
        instance: the network.
        slopes: Σ g_t on the free models, 0 elsewhere.
        played: Σ ⟨g_t, y_t⟩.
        lag: Σ G_t(y_t) − G_t(z_t).
    """

    instance: Instance
    slopes: Matrix = field(init=False)
    played: float = 0.0
    lag: float = 0.0

    def __post_init__(self) -> None:
        self.slopes = np.zeros(self.instance.shape)

    def read(self, slot: Slot, y: Matrix, drawn: Matrix) -> None:
        """Add one slot. O(K)."""
        gradient = np.where(self.instance.free, slot.slope(y).gradient, 0.0)
        self.slopes += gradient
        self.played += float((gradient * y).sum())
        if drawn is not y:
            self.lag += slot.gain(y) - slot.gain(drawn)

    def value(self, factor: float = 1.0) -> float:
        """An upper bound of Σ_t ``factor`` · G_t(x) − G_t(z_t) over all fixed x. O(V M log M)."""
        return factor * _knapsacks(self.instance, self.slopes) - self.played + self.lag


def _knapsacks(instance: Instance, worth: Matrix) -> float:
    """Σ_v max { ⟨worth_v, x⟩ : 0 <= x <= 1, Σ s x <= b_v } over the free models."""
    total = 0.0
    for node in np.flatnonzero(instance.free.any(axis=1)):
        models = np.flatnonzero(instance.free[node] & (worth[node] > 0))
        sizes, values = instance.sizes[node, models], worth[node, models]
        order = np.argsort(-values / sizes, kind="stable")
        before = np.cumsum(sizes[order]) - sizes[order]
        shares = np.clip((instance.free_budgets[node] - before) / sizes[order], 0.0, 1.0)
        total += float(shares @ values[order])
    return total

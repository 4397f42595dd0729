"""INFIDA with all slots known: the same ascent on the average gain of the trace, until nothing is left to find.

Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks: distributing machine learning with
optimality guarantees. IEEE/ACM Transactions on Networking 32(1), 2024, arXiv 2105.02510: the offline policy.

The average Ḡ over the slots is concave, so that its slopes g_i at y_1, …, y_n say where it cannot be larger:

    Ḡ(x) <= U = max over Y of Σ_i w_i (Ḡ(y_i) + ⟨g_i, x − y_i⟩)    for every fixed x and weights w >= 0 with Σ w = 1,

and with the steps of `rivage.inference.infida`, w_i ∝ i, U − Ḡ(ȳ) for the mean ȳ = Σ w_i y_i falls as 1/√n: O(1/ε²).
Steps end once U is so near. Then ȳ is rounded once to models that all slots are served with; of several draws the one
that gains most is taken. Draws without overflow have 1 − 1/e − ε of the best fixed allocation's gain in expectation.

What a model could serve depends on what else is loaded; slots are looked at as they are when only models are loaded
that are held anyhow, and draws are compared as they really serve. O(n T K) for T slots that differ and K possibilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.inference.blocks import Blocks, Places, mass_of_best
from rivage.inference.gain import Slot, contend
from rivage.inference.infida import INFIDA
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen

__all__ = ["Ascent", "INFIDAOffline", "OfflineState", "climb"]

Matrix = Float64[ndarray, "nodes models"]
Requests = Float64[ndarray, "types"]


class Ascent(NamedTuple):
    """Where the ascent ended.

    Args:
        y: ȳ of every place.
        gain: Ḡ(ȳ).
        upper: U.
        steps: n.
    """

    y: Places
    gain: float
    upper: float
    steps: int


@dataclass(slots=True, eq=False)
class OfflineState:
    """What is loaded in all slots.

    Args:
        instance: the network.
        streams: of the draws.
        loaded: the allocation.
        y: the fractions that it was drawn from.
        ascent: where they come from; None before the slots were known.
    """

    instance: Instance
    streams: Streams
    loaded: Bool[ndarray, "nodes models"]
    y: Matrix
    ascent: Ascent | None = None


@dataclass(frozen=True, kw_only=True)
class INFIDAOffline:
    """One allocation for all slots, which are known: no rival of online policies, but a yardstick.

    Args:
        steps: at most so many.
        tolerance: of U − Ḡ(ȳ), relative to U; > 0.
        draws: of which the best is taken.
    """

    reference: ClassVar[str] = "sisalem24"

    steps: int = 500
    tolerance: float = 0.005
    draws: int = 20

    def __post_init__(self) -> None:
        require(self.steps, "steps", least=1)
        require(self.tolerance, "tolerance", above=0.0)
        require(self.draws, "draws", least=1)

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> OfflineState:
        """What is held anyhow; the rest comes with `foresee`."""
        held = Blocks.of(instance).held
        return OfflineState(instance, streams, held, held.astype(np.float64))

    def foresee(self, state: OfflineState, slots: Sequence[Requests]) -> None:
        """Find the allocation."""
        instance, blocks = state.instance, Blocks.of(state.instance)
        kinds, counts = np.unique(np.array(slots), axis=0, return_counts=True)
        weights = counts / counts.sum()
        known = [contend(instance, requests, state.loaded).slot for requests in kinds]
        state.ascent = climb(known, weights, steps=self.steps, tolerance=self.tolerance)
        state.y = blocks.matrix(state.ascent.y)
        random, most = state.streams.numpy("rounding"), -np.inf
        for _ in range(self.draws):
            loaded = blocks.rounded(state.ascent.y, random.random(len(blocks.place)))
            gain = sum(w * contend(instance, r, loaded).slot.gain(loaded) for w, r in zip(weights, kinds, strict=True))
            if gain > most:
                state.loaded, most = loaded, gain

    def act(self, state: OfflineState) -> Bool[ndarray, "nodes models"]:
        """Always the same."""
        return state.loaded

    def fractions(self, state: OfflineState) -> Matrix:
        """What it was drawn from."""
        return state.y

    def update(self, state: OfflineState, seen: Seen) -> OfflineState:
        """Nothing to learn."""
        return state


def climb(slots: Sequence[Slot], weights: Float64[ndarray, "slots"], *, steps: int, tolerance: float) -> Ascent:
    """The weighted mean of the fractions along an ascent on the mean gain of slots.

    Args:
        slots: of one network.
        weights: of each of them, with sum 1.
        steps: at most so many.
        tolerance: of U − Ḡ(ȳ), relative to U.
    """
    policy = INFIDA(step="self_confident", refresh=2**31, longest=2**31)  # nothing is rounded on the way
    state = policy.init(slots[0].instance, Streams(0))
    blocks = state.blocks
    total, slopes, lines = np.zeros(len(blocks.place)), np.zeros(len(blocks.place)), 0.0
    count = weight = 0
    while True:
        y, values = state.y, np.exp(state.logs)
        gain, slope = _mean(slots, weights, y)
        slope = slope.ravel()[blocks.place]
        count += 1
        weight += count  # later ones count more: regret of the slopes i g_i grows as n^(3/2), Σ i as n²
        total, slopes = total + count * values, slopes + count * slope
        lines += count * (gain - float(slope @ values))
        state = policy.learn(state, count * slope)
        if count % 10 and count < steps:
            continue  # U costs as much as a step
        parts = zip(blocks.first[:-1], blocks.first[1:], blocks.budgets, strict=True)
        best = sum(mass_of_best(slopes[a:b] / blocks.sizes[a:b], blocks.sizes[a:b], budget) for a, b, budget in parts)
        upper = (lines + best) / weight
        reached = sum(w * slot.gain(blocks.matrix(total / weight)) for w, slot in zip(weights, slots, strict=True))
        if upper - reached <= tolerance * upper or count >= steps:
            return Ascent(total / weight, float(reached), max(upper, float(reached)), count)


def _mean(slots: Sequence[Slot], weights: Float64[ndarray, "slots"], y: Matrix) -> tuple[float, Matrix]:
    """Ḡ and its slope."""
    gain, slope = 0.0, np.zeros(slots[0].instance.shape)
    for weight, slot in zip(weights.tolist(), slots, strict=True):
        gain += weight * slot.gain(y)
        slope += weight * slot.slope(y).gradient
    return gain, slope

"""Per-coordinate optimistic caching (PCOC): every item has a step of its own, as small as its errors ask for.

Faticanti, Neglia. Optimistic online caching for batched requests. Computer Networks, 2024, arXiv 2310.01309. The
regularizer is that of McMahan, Streeter. Adaptive bound optimization for online convex optimization. COLT 2010.

Slot t has the gradient g_t = w∘r_t; before it a prediction ĝ_t is known. G_t are sums, δ_t = g_t − ĝ_t is the error. In
X = {0 ≤ x ≤ 1, Σ x = C}, with x_0 = C / N, σ_0 the largest weight and ranges of items of 1, PCOC plays

    x_t = argmax_X  ⟨x, G_{t−1} + ĝ_t⟩ − ½ Σ_i Σ_{s<t} σ_{s,i} (x_i − x_{s,i})²,
    σ_{0:t,i} = σ_0 + √2 √( Σ_{s<=t} δ_{s,i}² ),

which is clip(p_i − τ / σ_{0:t−1,i}, 0, 1) with p = (Σ_{s<t} σ_s∘x_s + G_{t−1} + ĝ_t) / σ_{0:t−1} and the τ that fills
the cache; x_t is rounded as in mirror descent. OBC (`OptimisticFTRL`) is the same with one σ for all items.

Bound, derived for these steps and known while playing, with D² = C (1 − C/N):

    R_T <= ½ D² σ_0 + ½ Σ_i σ_{1:T,i} + Σ_t Σ_i min( |δ_{t,i}|, δ_{t,i}² / (2 σ_{0:t,i}) ).

Let m_t be the least of F_t(x) = ½ Σ_{s<=t} ‖x − x_s‖²_{σ_s} − ⟨x, G_t⟩ over X. F_T at the best set is at least m_T, so
R_T <= ½ Σ_t ‖x* − x_t‖²_{σ_t} + Σ_t (m_{t−1} − m_t − ⟨g_t, x_t⟩). As x_t is the least point of F_{t−1} − ⟨x, ĝ_t⟩ and
of its own regularizer, the terms of the second sum are at most max_x ⟨δ_t, x − x_t⟩ − ½ ‖x − x_t‖²_{σ_{0:t}}, and no
coordinate moves by more than 1. The whole is at most ½ D² σ_0 + √2 Σ_i √(Σ_t δ_{t,i}²): in Σ_i √n_i for n_i single
requests without prediction, where OBC has √(C T). So PCOC promises more only where few items get nearly all requests.

O(N log N) per slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, get_args

import numpy as np
from jaxtyping import Float64, Int64, Integer
from numpy import ndarray

from rivage.convex.sets import CappedSimplex
from rivage.core.errors import require, require_one_of
from rivage.core.seeding import Streams
from rivage.core.settings import OneOf
from rivage.online.policy import CacheInstance, Outcome
from rivage.online.predictions import PREDICTIONS, LastSlot, Prediction
from rivage.online.slots import Board, Rounder, Rounding, Slot, serve_slots

__all__ = ["PCOC", "PCOCState", "project_weighted"]

Vector = Float64[ndarray, "items"]


@dataclass(slots=True)
class PCOCState:
    """The state of one cache.

    Args:
        board: the cache and its fractional state.
        rounder: makes one from the other.
        memory: of the prediction.
        guess: ĝ of the slot that is open or comes next.
        sums: Σ σ_s∘x_s + G.
        errors: Σ δ_{s,i}² of the slots that have ended.
        paid: the last sum of the bound, over the slots that have ended.
    """

    board: Board
    rounder: Rounder
    memory: Any
    guess: Vector
    sums: Vector
    errors: Vector
    paid: float = 0.0

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return np.flatnonzero(self.board.kept)

    @property
    def fractional(self) -> Vector:
        """The fractional state; O(N)."""
        assert self.board.x is not None
        return self.board.x.copy()


@dataclass(frozen=True, kw_only=True)
class PCOC:
    """Follow the regularized leader one predicted slot ahead, with a regularizer for each item.

    Args:
        prediction: of the next slot.
        scale: multiple of the steps that the bound asks for, > 0.
        rounding: from fractions to items, see `rivage.online.slots.Rounder`.
    """

    reference: ClassVar[str] = "faticanti24"

    prediction: Annotated[Prediction, OneOf(PREDICTIONS)] = field(default_factory=LastSlot)
    scale: float = 1.0
    rounding: Rounding = "coupled"

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0)
        require_one_of(self.rounding, "rounding", get_args(Rounding))

    def init(self, instance: CacheInstance, streams: Streams) -> PCOCState:
        """The first state. O(N log N)."""
        memory, rounder = (
            self.prediction.init(instance, streams),
            Rounder.of(self.rounding, instance.items, streams),
        )
        guess = self.prediction.predict(memory) * Board(instance, np.zeros(instance.items, np.bool_)).weights
        first, nothing = _first(instance), np.zeros(instance.items)
        sums = first * CappedSimplex(instance.items, instance.capacity).center
        x = project_weighted((sums + guess) / first, nothing + first, instance.capacity)
        return PCOCState(Board(instance, rounder.kept(x), x), rounder, memory, guess, sums, nothing)

    def run_block(self, state: PCOCState, requests: Integer[ndarray, "n"]) -> Outcome:
        """Serve requests in order; O(N log N) per slot."""
        return serve_slots(state.board, requests, lambda slot: self._learn(state, slot))

    def _learn(self, state: PCOCState, slot: Slot) -> None:
        board = state.board
        off = _off(state, slot.items, slot.gradient)
        before = self._strengths(state.errors)
        state.errors = state.errors + off**2
        after = self._strengths(state.errors)
        state.paid += self._pays(board.instance, off, after)
        state.sums += (after - before) * board.x
        state.sums[slot.items] += slot.gradient
        self.prediction.learn(state.memory, slot.requests)
        state.guess = self.prediction.predict(state.memory) * board.weights
        whole = _first(board.instance) + after
        board.x = project_weighted((state.sums + state.guess) / whole, whole, board.instance.capacity)
        board.cache(state.rounder.kept(board.x), slot.items)

    def _strengths(self, errors: Vector) -> Vector:
        """σ_{1:t} of every item."""
        strengths: Vector = np.sqrt(2 * errors) / self.scale
        return strengths

    @staticmethod
    def _pays(instance: CacheInstance, off: Vector, strengths: Vector) -> float:
        return float(np.minimum(np.abs(off), off**2 / (2 * (_first(instance) + strengths))).sum())

    def bound(self, state: PCOCState) -> float:
        """What the regret of x cannot exceed for the requests served so far, and in expectation that of the cache."""
        instance, errors, paid = state.board.instance, state.errors, state.paid
        if state.board.filled:  # as if the slot that is open had ended
            items, counts = state.board.counts()
            off = _off(state, items, state.board.weights[items] * counts)
            errors = errors + off**2
            paid += self._pays(instance, off, self._strengths(errors))
        distance = CappedSimplex(instance.items, instance.capacity).diameter_squared
        return (distance * _first(instance) + float(self._strengths(errors).sum())) / 2 + paid


def project_weighted(y: Vector, weights: Vector, total: float) -> Vector:
    """The least point of Σ weights_i (x_i − y_i)² over 0 <= x <= 1, Σ x = total: clip(y − τ / weights, 0, 1).

    Σ clip(…) falls in τ, linearly between the 2 N numbers weights_i y_i and weights_i (y_i − 1): the right piece is
    found by bisection over these, sorted. O(N log N).

    Args:
        y: any point.
        weights: > 0.
        total: 0 <= total <= N.
    """

    def point(tau: float) -> Vector:
        clipped: Vector = np.clip(y - tau / weights, 0.0, 1.0)
        return clipped

    breaks = np.sort(np.concatenate([weights * y, weights * (y - 1)]))
    low, high = 0, len(breaks) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if point(breaks[middle]).sum() >= total else (low, middle)
    more, less = float(point(breaks[low]).sum()), float(point(breaks[high]).sum())
    share = 0.0 if more <= less else min(1.0, max(0.0, (more - total) / (more - less)))
    return point(breaks[low] + share * (breaks[high] - breaks[low]))


def _first(instance: CacheInstance) -> float:
    """σ_0."""
    return instance.largest_weight or 1.0


def _off(state: PCOCState, items: Int64[ndarray, "requested"], gradient: Float64[ndarray, "requested"]) -> Vector:
    """δ for requests of these items."""
    off = -state.guess
    off[items] += gradient
    return off

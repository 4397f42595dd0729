"""Optimistic policies: predictions make regret small when they are right, and cannot make it large when they are wrong.

Mhaisen, Sinha, Paschos, Iosifidis. Optimistic no-regret algorithms for discrete caching. SIGMETRICS 2023, arXiv
2208.06414. With batches: Faticanti, Neglia. Optimistic online caching for batched requests. Computer Networks, 2024,
arXiv 2310.01309.

Slot t has the gradient g_t = w∘r_t; before it a prediction ĝ_t is known. G_t are sums, δ_t = g_t − ĝ_t is the error.

`OptimisticFTPL` caches the C items with the largest G_{t−1} + ĝ_t + η_t γ, γ normal and drawn once,

    η_t = √( Σ_{s<t} ‖δ_s‖₁² / (C L √(2π)) ),    L = √(2 ln(N e / C)).

`OptimisticFTRL` plays, in X = {0 ≤ x ≤ 1, Σ x = C}, of squared width V² = 2 min(C, N − C),

    x_t = Π_X( (Σ_{s<t} σ_s x_s + G_{t−1} + ĝ_t) / σ_{0:t−1} ),    σ_{0:t} = σ_0 + (√2/V) √( Σ_{s<=t} ‖δ_s‖₂² ),

with x_0 = C / N and σ_0 the largest weight, and rounds x_t as mirror descent does. This is what the authors' code plays
up to constants, chosen here for the bounds below: theirs are ``scale`` = 1.88 for the first and √2 for the second.

Bounds, derived for these steps; both are known while playing and hold for any step that only grows with errors seen:

    FTPL   E R_T <= η_T C L + Σ_t min( ‖δ_t‖₁, ‖δ_t‖₁² / (2 η_t √(2π)) )
    FTRL     R_T <= ½ D² σ_0 + ½ V² σ_{1:T} + Σ_t min( V ‖δ_t‖₂, ‖δ_t‖₂² / (2 σ_{0:t}) ).

For FTPL let Φ_η(G) = E max_x ⟨x, G + η γ⟩, whose gradient at G_{t−1} + ĝ_t is E x_t. By convexity Φ(G_t) − Φ(G_{t−1}) −
⟨E x_t, g_t⟩ is at most the Bregman distance of Φ over δ_t: at most ½ ‖δ_t‖₁² max H_ij, and H_ij = E[x_i γ_j]/η lies
within ± 1/(η √(2π)); and at most ‖δ_t‖₁, as gradients lie in [0, 1]. Summed up, Φ telescopes, and growing η costs its
growth times E max Σ γ <= C L. For FTRL, x_t minimises Σ_{s<=t} σ_s/2 ‖x − x_s‖² − ⟨x, G_{t−1} + ĝ_t⟩, which δ_t changes
by at most the last terms. So with perfect predictions the regret is at most 0, or ½ D² σ_0; it need not be negative.

O(N) per slot, with a small constant for the leader: η moves all values in every slot. With one request a slot the
policies without predictions are far faster.
"""

from __future__ import annotations

import math
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

__all__ = ["OptimisticFTPL", "OptimisticFTRL", "OptimisticState"]

Vector = Float64[ndarray, "items"]

_NORMAL = math.sqrt(2 * math.pi)
_MARGIN = 16  # items looked at for small caches


@dataclass(slots=True)
class Front:
    """The C items with the largest values, found among those that can be.

    All values move in every slot, as η does, so no heap keeps them in order. But the C-th largest moves little: items
    above a level that more than C items had lately are looked at only, and all of them where that does not decide it.

    Args:
        count: C.
        level: see above.
    """

    count: int
    level: float = math.inf

    def of(self, values: Vector) -> ndarray:
        """Which items are among them; the same as `_largest`, ties included. O(N), by comparisons only mostly."""
        near, count = np.flatnonzero(values >= self.level), self.count
        if not count < len(near) <= 2 * count + _MARGIN:
            self.level = _level(values, count + count // 2 + _MARGIN // 2)
            return _largest(values, count)
        few = values[near]
        order = np.argpartition(-few, (count - 1, count))
        if few[order[count - 1]] == few[order[count]]:
            return _largest(values, count)
        kept = np.zeros(len(values), np.bool_)
        kept[near[order[:count]]] = True
        return kept


@dataclass(slots=True)
class OptimisticState:
    """The state of one cache.

    Args:
        board: the cache, and the fractional state of FTRL.
        memory: of the prediction.
        guess: ĝ of the slot that is open or comes next.
        noise: γ of FTPL.
        sums: G, for FTRL Σ σ_s x_s + G.
        errors: Σ ‖δ_s‖² of the slots that have ended.
        paid: the last sum of the bound, over the slots that have ended.
        rounder: of FTRL.
        front: of FTPL.
    """

    board: Board
    memory: Any
    guess: Vector
    noise: Vector
    sums: Vector
    errors: float = 0.0
    paid: float = 0.0
    rounder: Rounder | None = None
    front: Front = field(default_factory=lambda: Front(0))

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return np.flatnonzero(self.board.kept)

    @property
    def fractional(self) -> Vector:
        """The fractional state of FTRL, the cached items of FTPL; O(N)."""
        return self.board.kept.astype(np.float64) if self.board.x is None else self.board.x.copy()

    def off(self, items: Int64[ndarray, "requested"], gradient: Float64[ndarray, "requested"]) -> Vector:
        """δ for requests of these items."""
        off = -self.guess
        off[items] += gradient
        return off

    def off_so_far(self) -> Vector | None:
        """δ of the slot that is open, as if it had ended; None when none is."""
        board = self.board
        if not board.filled:
            return None
        items, counts = board.counts()
        return self.off(items, board.weights[items] * counts)


@dataclass(frozen=True, kw_only=True)
class OptimisticFTPL:
    """Follow the perturbed leader, who is one predicted slot ahead.

    Args:
        prediction: of the next slot.
        scale: multiple of the noise that the bound asks for, > 0.
    """

    reference: ClassVar[str] = "mhaisen23"

    prediction: Annotated[Prediction, OneOf(PREDICTIONS)] = field(default_factory=LastSlot)
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0)

    def init(self, instance: CacheInstance, streams: Streams) -> OptimisticState:
        """The C items with the largest predictions. O(N)."""
        noise, memory = streams.numpy("noise").standard_normal(instance.items), self.prediction.init(instance, streams)
        board = Board(instance, np.zeros(instance.items, np.bool_))
        guess = self.prediction.predict(memory) * board.weights
        board = Board(instance, _largest(guess, instance.capacity))
        return OptimisticState(board, memory, guess, noise, np.zeros(instance.items), front=Front(instance.capacity))

    def run_block(self, state: OptimisticState, requests: Integer[ndarray, "n"]) -> Outcome:
        """Serve requests in order; O(N) per slot."""
        return serve_slots(state.board, requests, lambda slot: self._learn(state, slot))

    def _learn(self, state: OptimisticState, slot: Slot) -> None:
        board = state.board
        off = float(np.abs(state.off(slot.items, slot.gradient)).sum())
        state.paid += self._pays(off, self._step(state))
        state.errors += off**2
        state.sums[slot.items] += slot.gradient
        self.prediction.learn(state.memory, slot.requests)
        state.guess = self.prediction.predict(state.memory) * board.weights
        ranked = state.sums + state.guess + self._step(state) * state.noise
        board.cache(state.front.of(ranked), slot.items)

    def _step(self, state: OptimisticState) -> float:
        """η of the slot that is open or comes next."""
        return self.scale * math.sqrt(state.errors / (_spread(state.board.instance) * _NORMAL))

    @staticmethod
    def _pays(off: float, step: float) -> float:
        return min(off, off**2 / (2 * step * _NORMAL)) if step else off

    def bound(self, state: OptimisticState) -> float:
        """What the expected regret cannot exceed for the requests served so far, if they do not depend on γ."""
        open_slot, step = state.off_so_far(), self._step(state)
        more = 0.0 if open_slot is None else self._pays(float(np.abs(open_slot).sum()), step)
        return step * _spread(state.board.instance) + state.paid + more


@dataclass(frozen=True, kw_only=True)
class OptimisticFTRL:
    """Follow the regularized leader, who is one predicted slot ahead; with batches this is OBC.

    Args:
        prediction: of the next slot.
        scale: multiple of the step that the bound asks for, > 0.
        rounding: from fractions to items, see `rivage.online.slots.Rounder`.
    """

    reference: ClassVar[str] = "mhaisen23"

    prediction: Annotated[Prediction, OneOf(PREDICTIONS)] = field(default_factory=LastSlot)
    scale: float = 1.0
    rounding: Rounding = "coupled"

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0)
        require_one_of(self.rounding, "rounding", get_args(Rounding))

    def init(self, instance: CacheInstance, streams: Streams) -> OptimisticState:
        """The first state. O(N log N)."""
        center, memory = (
            CappedSimplex(instance.items, instance.capacity).center,
            self.prediction.init(instance, streams),
        )
        board = Board(instance, np.zeros(instance.items, np.bool_))
        guess = self.prediction.predict(memory) * board.weights
        sums = (instance.largest_weight or 1.0) * center
        x = self._project(instance, sums + guess, 0.0)
        rounder = Rounder.of(self.rounding, instance.items, streams)
        board = Board(instance, rounder.kept(x), x)
        return OptimisticState(board, memory, guess, np.empty(0), sums, rounder=rounder)

    def run_block(self, state: OptimisticState, requests: Integer[ndarray, "n"]) -> Outcome:
        """Serve requests in order; O(N log N) per slot."""
        return serve_slots(state.board, requests, lambda slot: self._learn(state, slot))

    def _learn(self, state: OptimisticState, slot: Slot) -> None:
        board, instance = state.board, state.board.instance
        assert board.x is not None
        assert state.rounder is not None
        off = state.off(slot.items, slot.gradient)
        before, square = self._strength(instance, state.errors), float(off @ off)
        state.errors += square
        after = self._strength(instance, state.errors)
        state.paid += self._pays(instance, square, after)
        state.sums += (after - before) * board.x
        state.sums[slot.items] += slot.gradient
        self.prediction.learn(state.memory, slot.requests)
        state.guess = self.prediction.predict(state.memory) * board.weights
        board.x = self._project(instance, state.sums + state.guess, state.errors)
        board.cache(state.rounder.kept(board.x), slot.items)

    def _project(self, instance: CacheInstance, sums: Vector, errors: float) -> Vector:
        point = sums / ((instance.largest_weight or 1.0) + self._strength(instance, errors))
        return CappedSimplex(instance.items, instance.capacity).project(point)

    def _strength(self, instance: CacheInstance, errors: float) -> float:
        """σ_{1:t}."""
        return math.sqrt(2 * errors) / (self.scale * _width(instance))

    @staticmethod
    def _pays(instance: CacheInstance, square: float, strength: float) -> float:
        whole = (instance.largest_weight or 1.0) + strength
        return min(_width(instance) * math.sqrt(square), square / (2 * whole))

    def bound(self, state: OptimisticState) -> float:
        """What the regret of x cannot exceed for the requests served so far, and in expectation that of the cache."""
        instance, off, errors, paid = state.board.instance, state.off_so_far(), state.errors, state.paid
        if off is not None:
            errors += float(off @ off)
            paid += self._pays(instance, float(off @ off), self._strength(instance, errors))
        distance = CappedSimplex(instance.items, instance.capacity).diameter_squared
        first = distance * (instance.largest_weight or 1.0)
        return (first + _width(instance) ** 2 * self._strength(instance, errors)) / 2 + paid


def _spread(instance: CacheInstance) -> float:
    """C L, which E max Σ γ over C items does not exceed."""
    return instance.capacity * math.sqrt(2 * math.log(instance.items * math.e / instance.capacity))


def _width(instance: CacheInstance) -> float:
    """V."""
    return math.sqrt(2 * min(instance.capacity, instance.items - instance.capacity))


def _level(values: Vector, count: int) -> float:
    """The value that ``count`` items have or exceed."""
    return float(-np.partition(-values, count - 1)[count - 1]) if count < len(values) else -math.inf


def _largest(values: Vector, count: int) -> ndarray:
    kept = np.zeros(len(values), np.bool_)
    kept[np.argpartition(-values, count - 1)[:count]] = True
    return kept

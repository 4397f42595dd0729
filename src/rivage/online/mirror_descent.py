"""Online mirror descent: gradient descent, multiplicative updates, and the q-norms in between.

Si Salem, Neglia, Ioannidis. No-regret caching via online mirror descent. ICC 2021, arXiv 2101.12588.

In slot t a batch r_t of at most R requests, at most h for one item, meets the fractional cache x_t in
X = {0 ≤ x ≤ 1, Σ x = k}. With weights w at most W and a mirror map Φ,

    x_{t+1} = Π_Φ( (∇Φ)⁻¹( ∇Φ(x_t) + η w∘r_t ) ),        x_1 = k / N,

and with T slots, 1/p + 1/q = 1, the best constant step and its regret are √(D²/(G² T)) and √(D² G² T), where

    map          D²: twice the divergence from x_1        G²: squared dual norm over the convexity
    euclidean    k (1 − k/N)                              W² h R
    q_norm       k² (k^(−2/p) − N^(−2/p))                 W² h² (R/h)^(2/p) / (q − 1)
    entropy      2 k ln(N/k)                              k W² h²

`euclidean` has the best bound for R/h ≤ k, `entropy` for R/h > 2 √(N k), as the paper shows. All rest on

    R_T ≤ D²/(2η) + η G² T/2      for any constant step η,

which also gives the bound before the horizon, after it, and for other multiples of the step. The integral cache z_t is
drawn from x_t with E z_t = x_t (`rivage.convex.rounding`), so its expected gain is that of x_t.

With one request a slot the entropy needs no sorting. All mass that is taken away comes from a scaling by m ≤ 1, so only
the requested item j can reach its bound 1. Writing x_i = exp(key_i − ρ), a request raises key_j by η w and ρ by −ln m,

    m = k / (k + x_j (e^(ηw) − 1)),    or, if that leaves x_j above 1,    x_j = 1 and m = (k − 1)/(k − x_j(before)):

O(1), with logarithms that never underflow. Item i is cached iff x_i > u_i with a permanent u_i, hence iff
key_i − ln u_i > ρ: a heap of the cached items has the next to leave at its root, and only the requested item can enter.
That is O(log k) amortised where the paper has O(k), see `rivage.online.entropy_kernel`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64, Integer
from numpy import ndarray

from rivage.convex.mirrors import MirrorMap, NegativeEntropy, QNorm, SquaredNorm
from rivage.convex.schedules import Constant, Doubling, Progress, Schedule, SelfConfident, Theory
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import ConfigError, require, require_one_of
from rivage.core.seeding import Streams
from rivage.online.entropy_kernel import EntropyTables, make_entropy, restart, serve_entropy
from rivage.online.policy import CacheInstance, Outcome
from rivage.online.slots import Board, Rounder, Rounding, Slot, serve_slots

__all__ = ["DescentState", "MirrorDescent", "SparseState"]

Map = Literal["entropy", "euclidean", "q_norm"]
Step = Literal["theory", "doubling", "self_confident"]


@dataclass(slots=True)
class DescentState:
    """The state of one cache, of any map and rounding.

    Args:
        board: the cache and its fractional state.
        rounder: makes one from the other.
        set: X.
        map: Φ.
        schedule: of the step sizes.
        progress: of the schedule.
    """

    board: Board
    rounder: Rounder
    set: CappedSimplex
    map: MirrorMap
    schedule: Schedule
    progress: Progress

    @property
    def fractional(self) -> Float64[ndarray, "items"]:
        """The fractional state; O(N)."""
        assert self.board.x is not None
        return self.board.x.copy()

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return np.flatnonzero(self.board.kept)

    @property
    def slots(self) -> int:
        """Slots so far, an open one included."""
        return self.board.begun


@dataclass(slots=True)
class SparseState:
    """The state of one cache with the entropy and one request a slot.

    Args:
        instance: what it is for.
        tables: of the kernel.
        weights: of the items; empty when all are 1.
        slots: requests so far.
    """

    instance: CacheInstance
    tables: EntropyTables
    weights: Float64[ndarray, "w"]
    slots: int = 0

    @property
    def fractional(self) -> Float64[ndarray, "items"]:
        """The fractional state; O(N)."""
        x: Float64[ndarray, "items"] = np.exp(np.minimum(self.tables.key - self.tables.rho, 0.0))
        return x

    @property
    def cached(self) -> Int64[ndarray, "cached"]:
        """The cached items, ascending; O(N)."""
        return np.flatnonzero(self.tables.heap.place >= 0)


@dataclass(frozen=True, kw_only=True)
class MirrorDescent:
    """Mirror descent on the fractional cache, rounded to whole items.

    Entropy, Poisson and one request a slot run compiled, O(log k) a request; all else is O(N) a slot and more. For
    gradient descent with one request a slot use `rivage.online.ogb.OGB`, which is the same and O(1).

    Args:
        map: mirror map.
        q: of ``q_norm``, in (1, 2].
        step: ``theory`` is the best constant step for the horizon, and ``doubling`` where none is known; ``doubling``
            starts again from k / N after 1, 2, 4, … slots; ``self_confident`` follows the gradients seen, which has no
            bound with the entropy, because its divergence has none, and is refused there.
        scale: multiple of that step, > 0; recency pays off with larger ones.
        rounding: see `Rounder`.
    """

    reference: ClassVar[str] = "sisalem21"

    map: Map = "entropy"
    q: float = 1.5
    step: Step = "theory"
    scale: float = 1.0
    rounding: Rounding = "poisson"

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0)
        QNorm(self.q)
        require_one_of(self.map, "map", get_args(Map))
        require_one_of(self.step, "step", get_args(Step))
        require_one_of(self.rounding, "rounding", get_args(Rounding))
        if self.map == "entropy" and self.step == "self_confident":
            raise ConfigError(
                "the entropy has no bound with step self_confident", where="policy", mend='Use "theory" or "doubling".'
            )

    def init(self, instance: CacheInstance, streams: Streams) -> DescentState | SparseState:
        """The first state. O(N)."""
        if self.map == "entropy" and self.rounding == "poisson" and instance.batch == 1:
            weights = np.empty(0) if instance.weights is None else np.ascontiguousarray(instance.weights, np.float64)
            numbers = streams.numpy("permanent").random(instance.items)
            return SparseState(instance, make_entropy(numbers, instance.capacity), weights)
        return self.plain(instance, streams)

    def plain(self, instance: CacheInstance, streams: Streams) -> DescentState:
        """The first state of the general path, which is slow and the reference for the other. O(N)."""
        ground, schedule = CappedSimplex(instance.items, instance.capacity), self.schedule(instance)
        rounder = Rounder.of(self.rounding, instance.items, streams)
        board = Board(instance, rounder.kept(ground.center), ground.center)
        maps: dict[Map, MirrorMap] = {"entropy": NegativeEntropy(), "euclidean": SquaredNorm(), "q_norm": QNorm(self.q)}
        return DescentState(board, rounder, ground, maps[self.map], schedule, schedule.start())

    def run_block(self, state: DescentState | SparseState, requests: Integer[ndarray, "n"]) -> Outcome:
        """Serve requests in order."""
        if isinstance(state, SparseState):
            return self._run_sparse(state, requests)
        return serve_slots(state.board, requests, lambda slot: self._learn(state, slot))

    def _learn(self, state: DescentState, slot: Slot) -> None:
        board, square = state.board, self._square(slot.gradient)
        step, state.progress = state.schedule.next(state.progress, square)
        if state.progress.restart:
            board.x = state.set.center
        elif square > 0:
            dual = state.map.gradient(self.fractions(board))
            dual[slot.items] += self.scale * step * slot.gradient
            board.x = state.map.project(state.set, state.map.inverse(dual))
        board.cache(state.rounder.kept(self.fractions(board)), slot.items)

    @staticmethod
    def fractions(board: Board) -> Float64[ndarray, "items"]:
        """The fractional state itself."""
        assert board.x is not None
        return board.x

    def _run_sparse(self, state: SparseState, requests: Integer[ndarray, "n"]) -> Outcome:
        total = Outcome(requests=len(requests))
        for part, step, fresh in self._stretches(state, requests):
            hits, gain, fractional, inserted = serve_entropy(state.tables, part, state.weights, step)
            state.slots += len(part)
            total.hits += hits
            total.gain += gain
            total.fractional += fractional
            total.inserted += inserted
            if fresh:
                fetched = restart(state.tables)
                total.inserted += len(fetched)
                unasked = fetched[fetched != part[-1]]
                total.prefetched += float(state.weights[unasked].sum()) if len(state.weights) else len(unasked)
        total.inserted += int(state.tables.unreported[0])
        state.tables.unreported[0] = 0
        total.occupancy = float(state.tables.held[0])
        return total

    def _stretches(
        self, state: SparseState, requests: Integer[ndarray, "n"]
    ) -> Iterator[tuple[Integer[ndarray, "m"], float, bool]]:
        """Requests with the same step, and whether a new start follows them."""
        schedule = self.schedule(state.instance)
        if isinstance(schedule, Theory):
            yield requests, self.scale * schedule.step, False
            return
        while len(requests):
            epoch = 1 << ((state.slots + 1).bit_length() - 1)
            room = 2 * epoch - 2 - state.slots
            part, requests = requests[:room], requests[room:]
            diameter, gradient = self.constants(state.instance)
            yield part, self.scale * Theory(diameter, gradient, epoch).step, False
            if len(requests):  # the last of an epoch teaches nothing that the new start would not wipe out
                part, requests = requests[:1], requests[1:]
                yield part, 0.0, True

    def constants(self, instance: CacheInstance) -> tuple[float, float]:
        """D² and G² of the table above."""
        items, capacity, most = instance.items, instance.capacity, instance.largest_weight
        batch, times = instance.batch, instance.multiplicity
        if self.map == "euclidean":
            return capacity * (1 - capacity / items), most**2 * times * batch
        if self.map == "entropy":
            return 2 * capacity * math.log(items / capacity), capacity * (most * times) ** 2
        power = 2 * (1 - 1 / self.q)  # 2/p
        gradient = (most * times) ** 2 * (batch / times) ** power / (self.q - 1)
        return capacity**2 * (capacity**-power - items**-power), gradient

    def schedule(self, instance: CacheInstance) -> Schedule:
        """Of the step sizes, before ``scale``."""
        diameter, gradient = self.constants(instance)
        if self.step == "self_confident":
            return SelfConfident(diameter)
        if self.step == "doubling" or instance.horizon is None:
            return Doubling(diameter, gradient)
        return Theory(diameter, gradient, -(-instance.horizon // instance.batch))

    def regret_bound(self, instance: CacheInstance, slots: int, *, squares: float | None = None) -> float:
        """What the regret of x cannot exceed, and the expected regret of the cache.

        Args:
            instance: the cache.
            slots: T.
            squares: Σ ‖g_t‖² as they were, for ``self_confident``; T G² otherwise.
        """
        diameter, gradient = self.constants(instance)
        schedule = self.schedule(instance)
        if gradient == 0:
            return 0.0
        if isinstance(schedule, SelfConfident):
            seen = gradient * slots if squares is None else squares
            schedule = SelfConfident(self.scale**2 * diameter)
            return schedule.bound(1, gradient_squared=seen, width_squared=self._width(instance))
        if isinstance(schedule, Theory):
            lengths = [(schedule.horizon, slots)]
        else:
            epochs = [1 << power for power in range(slots.bit_length())]
            lengths = [(epoch, min(epoch, slots - epoch + 1)) for epoch in epochs]
        return sum(
            Constant(self.scale * Theory(diameter, gradient, planned).step).bound(
                played, diameter_squared=diameter, gradient_squared=gradient
            )
            for planned, played in lengths
        )

    def bound(self, state: DescentState | SparseState) -> float:
        """What the regret of x cannot exceed for the requests served so far."""
        if isinstance(state, SparseState):
            return self.regret_bound(state.instance, state.slots)
        board = state.board
        squares = state.progress.squares
        if board.filled:  # an open slot may still become as large as any
            squares += self.constants(board.instance)[1]
            board.counts()  # refuses what that is not for
        return self.regret_bound(board.instance, board.begun, squares=squares)

    def _square(self, gradient: Float64[ndarray, "requested"]) -> float:
        """‖g‖² in the dual norm, over the convexity of the map; for the entropy only whether it is 0."""
        if self.map == "euclidean":
            return float(gradient @ gradient)
        if self.map == "entropy":
            return float(gradient.max() ** 2)
        p = self.q / (self.q - 1)
        most = float(gradient.max())
        return most**2 * float(((gradient / most) ** p).sum()) ** (2 / p) / (self.q - 1) if most else 0.0

    def _width(self, instance: CacheInstance) -> float:
        """Twice the largest divergence between two points of X."""
        if self.map == "euclidean":
            return 2.0 * min(instance.capacity, instance.items - instance.capacity)
        width: float = 2.0 * instance.capacity ** (2 / self.q)  # ½‖x‖² + ½‖y‖² − ⟨∇Φ(y), x⟩, and no product is negative
        return width

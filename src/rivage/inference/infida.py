"""INFIDA: each node learns by mirror ascent which models to hold, and rounds fractions to whole models.

Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks: distributing machine learning with
optimality guarantees. IEEE/ACM Transactions on Networking 32(1), 2024, arXiv 2105.02510.

Node v has fractions y in Y^v = {0 <= y <= 1, Σ s_m y_m = b} (`rivage.inference.blocks`) and the mirror map
Φ(y) = Σ s_m y_m ln y_m. With g_t a supergradient of the slot's gain at y_t (`rivage.inference.gain`),

    h_m = y_m exp(η g_m / s_m),    y'_m = min(1, c h_m),  c such that Σ s_m y'_m = b,

which is y' = argmax over Y^v of η⟨g, y'⟩ − D(y', y), D(x, y) = Σ s (x ln(x/y) − x + y). The first y is uniform, b/Σ s.
Every ``refresh`` slots the nodes draw whole models from y by dependent rounding.

Steps that fall with time would leave nothing to prove, since D(x, y_t) has no limit. We let the first fractions pull
back by as much as the step falls (Fang, Harvey, Portella, Friedlander, ICML 2020, stabilise mirror descent so):
h = y^ρ y_1^(1−ρ) exp(η_t g/s) with ρ = η_t/η_{t−1}. A constant step has ρ = 1, the publication's rule.

**What is promised.** The optimality of each step alone gives, for every x in Y, every sequence of slots, even one that
answers to the draws, and all steps that do not rise (add up the inequality of three points, divided by η_t),

    Σ_t G_t(x) − G_t(y_t) <= Σ_v R_v/η_T^v + Σ_v Σ_t a_t^v                                              (1)
    a_t = ⟨g_t, y_{t+1} − y_t⟩ − D(y_{t+1}, y_t)/η_{t−1} − (1/η_t − 1/η_{t−1}) D(y_{t+1}, y_1) <= η_{t−1} b q_t²/8

with R = max_x Σ s x ln(x/y_1) <= b ln(Σ s/b), q_t the distance from the least to the largest g_m/s_m of the node, and
η_0 = η_1. The last inequality is Pinsker's with Σ s (y_{t+1} − y_t) = 0. All of (1) but x is seen: `bound` adds it up.
As q <= σ = |R| L Δ/s_min, for |R| types, at most L requests of a type and costs Δ apart, and b <= s_max |M|, it implies
the publication's theorem, A √T with A = (1 − 1/e) σ √(2D/θ), θ = 1/(s_max |V| |M|), D = Σ b ln(Σ s/b), for its step
√(2θD/T)/σ (`published`); our ``theory`` uses q and b of each node, and promises at most half as much regret.

When capacities do not depend on the draws and a single pinned model takes all that nobody else does,
E G(x_t) >= (1 − 1/e) G(y_t) for ``paper`` and ``reserve``: hence (1 − 1/e)-regret (`rounded_factor`). ``strict`` loses
what overflows and gains what fits besides, and promises nothing about draws.

Two things are not of the publication, and pay (docs/explanation/delivery-compared.md). What has been useless for long
has a tiny y, which takes many steps to come back: with ``mixing`` ε, y ← (1 − ε) y + ε y_1 after every step. That adds
at most b ln(1/(1 − ε)) to D(x, y), and so Σ_v Σ_t b ln(1/(1 − ε))/η_t to (1). And chance costs much where nodes hold
few models: of several ``candidates`` the best is loaded.

O(K) for K possibilities of all types, and O(n log n) for n models of a node, per slot.

References:
    Si Salem et al.: model, update, rounding, theorem. Constants were derived anew; tests hold (1) against runs.
    Fang, Harvey, Portella, Friedlander. Online mirror descent and dual averaging. ICML 2020, arXiv 2006.02585.
    Byrka, Pensyl, Rybicki, Srinivasan, Trinh. An improved approximation for k-median. SODA 2015 (unequal sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, ShapeError, require, require_one_of
from rivage.core.seeding import Streams
from rivage.inference import infida_kernel as kernel
from rivage.inference.blocks import ROUNDINGS, BlockRounding, Blocks, Places
from rivage.inference.gain import Slot
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen

__all__ = ["INFIDA", "InfidaState", "Published", "published", "pulls"]

Step = Literal["scale_free", "constant", "theory", "self_confident"]
Matrix = Float64[ndarray, "nodes models"]
PerBlock = Float64[ndarray, "blocks"]
Loaded = Bool[ndarray, "nodes models"]

_BETTER = 0.005  # by which another candidate must gain more than what is loaded: to change it moves many models


@dataclass(slots=True, eq=False)
class InfidaState:
    """What INFIDA knows; arrays and numbers alone decide how it goes on.

    Args:
        blocks: what each node decides.
        reach: R of each block.
        pulls: no g/s of a block, up to its sign, gets larger, for ``theory``.
        slots: the horizon, None when unknown.
        promised: share of the gain of fractions that draws keep in expectation, None where nothing is known.
        logs: ln y of every place.
        start: ln y_1.
        steps: η of each block in the last slot, 0 before the first gradient.
        largest: largest g/s of each block that counts, up to its sign.
        squares: Σ b q²/4 of each block.
        loaded: what is loaded now.
        drawn: the fractions that it was drawn from.
        draws: a uniform number for each place, for every candidate.
        random: of draws that are not kept.
        period: slots between draws.
        clock: slots so far.
        since: slots since the last draw.
        settled: the bound of epochs that are over, and Σ a_t.
        lag: Σ G_t(y_t) − G_t(fractions drawn from), what waiting has cost.
    """

    blocks: Blocks
    reach: PerBlock
    pulls: PerBlock
    slots: int | None
    promised: float | None
    logs: Places
    start: Places
    loaded: Bool[ndarray, "nodes models"]
    drawn: Matrix
    draws: Float64[ndarray, "candidates decided"]
    random: np.random.Generator
    period: float
    steps: PerBlock = field(init=False)
    largest: PerBlock = field(init=False)
    squares: PerBlock = field(init=False)
    clock: int = 0
    since: int = 0
    settled: float = 0.0
    lag: float = 0.0

    def __post_init__(self) -> None:
        self.steps, self.largest, self.squares = (np.zeros(len(self.blocks)) for _ in range(3))

    @property
    def y(self) -> Matrix:
        """The fractions now; those drawn from are older between refreshes."""
        return self.blocks.matrix(np.exp(self.logs))

    def part(self, block: int) -> InfidaState:
        """What a node knows of a state that has just begun: its own block, as if it were alone."""
        own, at = slice(block, block + 1), slice(self.blocks.first[block], self.blocks.first[block + 1])
        return replace(
            self,
            blocks=self.blocks.part(block),
            reach=self.reach[own],
            pulls=self.pulls[own],
            logs=self.logs[at],
            start=self.start[at],
            loaded=self.loaded[[self.blocks.node[block]]],
            drawn=self.drawn[[self.blocks.node[block]]],
            draws=self.draws[:, at],
            random=self.random.spawn(1)[0],
        )


@dataclass(frozen=True, kw_only=True)
class INFIDA:
    """Mirror ascent on fractions of models, rounded.

    Args:
        step: ``scale_free`` is c over the largest g/s that a node has seen; ``constant`` is η = c; ``theory`` the
            best constant step for the horizon and ``most`` requests, in epochs of 1, 2, 4, … slots where the horizon is
            unknown; ``self_confident`` is √(2R / Σ b q²/4) for what was seen. All but ``constant`` differ by node.
        scale: c > 0, a multiple of the step.
        warmup: slots after which ``scale_free`` takes no notice of larger gradients; None means never. A burst then
            shortens no step for good, but each step may move far.
        decay: whether ``scale_free`` and ``constant`` steps fall as 1/√t: better for demand that never changes.
        most: the largest number of requests of a type in a slot, for ``theory``.
        refresh: slots between draws of models.
        stretch: factor >= 1 by which that grows with every draw.
        longest: to which it grows at most.
        rounding: see `rivage.inference.blocks`. `rivage.inference.replay` refuses what does not fit: ``paper`` is for
            expected gains as they were published.
        keep_draws: whether all draws use the same random numbers, so that models change only when y does.
        candidates: of so many draws, that which would have gained most in the slot just seen is loaded, or what is
            loaded stays. More than 1 is not of the publication and needs someone who sees all nodes; chance then costs
            less of the gain, and less moves.
        mixing: ε in [0, 1), a share of y_1 that fractions are mixed with after every step. 0 is the publication's; a
            thousandth brings back sooner what had long been useless, and adds Σ b ln(1/(1 − ε))/η_t to the bound.
    """

    reference: ClassVar[str] = "sisalem24"

    step: Step = "scale_free"
    scale: float = 1.0
    warmup: int | None = None
    decay: bool = False
    most: float | None = None
    refresh: int = 1
    stretch: float = 1.0
    longest: int = 1_000_000
    rounding: BlockRounding = "strict"
    keep_draws: bool = True
    candidates: int = 1
    mixing: float = 0.0

    def __post_init__(self) -> None:
        require(self.scale, "scale", above=0.0)
        require(1 if self.warmup is None else self.warmup, "warmup", least=1)
        require(1.0 if self.most is None else self.most, "most", above=0.0)
        require(self.refresh, "refresh", least=1)
        require(self.stretch, "stretch", least=1.0)
        require(self.longest, "longest", least=self.refresh)
        require(self.candidates, "candidates", least=1)
        if not 0 <= self.mixing < 1:
            raise ConfigError(f"mixing is {self.mixing:g}", mend="Give a share in [0, 1).")
        require_one_of(self.step, "step", get_args(Step))
        require_one_of(self.rounding, "rounding", ROUNDINGS)
        if self.step == "theory" and self.most is None:
            raise ConfigError(
                "step theory needs to know what may come", mend="Give most, requests of a type in a slot."
            )
        if self.decay and self.step not in ("scale_free", "constant"):
            raise ConfigError(f"step {self.step} falls by a rule of its own", mend="Leave out decay.")

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> InfidaState:
        """Uniform fractions, and a first draw."""
        blocks = Blocks.of(instance, self.rounding)
        state = InfidaState(
            blocks=blocks,
            reach=blocks.reach(blocks.uniform),
            pulls=blocks.largest(pulls(instance, blocks, self.most)) if self.most else np.zeros(len(blocks)),
            slots=slots,
            promised=self._promised(instance, blocks),
            logs=blocks.uniform.copy(),
            start=blocks.uniform.copy(),
            loaded=blocks.held,
            drawn=blocks.held.astype(np.float64),
            draws=streams.numpy("kept").random((self.candidates, len(blocks.place))),
            random=streams.numpy("rounding"),
            period=float(self.refresh),
        )
        self._draw(state)
        return state

    def warm(
        self, state: InfidaState, allocation: Matrix | Bool[ndarray, "nodes models"], *, trust: float = 0.9
    ) -> None:
        """Begin from an allocation or fractions instead, before the first slot: (1 − trust) y_1 + trust x, made to fit.

        Args:
            state: just made.
            allocation: x, a plan for example.
            trust: in [0, 1); the bound grows as ln 1/(1 − trust).
        """
        blocks = state.blocks
        if state.clock or np.shape(allocation) != blocks.held.shape or not 0 <= trust < 1:
            raise ShapeError(
                f"slot {state.clock}, an allocation of shape {np.shape(allocation)}, trust {trust:g}",
                mend=f"Start before the first slot, from shape {blocks.held.shape}, with a trust in [0, 1).",
            )
        wanted = np.clip(np.asarray(allocation, np.float64).ravel()[blocks.place], 0.0, 1.0)
        mixed = np.log((1 - trust) * np.exp(blocks.uniform) + trust * wanted)
        nothing, one = np.zeros(len(mixed)), np.ones(len(blocks))
        state.logs, _ = kernel.ascend(blocks.first, blocks.sizes, blocks.budgets, mixed, mixed, nothing, one, one)
        state.start = state.logs.copy()
        state.reach = blocks.reach(state.start)
        self._draw(state)

    def act(self, state: InfidaState) -> Bool[ndarray, "nodes models"]:
        """What was drawn last."""
        return state.loaded

    def fractions(self, state: InfidaState) -> Matrix:
        """The fractions that it was drawn from."""
        return state.drawn

    def iterate(self, state: InfidaState) -> Matrix:
        """The fractions now, whose slope the next step follows."""
        return state.y

    def update(self, state: InfidaState, seen: Seen) -> InfidaState:
        """A step of every node, and a draw when it is due. O(K + nodes · models)."""
        y = state.y if state.since else state.drawn
        if state.since:
            state.lag += seen.slot.gain(y) - seen.slot.gain(state.drawn)
        return self.learn(state, seen.slot.slope(y).gradient.ravel()[state.blocks.place], seen.slot)

    def learn(self, state: InfidaState, slope: Places, slot: Slot | None = None) -> InfidaState:
        """What `update` does, for a slope that is known; candidates are held against the slot. O(nodes · models)."""
        blocks, before = state.blocks, state.steps
        state.clock, state.since = state.clock + 1, state.since + 1
        state.steps = self.scale * self._steps(state, slope)
        state.logs, added = kernel.ascend(
            blocks.first,
            blocks.sizes,
            blocks.budgets,
            state.logs,
            state.start,
            slope,
            state.steps,
            np.where(before > 0, before, state.steps),
        )
        state.settled += float(added.sum())
        self._mix(state)
        if self.step == "theory" and state.slots is None and state.clock + 1 == 2 * _epoch(state.clock):
            state.settled += self._open(state)
            state.logs, state.steps = state.start.copy(), np.zeros(len(blocks))
        if state.since >= round(state.period):
            self._draw(state, slot)
            state.period = min(state.period * self.stretch, float(self.longest))
        return state

    def _mix(self, state: InfidaState) -> None:
        """D(x, y) grows by Σ s x ln 1/(1 − ε) = b ln 1/(1 − ε) at most, for every x."""
        if not self.mixing:
            return
        moving, kept = state.steps > 0, math.log1p(-self.mixing)
        state.logs = np.logaddexp(state.logs + kept, state.start + math.log(self.mixing))
        state.settled -= kept * float((state.blocks.budgets[moving] / state.steps[moving]).sum())

    def bound(self, state: InfidaState) -> float:
        """What G of `factor` times any fixed allocation, minus that of `fractions`, cannot exceed so far: (1)."""
        return state.settled + self._open(state) + state.lag

    def factor(self, state: InfidaState) -> float:
        """The share of a fixed allocation's gain that `bound` is about.

        1, but for ``reserve``: x scaled to the smaller budgets keeps b'/b of its gain, which is concave and 0 for none.
        """
        return state.blocks.share

    def rounded_factor(self, state: InfidaState) -> float | None:
        """The share for the gain of what is loaded, in expectation; None where nothing is promised.

        It then stays within this share of `bound`, provided that capacities do not depend on what is loaded.
        """
        return None if state.promised is None else state.promised * state.blocks.share

    def _promised(self, instance: Instance, blocks: Blocks) -> float | None:
        """1 − 1/e where draws are unbiased, all models fit, and one pinned model takes what is left."""
        biased = self.rounding == "strict" or (self.rounding == "reserve" and (blocks.budgets == blocks.room).any())
        oversize = (instance.free & (instance.sizes > instance.free_budgets[:, None] * (1 + 1e-12))).any()
        chosen = self.candidates > 1
        return None if biased or oversize or chosen or not instance.single_pinned else 1.0 - 1.0 / math.e

    def _draw(self, state: InfidaState, slot: Slot | None = None) -> None:
        draws = state.draws if self.keep_draws else state.random.random(state.draws.shape)
        values = np.exp(state.logs)
        found = [state.blocks.rounded(values, each, self.rounding) for each in draws]
        state.loaded = found[0] if slot is None or len(found) == 1 else _best(slot, state.loaded, found)
        state.drawn = state.blocks.matrix(values)
        state.since = 0

    def _open(self, state: InfidaState) -> float:
        """Σ R/η of the epoch."""
        moving = state.steps > 0
        return float((state.reach[moving] / state.steps[moving]).sum())

    def _steps(self, state: InfidaState, slope: Places) -> PerBlock:
        """η of every block, this slot's gradient included, before ``scale``; 0 while there was none."""
        blocks, clock = state.blocks, state.clock
        largest, spread = kernel.reaches(blocks.first, blocks.sizes, slope)
        if self.warmup is None or clock <= self.warmup:
            state.largest = np.maximum(state.largest, largest)
        else:
            state.largest = np.where(state.largest > 0, state.largest, largest)
        state.squares += blocks.budgets * spread**2 / 4
        decay = math.sqrt(clock) if self.decay else 1.0
        if self.step == "constant":
            return np.full(len(blocks), 1.0 / decay)
        if self.step == "scale_free":
            return _ratio(1.0, decay * state.largest)
        if self.step == "self_confident":
            return _root(2.0 * state.reach, state.squares)
        slots = _epoch(clock) if state.slots is None else state.slots
        return _root(2.0 * state.reach, blocks.budgets * state.pulls**2 / 4 * slots)


def _best(slot: Slot, loaded: Loaded, found: Sequence[Loaded]) -> Loaded:
    """What would have gained most in the slot; what is loaded stays unless it is beaten clearly."""
    now, *gains = (slot.gain(each) for each in (loaded, *found))
    best = int(np.argmax(gains))
    return found[best] if gains[best] > now * (1 + _BETTER) else loaded


def _epoch(clock: int) -> int:
    """Length, and first slot, of the epoch 2^m … 2^(m+1) − 1 that a slot belongs to; slots count from 1."""
    return 1 << (clock.bit_length() - 1)


def _ratio(above: PerBlock | float, below: PerBlock) -> PerBlock:
    return np.asarray(np.divide(above, below, out=np.zeros_like(below), where=below > 0))


def _root(above: PerBlock, below: PerBlock) -> PerBlock:
    return np.asarray(np.sqrt(_ratio(above, below)))


def pulls(instance: Instance, blocks: Blocks, most: float) -> Places:
    """No g_m/s_m of any slot is larger, with at most so many requests of each type."""
    ranking = instance.ranking
    worst = ranking.cost[ranking.first[1:] - 1][ranking.type]
    capacity = np.minimum(most, instance.throughput.ravel()[ranking.place])
    whole = np.bincount(ranking.place, capacity * (worst - ranking.cost), minlength=instance.pinned.size)
    return np.asarray(whole[blocks.place] / blocks.sizes)


class Published(NamedTuple):
    """The constants of the publication's theorem.

    Args:
        sigma: σ, above every g_m/s_m, up to its sign.
        diameter: D.
        convexity: θ of the mirror map, in the norm Σ s |y|.
    """

    sigma: float
    diameter: float
    convexity: float

    @property
    def slope(self) -> float:
        """A: the (1 − 1/e)-regret of T slots stays below A √T."""
        return (1.0 - 1.0 / math.e) * self.sigma * math.sqrt(2.0 * self.diameter / self.convexity)

    def step(self, slots: int) -> float:
        """η."""
        return math.sqrt(2.0 * self.convexity * self.diameter / slots) / self.sigma


def published(instance: Instance, most: float) -> Published:
    """Its constants for a network with at most so many requests of each type in a slot."""
    blocks, ranking = Blocks.of(instance), instance.ranking
    apart = float((ranking.cost[ranking.first[1:] - 1] - ranking.cost[ranking.first[:-1]]).max())
    return Published(
        sigma=instance.types * most * apart / float(blocks.sizes.min()),
        diameter=float(blocks.reach(blocks.uniform).sum()),
        convexity=1.0 / (float(blocks.sizes.max()) * instance.pinned.size),
    )

"""DistributedTGOnline: caches of a network that learn together, whatever is asked for.

Li, Si Salem, Neglia, Ioannidis. Online caching networks with adversarial guarantees. SIGMETRICS 2022, doi
10.1145/3491047; after Streeter, Golovin, Krause. Online learning of assignments. NIPS 2009 (the tabular greedy
algorithm).

Each slot s has a colour m_s of 1 … M and, for each colour, a *selector*: a distribution over the items. In each slot
time it shows an item drawn from selector (s, m_s). Slots are ordered by (colour, number). A request for i over path p
then rewards the selectors (s, m_s) of the slots s on p by what they add to those before them,

    max(b, W_v) − b  for item i, 0 for all others,     b = max { W_u : a slot before s, at u, shows i },

with W_v the cost from the node v of s to the server. Hedge turns that into p_i ∝ p_i e^{η · reward}, mixed with a share
Nδ of the uniform distribution.

A control message carries the (W, slot, colour) of all slots on the path that show i: from the node of the hit on to the
server, and back down to where the request entered. The weights of a path are learnt by a first message up and down.

**Guarantee.** With every selector's regret at most R_{s,m}, against requests that do not depend on the draws,

    Σ_t E f_t(A_t) ≥ factor · max_A Σ_t f_t(A) − (Σ_{s,m} R_{s,m}) · (1 if colours are drawn anew, else factor),

with factor β(|S|, M) = 1 − (1 − 1/M)^M − |S| (|S| − 1) / (2M) when colours are drawn anew in every slot time. With
frozen colours the slots are taught in one fixed order and the argument is that of the greedy algorithm, factor 1/2:
f(A) + f(A) ≥ f(A ∪ O) + f(A) − Σ R ≥ f(O) − Σ R for every order. (The published algorithm keeps the first factor for
frozen colours; we found no proof of that, and promise 1/2.) Hedge with feedback r_t that spans g_t has

    R ≤ (ln N + F ln(1 + Nδ)) / η + η Σ_t g_t² / 8

after F feedbacks. AdaHedge (de Rooij, van Erven, Grünwald, Koolen. Follow the leader if you can, hedge if you must.
JMLR 15, 2014, arXiv 1301.0534) takes η = ln N / Δ with Δ = Δ_0 + Σ_t (what mixing cost in slot time t), needs no
horizon, and gives each selector a rate that fits its own rewards, which differ by orders of magnitude between nodes:
R ≤ 2Δ − Δ_0. That is our default, and not in the publication. `bound` adds up what was measured.

Before anything is played g_t is at most W, the cost of the dearest path times the batch. Fixed rates tuned for that and
the horizon promise W |S| √(M T ln N / 2), and W |S| √(T ln N / 2) / 2 when frozen, plus what mixing costs.

**Moves.** Independent arms are drawn anew in every slot time. *Correlated* ones turn a sample of the old distribution
into one of the new, moving with probability ½ ‖p' − p‖₁, the least possible.

**Cost** per request: O(slots on the path × (N + slots on it that hold i)), and path length in messages. Memory
8 |S| M N bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.core.seeding import Streams
from rivage.online.cache_networks import CacheNetwork, NetworkOutcome
from rivage.online.network_ways import Ways
from rivage.online.tabular_greedy_kernel import CONTROL, HITS, MOVES, SEED, Tables, serve

__all__ = ["DistributedTGOnline", "TGState", "tabular_factor"]


def tabular_factor(slots: int, colors: int) -> float:
    """β(|S|, M), what tabular greedy is sure to have of the optimum; negative, so worth nothing, while M ≪ |S|²."""
    return 1.0 - (1.0 - 1.0 / colors) ** colors - slots * (slots - 1) / (2.0 * colors)


@dataclass(slots=True)
class TGState:
    """The state of all slots.

    Args:
        instance: the network.
        ways: its arrays, for the kernel.
        tables: of the kernel.
        rate: η.
    """

    instance: CacheNetwork
    ways: Ways
    tables: Tables
    rate: float


@dataclass(frozen=True, kw_only=True)
class DistributedTGOnline:
    """Online tabular greedy.

    Args:
        colors: M >= 1.
        learning_rate: η > 0 per unit of gain; ``adaptive`` gives each selector one of its own, found while playing;
            ``horizon`` takes the fixed one that the bound asks for, and needs the horizon.
        caution: Δ_0 >= 0 of adaptive rates, in units of the most that an answer from the slot's node saves. Large is
            slow and safe, 0 begins by following the leader.
        arms: ``correlated`` moves no oftener than distributions do, ``independent`` draws every item anew.
        recolor: slot times between draws of a slot's colour, >= 1; None freezes the first draw.
        batch: requests per slot time, >= 1.
        mixing: δ >= 0 of fixed rates, which keeps every item possible.
    """

    reference: ClassVar[str] = "li22"

    colors: int = 100
    learning_rate: float | Literal["adaptive", "horizon"] = "adaptive"
    caution: float = 10.0
    arms: Literal["correlated", "independent"] = "correlated"
    recolor: int | None = None
    batch: int = 1
    mixing: float = 1e-7

    def __post_init__(self) -> None:
        require(self.colors, "colors", least=1)
        require(self.batch, "batch", least=1)
        require(self.mixing, "mixing", least=0)
        require(self.caution, "caution", least=0)
        if isinstance(self.learning_rate, str):
            if self.learning_rate not in ("adaptive", "horizon"):
                raise ConfigError(
                    f'learning_rate is "{self.learning_rate}"', mend='Give a number, "adaptive" or "horizon".'
                )
        else:
            require(self.learning_rate, "learning_rate", above=0)
        if self.recolor is not None:
            require(self.recolor, "recolor", least=1)
        require_one_of(self.arms, "arms", ("correlated", "independent"))

    def memory_bytes(self, instance: CacheNetwork) -> int:
        """What the state takes: a number per slot, colour and item, and another one for adaptive rates."""
        return 8 * instance.slots * self.colors * instance.items * (1 + (self.learning_rate == "adaptive"))

    def init(self, instance: CacheNetwork, streams: Streams) -> TGState:
        """Uniform selectors and first draws. O(|S| M N)."""
        slots, colors, items, draw = instance.slots, self.colors, instance.items, streams.numpy("slots")
        adaptive = self.learning_rate == "adaptive"
        color, arm = draw.integers(colors, size=slots), draw.integers(items, size=(slots, colors))
        tables = Tables(
            chance=np.full((slots, colors, items), 1.0 / items),
            arm=arm,
            color=color,
            shown=arm[np.arange(slots), color],
            asked=np.zeros(slots, bool),
            times=np.zeros(slots, np.int64),
            spread=np.zeros(slots),
            squares=np.zeros(slots),
            sums=np.zeros((slots * adaptive, colors, items)),
            mixed=np.repeat(self._start(instance)[: slots * adaptive, None], colors, axis=1),
            waiting=np.zeros((slots * adaptive, items)),
            taught=np.zeros((slots, colors), np.int64),
            probed=np.zeros(len(instance.item), bool),
            ints=np.zeros(6, np.int64),
        )
        tables.ints[SEED] = np.uint64(streams.seed("arms")).astype(np.int64)
        return TGState(instance, Ways.of(instance), tables, self.rate(instance))

    def run_block(self, state: TGState, requests: Int64[ndarray, "n"]) -> NetworkOutcome:
        """Serve requests in order."""
        ints = state.tables.ints
        ints[[MOVES, CONTROL, HITS]] = 0
        correlated = self.arms == "correlated"
        gain = float(
            serve(
                state.ways,
                state.tables,
                requests,
                state.rate,
                float(self.mixing),
                self.batch,
                self.recolor or 0,
                correlated,
            )
        )
        return NetworkOutcome(
            requests=len(requests),
            cost=float(state.instance.costs[requests].sum()) - gain,
            gain=gain,
            hits=int(ints[HITS]),
            moves=int(ints[MOVES]),
            control=int(ints[CONTROL]),
        )

    def placement(self, state: TGState) -> Bool[ndarray, "nodes items"]:
        """What each node holds now."""
        return state.instance.placement(state.tables.shown)

    def distributions(self, state: TGState) -> Float64[ndarray, "slots items"]:
        """The distribution that each slot's item is drawn from now."""
        shown: Float64[ndarray, "slots items"] = state.tables.chance[
            np.arange(len(state.tables.shown)), state.tables.color
        ]
        return shown

    def rate(self, instance: CacheNetwork) -> float:
        """η; 0 when each selector has its own.

        Raises:
            ConfigError: when it depends on the horizon and that is unknown.
        """
        if self.learning_rate == "adaptive":
            return 0.0
        if not isinstance(self.learning_rate, str):
            return float(self.learning_rate)
        if instance.horizon is None:
            raise ConfigError(
                'learning_rate is "horizon", and the horizon is unknown',
                where="DistributedTGOnline",
                mend='Give a number or "adaptive", or the instance its horizon.',
            )
        times = instance.horizon / self.batch / (self.colors if self.redraws else 1)
        largest = float(instance.costs.max()) * self.batch
        return math.sqrt(8 * math.log(max(instance.items, 2)) / max(times, 1.0)) / (largest or 1.0)

    @property
    def redraws(self) -> bool:
        """Whether colours are drawn anew in every slot time."""
        return self.recolor == 1

    def factor(self, instance: CacheNetwork) -> float:
        """The share of the optimum that the regret is held against."""
        return max(tabular_factor(instance.useful_slots, self.colors), 0.0) if self.redraws else 0.5

    def bound(self, state: TGState) -> float:
        """What factor · max_A Σ f_t(A) − Σ E f_t(A_t) cannot exceed, by the feedback so far; O(|S| M)."""
        tables, items = state.tables, state.instance.items
        if self.learning_rate == "adaptive":
            start = self._start(state.instance)[:, None]
            regrets = float((2 * tables.mixed - start)[tables.taught > 0].sum() + tables.spread.sum())
        else:
            taught = tables.taught[tables.taught > 0]
            first = len(taught) * math.log(items) + float(taught.sum()) * math.log1p(items * self.mixing)
            regrets = first / state.rate + state.rate * float((tables.squares + tables.spread**2).sum()) / 8
        return regrets * (1.0 if self.redraws else 0.5)

    def _start(self, instance: CacheNetwork) -> Float64[ndarray, "slots"]:
        """Δ_0 of each slot's selectors."""
        return self.caution * np.repeat(instance.most_saved, instance.capacities)

    def regret_bound(self, instance: CacheNetwork, requests: int) -> float:
        """The same before so many requests are played; infinite for adaptive rates, which promise by what they see."""
        rate, slots, items = self.rate(instance), instance.useful_slots, instance.items
        if rate == 0:
            return math.inf
        selectors = slots * (1 if self.recolor is None else self.colors)
        first = selectors * math.log(items) + slots * requests * math.log1p(items * self.mixing)
        largest = float(instance.costs.max()) * self.batch
        later = slots * -(-requests // self.batch) * largest**2 / 8
        return (first / rate + rate * later) * (1.0 if self.redraws else 0.5)

"""Static greedy: in hindsight, add one model after the other, each time the one that gains most.

Starting from what is pinned, the model that adds most to the mean gain of all slots and still fits is loaded, until
nothing more gains. A model adds what it saves on the requests that it takes from the dearest ways that served them so
far. *Plain* greedy looks at what a model adds, ``per_size`` at that over its size; the better of both counts. Equally
good models, to 1e-9 relative, are taken by number of node and model.

The mean gain is monotone and submodular, so what a model adds never grows: it is computed anew only for candidates
whose last value could still be the best (Minoux), which changes nothing in the result. Where all sizes are equal the
result gains at least half of the best allocation (Fisher, Nemhauser, Wolsey: nodes are a partition matroid). With one
node to decide, the better of both gains at least (1 − 1/e)/2 of it (Khuller, Moss, Naor). With unequal sizes on many
nodes nothing is promised.

`StaticGreedy` plays the result in all slots. It must be told all requests before the first, and knows how they would
contend: capacities are what unloaded models have (`rivage.inference.gain.contend` of pinned models alone), where every
model shares its throughput among all types that could use it, even those that nearer models will serve. So there are
``passes``: each takes the capacities that the last result left, and the allocation that really gains most is kept.

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the baseline.
    Minoux. Accelerated greedy algorithms for maximizing submodular set functions. Optimization Techniques, 1978.
    Fisher, Nemhauser, Wolsey. An analysis of approximations for maximizing submodular set functions, II. 1978.
    Khuller, Moss, Naor. The budgeted maximum coverage problem. Information Processing Letters 70, 1999.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import DataError, require, require_one_of
from rivage.core.seeding import Streams
from rivage.inference import greedy_kernel as kernel
from rivage.inference.gain import Slot, contend
from rivage.inference.instance import Instance
from rivage.inference.patterns import Patterns
from rivage.inference.policy import Seen

__all__ = ["Greedy", "GreedyState", "StaticGreedy", "greedy", "greedy_patterns"]

Rule = Literal["better", "plain", "per_size"]
Loaded = Bool[ndarray, "nodes models"]

_TIE = 1e-9  # relative
_ROUNDING = 1e-9  # of a budget


@dataclass(frozen=True, slots=True, eq=False)
class Greedy:
    """What greed finds.

    Args:
        loaded: the allocation.
        value: its mean gain of a slot.
        order: places, node · models + model, in the order in which they were added.
    """

    loaded: Loaded
    value: float
    order: tuple[int, ...]


def greedy(
    instance: Instance,
    slots: Sequence[Slot],
    weights: Float64[ndarray, "slots"] | None = None,
    *,
    rule: Rule = "better",
) -> Greedy:
    """Static greedy for some slots with given capacities.

    Args:
        instance: of all slots.
        slots: with their capacities.
        weights: how often each counts; all equal when not given.
        rule: what is compared; ``better`` tries both and keeps the plain one when they are equally good.
    """
    return greedy_patterns(Patterns.of(instance, slots, weights), rule)


def greedy_patterns(patterns: Patterns, rule: Rule = "better") -> Greedy:
    """The same for patterns that are at hand. O(n ways per candidate), at worst n times, for n candidates."""
    require_one_of(rule, "rule", get_args(Rule))
    if rule == "better":
        plain, per_size = greedy_patterns(patterns, "plain"), greedy_patterns(patterns, "per_size")
        return per_size if per_size.value > plain.value * (1 + _TIE) else plain
    return _Ascent(patterns, per_size=rule == "per_size").run()


class _Ascent:
    """Greed on the way."""

    def __init__(self, patterns: Patterns, *, per_size: bool) -> None:
        instance = patterns.instance
        self.patterns = patterns
        self.served = patterns.served(instance.pinned)
        self.ways = np.argsort(patterns.place, kind="stable")
        self.places, begin = np.unique(patterns.place[self.ways], return_index=True)
        self.number = np.searchsorted(self.places, patterns.place)
        self.begin: Int64[ndarray, "m"] = np.append(begin, len(self.ways)).astype(np.int64)
        self.sizes = instance.sizes.ravel()[self.places]
        self.units = self.sizes if per_size else np.ones(len(self.places))
        self.node = self.places // len(instance.task)
        self.room = instance.free_budgets * (1 + _ROUNDING)

    def run(self) -> Greedy:
        loaded, order = self.patterns.instance.pinned.copy(), list[int]()
        self.bounds = self._worths(np.arange(len(self.places)))
        self.bounds[~self.patterns.instance.free.ravel()[self.places] | (self.sizes > self.room[self.node])] = 0.0
        self.known = np.ones(len(self.places), bool)
        while (best := self._next()) is not None:
            self._add(best)
            order.append(int(self.places[best]))
        loaded.ravel()[order] = True
        return Greedy(loaded, self.patterns.gain(loaded), tuple(order))

    def _next(self) -> int | None:
        """The best candidate; those whose bound is no more than what another one is known to add are left alone."""
        while True:
            open_ = np.flatnonzero((self.bounds > 0.0) & ~self.known)
            least = np.max(self.bounds, where=self.known, initial=0.0)
            stale = open_[self.bounds[open_] >= least * (1 - _TIE)]
            if not stale.size:
                break
            self.bounds[stale] = self._worths(stale)
            self.known[stale] = True
        return int(np.argmax(self.bounds >= least * (1 - _TIE))) if least > 0.0 else None

    def _add(self, best: int) -> None:
        """Load it: it is no candidate any more, nor what fits no more; of those that it changes bounds are left."""
        p = self.patterns
        kernel.add(p.first, p.pattern, p.share, self.served, self.begin, self.ways, best)
        rows = p.pattern[self.ways[self.begin[best] : self.begin[best + 1]]]
        for row in rows:
            self.known[self.number[p.first[row] : p.first[row + 1]]] = False
        node = self.node[best]
        self.room[node] -= self.sizes[best]
        self.bounds[best] = 0.0
        self.bounds[(self.node == node) & (self.sizes > self.room[node])] = 0.0

    def _worths(self, numbers: Int64[ndarray, "k"]) -> Float64[ndarray, "k"]:
        p = self.patterns
        gains = kernel.worths(
            p.first, p.pattern, p.weight, p.cost, p.share, self.served, self.begin, self.ways, numbers
        )
        return np.asarray(gains / self.units[numbers])


@dataclass(slots=True, eq=False)
class GreedyState:
    """The fixed allocation.

    Args:
        instance: the network.
        loaded: None while nothing is known.
    """

    instance: Instance
    loaded: Loaded | None = None


@dataclass(frozen=True, kw_only=True)
class StaticGreedy:
    """The same allocation in all slots, chosen by greed for those that are to come.

    Args:
        rule: ``plain``, ``per_size``, or the ``better`` one.
        passes: >= 1, how often capacities are estimated; see above.
    """

    reference: ClassVar[str] = "sisalem24"

    rule: Rule = "better"
    passes: int = 2

    def __post_init__(self) -> None:
        require_one_of(self.rule, "rule", get_args(Rule))
        require(self.passes, "passes", least=1)

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> GreedyState:
        """Nothing is known yet."""
        return GreedyState(instance)

    def foresee(self, state: GreedyState, slots: Sequence[Float64[ndarray, "types"]]) -> None:
        """Choose. O(passes · T K log T) and greed for T slots of K possibilities."""
        instance, least, loaded = state.instance, np.inf, state.instance.pinned
        for _ in range(self.passes):
            seen = [contend(instance, requests, loaded).slot for requests in slots]
            loaded = greedy(instance, seen, rule=self.rule).loaded
            paid = sum(_paid(instance, requests, loaded) for requests in slots)
            if paid < least * (1 - _TIE) or state.loaded is None:
                least, state.loaded = paid, loaded

    def act(self, state: GreedyState) -> Loaded:
        """What was chosen.

        Raises:
            DataError: when the requests are not known.
        """
        if state.loaded is None:
            raise DataError("the requests are not known", mend="Call foresee with all of them before the first slot.")
        return state.loaded

    def update(self, state: GreedyState, seen: Seen) -> GreedyState:
        """Nothing changes."""
        return state


def _paid(instance: Instance, requests: Float64[ndarray, "types"], loaded: Loaded) -> float:
    return float(contend(instance, requests, loaded).served @ instance.ranking.cost)

"""Directed overlays near the optimum, by local search led by critical circuits.

The overlays of the literature are trees and rings. Between them lie directed overlays of a few arcs a silo that are
faster than either: the problem

    min over strongly connected sets of arcs of max over circuits γ of d(γ) / |γ|,   d with the degrees of the overlay,

is NP-hard (Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS
2020, arXiv 2010.12229), and this search is not in the paper. It rests on two moves that never slow an overlay down:

- *drop* an arc of the critical circuit that is not needed for strong connection, the longest first, or one that shares
  an access link with it: no circuit gets longer, and this one is gone or faster;
- *add* an arc that is free: with potentials π of the cycle time τ, d(i, j) + π_i − π_j <= τ for it and, at the new
  degrees, for all arcs it slows. Summed along a circuit: no mean exceeds τ. Free arcs make others droppable.

A step adds a few arcs that are nearly free, d + π_i − π_j <= τ + θ with a random θ, descends by both moves, and keeps
the result if it is faster, or with a probability that falls (iterated local search: Lourenço, Martin, Stützle. Handbook
of Metaheuristics, 2003). Walks start from several overlays and share the time. The result is never slower than the
classical overlays (`rivage.decentralized.classical`), which are looked at first; how far it is from the optimum, see
`rivage.decentralized.lower_bounds`.

With ``seconds`` alone the answer depends on the machine; with ``steps``, and time enough, only on the seed. Cost of a
step: O(N²) and some policy iterations; 90,000 steps a second on 11 silos, 20,000 on 40.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from rivage.core.errors import require, require_one_of
from rivage.core.seeding import Streams
from rivage.decentralized.classical import delta_mbst, mst, ring_2opt, star
from rivage.decentralized.cycle_time import cycle_time_ms
from rivage.decentralized.designs import Design, design_of
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.search_kernel import fill_free, prune, walk
from rivage.decentralized.search_net import Costs, Memory, Net, load
from rivage.decentralized.silos import Silos

__all__ = ["DirectedSearch", "SearchResult", "Watch"]

Matrix = Bool[ndarray, "silos silos"]

Watch = Callable[[float, float], None]
"""Is told about once a second which share of a search is done, and the best cycle time so far in ms."""

_LONGEST = 1024.0  # the largest delay in the search's unit: rounding there is far below what counts as the same
_TIE = 1e-9  # relative: what arcs that are free to within rounding may cost
_POWER = 3.0  # θ is the largest margin times u³: mostly small
_SLICE_S = 0.05  # between two looks at the clock
_SLICE = 64  # steps likewise where their number ends the search: what is noted must not depend on the clock
_WATCHED_S = 1.0  # between two words to who watches


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult:
    """What a search found.

    Args:
        design: the best overlay.
        steps: taken.
        seconds: it took.
        improvements: steps taken when a better overlay was noticed, and its cycle time in ms.
    """

    design: Design
    steps: int
    seconds: float
    improvements: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectedSearch:
    """Iterated local search over directed overlays.

    Args:
        seconds: when to stop, > 0.
        steps: after how many steps to stop; None for no such limit.
        seed: of the random numbers, >= 0.
        target_ms: stop at an overlay that is no slower than this; a lower bound, for one.
        arcs: "few": every arc is needed for strong connection; "free": all that cost no time, which mixes faster.
        walks: how many share the time, >= 1.
        margin: the largest θ, in standard deviations of the delays at degrees of 1, > 0.
        heat: temperature at the start of a walk, likewise, >= 0; it falls to 0.
        noise: how far lengths are scaled at random, 1 to 1 + noise, when the longest arc is dropped, >= 0.
        additions: arcs that a step adds at most, >= 1.

    Raises:
        ConfigError: for numbers out of range.

    Example:
        >>> from rivage.graphs import PathRule, Underlay, connectivity
        >>> line = Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], distance_km=[1000, 3000])
        >>> silos = Silos.of(connectivity(line, PathRule.published()), model_bits=1e6, step_ms=5)
        >>> DirectedSearch(steps=20).design(silos).design.overlay.arc_names()
        [('a', 'b'), ('b', 'a'), ('b', 'c'), ('c', 'b')]
    """

    seconds: float = 60.0
    steps: int | None = None
    seed: int = 0
    target_ms: float = 0.0
    arcs: Literal["few", "free"] = "few"
    walks: int = 5
    margin: float = 1.0
    heat: float = 0.01
    noise: float = 0.3
    additions: int = 6

    def __post_init__(self) -> None:
        require_one_of(self.arcs, "arcs", ("few", "free"))
        for name in ("seconds", "margin"):
            require(getattr(self, name), name, above=0)
        for name in ("seed", "target_ms", "heat", "noise"):
            require(getattr(self, name), name, least=0)
        for name in ("walks", "additions"):
            require(getattr(self, name), name, least=1)
        if self.steps is not None:
            require(self.steps, "steps", least=1)

    def design(self, silos: Silos, watch: Watch | None = None) -> SearchResult:
        """Search over the overlays of silos, in the order of their names: that of the file changes nothing."""
        order = np.array(sorted(range(len(silos)), key=silos.names.__getitem__), np.int64)
        found = _Run(self, silos.reordered(order), watch)
        found.search()
        overlay = Overlay(silos=silos, arcs=order[found.finished()], name="directed")
        return SearchResult(
            design=design_of(overlay),
            steps=found.steps,
            seconds=perf_counter() - found.began,
            improvements=tuple(found.improvements),
        )


class _Run:
    """A search under way."""

    def __init__(self, settings: DirectedSearch, silos: Silos, watch: Watch | None = None) -> None:
        self.settings, self.silos, self.began = settings, silos, perf_counter()
        self.watch, self.told = watch, self.began
        apart = silos.single_delays_ms()[~np.eye(len(silos), dtype=bool)]
        self.unit = _unit(apart)
        self.costs, self.net, self.memory = _costs(silos, self.unit), _room(len(silos)), _memory(len(silos))
        self.memory.state[0] = Streams(settings.seed).seed("directed search") | 1
        self.scale = float(apart.std()) / self.unit if len(apart) else 0.0
        self.steps, self.improvements = 0, list[tuple[int, float]]()
        self.starts = [(overlay, cycle_time_ms(overlay)) for overlay in _starts(silos)]
        self.first, self.time = min(self.starts, key=lambda pair: pair[1])
        self.best = self.first.adjacency.astype(np.bool_)
        self._note()

    def search(self) -> None:
        """All walks, one after another, each with its share of what is left."""
        if len(self.silos) < 3:
            return  # there is one overlay
        for number in range(self.settings.walks):
            left = self.settings.walks - number
            overlay, time = self.starts[number % len(self.starts)]
            self._walk(overlay.adjacency.astype(np.bool_), time, left)

    def finished(self) -> Int64[ndarray, "arcs 2"]:
        """The arcs of the best overlay, as many as was asked for; never of a slower one than it started with."""
        load(self.net, self.best)
        (prune if self.settings.arcs == "few" else fill_free)(self.net, self.costs, self.memory)
        found = replace(self.first, arcs=np.argwhere(self.net.has))
        slowest = min(time for _, time in self.starts) * (1 + _TIE)
        return (found if cycle_time_ms(found) <= slowest else self.first).arcs

    def _walk(self, current: Matrix, time: float, sharing: int) -> None:
        settings, means = self.settings, np.array([time, self.time]) / self.unit
        begin, first = perf_counter(), self.steps
        seconds = (self.began + settings.seconds - begin) / sharing
        steps = None if settings.steps is None else (settings.steps - first) // sharing
        chunk = 1
        while means[1] * self.unit > settings.target_ms and (steps is None or self.steps - first < steps):
            now = perf_counter()
            if now - begin >= seconds:
                break
            self._tell(now)
            done = np.arange(chunk) + self.steps - first
            if steps is not None:
                done = done[done < steps]
            cold = done / steps if steps is not None else np.full(chunk, (now - begin) / seconds)
            heats = settings.heat * self.scale * (1 - cold)
            rules = (settings.margin * self.scale, settings.noise, settings.additions, _POWER)
            walk(self.net, self.costs, self.memory, current, self.best, means, rules, heats)
            self.steps += len(done)
            chunk = min(2 * chunk, _SLICE) if steps is not None else _next_chunk(chunk, perf_counter() - now)
            if means[1] * self.unit < self.time:
                self.time = float(means[1]) * self.unit
                self._note()

    def _tell(self, now: float) -> None:
        """Say how far the search is, now and then; it may end sooner, at its target."""
        if self.watch is None or now - self.told < _WATCHED_S:
            return
        self.told, settings = now, self.settings
        share = (now - self.began) / settings.seconds
        self.watch(min(1.0, max(share, self.steps / settings.steps if settings.steps else 0.0)), self.time)

    def _note(self) -> None:
        self.improvements.append((self.steps, self.time))


def _next_chunk(chunk: int, seconds: float) -> int:
    """How many steps take a slice of time, by how long some took; at most twice as many as those."""
    return max(1, int(chunk * min(2.0, _SLICE_S / seconds)))


def _starts(silos: Silos) -> Iterator[Overlay]:
    """Where walks begin: ring and tree together, the classical overlays, and all arcs of one hop on a ring."""
    ring, tree = ring_2opt(silos).overlay, mst(silos).overlay
    yield _together(ring, tree)
    yield ring
    if silos.connectivity.hops is not None:
        near = np.argwhere(silos.connectivity.hops == 1)
        yield _together(ring, replace(ring, arcs=np.unique(np.concatenate([ring.arcs, near]), axis=0)))
    yield delta_mbst(silos).overlay
    yield tree
    yield star(silos).overlay


def _together(one: Overlay, other: Overlay) -> Overlay:
    return replace(one, arcs=np.unique(np.concatenate([one.arcs, other.arcs]), axis=0))


def _unit(delays: ndarray) -> float:
    """How many ms are one in the search: a power of two, so that nothing is rounded and units do not matter."""
    longest = float(delays.max(initial=0.0))
    return float(2.0 ** np.ceil(np.log2(longest / _LONGEST))) if longest > 0 else 1.0


def _costs(silos: Silos, unit: float) -> Costs:
    """The parts of delays, in the unit."""
    nodes, transfer = len(silos), 1000 * silos.model_bits / unit
    off = ~np.eye(nodes, dtype=bool)
    available = silos.connectivity.available_bps
    assert available is not None, "checked when silos were made"
    return Costs(
        fixed=(silos.work_ms[:, None] + silos.connectivity.latency_ms) / unit,
        core=np.divide(transfer, available, out=np.zeros((nodes, nodes)), where=off),
        up=transfer / silos.access_up_bps,
        down=transfer / silos.access_down_bps,
    )


def _room(nodes: int) -> Net:
    return Net(
        has=np.zeros((nodes, nodes), np.bool_),
        out=np.zeros((nodes, nodes), np.int64),
        into=np.zeros((nodes, nodes), np.int64),
        sending=np.zeros(nodes, np.int64),
        receiving=np.zeros(nodes, np.int64),
    )


def _memory(nodes: int) -> Memory:
    return Memory(
        policy=np.zeros(nodes, np.int64),
        values=np.zeros(nodes),
        order=np.arange(nodes),
        state=np.ones(1, np.uint64),
        marks=np.zeros(nodes, np.bool_),
        stack=np.zeros(nodes, np.int64),
        circuit=np.zeros(nodes, np.int64),
        lengths=np.zeros(nodes),
        starts=np.zeros(nodes),
    )

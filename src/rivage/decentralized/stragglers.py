"""How long a round takes in the long run when work takes random times.

Reference: Neglia, Calbi, Towsley, Vardoyan. The role of network topology for distributed machine learning. INFOCOM 2019
(the model, and that sparse graphs go round faster).

With start times t_i(k) of `rivage.decentralized.clock` and a strong graph, t_i(k) / k tends to the *mean iteration
time* γ, the same for every node, almost surely: t is subadditive. `iteration_times` estimates it by independent
replications, the same draws for all graphs, and a t interval. What is exact, for independent work of mean 1 and no
transfers:

- everyone waits for everyone: γ = E max of n (`Law.mean_of_max`);
- directed ring, exponential work: γ = (2n − 1)/n. It is a closed ring of n queues with n customers, where all states
  are equally likely; a queue is busy in n/(2n − 1) of them.

and what bounds it (`bounds`):

- from below, the cycle time of the mean times, as a maximum of sums is convex in them (Jensen);
- from below on undirected graphs, node j starts round k + 2 after its own work of round k, and after that of round
  k + 1 of each of its d neighbours, who waited for it: γ >= (E X + E max of d + 1)/2;
- from above, t_j(k) is the largest weight of a path of k arcs and loops. With M_ij(θ) = E e^{θ(X_i + c_ij)} the mean of
  Σ over paths of e^{θ weight} is a row of M(θ)^k, so for every θ > 0

    γ <= ln ρ(M(θ)) / θ,   ρ the spectral radius:  (ln(d + 1) + ln E e^{θX}) / θ if d arcs lead into every node.

  It does not grow with n. Laws with heavy tails have no such bound.
- from above where work is alike and transfers take none, E max of n: adding arcs never makes a round shorter.

Deviations. The paper's approximation of the throughput is not used. Closed forms and bounds are derived here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.decentralized.clock import Clock, Times, start_times
from rivage.decentralized.cycle_time import cycle_time_ms
from rivage.decentralized.designs import Design
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.time_laws import Law
from rivage.decentralized.waiting import Server, Waiting, Waits
from rivage.graphs.cycles import max_cycle_mean_of_arcs

__all__ = [
    "Estimate",
    "bounds",
    "design_times",
    "directed_ring_time",
    "interval",
    "iteration_times",
    "overlay_times",
    "path_bound",
    "two_round_bound",
]

_BLOCK, _DRAWS = 512, 2**24  # most rounds, and times of messages, that are drawn at once
_MULTIPLICATIONS = 60  # by the matrix of paths; more of them only make its bound a little smaller


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """A mean with a t interval.

    Args:
        mean: of the samples.
        low: lower end of the interval.
        high: upper end.
        samples: one for each replication.
    """

    mean: float
    low: float
    high: float
    samples: Float64[ndarray, "replications"]


def interval(samples: Float64[ndarray, "replications"], confidence: float = 0.95) -> Estimate:
    """The mean of at least two independent samples, and where the true one is with this confidence."""
    from scipy.stats import t

    mean, count = float(samples.mean()), len(samples)
    half = float(t.ppf((1 + confidence) / 2, count - 1) * samples.std(ddof=1) / np.sqrt(count))
    return Estimate(mean=mean, low=mean - half, high=mean + half, samples=samples)


def iteration_times(
    graphs: Mapping[str, Waiting],
    times: Times,
    *,
    rounds: int = 1_000,
    warm_up: int | None = None,
    replications: int = 10,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """γ of each graph, in the unit of its ``work``; replication r of all graphs over the same nodes has the same luck.

    Args:
        graphs: by name.
        times: how work and transfers scatter.
        rounds: that are measured in each replication, >= 1.
        warm_up: rounds before those, which are not; as many by default. The start, all nodes at once, is forgotten
            after about as many rounds as the longest way through the graph, on a directed ring of n nodes n^{3/2}.
        replications: >= 2.
        seed: of the draws.
        confidence: of each interval, in (0, 1).

    Returns:
        Estimates by name. With backup workers nodes may go on at different speeds; then it is their mean.
    """
    require(rounds, "rounds", least=1)
    require(replications, "replications", least=2)
    before = rounds if warm_up is None else warm_up
    streams = Streams(seed).child("iteration times")
    seeds = [streams.seed(number) for number in range(replications)]
    return {
        name: interval(
            np.array(
                [_rate(graph, times, k * (before + rounds), before, rounds, seed) for k, seed in enumerate(seeds)]
            ),
            confidence,
        )
        for name, graph in graphs.items()
    }


def _rate(graph: Waiting, times: Times, number: int, before: int, rounds: int, seed: int) -> float:
    """Mean time of a round over all nodes and the rounds after the first ones.

    The number of the first round differs between replications: where the graph changes with the round, so does it.
    """
    starts, marks = np.zeros(len(graph.work)), []
    block = min(_BLOCK, max(1, _DRAWS // max(1, len(graph.arcs))))
    for begin, end in ((number, number + before), (number + before, number + before + rounds)):
        for first in range(begin, end, block):
            starts = start_times(graph, times, min(block, end - first), seed=seed, first=first, start=starts)[-1]
        marks.append(float(starts.mean()))
    return (marks[1] - marks[0]) / rounds


def overlay_times(
    overlay: Overlay, times: Times | Law, rounds: int = 1_000, seed: int = 0, *, replications: int = 10
) -> tuple[float, float, float]:
    """Mean iteration time of an overlay in ms, and its 95 % interval.

    Args:
        overlay: its silos' work and delays are the mean times.
        times: how they scatter; a bare law is that of independent work.
        rounds: measured in each replication, after as many that are not.
        seed: of the draws.
        replications: independent repetitions.

    Returns:
        Mean, lower and upper end; the cycle time three times if nothing is random.
    """
    clock = _clock(times)
    if isinstance(clock, Clock) and clock.is_steady:
        return (cycle_time_ms(overlay),) * 3
    return _told(Waits.of_overlay(overlay), clock, rounds, seed, replications)


def design_times(
    design: Design, times: Times | Law, rounds: int = 1_000, seed: int = 0, *, replications: int = 10
) -> tuple[float, float, float] | None:
    """`overlay_times` of a design: by way of its hub's server if it has one; None where overlays are drawn.

    For those make a `rivage.decentralized.planned_waiting.Planned` and ask `iteration_times`.
    """
    if design.hub is None:
        return None if design.drawn else overlay_times(design.overlay, times, rounds, seed, replications=replications)
    clock = _clock(times)
    if isinstance(clock, Clock) and clock.is_steady:
        return (design.cycle_time_ms,) * 3
    hub = design.overlay.silos.names.index(design.hub)
    return _told(Server.of_overlay(design.overlay, hub), clock, rounds, seed, replications)


def _clock(times: Times | Law) -> Times:
    return times if isinstance(times, Times) else Clock(law=times)


def _told(graph: Waiting, times: Times, rounds: int, seed: int, replications: int) -> tuple[float, float, float]:
    found = iteration_times({"": graph}, times, rounds=rounds, seed=seed, replications=replications)[""]
    return found.mean, found.low, found.high


# --- closed forms and bounds ------------------------------------------------------------------------------------------


def directed_ring_time(nodes: int) -> float:
    """γ of a directed ring whose work is exponential of mean 1: (2n − 1)/n."""
    require(nodes, "nodes", least=1)
    return (2 * nodes - 1) / nodes


def two_round_bound(law: Law, degree: int) -> float:
    """γ is at least this on an undirected graph with a node of this degree, where work has this law and mean 1."""
    return (1 + law.mean_of_max(degree + 1)) / 2


def path_bound(law: Law, in_degree: int) -> float:
    """γ is at most this where ``in_degree`` arcs lead into every node, transfers take none and work is alike.

    Returns:
        inf over θ of (ln(d + 1) + ln E e^{θX}) / θ; inf for heavy tails.

    Example:
        >>> from rivage.decentralized.time_laws import Exponential
        >>> [round(path_bound(Exponential(), degree), 3) for degree in (1, 2, 4, 10)]
        [2.678, 3.289, 3.994, 5.009]
    """
    return _least(lambda theta: (float(np.log(in_degree + 1)) + law.log_moment(theta)) / theta)


def bounds(graph: Waits, clock: Clock) -> tuple[float, float]:
    """Numbers between which γ of a graph surely lies, in the unit of its ``work``.

    Args:
        graph: waits for all in-neighbours in every round, and messages take their mean times.
        clock: independent from round to round. With silos that differ for good, give the graph their means.

    Raises:
        ConfigError: for other graphs and clocks.
    """
    if not clock.is_independent or clock.transfer is not None:
        raise ConfigError("no bound is known for these times", mend="Ask for one of independent work alone.")
    if graph.least is not None or (graph.every > 1).any():
        raise ConfigError(f'no bound is known for "{graph.name}"', mend="Ask for one that waits for all.")
    law, work = clock.law, graph.work
    loops = np.stack([np.arange(len(graph))] * 2, axis=1)
    arcs = np.concatenate([graph.arcs, loops])
    transfer = np.concatenate([graph.transfer, np.zeros(len(graph))])
    low = max_cycle_mean_of_arcs(len(graph), arcs, work[arcs[:, 0]] + transfer).mean
    if graph.is_undirected:
        low = max(low, float(work.min()) * two_round_bound(law, int(graph.in_degrees.max())))

    values, kinds = np.unique(work, return_inverse=True)
    radius = _LogRadius(arcs, len(graph))

    def of_paths(theta: float) -> float:
        powers = np.array([law.log_moment(theta * mean) if mean > 0 else 0.0 for mean in values])
        return radius(powers[kinds][arcs[:, 0]] + theta * transfer) / theta

    high = _least(of_paths, float(work.max() or 1.0))
    if (graph.transfer == 0).all():
        high = min(high, float(work.max()) * law.mean_of_max(len(graph)))
    return min(low, high), high


class _LogRadius:
    """At least ln of the spectral radius of the matrix of e^powers: max_i (Mv)_i / v_i for a positive v (Collatz)."""

    def __init__(self, arcs: Int64[ndarray, "arcs 2"], nodes: int) -> None:
        from scipy.sparse import csr_matrix

        self.matrix = csr_matrix((np.arange(1.0, len(arcs) + 1), (arcs[:, 1], arcs[:, 0])), (nodes, nodes))
        self.order = self.matrix.data.astype(np.int64) - 1

    def __call__(self, powers: Float64[ndarray, "arcs"]) -> float:
        top = float(powers.max())
        if np.isinf(top):
            return np.inf
        self.matrix.data = np.exp(powers - top)[self.order]
        vector, least = np.ones(self.matrix.shape[0]), np.inf
        for _ in range(_MULTIPLICATIONS):
            after = np.maximum(self.matrix @ vector, 1e-300)
            ratios = after / vector
            least = min(least, float(ratios.max()))
            if ratios.max() <= ratios.min() * (1 + 1e-9):
                break
            vector = np.maximum(after / after.max(), 1e-250)
        return top + float(np.log(least))


def _least(bound: Callable[[float], float], unit: float = 1.0) -> float:
    """The least value over θ > 0 by golden section in ln θ: convex over linear is quasi-convex; any θ is a bound."""
    golden, low, high = (np.sqrt(5) - 1) / 2, -12.0, 12.0
    points = [high - golden * (high - low), low + golden * (high - low)]
    values = [bound(float(np.exp(x)) / unit) for x in points]
    best = min(values)
    for _ in range(45):
        left = values[0] <= values[1]
        low, high = (low, points[1]) if left else (points[0], high)
        fresh = high - golden * (high - low) if left else low + golden * (high - low)
        value = bound(float(np.exp(fresh)) / unit)
        points, values = ([fresh, points[0]], [value, values[0]]) if left else ([points[1], fresh], [values[1], value])
        best = min(best, value)
    return best

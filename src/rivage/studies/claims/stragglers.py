"""Statements about stragglers and the number of neighbours: closed forms, bounds, and when few neighbours win.

The publication was not at hand: no figure of it is held here, and its approximation of the throughput is not used. What
is derived says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise

import numpy as np

from rivage.core.seeding import Streams
from rivage.decentralized.clock import Clock, start_times
from rivage.decentralized.degree_advice import Advice, Spread, advise_degree
from rivage.decentralized.stragglers import Estimate, directed_ring_time, interval, iteration_times, path_bound
from rivage.decentralized.time_laws import Constant, Exponential, Law, Pareto, ShiftedExponential, Stalls, Uniform
from rivage.decentralized.waiting import Waits
from rivage.graphs import cycle, random_regular
from rivage.graphs.network import Network
from rivage.studies.claims.claim import Claim, Outcome, within
from rivage.studies.claims.topology_scenarios import Split, gaussian_classes, iterations_to, mixing_matrices, softmax

__all__ = ["CLAIMS", "NODES", "SEEDS", "complete", "directed_ring", "graphs_of", "measured_rounds", "regular"]

NEGLIA = "Neglia, Calbi, Towsley, Vardoyan, INFOCOM 2019"
NODES, SEEDS = 16, 3
"""Of the training in which rounds to a target are measured."""


def complete(nodes: int) -> Network:
    """All wait for all."""
    return Network.of(nodes, [(i, j) for j in range(nodes) for i in range(j)], name="complete")


def directed_ring(nodes: int) -> Waits:
    """Each waits for the one before."""
    return Waits.of(nodes, [(i, (i + 1) % nodes) for i in range(nodes)], name="directed ring")


def regular(nodes: int, degree: int) -> Network:
    """A ring, a random regular graph, or the complete one."""
    if degree == nodes - 1:
        return complete(nodes)
    return cycle(nodes) if degree == 2 else random_regular(nodes, degree, Streams(degree).numpy("graph"))


def graphs_of(seed: int) -> dict[str, Waits]:
    """The graphs of the training, as they wait; those of `mixing_matrices`."""
    names = ("complete", "random 4-regular", "ring", "directed ring")
    waits = {}
    for name, weights in mixing_matrices(NODES, seed, names).items():
        receivers, senders = np.nonzero(np.where(np.eye(NODES, dtype=bool), 0, weights))
        waits[name] = Waits.of(NODES, np.stack([senders, receivers], axis=1), name=name)
    return waits


@cache
def measured_rounds(split: Split) -> Mapping[str, tuple[float, ...]]:
    """Rounds until the mean model is as good as that of exact averages after 150, for each seed.

    Softmax regression of 16 Gaussian classes on 16 nodes, batches of 4, step 0.1.
    """
    found: dict[str, list[float]] = {name: [] for name in graphs_of(0)}
    for seed in range(SEEDS):
        problem = softmax(*gaussian_classes(seed), split, nodes=NODES, batch_size=4, seed=seed)
        matrices = mixing_matrices(NODES, 0, found)
        for name, count in iterations_to(problem, problem.start, matrices, rate=0.1).items():
            found[name].append(count)
    return {name: tuple(counts) for name, counts in found.items()}


def _time(graph: Waits, law: Law, rounds: int = 2_000, replications: int = 10) -> Estimate:
    return iteration_times({"": graph}, Clock(law=law), rounds=rounds, replications=replications)[""]


def _directed_rings() -> Outcome:
    errors, details = [], []
    for nodes, rounds, replications in ((2, 10_000, 20), (10, 4_000, 20), (100, 4_000, 10)):
        found, exact = _time(directed_ring(nodes), Exponential(), rounds, replications), directed_ring_time(nodes)
        errors.append(abs(found.mean / exact - 1))
        details.append(f"n = {nodes}: {found.mean:.4f} [{found.low:.4f}, {found.high:.4f}], exact {exact:g}")
    return within(max(errors), 0.0, 0.01, "; ".join(details))


def _cliques() -> Outcome:
    errors, details = [], []
    for law in (Exponential(), Uniform(), Pareto(shape=3), Stalls()):
        for nodes in (2, 10, 100):
            found, exact = _time(Waits.of_network(complete(nodes)), law, 3_000, 20), law.mean_of_max(nodes)
            errors.append(abs(found.mean / exact - 1))
        details.append(f"{type(law).__name__} {found.mean:.3f}, exact {exact:.3f}")
    return within(max(errors), 0.0, 0.01, f"n = 100: {'; '.join(details)}")


def _below_the_bound_of_paths() -> Outcome:
    worst, details = 0.0, []
    for law in (Exponential(), ShiftedExponential(), Uniform(), Stalls()):
        shares = []
        for degree in (1, 2, 4, 10):
            graph = directed_ring(100) if degree == 1 else Waits.of_network(regular(100, degree))
            shares.append(_time(graph, law, 1_000, 5).high / path_bound(law, degree))
        worst = max(worst, *shares)
        details.append(f"{type(law).__name__} {max(shares):.2f}")
    largest = max(_time(Waits.of_network(regular(nodes, 4)), Exponential(), 500, 5).high for nodes in (1_000, 4_000))
    details.append(f"4-regular, n to 4,000, exponential: {largest:.2f} <= {path_bound(Exponential(), 4):.2f}")
    worst = max(worst, largest / path_bound(Exponential(), 4))
    return Outcome(worst, "holds" if worst <= 1 else "fails", "; ".join(details))


_TABLE: Mapping[str, tuple[Law, Mapping[int, float]]] = {
    "exponential": (Exponential(), {1: 1.987, 2: 2.37, 4: 3.13, 10: 3.82, 99: 5.19}),
    "uniform": (Uniform(), {1: 1.49, 2: 1.64, 4: 1.80, 10: 1.90, 99: 1.98}),
    "Pareto": (Pareto(shape=3), {2: 1.86, 4: 2.57, 99: 4.20}),
}
_DIFFERENT = {1: 1.68, 10: 3.15}  # Pareto: ours are 3 % and 1.6 % lower, and a second simulation agrees (tests)


def _notes() -> Outcome:
    errors = []
    for law, expected in _TABLE.values():
        errors += [abs(_at(degree, law).mean / noted - 1) for degree, noted in expected.items()]
    others = {degree: _at(degree, Pareto(shape=3)) for degree in _DIFFERENT}
    detail = ", ".join(
        f"degree {degree}: {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] instead of {_DIFFERENT[degree]}"
        for degree, found in others.items()
    )
    return within(max(errors), 0.0, 0.0125, f"not among them, Pareto, {detail}")


def _at(degree: int, law: Law) -> Estimate:
    graph = directed_ring(100) if degree == 1 else Waits.of_network(regular(100, degree))
    return _time(graph, law, 8_000, 10)


def _advice(law: Law, split: Split) -> Advice:
    return advise_degree(law, graphs_of(0), rounds=measured_rounds(split))


def _few_neighbours_win() -> Outcome:
    """The advice, and whether trainings timed round by round agree with it."""
    advices = {split: _advice(Exponential(), split) for split in ("random", "per class")}
    gains = _timed_gain("random", advices["random"].best)
    steady = _advice(Constant(), "per class")
    detail = (
        f"exponential work, random split: {advices['random'].best} ({advices['random'].verdict}); a class each: "
        f"{advices['per class'].best} ({advices['per class'].verdict}); without chance, a class each: {steady.best}; "
        f"training timed round by round, random split: complete takes {gains.mean:.2f} [{gains.low:.2f}, "
        f"{gains.high:.2f}] times as long as {advices['random'].best}"
    )
    sparse = all(each.best != "complete" and each.verdict == "holds" for each in advices.values())
    agreed = sparse and steady.best == "complete" and gains.low > 1
    return Outcome(gains.mean, "holds" if agreed else "fails", detail)


def _timed_gain(split: Split, best: str) -> Estimate:
    """Time to the target on the complete graph over that on the best, both with the same work, over seeds."""
    rounds, graphs, ratios = measured_rounds(split), graphs_of(0), []
    for seed in range(SEEDS):
        ends = {
            name: start_times(graphs[name], Clock(), int(rounds[name][seed]), seed=seed)[-1].mean()
            for name in ("complete", best)
        }
        ratios.append(ends["complete"] / ends[best])
    return interval(np.array(ratios))


def _regimes() -> Outcome:
    """By the bound alone: which of six degrees, from n = 100 nodes whose gradients differ more and more."""
    graphs = {str(degree): regular(100, degree) for degree in (2, 4, 10, 20, 50, 99)}
    sparse, details = 0, []
    for law in (Constant(), Uniform(), Exponential(), Pareto(shape=2)):
        found = []
        for difference in (0.02, 0.1, 0.5, 1.0):
            advice = advise_degree(law, graphs, rounds=Spread(difference=difference), replications=10)
            sparse += advice.best != "99" and advice.verdict == "holds"
            found.append(advice.best + ("" if advice.verdict == "holds" else " or " + " or ".join(advice.rivals)))
        details.append(f"{type(law).__name__} {', '.join(found)}")
    return Outcome(
        float(sparse), "holds" if sparse else "fails", f"degrees for s = 0.02, 0.1, 0.5, 1: {'; '.join(details)}"
    )


def _lasting_slowness() -> Outcome:
    """Complete over ring, n = 20, work uniform on [0, 2]."""
    gains, graphs = [], {"ring": Waits.of_network(cycle(20)), "complete": Waits.of_network(complete(20))}
    for persistence in (0.0, 0.9, 0.99):
        times = Clock(law=Uniform(), persistence=persistence)
        found = iteration_times(graphs, times, rounds=5_000, replications=10)
        gains.append(interval(found["complete"].samples / found["ring"].samples))
    detail = "complete over ring: " + ", ".join(f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in gains)
    falls = all(one.low > other.high for one, other in pairwise(gains))
    return Outcome(gains[-1].mean, "holds" if falls else "fails", f"{detail} for persistence 0, 0.9, 0.99")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="stragglers-directed-ring",
        paper=NEGLIA,
        where="the model; the closed form is derived",
        statement="With exponential work a round of a directed ring of n nodes takes 2 - 1/n times the mean work; "
        "largest relative error over n = 2, 10, 100.",
        expected=0.0,
        tolerance=0.01,
        cost="quick",
        run=_directed_rings,
    ),
    Claim(
        name="stragglers-clique",
        paper=NEGLIA,
        where="the model; E max of n",
        statement="Where all wait for all a round takes the mean of the largest of n, H_n for exponential work; "
        "largest relative error over n = 2, 10, 100 and four laws.",
        expected=0.0,
        tolerance=0.01,
        cost="quick",
        run=_cliques,
    ),
    Claim(
        name="stragglers-bound-of-paths",
        paper=NEGLIA,
        where="sparse graphs keep their throughput; the bound over paths is derived",
        statement="A round of a regular graph takes at most inf (ln(d + 1) + ln E e^(tX)) / t, however many nodes "
        "there are; largest ratio, at the upper end of intervals.",
        expected="ratio of at most 1",
        tolerance=0.0,
        cost="quick",
        run=_below_the_bound_of_paths,
    ),
    Claim(
        name="stragglers-table-of-the-notes",
        paper=NEGLIA,
        where="our notes: mean times of a round, n = 100, five degrees, three laws",
        statement="13 simulated times of the notes are met; largest relative error. Two more, of a Pareto law, are 3 % "
        "and 1.6 % too high in the notes.",
        expected=0.0,
        tolerance=0.0125,
        cost="slow",
        run=_notes,
    ),
    Claim(
        name="few-neighbours-win-under-stragglers",
        paper=NEGLIA,
        where="with free communication the clique need not be best; softmax regression, 16 nodes, 3 seeds, ours",
        statement="With exponential work and rounds as measured in training, the advised graph is significantly better "
        "than the complete one; without chance in the work, data of one class each, it is the complete one.",
        expected="advised graph faster, the complete one without chance",
        tolerance=0.0,
        cost="quick",
        run=_few_neighbours_win,
    ),
    Claim(
        name="degree-by-law-and-difference",
        paper=f"{NEGLIA}; Neglia, Xu, Towsley, Calbi, AISTATS 2020",
        where="rounds from the bound of 2020 with spread in all directions, n = 100; scan of ours",
        statement="There are regimes in which the advised graph is significantly better than the complete one: the "
        "more work scatters and the less gradients differ, the fewer neighbours.",
        expected="at least one of 16 regimes",
        tolerance=0.0,
        cost="slow",
        run=_regimes,
    ),
    Claim(
        name="lasting-slowness-levels-graphs",
        paper="ours",
        where="n = 20, work uniform on [0, 2]",
        statement="The longer a node stays slow, the less a sparse graph gains over the complete one.",
        expected="gain falls with persistence",
        tolerance=0.0,
        cost="quick",
        run=_lasting_slowness,
    ),
)

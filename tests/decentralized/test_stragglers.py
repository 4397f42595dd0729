"""Mean iteration times under stragglers: closed forms, bounds, the reference values of the topology notes.

Estimates are held to within four or more of their standard errors: with the seeds fixed here they pass, with fresh ones
a test would fail by chance less than once in a thousand times.
"""

from __future__ import annotations

import doctest
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.decentralized import Overlay, Silos, cycle_time_ms, matcha, mst, star, stragglers
from rivage.decentralized.clock import Clock, Replay, Times
from rivage.decentralized.stragglers import (
    Estimate,
    bounds,
    design_times,
    directed_ring_time,
    interval,
    iteration_times,
    overlay_times,
    path_bound,
    two_round_bound,
)
from rivage.decentralized.time_laws import (
    Constant,
    Exponential,
    Law,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Stalls,
    Trace,
    Uniform,
    harmonic,
)
from rivage.decentralized.waiting import Waiting, Waits
from rivage.graphs.families import random_regular, torus
from rivage.graphs.network import Network
from rivage.graphs.topologies import cycle, hypercube

SquareOf = Callable[..., Silos]


def complete(nodes: int) -> Network:
    return Network.of(nodes, [(i, j) for j in range(nodes) for i in range(j)], name="clique")


def directed_ring(nodes: int) -> Waits:
    return Waits.of(nodes, [(i, (i + 1) % nodes) for i in range(nodes)] if nodes > 1 else [])


def time_of(graph: Waiting, times: Times, rounds: int = 1_000, replications: int = 10, seed: int = 0) -> Estimate:
    return iteration_times({"": graph}, times, rounds=rounds, replications=replications, seed=seed)[""]


GRAPHS: dict[str, Callable[[int], Waits]] = {
    "directed ring": directed_ring,
    "ring": lambda n: Waits.of_network(cycle(n)),
    "4-regular": lambda n: Waits.of_network(random_regular(n, 4, np.random.default_rng(0))),
    "10-regular": lambda n: Waits.of_network(random_regular(n, 10, np.random.default_rng(0))),
    "clique": lambda n: Waits.of_network(complete(n)),
}
DEGREES = {"directed ring": 1, "ring": 2, "4-regular": 4, "10-regular": 10}


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "rounds", "replications"), [(1, 4_000, 10), (2, 4_000, 20), (10, 2_000, 20)])
def test_the_directed_ring_of_exponential_work(nodes: int, rounds: int, replications: int) -> None:
    """2 − 1/n to 1 %; the last is (100, …) among the slow ones."""
    found = time_of(directed_ring(nodes), Clock(), rounds, replications)
    assert found.mean == pytest.approx(2 - 1 / nodes, rel=0.01)
    assert directed_ring_time(nodes) == 2 - 1 / nodes


def test_the_directed_ring_of_a_hundred() -> None:
    assert time_of(directed_ring(100), Clock(), 4_000, 5).mean == pytest.approx(1.99, rel=0.01)


@pytest.mark.parametrize(
    "law", [Exponential(), Uniform(), Pareto(shape=3), LogNormal(), Stalls(), Constant()], ids=repr
)
@pytest.mark.parametrize("nodes", [1, 2, 10, 30])
def test_the_clique_waits_for_the_slowest(law: Law, nodes: int) -> None:
    """E max of n; rounds are independent, so the interval is exact but for tails: five standard errors, and 1 %."""
    found = time_of(GRAPHS["clique"](nodes), Clock(law=law), 2_000, 20)
    error = (found.high - found.mean) / 2.09
    assert abs(found.mean - law.mean_of_max(nodes)) <= 5 * error + 1e-12
    assert found.mean == pytest.approx(law.mean_of_max(nodes), rel=0.01)
    assert Exponential().mean_of_max(nodes) == pytest.approx(harmonic(nodes))


def test_two_nodes_that_wait_for_each_other_are_a_clique_and_a_ring() -> None:
    assert directed_ring_time(2) == harmonic(2) == 1.5


@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(1e8, 1e10))
@hypothesis_settings(max_examples=30)
def test_a_law_without_chance_has_the_cycle_time(square_of: SquareOf, seed: int, nodes: int, access: float) -> None:
    """By simulation it differs by what the rounds of one period leave at the ends."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(nodes)
    overlay = Overlay.ring(square_of(seed, nodes, access_bps=access, symmetric=False), order)
    exact = cycle_time_ms(overlay)
    assert overlay_times(overlay, Constant()) == (exact, exact, exact)
    simulated = time_of(Waits.of_overlay(overlay), Clock(law=Constant()), 600, 2)
    assert simulated.mean == pytest.approx(exact, rel=0.01)
    assert simulated.high - simulated.low < 1e-9
    barely = overlay_times(overlay, Uniform(least=0.9999), 600, replications=2)
    assert barely[0] == pytest.approx(exact, rel=0.01)


# --- published references ---------------------------------------------------------------------------------------------

REFERENCE = {  # n, law -> directed ring, ring, 4-regular, 10-regular, clique; topology notes, 1 %
    (100, Exponential()): (1.987, 2.37, 3.13, 3.82, 5.19),
    (100, Uniform()): (1.49, 1.64, 1.80, 1.90, 1.98),
    (10, Exponential()): (1.90, 2.23, 2.58, None, 2.93),
}
PARETO = (1.630, 1.875, 2.57, 3.10, 4.195)  # ours; the notes have 1.68, 1.86, 2.57, 3.15, 4.20


@pytest.mark.parametrize(("nodes", "law"), list(REFERENCE), ids=repr)
def test_reference_values(nodes: int, law: Law) -> None:
    for name, expected in zip(GRAPHS, REFERENCE[nodes, law], strict=True):
        if expected is not None:
            found = time_of(GRAPHS[name](nodes), Clock(law=law), 1_500, 5)
            assert found.mean == pytest.approx(expected, rel=0.015), name


@pytest.mark.slow
def test_reference_values_of_a_heavy_tail() -> None:
    """The notes' 1.68 for the directed ring is 3 % too high, see `test_the_note_on_the_pareto_ring`."""
    for name, expected, noted in zip(GRAPHS, PARETO, (1.68, 1.86, 2.57, 3.15, 4.20), strict=True):
        found = time_of(GRAPHS[name](100), Clock(law=Pareto(shape=3)), 10_000, 10)
        assert found.mean == pytest.approx(expected, rel=0.015), name
        assert found.mean == pytest.approx(noted, rel=0.035), name


@pytest.mark.slow
def test_the_note_on_the_pareto_ring() -> None:
    """Another simulation, which shares no line with ours, gives 1.63 as well."""
    rng, nodes, rounds, starts = np.random.default_rng(0), 100, 60_000, np.zeros(100)
    for k in range(2 * rounds):
        if k == rounds:
            begun = starts.mean()
        finish = starts + 2 / 3 * (1 - rng.random(nodes)) ** (-1 / 3)
        starts = np.maximum(finish, np.roll(finish, 1))
    assert (starts.mean() - begun) / rounds == pytest.approx(1.630, rel=0.006)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [2, 10, 100])
def test_the_directed_ring_closely(nodes: int) -> None:
    found = time_of(directed_ring(nodes), Clock(), 20_000, 20)
    assert found.mean == pytest.approx(2 - 1 / nodes, rel=0.003)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_bounds_of_the_notes() -> None:
    assert [round(path_bound(Exponential(), d), 3) for d in (1, 2, 4, 10)] == [2.678, 3.289, 3.994, 5.009]
    assert path_bound(Pareto(), 1) == np.inf
    assert path_bound(Constant(), 3) == pytest.approx(1, abs=1e-4)
    assert two_round_bound(Exponential(), 2) == pytest.approx((1 + 11 / 6) / 2)
    assert path_bound(Exponential(), 0) == pytest.approx(1, abs=1e-4)


LIGHT = (
    Exponential(),
    Uniform(),
    ShiftedExponential(),
    Stalls(probability=0.2, factor=4),
    Trace(times=(1.0, 2.0, 9.0)),
)


@pytest.mark.parametrize("law", LIGHT, ids=repr)
def test_regular_graphs_are_below_their_bound(law: Law) -> None:
    for name, degree in DEGREES.items():
        graph = GRAPHS[name](40)
        low, high = bounds(graph, Clock(law=law))
        assert high <= path_bound(law, degree) * (1 + 1e-6)
        found = time_of(graph, Clock(law=law), 600, 5)
        assert low <= found.high, name
        assert found.low <= high, name
        if graph.is_undirected:
            assert low == pytest.approx(two_round_bound(law, degree))


@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([*LIGHT, Pareto(), LogNormal()]), st.booleans())
@hypothesis_settings(max_examples=25)
def test_any_graph_is_between_its_bounds(seed: int, nodes: int, law: Law, both: bool) -> None:
    """Unequal work, transfers, irregular arcs; nine standard errors, as those of 6 samples are rough themselves."""
    rng = np.random.default_rng(seed)
    arcs = [(k, (k + 1) % nodes) for k in range(nodes)] if nodes > 1 else []
    arcs += [(int(a), int(b)) for a, b in rng.integers(nodes, size=(nodes, 2)) if a != b]
    arcs = sorted({*arcs, *(pair[::-1] for pair in arcs if both)})
    work, transfer = rng.uniform(0.2, 2, nodes), rng.uniform(0, 1, len(arcs)) * rng.integers(2)
    graph = Waits.of(nodes, arcs, work=work, transfer=transfer)
    low, high = bounds(graph, Clock(law=law))
    found = time_of(graph, Clock(law=law), 400, 6, seed)
    slack = 9 * (found.high - found.mean) / 2.57 + 0.01 * found.mean
    assert work.max() * (1 - 1e-9) <= low <= high
    assert low - slack <= found.mean <= high + slack


def test_the_bound_of_paths_knows_slow_nodes_and_links() -> None:
    """One slow node, or one slow link both ways, is worth more than the number of paths."""
    ring = cycle(20)
    work = np.ones(20)
    work[3] = 10
    low, high = bounds(Waits.of_network(ring, work=work), Clock(law=Uniform()))
    assert low == 10
    assert 10 <= high < 14  # where all wait for all, 19
    transfer = np.zeros(20)
    transfer[5] = 30
    low, high = bounds(Waits.of_network(ring, transfer=transfer), Clock(law=Uniform()))
    assert low == pytest.approx(31)
    assert 31 <= high < 34


@pytest.mark.parametrize(
    ("graph", "times"),
    [
        (directed_ring(4), Clock(persistence=0.5)),
        (directed_ring(4), Clock(spread=0.5)),
        (directed_ring(4), Clock(transfer=Exponential())),
        (directed_ring(4).with_backups(1), Clock()),
        (directed_ring(4).awaited_every(2), Clock()),
    ],
)
def test_bounds_that_are_not_known(graph: Waits, times: Clock) -> None:
    with pytest.raises(ConfigError, match="no bound is known"):
        bounds(graph, times)


# --- persistent and correlated slowness, backup workers ---------------------------------------------------------------


def test_nobody_outruns_the_slowest_silo() -> None:
    """γ >= max of the mean times; with one very slow node hardly more where few wait for it."""
    work = np.ones(30)
    work[7] = 8.0
    for name in ("directed ring", "ring", "4-regular"):
        graph = Waits.of(30, GRAPHS[name](30).arcs, work=work)
        found = time_of(graph, Clock(), 1_000, 10)
        assert 8 * 0.98 <= found.mean <= 8 * 1.06, name


def test_slowness_that_lasts_costs_sparse_graphs_their_advantage() -> None:
    """Whoever stays slow for long makes all wait, also far away; a clique waits for it in any case."""
    ratios = []
    for persistence in (0.0, 0.9, 0.99):
        times = Clock(law=Uniform(), persistence=persistence)
        ring, clique = (time_of(GRAPHS[name](20), times, 4_000, 5).mean for name in ("ring", "clique"))
        assert clique == pytest.approx(Uniform().mean_of_max(20), rel=0.05)
        ratios.append(clique / ring)
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 1.15
    assert ratios[2] < 1.1


def test_backup_workers_make_rounds_shorter() -> None:
    clique = GRAPHS["clique"](20)
    found = [time_of(clique.with_backups(backups), Clock(), 500, 5).mean for backups in (0, 1, 3, 19)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(harmonic(20), rel=0.03)
    assert found[3] == pytest.approx(1, rel=0.03)


def test_a_replay_of_independent_times_is_the_law_it_came_from() -> None:
    table = Clock(law=Uniform()).work_factors(1, 10, 0, 4_000)
    replay = Replay.of(table)
    graph = GRAPHS["ring"](10)
    one, other = time_of(graph, replay, 2_000, 10), time_of(graph, Clock(law=Uniform()), 2_000, 10)
    assert one.mean == pytest.approx(other.mean, rel=0.01)


def test_silos_that_are_slow_together_do_not_wait_for_each_other() -> None:
    """One factor for all nodes of a round: every graph takes the mean."""
    table = np.repeat(Clock().work_factors(1, 1, 0, 500), 8, axis=1)
    found = time_of(GRAPHS["clique"](8), Replay.of(table), 3_000, 10)
    assert abs(found.mean - 1) <= 4 * (found.high - found.mean) / 2.26


# --- estimates --------------------------------------------------------------------------------------------------------


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """300 intervals of 95 %: 285 expected, at least 270 but once in 10,000 times."""
    graph = GRAPHS["clique"](3)
    held = 0
    for seed in range(300):
        found = time_of(graph, Clock(), 50, 6, seed)
        held += found.low <= harmonic(3) <= found.high
    assert 270 <= held <= 297


def test_common_luck_makes_differences_precise() -> None:
    graphs = {name: GRAPHS[name](20) for name in ("4-regular", "10-regular")}
    found = iteration_times(graphs, Clock(), rounds=500, replications=20)
    one, other = (each.samples for each in found.values())
    assert (other > one).all()
    paired, apart = interval(other - one), interval(other - np.roll(one, 1))
    assert paired.high - paired.low < 0.7 * (apart.high - apart.low)


def test_blocks_of_rounds_are_seamless(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, times = GRAPHS["ring"](6), Clock(persistence=0.5, transfer=Uniform())
    whole = time_of(graph, times, 100, 2)
    monkeypatch.setattr(stragglers, "_BLOCK", 7)
    assert np.allclose(time_of(graph, times, 100, 2).samples, whole.samples, rtol=1e-12)


def test_overlays_take_longer_with_stragglers(square_of: SquareOf) -> None:
    overlay = Overlay.links(square_of(1, 6), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)])
    exact = cycle_time_ms(overlay)
    mean, low, high = overlay_times(overlay, Exponential(), 500)
    assert exact < low < mean < high
    assert overlay_times(overlay, Clock(), 500, seed=0) == (mean, low, high)
    assert overlay_times(overlay, Exponential(), 500, seed=1) != (mean, low, high)
    slow_links = overlay_times(overlay, Clock(law=Constant(), transfer=Exponential()), 500)
    assert slow_links[1] > exact


def test_designs_with_and_without_a_hub(square_of: SquareOf) -> None:
    silos = square_of(1, 6, access_bps=1e9)
    hub, tree = star(silos), mst(silos)
    for design in (hub, tree):
        assert design_times(design, Constant()) == (design.cycle_time_ms,) * 3
        found = design_times(design, Exponential(), 300)
        assert found is not None
        assert design.cycle_time_ms < found[1] < found[2]
    assert design_times(tree, Exponential(), 300) == overlay_times(tree.overlay, Exponential(), 300)
    assert design_times(matcha(silos, rounds=5), Exponential()) is None
    unlike = Clock(law=Uniform(least=0.999))
    assert (design_times(hub, unlike, 300) or (0.0,))[0] == pytest.approx(hub.cycle_time_ms, rel=1e-3)


def test_numbers_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="rounds is 0"):
        time_of(directed_ring(3), Clock(), 0)
    with pytest.raises(ConfigError, match="replications is 1"):
        time_of(directed_ring(3), Clock(), 10, 1)
    with pytest.raises(ConfigError, match="nodes is 0"):
        directed_ring_time(0)


def test_tori_and_hypercubes_are_regular_too() -> None:
    for network, degree in ((torus(5, 5), 4), (hypercube(4), 4)):
        graph = Waits.of_network(network)
        assert (graph.in_degrees == degree).all()
        assert time_of(graph, Clock(), 500, 5).high <= path_bound(Exponential(), degree)


def test_examples() -> None:
    assert doctest.testmod(stragglers).failed == 0

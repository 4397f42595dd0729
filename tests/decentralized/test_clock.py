"""Random times: laws against their integrals, draws against Philox, rounds against a plain loop."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core import settings
from rivage.core.errors import ConfigError, DataError
from rivage.core.philox import uniforms
from rivage.decentralized import Overlay, Silos, clock, ring_2opt, star, start_times_ms, time_laws, waiting
from rivage.decentralized.clock import Clock, Replay, Times, start_times
from rivage.decentralized.clock_kernel import draws
from rivage.decentralized.time_laws import (
    LAWS,
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
from rivage.decentralized.waiting import Server, Waits
from rivage.graphs.families import random_regular
from rivage.graphs.topologies import cycle

SquareOf = Callable[..., Silos]

LAWS_OF_MEAN_1: tuple[Law, ...] = (
    Constant(),
    Exponential(),
    ShiftedExponential(shift=0.3),
    Uniform(),
    Uniform(least=0.8),
    Pareto(shape=3),
    Pareto(shape=1.6),
    LogNormal(sigma=0.4),
    LogNormal(sigma=1.2),
    Stalls(probability=0.1, factor=8),
    Trace(times=(3.0, 1.0, 1.0, 7.5, 0.0)),
)
laws = st.sampled_from(LAWS_OF_MEAN_1)


def random_arcs(rng: np.random.Generator, nodes: int, more: int = 3) -> np.ndarray:
    """A directed ring through all, and arcs beside it."""
    order = rng.permutation(nodes)
    ring = {(int(a), int(b)) for a, b in zip(order, np.roll(order, -1), strict=True) if a != b}
    extra = {(int(a), int(b)) for a, b in rng.integers(nodes, size=(more * nodes, 2)) if a != b}
    return np.array(sorted(ring | extra), np.int64).reshape(-1, 2)


def random_waits(seed: int, nodes: int, *, transfers: bool = True) -> Waits:
    rng = np.random.default_rng(seed)
    arcs = random_arcs(rng, nodes, int(rng.integers(0, 4)))
    transfer = rng.uniform(0, 2, len(arcs)) if transfers else 0.0
    return Waits.of(nodes, arcs, work=rng.uniform(0.1, 2, nodes), transfer=transfer)


# --- laws -------------------------------------------------------------------------------------------------------------


def test_the_registry_holds_every_law_tested_here() -> None:
    assert {LAWS.get(kind) for kind in LAWS} == {type(law) for law in LAWS_OF_MEAN_1}
    assert all(isinstance(law, Law) for law in LAWS_OF_MEAN_1)


def integral(law: Law, weight: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """∫ weight(u, Q(u)) du by the midpoint rule in y = −ln(1 − u) up to 25, where 1e-11 of the mass is left."""
    y = (np.arange(200_000) + 0.5) * 25 / 200_000
    u = -np.expm1(-y)
    return float((weight(u, law.quantile(u)) * np.exp(-y)).sum() * 25 / 200_000)


@pytest.mark.parametrize("law", LAWS_OF_MEAN_1, ids=repr)
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_mean_of_the_largest_is_its_integral(law: Law, count: int) -> None:
    """E max = ∫ Q(u) n u^{n−1} du; for n = 1 the mean, 1. Of shape 1.6, n · 1e-11^{3/8} lies beyond the last point."""
    expected = integral(law, lambda u, x: x * count * u ** (count - 1))
    assert law.mean_of_max(count) == pytest.approx(expected, rel=1e-3 if law == Pareto(shape=1.6) else 1e-4)
    assert law.mean_of_max(1) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("law", LAWS_OF_MEAN_1, ids=repr)
def test_the_moment_function_is_its_integral(law: Law) -> None:
    for theta in (0.01, 0.3, 0.6):
        if isinstance(law, Pareto | LogNormal):
            assert law.log_moment(theta) == np.inf
        else:
            found = integral(law, lambda u, x, theta=theta: np.exp(theta * x))
            assert law.log_moment(theta) == pytest.approx(np.log(found), rel=1e-3, abs=1e-5)


def test_moments_that_are_infinite() -> None:
    assert Exponential().log_moment(1.0) == np.inf
    assert ShiftedExponential(shift=0.5).log_moment(2.0) == np.inf
    assert ShiftedExponential(shift=0.5).log_moment(1.9) < np.inf


def test_one_law_becomes_another() -> None:
    u = np.linspace(0, 0.999, 50)
    assert np.array_equal(ShiftedExponential(shift=0.0).quantile(u), Exponential().quantile(u))
    assert ShiftedExponential(shift=0.0).mean_of_max(9) == Exponential().mean_of_max(9) == harmonic(9)
    assert np.array_equal(Stalls(factor=1.0).quantile(u), Constant().quantile(u))
    assert np.array_equal(Trace(times=(4.0,)).quantile(u), Constant().quantile(u))
    assert np.allclose(LogNormal(sigma=1e-9).quantile(u), 1, atol=1e-6)


@given(laws, st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_quantiles_are_finite_and_rise(law: Law, u: list[float]) -> None:
    values = law.quantile(np.sort(u))
    assert (values >= 0).all()
    assert np.isfinite(values).all()
    assert (np.diff(values) >= 0).all()


@given(laws, st.integers(1, 300))
def test_the_largest_of_more_is_larger(law: Law, count: int) -> None:
    assert law.mean_of_max(count + 1) >= law.mean_of_max(count) * (1 - 1e-12)


def test_a_trace_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "times.txt"
    file.write_text("# ms\n3\n1\n2\n", encoding="utf-8")
    law = Trace(file=file)
    assert law.mean == 2
    assert law.quantile(np.array([0.0, 0.34, 0.99])).tolist() == [0.5, 1.0, 1.5]
    file.write_text("1 2\n3 4\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 numbers a line"):
        Trace(file=file)
    file.write_text("slow\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"times\.txt"):
        Trace(file=file)
    with pytest.raises(DataError, match="no times can be read"):
        Trace(file=tmp_path / "missing.txt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShiftedExponential(shift=1.0), "shift is 1.0"),
        (lambda: Uniform(least=-0.1), "least is -0.1"),
        (lambda: Uniform(least=1), "least is 1"),
        (lambda: Pareto(shape=1.0), "shape is 1.0"),
        (lambda: LogNormal(sigma=0), "sigma is 0"),
        (lambda: Stalls(probability=1.0), "probability is 1.0"),
        (lambda: Stalls(factor=0.5), "factor is 0.5"),
        (lambda: Trace(), "either times or a file"),
        (lambda: Trace(times=(1.0, -2.0)), "a time of the trace is -2.0"),
        (lambda: Trace(times=(1.0, float("inf"))), "a time of the trace is inf"),
        (lambda: Trace(times=(0.0,)), "a time of the trace is 0.0"),
        (lambda: Clock(persistence=1.0), "persistence is 1.0"),
        (lambda: Clock(spread=-1.0), "spread is -1.0"),
        (lambda: Replay.of([[1.0, 0.0], [2.0, 0.0]]), "measured times"),
        (lambda: Replay.of([1.0, 2.0]), "measured times"),
    ],
)
def test_settings_that_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# --- draws ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.integers(0, 3), st.lists(st.integers(0, 2**62), max_size=4))
def test_draws_are_those_of_philox(seed: int, first: int, stream: int, numbers: list[int]) -> None:
    ids, out = np.array(numbers, np.int64), np.empty((3, len(numbers)))
    draws(np.uint64(seed), ids, first, stream, 1.0, out)
    assert np.array_equal(out, [uniforms(seed, ids, first + k, stream)[:, 0] for k in range(3)])


def test_persistence_is_the_correlation_of_neighbouring_rounds() -> None:
    """40,000 rounds of 50 nodes: the standard error of the correlations is about 0.002."""
    clock = Clock(law=Uniform(), persistence=0.7)
    factors = clock.work_factors(5, 50, 0, 40_000) - 1
    variance = (factors**2).mean()
    assert variance == pytest.approx(1 / 3, rel=0.02)
    for lag in (1, 2, 5):
        assert (factors[lag:] * factors[:-lag]).mean() / variance == pytest.approx(0.7**lag, abs=0.01)
    assert (np.diff(factors, axis=0) == 0).mean() == pytest.approx(0.7, abs=0.005)


def test_spread_stays_with_a_silo_and_has_mean_1() -> None:
    clock = Clock(law=Constant(), spread=0.5)
    factors = clock.work_factors(3, 20_000, 7, 2)
    assert np.array_equal(factors[0], factors[1])
    assert np.array_equal(factors[0, :9], clock.work_factors(3, 9, 400, 1)[0])
    assert factors[0].mean() == pytest.approx(1, abs=0.02)
    assert np.log(factors[0]).std() == pytest.approx(0.5, rel=0.03)


def test_a_replay_keeps_rows_together_and_blocks_in_order() -> None:
    table = np.arange(1.0, 13).reshape(6, 2)
    replay = Replay.of(table, block=4)
    assert replay.mean.tolist() == [6.0, 7.0]
    drawn = replay.work_factors(9, 2, 0, 400) * replay.mean
    rows = (drawn[:, 0].round().astype(int) - 1) // 2
    assert np.allclose(drawn, table[rows])
    within = np.arange(399) % 4 != 3
    assert ((rows[1:] - rows[:-1]) % 6 == 1)[within].all()
    assert set(rows[::4]) == set(range(6))
    assert np.array_equal(drawn[30:50], replay.work_factors(9, 2, 30, 20) * replay.mean)
    with pytest.raises(ConfigError, match="2 nodes were measured, the graph has 3"):
        replay.work_factors(9, 3, 0, 1)


CLOCKS: tuple[Times, ...] = (
    Clock(),
    Clock(law=Pareto(), persistence=0.9, spread=0.3),
    Clock(law=Uniform(), transfer=Exponential()),
    Clock(law=Constant(), transfer=Stalls()),
)


@given(st.sampled_from(CLOCKS), st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 12), st.integers(0, 12))
def test_a_stretch_of_rounds_is_that_of_the_whole(times: Times, seed: int, nodes: int, begin: int, more: int) -> None:
    graph = random_waits(seed, nodes).awaited_every(2)
    whole = start_times(graph, times, begin + more, seed=seed)
    part = start_times(graph, times, more, seed=seed, first=begin, start=whole[begin])
    assert np.array_equal(part, whole[begin:])


def test_seeds_differ_and_repeat() -> None:
    graph = random_waits(1, 5)
    one, again, other = (start_times(graph, Clock(), 20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


# --- rounds -----------------------------------------------------------------------------------------------------------


def plainly(graph: Waits, work: np.ndarray, transfer: np.ndarray, rounds: int) -> list[list[float]]:
    """The recursion, word by word."""
    starts = [[0.0] * len(graph)]
    for k in range(rounds):
        now, after = starts[-1], []
        for node in range(len(graph)):
            come = sorted(
                now[i] + work[k, i] + transfer[k % len(transfer), arc]
                for arc, (i, j) in enumerate(graph.arcs.tolist())
                if j == node and k % graph.every[arc] == 0
            )
            if graph.least is not None:
                come = come[: graph.least[node]]
            after.append(max([now[node] + work[k, node], *come]))
        starts.append(after)
    return starts


@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from(CLOCKS), st.integers(0, 3), st.booleans())
def test_rounds_by_a_plain_loop(seed: int, nodes: int, times: Times, kind: int, random: bool) -> None:
    graph = random_waits(seed, nodes, transfers=random)
    if kind == 1:
        graph = graph.with_backups(1)
    if kind == 2:
        graph = graph.awaited_every(1 + np.arange(len(graph.arcs)) % 3)
    found = start_times(graph, times, 9, seed=seed)
    key = clock.Streams(seed).seed("clock")
    work = graph.work * times.work_factors(key, nodes, 0, 9)
    transfer = graph.transfer * times.transfer_factors(key, graph.arcs, 0, 9)
    assert np.allclose(found, plainly(graph, work, transfer, 9), rtol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(1e8, 1e10))
def test_without_chance_they_are_those_of_the_overlay(
    square_of: SquareOf, seed: int, nodes: int, access: float
) -> None:
    silos = square_of(seed, nodes, access_bps=access, symmetric=False)
    overlay = Overlay(silos=silos, arcs=random_arcs(np.random.default_rng(seed), nodes))
    found = start_times(Waits.of_overlay(overlay), Clock(law=Constant()), 30)
    assert np.allclose(found, start_times_ms(overlay, 30), rtol=1e-12)


SCHEDULED = {  # ms: the ring, and with arcs awaited every min(5, round(d / least d)) rounds; topology notes, §7
    ("Gaia", "FEMNIST"): (57.2, 33.5),
    ("Gaia", "Sent140"): (76.8, 50.7),
    ("Gaia", "iNaturalist"): (118.1, 98.2),
    ("AWS", "FEMNIST"): (20.0, 16.7),
    ("AWS", "Sent140"): (39.6, 39.6),
    ("AWS", "iNaturalist"): (80.9, 80.9),
    ("Geant", "FEMNIST"): (27.1, 19.6),
    ("Geant", "Sent140"): (52.0, 41.0),
    ("Geant", "iNaturalist"): (102.3, 92.2),
}


@pytest.mark.parametrize(("network", "workload"), SCHEDULED)
def test_rings_that_wait_now_and_then(silos_of: Callable[..., Silos], network: str, workload: str) -> None:
    """Of AWS and Géant our rings are others, a little better than the notes'."""
    overlay = ring_2opt(silos_of(network, workload)).overlay
    graph, delays = Waits.of_overlay(overlay), overlay.delays_ms
    scheduled = graph.awaited_every(np.minimum(5, np.round(delays / delays.min())).astype(int))
    starts = start_times(scheduled, Clock(law=Constant()), 6_000)
    plain, noted = SCHEDULED[network, workload]
    slack = 0.06 if network == "Gaia" else 0.03 * noted
    assert (starts[-1] - starts[3_000]).mean() / 3_000 == pytest.approx(noted, abs=slack)
    assert (starts[-1] - starts[3_000]).mean() / 3_000 <= plain


@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from(CLOCKS))
def test_a_server_waits_for_all(square_of: SquareOf, seed: int, nodes: int, times: Times) -> None:
    design = star(square_of(seed, nodes, access_bps=1e9, symmetric=False))
    hub = design.overlay.silos.names.index(str(design.hub))
    server = Server.of_overlay(design.overlay, hub)
    found = start_times(server, times, 6, seed=seed)
    key = clock.Streams(seed).seed("clock")
    work = server.work * times.work_factors(key, nodes, 0, 6)
    transfer = np.broadcast_to(server.transfer * times.transfer_factors(key, server.arcs, 0, 6), (6, 2 * nodes - 2))
    now = np.zeros(nodes)
    for k in range(6):
        done = now + work[k]
        for (i, _), ways in zip(server.arcs[: nodes - 1], transfer[k, : nodes - 1], strict=True):
            done[i] += ways
        now = np.full(nodes, done.max())
        now[server.arcs[nodes - 1 :, 1]] += transfer[k, nodes - 1 :]
        assert np.allclose(found[k + 1], now, rtol=1e-12)


@given(st.integers(0, 10**6), st.integers(2, 8))
def test_a_server_without_chance_has_the_cycle_time_of_its_design(square_of: SquareOf, seed: int, nodes: int) -> None:
    design = star(square_of(seed, nodes, access_bps=1e9))
    server = Server.of_overlay(design.overlay, design.overlay.silos.names.index(str(design.hub)))
    found = start_times(server, Clock(law=Constant()), 40)
    assert (found[40] - found[20]) / 20 == pytest.approx(design.cycle_time_ms, rel=1e-12)


@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from(CLOCKS), st.integers(0, 2))
def test_nobody_starts_earlier_for_more_arcs(seed: int, nodes: int, times: Times, backups: int) -> None:
    """Pathwise: the same draws, for every silo and round. More backups, or rarer waiting, let nobody start later."""
    rng = np.random.default_rng(seed)
    arcs = random_arcs(rng, nodes, 1)
    more = np.unique(np.concatenate([arcs, random_arcs(rng, nodes, 2)]), axis=0)
    fewer, graph = (Waits.of(nodes, each, transfer=each @ [0.1, 0.2]) for each in (arcs, more))
    latest = start_times(graph, times, 40, seed=seed)
    assert (start_times(fewer, times, 40, seed=seed) <= latest).all()
    few = graph.with_backups(backups)
    middle = start_times(few, times, 40, seed=seed)
    assert (middle <= latest).all()
    assert (start_times(graph.with_backups(backups + 1), times, 40, seed=seed) <= middle).all()
    assert (start_times(graph.awaited_every(backups + 2), times, 40, seed=seed) <= latest).all()


@given(st.integers(0, 10**6), st.integers(2, 7))
def test_the_numbers_of_nodes_do_not_matter(seed: int, nodes: int) -> None:
    """Relabelled nodes with relabelled work start at relabelled times, where nothing is drawn."""
    graph = random_waits(seed, nodes)
    order = np.random.default_rng(seed).permutation(nodes)
    other = Waits.of(nodes, order[graph.arcs], work=graph.work[np.argsort(order)], transfer=graph.transfer)
    one, two = (start_times(each, Clock(law=Constant()), 12) for each in (graph, other))
    assert np.allclose(one, two[:, order], rtol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 5))
def test_all_for_all_is_a_sum_of_maxima(seed: int, nodes: int, rounds: int) -> None:
    """The short cut is bit for bit what the recursion gives, which no backups at all still take."""
    arcs = [(i, j) for i in range(nodes) for j in range(nodes) if i != j]
    graph, start = Waits.of(nodes, arcs, work=np.linspace(1, 2, nodes)), np.linspace(0, 3, nodes)
    short, long = (
        start_times(each, Clock(), rounds, seed=seed, start=start) for each in (graph, graph.with_backups(0))
    )
    assert np.array_equal(short, long)


def test_no_backups_wait_for_all_and_only_backups_for_nobody() -> None:
    graph = random_waits(4, 6)
    everyone = start_times(graph, Clock(), 50, seed=3)
    assert np.array_equal(start_times(graph.with_backups(0), Clock(), 50, seed=3), everyone)
    alone = start_times(graph.with_backups(6), Clock(), 50, seed=3)
    key = clock.Streams(3).seed("clock")
    work = graph.work * Clock().work_factors(key, 6, 0, 50)
    assert np.allclose(alone[1:], np.cumsum(work, axis=0), rtol=1e-12)


def test_a_single_node_adds_up_its_work() -> None:
    graph = Waits.of(1, [], work=2.0)
    key = clock.Streams(0).seed("clock")
    total = 2 * Clock().work_factors(key, 1, 0, 100).sum()
    assert start_times(graph, Clock(), 100)[-1, 0] == pytest.approx(total)
    assert start_times(graph, Clock(), 0).tolist() == [[0.0]]


def test_the_same_arc_has_the_same_luck_in_every_graph() -> None:
    times = Clock(transfer=Exponential())
    arcs = np.array([[0, 1], [1, 2], [2, 0], [0, 2]])
    assert np.array_equal(times.transfer_factors(1, arcs, 3, 5)[:, 1:], times.transfer_factors(1, arcs[1:], 3, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Waits.of(3, [(0, 1), (1, 0)]), "not strongly connected"),
        (lambda: Waits.of(2, [(0, 1), (1, 0), (1, 1)]), "sends to itself"),
        (lambda: Waits.of(2, [(0, 1), (1, 0), (1, 0)]), "twice"),
        (lambda: Waits.of(2, [(0, 1), (1, 0)], work=-1), "work is -1"),
        (lambda: Waits.of(2, [(0, 1), (1, 0)], transfer=np.inf), "transfer is inf"),
        (lambda: Waits.of_network(cycle(4)).awaited_every(0), "every is 0"),
        (lambda: Waits.of_network(cycle(4)).awaited_every(2).with_backups(1), "backup workers with a schedule"),
        (lambda: replace(Waits.of_network(cycle(4)), least=np.full(4, 3)), "waits for more than there are"),
        (lambda: Waits.of_network(cycle(4)).with_backups(-1), "backups is -1"),
    ],
)
def test_graphs_that_are_refused(make: Callable[[], Waits], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_ring_is_no_star(square_of: SquareOf) -> None:
    with pytest.raises(ConfigError, match='not a star around "s0"'):
        Server.of_overlay(Overlay.ring(square_of(0, 4), range(4)), 0)


# --- settings, documentation, speed -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Study:
    compute: Clock | None = None


def test_a_table_of_a_study() -> None:
    table = {"kind": "pareto", "shape": 2.5, "persistence": 0.5, "transfer": {"kind": "exponential"}}
    read = settings.read(Clock, table)
    assert read == Clock(law=Pareto(shape=2.5), persistence=0.5, transfer=Exponential())
    assert settings.read(Clock, settings.dump(read)) == read
    assert settings.read(Clock, {"kind": "trace", "times": [1.0, 2.0]}) == Clock(law=Trace(times=(1.0, 2.0)))
    study = settings.read(_Study, {"compute": {"kind": "stalls", "spread": 0.5}})
    assert study == _Study(compute=Clock(law=Stalls(), spread=0.5))
    assert settings.read(_Study, settings.dump(study)) == study
    assert settings.read(_Study, {}) == _Study()
    with pytest.raises(ConfigError, match=r'unknown law of times kind "parreto".*pareto'):
        settings.read(Clock, {"kind": "parreto"})


@pytest.mark.parametrize("module", [clock, time_laws, waiting])
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_a_thousand_rounds_of_a_thousand_nodes() -> None:
    """About 0.04 s on one core; the limit leaves room for a busy machine, not for a loop in Python (some 10 s)."""
    from time import process_time

    graph = Waits.of_network(random_regular(1000, 4, np.random.default_rng(0)))
    start_times(graph, Clock(), 1)
    begin = process_time()
    start_times(graph, Clock(), 1000)
    assert process_time() - begin < 1

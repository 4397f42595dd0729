"""The largest mean of a circuit: against all circuits, against itself, and against rounds played out."""

from __future__ import annotations

import time
from itertools import permutations
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.graphs import CycleMean, max_cycle_mean, max_cycle_mean_of_arcs, start_times
from rivage.graphs.cycles import require_strong

METHODS = ("howard", "karp")


def strong_matrix(seed: int, *, loops: bool = True) -> np.ndarray:
    """A ring and some more arcs over 2 to 8 nodes; half of the time whole numbers, so that there are many ties."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, 9))
    delays = rng.uniform(1, 10, (nodes, nodes)) if seed % 2 else rng.integers(-3, 4, (nodes, nodes)).astype(float)
    keep = rng.random((nodes, nodes)) < rng.uniform(0, 0.6)
    keep[np.arange(nodes), np.roll(np.arange(nodes), -1)] = True
    if not loops:
        np.fill_diagonal(keep, False)
    order = rng.permutation(nodes)
    return np.where(keep, delays, rng.choice([np.inf, -np.inf]))[np.ix_(order, order)]


def mean_of(delays: np.ndarray, circuit: tuple[int, ...]) -> float:
    return float(np.mean([delays[a, b] for a, b in zip(circuit, circuit[1:] + circuit[:1], strict=True)]))


def by_enumeration(delays: np.ndarray) -> float:
    graph = nx.DiGraph(np.argwhere(np.isfinite(delays)).tolist())
    return max(mean_of(delays, tuple(circuit)) for circuit in nx.simple_cycles(graph))


def assert_proved(delays: np.ndarray, found: CycleMean) -> None:
    """The circuit has the mean, and the potentials leave no arc from which a larger one could be made."""
    assert len(set(found.circuit)) == len(found.circuit)
    assert found.circuit[0] == min(found.circuit)
    assert mean_of(delays, found.circuit) == pytest.approx(found.mean, rel=1e-12, abs=1e-12)
    finite = np.where(np.isfinite(delays), delays, -np.inf)
    reduced = finite - found.mean + found.potentials[:, None] - found.potentials[None, :]
    assert reduced.max() <= found.surplus + 1e-12
    assert 0 <= found.surplus <= 1e-10


@given(st.integers(0, 10**6), st.sampled_from(METHODS))
def test_no_circuit_has_a_larger_mean(seed: int, method: Any) -> None:
    delays = strong_matrix(seed)
    found = max_cycle_mean(delays, method=method)
    assert found.mean == pytest.approx(by_enumeration(delays), abs=1e-9)
    assert_proved(delays, found)


@pytest.mark.parametrize("method", METHODS)
def test_all_digraphs_of_three_nodes_with_a_few_weights(method: Any) -> None:
    """Strong ones are solved, others refused: 512 patterns of arcs."""
    rng = np.random.default_rng(0)
    solved = 0
    for mask in range(512):
        keep = np.array([mask >> bit & 1 for bit in range(9)], bool).reshape(3, 3)
        delays = np.where(keep, rng.integers(-2, 3, (3, 3)), -np.inf)
        if nx.is_strongly_connected(nx.from_numpy_array(keep, create_using=nx.DiGraph)):
            found = max_cycle_mean(delays, method=method)
            assert found.mean == pytest.approx(by_enumeration(delays), abs=1e-12)
            assert_proved(delays, found)
            solved += 1
        else:
            with pytest.raises(ConfigError, match="not strongly connected: no path from"):
                max_cycle_mean(delays, method=method)
    assert solved == 18 * 8  # 18 labelled strong digraphs of three nodes, with any loops


@given(st.integers(0, 10**6))
def test_arcs_and_matrices_are_one(seed: int) -> None:
    delays = strong_matrix(seed)
    arcs = np.argwhere(np.isfinite(delays)).astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(arcs))
    lengths = delays[arcs[:, 0], arcs[:, 1]]
    slower = np.concatenate([lengths[order], lengths[order] - 1])  # parallel arcs of less delay change nothing
    found = max_cycle_mean_of_arcs(len(delays), np.concatenate([arcs[order]] * 2), slower)
    assert found.mean == pytest.approx(max_cycle_mean(delays).mean, abs=1e-12)


@given(st.integers(0, 10**6), st.floats(-100, 100), st.sampled_from(METHODS))
def test_relabelling_shifting_and_scaling(seed: int, shift: float, method: Any) -> None:
    delays = strong_matrix(seed)
    mean = max_cycle_mean(delays, method=method).mean
    order = np.random.default_rng(seed).permutation(len(delays))
    assert max_cycle_mean(delays[np.ix_(order, order)], method=method).mean == pytest.approx(mean, abs=1e-12)
    assert max_cycle_mean(delays + shift, method=method).mean == pytest.approx(mean + shift, abs=1e-9)
    assert max_cycle_mean(delays * 3, method=method).mean == pytest.approx(3 * mean, abs=1e-9)
    assert max_cycle_mean(delays.T, method=method).mean == pytest.approx(mean, abs=1e-9)


def test_rounds_tend_to_it() -> None:
    """200 random strong digraphs: t(5000) / 5000 within 0.1 %, from any start; all circuits of those of six nodes."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        delays = strong_matrix(2 * seed + 1)
        times = start_times(delays, 5000, start=rng.uniform(0, 1, len(delays)))
        mean = max_cycle_mean(delays, method="karp").mean
        assert np.allclose(times[-1] / 5000, mean, rtol=1e-3)
        assert max_cycle_mean(delays).mean == pytest.approx(mean, abs=1e-12)
        if len(delays) < 7:
            assert mean == pytest.approx(by_enumeration(delays), abs=1e-9)


@given(st.integers(0, 10**6), st.integers(0, 5))
def test_rounds_follow_the_recursion(seed: int, rounds: int) -> None:
    delays = strong_matrix(seed)
    finite = np.where(np.isfinite(delays), delays, -np.inf)
    start = np.arange(len(delays), dtype=float)
    times = start_times(delays, rounds, start=start)
    assert times.shape == (rounds + 1, len(delays))
    expected = start
    for row in times:
        assert np.array_equal(row, expected)
        expected = (expected[:, None] + finite).max(axis=0)


@given(st.integers(0, 10**6))
def test_potentials_are_starts_that_keep_time(seed: int) -> None:
    """Started at π, no silo is ever later than one mean a round, and those on the circuit are never earlier."""
    delays = strong_matrix(seed)
    found = max_cycle_mean(delays)
    times = start_times(delays, 20, start=found.potentials)
    on_time = found.potentials + np.arange(21)[:, None] * found.mean
    assert (times <= on_time + 1e-9).all()
    circuit = list(found.circuit)
    assert np.allclose(times[:, circuit], on_time[:, circuit], atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_rings_have_the_mean_of_their_arcs(method: Any) -> None:
    delays = np.full((50, 50), -np.inf)
    lengths = np.random.default_rng(1).uniform(size=50)
    delays[np.arange(50), np.roll(np.arange(50), -1)] = lengths
    found = max_cycle_mean(delays, method=method)
    assert found.mean == pytest.approx(lengths.mean(), rel=1e-13)
    assert found.circuit == tuple(range(50))


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_digraphs(method: Any) -> None:
    missing = -np.inf
    assert max_cycle_mean(np.array([[-7.5]]), method=method).circuit == (0,)
    assert max_cycle_mean(np.array([[-7.5]]), method=method).mean == -7.5
    two = np.array([[missing, 1.0], [2.0, missing]])
    assert (max_cycle_mean(two, method=method).mean, max_cycle_mean(two, method=method).circuit) == (1.5, (0, 1))
    loop = np.array([[4.0, 1.0], [2.0, missing]])
    assert (max_cycle_mean(loop, method=method).mean, max_cycle_mean(loop, method=method).circuit) == (4, (0,))
    zero = max_cycle_mean(np.zeros((5, 5)), method=method)
    assert (zero.mean, zero.surplus) == (0, 0)


@pytest.mark.parametrize(
    ("delays", "message"),
    [
        (np.zeros((2, 3)), r"delays of shape \(2, 3\)"),
        (np.zeros((0, 0)), "there is no node"),
        (np.array([[np.inf]]), "a single node without a loop has no circuit"),
        (np.array([[1.0, np.nan], [1, 1]]), "from node 0 to node 1 is NaN"),
        (np.array([[1.0, 1], [np.inf, 1]]), "no path from 1 to 0.*Add arcs"),
        (np.array([[1.0, -np.inf], [1, 1]]), "no path from 0 to 1"),
    ],
)
def test_what_has_no_cycle_mean_is_refused(delays: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        max_cycle_mean(delays)


def test_other_refusals() -> None:
    arcs = np.array([[0, 1], [1, 0]])
    with pytest.raises(ConfigError, match='no path from "here" to "there"'):
        require_strong(2, arcs[1:], ("here", "there"))
    require_strong(1, arcs[:0])
    with pytest.raises(ConfigError, match="arc 0→2 leaves the nodes"):
        max_cycle_mean_of_arcs(2, np.array([[0, 1], [1, 0], [0, 2]]), np.ones(3))
    with pytest.raises(ConfigError, match=r"arc \[1, 0\] takes no finite time"):
        max_cycle_mean_of_arcs(2, arcs, np.array([1, np.inf]))
    with pytest.raises(ConfigError, match="method"):
        max_cycle_mean(np.ones((1, 1)), method="guess")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no arc leads to node 0"):
        start_times(np.array([[-np.inf, 1], [-np.inf, 1]]), 3)


def test_a_complete_digraph_of_ninety_nodes_takes_no_time() -> None:
    delays = np.random.default_rng(0).uniform(1, 10, (90, 90))
    max_cycle_mean(delays)
    begin = time.perf_counter()
    found = max_cycle_mean(delays)
    assert time.perf_counter() - begin < 0.2
    assert_proved(delays, found)
    assert found.mean == pytest.approx(max_cycle_mean(delays, method="karp").mean, abs=1e-12)


def test_many_circuits_of_one_mean_do_not_keep_it_turning() -> None:
    """All circuits critical: potentials differences plus one constant, where only rounding tells circuits apart."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        heights = rng.uniform(-1e3, 1e3, 60)
        delays = heights[None, :] - heights[:, None] + np.pi
        for method in METHODS:
            found = max_cycle_mean(delays, method=method)  # type: ignore[arg-type]
            assert found.mean == pytest.approx(np.pi, abs=1e-9)
            assert found.surplus < 1e-9


def test_rings_of_four_by_permutation() -> None:
    """Every circuit of a complete digraph without loops is a permutation of some of its nodes."""
    delays = np.random.default_rng(5).uniform(1, 10, (4, 4))
    np.fill_diagonal(delays, -np.inf)
    means = [mean_of(delays, order) for size in (2, 3, 4) for order in permutations(range(4), size)]
    assert max_cycle_mean(delays).mean == pytest.approx(max(means), rel=1e-12)

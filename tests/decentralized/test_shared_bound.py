"""Bounds by several silos with shared potentials: against pairs of circuits, all overlays, a published optimum."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from itertools import combinations, permutations, product

import numpy as np
import pytest

from rivage.core.errors import ConfigError, MissingExtra, RivageError
from rivage.decentralized import Overlay, Silos, cycle_time_ms
from rivage.decentralized.circuit_bounds import circuit_bound
from rivage.decentralized.lower_bounds import lower_bound
from rivage.decentralized.shared_bound import _answer, _Question, shared_bound
from rivage.graphs import max_cycle_mean_of_arcs

SquareOf = Callable[..., Silos]
needs_solver = pytest.mark.skipif(find_spec("ortools") is None, reason="OR-tools is not installed")


def circuits(nodes: int, silo: int) -> Iterator[list[tuple[int, int]]]:
    others = [node for node in range(nodes) if node != silo]
    for size in range(1, nodes):
        for order in (order for chosen in combinations(others, size) for order in permutations(chosen)):
            yield list(zip((silo, *order), (*order, silo), strict=True))


def least_shared(costs: list[list[int]], silos: tuple[int, int]) -> int:
    """The least whole T that all circuits of the union of two circuits keep, over all pairs of circuits."""
    nodes, best = len(costs), math.inf
    for one, other in product(*(list(circuits(nodes, silo)) for silo in silos)):
        arcs = sorted({*one, *other})
        separate = not {i for i, _ in one} & {i for i, _ in other}
        parts = [one, other] if separate else [arcs]
        best = min(best, max(mean_of(part, costs) for part in parts))
    return math.ceil(best - 1e-9)


def mean_of(arcs: list[tuple[int, int]], costs: list[list[int]]) -> float:
    names = sorted({i for i, _ in arcs})
    places = np.array([(names.index(i), names.index(j)) for i, j in arcs])
    return max_cycle_mean_of_arcs(len(names), places, np.array([float(costs[i][j]) for i, j in arcs])).mean


def best_overlay_ms(silos: Silos) -> float:
    arcs, best = [(i, j) for i in range(len(silos)) for j in range(len(silos)) if i != j], math.inf
    for chosen in product((False, True), repeat=len(arcs)):
        if sum(chosen) < len(silos):
            continue
        try:
            overlay = Overlay.of(silos, [arc for arc, use in zip(arcs, chosen, strict=True) if use])
        except ConfigError:
            continue
        best = min(best, cycle_time_ms(overlay))
    return best


def asked(question: _Question, limit: int) -> str:
    return _answer({**question.task(limit), "seconds": 20.0, "workers": 1}, sys.executable)


@needs_solver
@pytest.mark.parametrize(("seed", "sharing"), [(0, True), (1, False), (19, True), (115, True)])
def test_refutes_what_no_pair_of_circuits_keeps_and_no_more(seed: int, sharing: bool) -> None:
    delays = np.random.default_rng(seed).uniform(10, 100, (5, 5))
    means = [circuit_bound(delays, silo).value(delays) for silo in range(5)]
    first, second = np.argsort(means)[:-3:-1].tolist()
    proofs = [circuit_bound(delays, silo) for silo in (first, second)]
    question = _Question(delays, proofs, unit_ms=Fraction(1, 1000))
    exact = least_shared(question.costs, (first, second))
    assert asked(question, exact - 1) == "INFEASIBLE"
    assert asked(question, exact) == "OPTIMAL"
    alone = max(least_shared(question.costs, (silo, silo)) for silo in (first, second))
    assert (exact > 1.03 * alone) == sharing  # so that the potentials, not the means, are what refutes


@needs_solver
@pytest.mark.parametrize(("seed", "access_bps"), [(0, np.inf), (2, 1e8)])
def test_between_the_bound_of_one_silo_and_all_overlays(square_of: SquareOf, seed: int, access_bps: float) -> None:
    silos = square_of(seed, 4, access_bps=access_bps, symmetric=False)
    start, best = lower_bound(silos), best_overlay_ms(silos)
    found = shared_bound(silos, start, best * 1.01, vertices=4, workers=1)
    assert found.complete
    assert start.value_ms <= found.value_ms <= best
    assert len(set(found.silos)) == 4


def test_reduced_costs_are_whole_and_sum_to_no_more_than_costs_on_circuits(square_of: SquareOf) -> None:
    """What arcs are left out by; the units of the multipliers may be anything."""
    for seed in range(5):
        delays = square_of(seed, 5, symmetric=False).single_delays_ms()
        question = _Question(delays, [circuit_bound(delays, 1)], unit_ms=Fraction(1, 700))
        for circuit in circuits(5, 1):
            cost = sum(question.costs[i][j] for i, j in circuit)
            assert sum(question.reduced[0][i][j] for i, j in circuit) <= cost
            assert cost <= 700 * sum(delays[i, j] for i, j in circuit)


def test_arcs_left_out_are_on_no_circuit_that_is_fast_enough(square_of: SquareOf) -> None:
    left_out = 0
    for seed, above in product(range(5), (-0.01, 0.0, 0.005, 0.02, 0.1)):
        delays = square_of(seed, 5, symmetric=False).single_delays_ms()
        proof = circuit_bound(delays, 2)
        question = _Question(delays, [proof], unit_ms=Fraction(1, 100))
        limit = round(100 * proof.value(delays) * (1 + above))
        arcs = {(i, j) for i, j, *_ in question.task(limit)["circuits"][0]["arcs"]}
        left_out += 20 - len(arcs)
        for circuit in circuits(5, 2):
            if sum(question.costs[i][j] for i, j in circuit) <= limit * len(circuit):
                assert arcs.issuperset(circuit)
    assert left_out > 50


def test_nothing_to_ask(square_of: SquareOf) -> None:
    pair, silos = square_of(0, 2), square_of(0, 6)
    for few, upper in ((pair, 1e3), (silos, lower_bound(silos).value_ms)):
        start = lower_bound(few)
        found = shared_bound(few, start, upper)
        assert (found.value_ms, found.questions, found.complete) == (start.value_ms, 0, True)


def test_wrong_settings_and_no_solver(square_of: SquareOf) -> None:
    silos = square_of(0, 6)
    start = lower_bound(silos)
    for wrong in ({"seconds": 0}, {"vertices": 1}, {"workers": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            shared_bound(silos, start, 1e3, **wrong)
    with pytest.raises(RivageError, match="solver"):
        shared_bound(silos, start, start.value_ms * 2, python="no-such-python")


@pytest.mark.skipif(find_spec("ortools") is not None, reason="OR-tools is installed")
def test_says_what_is_missing(square_of: SquareOf) -> None:
    silos = square_of(0, 6)
    start = lower_bound(silos)
    with pytest.raises(MissingExtra, match="pip install"):
        shared_bound(silos, start, start.value_ms * 2)


@needs_solver
def test_without_time_it_is_the_bound_of_one_silo(square_of: SquareOf) -> None:
    silos = square_of(3, 12)
    start = lower_bound(silos)
    found = shared_bound(silos, start, start.value_ms * 1.1, seconds=1e-3)
    assert (found.value_ms, found.complete) == (start.value_ms, False)


@needs_solver
@pytest.mark.slow
def test_the_best_overlay_of_gaia_is_optimal(silos_of: Callable[..., Silos]) -> None:
    silos = silos_of("Gaia")
    start = lower_bound(silos)
    found = shared_bound(silos, start, 116.4625, seconds=120)
    assert 116.4 <= found.value_ms <= 116.4625
    assert found.complete

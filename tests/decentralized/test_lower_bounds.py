"""Bounds on the cycle time: against all circuits and all overlays of small networks, and what is known of three."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.decentralized import Overlay, Silos, cycle_time_ms
from rivage.decentralized.lower_bounds import circuit_bound, lower_bound

SquareOf = Callable[..., Silos]


def simple_circuits(nodes: int, silo: int) -> Iterator[tuple[int, ...]]:
    others = [node for node in range(nodes) if node != silo]
    for size in range(1, nodes):
        for chosen in combinations(others, size):
            yield from ((silo, *order) for order in permutations(chosen))


def least_mean(delays: ndarray, silo: int) -> float:
    return min(
        sum(delays[one, other] for one, other in zip(c, (*c[1:], c[0]), strict=True)) / len(c)
        for c in simple_circuits(len(delays), silo)
    )


def all_overlays(silos: Silos) -> Iterator[Overlay]:
    arcs = [(i, j) for i in range(len(silos)) for j in range(len(silos)) if i != j]
    for chosen in product((False, True), repeat=len(arcs)):
        some = [arc for arc, use in zip(arcs, chosen, strict=True) if use]
        if len(some) < len(silos):
            continue
        try:
            yield Overlay.of(silos, some)
        except ConfigError:
            continue


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(2, 6), st.booleans())
def test_never_above_all_simple_circuits_and_close_to_them(
    square_of: SquareOf, seed: int, nodes: int, symmetric: bool
) -> None:
    silos = square_of(seed, nodes, symmetric=symmetric)
    delays = silos.single_delays_ms()
    exact = [least_mean(delays, silo) for silo in range(nodes)]
    for silo in range(nodes):
        value = circuit_bound(delays, silo).value(delays)
        assert value <= exact[silo] * (1 + 1e-15)
        assert value >= 0.97 * exact[silo]  # the programme may stop at fractions; in these it rarely does
    found = lower_bound(silos)
    assert found.complete
    assert found.value_ms <= max(exact) * (1 + 1e-15)
    assert found.value_ms >= 0.97 * max(exact)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.integers(2, 14), st.sampled_from([np.inf, 1e9, 1e8]), st.booleans())
def test_silos_left_out_give_no_better_bound(
    square_of: SquareOf, seed: int, nodes: int, access_bps: float, symmetric: bool
) -> None:
    silos = square_of(seed, nodes, access_bps=access_bps, symmetric=symmetric)
    delays = silos.single_delays_ms()
    every = [circuit_bound(delays, silo).value(delays) for silo in range(nodes)]
    found = lower_bound(silos)
    assert found.complete
    assert found.value_ms == pytest.approx(max(every), rel=1e-8)


def test_all_circuits_of_seven_silos(square_of: SquareOf) -> None:
    delays = square_of(3, 7, symmetric=False).single_delays_ms()
    for silo in (0, 4):
        assert circuit_bound(delays, silo).value(delays) == pytest.approx(least_mean(delays, silo), rel=1e-9)


@pytest.mark.parametrize("access_bps", [np.inf, 1e9, 1e8])
def test_below_every_overlay_of_three_silos(square_of: SquareOf, access_bps: float) -> None:
    for seed in range(5):
        silos = square_of(seed, 3, access_bps=access_bps, symmetric=False)
        best = min(map(cycle_time_ms, all_overlays(silos)))
        assert lower_bound(silos).value_ms <= best


@pytest.mark.parametrize("access_bps", [1e10, 1e8])
def test_below_every_overlay_of_four_silos(square_of: SquareOf, access_bps: float) -> None:
    silos = square_of(1, 4, access_bps=access_bps)
    best = min(map(cycle_time_ms, all_overlays(silos)))
    found = lower_bound(silos).value_ms
    assert 0.8 * best <= found <= best


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 5))
def test_any_multipliers_prove_something_true(square_of: SquareOf, seed: int, silo: int) -> None:
    """What a proof says is computed from it, whoever made it."""
    delays = square_of(seed, 6).single_delays_ms()
    exact, rng = least_mean(delays, silo), np.random.default_rng(seed)
    proof = circuit_bound(delays, silo)
    other = replace(
        proof,
        potentials=proof.potentials + rng.normal(size=6),
        degrees=proof.degrees * rng.uniform(0, 2, 6),
        weights=proof.weights * rng.uniform(0, 2, len(proof.weights)),
    )
    assert other.value(delays) <= exact
    assert other.value(delays) <= proof.value(delays) + 1e-6


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_reduced_delays_of_no_circuit_exceed_its_delays(square_of: SquareOf, seed: int) -> None:
    """The step of the proof that must hold for all multipliers, circuit by circuit: the least r alone hides faults."""
    delays, rng = square_of(seed, 5, symmetric=False).single_delays_ms(), np.random.default_rng(seed)
    sets = rng.random((4, 5)) < 0.5
    sets[:, 0], sets[:, 3] = False, True
    proof = replace(
        circuit_bound(delays, 0),
        potentials=rng.normal(size=5) * 10,
        degrees=rng.exponential(10, 5),
        sets=sets,
        members=np.full(4, 3),
        weights=rng.exponential(10, 4),
    )
    reduced = proof.reduced(delays)
    for circuit in simple_circuits(5, 0):
        one, other = np.array(circuit), np.roll(circuit, -1)
        assert reduced[one, other].sum() <= delays[one, other].sum() + 1e-9


def test_multipliers_that_prove_nothing_are_refused(square_of: SquareOf) -> None:
    delays = square_of(0, 6).single_delays_ms()
    proof = circuit_bound(delays, 2)
    one = {"sets": np.eye(6, dtype=bool)[[3]], "members": np.array([3]), "weights": np.array([1.0])}
    assert replace(proof, **one).value(delays) < 1e3
    holds_v = np.eye(6, dtype=bool)[[3]] | np.eye(6, dtype=bool)[[2]]
    for wrong in (
        {"degrees": -np.ones(6)},
        {**one, "weights": np.array([-1.0])},
        {**one, "members": np.array([4])},
        {**one, "sets": holds_v},
    ):
        with pytest.raises(ConfigError, match="prove nothing"):
            replace(proof, **wrong).value(delays)


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_order_and_units_do_not_matter(square_of: SquareOf, seed: int) -> None:
    silos = square_of(seed, 8, access_bps=1e9)
    order = np.random.default_rng(seed).permutation(8)
    found = lower_bound(silos)
    assert lower_bound(silos.reordered(order)).value_ms == pytest.approx(found.value_ms, rel=1e-6)
    slower = replace(silos, step_ms=silos.step_ms + 100)
    assert lower_bound(slower).value_ms == pytest.approx(found.value_ms + 100, rel=1e-6)


def test_one_silo_two_silos_and_a_slow_one(square_of: SquareOf) -> None:
    alone = square_of(0, 1)
    found = lower_bound(alone)
    assert (found.value_ms, found.proof, found.complete) == (10.0, None, True)
    pair = square_of(0, 2)
    assert lower_bound(pair).value_ms == pytest.approx(cycle_time_ms(Overlay.ring(pair, [0, 1])), rel=1e-12)
    slow = replace(square_of(0, 5), step_ms=np.array([1.0, 1, 1, 1e6, 1]))
    found = lower_bound(slow)
    assert (found.silo, found.value_ms, found.proof) == ("s3", 1e6, None)


def test_a_silo_far_away_sets_the_bound(square_of: SquareOf) -> None:
    silos = square_of(0, 9)
    silos.connectivity.latency_ms[4] += 500
    silos.connectivity.latency_ms[4, 4] = 0
    assert lower_bound(silos).silo == "s4"


def test_without_time_the_bound_is_still_one(square_of: SquareOf) -> None:
    silos = square_of(5, 12)
    hurried = lower_bound(silos, seconds=1e-9)
    assert not hurried.complete
    assert np.isnan(hurried.values_ms).all()
    assert hurried.value_ms == 10 <= lower_bound(silos).value_ms
    with pytest.raises(ConfigError, match="seconds"):
        lower_bound(silos, seconds=0)


@pytest.mark.parametrize(
    ("name", "least", "most", "silo"),
    [("Gaia", 114.03, 116.4625, "Sao Paulo"), ("AWS", 80.0729, 80.0731, "San José"), ("Geant", 81.85, 83.229, "UA")],
)
def test_published_networks(silos_of: Callable[..., Silos], name: str, least: float, most: float, silo: str) -> None:
    """Against overlays known to exist, and bounds by Held and Karp's recursion and by constraint programming."""
    found = lower_bound(silos_of(name))
    assert least <= found.value_ms <= most
    assert (found.silo, found.complete) == (silo, True)
    assert found.proof is not None
    assert found.proof.value(silos_of(name).single_delays_ms()) == found.value_ms
    assert found.seconds < 60

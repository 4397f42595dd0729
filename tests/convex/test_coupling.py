"""Optimal coupling: exact laws, the least movement of all couplings by brute force, and what it cannot reach."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.coupling import Law, OptimallyCoupled, optimal_plan, systematic_law
from rivage.convex.rounding import madow
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import DataError, ShapeError


def fractions(seed: int, items: int = 7, total: int = 3) -> np.ndarray:
    return CappedSimplex(items, total).project(np.random.default_rng(seed).normal(0.4, 0.5, items))


def same_draw(old: np.ndarray, new: np.ndarray) -> float:
    """What systematic sampling moves with one draw for both, exactly: an integral over that draw."""
    ends = np.concatenate([[0.0, 1.0], *(np.cumsum(x[(x > 0) & (x < 1)]) % 1.0 for x in (old, new))])
    ends = np.unique(ends)
    middles, lengths = (ends[1:] + ends[:-1]) / 2, np.diff(ends)
    return float(sum(n * np.abs(madow(new, m) - madow(old, m)).sum() for m, n in zip(middles, lengths, strict=True)))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_the_law_is_that_of_systematic_sampling(seed: int, items: int) -> None:
    random = np.random.default_rng(seed)
    total = int(random.integers(0, items + 1))
    x = CappedSimplex(items, total).project(random.normal(0.4, 0.5, items))
    law = systematic_law(x)
    assert law.masses.sum() == pytest.approx(1)
    assert (law.sets.sum(axis=1) == total).all()
    assert np.abs(law.mean - x).max() < 1e-9
    assert len(law.sets) <= items + 1
    known = {row.tobytes() for row in law.sets}
    assert all(madow(x, xi).tobytes() in known for xi in random.random(50))


def test_no_coupling_of_equal_masses_moves_less() -> None:
    """With m equal masses the best coupling is a matching (Birkhoff): all m! of them."""
    random = np.random.default_rng(0)
    for _ in range(20):
        costs = random.random(6) + 0.1
        laws = [
            Law(np.array([random.permutation([1, 1, 1, 0, 0, 0]) for _ in range(5)], np.int8), np.full(5, 0.2))
            for _ in range(2)
        ]
        distance = np.abs(laws[0].sets[:, None, :] - laws[1].sets[None, :, :]) @ costs
        best = min(distance[range(5), list(order)].mean() for order in itertools.permutations(range(5)))
        plan = optimal_plan(laws[0], laws[1], costs)
        assert plan.movement == pytest.approx(best, abs=1e-7)
        assert np.abs(plan.flow.sum(axis=1) - 0.2).max() < 1e-7
        assert np.abs(plan.flow.sum(axis=0) - 0.2).max() < 1e-7


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(0.01, 1.0))
def test_movement_lies_between_the_fractions_and_the_same_draw(seed: int, share: float) -> None:
    old, other = fractions(seed), fractions(seed + 1)
    new = (1 - share) * old + share * other
    movement = optimal_plan(systematic_law(old), systematic_law(new)).movement
    assert np.abs(new - old).sum() - 1e-6 <= movement <= same_draw(old, new) + 1e-6


def test_one_item_moves_as_rarely_as_possible() -> None:
    """k = 1: E ‖z' − z‖₁ = ‖x' − x‖₁, as by elementary jumps."""
    for seed in range(20):
        old, new = fractions(seed, total=1), fractions(seed + 100, total=1)
        movement = optimal_plan(systematic_law(old), systematic_law(new)).movement
        assert movement == pytest.approx(np.abs(new - old).sum(), abs=1e-7)


def test_the_lower_bound_is_not_always_reached() -> None:
    """Items that are held together only: 4 ε, twice ‖x' − x‖₁. No law with these margins does better from here."""
    eps = 0.1
    old, new = np.full(4, 0.5), np.array([0.5 - eps, 0.5, 0.5 + eps, 0.5])
    law = systematic_law(old)
    assert law.sets.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    assert optimal_plan(law, systematic_law(new)).movement == pytest.approx(4 * eps)
    # All laws over the six pairs: from a pair to any pair, with margins new.
    pairs = np.array([np.isin(range(4), pair) for pair in itertools.combinations(range(4), 2)], float)
    from rivage.convex.programs import linear_program

    distance = np.abs(law.sets[:, None, :] - pairs[None, :, :]).sum(axis=2)
    rows = [np.kron(np.eye(2), np.ones(6)), np.kron(np.ones(2), pairs.T)]
    best = linear_program(distance.ravel(), equal=(np.vstack(rows), np.concatenate([law.masses, new])))
    assert best.value == pytest.approx(4 * eps)


def test_a_walk_keeps_the_law_and_moves_least() -> None:
    """12 steps, 4000 walks: inclusion frequencies and movement at 4 standard errors (false alarm below 0.1 %)."""
    random, points = np.random.default_rng(3), [fractions(0)]
    for _ in range(12):
        points.append(CappedSimplex(7, 3).project(points[-1] + 0.1 * random.normal(size=7)))
    laws = [systematic_law(x) for x in points]
    plans = [optimal_plan(*pair) for pair in itertools.pairwise(laws)]
    least, fixed = sum(plan.movement for plan in plans), sum(same_draw(*pair) for pair in itertools.pairwise(points))
    assert least < 0.9 * fixed  # measured: 5.4 and 7.0
    runs = 4000
    at = [int(np.searchsorted(np.cumsum(laws[0].masses), draw)) for draw in random.random(runs)]
    moved = np.zeros(runs)
    for plan, old, new in zip(plans, laws, laws[1:], strict=False):
        rows = np.cumsum(plan.flow / plan.flow.sum(axis=1, keepdims=True), axis=1)
        then = [min(int(np.searchsorted(rows[a], draw)), rows.shape[1] - 1) for a, draw in zip(at, random.random(runs))]  # noqa: B905
        moved += np.abs(new.sets[then] - old.sets[at]).sum(axis=1)
        at = then
    found = laws[-1].sets[at].mean(axis=0)
    assert (np.abs(found - points[-1]) <= 4 * np.sqrt(points[-1] * (1 - points[-1]) / runs) + 1e-6).all()
    assert abs(moved.mean() - least) <= 4 * moved.std() / np.sqrt(runs)


def test_steps_draw_from_the_plan() -> None:
    """The class against the plan: 3000 steps from one set, 4 standard errors."""
    old, new, random = fractions(1), fractions(2), np.random.default_rng(0)
    held = OptimallyCoupled.draw(old, random)
    assert held.chosen.sum() == 3
    plan = optimal_plan(held.law, systematic_law(new))
    expected = plan.flow[held.at] / plan.flow[held.at].sum()
    law = systematic_law(new)
    drawn = np.array([OptimallyCoupled(held.law, held.at).next(new, random).at for _ in range(300)])
    found = np.bincount(drawn, minlength=len(law.masses)) / 300
    assert (np.abs(found - expected) <= 4 * np.sqrt(expected * (1 - expected) / 300) + 1e-6).all()
    assert held.next(old, random).at == held.at  # nothing moves when nothing changes


def test_senseless_input_is_refused() -> None:
    with pytest.raises(DataError, match="sum to"):
        systematic_law(np.array([0.5, 0.4]))
    with pytest.raises(ShapeError, match="items"):
        optimal_plan(systematic_law(fractions(0)), systematic_law(fractions(0, items=8)))
    with pytest.raises(ShapeError, match="costs"):
        optimal_plan(systematic_law(fractions(0)), systematic_law(fractions(1)), np.ones(3))

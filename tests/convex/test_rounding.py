"""Rounding: exact laws by integration over the draw, frequencies, sizes, movement, and rounding errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex import (
    CappedSimplex,
    Coupled,
    Knapsack,
    Simplex,
    Theory,
    dep_round,
    elementary_jump,
    madow,
    poisson,
    poisson_hard,
)
from rivage.core.errors import ConfigError, DataError, ShapeError

DRAWS = 100_000


class Fixed:
    """A generator that gives what it was told."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def random(self, count: int) -> np.ndarray:
        assert count == len(self.values)
        return np.array(self.values)


def fractions(seed: int, n: int = 12, k: int = 5) -> np.ndarray:
    """A point of the capped simplex with zeros and ones."""
    return CappedSimplex(n, k).project(np.random.default_rng(seed).normal(size=n) * 0.6 + 0.4)


def draws_apart(*points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of ξ, one for each interval in which nothing changes, and the lengths of the intervals."""
    ends = np.concatenate([[0.0, 1.0], *(np.cumsum(x) % 1.0 for x in points)])
    cuts = np.unique(ends)
    return (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)


def within(measured: np.ndarray, expected: np.ndarray, standard_deviation: np.ndarray) -> bool:
    """All within 4 standard errors of 10^5 draws; where there is no variance, equal."""
    return bool((np.abs(measured - expected) <= 4 * standard_deviation / np.sqrt(DRAWS) + 1e-12).all())


# ---------------------------------------------------------------------------------------------------------------------
# Systematic sampling


@pytest.mark.parametrize("seed", range(20))
def test_madow_has_exactly_these_probabilities(seed: int) -> None:
    x = fractions(seed)
    where, lengths = draws_apart(x)
    chosen = np.array([madow(x, xi) for xi in where])
    assert np.abs(lengths @ chosen - x).max() < 1e-12
    assert (chosen.sum(axis=1) == 5).all()
    assert chosen.dtype == np.int8


def test_madow_against_the_loop_that_defines_it() -> None:
    rng = np.random.default_rng(0)
    for seed in range(200):
        x, xi = fractions(seed, 15, 6), rng.random()
        chosen, total = [], 0.0
        for value in x:
            total += value
            chosen.append(int(total >= xi + sum(chosen)))
        assert madow(x, xi).tolist() == chosen


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1e-300, 1 - 2**-53])),
    st.integers(0, 60),
)
def test_madow_always_returns_the_size(values: list[float], xi: float, k: int) -> None:
    k = min(k, len(values))
    x = CappedSimplex(len(values), k).project(np.array(values))
    chosen = madow(x, xi)
    assert chosen.sum() == k
    assert (chosen[x == 0] == 0).all()
    assert (chosen[x == 1] == 1).all()


@pytest.mark.parametrize("xi", [0.0, 1e-17, 0.1, 0.3, 0.5, 0.9999999999999999])
def test_madow_survives_float_error(xi: float) -> None:
    tenth = np.full(1_000_000, 0.1)  # whose sum is 100000.00000133288 when added in order
    assert madow(tenth, xi).sum() == 100_000
    almost = np.full(300_000, 1 - 2.0**-53)
    assert madow(almost, xi).sum() == 300_000
    mixed = np.where(np.arange(200_000) % 2 == 0, 1 - 2.0**-50, 2.0**-50)
    assert madow(mixed, xi).sum() == 100_000
    dust = np.concatenate([np.full(50_000, 1e-300), [0.25, 0.75], np.full(50_000, 1e-17)])
    chosen = madow(dust, xi)
    assert chosen.sum() == 1
    assert madow(np.array([1.0 + 5e-10, -5e-10, 0.0, 1.0]), xi).tolist() == [1, 0, 0, 1]


def test_coupled_keeps_its_draw() -> None:
    coupled = Coupled.draw(np.random.default_rng(8))
    x = fractions(3)
    assert coupled.xi == np.random.default_rng(8).random()
    assert coupled.round(x).tolist() == coupled.round(x).tolist() == madow(x, coupled.xi).tolist()
    assert Coupled(0.0).round(x).tolist() == Coupled(1.0).round(x).tolist()


@pytest.mark.parametrize("seed", range(30))
def test_coupled_movement_is_within_its_bound(seed: int) -> None:
    # Expectations are exact integrals over ξ.
    old, new = fractions(seed), fractions(seed + 1000)
    if seed % 2:
        new = CappedSimplex(12, 5).project(old + 0.05 * np.eye(12)[seed % 12])
    where, lengths = draws_apart(old, new)
    moved = [np.abs(madow(new, xi) - madow(old, xi)).sum() for xi in where]
    movement = float(lengths @ moved)
    shifts = np.abs(np.cumsum(new - old))[:-1].sum()
    least = np.abs(new - old).sum()
    assert least - 1e-12 <= movement <= 2 * shifts + 1e-12
    assert 2 * shifts <= 11 * least + 1e-12


def zipf_run(slots: int, entropic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Hits, and insertions of what was not just requested, per slot: with one draw for all slots, with fresh ones."""
    n, k = 100, 10
    rng = np.random.default_rng(0)
    popularity = np.arange(1, n + 1) ** -0.8
    items = rng.choice(n, slots, p=popularity / popularity.sum())
    cache = CappedSimplex(n, k)
    step = (Theory(2 * k * np.log(n / k), k, slots) if entropic else Theory(cache.diameter_squared, 1.0, slots)).step
    coupled, x = Coupled.draw(rng), cache.center
    hits, inserted = np.zeros(2), np.zeros(2)
    before = [coupled.round(x), madow(x, rng.random())]
    for item in items:
        hits += [z[item] for z in before]
        asked = np.arange(n) == item
        x = (
            cache.project_entropic(np.where(asked, x * np.exp(step), x))
            if entropic
            else cache.project(x + step * asked)
        )
        after = [coupled.round(x), madow(x, rng.random())]
        inserted += [np.count_nonzero((new > old) & ~asked) for new, old in zip(after, before, strict=True)]
        before = after
    return hits / slots, inserted / slots


def test_coupled_rounding_moves_ten_times_less_with_the_entropy() -> None:
    # Deterministic for the seed. Measured: hit ratios 0.3449 and 0.3450, insertions per slot 0.066 and 5.08.
    hits, inserted = zipf_run(10_000, entropic=True)
    assert abs(hits[0] - hits[1]) < 0.01 * hits[1]
    assert inserted[1] > 10 * inserted[0]


def test_coupled_rounding_moves_less_and_less_with_gradient_descent() -> None:
    # Here x is nearly integral after a while, so fresh draws do not move that much either: measured 0.375 and 2.19
    # insertions per slot. What the theory says holds: movement per slot falls like 1/√T, to half for a fourfold T.
    _, early = zipf_run(2_500, entropic=False)
    hits, late = zipf_run(10_000, entropic=False)
    assert abs(hits[0] - hits[1]) < 0.01 * hits[1]
    assert late[1] > 4 * late[0]
    assert late[0] < 0.6 * early[0]


# ---------------------------------------------------------------------------------------------------------------------
# Dependent rounding


@pytest.mark.parametrize("with_sizes", [False, True])
def test_dep_round_frequencies_and_correlation(with_sizes: bool) -> None:
    # 10 means and 45 products at 4 standard errors: false alarm below 0.4 % on a fresh seed.
    rng = np.random.default_rng(17)
    x = fractions(2, 10, 4)
    sizes = rng.uniform(0.5, 3, 10) if with_sizes else None
    chosen = np.array([dep_round(x, rng, sizes) for _ in range(DRAWS)])
    assert within(chosen.mean(axis=0), x, np.sqrt(x * (1 - x)))
    together = (chosen.T.astype(float) @ chosen) / DRAWS
    pairs = np.triu_indices(10, 1)
    allowed = np.outer(x, x)[pairs]
    assert (together[pairs] <= allowed + 4 * np.sqrt(allowed * (1 - allowed) / DRAWS) + 1e-12).all()
    assert (together[pairs] < allowed - 0.01).any()  # not independent
    loads = chosen.sum(axis=1) if sizes is None else chosen @ sizes
    if sizes is None:
        assert (loads == 4).all()
    else:
        assert np.abs(loads - sizes @ x).max() <= sizes.max()
        assert np.ptp(loads) > 0.1


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 2**31), st.booleans(), st.floats(0, 1))
def test_dep_round_keeps_sums_and_loads(values: list[float], seed: int, whole: bool, share: float) -> None:
    rng = np.random.default_rng(seed)
    n = len(values)
    total = float(rng.integers(0, n + 1)) if whole else share * n
    x = CappedSimplex(n, total).project(np.array(values))
    chosen = dep_round(x, rng)
    assert set(chosen) <= {0, 1}
    assert abs(chosen.sum() - total) < (1e-9 if whole else 1)
    sizes = rng.lognormal(size=n)
    x = Knapsack(sizes, share * sizes.sum() * (1 - 1e-12)).project(np.array(values))
    chosen = dep_round(x, rng, sizes)
    assert abs(sizes @ chosen - sizes @ x) <= sizes.max() * (1 + 1e-9)
    assert (chosen[x == 0] == 0).all()
    assert (chosen[x == 1] == 1).all()


def test_dep_round_of_two_is_a_coin() -> None:
    x = np.array([0.3, 0.7])
    found = [tuple(dep_round(x, np.random.default_rng(seed))) for seed in range(400)]
    assert set(found) == {(1, 0), (0, 1)}
    assert abs(found.count((1, 0)) / 400 - 0.3) < 4 * np.sqrt(0.21 / 400)
    before = np.random.default_rng(0)
    dep_round(np.array([0.0, 0.5, 1.0, 0.5]), before)
    after = np.random.default_rng(0)
    after.random(2)
    assert before.random() == after.random()  # one draw per fractional entry
    given = np.array([9.0, 0.2, 9.0, 0.9])  # those of whole entries are not looked at
    assert dep_round(np.array([0.0, 0.3, 1.0, 0.7]), given).tolist() == [0, 0, 1, 1]
    assert dep_round(np.array([0.0, 0.3, 1.0, 0.7]), given).tolist() == [0, 0, 1, 1]
    with pytest.raises(ShapeError, match="draws"):
        dep_round(np.array([0.3, 0.7]), np.zeros(3))
    assert x.tolist() == [0.3, 0.7]


def test_dep_round_of_dust_and_size() -> None:
    rng = np.random.default_rng(0)
    assert dep_round(np.array([1e-300, 1 - 1e-16, 1e-300, 1.0]), rng).tolist() == [0, 1, 0, 1]
    assert dep_round(np.full(1_000_000, 0.1), rng).sum() == 100_000
    # What is left of a whole sum is whole up to rounding: no draw may turn it over.
    rest = np.array([1 - 2.0**-53, *[0.5] * 9])
    assert np.full(10, 0.1).cumsum()[-1] < 1
    assert dep_round(np.full(10, 0.1), rest).sum() == 1
    assert dep_round(np.zeros(3), rng).tolist() == [0, 0, 0]
    assert dep_round(np.array([]), rng).tolist() == []


# ---------------------------------------------------------------------------------------------------------------------
# Jumps


def test_elementary_jump_has_the_new_law_and_moves_least() -> None:
    # 6 frequencies and one movement at 4 standard errors: false alarm below 0.05 % on a fresh seed.
    rng = np.random.default_rng(21)
    old, new = np.array([0.5, 0.0, 0.2, 0.1, 0.2, 0.0]), np.array([0.1, 0.3, 0.2, 0.0, 0.25, 0.15])
    states = rng.choice(6, DRAWS, p=old)
    moved_to = np.array([elementary_jump(old, new, state, rng) for state in states])
    frequencies = np.bincount(moved_to, minlength=6) / DRAWS
    assert within(frequencies, new, np.sqrt(new * (1 - new)))
    least = 0.5 * np.abs(new - old).sum()
    assert within(np.mean(moved_to != states), least, np.sqrt(least * (1 - least)))


def test_elementary_jump_by_exact_integration() -> None:
    # The law over a fine grid of both draws, whose cuts are at multiples of 1/40.
    old, new = np.array([0.5, 0.25, 0.25, 0.0]), np.array([0.3, 0.25, 0.2, 0.25])
    middles = (np.arange(40) + 0.5) / 40
    law, moved = np.zeros(4), 0.0
    for state, (leave, where) in itertools.product(range(3), itertools.product(middles, middles)):
        target = elementary_jump(old, new, state, Fixed(leave, where))  # type: ignore[arg-type]
        law[target] += old[state] / 1600
        moved += old[state] / 1600 * (target != state)
    assert law == pytest.approx(new, abs=1e-12)
    assert moved == pytest.approx(0.25, abs=1e-12)


def test_elementary_jump_follows_a_walk() -> None:
    # Over a walk of distributions the sample has the last law, and moves on average the length of the walk.
    rng = np.random.default_rng(4)
    simplex, walk = Simplex(5), [np.full(5, 0.2)]
    for _ in range(10):
        walk.append(simplex.project(walk[-1] + rng.normal(size=5) * 0.1))
    runs, moves = 10_000, 0
    states = rng.choice(5, runs, p=walk[0])
    for old, new in itertools.pairwise(walk):
        after = np.array([elementary_jump(old, new, state, rng) for state in states])
        moves += (after != states).sum()
        states = after
    length = 0.5 * sum(np.abs(new - old).sum() for old, new in itertools.pairwise(walk))
    # 5 frequencies and the moves (variance at most their mean): false alarm below 0.04 % on a fresh seed.
    assert np.abs(np.bincount(states, minlength=5) / runs - walk[-1]).max() < 4 * 0.5 / np.sqrt(runs)
    assert abs(moves / runs - length) < 4 * np.sqrt(length * 10 / runs)
    assert elementary_jump(walk[0], walk[0], 3, rng) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Poisson sampling


def test_poisson_law_and_movement_by_integration() -> None:
    old, new = fractions(1), fractions(2)
    grid = (np.arange(20_000) + 0.5) / 20_000
    chosen, later = (np.array([poisson(x, np.full(12, u)) for u in grid]) for x in (old, new))
    assert np.abs(chosen.mean(axis=0) - old).max() < 1e-4
    assert np.abs((chosen != later).mean(axis=0) - np.abs(new - old)).max() < 1e-4
    assert (poisson(old, np.zeros(12)) == (old > 0)).all()
    assert (poisson(old, np.full(12, 1 - 2.0**-53)) == (old == 1)).all()


def test_poisson_size_is_soft_and_hard_size_is_hard() -> None:
    rng = np.random.default_rng(5)
    x = fractions(6, 60, 20)
    draws = rng.random((DRAWS, 60))
    soft = (draws < x).sum(axis=1)
    deviation = np.sqrt((x * (1 - x)).sum())
    assert abs(soft.mean() - 20) < 4 * deviation / np.sqrt(DRAWS)  # false alarm 0.006 % on a fresh seed
    for u in draws[:2000]:
        chosen, refused = poisson_hard(x, u, 20)
        free = poisson(x, u)
        assert chosen.sum() == min(20, free.sum())
        assert chosen.sum() + len(refused) == free.sum()
        assert (free[refused] == 1).all()
        assert (chosen[refused] == 0).all()
        if len(refused):
            assert (x - u)[refused].max() <= (x - u)[chosen == 1].min()
    assert poisson_hard(x, draws[0], 0).chosen.sum() == 0
    refused = poisson_hard(np.full(4, 0.5), np.full(4, 0.25), 1).refused
    assert refused.tolist() == [1, 2, 3]


# ---------------------------------------------------------------------------------------------------------------------
# Refusals

GENERATOR = np.random.default_rng(0)
HALF = np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: madow(np.array([0.5, 0.4]), 0.5), DataError, "sum to 0.9"),
        (lambda: madow(np.array([0.5, 1.5]), 0.5), DataError, "entry 1 is 1.5"),
        (lambda: madow(np.array([np.nan, 1.0]), 0.5), DataError, "entry 0 is nan"),
        (lambda: Coupled(1.5), ConfigError, "xi is 1.5"),
        (lambda: dep_round(np.array([-0.1, 0.5]), GENERATOR), DataError, "entry 0"),
        (lambda: dep_round(HALF, GENERATOR, np.ones(3)), ShapeError, "sizes of shape"),
        (lambda: dep_round(HALF, GENERATOR, np.array([1.0, 0.0])), DataError, "not above 0"),
        (lambda: elementary_jump(HALF, np.ones(3) / 3, 0, GENERATOR), ShapeError, "shapes"),
        (lambda: elementary_jump(HALF, np.array([0.5, 0.4]), 0, GENERATOR), DataError, "sums differ"),
        (lambda: elementary_jump(np.array([1.0, 0.0]), HALF, 1, GENERATOR), DataError, "state 1"),
        (lambda: poisson(HALF, np.zeros(3)), ShapeError, "draws of shape"),
        (lambda: poisson_hard(HALF, np.zeros(2), -1), ConfigError, "capacity is -1"),
    ],
)
def test_senseless_input_is_refused(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()

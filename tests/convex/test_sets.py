"""Sets and projections: brute force, optimality conditions, slow references, properties, and ugly numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rivage.convex
from rivage.convex import Box, CappedSimplex, ConvexSet, Knapsack, Product, Simplex, project_by_program
from rivage.core.errors import ConfigError, DataError, ShapeError

TINY = 1e-300


def examples(seed: int) -> list[ConvexSet]:
    """One set of every kind, of random shape."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    sizes = rng.choice([rng.uniform(0.1, 5, n), rng.integers(1, 4, n).astype(float)])
    low = rng.normal(size=n)
    cache = CappedSimplex(n, float(rng.choice([rng.integers(0, n + 1), rng.uniform(0, n)])))
    knapsack = Knapsack(sizes, float(rng.uniform(0, 1) * sizes.sum()))
    return [
        Simplex(n, float(rng.uniform(0.1, 4))),
        cache,
        knapsack,
        Box(low, low + rng.uniform(0, 2, n)),
        Product((cache, Simplex(2), knapsack, CappedSimplex(1, 0.5))),
    ]


KINDS = range(5)
NUMBERS = st.one_of(
    st.floats(-4, 4), st.integers(-2, 2).map(float), st.sampled_from([1e6, -1e6, 1e-9, 0.5, 1.0 + 2**-52])
)


@st.composite
def set_and_points(draw: st.DrawFn, count: int, *, positive: bool = False) -> tuple[ConvexSet, list[np.ndarray]]:
    kind = draw(st.sampled_from(KINDS))
    part = examples(draw(st.integers(0, 500)))[kind]
    if positive and isinstance(part, Box):
        part = Box(np.abs(part.low), np.abs(part.low) + (part.high - part.low) + 0.01)
    number = st.floats(-30, 30).map(math.exp) if positive else NUMBERS
    vector = st.lists(number, min_size=part.dimension, max_size=part.dimension).map(np.array)
    return part, [draw(vector) for _ in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# Euclidean


@settings(deadline=None, max_examples=300)
@given(set_and_points(3))
def test_projection_is_feasible_idempotent_non_expansive_and_obtuse(case: tuple[ConvexSet, list[np.ndarray]]) -> None:
    part, (y, other, third) = case
    x, near, inside = part.project(y), part.project(other), part.project(third)
    scale = max(1.0, *(float(np.abs(one).max()) for one in (y, other)))
    assert part.contains(x, 1e-9 * scale)
    assert np.abs(part.project(x) - x).max() <= 1e-12 * max(1.0, float(np.abs(x).max()))
    assert np.linalg.norm(x - near) <= np.linalg.norm(y - other) + 1e-9 * scale
    assert (y - x) @ (inside - x) <= 1e-8 * scale**2  # the angle at x towards any point of the set is obtuse


def brute_force(y: np.ndarray, sizes: np.ndarray, budget: float) -> np.ndarray:
    """The nearest of the candidates that every pattern of bounds (0, free, 1) leaves."""
    best, found = math.inf, np.zeros_like(y)
    for pattern in itertools.product((0, 1, 2), repeat=len(y)):
        x = np.array(pattern, float) / 2
        free = np.array(pattern) == 1
        x[free] = 0.0
        missing = budget - sizes @ x
        if free.any():
            x[free] = y[free] - sizes[free] * (sizes[free] @ y[free] - missing) / (sizes[free] @ sizes[free])
        legal = x.min() >= -1e-12 and x.max() <= 1 + 1e-12 and abs(sizes @ x - budget) < 1e-9
        if legal and (distance := float((x - y) @ (x - y))) < best:
            best, found = distance, x
    assert best < math.inf
    return found


@pytest.mark.parametrize("seed", range(40))
def test_capped_simplex_and_knapsack_against_every_pattern_of_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    y = rng.choice([rng.normal(size=n) * 2, rng.integers(-1, 3, n).astype(float), rng.uniform(0, 1, n)])
    total = float(rng.choice([rng.integers(0, n + 1), rng.uniform(0, n)]))
    assert np.abs(CappedSimplex(n, total).project(y) - brute_force(y, np.ones(n), total)).max() < 1e-12
    sizes = rng.uniform(0.2, 4, n)
    budget = float(rng.uniform(0, sizes.sum()))
    assert np.abs(Knapsack(sizes, budget).project(y) - brute_force(y, sizes, budget)).max() < 1e-11


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_projection_against_a_quadratic_program(kind: int, seed: int) -> None:
    part = examples(seed)[kind]
    y = part.center + np.random.default_rng(seed).normal(size=part.dimension)
    assert np.abs(part.project(y) - project_by_program(part, y)).max() < 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_optimality_conditions_at_size(seed: int) -> None:
    # y − x = τ s where 0 < x < 1, at most τ s where x = 0, at least τ s where x = 1.
    rng = np.random.default_rng(seed)
    n = 3000
    y, sizes = rng.normal(size=n), rng.lognormal(size=n)
    for part, weights in ((CappedSimplex(n, 700), np.ones(n)), (Knapsack(sizes, 0.2 * sizes.sum()), sizes)):
        x = part.project(y)
        slopes = (y - x) / weights
        assert slopes[x < 1].max() - slopes[x > 0].min() < 1e-12
        assert part.contains(x, 1e-12)
        assert 0 < (x == 1).mean() < 1
        assert 0 < (x == 0).mean() < 1
    x = Simplex(n, 5.0).project(y)
    assert np.ptp((y - x)[x > 0]) < 1e-13
    assert (y - x)[x == 0].max() <= (y - x)[x > 0].min() + 1e-13


def test_equal_sizes_make_a_knapsack_a_capped_simplex() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        y, size = rng.normal(size=20), float(rng.uniform(0.1, 9))
        knapsack, simplex = Knapsack(np.full(20, size), 7.3 * size), CappedSimplex(20, 7.3)
        assert np.abs(knapsack.project(y) - simplex.project(y)).max() < 1e-12
        z = np.exp(3 * y)
        assert np.abs(knapsack.project_entropic(z) - simplex.project_entropic(z)).max() < 1e-12


@pytest.mark.parametrize(
    ("y", "total", "expected"),
    [
        ([0.3, 0.3, 0.3], 0, [0, 0, 0]),
        ([-5.0, 9.0, 0.3], 3, [1, 1, 1]),
        ([2.0, 2.0, -1.0, -1.0], 2, [1, 1, 0, 0]),  # the mass is flat at the total
        ([7.0, 7.0, 7.0, 7.0], 1, [0.25, 0.25, 0.25, 0.25]),  # ties
        ([1e17, 1e17, -1e17], 1, [0.5, 0.5, 0]),  # where 1 is lost in rounding
        ([1e17, 1e17 + 16, 0.0], 1, [0, 1, 0]),
        ([1.7e308, -1.7e308, 1.7e308], 1, [0.5, 0, 0.5]),  # whose differences overflow
        ([1e300, 0.25, 0.75], 2, [1, 0.25, 0.75]),
        ([1e-320, 0.0, 0.0], 3, [1, 1, 1]),
        ([4.0], 0.25, [0.25]),
        ([0.0, 0.0, 1.0], 1.5, [0.25, 0.25, 1.0]),
    ],
)
def test_ugly_numbers(y: list[float], total: float, expected: list[float]) -> None:
    point = np.array(y)
    assert CappedSimplex(len(y), total).project(point) == pytest.approx(expected, abs=1e-15)
    assert Knapsack(np.ones(len(y)), total).project(point) == pytest.approx(expected, abs=1e-15)
    assert point.tolist() == y


def test_ugly_numbers_on_the_simplex() -> None:
    assert Simplex(3).project(np.array([1.7e308, -1.7e308, 1.7e308])).tolist() == [0.5, 0.0, 0.5]
    assert Simplex(3).project(np.array([1e17, 1e17, 5.0])).tolist() == [0.5, 0.5, 0.0]
    assert Simplex(2, 0.0).project(np.array([3.0, 1.0])).tolist() == [0.0, 0.0]
    assert Simplex(1, 2.5).project(np.array([-8.0])).tolist() == [2.5]


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    y, order = rng.normal(size=30), rng.permutation(30)
    part = CappedSimplex(30, 11)
    assert part.project(y)[order].tolist() == part.project(y[order]).tolist()
    assert np.abs(part.project_entropic(np.exp(y))[order] - part.project_entropic(np.exp(y[order]))).max() < 1e-15


# ---------------------------------------------------------------------------------------------------------------------
# Relative entropy


def divergence(x: np.ndarray, y: np.ndarray) -> float:
    """KL(x ‖ y) for arrays that need not sum to the same; 0 ln 0 = 0."""
    return float((x * np.log(np.maximum(x, TINY) / np.maximum(y, TINY)) - x + y).sum())


@settings(deadline=None, max_examples=300)
@given(set_and_points(2, positive=True))
def test_entropic_projection_is_feasible_idempotent_and_pythagorean(case: tuple[ConvexSet, list[np.ndarray]]) -> None:
    part, (y, other) = case
    x, inside = part.project_entropic(y), part.project_entropic(other)
    assert part.contains(x, 1e-11)
    assert (x > 0).all() or isinstance(part, CappedSimplex | Product)  # total 0 leaves only 0
    assert np.abs(part.project_entropic(x) - x).max() <= 1e-11 * max(1.0, float(x.max()))
    left = divergence(inside, y)
    assert left >= divergence(inside, x) + divergence(x, y) - 1e-9 * max(1.0, abs(left), float(y.max()))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_entropic_projection_against_a_convex_program(kind: int, seed: int) -> None:
    part = examples(seed)[kind]
    if isinstance(part, Box):
        part = Box(np.abs(part.low) / 9, np.abs(part.low) / 9 + part.high - part.low)
    y = np.exp(np.random.default_rng(seed).normal(size=part.dimension))
    assert np.abs(part.project_entropic(y) - project_by_program(part, y, "entropic")).max() < 1e-6


@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_entropic_optimality_conditions_at_size(spread: float) -> None:
    # ln(y/x) = τ s where x < 1, at least τ s where x = 1.
    rng = np.random.default_rng(7)
    n = 2000
    y = np.exp(rng.normal(size=n) * spread)
    for sizes in (np.ones(n), rng.lognormal(size=n), 10 ** rng.uniform(-6, 6, n)):
        parts = [Knapsack(sizes, 0.3 * sizes.sum())] + ([CappedSimplex(n, 600)] if sizes.max() == 1 else [])
        for part in parts:
            x = part.project_entropic(y)
            mass, budget = float(sizes @ x), float(part.polytope.totals[0])
            assert abs(mass - budget) <= 1e-12 * budget
            visible = x > 1e-299
            slopes, capped = np.log(y / x) / sizes, x == 1
            free = visible & ~capped
            tau = float(np.median(slopes[free]))
            # x is exact to some 1e-12, so slopes are to that divided by the size.
            assert (np.abs(slopes[free] - tau) * sizes[free] <= 1e-9 * max(1.0, abs(tau) * sizes[free].max())).all()
            assert (np.log(y[capped]) >= tau * sizes[capped] - 1e-9).all()


def test_capping_of_the_largest_by_hand() -> None:
    # c = 0 scales 8 to 16/11, c = 1 leaves 2, 1 as 2/3 and 1/3.
    assert CappedSimplex(3, 2).project_entropic(np.array([8.0, 1.0, 2.0])) == pytest.approx(
        [1, 1 / 3, 2 / 3], abs=1e-15
    )
    assert CappedSimplex(3, 2.5).project_entropic(np.array([8.0, 1.0, 2.0])) == pytest.approx([1, 0.5, 1], abs=1e-15)
    assert Simplex(3).project_entropic(np.array([2.0, 1.0, 1.0])).tolist() == [0.5, 0.25, 0.25]
    assert CappedSimplex(2, 0).project_entropic(np.array([2.0, 1.0])).tolist() == [0, 0]
    assert CappedSimplex(2, 2).project_entropic(np.array([2.0, 1.0])).tolist() == [1, 1]


@pytest.mark.parametrize("part", [Simplex(4, 2.0), CappedSimplex(4, 2), Knapsack(np.array([1.0, 2, 1, 2]), 3.0)])
def test_entropic_with_extreme_numbers_stays_feasible_and_positive(part: ConvexSet) -> None:
    for y in ([1.7e308, 1.7e308, 1.7e308, 1e-320], [0.0, 0.0, 0.0, 0.0], [1e290, 1e-290, 1e-290, 1e-290], [1, 0, 0, 0]):
        x = part.project_entropic(np.array(y, float))
        assert part.contains(x, 1e-11)
        assert x.min() >= TINY


def test_a_coordinate_that_underflowed_comes_back() -> None:
    part, x = CappedSimplex(5, 1), np.full(5, 0.2)
    for _ in range(2000):
        x = part.project_entropic(x * np.array([np.e, 1, 1, 1, 1]))
    assert x[1] == TINY
    for _ in range(800):
        x = part.project_entropic(x * np.array([1, np.e, 1, 1, 1]))
    assert x[1] > 0.99


def test_box_is_clipped_in_both_geometries() -> None:
    box = Box(np.array([0.0, 0.5]), np.array([1.0, 2.0]))
    assert box.project(np.array([-1.0, 1.0])).tolist() == [0.0, 1.0]
    assert box.project_entropic(np.array([3.0, 0.1])).tolist() == [1.0, 0.5]
    with pytest.raises(ConfigError, match="upper bounds above 0"):
        Box(np.array([-2.0]), np.array([-1.0])).project_entropic(np.array([1.0]))


# ---------------------------------------------------------------------------------------------------------------------
# Facts about the sets


def vertices(sizes: np.ndarray, budget: float) -> list[np.ndarray]:
    """Corners of a knapsack polytope: at most one fractional entry."""
    n, found = len(sizes), []
    for bits in itertools.product((0.0, 1.0), repeat=n):
        x = np.array(bits)
        for i in range(n):
            y = x.copy()
            y[i] = (budget - sizes @ x + sizes[i] * x[i]) / sizes[i]
            if -1e-12 <= y[i] <= 1 + 1e-12:
                found.append(y)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_diameters_against_the_corners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    for total in (int(rng.integers(0, n + 1)), float(rng.uniform(0, n))):
        cache = CappedSimplex(n, total)
        farthest = max(((v - cache.center) ** 2).sum() for v in vertices(np.ones(n), total))
        assert cache.diameter_squared == pytest.approx(farthest, abs=1e-12)
    sizes = rng.uniform(0.2, 3, n)
    knapsack = Knapsack(sizes, float(rng.uniform(0, sizes.sum())))
    farthest = max(((v - knapsack.center) ** 2).sum() for v in vertices(sizes, knapsack.budget))
    assert farthest - 1e-12 <= knapsack.diameter_squared <= farthest + 0.25 + 1e-12
    simplex = Simplex(n, 2.0)
    assert simplex.diameter_squared == pytest.approx(((2.0 * np.eye(n)[0] - simplex.center) ** 2).sum())
    box = Box(sizes - 2, sizes)
    corners = itertools.product(*zip(box.low, box.high, strict=True))
    assert box.diameter_squared == pytest.approx(max(((np.array(c) - box.center) ** 2).sum() for c in corners))
    product = Product((cache, knapsack))
    assert product.diameter_squared == cache.diameter_squared + knapsack.diameter_squared
    assert CappedSimplex(100, 10).diameter_squared == pytest.approx(10 * (1 - 0.1))


def test_diameter_of_a_knapsack_is_never_too_small() -> None:
    rng = np.random.default_rng(9)
    slack = []
    for _ in range(400):
        sizes = rng.lognormal(0, 1.5, 4)
        knapsack = Knapsack(sizes, float(rng.uniform(0, sizes.sum())))
        farthest = max(((v - knapsack.center) ** 2).sum() for v in vertices(sizes, knapsack.budget))
        slack.append(knapsack.diameter_squared - farthest)
    assert min(slack) >= -1e-12
    assert 0.2 < max(slack) <= 0.25 + 1e-12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_center_is_the_projection_of_zero_and_polytope_is_the_set(kind: int, seed: int) -> None:
    part = examples(seed)[kind]
    assert np.abs(part.center - part.project(np.zeros(part.dimension))).max() < 1e-15
    assert part.contains(part.center)
    sides = part.polytope
    x = part.project(np.random.default_rng(seed).normal(size=part.dimension))
    assert (sides.low <= x).all()
    assert (x <= sides.high).all()
    assert np.abs(sides.rows @ x - sides.totals).max(initial=0) < 1e-12
    assert ((sides.rows > 0).sum(axis=0) <= 1).all()
    assert isinstance(part, ConvexSet)


@pytest.mark.parametrize("kind", KINDS)
def test_contains_sees_every_fault(kind: int) -> None:
    part = examples(11)[kind]
    x, sides = part.center, part.polytope
    assert not part.contains(x[:-1])
    assert not part.contains(np.full(part.dimension, np.nan))
    for i in range(part.dimension):
        for off in (sides.high[i] + 1e-6, sides.low[i] - 1e-6):
            moved = x.copy()
            moved[i] = off
            assert not part.contains(moved)
            j = (i + 1) % part.dimension  # also when the sum still fits
            if sides.rows.size and (sides.rows[:, i] > 0).tolist() == (sides.rows[:, j] > 0).tolist() and i != j:
                moved[j] += (x[i] - off) * sides.rows[:, i].max() / sides.rows[:, j].max()
                assert not part.contains(moved)
    if sides.rows.size:
        assert not part.contains(x * (1 - 1e-6))
        assert part.contains(x * (1 - 1e-6), 1e-3)


def test_product_projects_slice_by_slice() -> None:
    rng = np.random.default_rng(0)
    parts = tuple(examples(4)[:3])
    product = Product(parts)
    y = rng.normal(size=product.dimension)
    ends = np.cumsum([0, *(part.dimension for part in parts)])
    for part, start, end in zip(parts, ends, ends[1:], strict=False):
        assert product.project(y)[start:end].tolist() == part.project(y[start:end]).tolist()
        z = np.exp(y)
        assert product.project_entropic(z)[start:end].tolist() == part.project_entropic(z[start:end]).tolist()
    assert [len(piece) for piece in product.split(y)] == [part.dimension for part in parts]


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Simplex(0), "dimension is 0"),
        (lambda: Simplex(2, -1.0), "total is -1.0"),
        (lambda: CappedSimplex(0, 0), "dimension is 0"),
        (lambda: CappedSimplex(3, 3.5), "from 0 to 3"),
        (lambda: CappedSimplex(3, float("nan")), "total is nan"),
        (lambda: Knapsack(np.array([1.0, 0.0]), 1.0), "above 0"),
        (lambda: Knapsack(np.array([]), 0.0), "above 0"),
        (lambda: Knapsack(np.array([1.0, 2.0]), 3.5), "budget is 3.5"),
        (lambda: Box(np.array([0.0, 2.0]), np.array([1.0, 1.0])), "coordinate 1"),
        (lambda: Box(np.array([0.0]), np.array([np.inf])), "finite"),
        (lambda: Box(np.array([0.0]), np.array([1.0, 1.0])), "shapes"),
        (lambda: Product(()), "no sets"),
    ],
)
def test_impossible_sets_are_refused(make: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS)
def test_points_that_are_none_are_refused(kind: int) -> None:
    part = examples(2)[kind]
    y = np.ones(part.dimension)
    with pytest.raises(ShapeError, match="shape"):
        part.project(np.ones(part.dimension + 1))
    y[-1] = np.nan
    with pytest.raises(DataError, match=r"coordinate \d+ of the point is nan"):
        part.project(y)
    if part.polytope.high.min() > 0:
        y[-1] = -0.5
        with pytest.raises(DataError, match=r"-0\.5"):
            part.project_entropic(y)


def test_public_names_resolve_and_are_loaded_late() -> None:
    for name in rivage.convex.__all__:
        assert getattr(rivage.convex, name).__name__ == name
    assert sorted(rivage.convex._HOMES) == sorted(rivage.convex.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Ball'"):
        _ = rivage.convex.Ball


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_scaled_projection_has_one_multiplier(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    sizes, y = rng.uniform(0.1, 5.0, n), np.exp(rng.normal(0, rng.choice([0.1, 3.0, 50.0]), n))
    budget = float(rng.uniform(0.001, 1.0) * sizes.sum())
    x = Knapsack(sizes, budget).project_scaled(y)
    below = x < 1 - 1e-12
    factors = x[below] / y[below]
    assert sizes @ x == pytest.approx(budget, rel=1e-12)
    assert x.max() <= 1
    if factors.size:
        assert np.ptp(factors) <= 1e-9 * factors.max()
        assert (y[~below] * factors.max() >= 1 - 1e-9).all()


def test_scaled_projection_of_the_sheet_and_of_equal_sizes() -> None:
    x = Knapsack(np.array([1.0, 1.0, 2.0, 2.0]), 3.0).project_scaled(np.array([0.1, 0.2, 0.4, 3.0]))
    assert x == pytest.approx(np.array([1 / 11, 2 / 11, 4 / 11, 1.0]), abs=1e-15)
    y = np.random.default_rng(0).uniform(0.1, 5.0, 20)
    equal = Knapsack(np.ones(20), 7.5).project_scaled(y)
    assert np.abs(equal - CappedSimplex(20, 7.5).project_entropic(y)).max() < 1e-14

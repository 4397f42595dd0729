"""Mirror maps: derivatives, inverses, Bregman projections against a convex program, q-norms between their ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex import (
    Box,
    CappedSimplex,
    ConvexSet,
    Knapsack,
    MirrorMap,
    NegativeEntropy,
    Product,
    QNorm,
    Simplex,
    SquaredNorm,
    minimize_over,
)
from rivage.core.errors import ConfigError

MAPS: list[MirrorMap] = [SquaredNorm(), NegativeEntropy(), QNorm(2.0), QNorm(1.5), QNorm(1.1)]
SETS: list[ConvexSet] = [
    Simplex(5, 1.5),
    CappedSimplex(5, 2),
    Knapsack(np.array([1.0, 2.0, 0.5, 1.0, 3.0]), 3.0),
    Box(np.array([0.0, 0.1, 0.2, 0.0, 0.3]), np.array([1.0, 0.5, 0.9, 0.2, 0.8])),
    Product((CappedSimplex(3, 1), Simplex(2, 0.7))),
]


def divergence(mirror: MirrorMap, x: np.ndarray, y: np.ndarray) -> float:
    return mirror.value(x) - mirror.value(y) - float(mirror.gradient(y) @ (x - y))


@pytest.mark.parametrize("mirror", MAPS, ids=str)
def test_gradient_is_the_derivative_and_inverse_undoes_it(mirror: MirrorMap) -> None:
    x = np.random.default_rng(0).uniform(0.1, 2.0, 6)
    h = 1e-6
    slopes = [(mirror.value(x + h * e) - mirror.value(x - h * e)) / (2 * h) for e in np.eye(6)]
    assert mirror.gradient(x) == pytest.approx(slopes, rel=1e-7, abs=1e-8)
    assert mirror.inverse(mirror.gradient(x)) == pytest.approx(x, rel=1e-12)
    assert isinstance(mirror, MirrorMap)


@pytest.mark.parametrize("q", [1.1, 1.5, 2.0])
def test_q_norms_with_signs_zeros_and_large_numbers(q: float) -> None:
    mirror = QNorm(q)
    assert mirror.gradient(np.zeros(3)).tolist() == mirror.inverse(np.zeros(3)).tolist() == [0, 0, 0]
    x = np.array([-2e200, 0.0, 1e200])
    assert mirror.inverse(mirror.gradient(x)) == pytest.approx(x, rel=1e-10)
    assert np.sign(mirror.gradient(x)).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("mirror", MAPS[2:], ids=str)
@pytest.mark.parametrize("part", SETS, ids=lambda part: type(part).__name__)
def test_q_norm_projection_against_a_convex_program(mirror: QNorm, part: ConvexSet) -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        y = part.center + rng.uniform(-0.05, 0.8, part.dimension)
        theta, start = mirror.gradient(y), part.project(y) * 0.9 + part.center * 0.1
        x = mirror.project(part, y)
        reference = minimize_over(
            part, lambda x, t=theta: mirror.value(x) - float(t @ x), lambda x, t=theta: mirror.gradient(x) - t, start
        )
        assert part.contains(x, 1e-9)
        assert divergence(mirror, x, y) <= divergence(mirror, reference, y) + 1e-12
        assert np.abs(x - reference).max() < 2e-5  # SLSQP sees little of coordinates where powers are flat


@pytest.mark.parametrize("part", SETS, ids=lambda part: type(part).__name__)
def test_two_ends_of_the_q_norms(part: ConvexSet) -> None:
    y = part.center + np.random.default_rng(2).uniform(-0.2, 0.8, part.dimension)
    assert np.abs(QNorm(2.0).project(part, y) - SquaredNorm().project(part, y)).max() < 1e-12


def test_near_one_q_norms_update_like_the_entropy() -> None:
    # On Σ x = k, as q → 1, a step η (q − 1) k of the q-norm map multiplies by e^η as the entropy's step η does.
    k, n, rate, q = 4.0, 20, 0.7, 1.0005
    cache, x = CappedSimplex(n, k), CappedSimplex(n, k).center
    gain = np.zeros(n)
    gain[3], gain[7] = 1.0, 0.5
    multiplied = NegativeEntropy().project(
        cache, NegativeEntropy().inverse(NegativeEntropy().gradient(x) + rate * gain)
    )
    mirror = QNorm(q)
    moved = mirror.project(cache, mirror.inverse(mirror.gradient(x) + (q - 1) * k * rate * gain))
    assert np.abs(moved - multiplied).max() < 5e-3
    assert cache.contains(moved, 1e-12)  # although x is steep in the multiplier: powers of 2000
    assert np.abs(multiplied - x).max() > 0.1


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(MAPS[:4]), st.sampled_from(SETS), st.integers(0, 10_000))
def test_three_points(mirror: MirrorMap, part: ConvexSet, seed: int) -> None:
    # B(z, y) >= B(z, x) + B(x, y) for the projection x of y and every z of the set; and x stays where it is.
    rng = np.random.default_rng(seed)
    y = rng.uniform(0.01, 2.0, part.dimension)
    z = part.project(rng.normal(size=part.dimension))
    x = mirror.project(part, y)
    assert divergence(mirror, z, y) >= divergence(mirror, z, x) + divergence(mirror, x, y) - 1e-7
    assert np.abs(mirror.project(part, x) - x).max() < 1e-7
    assert part.contains(x, 1e-8)


def test_entropy_neither_vanishes_nor_overflows() -> None:
    mirror = NegativeEntropy()
    assert np.isfinite(mirror.gradient(np.array([0.0, 1.0]))).all()
    x = mirror.inverse(np.array([-1e6, 1e6]))
    assert 0 < x[0] < 1e-299
    assert 1e299 < x[1] < np.inf
    assert mirror.value(np.array([0.0, 1.0])) == -1


def test_impossible_maps_are_refused() -> None:
    for q in (1.0, 2.5, float("nan")):
        with pytest.raises(ConfigError, match="above 1 and at most 2"):
            QNorm(q)
    with pytest.raises(ConfigError, match="x >= 0"):
        QNorm(1.5).project(Box(np.array([-1.0]), np.array([1.0])), np.array([0.5]))


@pytest.mark.parametrize("q", [1.2, 1.5, 2.0])
def test_q_norms_stay_feasible_where_multipliers_round(q: float) -> None:
    # Next to 10^17 the multiplier cannot be told from its neighbours; the two largest still share what there is.
    x = QNorm(q).project(CappedSimplex(3, 1.0), np.array([1e17, 1e17, 0.0]))
    assert x == pytest.approx([0.5, 0.5, 0.0], abs=1e-9)

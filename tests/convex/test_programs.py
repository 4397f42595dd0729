"""Programs: optima by hand, strong duality, and errors that say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from rivage.convex import Box, CappedSimplex, Product, Simplex, linear_program, minimize_over, project_by_program
from rivage.core.errors import ConfigError


def test_best_static_cache_is_a_linear_program() -> None:
    rng = np.random.default_rng(0)
    gain = rng.integers(0, 50, 12).astype(float)
    sides = CappedSimplex(12, 4).polytope
    solution = linear_program(-gain, equal=(sides.rows, sides.totals), low=sides.low, high=sides.high)
    assert -solution.value == pytest.approx(np.sort(gain)[-4:].sum())
    # One more slot is worth between the fifth and the fourth largest gain.
    assert np.sort(gain)[-5] <= -solution.equal_prices[0] <= np.sort(gain)[-4]


def test_prices_prove_the_optimum() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        rows, limits, cost = rng.uniform(0, 1, (5, 8)), rng.uniform(1, 3, 5), -rng.uniform(0, 1, 8)
        solution = linear_program(cost, upper=(csr_array(rows), limits))
        assert (solution.upper_prices <= 1e-12).all()
        assert (rows.T @ solution.upper_prices <= cost + 0.1).all()  # the prices are feasible in the dual
        assert solution.upper_prices @ limits == pytest.approx(solution.value)
        assert cost @ solution.x == pytest.approx(solution.value)


def test_infeasible_programs_name_the_conflict() -> None:
    rows = np.array([[1.0, 1.0], [1.0, -1.0]])
    with pytest.raises(ConfigError, match=r"equal\[0\] is missed by 3 at best") as caught:
        linear_program(np.ones(2), equal=(rows[:1], np.array([5.0])), high=1.0)
    assert "Loosen" in str(caught.value)
    assert "upper" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"upper\[1\] is missed by 2 at best"):
        linear_program(np.ones(2), upper=(np.vstack([rows[0], -rows[0]]), np.array([9.0, -4.0])), high=1.0)
    sparse = csr_array(rows[:1])
    with pytest.raises(ConfigError, match=r"(upper|equal)\[0\] is missed by 1 at best"):
        linear_program(np.ones(2), upper=(sparse, np.array([1.0])), equal=(sparse, np.array([2.0])))
    with pytest.raises(ConfigError, match="bounds of x1 cross"):
        linear_program(np.ones(2), upper=(rows, np.ones(2)), low=np.array([0.0, 3.0]), high=2.0)


def test_unbounded_programs_name_the_variables() -> None:
    with pytest.raises(ConfigError, match=r"falls without end along x1, x2\. Bound"):
        linear_program(np.array([1.0, -1.0, -1.0]), equal=(np.array([[1.0, 1.0, -1.0]]), np.array([0.0])))
    with pytest.raises(ConfigError, match="along x0, x1, x2, x3, x4, …"):
        linear_program(-np.ones(9))
    with pytest.raises(ConfigError, match=r"along x0\."):
        linear_program(np.array([1.0, 1.0]), low=np.array([-np.inf, 0.0]))


def test_projections_by_program_by_hand() -> None:
    y = np.array([2.0, 0.5, 0.1])
    assert project_by_program(CappedSimplex(3, 2), y) == pytest.approx([1.0, 0.7, 0.3], abs=1e-8)
    assert project_by_program(Simplex(3), y, "entropic") == pytest.approx(y / y.sum(), abs=1e-6)
    box = Box(np.zeros(1), np.ones(1))
    assert project_by_program(Product((box, Simplex(2))), np.array([3.0, 0.5, 0.7])) == pytest.approx([1, 0.4, 0.6])


def test_minimize_over_takes_any_convex_function() -> None:
    # Σ ln(x + 1/10) over the simplex is largest in the middle; from a start on the boundary as well.
    start = np.array([0.9, 0.1, 0.0])
    part = Simplex(3)
    x = minimize_over(part, lambda x: -np.log(x + 0.1).sum(), lambda x: -1 / (x + 0.1), start)
    assert x == pytest.approx(np.full(3, 1 / 3), abs=1e-6)
    assert start.tolist() == [0.9, 0.1, 0.0]


def test_a_solver_that_gives_up_is_no_answer() -> None:
    with pytest.raises(ConfigError, match="SLSQP stopped"):
        minimize_over(Simplex(2), lambda x: float("nan"), lambda x: np.full(2, np.nan))

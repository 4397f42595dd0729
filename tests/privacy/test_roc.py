"""Metrics of membership: closed forms and brute force, then what holds for every input."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu, norm

from rivage.core.errors import DataError, ShapeError
from rivage.privacy import roc as r

SCORES = np.array([0.9, 0.8, 0.8, 0.3, 0.3, 0.1])
MEMBER = np.array([True, True, False, False, True, False])


@st.composite
def scored(draw: st.DrawFn, least: int = 2, most: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and at least one record of each kind."""
    values = draw(st.lists(st.integers(-3, 3), min_size=least, max_size=most))
    member = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    member[0], member[-1] = True, False
    return np.array(values, float), np.array(member)


def test_a_curve_by_hand() -> None:
    """Ties at 0.8 and at 0.3 are one point each."""
    curve = r.roc(SCORES, MEMBER)
    np.testing.assert_allclose(curve.fpr, [0, 0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(curve.tpr, [0, 1 / 3, 2 / 3, 1, 1])
    assert r.auc(SCORES, MEMBER) == pytest.approx((3 + 2.5 + 1.5) / 9)
    assert r.best_balanced_accuracy(SCORES, MEMBER) == pytest.approx(2 / 3)
    assert r.best_threshold(SCORES, MEMBER) == 0.9
    assert r.balanced_accuracy(SCORES, MEMBER, 0.8) == pytest.approx((2 / 3 + 2 / 3) / 2)


@given(scored())
def test_the_area_counts_pairs(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, member = case
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[member] for b in scores[~member]]
    assert r.auc(scores, member) == pytest.approx(np.mean(pairs))


@given(scored())
def test_the_curve_is_every_threshold(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, member = case
    curve = r.roc(scores, member)
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    np.testing.assert_allclose(curve.tpr, [(scores[member] >= t).mean() for t in thresholds])
    np.testing.assert_allclose(curve.fpr, [(scores[~member] >= t).mean() for t in thresholds])
    best = max(r.balanced_accuracy(scores, member, t) for t in thresholds)
    assert r.best_balanced_accuracy(scores, member) == pytest.approx(best)
    assert r.balanced_accuracy(scores, member, r.best_threshold(scores, member)) == pytest.approx(best)


@given(scored(), st.floats(0.1, 3.0), st.floats(-5, 5))
def test_only_the_order_matters(case: tuple[np.ndarray, np.ndarray], scale: float, shift: float) -> None:
    scores, member = case
    moved = np.exp(scale * scores) + shift
    if len(set(moved)) == len(set(scores)):  # the shift may round neighbours together
        assert r.auc(moved, member) == r.auc(scores, member)
        assert r.auc_test(moved, member) == r.auc_test(scores, member)
        assert r.best_balanced_accuracy(moved, member) == r.best_balanced_accuracy(scores, member)
    assert r.auc(-scores, member) == pytest.approx(1 - r.auc(scores, member))


@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(case: tuple[np.ndarray, np.ndarray], random: object) -> None:
    scores, member = case
    order = np.array(random.sample(range(len(scores)), len(scores)))  # type: ignore[attr-defined]
    assert r.auc(scores[order], member[order]) == r.auc(scores, member)
    assert r.auc_interval(scores[order], member[order]) == r.auc_interval(scores, member)
    assert r.auc_test(scores[order], member[order]) == r.auc_test(scores, member)


def test_rates_at_few_alarms_need_many_others() -> None:
    """Of 1000 others 10 may be false alarms at 1 %; eleven score above the 700 lowest members."""
    scores = np.concatenate([np.full(300, 3.0), np.full(700, 1.0), np.full(11, 2.0), np.zeros(989)])
    member = np.arange(2000) < 1000
    assert r.tpr_at(scores, member, 0.01) == 0.3
    assert r.tpr_at(scores, member, 0.011) == 1.0
    assert r.tpr_at(scores, member, 0.001) is None
    assert r.tpr_at(scores[1:], member[1:], 0.01) is not None
    assert r.tpr_at(scores[:-1], member[:-1], 0.01) is None, "999 others"
    worst = np.where(member, 0.0, 1.0)
    assert r.tpr_at(worst, member, 0.01) == 0.0
    assert r.tpr_at(np.zeros(2000), member, 0.01) == 0.0, "one tie of all records is never split"


@given(scored(most=9))
def test_the_test_against_all_choices_of_members(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, member = case
    areas = []
    for chosen in combinations(range(len(scores)), int(member.sum())):
        other = np.zeros(len(scores), bool)
        other[list(chosen)] = True
        areas.append(r.auc(scores, other))
    expected = np.mean(np.array(areas) >= r.auc(scores, member) - 1e-9)
    assert r.auc_test(scores, member) == pytest.approx(expected)


@given(scored(most=7), st.floats(0, 1))
def test_p_values_under_the_null_are_uniform_or_larger(case: tuple[np.ndarray, np.ndarray], level: float) -> None:
    """Over all choices of members, which is the null: at most a share α has p <= α."""
    scores, member = case
    p = []
    for chosen in combinations(range(len(scores)), int(member.sum())):
        other = np.zeros(len(scores), bool)
        other[list(chosen)] = True
        p.append(r.auc_test(scores, other))
    assert np.mean(np.array(p) <= level) <= level + 1e-9


def test_many_records_agree_with_scipy_and_constant_scores_find_nothing() -> None:
    generator = np.random.default_rng(0)
    member = generator.random(300) < 0.4
    scores = np.round(generator.normal(size=300) + 0.3 * member, 1)
    expected = mannwhitneyu(scores[member], scores[~member], alternative="greater", method="asymptotic").pvalue
    assert r.auc_test(scores, member) == pytest.approx(expected)
    few = np.arange(40)
    exact = mannwhitneyu(few[::2], few[1::2], alternative="greater", method="exact").pvalue
    assert r.auc_test(few.astype(float), few % 2 == 0) == pytest.approx(exact)
    assert r.auc_test(np.zeros(300), member) == 1.0
    assert r.auc_test(np.zeros(20), member[:20]) == 1.0


def test_level_of_the_approximation() -> None:
    """60 + 60 records with ties, 2000 shuffles: a level of 5 % passes 124 rejections with chance 0.7 %."""
    generator = np.random.default_rng(1)
    scores = np.round(generator.exponential(size=120), 1)
    member = np.arange(120) < 60
    rejections = sum(r.auc_test(scores, generator.permutation(member)) <= 0.05 for _ in range(2000))
    assert rejections <= 124


@pytest.mark.parametrize("n", [1, 7, 30])
def test_clopper_pearson_covers(n: int) -> None:
    """Whatever the rate: the intervals of all k that hold it have at least the stated chance together."""
    limits = [r.clopper_pearson(k, n, 0.9) for k in range(n + 1)]
    for rate in np.linspace(0, 1, 201):
        inside = [k for k, (low, high) in enumerate(limits) if low <= rate <= high]
        assert binom.pmf(inside, n, rate).sum() >= 0.9 - 1e-9


def test_clopper_pearson_by_hand() -> None:
    """No success in n: the upper end solves (1 − p)^n = α / 2."""
    assert r.clopper_pearson(0, 10, 0.95) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert r.clopper_pearson(10, 10, 0.95) == pytest.approx((0.025**0.1, 1.0))


@given(scored(), st.floats(0.5, 0.99))
def test_the_interval_solves_its_equation(case: tuple[np.ndarray, np.ndarray], confidence: float) -> None:
    scores, member = case
    area, ones = r.auc(scores, member), int(member.sum())
    zeros, z = len(member) - ones, norm.ppf((1 + confidence) / 2)
    low, high = r.auc_interval(scores, member, confidence)
    assert low <= area + 1e-8
    assert area - 1e-8 <= high
    for end in (low, high):
        if 1e-6 < end < 1 - 1e-6:
            q1, q2, half = end / (2 - end), 2 * end**2 / (1 + end), (ones + zeros) / 2
            spread = (end * (1 - end) + (half - 1) * (q1 - end**2 + q2 - end**2)) / (ones * zeros)
            assert (area - end) ** 2 == pytest.approx(z**2 * spread, rel=1e-6)
    turned = r.auc_interval(-scores, member, confidence)
    assert turned == pytest.approx((1 - high, 1 - low), abs=1e-6)


@pytest.mark.parametrize("area", [0.5, 0.75, 0.95])
def test_the_interval_covers_normal_scores(area: float) -> None:
    """Means √2 Φ⁻¹(A) apart. 600 draws at 95 %: 552 or fewer cover with chance 0.1 % were it exact."""
    generator = np.random.default_rng(2)
    member = np.arange(60) < 25
    shift = np.sqrt(2) * norm.ppf(area)
    covered = 0
    for _ in range(600):
        low, high = r.auc_interval(generator.normal(size=60) + shift * member, member)
        covered += low <= area <= high
    assert covered > 552


def test_the_interval_of_a_perfect_attack_has_a_width() -> None:
    member = np.arange(20) < 10
    low, high = r.auc_interval(member.astype(float), member)
    assert (high, 0.7 < low < 0.9) == (1.0, True)
    assert r.auc_interval(-member.astype(float), member) == pytest.approx((0.0, 1 - low), abs=1e-6)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_by_its_definition(p_values: list[float]) -> None:
    """Step down: reject the least while p <= α / (number left). The adjusted p is the least such α."""
    adjusted, count = r.holm(p_values), len(p_values)
    for level in [0.01, 0.05, 0.3, 0.9, *adjusted]:
        rejected = set()
        for step, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
            if p_values[index] * (count - step) > level:
                break
            rejected.add(index)
        if level < 1:
            assert {index for index, p in enumerate(adjusted) if p <= level} == rejected
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


def test_the_sign_test_counts_coins() -> None:
    assert r.sign_test(3, 0) == pytest.approx(1 / 8)
    assert r.sign_test(2, 1) == pytest.approx(4 / 8)
    assert r.sign_test(0, 5) == 1.0
    assert r.sign_test(0, 0) == 1.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="1 scores are NaN"):
        r.auc(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(DataError, match="no others among 2 records"):
        r.roc(np.zeros(2), np.ones(2, bool))
    with pytest.raises(DataError, match="no members among 0 records"):
        r.roc(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(ShapeError, match=r"scores \(2,\) and members \(3,\)"):
        r.auc(np.zeros(2), np.ones(3, bool))
    with pytest.raises(DataError, match="5 successes in 3 trials"):
        r.clopper_pearson(5, 3)
    with pytest.raises(DataError, match=r"p-values are \[2.0\]"):
        r.holm([2.0])
    with pytest.raises(DataError, match="confidence is 1"):
        r.clopper_pearson(1, 3, 1.0)
    with pytest.raises(DataError, match="-1 better"):
        r.sign_test(-1, 3)

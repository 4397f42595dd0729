"""Robust rules: brute force, what an outlier can move, equivariance, and rounds in which too few arrive."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rivage.core.errors import ConfigError
from rivage.core.settings import dump, read
from rivage.federated.algorithm import Mean, Update
from rivage.federated.collectors import Averaged, Collection, Plain
from rivage.federated.exchange import fault_of
from rivage.federated.kinds import COLLECTIONS
from rivage.federated.robust import Krum, Median, NormBounded, TrimmedMean

RULES = [
    Median(),
    TrimmedMean(faulty=1),
    TrimmedMean(faulty=2),
    Krum(faulty=2),
    Krum(faulty=2, keep=3),
    NormBounded(),
    NormBounded(norm=0.5),
]
OUTVOTING = RULES[:5]  # NormBounded bounds an outlier, the others leave it out
MATRICES = arrays(np.float64, st.tuples(st.integers(7, 12), st.integers(1, 6)), elements=st.floats(-50, 50))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def collect(rule: Any, rows: Any, *, down: Any = None, weights: Any = None, ids: Any = None) -> Mean:
    """What a rule makes of the rows of a matrix, sent as entry ``params``."""
    collector = rule.collector(each=False)
    for number, row in enumerate(rows):
        weight = 1.0 if weights is None else float(weights[number])
        client = number if ids is None else int(ids[number])
        update = Update({"params": (torch.as_tensor(row), weight)}, client=client)
        collector.add(update, {} if down is None else {"params": torch.as_tensor(down)})
    mean: Mean = collector.result()["params"]
    return mean


def combined(rule: Any, rows: Any, **options: Any) -> np.ndarray:
    result: np.ndarray = collect(rule, rows, **options).mean.numpy()
    return result


def krum(x: np.ndarray, f: int, keep: int) -> np.ndarray:
    """Brute force, with exact ties by position."""
    n = len(x)
    scores = []
    for i in range(n):
        distances = sorted(sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True)) for j in range(n) if j != i)
        scores.append(sum(distances[: n - f - 2]))
    best = sorted(range(n), key=lambda i: (scores[i], i))[:keep]
    result: np.ndarray = x[best].mean(axis=0)
    return result


# --- brute force -----------------------------------------------------------------------------------------------------


@given(MATRICES)
def test_median_and_trimmed_mean_are_those_of_numpy(x: np.ndarray) -> None:
    np.testing.assert_allclose(combined(Median(), x), np.median(x, axis=0), rtol=1e-12, atol=1e-300)
    for f in (0, 1, 3):
        kept = np.sort(x, axis=0)[f : len(x) - f]
        np.testing.assert_allclose(combined(TrimmedMean(faulty=f), x), kept.mean(axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("n", "f", "keep"), [(3, 0, 1), (5, 1, 1), (5, 1, 2), (9, 2, 1), (9, 2, 5), (9, 3, 4), (9, 0, 7)]
)
def test_krum_is_that_of_the_paper(seed: int, n: int, f: int, keep: int) -> None:
    x = normal(n, 4, seed=seed)
    np.testing.assert_allclose(combined(Krum(faulty=f, keep=keep), x), krum(x, f, keep), rtol=1e-12)


def test_krum_on_a_line_by_hand() -> None:
    """n = 5, f = 1: scores of two neighbours are 5, 2, 5, 13 and far away; the client at 1 wins."""
    x = np.array([[0.0], [1.0], [2.0], [4.0], [100.0]])
    assert combined(Krum(faulty=1), x).tolist() == [1.0]
    assert combined(Krum(faulty=1, keep=2), x).tolist() == [0.5]  # 0 and 2 tie: the smaller number


def test_norm_bounded_by_hand() -> None:
    down, x = np.full(2, 10.0), np.array([[13.0, 14.0], [10.0, 10.5], [10.0, 10.0], [10.0, 12.0]])
    bounded = np.array([[0.6, 0.8], [0.0, 0.5], [0.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(combined(NormBounded(norm=1.0), x, down=down), 10 + bounded.mean(axis=0), rtol=1e-14)
    bounded = np.array([[0.75, 1.0], [0.0, 0.5], [0.0, 0.0], [0.0, 1.25]])  # median of 5, 0.5, 0 and 2
    np.testing.assert_allclose(combined(NormBounded(), x, down=down), 10 + bounded.mean(axis=0), rtol=1e-14)
    assert combined(NormBounded(norm=1.0), [[3.0, 4.0]]).tolist() == pytest.approx([0.6, 0.8])  # nothing broadcast


def test_norm_bounded_bounds_each_client_around_what_it_got() -> None:
    collector = NormBounded(norm=1.0).collector(each=False)
    for client, (base, sent) in enumerate([(0.0, 5.0), (100.0, 100.5)]):
        collector.add(Update({"w": (torch.tensor([sent]), 1.0)}, client=client), {"w": torch.tensor([base])})
    assert collector.result()["w"].mean.tolist() == [(1.0 + 100.5) / 2]


# --- outliers --------------------------------------------------------------------------------------------------------


def diameter(x: np.ndarray) -> float:
    return float(max(np.linalg.norm(a - b) for a in x for b in x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("colluding", [False, True])
@pytest.mark.parametrize("rule", [Median(), TrimmedMean(faulty=2), Krum(faulty=2), Krum(faulty=2, keep=5)], ids=str)
def test_huge_outliers_move_a_rule_by_less_than_the_honest_diameter(rule: Any, colluding: bool, dtype: Any) -> None:
    for seed in range(10):
        honest = normal(7, 30, seed=seed).astype(dtype)
        outliers = 1e9 * normal(2, 30, seed=seed + 100).astype(dtype)
        if colluding:
            outliers[1] = outliers[0]
        x = np.concatenate([honest, outliers])[np.random.default_rng(seed).permutation(9)]
        moved = combined(rule, x) - honest.mean(axis=0)
        assert np.linalg.norm(moved) < diameter(honest)
        assert np.linalg.norm(combined(Averaged(), x) - honest.mean(axis=0)) > 1e8


def test_krum_tells_honest_clients_apart_beside_an_outlier() -> None:
    """‖x‖² + ‖y‖² − 2⟨x, y⟩ around 10⁹ has no digit left for distances near 1."""
    far = 1e9 + np.array([[0.0], [1.0], [2.0], [4.0], [-1e9]])
    assert combined(Krum(faulty=1), far).tolist() == [1e9 + 1]
    honest = np.repeat(np.array([[0.0], [1.0], [2.0], [4.0]]), 3, axis=1)
    x = np.concatenate([honest, [[1e9, -1e9, 1e9]]]).astype(np.float32)
    assert combined(Krum(faulty=1), x).tolist() == [1.0, 1.0, 1.0]


def test_norm_bounded_limits_what_one_client_does() -> None:
    honest = normal(9, 30)
    for bound in (0.5, 3.0):
        for seed in range(5):
            x = np.concatenate([honest, 1e9 * normal(1, 30, seed=seed)])
            y = np.concatenate([honest, normal(1, 30, seed=seed + 50)])
            moved = combined(NormBounded(norm=bound), x) - combined(NormBounded(norm=bound), y)
            assert np.linalg.norm(moved) <= 2 * bound / 10 * (1 + 1e-9)
            assert np.linalg.norm(combined(NormBounded(norm=bound), x)) <= bound * (1 + 1e-9)
    x = np.concatenate([honest, 1e9 * normal(1, 30)])
    assert np.linalg.norm(combined(NormBounded(), x)) <= np.linalg.norm(honest, axis=1).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_largest_numbers_there_are_do_not_overflow(rule: Any, dtype: Any) -> None:
    largest = np.finfo(dtype).max
    x = np.concatenate([normal(7, 3).astype(dtype), [[largest] * 3, [-largest] * 3]]).astype(dtype)
    assert np.isfinite(combined(rule, x)).all()
    assert combined(Median(), [[largest], [largest]]) == largest


# --- invariance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_order_of_updates_does_not_matter_bit_for_bit(rule: Any, dtype: Any) -> None:
    x, ids = normal(8, 5).astype(dtype), np.arange(8)[::-1] * 10
    x[3] = x[6]  # a tie
    expected = combined(rule, x, ids=ids)
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(8)
        np.testing.assert_array_equal(combined(rule, x[order], ids=ids[order]), expected)


def test_clients_that_tie_are_told_apart_by_number() -> None:
    x = np.array([[0.0], [1.0], [10.0]])  # 0 and 1 are nearest to one another
    for order in permutations(range(3)):
        assert combined(Krum(faulty=0), x[list(order)], ids=[5 - i for i in order]).tolist() == [1.0]


@given(MATRICES, st.integers(-1000, 1000))
def test_rules_move_with_their_inputs(x: np.ndarray, shift: int) -> None:
    x = x.round(3)
    for rule in (Median(), TrimmedMean(faulty=2), NormBounded(), NormBounded(norm=2.0)):
        moved = combined(rule, x + shift, down=np.full(x.shape[1], float(shift)))
        np.testing.assert_allclose(moved, combined(rule, x, down=np.zeros(x.shape[1])) + shift, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", [Krum(faulty=2), Krum(faulty=2, keep=3)], ids=str)
def test_krum_moves_with_its_inputs(rule: Any) -> None:
    x = normal(9, 6)
    for shift in (-3.0, 1e3, 1e6):
        np.testing.assert_allclose(combined(rule, x + shift), combined(rule, x) + shift, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_coordinates_may_be_relabelled_and_reflected(rule: Any) -> None:
    x, order = normal(9, 6), np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(combined(rule, -x[:, order]), -combined(rule, x)[order], rtol=1e-12)


def test_nothing_trimmed_is_the_unweighted_mean() -> None:
    x, weights = normal(7, 5), np.arange(7)
    np.testing.assert_allclose(combined(TrimmedMean(faulty=0), x, weights=weights), x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(combined(NormBounded(norm=1e6), x, weights=weights), x.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_weights_do_not_matter(rule: Any) -> None:
    x = normal(9, 5)
    one, other = combined(rule, x), collect(rule, x, weights=1e9 ** np.arange(-4, 5))
    np.testing.assert_array_equal(other.mean.numpy(), one)


def test_the_result_has_the_weight_of_those_it_rests_on() -> None:
    x, weights = np.array([[0.0], [1.0], [2.0], [4.0], [100.0]]), [1, 10, 100, 1000, 10000]
    for rule in (Median(), TrimmedMean(), NormBounded()):
        assert collect(rule, x, weights=weights).weight == 11111
    assert collect(Krum(), x, weights=weights).weight == 10
    assert collect(Krum(keep=2), x, weights=weights).weight == 11


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(faulty=0), NormBounded(norm=9.0), NormBounded()], ids=str)
def test_a_single_update_comes_back(rule: Any) -> None:
    x = normal(1, 5)
    np.testing.assert_allclose(combined(rule, x), x[0], rtol=1e-15)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_updates_come_back_and_shape_and_dtype_stay(rule: Any, dtype: torch.dtype) -> None:
    value = (0.01 * torch.from_numpy(normal(3, 4))).to(dtype)
    mean = collect(rule, [value] * 8).mean
    assert (mean.shape, mean.dtype) == (value.shape, dtype)
    torch.testing.assert_close(mean, value, rtol=1e-6, atol=0)


# --- several entries, rounds, settings -------------------------------------------------------------------------------


def test_krum_trusts_a_client_with_all_its_entries_or_none() -> None:
    """Client 1 has the best params and lies in its control; both entries come from one other client."""
    collector = Krum(faulty=1).collector(each=False)
    params, control = [0.0, 1.0, 2.0, 4.0, 5.0], [0.0, 1e6, 0.0, 0.0, 0.0]
    for client in range(5):
        payload = {"params": (torch.tensor([params[client]]), 1.0), "control": (torch.tensor([control[client]]), 0.2)}
        collector.add(Update(payload, client=client))
    result = collector.result()
    assert (result["params"].mean.item(), result["control"].mean.item()) == (4.0, 0.0)  # neighbours 2 and 1 away
    assert result["control"].weight == 0.2


def test_scalars_and_large_vectors_are_entries_too() -> None:
    for rule in RULES:
        assert combined(rule, [np.float64(v) for v in range(8)]).shape == ()
    for seed in range(5):
        x = normal(7, 70_000, seed=seed)
        np.testing.assert_array_equal(combined(Krum(faulty=1), x), krum_of_numpy(x, 1))


def krum_of_numpy(x: np.ndarray, f: int) -> np.ndarray:
    distances = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    scores = np.sort(distances, axis=1)[:, 1 : len(x) - f - 1].sum(axis=1)
    result: np.ndarray = x[scores.argmin()]
    return result


@pytest.mark.parametrize(
    ("rule", "least"),
    [(Median(), 1), (NormBounded(), 1), (TrimmedMean(faulty=2), 5), (Krum(faulty=0), 3), (Krum(faulty=2, keep=4), 7)],
    ids=str,
)
def test_a_round_with_too_few_updates_is_refused_with_a_reason(rule: Any, least: int) -> None:
    for count in (least - 1, least):
        collector = rule.collector(each=False)
        for client in range(count):
            collector.add(Update({"params": (torch.ones(2), 1.0)}, client=client), None)
        assert (collector.refusal is None, bool(collector.result())) == (count >= least, count >= least)
        assert collector.count == count
        if collector.refusal:
            assert f"{count} updates" in collector.refusal
            assert f"needs {least}" in collector.refusal
    assert Plain(each=False).refusal is None


def test_krum_keeps_fewer_when_fewer_arrive() -> None:
    x = np.array([[0.0], [1.0], [2.0], [4.0], [100.0]])
    assert combined(Krum(faulty=1, keep=50), x).tolist() == [0.5]  # n − f − 2 = 2 of them


def test_krum_cannot_keep_more_than_have_a_score() -> None:
    """n − f − 2, as `combine` keeps them."""
    for n, f, most in ((6, 1, 3), (5, 1, 2), (7, 2, 3)):
        assert Krum(faulty=f, keep=most).excess(n) is None
        assert Krum(faulty=f, keep=most + 1).excess(n) == (
            f"keep is {most + 1}, but of {n} updates Krum with faulty = {f} keeps at most {most} (n - faulty - 2)"
        )
        weights = [collect(Krum(faulty=f, keep=keep), normal(n, 3)).weight for keep in (most, most + 9)]
        assert weights == [most, most]
    assert TrimmedMean(faulty=9).excess(3) is None


def test_updates_without_entries_give_nothing() -> None:
    collector = Median().collector(each=False)
    collector.add(Update({}))
    assert (collector.result(), collector.refusal, collector.count, collector.shapes) == ({}, None, 1, {})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_clients_that_are_not_finite_never_get_to_a_rule(bad: float) -> None:
    collector = Median().collector(each=False)
    for client, value in enumerate([1.0, bad, 3.0, 2.0]):
        update = Update({"params": (torch.full((2,), value), 1.0)}, client=client)
        if fault_of(update, 2, collector.shapes) is None:
            collector.add(update, {})
    assert (collector.count, collector.result()["params"].mean.tolist()) == (3, [2.0, 2.0])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_single_updates_cannot_be_guarded(rule: Any) -> None:
    with pytest.raises(ConfigError, match="combines updates") as caught:
        rule.collector(each=True)
    assert caught.value.mend


def test_nothing_given_is_written_to() -> None:
    x, down = torch.from_numpy(normal(8, 5)), torch.from_numpy(normal(5))
    copy, base = x.clone(), down.clone()
    for rule in [*RULES, Averaged()]:
        collect(rule, list(x), down=down).mean.mul_(0)
    assert torch.equal(x, copy)
    assert torch.equal(down, base)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrimmedMean(faulty=-1),
        lambda: Krum(faulty=-1),
        lambda: Krum(keep=0),
        lambda: NormBounded(norm=0.0),
        lambda: NormBounded(norm=float("nan")),
    ],
)
def test_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("kind", list(COLLECTIONS))
def test_every_kind_is_a_collection_and_survives_a_file(kind: str) -> None:
    collection = COLLECTIONS.get(kind)()
    assert isinstance(collection, Collection)
    assert read(type(collection), dump(collection)) == collection

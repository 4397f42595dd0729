"""Optimistic policies: they rank and project as written, right predictions pay, wrong ones keep to the bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.sets import CappedSimplex
from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.online.optimistic import Front, OptimisticFTPL, OptimisticFTRL, _largest
from rivage.online.policy import CacheInstance
from rivage.online.predictions import PREDICTIONS, LastSlot, Nothing, Oracle, Prediction, Recent, Successor

KINDS = [OptimisticFTPL, OptimisticFTRL]


def static(requests: np.ndarray, items: int, capacity: int, weights: np.ndarray | None = None) -> float:
    values = np.bincount(requests, weights=None if weights is None else weights[requests], minlength=items)
    return float(np.sort(values)[-capacity:].sum())


def zipf(items: int, count: int, alpha: float = 0.8, seed: int = 0) -> np.ndarray:
    popularity = 1 / np.arange(1, items + 1) ** alpha
    return np.random.default_rng(seed).choice(items, count, p=popularity / popularity.sum())


# ---------------------------------------------------------------------------------------------------------------------
# Predictions


def guesses(prediction: Prediction, requests: list[int], items: int = 5, batch: int = 1) -> list[list[float]]:
    instance = CacheInstance(items=items, capacity=1, batch=batch, multiplicity=batch)
    memory, found = prediction.init(instance, Streams(0)), []
    for part in np.split(np.array(requests), range(batch, len(requests), batch)):
        found.append(prediction.predict(memory).tolist())
        prediction.learn(memory, part)
    return [*found, prediction.predict(memory).tolist()]


def test_predictions_by_hand() -> None:
    def one(*items: int) -> list[float]:
        return [float(items.count(item)) for item in range(5)]

    nobody = one()
    assert guesses(Nothing(), [3, 3]) == [nobody] * 3
    assert guesses(LastSlot(), [3, 1]) == [nobody, one(3), one(1)]
    assert guesses(LastSlot(), [3, 1, 4, 4], batch=2) == [nobody, one(3, 1), one(4, 4)]
    assert guesses(Recent(window=2), [3, 1, 1]) == [nobody, one(3), [0, 0.5, 0, 0.5, 0], one(1)]
    assert guesses(Recent(window=4), [3, 1, 1, 1], batch=2)[2] == [0, 1.5, 0, 0.5, 0]
    assert guesses(Successor(), [0, 1, 2, 0, 2, 0]) == [nobody] * 4 + [one(1), one(0), one(2)]
    assert guesses(Successor(), [0, 1, 2, 3, 0, 1], batch=2)[3] == one(2, 3)
    assert guesses(Oracle(requests=np.array([3, 1, 4, 4])), [3, 1, 4, 4], batch=2) == [one(3, 1), one(4, 4), nobody]


def test_the_oracle_is_right_as_often_as_it_says() -> None:
    """20,000 guesses, 4 standard errors (false alarm below 1e-4); a wrong one is right by chance once in 50."""
    requests = zipf(50, 20_000)
    found = Oracle(requests=requests, accuracy=0.6).init(CacheInstance(items=50, capacity=1), Streams(0)).last
    expected = 0.6 + 0.4 / 50
    assert abs((found == requests).mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)


def test_registered_predictions_keep_the_protocol() -> None:
    for kind in PREDICTIONS:
        assert isinstance(PREDICTIONS.get(kind)(), Prediction)


# ---------------------------------------------------------------------------------------------------------------------
# States


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_ftpl_caches_the_largest_predicted_and_perturbed_sums(data: st.DataObject) -> None:
    items, batch = data.draw(st.integers(2, 9)), data.draw(st.integers(1, 3))
    capacity, slots = data.draw(st.integers(1, items - 1)), data.draw(st.integers(1, 15))
    weights = np.random.default_rng(items).random(items) + 0.1
    instance = CacheInstance(items=items, capacity=capacity, weights=weights, batch=batch, multiplicity=batch)
    policy = OptimisticFTPL(scale=data.draw(st.sampled_from([0.5, 2.0])))
    state = policy.init(instance, Streams(4))
    spread = capacity * math.sqrt(2 * math.log(items * math.e / capacity)) * math.sqrt(2 * math.pi)
    sums, guess, errors = np.zeros(items), np.zeros(items), 0.0
    for _ in range(slots):
        part = np.array(data.draw(st.lists(st.integers(0, items - 1), min_size=batch, max_size=batch)))
        held = state.board.kept.copy()
        assert policy.run_block(state, part).hits == held[part].sum()
        gradient = weights * np.bincount(part, minlength=items)
        errors += np.abs(gradient - guess).sum() ** 2
        sums, guess = sums + gradient, gradient
        ranked = sums + guess + policy.scale * math.sqrt(errors / spread) * state.noise
        assert set(state.cached.tolist()) == set(np.argsort(ranked)[-capacity:].tolist())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 120), st.booleans())
def test_the_front_is_the_whole_sort_while_values_move(seed: int, items: int, ties: bool) -> None:
    """Values drift, rise and fall, now and then all at once; equal ones are chosen as without the front."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, items))
    front, values = Front(count), random.normal(size=items)
    for _ in range(40):
        values[random.integers(items, size=3)] += random.normal(size=3)
        values += (5.0 if random.random() < 0.1 else 0.05) * random.normal(size=items)
        shown = np.round(values) if ties else values
        assert (front.of(shown) == _largest(shown, count)).all()


def test_the_front_looks_at_all_items_where_few_reach_its_level() -> None:
    values = np.array([3.0, 2.0, 1.0, 0.0, 5.0])
    for level in (0.0, 2.5, 3.0, 4.0, 9.0):
        assert Front(2, level).of(values).tolist() == [True, False, False, False, True]


def test_the_front_looks_at_few_items() -> None:
    """Of 1000 items, in nine of ten slots and more."""
    random, seen = np.random.default_rng(0), 0
    front, values = Front(2), random.normal(size=1000)
    for _ in range(200):
        values += 0.001 * random.normal(size=1000)
        before = front.level
        front.of(values)
        seen += front.level != before
    assert seen < 20


def test_ftrl_plays_the_regularized_leader() -> None:
    """From all past points and gradients, as the formula says."""
    items, capacity, batch = 8, 3, 4
    weights = np.random.default_rng(0).random(items)
    instance = CacheInstance(items=items, capacity=capacity, weights=weights, batch=batch, multiplicity=batch)
    policy, ground = OptimisticFTRL(prediction=Recent(window=8), scale=0.7), CappedSimplex(items, capacity)
    state, requests = policy.init(instance, Streams(0)), zipf(items, 200)
    points, strengths = [ground.center], [weights.max()]
    total, errors, guess = np.zeros(items), 0.0, np.zeros(items)
    for number in range(0, 200, batch):
        part = requests[number : number + batch]
        np.testing.assert_allclose(
            state.fractional,
            ground.project((np.array(strengths) @ np.array(points) + total + guess) / sum(strengths)),
            atol=1e-9,
        )
        points.append(state.fractional)
        policy.run_block(state, part)
        gradient = weights * np.bincount(part, minlength=items)
        errors += ((gradient - guess) ** 2).sum()
        strengths.append(weights.max() + math.sqrt(2 * errors / 6) / 0.7 - sum(strengths))
        total, recent = total + gradient, requests[: number + batch][-8:]
        guess = weights * np.bincount(recent, minlength=items) * batch / len(recent)


@pytest.mark.parametrize("kind", KINDS)
def test_where_blocks_end_changes_nothing(kind: Any) -> None:
    requests, policy, results = zipf(60, 1200), kind(prediction=Successor()), []
    instance = CacheInstance(items=60, capacity=8, batch=12, multiplicity=12)
    for cuts in ([], [1, 11, 12, 13, 500], list(range(1, 1200))):
        state, sums = policy.init(instance, Streams(1)), np.zeros(4)
        for part in np.split(requests, cuts):
            o = policy.run_block(state, part)
            sums += [o.hits, o.inserted, o.prefetched, o.fractional]
        results.append((*np.round(sums, 8).tolist(), state.cached.tolist(), policy.bound(state)))
    assert results[0] == results[1] == results[2]


# ---------------------------------------------------------------------------------------------------------------------
# Regret


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_ftrl_regret_never_exceeds_its_bound(data: st.DataObject) -> None:
    """After every prefix, with any prediction, also against an adversary that asks for what has the least."""
    items, batch = data.draw(st.integers(2, 10)), data.draw(st.integers(1, 4))
    capacity, count = data.draw(st.integers(1, items - 1)), data.draw(st.integers(1, 40))
    weights = np.random.default_rng(count).random(items) if data.draw(st.booleans()) else None
    instance = CacheInstance(items=items, capacity=capacity, weights=weights, batch=batch, multiplicity=batch)
    prediction: Any = data.draw(st.sampled_from([Nothing(), LastSlot(), Recent(window=5), Successor()]))
    policy = OptimisticFTRL(prediction=prediction, scale=data.draw(st.sampled_from([0.2, 1.0, 5.0])))
    state, asked, gained = policy.init(instance, Streams(0)), list[int](), 0.0
    adaptive = data.draw(st.booleans())
    drawn = data.draw(st.lists(st.integers(0, items - 1), min_size=count, max_size=count))
    for item in drawn:
        asked.append(int(np.argmin(state.fractional)) if adaptive else item)
        gained += policy.run_block(state, np.array(asked[-1:])).fractional
        assert static(np.array(asked), items, capacity, weights) - gained <= policy.bound(state) + 1e-9


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("ended", [16, 18])
@pytest.mark.parametrize("weighted", [False, True])
def test_bounds_are_those_of_the_module(scale: float, ended: int, weighted: bool) -> None:
    """From all requests at once, as the formulas say; the last slot may be open."""
    items, capacity, requests = 9, 2, zipf(9, 18)[:ended]
    weights = np.random.default_rng(3).random(items) if weighted else np.ones(items)
    instance = CacheInstance(items=items, capacity=capacity, weights=weights, batch=4, multiplicity=4)
    rows = [weights * np.bincount(part, minlength=items) for part in np.split(requests, range(4, ended, 4))]
    errors = [row - guess for row, guess in zip(rows, [np.zeros(items), *rows], strict=False)]
    spread, normal = capacity * math.sqrt(2 * math.log(items * math.e / capacity)), math.sqrt(2 * math.pi)

    leader, sums, step, paid = OptimisticFTPL(scale=scale), 0.0, 0.0, 0.0
    for error in errors:
        norm, step = np.abs(error).sum(), scale * math.sqrt(sums / (spread * normal))
        paid += min(norm, norm**2 / (2 * step * normal)) if step else norm
        sums += norm**2
    if ended % 4 == 0:
        step = scale * math.sqrt(sums / (spread * normal))  # of the slot that comes next
    state = leader.init(instance, Streams(0))
    leader.run_block(state, requests)
    assert leader.bound(state) == pytest.approx(step * spread + paid)

    regularized, sums, paid = OptimisticFTRL(scale=scale), 0.0, 0.0
    width, strength = math.sqrt(2 * capacity), 0.0
    for error in errors:
        sums += error @ error
        strength = math.sqrt(2 * sums) / (scale * width)
        paid += min(width * np.linalg.norm(error), error @ error / (2 * (weights.max() + strength)))
    state = regularized.init(instance, Streams(0))
    regularized.run_block(state, requests)
    first = capacity * (1 - capacity / items) * weights.max()
    assert regularized.bound(state) == pytest.approx(first / 2 + width**2 * strength / 2 + paid)


@pytest.mark.parametrize("prediction", [Nothing(), LastSlot(), Successor()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", ["cyclic", "zipf", "weighted"])
def test_mean_regret_of_ftpl_is_below_its_bound(name: str, prediction: Prediction) -> None:
    """Mean over 40 seeds, at most the bound and 4 standard errors (false alarm below 1e-4)."""
    requests = np.arange(1500) % 40 if name == "cyclic" else zipf(40, 1500)
    weights = np.random.default_rng(1).random(40) if name == "weighted" else None
    instance = CacheInstance(items=40, capacity=5, weights=weights, batch=5, multiplicity=5)
    policy, best, regrets, bounds = OptimisticFTPL(prediction=prediction), static(requests, 40, 5, weights), [], []
    for seed in range(40):
        state = policy.init(instance, Streams(seed))
        regrets.append(best - policy.run_block(state, requests).gain)
        bounds.append(policy.bound(state))
    assert np.mean(regrets) <= np.mean(bounds) + 4 * np.std(regrets) / math.sqrt(40)
    assert np.ptp(bounds) < 1e-9  # known from the requests alone


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_predictions_promise_no_regret_and_worse_ones_more(kind: Any) -> None:
    requests = np.arange(2000) % 50
    instance, regrets, bounds = CacheInstance(items=50, capacity=10), [], []
    for accuracy in (1.0, 0.5, 0.0):
        policy = kind(prediction=Oracle(requests=requests, accuracy=accuracy))
        state = policy.init(instance, Streams(0))
        regrets.append(400 - policy.run_block(state, requests).fractional)
        bounds.append(policy.bound(state))
    assert regrets[0] <= bounds[0] <= 4  # D²/2 for FTRL, 0 for FTPL
    assert all(regret <= bound for regret, bound in zip(regrets, bounds, strict=True))
    assert bounds[0] < bounds[1] < bounds[2]


def test_one_slot_of_foresight_is_no_more_than_the_best_fixed_set() -> None:
    """In a cycle all items have been asked for equally often: whoever is inside stays, though the next is known."""
    requests, instance = np.arange(2000) % 50, CacheInstance(items=50, capacity=10)
    policy = OptimisticFTPL(prediction=Oracle(requests=requests))
    assert policy.run_block(policy.init(instance, Streams(0)), requests).hits == 400


def test_wrong_settings_are_refused() -> None:
    wrongs = (
        lambda: OptimisticFTPL(scale=0),
        lambda: OptimisticFTRL(scale=-1),
        lambda: OptimisticFTRL(rounding="none"),
        lambda: Recent(window=0),
    )
    for make in wrongs:
        with pytest.raises(RivageError):
            make()
    with pytest.raises(RivageError, match=r"accuracy is 1\.5"):
        Oracle(requests=np.zeros(1, np.int64), accuracy=1.5)

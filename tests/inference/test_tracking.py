"""INFIDA and demand that changes: regret over horizons, golden switching cases, memory that is never exceeded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.inference.blocks import Blocks
from rivage.inference.gain import Slot
from rivage.inference.infida import INFIDA, published
from rivage.inference.instance import Instance
from rivage.inference.policy import Seen
from rivage.inference.replay import require_feasible

from .conftest import alone, line

SHARE = 1 - 1 / math.e
SCARCE = np.array([[60.0, 20, 0, 0, 5, 2], [5, 2, 0, 0, 60, 20]])
AMPLE = np.array([[60.0, 20, 5, 2, 5, 2], [5, 2, 5, 2, 60, 20]])


def allocations(instance: Instance) -> list[ndarray]:
    """All that fit and to which nothing can be added."""
    choices = []
    for node in range(3):
        sizes, usable = instance.sizes[node], np.flatnonzero(instance.free[node])
        subsets = [
            s for k in range(6) for s in combinations(usable, k) if sizes[list(s)].sum() <= instance.budgets[node]
        ]
        choices.append([s for s in subsets if not any(set(s) < set(o) for o in subsets)])
    found = []
    for sets in product(*choices):
        loaded = instance.pinned.copy()
        for node, models in enumerate(sets):
            loaded[node, list(models)] = True
        found.append(loaded)
    return found


def play(policy: INFIDA, slots: Sequence[Slot], *, seed: int = 0) -> tuple[ndarray, ndarray, float]:
    """Gains of loaded models and of fractions, slot by slot, and the bound at the end."""
    instance = slots[0].instance
    state, gains = policy.init(instance, Streams(seed), slots=len(slots)), []
    for slot in slots:
        loaded = policy.act(state)
        require_feasible(instance, loaded)
        gains.append((slot.gain(loaded), slot.gain(policy.fractions(state))))
        state = policy.update(state, Seen(slot, loaded, slot.served(loaded)))
    integral, fractional = np.array(gains).T
    return integral, fractional, policy.bound(state)


def switching(instance: Instance, demands: ndarray, *, slots: int = 4000, period: int = 500) -> list[Slot]:
    """Demands that take turns."""
    kinds = [alone(instance, demand) for demand in demands]
    return [kinds[number // period % len(kinds)] for number in range(slots)]


def walk(instance: Instance, slots: int) -> list[Slot]:
    """Demand of each type wanders in [0, 60]; 10 slots at a time are alike."""
    rng = np.random.default_rng(0)
    demand, found = rng.uniform(0, 60, 6), list[Slot]()
    while len(found) < slots:
        demand = np.clip(demand + rng.normal(0, 4, 6), 0, 60)
        found += [alone(instance, np.round(demand))] * 10
    return found


def coins(instance: Instance, slots: int) -> list[Slot]:
    """Either demand, by chance: nothing to track."""
    kinds, rng = [alone(instance, demand) for demand in SCARCE], np.random.default_rng(1)
    return [kinds[side] for side in rng.integers(2, size=slots)]


def best_static(slots: Sequence[Slot]) -> float:
    """The largest sum of gains of any allocation, by brute force."""
    kinds, counts = {id(slot): slot for slot in slots}, Counter(map(id, slots))
    gains = [sum(counts[key] * slot.gain(x) for key, slot in kinds.items()) for x in allocations(slots[0].instance)]
    return float(max(gains))


@pytest.mark.parametrize("step", ["theory", "self_confident", "scale_free"])
@pytest.mark.parametrize("trace", ["periodic", "walk", "coins"])
def test_regret(trace: str, step: str) -> None:
    """The theorem, on traces that change with time, where INFIDA gains more than any fixed allocation, and without."""
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    policy = INFIDA(step=step, most=60.0)  # type: ignore[arg-type]
    slope, lost, bounds = published(instance, 60.0).slope, [], []
    traces = {"periodic": partial(switching, instance, SCARCE, period=50), "walk": partial(walk, instance), "coins": partial(coins, instance)}  # fmt: skip  # noqa: E501
    for horizon in (500, 1000, 2000, 4000) if step == "theory" else (500, 2000):
        slots = traces[trace](slots=horizon)
        integral, fractional, bound = play(policy, slots)
        best = best_static(slots)
        regret = best - fractional.sum()
        assert regret <= bound
        assert SHARE * best - integral.sum() <= slope * math.sqrt(horizon)
        assert integral.sum() > SHARE * best
        lost.append(max(0.0, regret / horizon))
        bounds.append(bound / horizon)
        if step == "theory":
            assert bound <= slope / SHARE * math.sqrt(horizon) / 2
    if trace == "coins" and step != "scale_free":  # a step that stays promises no rate
        assert all(a >= b for a, b in pairwise(lost))
    if step == "theory":
        assert bounds[-1] < 0.5 * bounds[0]  # of 8 times the slots: √8 = 2.8 times less is promised


def means(policy: INFIDA, slots: Sequence[Slot], seeds: int) -> tuple[ndarray, float]:
    """Mean gain of the loaded models for every seed, and of the fractions."""
    played = [play(policy, slots, seed=seed) for seed in range(seeds)]
    return np.array([integral.mean() for integral, _, _ in played]), float(played[0][1].mean())


@pytest.mark.parametrize(
    ("policy", "least"),
    [
        (INFIDA(step="constant", scale=1e-3), 1000),
        (INFIDA(step="constant", scale=3e-3), 1000),
        (INFIDA(step="constant", scale=3e-3, keep_draws=False), 1000),
        (INFIDA(), 1000),
    ],
)
def test_golden_switching(policy: INFIDA, least: float) -> None:
    """No fixed allocation has more than 877.5, the best of every phase 1119.0."""
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    slots = switching(instance, SCARCE)
    assert best_static(slots) / 4000 == pytest.approx(877.5)
    assert sum(best_static(slots[:500]) + best_static(slots[500:1000]) for _ in range(4)) / 4000 == pytest.approx(1119)
    integral, fractional = means(policy, slots, 4 if policy.keep_draws else 1)
    assert (integral.mean() if policy.keep_draws else integral.min()) >= least
    assert 1050 <= fractional <= 1119


@pytest.mark.parametrize("policy", [INFIDA(step="constant", scale=3e-3), INFIDA()])
def test_golden_switching_with_little_memory(policy: INFIDA) -> None:
    """Best fixed allocation 322, best of every phase 560."""
    instance = line(budgets=(1.0, 2.0, 1.0), keep_oversize=False)
    slots = switching(instance, SCARCE)
    assert best_static(slots) / 4000 == pytest.approx(322)
    integral, _ = means(policy, slots, 3)
    assert integral.min() >= 450


def test_where_one_allocation_serves_all_nothing_is_lost() -> None:
    """Best fixed allocation 1210. A kept draw may be unlucky, 1131 to 1210, so the mean is what counts."""
    instance = line(budgets=(2.0, 4.0, 5.0), keep_oversize=False)
    slots = switching(instance, AMPLE)
    best = best_static(slots) / 4000
    assert best == pytest.approx(1210)
    for keep in (True, False):
        integral, fractional = means(INFIDA(step="constant", scale=1e-3, keep_draws=keep), slots, 6 if keep else 2)
        assert fractional >= best
        assert integral.mean() >= 0.95 * best


def test_candidates_leave_less_to_chance() -> None:
    """Seen over 6 seeds: 1131 to 1210 with one draw, 1202 to 1210 with the best of eight."""
    instance = line(budgets=(2.0, 4.0, 5.0), keep_oversize=False)
    slots = switching(instance, AMPLE, slots=1000)
    one, eight = (means(INFIDA(candidates=count), slots, 6)[0] for count in (1, 8))
    assert eight.min() >= 0.98 * 1210
    assert eight.mean() > one.mean()
    assert np.ptp(eight) < 0.5 * np.ptp(one)


def test_rounding_ratio_on_the_golden_network(golden: Slot) -> None:
    """Mean of G over draws by G of random fractions: never below 1 − 1/e."""
    instance = line(keep_oversize=False)
    slot, blocks, rng = alone(instance), Blocks.of(instance), np.random.default_rng(3)
    ratios = []
    for _ in range(60):
        policy = INFIDA(step="constant", scale=1.0)
        state = policy.init(instance, Streams(0))
        policy.learn(state, blocks.sizes * rng.normal(0, rng.choice([0.5, 2.0]), len(blocks.place)))
        values = np.exp(state.logs)
        draws = [slot.gain(blocks.rounded(values, rng.random(len(values)), "paper")) for _ in range(150)]
        ratios.append(np.mean(draws) / slot.gain(blocks.matrix(values)))
    assert min(ratios) >= SHARE


def test_memory_beyond_the_budget_is_no_gain() -> None:
    """The cheating trap: models beyond a budget and draws that overflow show gains that no node could have."""
    honest, trap = (line(budgets=(1.0, 2.0, 1.0), keep_oversize=keep) for keep in (False, True))
    policy = INFIDA(step="constant", scale=3e-3, keep_draws=False)

    def apparent(instance: Instance, rounding: str) -> tuple[float, float]:
        state = (chosen := replace(policy, rounding=rounding)).init(instance, Streams(0))
        gains, over = [], 0.0
        for slot in switching(instance, SCARCE):
            gains.append(slot.gain(state.loaded))
            held = np.where(state.loaded, instance.sizes, 0.0).sum(axis=1)
            over = max(over, float((held - instance.budgets).max()))
            state = chosen.update(state, Seen(slot, state.loaded, slot.served(state.loaded)))
        return float(np.mean(gains)), over

    cheating, over = apparent(trap, "paper")
    assert cheating > 560  # the best of every phase
    assert over > 0
    strict, over = apparent(trap, "strict")
    assert over <= 0
    assert strict < 0.8 * cheating
    gained, over = apparent(honest, "strict")
    assert over <= 0
    assert gained >= 450

"""INFIDA: the golden line network to the digits, its promise against what happened, and what its settings do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float64
from numpy import ndarray

from rivage.convex.sets import Knapsack
from rivage.core.errors import ConfigError, ShapeError
from rivage.core.seeding import Streams
from rivage.inference import infida_kernel as kernel
from rivage.inference.blocks import Blocks, mass_of_best
from rivage.inference.gain import Slot
from rivage.inference.infida import INFIDA, InfidaState, published
from rivage.inference.policy import DELIVERY_POLICIES, DeliveryPolicy, Seen
from rivage.inference.replay import deliver, require_feasible
from rivage.online.references import reference_of

from .conftest import alone, line

BEST = 1790.0  # of all allocations of the golden network, by brute force
RELAXED = 1805.0  # of all fractions
SETTINGS: dict[str, INFIDA] = {
    "scale_free": INFIDA(),
    "decay": INFIDA(decay=True),
    "warmup": INFIDA(warmup=3),
    "constant": INFIDA(step="constant", scale=1e-3),
    "falling": INFIDA(step="constant", scale=1e-2, decay=True),
    "self_confident": INFIDA(step="self_confident"),
    "theory": INFIDA(step="theory", most=60.0),
    "waiting": INFIDA(refresh=7, stretch=1.3, longest=50),
    "fresh draws": INFIDA(keep_draws=False),
    "candidates": INFIDA(candidates=4),
    "mixing": INFIDA(mixing=0.01),
    "reserve": INFIDA(rounding="reserve"),
    "paper": INFIDA(rounding="paper"),
}


class Played:
    """Gains slot by slot, and the end."""

    def __init__(self, policy: INFIDA, slots: Sequence[Slot], *, seed: int = 0, horizon: int | None = None) -> None:
        self.instance = slots[0].instance
        state = policy.init(self.instance, Streams(seed), slots=horizon)
        self.gain, self.fractional, self.bounds, self.moves = [], [], [], 0
        before = self.instance.pinned
        for slot in slots:
            loaded = policy.act(state)
            if policy.rounding != "paper":
                require_feasible(self.instance, loaded)
            self.gain.append(slot.gain(loaded))
            self.fractional.append(slot.gain(policy.fractions(state)))
            self.moves += int((loaded & ~before).sum())
            before = loaded
            state = policy.update(state, Seen(slot, loaded, slot.served(loaded)))
            self.bounds.append(policy.bound(state))
        self.state: InfidaState = state


def test_one_step_of_the_golden_network(golden: Slot) -> None:
    policy = INFIDA(step="constant", scale=1e-3)
    state = policy.init(golden.instance, Streams(0))
    assert golden.gain(state.y) == pytest.approx(825.95238, abs=1e-5)
    policy.update(state, Seen(golden, state.loaded, golden.served(state.loaded)))
    assert golden.gain(state.y) == pytest.approx(980.572628, abs=1e-6)
    expected = [0.111612, 0.099736, 0.090471, 0.108313, 0.098991, 0.090471, 0.098991, 0.098991, 0.090471]
    assert state.y[0] == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_stationary_golden_network(golden: Slot, seed: int) -> None:
    """Seen over 12 seeds: 1716 to 1738."""
    played = Played(INFIDA(step="constant", scale=1e-3, keep_draws=False), [golden] * 500, seed=seed)
    assert np.mean(played.fractional[-100:]) >= 1800
    assert np.mean(played.gain) >= 1700


@pytest.mark.parametrize("policy", [INFIDA(step="constant", scale=1e-3), INFIDA()])
def test_stationary_golden_network_with_kept_draws(golden: Slot, policy: INFIDA) -> None:
    """A kept draw may be an unlucky one, 1683 to 1788 over 12 seeds; the mean of 8 is 1750 with a deviation of 12."""
    assert np.mean([np.mean(Played(policy, [golden] * 300, seed=seed).gain) for seed in range(8)]) >= 1700


@pytest.mark.parametrize("name", SETTINGS)
def test_regret_of_fractions_stays_below_the_bound(golden: Slot, name: str) -> None:
    policy = SETTINGS[name]
    played = Played(policy, [golden] * 300)
    factor = policy.factor(played.state)
    regret = factor * RELAXED * np.arange(1, 301) - np.cumsum(played.fractional)
    assert (regret <= np.array(played.bounds) + 1e-6).all()
    assert played.bounds[-1] < 0.25 * RELAXED * 300  # and it says something


def test_the_bound_is_that_of_the_worst_slots(golden: Slot) -> None:
    """What is seen adds no more than Σ R/η + η b q²/8, which grows linearly."""
    policy = INFIDA(step="constant", scale=1e-3)
    played = Played(policy, [golden] * 100)
    blocks = played.state.blocks
    slope = golden.slope(np.where(golden.instance.pinned, 1.0, 0.0)).gradient.ravel()[blocks.place]
    _, spread = kernel.reaches(blocks.first, blocks.sizes, slope)
    worst = blocks.reach(blocks.uniform).sum() / 1e-3 + 100 * 1e-3 * (blocks.budgets * spread**2).sum() / 8
    assert played.bounds[-1] < worst


def test_theory_promises_before_the_game_at_most_half_of_what_is_published(golden: Slot) -> None:
    slots, most = 400, 60.0
    policy, constants = INFIDA(step="theory", most=most), published(golden.instance, most)
    state = policy.init(golden.instance, Streams(0), slots=slots)
    squares = (state.blocks.budgets * state.pulls**2 / 4).sum()
    ours = np.sqrt(2 * state.reach * state.blocks.budgets * state.pulls**2 / 4 * slots).sum()
    assert ours <= math.sqrt(2 * state.reach.sum() * squares * slots) + 1e-9
    assert ours <= constants.slope / (1 - 1 / math.e) * math.sqrt(slots) / 2
    played = Played(policy, [golden] * slots, horizon=slots)
    assert played.bounds[-1] <= ours


def test_published_constants_by_hand(golden: Slot) -> None:
    """D = Σ b ln 21/b; |R| = 6, L = 60, s_min = 1; the longest way costs 39 + 200/3 more than the shortest, say."""
    constants = published(golden.instance, 60.0)
    assert constants.diameter == pytest.approx(sum(b * math.log(21 / b) for b in (2.0, 4.0, 5.0)))
    assert constants.convexity == pytest.approx(1 / (4 * 36))
    ranking = golden.instance.ranking
    apart = max(ranking.cost[b - 1] - ranking.cost[a] for a, b in zip(ranking.first, ranking.first[1:], strict=False))
    assert constants.sigma == pytest.approx(6 * 60 * apart)
    assert constants.step(500) < 1e-5  # far too timid, as the sheet says


def test_without_a_horizon_theory_begins_epochs(golden: Slot) -> None:
    policy = INFIDA(step="theory", most=60.0)
    state = policy.init(golden.instance, Streams(0))
    begun = []
    for number in range(1, 65):
        state = policy.update(state, Seen(golden, state.loaded, golden.served(state.loaded)))
        if np.array_equal(state.logs, state.start):
            begun.append(number + 1)
    assert begun == [2, 4, 8, 16, 32, 64]


def test_steps_do_not_depend_on_the_unit_of_cost_or_size(golden: Slot) -> None:
    cents = line(alpha=1.0)
    scaled = type(cents)(
        **{
            **{name: getattr(cents, name) for name in cents.__dataclass_fields__},
            "sizes": cents.sizes * 1024.0,
            "budgets": cents.budgets * 1024.0,
            "delays_ms": cents.delays_ms / 1000.0,
            "latency_ms": cents.latency_ms / 1000.0,
            "alpha": cents.alpha / 1000.0,
        }
    )
    for policy in (INFIDA(), INFIDA(step="self_confident"), INFIDA(step="theory", most=60.0)):
        a, b = (Played(policy, [alone(instance)] * 40, horizon=40) for instance in (cents, scaled))
        assert a.state.y == pytest.approx(b.state.y, rel=1e-6)


def test_what_fits_is_held() -> None:
    instance = line(budgets=(21.0, 4.0, 30.0))
    state = INFIDA().init(instance, Streams(0))
    assert state.blocks.node.tolist() == [1]
    assert state.loaded[[0, 2, 3]].all()
    everything = line(budgets=(21.0, 21.0, 21.0))
    policy = INFIDA(step="theory", most=60.0)
    played = Played(policy, [alone(everything)] * 3)
    assert played.state.loaded.all()
    assert played.bounds == [0.0] * 3


def test_step_is_the_projection_of_the_convex_package() -> None:
    instance, rng = line(keep_oversize=False), np.random.default_rng(0)
    blocks = Blocks.of(instance)
    logs = blocks.uniform
    for _ in range(50):
        slope, steps = rng.exponential(100.0, len(logs)) * (rng.random(len(logs)) < 0.5), rng.uniform(1e-4, 0.1, 3)
        moved, _ = kernel.ascend(blocks.first, blocks.sizes, blocks.budgets, logs, blocks.uniform, slope, steps, steps)
        for v, (a, b) in enumerate(zip(blocks.first[:-1], blocks.first[1:], strict=True)):
            exponents = logs[a:b] + steps[v] * slope[a:b] / blocks.sizes[a:b]
            h = np.exp(exponents - exponents.max())
            expected = Knapsack(blocks.sizes[a:b], float(blocks.budgets[v])).project_scaled(h)
            assert np.exp(moved[a:b]) == pytest.approx(expected, rel=1e-9, abs=1e-280)
        logs = moved


def test_the_most_valuable_size_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        sizes, worth = rng.uniform(1, 4, 6), rng.exponential(1.0, 6)
        budget = float(rng.uniform(0.5, sizes.sum()))
        fitting = [x for x in product([0, 1], repeat=6) if sizes @ x <= budget]
        assert mass_of_best(worth, sizes, budget) >= max(sizes * worth @ x for x in fitting) - 1e-12
        assert mass_of_best(np.ones(6), sizes, budget) == pytest.approx(budget)


def test_falling_steps_pull_back_to_the_start(golden: Slot) -> None:
    """Without gradients y moves by ρ alone: ln y = ρ ln y + (1 − ρ) ln y_1, scaled."""
    blocks = Blocks.of(golden.instance)
    rng, one = np.random.default_rng(2), np.ones(3)
    there, slope = (blocks.first, blocks.sizes, blocks.budgets), rng.exponential(50.0, len(blocks.place))
    start, _ = kernel.ascend(*there, blocks.uniform, blocks.uniform, slope, 0.001 * one, 0.001 * one)
    logs, _ = kernel.ascend(*there, start, start, slope[::-1].copy(), 0.01 * one, 0.01 * one)
    back, _ = kernel.ascend(*there, logs, start, 0 * slope, 1e-9 * one, 0.01 * one)
    assert back == pytest.approx(start, abs=1e-5)
    half, _ = kernel.ascend(*there, logs, start, 0 * slope, 0.005 * one, 0.01 * one)
    middle = half - (logs + start) / 2
    assert np.ptp(middle[half < 0][:5]) < 1e-9  # of the first node


def test_warm_start_begins_near_the_plan(golden: Slot) -> None:
    plan = golden.instance.pinned.copy()
    for node, models in enumerate(((7,), (1, 7), (0, 1, 4))):
        plan[node, list(models)] = True
    policy = INFIDA(step="self_confident")
    state = policy.init(golden.instance, Streams(0))
    policy.warm(state, plan, trust=0.9)
    assert golden.gain(state.y) > 1600
    assert (state.y[plan] > 0.85).all()
    regret = 0.0
    for _ in range(100):
        regret += RELAXED - golden.gain(policy.fractions(state))
        state = policy.update(state, Seen(golden, state.loaded, golden.served(state.loaded)))
        assert regret <= policy.bound(state) + 1e-6
    with pytest.raises(ShapeError, match="Start before the first slot"):
        policy.warm(state, plan)


def test_kept_draws_move_less_and_gain_as_much(golden: Slot) -> None:
    kept, fresh = (
        [Played(INFIDA(step="constant", scale=1e-3, keep_draws=keep), [golden] * 100, seed=s) for s in range(5)]
        for keep in (True, False)
    )
    assert 5 * sum(each.moves for each in kept) < sum(each.moves for each in fresh)
    assert np.mean([each.gain for each in kept]) > np.mean([each.gain for each in fresh]) - 50


def test_waiting_moves_less(golden: Slot) -> None:
    policies = (INFIDA(keep_draws=False, refresh=b) for b in (1, 10, 50))
    moves = [Played(policy, [golden] * 200).moves for policy in policies]
    assert moves[0] > 4 * moves[1] > 4 * moves[2]


def test_refresh_stretches(golden: Slot) -> None:
    policy = INFIDA(refresh=2, stretch=2.0, longest=8, keep_draws=False)
    state, drawn = policy.init(golden.instance, Streams(0)), []
    for number in range(1, 40):
        before = state.drawn
        state = policy.update(state, Seen(golden, state.loaded, golden.served(state.loaded)))
        if state.drawn is not before:
            drawn.append(number)
    assert drawn == [2, 6, 14, 22, 30, 38]


def test_same_seed_same_models(golden: Slot) -> None:
    a, b, other = (Played(INFIDA(keep_draws=False), [golden] * 30, seed=seed) for seed in (3, 3, 4))
    assert a.gain == b.gain != other.gain


def test_what_is_promised_for_draws(golden: Slot) -> None:
    instance = line(keep_oversize=False)
    share = 1 - 1 / math.e

    def promised(policy: INFIDA, network: Any) -> float | None:
        return policy.rounded_factor(policy.init(network, Streams(0)))

    assert promised(INFIDA(rounding="paper"), instance) == pytest.approx(share)
    assert promised(INFIDA(), instance) is None
    assert promised(INFIDA(rounding="paper"), golden.instance) is None  # with models larger than a budget
    assert promised(INFIDA(rounding="reserve"), instance) is None  # node 0 has nothing left to reserve
    wide = line(budgets=(5.0, 6.0, 8.0), keep_oversize=False)
    assert promised(INFIDA(rounding="reserve"), wide) == pytest.approx(share / 5)


def test_paper_rounding_is_refused_by_the_loop_when_it_overflows() -> None:
    instance: Any = line(keep_oversize=False)
    requests: Float64[ndarray, "types"] = np.array([60.0, 20, 30, 10, 15, 5])
    with pytest.raises(ConfigError, match="Round strictly"):
        deliver(INFIDA(rounding="paper", keep_draws=False), instance, [requests] * 200, streams=Streams(0))


def test_loop_with_contention() -> None:
    instance = line(keep_oversize=False)
    requests = np.array([60.0, 20, 30, 10, 15, 5])
    delivered = deliver(INFIDA(), instance, [requests] * 300, streams=Streams(0), every=100, keep=True)
    last = delivered.last
    assert last["bound"] is not None
    assert last["gain"] > 0.9 * last["fractional"]
    best = max(sum(slot.gain(loaded) for slot in delivered.slots) for loaded in _singles(instance))
    assert best - last["fractional"] <= last["bound"]


def _singles(instance: Any) -> list[Any]:
    rng, blocks = np.random.default_rng(0), Blocks.of(instance)
    return [blocks.rounded(np.exp(blocks.uniform), rng.random(len(blocks.place))) for _ in range(60)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 0.0},
        {"step": "bold"},
        {"rounding": "up"},
        {"refresh": 0},
        {"stretch": 0.5},
        {"refresh": 10, "longest": 5},
        {"step": "theory"},
        {"step": "self_confident", "decay": True},
        {"warmup": 0},
        {"most": 0.0},
        {"candidates": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        INFIDA(**wrong)


def test_it_is_registered_and_cited() -> None:
    assert DELIVERY_POLICIES.get("infida") is INFIDA
    assert isinstance(INFIDA(), DeliveryPolicy)
    reference = reference_of(INFIDA())
    assert reference is not None
    assert reference["arxiv"] == "2105.02510"

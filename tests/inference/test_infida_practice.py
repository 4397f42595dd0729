"""What INFIDA has beside the publication: fractions that never forget for good, and the best of several draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.inference.blocks import Blocks
from rivage.inference.gain import Slot, contend
from rivage.inference.infida import INFIDA
from rivage.inference.infida_by_messages import InfidaByMessages
from rivage.inference.policy import Seen
from rivage.inference.replay import deliver
from rivage.testing.strategies import delivery_network

from .conftest import alone, line
from .test_tracking import SCARCE, best_static, play, switching

seeds = st.integers(0, 2**32 - 1)


def test_mixing_by_hand(golden: Slot) -> None:
    """One step: (1 − ε) y + ε y_1, and the bound grows by Σ b ln 1/(1 − ε) over η."""
    share, step = 0.05, 1e-3
    plain, mixed = (INFIDA(step="constant", scale=step, mixing=each) for each in (0.0, share))
    one, other = (policy.init(golden.instance, Streams(0)) for policy in (plain, mixed))
    start, blocks = one.y, one.blocks
    for policy, state in ((plain, one), (mixed, other)):
        policy.update(state, Seen(golden, state.loaded, golden.served(state.loaded)))
    assert other.y == pytest.approx((1 - share) * one.y + share * start, rel=1e-12)
    grown = blocks.budgets.sum() * math.log(1 / (1 - share)) / step
    assert mixed.bound(other) - plain.bound(one) == pytest.approx(grown)
    held = (blocks.sizes * np.exp(other.logs)).sum()
    assert held == pytest.approx(blocks.budgets.sum())


@pytest.mark.parametrize("step", ["scale_free", "constant", "self_confident"])
def test_the_bound_holds_with_mixing(step: str) -> None:
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    scale = 1e-2 if step == "constant" else 3.0
    for decay in (False, True) if step != "self_confident" else (False,):
        policy = INFIDA(step=step, scale=scale, decay=decay, mixing=0.01)  # type: ignore[arg-type]
        slots = switching(instance, SCARCE, slots=300, period=50)
        _, fractional, bound = play(policy, slots)
        assert best_static(slots) - fractional.sum() <= bound


def test_mixing_brings_back_what_was_useless_for_long() -> None:
    """Gain of the fractions in the 20 slots after demand has turned, 400 slots after it was last so."""
    instance = line(budgets=(2.0, 2.0, 2.0), keep_oversize=False)
    slots = switching(instance, SCARCE, slots=820, period=400)
    forgets, mixes = (play(INFIDA(mixing=share), slots)[1] for share in (0.0, 1e-3))
    assert mixes[800:].mean() > 1.2 * forgets[800:].mean()
    assert mixes[:400].mean() > 0.98 * forgets[:400].mean()


@settings(max_examples=20)
@given(seeds)
def test_nodes_that_mix_by_messages_do_what_a_center_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=6, tasks=2, variants=4, types=5)
    batches = [rng.integers(0, 30, instance.types).astype(float) for _ in range(15)]
    policy = INFIDA(mixing=0.01)
    central, apart = (
        deliver(each, instance, batches, streams=Streams(seed)) for each in (policy, InfidaByMessages(policy=policy))
    )
    fractions = np.array([agent.y for agent in apart.state.agents])
    assert fractions == pytest.approx(central.state.y, rel=1e-7, abs=1e-12)


@settings(max_examples=20)
@given(seeds)
def test_the_best_draw_is_loaded_or_nothing_changes(seed: int) -> None:
    """By the gain of every draw in the slot."""
    rng = np.random.default_rng(seed)
    instance = delivery_network(rng, nodes=6, tasks=2, variants=4, types=5)
    policy, blocks = INFIDA(candidates=5), Blocks.of(instance)
    state = policy.init(instance, Streams(seed))
    for _ in range(10):
        before = state.loaded
        slot, served = contend(instance, rng.integers(0, 30, instance.types).astype(float), before)
        state = policy.update(state, Seen(slot, before, served))
        found = [slot.gain(blocks.rounded(np.exp(state.logs), draws)) for draws in state.draws]
        if (state.loaded == before).all():
            assert max(found) <= slot.gain(before) * 1.005 + 1e-6
        else:
            assert slot.gain(state.loaded) == pytest.approx(max(found), abs=1e-6)
            assert max(found) > slot.gain(before)


def test_nothing_is_promised_for_the_best_of_several_draws() -> None:
    wide = line(budgets=(5.0, 6.0, 8.0), keep_oversize=False)
    policies = (INFIDA(rounding="reserve", candidates=count) for count in (1, 2))
    one, two = (policy.rounded_factor(policy.init(wide, Streams(0))) for policy in policies)
    assert one is not None
    assert two is None


def test_candidates_move_less() -> None:
    """Demand that stays, steps that are large, capacities that contend: chance alone moves models."""
    instance = line(keep_oversize=False)
    requests = alone(instance).requests
    rng = np.random.default_rng(0)
    batches = [rng.poisson(requests).astype(float) for _ in range(200)]
    one, eight = (
        deliver(INFIDA(scale=10.0, candidates=count), instance, batches, streams=Streams(1), every=200).last
        for count in (1, 8)
    )
    assert eight["moved"] < 0.5 * one["moved"]
    assert eight["gain"] > one["gain"]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_mixing_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match="Give a share"):
        INFIDA(mixing=share)

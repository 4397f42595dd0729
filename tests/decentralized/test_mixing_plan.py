"""Plans: which weights a method gets over which overlay, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.decentralized import Overlay, Silos, matcha_law
from rivage.decentralized.designers import MatchaDraws, Ring, Star
from rivage.decentralized.dpsgd import DPSGD
from rivage.decentralized.exact_diffusion import ExactDiffusion
from rivage.decentralized.family_designers import Sequence
from rivage.decentralized.mixing_plan import Cycled, Drawn, Exact, arcs_of, balanced, fixed
from rivage.decentralized.planning import plan_of
from rivage.decentralized.push_sum import PushSum
from rivage.graphs.mixing import contraction

LOPSIDED = [(0, 1), (1, 2), (2, 3), (3, 0), (2, 0)]


def test_an_undirected_ring_weighs_with_thirds(square_of: Callable[..., Silos]) -> None:
    links = [(k, (k + 1) % 5) for k in range(5)]
    plan = fixed(Overlay.links(square_of(0, 5), links))
    expected = (np.eye(5) + np.roll(np.eye(5), 1, 0) + np.roll(np.eye(5), -1, 0)) / 3
    assert np.allclose(plan.weights(7), expected, atol=1e-15)
    assert {tuple(arc) for arc in plan.arcs(3).tolist()} == {*links, *((b, a) for a, b in links)}


def test_a_directed_ring_takes_half_of_its_predecessor(square_of: Callable[..., Silos]) -> None:
    weights = fixed(Overlay.ring(square_of(0, 4), [2, 0, 3, 1])).weights(0)
    for receiver, sender in ((0, 2), (3, 0), (1, 3), (2, 1)):
        assert weights[receiver, receiver] == weights[receiver, sender] == 0.5
    assert weights.sum() == 4


def test_faster_weights_are_faster(square_of: Callable[..., Silos]) -> None:
    overlay = Overlay.links(square_of(1, 6), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (1, 4)])
    rho = {
        how: contraction(fixed(overlay, weighting=how).weights(0))
        for how in ("metropolis", "best_constant", "fmmc", "fdla")
    }  # type: ignore[arg-type]
    assert rho["fdla"] <= rho["fmmc"] + 1e-9
    assert rho["fmmc"] <= rho["metropolis"] + 1e-9
    assert rho["fdla"] <= rho["best_constant"] + 1e-9


def test_a_lopsided_overlay_gets_balanced_weights_or_push_sum(square_of: Callable[..., Silos]) -> None:
    overlay = Overlay.of(square_of(0, 4), LOPSIDED, "lopsided")
    weights = plan_of(DPSGD(), overlay).weights(0)
    assert np.allclose(weights.sum(axis=0), 1, rtol=0, atol=1e-12)
    assert np.allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.array_equal(weights != 0, (overlay.adjacency.T != 0) | np.eye(4, dtype=bool))
    weights = plan_of(PushSum(), overlay).weights(0)
    assert np.allclose(weights.sum(axis=0), 1)
    assert not np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights[[2, 3, 0], 2], 1 / 3), "silo 2 splits among itself and two others"


def test_balanced_weights_worked_out_by_hand() -> None:
    """0 → 1 → 2 → 0 and 1 → 0. Each arc is on a circuit; r_i c_j: products over 0 ⇄ 1 and over all three agree."""
    adjacency = np.array([[0, 1, 0], [1, 0, 1], [1, 0, 0]])
    weights = balanced(adjacency)
    a, b, c = weights[1, 0], weights[2, 1], weights[0, 1]  # of the arcs 0 → 1, 1 → 2, 1 → 0
    assert weights[0, 2] == pytest.approx(b), "what enters 2 leaves it"
    assert a == pytest.approx(b + c)
    assert weights[0, 0] == pytest.approx(1 - a)
    one, two = weights[0, 0] * weights[1, 1], weights[0, 1] * weights[1, 0]
    assert one == pytest.approx(two), "(r_0 c_0)(r_1 c_1) = (r_0 c_1)(r_1 c_0)"


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 2**31), share=st.floats(0, 0.6))
def test_every_strong_overlay_has_balanced_weights(count: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    sends = np.maximum(np.roll(np.eye(count), 1, axis=1), rng.random((count, count)) < share)
    np.fill_diagonal(sends, 0)
    weights = balanced(sends)
    assert np.abs(weights.sum(axis=0) - 1).max() < 1e-12
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-12
    assert np.array_equal(weights > 0, (sends.T != 0) | np.eye(count, dtype=bool))


def test_a_star_is_the_exact_mean_in_two_transfers(square_of: Callable[..., Silos]) -> None:
    overlay = Star(hub="s2").design(square_of(0, 4)).overlay
    plan = plan_of(DPSGD(), overlay, 2)
    assert isinstance(plan, Exact)
    assert np.array_equal(plan.weights(0), np.full((4, 4), 0.25))
    assert plan.arcs(0).tolist() == [[0, 2], [1, 2], [3, 2], [2, 0], [2, 1], [2, 3]]
    assert plan_of(ExactDiffusion(), overlay, 2).hub == 2


def test_matcha_draws_by_seed_and_round_alone(square_of: Callable[..., Silos]) -> None:
    silos = square_of(0, 6)
    overlay = MatchaDraws().design(silos).overlay
    method = DPSGD(overlay=MatchaDraws())
    one, again, other = (plan_of(method, overlay, seed=seed) for seed in (5, 5, 6))
    assert isinstance(one, Drawn)
    rounds = range(40)
    assert all(np.array_equal(one.weights(k), again.weights(k)) for k in reversed(rounds))
    assert any(not np.array_equal(one.weights(k), other.weights(k)) for k in rounds)
    assert any(not np.array_equal(one.weights(k), one.weights(k + 1)) for k in rounds)
    for k in rounds:
        weights, arcs = one.weights(k), {tuple(arc) for arc in one.arcs(k).tolist()}
        assert np.allclose(weights.sum(axis=0), 1)
        assert np.array_equal(weights, weights.T)
        assert arcs == {tuple(arc) for arc in arcs_of(weights).tolist()}


def test_the_mean_square_of_what_matcha_draws_is_that_of_its_law(square_of: Callable[..., Silos]) -> None:
    """4,000 draws: the largest of 36 entries is off by more than 0.03 with probability below 1e-6."""
    law = matcha_law(square_of(0, 6))
    plan = Drawn(law=law, seed=0)
    mean = np.mean([plan.weights(k) @ plan.weights(k) for k in range(4_000)], axis=0)
    assert np.abs(mean - law.mean_square()).max() < 0.03


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 9), seed=st.integers(0, 99))
def test_arcs_are_where_weights_are(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.random((count, count)) * (rng.random((count, count)) < 0.4)
    plan = Cycled(matrices=[weights, np.eye(count)])
    assert {(j, i) for i in range(count) for j in range(count) if i != j and weights[i, j]} == {
        tuple(arc) for arc in plan.arcs(2).tolist()
    }
    assert plan.arcs(1).shape == (0, 2)
    assert plan.silos == count


@pytest.mark.parametrize(
    ("overlay", "told"), [(MatchaDraws(), "changes"), (Sequence(), "changes"), (Ring(), "receive")]
)
def test_exact_diffusion_refuses_what_is_not_symmetric_for_good(
    square_of: Callable[..., Silos], overlay: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_of(ExactDiffusion(overlay=overlay), overlay.design(square_of(0, 5)).overlay)


def test_designers_with_a_plan_of_their_own_are_asked_for_it(square_of: Callable[..., Silos]) -> None:
    overlay = Sequence(family="base").design(square_of(0, 5)).overlay
    plan = plan_of(DPSGD(overlay=Sequence(family="base")), overlay)
    assert isinstance(plan, Cycled)
    assert plan.silos == 5

"""OHF and OSF: the saddle form, the sheet's toy, what they become in special cases, and invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from rivage.convex.schedules import SelfConfident
from rivage.convex.sets import Box, CappedSimplex, Product, Simplex
from rivage.core.errors import RivageError
from rivage.online.fair_game import play_fair
from rivage.online.fairness import OHF, OSF, AlphaFairness, FairInstance
from rivage.online.utilities import CappedSums, Mixture, Seen, Stacked, mean_utilities, stacked_utilities

ALPHAS = [0.25, 0.5, 1.0, 2.0, 3.0]


def linear(rows: list[list[float]], offset: list[float]) -> CappedSums:
    count = len(rows)
    return CappedSums(
        rows=np.array(rows, float),
        owner=np.arange(count),
        weights=np.ones(count),
        caps=np.full(count, np.inf),
        agents=count,
        offset=np.array(offset, float),
    )


def random_terms(rng: np.random.Generator, agents: int, n: int, terms: int = 12) -> CappedSums:
    """Non-negative rows and finite caps: utilities between 0.1 and 1."""
    owner = np.concatenate([np.arange(agents), rng.integers(0, agents, terms)])
    raw = CappedSums(
        rows=rng.random((len(owner), n)) * (rng.random((len(owner), n)) < 0.6),
        owner=owner,
        weights=rng.random(len(owner)),
        caps=rng.random(len(owner)),
        agents=agents,
        offset=np.full(agents, 0.1),
    )
    most = np.bincount(owner, raw.weights * raw.caps, agents).max()
    return raw.with_weights(0.9 * raw.weights / most)


TOY = (linear([[1.0], [-1.0]], [1.0, 1.0]), linear([[1.0], [1.0]], [1.0, 1.0]))
TOY_INSTANCE = FairInstance(set=Box(np.zeros(1), np.array([0.9])), agents=2, least=0.1, most=2.0)


# --- welfare and its saddle form --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_welfare_is_the_least_saddle_value(alpha: float) -> None:
    """online-learning.md C4: min over λ of Ψ = F_α, at λ = u^(−α); also found without that formula."""
    fairness = AlphaFairness(alpha)
    for u in np.random.default_rng(0).uniform(0.05, 2.0, (50, 3)):
        multipliers = fairness.weights(u)
        assert fairness.saddle(multipliers, u) == pytest.approx(fairness.value(u), abs=1e-10)
        least = 0.0
        for one in u:
            found = minimize_scalar(
                lambda log, one=one: fairness.saddle(np.exp(np.array([log])), np.array([one])),
                bracket=(-0.5, 0.5),
                options={"xtol": 1e-12},
            )
            least += float(found.fun)
        assert least == pytest.approx(fairness.value(u), abs=1e-10)
        np.testing.assert_allclose(fairness.target(multipliers), u, rtol=1e-12)


@given(
    st.sampled_from([0.0, *ALPHAS]),
    st.lists(st.floats(0.01, 3.0), min_size=2, max_size=4),
    st.lists(st.floats(0.05, 20.0), min_size=4, max_size=4),
)
def test_saddle_values_are_never_below_the_welfare(alpha: float, utilities: list[float], weights: list[float]) -> None:
    fairness, u = AlphaFairness(alpha), np.array(utilities)
    multipliers = np.ones(len(u)) if alpha == 0 else np.array(weights[: len(u)])
    assert fairness.saddle(multipliers, u) >= fairness.value(u) - 1e-9 * (1 + abs(fairness.value(u)))


def test_closed_forms_of_the_welfare() -> None:
    u = np.array([0.5, 2.0])
    assert AlphaFairness(0.0).value(u) == pytest.approx(0.5)
    assert AlphaFairness(1.0).value(u) == pytest.approx(0.0)
    assert AlphaFairness(2.0).value(u) == pytest.approx(-1.0 + 0.5)
    assert AlphaFairness(3.0).value(u) == pytest.approx((4 - 1) / -2 + (0.25 - 1) / -2)
    near, exact = AlphaFairness(1 + 1e-9), AlphaFairness(1.0)
    assert near.value(u) == pytest.approx(exact.value(u), abs=1e-8)
    assert near.conjugate(u) == pytest.approx(exact.conjugate(u), abs=1e-8)


def test_nothing_is_worth_minus_infinity_only_where_the_paper_says_so() -> None:
    assert AlphaFairness(1.0).value(np.array([0.0, 1.0])) == -np.inf
    assert AlphaFairness(3.0).value(np.array([0.0, 1.0])) == -np.inf
    assert AlphaFairness(0.5).value(np.array([0.0, 1.0])) == pytest.approx(-2.0)
    assert AlphaFairness(0.0).value(np.array([-0.1, 1.0])) == -np.inf
    assert AlphaFairness(0.0).conjugate(np.array([1.0, 1.1])) == np.inf


# --- utilities --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3]))
def test_supergradients(seed: int, agents: int) -> None:
    """u(y) <= u(x) + g (y − x), for capped sums and for what is made of them, at points with and without kinks."""
    rng = np.random.default_rng(seed)
    parts = tuple(random_terms(rng, agents, 4) for _ in range(2))
    x, y = rng.random(4), rng.random(4)
    if seed % 3 == 0:  # a kink: the first row exactly at its cap
        row = parts[0].rows.toarray()[0]
        x = x * parts[0].caps[0] / max(row @ x, 1e-9)
    for utilities in (parts[0], Mixture(parts=parts), Stacked(parts=parts), mean_utilities(parts)):
        here, there = utilities.at(x), utilities.at(y)
        assert (there.values <= here.values + here.gradients @ (y - x) + 1e-12).all()


def test_means_and_stacks_of_capped_sums_are_those_of_any_utilities() -> None:
    rng = np.random.default_rng(3)
    parts, shares, x = tuple(random_terms(rng, 3, 5) for _ in range(3)), np.array([0.2, 0.5, 0.3]), rng.random(5)
    for fast, plain in (
        (mean_utilities(parts, shares), Mixture(parts=parts, shares=shares)),
        (mean_utilities(parts), Mixture(parts=parts)),
        (stacked_utilities(parts), Stacked(parts=parts)),
    ):
        assert isinstance(fast, CappedSums)
        for one, other in zip(fast.at(x), plain.at(x), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-14)
    assert isinstance(mean_utilities([*parts, Mixture(parts=parts)]), Mixture)


# --- the toy of the sheet ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dual_step", ["paper", "theory"])
def test_toy_horizon_fair(dual_step: str) -> None:
    """online-learning.md C1: the horizon-fair allocation is all of it, x = 0.9, with mean utilities (1.9, 1)."""
    x: list[float] = []
    played = play_fair(
        OHF(alpha=1.0, dual_step=dual_step),  # type: ignore[arg-type]
        TOY_INSTANCE,
        (TOY[t % 2] for t in range(20_000)),
        observe=lambda state, seen: x.append(state.x[0]),
    )
    assert np.mean(x[-200:]) >= 0.895
    np.testing.assert_allclose(played.average, [1.9, 1.0], atol=0.005)


@pytest.mark.slow
def test_toy_slot_fair() -> None:
    """C1: the slot-fair allocation is x = 1/2."""
    x: list[float] = []
    slots = (TOY[t % 2] for t in range(20_000))
    play_fair(OSF(alpha=1.0), TOY_INSTANCE, slots, observe=lambda state, seen: x.append(state.x[0]))
    assert np.mean(x[-2000:]) == pytest.approx(0.5, abs=0.01)


def test_slot_fairness_over_a_whole_period_is_horizon_fairness_of_the_toy() -> None:
    played = play_fair(OSF(alpha=1.0, period=2), TOY_INSTANCE, (TOY[t % 2] for t in range(2000)))
    assert played.state.x[0] == pytest.approx(0.9)


# --- special cases ----------------------------------------------------------------------------------------------------

INSTANCE = FairInstance(set=Product((CappedSimplex(4, 2), Simplex(3))), agents=3)


def some_slots(seed: int, count: int, agents: int = 3, n: int = 7) -> list[CappedSums]:
    rng = np.random.default_rng(seed)
    return [random_terms(rng, agents, n) for _ in range(count)]


def ascent(instance: FairInstance, slots: list[CappedSums], weights: np.ndarray) -> np.ndarray:
    """Gradient ascent on a weighted sum with the AdaGrad-norm step, written out."""
    x, total = instance.set.center, 0.0
    for slot in slots:
        pull = weights @ slot.at(x).gradients
        total += float(pull @ pull)
        x = instance.set.project(x + np.sqrt(instance.set.diameter_squared / total) * pull) if total else x
    return x


@pytest.mark.parametrize("policy", [OHF(alpha=0.0), OSF(alpha=0.0)])
def test_without_inequality_aversion_it_is_gradient_ascent_on_the_sum(policy: OHF | OSF) -> None:
    slots = some_slots(1, 60)
    played = play_fair(policy, INSTANCE, slots)
    np.testing.assert_array_equal(played.multipliers, 1.0)
    np.testing.assert_allclose(played.state.x, ascent(INSTANCE, slots, np.ones(3)), atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_single_agent_has_nobody_to_be_fair_to(alpha: float) -> None:
    """Whatever α, one agent ends up where plain gradient ascent does: at the best allocation, whose weight is 1.

    Only the length of the steps depends on the weight, which drifts to u^(−α); for α < 1 with the step of the theory:
    of the paper's code, 25 000/t here, still throws the weight from end to end.
    """
    slot = CappedSums(
        rows=np.eye(4), owner=np.zeros(4, int), weights=np.array([0.4, 0.3, 0.2, 0.1]), caps=np.ones(4), agents=1
    )
    instance = FairInstance(set=CappedSimplex(4, 2), agents=1)
    policy = OHF(alpha=alpha, dual_step="theory" if alpha < 1 else "paper")
    played = play_fair(policy, instance, [slot] * 400)
    np.testing.assert_allclose(played.state.x, [1, 1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(ascent(instance, [slot] * 400, np.ones(1)), [1, 1, 0, 0], atol=1e-9)
    assert played.multipliers[-1, 0] == pytest.approx(0.7**-alpha, rel=0.05)


def test_one_agent_of_constant_weight_is_plain_ascent() -> None:
    """With u_min = u_max in all but name the weight cannot move: the same path, whatever it is, since steps are
    scale-free."""
    slots = some_slots(5, 40, agents=1)
    instance = FairInstance(set=INSTANCE.set, agents=1, least=0.5, most=0.5 + 1e-13)
    played = play_fair(OHF(alpha=2.0), instance, slots)
    np.testing.assert_allclose(played.state.x, ascent(instance, slots, np.ones(1)), atol=1e-9)


@pytest.mark.parametrize("norms", ["sum", "separate"])
@pytest.mark.parametrize("make", [OHF, OSF])
def test_who_comes_first_does_not_matter(make: type, norms: str) -> None:
    slots, order = some_slots(2, 50), np.array([2, 0, 1])
    moved = [
        CappedSums(rows=s.rows, owner=order[s.owner], weights=s.weights, caps=s.caps, agents=3, offset=np.full(3, 0.1))
        for s in slots
    ]
    one, other = (play_fair(make(alpha=2.0, norms=norms), INSTANCE, game) for game in (slots, moved))
    np.testing.assert_allclose(one.state.x, other.state.x, atol=1e-9)
    np.testing.assert_allclose(one.utilities, other.utilities[:, order], atol=1e-9)
    np.testing.assert_allclose(one.multipliers, other.multipliers[:, order], rtol=1e-9)


def test_norms_agree_for_agents_on_disjoint_coordinates() -> None:
    slots = [linear([[1, 0, 0, 0, 0, 0, 0], [0, 0.3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.9, 0, 0]], [0.1] * 3)] * 30
    one, other = (play_fair(OHF(alpha=2.0, norms=norms), INSTANCE, slots) for norms in ("sum", "separate"))  # type: ignore[arg-type]
    np.testing.assert_allclose(one.utilities, other.utilities, atol=1e-13)


@pytest.mark.parametrize("norms", ["sum", "separate"])
@pytest.mark.parametrize(("alpha", "power"), [(0.5, 3.0), (2.0, 1.5), (3.0, 4 / 3)])
def test_both_steps_start_from_the_same_slot(alpha: float, power: float, norms: str) -> None:
    """As the module writes them, one after the other: x moves with the weights that were, and so do the weights."""
    slots, x, weights, total = some_slots(11, 30), INSTANCE.set.center, np.ones(3), 0.0
    played = play_fair(OHF(alpha=alpha, norms=norms), INSTANCE, slots)  # type: ignore[arg-type]
    for t, slot in enumerate(slots, 1):
        np.testing.assert_allclose(played.multipliers[t - 1], weights, rtol=1e-9)
        seen = slot.at(x)
        np.testing.assert_allclose(played.utilities[t - 1], seen.values, atol=1e-12)
        pulls = weights[:, None] * seen.gradients
        total += (pulls**2).sum() if norms == "separate" else (pulls.sum(axis=0) ** 2).sum()
        x = INSTANCE.set.project(x + np.sqrt(INSTANCE.set.diameter_squared / total) * pulls.sum(axis=0))
        down = alpha / 0.1**power / t * (seen.values - weights ** (-1 / alpha))
        weights = np.clip(weights - down, 1.0, 0.1**-alpha)
    assert len(np.unique(played.multipliers)) > 5, "otherwise the weights do not move"


def test_dual_steps_agree_at_one_and_only_there() -> None:
    paper, theory = (OHF(alpha=1.0, dual_step=s) for s in ("paper", "theory"))  # type: ignore[arg-type]
    assert paper.dual_rate(INSTANCE) == theory.dual_rate(INSTANCE) == pytest.approx(100.0)
    paper, theory = (OHF(alpha=3.0, dual_step=s) for s in ("paper", "theory"))  # type: ignore[arg-type]
    assert paper.dual_rate(INSTANCE) == pytest.approx(3 / 0.1 ** (4 / 3))
    assert theory.dual_rate(INSTANCE) == pytest.approx(3 / 0.1**4)


@pytest.mark.parametrize("policy", [OHF(alpha=2.0), OHF(alpha=1.0, norms="separate"), OSF(alpha=1.0, period=7)])
def test_a_game_in_parts_is_the_same_game(policy: OHF | OSF) -> None:
    """Slot by slot, in blocks, or all at once: equal to the last bit."""
    slots = some_slots(4, 60)
    whole = play_fair(policy, INSTANCE, slots)
    for cuts in (range(1, 60), [5, 6, 40]):
        state, utilities, multipliers = None, [], []
        for part in np.split(np.arange(60), list(cuts)):
            played = play_fair(policy, INSTANCE, [slots[t] for t in part], state=state)
            state = played.state
            utilities.append(played.utilities)
            multipliers.append(played.multipliers)
        np.testing.assert_array_equal(np.concatenate(utilities), whole.utilities)
        np.testing.assert_array_equal(np.concatenate(multipliers), whole.multipliers)
        np.testing.assert_array_equal(state.x, whole.state.x)
        assert played.squares == whole.squares


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from(ALPHAS), st.sampled_from(["paper", "theory"]), st.booleans())
def test_multipliers_and_allocations_stay_where_they_may_be(seed: int, alpha: float, step: str, middle: bool) -> None:
    """Also with utilities far outside of the range, which are counted."""
    slots = some_slots(seed, 30)
    if seed % 2:
        slots = [linear([[9.0] * 7, [-9.0] * 7, [0.1] * 7], [0.0, 0.0, 0.0]), *slots]
    policy = OHF(alpha=alpha, dual_step=step, start="middle" if middle else "one")  # type: ignore[arg-type]
    low, high = INSTANCE.box(alpha)

    def check(state, seen: Seen) -> None:  # type: ignore[no-untyped-def]
        assert INSTANCE.set.contains(state.x)
        assert (state.multipliers >= low).all()
        assert (state.multipliers <= high).all()

    played = play_fair(policy, INSTANCE, slots, observe=check)
    outside = (played.utilities < 0.1 - 1e-9) | (played.utilities > 1 + 1e-9)
    assert played.state.outside == outside.sum()
    assert bool(seed % 2) <= bool(outside.any())


def test_disagreement_points_are_taken_off() -> None:
    """Fairness of u − d is that of utilities that are smaller by d from the beginning."""
    slots, points = some_slots(6, 40), np.array([0.05, 0.0, 0.02])
    less = [
        CappedSums(rows=s.rows, owner=s.owner, weights=s.weights, caps=s.caps, agents=3, offset=s.offset - points)
        for s in slots
    ]
    instance = FairInstance(set=INSTANCE.set, agents=3, disagreement=points)
    for policy in (OHF(alpha=2.0), OSF(alpha=2.0)):
        with_points, without = play_fair(policy, instance, slots), play_fair(policy, INSTANCE, less)
        np.testing.assert_allclose(with_points.state.x, without.state.x, atol=1e-12)
        np.testing.assert_allclose(with_points.utilities - points, without.utilities, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_a_period_of_equal_slots_is_one_slot(alpha: float) -> None:
    """Means are taken, not sums: the same steps with the same weights, each a period long."""
    kinds = some_slots(9, 12)
    long = play_fair(OSF(alpha=alpha, period=3), INSTANCE, [slot for slot in kinds for _ in range(3)])
    short = play_fair(OSF(alpha=alpha), INSTANCE, kinds)
    np.testing.assert_allclose(long.utilities[::3], short.utilities, atol=1e-12)
    np.testing.assert_allclose(long.multipliers[::3], short.multipliers, rtol=1e-12)


def test_one_step_by_hand() -> None:
    """Two agents on a segment: x from (0, 0), λ = (1, 1), u = (x1 + .2, .5 x2 + .4)."""
    slot = linear([[1.0, 0.0], [0.0, 0.5]], [0.2, 0.4])
    instance = FairInstance(set=Box(np.zeros(2), np.ones(2)), agents=2)
    played = play_fair(OHF(alpha=1.0), instance, [slot, slot])
    length = np.sqrt(2.0) / np.sqrt(1.25)
    first = np.clip(length * np.array([1.0, 0.5]), 0, 1)
    np.testing.assert_allclose(played.utilities[1], [first[0] + 0.2, 0.5 * first[1] + 0.4])
    np.testing.assert_allclose(played.multipliers[1], [min(1 - 100 * (0.2 - 1), 10), min(1 - 100 * (0.4 - 1), 10)])


def test_the_step_is_the_schedule_of_the_other_policies() -> None:
    played = play_fair(OHF(alpha=0.0), INSTANCE, some_slots(8, 25))
    schedule = SelfConfident(INSTANCE.set.diameter_squared)
    assert schedule.next(played.state.progress, 0.0)[0] == pytest.approx(
        np.sqrt(INSTANCE.set.diameter_squared / played.squares)
    )


class Narrow:
    """Shows supergradients of one number, which would move all coordinates alike."""

    def at(self, x: np.ndarray) -> Seen:
        return Seen(np.full(1, 0.5), np.ones((1, 1)))


@pytest.mark.parametrize("dual_step", ["paper", "theory"])
@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.01, 120.0])
def test_extreme_aversion_keeps_every_number_finite(alpha: float, dual_step: str) -> None:
    played = play_fair(OHF(alpha=alpha, dual_step=dual_step), INSTANCE, some_slots(3, 20))  # type: ignore[arg-type]
    low, high = INSTANCE.box(alpha)
    assert ((played.multipliers >= low) & (played.multipliers <= high)).all()
    assert INSTANCE.set.contains(played.state.x)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OHF(alpha=-1.0),
        lambda: OSF(alpha=float("nan")),
        lambda: OSF(period=0),
        lambda: FairInstance(set=Simplex(2), agents=0),
        lambda: FairInstance(set=Simplex(2), agents=2, least=0.0),
        lambda: FairInstance(set=Simplex(2), agents=2, least=1.0, most=1.0),
        lambda: FairInstance(set=Simplex(2), agents=2, disagreement=np.zeros(3)),
        lambda: CappedSums(rows=np.eye(2), owner=np.array([0, 2]), weights=np.ones(2), caps=np.ones(2), agents=2),
        lambda: CappedSums(rows=np.eye(2), owner=np.array([0, 1]), weights=-np.ones(2), caps=np.ones(2), agents=2),
        lambda: CappedSums(rows=np.eye(2), owner=np.array([0, 1]), weights=np.ones(3), caps=np.ones(2), agents=2),
        lambda: TOY[0].with_weights(np.array([1.0, -1.0])),
        lambda: play_fair(OHF(), FairInstance(set=Simplex(2), agents=3), [linear([[1, 0], [0, 1]], [0, 0])]),
        lambda: play_fair(OHF(), FairInstance(set=Simplex(1), agents=1), [linear([[1.0]], [float("nan")])]),
        lambda: play_fair(OHF(), FairInstance(set=Simplex(2), agents=1), [linear([[1.0, 0.0]], [0.0]), Narrow()]),
        lambda: play_fair(OSF(), FairInstance(set=Simplex(2), agents=1), [Narrow()]),
        lambda: OHF(dual_step="code"),
        lambda: OHF(norms="both"),
        lambda: OHF(start="low"),
        lambda: OSF(norms="both"),
        lambda: OHF(alpha=400.0).init(TOY_INSTANCE),
    ],
)
def test_what_means_nothing_is_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RivageError):
        wrong()

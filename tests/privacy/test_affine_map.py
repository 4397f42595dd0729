"""The affine map of a client: algebra, solvers and estimates on messages written down by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.privacy.affine_errors import attenuation, scatter
from rivage.privacy.affine_map import SOLVERS, Answers, Solver, collect, condition, fit, project, row_space
from rivage.privacy.local_model import reconstruct
from rivage.privacy.views import Exchange, Refused


def trained(w: ndarray, hessian: ndarray, optimum: ndarray, rate: float, epochs: int, decay: float = 0.0) -> ndarray:
    """Gradient descent on ½ (w − w*)' H (w − w*) + λ/2 ‖w‖², step by step."""
    for _ in range(epochs):
        w = w - rate * (hessian @ (w - optimum) + decay * w)
    return w


def curvature(generator: np.random.Generator, dimension: int, rank: int | None = None) -> ndarray:
    """A random H with eigenvalues between 0.3 and 2, of this rank."""
    basis = np.linalg.qr(generator.normal(size=(dimension, dimension)))[0]
    values = generator.uniform(0.3, 2.0, dimension)
    values[dimension if rank is None else rank :] = 0
    return (basis * values) @ basis.T


def exchanges(sent: ndarray, returned: ndarray, dtype: Any = np.float64) -> list[Exchange]:
    return [
        Exchange(t, 0, w.astype(dtype), v.astype(dtype)) for t, (w, v) in enumerate(zip(sent, returned, strict=True))
    ]


def again(exchange: Exchange, returned: ndarray) -> Exchange:
    return Exchange(exchange.round, exchange.client, exchange.sent, returned)


def spoken(seed: int, dimension: int, rounds: int, *, rate: float = 0.3, epochs: int = 3, rank: int | None = None,
           decay: float = 0.0, dtype: Any = np.float64) -> tuple[list[Exchange], ndarray, ndarray]:  # fmt: skip
    """Messages of one client that is sent models drawn around its optimum; H and w* with them."""
    generator = np.random.default_rng(seed)
    hessian, optimum = curvature(generator, dimension, rank), generator.normal(size=dimension)
    sent = (optimum + generator.normal(size=(rounds, dimension))).astype(dtype).astype(np.float64)
    returned = np.stack([trained(w, hessian, optimum, rate, epochs, decay) for w in sent])
    return exchanges(sent, returned, dtype), hessian, optimum


@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0.05, 0.9), st.integers(1, 6), st.integers(0, 12))
@settings(max_examples=40)
def test_answers_vanish_at_the_optimum_of_any_client(
    seed: int, dimension: int, rate: float, epochs: int, spare: int
) -> None:
    """Any H, step and number of local epochs; D + 1 messages or more."""
    told, _, optimum = spoken(seed, dimension, dimension + 1 + spare, rate=rate, epochs=epochs)
    answer = reconstruct(told)
    if answer.params is None:  # rows of [g 1] that happen to be nearly dependent
        assert answer.status in ("ill-conditioned", "rank-deficient")
        assert spare == 0
        return
    error = np.linalg.norm(answer.params - optimum) / np.linalg.norm(optimum)
    assert error < max(1e-9, 30 * answer.facts["error"])
    assert answer.status == ("recovered" if answer.facts["error"] <= 0.01 else "estimated")


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_is_exact_on_exact_answers(solver: Solver) -> None:
    told, _, optimum = spoken(0, 5, 30)
    answer = reconstruct(told, solver=solver, trials=50)
    tolerance = 1e-6 if solver == "ridge" else 1e-10  # shrinks by at least 1e-12
    np.testing.assert_allclose(answer.params, optimum, atol=tolerance)
    assert answer.status == ("estimated" if solver in ("ridge", "truncated") else "recovered")


@pytest.mark.parametrize("epochs", [1, 5])
def test_weight_decay_moves_the_answer_to_the_ridge_optimum(epochs: int) -> None:
    told, hessian, optimum = spoken(1, 6, 20, epochs=epochs, decay=0.1)
    ridge = np.linalg.solve(hessian + 0.1 * np.eye(6), hessian @ optimum)
    answer = reconstruct(told)
    assert np.linalg.norm(ridge - optimum) > 0.05
    np.testing.assert_allclose(answer.params, ridge, atol=1e-10)


def test_momentum_that_restarts_every_round_keeps_the_map_affine() -> None:
    generator = np.random.default_rng(3)
    hessian, optimum = curvature(generator, 4), generator.normal(size=4)
    sent = generator.normal(size=(12, 4))

    def heavy(w: ndarray, velocity: ndarray) -> tuple[ndarray, ndarray]:
        velocity = 0.9 * velocity + hessian @ (w - optimum)
        return w - 0.1 * velocity, velocity

    returned = []
    for w in sent:
        velocity = np.zeros(4)
        for _ in range(5):
            w, velocity = heavy(w, velocity)
        returned.append(w)
    np.testing.assert_allclose(reconstruct(exchanges(sent, np.stack(returned))).params, optimum, atol=1e-10)


def test_momentum_that_is_kept_breaks_the_map_and_the_answer_says_estimate() -> None:
    generator = np.random.default_rng(3)
    hessian, optimum, velocity = curvature(generator, 4), generator.normal(size=4), np.zeros(4)
    sent, returned = generator.normal(size=(40, 4)), []
    for w in sent:
        for _ in range(5):
            velocity = 0.9 * velocity + hessian @ (w - optimum)
            w = w - 0.1 * velocity
        returned.append(w)
    answer = reconstruct(exchanges(sent, np.stack(returned)))
    assert answer.status == "estimated"
    assert answer.facts["left_out"] > 0.05


def test_too_few_messages_are_refused() -> None:
    """One less than D + 1, and a single one."""
    for rounds in (1, 5):
        answer = reconstruct(spoken(0, 5, rounds)[0])
        assert (answer.params, answer.status) == (None, "rank-deficient")
        assert "6 are needed" in answer.facts["reason"] or rounds == 1
    assert reconstruct(spoken(0, 5, 6)[0]).status == "recovered"


def test_a_single_parameter_needs_two_messages() -> None:
    assert reconstruct(spoken(2, 1, 1)[0]).params is None
    told, _, optimum = spoken(2, 1, 2)
    np.testing.assert_allclose(reconstruct(told).params, optimum, rtol=1e-10)


def test_repeated_messages_are_no_new_messages() -> None:
    told, _, _ = spoken(0, 4, 4)
    twice = [Exchange(10 + e.round, 0, e.sent, e.returned) for e in told]
    assert reconstruct(told + twice).params is None


@given(st.integers(0, 10**6), st.integers(2, 8), st.data())
@settings(max_examples=30)
def test_singular_curvature_gives_the_nearest_optimum_and_the_rank(seed: int, dimension: int, data: Any) -> None:
    """As training on from the last returned model would: P (w* − w) with P the projection on the row space."""
    rank = data.draw(st.integers(1, dimension - 1))
    told, hessian, optimum = spoken(seed, dimension, 3 * dimension + 3, rank=rank)
    answer = reconstruct(told)
    last = told[-1].returned
    nearest = last + np.linalg.pinv(hessian, rcond=1e-9) @ (hessian @ (optimum - last))
    assert (answer.status, answer.facts["rank"]) == ("rank-deficient", rank)
    np.testing.assert_allclose(answer.params, nearest, atol=1e-8)


def test_singular_curvature_needs_one_message_more_than_its_rank() -> None:
    for rounds, found in ((4, True), (3, False)):
        answer = reconstruct(spoken(7, 9, rounds, rank=3)[0])
        assert (answer.params is not None) is found
        assert answer.status == "rank-deficient"


@pytest.mark.parametrize(("dimension", "status"), [(3, "recovered"), (30, "ill-conditioned")])
def test_a_deterministic_trajectory_runs_out_of_directions(dimension: int, status: str) -> None:
    """All clients in every round: w_{t+1} = M w_t + b, powers of one matrix."""
    generator = np.random.default_rng(0)
    clients = [(curvature(generator, dimension), generator.normal(size=dimension)) for _ in range(5)]
    w, sent, returned = np.zeros(dimension), [], []
    for _ in range(4 * dimension):
        answers = [trained(w, h, o, 0.3, 2) for h, o in clients]
        sent.append(w)
        returned.append(answers[0])
        w = np.mean(answers, axis=0)
    answer = reconstruct(exchanges(np.stack(sent), np.stack(returned)))
    assert answer.status == status, answer.facts
    assert (answer.params is None) is (status == "ill-conditioned")
    if answer.params is not None:
        assert np.linalg.norm(answer.params - clients[0][1]) < 1e-4


@given(st.integers(0, 10**6), st.randoms())
@settings(max_examples=15)
def test_the_order_of_rounds_does_not_matter(seed: int, random: Any) -> None:
    told, _, _ = spoken(seed, 4, 12)
    shuffled = list(told)
    random.shuffle(shuffled)
    assert np.array_equal(reconstruct(told).params, reconstruct(shuffled).params)  # type: ignore[arg-type]
    renumbered = [Exchange(t, 0, e.sent, e.returned) for t, e in enumerate(shuffled)]
    np.testing.assert_allclose(reconstruct(renumbered).params, reconstruct(told).params, atol=1e-8)


@given(st.integers(0, 10**6), st.floats(-3, 3))
@settings(max_examples=15)
def test_units_of_the_parameters_do_not_matter(seed: int, power: float) -> None:
    """A feature in another unit: its parameter and the answers in it scale, so does the optimum."""
    told, _, optimum = spoken(seed, 4, 20)
    unit = np.array([10.0**power, 1.0, 1.0, 1.0])
    scaled = [Exchange(e.round, 0, e.sent * unit, e.returned * unit) for e in told]
    np.testing.assert_allclose(reconstruct(scaled).params, optimum * unit, rtol=1e-7)


def test_the_logs_precision_bounds_the_answers() -> None:
    """Rounding to float32 costs what the error estimate says, within a factor of 10 either way (20 draws)."""
    ratios = []
    for seed in range(20):
        told, _, optimum = spoken(seed, 6, 12, dtype=np.float32)
        answer = reconstruct(told)
        assert answer.facts["unit"] == np.finfo(np.float32).eps
        error = np.linalg.norm(answer.params - optimum) / np.linalg.norm(optimum)
        assert error < 1e-3
        ratios.append(error / answer.facts["error"])
    assert 0.1 < np.median(ratios) < 1
    assert max(ratios) < 10


def test_noise_in_the_answers_is_estimated() -> None:
    """Errors of both solvers lie where their estimates say, on average over 20 draws."""
    for solver in ("least_squares", "forward"):
        ratios = []
        for seed in range(20):
            told, _, optimum = spoken(seed, 4, 60)
            generator = np.random.default_rng(seed)
            noisy = [again(e, e.returned + 0.02 * generator.normal(size=4)) for e in told]
            answer = reconstruct(noisy, solver=solver)
            ratios.append(np.linalg.norm(answer.params - optimum) / np.linalg.norm(optimum) / answer.facts["error"])
        assert 0.5 < np.sqrt(np.mean(np.square(ratios))) < 2


def test_slopes_shrink_when_the_noisy_side_explains() -> None:
    """Errors in variables: with many noisy messages centred far from w*, forward is consistent, the inverse is not."""
    generator = np.random.default_rng(0)
    sent = 2 + generator.normal(size=(4000, 1))  # w* = 0, A = 1/2
    returned = 0.5 * sent + 0.3 * generator.normal(size=sent.shape)
    told = exchanges(sent, returned)
    inverse, forward = (reconstruct(told, solver=solver).params for solver in ("least_squares", "forward"))
    shrunk = 2 * (1 - 0.25 / (0.25 + 0.09))  # E: mean of w times what attenuation leaves
    assert forward == pytest.approx(0, abs=0.05)  # five standard errors
    assert inverse == pytest.approx(shrunk, abs=0.05)
    answers = collect(told)
    assert attenuation(answers.sent, answers.gradient) == pytest.approx(shrunk, rel=0.1)


@pytest.mark.parametrize(("dimension", "noise", "times"), [(4, 0.3, 12), (20, 0.3, 4), (20, 0.3, 12), (20, 1.0, 12)])
def test_an_estimate_covers_what_noise_in_the_answers_costs(dimension: int, noise: float, times: int) -> None:
    """Scatter alone is a fifth of the error here, as models are sent from one side of w* and noise hides slopes."""
    ratios, alone = [], []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        hessian, optimum = curvature(generator, dimension), generator.normal(size=dimension)
        sent = optimum + 1 + 0.5 * generator.normal(size=(times * (dimension + 1), dimension))
        returned = np.stack([trained(w, hessian, optimum, 0.1, 3) for w in sent])
        returned += 0.5 * noise * generator.normal(size=sent.shape)
        answers = collect(exchanges(sent, returned))
        found = fit(answers, "least_squares", generator, 1)
        error = float(np.linalg.norm(found.optimum - optimum))
        ratios.append(found.error / error)
        alone.append(math.sqrt(found.error**2 - attenuation(answers.sent, answers.gradient) ** 2) / error)
    assert all(1 / 3 < ratio < 3 for ratio in ratios)
    assert np.median(alone) < 0.7 * np.median(ratios)


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 30))
def test_nothing_is_lost_to_noise_where_there_is_none(seed: int, dimension: int, spare: int) -> None:
    told, _, optimum = spoken(seed, dimension, dimension + 1 + spare)
    answers = collect(told)
    assert attenuation(answers.sent, answers.gradient) < 1e-6 * np.linalg.norm(optimum)
    if not spare:
        assert attenuation(answers.sent, answers.gradient) == 0


@given(st.integers(0, 10**6))
def test_what_noise_costs_does_not_depend_on_the_units_of_answers(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sent, noise = generator.normal(size=(2, 30, 4))
    gradient, turn = 0.5 * sent + noise, generator.normal(size=(4, 4)) + 3 * np.eye(4)
    assert attenuation(sent, gradient @ turn) == pytest.approx(attenuation(sent, gradient), rel=1e-6)


@pytest.mark.parametrize("solver", ["ridge", "truncated"])
@pytest.mark.parametrize(("dimension", "messages"), [(4, 60), (20, 250)])
def test_solvers_that_shrink_count_what_noise_makes_of_their_slopes(
    solver: Solver, dimension: int, messages: int
) -> None:
    """By scatter alone the median is a third to a half."""
    ratios = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        hessian, optimum = curvature(generator, dimension) / 2, generator.normal(size=dimension)
        sent = optimum + 1 + 0.5 * generator.normal(size=(messages, dimension))
        noisy = (sent - optimum) @ hessian + 0.15 * generator.normal(size=sent.shape)
        found = fit(Answers(sent, noisy, np.full(dimension, 1e-12), 1e-12), solver, generator, 1)
        ratios.append(found.error / float(np.linalg.norm(found.optimum - optimum)))
    assert 0.7 < np.median(ratios) < 1.4
    assert min(ratios) > 1 / 3


def test_scatter_counts_what_is_left_to_be_free() -> None:
    assert scatter(np.full((5, 2), 3.0), 2) == pytest.approx(math.sqrt(10 * 9 / 3))
    assert scatter(np.ones((2, 2)), 2) == 0


def test_a_coordinate_of_pure_noise_lacks_no_more_than_twice_what_chance_explains() -> None:
    draw = np.random.default_rng(0)
    sent, noise = draw.normal(size=(400, 1)), draw.normal(size=(400, 1))
    noise -= noise.mean()
    flat = sent - sent.mean()
    noise -= flat * (flat * noise).sum() / (flat**2).sum() * (1 - 1e-4)  # of which w explains almost nothing
    slope = float((noise * flat).sum() / (noise**2).sum())
    assert attenuation(sent, noise + 1.0) == pytest.approx(2 * 400 / 2 * abs(slope), rel=1e-6)


def test_the_left_out_error_is_that_of_refitting() -> None:
    rounds = 9
    told, _, _ = spoken(0, 3, rounds)
    generator = np.random.default_rng(1)
    answers = collect(again(e, e.returned + 0.1 * generator.normal(size=3)) for e in told)
    g1 = np.column_stack([answers.gradient, np.ones(rounds)])
    errors, alone = [], []
    for t in range(rounds):
        keep = np.arange(rounds) != t
        slopes = np.linalg.lstsq(g1[keep], answers.sent[keep], rcond=None)[0]
        errors.append(answers.sent[t] - g1[t] @ slopes)
        alone.append(answers.sent[t] - answers.sent[keep].mean(axis=0))
    expected = np.linalg.norm(errors) / np.linalg.norm(alone)
    found = fit(answers, "least_squares", generator, 1).left_out
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_default_is_the_solver_with_the_smaller_left_out_error() -> None:
    told, _, _ = spoken(0, 3, 30)
    generator = np.random.default_rng(1)
    answers = collect(again(e, e.returned + 0.1 * generator.normal(size=3)) for e in told)
    single = {solver: fit(answers, solver, generator, 1) for solver in ("least_squares", "forward")}
    best = min(single.values(), key=lambda found: found.left_out or 0)
    assert fit(answers, "auto", generator, 1).solver == best.solver


def test_the_subset_is_the_best_conditioned_of_those_drawn() -> None:
    """With as many draws as find all 5 choose 4 subsets, the least condition number of them all."""
    told, _, optimum = spoken(5, 3, 5)
    answers = collect(told)
    matrix = answers.design[0]
    rows = [np.array([i for i in range(5) if i != left]) for left in range(5)]
    best = min(rows, key=lambda keep: np.linalg.cond(matrix[keep]))
    expected = np.linalg.solve(np.column_stack([answers.gradient[best], np.ones(4)]), answers.sent[best])[-1]
    found = fit(answers, "subset", np.random.default_rng(0), 200)
    np.testing.assert_allclose(found.optimum, expected, rtol=1e-9)
    np.testing.assert_allclose(found.optimum, optimum, rtol=1e-6)


def test_truncation_keeps_a_direction_without_signal_out() -> None:
    """One direction of g holds noise only: least squares follows it, truncation and ridge do not."""
    generator = np.random.default_rng(0)
    sent = np.column_stack([generator.normal(size=30), 1e-3 * generator.normal(size=30)])
    sent[:, 0] += 2
    returned = 0.5 * sent + [0, 1] * (1e-2 * generator.normal(size=(30, 2)))
    told = exchanges(sent, returned)
    for solver in ("ridge", "truncated"):
        assert np.linalg.norm(reconstruct(told, solver=solver).params) < 0.1  # type: ignore[arg-type]


def test_the_last_message_of_a_round_counts() -> None:
    told, _, optimum = spoken(0, 3, 8)
    retried = [again(told[2], told[2].returned + 5.0), *told]
    np.testing.assert_allclose(reconstruct(retried).params, optimum, atol=1e-9)


def test_faults_name_the_round() -> None:
    told, _, _ = spoken(0, 3, 8)
    with pytest.raises(DataError, match="client 0, round 5: a model holds NaN"):
        reconstruct([*told[:5], again(told[5], np.full(3, np.nan)), *told[6:]])
    with pytest.raises(Refused, match="2 models are sent per round"):
        reconstruct([Exchange(0, 0, np.zeros((2, 3)), np.zeros((2, 3)))])
    with pytest.raises(Refused, match="no exchange"):
        reconstruct([])


def test_mixed_precision_counts_as_the_coarser() -> None:
    told, _, _ = spoken(0, 3, 8)
    mixed = [again(told[0], told[0].returned.astype(np.float16)), *told[1:]]
    assert reconstruct(mixed).facts["unit"] == np.finfo(np.float16).eps


def test_rounded_differences_count_relative_to_the_difference() -> None:
    """A stage of 16 bits rounds w' − w, not w': the rank of the answers is still seen."""
    told, _, optimum = spoken(4, 6, 30, rank=3)
    rounded = [again(e, e.sent - e.pseudo_gradient.astype(np.float16).astype(np.float64)) for e in told]
    unit = float(np.finfo(np.float16).eps)
    answer = reconstruct(rounded, unit=unit)
    exact = reconstruct(told)
    assert (answer.status, answer.facts["rank"], answer.facts["unit"]) == ("rank-deficient", 3, unit)
    assert answer.params is not None
    assert exact.params is not None
    assert 1e-6 < np.linalg.norm(answer.params - exact.params) / np.linalg.norm(optimum) < 1e-2


def test_a_projection_keeps_what_lies_in_it() -> None:
    told, hessian, _ = spoken(4, 6, 20, rank=2)
    answers = collect(told)
    basis, moved = row_space(answers)
    assert (basis.shape[1], moved) == (2, True)
    np.testing.assert_allclose(basis @ basis.T @ hessian, hessian, atol=1e-10)
    inside = project(answers, basis)
    np.testing.assert_allclose(inside.gradient @ basis.T, answers.gradient, atol=1e-12)
    assert condition(answers) > 1e12
    assert condition(inside) < 1e4


def test_messages_that_do_not_move_in_a_direction_are_told_by_their_rank() -> None:
    """g has rank 2, g − mean g rank 1: a constant answer in a direction in which nothing was tried."""
    generator = np.random.default_rng(0)
    sent = np.column_stack([generator.normal(size=8), np.ones(8)])
    basis, moved = row_space(collect(exchanges(sent, 0.5 * sent)))
    assert (basis.shape[1], moved) == (2, False)


@pytest.mark.parametrize(("size", "rank", "moved"), [(1.0, 1, True), (5.0, 1, False), (20.0, 2, True)])
def test_between_rounding_and_signal_there_is_no_verdict(size: float, rank: int, moved: bool) -> None:
    """Singular values in units of the largest that rounding makes: below 2.5 rounding, above 8 signal."""
    generator = np.random.default_rng(0)
    u = np.linalg.qr(np.column_stack([np.ones(50), generator.normal(size=(50, 2))]))[0][:, 1:]
    noise = np.sqrt(50) + np.sqrt(2)
    answers = Answers(np.zeros((50, 2)), u * [1e6, size * noise], np.ones(2), 1e-16)
    basis, found = row_space(answers)
    assert (basis.shape[1], found) == (rank, moved)


def test_the_condition_number_does_not_depend_on_units() -> None:
    told, _, _ = spoken(3, 4, 12)
    unit = np.array([1e5, 1.0, 1e-4, 1.0])
    scaled = [Exchange(e.round, 0, e.sent * unit, e.returned * unit) for e in told]
    assert condition(collect(scaled)) == pytest.approx(condition(collect(told)), rel=1e-6)


def test_a_client_that_never_answers_is_no_error() -> None:
    """g = 0 in every message: the data say nothing, the model stays where it is."""
    sent = np.random.default_rng(0).normal(size=(6, 3))
    answer = reconstruct(exchanges(sent, sent))
    assert (answer.status, answer.facts["rank"]) == ("rank-deficient", 0)
    assert answer.params is not None
    np.testing.assert_array_equal(answer.params, sent[-1])


def test_values_hold_what_they_were_made_from() -> None:
    answers = Answers(np.ones((2, 1)), np.full((2, 1), 0.25), np.array([1e-16]), 1e-16)
    assert answers.last == 0.75
    assert condition(answers) > 1e15

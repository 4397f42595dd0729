"""Scores of LiRA and RMIA as functions of arrays: brute force, Gaussians with known answers, nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from scipy.stats import norm

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.data.population import Samples, Schema
from rivage.federated.algorithm import Phase
from rivage.learning.task import Task, TaskSettings, make_task
from rivage.privacy import lira, rmia
from rivage.privacy.attack import Meter
from rivage.privacy.confidence import confidence, confidences, log_likelihood
from rivage.privacy.dealing import balanced
from rivage.privacy.recipes import Recipe
from rivage.privacy.roc import auc, auc_test
from rivage.privacy.views import Refused
from rivage.studies.claims.reference_attacks import means, trained


def drawn(seed: int, models: int, records: int, queries: int = 1, gap: float = 2.0) -> tuple[ndarray, ndarray, ndarray]:
    """Confidences of a design: hard and easy records, and more of it where a model has trained."""
    generator = Streams(seed).numpy("scores")
    inside = balanced(models, records, generator)
    ease = 3 * generator.normal(size=(records, 1))
    phi = ease + gap * inside[..., None] + generator.normal(size=(models, records, queries))
    return phi, inside, ease


# --- confidence ----------------------------------------------------------------------------------------------


def task_of(target: str, classes: int = 3, loss: str = "") -> Task:
    width = {"num_outputs": 2} if target == "real" else {"num_classes": classes}
    return make_task(TaskSettings(model="linear", loss=loss), Schema(input_shape=(4,), target=target, **width))  # type: ignore[arg-type]


def test_confidence_is_the_log_odds_of_the_true_class() -> None:
    outputs, y = (
        torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.arange(50) % 3,
    )
    p = outputs.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(confidence(task_of("class"), outputs, y), (p / (1 - p)).log())


def test_confidence_does_not_saturate() -> None:
    """Where p rounds to 1, in float32 from a gap of 17 on, in float64 from 37 on."""
    outputs = torch.tensor([[0.0, gap, 0.0] for gap in (20.0, 50.0, 300.0)])
    found = confidence(task_of("class"), outputs, torch.ones(3, dtype=torch.int64)).numpy()
    np.testing.assert_allclose(found, np.array([20.0, 50.0, 300.0]) - np.log(2), rtol=1e-6)
    likelihood = log_likelihood(found, "class")
    assert (np.diff(likelihood) > 0).all()
    assert (likelihood < 0).all()


def test_confidence_of_one_output_of_symbols_and_of_reals() -> None:
    odds = torch.tensor([[2.0], [-1.0]])
    assert confidence(task_of("class", 2, "logistic"), odds, torch.tensor([1, 1])).tolist() == [2.0, -1.0]
    assert confidence(task_of("class", 2, "logistic"), odds, torch.tensor([0, 0])).tolist() == [-2.0, 1.0]
    outputs, y = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0]])
    assert confidence(task_of("real"), outputs, y).item() == pytest.approx(-0.5 * (1 + 4))
    symbols = make_task(
        TaskSettings(model="char_lstm", options={"hidden": 4}), Schema(input_shape=(5,), target="tokens", num_classes=6)
    )
    outputs, y = torch.zeros(2, 5, 6), torch.zeros(2, 5, dtype=torch.int64)
    assert confidence(symbols, outputs, y).tolist() == pytest.approx([-np.log(5)] * 2)


def test_models_are_asked_one_by_one_and_counted() -> None:
    task, meter = task_of("class"), Meter()
    generator = np.random.default_rng(0)
    records = Samples(generator.normal(size=(7, 4)).astype(np.float32), np.arange(7) % 3, np.arange(7))
    models = np.stack([task.initial(seed).numpy() for seed in range(5)])
    found = confidences(task, models, records, meter)
    assert meter.evaluations == 35
    for model, row in zip(models, found, strict=True):
        weight, bias = model[:12].reshape(3, 4).astype(np.float64), model[12:]
        z = records.x @ weight.T + bias
        others = np.array([np.logaddexp.reduce(np.delete(each, y)) for each, y in zip(z, records.y, strict=True)])
        np.testing.assert_allclose(row, z[np.arange(7), records.y] - others, rtol=1e-4, atol=1e-5)
    with pytest.raises(Refused, match="1 of 2 models have no finite confidence"):
        confidences(task, np.stack([models[0], np.full_like(models[0], np.nan)]), records, Meter())


# --- LiRA ----------------------------------------------------------------------------------------------------


def test_lira_of_known_gaussians() -> None:
    """20,000 models: the fitted ratio is that of the densities the confidences come from."""
    generator = np.random.default_rng(0)
    inside = balanced(20_000, 3, generator)
    mean, spread = np.where(inside, [1.0, 5.0, 0.0], [0.0, -2.0, 0.0]), np.where(inside, 1.0, [1.0, 2.0, 0.5])
    phi = (mean + spread * generator.normal(size=inside.shape))[..., None]
    target = np.array([[0.7], [1.0], [-0.4]])
    exact = norm.logpdf(target[:, 0], [1, 5, 0], 1) - norm.logpdf(target[:, 0], [0, -2, 0], [1, 2, 0.5])
    np.testing.assert_allclose(lira.online(target, phi, inside), exact, rtol=0.05)
    exact = norm.logcdf(target[:, 0], [0, -2, 0], [1, 2, 0.5])
    np.testing.assert_allclose(lira.offline(target, phi, inside), exact, atol=0.05)


@pytest.mark.parametrize(("models", "own"), [(20, False), (63, False), (64, True)])
def test_lira_equals_loops(models: int, own: bool) -> None:
    phi, inside, _ = drawn(1, models, 30, queries=2)
    target = Streams(1).numpy("target").normal(size=(30, 2))

    def fitted(side: ndarray) -> tuple[ndarray, ndarray]:
        means, variances = np.empty((30, 2)), np.empty((30, 2))
        centred: list[list[float]] = [[], []]
        for record in range(30):
            for query in range(2):
                values = phi[side[:, record], record, query]
                means[record, query], variances[record, query] = values.mean(), values.var(ddof=1)
                centred[query] += list(values - values.mean())
        if not own:
            for query in range(2):
                freedom = len(centred[query]) - 30
                variances[:, query] = np.sum(np.square(centred[query])) / freedom
        return means, np.sqrt(variances)

    inner, outer = fitted(inside), fitted(~inside)
    expected = (norm.logpdf(target, *inner) - norm.logpdf(target, *outer)).sum(1)
    np.testing.assert_allclose(lira.online(target, phi, inside), expected, rtol=1e-9)
    np.testing.assert_allclose(lira.offline(target, phi, inside), norm.logcdf(target, *outer).sum(1), rtol=1e-9)


def test_a_variance_of_its_own_needs_eight_models_on_each_side() -> None:
    """Record 0 is in 7 of 64 models: its wide spread is not believed; record 1 is in 8."""
    generator = np.random.default_rng(0)
    inside = balanced(64, 200, generator)
    inside[:, 0], inside[:, 1] = np.arange(64) < 7, np.arange(64) < 8
    phi = generator.normal(size=(64, 200, 1))
    phi[:, :2] *= 100
    score = lira.offline(np.full((200, 1), -200.0), phi, inside)
    assert -5 < score[1] < -1, "two standard deviations"
    assert score[0] < -100, "hundreds of the common ones"


@given(seed=st.integers(0, 99), scale=st.floats(0.01, 100), shift=st.floats(-50, 50), models=st.integers(6, 70))
def test_lira_does_not_depend_on_unit_or_order(seed: int, scale: float, shift: float, models: int) -> None:
    phi, inside, _ = drawn(seed, models, 12)
    target = phi[0] + 0.3
    order = np.random.default_rng(seed).permutation(models)
    for score in (lira.online, lira.offline):
        plain = score(target, phi, inside)
        np.testing.assert_allclose(
            score(scale * target + shift, scale * phi + shift, inside), plain, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(score(target, phi[order], inside[order]), plain, rtol=1e-9, atol=1e-9)


def test_asking_twice_doubles_the_score() -> None:
    phi, inside, _ = drawn(2, 20, 10)
    target = phi[3]
    for score in (lira.online, lira.offline):
        twice = score(np.repeat(target, 2, 1), np.repeat(phi, 2, 2), inside)
        np.testing.assert_allclose(twice, 2 * score(target, phi, inside))


def test_a_side_without_models_is_refused_and_models_that_agree_are_not() -> None:
    phi, inside, _ = drawn(3, 8, 5)
    alone = inside.copy()
    alone[:, 2] = False
    with pytest.raises(DataError, match="1 of 5 records have no reference model on one side"):
        lira.online(phi[0], phi, alone)
    assert np.isfinite(lira.offline(phi[0], phi, alone)).all(), "offline needs nobody inside"
    with pytest.raises(DataError, match="no reference model on one side"):
        lira.offline(phi[0], phi, ~alone)
    with pytest.raises(DataError, match="5 fewer than two"):
        lira.offline(phi[0], phi[:2], np.array([[True] * 5, [False] * 5]))
    same = np.ones_like(phi)
    assert (lira.online(same[0], same, inside) == 0).all()
    assert np.isfinite(lira.offline(same[0] + 1, same, inside)).all()


# --- RMIA ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("a", [None, 0.0, 0.3, 1.0])
def test_rmia_equals_loops(a: float | None, gamma: float) -> None:
    """Probabilities in plain float64, every pair of record and population record compared."""
    phi, inside, _ = drawn(4, 9, 40)
    inside[:, 25:] = False  # of the population, nobody has trained on these
    p = 1 / (1 + np.exp(-phi[..., 0]))
    target, references = p[0], p[1:]
    ratio = np.empty(40)
    for record in range(40):
        sides = [references[inside[1:, record] == side, record] for side in (True, False)]
        if a is not None:
            prior = (1 + a) / 2 * sides[1].mean() + (1 - a) / 2
        else:
            prior = float(np.mean([side.mean() for side in sides if len(side)]))
        ratio[record] = target[record] / prior
    beaten = np.array([sum(x / z >= gamma for z in ratio[20:]) for x in ratio[:20]])
    logs = rmia.log_ratio(log_likelihood(phi[0], "class"), log_likelihood(phi[1:], "class"), inside[1:], a)
    np.testing.assert_allclose(logs, np.log(ratio), rtol=1e-9, atol=1e-12)
    found = rmia.score(logs[:20], logs[20:], gamma)
    np.testing.assert_array_equal(np.floor(21 * found), beaten)
    np.testing.assert_array_equal(np.argsort(found), np.argsort(logs[:20]))


def test_rmia_offline_reads_no_model_that_trained_on_the_record() -> None:
    phi, inside, _ = drawn(5, 10, 20)
    other = np.where(inside[..., None], 99.0, phi)
    plain, changed = (rmia.log_ratio(phi[0], log_likelihood(each, "class"), inside, 0.3) for each in (phi, other))
    np.testing.assert_array_equal(changed, plain)
    with pytest.raises(DataError, match="20 records have no reference model that did not train on them"):
        rmia.log_ratio(phi[0], phi, np.ones_like(inside), 0.3)


@pytest.mark.parametrize("a", [None, 0.3, 1.0])
def test_rmia_keeps_records_apart_that_every_model_is_sure_of(a: float | None) -> None:
    """Log-odds above 37: probabilities p round to 1 even in float64. With q = 1 − p, log LR = q̄ − q up to q²."""
    phi, inside, _ = drawn(6, 40, 200)
    phi += 60
    logs, q = log_likelihood(phi, "class")[..., 0], np.exp(-phi[..., 0])
    assert (np.exp(logs) == 1).all()
    references, side = q[1:], inside[1:]
    outer = np.where(~side, references, 0).sum(0) / (~side).sum(0)
    inner = np.where(side, references, 0).sum(0) / side.sum(0)
    prior = (inner + outer) / 2 if a is None else (1 + a) / 2 * outer
    found = rmia.log_ratio(logs[0][:, None], logs[1:, :, None], side, a)
    np.testing.assert_allclose(found, prior - q[0], rtol=1e-6)


def test_a_is_chosen_by_attacking_reference_models() -> None:
    """With a = 0 half of the prior is 1 for every record: too near to the loss, which difficult records drown."""
    phi, inside, _ = drawn(7, 40, 400)
    best = rmia.tuned(log_likelihood(phi, "class"), inside)
    areas = {}
    for a in (0.0, best):
        logs = log_likelihood(phi, "class")
        areas[a] = auc(rmia.log_ratio(logs[9], np.delete(logs, 9, 0), np.delete(inside, 9, 0), a), inside[9])
    assert best > 0
    assert areas[best] > areas[0.0] + 0.02


# --- what there is to find, and what there is not ------------------------------------------------------------------


def all_scores(target: ndarray, references: ndarray, inside: ndarray) -> dict[str, ndarray]:
    own, logs = log_likelihood(target, "class"), log_likelihood(references, "class")
    ratios = {"rmia": rmia.log_ratio(own, logs, inside), "rmia offline": rmia.log_ratio(own, logs, inside, 0.3)}
    return {
        "lira": lira.online(target, references, inside),
        "lira offline": lira.offline(target, references, inside),
        **{name: rmia.score(values, values) for name, values in ratios.items()},
    }


def test_reference_models_find_what_the_loss_does_not() -> None:
    """Records differ more from one another than models that trained from models that did not."""
    phi, inside, _ = drawn(8, 33, 1000)
    assert auc(phi[0, :, 0], inside[0]) < 0.72
    for name, scores in all_scores(phi[0], phi[1:], inside[1:]).items():
        assert auc(scores, inside[0]) > auc(phi[0, :, 0], inside[0]) + 0.05, name


@pytest.mark.parametrize("models", [9, 33])
def test_nothing_is_found_in_a_target_that_does_not_know_its_members(models: int) -> None:
    """The target is drawn without regard to the design, but left out of it: how many of the others trained on a record
    tells whether it did. A score that averages over all reference models alike finds that, ours must not.

    40 targets at level 5 %: more than 6 rejections have a chance of 0.3 % per attack.
    """
    rejected: dict[str, int] = {}
    for seed in range(40):
        phi, inside, ease = drawn(seed, models, 300)
        target = ease + np.random.default_rng(seed).normal(size=ease.shape)
        for name, scores in all_scores(target, phi[1:], inside[1:]).items():
            rejected[name] = rejected.get(name, 0) + (auc_test(scores, inside[0]) < 0.05)
    assert max(rejected.values()) <= 6, rejected
    leaks = [auc_test(-drawn(seed, 9, 300)[0][1:].mean(0)[:, 0], drawn(seed, 9, 300)[1][0]) for seed in range(10)]
    assert min(leaks) < 0.05, "the trap is there"


@pytest.mark.slow
def test_digits_learnt_by_heart() -> None:
    """The claims of `rivage reproduce` in small: 17 models of 200 digits, a fifth of their labels redrawn."""
    recipe = Recipe(optimizer="adam", learning_rate=0.01, work=Phase(updates=80, batch_size=None))
    models = trained(17, 0.2, audited=400, recipe=recipe)
    area = {name: values[:, 0].mean() for name, values in means(models).items()}
    assert area["LiRA"] > area["loss"] + 0.05
    assert min(area["LiRA"], area["RMIA"], area["RMIA offline"]) > 0.75
    generator = np.random.default_rng(0)
    nothing = means(models, lambda target: generator.permutation(models.inside[target]))
    assert all(abs(values[:, 0].mean() - 0.5) < 0.03 for values in nothing.values())

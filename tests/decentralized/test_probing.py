"""Rehearsals that are the run itself where curvatures are alike, the two regimes of the question, the adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.data.build import build_population
from rivage.data.partition import IID, Pathological
from rivage.data.population import Schema
from rivage.data.readers import Digits
from rivage.decentralized import Overlay, Silos, contenders, design_of, matcha_law
from rivage.decentralized.mixing_plan import Drawn
from rivage.decentralized.probing import EXACT, Order, candidate_of, descend, forecasts, probe
from rivage.decentralized.task_gradients import TaskGradients
from rivage.decentralized.topology_probe import Spectrum, kappa
from rivage.federated.execution import Execution
from rivage.graphs import push_weights
from rivage.learning.task import TaskSettings, make_task
from rivage.studies.claims.topology_scenarios import (
    GRAPHS,
    Compared,
    Split,
    compare,
    gaussian_classes,
    mixing_matrices,
    softmax,
)
from rivage.testing.toys import Clients, linear_clients, linear_task

seeds = st.integers(0, 10**6)
CASES: list[tuple[Split, int]] = [("random", 4), ("random", 64), ("per class", 4), ("per class", 64)]
PUBLISHED_STEP = 0.1


@dataclass
class Springs:
    """f_j(x) = ½ a_j ‖x − c_j‖², or its slope at 0, with noise; keeps what it was asked."""

    stiffness: np.ndarray
    centers: np.ndarray
    noise: float = 0.0
    flat: bool = False
    asked: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def __call__(self, params: np.ndarray, batch: int) -> np.ndarray:
        self.asked.append((params.copy(), batch))
        noise = np.random.default_rng(batch).normal(size=params.shape)
        place = 0 * params if self.flat else params
        return self.stiffness[:, None] * (place - self.centers) + self.noise * noise


def springs(seed: int, nodes: int, *, alike: bool, noise: float = 0.3) -> Springs:
    rng = np.random.default_rng(seed)
    stiffness = np.full(nodes, 0.7) if alike else rng.uniform(0.1, 1, nodes)
    return Springs(stiffness, rng.normal(size=(nodes, 2)) * 3, noise)


def uneven(seed: int, nodes: int) -> np.ndarray:
    """Column-stochastic weights of a strong digraph in which out-degrees differ."""
    rng = np.random.default_rng(seed)
    return push_weights((rng.random((nodes, nodes)) < 0.3) | np.roll(np.eye(nodes, dtype=bool), 1, axis=1))


def real_models(problem: Springs, weights: np.ndarray, order: Order) -> list[np.ndarray]:
    """Of 12 iterations from 0 with a step of 0.4, on batches 0, 2, 4, …; adapt_then_combine is SGP as published."""

    def doubled(params: np.ndarray, batch: int) -> np.ndarray:
        return problem(params, 2 * batch)

    start = np.zeros((len(weights), 2))
    if order == "combine_then_adapt":
        return list(descend(doubled, start, weights, rate=0.4, iterations=11))
    mass, share, models = start, np.ones((len(weights), 1)), []
    for k in range(12):
        models.append(mass / share)
        mass, share = weights @ (mass - 0.4 * doubled(models[-1], k)), weights @ share
    return models


# --- rehearsals -------------------------------------------------------------------------------------------------------


@given(seeds, st.integers(2, 6), st.sampled_from(["combine_then_adapt", "adapt_then_combine"]))
def test_a_rehearsal_is_the_run_where_curvatures_are_alike(seed: int, nodes: int, order: Order) -> None:
    """Then the mean moves alike over every graph, and models rehearsed are the models of the run."""
    problem = springs(seed, nodes, alike=True)
    weights = mixing_matrices(nodes, seed, ["path"])["path"] if nodes > 2 else np.array([[0.7, 0.3], [0.3, 0.7]])
    found = probe(problem, np.zeros(2), nodes, rate=0.4, iterations=12, candidates={"it": weights}, order=order)
    rehearsed = [params for params, _ in problem.asked[3::4]]  # mean twice, exact averages, candidate
    models = real_models(problem, weights, order)
    assert np.allclose(rehearsed, models, atol=1e-10)
    assert found.drifts["it"] == pytest.approx([np.square(x - x.mean(axis=0)).sum() for x in models])
    assert found.kept("it") == pytest.approx(1, abs=1e-10)
    assert found.kept(EXACT) == pytest.approx(1, abs=1e-10)
    assert np.allclose(found.mean, problem.centers.mean(axis=0), atol=5)


@given(seeds, st.integers(2, 6), st.sampled_from(["combine_then_adapt", "adapt_then_combine"]))
def test_push_sum_is_rehearsed_too(seed: int, nodes: int, order: Order) -> None:
    """On linear losses, as the plain mean of models is not what push-sum keeps, and curvature would show that."""
    problem, weights = springs(seed, nodes, alike=False), uneven(seed, nodes)
    problem.flat = True
    probe(problem, np.zeros(2), nodes, rate=0.4, iterations=12, candidates={"it": weights}, order=order)
    rehearsed = [params for params, _ in problem.asked[3::4]]
    assert np.allclose(rehearsed, real_models(problem, weights, order), atol=1e-9)


def test_what_is_kept_by_hand() -> None:
    """Two nodes that never speak, a = (1, 3), c = (0, 1), from 0 with η = 0.1.

    x̄: 0, 0.15. Models stay x̄ + D with D(1) = −0.1 · (0 − −1.5, −3 − −1.5) = ∓0.15: 0 and 0.3. There ḡ = (0 − 2.1)/2,
    at the mean (0.15 − 2.55)/2 = −1.2; ∇F is −1.2. Exact averages have the same D(1), as D(0) = 0.
    """
    problem = Springs(np.array([1.0, 3.0]), np.array([[0.0], [1.0]]))
    found = probe(problem, np.zeros(1), 2, rate=0.1, iterations=2, candidates={"apart": np.eye(2)})
    assert found.descent == pytest.approx([1.5**2, 1.2**2])
    assert found.rehearsed["apart"] == pytest.approx([1.5**2, 1.2 * 1.05])
    assert found.rehearsed[EXACT] == pytest.approx([1.5**2, 1.2 * 1.05])
    assert found.kept("apart") == pytest.approx(1.05 / 1.2)
    assert found.slowdown("apart") == 1
    assert found.mean == pytest.approx(0.15 + 0.12)


@given(seeds, st.integers(3, 6))
def test_names_of_nodes_and_other_candidates_do_not_matter(seed: int, nodes: int) -> None:
    problem = springs(seed, nodes, alike=False, noise=0.0)
    order = np.random.default_rng(seed).permutation(nodes)
    moved = Springs(problem.stiffness[order], problem.centers[order])
    weights = mixing_matrices(nodes, seed, ["path", "star"])
    one = probe(problem, np.zeros(2), nodes, rate=0.2, iterations=9, candidates=weights)
    alone = {"path": weights["path"][np.ix_(order, order)]}
    other = probe(moved, np.zeros(2), nodes, rate=0.2, iterations=9, candidates=alone)
    assert other.rehearsed["path"] == pytest.approx(one.rehearsed["path"], rel=1e-9, abs=1e-12)
    assert other.energy.ratio == pytest.approx(one.energy.ratio)


def test_a_plan_is_a_candidate(square_of: Callable[..., Silos]) -> None:
    """One matrix for all rounds or a function of the round; MATCHA is drawn."""
    problem, start = springs(0, 6, alike=False), np.zeros(2)
    weights = mixing_matrices(6, 0, ["ring"])["ring"]
    drawn = Drawn(law=matcha_law(square_of(0, 6), [(i, (i + 1) % 6) for i in range(6)]), seed=0)
    candidates = {"fixed": weights, "called": lambda k: weights, "matcha": drawn.weights}
    found = probe(problem, start, 6, rate=0.3, iterations=30, candidates=candidates)
    assert np.array_equal(found.rehearsed["fixed"], found.rehearsed["called"])
    ranked = {each.name: each for each in forecasts(found, candidates)}
    assert ranked["called"].kappa is ranked["matcha"].models_spread is None
    assert ranked["fixed"].kappa == pytest.approx(kappa(found.energy, Spectrum.of(weights)))
    assert 0 < ranked["matcha"].slowdown < np.inf


def test_overlays_are_candidates(square_of: Callable[..., Silos]) -> None:
    silos = square_of(0, 5)
    plans = {name: candidate_of(design) for name, design in contenders(silos).items() if name != "matcha"}
    assert np.array_equal(plans["star"], np.full((5, 5), 0.2))
    assert np.array_equal(plans["mst"], plans["mst"].T)
    assert np.array_equal(np.unique(plans["ring"]), [0, 0.5])
    extra = Overlay.of(silos, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2)])
    pushing = candidate_of(design_of(extra))
    assert isinstance(pushing, np.ndarray)
    assert pushing[:, 0].tolist() == [1 / 3, 1 / 3, 1 / 3, 0, 0]
    assert pushing.sum(axis=0) == pytest.approx(np.ones(5))
    with pytest.raises(ConfigError, match='overlay "matcha": its rounds are drawn'):
        candidate_of(contenders(silos)["matcha"])
    problem = springs(0, 5, alike=False)
    found = probe(problem, np.zeros(2), 5, rate=0.2, iterations=20, candidates=plans | {"extra": pushing})
    assert found.slowdown("star") == pytest.approx(1, abs=1e-12)
    assert {each.name: each.kappa for each in forecasts(found, {"extra": pushing})} == {"extra": None}


def test_growth_tells_that_drift_has_not_settled() -> None:
    """With λ = −0.8 and η a = 0.5 drift is multiplied by −1.3 an iteration; with η a = 0.1 by −0.9."""
    weights = np.array([[0.1, 0.9], [0.9, 0.1]])
    problem = Springs(np.array([1.0, 1.0]), np.array([[0.0], [1.0]]))
    wild, calm = (
        probe(problem, np.zeros(1), 2, rate=rate, iterations=40, candidates={"it": weights}) for rate in (0.5, 0.1)
    )
    assert wild.growth("it") == pytest.approx(1.3**20, rel=0.01)
    assert calm.growth("it") == pytest.approx(1, rel=0.02)
    assert forecasts(wild, {"it": weights})[0].growth == wild.growth("it")
    assert probe(problem, np.zeros(1), 2, rate=0.1, iterations=1, candidates={"it": weights}).growth("it") == 1


def test_forecasts_in_iterations_and_in_seconds() -> None:
    problem, names = springs(3, 9, alike=False, noise=0.0), ["complete", "ring", "path"]
    candidates = mixing_matrices(9, 0, names)
    found = probe(problem, np.zeros(2), 9, rate=0.5, iterations=30, candidates=candidates)
    slowdowns = [each.slowdown for each in forecasts(found, candidates)]
    assert slowdowns == sorted(slowdowns)
    times = {"complete": 100.0, "ring": 10.0, "path": 1e6}
    ranked = forecasts(found, candidates, cycle_times_ms=times)
    assert [each.name for each in ranked] == ["ring", "complete", "path"]
    for each in ranked:
        assert each.seconds(150) == pytest.approx(0.15 * times[each.name] * each.slowdown)
    assert forecasts(found, candidates)[0].seconds(150) is None
    with pytest.raises(ConfigError, match='no cycle time of "ring"'):
        forecasts(found, candidates, cycle_times_ms={"complete": 1.0})


def test_what_cannot_be_probed_is_refused() -> None:
    problem = springs(0, 3, alike=True)
    with pytest.raises(ConfigError, match=r'candidate "it": the mixing matrix of shape \(2, 2\)'):
        probe(problem, np.zeros(2), 3, rate=0.1, candidates={"it": np.eye(2)})
    with pytest.raises(ConfigError, match="does not keep the sum"):
        probe(problem, np.zeros(2), 3, rate=0.1, candidates={"it": np.full((3, 3), 0.5)})
    with pytest.raises(ConfigError, match="iteration 0 of the probe: the gradient of node 1 is not finite"):
        probe(lambda p, k: np.array([[1.0], [np.nan]]), np.zeros(1), 2, rate=0.1)
    with pytest.raises(ConfigError, match="settled is 1"):
        probe(problem, np.zeros(2), 3, rate=0.1, settled=1)
    with pytest.raises(ConfigError, match="rate is 0"):
        probe(problem, np.zeros(2), 3, rate=0)
    with pytest.raises(ConfigError, match='order is "both"'):
        probe(problem, np.zeros(2), 3, rate=0.1, order="both")  # type: ignore[arg-type]


def test_inputs_are_left_alone() -> None:
    start, weights = np.zeros(2), mixing_matrices(5, 0, ["ring"])["ring"]
    kept = weights.copy()
    probe(springs(0, 5, alike=False), start, 5, rate=0.1, iterations=3, candidates={"ring": weights})
    assert not start.any()
    assert np.array_equal(kept, weights)


# --- softmax regression in two splits (specification: one seed, 400 iterations, ± 15 %) -------------------------------


def test_softmax_gradients_are_slopes_of_the_loss() -> None:
    x, y = gaussian_classes(0, classes=3, features=2, per_class=4)
    problem = softmax(x, y, "per class", nodes=3, batch_size=None, seed=0)
    assert [len(set(labels)) for labels in problem.y.tolist()] == [1, 1, 1]
    point = np.random.default_rng(0).normal(size=6)
    slope = problem(np.tile(point, (3, 1)), 0).mean(axis=0)
    shifts = 1e-6 * np.eye(6)
    numeric = [(problem.loss(point + shift) - problem.loss(point - shift)) / 2e-6 for shift in shifts]
    assert slope == pytest.approx(numeric, abs=1e-8)
    few = softmax(x, y, "random", nodes=3, batch_size=2, seed=0)
    drawn = [few(np.zeros((3, 6)), k) for k in range(3000)]
    assert np.array_equal(drawn[5], few(np.zeros((3, 6)), 5))
    whole = softmax(x, y, "random", nodes=3, batch_size=None, seed=0)(np.zeros((3, 6)), 0)
    assert np.abs(np.mean(drawn, axis=0) - whole).max() < 5 * np.std(drawn, axis=0).max() / 3000**0.5


@dataclass
class Case:
    """What one split and batch size gave; ``ratio`` and ``kappa`` are means over 400 iterations, with α = 1."""

    compared: Compared
    ratio: float
    kappa: float


def case(seed: int, split: Split, batch_size: int, names: Sequence[str]) -> Case:
    x, y = gaussian_classes(seed)
    problem = softmax(x, y, split, nodes=16, batch_size=batch_size, seed=seed)
    graphs = mixing_matrices(16, seed, names)
    compared = compare(problem, problem.start, graphs, rate=PUBLISHED_STEP)
    whole = probe(problem, problem.start, 16, rate=PUBLISHED_STEP, iterations=400).energy
    ring = kappa(whole, Spectrum.of(graphs["ring"]), slowness=1)
    return Case(compared, whole.ratio, ring)


def check_regimes(found: list[Case]) -> None:
    for each, ratio in zip(found, (0.20, 0.54, 0.78, 0.97), strict=True):
        assert each.ratio == pytest.approx(ratio, rel=0.15)
    for each in found[:2]:
        assert each.compared.measured["ring"] <= 1.1
        assert each.compared.predicted["ring"] <= 1.1
    for each in found[2:]:
        assert each.compared.measured["ring"] >= 1.4
        assert each.compared.predicted["ring"] == pytest.approx(each.compared.measured["ring"], rel=0.15)
    assert found[0].kappa <= 0.35 * found[2].kappa
    early = [each.compared.ratio for each in found]  # the order from 50 iterations is that of 400
    assert early == sorted(early)


def test_when_the_ring_costs_iterations() -> None:
    found = [case(0, split, size, ["ring"]) for split, size in CASES]
    check_regimes(found)
    for each, expected in zip(found, (15.9, 42.4, 61.1, 76.4), strict=True):
        assert each.kappa == pytest.approx(expected, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_when_topology_matters_over_seeds(seed: int) -> None:
    """And 50 iterations rank all graphs by slowdown, within 20 % of what is measured over 150."""
    found = [case(seed, split, size, GRAPHS) for split, size in CASES]
    check_regimes(found)
    for each in found[:2]:
        assert max(each.compared.measured.values()) <= 1.05
        assert max(each.compared.predicted.values()) <= 1.05
    for each in found[2:]:
        both = each.compared.measured, each.compared.predicted
        measured, predicted = ([values[name] for name in GRAPHS] for values in both)
        assert spearmanr(measured, predicted).statistic >= 0.95
        assert predicted == pytest.approx(measured, rel=0.2)
        ranked = [each.compared.kappa[name] for name in GRAPHS]
        assert spearmanr(measured, ranked).statistic <= 0.75  # κ misplaces the directed ring and the star


# --- tasks and populations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["tiled", "functional"])
def test_gradients_of_a_task_in_closed_form(executor: str) -> None:
    """Least squares: Xᵀ(Xw − y)/n at each silo's own model."""
    clients = linear_clients()
    params = np.random.default_rng(0).normal(size=(4, 3))
    kept = params.copy()
    execution = Execution(executor=executor, workers=1)  # type: ignore[arg-type]
    with TaskGradients(linear_task(clients), clients, batch_size=None, streams=Streams(0), execution=execution) as it:
        found = it(params, 0)
        assert it.nodes == 4
        assert it.loss(params[0]) == pytest.approx(
            np.mean([0.5 * np.square(x @ params[0] - y[:, 0]).mean() for x, y in clients.records])
        )
    expected = [x.T @ (x @ w - y[:, 0]) / len(x) for (x, y), w in zip(clients.records, params, strict=True)]
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.array_equal(params, kept)


def test_batches_have_numbers() -> None:
    """The same number at other models: the same records, so gradients differ by the curvature of these; unbiased."""
    clients = linear_clients(sizes=(6, 9))
    with TaskGradients(linear_task(clients), clients, batch_size=2, streams=Streams(0)) as it:
        zero, batches = np.zeros((2, 3)), 300
        assert np.array_equal(it(zero, 3), it(zero, 3))
        assert not np.allclose(it(zero, 3), it(zero, 4))
        drawn = np.array([it(zero, k) for k in range(batches)])
    whole = np.array([-x.T @ y[:, 0] / len(x) for x, y in clients.records])
    error = drawn.std(axis=0) / batches**0.5
    assert (np.abs(drawn.mean(axis=0) - whole) < 4.5 * error + 1e-12).all()  # false alarm below 1e-4


def test_float32_keeps_the_digits_of_small_gradients() -> None:
    """Of 1e-3 and less beside parameters of 1, where a step with a rate of 1 would keep four."""
    known = linear_clients()
    clients = Clients(tuple((0.01 * x, 0.01 * y) for x, y in known.records), known.schema)
    params = 1 + np.random.default_rng(0).random((4, 3))
    found = []
    for dtype in (torch.float64, torch.float32):
        with TaskGradients(linear_task(clients, dtype), clients, batch_size=None, streams=Streams(0)) as it:
            found.append(it(params, 0))
    assert np.abs(found[0]).max() < 2e-3
    assert np.abs(found[0] - found[1]).max() <= 1e-5 * np.abs(found[0]).max()


def test_a_silo_without_records_is_named() -> None:
    empty = Clients(((np.zeros((0, 3)), np.zeros((0, 1))),), Schema(input_shape=(3,), target="real", num_outputs=1))
    with pytest.raises(DataError, match="client 0: no training records"):
        TaskGradients(linear_task(empty), empty, batch_size=None, streams=Streams(0))


@pytest.mark.parametrize("per_class", [False, True])
def test_a_network_on_digits(per_class: bool) -> None:
    """Not convex, and still told apart: 10 silos with random records, or with the digits of one class."""
    partition = Pathological(clients=10, shards=1) if per_class else IID(clients=10)
    population = build_population(Digits(), partition=partition, seed=0, validation=0.0, test=0.0)
    task = make_task(TaskSettings(model="mlp", options={"hidden": (16,)}), population.schema, dtype=torch.float64)
    candidates = mixing_matrices(10, 0, ["ring", "star"])
    with TaskGradients(task, population, batch_size=16, streams=Streams(0)) as gradients:
        found = probe(gradients, gradients.start(0), 10, rate=0.3, iterations=40, candidates=candidates)
    assert (found.energy.ratio > 0.8) == per_class
    assert (found.slowdown("ring") > 1.15) == per_class
    assert found.slowdown("star") > found.slowdown("ring") or not per_class

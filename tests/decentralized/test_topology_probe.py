"""Energies and spectra in closed form, the bound against problems whose optimum is known, and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rivage.core.errors import ConfigError, ShapeError
from rivage.decentralized.probing import descend
from rivage.decentralized.topology_bound import Bound, SmoothBound, relative_iterations
from rivage.decentralized.topology_probe import (
    Energies,
    Spectrum,
    drawn_noise_ratio,
    kappa,
    replicated_spread,
    spread_of_models,
)
from rivage.graphs import best_constant, contraction, erdos_renyi, metropolis, pull_weights
from rivage.studies.claims.topology_scenarios import GRAPHS, mixing_matrices

seeds = st.integers(0, 10**6)


def normal_matrix(seed: int, nodes: int) -> np.ndarray:
    """Symmetric, or a random circulant with positive weights."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        weights = rng.random(nodes) ** 3
        return sum(w * np.roll(np.eye(nodes), k, axis=0) for k, w in enumerate(weights / weights.sum()))
    graph = erdos_renyi(nodes, 0.5, rng) if nodes > 2 else None
    return metropolis(np.ones((nodes, nodes)) if graph is None else graph.adjacency.astype(float))


def energies_of(seed: int, nodes: int) -> Energies:
    rng = np.random.default_rng(seed)
    expected, noise = rng.normal(size=(nodes, 3)), rng.normal(size=(nodes, 5)) * rng.random((nodes, 1))
    known = expected @ expected.T
    return Energies(second=known + np.diag(np.square(noise).sum(axis=1)), expected=known)


# --- energies ---------------------------------------------------------------------------------------------------------


def test_energies_by_hand() -> None:
    """Nodes at (3, 0) and (1, 2), then at (1, 0) and (1, 0)."""
    found = Energies.of(np.array([[3.0, 0.0], [1.0, 2.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert found.total == pytest.approx((14 + 2) / 2)
    assert found.spread == pytest.approx(((1 + 1 + 1 + 1) + 0) / 2)
    assert found.expected_total == pytest.approx(3 + 1)
    assert found.expected_spread == 0  # ⟨ΠG, ΠG'⟩ = 0
    assert found.ratio == pytest.approx(np.sqrt(4 * 2) / 8)


@given(seeds, st.integers(1, 6))
def test_energies_keep_their_order(seed: int, nodes: int) -> None:
    rng = np.random.default_rng(seed)
    found = Energies.mean([Energies.of(*rng.normal(size=(2, nodes, 4))) for _ in range(3)])
    assert 0 <= found.expected_spread <= found.spread <= found.total * (1 + 1e-12)
    assert found.spread > 0 or nodes == 1
    assert found.nodes == nodes


def test_two_batches_are_unbiased_where_one_is_not() -> None:
    """4000 pairs; standard errors are below 0.3 (false alarm below 1e-5), the noise adds 80 and 70."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(8, 10))
    drawn = [Energies.of(*(known + rng.normal(size=(2, 8, 10)))) for _ in range(4000)]
    found, apart = Energies.mean(drawn), known - known.mean(axis=0)
    assert np.trace(found.expected) == pytest.approx(np.square(known).sum(), abs=1.5)
    assert found.expected_spread == pytest.approx(np.square(apart).sum(), abs=1.5)
    assert found.total == pytest.approx(np.square(known).sum() + 80, abs=1.5)
    assert found.spread == pytest.approx(np.square(apart).sum() + 70, abs=1.5)


# --- spectra ----------------------------------------------------------------------------------------------------------


@given(seeds, st.integers(2, 9))
def test_eigenspaces_rebuild_the_matrix_and_split_the_energy(seed: int, nodes: int) -> None:
    weights, energies = normal_matrix(seed, nodes), energies_of(seed, nodes)
    found = Spectrum.of(weights)
    rebuilt = (found.vectors * found.values) @ found.vectors.conj().T + 1 / nodes
    assert np.allclose(rebuilt, weights, atol=1e-10)
    assert found.second_modulus == pytest.approx(contraction(weights), abs=1e-8)
    assert np.all(np.diff(np.abs(found.values)) <= 1e-12)
    assert found.energies(energies.second).sum() == pytest.approx(energies.spread)
    assert found.shares(energies).sum() == pytest.approx(1)
    assert sum(len(members) for _, members in found.eigenspaces) == nodes - 1
    assert 0 < found.slowness(energies) <= 1
    powers = [np.linalg.matrix_power(weights, m) for m in range(1, 6)]
    apart = np.eye(nodes) - 1 / nodes
    for m, power in enumerate(powers, start=1):  # the inequality behind α
        left = np.trace(apart @ power @ energies.second @ power.T @ apart)
        ceiling = found.second_modulus ** (2 * m) * found.slowness(energies) ** 2 * energies.spread
        assert left <= ceiling * (1 + 1e-9) + 1e-9


def test_spectra_in_closed_form() -> None:
    matrices = mixing_matrices(16, 0, GRAPHS)
    ring, one_way = Spectrum.of(matrices["ring"]), Spectrum.of(matrices["directed ring"])
    assert ring.second_modulus == pytest.approx(1 / 3 + 2 / 3 * np.cos(np.pi / 8), abs=1e-12)
    assert len(ring.eigenspaces) == 8  # pairs, and one alone
    assert one_way.second_modulus == pytest.approx(np.cos(np.pi / 16), abs=1e-12)
    assert len(one_way.eigenspaces) == 15  # conjugates differ
    angles = 2 * np.pi * np.arange(1, 16) / 16
    expected = (1 + np.exp(1j * angles)) / 2
    assert np.allclose(np.sort_complex(one_way.values.round(10)), np.sort_complex(expected.round(10)))
    assert abs(1 - one_way.values[0]) == pytest.approx(np.sin(np.pi / 16), abs=1e-12)
    assert Spectrum.of(matrices["complete"]).second_modulus == 0
    assert Spectrum.of(np.ones((1, 1))).second_modulus == 0


def test_slowness_of_uniform_and_of_slowest_spread() -> None:
    ring = Spectrum.of(mixing_matrices(16, 0, ["ring"])["ring"])
    uniform = Energies(second=np.eye(16), expected=np.zeros((16, 16)))
    moduli = np.abs(ring.values)
    assert ring.slowness(uniform) == pytest.approx(np.sqrt((moduli**2).sum() / 15) / moduli[0])
    wave = np.cos(2 * np.pi * np.arange(16) / 16)
    slow = Energies(second=np.outer(wave, wave), expected=np.zeros((16, 16)))
    assert ring.slowness(slow) == pytest.approx(1)
    assert ring.shares(slow)[0] == pytest.approx(1)
    fast = Energies(second=np.outer((-1.0) ** np.arange(16), (-1.0) ** np.arange(16)), expected=np.zeros((16, 16)))
    assert ring.slowness(fast) == pytest.approx(1 / 3 / moduli[0])


@given(seeds, st.integers(3, 8))
def test_names_of_nodes_do_not_matter(seed: int, nodes: int) -> None:
    order = np.random.default_rng(seed).permutation(nodes)
    weights, energies = normal_matrix(seed, nodes), energies_of(seed, nodes)
    moved = Energies(second=energies.second[np.ix_(order, order)], expected=energies.expected[np.ix_(order, order)])
    one, other = Spectrum.of(weights), Spectrum.of(weights[np.ix_(order, order)])
    assert other.slowness(moved) == pytest.approx(one.slowness(energies), rel=1e-6)
    assert kappa(moved, other) == pytest.approx(kappa(energies, one), rel=1e-6)
    assert spread_of_models(moved, other, 0.1) == pytest.approx(spread_of_models(energies, one, 0.1), rel=1e-6)


def test_matrices_that_have_other_laws_are_refused() -> None:
    star = np.zeros((4, 4))
    star[0, 1:] = star[1:, 0] = 1
    with pytest.raises(ConfigError, match="not doubly stochastic"):
        Spectrum.of(pull_weights(star))
    skew = (np.roll(np.eye(3), 1, axis=0) + np.eye(3)[[1, 0, 2]]) / 2
    with pytest.raises(ConfigError, match="not normal"):
        Spectrum.of(skew)
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        Spectrum.of(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(3, 3\)"):
        Energies.of(np.ones((2, 3)), np.ones((3, 3)))


# --- derived facts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0, 3.0])
def test_drawn_from_the_same_data_the_ratio_is_small(noise: float) -> None:
    """E[G Gᵀ] = 11ᵀ + r² I for a unit gradient: exact, and by 3000 draws to 5 %."""
    nodes = 20
    known = Energies(second=np.ones((nodes, nodes)) + noise**2 * np.eye(nodes), expected=np.ones((nodes, nodes)))
    assert known.ratio == pytest.approx(drawn_noise_ratio(noise, nodes), rel=1e-12)
    assert drawn_noise_ratio(noise, nodes) <= drawn_noise_ratio(noise) <= 0.5
    rng, dimension = np.random.default_rng(0), 50
    truth = np.full(dimension, 1 / np.sqrt(dimension))
    scale = noise / np.sqrt(dimension)
    drawn = [Energies.of(*(truth + scale * rng.normal(size=(2, nodes, dimension)))) for _ in range(3000)]
    assert Energies.mean(drawn).ratio == pytest.approx(drawn_noise_ratio(noise, nodes), rel=0.05)


@pytest.mark.parametrize(("nodes", "records", "copies"), [(2, 4, 1), (3, 6, 1), (3, 6, 2), (4, 8, 2), (3, 6, 3)])
def test_spread_of_replicated_records_by_enumeration(nodes: int, records: int, copies: int) -> None:
    """A node holds each set of its size equally often, so the mean over all sets is the expectation."""
    gradients = np.random.default_rng(records).normal(size=(records, 3))
    mean, size = gradients.mean(axis=0), records * copies // nodes
    sets = [np.square(gradients[list(rows)].mean(axis=0) - mean).sum() for rows in combinations(range(records), size)]
    variance = float(np.square(gradients - mean).sum() / (records - 1))
    found = replicated_spread(nodes, records, copies, variance)
    assert found == pytest.approx(nodes * float(np.mean(sets)), abs=1e-12)
    assert (found == 0) == (copies == nodes)


@pytest.mark.parametrize("copies", [1, 2, 4, 8])
def test_spread_of_replicated_records_when_dealt(copies: int) -> None:
    """Each record at C different nodes, all nodes equally many: 400 deals, standard error below 4 %."""
    nodes, records, rng = 8, 64, np.random.default_rng(copies)
    gradients = rng.normal(size=(records, 5))
    variance = float(np.square(gradients - gradients.mean(axis=0)).sum() / (records - 1))
    spreads = []
    for _ in range(400):
        order = rng.permutation(records).reshape(nodes, -1)  # node j gets block j and the C − 1 that follow
        held = np.stack([order[(j + np.arange(copies)) % nodes].ravel() for j in range(nodes)])
        local = gradients[held].mean(axis=1)
        assert np.allclose(local.mean(axis=0), gradients.mean(axis=0))
        spreads.append(Energies.of(local, local).spread)
    expected = replicated_spread(nodes, records, copies, variance)
    assert np.mean(spreads) == pytest.approx(expected, rel=0.15, abs=1e-12)


# --- how far models are apart -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_spread_of_models_is_exact_without_noise(name: str) -> None:
    weights, rng = mixing_matrices(9, 0, [name])[name], np.random.default_rng(1)
    lasting = rng.normal(size=(9, 4))
    energies, spectrum = Energies.of(lasting, lasting), Spectrum.of(weights)
    apart = [
        x - x.mean(axis=0) for x in descend(lambda x, k: lasting, np.zeros((9, 4)), weights, rate=0.2, iterations=600)
    ]
    for k in (1, 2, 7, 40):
        expected = np.square(apart[k]).sum()
        assert spread_of_models(energies, spectrum, 0.2, k) == pytest.approx(expected, rel=1e-9)
    assert spread_of_models(energies, spectrum, 0.2) == pytest.approx(np.square(apart[-1]).sum(), rel=1e-3)


def test_spread_of_models_under_noise() -> None:
    """Second moments propagated exactly: C ← A C Aᵀ + η² noise, for noise that differs by node."""
    rng = np.random.default_rng(0)
    for name in ("ring", "directed ring", "torus"):
        weights, noise = mixing_matrices(9, 0, [name])[name], np.diag(rng.random(9))
        energies, covariance = Energies(second=noise, expected=np.zeros((9, 9))), np.zeros((9, 9))
        apart = np.eye(9) - 1 / 9
        for k in range(1, 30):
            covariance = weights @ covariance @ weights.T + 0.2**2 * noise
            expected = np.trace(apart @ covariance @ apart)
            assert spread_of_models(energies, Spectrum.of(weights), 0.2, k) == pytest.approx(expected, rel=1e-9)


def test_a_directed_ring_is_misjudged_by_moduli() -> None:
    """κ calls it worse than the ring both ways; what is expected spreads its models less."""
    matrices = mixing_matrices(16, 0, ["ring", "directed ring"])
    lasting = Energies(second=np.eye(16), expected=np.eye(16))
    both, one_way = (Spectrum.of(matrices[name]) for name in ("ring", "directed ring"))
    assert kappa(lasting, one_way) > 3 * kappa(lasting, both)
    assert spread_of_models(lasting, one_way, 0.1) < spread_of_models(lasting, both, 0.1) / 5


# --- the bound --------------------------------------------------------------------------------------------------------


@dataclass
class Quadratics:
    """f_j(x) = ½ (x − c_j)ᵀ Q_j (x − c_j), with Gaussian noise on gradients; Q_j may be singular."""

    curvatures: np.ndarray
    centers: np.ndarray
    noise: float
    seed: int

    @classmethod
    def drawn(cls, seed: int, nodes: int, noise: float = 0.0, apart: float = 1.0) -> Quadratics:
        rng = np.random.default_rng(seed)
        roots = rng.normal(size=(nodes, 3, int(rng.integers(1, 4))))
        curvatures = roots @ roots.transpose(0, 2, 1)
        curvatures /= np.linalg.norm(curvatures, 2, axis=(1, 2)).max()
        return cls(curvatures, apart * rng.normal(size=(nodes, 3)), noise, seed)

    @property
    def best(self) -> np.ndarray:
        pulled = np.einsum("nij,nj->i", self.curvatures, self.centers)
        return np.linalg.lstsq(self.curvatures.sum(axis=0), pulled, rcond=None)[0]

    def value(self, x: np.ndarray) -> float:
        off = x - self.centers
        return float(np.einsum("ni,nij,nj->", off, self.curvatures, off)) / (2 * len(self.centers))

    def exact(self, params: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nj->ni", self.curvatures, params - self.centers)

    def __call__(self, params: np.ndarray, batch: int) -> np.ndarray:
        noise = np.random.default_rng([self.seed, batch]).normal(size=params.shape)
        return self.exact(params) + self.noise * noise


def moments(
    problem: Quadratics, weights: np.ndarray, start: np.ndarray, rate: float, iterations: int
) -> dict[str, float]:
    """All that the bounds speak of, maxima over iterations, without noise."""
    steps = list(descend(problem, start, weights, rate=rate, iterations=iterations))[:-1]
    spectrum, found = Spectrum.of(weights), {"E": 0.0, "E_sp": 0.0, "H": 0.0, "alpha": 0.0, "mean": 0.0}
    for params in steps:
        gradients, same = problem.exact(params), np.broadcast_to(params.mean(axis=0), params.shape)
        energies = Energies.of(gradients, gradients)
        found["E"] = max(found["E"], energies.total)
        found["E_sp"] = max(found["E_sp"], energies.spread)
        found["mean"] = max(found["mean"], energies.total - energies.spread)
        found["H"] = max(found["H"], energies.total, float(np.square(problem.exact(same)).sum()))
        found["alpha"] = max(found["alpha"], spectrum.slowness(energies))
    means = [params.mean(axis=0) for params in steps]
    found["gap"] = problem.value(np.mean(means, axis=0)) - problem.value(problem.best)
    found["S2"] = float(np.mean([np.square(x - m).sum() for x, m in zip(steps, means, strict=True)]))
    found["distance"] = float(np.linalg.norm(means[0] - problem.best))
    found["R_sp"] = float(np.linalg.norm(start - means[0]))
    return found


def bounds(found: dict[str, float], weights: np.ndarray, rate: float) -> tuple[Bound, SmoothBound]:
    nodes = len(weights)
    whole = Bound(
        nodes=nodes,
        energy=found["E"],
        spread=found["E_sp"],
        expected=found["H"],
        slowness=found["alpha"],
        second_modulus=Spectrum.of(weights).second_modulus,
        rate=rate,
        distance=found["distance"],
        start_spread=found["R_sp"],
    )
    smooth = SmoothBound(
        nodes=nodes,
        mean_energy=found["mean"],
        models_spread=found["S2"],
        smoothness=1.0,
        rate=rate,
        distance=found["distance"],
    )
    return whole, smooth


@settings(max_examples=150)
@given(seeds, st.integers(2, 8), st.sampled_from([0.05, 0.3, 1.0]), st.integers(1, 150), st.booleans())
def test_no_run_exceeds_the_bounds(seed: int, nodes: int, rate: float, iterations: int, scattered: bool) -> None:
    """Full gradients, so that nothing is random: all graphs, steps, starts."""
    problem, weights = Quadratics.drawn(seed, nodes, apart=3.0), normal_matrix(seed // 3, nodes)
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(nodes, 3)) if scattered else np.tile(rng.normal(size=3), (nodes, 1))
    found = moments(problem, weights, start, rate, iterations)
    whole, smooth = bounds(found, weights, rate)
    assert found["gap"] <= smooth.at(iterations) + 1e-9
    assert found["gap"] <= whole.at(iterations) + 1e-9
    if found["H"] <= found["E"]:  # not so where scattered models happen to have small gradients and their mean has not
        assert whole.at(iterations) <= whole.classical.at(iterations) * (1 + 1e-9)


def test_noise_exceeds_no_bound_on_average() -> None:
    """40 runs with Gaussian noise on each of five graphs; the bounds are over twice what is measured."""
    nodes, rate, iterations, runs = 8, 0.1, 60, 40
    for name in ("complete", "exponential", "ring", "directed ring", "path"):
        weights = mixing_matrices(nodes, 0, [name])[name]
        gaps, found = [], {"E": 0.0, "E_sp": 0.0, "H": 0.0, "S2": 0.0}
        known = Quadratics.drawn(5, nodes)
        totals = np.zeros((iterations, 4))
        for run in range(runs):
            problem = Quadratics(known.curvatures, known.centers, 0.5, run)
            steps = list(descend(problem, np.zeros((nodes, 3)), weights, rate=rate, iterations=iterations))[:-1]
            gaps.append(known.value(np.mean(steps, axis=(0, 1))) - known.value(known.best))
            for k, params in enumerate(steps):
                gradients, exact = problem(params, k), problem.exact(params)
                energies = Energies.of(gradients, gradients)
                apart = np.square(params - params.mean(axis=0)).sum()
                totals[k] += np.array([energies.total, energies.spread, np.square(exact).sum(), apart]) / runs
        found |= dict(zip(found, totals.max(axis=0).tolist(), strict=True))
        found |= {"alpha": 1.0, "R_sp": 0.0, "distance": float(np.linalg.norm(known.best)), "mean": found["E"]}
        for bound in bounds(found, weights, rate):
            assert np.mean(gaps) + 3 * np.std(gaps) / runs**0.5 <= bound.at(iterations)


def test_logistic_losses_exceed_no_bound() -> None:
    """Convex and not quadratic; each node has one class, so that the optimum is not that of any node."""
    rng, nodes = np.random.default_rng(2), 6
    x, y = rng.normal(size=(nodes, 20, 3)), np.where(np.arange(nodes) % 2, 1.0, -1.0)[:, None]
    x = (x + y[..., None] * 0.7) / 2

    def gradients(params: np.ndarray, batch: int) -> np.ndarray:
        margins = y * np.einsum("nsd,nd->ns", x, params)
        return -np.einsum("ns,nsd->nd", y / (1 + np.exp(margins)), x) / 20

    def value(point: np.ndarray) -> float:
        return float(np.logaddexp(0, -y * (x @ point)).mean())

    best = minimize(value, np.zeros(3), tol=1e-12).x
    for name in ("ring", "path", "star", "directed ring", "complete"):
        weights = mixing_matrices(nodes, 0, [name])[name]
        steps = list(descend(gradients, np.zeros((nodes, 3)), weights, rate=0.5, iterations=200))[:-1]
        every = [Energies.of(gradients(p, 0), gradients(p, 0)) for p in steps]
        means = [np.tile(p.mean(axis=0), (nodes, 1)) for p in steps]
        expected = max(np.square(gradients(p, 0)).sum() for p in [*steps, *means])
        spectrum = Spectrum.of(weights)
        found = {
            "E": max(each.total for each in every),
            "E_sp": max(each.spread for each in every),
            "H": float(expected),
            "alpha": max(spectrum.slowness(each) for each in every),
            "R_sp": 0.0,
            "distance": float(np.linalg.norm(best)),
            "mean": max(each.total - each.spread for each in every),
            "S2": float(np.mean([np.square(p - m).sum() for p, m in zip(steps, means, strict=True)])),
        }
        gap = value(np.mean(steps, axis=(0, 1))) - value(best)
        whole, smooth = bounds(found, weights, 0.5)  # |xx'|/4 has norm below 1
        assert 0 <= gap <= min(whole.at(200), smooth.at(200))


def test_neither_term_of_the_topology_can_be_left_out() -> None:
    """Two nodes that hardly agree, large curvature at one and a distant optimum at the other: x̂ is far off."""
    weights = np.array([[0.995, 0.005], [0.005, 0.995]])
    problem = Quadratics(np.array([[[1.0]], [[0.05]]]), np.array([[0.0], [20.0]]), 0.0, 0)
    found = moments(problem, weights, np.full((2, 1), problem.best[0]), 1.0, 400)
    whole, smooth = bounds(found, weights, 1.0)
    assert found["gap"] > whole.at(400) - whole.topology
    assert found["gap"] > smooth.at(400) - smooth.topology
    assert found["gap"] <= min(whole.at(400), smooth.at(400))


@given(seeds, st.floats(0.01, 1), st.integers(1, 60))
def test_the_classical_bound_is_a_special_case(seed: int, rate: float, iterations: int) -> None:
    """‖x̄(0) − x*‖² / 2ηK + η L² / 2 + 2 L² η (1 + |λ_2| / (1 − |λ_2|)) with H = E_sp = E = M L²."""
    rng = np.random.default_rng(seed)
    nodes, norm, modulus, distance = int(rng.integers(2, 50)), rng.uniform(0.1, 9), rng.uniform(0, 0.99), rng.random()
    energy = nodes * norm**2
    bound = Bound(
        nodes=nodes,
        energy=energy,
        spread=energy / 3,
        expected=energy / 7,
        slowness=0.2,
        second_modulus=modulus,
        rate=rate,
        distance=distance,
    )
    expected = distance**2 / (2 * rate * iterations) + rate * norm**2 / 2 + 2 * rate * norm**2 / (1 - modulus)
    assert bound.classical.at(iterations) == pytest.approx(expected)
    assert bound.at(iterations) < bound.classical.at(iterations)


@given(seeds, st.floats(1e-3, 1), st.floats(0.01, 2), st.booleans())
def test_predicted_iterations_are_the_first_that_do(seed: int, rate: float, above: float, scattered: bool) -> None:
    energies, spectrum = energies_of(seed, 6), Spectrum.of(normal_matrix(seed, 6))
    bound = Bound.of(energies, spectrum, rate=rate, distance=2.0, start_spread=3.0 * scattered)
    assert bound.topology == pytest.approx(kappa(energies, spectrum) * bound.noise)
    gap = bound.floor * (1 + above)
    first = bound.iterations(gap)
    assert bound.at(int(first)) <= gap
    assert first == 1 or bound.at(int(first) - 1) > gap
    assert bound.iterations(bound.floor) == np.inf


def test_iterations_with_the_best_step_of_each_graph() -> None:
    """min over η of D²/2ηK + η c is D √(2c/K): iterations to a gap are as c, that is as 1 + κ."""
    energies, matrices = energies_of(3, 16), mixing_matrices(16, 0, ["ring", "torus"])
    one, other = (Spectrum.of(matrices[name]) for name in ("ring", "torus"))

    def needed(spectrum: Spectrum) -> float:
        rates = np.geomspace(1e-5, 1, 400)
        return min(Bound.of(energies, spectrum, rate=rate, distance=2.0).iterations(0.5) for rate in rates)

    expected = relative_iterations(kappa(energies, one), kappa(energies, other))
    assert needed(one) / needed(other) == pytest.approx(expected, rel=0.01)


def test_degenerate_cases() -> None:
    nothing = Energies(second=np.zeros((3, 3)), expected=np.zeros((3, 3)))
    complete, apart = Spectrum.of(np.full((3, 3), 1 / 3)), Spectrum.of(np.eye(3))
    assert nothing.ratio == 0
    assert complete.shares(nothing).sum() == pytest.approx(1)
    some = energies_of(0, 3)
    assert kappa(some, complete) == pytest.approx(4 * some.ratio)
    assert kappa(some, apart) == np.inf
    assert spread_of_models(some, apart, 0.1) == np.inf
    assert spread_of_models(some, apart, 0.1, 5) > spread_of_models(some, complete, 0.1, 5)
    with pytest.raises(ConfigError, match="rate is 0"):
        Bound.of(some, complete, rate=0, distance=1.0)
    with pytest.raises(ConfigError, match="copies is 9"):
        replicated_spread(3, 6, 9, 1.0)
    with pytest.raises(ConfigError, match="noise is -1"):
        drawn_noise_ratio(-1)


def test_best_constant_weights_are_normal_too() -> None:
    matrix = best_constant(np.ones((5, 5)) - np.eye(5))
    assert Spectrum.of(matrix).second_modulus == 0

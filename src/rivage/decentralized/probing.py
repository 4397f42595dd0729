"""A short probe of a learning problem: which topology will cost iterations, before training over any.

`probe` takes k_0 = 10 to 100 steps of SGD with exact averages of all nodes and notes the energies of the gradients
(`rivage.decentralized.topology_probe`): two gradients of every node a step, no communication beyond an average.

It also *rehearses* candidates. For a mixing matrix A each node keeps how far its model would be from the mean::

    D ← A D − η Π G(x̄ + D),        D(0) = 0,

while x̄ follows the exact averages, the same for all candidates. What A *keeps* is the share of the descent that is left
when gradients are taken at x̄ + D: Σ_k ⟨∇F(x̄), ḡ(x̄ + D)⟩ over Σ_k ⟨∇F(x̄), ḡ(x̄)⟩, over the last part of the probe, when D
has settled. An independent batch stands for ∇F, so both sums are unbiased. The *slowdown* is what A = J keeps over what
A keeps: how many times the iterations, as far as the probe can see. One more gradient of every node a step and
candidate; nothing is sent over a candidate's arcs.

Where A only keeps column sums, as for push-sum, w ← A w, w(0) = 1, gradients are taken at x̄ + D/w, and what would have
been the mean's move is put back: D ← A D − η (G − w⁺ ḡ). With doubly stochastic A this is the same.

Rehearsal and slowdown are ours and not of the paper: they need no convexity and no eigenvalues, and give sizes where κ
only orders. They do not see what happens long after the probe, near the optimum, nor drift that takes longer than the
probe to settle. Where η times the curvature exceeds 1 + λ for some eigenvalue λ < 0 of A, drift along it grows without
end around the path of exact averages; a run leaves for flatter places and may lose nothing. `Forecast.growth` tells of
both: probe for longer, or with a smaller step.

Reference: Neglia, Xu, Towsley, Calbi. Decentralized gradient methods: does topology matter? AISTATS 2020, arXiv
2002.12688.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.decentralized.designs import Design, mixing_of
from rivage.decentralized.topology_probe import Energies, Spectrum, kappa, spread_of_models
from rivage.graphs.mixing import push_weights

__all__ = [
    "EXACT",
    "Forecast",
    "Gradients",
    "Mixing",
    "Order",
    "Probed",
    "candidate_of",
    "descend",
    "forecasts",
    "probe",
]

Params = Float64[ndarray, "nodes dim"]
Square = Float64[ndarray, "nodes nodes"]
Mixing = Square | Callable[[int], Square]
"""A mixing matrix, row i at node i, or one for every round."""
Order = Literal["combine_then_adapt", "adapt_then_combine"]

EXACT = "exact averages"
"""The candidate that is always rehearsed: A = J, the complete graph, a star whose hub averages all."""
_SUMS = 1e-8


class Gradients(Protocol):
    """The stochastic gradients of all nodes."""

    def __call__(self, params: Params, batch: int) -> Params:
        """Of each node's own loss at its own row of ``params``, on its batch of this number.

        The same number draws the same records at whatever models, so that graphs are compared on the same draws;
        different numbers draw independently.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    """What a probe saw.

    Args:
        energies: of the gradients at each iteration.
        descent: ⟨∇F(x̄), ḡ⟩ at each iteration, of gradients at the mean model.
        rehearsed: the same at x̄ + D, by candidate, `EXACT` among them.
        drifts: ‖D‖² at each iteration, by candidate.
        settled: the first iteration that counts for what a candidate keeps.
        rate: η.
        mean: the mean model at the end.
    """

    energies: tuple[Energies, ...]
    descent: Float64[ndarray, "iterations"]
    rehearsed: Mapping[str, Float64[ndarray, "iterations"]]
    drifts: Mapping[str, Float64[ndarray, "iterations"]]
    settled: int
    rate: float
    mean: Float64[ndarray, "dim"]

    @property
    def energy(self) -> Energies:
        """Means over the iterations."""
        return Energies.mean(self.energies)

    def kept(self, name: str) -> float:
        """Share of the descent that a candidate keeps; 1 when its models agree, below 0 when it would climb."""
        return float(self.rehearsed[name][self.settled :].sum() / self.descent[self.settled :].sum())

    def slowdown(self, name: str, reference: str = EXACT) -> float:
        """Iterations of a candidate over those of another, as far as the probe saw; inf when it gets nowhere."""
        kept = self.kept(name)
        return self.kept(reference) / kept if kept > 0 else float("inf")

    def growth(self, name: str) -> float:
        """‖D‖² in the second half of the iterations that count over the first half; about 1 where drift has settled."""
        counted = self.drifts[name][self.settled :]
        before, after = counted[: len(counted) // 2].sum(), counted[-(len(counted) // 2) :].sum()
        return float(after / before) if len(counted) > 1 and before > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a probe says about one topology.

    Args:
        name: of the candidate.
        slowdown: iterations over those of exact averages.
        kappa: κ; None where it is not defined, for matrices that change, or are not normal and doubly stochastic.
        models_spread: E‖Π X‖² in the long run; None likewise.
        growth: of the drift while it counted; far above 1 it had not settled, and the slowdown is not to be trusted.
        cycle_time_ms: mean time of an iteration, if known.
    """

    name: str
    slowdown: float
    kappa: float | None
    models_spread: float | None
    growth: float
    cycle_time_ms: float | None = None

    @property
    def relative_ms(self) -> float:
        """Time per iteration of exact averages that it replaces: to be held against other candidates."""
        return self.slowdown * (1.0 if self.cycle_time_ms is None else self.cycle_time_ms)

    def seconds(self, iterations: float) -> float | None:
        """Until it is where exact averages are after so many iterations."""
        return None if self.cycle_time_ms is None else iterations * self.relative_ms / 1000


def probe(
    gradients: Gradients,
    start: Float64[ndarray, "dim"],
    nodes: int,
    *,
    rate: float,
    iterations: int = 50,
    candidates: Mapping[str, Mixing] | None = None,
    settled: float = 0.5,
    order: Order = "combine_then_adapt",
) -> Probed:
    """Take a few steps with exact averages; note energies, and rehearse candidates.

    Args:
        gradients: of the problem; batches 0 … 2 · iterations − 1 are drawn.
        start: the model that all start from.
        nodes: M.
        rate: η, as in the training that is planned.
        iterations: k_0.
        candidates: mixing matrices by name, whose columns sum to 1.
        settled: share of the iterations after which drifts count as settled, in [0, 1).
        order: whether nodes average before or after their step, in the training that is planned.

    Raises:
        ConfigError: for candidates that do not keep the sum of models, or gradients that are not finite.
    """
    require(rate, "rate", above=0)
    require(iterations, "iterations", least=1)
    require_one_of(order, "order", ("combine_then_adapt", "adapt_then_combine"))
    if not 0 <= settled < 1:
        raise ConfigError(f"settled is {settled}", mend="Give a share of the iterations in [0, 1).")
    mixing: dict[str, Mixing] = {EXACT: np.full((nodes, nodes), 1 / nodes), **(candidates or {})}
    mean = np.array(start, np.float64)
    rehearsals = {name: _Rehearsal(name, each, (nodes, len(mean)), rate, order) for name, each in mixing.items()}
    energies, descent = [], []
    for k in range(iterations):
        same = np.tile(mean, (nodes, 1))
        here, again = gradients(same, 2 * k), gradients(same, 2 * k + 1)
        _require_finite(here, k)
        energies.append(Energies.of(here, again))
        descent.append(float(again.mean(axis=0) @ here.mean(axis=0)))
        for each in rehearsals.values():
            each.step(gradients(mean + each.apart, 2 * k), again.mean(axis=0), k)
        mean = mean - rate * here.mean(axis=0)
    return Probed(
        energies=tuple(energies),
        descent=np.array(descent),
        rehearsed={name: np.array(each.descent) for name, each in rehearsals.items()},
        drifts={name: np.array(each.drifts) for name, each in rehearsals.items()},
        settled=int(settled * iterations),
        rate=rate,
        mean=mean,
    )


def forecasts(
    probed: Probed,
    candidates: Mapping[str, Mixing],
    *,
    cycle_times_ms: Mapping[str, float] | None = None,
) -> tuple[Forecast, ...]:
    """The candidates, best first: in time where cycle times are given, else in iterations.

    Args:
        probed: a probe that rehearsed them.
        candidates: the mixing matrices again.
        cycle_times_ms: mean time of an iteration of each, under stragglers or not.

    Raises:
        ConfigError: when some cycle time is missing.
    """
    missing = [] if cycle_times_ms is None else [name for name in candidates if name not in cycle_times_ms]
    if missing:
        raise ConfigError(f'no cycle time of "{missing[0]}"', mend="Give one for each candidate, or none.")
    found = [
        _forecast(probed, name, mixing, None if cycle_times_ms is None else cycle_times_ms[name])
        for name, mixing in candidates.items()
    ]
    return tuple(sorted(found, key=lambda each: each.relative_ms))


def descend(gradients: Gradients, start: Params, mixing: Mixing, *, rate: float, iterations: int) -> Iterator[Params]:
    """Models 0, 1, … of X ← A X − η G(X), batch k in iteration k; with uneven rows X ← A X − η G(X/w), and X/w.

    Plain decentralised SGD of a small problem, to hold forecasts against; training proper is elsewhere.
    """
    mass, share = np.array(start, np.float64), np.ones((len(start), 1))
    yield mass
    for k in range(iterations):
        weights = mixing(k) if callable(mixing) else mixing
        mass = weights @ mass - rate * gradients(mass / share, k)
        share = weights @ share
        yield mass / share


def candidate_of(design: Design) -> Mixing:
    """How an overlay averages: exactly at a hub, by Metropolis weights both ways, else by plain means or push-sum.

    Raises:
        ConfigError: for a law of overlays, whose plan knows the matrix of each round.
    """
    if design.hub is not None:
        return np.full((len(design.overlay), len(design.overlay)), 1 / len(design.overlay))
    if not design.critical_circuit:
        mend = "Give the weights of its plan, `Drawn(law=…, seed=…).weights`."
        raise ConfigError("its rounds are drawn", where=f'overlay "{design.name}"', mend=mend)
    weights = mixing_of(design.overlay)
    return weights if np.abs(weights.sum(axis=0) - 1).max() < _SUMS else push_weights(design.overlay.adjacency)


class _Rehearsal:
    """One candidate: how far its models would be from their mean."""

    def __init__(self, name: str, mixing: Mixing, shape: tuple[int, int], rate: float, order: Order) -> None:
        self.name, self.mixing, self.rate, self.order = name, mixing, rate, order
        self.drift, self.share = np.zeros(shape), np.ones((shape[0], 1))
        self.descent: list[float] = []
        self.drifts: list[float] = []

    @property
    def apart(self) -> Params:
        """Models minus their mean; after push-sum's correction, where shares differ."""
        return np.asarray(self.drift / self.share)

    def step(self, gradients: Params, downhill: Float64[ndarray, "dim"], round: int) -> None:
        """Note the descent of gradients taken at these models, and move on."""
        weights = self.mixing(round) if callable(self.mixing) else self.mixing
        _require_sums(self.name, weights, len(self.drift))
        mean = gradients.mean(axis=0)
        self.descent.append(float(downhill @ mean))
        self.drifts.append(float(np.square(self.apart).sum()))
        before, self.share = self.share, weights @ self.share
        if self.order == "combine_then_adapt":
            self.drift = weights @ self.drift - self.rate * (gradients - self.share * mean)
        else:
            self.drift = weights @ (self.drift - self.rate * (gradients - before * mean))


def _forecast(probed: Probed, name: str, mixing: Mixing, cycle_time_ms: float | None) -> Forecast:
    spectrum = _spectrum(mixing)
    energy = probed.energy
    return Forecast(
        name=name,
        slowdown=probed.slowdown(name),
        kappa=None if spectrum is None else kappa(energy, spectrum),
        models_spread=None if spectrum is None else spread_of_models(energy, spectrum, probed.rate),
        growth=probed.growth(name),
        cycle_time_ms=cycle_time_ms,
    )


def _spectrum(mixing: Mixing) -> Spectrum | None:
    if callable(mixing):
        return None
    try:
        return Spectrum.of(mixing)
    except ConfigError:
        return None


def _require_sums(name: str, weights: Square, nodes: int) -> None:
    if weights.shape != (nodes, nodes) or np.abs(weights.sum(axis=0) - 1).max() > _SUMS:
        what = f"the mixing matrix of shape {weights.shape} does not keep the sum of {nodes} models"
        mend = "Give a doubly stochastic matrix of all nodes, or one whose columns sum to 1 for push-sum."
        raise ConfigError(what, where=f'candidate "{name}"', mend=mend)


def _require_finite(gradients: Params, iteration: int) -> None:
    bad = ~np.isfinite(gradients).all(axis=1)
    if bad.any():
        what = f"the gradient of node {int(np.argmax(bad))} is not finite"
        raise ConfigError(what, where=f"iteration {iteration} of the probe", mend="Lower the rate.")

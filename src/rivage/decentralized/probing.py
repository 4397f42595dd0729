"""A short probe of a learning problem: which topology will cost iterations, before training over any.

`probe` takes k_0 = 10 to 100 steps of SGD with exact averages of all nodes and notes the energies of the gradients
(`rivage.decentralized.topology_probe`): two gradients of every node a step, no communication beyond an average.

It also *rehearses* candidates. For a mixing matrix A each node keeps how far its model would be from the mean,

    D ← A D − η Π G(x̄ + D),        D(0) = 0,

while x̄ follows the exact averages, the same for all candidates. The *pace* of A is how much of the descent is left when
gradients are taken at x̄ + D: Σ_k ⟨∇F(x̄), ḡ(x̄ + D)⟩, over the last part of the probe, when D has settled. An independent
batch stands for ∇F, so sum and pace are unbiased. The *slowdown* is the pace of the complete graph, A = J, over that of
A: how many times the iterations it needs, as far as the probe can see. One more gradient of every node a step and
candidate; nothing is sent over the candidate's arcs.

Rehearsal and slowdown are ours and not of the paper: they need no convexity and no eigenvalues, and give sizes where κ
only orders. They do not see what happens long after the probe, near the optimum, nor drift that takes longer than the
probe to settle.

Reference: Neglia, Xu, Towsley, Calbi. Decentralized gradient methods: does topology matter? AISTATS 2020, arXiv
2002.12688.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.decentralized.topology_probe import Energies

__all__ = ["Gradients", "Mixing", "Probed", "descend", "probe"]

Params = Float64[ndarray, "nodes dim"]
Square = Float64[ndarray, "nodes nodes"]
Mixing = Square | Callable[[int], Square]
"""A mixing matrix, or one for every round."""


class Gradients(Protocol):
    """The stochastic gradients of all nodes."""

    def __call__(self, params: Params, batch: int) -> Params:
        """Of each node's own loss at its own row of ``params``, on its batch of this number.

        The same number draws the same records at whatever models, so that graphs are compared on the same draws.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    """What a probe saw.

    Args:
        energies: of the gradients at each iteration.
        descent: ⟨∇F(x̄), ḡ⟩ at each iteration, of gradients at the mean model.
        rehearsed: the same at x̄ + D, by candidate.
        settled: the first iteration that counts for the pace.
        params: the mean model at the end.
    """

    energies: tuple[Energies, ...]
    descent: Float64[ndarray, "iterations"]
    rehearsed: Mapping[str, Float64[ndarray, "iterations"]]
    settled: int
    params: Float64[ndarray, "dim"]

    @property
    def mean(self) -> Energies:
        """Over the iterations."""
        return Energies.mean(self.energies)

    def pace(self, name: str) -> float:
        """Share of the descent that a candidate keeps; 1 when its models agree, below 0 when it would climb."""
        return float(self.rehearsed[name][self.settled :].sum() / self.descent[self.settled :].sum())

    def slowdown(self, name: str, reference: str) -> float:
        """Iterations of a candidate over those of another, as far as the probe saw; inf when it gets nowhere."""
        return self.pace(reference) / self.pace(name) if self.pace(name) > 0 else float("inf")


def probe(
    gradients: Gradients,
    start: Float64[ndarray, "dim"],
    nodes: int,
    *,
    rate: float,
    iterations: int = 50,
    candidates: Mapping[str, Mixing] | None = None,
    settled: float = 0.5,
) -> Probed:
    """Take a few steps with exact averages; note energies, and rehearse candidates.

    Args:
        gradients: of the problem; batches 0 … 2 · iterations − 1 are drawn.
        start: the model that all start from.
        nodes: M.
        rate: η, as in the training that is planned.
        iterations: k_0.
        candidates: mixing matrices that keep the mean, by name.
        settled: share of the iterations after which drifts count as settled, in [0, 1).

    Raises:
        ConfigError: for candidates that do not keep the mean, or gradients that are not finite.
    """
    require(rate, "rate", above=0)
    require(iterations, "iterations", least=1)
    if not 0 <= settled < 1:
        raise ConfigError(f"settled is {settled}", mend="Give a share of the iterations in [0, 1).")
    mixing = {name: _keeping_means(name, given, nodes) for name, given in (candidates or {}).items()}
    mean = np.array(start, np.float64)
    drifts = {name: np.zeros((nodes, len(mean))) for name in mixing}
    energies, descent, rehearsed = [], [], {name: list[float]() for name in mixing}
    for k in range(iterations):
        same = np.broadcast_to(mean, (nodes, len(mean)))
        here, again = gradients(same, 2 * k), gradients(same, 2 * k + 1)
        _require_finite(here, k)
        energies.append(Energies.of(here, again))
        downhill = again.mean(axis=0)
        descent.append(float(downhill @ here.mean(axis=0)))
        for name, weights in mixing.items():
            there = gradients(mean + drifts[name], 2 * k)
            rehearsed[name].append(float(downhill @ there.mean(axis=0)))
            drifts[name] = weights(k) @ drifts[name] - rate * (there - there.mean(axis=0))
        mean = mean - rate * here.mean(axis=0)
    return Probed(
        energies=tuple(energies),
        descent=np.array(descent),
        rehearsed={name: np.array(values) for name, values in rehearsed.items()},
        settled=int(settled * iterations),
        params=mean,
    )


def descend(gradients: Gradients, start: Params, mixing: Mixing, *, rate: float, iterations: int) -> Iterator[Params]:
    """X(0), X(1), … X(iterations) of X ← A X − η G; batch k is drawn in iteration k."""
    params = np.array(start, np.float64)
    yield params
    for k in range(iterations):
        weights = mixing(k) if callable(mixing) else mixing
        params = weights @ params - rate * gradients(params, k)
        yield params


def _keeping_means(name: str, mixing: Mixing, nodes: int) -> Callable[[int], Square]:
    """The matrix of a round, checked when it does not change."""
    if callable(mixing):
        return mixing
    if mixing.shape != (nodes, nodes) or not np.allclose(mixing.sum(axis=0), 1) or not np.allclose(mixing.sum(1), 1):
        what = f"the mixing matrix of shape {mixing.shape} does not keep the mean of {nodes} models"
        raise ConfigError(what, where=f'candidate "{name}"', mend="Give a doubly stochastic matrix of all nodes.")
    return lambda round: mixing


def _require_finite(gradients: Params, iteration: int) -> None:
    bad = ~np.isfinite(gradients).all(axis=1)
    if bad.any():
        what = f"the gradient of node {int(np.argmax(bad))} is not finite"
        raise ConfigError(what, where=f"iteration {iteration} of the probe", mend="Lower the rate.")

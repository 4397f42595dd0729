"""How far from the optimum decentralised SGD can be after K iterations, with and without the topology.

Setting and symbols of `rivage.decentralized.topology_probe`; every f_j is convex, x* minimises F, x̄ is the mean model
and x̂ its mean over iterations 0 … K − 1. With maxima over iterations for E, E_sp, α and H, which also exceeds
Σ_j E‖∇f_j(x̄)‖², and R_sp >= ‖Π X(0)‖::

    F(x̂) − F* <= ‖x̄(0) − x*‖² / 2ηK + η E / 2M
                 + 2 √H / M · [ R_sp (1 − |λ_2|^K) / K (1 − |λ_2|) + η √E_sp (1 + α |λ_2| / (1 − |λ_2|)) ].

Proof. Expand ‖x̄⁺ − x*‖² and sum over K iterations. Convexity of f_j at x_j and at x̄ gives::

    ⟨∇f_j(x_j), x̄ − x*⟩ >= f_j(x̄) − f_j(x*) − ⟨∇f_j(x_j) − ∇f_j(x̄), x_j − x̄⟩,

and Σ_j of the last is at most 2 √H ‖Π X‖ by Cauchy and Schwarz. Π X(k) = A^k Π X(0) − η Σ_h A^(k−1−h) Π G(h) and
E‖A^m Π G‖² <= |λ_2|^2m α² E_sp for m >= 1 bound it. The classical bound has H = E_sp = E = M L², with L the largest
norm of a gradient, and α = 1. With the step that is best for each graph, iterations to any gap are as 1 + κ.

Sharper, and not in the paper: when gradients are ℓ-Lipschitz that last sum is at most ℓ ‖Π X‖², and E‖ḡ‖² is
(E − E_sp) / M, so::

    F(x̂) − F* <= ‖x̄(0) − x*‖² / 2ηK + η (E − E_sp) / 2M + ℓ S² / M,       S² >= mean over iterations of E‖Π X‖²:

of order η² in what the topology adds, where the other is of order η.

References:
    Neglia, Xu, Towsley, Calbi. Decentralized gradient methods: does topology matter? AISTATS 2020, arXiv 2002.12688.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

from rivage.core.errors import require
from rivage.decentralized.topology_probe import Energies, Spectrum, delay_factor

__all__ = ["Bound", "SmoothBound", "relative_iterations"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The bound as a function of K.

    Args:
        nodes: M.
        energy: E.
        spread: E_sp <= E.
        expected: H.
        slowness: α.
        second_modulus: |λ_2|.
        rate: η > 0.
        distance: ‖x̄(0) − x*‖, or more.
        start_spread: R_sp; 0 from equal models.
    """

    nodes: int
    energy: float
    spread: float
    expected: float
    slowness: float
    second_modulus: float
    rate: float
    distance: float
    start_spread: float = 0.0

    def __post_init__(self) -> None:
        require(self.nodes, "nodes", least=1)
        require(self.rate, "rate", above=0)
        for name in ("energy", "spread", "expected", "slowness", "second_modulus", "distance", "start_spread"):
            require(getattr(self, name), name, least=0)

    @classmethod
    def of(
        cls, energies: Energies, spectrum: Spectrum, *, rate: float, distance: float, start_spread: float = 0.0
    ) -> Bound:
        """From a probe: with means in place of maxima an estimate of the bound, no guarantee."""
        return cls(
            nodes=energies.nodes,
            energy=energies.total,
            spread=energies.spread,
            expected=energies.expected_total,
            slowness=spectrum.slowness(energies),
            second_modulus=spectrum.second_modulus,
            rate=rate,
            distance=distance,
            start_spread=start_spread,
        )

    @property
    def classical(self) -> Bound:
        """What it is when only E is known: H = E_sp = E, α = 1; with E = M L² the bound of the literature."""
        return replace(self, spread=self.energy, expected=self.energy, slowness=1.0)

    @property
    def noise(self) -> float:
        """η E / 2M, which no topology mends."""
        return self.rate * self.energy / (2 * self.nodes)

    @property
    def topology(self) -> float:
        """κ times the noise: what the topology adds in the long run."""
        reach = self.rate * sqrt(self.spread) * delay_factor(self.slowness, self.second_modulus)
        return 2 * sqrt(self.expected) / self.nodes * reach if self.spread > 0 else 0.0

    @property
    def floor(self) -> float:
        """The limit for K → ∞."""
        return self.noise + self.topology

    def at(self, iterations: int) -> float:
        """The bound on F(x̂) − F* after K >= 1 iterations; it never rises with K."""
        require(iterations, "iterations", least=1)
        start = self.distance**2 / (2 * self.rate * iterations)
        left = sum_of_powers(self.second_modulus, iterations) / iterations
        return start + self.floor + 2 * sqrt(self.expected) / self.nodes * self.start_spread * left

    def iterations(self, gap: float) -> float:
        """The smallest K with a bound of at most ``gap``; inf where there is none. O(log K)."""
        require(gap, "gap", above=0)
        if gap <= self.floor:
            return float("inf")
        high = 1
        while self.at(high) > gap:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.at(middle) <= gap else (middle, high)
        return high


@dataclass(frozen=True, kw_only=True)
class SmoothBound:
    """The bound for Lipschitz gradients as a function of K.

    Args:
        nodes: M.
        mean_energy: E − E_sp = M E‖ḡ‖².
        models_spread: S² >= mean over iterations of E‖Π X‖².
        smoothness: ℓ, a Lipschitz constant of every ∇f_j.
        rate: η > 0.
        distance: ‖x̄(0) − x*‖, or more.
    """

    nodes: int
    mean_energy: float
    models_spread: float
    smoothness: float
    rate: float
    distance: float

    @property
    def topology(self) -> float:
        """ℓ S² / M."""
        return self.smoothness * self.models_spread / self.nodes

    def at(self, iterations: int) -> float:
        """The bound on F(x̂) − F* after K >= 1 iterations."""
        require(iterations, "iterations", least=1)
        noise = self.rate * self.mean_energy / (2 * self.nodes)
        return self.distance**2 / (2 * self.rate * iterations) + noise + self.topology


def relative_iterations(kappa: float, reference: float, scale: float = 1.0) -> float:
    """(1 + c κ) / (1 + c κ'): iterations that the bound predicts for a graph, over those for another.

    Each graph takes the step that is best for it. The bound is loose: fit c on a short run before believing sizes; the
    order of graphs does not depend on it.

    Args:
        kappa: κ of the graph.
        reference: κ' of the other, 0 for a topology that costs nothing.
        scale: c > 0.
    """
    require(scale, "scale", above=0)
    return (1 + scale * kappa) / (1 + scale * reference)


def sum_of_powers(base: float, count: int) -> float:
    """1 + b + … + b^(count − 1), also for b = 1."""
    return float(count) if base == 1 else (1 - base**count) / (1 - base)

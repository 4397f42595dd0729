"""When does topology matter? What the gradients of a short probe say about every mixing matrix.

Reference: Neglia, Xu, Towsley, Calbi. Decentralized gradient methods: does topology matter? AISTATS 2020, arXiv
2002.12688. The text was not at hand: quantities are defined as remembered, what follows from them is derived here.

M nodes minimise F = 1/M Σ_j f_j by X ← A X − η G. Row j of X and G is the model and the stochastic gradient of node j;
A is doubly stochastic and normal, with eigenvalues 1, λ_2, λ_3, … of falling modulus; J = 11ᵀ/M, Π = I − J; Ḡ is the
expectation of G given X. With::

    E = E‖G‖²,  E_sp = E‖Π G‖²,  H = E‖Ḡ‖²,  e_q = share of E‖Π G‖² in the eigenspace of λ_q,
    α² = Σ_{q>=2} e_q |λ_q / λ_2|²,

the ratio of what the topology adds to the classical bound to the noise that no topology mends is::

    κ = 4 √(H E_sp) / E · (1 + α |λ_2| / (1 − |λ_2|))        (see `rivage.decentralized.topology_bound`).

E, E_sp and e_q follow from the M × M matrix E[G Gᵀ], H from E[Ḡ Ḡᵀ], of which G G'ᵀ with a second, independent batch is
an unbiased estimate: one probe serves every A.

Sharper, and not in the paper: models differ by ‖Π X‖², and what makes them differ counts. Spread that is expected, of
energy b_q in the direction of λ_q, adds up; fresh noise, of energy n_q, does not. While expected gradients stay::

    E‖Π X(k)‖² = η² Σ_q [ b_q |(1 − λ_q^k) / (1 − λ_q)|² + n_q (1 − |λ_q|^2k) / (1 − |λ_q|²) ]     from X(0) = 0.

On a directed ring 1 − |λ_2| is about π²/2M² but |1 − λ_2| = sin(π/M): eigenvalues that turn cancel what is expected,
and moduli alone misjudge such a graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Complex128, Float, Float64
from numpy import ndarray
from scipy.linalg import schur

from rivage.core.errors import ConfigError, ShapeError, require

__all__ = [
    "Energies",
    "Spectrum",
    "delay_factor",
    "drawn_noise_ratio",
    "kappa",
    "replicated_spread",
    "spread_of_models",
]

Square = Float64[ndarray, "nodes nodes"]
_EXACT = 1e-8  # how far row sums, and A Aᵀ from Aᵀ A, may be off
_SAME = 1e-9  # distance of eigenvalues that are one


@dataclass(frozen=True, kw_only=True, eq=False)
class Energies:
    """What gradients are like, whatever the topology.

    Args:
        second: E[G Gᵀ] over nodes.
        expected: E[Ḡ Ḡᵀ] over nodes, symmetric; an estimate may have negative eigenvalues.
    """

    second: Square
    expected: Square

    @classmethod
    def of(cls, gradients: Float[ndarray, "nodes dim"], again: Float[ndarray, "nodes dim"]) -> Energies:
        """Unbiased estimates from two independent batches of every node at the same models.

        Args:
            gradients: of the first batches, by node.
            again: of the second.

        Raises:
            ShapeError: when they are not both [nodes, dim].
        """
        if gradients.ndim != 2 or gradients.shape != again.shape:
            what = f"gradients of shapes {gradients.shape} and {again.shape}"
            raise ShapeError(what, mend="Give two arrays [nodes, dim] of the same models.")
        one, other = np.asarray(gradients, np.float64), np.asarray(again, np.float64)
        cross = one @ other.T
        return cls(second=(one @ one.T + other @ other.T) / 2, expected=(cross + cross.T) / 2)

    @classmethod
    def mean(cls, several: Iterable[Energies]) -> Energies:
        """The mean over iterations."""
        every = list(several)
        return cls(
            second=np.mean([each.second for each in every], axis=0),
            expected=np.mean([each.expected for each in every], axis=0),
        )

    @property
    def nodes(self) -> int:
        """M."""
        return len(self.second)

    @property
    def total(self) -> float:
        """E, of the stochastic gradients."""
        return float(np.trace(self.second))

    @property
    def spread(self) -> float:
        """E_sp, of their spread around the mean over nodes; E − E_sp is that of the mean."""
        return max(0.0, self.total - float(self.second.mean() * self.nodes))

    @property
    def expected_total(self) -> float:
        """H, of the expected gradients; an estimate below 0 counts as 0."""
        return max(0.0, float(np.trace(self.expected)))

    @property
    def expected_spread(self) -> float:
        """Of the part of the spread that is expected: data differ, and not only batches."""
        return float(np.clip(np.trace(self.expected) - self.expected.mean() * self.nodes, 0.0, self.spread))

    @property
    def ratio(self) -> float:
        """√(H E_sp) / E, what is before the eigenvalues in κ / 4; 0 without gradients."""
        return float(np.sqrt(self.expected_total * self.spread) / self.total) if self.total > 0 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Eigenvalues and eigenvectors of a mixing matrix besides the mean.

    Args:
        values: λ_2, …, λ_M, of falling modulus; complex for directed graphs.
        vectors: orthonormal columns, one for each value.
    """

    values: Complex128[ndarray, "others"]
    vectors: Complex128[ndarray, "nodes others"]

    @classmethod
    def of(cls, weights: Square) -> Spectrum:
        """Of a doubly stochastic normal matrix: symmetric ones, and circulant ones as on directed rings. O(M³).

        Raises:
            ConfigError: when it does not keep the mean, or is not normal.
        """
        matrix = np.asarray(weights, np.float64)
        _require_mean_kept(matrix)
        if np.abs(matrix @ matrix.T - matrix.T @ matrix).max() > _EXACT:
            mend = "Use Metropolis weights on links both ways, or rehearse the overlay: that needs no eigenspaces."
            raise ConfigError("the mixing matrix is not normal: A Aᵀ differs from Aᵀ A", mend=mend)
        apart = _without_mean(len(matrix))
        triangle, basis = schur(apart.T @ matrix @ apart, output="complex")
        values = np.diag(triangle)
        order = np.argsort(-np.abs(values), kind="stable")
        return cls(values=values[order], vectors=(apart @ basis)[:, order])

    @property
    def second_modulus(self) -> float:
        """|λ_2|; 0 where one step agrees exactly."""
        largest = float(np.abs(self.values[0])) if len(self.values) else 0.0
        return 0.0 if largest < _EXACT else largest

    @cached_property
    def eigenspaces(self) -> tuple[tuple[complex, tuple[int, ...]], ...]:
        """Each eigenvalue that differs from those before, and the positions of its vectors."""
        found: list[tuple[complex, list[int]]] = []
        for place, value in enumerate(self.values.tolist()):
            home = next((members for known, members in found if abs(known - value) < _SAME), None)
            if home is None:
                found.append((value, [place]))
            else:
                home.append(place)
        return tuple((value, tuple(members)) for value, members in found)

    def energies(self, matrix: Square) -> Float64[ndarray, "others"]:
        """u_qᴴ C u_q: the energy of C = E[G Gᵀ] in the direction of each vector."""
        return np.asarray(np.einsum("iq,ij,jq->q", self.vectors.conj(), matrix, self.vectors).real)

    def shares(self, energies: Energies) -> Float64[ndarray, "spaces"]:
        """e_q: which part of the spread lies in each of `eigenspaces`; sums to 1. Uniform where there is no spread."""
        along = self.energies(energies.second).clip(0)
        along = along / along.sum() if along.sum() > 0 else np.full(len(along), 1 / max(len(along), 1))
        return np.array([along[list(members)].sum() for _, members in self.eigenspaces])

    def slowness(self, energies: Energies) -> float:
        """α in (0, 1]: 1 when all spread lies where agreement is slowest; 1 by convention when λ_2 = 0."""
        if self.second_modulus == 0:
            return 1.0
        moduli = np.array([abs(value) for value, _ in self.eigenspaces]) / self.second_modulus
        return min(1.0, float(np.sqrt(self.shares(energies) @ moduli**2)))


def kappa(energies: Energies, spectrum: Spectrum, *, slowness: float | None = None) -> float:
    """What the topology adds to the bound, over its noise; inf when nodes never agree.

    No absolute threshold tells when a topology matters: the bound is loose. Compare graphs, and cases.

    Args:
        energies: of the gradients.
        spectrum: of the mixing matrix.
        slowness: α, by default as measured; 1 is the worst case.
    """
    alpha = spectrum.slowness(energies) if slowness is None else slowness
    return 4 * energies.ratio * delay_factor(alpha, spectrum.second_modulus)


def delay_factor(slowness: float, second_modulus: float) -> float:
    """1 + α |λ_2| / (1 − |λ_2|)."""
    rest = 1 - second_modulus
    return 1 + slowness * second_modulus / rest if rest > _EXACT else float("inf")


def spread_of_models(energies: Energies, spectrum: Spectrum, rate: float, iterations: int | None = None) -> float:
    """E‖Π X(k)‖² from equal models while expected gradients stay as they are; exact in that case.

    Args:
        energies: of the gradients.
        spectrum: of the mixing matrix.
        rate: η > 0.
        iterations: k; None for k → ∞.
    """
    require(rate, "rate", above=0)
    values, moduli = spectrum.values, np.abs(spectrum.values)
    lasting = spectrum.energies(energies.expected).clip(0)
    fresh = (spectrum.energies(energies.second) - lasting).clip(0)
    if iterations is None:
        if spectrum.second_modulus >= 1 - _EXACT:
            return float("inf")
        added, noisy = 1 / np.abs(1 - values) ** 2, 1 / (1 - moduli**2)
    else:
        powers = np.arange(iterations)
        added = np.abs((values[:, None] ** powers).sum(axis=1)) ** 2
        noisy = (moduli[:, None] ** (2 * powers)).sum(axis=1)
    return float(rate**2 * (lasting @ added + fresh @ noisy))


def drawn_noise_ratio(noise: float, nodes: int | None = None) -> float:
    """√(H E_sp) / E when all nodes draw from the same data: √(1 − 1/M) r / (1 + r²), at most 1/2.

    E = M ‖∇F‖² (1 + r²), E_sp = (M − 1) r² ‖∇F‖², H = M ‖∇F‖². Small for tiny batches, where noise outweighs what is
    expected, and for large ones, where nothing spreads: there the topology hardly matters.

    Args:
        noise: r, the standard deviation of a node's gradient over the norm of its mean.
        nodes: M; None for M → ∞.
    """
    require(noise, "noise", least=0)
    return noise / (1 + noise**2) * (1.0 if nodes is None else float(np.sqrt(1 - 1 / nodes)))


def replicated_spread(nodes: int, records: int, copies: int, variance: float) -> float:
    """E_sp of full local gradients when each of S records lies at C of the M nodes, drawn at random.

    A node holds S C / M records, and E_sp = M σ² · M / (S C) · (1 − C / M): it falls with records and copies, and is 0
    when every node holds all. The mean over nodes is the gradient of all records, as each lies at equally many.

    Args:
        nodes: M.
        records: S, a multiple of M.
        copies: C, from 1 to M.
        variance: σ² = Σ_s ‖g_s − ḡ‖² / (S − 1) over the gradients of records.
    """
    require(records, "records", least=nodes)
    if not 1 <= copies <= nodes:
        raise ConfigError(f"copies is {copies}", mend=f"Give 1 to {nodes}, the number of nodes.")
    return nodes * variance * nodes / (records * copies) * (1 - copies / nodes)


def _require_mean_kept(matrix: Square) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"a mixing matrix of shape {matrix.shape}", mend="Give [nodes, nodes].")
    off = max(np.abs(matrix.sum(axis=0) - 1).max(), np.abs(matrix.sum(axis=1) - 1).max())
    if off > _EXACT:
        what = f"the mixing matrix is not doubly stochastic: a row or column sums to {1 + off:g} or {1 - off:g}"
        raise ConfigError(what, mend="Give weights that keep the mean; push-sum has other laws.")


def _without_mean(nodes: int) -> Float64[ndarray, "nodes others"]:
    """Orthonormal columns that are orthogonal to 1."""
    return np.linalg.qr(np.c_[np.ones(nodes), np.eye(nodes)[:, : nodes - 1]])[0][:, 1:]

"""Bounds on the means of the simple circuits through one silo, by linear programmes whose multipliers prove them.

Let β_v be the least mean d(γ) / |γ| of the simple circuits γ through v of two silos or more, d the delays. Divide the
arcs of γ by their number: x >= 0 with Σ x = 1 (Charnes-Cooper). With y_i = x(δ⁺(i)) the use of silo i, β_v is at least

    min Σ d x:   x(δ⁺(i)) = x(δ⁻(i)),   y_i <= y_v,   y_i <= x(δ⁺(S)) for i ∈ S, v ∉ S (generalised subtour cuts).

Arcs and cuts come in as they are needed. What is returned does not rest on the solver: with multipliers π of the flow,
σ >= 0 of the degrees and μ >= 0 of the cuts, whatever they are,

    r(i, j) = d(i, j) + π_i − π_j + σ_i − [i = v] Σ σ + Σ_(S, k) μ_(S, k) ([i = k] − [i ∈ S, j ∉ S])

has r(γ) <= d(γ) for every simple circuit γ through v, as γ leaves each silo at most once, v once, and every S that it
enters. Hence β_v >= min r: `CircuitProof.value` computes that from the multipliers and takes off what its rounding may
have added. Anyone can repeat it.

References:
    Charnes, Cooper. Programming with linear fractional functionals. Naval Research Logistics Quarterly 9, 1962.
    Fischetti, Salazar González, Toth. A branch-and-cut algorithm for the symmetric generalized traveling salesman
    problem. Operations Research 45, 1997 (the cuts).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.decentralized.seen_circuits import improved

__all__ = ["CircuitProof", "bounded", "circuit_bound"]

_NEAREST = 6  # arcs of each silo, each way, that the first programme knows
_LEAST = 1e-7  # violations below this are left: they cost the bound as much
_MOST = 300  # programmes a silo
_UNIT = 1e9  # flows of at most 1 as whole numbers, for cuts


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitProof:
    """Multipliers that prove a bound on the mean of the simple circuits through one silo.

    Args:
        silo: v.
        potentials: π.
        degrees: σ, >= 0.
        sets: S of each cut, without v.
        members: k ∈ S of each cut.
        weights: μ of each cut, >= 0.
    """

    silo: int
    potentials: Float64[ndarray, "silos"]
    degrees: Float64[ndarray, "silos"]
    sets: Bool[ndarray, "cuts silos"]
    members: Int64[ndarray, "cuts"]
    weights: Float64[ndarray, "cuts"]

    def reduced(self, delays: Float64[ndarray, "silos silos"]) -> Float64[ndarray, "silos silos"]:
        """The r of every arc; inf for loops."""
        tail = self.potentials + self.degrees
        np.add.at(tail, self.members, self.weights)
        tail[self.silo] -= self.degrees.sum()
        leaving = (self.sets * self.weights[:, None]).T @ (~self.sets).astype(np.float64)
        return np.where(np.eye(len(delays), dtype=bool), np.inf, delays + tail[:, None] - self.potentials - leaving)

    def value(self, delays: Float64[ndarray, "silos silos"]) -> float:
        """Min r, less all that rounding may have added.

        Raises:
            ConfigError: when a multiplier is negative or missing, a set holds v or lacks its member: then nothing is
                proved.
        """
        cuts, silos = np.arange(len(self.members)), len(delays)
        if (
            not len(self.potentials) == len(self.degrees) == silos
            or self.sets.shape != (len(cuts), silos)
            or len(self.weights) != len(cuts)
            or (self.degrees < 0).any()
            or (self.weights < 0).any()
            or self.sets[:, self.silo].any()
            or not self.sets[cuts, self.members].all()
        ):
            raise ConfigError(f"multipliers for silo {self.silo} prove nothing", mend="Take those of circuit_bound.")
        parts = 2 * np.abs(self.potentials).max() + 2 * self.degrees.sum() + 2 * self.weights.sum()
        off = ~np.eye(len(delays), dtype=bool)
        rounding = (len(delays) + len(cuts) + 8) * 2**-52 * float(np.abs(delays[off]).max() + parts)
        return float(self.reduced(delays).min() - rounding)


def circuit_bound(delays: Float64[ndarray, "silos silos"], silo: int, *, enough: float = -np.inf) -> CircuitProof:
    """The best proof of a bound on the mean of the simple circuits through a silo that the programme gives.

    Args:
        delays: at degrees of 1, two silos or more; the diagonal is not read.
        silo: v.
        enough: stop when a circuit with a mean of at most this is seen: the silo cannot give a better bound.
    """
    return bounded(delays, silo, enough)[0]


def bounded(delays: Float64[ndarray, "silos silos"], silo: int, enough: float) -> tuple[CircuitProof, list[int], float]:
    """`circuit_bound`, and the circuit of least mean that was seen on the way, with its mean."""
    programme = _Programme(delays, silo)
    best, most = programme.proof(), -np.inf
    for _ in range(_MOST):
        programme.solve()
        proof = programme.proof()
        value = proof.value(delays)
        if value > most:
            best, most = proof, value
        if programme.seen <= enough or (not programme.price(proof) and not programme.cut()):
            break
    return best, programme.circuit, programme.seen


class _Programme:
    """The linear programme of one silo, with the arcs and cuts it has so far."""

    def __init__(self, delays: Float64[ndarray, "silos silos"], silo: int) -> None:
        nodes = len(delays)
        self.delays, self.silo = delays, silo
        self.known = _near(delays, _NEAREST)
        self.known[silo], self.known[:, silo] = True, True
        np.fill_diagonal(self.known, val=False)
        self.sets, self.members = np.zeros((0, nodes), np.bool_), np.zeros(0, np.int64)
        self.potentials, self.degrees, self.weights = np.zeros(nodes), np.zeros(nodes), np.zeros(0)
        self.flow, self.mean = np.zeros((nodes, nodes)), np.inf
        self.circuit: list[int] = [silo]  # the one of least mean through v that was seen
        self.seen = np.inf

    def solve(self) -> None:
        """Flow, mean and multipliers of the programme as it is."""
        from scipy.optimize import linprog
        from scipy.sparse import csr_array

        nodes, others = len(self.delays), np.arange(len(self.delays)) != self.silo
        tails, heads = np.nonzero(self.known)
        out = (tails == np.arange(nodes)[:, None]).astype(np.float64)
        into = heads == np.arange(nodes)[:, None]
        leaving = self.sets[:, tails] & ~self.sets[:, heads]
        solved = linprog(
            self.delays[tails, heads],
            A_eq=csr_array(np.vstack([out - into, np.ones(len(tails))])),
            b_eq=np.append(np.zeros(nodes), 1.0),
            A_ub=csr_array(np.vstack([out[others] - out[self.silo], out[self.members] - leaving])),
            b_ub=np.zeros(nodes - 1 + len(self.members)),
            method="highs",
        )
        assert solved.status == 0, solved.message
        self.potentials = -solved.eqlin.marginals[:-1]
        multipliers = np.maximum(0.0, -solved.ineqlin.marginals)
        self.degrees[others], self.weights = multipliers[: nodes - 1], multipliers[nodes - 1 :]
        self.flow = np.zeros((nodes, nodes))
        self.flow[tails, heads], self.mean = np.maximum(0.0, solved.x), solved.fun
        circuit, mean = improved(self.delays, self._walk())
        if mean < self.seen:
            self.circuit, self.seen = circuit, mean

    def proof(self) -> CircuitProof:
        """Of the last solution."""
        used = self.weights > 0
        return CircuitProof(
            silo=self.silo,
            potentials=self.potentials.copy(),
            degrees=self.degrees.copy(),
            sets=self.sets[: len(used)][used],
            members=self.members[: len(used)][used],
            weights=self.weights[used],
        )

    def price(self, proof: CircuitProof) -> bool:
        """Take in the arcs that would lower the mean most; whether there are any."""
        gain = np.where(self.known, 0.0, self.mean - proof.reduced(self.delays))
        worst = np.argsort(-gain, axis=None, kind="stable")[: 3 * len(gain)]
        worst = worst[gain.ravel()[worst] > _LEAST]
        self.known.ravel()[worst] = True
        return len(worst) > 0

    def cut(self) -> bool:
        """Add cuts that the solution violates; whether there are any."""
        found = [part for part in self._parts() if not part[self.silo]] or list(self._cuts())
        used = self.flow.sum(axis=1)
        for part in found:
            self.sets = np.vstack([self.sets, part])
            self.members = np.append(self.members, int(np.argmax(np.where(part, used, -1.0))))
        return bool(found)

    def _walk(self) -> list[int]:
        """A circuit through v along the arcs of most flow; where none leads to a new silo, the next is v again."""
        circuit, weights = [self.silo], self.flow.copy()
        while True:
            weights[:, circuit[-1]] = 0  # never come back, but to v
            weights[:, self.silo] = self.flow[:, self.silo] if len(circuit) > 1 else 0
            ahead = int(np.argmax(weights[circuit[-1]]))
            if weights[circuit[-1], ahead] <= _LEAST or ahead == self.silo:
                return circuit
            circuit.append(ahead)

    def _parts(self) -> list[Bool[ndarray, "silos"]]:
        """The components of the flow, among the silos it uses."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        used = self.flow > _LEAST
        count, label = connected_components(csr_array(used), directed=False)
        visited = used.any(axis=0) | used.any(axis=1)
        parts = [(label == part) & visited for part in range(count)]
        return [part for part in parts if part.any()]

    def _cuts(self) -> Iterator[Bool[ndarray, "silos"]]:
        """Sets that less flow leaves than goes through one of their silos: a smallest cut for each silo."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        capacity, used = np.rint(self.flow * _UNIT).astype(np.int32), self.flow.sum(axis=1)
        network, done = csr_array(capacity), np.zeros(len(used), np.bool_)
        done[self.silo] = True
        for silo in np.argsort(-used, kind="stable"):
            if done[silo] or used[silo] <= _LEAST:
                continue
            flow = maximum_flow(network, int(silo), self.silo)
            if flow.flow_value >= (used[silo] - _LEAST) * _UNIT - len(used):
                continue
            reached = breadth_first_order(
                csr_array(capacity - flow.flow.toarray() > 0), int(silo), return_predecessors=False
            )
            part = np.isin(np.arange(len(used)), reached)
            done |= part
            yield part


def _near(delays: Float64[ndarray, "silos silos"], count: int) -> Bool[ndarray, "silos silos"]:
    """The fastest arcs from each silo, and to each."""
    apart = np.where(np.eye(len(delays), dtype=bool), np.inf, delays)
    rows = apart <= np.sort(apart, axis=1)[:, [min(count, len(apart) - 1) - 1]]
    columns = apart <= np.sort(apart, axis=0)[min(count, len(apart) - 1) - 1]
    return np.asarray(rows | columns)

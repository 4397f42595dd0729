"""A cycle time that no overlay of a network goes below, with its proof.

**Theorem.** Let d(i, j) be the delays at degrees of 1. For every silo v, every overlay has a cycle time of at least

    β_v = min of d(γ) / |γ| over the simple circuits γ through v of two silos or more,

so max_v β_v is a lower bound. *Proof.* An overlay is strongly connected: v has an out-neighbour, from which a path
leads back, and a shortest such path closes a simple circuit γ through v whose arcs are all in the overlay. Its cycle
time is the largest mean of a circuit, hence at least that of γ, with the delays of its own degrees. These are no
smaller than d: delays grow with degrees, and a silo of an overlay has a degree of 1 or more. A loop has mean s T_c(v),
which bounds the cycle time too.

β_v is bounded by a linear programme. Divide the arcs of γ by their number: x >= 0 with Σ x = 1 (Charnes-Cooper); with
y_i = x(δ⁺(i)) the use of silo i,

    min Σ d x:   x(δ⁺(i)) = x(δ⁻(i)),   y_i <= y_v,   y_i <= x(δ⁺(S)) for i ∈ S, v ∉ S (generalised subtour cuts).

Arcs and cuts come in as they are needed. What is returned does not rest on the solver: with multipliers π of the flow,
σ >= 0 of the degrees and μ >= 0 of the cuts, whatever they are,

    r(i, j) = d(i, j) + π_i − π_j + σ_i − [i = v] Σ σ + Σ_(S, k) μ_(S, k) ([i = k] − [i ∈ S, j ∉ S])

has r(γ) <= d(γ) for every simple circuit γ through v, as γ leaves each silo at most once, v once, and every S that it
enters. Hence β_v >= min r: `CircuitProof.value` computes that from the multipliers and takes off what its rounding may
have added. Anyone can repeat it.

Silos are taken by the least mean of a circuit through them that a greedy search finds, the largest first; when it falls
below the best bound no other silo can give a better one, and the search ends. Every prefix is a valid bound. Cost: a
few to some tens of linear programmes of O(10 N) arcs a silo.

References:
    Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS 2020,
    arXiv 2010.12229 (the problem; the bound is not in it).
    Charnes, Cooper. Programming with linear fractional functionals. Naval Research Logistics Quarterly 9, 1962.
    Fischetti, Salazar González, Toth. A branch-and-cut algorithm for the symmetric generalized traveling salesman
    problem. Operations Research 45, 1997 (the cuts).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.decentralized.silos import Silos

__all__ = ["CircuitProof", "LowerBound", "circuit_bound", "lower_bound"]

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
            ConfigError: when a multiplier is negative, a set holds v or lacks its member: then nothing is proved.
        """
        cuts = np.arange(len(self.members))
        if (
            (self.degrees < 0).any()
            or (self.weights < 0).any()
            or self.sets[:, self.silo].any()
            or not self.sets[cuts, self.members].all()
        ):
            raise ConfigError(f"multipliers for silo {self.silo} prove nothing", mend="Take those of circuit_bound.")
        parts = 2 * np.abs(self.potentials).max() + 2 * self.degrees.sum() + 2 * self.weights.sum()
        off = ~np.eye(len(delays), dtype=bool)
        rounding = (len(delays) + len(cuts) + 8) * 2**-52 * float(np.abs(delays[off]).max() + parts)
        return float(self.reduced(delays).min() - rounding)


@dataclass(frozen=True, kw_only=True, eq=False)
class LowerBound:
    """A cycle time below which there is no overlay.

    Args:
        value_ms: the bound, rounded down.
        silo: which gives it, by name.
        values_ms: the bound of every silo; NaN for those that could not give a better one, or had no time.
        proof: of ``value_ms``; None where the silo's own work sets the pace.
        complete: whether all silos were done, or shown to give nothing better.
        seconds: it took.
    """

    value_ms: float
    silo: str
    values_ms: Float64[ndarray, "silos"]
    proof: CircuitProof | None
    complete: bool
    seconds: float


def lower_bound(silos: Silos, *, seconds: float = np.inf) -> LowerBound:
    """The largest bound that one silo gives.

    Args:
        silos: at least one.
        seconds: after which no further silo is begun, > 0.

    Raises:
        ConfigError: for a limit that is not positive.

    Example:
        >>> from rivage.graphs import PathRule, Underlay, connectivity
        >>> line = Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], distance_km=[1000, 3000])
        >>> found = lower_bound(Silos.of(connectivity(line, PathRule.published()), model_bits=1e6, step_ms=5))
        >>> found.silo, round(found.value_ms, 6)  # c – b – c
        ('c', 35.5)
    """
    require(min(seconds, 1e9), "seconds", above=0)
    start, delays = perf_counter(), silos.single_delays_ms()
    values, slowest = np.full(len(silos), np.nan), int(np.argmax(silos.work_ms))
    best, silo, proof = float(silos.work_ms[slowest]), slowest, None
    caps = _upper_bounds(delays)
    left = list(np.argsort(-caps, kind="stable")) if len(silos) > 1 else []
    while left and caps[left[0]] > best and perf_counter() - start < seconds:
        v = int(left.pop(0))
        found = circuit_bound(delays, v, enough=best)
        values[v] = found.value(delays)
        if values[v] > best:
            best, silo, proof = float(values[v]), v, found
    return LowerBound(
        value_ms=best,
        silo=silos.names[silo],
        values_ms=values,
        proof=proof,
        complete=not left or bool(caps[left[0]] <= best),
        seconds=perf_counter() - start,
    )


def circuit_bound(delays: Float64[ndarray, "silos silos"], silo: int, *, enough: float = -np.inf) -> CircuitProof:
    """The best proof of a bound on the mean of the simple circuits through a silo that the programme gives.

    Args:
        delays: at degrees of 1, two silos or more; the diagonal is not read.
        silo: v.
        enough: stop when a circuit with a mean of at most this is seen: the silo cannot give a better bound.
    """
    programme = _Programme(delays, silo)
    best, most = programme.proof(), -np.inf
    for _ in range(_MOST):
        programme.solve()
        proof = programme.proof()
        value = proof.value(delays)
        if value > most:
            best, most = proof, value
        if programme.price(proof):
            continue
        if not programme.cut() or programme.seen <= enough:
            break
    return best


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
        self.seen = np.inf  # the least mean of a circuit through v among the solutions

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
        if (self.flow > _LEAST).sum() == (self.flow.sum(axis=1) > _LEAST).sum() and len(self._parts()) == 1:
            self.seen = min(self.seen, self.mean)

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


def _upper_bounds(delays: Float64[ndarray, "silos silos"]) -> Float64[ndarray, "silos"]:
    """The mean of a simple circuit through each silo: to and fro, then silos put in while the mean falls. O(N³)."""
    return np.array([_greedy_circuit(delays, silo) for silo in range(len(delays))]) if len(delays) > 1 else np.zeros(1)


def _greedy_circuit(delays: Float64[ndarray, "silos silos"], silo: int) -> float:
    both = delays[silo] + delays[:, silo]
    both[silo] = np.inf
    circuit = [silo, int(np.argmin(both))]
    total = float(both[circuit[1]])
    while len(circuit) < len(delays):
        one, other = np.array(circuit), np.roll(circuit, -1)
        more = delays[one] + delays[:, other].T - delays[one, other][:, None]
        more[:, circuit] = np.inf
        place, node = divmod(int(np.argmin(more)), len(delays))
        if (total + more[place, node]) / (len(circuit) + 1) >= total / len(circuit):
            break
        circuit.insert(place + 1, node)
        total += float(more[place, node])
    return total / len(circuit)

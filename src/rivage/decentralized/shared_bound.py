"""A stronger bound on cycle times: the circuits of several silos obey the same potentials. It takes a solver's word.

**Theorem.** Let an overlay have a cycle time of at most τ, and d(i, j) be the delays at degrees of 1. Then there are
numbers π, and through every silo v a simple circuit γ_v of two silos or more, with

    π_i − π_j <= τ − d(i, j) on all arcs (i, j) of all γ_v.

*Proof.* Its own delays are at least d, so by d no circuit of the overlay has a mean above τ: with lengths τ − d no
circuit is negative. It is strongly connected, so γ_v exists as in `rivage.decentralized.lower_bounds`, and the length
π_i of the shortest path from i to a fixed silo is finite; π_i <= τ − d(i, j) + π_j for every arc.

So τ is refuted by some silos for which no such π and γ_v exist, though each of them alone has a circuit. The same in
whole numbers, for CP-SAT: let u be a unit, c = ⌊d / u⌋ and T whole. An overlay of cycle time <= T u has Σ c <= T |γ| on
each circuit, hence whole π by the same proof, and with ω the largest T − c of an arc |π_i| <= (N − 1) ω: a shortest
path has fewer than N arcs, and there and back again is no negative way. If there are none, every overlay has a circuit
with Σ c > T |γ|: its cycle time exceeds T u, by u / N at least, which the rounding of T u does not reach.

*Arcs left out.* Let r be reduced from c by the multipliers of a `CircuitProof` for v: Σ r <= Σ c on circuits through v.
With ρ = ⌊r⌋ and m the least of all, Σ ρ <= T |γ| gives ρ(i, j) <= T |γ| − m (|γ| − 1) <= m + (T − m) N for T >= m, for
each arc of γ_v; for T < m there is no γ_v. Other arcs are not offered to γ_v; to the circuits of other silos they are.

What is proved is proved by the solver: unlike that of a single silo, this bound has no multipliers to check.

References:
    Perron, Furnon. OR-Tools, CP-SAT (the solver).
    Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS 2020,
    arXiv 2010.12229 (the problem; the bound is not in it).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, log10
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import MissingExtra, RivageError, require
from rivage.decentralized.circuit_bounds import CircuitProof, circuit_bound
from rivage.decentralized.lower_bounds import LowerBound
from rivage.decentralized.seen_circuits import SeenCircuits
from rivage.decentralized.silos import Silos

__all__ = ["SharedBound", "shared_bound"]

_DIGITS = 5  # of a cycle time, after the first
_GRACE_S = 10.0  # for a solver that does not see that its time is over


@dataclass(frozen=True, kw_only=True)
class SharedBound:
    """A cycle time below which there is no overlay, if the solver is right.

    Args:
        value_ms: the bound, rounded down; that of a single silo where nothing better was proved.
        silos: whose circuits were asked for, by name.
        questions: how many cycle times the solver was asked about.
        complete: whether it answered all: then this bound of these silos is no more than a unit larger.
        seconds: it took.
    """

    value_ms: float
    silos: tuple[str, ...]
    questions: int
    complete: bool
    seconds: float


def shared_bound(
    silos: Silos,
    start: LowerBound,
    upper_ms: float,
    *,
    seconds: float = 60.0,
    vertices: int = 4,
    workers: int = 2,
    python: str = sys.executable,
) -> SharedBound:
    """The largest cycle time that CP-SAT refutes, by bisection.

    Args:
        silos: at least one.
        start: the bound of a single silo.
        upper_ms: the cycle time of an overlay, or a time at which to stop.
        seconds: for all of it, > 0; a question gets at most half of what is left.
        vertices: from how many silos a circuit is asked, >= 2: those through which the fastest circuits are slow.
        workers: threads of the solver, >= 1.
        python: an interpreter that has OR-tools.

    Raises:
        ConfigError: for a setting out of range.
        MissingExtra: without OR-tools.
        RivageError: when the solver's process fails.
    """
    require(upper_ms, "upper_ms", least=0)
    require(seconds, "seconds", above=0)
    require(vertices, "vertices", least=2)
    require(workers, "workers", least=1)
    began = perf_counter()
    if len(silos) < 3 or start.proof is None or upper_ms <= start.value_ms:
        return SharedBound(value_ms=start.value_ms, silos=(), questions=0, complete=start.complete, seconds=0.0)
    delays = silos.single_delays_ms()
    question = _Question(delays, _proofs(delays, start.proof, vertices), unit_ms=_unit(upper_ms))
    proved = max(start.value_ms, *(proof.value(delays) for proof in question.proofs))
    low, high = floor(Fraction(proved) / question.unit_ms), ceil(Fraction(upper_ms) / question.unit_ms)
    asked, complete = 0, True
    while high - low > 1 and (left := seconds - (perf_counter() - began)) > 0:
        limit, asked = (low + high) // 2, asked + 1
        status = _answer({**question.task(limit), "seconds": left / 2, "workers": workers}, python)
        if status == "INFEASIBLE":
            low, proved = limit, max(proved, float(limit * question.unit_ms))
        else:
            high, complete = limit, complete and status in ("FEASIBLE", "OPTIMAL")
    return SharedBound(
        value_ms=proved,
        silos=tuple(silos.names[proof.silo] for proof in question.proofs),
        questions=asked,
        complete=complete and high - low <= 1,
        seconds=perf_counter() - began,
    )


class _Question:
    """Whether several silos have circuits with shared potentials, in whole numbers."""

    def __init__(
        self, delays: Float64[ndarray, "silos silos"], proofs: list[CircuitProof], *, unit_ms: Fraction
    ) -> None:
        self.proofs, self.unit_ms = proofs, unit_ms
        whole = np.where(np.eye(len(delays), dtype=bool), 0, _rounded_down(delays, unit_ms))
        self.costs: list[list[int]] = whole.tolist()
        self.reduced = [_reduced(proof, whole.astype(np.float64), float(unit_ms)) for proof in proofs]

    def task(self, limit: int) -> dict[str, Any]:
        """For the solver: can all cycle times be at most so many units?"""
        nodes = len(self.costs)
        return {
            "nodes": nodes,
            "limit": limit,
            "widest": (nodes - 1) * max(0, limit - min(self.costs[i][j] for i, j in _pairs(nodes))),
            "circuits": [
                {"through": proof.silo, "arcs": self._arcs(reduced, limit)}
                for proof, reduced in zip(self.proofs, self.reduced, strict=True)
            ],
        }

    def _arcs(self, reduced: list[list[int]], limit: int) -> list[list[int]]:
        nodes = len(reduced)
        least = min(reduced[i][j] for i, j in _pairs(nodes))
        most = least + (limit - least) * nodes
        return [[i, j, self.costs[i][j], reduced[i][j]] for i, j in _pairs(nodes) if reduced[i][j] <= most]


def _rounded_down(times: Float64[ndarray, "silos silos"], unit: Fraction) -> Int64[ndarray, "silos silos"]:
    """In units, exactly."""
    return np.array([[floor(Fraction(value) / unit) for value in row] for row in times.tolist()], np.int64)


def _reduced(proof: CircuitProof, costs: Float64[ndarray, "silos silos"], unit_ms: float) -> list[list[int]]:
    """The ρ of every arc: any multipliers are good, and the units of these are nearly right."""
    same = replace(
        proof,
        potentials=proof.potentials / unit_ms,
        degrees=proof.degrees / unit_ms,
        weights=proof.weights / unit_ms,
    )
    reduced = same.reduced(costs)
    rounding = float(reduced.min()) - same.value(costs)  # a proof's value allows for it, in any r
    whole = np.floor(np.where(np.isinf(reduced), 0.0, reduced - rounding))
    return [[int(value) for value in row] for row in whole.tolist()]


def _pairs(nodes: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(nodes) for j in range(nodes) if i != j]


def _unit(value: float) -> Fraction:
    return Fraction(10) ** (floor(log10(value)) - _DIGITS)


def _proofs(delays: Float64[ndarray, "silos silos"], first: CircuitProof, count: int) -> list[CircuitProof]:
    """Of the silos through which circuits are slow, the one of the bound first."""
    seen = SeenCircuits(delays)
    means = [seen.through(silo) for silo in range(len(delays))]
    others = sorted((v for v in range(len(delays)) if v != first.silo), key=lambda v: -means[v])
    return [first, *(circuit_bound(delays, v) for v in others[: count - 1])]


def _answer(task: dict[str, Any], python: str) -> str:
    """The solver's status; "UNKNOWN" when it did not end in time."""
    script = Path(__file__).with_name("circuit_solver.py")
    try:
        done = subprocess.run(
            [python, "-P", str(script)],  # a file, not a module of the package, which may load SciPy and its HiGHS
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=task["seconds"] + _GRACE_S,
        )
    except subprocess.TimeoutExpired:
        return "UNKNOWN"
    except OSError as error:
        raise RivageError(f"the solver cannot be started: {error}", where=python) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RivageError(f"the solver failed: {last}", where=python, mend="Do without this bound, or try again.")
    status = str(json.loads(done.stdout)["status"])
    if status == "MISSING":
        mend = 'Install it with: pip install "ortools>=9.10"'
        raise MissingExtra("a bound by several silos needs ortools", where=python, mend=mend)
    return status

"""How many neighbours to average with, when work takes random times: predicted time to accuracy of candidate graphs.

Reference: Neglia, Calbi, Towsley, Vardoyan. The role of network topology for distributed machine learning. INFOCOM 2019
(few neighbours make rounds short, many make them few).

    time(ε) = K · γ,

γ the mean time of a round (`rivage.decentralized.stragglers`), the same draws for all candidates; K the rounds to reach
ε. Where K has been measured, in a short training on each graph, hand it in: nothing else is as good. Otherwise bounds
of the theory give it up to a factor that is the same for all graphs, |λ_2| being the second largest modulus of the
eigenvalues of the mixing matrix:

- `Classical`: K ∝ 1 / (1 − |λ_2|), what worst-case bounds say up to logarithms;
- `Spread`: K ∝ 1 + κ with κ = 4 s (1 + α |λ_2| / (1 − |λ_2|)), the bound of Neglia, Xu, Towsley, Calbi (AISTATS 2020,
  arXiv 2002.12688) at the step size that is best for each graph. s in [0, 1] says how much the gradients of the nodes
  differ, 1 if nodes hold unlike data; α in (0, 1] in which directions they do: 1 in the slowest alone,
  α² = Σ_{q>=2} |λ_q|² / ((n − 1) |λ_2|²) if in all alike. Where a probe has measured κ, hand in 1 + κ as K.

Both are loose: real runs are far less sensitive to the graph. So the answer names the source of K, and of a tie it says
that it is one.

Which is best is tested on paired replications: the differences of ln(K γ) between the winner and every other candidate,
one-sided t tests at level (1 − confidence) / (candidates − 1). Whoever truly is best, the answer names another one as
*significantly* best with a probability of at most 1 − confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.decentralized.clock import Clock, Times
from rivage.decentralized.overlays import Overlay
from rivage.decentralized.stragglers import Estimate, bounds, iteration_times
from rivage.decentralized.time_laws import Law, Trace
from rivage.decentralized.waiting import Server, Waits
from rivage.graphs.mixing import metropolis, pull_weights, spectral_gap
from rivage.graphs.network import Network

__all__ = ["Advice", "Candidate", "Classical", "RoundsLaw", "Spread", "advise_degree"]

Square = Float64[ndarray, "nodes nodes"]


@runtime_checkable
class RoundsLaw(Protocol):
    """Rounds to a given accuracy, up to a factor common to all graphs."""

    def rounds(self, weights: Square) -> float:
        """From the mixing matrix."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Classical:
    """K ∝ 1 / (1 − |λ_2|)."""

    def rounds(self, weights: Square) -> float:
        """See `RoundsLaw`; 1 for exact averages."""
        return float(1 / (1 - _moduli(weights)[0]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """K ∝ 1 + 4 s (1 + α |λ_2| / (1 − |λ_2|)).

    Args:
        difference: s in [0, 1], how much the gradients of the nodes differ: for full batches of unlike data about 1,
            for random splits of the data with batches of 4 about 0.2 (topology notes).
        direction: whether they differ in the slowest direction alone, or in all alike.
    """

    difference: float = 1.0
    direction: Literal["slowest", "all"] = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.difference <= 1:
            raise ConfigError(f"difference is {self.difference}", mend="Give a number from 0 to 1.")

    def rounds(self, weights: Square) -> float:
        """See `RoundsLaw`."""
        moduli = _moduli(weights)
        felt = moduli[0] if self.direction == "slowest" else np.sqrt((moduli**2).mean())  # α |λ_2|
        return float(1 + 4 * self.difference * (1 + felt / (1 - moduli[0])))


def _moduli(weights: Square) -> Float64[ndarray, "others"]:
    """|λ_2|, |λ_3|, … of a stochastic matrix; of a single node 0."""
    moduli = np.sort(np.abs(np.linalg.eigvals(weights)))[::-1]
    return np.asarray(moduli[1:]) if len(moduli) > 1 else np.zeros(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """What is predicted of one graph.

    Args:
        name: of the graph.
        in_degree: the largest number of nodes that one waits for.
        iteration: γ, the mean time of a round.
        iteration_bounds: numbers between which γ surely lies; None where none are known.
        spectral_gap: 1 − |λ_2|.
        rounds: K, measured or up to a common factor.
        time: K γ.
        behind: mean of ln(time / time of the best), with its one-sided p value before correction for several
            candidates; (0, None) for the best itself.
    """

    name: str
    in_degree: int
    iteration: Estimate
    iteration_bounds: tuple[float, float] | None
    spectral_gap: float
    rounds: float
    time: Estimate
    behind: tuple[float, float | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Advice:
    """The candidates, the quickest first.

    Args:
        candidates: their predictions.
        confidence: of intervals and of the verdict.
        source: where K is from: ``given``, or the name of a bound.
    """

    candidates: tuple[Candidate, ...]
    confidence: float
    source: str

    @property
    def best(self) -> str:
        """Name of the candidate of least predicted time."""
        return self.candidates[0].name

    @property
    def rivals(self) -> tuple[str, ...]:
        """Candidates that the replications cannot tell from the best."""
        level = (1 - self.confidence) / max(len(self.candidates) - 1, 1)
        others = [(each.name, each.behind[1]) for each in self.candidates[1:]]
        return tuple(name for name, chance in others if chance is None or chance > level)

    @property
    def verdict(self) -> Literal["holds", "no_power"]:
        """Whether the best is significantly faster than every other."""
        return "no_power" if self.rivals else "holds"

    def plain(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "best": self.best,
            "verdict": self.verdict,
            "rivals": list(self.rivals),
            "confidence": self.confidence,
            "rounds_from": self.source,
            "candidates": [_plain(each) for each in self.candidates],
        }


def _plain(candidate: Candidate) -> dict[str, Any]:
    low, high = candidate.iteration_bounds or (None, None)
    return {
        "name": candidate.name,
        "in_degree": candidate.in_degree,
        "iteration_time": _numbers(candidate.iteration),
        "iteration_bounds": [low, high if high is None or np.isfinite(high) else None],
        "spectral_gap": candidate.spectral_gap,
        "rounds": candidate.rounds,
        "time": _numbers(candidate.time),
        "log_ratio_to_best": candidate.behind[0],
        "p_value": candidate.behind[1],
    }


def _numbers(estimate: Estimate) -> dict[str, float]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


Graph = Waits | Server | Overlay | Network
Rounds = Mapping[str, float | Sequence[float]]


def advise_degree(
    work: Times | Law | Sequence[float],
    candidates: Mapping[str, Graph],
    *,
    rounds: RoundsLaw | Rounds | None = None,
    simulated_rounds: int = 1_000,
    replications: int = 20,
    seed: int = 0,
    confidence: float = 0.95,
) -> Advice:
    """Predict the time to accuracy of graphs over the same nodes, and say which is best and whether that is sure.

    Args:
        work: how times scatter: a clock, a law of independent work, or measured times of a round's work. Measured
            times also give the mean work of candidates that are networks.
        candidates: by name. Overlays bring their delays; networks have equal work, of mean 1, and no transfers; a
            `Server` averages exactly. With backup workers or schedules hand in measured rounds: bounds count every
            arc.
        rounds: K of each candidate as measured, one number or one for each seed of the training, the same seeds for
            all; or a bound, the classical one by default.
        simulated_rounds: measured in each replication, after as many that are not.
        replications: >= 2.
        seed: of the draws.
        confidence: of intervals and of the verdict.

    Raises:
        ConfigError: without candidates, for different numbers of nodes, or K that do not fit.

    Example:
        >>> from rivage.decentralized.time_laws import Exponential
        >>> from rivage.graphs.topologies import cycle, hypercube
        >>> graphs = {"ring": cycle(16), "hypercube": hypercube(4)}
        >>> advice = advise_degree(Exponential(), graphs, rounds={"ring": 150, "hypercube": 150}, replications=5)
        >>> advice.best, advice.verdict
        ('ring', 'holds')
    """
    times, mean = _times(work)
    graphs = {name: _graph(graph, mean) for name, graph in candidates.items()}
    sizes = {len(graph) for graph in graphs.values()}
    if len(sizes) != 1:
        what = f"candidates have {sorted(sizes)} nodes" if sizes else "there is no candidate"
        raise ConfigError(what, mend="Give one or several graphs over the same nodes.")
    found = iteration_times(
        graphs, times, rounds=simulated_rounds, replications=replications, seed=seed, confidence=confidence
    )
    weights = {name: _weights(graph) for name, graph in graphs.items()}
    needed, source = _rounds(rounds or Classical(), weights)
    logs = {name: _Logs(np.log(needed[name]), np.log(found[name].samples)) for name in graphs}
    best = min(graphs, key=lambda name: logs[name].mean)
    made = [
        Candidate(
            name=name,
            in_degree=int(np.bincount(graph.arcs[:, 1], minlength=1).max()),
            iteration=found[name],
            iteration_bounds=_bounds(graph, times),
            spectral_gap=spectral_gap(weights[name]),
            rounds=float(needed[name].mean()),
            time=logs[name].time(confidence),
            behind=(0.0, None) if name == best else logs[name].behind(logs[best]),
        )
        for name, graph in graphs.items()
    ]
    return Advice(
        candidates=tuple(sorted(made, key=lambda each: each.behind[0] if each.name != best else -np.inf)),
        confidence=confidence,
        source=source,
    )


def _times(work: Times | Law | Sequence[float]) -> tuple[Times, float]:
    """The clock, and the mean work of nodes that have none of their own."""
    if isinstance(work, Times):
        return work, 1.0
    if isinstance(work, Law):
        return Clock(law=work), work.mean if isinstance(work, Trace) else 1.0
    trace = Trace(times=tuple(float(each) for each in work))
    return Clock(law=trace), trace.mean


def _graph(graph: Graph, mean: float) -> Waits | Server:
    if isinstance(graph, Network):
        return Waits.of_network(graph, work=mean)
    return Waits.of_overlay(graph) if isinstance(graph, Overlay) else graph


def _weights(graph: Waits | Server) -> Square:
    """As `rivage.decentralized.designs.mixing_of`; a server takes the mean of all."""
    if isinstance(graph, Server):
        return np.full((len(graph), len(graph)), 1 / len(graph))
    return metropolis(graph.adjacency) if graph.is_undirected else pull_weights(graph.adjacency)


def _bounds(graph: Waits | Server, times: Times) -> tuple[float, float] | None:
    if not isinstance(graph, Waits) or not isinstance(times, Clock):
        return None
    try:
        return bounds(graph, times)
    except ConfigError:
        return None


def _rounds(
    rounds: RoundsLaw | Rounds, weights: Mapping[str, Square]
) -> tuple[dict[str, Float64[ndarray, "seeds"]], str]:
    """K of each candidate, and where it is from."""
    if isinstance(rounds, RoundsLaw):
        return {name: np.array([rounds.rounds(own)]) for name, own in weights.items()}, type(rounds).__name__.lower()
    if rounds.keys() != weights.keys():
        mend = f"Give them for {', '.join(weights)}."
        raise ConfigError(f"rounds are given for {', '.join(rounds) or 'no candidate'}", mend=mend)
    needed = {name: np.atleast_1d(np.asarray(rounds[name], np.float64)) for name in weights}
    for name, own in needed.items():
        for value in own:
            require(float(value), f'rounds of "{name}"', above=0)
    if len({own.shape for own in needed.values()}) > 1:
        raise ConfigError("rounds of the candidates are from different numbers of seeds", mend="Use the same seeds.")
    return needed, "given"


@dataclass(frozen=True, eq=False)
class _Logs:
    """Logarithms of K, one for each seed or one in all, and of γ, one for each replication."""

    rounds: Float64[ndarray, "seeds"]
    iteration: Float64[ndarray, "replications"]

    @property
    def mean(self) -> float:
        return float(self.rounds.mean() + self.iteration.mean())

    def minus(self, other: _Logs) -> _Logs:
        return _Logs(self.rounds - other.rounds, self.iteration - other.iteration)

    def error(self) -> tuple[float, float]:
        """Standard error of the mean, and degrees of freedom (Welch, Satterthwaite)."""
        parts = [
            (each.var(ddof=1) / len(each), len(each) - 1) for each in (self.rounds, self.iteration) if len(each) > 1
        ]
        total = float(sum(variance for variance, _ in parts))
        below = float(sum(variance**2 / count for variance, count in parts))
        return total**0.5, total**2 / below if below > 0 else 1.0

    def time(self, confidence: float) -> Estimate:
        """K γ with an interval, on the scale of logarithms."""
        from scipy.stats import t

        error, freedom = self.error()
        half = float(t.ppf((1 + confidence) / 2, freedom)) * error
        samples = np.exp(self.rounds.mean() + self.iteration)
        low, middle, high = np.exp(self.mean + np.array([-half, 0, half])).tolist()
        return Estimate(mean=middle, low=low, high=high, samples=samples)

    def behind(self, best: _Logs) -> tuple[float, float]:
        """Mean of the paired differences to the best, and p of a one-sided t test that there is none."""
        from scipy.stats import t

        difference = self.minus(best)
        error, freedom = difference.error()
        if error <= 1e-12 * (1 + abs(difference.mean)):  # nothing is random
            return difference.mean, 0.0 if difference.mean > 1e-9 else 1.0
        return difference.mean, float(t.sf(difference.mean / error, freedom))

"""What the measurements say: ratios between contestants, distance of their results, and the bars.

Works on the JSON that a run writes, so that tables and figures can be made again without running.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .heat import Lane

__all__ = [
    "BARS",
    "LOGGED",
    "METHODS",
    "OURS",
    "PEERS",
    "PLAIN",
    "Bar",
    "judged",
    "ratio",
    "strays",
    "summary",
    "verdict",
]

PLAIN, OURS, LOGGED = "plain loop", "rivage", "rivage, messages logged"
METHODS = {"fedprox": "rivage, FedProx", "scaffold": "rivage, SCAFFOLD", "fedem": "rivage, FedEM"}
PEERS = {
    "pfl": ("pfl, 1 thread", "pfl, a thread per core"),
    "flower": ("Flower, an actor per core",),
    "fedjax": ("FedJAX",),
}
"""Module of `workers` -> labels of its settings; a bar compares with the fastest of them."""
TOLERANCE = 0.05
"""Largest distance of the final parameters from the plain loop's, relative to how far those moved."""

Results = Mapping[str, Any]


def summary(lane: Lane, plain: Lane, initial: np.ndarray) -> dict[str, Any]:
    """One contestant of a race, as it stands in the JSON."""
    if lane.fault:
        return {"fault": lane.fault}
    assert lane.parameters is not None
    found = {
        "seconds": [round(value, 6) for value in lane.seconds],
        "cpu_seconds": [round(value, 6) for value in lane.cpu_seconds],
        "variant": dict(lane.entry.variant),
        "versions": lane.versions,
        **{name: value for name, value in lane.end.items() if name != "parameters"},
    }
    if plain.parameters is not None and lane.parameters.shape == plain.parameters.shape:
        found["moved"] = float(np.abs(plain.parameters - initial).max())
        found["distance"] = float(np.abs(lane.parameters - plain.parameters).max())
    return found


def ratio(heat: Results, label: str, reference: str = PLAIN) -> float | None:
    """Median over rounds of the time relative to another contestant's in the same round; None if not measured."""
    ratios = _ratios(heat, label, reference)
    return statistics.median(ratios) if ratios else None


def _ratios(heat: Results, label: str, reference: str) -> list[float]:
    ours, theirs = (heat.get(name, {}).get("seconds", []) for name in (label, reference))
    return [a / b for a, b in zip(ours, theirs, strict=True)] if ours and theirs else []


@dataclass(frozen=True)
class Bar:
    """One promise.

    Args:
        claim: what is compared.
        workload: where.
        bound: the bar; a largest value, or a smallest one for speed-ups over peers.
        wanted: the better value that is aimed at; None without one.
        kind: ``time`` compares rounds, ``memory`` compares peaks above the start.
        label: who is measured.
        reference: against whom; the fastest of several.
        least: what is held against the bound is the speed-up over the reference, which must not be below it.
    """

    claim: str
    workload: str
    bound: float
    wanted: float | None = None
    kind: Literal["time", "memory"] = "time"
    heat: Literal["own", "peers"] = "own"
    label: str = OURS
    reference: str | tuple[str, ...] = PLAIN
    least: bool = False

    def measured(self, results: Results) -> float | None:
        """The value that is held against the bound; None if not measured."""
        heat = results.get(self.workload, {}).get(self.heat, {})
        references = (self.reference,) if isinstance(self.reference, str) else self.reference
        if self.kind == "memory":
            return _per_worker(heat, self.label, references[0])
        if self.least:
            return min(filter(None, (ratio(heat, other, self.label) for other in references)), default=None)
        found = ratio(heat, self.label, references[0])
        components = heat.get(self.label, {}).get("variant", {}).get("components", 1)
        return None if found is None else found / components


def _per_worker(heat: Results, label: str, reference: str) -> float | None:
    ours, theirs = (heat.get(name, {}) for name in (label, reference))
    if "peak_rss_bytes" not in ours or "peak_rss_bytes" not in theirs:
        return None
    return float(ours["peak_rss_bytes"]) / max(1, ours["helpers"]) / float(theirs["peak_rss_bytes"])


def _bars() -> Iterator[Bar]:
    times = {"W1": (0.08, 0.05), "W2": (0.30, 0.20), "W3": (0.50, 0.45), "W4": (0.65, 0.55)}
    for workload, (bound, wanted) in times.items():
        yield Bar("time relative to the plain loop", workload, bound, wanted)
    for workload in ("W2", "W3", "W4"):
        yield Bar("with the message log on, relative to off", workload, 1.15, label=LOGGED, reference=OURS)
    yield Bar("peak memory per worker, relative to the plain loop", "W2", 1.5, kind="memory")
    for name, label in METHODS.items():
        each = " per component" if name == "fedem" else ""
        for workload in ("W1", "W2"):
            claim = f"{label.removeprefix('rivage, ')}{each}, relative to FedAvg"
            yield Bar(claim, workload, 1.5, label=label, reference=OURS)
    speedups = {"flower": {"W1": 40, "W2": 3.9, "W3": 1.15, "W4": 1.2}, "pfl": {"W1": 13, "W2": 3.5}}
    for name, bounds in speedups.items():
        for workload, bound in bounds.items():
            claim = f"times faster than {name.capitalize() if name == 'flower' else name}"
            yield Bar(claim, workload, bound, heat="peers", reference=PEERS[name], least=True)


BARS = tuple(_bars())


def verdict(bar: Bar, value: float | None) -> str:
    """``wanted``, ``met``, ``not met`` or ``not measured``."""
    if value is None:
        return "not measured"
    if value < bar.bound if bar.least else value > bar.bound:
        return "not met"
    return "wanted" if bar.wanted is not None and value <= bar.wanted else "met"


def judged(results: Results) -> list[dict[str, Any]]:
    """Every bar of the workloads that ran, as it stands in the JSON."""
    found = []
    for bar in BARS:
        if bar.workload in results:
            value = bar.measured(results)
            facts = {"claim": bar.claim, "workload": bar.workload, "bound": bar.bound, "wanted": bar.wanted}
            found.append({**facts, "least": bar.least, "measured": value, "verdict": verdict(bar, value)})
    return found


def strays(results: Results) -> list[str]:
    """Contestants of FedAvg whose parameters ended elsewhere than the plain loop's."""
    return [
        f"{name}, {label}"
        for name, workload in results.items()
        for heat in (workload["own"], workload["peers"])
        for label, found in heat.items()
        if label not in METHODS.values() and found.get("distance", 0.0) > TOLERANCE * found.get("moved", 1.0)
    ]

"""What a run of ``rivage design`` says in a few numbers: time of a round, distance from the bound, rate of agreement.

A trial is one overlay with one seed, or the lower bound. Of an overlay that was searched for, the one of the fastest
seed counts, since one may use it; of one that is drawn anew in every round, the mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import StoreError
from rivage.core.games import spread
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord

__all__ = [
    "BOUND",
    "CLASSICAL",
    "OverlayRecord",
    "agreement_rounds",
    "best_of",
    "lower_bound",
    "network_of",
    "scene_of",
    "shown_trial",
    "summarize_designs",
    "trials_of",
    "winner",
]

BOUND = "lower_bound"
"""The trial that is no overlay."""

CLASSICAL = ("star", "mst", "delta_mbst", "ring", "matcha")
"""Kinds of the literature."""

SHRINK = 1000.0
"""By how much models are to differ less for `agreement_rounds`."""

Row = Mapping[str, Any]

_KEPT = (
    "cycle_time_ms",
    "error_ms",
    "arcs",
    "max_degree",
    "hub",
    "critical_circuit",
    "spectral_gap",
    "drawn",
    "seed",
)  # of the event


def _name(trial: TrialRecord) -> str:
    return str(trial.start.get("policy", trial.method))


def trials_of(record: RunRecord, name: str) -> tuple[TrialRecord, ...]:
    """The trials of an overlay, by seed."""
    return tuple(trial for trial in record.trials if _name(trial) == name)


def scene_of(record: RunRecord) -> Mapping[str, Any]:
    """Network and work, as the first trial that knows them tells; empty before."""
    return next((trial.start["scene"] for trial in record.trials if "scene" in trial.start), {})


def network_of(record: RunRecord) -> Mapping[str, Any]:
    """Latencies and bandwidths of all pairs; empty before they are known."""
    return next(iter(record.events("network")), {})


def lower_bound(record: RunRecord) -> Mapping[str, Any]:
    """The event of the largest proved bound: all seeds have the same network. Empty before there is one."""
    return max(record.events("bound"), key=lambda event: float(event["value_ms"]), default={})


def agreement_rounds(gap: float) -> float:
    """Rounds until what models differ by has shrunk 1000-fold, at the rate of the spectral gap alone.

    ln 1000 / −ln(1 − gap), at least one; infinite without a gap.

    Example:
        >>> agreement_rounds(0.0), agreement_rounds(0.9), agreement_rounds(1.0)
        (inf, 3.0, 1.0)
    """
    if gap <= 0:
        return math.inf
    return max(1.0, round(math.log(SHRINK) / -math.log1p(-gap), 12)) if gap < 1 else 1.0


def summarize_designs(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The ``overlays`` object of ``summary.json`` and of ``rivage design --json``: overlay -> its numbers.

    Of the overlay that counts: ``cycle_time_ms``, with ``error_ms``, the standard error where it was measured on draws;
    ``arcs`` as pairs of names, ``num_arcs``, ``max_degree``, ``hub``, ``critical_circuit``, ``spectral_gap``; ``drawn``
    where every round has other arcs; ``seed``; ``gap``, by how much the cycle time exceeds the proved bound at most, as
    a share of it, None where rounds are drawn, which the bound does not cover; ``fair_ms``, the cycle time if messages
    share links fairly; ``scattered_ms``, the mean time of a round with its interval if times scatter;
    ``agreement_rounds`` and ``agreement_ms``, see `agreement_rounds`, None for never. Over seeds: ``mean_ms``,
    ``std_ms`` (None for one), ``least_ms``, ``most_ms``; ``seconds`` of wall clock. What has no overlay yet has None.
    """
    names = dict.fromkeys(_name(trial) for trial in record.trials)
    bound = lower_bound(record).get("value_ms")
    return {name: _row(trials_of(record, name), bound) for name in names if name != BOUND}


def _row(trials: Sequence[TrialRecord], bound: float | None) -> dict[str, Any]:
    done = [(trial, trial.events("overlay")[0]) for trial in trials if trial.events("overlay")]
    times = [float(event["cycle_time_ms"]) for _, event in done]
    mean, std = spread(times)
    found = _found(done, times)
    time = found.get("cycle_time_ms")
    rounds = agreement_rounds(found["spectral_gap"]) if found else math.inf
    timed = [float(timing["seconds"]) for trial in trials for timing in trial.timings if "seconds" in timing]
    return {
        "kind": trials[0].kind,
        "foresees": False,
        **{key: found.get(key) for key in _KEPT},
        "num_arcs": len(found["arcs"]) if found else None,
        "mean_ms": mean,
        "std_ms": std,
        "least_ms": min(times, default=None),
        "most_ms": max(times, default=None),
        "gap": time / bound - 1 if time is not None and bound and not found["drawn"] else None,
        "fair_ms": found.get("fair_ms"),
        "scattered_ms": found.get("scattered_ms"),
        "agreement_rounds": rounds if math.isfinite(rounds) else None,
        "agreement_ms": rounds * time if time is not None and math.isfinite(rounds) else None,
        "seconds": sum(timed) / len(timed) if timed else None,
        "finished": all(trial.finished for trial in trials),
    }


def _found(done: Sequence[tuple[TrialRecord, Row]], times: Sequence[float]) -> dict[str, Any]:
    """The overlay that counts, with its seed; empty before there is one."""
    if not done:
        return {}
    if done[0][1]["drawn"]:
        errors = [float(event["error_ms"]) for _, event in done]
        mean = {"cycle_time_ms": math.fsum(times) / len(times), "error_ms": math.hypot(*errors) / len(errors)}
        return {**done[0][1], **mean, "seed": done[0][0].seed}
    trial, event = min(done, key=lambda pair: float(pair[1]["cycle_time_ms"]))
    return {**event, "seed": trial.seed}


def best_of(summary: Mapping[str, Row], kinds: Sequence[str] | None = None, *, fixed: bool = False) -> str | None:
    """The overlay of least cycle time, the first of equals.

    Args:
        summary: of `summarize_designs`.
        kinds: to look at; all when left out.
        fixed: leave out those that are drawn anew in every round.
    """
    times = {
        name: float(row["cycle_time_ms"])
        for name, row in summary.items()
        if row["cycle_time_ms"] is not None and (kinds is None or row["kind"] in kinds) and not (fixed and row["drawn"])
    }
    return min(times, key=lambda name: times[name]) if times else None


def winner(summary: Mapping[str, Row]) -> str | None:
    """The fastest overlay that is the same in every round, for which the bound is; drawn ones only among themselves."""
    return best_of(summary, fixed=True) or best_of(summary)


def shown_trial(record: RunRecord, name: str, summary: Mapping[str, Row]) -> TrialRecord:
    """The trial of the overlay that counts."""
    return next(trial for trial in trials_of(record, name) if trial.seed == summary[name]["seed"])


@dataclass(frozen=True, kw_only=True, eq=False)
class OverlayRecord:
    """An overlay as its trial tells it, with silos as positions.

    Args:
        name: of the overlay.
        names: of the silos.
        arcs: senders and receivers.
        delays_ms: d(i, j) of the arcs.
        work_ms: of the silos in a round.
        circuit: silos on a slowest circuit, in order; none where rounds are drawn.
        hub: through which all goes, if one is.
        cycle_time_ms: mean time of a round in the long run.
        potentials: of the silos, that prove it; None where circuits do not set it.
    """

    name: str
    names: tuple[str, ...]
    arcs: Int64[ndarray, "arcs 2"]
    delays_ms: Float64[ndarray, "arcs"]
    work_ms: Float64[ndarray, "silos"]
    circuit: tuple[int, ...]
    hub: int | None
    cycle_time_ms: float
    potentials: Float64[ndarray, "silos"] | None = None

    @classmethod
    def of(cls, trial: TrialRecord, names: Sequence[str]) -> Self:
        """Read it.

        Args:
            trial: with an event ``overlay``.
            names: of all silos, in the order of ``work_ms``.

        Raises:
            StoreError: when the event does not fit the silos.
        """
        event = trial.events("overlay")[0]
        place = {name: position for position, name in enumerate(names)}
        ends = [*(end for arc in event["arcs"] for end in arc), *event["critical_circuit"]]
        unknown = [end for end in [*ends, *filter(None, [event["hub"]])] if end not in place]
        if unknown:
            raise _broken(trial, f'there is no silo "{unknown[0]}"')
        delays, work = (np.array(event[key], np.float64) for key in ("delays_ms", "work_ms"))
        if delays.shape != (len(event["arcs"]),) or work.shape != (len(names),):
            what = f"{delays.size} delays and {work.size} times of work"
            raise _broken(trial, f"{len(event['arcs'])} arcs of {len(names)} silos have {what}")
        potentials = None if event["potentials"] is None else np.array(event["potentials"], np.float64)
        if potentials is not None and potentials.shape != work.shape:
            raise _broken(trial, f"{len(names)} silos have {potentials.size} potentials")
        return cls(
            name=_name(trial),
            names=tuple(names),
            arcs=np.array([[place[one], place[other]] for one, other in event["arcs"]], np.int64).reshape(-1, 2),
            delays_ms=delays,
            work_ms=work,
            circuit=tuple(place[name] for name in event["critical_circuit"]),
            hub=None if event["hub"] is None else place[event["hub"]],
            cycle_time_ms=float(event["cycle_time_ms"]),
            potentials=potentials,
        )

    @property
    def critical_arcs(self) -> tuple[tuple[int, int], ...]:
        """The arcs of the slowest circuit; none for the loop of a silo, whose own work sets the pace."""
        if len(self.circuit) < 2:
            return ()
        return tuple(zip(self.circuit, (*self.circuit[1:], self.circuit[0]), strict=True))


def _broken(trial: TrialRecord, what: str) -> StoreError:
    return StoreError(what, where=str(trial.folder), mend="Restore the record, or design again with --fresh.")

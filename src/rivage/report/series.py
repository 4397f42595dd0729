"""What the figures show, as arrays: curves over rounds, points against Local, sorted clients, shares, choices.

Nothing here draws. Every function reads the events of a record, tolerates a run that has not finished, and returns
empty arrays where there is nothing to show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.records import RunRecord
from rivage.core.spending import spent, training_clients
from rivage.core.summaries import paired_with_local, weighted_mean, worst_first
from rivage.core.trial_records import TrialRecord

__all__ = [
    "Curve",
    "Participation",
    "Points",
    "choice_counts",
    "learning_curve",
    "participation",
    "points_against_local",
    "sorted_clients",
    "trials_of",
]

Array = Float64[ndarray, "points"]
MAX_STEPS = 400  # a sorted curve of more clients is drawn at this many positions: finer than a screen shows


def trials_of(record: RunRecord, method: str) -> tuple[TrialRecord, ...]:
    """The trials of a method, by seed."""
    return tuple(trial for trial in record.trials if trial.method == method)


@dataclass(frozen=True, slots=True)
class Curve:
    """The weighted mean of the clients' metric after each evaluated round, over seeds.

    Args:
        rounds: rounds done, ascending.
        size: bytes of all messages until then per client that trains, set-up included, averaged over seeds.
        gradients: records differentiated in the rounds until then, per client likewise; NaN where unknown.
        mean: average over the seeds that got so far.
        low: smallest of these seeds.
        high: largest.
    """

    rounds: Array
    size: Array
    gradients: Array
    mean: Array
    low: Array
    high: Array


def _trial_curve(trial: TrialRecord) -> dict[int, tuple[float, float, float]]:
    """Rounds done -> (bytes and gradients of a client until then, weighted mean), where the mean is defined."""
    cost, share, points = spent(trial), training_clients(trial), {}
    for event in trial.events("evaluation"):
        value = weighted_mean(event["test"], event["test_size"])
        if event["group"] == "seen" and value is not None:
            done = int(event["round"])
            place = cost.after(done)
            taken = np.nan if cost.gradients is None else cost.gradients[place] / share
            points[done] = (float(cost.size[place]) / share, float(taken), value)
    return points


def learning_curve(trials: Sequence[TrialRecord]) -> Curve:
    """The curve of one method over its seeds. O(evaluations x clients)."""
    seeds = [_trial_curve(trial) for trial in trials]
    rows = []
    for done in sorted({done for points in seeds for done in points}):
        sent, taken, values = zip(*(points[done] for points in seeds if done in points), strict=True)
        rows.append((done, np.mean(sent), np.mean(taken), np.mean(values), min(values), max(values)))
    return Curve(*np.asarray(rows, dtype=np.float64).reshape(-1, 6).T)


@dataclass(frozen=True, slots=True)
class Points:
    """One point per client and seed: the method against Local.

    Args:
        local: value with Local.
        value: value with the method.
        size: test records of the client.
        better: share of the points strictly better than Local, in [0, 1]; 0 without points.
        worse: share strictly worse.
    """

    local: Array
    value: Array
    size: Array
    better: float
    worse: float


def points_against_local(record: RunRecord, method: str, *, higher_is_better: bool) -> Points:
    """The pairs of all seeds of a method, joined."""
    pairs = [paired_with_local(record, trial) for trial in trials_of(record, method)]
    value, local, size = (np.concatenate([np.empty(0), *(pair[k] for pair in pairs)]) for k in range(3))
    gain = (value - local) * (1 if higher_is_better else -1)
    count = max(len(gain), 1)
    return Points(local, value, size, float((gain > 0).sum() / count), float((gain < 0).sum() / count))


def sorted_clients(trials: Sequence[TrialRecord], *, higher_is_better: bool) -> tuple[Array, Array]:
    """Share of clients passed, in [0, 1), and the value there, from the worst client to the best, averaged over seeds.

    With T clients the value at share s is that of position ⌊s T⌋, so that the curve at 0.1 is the bottom decile.
    """
    seeds = [
        worst_first(event["test"], higher_is_better=higher_is_better)
        for trial in trials
        if (event := trial.final("seen")) is not None
    ]
    seeds = [values for values in seeds if len(values)]
    if not seeds:
        return np.empty(0), np.empty(0)
    steps = min(max(len(values) for values in seeds), MAX_STEPS)
    position = np.arange(steps)
    # Integer arithmetic: ⌊s T⌋ with s = k/steps must not fall below k when T = steps.
    picked = [values[position * len(values) // steps] for values in seeds]
    return position / steps, np.mean(picked, axis=0)


def choice_counts(trials: Sequence[TrialRecord], group: str) -> dict[str, float]:
    """Chosen model -> number of clients that chose it in the last choice, averaged over the seeds that chose."""
    last: list[Counter[str]] = []
    for trial in trials:
        events = [event for event in trial.events("choice") if event["group"] == group]
        if events:
            last.append(Counter(events[-1]["chosen"]))
    names = sorted({name for counts in last for name in counts})
    return {name: sum(counts[name] for counts in last) / len(last) for name in names}


@dataclass(frozen=True, slots=True)
class Participation:
    """Who took part, over all rounds and seeds of a method.

    Args:
        rounds: rounds done, summed over seeds.
        cohort: mean number of clients per round.
        lost: updates that never arrived.
        rejected: reason -> number of updates refused.
        refusals: reason -> number of rounds that were not aggregated.
        forgotten: memories of clients that were dropped.
        chosen: rounds in which each client was in the cohort; empty when the record holds only counts.
        failed: of these, the rounds whose update was lost or rejected.
    """

    rounds: int
    cohort: float
    lost: int
    rejected: Mapping[str, int]
    refusals: Mapping[str, int]
    forgotten: int
    chosen: Array
    failed: Array


def _cohort_size(cohort: Sequence[int] | Mapping[str, Any]) -> int:
    return int(cohort["count"]) if isinstance(cohort, Mapping) else len(cohort)


def _per_client(ids: Sequence[int], size: int) -> Array:
    return np.bincount(np.asarray(ids, dtype=np.int64), minlength=size).astype(np.float64)


def participation(trials: Sequence[TrialRecord]) -> Participation:
    """Counts over the trials of one method. O(rounds x cohort + clients)."""
    rounds = [event for trial in trials for event in trial.events("round")]
    population = trials[0].start["population"]
    size = int(population["size"])
    missing = [event.get("lost", ()) for event in rounds]
    lost = [client for ids in missing if not isinstance(ids, Mapping) for client in ids]
    rejected = [entry for event in rounds for entry in event.get("rejected", ())]
    named = [event["cohort"] for event in rounds if not isinstance(event["cohort"], Mapping)]
    unseen = np.asarray(population.get("unseen", ()), dtype=np.int64)
    chosen = failed = np.empty(0)
    if rounds and len(named) == len(rounds) and size <= 100_000:
        training = np.setdiff1d(np.arange(size), unseen)
        chosen = _per_client([client for cohort in named for client in cohort], size)[training]
        failed = _per_client([*lost, *(entry["client"] for entry in rejected)], size)[training]
    return Participation(
        rounds=len(rounds),
        cohort=float(np.mean([_cohort_size(event["cohort"]) for event in rounds])) if rounds else 0.0,
        lost=sum(_cohort_size(ids) for ids in missing),
        rejected=dict(sorted(Counter(str(entry["reason"]) for entry in rejected).items())),
        refusals=sum((trial.refusals for trial in trials), Counter[str]()),
        forgotten=sum(trial.forgotten for trial in trials),
        chosen=chosen,
        failed=failed,
    )

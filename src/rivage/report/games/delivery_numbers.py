"""What a run of inference delivery says in a few numbers: gain, latency, accuracy, punctuality, traffic, where served.

A trial is one policy with one seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rivage.core.games import spread
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord

__all__ = ["by_tier", "most_gained", "summarize_delivery", "trials_of"]

Event = Mapping[str, Any]


def trials_of(record: RunRecord, policy: str) -> tuple[TrialRecord, ...]:
    """The trials of a policy, by seed."""
    return tuple(trial for trial in record.trials if trial.start["policy"] == policy)


def most_gained(trial: TrialRecord, end: Event) -> float | None:
    """No fixed allocation gains more per request."""
    found = trial.events("reference")
    return None if not found else _per(end["base"] - end["slots"] * found[0]["least"], end["requests"])


def by_tier(trial: TrialRecord, end: Event) -> dict[str, float]:
    """Share of the requests that each tier answered; of each node where there are no tiers."""
    scene = trial.start["scene"]
    labels, shares = scene["tiers"] or scene["nodes"], dict[str, float]()
    for label, served in zip(labels, end["by_node"], strict=True):
        shares[label] = shares.get(label, 0.0) + (_per(served, end["requests"]) or 0.0)
    return shares


def summarize_delivery(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The ``policies`` object of ``summary.json``: policy -> its numbers, means over seeds.

    Per policy its ``kind``, whether it ``foresees``, and: ``requests`` in all; ``gain`` per request, in milliseconds, a
    hundredth of accuracy counting as ``alpha_ms_per_point``; ``ntag``, a mean of slots; ``most_gain`` that any fixed
    allocation has; ``cost_saved``, the gain as a share of the cost with pinned models alone; ``cost`` per request;
    ``latency_ms`` and ``latency_p50_ms``, ``…p95…``, ``…p99…``; ``accuracy``; ``in_time``, the share of requests within
    their deadlines; ``update_mb`` fetched per slot and ``update_items`` in all; ``regret`` and ``regret_bound`` of the
    fractions, None where nothing is promised; ``tiers``, the share of requests that each answered; ``requests_per_s``
    and ``slots_per_s`` of wall clock in the policy alone. ``…_std`` is over seeds.
    """
    summary = dict[str, dict[str, Any]]()
    for name in dict.fromkeys(str(trial.start["policy"]) for trial in record.trials):
        trials = trials_of(record, name)
        start = trials[0].start
        summary[name] = {"kind": start["kind"], "foresees": start["foresees"], **_row(trials)}
    return summary


def _row(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    ends = [(trial, points[-1]) for trial in trials if (points := trial.events("point"))]
    means = {
        "requests": [end["requests"] for _, end in ends],
        "gain": [_per(end["gain"], end["requests"]) for _, end in ends],
        "ntag": [end["ntag"] for _, end in ends],
        "most_gain": [most_gained(trial, end) for trial, end in ends],
        "cost_saved": [_per(end["gain"], end["base"]) for _, end in ends],
        "cost": [_per(end["cost"], end["requests"]) for _, end in ends],
        "latency_ms": [end["latency_ms"] for _, end in ends],
        **{
            f"latency_p{share}_ms": [end["latency_quantiles_ms"][place] for _, end in ends]
            for place, share in enumerate((50, 95, 99))
        },
        "accuracy": [end["accuracy"] for _, end in ends],
        "in_time": [end["in_time"] for _, end in ends],
        "update_mb": [_per(end["moved"], end["slots"]) for _, end in ends],
        "update_items": [end["loads"] for _, end in ends],
        "regret": [end["regret"] for _, end in ends],
        "regret_bound": [end["bound"] for _, end in ends],
    }
    numbers = {key: spread(values) for key, values in means.items()}
    timed = [timing for trial in trials for timing in trial.timings]
    seconds, slots = (sum(timing[key] for timing in timed) for key in ("seconds", "slots"))
    asked = sum(end["requests"] for _, end in ends)
    return {
        **{key: mean for key, (mean, _) in numbers.items()},
        **{f"{key}_std": numbers[key][1] for key in ("gain", "ntag", "latency_ms", "accuracy")},
        "tiers": _shares([by_tier(trial, end) for trial, end in ends]),
        "slots_per_s": _per(slots, seconds),
        "requests_per_s": _per(asked, seconds),
        "finished": all(trial.finished for trial in trials),
    }


def _shares(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {label: sum(each[label] for each in found) / len(found) for label in (found[0] if found else {})}


def _per(value: float, count: float) -> float | None:
    return value / count if count else None

"""What a run of one cache says in a few numbers: hit ratios, cost saved, regret and its bound, traffic, speed.

A trial is one policy with one capacity and one seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rivage.core.games import spread

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.core.trial_records import TrialRecord

__all__ = ["capacities", "optima", "summarize_policies", "trials_of"]


def trials_of(record: RunRecord, policy: str, capacity: int) -> tuple[TrialRecord, ...]:
    """The trials of a policy with a capacity, by seed."""
    return tuple(t for t in record.trials if t.start["policy"] == policy and t.start["capacity"] == capacity)


def capacities(record: RunRecord) -> tuple[int, ...]:
    """Those that have begun, in the order in which they were played; the first one is what the headline speaks of."""
    starts = sorted((trial.start for trial in record.trials), key=lambda start: start["place"])
    return tuple(dict.fromkeys(int(start["capacity"]) for start in starts))


def _last(trial: TrialRecord) -> dict[str, Any] | None:
    points = trial.events("point")
    return dict(points[-1]) if points else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _row(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """The numbers of one policy with one capacity."""
    ends = [end for trial in trials if (end := _last(trial)) is not None]
    means = {
        "hit_ratio": [end["hits"] / end["requests"] for end in ends],
        "cost_saved": [end["gain"] / end["asked"] for end in ends],
        "static_saved": [end["optimum"] / end["asked"] for end in ends],
        "windowed_saved": [_ratio(end["windowed"], end["asked"]) for end in ends],
        "regret": [end["regret"] for end in ends],
        "regret_bound": [end["bound"] for end in ends],
        "extended_regret": [end["optimum"] - end["gain"] + end["prefetched"] for end in ends],
        "update_items": [end["inserted"] for end in ends],
        "occupancy": [end["occupancy"] for end in ends],
    }
    numbers = {key: spread(values) for key, values in means.items()}
    varying = ("hit_ratio", "cost_saved", "regret")
    timed = [timing for trial in trials for timing in trial.timings]
    seconds, requests = (sum(timing[key] for timing in timed) for key in ("seconds", "requests"))
    return {
        "capacity": trials[0].start["capacity"],
        **{key: mean for key, (mean, _) in numbers.items()},
        **{f"{key}_std": numbers[key][1] for key in varying},
        "requests_per_s": _ratio(requests, seconds),
        "finished": all(trial.finished for trial in trials),
    }


def summarize_policies(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The ``policies`` object of ``summary.json`` and of ``rivage play --json``: policy name -> its numbers.

    Per policy its ``kind``, whether it ``foresees`` the trace (a yardstick, no rival), and, at the first capacity of
    the study, averaged over seeds: ``capacity``; ``hit_ratio``; ``cost_saved``, the share of the cost without a cache
    that was saved, equal to the hit ratio where all items cost the same; ``static_saved`` and ``windowed_saved``, the
    same of the best fixed set and of the best set of every window (None without windows); ``regret``, of the fractional
    state where there is one; ``regret_bound``, None where nothing is promised; ``extended_regret``, of what was really
    cached, with the cost of fetching what had not just been asked for; ``update_items`` fetched, the first filling
    included; ``occupancy`` at the end; ``requests_per_s`` of wall clock in the policy alone. ``…_std`` is the sample
    standard deviation over seeds, None for one. ``capacities`` has these numbers for every capacity. What has not begun
    is left out.
    """
    sizes = capacities(record)
    names = dict.fromkeys(str(trial.start["policy"]) for trial in record.trials)
    summary: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = [_row(trials) for capacity in sizes if (trials := trials_of(record, name, capacity))]
        start = next(trial.start for trial in record.trials if trial.start["policy"] == name)
        facts = {"kind": start["kind"], "foresees": start["foresees"]}
        summary[name] = {**facts, **rows[0], "capacities": rows}
    return summary


def optima(record: RunRecord) -> dict[int, float]:
    """Capacity -> share of the cost that the best fixed set saves, mean over seeds; by capacity, ascending."""
    found: dict[int, dict[int, float]] = {}
    for trial in record.trials:
        if (end := _last(trial)) is not None and trial.finished:
            found.setdefault(int(trial.start["capacity"]), {})[trial.seed] = end["optimum"] / end["asked"]
    return {capacity: sum(seeds.values()) / len(seeds) for capacity, seeds in sorted(found.items())}

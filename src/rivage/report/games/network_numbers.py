"""What a run of a network of caches says in a few numbers: cost saved, bounds on both sides, regret, moves, messages.

A trial is one policy with one seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rivage.core.games import spread

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.core.trial_records import TrialRecord

__all__ = ["most_saved", "summarize_network", "trials_of"]


def trials_of(record: RunRecord, policy: str) -> tuple[TrialRecord, ...]:
    """The trials of a policy, by seed."""
    return tuple(trial for trial in record.trials if trial.start["policy"] == policy)


def _last(trial: TrialRecord) -> dict[str, Any] | None:
    points = trial.events("point")
    return dict(points[-1]) if points else None


def _share(above: float | None, below: float) -> float | None:
    return None if above is None or not below else above / below


def _regret(start: dict[str, Any], optimum: dict[str, Any], end: dict[str, Any]) -> float | None:
    """What is promised of the linear program, minus the gain, once all requests are played."""
    if start["factor"] is None or optimum["relaxed"] is None or end["requests"] < start["trace"]["requests"]:
        return None
    return float(start["factor"] * optimum["relaxed"] - end["gain"])


def most_saved(record: RunRecord) -> tuple[float | None, float | None]:
    """Shares of the cost without caches: what no placement exceeds, and what greed finds; means over seeds."""
    found: dict[int, dict[str, Any]] = {}
    for trial in record.trials:
        if optima := trial.events("optimum"):
            found.setdefault(trial.seed, dict(optima[0]))
    sides = ([_share(each[key], each["asked"]) for each in found.values()] for key in ("relaxed", "placed"))
    above, below = (spread(side)[0] if side and None not in side else None for side in sides)
    return above, below


def _row(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """The numbers of one policy."""
    games = [
        (dict(trial.start), dict(trial.events("optimum")[0]), end)
        for trial in trials
        if (end := _last(trial)) is not None
    ]
    means: dict[str, list[float | None]] = {
        "gain": [end["gain"] for _, _, end in games],
        "cost_saved": [_share(end["gain"], end["asked"]) for _, _, end in games],
        "hit_ratio": [end["hits"] / end["requests"] for _, _, end in games],
        "relaxed_saved": [_share(best["relaxed"], best["asked"]) for _, best, _ in games],
        "placed_saved": [_share(best["placed"], best["asked"]) for _, best, _ in games],
        "regret": [_regret(*game) for game in games],
        "regret_bound": [end["bound"] for _, _, end in games],
        "update_items": [end["moves"] for _, _, end in games],
        "control_messages": [end["control"] for _, _, end in games],
        "factor": [start["factor"] for start, _, _ in games],
    }
    numbers = {key: (None, None) if None in values else spread(values) for key, values in means.items()}
    timed = [timing for trial in trials for timing in trial.timings]
    seconds, requests = (sum(timing[key] for timing in timed) for key in ("seconds", "requests"))
    return {
        **{key: mean for key, (mean, _) in numbers.items()},
        **{f"{key}_std": numbers[key][1] for key in ("cost_saved", "hit_ratio", "regret")},
        "requests_per_s": _share(requests, seconds),
        "finished": all(trial.finished for trial in trials),
    }


def summarize_network(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The ``policies`` object of ``summary.json`` and of ``rivage play --json``: policy name -> its numbers.

    Per policy its ``kind``, whether it ``foresees`` the requests, and, averaged over seeds: ``gain``, the cost of the
    responses that was saved; ``cost_saved``, the same as a share of the cost without caches; ``hit_ratio``, requests
    that a cache answered; ``relaxed_saved``, the share that no fixed placement exceeds, and ``placed_saved``, that of
    the placement that greed finds in hindsight (None where they are not known); ``factor``, the share of the best fixed
    placement that is promised, ``regret``, what that share of ``relaxed_saved`` lies above the gain, as a cost, and
    ``regret_bound``, what it cannot exceed (all None for policies that promise nothing); ``update_items`` brought into
    a slot; ``control_messages``, links crossed by messages other than requests and responses; ``requests_per_s`` of
    wall clock in the policy alone. ``…_std`` is the sample standard deviation over seeds, None for one. What has not
    begun is left out.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(str(trial.start["policy"]) for trial in record.trials):
        trials = trials_of(record, name)
        start = trials[0].start
        summary[name] = {"kind": start["kind"], "foresees": start["foresees"], **_row(trials)}
    return summary

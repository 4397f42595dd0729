"""What a run of fair sharing says in a few numbers: welfare, what each agent got, regret and its bound, the price.

A trial is one policy with one seed. Welfare and regret are those of the inequality aversion of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rivage.core.games import spread

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.core.trial_records import TrialRecord

__all__ = ["fairest_fixed", "jain", "summarize_sharing", "trials_of"]


_ROUNDING = 1e-12


def trials_of(record: RunRecord, policy: str) -> tuple[TrialRecord, ...]:
    """The trials of a policy, by seed."""
    return tuple(trial for trial in record.trials if trial.start["policy"] == policy)


def jain(utilities: Sequence[float]) -> float | None:
    """(Σ u)²/(n Σ u²): 1 where all have the same, 1/n where one has all; None where nobody has anything.

    Example:
        >>> jain([1.0, 1.0]), jain([1.0, 0.0])
        (1.0, 0.5)
    """
    u = np.array(utilities)
    squares = float((u * u).sum())
    return float(u.sum()) ** 2 / (len(u) * squares) if squares else None


def summarize_sharing(record: RunRecord) -> dict[str, dict[str, Any]]:
    """The ``policies`` object of ``summary.json`` and of ``rivage play --json``: policy name -> its numbers.

    Per policy its ``kind``, whether it ``foresees`` the slots, the inequality aversion ``alpha`` that it aims at, and,
    averaged over seeds: ``welfare``, F_α of the mean utilities (None for −∞); ``utilities``, the mean utility of each
    agent; ``gain``, their sum; ``worst_agent``, who has least, and ``least_utility``; ``jain``, the index of equality,
    1 where all have the same; ``price_of_fairness``, the share of the largest sum of utilities of a fixed allocation
    that is missing; ``regret``, the welfare of the fairest fixed allocation less the policy's, below 0 where changing
    shares did better; ``regret_bound``, what it cannot exceed for these utilities (None for policies that promise
    nothing, or aim at something else); ``shares``, mean share of each resource for each agent; ``outside``, the share
    of utilities that were not in their range; ``slots_per_s`` of wall clock in the policy alone. ``…_std`` is the
    sample standard deviation over seeds, None for one. What has not begun is left out.
    """
    names = dict.fromkeys(str(trial.start["policy"]) for trial in record.trials)
    return {name: _row(trials_of(record, name)) for name in names}


def _row(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    start, games = trials[0].start, [trial for trial in trials if trial.events("point")]
    agents: list[str] = start["scene"]["agents"]
    ends, best = [_end(game) for game in games], [_optimum(game) for game in games]
    utilities = np.array([end["utilities"] for end in ends]).mean(axis=0).tolist() if ends else []
    means: dict[str, list[float | None]] = {
        "gain": [sum(end["utilities"]) for end in ends],
        "welfare": [end["welfare"] for end in ends],
        "regret": [_less(one["judge"]["welfare"], end["welfare"]) for one, end in zip(best, ends, strict=True)],
        "regret_bound": [_bound(game) for game in games],
        "price_of_fairness": [1 - sum(end["utilities"]) / one["most"] for one, end in zip(best, ends, strict=True)],
        "jain": [jain(end["utilities"]) for end in ends],
        "outside": [end["outside"] / (end["slots"] * len(agents)) for end in ends],
    }
    numbers = {key: (None, None) if None in values else spread(values) for key, values in means.items()}
    timed = [timing for trial in trials for timing in trial.timings]
    seconds, slots = (sum(timing[key] for timing in timed) for key in ("seconds", "slots"))
    return {
        "kind": start["kind"],
        "foresees": start["foresees"],
        "alpha": start["alpha"],
        **{key: mean for key, (mean, _) in numbers.items()},
        **{f"{key}_std": numbers[key][1] for key in ("gain", "welfare", "regret")},
        "utilities": dict(zip(agents, utilities, strict=False)),
        "worst_agent": agents[int(np.argmin(utilities))] if utilities else None,
        "least_utility": min(utilities, default=None),
        "shares": _shares(ends, agents),
        "slots_per_s": slots / seconds if seconds else None,
        "finished": all(trial.finished for trial in trials),
    }


def _less(best: float, welfare: float | None) -> float | None:
    """Sums of slots are added up in another order than those of the optimum: what differs by less is the same."""
    if welfare is None:
        return None
    return 0.0 if abs(best - welfare) <= _ROUNDING * max(1.0, abs(best)) else best - welfare


def _end(trial: TrialRecord) -> dict[str, Any]:
    return dict(trial.events("point")[-1])


def _optimum(trial: TrialRecord) -> dict[str, Any]:
    return dict(trial.events("optimum")[0])


def _bound(trial: TrialRecord) -> float | None:
    """None for policies that promise nothing, or about another welfare."""
    bounded, start = trial.events("bounded"), trial.start
    return float(bounded[0]["bound"]) if bounded and start["alpha"] == start["judge"] else None


def _shares(ends: Sequence[dict[str, Any]], agents: Sequence[str]) -> dict[str, dict[str, float]]:
    """Resource -> agent -> mean share."""
    resources = ends[0]["shares"] if ends else {}
    means = {name: np.mean([end["shares"][name] for end in ends], axis=0).tolist() for name in resources}
    return {name: dict(zip(agents, row, strict=True)) for name, row in means.items()}


def fairest_fixed(record: RunRecord) -> dict[str, Any]:
    """What the fairest fixed allocation gives, mean over seeds; empty before any was found.

    Its ``welfare``; ``upper``, which none exceeds; ``utilities`` by agent; ``most``, the largest sum of utilities.
    """
    found = {trial.seed: _optimum(trial) for trial in record.trials if trial.events("optimum")}
    if not found:
        return {}
    agents = record.trials[0].start["scene"]["agents"]
    utilities = np.mean([each["judge"]["utilities"] for each in found.values()], axis=0).tolist()
    sides = {key: spread([each["judge"][key] for each in found.values()])[0] for key in ("welfare", "upper")}
    most = spread([each["most"] for each in found.values()])[0]
    return {**sides, "utilities": dict(zip(agents, utilities, strict=True)), "most": most}

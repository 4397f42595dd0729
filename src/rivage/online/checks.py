"""Certificates of a run of policies, computed from its record alone.

Checks import no policy and touch no trace: `rivage verify` runs them on a folder.
"""

from __future__ import annotations

from rivage.core.certificates import Certificate, Verdict
from rivage.core.records import RunRecord
from rivage.core.trials import finished_trials, points
from rivage.online.chance import in_expectation

__all__ = ["optimum_gap", "regret_bound"]

_ROUNDING = 1e-9  # of what was asked for: sums are added up in another order than the bound


def regret_bound(record: RunRecord, *, method: str, confidence: float = 0.95) -> Certificate:
    """Is the regret below what the policy promises, after every prefix that was noted?

    A policy with a fractional state promises it for that state and every sequence: then every seed and point must keep
    to it. A policy without one promises it in expectation over its own draws: then the mean over seeds must, and a mean
    above the bound fails only where a one-sided t test at level 1 − confidence, Bonferroni over the points, says so.

    No policy can lose more than the best fixed set gains. A bound that is as large after every prefix promises nothing,
    so keeping it shows nothing: no power.
    """
    trials = finished_trials(record, method)
    regret, bound, asked, optimum = (points(trials, key) for key in ("regret", "bound", "asked", "optimum"))
    drawn = bool((points(trials, "fractional") == points(trials, "gain")).all())
    seeds, prefixes = regret.shape
    excess = regret - bound - _ROUNDING * asked
    over = "mean over seeds" if drawn else "largest over seeds"
    measured = regret[:, -1].mean() if drawn else regret[:, -1].max()
    verdict: Verdict = in_expectation(excess, confidence) if drawn else "holds" if (excess <= 0).all() else "fails"
    empty = bool((bound >= optimum).all())
    return Certificate(
        kind="bound",
        claim=f"{method} is behind the best fixed set by no more than it promises, after every prefix of the requests.",
        measured=float(measured),
        reference=float(bound[:, -1].mean() if drawn else bound[:, -1].min()),
        method=f"regret at the end, {over}, against the bound of the policy for these requests; verdict over "
        f"{prefixes} prefixes and {seeds} seeds"
        + (", a promise in expectation over the policy's own draws" if drawn else ", a promise for every sequence")
        + ("; it promises nothing here: no policy can lose as much" if empty else ""),
        confidence=confidence if drawn else None,
        verdict="no_power" if empty and verdict == "holds" else verdict,
        check="regret_bound",
        fields={"method": method, "confidence": confidence},
    )


def optimum_gap(record: RunRecord, *, method: str, against: str = "optimum") -> Certificate:
    """How far is what the cache saved from the best fixed set in hindsight, or the best set of every window?

    Both are shares of the cost without a cache; that of the policy is of what was really cached, averaged over seeds,
    and may be the larger one.
    """
    trials = finished_trials(record, method)
    asked, gain, best = (points(trials, key)[:, -1] for key in ("asked", "gain", against))
    saved, reference = float((gain / asked).mean()), float((best / asked).mean())
    yardstick = "the best fixed set" if against == "optimum" else "the best set of every window"
    side = "more" if saved > reference else "less" if saved < reference else "no less and no more"
    return Certificate(
        kind="gap",
        claim=f"{method} saves {side} of the cost than {yardstick} in hindsight.",
        measured=saved,
        reference=reference,
        method=f"share of the cost without a cache that is saved, mean over {len(trials)} seeds; the reference is "
        f"chosen when all {int(trials[0].events('point')[-1]['requests'])} requests are known",
        confidence=None,
        verdict="holds",
        check="optimum_gap",
        fields={"method": method, "against": against},
    )

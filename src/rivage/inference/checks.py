"""Certificates of a run of inference delivery, computed from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rivage.core.certificates import Certificate, Verdict
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.core.trials import finished_trials, points

__all__ = ["delivery_gap", "delivery_regret", "placement_fits", "placement_gap"]

_ROUNDING = 1e-9  # of the cost without the free models: sums are added up in another order than the bound


def delivery_regret(record: RunRecord, *, method: str) -> Certificate:
    """Did the fractions lose to any fixed fractions no more than the policy promises, after every prefix?

    What they lost is bounded by the supergradients of the gains, Σ_t g_t · (y − y_t) at its largest over y, and that by
    the analysis. A bound that is as large as all there was to gain promises nothing: no power.
    """
    trials = finished_trials(record, method)
    regret, bound, base, slots = (points(trials, key) for key in ("regret", "bound", "base", "slots"))
    # What there was to gain is known of all slots together, so emptiness shows at the end only.
    most = (base - slots * np.array([[_reference(trial)["least"]] for trial in trials]))[:, -1]
    kept = bool((regret <= bound + _ROUNDING * base).all())
    empty = bool((bound[:, -1] >= most).all())
    verdict: Verdict = "fails" if not kept else "no_power" if empty else "holds"
    return Certificate(
        kind="bound",
        claim=f"The fractions of {method} are never behind the best fixed ones by more than it promises.",
        measured=float(regret[:, -1].max()),
        reference=float(bound[:, -1].min()),
        method=f"linearised regret, no less than the regret, largest at the end over {_seeds(trials)}, against the "
        f"bound of the policy for these requests; verdict over {regret.shape[1]} prefixes"
        + ("; it promises nothing here: no policy can lose as much" if empty else ""),
        confidence=None,
        verdict=verdict,
        check="delivery_regret",
        fields={"method": method},
    )


def delivery_gap(record: RunRecord, *, method: str) -> Certificate:
    """How far is the gain from what no fixed allocation can exceed? Both per request; who follows may be above."""
    trials = finished_trials(record, method)
    ends = [trial.events("point")[-1] for trial in trials]
    gained = float(np.mean([end["gain"] / end["requests"] for end in ends]))
    most = float(
        np.mean(
            [
                (end["base"] - end["slots"] * _reference(trial)["least"]) / end["requests"]
                for end, trial in zip(ends, trials, strict=True)
            ]
        )
    )
    return Certificate(
        kind="gap",
        claim=f"{method} gains {gained:.4g} per request; no fixed allocation gains more than {most:.4g}.",
        measured=gained,
        reference=most,
        method=f"mean over {_seeds(trials)}; the reference is the linear relaxation of placement and routing for "
        "the mean requests of all slots",
        confidence=None,
        verdict="holds",
        check="delivery_gap",
        fields={"method": method},
    )


def _seeds(trials: Sequence[TrialRecord]) -> str:
    return f"{len(trials)} seeds" if len(trials) > 1 else "one seed"


def _reference(trial: TrialRecord) -> dict[str, Any]:
    return dict(trial.events("reference")[0])


def placement_gap(record: RunRecord, *, method: str) -> Certificate:
    """How far is the cost of a plan from what no placement can go below? The cost is added up from the routing."""
    trials = finished_trials(record, method)
    costs, bounds = [], []
    for trial in trials:
        end = trial.events("point")[-1]
        costs.append(sum(row[4] * row[6] for row in end["routing"]) / end["requests"])
        bounds.append(trial.events("relaxation")[0]["least"] / end["requests"])
    cost, bound = float(np.mean(costs)), float(np.mean(bounds))
    below = any(c < b * (1 - 1e-6) for c, b in zip(costs, bounds, strict=True))
    return Certificate(
        kind="gap",
        claim=f"{method} costs {cost:.4g} ms per request; no placement costs less than {bound:.4g} ms.",
        measured=cost,
        reference=bound,
        method=f"mean over {_seeds(trials)} of the routed requests, cheapest first; the reference is the linear "
        "relaxation of placement and routing (HiGHS)",
        confidence=None,
        verdict="fails" if below else "holds",
        check="placement_gap",
        fields={"method": method},
    )


def placement_fits(record: RunRecord, *, method: str) -> Certificate:
    """Does every node hold what it was given?"""
    trials = finished_trials(record, method)
    shares = [
        used / budget if budget else float(used > 0)
        for trial in trials
        for used, budget in zip(
            trial.events("placed")[0]["used"], trial.events("relaxation")[0]["budgets"], strict=True
        )
        if budget is not None
    ]
    fullest = max(shares, default=0.0)
    return Certificate(
        kind="bound",
        claim=f"No node holds more than its memory under {method}.",
        measured=fullest,
        reference=1.0,
        method=f"share of the memory that is used on the fullest of {len(shares)} nodes",
        confidence=None,
        verdict="holds" if fullest <= 1 + _ROUNDING else "fails",
        check="placement_fits",
        fields={"method": method},
    )

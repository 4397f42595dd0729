"""The certificate of a run on streams, computed from its record alone: what its weights are worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rivage.core.certificates import Certificate
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.federated.stream_shares import bound, effective_records, historical_share

__all__ = ["is_streamed", "stream_share"]


def is_streamed(trial: TrialRecord) -> bool:
    """Whether a trial's server has chosen a share of historical data among arriving ones."""
    rounds = trial.events("round")
    told = bool(rounds) and "historical" in rounds[-1].get("server", {})
    found = trial.start.get("stream", {})
    return told and min(found.get("historical", 0), found.get("fresh", 0)) > 0


def stream_share(record: RunRecord, *, method: str) -> Certificate:
    """How far are the weights of a run from those that minimise the bound ψ, and how many records are they worth?

    p is the mean over rounds of the historical share of what arrived, κ the one given or last estimated, 0 where the
    strategy asks for none. All are means over seeds.
    """
    rows = [_judged(record.trial(method, seed)) for seed in record.seeds]
    share, kappa, effective, held, value, least = np.mean(rows, axis=0).tolist()
    return Certificate(
        kind="gap",
        claim=f"{method} gives historical data the share {share:.3f}: its {held:,.0f} records are worth "
        f"{effective:,.0f} of equal weight, and the bound is {100 * (value / least - 1):.2g} % above its least at "
        f"kappa {kappa:.3g}.",
        measured=value,
        reference=least,
        method="√(p²/N_H + (1 − p)²/N_F) + κ v (1 − p)/√N_F at the mean share that arrived, against its minimum in "
        f"closed form; means over {len(rows)} seeds; the bound has the form of the true error, not its size",
        confidence=None,
        verdict="holds" if value >= least * (1 - 1e-9) else "fails",
        check="stream_share",
        fields={"method": method},
    )


def _judged(trial: TrialRecord) -> tuple[float, ...]:
    """p, κ, N_eff, N, ψ(p) / A and its minimum, of one trial."""
    stream, server = trial.start["stream"], [event["server"] for event in trial.events("round")]
    counts = np.array([stream["historical"], stream["fresh"]], np.float64)
    drift = np.array([0.0, stream["drift"]])
    share = float(np.mean([values["historical"] for values in server]))
    kappa = _kappa(trial.start["settings"], server[-1], counts[0])
    best = historical_share(counts[0], counts[1], kappa * drift[1])
    used, least = (np.array([p, 1 - p]) for p in (share, best))
    return (
        share,
        kappa,
        effective_records(used, counts),
        float(counts.sum()),
        bound(used, counts, drift, kappa),
        bound(least, counts, drift, kappa),
    )


def _kappa(settings: dict[str, Any], server: dict[str, float], historical: float) -> float:
    """As given or last estimated, and finite: beyond √(N_F / N_H) nothing depends on it but the bound's size."""
    if isinstance(given := settings.get("kappa"), int | float):
        return float(given)
    gap = server.get("gap", 0.0)
    if gap <= 0:
        return 0.0
    return float(settings["caution"] * server["distance"] * math.sqrt(server["noise"] / historical) / gap)
